use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn ranges(intervals: &[(u64, u64)]) -> RowRanges {
    let mut ranges = RowRanges::default();
    for &(from, to) in intervals {
        ranges.insert(from, to);
    }
    ranges
}

fn check(intervals: &[(u64, u64)], expect: &[(u64, u64)]) {
    assert_eq!(ranges(intervals).iter().collect::<Vec<_>>(), expect);
}

#[test]
fn intervals_join_when_they_meet() {
    check(&[], &[]);
    check(&[(3, 3), (9, 2)], &[]);
    check(&[(0, 2), (2, 4)], &[(0, 4)]);
    check(&[(2, 4), (0, 2)], &[(0, 4)]);
    check(&[(0, 2), (3, 4), (2, 3)], &[(0, 4)]);
    check(&[(0, 1), (2, 3), (4, 5), (6, 7), (1, 6)], &[(0, 7)]);
    check(&[(0, 1), (2, 3), (4, 5), (6, 7), (3, 4)], &[(0, 1), (2, 5), (6, 7)]);
    check(&[(4, 5), (0, 9)], &[(0, 9)]);
    check(&[(0, u64::MAX), (5, 6)], &[(0, u64::MAX)]);
}

fn check_missing(from: u64, to: u64, expect: &[(u64, u64)]) {
    assert_eq!(ranges(&[(2, 4), (6, 8)]).missing_in(from, to), expect);
}

#[test]
fn what_is_missing_is_named() {
    check_missing(0, 10, &[(0, 2), (4, 6), (8, 10)]);
    check_missing(2, 8, &[(4, 6)]);
    check_missing(3, 4, &[]);
    check_missing(5, 6, &[(5, 6)]);
    check_missing(9, 10, &[(9, 10)]);
    check_missing(7, 3, &[]);
    assert_eq!(RowRanges::default().missing_in(1, u64::MAX), [(1, u64::MAX)]);
}

fn check_read(text: &str, expect: &str) {
    let error = serde_json::from_str::<RowRanges>(text).unwrap_err().to_string();
    assert!(error.starts_with(expect), "{error}");
}

#[test]
fn what_is_read_is_checked() {
    let read: RowRanges = serde_json::from_str("[[0,2],[3,4]]").unwrap();
    assert_eq!(read, ranges(&[(0, 2), (3, 4)]));
    assert_eq!(serde_json::to_string(&read).unwrap(), "[[0,2],[3,4]]");
    check_read("[[2,2]]", "row range [2, 2) holds no row");
    check_read(
        "[[0,2],[2,4]]",
        "row range [2, 4) does not lie apart from the one before it, which ends at 2",
    );
    check_read(
        "[[5,6],[0,2]]",
        "row range [0, 2) does not lie apart from the one before it, which ends at 6",
    );
    check_read("[[0,-1]]", "invalid value");
    check_read("[[0]]", "invalid length");
}

#[test]
fn an_order_keeps_its_jumps_and_joins_its_neighbours() {
    let mut order = RowOrder::default();
    for (first, count) in [(10, 5), (15, 1), (15, 0), (0, 3), (u64::MAX - 1, 1)] {
        order.push(first, count);
    }
    assert_eq!(order.runs, [(10, 6), (0, 3), (u64::MAX - 1, 1)]);
    assert_eq!(order.len(), 10);
    assert_eq!(order.ranges(), ranges(&[(0, 3), (10, 16), (u64::MAX - 1, u64::MAX)]));
    let (all, none) = order.split_at(11);
    assert_eq!((all, none.is_empty()), (order, true));
}

proptest! {
    #[test]
    fn ranges_are_a_set(
        inserted in proptest::collection::vec((0_u64..120, 0_u64..9), 0..40),
        more in proptest::collection::vec((0_u64..120, 0_u64..9), 0..40),
        asked in (0_u64..130, 0_u64..130),
    ) {
        let numbers = |intervals: &[(u64, u64)]| -> BTreeSet<u64> {
            intervals.iter().flat_map(|(from, count)| *from..from + count).collect()
        };
        let made = |intervals: &[(u64, u64)]| {
            ranges(&intervals.iter().map(|(from, count)| (*from, from + count)).collect::<Vec<_>>())
        };
        let mut set = numbers(&inserted);
        let mut ranges = made(&inserted);
        set.extend(numbers(&more));
        ranges.union(&made(&more));
        prop_assert_eq!(ranges.iter().flat_map(|(from, to)| from..to).collect::<Vec<_>>(),
            set.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(ranges.count(), set.len() as u64);
        prop_assert_eq!(ranges.is_empty(), set.is_empty());
        prop_assert_eq!(ranges.end(), set.last().map_or(0, |last| last + 1));
        for number in 0..140 {
            prop_assert_eq!(ranges.contains(number), set.contains(&number));
        }
        let missing: Vec<u64> = (asked.0..asked.1).filter(|number| !set.contains(number)).collect();
        let told = ranges.missing_in(asked.0, asked.1);
        prop_assert_eq!(told.iter().flat_map(|(from, to)| *from..*to).collect::<Vec<_>>(), missing);
        let text = serde_json::to_string(&ranges).unwrap();
        prop_assert_eq!(serde_json::from_str::<RowRanges>(&text).unwrap(), ranges);
    }

    #[test]
    fn an_order_is_a_list(
        pushed in proptest::collection::vec((0_u64..50, 0_u64..6), 0..30),
        more in proptest::collection::vec((0_u64..50, 0_u64..6), 0..30),
        at in 0_u64..200,
    ) {
        let list = |runs: &[(u64, u64)]| -> Vec<u64> {
            runs.iter().flat_map(|(first, count)| *first..first + count).collect()
        };
        let made = |runs: &[(u64, u64)]| {
            let mut order = RowOrder::default();
            runs.iter().for_each(|(first, count)| order.push(*first, *count));
            order
        };
        let mut order = made(&pushed);
        order.extend(&made(&more));
        let mut numbers = list(&pushed);
        numbers.extend(list(&more));
        prop_assert_eq!(list(&order.runs), numbers.clone());
        prop_assert!(order.runs.windows(2).all(|pair| pair[0].0 + pair[0].1 != pair[1].0));
        prop_assert_eq!(order.len(), numbers.len() as u64);
        let (before, after) = order.split_at(at);
        let cut = numbers.len().min(at as usize);
        prop_assert_eq!(list(&before.runs), numbers[..cut].to_vec());
        prop_assert_eq!(list(&after.runs), numbers[cut..].to_vec());
        let set: BTreeSet<u64> = numbers.into_iter().collect();
        prop_assert_eq!(order.ranges().iter().flat_map(|(from, to)| from..to).collect::<Vec<_>>(),
            set.into_iter().collect::<Vec<_>>());
    }
}
