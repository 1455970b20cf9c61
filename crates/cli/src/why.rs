//! `agent why FILE:LINE:COL`: what an editor would show there, and why that.
//!
//! In: a place in a file. Out: the language server's own account of it (`tandem/why`), from a session like an editor's.
//! Never: decides anything itself; a second opinion would explain another program.

use std::collections::HashSet;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use clap::Args;
use serde_json::{Value, json};
use text::{Document, PositionEncoding};

use crate::failure::{Failure, code};
use crate::place::Place;

/// Say what an editor would show at a place in a file, and why
#[derive(Args, Debug)]
pub(crate) struct WhyArgs {
    /// FILE:LINE:COL, both counted from 1, COL in characters
    place: String,
    /// As if a key was pressed for it, and not only typed
    #[arg(long)]
    invoked: bool,
    /// Print what the language server says, as JSON, the exact prompt included
    #[arg(long)]
    json: bool,
    /// What your editor starts `agent lsp` with besides, after `--`
    #[arg(last = true, value_name = "ARG")]
    lsp: Vec<String>,
}

pub(crate) fn run(args: &WhyArgs) -> Result<u8, Failure> {
    let place = Place::parse(&args.place)?;
    let text = place.read()?;
    let offset = place.offset(&text)?;
    let path = std::path::absolute(&place.file)?;
    let position = Document::open(&text, 1).snapshot().position(offset, PositionEncoding::Utf8);
    let uri = uri(&path);
    let document = json!({"uri": uri});
    let language_id = complete::language_id(&path).unwrap_or("plaintext");

    let mut session = Session::start(&args.lsp)?;
    let folder = self::uri(folder(&path));
    session.ask(
        "initialize",
        json!({
            "processId": std::process::id(),
            "clientInfo": {"name": "agent why"},
            "rootUri": folder,
            "workspaceFolders": [{"uri": folder, "name": "folder"}],
            "capabilities": {
                "general": {"positionEncodings": ["utf-8"]}, "textDocument": {"inlineCompletion": {}},
            },
        }),
    )?;
    session.tell("initialized", json!({}))?;
    session.tell(
        "textDocument/didOpen",
        json!({"textDocument": {"uri": uri, "languageId": language_id, "version": 1, "text": text}}),
    )?;
    let trigger = if args.invoked { 1 } else { 2 };
    session.ask(
        "textDocument/inlineCompletion",
        json!({
            "textDocument": document, "position": {"line": position.line, "character": position.character},
            "context": {"triggerKind": trigger},
        }),
    )?;
    let why = session.ask("tandem/why", json!({"textDocument": document}))?;
    session.end();

    let mut stdout = std::io::stdout().lock();
    if args.json {
        writeln!(stdout, "{why}")?;
        return Ok(code::OK);
    }
    // Without an account, it was the model that was missing, and the session has said so.
    let account = why["account"].as_array().map(Vec::as_slice).unwrap_or_default();
    if account.is_empty() {
        return Err(Failure::new(
            code::MODEL,
            &io::Error::other("the language server has nothing to say of this place"),
        ));
    }
    for line in account.iter().filter_map(Value::as_str) {
        writeln!(stdout, "{line}")?;
    }
    Ok(code::OK)
}

/// Returns the folder an editor would have open: the repository's, or else the file's own.
fn folder(path: &Path) -> &Path {
    let own = path.parent().unwrap_or(path);
    own.ancestors().find(|dir| dir.join(".git").exists()).unwrap_or(own)
}

fn uri(path: &Path) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(byte);
    let path: String = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    format!("file://{path}")
}

fn broken(how: &str) -> Failure {
    Failure::new(code::INTERNAL, &io::Error::other(format!("the language server {how}")))
}

/// A language server of our own.
struct Session {
    server: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    next_id: u64,
    /// What it has said to its user already.
    said: HashSet<String>,
}

impl Session {
    fn start(args: &[String]) -> Result<Self, Failure> {
        let program: PathBuf = ::serve::program_of_this_process()?;
        let mut command = Command::new(program);
        command
            .args(["lsp", "--stdio", "--no-memory"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut server = command.spawn()?;
        let (input, output) = (server.stdin.take(), server.stdout.take());
        let (Some(input), Some(output)) = (input, output) else {
            return Err(broken("has no stdin or stdout"));
        };
        Ok(Self { server, input, output: BufReader::new(output), next_id: 1, said: HashSet::new() })
    }

    fn send(&mut self, mut message: Value) -> Result<(), Failure> {
        message["jsonrpc"] = json!("2.0");
        let body = message.to_string();
        write!(self.input, "Content-Length: {}\r\n\r\n{body}", body.len())?;
        self.input.flush()?;
        Ok(())
    }

    fn tell(&mut self, method: &str, params: Value) -> Result<(), Failure> {
        self.send(json!({"method": method, "params": params}))
    }

    /// Returns a request's result, and hands on what the server says to its user meanwhile.
    fn ask(&mut self, method: &str, params: Value) -> Result<Value, Failure> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(json!({"id": id, "method": method, "params": params}))?;
        loop {
            let mut message = self.read()?;
            match (message.get("method").and_then(Value::as_str), message.get("id")) {
                (Some(_), Some(theirs)) => self.send(json!({"id": theirs.clone(), "result": null}))?,
                (Some("window/showMessage" | "window/logMessage"), None) => {
                    let said = message["params"]["message"].as_str().unwrap_or_default();
                    if self.said.insert(said.to_owned()) {
                        say!("{said}");
                    }
                }
                (None, Some(theirs)) if *theirs == json!(id) => {
                    return match message.get("error") {
                        Some(error) => Err(broken(&format!("refused {method}: {}", error["message"]))),
                        None => Ok(message["result"].take()),
                    };
                }
                _ => {}
            }
        }
    }

    fn read(&mut self) -> Result<Value, Failure> {
        let ended = || broken("ended");
        let mut n_bytes = None;
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                return Err(ended());
            }
            match line.trim_end().split_once(": ") {
                Some(("Content-Length", n)) => n_bytes = n.parse().ok(),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; n_bytes.ok_or_else(ended)?];
        self.output.read_exact(&mut body)?;
        serde_json::from_slice(&body).map_err(|error| broken(&format!("wrote no JSON: {error}")))
    }

    fn end(mut self) {
        let _ = self.ask("shutdown", Value::Null);
        let _ = self.tell("exit", Value::Null);
        let _ = self.server.wait();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It leaves by itself when its input ends; after `end` it has left.
        if let Ok(None) = self.server.try_wait() {
            let _ = self.server.kill();
            let _ = self.server.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_uri() {
        assert_eq!(uri(Path::new("/a b/é.py")), "file:///a%20b/%C3%A9.py");
    }

    #[test]
    fn the_folder_is_the_repositorys() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("src/a.py");
        std::fs::create_dir_all(dir.path().join("src")).expect("made");
        assert_eq!(folder(&file), dir.path().join("src"));
        std::fs::create_dir(dir.path().join(".git")).expect("made");
        assert_eq!(folder(&file), dir.path());
    }
}
