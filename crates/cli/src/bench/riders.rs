//! `agent bench --riders`: what two riders on one engine cost each other, and what drafts save.
//!
//! In: a loaded engine and a model file. Out: a table on stdout.
//! Never: asserts a time.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use engine::{
    Bench, CancelToken, Device, DraftExtent, DrafterKind, Drafting, Engine, GenerateRequest, KvType,
    Priority, Sampling, StopRules, TokenId,
};

use super::ms;
use crate::failure::Failure;

/// Source text that has what source text has: names that come again, indentation, prose.
const SOURCE: &str = include_str!("../../../engine/src/kv.rs");
/// Tokens of the prompt that a keystroke extends.
const N_WARM: usize = 1500;
/// Keystrokes measured, alone and beside a background job.
const N_KEYS: usize = 200;
/// Sequences of the background job.
const N_BACKGROUND: usize = 4;
/// How long somebody waits between two keys.
const PAUSE: Duration = Duration::from_millis(100);
/// Answers that share a prompt of as many tokens, and their length.
const N_BEST_OF: usize = 8;
const N_SHARED: usize = 1000;
const N_ANSWER: usize = 48;
/// Lines of the file that is rewritten; each twentieth changes.
const N_LINES: usize = 200;
/// Ordinary completions, and their length.
const N_COMPLETIONS: usize = 50;
const N_COMPLETED: usize = 32;
/// Runs of each way, in turn. The median counts, and beside it the quickest: a neighbour on the cores only ever slows a run.
const N_RUNS: usize = 9;

pub(super) fn run(engine: &Engine, model: &Path, device: Device) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let tokens = source(engine);

    let idle_rate = background_rate(engine, &tokens, N_BACKGROUND, None)?.0;
    let alone = keystrokes(engine, &tokens, N_KEYS)?;
    let (beside_rate, beside) =
        background_rate(engine, &tokens, N_BACKGROUND, Some(&|| keystrokes(engine, &tokens, N_KEYS)))?;
    let (p50, p95) = (ms(quantile(&alone, 0.5)), ms(quantile(&alone, 0.95)));
    let (p50_beside, p95_beside) = (ms(quantile(&beside, 0.5)), ms(quantile(&beside, 0.95)));
    writeln!(out, "ttft of a keystroke on {N_WARM} warm tokens, ms: p50 {p50:.2}, p95 {p95:.2}")?;
    writeln!(
        out,
        "  beside {N_BACKGROUND} background sequences: p50 {p50_beside:.2}, p95 {p95_beside:.2} = {:.2} x",
        p95_beside / p95
    )?;
    writeln!(
        out,
        "  background tokens/s: {idle_rate:.0} alone, {beside_rate:.0} beside = {:.0} %",
        100.0 * beside_rate / idle_rate
    )?;

    best_of(engine, (model, device), &tokens, &mut out)?;
    rewriting(engine, (model, device), &mut out)?;
    completions(engine, &tokens, &mut out)?;
    if let Some(metrics) = engine.metrics().filter(|metrics| metrics.n_draft_weight_bytes > 0) {
        let drafts = &metrics.drafts[DrafterKind::DraftModel as usize];
        writeln!(
            out,
            "the draft model: {} of {} tokens kept, {:.2} s for {} steps in all of the above",
            drafts.n_kept.get(),
            drafts.n_drafted.get(),
            metrics.draft_steps.seconds.get(),
            metrics.draft_steps.n_steps.get()
        )?;
    }
    Ok(())
}

/// Returns the source text twice, as tokens.
pub(super) fn source(engine: &Engine) -> Vec<TokenId> {
    engine.tokenizer().encode(&SOURCE.repeat(2))
}

fn request(prompt: &[TokenId], n_max_tokens: usize, priority: Priority) -> GenerateRequest {
    GenerateRequest {
        prompt: prompt.to_vec(),
        healed: Vec::new(),
        grammar: None,
        shown: Vec::new(),
        sampling: Sampling::greedy(),
        stop: StopRules { n_max_tokens, texts: Vec::new(), decode_time: None },
        drafting: Drafting { extent: DraftExtent::Off, ..Drafting::default() },
        n_top: 0,
        priority,
    }
}

/// Returns the time to the first token of each of `n_keys` keystrokes.
pub(super) fn keystrokes(
    engine: &Engine,
    tokens: &[TokenId],
    n_keys: usize,
) -> Result<Vec<Duration>, Failure> {
    let cancel = CancelToken::new();
    engine.generate(request(&tokens[..N_WARM], 1, Priority::Interactive), &mut |_| true, &cancel)?;
    let mut times = Vec::with_capacity(n_keys);
    for key in 0..n_keys {
        std::thread::sleep(PAUSE);
        let prompt = [&tokens[..N_WARM], &tokens[key..=key]].concat();
        let answer = engine.generate(request(&prompt, 1, Priority::Interactive), &mut |_| true, &cancel)?;
        times.push(answer.timings.ttft);
    }
    Ok(times)
}

/// Returns how many tokens a second a background job of `n_answers` answers decodes while `during` runs, or for some seconds, and what that
/// returned.
pub(super) fn background_rate(
    engine: &Engine,
    tokens: &[TokenId],
    n_answers: usize,
    during: Option<&dyn Fn() -> Result<Vec<Duration>, Failure>>,
) -> Result<(f64, Vec<Duration>), Failure> {
    let cancel = CancelToken::new();
    let n_tokens = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let background = scope.spawn(|| {
            let mut request = request(&tokens[N_WARM..N_WARM + 200], 400, Priority::Background);
            request.sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 1 };
            while !cancel.is_cancelled() {
                let mut on_text = |_: usize, _: &str| {
                    n_tokens.fetch_add(1, Ordering::Relaxed);
                    true
                };
                engine.generate_many(request.clone(), n_answers, &mut on_text, &cancel)?;
                request.sampling.seed += n_answers as u64;
            }
            Ok::<(), Failure>(())
        });
        std::thread::sleep(Duration::from_secs(1));
        let (started, n_before) = (Instant::now(), n_tokens.load(Ordering::Relaxed));
        let times = match during {
            Some(during) => during(),
            None => {
                std::thread::sleep(Duration::from_secs(5));
                Ok(Vec::new())
            }
        };
        let n_decoded = n_tokens.load(Ordering::Relaxed) - n_before;
        let rate = n_decoded as f64 / started.elapsed().as_secs_f64();
        cancel.cancel();
        if let Ok(result) = background.join() {
            result?;
        }
        Ok((rate, times?))
    })
}

/// Measures several answers to one prompt beside its prefill and the steps that they need.
fn best_of(
    engine: &Engine,
    (model, device): (&Path, Device),
    tokens: &[TokenId],
    out: &mut std::io::Stdout,
) -> Result<(), Failure> {
    let mut bench = Bench::load(model, N_SHARED + N_ANSWER + 64, None, KvType::F16, device)?;
    let mut whole = Vec::new();
    let mut parts = Vec::new();
    for run in 0..5 {
        // A first token of its own, so that nothing is reused.
        let prompt = [&tokens[run..=run], &tokens[700..700 + N_SHARED - 1]].concat();
        let mut request = request(&prompt, N_ANSWER, Priority::Background);
        request.sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 3 };
        let started = Instant::now();
        let answers = engine.generate_many(request, N_BEST_OF, &mut |_, _| true, &CancelToken::new())?;
        whole.push(started.elapsed());
        // As many steps of as many rows as the answers took.
        let longest = answers.iter().map(|answer| answer.tokens.len()).max().unwrap_or(0);
        let mut sum = bench.prefill(N_SHARED, 0)?;
        for step in 1..longest {
            let n_rows = answers.iter().filter(|answer| answer.tokens.len() > step).count();
            sum += bench.verify(n_rows.max(1), N_SHARED + step)?;
        }
        parts.push(sum);
    }
    let (whole, parts) = (ms(quantile(&whole, 0.5)), ms(quantile(&parts, 0.5)));
    writeln!(
        out,
        "best of {N_BEST_OF} on {N_SHARED} tokens, {N_ANSWER} each: {whole:.0} ms; one prefill and the steps: {parts:.0} ms = {:.2} x",
        whole / parts
    )?;
    Ok(())
}

/// A file, and the same with few lines changed, as tokens.
fn rewritten(engine: &Engine) -> [Vec<TokenId>; 2] {
    let lines: Vec<&str> = SOURCE.lines().take(N_LINES).collect();
    let changed: Vec<String> = lines
        .iter()
        .enumerate()
        .map(
            |(idx, line)| {
                if idx % 20 == 10 { format!("{line} // as before, see above") } else { (*line).to_owned() }
            },
        )
        .collect();
    [lines.join("\n"), changed.join("\n")].map(|text| engine.tokenizer().encode(&text))
}

/// Returns how many tokens a rewritten file has, and how much quicker drafts make it than plain decoding.
pub(super) fn rewriting_gain(engine: &Engine, model: &Path, device: Device) -> Result<(usize, f64), Failure> {
    let [original, target] = rewritten(engine);
    let n_tokens = original.len() + target.len() + 64;
    let mut bench = Bench::load(model, n_tokens, None, KvType::F16, device)?;
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let plain = bench.rewrite(&original, &target, DraftExtent::Off)?;
        let drafted = bench.rewrite(&original, &target, DraftExtent::WhatPays)?;
        ratios.push(plain.as_secs_f64() / drafted.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    Ok((target.len(), ratios[1]))
}

/// Measures the rewriting of a file in which few lines change.
fn rewriting(
    engine: &Engine,
    (model, device): (&Path, Device),
    out: &mut std::io::Stdout,
) -> Result<(), Failure> {
    let (n_tokens, gain) = rewriting_gain(engine, model, device)?;
    writeln!(
        out,
        "rewriting {N_LINES} lines, 10 changed, {n_tokens} tokens, forced on the target: {gain:.2} x plain decoding"
    )?;

    let [original, _] = rewritten(engine);
    let encode = |text: &str| engine.tokenizer().encode(text);
    let free: Vec<f64> = (0..5)
        .map(|_| {
            let mut request = request(&original, 256, Priority::Background);
            request.prompt.extend(encode("\n// The same file again, with a comment more:\n"));
            request.drafting.original = original.clone();
            let plain = engine.generate(request.clone(), &mut |_| true, &CancelToken::new())?;
            request.drafting.extent = DraftExtent::WhatPays;
            let drafted = engine.generate(request, &mut |_| true, &CancelToken::new())?;
            Ok(plain.timings.decode.as_secs_f64() / drafted.timings.decode.as_secs_f64())
        })
        .collect::<Result<_, Failure>>()?;
    let mut free = free;
    free.sort_by(f64::total_cmp);
    writeln!(out, "  free-running, 256 tokens: {:.2} x", free[2])?;
    Ok(())
}

/// Measures ordinary completions with and without drafts, and without beside without: what noise alone would say.
fn completions(engine: &Engine, tokens: &[TokenId], out: &mut std::io::Stdout) -> Result<(), Failure> {
    // By completion: plain, with drafts and plain again, the times of all runs.
    let mut decode = Vec::new();
    for idx in 0..N_COMPLETIONS {
        let end = 200 + idx * (tokens.len() / 2 - 200) / N_COMPLETIONS;
        let mut request = request(&tokens[end.saturating_sub(600)..end], N_COMPLETED, Priority::Interactive);
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..N_RUNS {
            for (extent, times) in
                [DraftExtent::Off, DraftExtent::WhatPays, DraftExtent::Off].into_iter().zip(&mut times)
            {
                request.drafting.extent = extent;
                times.push(
                    engine.generate(request.clone(), &mut |_| true, &CancelToken::new())?.timings.decode,
                );
            }
        }
        decode.push(times);
    }
    for (estimate, share) in [("median", 0.5), ("quickest", 0.0)] {
        let seconds = |times| quantile(times, share).as_secs_f64().max(1e-9);
        for (name, way) in [("with drafts", 1), ("plain, once more", 2)] {
            let mut ratios: Vec<f64> =
                decode.iter().map(|times| seconds(&times[0]) / seconds(&times[way])).collect();
            ratios.sort_by(f64::total_cmp);
            let [plain, other] =
                [0, way].map(|way| decode.iter().map(|times| seconds(&times[way])).sum::<f64>());
            let n = ratios.len();
            writeln!(
                out,
                "{n} ordinary completions {name}, {estimate} of {N_RUNS} runs: {:.2} x plain decoding in all, \
                 median {:.2} x, a tenth below {:.2} x, worst {:.2} x",
                plain / other,
                ratios[n / 2],
                ratios[n / 10],
                ratios[0]
            )?;
        }
    }
    Ok(())
}

pub(super) fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted
        .get(((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}
