//! Who writes a function again: a model that can be talked to, here or elsewhere.
//!
//! In: a conversation. Out: an answer, as it grows.
//! Never: decides whether the answer is any good; that is the search's and the tests' business.

use std::path::Path;

use engine::{
    CancelToken, ChatRequest, ChatTemplate, Drafting, Engine, GenerateRequest, Gguf, Message, Priority,
    Sampling, StopReason, StopRules,
};

use crate::Error;

/// The models a run may ask. Without any it tries edits by their kind alone.
#[derive(Clone, Copy, Default)]
pub struct Models<'a> {
    /// A model on this machine: it ranks edits and writes lines.
    pub engine: Option<&'a Engine>,
    /// A model that writes whole functions.
    pub author: Option<&'a dyn Author>,
}

/// A model that answers a conversation.
pub trait Author {
    /// Answers `messages`. Much of the answer will be as in `original`. `on_text` hears the answer as far as it has
    /// come, which may begin again, and returns whether it wants more.
    ///
    /// # Errors
    /// [`Error::Engine`] or [`Error::Author`]; they end the run.
    fn answer(
        &self,
        messages: Vec<Message>,
        sampling: Sampling,
        original: &str,
        on_text: &mut dyn FnMut(&str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Answer, Error>;
}

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The answer, or as much as `on_text` wanted.
    Text(String),
    /// The conversation does not fit the model.
    TooLong,
    /// The caller cancelled.
    Cancelled,
}

/// The engine's model as an author.
pub struct EngineAuthor {
    engine: Engine,
    template: ChatTemplate,
}

impl EngineAuthor {
    /// Returns the engine's model as an author, `None` if its file, at `path`, has no chat template that works.
    pub fn of(engine: &Engine, path: &Path) -> Option<Self> {
        let template = Gguf::open(path)
            .map_err(engine::ChatError::from)
            .and_then(|gguf| ChatTemplate::from_gguf(&gguf, engine.tokenizer()));
        match template {
            Ok(template) => Some(Self { engine: engine.clone(), template }),
            Err(engine::ChatError::NoTemplate) => None,
            Err(error) => {
                tracing::warn!(%error, "the model writes no functions");
                None
            }
        }
    }
}

impl Author for EngineAuthor {
    fn answer(
        &self,
        messages: Vec<Message>,
        sampling: Sampling,
        original: &str,
        on_text: &mut dyn FnMut(&str) -> bool,
        cancel: &CancelToken,
    ) -> Result<Answer, Error> {
        let tokenizer = self.engine.tokenizer();
        let request = ChatRequest { enable_thinking: false, ..ChatRequest::new(messages) };
        let prompt = match self.template.prompt(tokenizer, &request) {
            Ok(prompt) => prompt,
            Err(error) => {
                tracing::debug!(%error, "no prompt");
                return Ok(Answer::TooLong);
            }
        };
        let original = tokenizer.encode(original);
        let request = GenerateRequest {
            prompt: prompt.tokens,
            healed: Vec::new(),
            grammar: None,
            shown: Vec::new(),
            n_top: 0,
            sampling,
            stop: StopRules {
                // Half as long again, and a sentence before it.
                n_max_tokens: original.len() * 3 / 2 + 64,
                texts: prompt.stop_texts,
                decode_time: None,
            },
            drafting: Drafting { original, ..Drafting::default() },
            priority: Priority::Background,
        };
        let mut text = String::new();
        let mut hear = |piece: &str| {
            text.push_str(piece);
            on_text(&text)
        };
        match self.engine.generate(request, &mut hear, cancel) {
            Ok(generation) if generation.stop == StopReason::Cancelled => Ok(Answer::Cancelled),
            Ok(_) => Ok(Answer::Text(text)),
            Err(engine::Error::PromptTooLong { .. }) => Ok(Answer::TooLong),
            Err(error) => Err(Error::Engine(error)),
        }
    }
}
