//! What becomes of ghost text, as an editor says it or not.

use serde_json::{Value, json};

use super::editor::{Editor, URI, never};
use super::model::real;
use crate::fate::{Fate, FateEvent};

const CODE: &str = "def area(w, h):\n    return w * h\n\n\ndef volume(w, h, d):\n    return ";

/// Inserts a text at a place, as an editor that accepts it.
async fn insert(editor: &mut Editor, version: i32, at: &Value, text: &str) {
    let range = json!({ "start": at, "end": at });
    editor.change(URI, version, json!([{ "range": range, "text": text }])).await;
}

async fn execute(editor: &mut Editor, command: &Value) -> Value {
    let id = editor
        .ask(
            "workspace/executeCommand",
            json!({ "command": command["command"], "arguments": command["arguments"] }),
        )
        .await;
    editor.answer(&id).await
}

async fn item(editor: &mut Editor) -> Value {
    let id = editor.ask_at(URI, 5, 11).await;
    editor.answer(&id).await["result"]["items"][0].take()
}

fn fates(editor: &Editor) -> Vec<Fate> {
    editor.fates.lock().expect("it").iter().map(|event: &FateEvent| event.fate).collect()
}

#[tokio::test]
async fn each_item_has_a_command_that_says_it_was_accepted_and_the_change_says_it_too() {
    let (mut editor, capabilities) = Editor::start(real(), json!({})).await;
    let commands = capabilities["executeCommandProvider"]["commands"].clone();
    editor.open(URI, CODE, 1).await;
    let first = item(&mut editor).await;
    assert!(commands.as_array().is_some_and(|all| all.contains(&first["command"]["command"])), "{commands}");
    let text = first["insertText"].as_str().expect("a text").to_owned();
    let n_chars = text.chars().count();
    insert(&mut editor, 2, &first["range"]["start"], &text).await;
    assert_eq!(execute(&mut editor, &first["command"]).await["result"], Value::Null);
    assert_eq!(fates(&editor), [Fate::Shown, Fate::Accepted { n_chars }]);
    let event = editor.fates.lock().expect("it")[1].clone();
    assert_eq!((event.uri.as_str(), event.language_id.as_str(), event.line), (URI, "python", 5));
    assert_eq!((event.insert, event.offset.0, event.n_typed_chars), (text, CODE.len(), 0));
    let evidence = event.evidence;
    assert!(
        evidence.confidence > 0.0 && evidence.mean_logprob < 0.0 && evidence.n_tokens > 0,
        "{evidence:?}"
    );
    editor.quit().await;
}

#[tokio::test]
async fn an_editor_may_say_what_it_showed_and_how_much_was_taken() {
    let (mut editor, _) = Editor::start(real(), json!({})).await;
    editor.open(URI, CODE, 1).await;
    let first = item(&mut editor).await;
    editor.tell("textDocument/didShowCompletion", json!({ "item": first })).await;
    let params = json!({ "item": first, "acceptedLength": 1 });
    editor.tell("textDocument/didPartiallyAcceptCompletion", params).await;
    execute(&mut editor, &first["command"]).await;
    let n_chars = first["insertText"].as_str().expect("a text").chars().count();
    let fates = fates(&editor);
    assert_eq!((fates[0], fates.last()), (Fate::Shown, Some(&Fate::Accepted { n_chars })));
    editor.quit().await;
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_and_costs_nothing() {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    for params in [
        json!({ "command": "tandem.accepted" }),
        json!({ "command": "tandem.accepted", "arguments": [7] }),
        json!({ "command": "somebody.elses" }),
        json!({}),
    ] {
        let id = editor.ask("workspace/executeCommand", params).await;
        assert_eq!(editor.answer(&id).await["error"]["code"], -32602);
    }
    let known_to_nobody = json!({ "command": "tandem.accepted", "arguments": ["0-0"] });
    assert_eq!(execute(&mut editor, &known_to_nobody).await["result"], Value::Null);
    editor.tell("textDocument/didShowCompletion", json!({ "item": {} })).await;
    editor
        .tell("textDocument/didPartiallyAcceptCompletion", json!({ "item": {}, "acceptedLength": -1 }))
        .await;
    assert_eq!(fates(&editor), []);
    editor.quit().await;
}
