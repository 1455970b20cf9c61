//! Every request is answered once, with what it deserves.

use serde_json::{Value, json};

use super::editor::{Editor, URI, never};

async fn editor() -> Editor {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    editor.open(URI, "x = \n", 1).await;
    editor
}

#[tokio::test]
async fn a_cancelled_request_is_answered_as_cancelled_while_the_model_loads() {
    let mut editor = editor().await;
    let id = editor.ask_at(URI, 0, 4).await;
    editor.cancel(&id).await;
    assert_eq!(editor.answer(&id).await["error"]["code"], -32800);
    editor.cancel(&id).await;
    editor.quit().await;
}

#[tokio::test]
async fn a_cancellation_ahead_of_its_request_is_for_nobody() {
    let mut editor = editor().await;
    editor.cancel(&json!(3)).await;
    editor.document(URI).await;
    let id = editor.ask_at(URI, 0, 4).await;
    assert_eq!(id, 3);
    editor.change(URI, 2, json!([{ "text": "y" }])).await;
    assert_eq!(editor.answer(&id).await["result"], Value::Null, "not cancelled but out of date");
    editor.quit().await;
}

#[tokio::test]
async fn a_newer_request_for_the_same_document_answers_the_older_with_null() {
    let mut editor = editor().await;
    editor.open("file:///b.py", "y = ", 1).await;
    let other = editor.ask_at("file:///b.py", 0, 4).await;
    let older = editor.ask_at(URI, 0, 4).await;
    let newer = editor.ask_at(URI, 0, 4).await;
    let answer = editor.answer(&older).await;
    assert!(answer["result"].is_null() && answer.get("error").is_none(), "{answer}");
    editor.document(URI).await;
    let is_answered = |id: &Value| editor.heard.iter().any(|message| message["id"] == *id);
    assert!(!is_answered(&other) && !is_answered(&newer));
    editor.quit().await;
}

#[tokio::test]
async fn a_change_answers_what_is_open_for_its_document_with_null() {
    let mut editor = editor().await;
    let id = editor.ask_at(URI, 0, 4).await;
    editor.change(URI, 2, json!([{ "text": "x = 1" }])).await;
    assert_eq!(editor.answer(&id).await["result"], Value::Null);
    editor.quit().await;
}

#[tokio::test]
async fn a_request_for_a_line_that_does_not_exist_is_refused() {
    let mut editor = editor().await;
    let id = editor.ask_at(URI, 9, 0).await;
    let error = editor.answer(&id).await["error"].take();
    assert_eq!(error["code"], -32602);
    assert!(error["message"].as_str().is_some_and(|text| text.contains("line 10")), "{error}");
    let id = editor.ask("textDocument/inlineCompletion", json!({ "position": 1 })).await;
    assert_eq!(editor.answer(&id).await["error"]["code"], -32602);
    editor.quit().await;
}

#[tokio::test]
async fn an_id_that_is_still_open_is_refused_and_the_first_request_stays() {
    let mut editor = editor().await;
    let id = editor.ask_at(URI, 0, 4).await;
    let position = json!({ "line": 0, "character": 4 });
    let params = json!({
        "textDocument": { "uri": URI }, "position": position, "context": { "triggerKind": 1 },
    });
    let method = "textDocument/inlineCompletion";
    editor.send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await;
    assert_eq!(editor.answer(&id).await["error"]["code"], -32600);
    // The harness counts one response for each id: forget the refusal of the second use.
    editor.heard.retain(|message| message["id"] != id);
    editor.cancel(&id).await;
    assert_eq!(editor.answer(&id).await["error"]["code"], -32800);
    editor.quit().await;
}
