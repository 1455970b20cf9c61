//! The same tokens as llama.cpp, and nearly the logits of an f32 run.
//!
//! `tests/fixtures/make/parity.py` made the fixtures, with llama.cpp and with numpy over the dequantised weights.

use std::path::Path;

use candle_transformers::models::quantized_llama;
use engine::{
    Backend, CancelToken, CpuBackend, Gguf, KvPool, KvType, Logits, ModelSpec, RowSpan, Sequence, StepBatch,
    StepControl, StepEnd, TokenId, top_tokens,
};
use serde_json::Value;

use crate::{engine, greedy, model_path};

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&fixture(name)).unwrap()
}

fn ids(value: &Value) -> Vec<TokenId> {
    value.as_array().unwrap().iter().map(|id| TokenId(id.as_u64().unwrap() as u32)).collect()
}

#[test]
fn texts_become_the_tokens_llama_cpp_makes_of_them() {
    let fixture = json("tokens.json");
    let texts = fixture["texts"].as_array().unwrap();
    assert!(texts.len() >= 50);
    for case in texts {
        let text = case["text"].as_str().unwrap();
        assert_eq!(engine().tokenizer().encode(text), ids(&case["tokens"]), "{text:?}");
    }
}

/// A gap between llama.cpp's two likeliest logits below which its own rounding may decide: its logits differ from the
/// f32 run's by about this much (its NMSE is in logits.json).
const NEAR_TIE: f64 = 0.15;

#[test]
fn greedy_continuations_equal_those_of_llama_cpp() {
    let fixture = json("greedy.json");
    let prompts = fixture["prompts"].as_array().unwrap();
    assert_eq!(prompts.len(), 20);
    let mut n_equal = 0;
    for (prompt_idx, prompt) in prompts.iter().enumerate() {
        let expected = ids(&prompt["continuation"]);
        assert_eq!(expected.len(), 64);
        let got = greedy_tokens(&ids(&prompt["tokens"]), &expected);
        match got.iter().zip(&expected).position(|(got, expected)| got != expected) {
            None => n_equal += 1,
            Some(at) => {
                let gap = prompt["gaps"][at].as_f64().unwrap();
                println!(
                    "prompt {prompt_idx} differs at token {at}, where llama.cpp's two best are {gap} apart"
                );
                assert!(
                    gap < NEAR_TIE,
                    "prompt {prompt_idx} differs at token {at}: a gap of {gap} is no near-tie"
                );
            }
        }
    }
    println!("{n_equal} of 20 continuations of 64 tokens are equal");
    assert!(n_equal >= 18, "only {n_equal} of 20 continuations equal llama.cpp's");
}

/// Returns the engine's greedy continuation, as long as `expected`.
///
/// The engine stops at an end-of-generation token, which it does not return; llama.cpp was made to go on. So where the
/// engine stops, `expected` must hold such a token; it is appended, and the engine goes on from there.
fn greedy_tokens(prompt: &[TokenId], expected: &[TokenId]) -> Vec<TokenId> {
    let mut tokens = prompt.to_vec();
    let end = prompt.len() + expected.len();
    while tokens.len() < end {
        let request = greedy(tokens.clone(), end - tokens.len());
        let generation = engine().generate(request, &mut |_| true, &CancelToken::new()).unwrap();
        tokens.extend(&generation.tokens);
        if tokens.len() < end {
            let at = tokens.len() - prompt.len();
            assert!(
                engine().tokenizer().specials().is_end(expected[at]),
                "stopped at token {at} of {expected:?}"
            );
            tokens.push(expected[at]);
        }
    }
    tokens.split_off(prompt.len())
}

#[test]
fn logits_agree_with_an_f32_run_over_the_dequantised_weights() {
    let bytes = fixture("logits.bin");
    let all: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let rows = json("logits.json")["rows"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let got = last_logits(&ids(&row["tokens"]));
        let offset = row["offset_f32"].as_u64().unwrap() as usize;
        let nmse = nmse(&got, &all[offset..offset + got.len()]);
        println!("NMSE {nmse:.2e}; llama.cpp's own is {:.2e}", row["llama_cpp_nmse"].as_f64().unwrap());
        assert!(nmse < 1e-3, "NMSE {nmse}");
        assert_eq!(u64::from(top_tokens(&got, 1)[0].0.0), row["argmax"].as_u64().unwrap());
    }
}

/// candle rounds activations to 8 bits, ours are finer, so they agree as well as 8 bits allow.
#[test]
fn logits_agree_with_candle_transformers() {
    for text in
        ["def fibonacci(n):\n    if n <= 1:\n        return n\n    return ", "The capital of France is"]
    {
        let tokens = engine().tokenizer().encode(text);
        let mut file = std::fs::File::open(model_path()).unwrap();
        let content = candle_core::quantized::gguf_file::Content::read(&mut file).unwrap();
        let device = candle_core::Device::Cpu;
        let mut theirs = quantized_llama::ModelWeights::from_gguf(content, &mut file, &device).unwrap();
        let input: Vec<u32> = tokens.iter().map(|token| token.0).collect();
        let input = candle_core::Tensor::new(&input[..], &device).unwrap().unsqueeze(0).unwrap();
        let want: Vec<f32> = theirs.forward(&input, 0).unwrap().squeeze(0).unwrap().to_vec1().unwrap();
        let got = last_logits(&tokens);
        let nmse = nmse(&got, &want);
        println!("NMSE {nmse:.2e}");
        assert!(nmse < 1e-2, "NMSE {nmse}");
        assert_eq!(top_tokens(&got, 1)[0].0, top_tokens(&want, 1)[0].0, "{text:?}");
    }
}

/// Most that a cache of q8_0 may add to the logits' NMSE: the least that llama.cpp's own rounding does (logits.json).
/// Over 100 rows of 500 tokens it is 9.5e-5, with the same bits on every machine; of single rows a tenth is above 8e-4.
const MAX_Q8_0_NMSE: f64 = 1.3e-4;

#[test]
fn a_cache_of_q8_0_changes_the_logits_less_than_llama_cpp_rounds() {
    let prompts = json("greedy.json")["prompts"].as_array().unwrap().clone();
    let texts = prompts.iter().flat_map(|prompt| [ids(&prompt["tokens"]), ids(&prompt["continuation"])]);
    let tokens: Vec<TokenId> = texts.flatten().take(500).collect();
    let wanted: Vec<usize> = (0..tokens.len()).step_by(5).collect();
    let exact = logits(&tokens, &wanted, KvType::F16);
    let got = logits(&tokens, &wanted, KvType::Q8_0);
    let nmse = nmse(&got.concat(), &exact.concat());
    let best = |logits: &[f32]| top_tokens(logits, 1)[0].0;
    let n_equal = got.iter().zip(&exact).filter(|(got, exact)| best(got) == best(exact)).count();
    println!("NMSE {nmse:.2e} of q8_0 against f16; {n_equal} of {} likeliest tokens are equal", got.len());
    assert!(nmse > 0.0 && nmse < MAX_Q8_0_NMSE, "NMSE {nmse}");
    assert!(n_equal >= 98, "{n_equal} of {} likeliest tokens are equal", got.len());
}

fn last_logits(tokens: &[TokenId]) -> Vec<f32> {
    logits(tokens, &[tokens.len() - 1], KvType::F16).remove(0)
}

/// Returns the logits after some of `tokens`, all computed in one step by a backend of its own.
fn logits(tokens: &[TokenId], wanted: &[usize], kv_type: KvType) -> Vec<Vec<f32>> {
    let gguf = Gguf::open(&model_path()).unwrap();
    let spec = ModelSpec::from_gguf(&gguf).unwrap();
    let mut backend = CpuBackend::load(&gguf, &spec, None, &mut |_| {}).unwrap();
    let mut kv = KvPool::new(&spec, 512, kv_type);
    let mut sequence = Sequence::default();
    kv.reserve(&mut sequence, tokens.len()).unwrap();
    let span = RowSpan { blocks: sequence.blocks(), start: 0, n_tokens: tokens.len() };
    let batch = StepBatch { tokens, spans: &[span], logits: wanted };
    let mut logits = Logits::default();
    let control = StepControl { should_stop: &|| false };
    assert_eq!(backend.forward(&batch, &mut kv, &mut logits, &control).unwrap(), StepEnd::Done);
    (0..wanted.len()).map(|idx| logits.row(idx).to_vec()).collect()
}

pub(crate) fn nmse(got: &[f32], want: &[f32]) -> f64 {
    let error: f64 = got.iter().zip(want).map(|(got, want)| f64::from(got - want).powi(2)).sum();
    error / want.iter().map(|want| f64::from(*want).powi(2)).sum::<f64>()
}
