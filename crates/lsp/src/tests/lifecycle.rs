//! initialize, shutdown, exit, and the editor that goes away.

use serde_json::{Value, json};

use super::editor::{Editor, URI, never};
use crate::SessionEnd;

#[tokio::test]
async fn the_server_says_what_it_can_do() {
    let knows = json!({ "textDocument": { "inlineCompletion": {} } });
    let (editor, server) = Editor::start(never(), knows).await;
    let expected = json!({
        "positionEncoding": "utf-16",
        "textDocumentSync": { "openClose": true, "change": 2, "save": true },
        "inlineCompletionProvider": true,
        "executeCommandProvider": { "commands": ["tandem.accepted", "tandem.snooze", "tandem.unsnooze"] },
        "workspace": { "workspaceFolders": { "supported": true, "changeNotifications": true } },
    });
    assert_eq!(server, expected);
    editor.quit().await;
}

#[tokio::test]
async fn requests_before_initialize_are_refused_and_notifications_dropped() {
    let mut editor = Editor::connect(never());
    editor.open(URI, "x", 1).await;
    for method in ["textDocument/inlineCompletion", "tandem/documentText", "textDocument/hover", "shutdown"] {
        let id = editor.ask(method, json!({})).await;
        assert_eq!(editor.answer(&id).await["error"]["code"], -32002, "{method}");
    }
    let id = editor.ask("initialize", json!({ "capabilities": {} })).await;
    assert!(editor.answer(&id).await["result"]["capabilities"].is_object());
    assert_eq!(editor.document(URI).await, Value::Null);
    let again = editor.ask("initialize", json!({ "capabilities": {} })).await;
    assert_eq!(editor.answer(&again).await["error"]["code"], -32600);
    editor.quit().await;
}

#[tokio::test]
async fn initialize_with_bad_parameters_is_refused_and_may_be_tried_again() {
    let mut editor = Editor::connect(never());
    let id = editor.ask("initialize", json!({ "capabilities": 5 })).await;
    assert_eq!(editor.answer(&id).await["error"]["code"], -32602);
    let id = editor.ask("initialize", json!({ "capabilities": {} })).await;
    assert!(editor.answer(&id).await["result"].is_object());
    editor.quit().await;
}

#[tokio::test]
async fn after_shutdown_open_requests_are_answered_and_new_ones_refused() {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    editor.open(URI, "x = ", 1).await;
    let open = editor.ask_at(URI, 0, 4).await;
    let id = editor.ask("shutdown", Value::Null).await;
    assert_eq!(editor.answer(&open).await["result"], Value::Null);
    assert_eq!(editor.answer(&id).await["result"], Value::Null);
    for method in ["textDocument/inlineCompletion", "textDocument/hover", "shutdown", "initialize"] {
        let id = editor.ask(method, json!({ "capabilities": {} })).await;
        assert_eq!(editor.answer(&id).await["error"]["code"], -32600, "{method}");
    }
    editor.tell("exit", Value::Null).await;
    // The editor leaves its end open: `exit` is enough.
    let end = editor.end().await;
    assert_eq!((end, end.exit_code()), (SessionEnd::Clean, 0));
}

#[tokio::test]
async fn exit_without_shutdown_is_exit_code_1_and_still_answers() {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    editor.open(URI, "x = ", 1).await;
    editor.ask_at(URI, 0, 4).await;
    editor.tell("exit", Value::Null).await;
    let end = editor.end().await;
    assert_eq!((end, end.exit_code()), (SessionEnd::NotShutDown, 1));
}

#[tokio::test]
async fn a_closed_input_ends_the_session_though_a_request_is_open() {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    editor.open(URI, "x = ", 1).await;
    editor.ask_at(URI, 0, 4).await;
    editor.hang_up();
    let end = editor.end().await;
    assert_eq!((end, end.exit_code()), (SessionEnd::InputClosed, 1));
}

#[cfg(unix)]
#[tokio::test]
async fn the_server_ends_when_the_editors_process_is_gone() {
    let mut process = std::process::Command::new("sleep").arg("600").spawn().expect("sleep(1)");
    let mut editor = Editor::connect(never());
    let id = editor.ask("initialize", json!({ "processId": process.id(), "capabilities": {} })).await;
    editor.answer(&id).await;
    process.kill().expect("ours");
    process.wait().expect("ours");
    assert_eq!(editor.end().await, SessionEnd::EditorGone);
}

#[tokio::test]
async fn what_editors_send_unasked_makes_no_noise() {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    editor.tell("workspace/didChangeConfiguration", json!({ "settings": {} })).await;
    editor.tell("workspace/didChangeWatchedFiles", json!({ "changes": [] })).await;
    editor.tell("textDocument/didSave", json!({ "textDocument": { "uri": URI } })).await;
    editor.tell("$/setTrace", json!({ "value": "off" })).await;
    editor.tell("$/unknown", json!({})).await;
    editor.tell("unknown/notification", json!({})).await;
    editor.tell("textDocument/didOpen", json!({ "nonsense": true })).await;
    editor.cancel(&json!(12345)).await;
    let n_heard = editor.heard.len();
    let id = editor.ask("unknown/request", json!({})).await;
    assert_eq!(editor.answer(&id).await["error"]["code"], -32601);
    assert_eq!(editor.heard.len(), n_heard + 1, "{:?}", editor.heard);
    editor.quit().await;
}
