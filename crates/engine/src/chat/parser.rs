//! A model's answer, read while it arrives.
//!
//! In: text or token ids, cut anywhere. Out: content, reasoning and tool calls, joined the same however it was cut.
//! Never: loses a part of the answer but white space beside markup, or shows half a marker.

use super::format::THINK;
use super::wire::{self, Context, RawCall, Read};
use super::{ChatFormat, Prompt, ReasoningTags, Tool, ToolCall, ToolFormat};
use crate::tokenizer::StreamDecoder;
use crate::{TokenId, Tokenizer};

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatDelta {
    /// More of what the model thinks.
    Reasoning(String),
    /// More of what the model says; a call that cannot be read is said, as the model wrote it.
    Content(String),
    /// A whole call. Its id is the model's, or counts the conversation's calls: `call00000`.
    ToolCall(ToolCall),
}

/// Where in an answer the next text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Reasoning,
    Content,
}

/// Reads one answer.
#[derive(Debug)]
pub struct ChatParser {
    format: ChatFormat,
    tools: Vec<Tool>,
    shown: Vec<TokenId>,
    n_calls: usize,
    decoder: StreamDecoder,
    place: Place,
    /// Nothing but white space and calls has been read at this place.
    is_start: bool,
    /// White space at the start is not the model's own: it follows markup.
    is_after_markup: bool,
    is_after_call: bool,
    /// White space that is said if text follows it.
    space: String,
    // INVARIANT: what could be the beginning of markup; all before it is in `space` or returned.
    pending: String,
    deltas: Vec<ChatDelta>,
}

impl ChatParser {
    /// Returns a parser for the answer to `prompt`, for which `tools` were offered.
    pub fn new(prompt: &Prompt, tools: &[Tool]) -> Self {
        Self {
            format: prompt.format,
            tools: tools.to_vec(),
            shown: prompt.shown.clone(),
            n_calls: prompt.n_calls,
            decoder: StreamDecoder::default(),
            place: if prompt.starts_in_reasoning { Place::Reasoning } else { Place::Content },
            is_start: true,
            is_after_markup: prompt.starts_in_reasoning || prompt.adds_blank,
            is_after_call: false,
            space: String::new(),
            pending: String::new(),
            deltas: Vec::new(),
        }
    }

    /// Takes the answer's next token; `tokenizer` is the model's.
    pub fn push_token(&mut self, tokenizer: &Tokenizer, token: TokenId) -> Vec<ChatDelta> {
        let text = self.decoder.push(tokenizer.shown_bytes(token, &self.shown));
        self.pending.push_str(text);
        self.read(false)
    }

    /// Takes the answer's next text, in which the special tokens [`Prompt::shown`] are written out.
    pub fn push(&mut self, text: &str) -> Vec<ChatDelta> {
        self.pending.push_str(text);
        self.read(false)
    }

    /// Takes the answer's end and returns what was held back.
    pub fn finish(mut self) -> Vec<ChatDelta> {
        let rest = std::mem::take(&mut self.decoder).finish();
        self.pending.push_str(&rest);
        self.read(true)
    }

    #[cfg(test)]
    pub(super) fn shows(&self, tokenizer: &Tokenizer, name: &str) -> bool {
        tokenizer.special(name).is_some_and(|token| self.shown.contains(&token))
    }

    fn read(&mut self, is_final: bool) -> Vec<ChatDelta> {
        while match self.place {
            Place::Reasoning => self.read_reasoning(is_final),
            Place::Content => self.read_content(is_final),
        } {}
        if is_final && self.place == Place::Content && !(self.is_start && self.is_after_markup) {
            let space = std::mem::take(&mut self.space);
            self.deliver(space);
        }
        std::mem::take(&mut self.deltas)
    }

    /// Reads on in the model's thoughts; returns whether there may be more to read.
    fn read_reasoning(&mut self, is_final: bool) -> bool {
        let tags = self.format.reasoning.unwrap_or(THINK);
        // Some models repeat the tag their prompt ended with.
        if self.is_start && !self.skip_opening(tags, is_final) {
            return false;
        }
        if let Some(at) = self.pending.find(tags.close) {
            self.say(at);
            self.pending.drain(..tags.close.len());
            self.space.clear();
            (self.place, self.is_start, self.is_after_markup) = (Place::Content, true, true);
            return true;
        }
        let n_held = if is_final { 0 } else { overlap(&self.pending, &[tags.close]) };
        self.say(self.pending.len() - n_held);
        false
    }

    /// Takes an opening tag at the very beginning of the thoughts; returns whether it is decided.
    fn skip_opening(&mut self, tags: ReasoningTags, is_final: bool) -> bool {
        let rest = self.pending.trim_start();
        if !is_final && tags.open.starts_with(rest) && rest != tags.open {
            return false;
        }
        if rest.starts_with(tags.open) {
            self.pending.drain(..self.pending.len() - rest.len() + tags.open.len());
            // What comes next is thought, even the tag once more.
            self.is_start = false;
            self.is_after_markup = true;
        }
        true
    }

    fn read_content(&mut self, is_final: bool) -> bool {
        if let Some(tags) = self.format.reasoning.filter(|_| self.is_start && !self.is_after_call) {
            let rest = self.pending.trim_start();
            if rest.starts_with(tags.open) {
                self.pending.drain(..self.pending.len() - rest.len() + tags.open.len());
                self.space.clear();
                (self.place, self.is_start, self.is_after_markup) = (Place::Reasoning, false, true);
                return true;
            }
            if !is_final && tags.open.starts_with(rest) {
                return false;
            }
        }
        let Some(format) = self.format.tools else {
            self.say(self.pending.len());
            return false;
        };
        let found = self.find_call(format, is_final);
        let Some(at) = found else {
            let n_held = if is_final { 0 } else { overlap(&self.pending, format.triggers()) };
            self.say(self.pending.len() - n_held);
            return false;
        };
        self.say(at);
        let context = self.context(format, is_final);
        match wire::read(context, &self.pending) {
            Read::More => false,
            Read::Calls(calls, n_bytes) => {
                self.pending.drain(..n_bytes);
                self.take_calls(calls);
                true
            }
            Read::Text(n_bytes) => {
                self.say(n_bytes);
                true
            }
        }
    }

    fn context(&self, format: ToolFormat, is_final: bool) -> Context<'_> {
        let (is_start, is_after_call) = (self.is_start, self.is_after_call && self.is_start);
        Context { format, tools: &self.tools, is_final, is_start, is_after_call }
    }

    fn find_call(&self, format: ToolFormat, is_final: bool) -> Option<usize> {
        let bare = wire::starts_bare(self.context(format, is_final), &self.pending);
        let triggered = format.triggers().iter().filter_map(|trigger| self.pending.find(trigger));
        triggered.chain(bare).min()
    }

    fn take_calls(&mut self, calls: Vec<RawCall>) {
        self.space.clear();
        (self.is_start, self.is_after_markup, self.is_after_call) = (true, true, true);
        for RawCall { id, name, arguments } in calls {
            let id = id.unwrap_or_else(|| format!("call{:05}", self.n_calls));
            self.n_calls += 1;
            self.deltas.push(ChatDelta::ToolCall(ToolCall { id, name, arguments }));
        }
    }

    /// Says `n_bytes` of what is pending, but for white space at its end, which waits for what follows.
    fn say(&mut self, n_bytes: usize) {
        let text: String = self.pending.drain(..n_bytes).collect();
        let said = text.trim_end();
        if said.is_empty() {
            self.space.push_str(&text);
            return;
        }
        let mut out = std::mem::take(&mut self.space) + said;
        self.space.push_str(&text[said.len()..]);
        if self.is_after_markup {
            out.drain(..out.len() - out.trim_start().len());
        }
        (self.is_start, self.is_after_markup) = (false, false);
        self.deliver(out);
    }

    fn deliver(&mut self, text: String) {
        if text.is_empty() {
            return;
        }
        match (self.place, self.deltas.last_mut()) {
            (Place::Reasoning, Some(ChatDelta::Reasoning(before)))
            | (Place::Content, Some(ChatDelta::Content(before))) => before.push_str(&text),
            (Place::Reasoning, _) => self.deltas.push(ChatDelta::Reasoning(text)),
            (Place::Content, _) => self.deltas.push(ChatDelta::Content(text)),
        }
    }
}

/// Returns how many bytes at the end of `text` may be the beginning of one of `markers`.
fn overlap(text: &str, markers: &[&str]) -> usize {
    let of = |marker: &str| {
        (1..marker.len()).rev().find(|n| marker.is_char_boundary(*n) && text.ends_with(&marker[..*n]))
    };
    markers.iter().filter_map(|marker| of(marker)).max().unwrap_or(0)
}
