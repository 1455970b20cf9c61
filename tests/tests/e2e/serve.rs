//! One engine for several processes, and its HTTP face for programs of others.

use e2e::{Home, agent_path, model_path, root, run, text};
use serde_json::Value;

#[test]
fn a_second_command_finds_the_engine_of_the_first_and_says_the_same_as_one_alone() {
    let home = Home::new();
    let file = home.path().join("read.py");
    std::fs::write(&file, "def read_lines(path):\n    with open(path) as f:\n        retur\n").unwrap();
    let place = format!("{}:3:14", file.display());
    let shared = |args: &[&str]| {
        let mut command = home.agent();
        command.env_remove("TANDEM_IN_PROCESS").env("TANDEM_IDLE_SECONDS", "20").args(args);
        run(&mut command)
    };
    let complete = |args: &[&str]| {
        let output = shared(&[&["complete", "--json", &place], args].concat());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let alone = complete(&["--in-process"]);
    assert_eq!(shared(&["serve", "--status"]).status.code(), Some(2), "nobody serves yet");
    let [first, second] = [complete(&[]), complete(&[])];
    assert_eq!((&first["insert"], &second["insert"]), (&alone["insert"], &alone["insert"]));
    assert_eq!(first["n_reused"], 0);
    assert!(second["n_reused"].as_u64().unwrap() > 5, "the engine remembers: {second}");
    let status: Value = serde_json::from_slice(&shared(&["serve", "--status"]).stdout).unwrap();
    // A completion is several requests; how many depends on how quickly they are answered.
    let n_requests = status["counts"]["requests_generated_total"].as_u64().unwrap();
    assert!(n_requests >= 2, "both asked the server: {n_requests}");
    assert!(text(&shared(&["serve"]).stderr).contains("already"), "one is enough");
    assert!(shared(&["serve", "--stop"]).status.success());
}

#[test]
fn a_server_that_cannot_be_had_costs_only_the_sharing() {
    let home = Home::new();
    let file = home.path().join("a.py");
    std::fs::write(&file, "x = 1\ny =").unwrap();
    // A folder that others can open is no place for the socket.
    std::fs::create_dir_all(home.path().join("data/run")).unwrap();
    let mut command = home.agent();
    command.env_remove("TANDEM_IN_PROCESS").arg("complete").arg(format!("{}:2:4", file.display()));
    let output = run(&mut command);
    assert!(output.status.success() && !output.stdout.is_empty());
    let said = text(&output.stderr);
    assert!(said.contains("loaded in this process and not shared") && said.contains("chmod 700"), "{said}");
}

#[test]
fn http_is_served_on_loopback_only_and_with_a_key() {
    let home = Home::new();
    for (args, key, expected) in [
        (["--http", "0.0.0.0:0"], "k", "not a loopback address"),
        (["--http", "127.0.0.1:0"], "", "HTTP needs a key"),
    ] {
        let output = run(home.agent().arg("serve").args(args).env("TANDEM_API_KEY", key));
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(expected), "{expected}");
    }
}

/// The script looks at the sockets of the editors' servers and of the engine's process.
#[test]
fn i_13_the_process_that_completes_opens_no_network_socket() {
    let mut command = std::process::Command::new("python3");
    command.arg("tests/lsp/shared.py").current_dir(root());
    command.env("TANDEM_AGENT", agent_path()).env("TANDEM_MODEL", model_path());
    assert!(run(&mut command).status.success());
}

#[test]
fn the_official_openai_client_works() {
    let tools = std::env::var_os("TANDEM_TOOLS").map_or_else(|| root().join(".tools"), Into::into);
    let mut command = std::process::Command::new(tools.join("openai/bin/python"));
    command.arg("tests/serve/openai_client.py").current_dir(root());
    command.env("TANDEM_AGENT", agent_path()).env("TANDEM_MODEL", model_path());
    assert!(run(&mut command).status.success());
}
