//! An editor on the other end of two pipes.
//!
//! It keeps every message and, at the end, checks that each request got exactly one response (I-5).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::task::JoinHandle;

use crate::fate::FateEvent;
use crate::server::serve_with;
use crate::{Error, LoadModel, ServerOptions, SessionEnd};

pub(super) const URI: &str = "file:///a.py";
/// Longer than anything here takes, also on a busy machine; only a failing test waits it out.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Editor {
    to_server: Option<DuplexStream>,
    from_server: BufReader<DuplexStream>,
    session: JoinHandle<Result<SessionEnd, Error>>,
    next_id: i64,
    asked: Vec<Value>,
    /// Every message of the server, in order.
    pub(super) heard: Vec<Value>,
    /// Its answer to `workspace/configuration`.
    pub(super) configuration: Value,
    /// What became of ghost text.
    pub(super) fates: Arc<Mutex<Vec<FateEvent>>>,
}

/// A model that is loading for as long as the test runs.
pub(super) fn never() -> LoadModel {
    Box::new(|_| {
        loop {
            std::thread::park();
        }
    })
}

impl Editor {
    /// Starts a session that is not initialized.
    pub(super) fn connect(load_model: LoadModel) -> Self {
        let (to_server, input) = tokio::io::duplex(1 << 16);
        let (output, from_server) = tokio::io::duplex(1 << 16);
        let fates = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&fates);
        let options = ServerOptions { load_model, complete: complete::Options::default(), memory: None };
        let on_fate = Box::new(move |event: &FateEvent| hears.lock().expect("it").push(event.clone()));
        let session = tokio::spawn(serve_with(input, output, options, on_fate));
        let from_server = BufReader::new(from_server);
        Self {
            to_server: Some(to_server),
            from_server,
            session,
            next_id: 0,
            asked: Vec::new(),
            heard: Vec::new(),
            configuration: Value::Null,
            fates,
        }
    }

    /// Starts a session with the given capabilities and returns the server's.
    pub(super) async fn start(load_model: LoadModel, capabilities: Value) -> (Self, Value) {
        let mut editor = Self::connect(load_model);
        let params = json!({ "processId": null, "rootUri": null, "capabilities": capabilities });
        let capabilities = editor.initialize(params).await;
        (editor, capabilities)
    }

    /// Begins the session and returns the server's capabilities.
    pub(super) async fn initialize(&mut self, params: Value) -> Value {
        let id = self.ask("initialize", params).await;
        let mut answer = self.answer(&id).await;
        self.tell("initialized", json!({})).await;
        answer["result"]["capabilities"].take()
    }

    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) {
        // The server may have ended the session already.
        let _ = self.to_server.as_mut().expect("the input is open").write_all(bytes).await;
    }

    pub(super) async fn send(&mut self, message: Value) {
        let body = message.to_string();
        self.send_bytes(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
    }

    pub(super) async fn tell(&mut self, method: &str, params: Value) {
        self.send(json!({ "jsonrpc": "2.0", "method": method, "params": params })).await;
    }

    /// Sends a request and returns its id.
    pub(super) async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let id = json!(self.next_id);
        self.asked.push(id.clone());
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await;
        id
    }

    /// Returns the response to a request, waiting for it.
    pub(super) async fn answer(&mut self, id: &Value) -> Value {
        self.wait_for(|message| message["id"] == *id && message.get("method").is_none()).await
    }

    /// Returns the first message like this, waiting for it if it is not among those heard.
    pub(super) async fn wait_for(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(message) = self.heard.iter().find(|message| is_it(message)) {
            return message.clone();
        }
        loop {
            let message = tokio::time::timeout(PATIENCE, self.read()).await.expect("an answer in time");
            let message = message.expect("the server is still there");
            if is_it(&message) {
                return message;
            }
        }
    }

    async fn read(&mut self) -> Option<Value> {
        let mut header = String::new();
        self.from_server.read_line(&mut header).await.expect("a readable header");
        if header.is_empty() {
            return None;
        }
        let n =
            header.strip_prefix("Content-Length: ").expect("a length").trim_end().parse().expect("a number");
        let mut body = vec![0; n];
        self.from_server.read_line(&mut header).await.expect("the empty line");
        self.from_server.read_exact(&mut body).await.expect("the whole body");
        let message: Value = serde_json::from_slice(&body).expect("JSON");
        if message.get("method").is_some() && message.get("id").is_some() {
            let is_configuration = message["method"] == "workspace/configuration";
            let result = if is_configuration { self.configuration.clone() } else { Value::Null };
            self.send(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result })).await;
        }
        self.heard.push(message.clone());
        Some(message)
    }

    pub(super) async fn open(&mut self, uri: &str, text: &str, version: i32) {
        let item = json!({ "uri": uri, "languageId": "python", "version": version, "text": text });
        self.tell("textDocument/didOpen", json!({ "textDocument": item })).await;
    }

    pub(super) async fn change(&mut self, uri: &str, version: i32, changes: Value) {
        let document = json!({ "uri": uri, "version": version });
        self.tell("textDocument/didChange", json!({ "textDocument": document, "contentChanges": changes }))
            .await;
    }

    /// Asks for ghost text and returns the request's id.
    pub(super) async fn ask_at(&mut self, uri: &str, line: u32, character: u32) -> Value {
        let params = json!({
            "textDocument": { "uri": uri },
            "position": { "line": line, "character": character },
            "context": { "triggerKind": 1 },
        });
        self.ask("textDocument/inlineCompletion", params).await
    }

    pub(super) async fn cancel(&mut self, id: &Value) {
        self.tell("$/cancelRequest", json!({ "id": id })).await;
    }

    /// Returns a document as the server has it.
    pub(super) async fn document(&mut self, uri: &str) -> Value {
        let id = self.ask("tandem/documentText", json!({ "textDocument": { "uri": uri } })).await;
        self.answer(&id).await["result"].take()
    }

    /// Closes the input.
    pub(super) fn hang_up(&mut self) {
        self.to_server = None;
    }

    /// Hears the server out and returns how the session ended.
    ///
    /// # Panics
    /// If a request got no response, or two.
    pub(super) async fn end(mut self) -> SessionEnd {
        let rest = async { while self.read().await.is_some() {} };
        tokio::time::timeout(PATIENCE, rest).await.expect("the server ends its output in time");
        let mut n_responses = HashMap::new();
        for message in self.heard.iter().filter(|message| message.get("method").is_none()) {
            *n_responses.entry(message["id"].to_string()).or_insert(0) += 1;
        }
        n_responses.remove("null");
        for id in &self.asked {
            assert_eq!(n_responses.remove(&id.to_string()), Some(1), "responses to request {id}");
        }
        assert!(n_responses.is_empty(), "responses nobody asked for: {n_responses:?}");
        let end = tokio::time::timeout(PATIENCE, self.session).await.expect("the session ends in time");
        end.expect("no panic").expect("it started")
    }

    /// Says `shutdown` and `exit`, and checks the session's end.
    pub(super) async fn quit(mut self) {
        let id = self.ask("shutdown", Value::Null).await;
        assert_eq!(self.answer(&id).await["result"], Value::Null);
        self.tell("exit", Value::Null).await;
        assert_eq!(self.end().await, SessionEnd::Clean);
    }
}
