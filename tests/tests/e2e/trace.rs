//! A trace of a real server, run again.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

use e2e::{Home, run, text};
use serde_json::{Value, json};

const KEY: &str = "test-key";

/// A server that is recorded.
struct Server {
    child: Child,
    address: String,
    said: String,
}

impl Server {
    fn start(home: &Home, trace: &Path) -> Self {
        let mut command = home.agent();
        command.args(["serve", "--http", "127.0.0.1:0", "--trace"]).arg(trace).env("TANDEM_API_KEY", KEY);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        while !said.contains("http://") {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "it ended: {said}");
        }
        let address = said.rsplit("http://").next().unwrap().trim().to_owned();
        Self { child, address, said }
    }

    fn ask(&self, path: &str, body: &Value) -> TcpStream {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        stream
    }

    fn answer(&self, path: &str, body: &Value) -> String {
        let mut answer = String::new();
        self.ask(path, body).read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }

    fn stop(mut self, home: &Home) {
        assert!(run(home.agent().args(["serve", "--stop"])).status.success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended, unless the test has failed.
        let _ = self.child.kill();
    }
}

/// Records a completion, two answers with their probabilities, an infill, and a stream whose reader goes away.
fn record(home: &Home, trace: &Path) {
    let server = Server::start(home, trace);
    assert!(server.said.contains("source text included"), "{}", server.said);
    let prompt = "def area(width, height):\n    return width";
    server.answer("/v1/completions", &json!({"prompt": prompt, "temperature": 0, "max_tokens": 8}));
    let sampled = json!({"prompt": prompt, "seed": 3, "n": 2, "max_tokens": 8, "logprobs": 1, "echo": true});
    server.answer("/v1/completions", &sampled);
    server.answer(
        "/infill",
        &json!({"input_prefix": "x = [1, 2, 3]\ny = [1, 2,", "input_suffix": "", "n_predict": 12}),
    );
    let endless = json!({"prompt": "Once upon a time", "max_tokens": 4000, "stream": true, "temperature": 1, "seed": 1});
    let mut stream = server.ask("/v1/completions", &endless);
    let mut some = [0; 400];
    stream.read_exact(&mut some).unwrap();
    drop(stream);
    server.stop(home);
}

/// Returns the trace's lines, as JSON.
fn lines(trace: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(trace).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn write_lines(path: &Path, lines: &[Value]) {
    std::fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

#[test]
fn a_trace_of_a_server_is_run_again_and_its_answers_are_the_same() {
    let home = Home::new();
    let trace = home.path().join("a.trace");
    record(&home, &trace);
    let recorded = lines(&trace);
    let n_requests = recorded.len() - 2;
    assert_eq!(recorded[n_requests + 1]["end"]["n_requests"], n_requests);
    let cancelled = recorded.iter().filter(|line| line["request"]["cancelled_after_us"].is_u64()).count();
    assert_eq!((n_requests, cancelled), (7, 1), "three completions, an infill, two scores, one cancelled");

    let replay = |trace: &Path, args: &[&str]| {
        run(home.agent().args(["bench", "replay", "--speed", "max"]).args(args).arg(trace))
    };
    let output = replay(&trace, &["--check", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["runs"][0]["check"], json!({"n_same": 7, "n_not_compared": 0, "different": []}));

    // How far the cancelled one came is a matter of time; what the others computed and reused is not.
    let path = home.path().join("sound.trace");
    let is_sound = |line: &&Value| !line["request"]["cancelled_after_us"].is_u64();
    write_lines(&path, &recorded.iter().filter(is_sound).cloned().collect::<Vec<_>>());
    let output = replay(&path, &["--format", "json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (then, now) = (&told["recorded"]["measures"], &told["runs"][0]);
    for name in ["n_requests", "n_failed", "prefilled_tokens_per_request", "share_reused"] {
        assert!(then[name].is_number(), "{name}");
        assert_eq!(then[name], now[name], "{name}");
    }
    for name in ["background_ttft_p50_ms", "interactive_queue_p95_ms", "decode_tokens_per_s", "wall_s"] {
        assert!(then[name].as_f64() > Some(0.0) && now[name].as_f64() > Some(0.0), "{name}");
    }
    let table = text(&replay(&trace, &["--check", "--runs", "2"]).stdout);
    assert!(table.contains("run 2: 7 answers are the same, 0 are not"), "{table}");
    let csv = text(&replay(&trace, &["--format", "csv"]).stdout);
    assert!(csv.contains("n_requests,recorded,7\n") && csv.contains("n_requests,1,7\n"), "{csv}");

    // One other token in the first answer.
    let mut altered = recorded.clone();
    let line = altered.iter().position(|line| line["request"]["outcome"]["generated"].is_array()).unwrap();
    let token = &mut altered[line]["request"]["outcome"]["generated"][0]["tokens"][1];
    *token = json!(token.as_u64().unwrap() ^ 1);
    let path = home.path().join("altered.trace");
    write_lines(&path, &altered);
    let output = replay(&path, &["--check"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("line {}, answer 1: another token 2", line + 1);
    assert!(text(&output.stdout).contains(&expected), "{expected}");
    assert_eq!(replay(&path, &[]).status.code(), Some(0), "nothing was to be checked");
}

#[test]
fn a_trace_that_cannot_be_run_says_why() {
    let home = Home::new();
    let trace = home.path().join("a.trace");
    let server = Server::start(&home, &trace);
    server.answer("/v1/completions", &json!({"prompt": "a = ", "temperature": 0, "max_tokens": 2}));
    server.stop(&home);
    let path = home.path().join("b.trace");
    let check = |bytes: &[u8], args: &[&str], expected: &str| {
        std::fs::write(&path, bytes).unwrap();
        let output = run(home.agent().args(["bench", "replay"]).arg(&path).args(args));
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(expected), "{expected}");
    };
    let whole = std::fs::read(&trace).unwrap();
    check(&whole[..whole.len() - 9], &[], "line 3: the line is cut short");
    check(&[&whole[..], b"garbage\n"].concat(), &[], "line 4: not understood at byte 1");
    check(b"", &[], "line 1: the file is empty");
    let mut other = lines(&trace);
    other[0]["header"]["sha256"] = json!("00");
    other[0]["header"]["model"] = json!("another-model");
    write_lines(&path, &other);
    let other = std::fs::read(&path).unwrap();
    check(&other, &[], "the trace was recorded with another-model (sha256 00), not with");
    check(&whole, &["--check", "--kv", "q8_0"], "a KV cache of f16");

    // A trace is never overwritten, and a server that cannot record as it was told does not serve.
    let output = run(home.agent().args(["serve", "--trace"]).arg(&trace));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("exists already"));
}

#[test]
fn a_command_that_loads_the_model_itself_records_by_the_variable_and_works_without() {
    let home = Home::new();
    let trace = home.path().join("a.trace");
    let file = home.path().join("a.py");
    std::fs::write(&file, "x = 1\ny =").unwrap();
    let complete = |variable: &Path| {
        let mut command = home.agent();
        run(command.arg("complete").arg(format!("{}:2:4", file.display())).env("TANDEM_TRACE", variable))
    };
    let first = complete(&trace);
    assert!(first.status.success() && text(&first.stderr).contains("source text included"));
    assert!(lines(&trace).last().unwrap()["end"]["n_requests"].as_u64() > Some(0));
    let before = std::fs::read(&trace).unwrap();
    for variable in [&trace, Path::new("relative.trace")] {
        let again = complete(variable);
        assert_eq!((again.status.code(), &again.stdout), (Some(0), &first.stdout));
        assert!(text(&again.stderr).contains("nothing is recorded"), "{}", text(&again.stderr));
    }
    assert_eq!(std::fs::read(&trace).unwrap(), before);
}
