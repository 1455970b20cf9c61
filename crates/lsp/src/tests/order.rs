//! A request that waits holds up nothing; and why tower-lsp's own `Server` is not used for that.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_lsp::jsonrpc::{Request, Response, Result};
use tower_lsp::ls_types::{InitializeParams, InitializeResult};
use tower_lsp::{LanguageServer, LspService, Server};

use super::editor::{Editor, never};

/// More than tower-lsp's 4 running and 100 waiting handlers.
const N_REQUESTS: u32 = 300;

#[tokio::test]
async fn three_hundred_open_requests_hold_up_neither_a_change_nor_a_cancellation() {
    let (mut editor, _) = Editor::start(never(), json!({})).await;
    let uri = |idx: u32| format!("file:///{idx}.py");
    let mut ids = Vec::new();
    for idx in 0..N_REQUESTS {
        editor.open(&uri(idx), "x = ", 1).await;
        ids.push(editor.ask_at(&uri(idx), 0, 4).await);
    }
    let last = uri(N_REQUESTS - 1);
    editor.change(&last, 2, json!([{ "text": "y" }])).await;
    assert_eq!(editor.document(&last).await["text"], "y");
    for id in &ids[..ids.len() - 1] {
        editor.cancel(id).await;
    }
    for id in &ids[..ids.len() - 1] {
        assert_eq!(editor.answer(id).await["error"]["code"], -32800);
    }
    editor.quit().await;
}

/// A backend whose one request never ends.
struct Stuck;

impl LanguageServer for Stuck {
    async fn initialize(&self, _: InitializeParams) -> Result<InitializeResult> {
        Ok(InitializeResult::default())
    }

    async fn shutdown(&self) -> Result<()> {
        Ok(())
    }
}

impl Stuck {
    async fn wait(&self) -> Result<()> {
        std::future::pending().await
    }
}

/// Sends messages to tower-lsp's own `Server` and returns what comes back within a second.
async fn theirs(messages: Vec<String>) -> String {
    let (service, socket) = LspService::build(|_| Stuck).custom_method("wait", Stuck::wait).finish();
    let (mut to_server, input) = tokio::io::duplex(1 << 20);
    let (output, mut from_server) = tokio::io::duplex(1 << 20);
    let server = tokio::spawn(Server::new(input, output, socket).serve(service));
    let mut heard = Vec::new();
    let initialize =
        Request::build("initialize").id(0).params(json!({ "capabilities": {} })).finish().to_string();
    to_server.write_all(&frame(&initialize)).await.expect("room");
    // Only then is it initialized.
    from_server.read_buf(&mut heard).await.expect("the answer");
    for body in messages {
        to_server.write_all(&frame(&body)).await.expect("room");
    }
    let hear = async { while from_server.read_buf(&mut heard).await.is_ok_and(|n| n > 0) {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), hear).await;
    server.abort();
    String::from_utf8(heard).expect("UTF-8")
}

fn frame(body: &str) -> Vec<u8> {
    format!("Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn waiting(n: u32) -> Vec<String> {
    (1..=n).map(|id| Request::build("wait").id(i64::from(id)).finish().to_string()).collect()
}

fn cancel(id: u32) -> String {
    Request::build("$/cancelRequest").params(json!({ "id": id })).finish().to_string()
}

/// Watches tower-lsp-server 0.23: when this fails, our `transport` may not be needed any more.
#[tokio::test]
async fn tower_lsps_own_server_stops_reading_when_its_handlers_wait() {
    let cancelled = "-32800";
    // 4 run; the fifth waits, its cancellation is read but not answered, because no slot polls it.
    let heard = theirs(waiting(5).into_iter().chain([cancel(5)]).collect()).await;
    assert!(!heard.contains(cancelled), "{heard}");
    // With a slot free for it, it is.
    let heard = theirs(waiting(3).into_iter().chain([cancel(3)]).collect()).await;
    assert!(heard.contains(cancelled), "{heard}");
    // With a hundred more waiting, not even the cancellation of a running one is read.
    let heard = theirs(waiting(N_REQUESTS).into_iter().chain([cancel(1)]).collect()).await;
    assert!(!heard.contains(cancelled), "{heard}");
}

/// Watches tower-lsp-server 0.23: when this fails, our `transport` may not be needed any more.
#[tokio::test]
async fn tower_lsps_own_server_ends_at_the_first_message_that_is_no_json() {
    let shutdown = Request::build("shutdown").id(7).finish().to_string();
    let answer = serde_json::to_string(&Response::from_ok(7.into(), json!(null))).expect("JSON");
    assert!(theirs(vec![shutdown.clone()]).await.contains(&answer));
    let heard = theirs(vec!["{".to_owned(), shutdown]).await;
    assert!(heard.contains("-32700") && !heard.contains(&answer), "{heard}");
}
