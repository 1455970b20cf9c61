//! Our answers to LSP's messages.
//!
//! In: [`Answer`]. Out: JSON-RPC responses and errors.
//! Source: LSP 3.18, "Inline Completion Request".

use serde_json::json;
use text::{Position, PositionEncoding};
use tower_lsp::jsonrpc::{Error, ErrorCode, Id, Response};
use tower_lsp::ls_types::{self as lsp, InlineCompletionItem, InlineCompletionList, PositionEncodingKind};

use crate::from_proto::ACCEPTED;
use crate::main_loop::{Answer, Shown};

/// Returns the one response to a request.
pub(crate) fn response(id: Id, answer: Answer) -> Response {
    let result = match answer {
        Answer::Ghost(shown) => Ok(json!(InlineCompletionList { items: vec![item(shown)] })),
        Answer::Nothing => Ok(serde_json::Value::Null),
        Answer::Text { text, version, is_in_sync } => {
            Ok(json!({ "text": text, "version": version, "isInSync": is_in_sync }))
        }
        Answer::Json(value) => Ok(value),
        Answer::Cancelled => Err(Error::request_cancelled()),
        Answer::Refused(reason) => Err(Error::invalid_params(reason)),
        Answer::Duplicate => {
            Err(error(ErrorCode::InvalidRequest, "a request with this id is not answered yet".to_owned()))
        }
        Answer::Failed(reason) => Err(error(ErrorCode::InternalError, reason)),
    };
    Response::from_parts(id, result)
}

/// Returns the one response to a request of an editor that knows no ghost text: at most one item of its list.
pub(crate) fn list(id: Id, answer: Answer) -> Response {
    let items = match answer {
        Answer::Ghost(shown) => vec![list_item(shown)],
        Answer::Nothing => Vec::new(),
        other => return response(id, other),
    };
    // Incomplete: it is another one after each key.
    let list = lsp::CompletionList { is_incomplete: true, items };
    Response::from_ok(id, json!(list))
}

/// Returns an error of JSON-RPC.
pub(crate) fn error(code: ErrorCode, message: String) -> Error {
    Error { code, message: message.into(), data: None }
}

/// Returns LSP's name of an encoding.
pub(crate) fn encoding(encoding: PositionEncoding) -> PositionEncodingKind {
    match encoding {
        PositionEncoding::Utf8 => PositionEncodingKind::UTF8,
        PositionEncoding::Utf16 => PositionEncodingKind::UTF16,
        PositionEncoding::Utf32 => PositionEncodingKind::UTF32,
    }
}

/// No `insertTextFormat`: the default is plain text, so that a `$` of the model is a `$`.
fn item(shown: Shown) -> InlineCompletionItem {
    let range = lsp::Range { start: position(shown.start), end: position(shown.end) };
    InlineCompletionItem {
        insert_text: shown.insert,
        filter_text: None,
        range: Some(range),
        command: Some(accepted(shown.id)),
        insert_text_format: None,
    }
}

/// It begins with the word before the cursor, by which editors filter, and goes below what others offer.
fn list_item(shown: Shown) -> lsp::CompletionItem {
    let text = shown.word + &shown.insert;
    let range = lsp::Range { start: position(shown.word_start), end: position(shown.end) };
    lsp::CompletionItem {
        label: text.lines().next().unwrap_or_default().trim().to_owned(),
        detail: Some("Tandem".to_owned()),
        documentation: Some(lsp::Documentation::String(text.clone())),
        preselect: Some(false),
        // Behind all letters.
        sort_text: Some("~~~~".to_owned()),
        filter_text: Some(text.lines().next().unwrap_or_default().to_owned()),
        insert_text_format: Some(lsp::InsertTextFormat::PLAIN_TEXT),
        // Its indentation is right as it is.
        insert_text_mode: Some(lsp::InsertTextMode::AS_IS),
        text_edit: Some(lsp::CompletionTextEdit::Edit(lsp::TextEdit { range, new_text: text })),
        command: Some(accepted(shown.id)),
        ..lsp::CompletionItem::default()
    }
}

/// Returns the command that says that an item was accepted.
fn accepted(item: String) -> lsp::Command {
    let (title, command) = ("Tandem: accepted".to_owned(), ACCEPTED.to_owned());
    lsp::Command { title, command, arguments: Some(vec![item.into()]) }
}

fn position(position: Position) -> lsp::Position {
    lsp::Position { line: position.line, character: position.character }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ghost_text_becomes_a_list_with_a_range_and_plain_text() {
        let at = Position { line: 1, character: 2 };
        let answer = Answer::Ghost(shown(at));
        let response = serde_json::to_value(response(Id::Number(7), answer)).expect("JSON");
        let at = json!({ "line": 1, "character": 2 });
        let command = json!({ "title": "Tandem: accepted", "command": ACCEPTED, "arguments": ["1-2"] });
        let range = json!({ "start": at, "end": at });
        let items = json!([{ "insertText": "f($1)\n", "range": range, "command": command }]);
        assert_eq!(response, json!({ "jsonrpc": "2.0", "id": 7, "result": { "items": items } }));
    }

    fn shown(at: Position) -> Shown {
        let word_start = Position { line: at.line, character: at.character - 2 };
        let (id, insert, word) = ("1-2".to_owned(), "f($1)\n".to_owned(), "de".to_owned());
        Shown { id, insert, start: at, end: at, word, word_start }
    }

    #[test]
    fn an_editor_without_ghost_text_gets_one_item_for_the_end_of_its_list() {
        let at = Position { line: 1, character: 2 };
        let response = serde_json::to_value(list(Id::Number(7), Answer::Ghost(shown(at)))).expect("JSON");
        assert_eq!(response["result"]["isIncomplete"], true);
        let item = &response["result"]["items"][0];
        assert_eq!((&item["label"], &item["filterText"]), (&json!("def($1)"), &json!("def($1)")));
        assert_eq!(item["documentation"], "def($1)\n");
        assert_eq!((&item["preselect"], &item["insertTextFormat"]), (&json!(false), &json!(1)));
        let range = json!({ "start": { "line": 1, "character": 0 }, "end": { "line": 1, "character": 2 } });
        assert_eq!(item["textEdit"], json!({ "range": range, "newText": "def($1)\n" }));
        assert_eq!(item["command"]["arguments"], json!(["1-2"]));
        let nothing = serde_json::to_value(list(Id::Number(7), Answer::Nothing)).expect("JSON");
        assert_eq!(nothing["result"], json!({ "isIncomplete": true, "items": [] }));
        let cancelled = serde_json::to_value(list(Id::Number(7), Answer::Cancelled)).expect("JSON");
        assert_eq!(cancelled["error"]["code"], -32800);
    }

    #[test]
    fn no_ghost_text_is_null_and_cancelled_is_an_error() {
        let nothing = serde_json::to_value(response(Id::Number(1), Answer::Nothing)).expect("JSON");
        assert_eq!(nothing, json!({ "jsonrpc": "2.0", "id": 1, "result": null }));
        let cancelled = serde_json::to_value(response(Id::Number(1), Answer::Cancelled)).expect("JSON");
        assert_eq!(cancelled["error"]["code"], -32800);
    }
}
