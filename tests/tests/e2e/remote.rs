//! `agent fix` with a model behind an endpoint: llama.cpp's own server, with the default model.

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{Home, model_path, root, run, text, users_state};
use serde_json::Value;

const KEY: &str = "sk-e2e-hunter2";

/// llama.cpp's server, ended with the test.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start() -> Self {
        let tools = std::env::var_os("TANDEM_TOOLS").map_or_else(|| root().join(".tools"), Into::into);
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(tools.join("llama/bin/python"));
        command.args(["-m", "llama_cpp.server", "--host", "127.0.0.1", "--model_alias", "smol"]);
        command.args(["--port", &address.port().to_string(), "--n_ctx", "8192", "--api_key", KEY]);
        command.arg("--model").arg(model_path()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self {
            child: command.spawn().expect("`cargo xtask ci --only remote` installs llama.cpp's server"),
            url: format!("http://{address}"),
        };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(started.elapsed() < Duration::from_secs(300), "llama.cpp's server does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    /// Returns `agent fix` with this endpoint and no model that could be loaded.
    fn fix(&self, home: &Home) -> Command {
        let mut command = home.agent();
        command.env("TANDEM_MODEL", home.path().join("nowhere.gguf")).env("TANDEM_ENDPOINT_KEY", KEY);
        command.args(["fix", "--json", "--offline", "--endpoint", &self.url]);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn events(stdout: &[u8]) -> Vec<Value> {
    text(stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
#[ignore = "it needs llama.cpp's server: cargo xtask ci --only remote"]
fn a_run_with_an_endpoint_comes_to_an_honest_end_and_loads_no_model() {
    let server = Server::start();
    let home = Home::new();
    let repo = home.example("median-py");
    let before = users_state(&repo);
    let output = run(server.fix(&home).arg(&repo));
    let events = events(&output.stdout);
    assert!(
        text(&output.stderr)
            .contains(&format!("smol is asked at {}/v1, a server on this machine", server.url))
    );
    assert_eq!(events[0]["model"]["endpoint"], format!("{}/v1", server.url));
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    let first = |name: &str| names.iter().position(|other| *other == name);
    assert!(first("asking").unwrap() < first("candidate").unwrap(), "the model is asked first: {names:?}");
    let last = events.last().unwrap();
    let (exit, status) = (output.status.code(), last["status"].as_str().unwrap());
    assert!(
        [(Some(0), "proposed"), (Some(3), "no_fix"), (Some(5), "budget_spent")].contains(&(exit, status)),
        "{last}"
    );
    if status == "proposed" {
        let shown = run(home.agent().args(["proposals", "show", "--dir"]).arg(&repo));
        assert!(text(&shown.stdout).contains(&format!("model: smol at {}/v1, seed 0", server.url)));
    }
    assert_eq!(users_state(&repo), before);

    let output = run(server.fix(&home).env("TANDEM_ENDPOINT_KEY", "sk-other").arg(&repo));
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("refuses the key (status 401)") && said.contains("TANDEM_ENDPOINT_KEY"), "{said}");
    assert!(!said.contains("sk-other") && !said.contains(KEY), "{said}");
}

#[test]
#[ignore = "it needs llama.cpp's server: cargo xtask ci --only remote"]
fn an_endpoint_that_dies_ends_the_run_with_a_clear_error() {
    let mut server = Server::start();
    let home = Home::new();
    let repo = home.example("median-py");
    let before = users_state(&repo);
    let mut fix = server.fix(&home);
    fix.arg(&repo).args(["--test", "exit 1"]).stdout(Stdio::piped());
    let mut child = fix.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"asking\"")), "the model is never asked");
    server.child.kill().unwrap();
    let last: Value = serde_json::from_str(&lines.last().unwrap()).unwrap();
    assert_eq!((child.wait().unwrap().code(), last["status"].as_str()), (Some(7), Some("error")), "{last}");
    let message = last["message"].as_str().unwrap();
    assert!(message.contains("cannot be reached") || message.contains("broke off"), "{message}");
    assert!(last["hint"].is_string());
    assert_eq!(users_state(&repo), before);
    assert_eq!(std::fs::read_dir(home.path().join("cache/sandboxes")).unwrap().count(), 0);
}
