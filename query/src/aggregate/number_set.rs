//! A set of small numbers, of which there are many: a list, or a bit for each number where that takes no more room.
//!
//! A list has what is in order first and once, and then what came since; it is put in order when it is full. Numbers that
//! come in order, as those of texts that nobody had before do, are in order at once.

use std::borrow::Cow;

/// As many as this are looked through one after the other.
const FEW: usize = 16;
/// Bits for each number of the set take no more room than a list that has room for as many again.
const BITS_A_NUMBER: usize = 64;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) enum NumberSet {
    List { numbers: Vec<u32>, in_order: usize },
    Bits { words: Vec<u64>, len: usize },
}

impl Default for NumberSet {
    fn default() -> NumberSet {
        NumberSet::List { numbers: Vec::new(), in_order: 0 }
    }
}

impl NumberSet {
    /// All numbers below this one.
    pub(crate) fn all(count: u32) -> NumberSet {
        let count = count as usize;
        let mut words = vec![u64::MAX; count / 64];
        if !count.is_multiple_of(64) {
            words.push((1 << (count % 64)) - 1);
        }
        NumberSet::Bits { words, len: count }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            NumberSet::List { numbers, .. } => numbers.is_empty(),
            NumberSet::Bits { len, .. } => *len == 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            NumberSet::List { numbers, in_order } => once(numbers, *in_order).len(),
            NumberSet::Bits { len, .. } => *len,
        }
    }

    /// How many it has, or a bit more.
    pub(crate) fn len_at_most(&self) -> usize {
        match self {
            NumberSet::List { numbers, .. } => numbers.len(),
            NumberSet::Bits { len, .. } => *len,
        }
    }

    #[inline]
    pub(crate) fn insert(&mut self, number: u32) {
        match self {
            NumberSet::Bits { words, len } if (number as usize) < words.len() * 64 => {
                let (word, bit) = (&mut words[number as usize / 64], 1 << (number % 64));
                *len += usize::from(*word & bit == 0);
                *word |= bit;
            }
            NumberSet::List { numbers, in_order } if numbers.len() < numbers.capacity() => {
                if numbers.last().is_none_or(|last| *last < number) {
                    *in_order += usize::from(*in_order == numbers.len());
                    numbers.push(number);
                } else if numbers.len() > FEW || !numbers.contains(&number) {
                    numbers.push(number);
                }
            }
            _ => self.insert_grown(number),
        }
    }

    fn insert_grown(&mut self, number: u32) {
        match self {
            NumberSet::List { numbers, in_order } => {
                let mut all = once(numbers, *in_order).into_owned();
                let count = all.last().map_or(0, |last| *last as usize + 1);
                if all.len() > FEW && count <= all.len() * BITS_A_NUMBER {
                    *self = NumberSet::bits(&all, count);
                } else {
                    // Less than half of it was new: there is room for as many again.
                    all.reserve(all.len().max(4));
                    *self = NumberSet::List { in_order: all.len(), numbers: all };
                }
            }
            NumberSet::Bits { words, len } => {
                if number as usize >= (*len + 1) * BITS_A_NUMBER * 2 {
                    let mut numbers = Vec::with_capacity(*len * 2 + 1);
                    self.for_each(&mut |number| numbers.push(number));
                    *self = NumberSet::List { in_order: numbers.len(), numbers };
                } else {
                    words.resize((number as usize / 64 + 1).max(words.len() * 5 / 4), 0);
                }
            }
        }
        self.insert(number);
    }

    /// A set of numbers that are distinct, below `count`.
    fn bits(numbers: &[u32], count: usize) -> NumberSet {
        let mut words = vec![0; count.div_ceil(64)];
        for number in numbers {
            words[*number as usize / 64] |= 1_u64 << (number % 64);
        }
        NumberSet::Bits { words, len: numbers.len() }
    }

    /// Calls `visit` with every number.
    pub(crate) fn for_each(&self, visit: &mut impl FnMut(u32)) {
        match self {
            NumberSet::List { numbers, in_order } => once(numbers, *in_order).iter().copied().for_each(visit),
            NumberSet::Bits { words, .. } => {
                for (index, word) in words.iter().enumerate() {
                    let mut left = *word;
                    while left != 0 {
                        visit(index as u32 * 64 + left.trailing_zeros());
                        left &= left - 1;
                    }
                }
            }
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let held = match self {
            NumberSet::List { numbers, .. } => numbers.capacity() * 4,
            NumberSet::Bits { words, .. } => words.capacity() * 8,
        };
        size_of::<NumberSet>() + held
    }
}

/// Each number of a list once, in order; so many at its beginning are.
fn once(numbers: &[u32], in_order: usize) -> Cow<'_, [u32]> {
    if in_order == numbers.len() {
        return Cow::Borrowed(numbers);
    }
    let mut all = numbers.to_vec();
    // A stable sort puts together what is in order already.
    all.sort();
    all.dedup();
    Cow::Owned(all)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_set_has_each_number_once_in_every_form() {
        // Dense, sparse, a few, dense after sparse, and one far behind the others.
        let dense = || (0..3_000).map(|n| n * 7 % 2_999);
        let sparse = || (0..2_000).map(|n| n * 104_729 % 100_000_000);
        let lists: [Vec<u32>; 7] = [
            vec![],
            vec![5, 5, 5],
            (0..17).rev().collect(),
            dense().collect(),
            sparse().collect(),
            sparse().chain(dense()).chain(0..40_000).collect(),
            dense().chain([90_000_000, 12, u32::MAX - 1]).chain(0..9_000).collect(),
        ];
        for list in lists {
            let (mut set, mut expect) = (NumberSet::default(), BTreeSet::new());
            for (index, number) in list.iter().enumerate() {
                set.insert(*number);
                expect.insert(*number);
                assert_eq!(set.len(), expect.len(), "after {index}: {number}");
            }
            let mut found = Vec::new();
            set.for_each(&mut |number| found.push(number));
            found.sort_unstable();
            assert!(found.iter().eq(&expect), "{} numbers", expect.len());
            assert!(set.memory_bytes() <= 256 + expect.len() * 64, "{} bytes", set.memory_bytes());
        }
    }

    #[test]
    fn all_numbers_below_one() {
        for count in [0, 1, 63, 64, 65, 1_000] {
            let mut set = NumberSet::all(count);
            assert_eq!(set.len(), count as usize);
            let mut found = Vec::new();
            set.for_each(&mut |number| found.push(number));
            assert!(found.into_iter().eq(0..count));
            set.insert(count);
            set.insert(count / 2);
            assert_eq!(set.len(), count as usize + 1);
        }
    }
}
