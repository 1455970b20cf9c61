//! Tokens in, tokens out: the one engine both riders share, and the only crate that knows candle (I-2).
//!
//! In: a GGUF file, then requests of token ids. Out: generated text, scores.
//! Never: reads a document, knows an editor, opens a socket.
//! Thread: one engine thread owns the model and the KV cache; [`Engine`] is a handle to it.

#![deny(unsafe_code)]

mod backend;
mod batch;
mod bench;
mod cancel;
mod chat;
mod constrain;
mod device;
mod drafter;
mod engine;
mod error;
mod gguf;
mod job;
mod kernel;
mod kv;
mod metrics;
mod mmap;
mod record;
mod request;
mod retained;
mod sample;
mod scheduler;
mod spec;
mod stop;
mod tokenizer;

#[cfg(feature = "metal")]
pub use backend::CandleBackend;
#[cfg(feature = "cuda")]
pub use backend::CudaBackend;
pub use backend::{Backend, CpuBackend, StepControl, StepEnd};
pub use batch::{Logits, RowSpan, StepBatch};
pub use bench::Bench;
#[cfg(feature = "cuda")]
pub use bench::{Agreement, Bits};
pub use cancel::CancelToken;
pub use constrain::{GrammarError, GrammarSpec};

pub use chat::{
    AnswerRule, CallCount, CallRule, ChatDelta, ChatError, ChatFormat, ChatParser, ChatRequest, ChatTemplate,
    Message, Prompt, ReasoningTags, Role, Tool, ToolCall, ToolFormat, answer_grammar,
};
pub use device::{Device, UnknownDevice};
pub use drafter::{
    Combined, Corpus, Draft, Drafter, DrafterKind, EditDrafter, MatchOdds, PreviousAnswer, StepCosts,
    SuffixAutomaton,
};
pub use engine::{Engine, EngineOptions, Link, LoadProgress};
pub use error::Error;
pub use gguf::{GgmlType, Gguf, TensorView, Value};
pub use kernel::isa_name;
pub use kv::{BLOCK_TOKENS, BlockId, KvFull, KvPool, KvType, Sequence, UnknownKvType};
pub use metrics::{
    Counter, DraftCount, Gauge, GivenUp, Histogram, Metrics, RequestTimes, StepCount, StepKind,
};
pub use record::{Asked, Ended, Outcome, Recorder};
pub use request::{
    DraftExtent, Drafting, GenerateRequest, Generation, Priority, Sampling, Score, ScoreRequest, StopReason,
    StopRules, Timings,
};
pub use sample::top_tokens;
pub use spec::{ExpertSpec, ModelSpec, RopePairing, RopeSpec, YarnSpec};
pub use tokenizer::{FimOrder, SpecialTokens, StreamDecoder, TokenId, Tokenizer};
