//! Half-open intervals of numbers, and sets of them.

mod interval;
mod set;

pub use interval::Interval;
pub use set::IntervalSet;
