//! The engine on the real default model: `TANDEM_TEST_MODEL` is its path (`cargo xtask model`).
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod counters;
mod draft_model;
mod families;
mod generation;
#[cfg(all(feature = "cuda", target_arch = "x86_64", target_os = "linux"))]
mod gpu;
mod grammar;
mod identity;
mod model_file;
mod parity;
mod schedules;
mod vocabularies;

use std::path::PathBuf;
use std::sync::OnceLock;

use engine::{Drafting, Engine, EngineOptions, GenerateRequest, Priority, Sampling, StopRules, TokenId};

fn model_path() -> PathBuf {
    std::env::var_os("TANDEM_TEST_MODEL").map(PathBuf::from).expect(
        "these tests run the real model: set TANDEM_TEST_MODEL to what `cargo xtask model` prints, or run `cargo xtask ci`",
    )
}

/// Loads the model once for the whole binary.
fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::load(&model_path(), EngineOptions::default(), &mut |_| {}).unwrap())
}

fn greedy(prompt: Vec<TokenId>, n_max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        prompt,
        healed: Vec::new(),
        grammar: None,
        shown: Vec::new(),
        sampling: Sampling::greedy(),
        stop: StopRules { n_max_tokens, texts: Vec::new(), decode_time: None },
        drafting: Drafting::default(),
        n_top: 0,
        priority: Priority::Background,
    }
}

/// xorshift64, so that a failure comes again.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}
