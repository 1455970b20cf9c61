//! Token ids for the window, healed at the cursor.
//!
//! In: the text before the cursor. Out: [`Prompt`]: ids, never a string with specials in it (I-3).
//!
//! The last token of a text that is being typed is often not the one the model would see in the finished text: after
//! `pri` comes `nt`, but the model knows `print`. So the prompt backs up to the start of the last token, and further
//! while that is inside a word, and the answer must begin with the bytes that were backed up over.

use engine::{TokenId, Tokenizer};

/// What the engine is asked to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The ids; never empty.
    pub tokens: Vec<TokenId>,
    /// Bytes the answer must begin with.
    pub healed: Vec<u8>,
}

/// Most tokens backed up over; each costs a decode step.
const N_MAX_BACKED_UP: usize = 4;

/// Returns the prompt for a window's prefix.
pub fn prompt(tokenizer: &Tokenizer, prefix: &str) -> Prompt {
    let specials = tokenizer.specials();
    let mut tokens = tokenizer.encode(prefix);
    let mut healed = Vec::new();
    for _ in 0..N_MAX_BACKED_UP {
        let Some(last) = tokens.pop() else { break };
        healed.splice(0..0, tokenizer.token_bytes(last).iter().copied());
        let before = tokens.last().map(|&token| tokenizer.token_bytes(token)).unwrap_or_default();
        if !is_inside_word(before, &healed) {
            break;
        }
    }
    // A model that has no beginning-of-text token was trained on texts that follow an end.
    let first = specials.bos.or(specials.eos);
    if specials.add_bos || tokens.is_empty() {
        tokens.splice(0..0, first);
    }
    Prompt { tokens, healed }
}

fn is_inside_word(before: &[u8], after: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii();
    before.last().is_some_and(is_word) && after.first().is_some_and(is_word)
}

#[cfg(test)]
mod tests {
    use super::is_inside_word;

    #[test]
    fn a_word_goes_on_over_letters_digits_and_what_is_not_ascii() {
        for (before, after, expected) in [
            ("re", "tu", true),
            (" x", "1", true),
            ("a", " b", false),
            ("(", "b", false),
            ("é", "t", true),
            ("", "a", false),
        ] {
            assert_eq!(is_inside_word(before.as_bytes(), after.as_bytes()), expected, "{before:?} {after:?}");
        }
    }
}
