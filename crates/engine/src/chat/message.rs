//! What is said in a conversation, and the prompt it becomes.
//!
//! In: nothing. Out: the types on both sides of a [`ChatTemplate`](super::ChatTemplate).

use std::time::Duration;

use serde_json::{Map, Value};

use super::ChatFormat;
use crate::TokenId;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Who sets the rules.
    System,
    /// Who asks.
    User,
    /// The model.
    Assistant,
    /// A tool that answers the model.
    Tool,
}

impl Role {
    /// Returns the name templates know the role by.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// A tool the model asks to be called.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ToolCall {
    /// What the tool's answer names in [`Message::tool_call_id`].
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments, a JSON object as text.
    pub arguments: String,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said. It is text, whatever it says: no part of it becomes a special token (I-3).
    pub content: String,
    /// What the model thought before it said `content`; templates drop it from all but the last turn.
    pub reasoning: String,
    /// The calls an assistant's message ends with.
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool's message answers.
    pub tool_call_id: Option<String>,
    /// The speaker's name, or the tool's.
    pub name: Option<String>,
}

impl Message {
    /// Returns a message of `role` that says `content` and nothing else.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            reasoning: String::new(),
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
        }
    }

    /// Returns a tool's answer to the call `id`.
    pub fn tool(id: impl Into<String>, content: impl Into<String>) -> Self {
        Self { tool_call_id: Some(id.into()), ..Self::new(Role::Tool, content) }
    }
}

/// A tool the model may ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does, for the model to read.
    pub description: String,
    /// The JSON schema of its arguments, an object.
    pub parameters: Value,
}

/// A conversation to be continued.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    /// The conversation, oldest message first.
    pub messages: Vec<Message>,
    /// The tools on offer.
    pub tools: Vec<Tool>,
    /// Whether the prompt ends with the beginning of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Whether a model that can choose may think before it answers.
    pub enable_thinking: bool,
    /// More variables for the template, such as `date_string`; they override none of ours.
    pub variables: Map<String, Value>,
    /// Time since 1970 that templates may ask for, in the zone they shall show.
    pub now: Duration,
}

impl ChatRequest {
    /// Returns a request to answer `messages` without tools.
    pub fn new(messages: Vec<Message>) -> Self {
        Self {
            messages,
            tools: Vec::new(),
            add_generation_prompt: true,
            enable_thinking: true,
            variables: Map::new(),
            now: Duration::ZERO,
        }
    }
}

/// A prompt, and how to read what the model says to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// The prompt's ids, with BOS once where the model wants it.
    pub tokens: Vec<TokenId>,
    /// Whether the prompt ends within the model's thoughts: what it says first is reasoning.
    pub starts_in_reasoning: bool,
    /// Whether the answer may begin with a blank that is not the model's own.
    pub adds_blank: bool,
    /// Texts that end the answer, for a template whose turns do not end with a special token.
    pub stop_texts: Vec<String>,
    /// Special tokens the reader of the answer must see: pass them to
    /// [`Tokenizer::shown_bytes`](crate::Tokenizer::shown_bytes).
    pub shown: Vec<TokenId>,
    /// How the model writes its answer.
    pub format: ChatFormat,
    /// The number of tool calls in the conversation: the answer's are counted on from it.
    pub n_calls: usize,
}
