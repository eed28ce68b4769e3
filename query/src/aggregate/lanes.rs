//! Sums of few groups, each in several lanes.
//!
//! A row is added to what the row before it has stored, if both are of the same group, and waits for it longer than all
//! other work on a row takes; and where there are few groups, most rows are of the same few. So each of four rows that
//! follow one another adds to sums of its own, which are added up at the end.

use arrow::buffer::NullBuffer;

const LANES: usize = 4;
/// Lanes of more groups do not stay in the nearest cache.
const GROUPS_MAX: usize = 256;
/// Fewer rows do not pay for adding up.
const ROWS_MIN: usize = 512;

/// What is summed; ints wrap, callers see to it that they need not.
pub(crate) trait Addend: Copy + Default {
    fn plus(self, other: Self) -> Self;
}

impl Addend for i64 {
    #[inline(always)]
    fn plus(self, other: i64) -> i64 {
        self.wrapping_add(other)
    }
}

impl Addend for f64 {
    #[inline(always)]
    fn plus(self, other: f64) -> f64 {
        self + other
    }
}

/// Whether lanes are worth it for so many groups and these rows, which must all be there.
pub(crate) fn pay(group_count: usize, rows: usize, validity: Option<&NullBuffer>) -> bool {
    validity.is_none() && group_count <= GROUPS_MAX && rows >= ROWS_MIN
}

fn add_up<T: Addend>(sums: &mut [T], lanes: &[[T; LANES]]) {
    for (sum, lanes) in sums.iter_mut().zip(lanes) {
        *sum = lanes.iter().fold(*sum, |sum, lane| sum.plus(*lane));
    }
}

/// Adds the term of every row to the sum of its group; for when lanes [`pay`].
#[inline(always)]
pub(crate) fn add<T: Addend>(sums: &mut [T], groups: &[u32], term: impl Fn(usize) -> T) {
    let mut lanes = [[T::default(); LANES]; GROUPS_MAX];
    let lanes = &mut lanes[..sums.len()];
    let (fours, rest) = groups.as_chunks::<LANES>();
    for (index, four) in fours.iter().enumerate() {
        for (lane, group) in four.iter().enumerate() {
            let sum = &mut lanes[*group as usize][lane];
            *sum = sum.plus(term(index * LANES + lane));
        }
    }
    for (lane, group) in rest.iter().enumerate() {
        let sum = &mut lanes[*group as usize][lane];
        *sum = sum.plus(term(fours.len() * LANES + lane));
    }
    add_up(sums, lanes);
}

/// Adds both terms of every row to both sums of its group; for when lanes [`pay`].
#[inline(always)]
pub(crate) fn add_both<A: Addend, B: Addend>(
    (sums, others): (&mut [A], &mut [B]),
    groups: &[u32],
    terms: impl Fn(usize) -> (A, B),
) {
    let mut lanes = [[A::default(); LANES]; GROUPS_MAX];
    let mut other_lanes = [[B::default(); LANES]; GROUPS_MAX];
    let (lanes, other_lanes) = (&mut lanes[..sums.len()], &mut other_lanes[..sums.len()]);
    let mut visit = |row: usize, group: u32, lane: usize| {
        let (term, other) = terms(row);
        let (sum, other_sum) = (&mut lanes[group as usize][lane], &mut other_lanes[group as usize][lane]);
        *sum = sum.plus(term);
        *other_sum = other_sum.plus(other);
    };
    let (fours, rest) = groups.as_chunks::<LANES>();
    for (index, four) in fours.iter().enumerate() {
        for (lane, group) in four.iter().enumerate() {
            visit(index * LANES + lane, *group, lane);
        }
    }
    for (lane, group) in rest.iter().enumerate() {
        visit(fours.len() * LANES + lane, *group, lane);
    }
    add_up(sums, lanes);
    add_up(others, other_lanes);
}

/// Adds both terms of every row to both sums of its group, as one number of 64 bits where what is added fits: the first
/// sums of these rows are at most `bounds.0` in magnitude, the second at most `bounds.1`. For when lanes [`pay`].
#[inline(always)]
pub(crate) fn add_ints(
    sums: (&mut [i64], &mut [i64]),
    bounds: (u64, u64),
    groups: &[u32],
    terms: impl Fn(usize) -> (i64, i64),
) {
    // One bit more for the sign.
    let bits = |bound: u64| u64::BITS - bound.leading_zeros() + 1;
    let shift = bits(bounds.0);
    if shift + bits(bounds.1) > u64::BITS {
        return add_both(sums, groups, terms);
    }
    let mut joined = [0; GROUPS_MAX];
    let joined = &mut joined[..sums.0.len()];
    add(joined, groups, |row| {
        let (first, second) = terms(row);
        first.wrapping_add(second << shift)
    });
    for ((first, second), joined) in sums.0.iter_mut().zip(sums.1).zip(joined) {
        let low = *joined << (u64::BITS - shift) >> (u64::BITS - shift);
        *first = first.wrapping_add(low);
        *second = second.wrapping_add(joined.wrapping_sub(low) >> shift);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_added_once() {
        for (group_count, rows) in [(2_usize, 512_usize), (7, 513), (40, 4_095), (256, 4_096)] {
            let groups: Vec<u32> = (0..rows).map(|row| (row * row % group_count) as u32).collect();
            let term = |row: usize| row as i64 * 3 - 700;
            let mut expected = vec![5_i64; group_count];
            groups.iter().enumerate().for_each(|(row, group)| expected[*group as usize] += term(row));
            let mut sums = vec![5_i64; group_count];
            add(&mut sums, &groups, term);
            assert_eq!(sums, expected, "{rows} rows, {group_count} groups");
            let (mut floats, mut sums) = (vec![5.0_f64; group_count], vec![5_i64; group_count]);
            add_both((&mut floats, &mut sums), &groups, |row| (term(row) as f64, term(row)));
            assert_eq!(sums, expected);
            assert!(floats.iter().zip(&expected).all(|(float, int)| *float == *int as f64));
        }
    }

    #[test]
    fn ints_that_share_64_bits_are_told_apart() {
        let rows = 4_096_usize;
        let groups: Vec<u32> = (0..rows).map(|row| (row * row % 40) as u32).collect();
        // With bounds that just fit, and with some that do not.
        for (first_max, second_max) in
            [(1_i64 << 45, 1_i64 << 3), (1 << 40, 100), (1 << 50, 1 << 12), (3, 1 << 40), (0, 0)]
        {
            let term = |row: usize, max: i64| match row % 3 {
                0 => -max,
                1 => max,
                _ => (row as i64).wrapping_mul(0x9e37_79b9) % (max + 1),
            };
            let terms = |row: usize| (term(row, first_max), term(row * 5 + 1, second_max));
            let (mut firsts, mut seconds) = (vec![7_i64; 40], vec![-9_i64; 40]);
            let (mut expect_firsts, mut expect_seconds) = (firsts.clone(), seconds.clone());
            for (row, group) in groups.iter().enumerate() {
                let (first, second) = terms(row);
                expect_firsts[*group as usize] += first;
                expect_seconds[*group as usize] += second;
            }
            let bounds = (first_max as u64 * rows as u64, second_max as u64 * rows as u64);
            add_ints((&mut firsts, &mut seconds), bounds, &groups, terms);
            assert_eq!((firsts, seconds), (expect_firsts, expect_seconds), "{first_max} {second_max}");
        }
    }
}
