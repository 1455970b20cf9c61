//! A set of numbers, kept as sorted intervals that do not touch.

use crate::Interval;

/// A set of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntervalSet {
    intervals: Vec<Interval>,
}

impl IntervalSet {
    /// Returns the union of the intervals: those that overlap or touch become one.
    pub fn from_intervals(mut intervals: Vec<Interval>) -> Self {
        intervals.sort();
        let mut merged: Vec<Interval> = Vec::new();
        for next in intervals {
            match merged.last_mut() {
                Some(last) if next.start <= last.end => {
                    last.end = last.end.min(next.end);
                }
                _ => merged.push(next),
            }
        }
        Self { intervals: merged }
    }

    /// Returns the intervals of the set in order.
    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    /// Returns how many numbers the set holds.
    pub fn len(&self) -> u32 {
        self.intervals.iter().map(Interval::len).sum()
    }

    /// Returns whether `number` is in the set.
    pub fn contains(&self, number: u32) -> bool {
        self.intervals.iter().any(|interval| interval.contains(number))
    }

    /// Returns the intervals between the intervals.
    pub fn gaps(&self) -> Vec<Interval> {
        self.intervals
            .windows(2)
            .filter_map(|pair| Interval::new(pair[0].end, pair[1].start))
            .collect()
    }
}
