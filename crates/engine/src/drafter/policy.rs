//! How much of a draft is worth a step's time.
//!
//! In: how long steps of so many rows took; the odds of a draft's tokens. Out: how many of them to verify.
//! Never: reads a clock or draws a random number: equal observations give equal answers.

#[cfg(test)]
mod tests;

use std::time::Duration;

/// Most rows of a step whose time is kept: more than a draft on a CPU pays for.
const N_MAX_ROWS: usize = 16;

/// Times a step of some size must be seen before its time is believed: the first one may have met a cold cache.
const N_FIRST: u32 = 2;

/// Steps after which a size that was not seen again is forgotten, so that it is measured anew. For a plain step, by
/// which drafts are judged, that means two without a draft.
const N_REMEMBERED: u64 = 256;

/// Odds of the token that is drafted to learn what a second row costs.
const PROBE_ODDS: f32 = 0.5;

/// How much quicker than a plain step a draft must promise to be: it pays for the drafters' own time, and for gains
/// that are nothing but noise of the clock.
const LEAST_GAIN: f64 = 1.03;

/// What part of a deviation is believed at once: upwards, where clocks err, and downwards, where they do not.
const GAINS: [f64; 2] = [0.25, 0.5];

/// The largest deviation upwards that is believed, in nepers: a step interrupted for long counts as one 28 % slower.
const MAX_DEVIATION: f64 = 0.25;

/// What a draft is expected to save.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Worth {
    /// Its tokens.
    pub(crate) n_drafted: usize,
    /// Seconds less for each token of its answer.
    pub(crate) seconds_saved: f64,
}

/// How long a step of 1 to 16 rows takes on this machine with this model, T(m), as measured while it runs.
///
/// Each time moves by a part of what an observation deviates: downwards by half of it, upwards by a quarter and by 6 %
/// at most, so that one step in which another program had the cores says little. The other times move along, because
/// what slows down a step of one size, a longer sequence or a busy machine, slows down the others too; but only half as
/// far, so that sizes seen by turns find their own times.
///
/// What was not measured lies on a line between what was. Beyond that a row costs what the measured rows cost on
/// average, which is too little on most machines, but then such a step is made and measured. Before anything but a
/// plain step is known, a row is taken to cost a whole step, so that no draft would pay and none would be measured:
/// therefore one token that is more likely right than not is drafted all the same, twice in 256 steps. Where a row
/// really costs a step, that is time lost only when the token is wrong, less than 1 % in all.
///
/// Steps shared with other sequences count by all their rows.
#[derive(Clone, Debug, Default)]
pub struct StepCosts {
    /// By the number of rows less one.
    times: [StepTime; N_MAX_ROWS],
    /// Steps observed.
    n_steps: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct StepTime {
    seconds: f64,
    n_seen: u32,
    /// The value of `n_steps` when it was seen last.
    last_seen: u64,
}

impl StepCosts {
    /// Most tokens of a draft that are worth proposing: a step of more rows is not measured.
    pub const N_MAX_DRAFT: usize = N_MAX_ROWS - 1;

    /// Learns that a step of `n_rows` rows took `elapsed`. Steps of none or of more than 16 rows say nothing here.
    pub fn observe(&mut self, n_rows: usize, elapsed: Duration) {
        if n_rows == 0 || n_rows > N_MAX_ROWS {
            return;
        }
        self.n_steps += 1;
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let time = &mut self.times[n_rows - 1];
        time.last_seen = self.n_steps;
        time.n_seen = time.n_seen.saturating_add(1);
        if time.n_seen <= N_FIRST {
            time.seconds = if time.n_seen == 1 { seconds } else { time.seconds.min(seconds) };
        } else {
            let deviation = (seconds / time.seconds).ln();
            self.shift(n_rows, deviation.min(MAX_DEVIATION));
        }
        for time in &mut self.times {
            if self.n_steps - time.last_seen > N_REMEMBERED {
                time.n_seen = 0;
            }
        }
    }

    /// Returns how long a step of `n_rows` rows is expected to take, or `None` before any size is known.
    ///
    /// Of more rows it is never less.
    pub fn expected(&self, n_rows: usize) -> Option<Duration> {
        let table = self.table()?;
        Some(Duration::from_secs_f64(table[n_rows.clamp(1, N_MAX_ROWS) - 1]))
    }

    /// Returns how many tokens of a draft to verify in a step of their own; `odds[i]` is the chance that token `i` is
    /// right, given that those before it are.
    pub fn n_to_draft(&self, odds: &[f32]) -> usize {
        self.n_to_draft_beside(0, odds)
    }

    /// Returns how many tokens of a draft to verify in a step that carries `n_others` rows of other sequences anyway,
    /// each of which yields a token.
    ///
    /// The number is the one with which the step yields most tokens a second; 0 if that is hardly more than without
    /// a draft.
    pub fn n_to_draft_beside(&self, n_others: usize, odds: &[f32]) -> usize {
        let Some(table) = self.table_beside(n_others) else { return 0 };
        match best(&table, n_others, odds, |_| 0.0) {
            Some(worth) => worth.n_drafted,
            None => {
                let is_probed = odds.first().is_some_and(|&odds| odds >= PROBE_ODDS);
                usize::from(is_probed && !self.knows_more_than(n_others + 1))
            }
        }
    }

    /// Returns what the best draft is worth of those that take time to make: `seconds_to_draft(n)` for `n` tokens, whose
    /// odds are `odds[..n]`. `None` if none pays.
    ///
    /// Where nobody knows yet what a second row costs it is taken to cost nothing, and one token is drafted: such a draft
    /// pays by far where one pays at all.
    pub(crate) fn worth_beside(
        &self,
        n_others: usize,
        odds: &[f32],
        seconds_to_draft: impl Fn(usize) -> f64,
    ) -> Option<Worth> {
        let mut table = self.table_beside(n_others)?;
        let n_plain = n_others + 1;
        if self.knows_more_than(n_plain) {
            return best(&table, n_others, odds, seconds_to_draft);
        }
        let plain = table[n_plain - 1];
        table[n_plain..].fill(plain);
        best(&table, n_others, &odds[..odds.len().min(1)], seconds_to_draft)
    }

    /// Returns how much longer a step beside `n_others` rows takes with `n_drafted` rows more than its plain one, in plain
    /// steps; `None` where nobody knows yet what a further row costs.
    pub(crate) fn extra(&self, n_others: usize, n_drafted: usize) -> Option<f64> {
        let n_plain = n_others + 1;
        let table = self.table_beside(n_others).filter(|_| self.knows_more_than(n_plain))?;
        Some(table[(n_others + n_drafted).min(N_MAX_ROWS - 1)] / table[n_plain - 1] - 1.0)
    }

    /// Returns the seconds of steps if that of a row beside `n_others` is known and another row can be measured.
    fn table_beside(&self, n_others: usize) -> Option<[f64; N_MAX_ROWS]> {
        let is_known = n_others + 1 < N_MAX_ROWS && self.times[n_others].is_known();
        self.table().filter(|_| is_known)
    }

    /// Returns whether the time of some step of more than `n_rows` rows is known.
    fn knows_more_than(&self, n_rows: usize) -> bool {
        self.times[n_rows..].iter().any(|time| time.is_known())
    }

    /// Moves the time of `n_rows` rows by a part of `deviation`, in nepers, and the others along.
    fn shift(&mut self, n_rows: usize, deviation: f64) {
        let shift = deviation * GAINS[usize::from(deviation < 0.0)];
        for (idx, time) in self.times.iter_mut().enumerate() {
            let share = if idx + 1 == n_rows { 1.0 } else { 0.5 };
            time.seconds *= (share * shift).exp();
        }
    }

    /// Returns the seconds of a step by its rows less one, never falling; `None` before anything is known.
    fn table(&self) -> Option<[f64; N_MAX_ROWS]> {
        let mut table = [0.0; N_MAX_ROWS];
        let known: Vec<usize> = (0..N_MAX_ROWS).filter(|&idx| self.times[idx].is_known()).collect();
        let (&first, &last) = (known.first()?, known.last()?);
        // What more rows took is more than enough for fewer: clocks err upwards.
        let mut least = f64::INFINITY;
        for &idx in known.iter().rev() {
            least = least.min(self.times[idx].seconds);
            table[idx] = least;
        }
        let fewest = table[first];
        table[..first].fill(fewest);
        for pair in known.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let slope = (table[to] - table[from]) / (to - from) as f64;
            (from + 1..to).for_each(|idx| table[idx] = table[from] + slope * (idx - from) as f64);
        }
        let slope = match last - first {
            0 => table[last] / (last + 1) as f64,
            n_rows => (table[last] - table[first]) / n_rows as f64,
        };
        (last + 1..N_MAX_ROWS).for_each(|idx| table[idx] = table[last] + slope * (idx - last) as f64);
        Some(table)
    }
}

/// Returns the draft with which a step yields most tokens a second, if that is more than hardly more than without.
fn best(
    table: &[f64; N_MAX_ROWS],
    n_others: usize,
    odds: &[f32],
    seconds_to_draft: impl Fn(usize) -> f64,
) -> Option<Worth> {
    let n_plain = n_others + 1;
    let plain_rate = n_plain as f64 / table[n_plain - 1];
    let (mut best, mut best_rate) = (None, plain_rate * LEAST_GAIN);
    let (mut n_tokens, mut all_right) = (n_plain as f64, 1.0);
    for (idx, &odds) in odds.iter().take(N_MAX_ROWS - n_plain).enumerate() {
        all_right *= f64::from(odds);
        n_tokens += all_right;
        let seconds = table[n_plain + idx] + seconds_to_draft(idx + 1);
        let rate = n_tokens / seconds;
        if rate > best_rate {
            let n_expected = n_tokens - n_others as f64;
            best = Some(Worth {
                n_drafted: idx + 1,
                seconds_saved: (n_tokens / plain_rate - seconds) / n_expected,
            });
            best_rate = rate;
        }
    }
    best
}

impl StepTime {
    fn is_known(self) -> bool {
        self.n_seen >= N_FIRST
    }
}
