//! A draft model beside a model: the same answers, in fewer steps, and none where it does not fit.

use std::path::Path;
use std::time::{Duration, Instant};

use engine::{
    CancelToken, DraftExtent, Engine, EngineOptions, Error, GenerateRequest, Generation, GrammarSpec,
    Metrics, Priority, Sampling, StepKind,
};

use crate::model_file::{of_another_architecture, with_another_vocabulary, with_layers};
use crate::{engine, greedy, model_path};

/// Layers of the default model.
const N_LAYERS: usize = 30;
const TEXT: &str = "def area(width, height):\n    return width * height\n\ndef volume(";

fn load(model: &Path, draft_model: &Path) -> Result<Engine, Error> {
    let draft_model = Some(draft_model.to_owned());
    Engine::load(model, EngineOptions { draft_model, ..EngineOptions::default() }, &mut |_| {})
}

fn generate(engine: &Engine, request: &GenerateRequest, extent: DraftExtent) -> Generation {
    let mut request = request.clone();
    request.drafting.extent = extent;
    engine.generate(request, &mut |_| true, &CancelToken::new()).unwrap()
}

fn sampled(mut request: GenerateRequest, top_p: f32) -> GenerateRequest {
    request.sampling = Sampling { temperature: 0.9, top_k: 0, top_p, seed: 11 };
    request
}

/// Tokens that the draft model drafted, and those that were kept.
fn drafts(metrics: &Metrics) -> (u64, u64) {
    let (_, count) = metrics.drafts().find(|(name, _)| *name == "draft_model").unwrap();
    (count.n_drafted.get(), count.n_kept.get())
}

fn assert_same(with: &Generation, without: &Generation) {
    assert_eq!((&with.text, &with.tokens, with.stop), (&without.text, &without.tokens, without.stop));
    let bits = |answer: &Generation| answer.logprobs.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(with), bits(without));
}

#[test]
fn a_model_that_drafts_for_itself_is_right_every_time() {
    let drafted = load(&model_path(), &model_path()).unwrap();
    let metrics = drafted.metrics().unwrap();
    assert_eq!(metrics.n_draft_weight_bytes, metrics.n_weight_bytes);
    assert_eq!(metrics.n_draft_kv_bytes, metrics.n_kv_bytes);
    let request = greedy(drafted.tokenizer().encode(TEXT), 40);
    for request in [request.clone(), sampled(request.clone(), 1.0), sampled(request, 0.95)] {
        let n_before = metrics.steps[StepKind::Decode as usize].n_steps.get();
        let with = generate(&drafted, &request, DraftExtent::All);
        let n_steps = metrics.steps[StepKind::Decode as usize].n_steps.get() - n_before;
        assert_same(&with, &generate(engine(), &request, DraftExtent::Off));
        let (n_drafted, n_kept) = drafts(metrics);
        assert!(n_drafted > 0 && n_drafted == n_kept, "{n_kept} of {n_drafted} kept");
        assert!(n_steps < with.tokens.len() as u64, "{n_steps} steps");
    }
    let (n_steps, n_rows) = (&metrics.draft_steps.n_steps, &metrics.draft_steps.n_rows);
    assert!(n_rows.get() > n_steps.get() && n_steps.get() >= drafts(metrics).0);
    assert!(metrics.draft_steps.seconds.get() > 0.0);
}

#[test]
fn what_a_grammar_forbids_is_not_drafted() {
    let drafted = load(&model_path(), &model_path()).unwrap();
    let metrics = drafted.metrics().unwrap();
    let mut request = greedy(drafted.tokenizer().encode("The numbers are "), 40);
    // What the model would say goes on where the grammar does not.
    request.grammar = Some(GrammarSpec::Regex(r"[0-9]{2}(, [0-9]{2}){4}\.".to_owned()));
    let with = generate(&drafted, &request, DraftExtent::All);
    assert_same(&with, &generate(engine(), &request, DraftExtent::Off));
    let (n_drafted, n_kept) = drafts(metrics);
    assert!(n_kept > 0 && n_drafted - n_kept <= 8, "{n_kept} of {n_drafted} kept of {:?}", with.text);
}

#[test]
fn a_file_that_cannot_draft_is_refused_with_a_hint() {
    let check = |path: &Path, expected: &str| {
        let error = load(&model_path(), path).err().expect("it was taken");
        assert!(error.hint().is_some_and(|hint| hint.contains("--draft-model")), "{error}");
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        let text = format!("{error}{}", source.unwrap_or_default());
        assert!(text.contains(expected), "{text}");
    };
    check(&with_another_vocabulary().path(), "another vocabulary than the model: token 30000 is ");
    check(&of_another_architecture().path(), "draft model cannot be used: model architecture `mamba`");
    check(Path::new("/nowhere/draft.gguf"), "draft model cannot be used: cannot read the model");
}

/// A model of as many layers as `TANDEM_LARGE_LAYERS` says, all but 30 of which do nothing, and the default model as its
/// draft: it agrees always.
#[test]
fn a_draft_that_agrees_takes_steps_off_a_large_model() {
    let n_layers =
        std::env::var("TANDEM_LARGE_LAYERS").map_or(2 * N_LAYERS, |n| n.parse().expect("a number"));
    let file = with_layers(n_layers);
    let large = load(&file.path(), &model_path()).unwrap();
    let metrics = large.metrics().unwrap();
    let n_steps = || metrics.steps[StepKind::Decode as usize].n_steps.get();
    let request = |seed: usize| {
        let text = format!("# {seed}: what a planet is made of, told in a few words\n{TEXT}");
        let mut request = greedy(large.tokenizer().encode(&text), 48);
        request.priority = Priority::Interactive;
        request
    };
    let first = request(0);
    let n_before = n_steps();
    let all = generate(&large, &first, DraftExtent::All);
    assert_same(&all, &generate(engine(), &first, DraftExtent::Off));
    assert!(n_steps() - n_before <= all.tokens.len() as u64 / 4, "{} steps", n_steps() - n_before);
    let (n_drafted, n_kept) = drafts(metrics);
    assert!(n_drafted > 0 && n_drafted == n_kept);

    // What pays depends on the machine, so this is told and not asserted.
    let mut ratios = Vec::new();
    for seed in 0..5 {
        let [plain, drafted] = [DraftExtent::Off, DraftExtent::WhatPays].map(|extent| {
            let started = Instant::now();
            let answer = generate(&large, &request(seed), extent);
            let whole = started.elapsed();
            assert_same(&answer, &generate(engine(), &request(seed), DraftExtent::Off));
            (answer.timings.decode, whole - answer.timings.prefill, answer.n_kept)
        });
        let ratio = |plain: Duration, drafted: Duration| plain.as_secs_f64() / drafted.as_secs_f64();
        ratios.push(ratio(plain.0, drafted.0));
        println!(
            "decode {:.2} x, outside of prefill {:.2} x, {} kept",
            ratios[seed],
            ratio(plain.1, drafted.1),
            drafted.2
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("{n_layers} layers with a draft model of {N_LAYERS}: median {:.2} x plain decoding", ratios[2]);
}
