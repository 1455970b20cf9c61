//! The prompt of an infill: FIM where the model knows it, else the text before the cursor.
//!
//! In: the texts of a request and how much room there is. Out: token ids; specials only by their ids (I-3).
//! Source: llama.cpp, `format_prompt_infill` in its server: `REP name SEP file … SEP file PRE prefix SUF suffix MID`,
//! three quarters of the window for the prefix. A model that sees the suffix first gets `SUF suffix PRE prefix`.

use engine::{FimOrder, TokenId, Tokenizer};

use super::Params;

/// A prefix that does not fit loses its beginning in steps of so many tokens, so that the rest stays in the KV cache
/// while the user types.
const CUT_STEP: usize = 256;
/// The names that stand for what is not known. llama.cpp uses the same.
const REPOSITORY: &str = "myproject\n";
const FILE: &str = "filename\n";

/// What the engine is asked to continue.
pub(super) struct Prompt {
    pub(super) tokens: Vec<TokenId>,
    /// Bytes the answer must begin with.
    pub(super) healed: Vec<u8>,
    pub(super) is_fim: bool,
    /// Whether some of the text before or after the cursor was left out.
    pub(super) is_truncated: bool,
}

/// The tokens a FIM prompt cannot do without.
struct Marks {
    prefix: TokenId,
    suffix: TokenId,
    middle: TokenId,
}

pub(super) fn build(tokenizer: &Tokenizer, params: &Params, n_ctx: usize, n_predict: usize) -> Prompt {
    let specials = tokenizer.specials();
    let before = tokenizer.encode_first(&format!("{}{}", params.input_prefix, params.prompt));
    // Specials, and a token of the answer even when none is asked for.
    let n_room = n_ctx.saturating_sub(n_predict + 8).max(1);
    match (specials.fim_prefix, specials.fim_suffix, specials.fim_middle) {
        (Some(prefix), Some(suffix), Some(middle)) => {
            fim(tokenizer, params, &Marks { prefix, suffix, middle }, &before, n_room)
        }
        _ => left_to_right(tokenizer, before, n_room),
    }
}

fn fim(tokenizer: &Tokenizer, params: &Params, marks: &Marks, before: &[TokenId], n_room: usize) -> Prompt {
    let specials = tokenizer.specials();
    let mut after = tokenizer.encode(&params.input_suffix);
    // Room that the suffix does not need is the prefix's.
    let n_suffix = after.len().min((n_room / 4).max(n_room.saturating_sub(before.len())));
    let prefix = end_of(before, n_room - n_suffix);
    let is_truncated = n_suffix < after.len() || prefix.len() < before.len();
    after.truncate(n_suffix);

    let mut tokens: Vec<TokenId> = specials.first().into_iter().collect();
    let n_left = n_room - n_suffix - prefix.len();
    tokens.extend(extras(tokenizer, params, n_left));
    let mut healed = Vec::new();
    match specials.fim_order {
        FimOrder::PrefixFirst => {
            tokens.push(marks.prefix);
            tokens.extend(prefix);
            tokens.push(marks.suffix);
            tokens.extend(after);
            tokens.push(marks.middle);
        }
        FimOrder::SuffixFirst => {
            tokens.push(marks.suffix);
            tokens.extend(after);
            tokens.push(marks.prefix);
            tokens.extend(prefix);
            // The answer continues the prefix, whose last token is seldom whole.
            healed = heal(tokenizer, &mut tokens);
        }
    }
    Prompt { tokens, healed, is_fim: true, is_truncated }
}

/// Returns the extra texts that fit, the last ones first to stay: llama.vim's ring has its newest at the end.
fn extras(tokenizer: &Tokenizer, params: &Params, n_room: usize) -> Vec<TokenId> {
    let specials = tokenizer.specials();
    let (Some(repository), Some(separator)) = (specials.repo_name, specials.file_sep) else {
        return Vec::new();
    };
    let head: Vec<TokenId> = [repository].into_iter().chain(tokenizer.encode_first(REPOSITORY)).collect();
    let tail: Vec<TokenId> = [separator].into_iter().chain(tokenizer.encode_first(FILE)).collect();
    let mut n_left = n_room.saturating_sub(head.len() + tail.len());
    let mut kept = Vec::new();
    for extra in params.input_extra.iter().rev() {
        let text = format!("{}\n{}", extra.filename, extra.text);
        let tokens: Vec<TokenId> = [separator].into_iter().chain(tokenizer.encode_first(&text)).collect();
        if tokens.len() > n_left {
            break;
        }
        n_left -= tokens.len();
        kept.push(tokens);
    }
    if kept.is_empty() {
        return Vec::new();
    }
    kept.reverse();
    [head, kept.concat(), tail].concat()
}

/// A model without FIM tokens sees the text before the cursor, healed by a token: what is being typed is seldom whole.
fn left_to_right(tokenizer: &Tokenizer, before: Vec<TokenId>, n_room: usize) -> Prompt {
    let specials = tokenizer.specials();
    let mut tokens = end_of(&before, n_room).to_vec();
    let is_truncated = tokens.len() < before.len();
    let healed = heal(tokenizer, &mut tokens);
    // A model that has no beginning-of-text token was trained on texts that follow an end.
    let first = specials.bos.or(specials.eos);
    if specials.add_bos || tokens.is_empty() {
        tokens.splice(0..0, first);
    }
    Prompt { tokens, healed, is_fim: false, is_truncated }
}

/// Takes the last token of a text off, unless it ends a line, and returns its bytes.
fn heal(tokenizer: &Tokenizer, tokens: &mut Vec<TokenId>) -> Vec<u8> {
    let is_within_line = |last: &mut TokenId| {
        let bytes = tokenizer.token_bytes(*last);
        !bytes.is_empty() && bytes.last() != Some(&b'\n')
    };
    tokens.pop_if(is_within_line).map(|last| tokenizer.token_bytes(last).to_vec()).unwrap_or_default()
}

/// Returns the end of `tokens` that fits, cut in steps.
fn end_of(tokens: &[TokenId], n_room: usize) -> &[TokenId] {
    let n_over = tokens.len().saturating_sub(n_room);
    let step = CUT_STEP.min(n_room.max(1));
    &tokens[n_over.next_multiple_of(step).min(tokens.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_grows_loses_its_beginning_in_steps() {
        let tokens: Vec<TokenId> = (0..2000).map(TokenId).collect();
        let first = |n_tokens: usize| end_of(&tokens[..n_tokens], 1000).first().map(|token| token.0);
        assert_eq!([1000, 1001, 1256, 1257, 2000].map(first), [0, 256, 256, 512, 1024].map(Some));
        assert_eq!(end_of(&tokens, 100).len(), 100, "little room is used all the same");
        assert_eq!(end_of(&[], 10), &[]);
    }
}
