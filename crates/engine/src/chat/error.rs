//! Why a conversation cannot become a prompt.
//!
//! Out: one variant for each thing that its caller, or the model's user, can do something about.

use crate::gguf;

/// A failure between messages and a prompt.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file has no chat template, and its vocabulary is not ChatML's; the user can choose a chat model.
    #[error("the model has no chat template")]
    NoTemplate,
    /// The template's key has another type than text.
    #[error("the model's chat template cannot be read")]
    Metadata(#[from] gguf::Error),
    /// The template is not Jinja.
    #[error("the model's chat template is malformed at line {line}: {message}")]
    Syntax {
        /// Line of the template, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// The template failed on this conversation.
    #[error("the model's chat template failed at line {line}: {message}")]
    Failed {
        /// Line of the template, from 1.
        line: usize,
        /// What went wrong there.
        message: String,
    },
    /// The template refuses this conversation, in its maker's words; the caller can send another.
    #[error("the model's chat template refuses the conversation: {0}")]
    Refused(String),
    /// The template worked longer, or wrote more, than any honest one.
    #[error("the model's chat template does not end within its limits ({0})")]
    Limit(&'static str),
    /// There is nothing to answer.
    #[error("the conversation has no messages")]
    NoMessages,
}

impl Error {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoTemplate => "choose a chat model with `--model`; this one only continues text",
            Self::Metadata(error) => error.hint(),
            Self::Syntax { .. } | Self::Failed { .. } | Self::Limit(_) => {
                "the file's template is broken or not supported: get another conversion of the model"
            }
            Self::Refused(_) => "the model takes other roles, or another order of messages",
            Self::NoMessages => "send at least one message",
        }
    }
}
