//! Requests beside each other: whatever else runs, each gets the answer it would have got alone (I-7).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use engine::{
    CancelToken, DraftExtent, Engine, EngineOptions, GenerateRequest, Generation, Priority, Sampling,
    StopReason, TokenId,
};

use crate::model_file::with_layers;
use crate::{Random, engine, greedy, model_path};

/// Schedules of the long run; `TANDEM_SCHEDULES` asks for more or fewer.
const N_SCHEDULES: usize = 60;

/// Prompts that share beginnings of several lengths, and answers to each.
fn request(random: &mut Random, engine: &Engine) -> GenerateRequest {
    const LINES: [&str; 6] = [
        "def area(width, height):\n    return width * height\n\n",
        "def perimeter(width, height):\n    return 2 * (width + height)\n\n",
        "names = [\"ada\", \"grace\", \"alan\"]\nfor name in names:\n    print(name)\n\n",
        "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n\n",
        "The quick brown fox jumps over the lazy dog. The quick brown fox\n",
        "assert area(2, 3) == 6\nassert area(4, 5) == 20\nassert area(",
    ];
    let n_lines = 1 + random.below(8);
    let text: String = (0..n_lines).map(|idx| LINES[(idx + random.below(2)) % LINES.len()]).collect();
    let mut request = greedy(engine.tokenizer().encode(&text), 1 + random.below(14));
    let is_sampled = random.below(2) == 0;
    if is_sampled {
        let seed = random.below(1000) as u64;
        request.sampling = Sampling { temperature: 0.9, top_k: 0, top_p: 0.95, seed };
    }
    request.priority = [Priority::Interactive, Priority::Background, Priority::Background][random.below(3)];
    request.drafting.extent = [DraftExtent::Off, DraftExtent::WhatPays, DraftExtent::All][random.below(3)];
    request
}

/// What a request with a cancel in the middle may answer: the beginning of the whole answer.
fn assert_is_beginning(part: &Generation, whole: &Generation) {
    assert!(whole.tokens.starts_with(&part.tokens), "{:?} is no beginning of {:?}", part.text, whole.text);
    let n = part.tokens.len();
    assert_eq!(bits(&part.logprobs), bits(&whole.logprobs[..n]));
}

fn bits(logprobs: &[f32]) -> Vec<u32> {
    logprobs.iter().map(|logprob| logprob.to_bits()).collect()
}

fn alone(engine: &Engine, mut request: GenerateRequest) -> Generation {
    request.drafting.extent = DraftExtent::Off;
    engine.generate(request, &mut |_| true, &CancelToken::new()).unwrap()
}

#[test]
fn i_7_whatever_else_runs_an_answer_is_the_same() {
    let n_schedules =
        std::env::var("TANDEM_SCHEDULES").map_or(N_SCHEDULES, |n| n.parse().expect("a number of schedules"));
    // A cache for hardly more than the longest prompt: sequences are pushed out and computed again.
    let small = Engine::load(
        &model_path(),
        EngineOptions { n_ctx: Some(640), ..EngineOptions::default() },
        &mut |_| {},
    )
    .unwrap();
    // Agrees often and not always: the model without its last three layers.
    let draft = with_layers(27);
    let draft_model = Some(draft.path());
    let drafted =
        Engine::load(&model_path(), EngineOptions { draft_model, ..EngineOptions::default() }, &mut |_| {})
            .unwrap();
    let n_cancelled = AtomicUsize::new(0);
    for schedule in 0..n_schedules {
        let mut random = Random(0x9E37_79B9 + schedule as u64 * 7919);
        random.below(1);
        let shared = [engine(), &small, &drafted][schedule % 3];
        let n_sequences = 2 + random.below(5);
        let plans: Vec<_> = (0..n_sequences)
            .map(|_| {
                let request = request(&mut random, shared);
                let n_answers = if random.below(4) == 0 { 1 + random.below(3) } else { 1 };
                let cancel_after =
                    (random.below(4) == 0).then(|| Duration::from_millis(random.below(120) as u64));
                (request, n_answers, Duration::from_millis(random.below(40) as u64), cancel_after)
            })
            .collect();
        std::thread::scope(|scope| {
            let running: Vec<_> = plans
                .iter()
                .map(|(request, n_answers, delay, cancel_after)| {
                    let cancel = CancelToken::new();
                    if let Some(after) = *cancel_after {
                        let (cancel, delay) = (cancel.clone(), *delay);
                        scope.spawn(move || {
                            std::thread::sleep(delay + after);
                            cancel.cancel();
                        });
                    }
                    scope.spawn(move || {
                        std::thread::sleep(*delay);
                        let mut on_text = |_: usize, _: &str| true;
                        shared.generate_many(request.clone(), *n_answers, &mut on_text, &cancel).unwrap()
                    })
                })
                .collect();
            let answers: Vec<Vec<Generation>> = running.into_iter().map(|run| run.join().unwrap()).collect();
            for ((request, n_answers, ..), answers) in plans.iter().zip(answers) {
                assert_eq!(answers.len(), *n_answers);
                for (idx, answer) in answers.iter().enumerate() {
                    let mut request = request.clone();
                    request.sampling.seed += idx as u64;
                    let whole = alone(engine(), request);
                    if answer.stop == StopReason::Cancelled {
                        n_cancelled.fetch_add(1, Ordering::Relaxed);
                        assert_is_beginning(answer, &whole);
                    } else {
                        assert_eq!(answer.tokens, whole.tokens, "schedule {schedule}: {:?}", answer.text);
                        assert_eq!(bits(&answer.logprobs), bits(&whole.logprobs), "schedule {schedule}");
                        assert_eq!((answer.stop, &answer.text), (whole.stop, &whole.text));
                    }
                }
            }
        });
    }
    let drafts = drafted.metrics().unwrap().drafts().find(|(name, _)| *name == "draft_model").unwrap().1;
    let (n_drafted, n_kept) = (drafts.n_drafted.get(), drafts.n_kept.get());
    assert!(
        n_schedules < N_SCHEDULES / 2 || (0 < n_kept && n_kept < n_drafted),
        "{n_kept} of {n_drafted} kept"
    );
    println!(
        "{n_schedules} schedules, {} answers cancelled, {n_kept} of {n_drafted} tokens of a draft model kept",
        n_cancelled.into_inner()
    );
}

#[test]
fn requests_that_do_not_fit_beside_each_other_are_answered_one_after_the_other() {
    let small = Engine::load(
        &model_path(),
        EngineOptions { n_ctx: Some(640), ..EngineOptions::default() },
        &mut |_| {},
    )
    .unwrap();
    // Room for twice 640 tokens, and five times 600 are wanted.
    let requests: Vec<GenerateRequest> = (0..5)
        .map(|idx| {
            let mut tokens = small.tokenizer().encode(&format!("x{idx} = {idx} + {idx}\n").repeat(80));
            tokens.truncate(600);
            greedy(tokens, 12)
        })
        .collect();
    std::thread::scope(|scope| {
        let running: Vec<_> = requests
            .iter()
            .map(|request| {
                let small = &small;
                scope.spawn(move || {
                    small.generate(request.clone(), &mut |_| true, &CancelToken::new()).unwrap()
                })
            })
            .collect();
        for (request, run) in requests.iter().zip(running) {
            let (beside, alone) = (run.join().unwrap(), alone(engine(), request.clone()));
            assert_eq!((beside.tokens, bits(&beside.logprobs)), (alone.tokens, bits(&alone.logprobs)));
        }
    });
}

#[test]
fn answers_to_one_prompt_share_its_prefill() {
    let engine = engine();
    let mut request = greedy(engine.tokenizer().encode(&"# a line of no interest\n".repeat(20)), 6);
    request.sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 7 };
    let mut streamed = vec![String::new(); 5];
    let mut on_text = |idx: usize, text: &str| {
        streamed[idx].push_str(text);
        true
    };
    let answers = engine.generate_many(request.clone(), 5, &mut on_text, &CancelToken::new()).unwrap();
    let different: std::collections::BTreeSet<&Vec<TokenId>> = answers.iter().map(|a| &a.tokens).collect();
    assert!(different.len() > 1, "five seeds gave one answer");
    for (idx, (answer, streamed)) in answers.iter().zip(&streamed).enumerate() {
        let mut request = request.clone();
        request.sampling.seed += idx as u64;
        assert_eq!(answer.tokens, alone(engine, request).tokens);
        assert_eq!(&answer.text, streamed);
    }
}

#[test]
fn one_answer_of_several_can_be_enough() {
    let engine = engine();
    let request = greedy(engine.tokenizer().encode("1, 2, 3, 4, 5, 6, 7, 8, 9,"), 30);
    let mut on_text = |idx: usize, _: &str| idx != 0;
    let answers = engine.generate_many(request, 2, &mut on_text, &CancelToken::new()).unwrap();
    assert_eq!(answers[0].stop, StopReason::Enough);
    assert!(answers[0].tokens.len() < answers[1].tokens.len());
    assert_eq!(answers[1].tokens.len(), 30);
}
