//! One half-open interval.

/// The numbers from `start` up to, and without, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval {
    pub start: u32,
    pub end: u32,
}

impl Interval {
    /// Returns the interval from `start` to `end`, or `None` if it would be empty.
    pub fn new(start: u32, end: u32) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// Returns how many numbers the interval holds.
    pub fn len(&self) -> u32 {
        self.end - self.start
    }

    /// Returns whether `number` lies in the interval.
    pub fn contains(&self, number: u32) -> bool {
        self.start <= number && number < self.end
    }

    /// Returns what two intervals share, or `None` if they do not overlap.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }
}
