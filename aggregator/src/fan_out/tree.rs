//! Who asks whom: which children a fan-out asks by itself, and which it has asked by other aggregators.
//!
//! Up to the bound of the fan-out an aggregator asks its children itself. Beyond it the children are cut into groups,
//! and each group is given to an aggregator that stands between; a group that is still too large is cut again there.
//! Everything here is about numbers and names, and does no I/O.
//!
//! Invariants: every child is in one group; groups differ by at most one child; a group is smaller than what it was cut
//! from, so levels end; an aggregator that goes down moves no group but its own, because whoever is given a group of
//! others first has to connect to all of it.

use std::ops::Range;

/// More levels than this are not built: 64 to the fourth are more leaves than there are.
pub const LEVELS_MAX: u32 = 4;

/// A child that an aggregator is to ask for another: what its asker knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedChild {
    /// Where it is.
    pub address: String,
    /// The id of its leaf.
    pub leaf: String,
}

/// Into how many groups so many children are cut: as many as must be, and where there are aggregators to help, so many
/// that groups are as large as there are groups, which is when the slowest way is shortest.
pub(super) fn group_count(children: usize, fan_out: usize, aggregators: usize) -> usize {
    let fan_out = fan_out.max(2);
    let least = children.div_ceil(fan_out).min(fan_out);
    let balanced = children.isqrt().min(fan_out);
    balanced.min(aggregators).max(least)
}

/// The groups of so many children, as ranges of their places.
pub(super) fn groups(children: usize, count: usize) -> Vec<Range<usize>> {
    let count = count.clamp(1, children.max(1));
    (0..count).map(|group| group * children / count..(group + 1) * children / count).collect()
}

/// The aggregator that each group is given to, as its place among those that are known; these are up or not. Nobody when
/// none is.
pub(super) fn given(groups: usize, are_up: &[bool]) -> Vec<usize> {
    let up: Vec<usize> = (0..are_up.len()).filter(|place| are_up[*place]).collect();
    if up.is_empty() {
        return Vec::new();
    }
    let given = |group: usize| match group % are_up.len() {
        place if are_up[place] => place,
        _ => up[group % up.len()],
    };
    (0..groups).map(given).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(children: usize, fan_out: usize, aggregators: usize, expect: usize) {
        let count = group_count(children, fan_out, aggregators);
        assert_eq!(count, expect, "{children} children, {fan_out} at once, {aggregators} aggregators");
        let groups = groups(children, count);
        let sizes: Vec<usize> = groups.iter().map(Range::len).collect();
        assert_eq!(sizes.iter().sum::<usize>(), children);
        assert!(groups.windows(2).all(|two| two[0].end == two[1].start));
        let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        assert!(most - least <= 1 && *most < children, "{sizes:?}");
    }

    #[test]
    fn groups_are_as_many_as_help_and_at_least_as_many_as_must_be() {
        check(65, 64, 1, 2);
        check(65, 64, 100, 8);
        check(1000, 64, 3, 16);
        check(1000, 64, 20, 20);
        check(1000, 64, 1000, 31);
        check(4096, 64, 4096, 64);
        // Three levels: groups are too large, and are cut again.
        check(10_000, 64, 4096, 64);
        check(9, 2, 9, 2);
        check(3, 1, 9, 2);
    }

    #[test]
    fn whoever_goes_down_moves_its_own_groups_only() {
        assert_eq!(given(5, &[true; 3]), [0, 1, 2, 0, 1]);
        assert_eq!(given(5, &[true, false, true]), [0, 2, 2, 0, 0]);
        assert_eq!(given(2, &[false, false, true]), [2, 2]);
        assert_eq!((given(3, &[false]), given(3, &[])), (vec![], vec![]));
        for down in 0..8 {
            let are_up: Vec<bool> = (0..8).map(|place| place != down).collect();
            let (before, after) = (given(20, &[true; 8]), given(20, &are_up));
            let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
            assert!(moved.map(|(before, _)| *before).all(|place| place == down));
            assert!(!after.contains(&down));
        }
    }
}
