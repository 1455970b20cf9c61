//! Rules about what Rust code says: who may name a library, write a file, open a socket, be unsafe.
//!
//! In: Rust files by kind of text. Out: a finding for each line that breaks I-1, I-2, I-4, I-12, I-13,
//! the rules on unsafe code and lints, or that leaves a module without its opening words.

use super::Finding;
use super::lex::{line_at, lines_with_word, without_tests, word_offsets};
use super::tree::{SourceFile, Tree};

/// A set of identifiers and the only places that may say them.
struct Words {
    words: &'static [&'static str],
    /// Prefixes of paths. Test code is judged only when `in_tests` says so.
    allowed: &'static [&'static str],
    /// Prefixes of the paths the rule is about.
    scope: &'static [&'static str],
    in_tests: bool,
    message: &'static str,
    hint: &'static str,
}

const RULES: &[Words] = &[
    Words {
        words: &["candle", "candle_core", "candle_nn", "candle_transformers"],
        allowed: &["crates/engine/"],
        scope: &[""],
        in_tests: true,
        message: "names candle outside engine (I-2)",
        hint: "ask for it through engine's own types",
    },
    Words {
        words: &["tower_lsp", "tower_lsp_server", "lsp_types", "ls_types"],
        allowed: &["crates/lsp/"],
        scope: &[""],
        in_tests: true,
        message: "names an LSP type outside lsp (I-1)",
        hint: "wire types end at lsp's from_proto and to_proto",
    },
    Words {
        words: &[
            "File::create",
            "File::create_new",
            "File::options",
            "OpenOptions",
            "fs::copy",
            "fs::create_dir",
            "fs::create_dir_all",
            "fs::hard_link",
            "fs::remove_dir",
            "fs::remove_dir_all",
            "fs::remove_file",
            "fs::rename",
            "fs::set_permissions",
            "fs::write",
            "Folder::holding",
            "rustix::fs",
            "CheckoutBuilder",
            "DirBuilder",
            "checkout_head",
            "checkout_index",
            "checkout_tree",
        ],
        // The sandbox writes its throw-away copy, a proposal its own refs; accept alone the user's tree.
        allowed: &[
            "crates/agent/src/accept.rs",
            "crates/agent/src/accept/",
            // What accept and the sandbox write with.
            "crates/agent/src/confined.rs",
            "crates/agent/src/sandbox.rs",
            "crates/agent/src/sandbox/",
            "crates/agent/src/proposal.rs",
            "crates/agent/src/proposal/",
            // The data directory is theirs to write.
            "crates/models/",
            "crates/cli/",
            "crates/lsp/src/memory.rs",
            // The server's socket, its lock and its log.
            "crates/serve/src/address.rs",
            "crates/serve/src/claim.rs",
            "crates/serve/src/log.rs",
        ],
        scope: &["crates/"],
        in_tests: false,
        message: "writes files where nothing may (I-4)",
        hint: "only agent::accept writes the user's tree; return the value to it, or use the sandbox",
    },
    Words {
        words: &[
            "TcpStream",
            "TcpSocket",
            "TcpListener",
            "UdpSocket",
            "ToSocketAddrs",
            "Domain::IPV4",
            "Domain::IPV6",
        ],
        // The HTTP face of `agent serve` listens on loopback when its user asks for it; it calls nobody.
        allowed: &["crates/models/", "crates/serve/src/http/listener.rs"],
        scope: &["crates/"],
        in_tests: false,
        message: "opens a network socket outside models and serve's listener (I-13)",
        hint: "only models may fetch, and only serve/src/http/listener.rs listens",
    },
    Words {
        words: &["UnixStream", "UnixListener", "UnixDatagram", "Domain::UNIX"],
        allowed: &["crates/serve/"],
        scope: &["crates/"],
        in_tests: false,
        message: "opens a socket outside serve",
        hint: "ask serve for an engine; the socket between processes is its own",
    },
    Words {
        words: &["println!", "print!"],
        allowed: &["crates/cli/"],
        scope: &["crates/"],
        in_tests: false,
        message: "prints to stdout outside cli (I-12)",
        hint: "use tracing, or return the value to cli; stdout of `agent lsp` is the protocol's",
    },
    Words {
        words: &["thread::spawn"],
        allowed: &[],
        scope: &["crates/"],
        in_tests: false,
        message: "starts a thread without a name",
        hint: "std::thread::Builder::new().name(…).spawn(…) (STYLE.md, rule 23)",
    },
    Words {
        words: &["unsafe"],
        allowed: &["crates/engine/src/kernel.rs", "crates/engine/src/kernel/", "crates/engine/src/mmap.rs"],
        scope: &["crates/", "tests/", "xtask/"],
        in_tests: true,
        message: "stands outside engine/src/kernel/ and engine/src/mmap.rs",
        hint: "use a safe crate, or move it behind a safe function there",
    },
];

pub fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for file in tree.files.iter().filter(|file| !file.is_material()) {
        if let Some(rust) = &file.rust {
            check_words(file, &rust.code, findings);
            check_reexport(file, &rust.code, findings);
            check_allow(file, &rust.code, findings);
            check_crate_root(file, &rust.code, findings);
            check_opening(file, findings);
            check_marks(file, &rust.comments, findings);
        } else if matches!(file.extension(), "ts" | "lua" | "py" | "mjs" | "toml" | "sh") {
            check_marks(file, file.text.as_deref().unwrap_or_default(), findings);
        }
    }
}

fn check_words(file: &SourceFile, code: &str, findings: &mut Vec<Finding>) {
    let outside_tests = without_tests(code);
    for rule in RULES {
        let starts_with_any = |prefixes: &[&str]| prefixes.iter().any(|prefix| file.path.starts_with(prefix));
        let is_exempt = file.is_test() && !rule.in_tests;
        if !starts_with_any(rule.scope) || starts_with_any(rule.allowed) || is_exempt {
            continue;
        }
        let code = if rule.in_tests { code } else { &outside_tests };
        for word in rule.words {
            for line in lines_with_word(code, word) {
                push(findings, file, line, format!("`{word}` {}", rule.message), rule.hint);
            }
        }
    }
}

/// I-2 also means that engine hands candle on to nobody.
fn check_reexport(file: &SourceFile, code: &str, findings: &mut Vec<Finding>) {
    if file.owner() != "engine" {
        return;
    }
    for word in ["candle_core", "candle_nn", "candle_transformers"] {
        for at in word_offsets(code, word) {
            if code[..at].split_whitespace().rev().take(2).eq(["use", "pub"]) {
                let message = format!("engine re-exports `{word}` (I-2)");
                push(findings, file, line_at(code, at), message, "wrap it in a type of engine's own");
            }
        }
    }
}

fn check_allow(file: &SourceFile, code: &str, findings: &mut Vec<Finding>) {
    for at in word_offsets(code, "allow") {
        let before: String = code[..at].chars().rev().filter(|char| !char.is_whitespace()).take(3).collect();
        let line = line_at(code, at);
        let is_attribute = before.starts_with("[#") || before.starts_with("[!#");
        let is_conditional = code.lines().nth(line - 1).is_some_and(|text| text.contains("cfg_attr"));
        if (is_attribute || is_conditional) && code[at + 5..].trim_start().starts_with('(') {
            let hint = "#[expect(lint, reason = \"…\")] says why, and complains when it is no longer needed";
            push(findings, file, line, "bare `allow`".to_owned(), hint);
        }
    }
}

/// Every crate forbids unsafe code at its root; engine, which owns two places, denies it.
fn check_crate_root(file: &SourceFile, code: &str, findings: &mut Vec<Finding>) {
    let is_root = match file.path.split('/').collect::<Vec<_>>().as_slice() {
        ["crates", _, "src", name] | ["xtask" | "tests", "src", name] => {
            matches!(*name, "lib.rs" | "main.rs")
        }
        _ => false,
    };
    if !is_root {
        return;
    }
    let wanted = match file.owner() {
        "engine" => "#![deny(unsafe_code)]",
        _ => "#![forbid(unsafe_code)]",
    };
    let squeezed: String = code.split_whitespace().collect();
    if !squeezed.contains(wanted) {
        push(findings, file, 1, format!("crate root without `{wanted}`"), "add it under the module doc");
    }
}

/// A module opens by saying what goes in and out, or at least what it is for, in a sentence.
fn check_opening(file: &SourceFile, findings: &mut Vec<Finding>) {
    let is_module = ["crates/", "xtask/"].iter().any(|folder| file.path.starts_with(folder))
        && file.path.contains("/src/")
        && !file.is_test();
    let text = file.text.as_deref().unwrap_or_default();
    if is_module && opening_sentence(text).split_whitespace().count() < 3 {
        let hint = "open with `//! What this is for.` and In, Out, Never, Thread, Source where they apply";
        push(findings, file, 1, "module without its opening words".to_owned(), hint);
    }
}

/// Returns the first sentence of a module's doc, or nothing.
pub fn opening_sentence(text: &str) -> String {
    let paragraph: Vec<&str> = text
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let paragraph = paragraph.join(" ");
    match paragraph.find(". ") {
        Some(end) => paragraph[..=end].to_owned(),
        None => paragraph,
    }
}

/// Unfinished work is written down as an issue, or it is not written down.
fn check_marks(file: &SourceFile, text: &str, findings: &mut Vec<Finding>) {
    for mark in [concat!("TO", "DO"), concat!("FIX", "ME")] {
        for line in lines_with_word(text, mark) {
            let words = text.lines().nth(line - 1).unwrap_or_default();
            let has_issue =
                words.split('#').skip(1).any(|after| after.starts_with(|char: char| char.is_ascii_digit()));
            if !has_issue {
                let hint = "name its issue (#N) on the same line, or do it now";
                push(findings, file, line, format!("{mark} without an issue"), hint);
            }
        }
    }
}

fn push(findings: &mut Vec<Finding>, file: &SourceFile, line: usize, message: String, hint: &str) {
    findings.push(Finding { path: file.path.clone(), line, message, hint: hint.to_owned() });
}
