//! Text to token ids and back, with the vocabulary and the rules of the model's own file.
//!
//! In: text or ids. Out: ids or bytes; text while it streams; the tokens that fit typed bytes.
//! Never: makes a special token from text (I-3): the encoder's vocabulary does not have them.
//! Thread: any; a `Tokenizer` does not change. Each thread that encodes has a cache of its own.
//! Source: llama.cpp's `src/llama-vocab.cpp`.

mod byte_level;
mod error;
mod literals;
mod load;
mod names;
mod sentencepiece;
mod special;
mod split;
mod stream;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::collections::HashMap;
use std::ops::Range;

use byte_level::ByteLevel;
pub use error::Error;
use literals::{Literals, Part};
use names::Names;
use sentencepiece::SentencePiece;
pub use special::{FimOrder, SpecialTokens};
use split::Splitter;
pub use stream::StreamDecoder;
use vocabulary::Vocabulary;

use crate::gguf::Gguf;

/// A token's number in the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u32);

/// The token of each single byte. Some vocabularies lack bytes that hardly occur in text.
type ByteTokens = Box<[Option<TokenId>; 256]>;

/// How text becomes tokens.
enum Encoder {
    ByteLevel(Box<ByteLevel>),
    SentencePiece(SentencePiece),
}

/// A tokenizer, as one model file describes it.
pub struct Tokenizer {
    pre: String,
    chat_template: Option<String>,
    literals: Literals,
    // INVARIANT I-3: it knows only tokens that are text.
    encoder: Encoder,
    vocabulary: Vocabulary,
    /// The tokens that are not text, by name.
    special_ids: HashMap<String, TokenId>,
    names: Names,
    is_special: Vec<bool>,
    specials: SpecialTokens,
}

impl Tokenizer {
    /// Builds the tokenizer that the metadata of `gguf` describe.
    ///
    /// # Errors
    /// [`Error::Model`] and [`Error::UnknownPre`] for a kind of tokenizer, or a rule, that is not
    /// known, by its name; [`Error::Metadata`] for a missing or mistyped key; the other variants
    /// when the metadata contradict themselves.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, Error> {
        load::load(gguf)
    }

    /// Returns the tokens of `text`; none is special, whatever the text says, and no BOS is added.
    ///
    /// A byte for which the vocabulary has no token is left out, as in llama.cpp: in SmolLM2's
    /// these are some control characters, such as U+0004.
    pub fn encode(&self, text: &str) -> Vec<TokenId> {
        let mut tokens = Vec::with_capacity(text.len() / 3);
        self.literals.split(text, |part| match (part, &self.encoder) {
            (Part::Literal(id), _) => tokens.push(id),
            (Part::Text(text), Encoder::ByteLevel(bytes)) => bytes.encode(text, &mut tokens),
            (Part::Text(text), Encoder::SentencePiece(pieces)) => pieces.encode(text, &mut tokens),
        });
        tokens
    }

    /// Returns the tokens of a text that begins a prompt, or stands behind a special token: SentencePiece's vocabularies
    /// were made of texts that begin with a blank, which stands before it then.
    pub fn encode_first(&self, text: &str) -> Vec<TokenId> {
        if self.adds_blank() && !text.is_empty() {
            self.encode(&format!(" {text}"))
        } else {
            self.encode(text)
        }
    }

    /// Returns whether [`Self::encode_first`] puts a blank before a text; what a model says behind a special token begins
    /// with one then, too.
    pub fn adds_blank(&self) -> bool {
        matches!(&self.encoder, Encoder::SentencePiece(pieces) if pieces.adds_blank)
    }

    /// Returns the tokens of `bytes`; those that are no text become tokens of a byte each.
    pub(crate) fn encode_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let mut tokens = Vec::new();
        for chunk in bytes.utf8_chunks() {
            tokens.extend(self.encode(chunk.valid()));
            tokens.extend(chunk.invalid().iter().filter_map(|&byte| self.byte_tokens()[usize::from(byte)]));
        }
        tokens
    }

    fn byte_tokens(&self) -> &ByteTokens {
        match &self.encoder {
            Encoder::ByteLevel(bytes) => &bytes.bytes,
            Encoder::SentencePiece(pieces) => &pieces.bytes,
        }
    }

    /// Returns the bytes that `id` stands for: none for a special token or an unknown id.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        self.vocabulary.get(id)
    }

    /// Returns the bytes that `ids` stand for, which need not be whole characters.
    pub fn decode(&self, ids: &[TokenId]) -> Vec<u8> {
        ids.iter().flat_map(|id| self.token_bytes(*id)).copied().collect()
    }

    /// Returns how many tokens the vocabulary has.
    pub fn n_vocab(&self) -> usize {
        self.vocabulary.n_tokens()
    }

    /// Returns the tokens with a role.
    pub fn specials(&self) -> &SpecialTokens {
        &self.specials
    }

    /// Returns whether `id` is not text: control and unused tokens, those that a model's maker
    /// added by hand (`<think>`), and ids outside the vocabulary.
    pub fn is_special(&self, id: TokenId) -> bool {
        self.is_special.get(id.0 as usize).copied().unwrap_or(true)
    }

    /// Returns the special token called `name`, such as `<|im_start|>`.
    ///
    /// The name must come from this program or the chat template, never from a document.
    pub fn special(&self, name: &str) -> Option<TokenId> {
        self.special_ids.get(name).copied()
    }

    /// Returns the special tokens that have a name, in no order.
    pub(crate) fn iter_special(&self) -> impl Iterator<Item = (&str, TokenId)> {
        self.special_ids.iter().map(|(name, id)| (name.as_str(), *id))
    }

    /// Returns the bytes that `id` stands for, or its name where it is one of the special tokens
    /// `shown`: the markers of a chat answer, which its reader must see.
    pub fn shown_bytes(&self, id: TokenId, shown: &[TokenId]) -> &[u8] {
        if self.is_special(id) && shown.contains(&id) {
            self.names.get(id).unwrap_or_default().as_bytes()
        } else {
            self.token_bytes(id)
        }
    }

    /// Returns the name of the special token `id`.
    pub(crate) fn special_name(&self, id: TokenId) -> Option<&str> {
        self.names.get(id)
    }

    /// Returns where in `text` the first special token's name lies that is markup, and its id; of
    /// those that begin there, the longest.
    ///
    /// The text must be this program's or the chat template's own, never a document's (I-3).
    pub(crate) fn find_special(&self, text: &str) -> Option<(Range<usize>, TokenId)> {
        self.names.find(&self.special_ids, text)
    }

    /// Returns the model's chat template, a Jinja text, if the file has one.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// Returns the name of the rule that cuts text into pieces (`tokenizer.ggml.pre`), or else of the kind of tokenizer.
    pub fn pre(&self) -> &str {
        &self.pre
    }

    /// Writes to `mask`, by id, which tokens may come next where the text must go on with `need`:
    /// those whose bytes begin with `need`, and those that are a beginning of it.
    ///
    /// Special tokens, and elements past the vocabulary, are not allowed. When `need` is empty
    /// every token that is text is. Returns how many are allowed.
    pub fn allowed_by_prefix(&self, need: &[u8], mask: &mut [bool]) -> usize {
        mask.fill(false);
        let beginnings = (1..need.len()).flat_map(|len| self.vocabulary.equal_to(&need[..len]));
        let mut n_allowed = 0;
        for id in self.vocabulary.beginning_with(need).iter().chain(beginnings) {
            if let Some(is_allowed) = mask.get_mut(id.0 as usize) {
                *is_allowed = true;
                n_allowed += 1;
            }
        }
        n_allowed
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("pre", &self.pre)
            .field("n_vocab", &self.n_vocab())
            .field("specials", &self.specials)
            .finish()
    }
}
