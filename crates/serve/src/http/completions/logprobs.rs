//! The probabilities of a completion's tokens, in OpenAI's older shape.
//!
//! Source: OpenAI API reference, "The completion object": `tokens`, `token_logprobs`, `top_logprobs`, `text_offset`.

use engine::{Score, TokenId, Tokenizer};
use serde_json::{Map, Value, json};

use crate::http::envelope::logprob;

/// Returns the object for `scores`, after `first`, a token that has none because nothing stands before it.
///
/// `n_before` counts the characters before the first token. A token that ends inside a character shows the
/// replacement character.
pub(super) fn object(
    tokenizer: &Tokenizer,
    first: Option<TokenId>,
    scores: &[Score],
    n_top: usize,
    n_before: usize,
) -> Value {
    let text = |token: TokenId| String::from_utf8_lossy(tokenizer.token_bytes(token)).into_owned();
    let ids = first.into_iter().chain(scores.iter().map(|score| score.token));
    let tokens: Vec<String> = ids.map(text).collect();
    let mut offset = n_before;
    let offsets: Vec<usize> = tokens
        .iter()
        .map(|token| {
            let at = offset;
            offset += token.chars().count();
            at
        })
        .collect();
    let unscored = first.map(|_| Value::Null);
    let logprobs = unscored.clone().into_iter().chain(scores.iter().map(|score| logprob(score.logprob)));
    let logprobs: Vec<Value> = logprobs.collect();
    let top = scores.iter().map(|score| {
        let likeliest = score.top.iter().map(|(token, likely)| (text(*token), logprob(*likely)));
        Value::Object(likeliest.collect::<Map<_, _>>())
    });
    let top = (n_top > 0).then(|| unscored.into_iter().chain(top).collect::<Vec<Value>>());
    json!({"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top, "text_offset": offsets})
}
