//! What can go wrong between a file on disk and a token, one variant per thing a caller can do about it.

use std::path::PathBuf;

use crate::{GrammarError, gguf, tokenizer};

/// A failure of the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model file cannot be opened or read; the user can fix the path or its rights.
    #[error("cannot read the model {}", path.display())]
    Io {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a whole, honest GGUF; the user can fetch it again.
    #[error("{} is not a usable GGUF file", path.display())]
    Gguf {
        /// The file asked for.
        path: PathBuf,
        /// Where and why it was refused.
        source: gguf::Error,
    },
    /// The vocabulary in the file cannot be used.
    #[error("the model's tokenizer cannot be used")]
    Tokenizer(#[from] tokenizer::Error),
    /// The file is honest but describes a model this engine does not run.
    #[error("model architecture `{architecture}` is not supported: {what}")]
    Unsupported {
        /// `general.architecture`.
        architecture: String,
        /// The part that is not supported, by its name in the file.
        what: String,
    },
    /// The file contradicts itself: a tensor is missing or has another shape than its metadata say.
    #[error("the model contradicts its own metadata: {0}")]
    Inconsistent(String),
    /// The file of the draft model cannot be used; the user can name another, or none.
    #[error("the draft model cannot be used")]
    Draft {
        /// What is wrong with it.
        source: Box<Self>,
    },
    /// The draft model's token ids mean something else than the model's.
    #[error("the draft model has another vocabulary than the model: {what}")]
    DraftVocabulary {
        /// The first difference.
        what: String,
    },
    /// The prompt does not fit; the caller must choose a smaller window. The engine never cuts silently.
    #[error("the prompt has {n_tokens} tokens and the model holds {n_ctx}")]
    PromptTooLong {
        /// Tokens asked for, prompt and answer.
        n_tokens: usize,
        /// Most tokens a sequence may have.
        n_ctx: usize,
    },
    /// The prompt is empty; there is nothing to continue.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// A token id outside the vocabulary.
    #[error("token id {0} is not in the vocabulary")]
    UnknownToken(u32),
    /// The grammar of a request cannot be used; its author can mend it.
    #[error("the answer cannot follow the grammar")]
    Grammar(#[from] GrammarError),
    /// The KV cache cannot hold the running sequences.
    #[error("the KV cache is full")]
    KvFull(#[from] crate::KvFull),
    /// candle refused an operation: a bug of ours.
    #[error("candle failed")]
    Candle(#[from] candle_core::Error),
    /// There is no GPU that can be used, for the reason given; the CPU can.
    #[error("no GPU can be used: {0}")]
    NoGpu(String),
    /// A GPU failed, for the reason given.
    #[error("the GPU failed: {0}")]
    Gpu(String),
    /// A step of the model failed, for the reason given; a bug of ours.
    #[error("a step of the model failed: {0}")]
    Step(String),
    /// The engine thread died while working on this request; others go on after a restart.
    #[error("the engine stopped while working on this request")]
    Gone,
    /// Too many requests wait already; the caller may try again later.
    #[error("the engine is busy: {n_waiting} requests are waiting")]
    Busy {
        /// Requests that were there first.
        n_waiting: usize,
    },
    /// The model runs in another process, and something failed there or on the way.
    #[error("{message}")]
    Link {
        /// What failed.
        message: String,
        /// What the user can do about it, if anything.
        hint: Option<String>,
    },
}

impl Error {
    /// Returns the error of a file that could not be opened or is no whole GGUF.
    pub(crate) fn opening(path: &std::path::Path, source: gguf::Error) -> Self {
        let path = path.to_owned();
        match source {
            gguf::Error::Io(source) => Self::Io { path, source },
            source => Self::Gguf { path, source },
        }
    }

    /// Returns what the user can do about it, if anything.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Io { .. } => Some("check the path, or run `agent models list` to see what is installed"),
            Self::Gguf { .. } | Self::Inconsistent(_) => {
                Some("the file is damaged or incomplete: `agent models verify`, then `agent models pull`")
            }
            Self::Tokenizer(_) | Self::Unsupported { .. } => {
                Some("choose another model with `--model`; `agent models list` shows those known to work")
            }
            Self::Draft { .. } | Self::DraftVocabulary { .. } => Some(
                "name a smaller model of the model's own family with `--draft-model`, or leave it out: the answers are the same",
            ),
            Self::PromptTooLong { .. } | Self::KvFull(_) => {
                Some("use a smaller window, or a model with a longer context")
            }
            Self::Grammar(error) => error.hint(),
            Self::Busy { .. } => Some("try again when some of them are answered"),
            Self::Link { hint, .. } => hint.as_deref(),
            Self::NoGpu(_) | Self::Gpu(_) => Some("`--device cpu` runs the model on the CPU"),
            Self::EmptyPrompt | Self::UnknownToken(_) | Self::Candle(_) | Self::Step(_) | Self::Gone => None,
        }
    }
}
