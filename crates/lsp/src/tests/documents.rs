//! The server's documents are the editor's, whatever is typed.

use serde_json::{Value, json};

use super::editor::{Editor, URI, never};

/// What an editor may insert: characters of 1 to 4 bytes, marks and joiners, all line ends, and separators that are
/// none in LSP.
const PIECES: [&str; 17] = [
    "x",
    "foo(",
    " ",
    "\t",
    "é",
    "ß",
    "漢字",
    "😀",
    "👩‍👩‍👧‍👦",
    "e\u{301}\u{323}",
    "🇩🇪",
    "\n",
    "\r\n",
    "\r",
    "\u{2028}",
    "\u{85}",
    "a\r\n😀b\n",
];

/// xorshift64*: the same edits each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }
}

/// The simplest model of a text there is, to compare with.
struct Model {
    text: String,
    /// How many units a character counts.
    units: fn(char) -> usize,
}

impl Model {
    /// Returns the offsets an editor's cursor can be at: between characters, but not inside `\r\n`.
    fn boundaries(&self) -> Vec<usize> {
        let bytes = self.text.as_bytes();
        let is_inside_break = |&at: &usize| at > 0 && bytes[at - 1] == b'\r' && bytes.get(at) == Some(&b'\n');
        let all = self.text.char_indices().map(|(at, _)| at).chain([self.text.len()]);
        all.filter(|at| !is_inside_break(at)).collect()
    }

    fn position(&self, offset: usize) -> Value {
        let (mut line, mut character) = (0, 0);
        let mut chars = self.text[..offset].chars().peekable();
        while let Some(c) = chars.next() {
            if c == '\n' || c == '\r' {
                chars.next_if(|&next| c == '\r' && next == '\n');
                (line, character) = (line + 1, 0);
            } else {
                character += (self.units)(c);
            }
        }
        json!({ "line": line, "character": character })
    }

    /// Makes an edit and returns it as an editor would send it.
    fn edit(&mut self, random: &mut Random) -> Value {
        let boundaries = self.boundaries();
        let start_idx = random.below(boundaries.len());
        // Texts stay around a hundred lines: a long one is cut more often than it grows.
        let n_most = if self.text.len() > 2000 { 200 } else { 8 };
        let n_cut = if random.below(2) == 0 { 0 } else { random.below(n_most) };
        let end_idx = (start_idx + n_cut).min(boundaries.len() - 1);
        let inserted: String = (0..random.below(4)).map(|_| PIECES[random.below(PIECES.len())]).collect();
        let (start, end) = (boundaries[start_idx], boundaries[end_idx]);
        let range = json!({ "start": self.position(start), "end": self.position(end) });
        self.text.replace_range(start..end, &inserted);
        json!({ "range": range, "text": inserted })
    }
}

async fn check(encoding: &'static str, units: fn(char) -> usize, seed: u64) {
    let capabilities = json!({ "general": { "positionEncodings": [encoding] } });
    let (mut editor, server) = Editor::start(never(), capabilities).await;
    assert_eq!(server["positionEncoding"], encoding);
    let mut random = Random(seed);
    let mut model = Model { text: "def f():\r\n    return '😀'\n".to_owned(), units };
    editor.open(URI, &model.text, 0).await;
    let (mut n_edits, mut version) = (0, 0);
    while n_edits < 10_000 {
        let changes: Vec<Value> = (0..=random.below(3)).map(|_| model.edit(&mut random)).collect();
        n_edits += changes.len();
        version += 1 + random.below(2) as i32;
        editor.change(URI, version, json!(changes)).await;
        if version % 500 == 0 || n_edits >= 10_000 {
            let expected = json!({ "text": model.text, "version": version, "isInSync": true });
            assert_eq!(editor.document(URI).await, expected, "{encoding} after {n_edits} edits");
        }
    }
    editor.quit().await;
}

#[tokio::test]
async fn ten_thousand_edits_in_utf8_leave_both_sides_with_the_same_text() {
    check("utf-8", char::len_utf8, 0x5EED_0008).await;
}

#[tokio::test]
async fn ten_thousand_edits_in_utf16_leave_both_sides_with_the_same_text() {
    check("utf-16", char::len_utf16, 0x5EED_0016).await;
}

#[tokio::test]
async fn ten_thousand_edits_in_utf32_leave_both_sides_with_the_same_text() {
    check("utf-32", |_| 1, 0x5EED_0032).await;
}

#[tokio::test]
async fn i_8_a_stale_change_is_refused_and_the_document_waits_for_the_whole_text() {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    editor.open(URI, "one\n", 5).await;
    let at = json!({ "line": 0, "character": 0 });
    let insert = json!([{ "range": { "start": at, "end": at }, "text": "x" }]);
    for version in [5, 4, 6] {
        editor.change(URI, version, insert.clone()).await;
    }
    assert_eq!(editor.document(URI).await, json!({ "text": "one\n", "version": 5, "isInSync": false }));
    let id = editor.ask_at(URI, 0, 1).await;
    assert_eq!(
        editor.answer(&id).await["result"],
        Value::Null,
        "I-8: no ghost text for a text we do not know"
    );
    let is_log = |message: &Value| message["method"] == "window/logMessage";
    assert!(
        editor.wait_for(is_log).await["params"]["message"].as_str().is_some_and(|text| text.contains(URI))
    );

    editor.open(URI, "two\n", 1).await;
    assert_eq!(editor.document(URI).await, json!({ "text": "two\n", "version": 1, "isInSync": true }));
    editor.change(URI, 2, insert).await;
    assert_eq!(editor.document(URI).await["text"], "xtwo\n");
    assert_eq!(editor.heard.iter().filter(|message| is_log(message)).count(), 1, "it is said once");
    editor.quit().await;
}

const OTHER: &str = "file:///b.py";

async fn two_documents() -> Editor {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    editor.open(URI, "one\n", 1).await;
    editor.open(OTHER, "two\n", 1).await;
    editor
}

/// Checks which documents the server believes, and that the editor heard once of what it does not.
async fn check_lost(mut editor: Editor, is_in_sync: [bool; 2]) {
    for (uri, is_in_sync) in [URI, OTHER].into_iter().zip(is_in_sync) {
        assert_eq!(editor.document(uri).await["isInSync"], is_in_sync, "{uri}");
    }
    let id = editor.ask_at(URI, 0, 1).await;
    assert_eq!(editor.answer(&id).await["result"], Value::Null, "I-8");
    let is_log = |message: &Value| message["method"] == "window/logMessage";
    let log = editor.wait_for(is_log).await["params"]["message"].take();
    assert!(log.as_str().is_some_and(|log| !log.contains("SECRET")), "{log}");
    editor.change(URI, 9, json!([{ "text": "whole" }])).await;
    let expected = json!({ "text": "whole", "version": 9, "isInSync": true });
    assert_eq!(editor.document(URI).await, expected);
    let n_logs = editor.heard.iter().filter(|message| is_log(message)).count();
    assert_eq!(n_logs, 1, "it is said once");
    editor.quit().await;
}

#[tokio::test]
async fn a_change_that_cannot_be_understood_is_a_change_all_the_same() {
    for method in ["textDocument/didChange", "textDocument/didOpen"] {
        let mut editor = two_documents().await;
        let open = editor.ask_at(URI, 0, 1).await;
        for _ in 0..2 {
            let document = json!({ "uri": URI, "version": "2", "text": "SECRET" });
            editor.tell(method, json!({ "textDocument": document, "contentChanges": [] })).await;
        }
        assert_eq!(editor.answer(&open).await["result"], Value::Null);
        check_lost(editor, [false, true]).await;
        let mut editor = two_documents().await;
        for _ in 0..2 {
            editor.tell(method, json!({ "contentChanges": "SECRET" })).await;
        }
        check_lost(editor, [false, false]).await;
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_read_may_have_been_a_change_of_any_document() {
    for body in [&b"{\"SECRET\": \"\xED\xA0\xBD\"}"[..], b"{\"SECRET\": \"\\ud8\"}"] {
        let mut editor = two_documents().await;
        let open = editor.ask_at(URI, 0, 1).await;
        for _ in 0..2 {
            editor.send_bytes(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes()).await;
            editor.send_bytes(body).await;
        }
        assert_eq!(editor.answer(&open).await["result"], Value::Null);
        let refusal = editor.wait_for(|message| message.get("error").is_some()).await;
        assert_eq!(refusal["error"]["code"], -32700);
        check_lost(editor, [false, false]).await;
    }
}

#[tokio::test]
async fn half_of_a_surrogate_pair_is_one_column_and_the_next_edit_fits() {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    let body = format!(
        r#"{{"jsonrpc":"2.0","method":"textDocument/didOpen","params":{{"textDocument":{{"uri":"{URI}","languageId":"python","version":1,"text":"a\ud83db😀c"}}}}}}"#
    );
    editor.send_bytes(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
    let (start, end) = (json!({ "line": 0, "character": 2 }), json!({ "line": 0, "character": 5 }));
    let edit = json!([{ "range": { "start": start, "end": end }, "text": "x" }]);
    editor.change(URI, 2, edit).await;
    let expected = json!({ "text": "a\u{fffd}xc", "version": 2, "isInSync": true });
    assert_eq!(editor.document(URI).await, expected);
    editor.quit().await;
}

#[tokio::test]
async fn a_document_that_is_closed_is_forgotten() {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    editor.open(URI, "one\n", 1).await;
    let id = editor.ask_at(URI, 0, 1).await;
    editor.tell("textDocument/didClose", json!({ "textDocument": { "uri": URI } })).await;
    assert_eq!(editor.answer(&id).await["result"], Value::Null);
    assert_eq!(editor.document(URI).await, Value::Null);
    let id = editor.ask_at(URI, 0, 1).await;
    assert_eq!(editor.answer(&id).await["result"], Value::Null);
    editor.quit().await;
}
