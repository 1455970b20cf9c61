//! A conversation becomes a prompt, and the answer's text becomes content, reasoning and tool calls.
//!
//! In: messages and tools; then the answer, token by token. Out: [`Prompt`]; [`ChatDelta`]s.
//! Never: lets a message make a special token (I-3), or loses a part of the answer.
//! Source: `apply_chat_template` of Hugging Face's transformers; the wire formats, llama.cpp's `common/chat.cpp`.

mod capability;
mod date;
mod environment;
mod error;
mod format;
mod grammar;
mod mark;
mod message;
mod parser;
mod python;
mod retold;
mod source;
mod template;
#[cfg(test)]
mod tests;
mod view;
mod wire;

pub use error::Error as ChatError;
pub use format::{ChatFormat, ReasoningTags, ToolFormat};
pub use grammar::{AnswerRule, CallCount, CallRule, answer_grammar};
pub use message::{ChatRequest, Message, Prompt, Role, Tool, ToolCall};
pub use parser::{ChatDelta, ChatParser};
pub use template::ChatTemplate;
