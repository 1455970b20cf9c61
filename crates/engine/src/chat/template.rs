//! A model's chat template: messages in, token ids out.
//!
//! In: a template, a tokenizer, a conversation. Out: [`Prompt`].
//! Never: makes a special token from anything but the template's own text (I-3); a second BOS.
//! Thread: any; a `ChatTemplate` does not change.

use std::collections::BTreeMap;

use minijinja::value::Value as Jinja;
use serde_json::Value;

use super::capability::Capability;
use super::date::strftime;
use super::environment::Compiled;
use super::mark::{self, Marks, Piece};
use super::view::View;
use super::{ChatError as Error, ChatFormat, ChatRequest, Prompt, Role, retold, source};
use crate::{Gguf, TokenId, Tokenizer};

/// What models without a template of their own speak if they know its two tokens.
const CHATML: &str = "{% for message in messages %}\
    {{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}\
    {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// A model's chat template, with the one it has for tools, if any.
pub struct ChatTemplate {
    main: Loaded,
    tool_use: Option<Loaded>,
}

impl ChatTemplate {
    /// Reads the templates of a model's file.
    ///
    /// # Errors
    /// [`Error::NoTemplate`] when the file has none and its vocabulary is not ChatML's;
    /// [`Error::Syntax`] and [`Error::Limit`] when one is not usable.
    pub fn from_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let is_chatml = ["<|im_start|>", "<|im_end|>"].iter().all(|name| tokenizer.special(name).is_some());
        let main = match gguf.opt_str("tokenizer.chat_template")? {
            Some(source) => source,
            None if is_chatml => CHATML,
            None => return Err(Error::NoTemplate),
        };
        Self::new(main, gguf.opt_str("tokenizer.chat_template.tool_use")?, tokenizer)
    }

    /// Compiles `main` and the template used instead when there are tools.
    ///
    /// # Errors
    /// [`Error::Syntax`] when one is not Jinja, [`Error::Limit`] when one is too long.
    pub fn new(main: &str, tool_use: Option<&str>, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let load = |source| Loaded::new(source, tokenizer);
        Ok(Self { main: load(main)?, tool_use: tool_use.map(load).transpose()? })
    }

    /// Returns how the model writes its answers when it is offered tools.
    pub fn format(&self) -> ChatFormat {
        self.tool_use.as_ref().unwrap_or(&self.main).format
    }

    /// Returns the prompt that continues `request`'s conversation. Of tools that the template cannot tell of, the
    /// conversation itself does, in the words of Hermes.
    ///
    /// # Errors
    /// [`Error::NoMessages`] for an empty conversation; [`Error::Refused`] when the template objects;
    /// [`Error::Failed`] and [`Error::Limit`] when it fails.
    pub fn prompt(&self, tokenizer: &Tokenizer, request: &ChatRequest) -> Result<Prompt, Error> {
        if request.messages.is_empty() {
            return Err(Error::NoMessages);
        }
        let n_calls = request.messages.iter().map(|message| message.tool_calls.len()).sum();
        let has_tools = !request.tools.is_empty();
        let loaded = match &self.tool_use {
            Some(tool_use) if has_tools || n_calls > 0 => tool_use,
            _ => &self.main,
        };
        let mut format = loaded.format;
        let knows_tools = loaded.capability.has_tools && format.tools.is_some();
        let knows_all = (knows_tools || !has_tools) && (loaded.capability.has_calls || n_calls == 0);
        let pieces = if knows_all {
            loaded.pieces(tokenizer, request)?
        } else {
            format.tools = Some(retold::FORMAT);
            loaded.pieces(tokenizer, &retold::retell(request))?
        };
        format.tools = format.tools.filter(|_| has_tools);
        let markers = format.markers();
        Ok(Prompt {
            tokens: tokens(tokenizer, &pieces),
            starts_in_reasoning: request.add_generation_prompt
                && format
                    .reasoning
                    .is_some_and(|tags| shown(tokenizer, &pieces).trim_end().ends_with(tags.open)),
            adds_blank: tokenizer.adds_blank(),
            stop_texts: loaded.capability.stop_text.iter().cloned().collect(),
            shown: markers.into_iter().filter_map(|name| tokenizer.special(name)).collect(),
            format,
            n_calls,
        })
    }

    /// Returns the prompt of `request` as text, with the names of its special tokens.
    #[cfg(test)]
    pub(super) fn text(&self, tokenizer: &Tokenizer, request: &ChatRequest) -> Result<String, Error> {
        let has_tools = !request.tools.is_empty();
        let loaded = self.tool_use.as_ref().filter(|_| has_tools).unwrap_or(&self.main);
        Ok(shown(tokenizer, &loaded.pieces(tokenizer, request)?))
    }

    #[cfg(test)]
    pub(super) fn capability(&self) -> &Capability {
        &self.main.capability
    }
}

/// Returns the tokens of a prompt. Where the model wants a BOS there is one, whether the template
/// writes it or not; where it does not, there is what the template writes.
fn tokens(tokenizer: &Tokenizer, pieces: &[Piece]) -> Vec<TokenId> {
    let mut tokens = Vec::new();
    let mut is_first = true;
    for piece in pieces {
        match piece {
            // A blank that the template writes is the one that its model knows.
            Piece::Text(text) if is_first && !text.starts_with(' ') => {
                tokens.extend(tokenizer.encode_first(text));
            }
            Piece::Text(text) => tokens.extend(tokenizer.encode(text)),
            Piece::Special(token) => tokens.push(*token),
        }
        is_first = matches!(piece, Piece::Special(_));
    }
    if let Some(bos) = tokenizer.specials().first() {
        let n_bos = tokens.iter().take_while(|token| **token == bos).count();
        tokens.splice(..n_bos, [bos]);
    }
    tokens
}

fn shown(tokenizer: &Tokenizer, pieces: &[Piece]) -> String {
    let name = |token| tokenizer.special_name(token).unwrap_or_default();
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Special(token) => name(*token),
        })
        .collect()
}

/// A template ready to render.
struct Loaded {
    compiled: Compiled,
    marks: Marks,
    bos: String,
    eos: String,
    format: ChatFormat,
    capability: Capability,
    /// The template reads what the model thought from `reasoning_content`.
    has_reasoning: bool,
}

impl Loaded {
    fn new(text: &str, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let mut marks = Marks::default();
        let mut mark = |token: Option<TokenId>| {
            token.and_then(|token| marks.mark(token)).map(String::from).unwrap_or_default()
        };
        let (bos, eos) = (mark(tokenizer.specials().bos), mark(tokenizer.specials().eos));
        let mut loaded = Self {
            compiled: Compiled::new(source::prepare(text, tokenizer, &mut marks))?,
            marks,
            bos,
            eos,
            format: ChatFormat::detect(text),
            capability: Capability::default(),
            has_reasoning: text.contains("reasoning_content"),
        };
        loaded.capability = Capability::probe(|capability, request| {
            loaded.render(capability, &request, &|text| mark::escape(text).into_owned())
        });
        Ok(loaded)
    }

    /// Renders and cuts into text and special tokens, which are the template's own (I-3).
    fn pieces(&self, tokenizer: &Tokenizer, request: &ChatRequest) -> Result<Vec<Piece>, Error> {
        let rendered = self.render(&self.capability, request, &|text| mark::escape(text).into_owned())?;
        let pieces = self.marks.split(&rendered);
        let names_one = |piece: &Piece| match piece {
            Piece::Text(text) => find_role_token(tokenizer, text).is_some(),
            Piece::Special(_) => false,
        };
        if !pieces.iter().any(names_one) {
            return Ok(pieces);
        }
        // Did the template compose it, or did a message say it?
        match self.render(&self.capability, request, &mark::fence) {
            Ok(fenced) if mark::without_fences(&fenced) == rendered => {
                Ok(self.split_composed(tokenizer, &fenced))
            }
            _ => Ok(pieces),
        }
    }

    fn split_composed(&self, tokenizer: &Tokenizer, fenced: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut rest = fenced;
        while let Some((range, token)) = find_role_token(tokenizer, rest) {
            pieces.extend(self.marks.split(&rest[..range.start]));
            pieces.push(Piece::Special(token));
            rest = &rest[range.end..];
        }
        pieces.extend(self.marks.split(rest));
        pieces
    }

    /// Renders `request`; `hide` is applied to every text in it that is not this program's.
    fn render(
        &self,
        capability: &Capability,
        request: &ChatRequest,
        hide: &dyn Fn(&str) -> String,
    ) -> Result<String, Error> {
        let view = View { format: self.format, has_reasoning: self.has_reasoning, capability, hide };
        let messages = Value::from(view.messages(&request.messages));
        let tools: Vec<Value> = request.tools.iter().map(|tool| view.tool(tool)).collect();
        let n_bytes =
            messages.to_string().len() + tools.iter().map(|tool| tool.to_string().len()).sum::<usize>();
        let mut variables: BTreeMap<String, Jinja> = request
            .variables
            .iter()
            .map(|(name, value)| (name.clone(), Jinja::from_serialize(view.json(value))))
            .collect();
        let tools = if tools.is_empty() { Jinja::from(()) } else { Jinja::from_serialize(tools) };
        let now = request.now;
        variables.extend([
            ("messages".to_owned(), Jinja::from_serialize(messages)),
            ("tools".to_owned(), tools),
            ("add_generation_prompt".to_owned(), Jinja::from(request.add_generation_prompt)),
            ("enable_thinking".to_owned(), Jinja::from(request.enable_thinking)),
            ("bos_token".to_owned(), Jinja::from(self.bos.clone())),
            ("eos_token".to_owned(), Jinja::from(self.eos.clone())),
            ("strftime_now".to_owned(), Jinja::from_function(move |format: String| strftime(&format, now))),
        ]);
        self.compiled.render(Jinja::from(variables), n_bytes)
    }
}

/// Returns the first special token's name in `text` that has a role's name in it: no template
/// composes others, and so no number or `true` in a message can complete one.
fn find_role_token(tokenizer: &Tokenizer, text: &str) -> Option<(std::ops::Range<usize>, TokenId)> {
    let mut from = 0;
    while let Some((range, token)) = tokenizer.find_special(&text[from..]) {
        let range = from + range.start..from + range.end;
        let roles = [Role::System, Role::User, Role::Assistant, Role::Tool];
        if roles.iter().any(|role| text[range.clone()].contains(role.name())) {
            return Some((range, token));
        }
        from = range.end;
    }
    None
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("format", &self.format())
            .field("capability", &self.main.capability)
            .field("has_tool_use", &self.tool_use.is_some())
            .finish()
    }
}
