//! A draft model for itself, asked on behalf of target models whose steps cost what a test says.

use super::*;
use crate::Gguf;
use crate::gguf::test_file::test_model_path;

const PROMPT: &str = "1, 2, 3, 4, 5, 6, 7, 8,";

/// The parts of an engine that a draft model meets.
struct World {
    model: DraftModel,
    load: Arc<Load>,
    metrics: Metrics,
    tokens: Vec<TokenId>,
    specials: SpecialTokens,
    cancel: CancelToken,
    enough: AtomicBool,
}

impl World {
    fn new(n_kv_tokens: usize) -> Self {
        let gguf = Gguf::open(&test_model_path()).expect("the model is there");
        let spec = ModelSpec::from_gguf(&gguf).expect("it is sound");
        let tokenizer = crate::Tokenizer::from_gguf(&gguf).expect("its tokenizer too");
        let target = CpuBackend::load(&gguf, &spec, None, &mut |_| {}).expect("it loads");
        let load = Arc::new(Load::default());
        let kv = (crate::KvType::F16, n_kv_tokens);
        let path = test_model_path();
        let model = DraftModel::load(&path, Some(&target), &tokenizer, kv, Arc::clone(&load), &mut |_| {});
        let metrics = Metrics::new(&spec, &KvPool::new(&spec, 64, kv.0), 0);
        let (tokens, cancel) = (tokenizer.encode(PROMPT), CancelToken::new());
        let specials = tokenizer.specials().clone();
        let model = model.expect("it drafts for itself");
        Self { model, load, metrics, tokens, specials, cancel, enough: AtomicBool::new(false) }
    }

    /// Asks for a draft of at most 4 tokens, `n_answered` tokens of the sequence being the answer's.
    fn ask(
        &mut self,
        own: &mut ModelDraft,
        costs: &StepCosts,
        n_answered: usize,
        priority: Priority,
    ) -> Vec<TokenId> {
        let ask = Ask {
            tokens: &self.tokens,
            n_answered,
            n_left: 100,
            n_max: 4,
            n_others: 0,
            costs,
            extent: DraftExtent::WhatPays,
            sampling: &Sampling::greedy(),
            specials: &self.specials,
            priority,
            cancel: &self.cancel,
            enough: &self.enough,
            metrics: &self.metrics,
        };
        self.model.propose(own, &ask, &mut |_| true).tokens
    }

    /// Ends an answer that is in the sequence.
    fn keep(&mut self, own: &mut ModelDraft) {
        self.model.keep(own, &self.tokens, false);
    }

    fn n_steps(&self) -> u64 {
        self.metrics.draft_steps.n_steps.get()
    }
}

/// Returns the costs of a target model whose steps take `seconds`, whatever their rows.
fn flat(seconds: f64) -> StepCosts {
    let mut costs = StepCosts::default();
    for n_rows in [1, 1, 16, 16] {
        costs.observe(n_rows, Duration::from_secs_f64(seconds));
    }
    costs
}

#[test]
fn it_is_asked_where_a_step_of_the_large_model_costs_more_and_goes_on_where_it_was() {
    let mut world = World::new(512);
    let mut own = ModelDraft::default();
    let (cheap, dear) = (flat(1e-6), flat(100.0));
    assert!(world.ask(&mut own, &cheap, 50, Priority::Background).is_empty());
    assert_eq!(world.n_steps(), 0, "it costs nothing where it does not pay");

    // Its prompt is many tokens behind, and nobody knows yet whether the answer will be worth that.
    // Sixteen of them are seen at once even on the slowest machine.
    assert!((17..=30).contains(&world.tokens.len()), "{}", world.tokens.len());
    assert!(world.ask(&mut own, &dear, 0, Priority::Background).is_empty());
    assert_eq!(world.n_steps(), 0);
    let draft = world.ask(&mut own, &dear, 1, Priority::Background);
    assert_eq!(draft.len(), 4);
    assert_eq!(world.n_steps(), 1 + 4, "its prompt, and a step for each token");

    // A step that was given up is planned again with the same draft.
    assert_eq!(world.ask(&mut own, &dear, 1, Priority::Background), draft);
    assert_eq!(world.n_steps(), 5);

    // All four were right, and a fifth came: two rows, then one for each token more.
    world.tokens.extend(&draft);
    world.tokens.push(TokenId(28));
    assert_eq!(world.ask(&mut own, &dear, 6, Priority::Background).len(), 4);
    assert_eq!((world.n_steps(), world.metrics.draft_steps.n_rows.get()), (9, world.tokens.len() as u64 + 3));

    // Another answer to the prompt finds it there.
    world.keep(&mut own);
    let mut other = ModelDraft::default();
    world.tokens.truncate(world.tokens.len() - 5);
    assert_eq!(world.ask(&mut other, &dear, 0, Priority::Background), draft);
    assert_eq!(world.n_steps(), 13);
}

#[test]
fn a_draft_of_the_background_ends_when_a_keystroke_comes() {
    let mut world = World::new(512);
    let dear = flat(100.0);
    let mut own = ModelDraft::default();
    world.load.n_arriving.store(1, Ordering::Release);
    assert!(world.ask(&mut own, &dear, 1, Priority::Background).is_empty());
    assert_eq!(world.n_steps(), 0);
    assert!(own.seconds_lost > 0.0, "what it had done for its prompt");
    let of_typing = world.ask(&mut own, &dear, 1, Priority::Interactive);
    assert_eq!(of_typing.len(), 1, "the next keystroke waits for a token at most");
    world.load.n_arriving.store(0, Ordering::Release);
    let unwanted = |world: &mut World| {
        let mut other = ModelDraft::default();
        world.tokens.insert(0, TokenId(0));
        world.ask(&mut other, &dear, 1, Priority::Interactive).is_empty()
    };
    assert!(!unwanted(&mut world));
    world.enough.store(true, Ordering::Release);
    assert!(unwanted(&mut world), "nobody wants more");
    world.enough.store(false, Ordering::Release);
    world.cancel.cancel();
    assert!(unwanted(&mut world), "nobody wants any of it");
}

#[test]
fn what_was_given_up_counts_as_a_cost_of_trying_again() {
    let mut world = World::new(512);
    let dear = flat(100.0);
    let mut own = ModelDraft { seconds_lost: 1e6, ..ModelDraft::default() };
    assert!(world.ask(&mut own, &dear, 1, Priority::Background).is_empty());
    assert_eq!(world.n_steps(), 0);
    own.seconds_lost = 0.0;
    assert_eq!(world.ask(&mut own, &dear, 1, Priority::Background).len(), 4);
    // What it has seen is not lost by what was.
    own.seconds_lost = 1e6;
    world.tokens.push(TokenId(28));
    assert_eq!(world.ask(&mut own, &dear, 1, Priority::Background).len(), 4);
}

#[test]
fn what_it_is_believed_follows_what_came_of_its_drafts() {
    let mut world = World::new(512);
    let mut own = ModelDraft::default();
    let dear = flat(100.0);
    let before = world.model.odds.of_any();
    // It never guesses this one, and as long as one guess in thirty pays it goes on trying.
    let mut n_drafted = 0;
    for n_answered in 1..60 {
        n_drafted += world.ask(&mut own, &dear, n_answered, Priority::Interactive).len();
        world.tokens.push(TokenId(40_000 + n_answered as u32));
    }
    assert!(world.model.odds.of_any() < 0.1 && before > 0.5);
    assert!((20..120).contains(&n_drafted), "{n_drafted}: unsure drafts are short");
}

#[test]
fn the_draft_that_ends_an_answer_counts_too() {
    let mut world = World::new(512);
    let dear = flat(100.0);
    let mut own = ModelDraft::default();
    let before = world.model.odds.of_any();
    let draft = world.ask(&mut own, &dear, 1, Priority::Interactive);
    world.tokens.extend(&draft);
    world.keep(&mut own);
    let all_right = world.model.odds.of_any();
    assert!(all_right > before, "{before} {all_right}");
    world.keep(&mut own);
    assert_eq!(world.model.odds.of_any(), all_right, "it was counted before");

    // An end is right where the model ended the answer, wrong where it went on, and else nobody knows.
    let mut after_end = |is_longer: bool, has_ended: bool| {
        let proposed = vec![(TokenId(0), 0.9)];
        let n_tokens = world.tokens.len() - usize::from(is_longer);
        let mut own = ModelDraft { proposed, n_tokens, proposes_end: true, ..ModelDraft::default() };
        let before = world.model.odds.of_any();
        world.model.keep(&mut own, &world.tokens, has_ended);
        world.model.odds.of_any().total_cmp(&before)
    };
    assert_eq!(after_end(false, false), std::cmp::Ordering::Equal);
    assert_eq!(after_end(false, true), std::cmp::Ordering::Greater);
    assert_eq!(after_end(true, false), std::cmp::Ordering::Less);
}

#[test]
fn it_does_not_draft_past_an_end() {
    let mut world = World::new(512);
    let dear = flat(100.0);
    let draft = world.ask(&mut ModelDraft::default(), &dear, 1, Priority::Interactive);
    let n_before = draft.iter().position(|token| *token == draft[3]).expect("the last is one of them");
    world.specials.end_of_generation = vec![draft[3]];
    let mut own = ModelDraft::default();
    assert_eq!(world.ask(&mut own, &dear, 1, Priority::Interactive), draft[..n_before]);
    assert!(own.proposes_end && own.proposed.len() == n_before + 1);
}

#[test]
fn without_hope_it_is_asked_in_saved_time_only() {
    let mut world = World::new(512);
    let mut own = ModelDraft::default();
    let cheap = flat(1e-6);
    world.model.save_up(Duration::from_secs(10_000));
    assert_eq!(world.model.allowance, MAX_ALLOWANCE, "an answer does not wait for minutes at once");
    // Whatever this machine is, that is some steps.
    (world.model.costs, world.model.pace) = (flat(1e-3), Pace::measured(1000, Duration::from_secs(1)));
    assert!(world.ask(&mut own, &cheap, 50, Priority::Interactive).is_empty());
    assert_eq!(world.n_steps(), 0, "who types does not wait for a probe");
    let probe = world.ask(&mut own, &cheap, 50, Priority::Background);
    assert_eq!((probe.len(), world.n_steps()), (1, 2));
    world.tokens.extend(&probe);
    assert!(world.ask(&mut own, &cheap, 51, Priority::Background).is_empty());
    assert_eq!(world.n_steps(), 2, "what was saved is spent");
}

#[test]
fn a_full_cache_only_means_no_draft() {
    let mut world = World::new(48);
    let dear = flat(100.0);
    let mut own = ModelDraft::default();
    assert_eq!(world.ask(&mut own, &dear, 1, Priority::Background).len(), 4);
    let mut other = ModelDraft { is_probe: true, ..ModelDraft::default() };
    world.tokens.insert(0, TokenId(0));
    assert!(world.ask(&mut other, &dear, 1, Priority::Background).is_empty());
    assert!(!other.is_probe, "it would look for room at every step");
    // The first has its places still. When it leaves, what it had stays for the next answer, and the second does not
    // take it before it has grown.
    world.keep(&mut own);
    assert!(world.ask(&mut other, &dear, 1, Priority::Background).is_empty());
    let mut next = ModelDraft::default();
    assert_eq!(world.ask(&mut next, &dear, 1, Priority::Background).len(), 4);
    world.keep(&mut next);
    assert!(world.model.n_kv_used_bytes() <= world.model.n_kv_bytes());
    world.model.start_again();
    assert_eq!(world.model.n_kv_used_bytes(), 0);
}
