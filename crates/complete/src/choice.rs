//! Which of several lines stands best between what is before the cursor and what is after it.
//!
//! In: the likeliest line, where the model was in doubt while it wrote it, and the text after the cursor. Out: a line.
//! Never: makes a line that the model would not write.
//!
//! A model without FIM tokens cannot see what follows the cursor, but it can be asked how likely that is: of a few lines,
//! the best makes `log P(line | before) + log P(after | before, line)` greatest, as Bayes has it, and a few tokens of
//! what follows are enough. The other lines leave the likeliest one at the tokens at which it was in doubt.
//!
//! One with FIM tokens has seen what follows: there the best makes `log P(line, end | around)` greatest. Greedy decoding
//! does not find that one, for it takes no heed of how likely it is to be done where the line ends. Who asks by hand
//! waits for a second opinion: how likely what follows is as a plain continuation, too.

use engine::{StopReason, TokenId, Tokenizer};

use crate::clean::goes_with;
use crate::gate::Around;
use crate::lines::{Doubt, Line, Writer};
use crate::prompt::{Prompt, sees_after, without_after};
use crate::trim;
use crate::window::Window;
use crate::{Request, Statistics, Trigger};

/// Tokens of the text after the cursor that are asked for. More than 8 do not choose better.
const N_AFTER: usize = 8;
/// Bytes of it that are made into tokens for that.
const N_MAX_AFTER_BYTES: usize = 64;
/// Tokens before the cursor that the second opinion is given. They are computed for it alone: a whole window would take as
/// long again as the first answer.
const N_BEFORE: usize = 256;
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
    window: &Window,
) -> Result<Line, engine::Error> {
    let doubts: Vec<Doubt> =
        doubts.into_iter().filter(|doubt| doubt.margin >= -MAX_MARGIN).take(writer.n_others).collect();
    let is_whole = matches!(first.stop, StopReason::StopText | StopReason::EndOfGeneration);
    if doubts.is_empty() || !is_whole || !writer.has_time_for_others() {
        first.begin_at(around);
        return Ok(first);
    }
    let mut end = window.after.len().min(N_MAX_AFTER_BYTES);
    while !window.after.is_char_boundary(end) {
        end -= 1;
    }
    let after = &window.after[..end];
    let tokenizer = writer.engine.tokenizer();
    let sight = match sees_after(tokenizer) {
        false => Sight::Before,
        true if request.trigger == Trigger::Invoked && writer.has_time_to_read(N_BEFORE) => {
            Sight::Both(without_after(tokenizer, window, N_BEFORE))
        }
        true => Sight::Around,
    };
    let mut candidates = judged(writer, prompt, &first, &doubts, around, (&sight, after))?;
    let mut seen = std::collections::BTreeSet::new();
    candidates.retain(|one| seen.insert(one.line.text.clone()));
    let value = |one: &Candidate| one.logprob + one.of_after;
    // Where two are as good, the likelier line comes first.
    candidates.sort_by(|a, b| value(b).total_cmp(&value(a)));
    let goes = |one: &Candidate| goes_with(request, around, trim::without_tail(&one.line.text, around));
    let best = candidates.iter().position(goes).unwrap_or(0);
    Ok(candidates.swap_remove(best).line)
}

/// What a model sees of the text around the cursor when it is asked about a line.
enum Sight {
    /// What is before it.
    Before,
    /// What follows, too.
    Around,
    /// That, and by itself what is before it: these ids.
    Both(Vec<TokenId>),
}

/// A line, and what speaks for it.
struct Candidate {
    line: Line,
    /// Natural logarithm of its own probability, as it would be shown.
    logprob: f32,
    /// The same of what follows the cursor, if the line stands before it, and of the end, from a model that has seen that.
    of_after: f32,
}

/// Returns the first line and the others, each with what speaks for it; without the others where the work was cancelled.
///
/// All at once, and each is judged as soon as it is written: the engine puts their rows into the same steps.
fn judged(
    writer: &mut Writer<'_>,
    prompt: &Prompt,
    first: &Line,
    doubts: &[Doubt],
    around: &Around,
    (sight, after): (&Sight, &str),
) -> Result<Vec<Candidate>, engine::Error> {
    if let Sight::Both(before) = sight
        && before.len() > 1
    {
        // Computed once, and the lines all go on from it.
        let (_, work) = writer.likelihood(before.clone(), before.len() - 1)?;
        writer.statistics.add_work(&work);
    }
    let asking = &*writer;
    let of_after = |before: &[TokenId], line: &[TokenId]| {
        let after = asking.engine.tokenizer().encode(after).into_iter().take(N_AFTER);
        let tokens: Vec<TokenId> = before.iter().chain(line).copied().chain(after).collect();
        asking.likelihood(tokens, before.len() + line.len())
    };
    let judge = |mut line: Line, mut statistics: Statistics| {
        line.begin_at(around);
        let shown = trim::without_tail(&line.text, around);
        let (written, logprob) = written(asking.engine.tokenizer(), prompt, &line, shown);
        let of_end = || asking.likelihood_of_end([&prompt.tokens[..], &written].concat());
        let (of_after, work) = match sight {
            Sight::Before => of_after(&prompt.tokens, &written)?,
            Sight::Around => of_end()?,
            Sight::Both(before) => {
                let (of_end, work) = of_end()?;
                statistics.add_work(&work);
                let (of_after, work) = of_after(before, &written)?;
                (of_end.zip(of_after).map(|(of_end, of_after)| of_end + of_after), work)
            }
        };
        statistics.add_work(&work);
        Ok((of_after.map(|of_after| Candidate { line, logprob, of_after }), statistics))
    };
    let results: Vec<Result<(Option<Candidate>, Statistics), engine::Error>> = std::thread::scope(|scope| {
        let others: Vec<_> = doubts
            .iter()
            .map(|doubt| {
                scope.spawn(move || match asking.other(prompt, first, doubt)? {
                    // What becomes the same line is judged once.
                    (Some(line), statistics) if line.text != first.text => judge(line, statistics),
                    (_, statistics) => Ok((None, statistics)),
                })
            })
            .collect();
        let mut results = vec![judge(first.clone(), Statistics::default())];
        results.extend(
            others
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))),
        );
        results
    });
    let mut candidates = Vec::new();
    for result in results {
        let (candidate, work) = result?;
        writer.statistics.add_work(&work);
        candidates.extend(candidate);
    }
    if candidates.is_empty() {
        let mut line = first.clone();
        line.begin_at(around);
        candidates.push(Candidate { line, logprob: 0.0, of_after: 0.0 });
    }
    Ok(candidates)
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
