use intervals::{Interval, IntervalSet};

fn interval(start: u32, end: u32) -> Interval {
    Interval::new(start, end).expect("not empty")
}

fn set(pairs: &[(u32, u32)]) -> IntervalSet {
    IntervalSet::from_intervals(pairs.iter().map(|&(start, end)| interval(start, end)).collect())
}

#[test]
fn an_interval_excludes_its_end() {
    assert!(interval(2, 4).contains(2));
    assert!(!interval(2, 4).contains(4));
}

#[test]
fn an_empty_interval_is_none() {
    assert_eq!(Interval::new(3, 3), None);
}

#[test]
fn intervals_that_do_not_overlap_share_nothing() {
    assert_eq!(interval(0, 2).intersection(&interval(2, 4)), None);
    assert_eq!(interval(0, 3).intersection(&interval(2, 4)), Some(interval(2, 3)));
}

#[test]
fn separate_intervals_stay_separate() {
    assert_eq!(set(&[(5, 7), (0, 2)]).intervals(), [interval(0, 2), interval(5, 7)]);
}

#[test]
fn overlapping_intervals_become_one() {
    assert_eq!(set(&[(0, 4), (2, 6)]).intervals(), [interval(0, 6)]);
}

#[test]
fn an_interval_inside_another_adds_nothing() {
    assert_eq!(set(&[(0, 10), (2, 4)]).len(), 10);
}

#[test]
fn gaps_lie_between_the_intervals() {
    assert_eq!(set(&[(0, 2), (5, 7), (9, 10)]).gaps(), [interval(2, 5), interval(7, 9)]);
}
