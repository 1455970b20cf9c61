//! The real vocabularies of models that users bring, which llama.cpp's sources have, with texts and the tokens that each
//! model's own tokenizer makes of them.
//!
//! `TANDEM_TEST_VOCABULARIES` is their folder; `cargo xtask ci --only vocabularies` fetches them.

use std::path::Path;

use engine::{Gguf, Tokenizer};

/// What stands between two texts.
const BETWEEN: &str = "\n__ggml_vocab_test__\n";

fn check(name: &str) {
    let dir = std::env::var_os("TANDEM_TEST_VOCABULARIES").expect("see the module's words");
    let path = Path::new(&dir).join(format!("ggml-vocab-{name}.gguf"));
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&path).unwrap()).unwrap();
    let read = |ext: &str| std::fs::read_to_string(path.with_extension(ext)).unwrap();
    let (texts, answers) = (read("gguf.inp"), read("gguf.out"));
    let texts: Vec<&str> = texts.strip_suffix(BETWEEN).unwrap_or(&texts).split(BETWEEN).collect();
    let answers: Vec<&str> = answers.lines().collect();
    assert!(texts.len() > 40 && texts.len() == answers.len(), "{} {}", texts.len(), answers.len());
    for (text, answer) in texts.iter().zip(answers) {
        let expected: Vec<u32> = answer.split_whitespace().map(|id| id.parse().unwrap()).collect();
        let got: Vec<u32> = tokenizer.encode(text).iter().map(|id| id.0).collect();
        assert_eq!(got, expected, "{name}: {text:?}");
        let again = tokenizer.decode(&tokenizer.encode(text));
        assert_eq!(String::from_utf8_lossy(&again), *text, "{name}");
    }
}

#[test]
#[ignore = "fetches llama.cpp's sources: `cargo xtask ci --only vocabularies`"]
fn every_known_rule_makes_the_tokens_that_models_were_trained_with() {
    for name in ["gpt-2", "starcoder", "refact", "llama-bpe", "qwen2", "deepseek-coder", "deepseek-llm"] {
        check(name);
    }
}
