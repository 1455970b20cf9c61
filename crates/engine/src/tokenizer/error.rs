//! Why a model's tokenizer cannot be used.
//!
//! Out: one variant for each thing the metadata can have wrong.

use crate::gguf;

/// A failure to build the tokenizer that a file describes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file has another kind of tokenizer; the user can choose another model.
    #[error(
        "the tokenizer is of the kind `{0}`; `gpt2`, the byte-level BPE, and `llama`, SentencePiece's, are known"
    )]
    Model(String),
    /// The rule for cutting text is not known; another rule would quietly give other tokens.
    #[error("the pre-tokenizer `{0}` is not known")]
    UnknownPre(String),
    /// A key of the metadata is missing or has another type.
    #[error("the tokenizer's metadata cannot be used")]
    Metadata(#[from] gguf::Error),
    /// There are more or fewer token types than tokens.
    #[error("there are {n_types} token types for {n_tokens} tokens")]
    TypeCount {
        /// Length of `tokenizer.ggml.token_type`.
        n_types: usize,
        /// Length of `tokenizer.ggml.tokens`.
        n_tokens: usize,
    },
    /// There are more or fewer scores than tokens.
    #[error("there are {n_scores} token scores for {n_tokens} tokens")]
    ScoreCount {
        /// Length of `tokenizer.ggml.scores`.
        n_scores: usize,
        /// Length of `tokenizer.ggml.tokens`.
        n_tokens: usize,
    },
    /// A token's score is no number.
    #[error("the score of token {id} is {score}")]
    Score {
        /// The token.
        id: u32,
        /// What the file says.
        score: f32,
    },
    /// What code is made of cannot be said.
    #[error("the vocabulary has no token for {0:?}")]
    NoToken(char),
    /// A token is said to stand for a byte, and its text names none.
    #[error("token {id}, `{text}`, is said to be a byte, and does not name one")]
    ByteToken {
        /// The token.
        id: u32,
        /// Its text.
        text: String,
    },
    /// The vocabulary is empty, or too large for ids of 32 bits.
    #[error("the vocabulary has {0} tokens")]
    Size(usize),
    /// A token has a type that does not exist.
    #[error("token {id} has the unknown type {token_type}")]
    TokenType {
        /// The token.
        id: u32,
        /// The number in the file.
        token_type: i32,
    },
    /// A token's text is not UTF-8.
    #[error("the text of token {id} is not UTF-8")]
    NotUtf8 {
        /// The token.
        id: u32,
    },
    /// More characters and blanks were added by hand than any model has.
    #[error("{0} single characters or blanks are user-defined tokens")]
    Literals(usize),
    /// Two tokens have the same text.
    #[error("tokens {first} and {second} are both `{text}`")]
    Twins {
        /// The token with the lower id.
        first: u32,
        /// The other.
        second: u32,
        /// Their text.
        text: String,
    },
    /// A merge is not two texts with a blank between, or names a token that is not there.
    #[error("merge {idx}, `{merge}`, does not join two tokens of the vocabulary to a third")]
    Merge {
        /// Its place in `tokenizer.ggml.merges`.
        idx: usize,
        /// The merge, as UTF-8 as it can be.
        merge: String,
    },
    /// The order of a FIM prompt is none that is known.
    #[error("`tandem.fim_order` is `{0}`; `spm` and `psm` are known")]
    FimOrder(String),
    /// A key names a token that is not in the vocabulary.
    #[error("`{key}` is {id}, and the vocabulary has {n_vocab} tokens")]
    IdOutOfRange {
        /// The key.
        key: String,
        /// The id it names.
        id: u32,
        /// Tokens in the vocabulary.
        n_vocab: usize,
    },
    /// A token with a role is one that ordinary text makes, against I-3.
    #[error("the {role} token is {id}, which is ordinary text")]
    RoleIsText {
        /// The role.
        role: &'static str,
        /// The token.
        id: u32,
    },
    /// A prompt must begin with a BOS token, and the file names none.
    #[error("prompts must begin with a BOS token, and `tokenizer.ggml.bos_token_id` is missing")]
    NoBos,
}

impl Error {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Model(_) | Self::UnknownPre(_) => {
                "choose another model with `--model`; `agent models list` shows those known to work"
            }
            Self::Metadata(error) => error.hint(),
            Self::TypeCount { .. }
            | Self::ScoreCount { .. }
            | Self::Score { .. }
            | Self::ByteToken { .. }
            | Self::NoToken(_)
            | Self::Size(_)
            | Self::TokenType { .. }
            | Self::NotUtf8 { .. }
            | Self::Literals(_)
            | Self::Twins { .. }
            | Self::Merge { .. }
            | Self::FimOrder(_)
            | Self::IdOutOfRange { .. }
            | Self::RoleIsText { .. }
            | Self::NoBos => {
                "the file was converted wrongly or is damaged: `agent models verify`, or get another conversion"
            }
        }
    }
}
