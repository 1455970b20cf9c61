//! Tests of whole conversations: against transformers' Jinja and llama.cpp's tokens, and against forged special tokens.

mod answers;
mod forged;
mod grammars;
mod prompts;

use serde_json::Value;

use super::*;
use crate::gguf::test_file::{GgufWriter, test_model_path};
use crate::{Gguf, TokenId, Tokenizer};

/// Special tokens of the families whose templates are tested.
const NAMES: [&str; 36] = [
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|python_tag|>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<｜end▁of▁sentence｜>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
];

/// Returns a tokenizer of all bytes and the special tokens `names`, which have the ids from 256 on.
/// The first two begin and end a text, if there are so many.
pub(super) fn vocabulary(names: &[&str]) -> Tokenizer {
    Tokenizer::from_gguf(&file(names, |file| file)).expect("a valid vocabulary")
}

fn file(names: &[&str], more: impl FnOnce(GgufWriter) -> GgufWriter) -> Gguf {
    let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
    let mut bytes: Vec<String> = alphabet.into_iter().map(String::from).collect();
    bytes.sort();
    let texts: Vec<&str> = bytes.iter().map(String::as_str).chain(names.iter().copied()).collect();
    let types: Vec<i32> = (0..texts.len()).map(|idx| if idx < 256 { 1 } else { 4 }).collect();
    let mut writer = GgufWriter::new()
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", "smollm")
        .strs("tokenizer.ggml.tokens", &texts)
        .i32s("tokenizer.ggml.token_type", &types)
        .strs::<&str>("tokenizer.ggml.merges", &[]);
    if names.len() > 1 {
        writer = writer.u32("tokenizer.ggml.bos_token_id", 256).u32("tokenizer.ggml.eos_token_id", 257);
    }
    Gguf::from_bytes(more(writer).write().bytes).expect("a valid file")
}

fn real() -> (Gguf, Tokenizer) {
    let gguf = Gguf::open(&test_model_path()).expect("the default model");
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("the default model's tokenizer");
    (gguf, tokenizer)
}

fn template(source: &str, tokenizer: &Tokenizer) -> ChatTemplate {
    ChatTemplate::new(source, None, tokenizer).expect("a valid template")
}

fn source(name: &str) -> &'static str {
    match name {
        "Qwen-Qwen2.5-7B-Instruct.jinja" => {
            include_str!("../../tests/templates/Qwen-Qwen2.5-7B-Instruct.jinja")
        }
        "Qwen-Qwen3-0.6B.jinja" => include_str!("../../tests/templates/Qwen-Qwen3-0.6B.jinja"),
        "Qwen3-Coder.jinja" => include_str!("../../tests/templates/Qwen3-Coder.jinja"),
        "llama-cpp-deepseek-r1.jinja" => include_str!("../../tests/templates/llama-cpp-deepseek-r1.jinja"),
        "mistralai-Mistral-Nemo-Instruct-2407.jinja" => {
            include_str!("../../tests/templates/mistralai-Mistral-Nemo-Instruct-2407.jinja")
        }
        "microsoft-Phi-3.5-mini-instruct.jinja" => {
            include_str!("../../tests/templates/microsoft-Phi-3.5-mini-instruct.jinja")
        }
        "tandem-llama-3.jinja" => include_str!("../../tests/templates/tandem-llama-3.jinja"),
        "tandem-deepseek-text.jinja" => include_str!("../../tests/templates/tandem-deepseek-text.jinja"),
        _ => panic!("no template {name}"),
    }
}
