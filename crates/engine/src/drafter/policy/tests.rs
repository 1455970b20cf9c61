//! The policy on machines whose costs are known.

use super::super::tests::Random;
use super::*;

/// Milliseconds of a step of 1 to 16 rows: SmolLM2-135M Q4_1 on two cores of Sapphire Rapids
/// (`bench/runs/2026-11-26-sapphire-rapids-2c-amx`), with lines between what was measured.
const MEASURED: [f64; 16] =
    [2.88, 3.43, 4.10, 5.14, 5.90, 6.66, 7.48, 8.31, 9.54, 10.77, 12.00, 13.23, 13.89, 14.55, 15.22, 15.88];

fn flat() -> [f64; 16] {
    [10.0; 16]
}

fn linear() -> [f64; 16] {
    std::array::from_fn(|idx| 10.0 * (idx + 1) as f64)
}

fn millis(millis: f64) -> Duration {
    Duration::from_secs_f64(millis / 1e3)
}

/// Returns costs that have seen every size `n_times`.
fn learned(machine: &[f64; 16], n_times: usize) -> StepCosts {
    let mut costs = StepCosts::default();
    for _ in 0..n_times {
        (0..16).for_each(|idx| costs.observe(idx + 1, millis(machine[idx])));
    }
    costs
}

/// What a run took and gave.
#[derive(Debug, Default)]
struct Outcome {
    ms: f64,
    n_tokens: usize,
    n_drafted: usize,
}

impl Outcome {
    /// Returns how much quicker the run was than plain steps of `plain_ms`.
    fn speed_up(&self, plain_ms: f64) -> f64 {
        self.n_tokens as f64 * plain_ms / self.ms
    }
}

/// Runs `n_steps` steps whose drafted tokens are each right with the chance `odds`, on a clock that errs by up to 10 %
/// and, once in 50 steps, fivefold.
fn run(
    costs: &mut StepCosts,
    machine: &[f64; 16],
    odds: f32,
    n_steps: usize,
    random: &mut Random,
) -> Outcome {
    let mut outcome = Outcome::default();
    for _ in 0..n_steps {
        let n_drafted = costs.n_to_draft(&[odds; 12]);
        let is_right = |random: &mut Random| (random.below(1_000_000) as f32) < odds * 1e6;
        let n_kept = (0..n_drafted).take_while(|_| is_right(random)).count();
        let noise = 1.0 + random.below(1000) as f64 / 1e4;
        let seen = if random.below(50) == 0 { 5.0 } else { noise };
        costs.observe(n_drafted + 1, millis(machine[n_drafted] * seen));
        outcome.ms += machine[n_drafted];
        outcome.n_tokens += n_kept + 1;
        outcome.n_drafted += n_drafted;
    }
    outcome
}

#[test]
fn nothing_is_drafted_before_a_plain_step_is_known_and_then_one_likely_token() {
    let mut costs = StepCosts::default();
    assert_eq!(costs.n_to_draft(&[0.99; 8]), 0);
    assert_eq!(costs.expected(1), None);
    (0..2).for_each(|_| costs.observe(1, millis(10.0)));
    assert_eq!(costs.n_to_draft(&[]), 0);
    assert_eq!(costs.n_to_draft(&[0.4; 8]), 0);
    assert_eq!(costs.n_to_draft(&[0.6; 8]), 1);
    assert_eq!(costs.expected(3), Some(millis(30.0)));
    (0..2).for_each(|_| costs.observe(2, millis(20.0)));
    assert_eq!(costs.n_to_draft(&[0.9; 8]), 0, "a row costs a step, and that is known now");
}

#[test]
fn where_a_row_costs_a_step_nothing_is_drafted() {
    let costs = learned(&linear(), 5);
    for odds in [0.0, 0.5, 0.9, 0.999] {
        assert_eq!(costs.n_to_draft(&[odds; 15]), 0, "{odds}");
    }
}

#[test]
fn rows_that_are_free_are_all_drafted_and_no_more() {
    let mut machine = flat();
    assert_eq!(learned(&machine, 5).n_to_draft(&[0.7; 20]), 15);
    (6..16).for_each(|idx| machine[idx] = 10.0 + 5.0 * (idx - 5) as f64);
    let costs = learned(&machine, 5);
    assert_eq!(costs.n_to_draft(&[0.7; 15]), 5);
    assert_eq!(costs.n_to_draft(&[0.7; 3]), 3);
    assert_eq!(costs.n_to_draft(&[0.02; 15]), 0, "a gain that no clock can tell");
}

#[test]
fn the_number_is_the_best_of_all() {
    let mut random = Random(21);
    for round in 0..500 {
        let mut machine = [0.0; 16];
        let mut ms = 5.0;
        for time in &mut machine {
            *time = ms;
            ms += random.below(400) as f64 / 100.0;
        }
        let costs = learned(&machine, 3);
        let odds: Vec<f32> = (0..15).map(|_| 0.3 + random.below(700) as f32 / 1000.0).collect();
        let n_others = random.below(4);
        let rate = |n_drafted: usize| {
            let n_expected: f32 =
                crate::Draft { tokens: Vec::new(), odds: odds[..n_drafted].to_vec() }.n_expected();
            (1.0 + n_others as f64 + f64::from(n_expected)) / machine[n_others + n_drafted]
        };
        let best = (0..=15 - n_others).map(rate).fold(0.0, f64::max);
        let n_drafted = costs.n_to_draft_beside(n_others, &odds);
        let is_best = (rate(n_drafted) / best - 1.0).abs() < 1e-6;
        assert!(
            is_best || (n_drafted == 0 && best < rate(0) * LEAST_GAIN),
            "round {round}: {n_drafted}, {odds:?}"
        );
    }
}

#[test]
fn expected_times_never_fall_and_go_through_what_was_measured() {
    let mut random = Random(22);
    for _ in 0..200 {
        let mut costs = StepCosts::default();
        for _ in 0..random.below(60) {
            costs.observe(random.below(20), millis(1.0 + random.below(3_000) as f64 / 100.0));
        }
        let times: Vec<_> = (1..=16).filter_map(|n_rows| costs.expected(n_rows)).collect();
        assert!(times.is_empty() || times.len() == 16);
        assert!(times.is_sorted(), "{times:?}");
    }
    let mut costs = StepCosts::default();
    for (n_rows, ms) in [(1, 10.0), (5, 14.0), (9, 30.0)] {
        (0..3).for_each(|_| costs.observe(n_rows, millis(ms)));
    }
    for (n_rows, ms) in [(1, 10.0), (3, 12.0), (5, 14.0), (7, 22.0), (9, 30.0), (11, 35.0), (16, 47.5)] {
        let expected = costs.expected(n_rows).expect("something is known").as_secs_f64() * 1e3;
        assert!((expected - ms).abs() < 1e-6, "{n_rows} rows: {expected} ms, not {ms}");
    }
}

#[test]
fn one_slow_step_says_little_and_many_say_all() {
    let mut costs = learned(&MEASURED, 10);
    let before = costs.expected(4).expect("known");
    costs.observe(4, before * 50);
    let after = costs.expected(4).expect("known");
    assert!(after > before && after < before.mul_f64(1.07), "{before:?} became {after:?}");
    // Nor does the first of its size.
    let mut cold = StepCosts::default();
    [50.0, 10.0].iter().for_each(|&ms| cold.observe(1, millis(ms)));
    assert_eq!(cold.expected(1), Some(millis(10.0)));
    // Twice as slow from now on, which is seen of steps of one row only: the others move half as far, and are forgotten
    // in the end.
    let plain = |costs: &StepCosts| costs.expected(1).expect("known").as_secs_f64() * 1e3 / MEASURED[0];
    (0..40).for_each(|_| costs.observe(1, millis(2.0 * MEASURED[0])));
    assert!((1.5..2.0).contains(&plain(&costs)), "{}", plain(&costs));
    assert!(costs.expected(4).expect("known") > before.mul_f64(1.3));
    (0..300).for_each(|_| costs.observe(1, millis(2.0 * MEASURED[0])));
    assert!((1.95..2.05).contains(&plain(&costs)), "{}", plain(&costs));
}

#[test]
fn sizes_seen_by_turns_find_their_own_times() {
    let mut costs = learned(&flat(), 5);
    for _ in 0..150 {
        costs.observe(1, millis(MEASURED[0]));
        costs.observe(5, millis(MEASURED[4]));
    }
    for n_rows in [1, 5] {
        let found = costs.expected(n_rows).expect("known").as_secs_f64() * 1e3;
        assert!((found / MEASURED[n_rows - 1] - 1.0).abs() < 0.05, "{n_rows} rows: {found} ms");
    }
}

#[test]
fn drafting_never_costs_more_than_a_hundredth() {
    let mut random = Random(23);
    for (name, machine) in [("linear", linear()), ("measured", MEASURED), ("flat", flat())] {
        for odds in [0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9] {
            let outcome = run(&mut StepCosts::default(), &machine, odds, 4_000, &mut random);
            let speed_up = outcome.speed_up(machine[0]);
            assert!(speed_up > 0.99, "{name}, {odds}: {speed_up}");
        }
    }
}

#[test]
fn good_drafts_pay_on_a_machine_that_was_measured() {
    let mut random = Random(24);
    for (machine, odds, least) in
        [(MEASURED, 0.97, 2.2), (MEASURED, 0.8, 1.55), (flat(), 0.9, 6.0), (flat(), 0.5, 1.85)]
    {
        let outcome = run(&mut StepCosts::default(), &machine, odds, 3_000, &mut random);
        let speed_up = outcome.speed_up(machine[0]);
        assert!(speed_up > least, "{odds}: {speed_up}");
    }
}

#[test]
fn a_machine_that_changes_is_found_out() {
    let mut random = Random(25);
    let mut costs = StepCosts::default();
    run(&mut costs, &flat(), 0.9, 1_000, &mut random);
    // Now a row costs a step; then none again.
    run(&mut costs, &linear(), 0.9, 600, &mut random);
    let linear_run = run(&mut costs, &linear(), 0.9, 1_000, &mut random);
    assert!(linear_run.speed_up(10.0) > 0.99, "{linear_run:?}");
    run(&mut costs, &flat(), 0.9, 600, &mut random);
    let flat_run = run(&mut costs, &flat(), 0.9, 1_000, &mut random);
    assert!(flat_run.speed_up(10.0) > 6.0, "{flat_run:?}");
}

#[test]
fn a_plain_step_is_made_now_and_then_and_equal_observations_give_equal_answers() {
    let mut costs = learned(&flat(), 5);
    let mut n_plain = 0;
    for _ in 0..1_280 {
        let n_drafted = costs.n_to_draft(&[0.9; 7]);
        assert_eq!(costs.clone().n_to_draft(&[0.9; 7]), n_drafted);
        n_plain += usize::from(n_drafted == 0);
        costs.observe(n_drafted + 1, millis(10.0));
    }
    assert!((8..=12).contains(&n_plain), "{n_plain}");
}

#[test]
fn a_draft_that_takes_time_is_worth_less_and_none_where_it_takes_a_step() {
    let costs = learned(&flat(), 3);
    let odds = [0.9; 8];
    let worth = |milliseconds: f64| costs.worth_beside(0, &odds, |n| n as f64 * milliseconds / 1e3);
    let free = worth(0.0).expect("it costs nothing");
    assert_eq!(free.n_drafted, costs.n_to_draft(&odds));
    let mut last = free;
    for milliseconds in [0.5, 1.0, 2.0, 4.0] {
        let worth = worth(milliseconds).expect("it pays");
        assert!(worth.n_drafted <= last.n_drafted && worth.seconds_saved < last.seconds_saved, "{worth:?}");
        last = worth;
    }
    // Each costs as much as the token that it saves.
    assert_eq!(worth(10.0), None);
    // One token for 4 ms: 1.9 in 14 ms and not in 19, so 2.6 ms less for each.
    let one = costs.worth_beside(0, &odds[..1], |_| 0.004).expect("it pays");
    assert!(one.n_drafted == 1 && (one.seconds_saved - 0.005 / 1.9).abs() < 1e-6, "{one:?}");
    // Beside rows of others, which get no token more by it.
    assert_eq!(costs.worth_beside(7, &odds[..1], |_| 0.004), None);
}

#[test]
fn a_draft_that_takes_time_is_tried_with_one_token_where_a_second_row_is_unknown() {
    let mut costs = StepCosts::default();
    assert_eq!(costs.worth_beside(0, &[0.9; 4], |_| 0.0), None, "not even a plain step is known");
    (0..3).for_each(|_| costs.observe(1, millis(10.0)));
    let worth = |milliseconds: f64| costs.worth_beside(0, &[0.9; 4], |n| n as f64 * milliseconds / 1e3);
    assert_eq!(worth(1.0).map(|worth| worth.n_drafted), Some(1));
    assert_eq!(worth(10.0), None);
}
