//! A server on a thread of the test's own, a raw client, and a server that is a process.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use engine::{
    CancelToken, Engine, EngineOptions, GenerateRequest, Generation, Priority, Sampling, StopRules, TokenId,
};
use serde_json::{Value, json};
use serve::{Address, Claim, HttpOptions, ModelFile, ServeOptions, Starter, StopFlag};
use tempfile::TempDir;

/// What callers over HTTP must send.
pub const KEY: &str = "test-key";

pub fn model_path() -> PathBuf {
    std::env::var_os("TANDEM_TEST_MODEL").map(PathBuf::from).expect(
        "these tests run the real model: set TANDEM_TEST_MODEL to what `cargo xtask model` prints, or run `cargo xtask ci`",
    )
}

fn agent_path() -> PathBuf {
    std::env::var_os("TANDEM_AGENT").map(PathBuf::from).expect("set TANDEM_AGENT, or run `cargo xtask ci`")
}

/// Loads the model once for the whole binary: servers of several tests share it.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::load(&model_path(), EngineOptions::default(), &mut |_| {}).unwrap())
}

pub fn prompt(text: &str) -> Vec<TokenId> {
    engine().tokenizer().encode(text)
}

pub fn request(prompt: Vec<TokenId>, n_max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        prompt,
        healed: Vec::new(),
        grammar: None,
        shown: Vec::new(),
        sampling: Sampling { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 7 },
        stop: StopRules { n_max_tokens, texts: Vec::new(), decode_time: None },
        drafting: engine::Drafting::default(),
        n_top: 0,
        priority: Priority::Interactive,
    }
}

/// Generates, and returns the answer with the texts that came on the way, joined.
pub fn generate(engine: &Engine, request: GenerateRequest) -> Result<(Generation, String), engine::Error> {
    let mut shown = String::new();
    let mut on_text = |text: &str| {
        shown.push_str(text);
        true
    };
    let generation = engine.generate(request, &mut on_text, &CancelToken::new())?;
    Ok((generation, shown))
}

/// What makes two answers the same one.
pub fn essence(generation: &Generation) -> (String, Vec<u32>, Vec<u32>, String) {
    (
        generation.text.clone(),
        generation.tokens.iter().map(|token| token.0).collect(),
        generation.logprobs.iter().map(|logprob| logprob.to_bits()).collect(),
        format!("{:?}", generation.stop),
    )
}

/// A server on a thread.
pub struct Server {
    pub dir: TempDir,
    pub model: ModelFile,
    pub address: Address,
    pub http: Option<SocketAddr>,
    stop: StopFlag,
    thread: Option<std::thread::JoinHandle<Result<(), serve::Error>>>,
}

impl Server {
    pub fn start() -> Self {
        Self::with(engine().clone(), None, false)
    }

    pub fn with_http() -> Self {
        Self::with(engine().clone(), None, true)
    }

    /// Returns one with HTTP, whose model another server runs.
    pub fn linked(to: &Self) -> Self {
        Self::with(to.client(), None, true)
    }

    /// Returns one whose sequences are short, so that too long a prompt takes no time.
    pub fn narrow(n_ctx: usize) -> Self {
        let options = EngineOptions { n_ctx: Some(n_ctx), ..EngineOptions::default() };
        Self::with(Engine::load(&model_path(), options, &mut |_| {}).unwrap(), None, true)
    }

    pub fn with_idle(idle: Duration) -> Self {
        Self::with(engine().clone(), Some(idle), false)
    }

    fn with(engine: Engine, idle: Option<Duration>, has_http: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = ModelFile::at(&model_path(), "the-model").unwrap();
        let address = Address::of(&model, None, dir.path()).unwrap();
        let http =
            has_http.then(|| HttpOptions::new("127.0.0.1:0".parse().unwrap(), KEY.to_owned()).unwrap());
        let options = ServeOptions {
            engine,
            model: model.clone(),
            claim: Some(Claim::take(&address).unwrap()),
            idle,
            http,
        };
        let stop = StopFlag::new();
        let (flag, (ready, is_ready)) = (stop.clone(), std::sync::mpsc::channel());
        let thread = std::thread::Builder::new()
            .name("server".to_owned())
            .spawn(move || serve::serve(options, &mut |http| ready.send(http).unwrap(), &flag));
        let http = is_ready.recv().unwrap();
        Self { dir, model, address, http, stop, thread: Some(thread.unwrap()) }
    }

    /// Returns an engine over the server, which is there and so need not be started.
    pub fn client(&self) -> Engine {
        let starter = Starter {
            model: self.model.clone(),
            address: self.address.clone(),
            program: "/nowhere".into(),
            args: Vec::new(),
        };
        serve::connect_or_start(starter).unwrap()
    }

    pub fn status(&self) -> Value {
        serve::ask_status(&self.address).unwrap()
    }

    /// Waits until the status shows what is wanted.
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        wait_until(what, Duration::from_secs(10), || is_so(&self.status()));
    }

    /// Waits for the server to leave by itself.
    pub fn join(mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

pub fn wait_until(what: &str, most: Duration, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < most, "not within {most:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A client that speaks the protocol by hand.
pub struct RawClient(pub UnixStream);

impl RawClient {
    pub fn connect(address: &Address) -> Self {
        let stream = UnixStream::connect(address.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream)
    }

    /// Returns a client that has said who it is.
    pub fn known(server: &Server) -> Self {
        let mut client = Self::connect(&server.address);
        client.send(&hello(server.model.identity()));
        assert!(client.read().unwrap()["tell"]["hello"]["pid"].is_u64());
        client
    }

    pub fn send(&mut self, message: &Value) {
        self.0.write_all(&frame(message.to_string().as_bytes())).unwrap();
    }

    /// Returns the next reply, or nothing at the end.
    pub fn read(&mut self) -> Option<Value> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        self.0.read_exact(&mut bytes).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    /// Returns the last reply to a call, and how many texts came before it.
    pub fn last(&mut self, id: u64) -> (Value, usize) {
        let mut n_texts = 0;
        loop {
            let reply = self.read().expect("every call has its last reply");
            match reply["tell"].get("text") {
                Some(_) => n_texts += 1,
                None if reply["id"] == id => return (reply["tell"].clone(), n_texts),
                None => {}
            }
        }
    }
}

pub fn frame(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat()
}

pub fn hello(identity: &str) -> Value {
    json!({"id": 0, "ask": {"hello": {"protocol": 2, "version": env!("CARGO_PKG_VERSION"), "model": identity,
        "pid": std::process::id()}}})
}

pub fn generate_call(id: u64, prompt: &[TokenId], n_max_tokens: usize) -> Value {
    let ids: Vec<u32> = prompt.iter().map(|token| token.0).collect();
    json!({"id": id, "ask": {"generate": {"n_answers": 1, "prompt": ids, "healed": [], "grammar": null, "shown": [],
        "draft_extent": "what_pays", "original": [], "previous": [], "temperature_bits": 0, "top_k": 0,
        "top_p_bits": 1.0_f32.to_bits(), "seed": 0, "n_max_tokens": n_max_tokens, "stop_texts": [],
        "decode_time_us": null, "n_top": 0, "priority": "interactive"}}})
}

/// A server that is a process: how `agent` starts it, in a folder of the test's own.
pub struct Process {
    pub dir: TempDir,
    pub address: Address,
    model: ModelFile,
    args: Vec<OsString>,
}

impl Process {
    pub fn new(idle_seconds: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = ModelFile::at(&model_path(), "the-model").unwrap();
        let data = dir.path().join("data");
        let address = Address::of(&model, None, &data).unwrap();
        let set = |name: &str, value: &Path| {
            let mut text = OsString::from(format!("{name}="));
            text.push(value);
            text
        };
        // `env` gives it surroundings of its own: what a process passes on is its own variables.
        let mut args: Vec<OsString> = vec!["-u".into(), "XDG_RUNTIME_DIR".into()];
        args.extend([set("TANDEM_DATA_DIR", &data), set("TANDEM_CONFIG_DIR", &dir.path().join("config"))]);
        args.push(format!("TANDEM_IDLE_SECONDS={idle_seconds}").into());
        args.push(agent_path().into());
        args.extend(["serve", "--detached", "--offline", "--model"].map(OsString::from));
        args.push(model_path().into());
        Self { dir, address, model, args }
    }

    pub fn connect_or_start(&self) -> Result<Engine, serve::Error> {
        serve::connect_or_start(Starter {
            model: self.model.clone(),
            address: self.address.clone(),
            program: "/usr/bin/env".into(),
            args: self.args.clone(),
        })
    }

    /// Returns the command that starts the server by hand.
    pub fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new("/usr/bin/env");
        command.args(&self.args);
        command
    }

    pub fn pid(&self) -> u64 {
        serve::ask_status(&self.address).unwrap()["pid"].as_u64().unwrap()
    }

    /// Sends the server a signal.
    pub fn signal(&self, pid: u64, signal: &str) {
        let status = std::process::Command::new("kill").arg(signal).arg(pid.to_string()).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone, which is as good.
        let _ = serve::ask_to_stop(&self.address);
    }
}

/// What came back over HTTP.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the data of a stream's events.
    pub fn events(&self) -> Vec<&str> {
        self.body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect()
    }
}

/// Sends a request with the right key and name, and reads the answer to the end.
pub fn http(address: SocketAddr, method: &str, path: &str, body: &Value) -> Response {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    http_raw(address, format!("{head}{body}").as_bytes())
}

/// Sends bytes and reads what comes back to the end.
pub fn http_raw(address: SocketAddr, bytes: &[u8]) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if is_chunked { unchunked(body) } else { body.to_owned() };
    Response { status, head: head.to_owned(), body }
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((length, after)) = rest.split_once("\r\n") {
        let n = usize::from_str_radix(length, 16).unwrap();
        if n == 0 {
            break;
        }
        body.push_str(&after[..n]);
        rest = &after[n + 2..];
    }
    body
}
