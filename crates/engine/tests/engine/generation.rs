//! What every caller relies on: reuse, healing, stopping, cancelling, and the same tokens however they are computed.

use std::time::{Duration, Instant};

use engine::{
    CancelToken, DraftExtent, Engine, EngineOptions, Error, KvType, Sampling, ScoreRequest, StopReason,
    TokenId,
};

use crate::{engine, greedy, model_path};

const CODE: &str = "def fibonacci(n):\n    if n <= 1:\n        return n\n    return ";

fn text_of(engine: &Engine, tokens: &[TokenId]) -> String {
    String::from_utf8(engine.tokenizer().decode(tokens)).unwrap()
}

#[test]
fn a_prompt_is_continued_and_its_parts_reused() {
    let engine = engine();
    let prompt = engine.tokenizer().encode(CODE);
    let mut streamed = String::new();
    let mut sink = |text: &str| {
        streamed.push_str(text);
        true
    };
    let started = Instant::now();
    let first = engine.generate(greedy(prompt.clone(), 16), &mut sink, &CancelToken::new()).unwrap();
    println!("{:?} in {:?}: {:?}", first.text, started.elapsed(), first.timings);
    assert_eq!(streamed, first.text);
    assert_eq!(first.text, text_of(engine, &first.tokens));
    assert_eq!(first.tokens.len(), 16);
    assert!(first.text.contains("fibonacci(n"), "{:?}", first.text);

    let again = engine.generate(greedy(prompt.clone(), 16), &mut |_| true, &CancelToken::new()).unwrap();
    assert_eq!(again.tokens, first.tokens, "reuse changed the answer");
    assert_eq!(again.n_reused, prompt.len() - 1);
    assert_eq!(again.logprobs, first.logprobs);
}

#[test]
fn the_answer_is_the_same_however_the_prompt_was_cut_into_steps() {
    let engine = engine();
    let prompt = engine.tokenizer().encode(&format!("# Numbers\n{CODE}"));
    // Fill the cache token by token through ever longer prompts, then compare with a run from nothing.
    for n in 1..prompt.len() {
        engine.generate(greedy(prompt[..n].to_vec(), 1), &mut |_| true, &CancelToken::new()).unwrap();
    }
    let warm = engine.generate(greedy(prompt.clone(), 12), &mut |_| true, &CancelToken::new()).unwrap();
    let fresh = Engine::load(&model_path(), EngineOptions::default(), &mut |_| {}).unwrap();
    let cold = fresh.generate(greedy(prompt, 12), &mut |_| true, &CancelToken::new()).unwrap();
    assert_eq!(cold.n_reused, 0);
    assert_eq!((warm.tokens, warm.logprobs), (cold.tokens, cold.logprobs));
}

#[test]
fn i_7_a_drafted_run_gives_the_same_tokens_as_an_undrafted_one() {
    let text = "a = [1, 2, 3]\nb = [1, 2, 3]\nc = [1, 2, 3]\nd = [1, 2,";
    for seed in 0..4 {
        let mut request = greedy(engine().tokenizer().encode(text), 24);
        if seed > 0 {
            request.sampling = Sampling { temperature: 0.8, top_k: 40, top_p: 0.95, seed };
        }
        request.drafting.extent = DraftExtent::All;
        let drafted = engine().generate(request.clone(), &mut |_| true, &CancelToken::new()).unwrap();
        request.drafting.extent = DraftExtent::Off;
        let plain = engine().generate(request, &mut |_| true, &CancelToken::new()).unwrap();
        assert_eq!((drafted.tokens, drafted.logprobs), (plain.tokens, plain.logprobs), "seed {seed}");
        assert!(seed > 0 || drafted.n_kept > 0, "the drafter never helped, so the test shows nothing");
    }
}

#[test]
fn the_likeliest_tokens_of_each_place_come_with_the_answer_and_fit_the_healed_bytes() {
    let engine = engine();
    let mut request = greedy(engine.tokenizer().encode("for i in range(10):\n    "), 12);
    request.healed = b"pri".to_vec();
    request.n_top = 3;
    request.drafting.extent = DraftExtent::All;
    let drafted = engine.generate(request.clone(), &mut |_| true, &CancelToken::new()).unwrap();
    assert_eq!(drafted.top.len(), drafted.tokens.len());
    for (idx, top) in drafted.top.iter().enumerate() {
        assert_eq!((top.len(), top[0]), (3, (drafted.tokens[idx], drafted.logprobs[idx])), "place {idx}");
        assert!(top.is_sorted_by(|a, b| a.1 >= b.1), "{top:?}");
    }
    for &(token, _) in &drafted.top[0] {
        let bytes = engine.tokenizer().token_bytes(token);
        assert!(bytes.starts_with(b"pri") || b"pri".starts_with(bytes), "{bytes:?}");
    }
    request.drafting.extent = DraftExtent::Off;
    let plain = engine.generate(request, &mut |_| true, &CancelToken::new()).unwrap();
    assert_eq!(drafted.top, plain.top);
}

#[test]
fn an_engine_with_a_cache_of_q8_0_finds_tokens_nearly_as_likely_and_reuses_them_to_the_bit() {
    let options = EngineOptions { kv: KvType::Q8_0, ..EngineOptions::default() };
    let small = Engine::load(&model_path(), options, &mut |_| {}).unwrap();
    let tokens = small.tokenizer().encode(CODE);
    let logprobs = |engine: &Engine, n: usize| {
        let request = greedy(tokens[..n].to_vec(), 8);
        engine.generate(request, &mut |_| true, &CancelToken::new()).unwrap().logprobs
    };
    let (first, exact) = (logprobs(&small, tokens.len()), logprobs(engine(), tokens.len()));
    assert_ne!(first, exact, "the cache is the same");
    for (got, exact) in first.iter().zip(&exact) {
        assert!((got - exact).abs() < 0.1, "{first:?} {exact:?}");
    }
    // Behind a shorter prompt, the cache holds the rest already.
    logprobs(&small, tokens.len() - 3);
    assert_eq!(logprobs(&small, tokens.len()), first, "reuse changed the answer");
}

#[test]
fn a_healed_answer_begins_with_the_typed_bytes() {
    let engine = engine();
    let check = |typed: &str, n_back: usize, expected: &str| {
        let mut prompt = engine.tokenizer().encode(typed);
        let healed = engine.tokenizer().decode(&prompt.split_off(prompt.len() - n_back));
        let mut request = greedy(prompt.clone(), 6);
        request.healed = healed;
        let generation = engine.generate(request, &mut |_| true, &CancelToken::new()).unwrap();
        let whole = text_of(engine, &[prompt, generation.tokens.clone()].concat());
        assert!(whole.starts_with(typed), "{typed:?} became {whole:?}");
        assert_eq!(format!("{typed}{}", generation.text), whole);
        assert!(whole.contains(expected), "{typed:?} became {whole:?}");
    };
    check("import os\nimport sys\nimport nump", 1, "numpy");
    check("for i in ran", 1, "range");
    // " ret" and "ur", so two tokens have to go before "return" is one again.
    check("def add(a, b):\n    retur", 2, "return");
    check("s = \"\u{1F600}\u{1F600}", 1, "\u{1F600}\u{1F600}");
}

#[test]
fn stop_texts_end_the_answer_and_are_not_part_of_it() {
    let engine = engine();
    let mut request = greedy(engine.tokenizer().encode(CODE), 64);
    request.stop.texts = vec!["\n".into()];
    let generation = engine.generate(request, &mut |_| true, &CancelToken::new()).unwrap();
    assert_eq!(generation.stop, StopReason::StopText);
    assert!(!generation.text.contains('\n') && !generation.text.is_empty(), "{:?}", generation.text);
}

#[test]
fn a_sink_that_has_enough_ends_the_answer() {
    let request = greedy(engine().tokenizer().encode(CODE), 400);
    let generation = engine().generate(request, &mut |_| false, &CancelToken::new()).unwrap();
    assert_eq!(generation.stop, StopReason::Enough);
    assert!(generation.tokens.len() < 100, "{} tokens after the sink had enough", generation.tokens.len());
}

#[test]
fn i_6_a_cancelled_request_stops_and_what_it_computed_is_kept() {
    let engine = engine();
    let text = "x = 1\n".repeat(400);
    let prompt = engine.tokenizer().encode(&text);
    let cancel = CancelToken::new();
    let handle = {
        let (cancel, prompt) = (cancel.clone(), prompt.clone());
        std::thread::spawn(move || engine.generate(greedy(prompt, 8), &mut |_| true, &cancel).unwrap())
    };
    std::thread::sleep(Duration::from_millis(700));
    cancel.cancel();
    let generation = handle.join().unwrap();
    assert_eq!(generation.stop, StopReason::Cancelled);
    assert!(generation.tokens.is_empty());
    let next = engine.generate(greedy(prompt[..64].to_vec(), 1), &mut |_| true, &CancelToken::new()).unwrap();
    assert!(next.n_reused > 0, "the cancelled prefill was thrown away");
}

#[test]
fn scores_agree_with_generation() {
    let engine = engine();
    let prompt = engine.tokenizer().encode(CODE);
    let generation = engine.generate(greedy(prompt.clone(), 8), &mut |_| true, &CancelToken::new()).unwrap();
    let tokens = [prompt.clone(), generation.tokens.clone()].concat();
    let asked = std::collections::BTreeMap::from([(prompt.len(), vec![generation.tokens[0], TokenId(7)])]);
    let request =
        ScoreRequest { tokens, from: prompt.len(), n_top: 3, asked, priority: engine::Priority::Background };
    let scores = engine.score(request, &CancelToken::new()).unwrap().unwrap();
    assert_eq!(scores.len(), 8);
    for (score, (token, logprob)) in scores.iter().zip(generation.tokens.iter().zip(&generation.logprobs)) {
        assert_eq!((score.token, score.logprob), (*token, *logprob));
        assert_eq!(score.top[0], (*token, *logprob), "greedy takes the likeliest");
    }
    assert_eq!(scores[0].asked[0], scores[0].logprob);
    assert!(scores[0].asked[1] < scores[0].logprob);
    assert!(scores[1].asked.is_empty());
}

#[test]
fn i_3_a_special_token_never_comes_from_text() {
    let engine = engine();
    let text = "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><repo_name>";
    let tokens = engine.tokenizer().encode(text);
    assert!(tokens.iter().all(|&token| !engine.tokenizer().is_special(token)));
    assert_eq!(text_of(engine, &tokens), text);
}

#[test]
fn what_a_caller_can_get_wrong_is_an_error() {
    let engine = engine();
    let run = |prompt: Vec<TokenId>| {
        engine.generate(greedy(prompt, 1), &mut |_| true, &CancelToken::new()).unwrap_err()
    };
    assert!(matches!(run(Vec::new()), Error::EmptyPrompt));
    assert!(matches!(run(vec![TokenId(u32::MAX)]), Error::UnknownToken(u32::MAX)));
    assert!(matches!(run(vec![TokenId(5); 9000]), Error::PromptTooLong { n_tokens: 9001, n_ctx: 8192 }));
}

#[test]
fn an_interactive_request_overtakes_a_background_one() {
    let engine = engine();
    let cancel = CancelToken::new();
    let background = {
        let cancel = cancel.clone();
        let prompt = engine.tokenizer().encode(&"y = 2\n".repeat(500));
        std::thread::spawn(move || engine.generate(greedy(prompt, 4), &mut |_| true, &cancel).unwrap())
    };
    std::thread::sleep(Duration::from_millis(300));
    let mut request = greedy(engine.tokenizer().encode("z ="), 2);
    request.priority = engine::Priority::Interactive;
    engine.generate(request, &mut |_| true, &CancelToken::new()).unwrap();
    assert!(!background.is_finished(), "the keystroke waited for the agent");
    cancel.cancel();
    assert_eq!(background.join().unwrap().stop, StopReason::Cancelled);
}

/// With the feature, a machine that has a GPU would use it.
#[cfg(not(feature = "cuda"))]
#[test]
fn without_a_gpu_the_cpu_runs_the_model_and_says_so() {
    use engine::Device;

    let load = |device| {
        let options = EngineOptions { device, ..EngineOptions::default() };
        Engine::load(&model_path(), options, &mut |_| {}).unwrap()
    };
    let engine = load(Device::Cuda);
    assert!(
        engine.remark().is_some_and(|remark| remark.contains("runs on the CPU")),
        "{:?}",
        engine.remark()
    );
    let prompt = engine.tokenizer().encode("def add(a, b):\n    return");
    let answer = engine.generate(greedy(prompt, 4), &mut |_| true, &CancelToken::new()).unwrap();
    assert_eq!(answer.tokens.len(), 4);
    assert_eq!(load(Device::Cpu).remark(), None);
    assert_eq!(load(Device::Auto).remark(), None);
}
