//! Tokens that a model's maker added by hand to stand for a piece of text, wherever it is.
//!
//! In: text. Out: those tokens, and the text between them, in order.

use std::borrow::Cow;
use std::collections::HashMap;

use regex::Regex;

use super::{Error, TokenId};

/// Most of these tokens a vocabulary may have; those of open models have some dozens.
const MOST: usize = 1024;

/// The tokens by their texts.
pub(super) struct Literals {
    /// Finds any of them, the longest first; none for a vocabulary without.
    pattern: Option<Regex>,
    ids: HashMap<String, TokenId>,
}

/// A part of a text.
pub(super) enum Part<'t> {
    /// A text that is one token.
    Literal(TokenId),
    /// What is to be tokenized.
    Text(&'t str),
}

impl Literals {
    /// Collects the tokens.
    ///
    /// # Errors
    /// [`Error::Literals`] for more than any model has.
    pub(super) fn new(literals: &HashMap<TokenId, Cow<'_, str>>) -> Result<Self, Error> {
        if literals.len() > MOST {
            return Err(Error::Literals(literals.len()));
        }
        let mut texts: Vec<&str> = literals.values().map(Cow::as_ref).collect();
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        let pattern: Vec<String> = texts.iter().map(|text| regex::escape(text)).collect();
        let regex = || Regex::new(&pattern.join("|")).expect("a few escaped texts are a pattern");
        let pattern = (!texts.is_empty()).then(regex);
        Ok(Self {
            pattern,
            ids: literals.iter().map(|(id, text)| (text.clone().into_owned(), *id)).collect(),
        })
    }

    /// Calls `part` with each part of `text`, in order.
    pub(super) fn split<'t>(&self, text: &'t str, mut part: impl FnMut(Part<'t>)) {
        let mut start = 0;
        for found in self.pattern.iter().flat_map(|pattern| pattern.find_iter(text)) {
            let Some(id) = self.ids.get(found.as_str()) else { continue };
            if found.start() > start {
                part(Part::Text(&text[start..found.start()]));
            }
            part(Part::Literal(*id));
            start = found.end();
        }
        if start < text.len() {
            part(Part::Text(&text[start..]));
        }
    }
}
