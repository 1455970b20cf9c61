//! Token ids for the window, healed at the cursor.
//!
//! In: a window and what was written behind it. Out: [`Prompt`]: ids, never a string with specials in it (I-3).
//!
//! A model with FIM tokens sees the lines before the cursor's, then what follows the cursor, and last the head of the
//! cursor's line: while a line is typed, only its own tokens are new. One that was trained to see what follows first has
//! all that is before the cursor behind it, so that lines that are typed are new tokens too and nothing else is.
//! Any other model sees what is before the cursor.
//!
//! The last token of a text that is being typed is often not the one the model would see in the finished text: after
//! `pri` comes `nt`, but the model knows `print`. So the prompt backs up to the start of the last token, and further
//! while that is inside a word, and the answer must begin with the bytes that were backed up over.

use engine::{FimOrder, SpecialTokens, TokenId, Tokenizer};

use crate::context::Context;
use crate::window::Window;

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

/// Returns the prompt for a window behind its context and what was `written` behind its cursor already.
pub fn prompt(tokenizer: &Tokenizer, context: Option<&Context>, window: &Window, written: &str) -> Prompt {
    let specials = tokenizer.specials();
    let context = context.filter(|context| !context.is_empty());
    let context = context.map(|context| context.tokens(tokenizer)).unwrap_or_default();
    let marks = Marks::of(specials);
    let is_first = marks.is_some() || context.is_empty();
    let Before { lines, head, healed } =
        Before::of(tokenizer, marks.as_ref(), &window.prefix, written, is_first);
    let tokens = match marks {
        Some(marks) => {
            marks.around(specials.first(), context, &lines, &tokenizer.encode(&window.after), &head)
        }
        None => plain(specials, &[context, &lines, &head]),
    };
    Prompt { tokens, healed }
}

/// Returns the ids of what is before the cursor alone, the last `n_most` of them, healed as in the prompt.
pub(crate) fn without_after(tokenizer: &Tokenizer, window: &Window, n_most: usize) -> Vec<TokenId> {
    let specials = tokenizer.specials();
    let before = Before::of(tokenizer, Marks::of(specials).as_ref(), &window.prefix, "", true);
    let tokens = [before.lines, before.head].concat();
    plain(specials, &[&tokens[tokens.len().saturating_sub(n_most)..]])
}

/// Puts the parts of a prompt without FIM tokens together.
fn plain(specials: &SpecialTokens, parts: &[&[TokenId]]) -> Vec<TokenId> {
    let mut tokens = parts.concat();
    // A model that has no beginning-of-text token was trained on texts that follow an end.
    let first = specials.bos.or(specials.eos);
    if specials.add_bos || tokens.is_empty() {
        tokens.splice(0..0, first);
    }
    tokens
}

/// Returns whether the model sees what follows the cursor.
pub fn sees_after(tokenizer: &Tokenizer) -> bool {
    Marks::of(tokenizer.specials()).is_some()
}

/// The tokens between the parts of a prompt for a model that fills in the middle.
struct Marks {
    prefix: TokenId,
    suffix: TokenId,
    /// None where what is to be written continues the prefix ([`FimOrder::SuffixFirst`]).
    middle: Option<TokenId>,
}

impl Marks {
    fn of(specials: &SpecialTokens) -> Option<Self> {
        let (prefix, suffix, middle) = (specials.fim_prefix?, specials.fim_suffix?, specials.fim_middle?);
        let middle = match specials.fim_order {
            FimOrder::PrefixFirst => Some(middle),
            FimOrder::SuffixFirst => None,
        };
        Some(Self { prefix, suffix, middle })
    }

    fn around(
        &self,
        bos: Option<TokenId>,
        context: &[TokenId],
        before: &[TokenId],
        after: &[TokenId],
        head: &[TokenId],
    ) -> Vec<TokenId> {
        let bos = bos.as_slice();
        match self.middle {
            Some(middle) => {
                [bos, context, &[self.prefix], before, &[self.suffix], after, &[middle], head].concat()
            }
            None => [bos, context, &[self.suffix], after, &[self.prefix], before, head].concat(),
        }
    }
}

/// What is before the cursor.
struct Before {
    /// The lines before the cursor's, where something stands between them and its head.
    lines: Vec<TokenId>,
    /// The cursor's line up to it, or all that is before it.
    head: Vec<TokenId>,
    healed: Vec<u8>,
}

impl Before {
    /// `is_first` says that nothing but a special token stands before it.
    fn of(tokenizer: &Tokenizer, marks: Option<&Marks>, prefix: &str, written: &str, is_first: bool) -> Self {
        let n_lines = match marks.and_then(|marks| marks.middle) {
            Some(_) => prefix.rfind('\n').map_or(0, |at| at + 1),
            None => 0,
        };
        let (lines, head) = prefix.split_at(n_lines);
        let encode = |text: &str, is_first| {
            if is_first { tokenizer.encode_first(text) } else { tokenizer.encode(text) }
        };
        let has_own_place = marks.is_some_and(|marks| marks.middle.is_some());
        let head = encode(&format!("{head}{written}"), is_first && !has_own_place);
        let (head, healed) = heal(tokenizer, head);
        Self { lines: encode(lines, is_first), head, healed }
    }
}

/// Returns ids without the last ones, and the bytes of those.
fn heal(tokenizer: &Tokenizer, mut tokens: Vec<TokenId>) -> (Vec<TokenId>, Vec<u8>) {
    let mut healed = Vec::new();
    for _ in 0..N_MAX_BACKED_UP {
        let Some(last) = tokens.pop() else { break };
        healed.splice(0..0, tokenizer.token_bytes(last).iter().copied());
        let before = tokens.last().map(|&token| tokenizer.token_bytes(token)).unwrap_or_default();
        if !is_inside_word(before, &healed) {
            break;
        }
    }
    (tokens, healed)
}

fn is_inside_word(before: &[u8], after: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii();
    before.last().is_some_and(is_word) && after.first().is_some_and(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u32]) -> Vec<TokenId> {
        ids.iter().copied().map(TokenId).collect()
    }

    fn specials(fim_order: FimOrder) -> SpecialTokens {
        SpecialTokens {
            fim_prefix: Some(TokenId(90)),
            fim_suffix: Some(TokenId(91)),
            fim_middle: Some(TokenId(92)),
            fim_order,
            ..SpecialTokens::default()
        }
    }

    #[test]
    fn a_model_that_fills_in_the_middle_sees_the_head_of_the_line_last() {
        let specials = specials(FimOrder::PrefixFirst);
        let marks = Marks::of(&specials).expect("all three");
        let around = |bos| marks.around(bos, &ids(&[8]), &ids(&[1, 2]), &ids(&[3]), &ids(&[4, 5]));
        assert_eq!(around(None), ids(&[8, 90, 1, 2, 91, 3, 92, 4, 5]));
        assert_eq!(around(Some(TokenId(7))), ids(&[7, 8, 90, 1, 2, 91, 3, 92, 4, 5]));
        assert!(Marks::of(&SpecialTokens { fim_middle: None, ..specials }).is_none());
    }

    #[test]
    fn a_model_that_sees_the_suffix_first_gets_nothing_behind_what_is_typed() {
        let marks = Marks::of(&specials(FimOrder::SuffixFirst)).expect("all three");
        let tokens = marks.around(Some(TokenId(7)), &ids(&[8]), &[], &ids(&[3]), &ids(&[1, 2, 4]));
        assert_eq!(tokens, ids(&[7, 8, 91, 3, 90, 1, 2, 4]));
    }

    #[test]
    fn a_prompt_and_what_is_healed_are_the_text_behind_the_blank_that_some_vocabularies_begin_with() {
        let file = include_bytes!("../../../tests/fixtures/sentencepiece.gguf");
        let gguf = engine::Gguf::from_bytes(file.to_vec()).expect("a valid file");
        let tokenizer = Tokenizer::from_gguf(&gguf).expect("a valid vocabulary");
        for text in ["x", "fn f() {\n    retu", "\n", "    x = 1\n\tif y:\n        ", "ä🦀 ▁"] {
            let document = text::Document::open(text, 1).snapshot();
            let request = crate::Request {
                document: &document,
                offset: text::ByteOffset(text.len()),
                trigger: crate::Trigger::Automatic,
                tree: None,
                context: None,
            };
            let window = crate::window::window(&request, &crate::Options::default(), 0);
            let Prompt { tokens, healed } = prompt(&tokenizer, None, &window, "");
            assert_eq!(tokens.first().copied(), tokenizer.specials().bos);
            let read = [tokenizer.decode(&tokens), healed].concat();
            assert_eq!(String::from_utf8_lossy(&read), format!(" {text}"));
        }
    }

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
