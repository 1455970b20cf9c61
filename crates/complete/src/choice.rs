//! Which of several lines stands best between what is before the cursor and what is after it.
//!
//! In: the likeliest line, where the model was in doubt while it wrote it, and the text after the cursor. Out: a line.
//! Never: makes a line that the model would not write.
//!
//! A model without FIM tokens cannot see what follows the cursor, but it can be asked how likely that is: of a few lines,
//! the best makes `log P(line | before) + log P(after | before, line)` greatest, as Bayes has it, and a few tokens of
//! what follows are enough. The other lines leave the likeliest one at the tokens at which it was in doubt.

use engine::{StopReason, TokenId, Tokenizer};

use crate::Request;
use crate::clean::goes_with;
use crate::gate::Around;
use crate::lines::{Doubt, Line, Writer};
use crate::prompt::Prompt;
use crate::trim;

/// Tokens of the text after the cursor that are asked for. More than 8 do not choose better.
const N_AFTER: usize = 8;
/// Bytes of it that are made into tokens for that.
const N_MAX_AFTER_BYTES: usize = 64;
/// How much less likely a token may be to be in doubt: natural logarithm.
const MAX_MARGIN: f32 = 3.0;

/// Returns the line that fits best, or the first when nothing is in doubt, there is no time, or the work was cancelled.
pub(crate) fn choose(
    writer: &mut Writer<'_>,
    prompt: &Prompt,
    mut first: Line,
    doubts: Vec<Doubt>,
    request: &Request<'_>,
    around: &Around,
    after: &str,
) -> Result<Line, engine::Error> {
    let doubts: Vec<Doubt> =
        doubts.into_iter().filter(|doubt| doubt.margin >= -MAX_MARGIN).take(writer.n_others).collect();
    let is_whole = matches!(first.stop, StopReason::StopText | StopReason::EndOfGeneration);
    if doubts.is_empty() || !is_whole || !writer.has_time_for_others() {
        first.begin_at(around);
        return Ok(first);
    }
    let mut lines = writer.others(prompt, &first, &doubts)?;
    lines.insert(0, first);
    lines.iter_mut().for_each(|line| line.begin_at(around));
    let mut seen = std::collections::BTreeSet::new();
    lines.retain(|line| seen.insert(line.text.clone()));
    if lines.len() == 1 {
        return Ok(lines.swap_remove(0));
    }
    let mut end = after.len().min(N_MAX_AFTER_BYTES);
    while !after.is_char_boundary(end) {
        end -= 1;
    }
    let texts = lines.iter().map(|line| {
        let shown = trim::without_tail(&line.text, around);
        let (written, logprob) = written(writer.engine.tokenizer(), prompt, line, shown);
        let mut tokens = [&prompt.tokens[..], &written].concat();
        let from = tokens.len();
        tokens.extend(writer.engine.tokenizer().encode(&after[..end]).into_iter().take(N_AFTER));
        (logprob, (tokens, from))
    });
    let (logprobs, texts): (Vec<f32>, Vec<_>) = texts.unzip();
    let Some(of_after) = writer.likelihoods(texts)? else {
        return Ok(lines.swap_remove(0));
    };
    let value = |idx: &usize| logprobs[*idx] + of_after[*idx];
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by(|a, b| value(b).total_cmp(&value(a)));
    let goes = |idx: &usize| goes_with(request, around, trim::without_tail(&lines[*idx].text, around));
    let best = order.iter().copied().find(goes).unwrap_or(order[0]);
    Ok(lines.swap_remove(best))
}

/// Returns the ids of a line as it would be shown, healed part included, and their logprob.
///
/// The ids that wrote it are in the KV cache, so that only what follows them is computed; where the shown text ends inside
/// one of them, others stand for it.
fn written(tokenizer: &Tokenizer, prompt: &Prompt, line: &Line, shown: &str) -> (Vec<TokenId>, f32) {
    let text = [&prompt.healed[..], shown.as_bytes()].concat();
    let is_text = |n: &usize| tokenizer.decode(&line.tokens[..*n]) == text;
    match (0..=line.tokens.len()).rev().find(is_text) {
        Some(n) => (line.tokens[..n].to_vec(), line.logprobs[..n].iter().sum()),
        None => (tokenizer.encode(&String::from_utf8_lossy(&text)), line.logprobs.iter().sum()),
    }
}
