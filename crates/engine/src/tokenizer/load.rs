//! From metadata to a [`Tokenizer`]: what is text, what is special, and which kind of encoder there is.
//!
//! In: the `tokenizer.*` keys of a GGUF file. Out: a tokenizer whose encoder knows only text.
//! Never: gives the encoder a token that is not text (I-3).

use std::borrow::Cow;
use std::collections::HashMap;

use super::byte_level::ByteLevel;
use super::sentencepiece::{self, SentencePiece};
use super::{Encoder, Error, Literals, Names, SpecialTokens, TokenId, Tokenizer, Vocabulary};
use crate::gguf::Gguf;

/// `NORMAL` in llama.h's `llama_token_type`. The others, up to `BYTE`, are not text by themselves: unknown, control,
/// user-defined, unused; `BYTE` belongs to SentencePiece.
const NORMAL: i32 = 1;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

pub(super) fn load(gguf: &Gguf) -> Result<Tokenizer, Error> {
    let model = gguf.str("tokenizer.ggml.model")?;
    let mut tokens = match model {
        "gpt2" | "llama" => Tokens::read(gguf)?,
        _ => return Err(Error::Model(model.to_owned())),
    };
    let encoder = match model {
        "gpt2" => Encoder::ByteLevel(Box::new(ByteLevel::read(gguf, &mut tokens)?)),
        _ => Encoder::SentencePiece(SentencePiece::read(gguf, &mut tokens)?),
    };
    // From here on they are text like any other; what the encoder makes must not know them.
    let literal_texts = tokens.literals(matches!(encoder, Encoder::SentencePiece(_)));
    for id in literal_texts.keys() {
        tokens.is_special[id.0 as usize] = false;
    }
    let vocabulary = Vocabulary::new(tokens.texts.len(), |id, to| {
        let text = tokens.texts[id.0 as usize];
        match (&encoder, literal_texts.get(&id)) {
            (_, Some(literal)) => to.extend_from_slice(literal.as_bytes()),
            _ if tokens.is_special[id.0 as usize] => {}
            (Encoder::ByteLevel(bytes), _) => bytes.write_bytes(text, to),
            (Encoder::SentencePiece(_), _) => match sentencepiece::byte_of(text) {
                Some(byte) if tokens.is_byte(id.0) => to.push(byte),
                _ => to.extend_from_slice(sentencepiece::text_of(text).as_bytes()),
            },
        }
    });
    let special_ids: HashMap<String, TokenId> = (0..)
        .zip(&tokens.texts)
        .filter(|(id, text)| tokens.is_special[*id as usize] && !text.is_empty())
        .map(|(id, text)| ((*text).to_owned(), TokenId(id)))
        .collect();
    let n_vocab = tokens.texts.len();
    let mut specials = SpecialTokens::read(gguf, n_vocab, |name| special_ids.get(name).copied())?;
    let adds_bos = match &encoder {
        Encoder::ByteLevel(bytes) => bytes.adds_bos(),
        Encoder::SentencePiece(_) => {
            // As SentencePiece numbers them.
            let is_special = |id: &TokenId| tokens.is_special.get(id.0 as usize).copied().unwrap_or(false);
            specials.assume(Some(TokenId(1)).filter(is_special), Some(TokenId(2)).filter(is_special));
            true
        }
    };
    specials.add_bos = gguf.opt_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(adds_bos);
    if specials.add_bos && specials.bos.is_none() {
        return Err(Error::NoBos);
    }
    if let Some((role, id)) = specials.roles().find(|(_, id)| !tokens.is_special[id.0 as usize]) {
        return Err(Error::RoleIsText { role, id: id.0 });
    }

    Ok(Tokenizer {
        pre: gguf.opt_str("tokenizer.ggml.pre")?.unwrap_or(model).to_owned(),
        chat_template: gguf.opt_str("tokenizer.chat_template")?.map(str::to_owned),
        literals: Literals::new(&literal_texts)?,
        encoder,
        vocabulary,
        names: Names::new(&special_ids),
        special_ids,
        is_special: tokens.is_special,
        specials,
    })
}

/// The vocabulary as the file has it.
pub(super) struct Tokens<'g> {
    pub(super) texts: Vec<&'g str>,
    pub(super) ids: HashMap<&'g str, u32>,
    pub(super) is_special: Vec<bool>,
    types: Vec<i32>,
}

impl<'g> Tokens<'g> {
    fn read(gguf: &'g Gguf) -> Result<Self, Error> {
        let strings = gguf.str_array("tokenizer.ggml.tokens")?;
        let types = gguf.i32_array("tokenizer.ggml.token_type")?;
        let n_tokens = strings.len();
        if n_tokens == 0 || u32::try_from(n_tokens).is_err() {
            return Err(Error::Size(n_tokens));
        }
        if types.len() != n_tokens {
            return Err(Error::TypeCount { n_types: types.len(), n_tokens });
        }
        let mut tokens = Self { texts: Vec::new(), ids: HashMap::new(), is_special: Vec::new(), types };
        for ((id, bytes), &token_type) in (0..).zip(strings).zip(&tokens.types) {
            if !(NORMAL..=BYTE).contains(&token_type) {
                return Err(Error::TokenType { id, token_type });
            }
            let text = str::from_utf8(bytes).map_err(|_| Error::NotUtf8 { id })?;
            if !text.is_empty()
                && let Some(first) = tokens.ids.insert(text, id)
            {
                return Err(Error::Twins { first, second: id, text: text.to_owned() });
            }
            tokens.texts.push(text);
            tokens.is_special.push(token_type != NORMAL);
        }
        Ok(tokens)
    }

    /// Returns whether a token stands for a byte by its number.
    pub(super) fn is_byte(&self, id: u32) -> bool {
        self.types[id as usize] == BYTE
    }

    /// Returns the token `text`, if it is there and is text.
    pub(super) fn text_id(&self, text: &str) -> Option<TokenId> {
        let id = *self.ids.get(text)?;
        (!self.is_special[id as usize]).then_some(TokenId(id))
    }

    /// Returns each token's text, by id, or `None` for one that is not text.
    pub(super) fn iter_text(&self) -> impl Iterator<Item = Option<&'g str>> {
        self.texts.iter().zip(&self.is_special).map(|(text, is_special)| (!is_special).then_some(*text))
    }

    /// Returns the tokens that a model's maker added by hand and that are text as it stands.
    fn literals(&self, has_blanks_written: bool) -> HashMap<TokenId, Cow<'g, str>> {
        (0..)
            .map(TokenId)
            .zip(std::iter::zip(&self.texts, &self.types))
            .filter(|(_, (_, token_type))| **token_type == USER_DEFINED)
            .map(|(id, (text, _))| {
                (id, if has_blanks_written { sentencepiece::text_of(text) } else { (*text).into() })
            })
            .filter(|(_, text)| is_literal(text))
            .collect()
    }
}

/// Longest text of blanks that is looked for as a token, in bytes: those of open models have some dozens.
const LONGEST_LITERAL: usize = 64;

/// Returns whether a token that was added by hand can only be text: one character, or blanks. DeepSeek-Coder's are letters
/// such as `ü`.
fn is_literal(text: &str) -> bool {
    let mut chars = text.chars();
    let is_one = chars.next().is_some_and(|c| !c.is_control()) && chars.next().is_none();
    let is_blank = !text.is_empty() && text.chars().all(char::is_whitespace);
    is_one || (is_blank && text.len() <= LONGEST_LITERAL)
}
