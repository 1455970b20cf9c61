//! The names of the tokens that are not text, found in text that may name them.
//!
//! In: trusted text. Out: where the next name lies, and whose it is.
//! Never: looks at a document; only the chat template's own text may name a special token (I-3).

use std::collections::HashMap;
use std::ops::Range;

use super::TokenId;

/// Names by id, and what makes a search through text quick.
pub(super) struct Names {
    by_id: HashMap<TokenId, String>,
    /// Lengths in bytes of the names that are markup, longest first.
    lengths: Vec<usize>,
    /// Whether a name that is markup begins with this byte.
    is_first: [bool; 256],
}

impl Names {
    pub(super) fn new(ids: &HashMap<String, TokenId>) -> Self {
        let by_id = ids.iter().map(|(name, id)| (*id, name.clone())).collect();
        let mut names = Self { by_id, lengths: Vec::new(), is_first: [false; 256] };
        for name in ids.keys().filter(|name| is_markup(name)) {
            names.lengths.push(name.len());
            names.is_first[usize::from(name.as_bytes()[0])] = true;
        }
        names.lengths.sort_unstable_by(|a, b| b.cmp(a));
        names.lengths.dedup();
        names
    }

    pub(super) fn get(&self, id: TokenId) -> Option<&str> {
        self.by_id.get(&id).map(String::as_str)
    }

    pub(super) fn find(&self, ids: &HashMap<String, TokenId>, text: &str) -> Option<(Range<usize>, TokenId)> {
        let starts = (0..text.len()).filter(|at| self.is_first[usize::from(text.as_bytes()[*at])]);
        for start in starts {
            for length in &self.lengths {
                let Some(name) = text.get(start..start + length) else {
                    continue;
                };
                if let Some(id) = ids.get(name).filter(|_| is_markup(name)) {
                    return Some((start..start + length, *id));
                }
            }
        }
        None
    }
}

/// Some vocabularies mark runs of blanks, or plain words, as added tokens. Those are no markup: a
/// template that writes a word means the word.
fn is_markup(name: &str) -> bool {
    name.len() >= 3
        && name.chars().any(|c| !c.is_alphanumeric() && !c.is_whitespace() && c != '_')
        && !name.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_longest_name_is_found_and_words_and_blanks_are_not() {
        let ids: HashMap<String, TokenId> = ["<a>", "<a><b>", "<b>", "user", "   ", "é>x"]
            .into_iter()
            .zip(0..)
            .map(|(name, id)| (name.to_owned(), TokenId(id)))
            .collect();
        let names = Names::new(&ids);
        let check = |text: &str, expect: Option<(Range<usize>, u32)>| {
            assert_eq!(names.find(&ids, text), expect.map(|(range, id)| (range, TokenId(id))), "{text:?}");
        };
        check("x<a>", Some((1..4, 0)));
        check("x<a><b>", Some((1..7, 1)));
        check("<a<b><a>", Some((2..5, 2)));
        check("user   ", None);
        check("éé>x", Some((2..6, 5)));
        check("<", None);
        check("", None);
        assert_eq!(names.get(TokenId(3)), Some("user"));
    }
}
