//! The probabilities of an answer's tokens, in the chat's shape.
//!
//! Source: OpenAI API reference, "The chat completion object": `logprobs.content`.

use engine::{TokenId, Tokenizer};
use serde_json::{Value, json};

use crate::http::answer::Answer;
use crate::http::envelope::logprob;

/// Returns the object for all tokens of the answer, those of thoughts and calls included. Special tokens in `shown` have
/// their names, others no bytes.
pub(super) fn object(tokenizer: &Tokenizer, shown: &[TokenId], answer: &Answer) -> Value {
    let one = |token: TokenId, likely: f32| {
        let bytes = tokenizer.shown_bytes(token, shown);
        json!({"token": String::from_utf8_lossy(bytes), "logprob": logprob(likely), "bytes": bytes})
    };
    let with_top = |token, likely, top: &[(TokenId, f32)]| {
        let mut object = one(token, likely);
        object["top_logprobs"] = top.iter().map(|(token, likely)| one(*token, *likely)).collect();
        object
    };
    let scores = answer.scores.iter().flatten();
    let content: Vec<Value> = scores.map(|score| with_top(score.token, score.logprob, &score.top)).collect();
    json!({"content": content, "refusal": null})
}
