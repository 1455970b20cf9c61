//! Bytes that are no messages: an error for each, then the session goes on or ends; never a panic.

use serde_json::json;

use super::editor::{Editor, URI, never};
use crate::SessionEnd;

async fn refused(body: &[u8], code: i64) {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    editor.send_bytes(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes()).await;
    editor.send_bytes(body).await;
    let is_error = |message: &serde_json::Value| message.get("error").is_some();
    let refusal = editor.wait_for(is_error).await;
    assert_eq!(refusal["error"]["code"], code, "{}", String::from_utf8_lossy(body));
    assert!(refusal["id"].is_null(), "{refusal}");
    // The next message is understood.
    editor.open(URI, "x", 1).await;
    assert_eq!(editor.document(URI).await["text"], "x");
    editor.quit().await;
}

#[tokio::test]
async fn a_body_that_is_no_message_costs_itself_only() {
    refused(b"", -32700).await;
    refused(b"{\"jsonrpc\":\"2.0\",\"method\":", -32700).await;
    refused(b"{\"jsonrpc\":\"2.0\",\"method\":\"a\xFF\xFE\"}", -32700).await;
    refused("[".repeat(100_000).as_bytes(), -32700).await;
    refused(b"[]", -32600).await;
    refused(b"{\"jsonrpc\":\"2.0\"}", -32600).await;
    refused(b"{\"jsonrpc\":\"1.0\",\"method\":\"exit\"}", -32600).await;
    refused(b"{\"jsonrpc\":\"2.0\",\"method\":\"shutdown\",\"id\":1.5}", -32600).await;
    refused(b"{\"jsonrpc\":\"2.0\",\"method\":7,\"id\":{}}", -32600).await;
}

#[tokio::test]
async fn a_refused_message_with_an_id_is_answered_under_it() {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    editor.send(json!({ "jsonrpc": "1.0", "id": "a", "method": "shutdown" })).await;
    assert_eq!(editor.answer(&json!("a")).await["error"]["code"], -32600);
    editor.heard.pop();
    editor.quit().await;
}

#[tokio::test]
async fn a_response_nobody_waits_for_is_read_over() {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    editor.send(json!({ "jsonrpc": "2.0", "id": 99, "result": {} })).await;
    editor.send(json!({ "jsonrpc": "2.0", "id": null, "error": { "code": 1, "message": "" } })).await;
    editor.open(URI, "x", 1).await;
    assert_eq!(editor.document(URI).await["text"], "x");
    editor.quit().await;
}

#[tokio::test]
async fn headers_are_read_as_the_standard_says() {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    let body = json!({ "jsonrpc": "2.0", "method": "$/setTrace", "params": { "value": "off" } }).to_string();
    let kind = "Content-Type: application/vscode-jsonrpc; charset=utf-8";
    editor
        .send_bytes(format!("{kind}\r\nX-Other: 1\r\ncontent-length:{}\r\n\r\n{body}", body.len()).as_bytes())
        .await;
    editor.open(URI, "x", 1).await;
    assert_eq!(editor.document(URI).await["text"], "x");
    editor.quit().await;
}

#[tokio::test]
async fn a_header_without_a_usable_length_ends_the_session_with_an_error() {
    let long = format!("X: {}", "x".repeat(1 << 20));
    let cases = [
        "Content-Length: -1",
        "Content-Length: 1e3",
        "Content-Length: 18446744073709551616",
        "Content-Length: 9223372036854775807",
        "Content-Type: text/plain",
        "",
        &long,
    ];
    for header in cases {
        let (mut editor, _) = Editor::start(never(), json!({})).await;
        editor.open(URI, "x = ", 1).await;
        editor.ask_at(URI, 0, 4).await;
        editor.send_bytes(format!("{header}\r\n\r\n{{}}").as_bytes()).await;
        let error = editor.wait_for(|message| message.get("error").is_some()).await;
        assert_eq!(error["error"]["code"], -32700, "{header:.40}");
        let end = editor.end().await;
        assert_eq!((end, end.exit_code()), (SessionEnd::Garbled, 1), "{header:.40}");
    }
}

#[tokio::test]
async fn an_input_that_ends_inside_a_message_ends_the_session() {
    for bytes in ["Content-Len", "Content-Length: 100\r\n", "Content-Length: 100\r\n\r\n{\"json"] {
        let (mut editor, _) = Editor::start(never(), json!({})).await;
        editor.send_bytes(bytes.as_bytes()).await;
        editor.hang_up();
        assert_eq!(editor.end().await, SessionEnd::InputClosed, "{bytes:?}");
    }
}
