//! The real vocabularies of models that users bring, with texts and the tokens that each model's own tokenizer makes of
//! them.
//!
//! `TANDEM_TEST_VOCABULARIES` is the folder of those that llama.cpp's sources have, `TANDEM_TEST_MISTRAL_VOCABULARIES` that
//! of what `tests/fixtures/make/vocabularies.py` makes of mistral-common's; `cargo xtask ci --only vocabularies` fetches both.

use std::path::Path;

use engine::{Gguf, Tokenizer};

/// What stands between two texts.
const BETWEEN: &str = "\n__ggml_vocab_test__\n";

fn check(variable: &str, name: &str) {
    let dir = std::env::var_os(variable).expect("see the module's words");
    let path = Path::new(&dir).join(format!("ggml-vocab-{name}.gguf"));
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&path).unwrap()).unwrap();
    let read = |ext: &str| std::fs::read_to_string(path.with_extension(ext)).unwrap();
    let (texts, answers) = (read("gguf.inp"), read("gguf.out"));
    let texts: Vec<&str> = texts.strip_suffix(BETWEEN).unwrap_or(&texts).split(BETWEEN).collect();
    let answers: Vec<&str> = answers.lines().collect();
    assert!(texts.len() > 40 && texts.len() == answers.len(), "{} {}", texts.len(), answers.len());
    for (text, answer) in texts.iter().zip(answers) {
        let expected: Vec<u32> = answer.split_whitespace().map(|id| id.parse().unwrap()).collect();
        let got: Vec<u32> = tokenizer.encode_first(text).iter().map(|id| id.0).collect();
        assert_eq!(got, expected, "{name}: {text:?}");
        let again = tokenizer.decode(&tokenizer.encode(text));
        assert_eq!(String::from_utf8_lossy(&again), *text, "{name}");
    }
}

#[test]
#[ignore = "fetches llama.cpp's sources: `cargo xtask ci --only vocabularies`"]
fn every_known_rule_makes_the_tokens_that_models_were_trained_with() {
    let byte_level = ["gpt-2", "starcoder", "refact", "llama-bpe", "qwen2", "deepseek-coder", "deepseek-llm"];
    for name in byte_level.into_iter().chain(["llama-spm", "phi-3"]) {
        check("TANDEM_TEST_VOCABULARIES", name);
    }
    for name in ["mistral-v1", "mistral-v3", "mistral-nemo"] {
        check("TANDEM_TEST_MISTRAL_VOCABULARIES", name);
    }
}
