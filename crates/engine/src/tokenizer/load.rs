//! From metadata to a [`Tokenizer`]: what is text, what is special, and which merges join what.
//!
//! In: the `tokenizer.*` keys of a GGUF file. Out: a tokenizer whose encoder knows only text.
//! Never: gives the encoder a token that is not text (I-3).

use std::collections::{HashMap, HashSet};

use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::{
    Alphabet, Error, Literals, Names, SpecialTokens, Splitter, TokenId, Tokenizer, Vocabulary, special,
};
use crate::gguf::Gguf;

/// `NORMAL` in llama.h's `llama_token_type`. The others, up to `BYTE`, are not text in byte-level
/// BPE: unknown, control, user-defined, unused; `BYTE` belongs to SentencePiece.
const NORMAL: i32 = 1;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

pub(super) fn load(gguf: &Gguf) -> Result<Tokenizer, Error> {
    let model = gguf.str("tokenizer.ggml.model")?;
    if model != "gpt2" {
        return Err(Error::Model(model.to_owned()));
    }
    let pre = gguf.str("tokenizer.ggml.pre")?;
    let splitter = Splitter::named(pre)?;
    let mut tokens = Tokens::read(gguf)?;
    let merges = read_merges(gguf, &mut tokens)?;

    let alphabet = Alphabet::new();
    let vocabulary = Vocabulary::new(tokens.iter_text(), &tokens.literals, &alphabet);
    let byte_ids = std::array::from_fn(|byte| {
        let text = alphabet.char(byte as u8).to_string();
        tokens.text_id(&text)
    });
    let bpe = build_bpe(&tokens, merges, splitter.ignore_merges);
    // From here on they are text like any other; what is made of byte-level text must not know them.
    let literals = Literals::new(&tokens.literals)?;
    for (_, id) in &tokens.literals {
        tokens.is_special[id.0 as usize] = false;
    }
    let special_ids: HashMap<String, TokenId> = (0..)
        .zip(&tokens.texts)
        .filter(|(id, text)| tokens.is_special[*id as usize] && !text.is_empty())
        .map(|(id, text)| ((*text).to_owned(), TokenId(id)))
        .collect();
    let n_vocab = tokens.texts.len();
    let specials =
        SpecialTokens::read(gguf, n_vocab, splitter.adds_bos, |name| special_ids.get(name).copied())?;
    if let Some((role, id)) = specials.roles().find(|(_, id)| !tokens.is_special[id.0 as usize]) {
        return Err(Error::RoleIsText { role, id: id.0 });
    }

    Ok(Tokenizer {
        pre: pre.to_owned(),
        chat_template: gguf.opt_str("tokenizer.chat_template")?.map(str::to_owned),
        bpe,
        literals,
        splitter,
        alphabet,
        byte_ids,
        vocabulary,
        names: Names::new(&special_ids),
        special_ids,
        is_special: tokens.is_special,
        specials,
    })
}

/// The vocabulary as the file has it.
struct Tokens<'g> {
    texts: Vec<&'g str>,
    ids: HashMap<&'g str, u32>,
    is_special: Vec<bool>,
    /// Tokens that a model's maker added by hand and that are text as it stands, not in the byte-level alphabet.
    literals: Vec<(&'g str, TokenId)>,
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
        let mut tokens =
            Self { texts: Vec::new(), ids: HashMap::new(), is_special: Vec::new(), literals: Vec::new() };
        for ((id, bytes), token_type) in (0..).zip(strings).zip(types) {
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
            if token_type == USER_DEFINED && is_literal(text) {
                tokens.literals.push((text, TokenId(id)));
            }
        }
        Ok(tokens)
    }

    /// Returns the token `text`, if it is there and is text.
    fn text_id(&self, text: &str) -> Option<TokenId> {
        let id = *self.ids.get(text)?;
        (!self.is_special[id as usize]).then_some(TokenId(id))
    }

    /// Returns each token's text, by id, or `None` for one that is not text.
    fn iter_text(&self) -> impl Iterator<Item = Option<&'g str>> {
        self.texts.iter().zip(&self.is_special).map(|(text, is_special)| (!is_special).then_some(*text))
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

/// Returns the merges whose three tokens are text, in order of rank, the first of equal ones.
///
/// Marks as special the tokens that some conversions forget to: they have a name that is known for
/// a role, and no merge makes them, as one would if they were text.
fn read_merges<'g>(gguf: &'g Gguf, tokens: &mut Tokens<'g>) -> Result<Vec<(&'g str, &'g str)>, Error> {
    let mut merges = Vec::new();
    let mut seen = HashSet::new();
    let mut made = HashSet::new();
    let mut joined = String::new();
    for (idx, bytes) in gguf.str_array("tokenizer.ggml.merges")?.enumerate() {
        let error = || Error::Merge { idx, merge: String::from_utf8_lossy(bytes).into_owned() };
        let (left, right) = str::from_utf8(bytes).ok().and_then(split_merge).ok_or_else(error)?;
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let id = |text: &str| tokens.ids.get(text).copied().ok_or_else(error);
        let (left_id, right_id, joined_id) = (id(left)?, id(right)?, id(&joined)?);
        made.insert(joined_id);
        if seen.insert((left_id, right_id))
            && [left_id, right_id, joined_id].iter().all(|id| !tokens.is_special[*id as usize])
        {
            merges.push((left, right));
        }
    }
    for (id, text) in (0..).zip(&tokens.texts) {
        if special::is_known_name(text) && !made.contains(&id) {
            tokens.is_special[id as usize] = true;
        }
    }
    Ok(merges)
}

/// Splits a merge at the blank between its two texts; the first text may begin with one.
fn split_merge(merge: &str) -> Option<(&str, &str)> {
    let (at, _) = merge.char_indices().skip(1).find(|(_, c)| *c == ' ')?;
    let (left, right) = (&merge[..at], &merge[at + 1..]);
    (!right.is_empty()).then_some((left, right))
}

fn build_bpe(tokens: &Tokens<'_>, merges: Vec<(&str, &str)>, ignore_merges: bool) -> BPE {
    let vocab: Vocab = (0..)
        .zip(tokens.iter_text())
        .filter_map(|(id, text)| Some((text?.to_owned(), id)))
        .filter(|(text, _)| !text.is_empty())
        .collect();
    let merges: Merges =
        merges.into_iter().map(|(left, right)| (left.to_owned(), right.to_owned())).collect();
    BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(ignore_merges)
        .build()
        .expect("`read_merges` keeps only merges of three tokens that are text")
}
