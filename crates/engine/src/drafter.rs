//! Drafters: cheap guesses at the next tokens, which one step then verifies together.
//!
//! A draft never changes the answer, only how many steps it takes (I-7). It pays only where a step over several rows
//! costs little more than a step over one; candle's CPU path computes row by row, so drafting is off there by default.

use crate::TokenId;

/// Proposes tokens that may come next.
pub trait Drafter: Send {
    /// Returns at most `n_max` tokens that may follow `tokens`, likeliest continuation first to last.
    fn draft(&mut self, tokens: &[TokenId], n_max: usize) -> Vec<TokenId>;
}

/// Prompt lookup: what followed the last occurrence of the latest tokens.
///
/// Source: the n-gram lookup of apoorvumang/prompt-lookup-decoding; the longest match wins, the latest of equals.
#[derive(Clone, Copy, Debug)]
pub struct PromptLookup {
    /// Longest run of tokens to match.
    pub n_longest: usize,
    /// Shortest run of tokens that is trusted.
    pub n_shortest: usize,
}

impl Drafter for PromptLookup {
    fn draft(&mut self, tokens: &[TokenId], n_max: usize) -> Vec<TokenId> {
        for n in (self.n_shortest.max(1)..=self.n_longest).rev() {
            let Some(split) = tokens.len().checked_sub(n) else {
                continue;
            };
            let (history, latest) = (&tokens[..tokens.len() - 1], &tokens[split..]);
            if let Some(at) = history.windows(n).rposition(|window| window == latest) {
                return tokens[at + n..].iter().copied().take(n_max).collect();
            }
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_lookup_copies_what_followed_the_longest_latest_match() {
        let check = |tokens: &[u32], expected: &[u32]| {
            let tokens: Vec<TokenId> = tokens.iter().copied().map(TokenId).collect();
            let draft = PromptLookup { n_longest: 3, n_shortest: 2 }.draft(&tokens, 3);
            assert_eq!(draft.iter().map(|t| t.0).collect::<Vec<_>>(), expected, "{tokens:?}");
        };
        check(&[1, 2, 3, 4, 5, 6, 1, 2], &[3, 4, 5]);
        check(&[9, 1, 2, 7, 8, 1, 2, 5, 6, 9, 1, 2], &[7, 8, 1]);
        check(&[1, 2, 3], &[]);
        check(&[1], &[]);
        check(&[], &[]);
        check(&[4, 4, 4], &[4]);
    }
}
