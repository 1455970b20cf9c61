//! Which crate may depend on which, and which crate owns an outside library.
//!
//! In: `cargo metadata --no-deps`. Out: a finding for each arrow that ARCHITECTURE.md does not draw.

use std::process::Command;

use serde_json::Value;

use super::Finding;
use super::tree::Tree;

/// Our crates in the order of the arrows, each with those of ours it may use.
pub const ARROWS: &[(&str, &[&str])] = &[
    ("text", &[]),
    ("syntax", &["text"]),
    ("engine", &[]),
    ("models", &[]),
    ("serve", &["engine"]),
    ("remote", &["engine"]),
    ("complete", &["engine", "syntax", "text"]),
    ("agent", &["engine", "syntax", "text"]),
    ("lsp", &["complete", "engine", "text"]),
    ("cli", &["lsp", "agent", "complete", "remote", "serve", "engine", "models", "text"]),
    ("e2e", &[]),
    ("xtask", &[]),
];

/// Outside libraries (a `*` ends a prefix) with the one crate that may use them, and why.
const OWNERS: &[(&str, &str, &str)] = &[
    ("candle*", "engine", "only engine knows candle (I-2)"),
    ("cudarc", "engine", "only engine knows where a model runs (I-2)"),
    ("tokenizers", "engine", "text becomes token ids in engine only (I-3)"),
    ("llguidance", "engine", "what may come next is decided in engine only (I-3)"),
    ("toktrie*", "engine", "what may come next is decided in engine only (I-3)"),
    ("tower-lsp*", "lsp", "only lsp knows LSP (I-1)"),
    ("lsp-types", "lsp", "only lsp knows LSP (I-1)"),
    ("ls-types", "lsp", "only lsp knows LSP (I-1)"),
    ("git2", "agent", "only agent knows git"),
    ("tree-sitter*", "syntax", "only syntax knows grammars"),
    ("hf-hub", "models", "only models may fetch (I-13)"),
    ("ureq", "remote", "only remote calls an endpoint, and an editor's session only by a flag (I-13)"),
    ("reqwest", "models", "only models may fetch (I-13)"),
    ("axum*", "serve", "only serve answers HTTP, on loopback (I-13)"),
    ("hyper*", "serve", "only serve answers HTTP, on loopback; hyper's client is not built (I-13)"),
    ("socket2", "serve", "only serve opens sockets between processes (I-13)"),
    ("zip", "models", "only models opens packages"),
    ("clap*", "cli", "only cli knows the command line"),
    ("indicatif", "cli", "only cli draws on the terminal"),
];

pub fn check(tree: &Tree, findings: &mut Vec<Finding>) -> Result<(), String> {
    let metadata = metadata(tree)?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        check_package(tree, package, findings);
    }
    Ok(())
}

fn metadata(tree: &Tree) -> Result<Value, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(&tree.root)
        .output()
        .map_err(|error| format!("cannot run cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cannot read cargo metadata's answer: {error}"))
}

fn check_package(tree: &Tree, package: &Value, findings: &mut Vec<Finding>) {
    let name = package["name"].as_str().unwrap_or_default();
    let manifest = manifest_path(tree, package);
    let Some((_, allowed)) = ARROWS.iter().find(|(owner, _)| *owner == name) else {
        findings.push(Finding {
            path: manifest,
            line: 1,
            message: format!("crate `{name}` has no arrows"),
            hint: "draw them in ARCHITECTURE.md and in xtask/src/tidy/arrows.rs, with the reason".to_owned(),
        });
        return;
    };
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let to = dependency["name"].as_str().unwrap_or_default();
        let is_dev = dependency["kind"].as_str() == Some("dev");
        let is_ours = dependency["path"].is_string();
        let line = || manifest_line(tree, &manifest, dependency);
        if is_ours && !is_dev && !allowed.contains(&to) {
            findings.push(Finding {
                path: manifest.clone(),
                line: line(),
                message: format!("forbidden arrow {name} → {to}"),
                hint: match allowed {
                    [] => format!("`{name}` depends on none of ours; move the code or pass the value in"),
                    _ => format!("`{name}` may use {}; nothing points up", allowed.join(", ")),
                },
            });
        }
        let owner = OWNERS.iter().find(|(pattern, ..)| !is_ours && matches_name(pattern, to));
        if let Some((_, owner, why)) = owner.filter(|(_, owner, _)| *owner != name) {
            findings.push(Finding {
                path: manifest.clone(),
                line: line(),
                message: format!("`{name}` depends on `{to}`, which belongs to `{owner}`"),
                hint: (*why).to_owned(),
            });
        }
    }
}

fn matches_name(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

fn manifest_path(tree: &Tree, package: &Value) -> String {
    let path = package["manifest_path"].as_str().unwrap_or_default();
    // Cargo resolves symbolic links, the caller's root may hold one.
    let root = tree.root.canonicalize().unwrap_or_else(|_| tree.root.clone());
    std::path::Path::new(path)
        .strip_prefix(&root)
        .map_or_else(|_| path.to_owned(), |path| path.display().to_string().replace('\\', "/"))
}

/// Returns the line of the manifest that names the dependency.
fn manifest_line(tree: &Tree, manifest: &str, dependency: &Value) -> usize {
    let key = dependency["rename"].as_str().or(dependency["name"].as_str()).unwrap_or_default();
    let text = tree.text(manifest).unwrap_or_default();
    let is_key = |line: &str| {
        let line = line.trim_start().trim_start_matches('"');
        let is_table = line.starts_with('[') && line.contains("dependencies.");
        is_table && line.contains(key)
            || line.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '.', '=', '"']))
    };
    // A crate may have the name of a package key ("text"), so only dependency sections count.
    let section = text.lines().position(|line| line.starts_with('[') && line.contains("dependencies"));
    let from = section.unwrap_or(0);
    text.lines().skip(from).position(is_key).map_or(1, |found| from + found + 1)
}
