//! Tidy on a small real workspace: a clean tree says nothing, each violation says what it should.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{Mode, check, modules, tree::Tree};

const LSP: &str = "//! Messages in, messages out.\n#![forbid(unsafe_code)]\n";

/// Makes a workspace with one crate a row of the arrows; later files replace earlier ones.
fn workspace(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    };
    write("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n");
    write("ARCHITECTURE.md", "# Modules\n<!-- modules -->\n<!-- /modules -->\n");
    write("crates/text/Cargo.toml", &manifest("text", ""));
    write("crates/text/src/lib.rs", "//! Bytes, positions, edits.\n#![forbid(unsafe_code)]\n");
    write("crates/engine/Cargo.toml", &manifest("engine", "candle-core = \"0.11\"\n"));
    write(
        "crates/engine/src/lib.rs",
        "//! Tokens in, tokens out.\n#![deny(unsafe_code)]\nuse candle_core::Tensor;\n",
    );
    write("crates/engine/src/mmap.rs", "//! The one mapped file.\npub fn f() { unsafe { g() } }\n");
    write("crates/agent/Cargo.toml", &manifest("agent", "text = { path = \"../text\" }\ngit2 = \"0.21\"\n"));
    write("crates/agent/src/lib.rs", "//! A task becomes a proposal.\n#![forbid(unsafe_code)]\n");
    write(
        "crates/agent/src/accept.rs",
        "//! The only writer of the user's tree.\nfn f() { std::fs::write(); }\n",
    );
    write("crates/lsp/Cargo.toml", &manifest("lsp", "text = { path = \"../text\" }\n"));
    write("crates/lsp/src/lib.rs", LSP);
    write("crates/serve/Cargo.toml", &manifest("serve", "hyper = \"1\"\n"));
    write("crates/serve/src/lib.rs", "//! One engine for all.\n#![forbid(unsafe_code)]\n");
    write("crates/serve/src/http/listener.rs", "//! The one that listens.\nuse std::net::TcpListener;\n");
    for (path, text) in files {
        write(path, text);
    }
    let init = Command::new("git").args(["init", "--quiet"]).current_dir(dir.path()).status();
    assert!(init.expect("git runs").success());
    if !files.iter().any(|(path, _)| *path == "ARCHITECTURE.md") {
        modules::write(&Tree::read(dir.path()).expect("a tree")).expect("the table is written");
    }
    dir
}

fn manifest(name: &str, dependencies: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n{dependencies}"
    )
}

/// Returns `path:line: message` of each finding.
fn findings(root: &Path) -> Vec<String> {
    let findings = check(root, Mode::Check).expect("tidy can run");
    findings.iter().map(|finding| format!("{}:{}: {}", finding.path, finding.line, finding.message)).collect()
}

/// Asserts that the clean workspace with `files` on top has exactly the `expected` findings.
#[track_caller]
fn expect(files: &[(&str, &str)], expected: &[&str]) {
    let dir = workspace(files);
    assert_eq!(findings(dir.path()), expected);
}

#[test]
fn a_clean_tree_has_no_findings() {
    expect(&[], &[]);
}

#[test]
fn a_forbidden_arrow_in_a_manifest_is_found() {
    let text = manifest("text", "engine = { path = \"../engine\" }\n");
    expect(
        &[("crates/text/Cargo.toml", &text)],
        &["crates/text/Cargo.toml:7: forbidden arrow text → engine"],
    );
    let agent = manifest("agent", "[dependencies.lsp]\npath = \"../lsp\"\n");
    let lsp = manifest("lsp", "");
    expect(
        &[("crates/agent/Cargo.toml", &agent), ("crates/lsp/Cargo.toml", &lsp)],
        &["crates/agent/Cargo.toml:7: forbidden arrow agent → lsp"],
    );
}

#[test]
fn a_library_of_another_crate_in_a_manifest_is_found() {
    let lsp = manifest("lsp", "\n[dev-dependencies]\ncandle-core = \"0.11\"\n");
    expect(
        &[("crates/lsp/Cargo.toml", &lsp)],
        &["crates/lsp/Cargo.toml:9: `lsp` depends on `candle-core`, which belongs to `engine`"],
    );
    let text = manifest("text", "tower-lsp = { package = \"tower-lsp-server\", version = \"0.23\" }\n");
    expect(
        &[("crates/text/Cargo.toml", &text)],
        &["crates/text/Cargo.toml:7: `text` depends on `tower-lsp-server`, which belongs to `lsp`"],
    );
    let agent = manifest("agent", "ureq = \"3\"\n");
    expect(
        &[("crates/agent/Cargo.toml", &agent)],
        &["crates/agent/Cargo.toml:7: `agent` depends on `ureq`, which belongs to `remote`"],
    );
}

#[test]
fn a_crate_without_arrows_is_found() {
    let parse = manifest("parse", "");
    expect(
        &[
            ("crates/parse/Cargo.toml", &parse),
            ("crates/parse/src/lib.rs", "//! Trees from text.\n#![forbid(unsafe_code)]\n"),
        ],
        &["crates/parse/Cargo.toml:1: crate `parse` has no arrows"],
    );
}

/// Asserts the one finding of a module added to a crate.
#[track_caller]
fn expect_in(path: &str, code: &str, expected: &str) {
    let text = format!("//! One module of many.\n{code}");
    expect(&[(path, &text)], &[&format!("{path}:{expected}")]);
}

#[test]
fn a_forbidden_use_is_found() {
    expect_in(
        "crates/lsp/src/fast.rs",
        "use candle_core::Tensor;\n",
        "2: `candle_core` names candle outside engine (I-2)",
    );
    expect_in(
        "crates/agent/src/view.rs",
        "fn f(p: lsp_types::Position) {}\n",
        "2: `lsp_types` names an LSP type outside lsp (I-1)",
    );
    expect_in(
        "crates/engine/src/open.rs",
        "pub use candle_core as tensor;\n",
        "2: engine re-exports `candle_core` (I-2)",
    );
}

#[test]
fn a_word_in_a_comment_or_a_string_is_no_use() {
    let code = "// candle_core:: is engine's. /* unsafe */\nconst A: &str = \"lsp_types\";\n\
                const B: &str = r#\"unsafe \" candle_core\"#;\nconst C: [char; 2] = ['\"', '\\''];\n\
                fn f<'a>(x: &'a str) { let unsafe_code = 1; }\n/* /* nested */ candle_core */\n";
    let text = format!("//! One module of many.\n{code}");
    expect(&[("crates/text/src/plain.rs", &text)], &[]);
    // After all those quotes the code is still read as code.
    let broken = format!("{text}fn g() {{ unsafe {{}} }}\n");
    let message = "stands outside engine/src/kernel/ and engine/src/mmap.rs";
    expect(
        &[("crates/text/src/plain.rs", &broken)],
        &[&format!("crates/text/src/plain.rs:8: `unsafe` {message}")],
    );
}

#[test]
fn i_4_a_write_outside_accept_is_found_and_a_test_may_write() {
    let message = "writes files where nothing may (I-4)";
    expect_in(
        "crates/agent/src/search.rs",
        "fn f() { std::fs::remove_file(\"x\"); }\n",
        &format!("2: `fs::remove_file` {message}"),
    );
    expect_in(
        "crates/agent/src/run.rs",
        "fn f() { crate::confined::Folder::holding(); }\n",
        &format!("2: `Folder::holding` {message}"),
    );
    expect_in(
        "crates/lsp/src/trace.rs",
        "#[cfg(test)]\nmod tests { fn f() { fs::write(); } }\nfn f() { fs::write(); }\n",
        &format!("4: `fs::write` {message}"),
    );
}

#[test]
fn a_socket_a_print_a_nameless_thread_and_unsafe_code_are_found() {
    expect_in(
        "crates/agent/src/search.rs",
        "use std::thread;\nfn f() { thread::spawn(f); }\n",
        "3: `thread::spawn` starts a thread without a name",
    );
    expect_in(
        "crates/agent/src/net.rs",
        "use std::net::TcpStream;\n",
        "2: `TcpStream` opens a network socket outside models and serve's listener (I-13)",
    );
    expect_in(
        "crates/serve/src/http/guard.rs",
        "use tokio::net::TcpListener;\n",
        "2: `TcpListener` opens a network socket outside models and serve's listener (I-13)",
    );
    expect_in(
        "crates/serve/src/socket.rs",
        "fn f() { socket2::Domain::IPV4 }\n",
        "2: `Domain::IPV4` opens a network socket outside models and serve's listener (I-13)",
    );
    expect_in(
        "crates/lsp/src/server.rs",
        "use std::os::unix::net::UnixStream;\n",
        "2: `UnixStream` opens a socket outside serve",
    );
    expect_in(
        "crates/lsp/src/say.rs",
        "fn f() { println!(\"hello\"); eprintln!(); }\n",
        "2: `println!` prints to stdout outside cli (I-12)",
    );
    expect_in(
        "crates/engine/src/quick.rs",
        "unsafe fn f() {}\n",
        "2: `unsafe` stands outside engine/src/kernel/ and engine/src/mmap.rs",
    );
}

#[test]
fn a_crate_root_that_does_not_forbid_unsafe_code_is_found() {
    expect(
        &[("crates/lsp/src/lib.rs", "//! Messages in, messages out.\n// #![forbid(unsafe_code)]\n")],
        &["crates/lsp/src/lib.rs:1: crate root without `#![forbid(unsafe_code)]`"],
    );
}

#[test]
fn a_bare_allow_is_found_and_expect_is_not() {
    expect_in("crates/text/src/a.rs", "#[allow(dead_code)]\nfn f() {}\n", "2: bare `allow`");
    expect_in("crates/text/src/a.rs", "#![allow(dead_code)]\n", "2: bare `allow`");
    expect_in("crates/text/src/a.rs", "#[cfg_attr(unix, allow(dead_code))]\nfn f() {}\n", "2: bare `allow`");
    let fine = "//! One module of many.\n#[expect(dead_code, reason = \"x\")]\nfn allow() { allow(); }\n";
    expect(&[("crates/text/src/a.rs", fine)], &[]);
}

#[test]
fn a_module_without_opening_words_is_found() {
    expect(
        &[("crates/text/src/line/index.rs", "//! stub\n")],
        &["crates/text/src/line/index.rs:1: module without its opening words"],
    );
}

#[test]
fn unfinished_work_needs_an_issue() {
    let mark = concat!("TO", "DO");
    expect_in(
        "crates/text/src/a.rs",
        &format!("// {mark} #12: later\n// {mark}: some day\n"),
        &format!("3: {mark} without an issue"),
    );
}

#[test]
fn a_long_file_is_found() {
    let text = format!("--- A long one.\n{}", "local x = 1\n".repeat(800));
    expect(
        &[("editors/nvim/lua/long.lua", &text)],
        &["editors/nvim/lua/long.lua:801: 801 lines, more than 800"],
    );
    // Exactly the limit, and material for a test, are fine.
    let fine = "x = 1\n".repeat(800);
    expect(&[("a.py", &fine), ("tests/fixtures/b.py", &text)], &[]);
}

#[test]
fn a_banned_name_is_found() {
    for (path, word) in [
        ("crates/text/src/line/utils.rs", "utils"),
        ("crates/text/src/line/kv_manager.rs", "manager"),
        ("editors/vscode/src/common/a.ts", "common"),
    ] {
        expect(&[(path, "//! One module of many.\n")], &[&format!("{path}:1: banned name `{word}`")]);
    }
    let text = "//! One module of many.\n";
    expect(
        &[("crates/text/src/line/mod.rs", text)],
        &["crates/text/src/line/mod.rs:1: a module named mod.rs"],
    );
    expect_in("crates/text/src/a.rs", "mod test_helpers { }\n", "2: banned module name `test_helpers`");
}

#[test]
fn an_ignored_file_is_not_ours() {
    expect(&[(".gitignore", "/target\n"), ("target/utils.rs", "unsafe")], &[]);
}

#[test]
fn the_module_table_is_checked_and_written() {
    let page = "# Modules\n<!-- modules -->\n| file | purpose |\n|---|---|\n\
                | `crates/text/src/lib.rs` | Bytes, positions, edits |\n\
                | `crates/engine/src/lib.rs` | Something else |\n\
                | crates/text/src/gone.rs | Not here |\n<!-- /modules -->\nThe rest.\n";
    let dir = workspace(&[("ARCHITECTURE.md", page)]);
    let found = findings(dir.path());
    assert_eq!(
        found,
        [
            "ARCHITECTURE.md:6: row for `crates/engine/src/lib.rs` does not say what the module says",
            "ARCHITECTURE.md:7: row for `crates/text/src/gone.rs`, which is not a module",
            "crates/agent/src/accept.rs:1: module without a row in ARCHITECTURE.md",
            "crates/agent/src/lib.rs:1: module without a row in ARCHITECTURE.md",
            "crates/engine/src/mmap.rs:1: module without a row in ARCHITECTURE.md",
            "crates/lsp/src/lib.rs:1: module without a row in ARCHITECTURE.md",
            "crates/serve/src/lib.rs:1: module without a row in ARCHITECTURE.md",
        ]
    );
    assert!(check(dir.path(), Mode::Write).expect("tidy can run").is_empty());
    let written = std::fs::read_to_string(dir.path().join("ARCHITECTURE.md")).expect("the page");
    assert!(
        written.starts_with("# Modules\n<!-- modules -->\n| file") && written.ends_with("The rest.\n"),
        "{written}"
    );
    let order: Vec<&str> = written.lines().filter_map(|line| line.split('`').nth(1)).collect();
    assert_eq!(
        order,
        [
            "crates/text/src/lib.rs",
            "crates/engine/src/lib.rs",
            "crates/engine/src/mmap.rs",
            "crates/serve/src/lib.rs",
            "crates/agent/src/lib.rs",
            "crates/agent/src/accept.rs",
            "crates/lsp/src/lib.rs",
        ]
    );
}

#[test]
fn a_page_without_a_table_is_found() {
    let dir = workspace(&[("ARCHITECTURE.md", "# Modules\n")]);
    assert!(findings(dir.path()).iter().any(|finding| finding.contains("no module table between")));
    assert!(check(dir.path(), Mode::Write).is_err());
}

#[test]
fn an_invariant_names_its_test_its_check_or_its_issue() {
    let table = "# Modules\n<!-- modules -->\n<!-- /modules -->\n| | invariant | held by |\n|---|---|---|\n\
                 | I-1 | only `lsp` | tidy |\n| I-2 | one | `it_holds` |\n| I-3 | two | `it_is_gone` |\n\
                 | I-4 | three | issue 4 |\n| I-5 | four | soon |\n";
    let dir = workspace(&[
        ("ARCHITECTURE.md", table),
        ("crates/text/src/line/held.rs", "//! One module of many.\n// fn it_is_gone\nfn it_holds() {}\n"),
    ]);
    let found = check(dir.path(), Mode::Write).expect("tidy can run");
    let found: Vec<String> =
        found.iter().map(|finding| format!("{}: {}", finding.line, finding.message)).collect();
    let expected =
        ["I-3 names the test `it_is_gone`, which is not there", "I-5 names neither a test nor an issue"];
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().zip(expected).all(|(found, expected)| found.ends_with(expected)), "{found:?}");
}

#[test]
fn a_registry_address_and_a_path_of_one_machine_are_found() {
    let host = concat!("registry.", "npmjs.org");
    let lock = format!("{{\n  \"resolved\": \"https://{host}/a.tgz\"\n}}\n");
    expect(
        &[("editors/vscode/package-lock.json", &lock)],
        &[&format!("editors/vscode/package-lock.json:2: registry address `{host}`")],
    );
    let path = concat!("/wo", "rk/");
    let page = format!("See {path}main.\nSee ./net{path}main.\nSee file://{path}x.\n");
    expect(
        &[("notes.md", &page)],
        &[
            &format!("notes.md:1: path of one machine `{path}`"),
            &format!("notes.md:3: path of one machine `{path}`"),
        ],
    );
}

#[test]
fn leftovers_in_text_are_found() {
    expect(
        &[("notes.md", "a \n<<<<<<< HEAD\nb\r\nc")],
        &[
            "notes.md:1: white space at the line's end",
            "notes.md:2: merge marker",
            "notes.md:3: white space at the line's end",
            "notes.md:4: no newline at the end",
        ],
    );
    expect(&[("tests/fixtures/crlf.py", "x = 1\r\n"), ("logo.md", "\0")], &[]);
}
