//! The engine's counters: known requests give known numbers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::{
    Asked, CancelToken, DraftExtent, Ended, Engine, EngineOptions, GenerateRequest, Generation, GivenUp,
    GrammarSpec, Metrics, Outcome, Priority, Recorder, ScoreRequest, StepKind, StopReason,
};

use crate::{greedy, model_path};

/// Returns an engine that has done nothing yet.
fn fresh(n_ctx: Option<usize>) -> Engine {
    Engine::load(&model_path(), EngineOptions { n_ctx, ..EngineOptions::default() }, &mut |_| {}).unwrap()
}

fn plain(engine: &Engine, text: &str, n_max_tokens: usize) -> GenerateRequest {
    let mut request = greedy(engine.tokenizer().encode(text), n_max_tokens);
    request.drafting.extent = DraftExtent::Off;
    request
}

fn generate(engine: &Engine, request: GenerateRequest) -> Generation {
    engine.generate(request, &mut |_| true, &CancelToken::new()).unwrap()
}

fn steps(metrics: &Metrics, kind: StepKind) -> (u64, u64) {
    let count = &metrics.steps[kind as usize];
    (count.n_steps.get(), count.n_rows.get())
}

/// Tokens drafted and kept by a source.
fn drafts(metrics: &Metrics, source: &str) -> (u64, u64) {
    let (_, count) = metrics.drafts().find(|(name, _)| *name == source).unwrap();
    (count.n_drafted.get(), count.n_kept.get())
}

/// Gauges are set when a step is over, which may be just after its answer is there.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn known_requests_give_known_numbers() {
    let engine = fresh(None);
    let metrics = engine.metrics().unwrap();
    let text = "def area(width, height):\n    return width * height\n\nassert area(2, 3) ==";
    let request = plain(&engine, text, 6);
    let n_prompt = request.prompt.len() as u64;
    assert_eq!(generate(&engine, request.clone()).tokens.len(), 6);
    assert_eq!((metrics.n_prefilled.get(), metrics.n_reused.get()), (n_prompt, 0));
    assert_eq!(metrics.n_decoded.get(), 6);
    // The prompt's step yields the first token.
    assert_eq!(steps(metrics, StepKind::Prefill), (1, n_prompt));
    assert_eq!(steps(metrics, StepKind::Decode), (5, 5));
    assert_eq!((metrics.step_rows.n(), metrics.step_rows.sum()), (6, (n_prompt + 5) as f64));
    let [background, interactive] =
        [Priority::Background, Priority::Interactive].map(|priority| metrics.times(priority));
    let counts = |times: &engine::RequestTimes| {
        [&times.queue, &times.prefill, &times.ttft, &times.inter_token, &times.decode].map(|times| times.n())
    };
    assert_eq!(counts(background), [1, 1, 1, 5, 1]);
    assert_eq!(counts(interactive), [0; 5]);
    assert!(background.ttft.sum() >= background.prefill.sum());
    assert!(metrics.step_seconds[0].get() > 0.0, "T(1) is known after 5 steps");

    // Again, and three answers of it: the prompt is there but for its last token.
    let again = GenerateRequest { priority: Priority::Interactive, ..request.clone() };
    let answers = engine.generate_many(again, 3, &mut |_, _| true, &CancelToken::new()).unwrap();
    let n_answered: usize = answers.iter().map(|answer| answer.tokens.len()).sum();
    assert_eq!((metrics.n_prefilled.get(), metrics.n_reused.get()), (n_prompt + 1, n_prompt - 1));
    assert_eq!(metrics.n_decoded.get(), 6 + n_answered as u64);
    assert_eq!(steps(metrics, StepKind::Decode), (10, 20), "three rows a step");
    assert_eq!(counts(interactive), [1, 1, 1, 15, 1]);

    // A text that is scored is a prompt too; its last token has nothing after it.
    let tokens = request.prompt;
    let score =
        ScoreRequest { tokens, from: 1, n_top: 0, asked: Default::default(), priority: Priority::Background };
    engine.score(score, &CancelToken::new()).unwrap();
    assert_eq!(metrics.n_prefilled.get(), n_prompt + 1 + n_prompt - 1);
    assert_eq!(metrics.drafts().map(|(_, count)| count.n_drafted.get()).sum::<u64>(), 0);
    assert_eq!((metrics.n_suspended.get(), metrics.n_cancelled.get()), (0, 0));
}

#[test]
fn bytes_are_those_of_the_file_and_of_whole_blocks() {
    let engine = fresh(Some(256));
    let metrics = engine.metrics().unwrap();
    let n_file_bytes = model_path().metadata().unwrap().len() as f64;
    let ratio = metrics.n_weight_bytes as f64 / n_file_bytes;
    assert!((0.9..1.2).contains(&ratio), "{} bytes of {n_file_bytes}", metrics.n_weight_bytes);
    assert_eq!(metrics.n_kv_bytes, 2 * 256 / engine::BLOCK_TOKENS * metrics.n_block_bytes);
    assert_eq!(metrics.kv_used_bytes.get(), 0.0);
    // 20 positions are in the cache when the last token, which needs none, is chosen.
    let prompt = engine.tokenizer().encode(&"a b c d ".repeat(20))[..17].to_vec();
    generate(&engine, GenerateRequest { prompt, ..plain(&engine, "", 4) });
    // What runs is over, so all that is used is what was left behind: two blocks, of which one is full.
    let two = 2.0 * metrics.n_block_bytes as f64;
    wait_until("two blocks are left", || metrics.kv_retained_bytes.get() == two);
    assert_eq!(metrics.kv_used_bytes.get(), two);
    wait_until("nothing is left to do", || metrics.n_jobs.iter().all(|gauge| gauge.get() == 0.0));
}

#[test]
fn drafts_are_counted_where_they_came_from() {
    let engine = fresh(None);
    let metrics = engine.metrics().unwrap();
    let mut request = plain(&engine, "The answer is ", 40);
    request.drafting.extent = DraftExtent::All;
    request.grammar = Some(GrammarSpec::Regex("exactly forty-two and nothing else".to_owned()));
    let forced = generate(&engine, request);
    let (n_drafted, n_kept) = drafts(metrics, "grammar");
    assert_eq!(
        n_drafted,
        n_kept + 1,
        "what is forced is kept, but the token that ends the answer goes on to none"
    );
    assert!(n_kept > 3, "{n_kept} of {}", forced.tokens.len());
    let guessed = |source: &str| drafts(metrics, source).1;
    let before = guessed("suffix_automaton");
    assert_eq!(forced.n_kept as u64, n_kept + before);

    let text = "a = [1, 2, 3]\nb = [1, 2, 3]\nc = [1, 2, 3]\nd = [1, 2,";
    let mut request = plain(&engine, text, 12);
    let answer = generate(&engine, request.clone());
    request.drafting.extent = DraftExtent::All;
    request.drafting.previous = answer.tokens.clone();
    let drafted = generate(&engine, request);
    assert_eq!(drafted.tokens, answer.tokens);
    assert!(guessed("previous_answer") > 0);
    let n_kept: u64 = metrics.drafts().map(|(_, count)| count.n_kept.get()).sum();
    assert_eq!(n_kept, (forced.n_kept + drafted.n_kept) as u64);
    let n_drafted: u64 = metrics.drafts().map(|(_, count)| count.n_drafted.get()).sum();
    assert_eq!(n_drafted, (forced.n_drafted + drafted.n_drafted) as u64);
}

#[test]
fn what_a_cancel_throws_away_and_a_keystroke_overtakes_is_counted() {
    let engine = fresh(None);
    let metrics = engine.metrics().unwrap();
    // While it answers: its tokens.
    let cancel = CancelToken::new();
    let mut n_texts = 0;
    let mut on_text = |_: &str| {
        n_texts += 1;
        if n_texts == 3 {
            cancel.cancel();
        }
        true
    };
    let request = plain(&engine, "Once upon a time", 400);
    let answer = engine.generate(request, &mut on_text, &cancel).unwrap();
    assert_eq!(answer.stop, StopReason::Cancelled);
    assert_eq!(metrics.n_cancelled.get(), answer.tokens.len() as u64);

    // In its prompt: the step that ran. A cancel between two steps costs none, so it is tried until one hits.
    let long = |seed: usize| {
        let text = format!("seed = {seed}\n{}", "x = [y + 1 for y in range(10)]\n".repeat(60));
        plain(&engine, &text, 1)
    };
    let n_tried = AtomicUsize::new(0);
    let give_up = |act: &(dyn Fn(&CancelToken) + Sync)| {
        let cancel = Arc::new(CancelToken::new());
        let request = long(n_tried.fetch_add(1, Ordering::Relaxed));
        std::thread::scope(|scope| {
            let background = scope.spawn(|| engine.generate(request, &mut |_| true, &cancel).unwrap());
            wait_until("its prompt is begun", || metrics.n_jobs[1].get() > 0.0 || background.is_finished());
            act(&cancel);
            cancel.cancel();
            background.join().unwrap()
        });
    };
    wait_until("a cancel hits a step", || {
        give_up(&|cancel| cancel.cancel());
        metrics.n_given_up(GivenUp::Cancelled) > 0
    });
    assert!(metrics.given_up[GivenUp::Cancelled as usize].n_rows.get() > 0);

    let n_before = metrics.n_given_up(GivenUp::Overtaken);
    wait_until("a keystroke hits a step", || {
        give_up(&|_| {
            let key = plain(&engine, "y = ", 1);
            generate(&engine, GenerateRequest { priority: Priority::Interactive, ..key });
        });
        metrics.n_given_up(GivenUp::Overtaken) > n_before
    });
}

#[test]
fn a_request_that_gives_its_places_up_is_counted() {
    let engine = fresh(Some(256));
    let metrics = engine.metrics().unwrap();
    let prompt_of = |name: &str| {
        let tokens = engine.tokenizer().encode(&format!("{name} = {}", "[1, 2, 3] + ".repeat(60)));
        tokens[..200].to_vec()
    };
    let run = &|name: &str| {
        let request = GenerateRequest { prompt: prompt_of(name), ..plain(&engine, "", 50) };
        assert_eq!(generate(&engine, request).tokens.len(), 50);
    };
    // 512 positions for three times 250: who came last waits, or gives its places up.
    std::thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            scope.spawn(move || run(name));
        }
    });
    assert!(metrics.n_suspended.get() > 0);
    // All of them are answered, so what was lost was computed again.
    assert!(metrics.n_prefilled.get() + metrics.n_reused.get() > 600);
}

/// Keeps a line for each request it hears of.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Recorder for Heard {
    fn record(&self, ended: Ended<'_>) {
        let asked = match &ended.asked {
            Asked::Generate { request, n_answers } => format!("{n_answers} of {}", request.prompt.len()),
            Asked::Score(request) => format!("scores of {}", request.tokens.len()),
        };
        let outcome = match ended.outcome {
            Outcome::Generated(answers) => format!("{:?}", answers[0].stop),
            Outcome::Scored(scores) => format!("{:?}", scores.map(<[_]>::len)),
            Outcome::Failed(error) => error.to_string(),
        };
        let was_cancelled = ended.cancelled.is_some_and(|at| at >= ended.arrived);
        let enough_after = ended.enough_after;
        self.0.lock().unwrap().push(format!("{asked}: {outcome} {was_cancelled} {enough_after:?}"));
    }
}

#[test]
fn a_recorder_hears_of_every_request_once_and_how_it_ended() {
    let heard = Arc::new(Heard::default());
    let engine = crate::engine().clone().with_recorder(Arc::<Heard>::clone(&heard));
    let request = plain(&engine, "one two three", 100);
    let n_prompt = request.prompt.len();
    let check = |expected: &str| {
        let lines = std::mem::take(&mut *heard.0.lock().unwrap());
        assert_eq!(lines, [expected]);
    };
    generate(&engine, plain(&engine, "one two three", 3));
    check(&format!("1 of {n_prompt}: MaxTokens false [None]"));

    // The first text is enough, whatever comes after it.
    let mut first = None;
    let mut on_text = |text: &str| {
        first.get_or_insert(text.len());
        false
    };
    engine.generate(request.clone(), &mut on_text, &CancelToken::new()).unwrap();
    check(&format!("1 of {n_prompt}: Enough false [{first:?}]"));

    let cancel = CancelToken::new();
    let mut on_text = |_: &str| {
        cancel.cancel();
        true
    };
    engine.generate(request.clone(), &mut on_text, &cancel).unwrap();
    check(&format!("1 of {n_prompt}: Cancelled true [None]"));

    let empty = GenerateRequest { prompt: Vec::new(), ..request.clone() };
    engine.generate_many(empty, 2, &mut |_, _| true, &CancelToken::new()).unwrap_err();
    check("2 of 0: the prompt is empty false [None, None]");

    let tokens = request.prompt;
    let score =
        ScoreRequest { tokens, from: 1, n_top: 0, asked: Default::default(), priority: Priority::Background };
    engine.score(score.clone(), &CancelToken::new()).unwrap();
    check(&format!("scores of {n_prompt}: Some({}) false []", n_prompt - 1));
    // It was cancelled before it came.
    engine.score(score, &cancel).unwrap();
    check(&format!("scores of {n_prompt}: None false []"));
}
