//! Which ints a list has: a bit for each from the first to the last where they are near each other, otherwise where in
//! the list those of each stretch begin. Made once for a scan; rows are told from it without decoding.

use std::sync::Arc;

/// So many bits for each int of the list, or fewer.
const BITS_AN_INT: u64 = 512;

/// Ints, at least one. See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Members(Arc<List>);

#[derive(Debug, PartialEq, Eq)]
struct List {
    /// In order, each once.
    values: Vec<i64>,
    places: Places,
}

/// Where the ints of a list are, by their distance from the first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Places {
    Bits(Vec<u64>),
    /// Of each stretch of 2^`shift` ints the place of its first one; one more at the end.
    Starts {
        shift: u32,
        starts: Vec<u32>,
    },
}

impl Members {
    /// The ints of a list in any order; none when it is empty or longer than 32 bits can say.
    pub(super) fn new(mut values: Vec<i64>) -> Option<Members> {
        values.sort_unstable();
        values.dedup();
        u32::try_from(values.len()).ok()?;
        let (first, last) = (*values.first()?, *values.last()?);
        let distance = |value: i64| value.wrapping_sub(first) as u64;
        let (span, count) = (distance(last), values.len() as u64);
        let places = if span / BITS_AN_INT <= count {
            let mut words = vec![0; (span / 64) as usize + 1];
            for value in &values {
                words[(distance(*value) / 64) as usize] |= 1 << (distance(*value) % 64);
            }
            Places::Bits(words)
        } else {
            let mut shift = 0;
            while span >> shift > count * 2 {
                shift += 1;
            }
            let starts = (0..=span >> shift)
                .map(|stretch| values.partition_point(|value| distance(*value) >> shift < stretch) as u32);
            Places::Starts { shift, starts: starts.chain([count as u32]).collect() }
        };
        Some(Members(Arc::new(List { values, places })))
    }

    /// All of them, in order.
    pub(super) fn values(&self) -> &[i64] {
        &self.0.values
    }

    /// Where they are, for [`Members::has_bit`] or [`Members::is_in_stretch`].
    pub(super) fn places(&self) -> &Places {
        &self.0.places
    }

    /// Whether an int is one of them.
    pub(super) fn has(&self, value: i64) -> bool {
        match self.places() {
            Places::Bits(words) => self.has_bit(words, value),
            Places::Starts { shift, starts } => self.is_in_stretch(*shift, starts, value),
        }
    }

    /// As [`Members::has`], of bits.
    #[inline(always)]
    pub(super) fn has_bit(&self, words: &[u64], value: i64) -> bool {
        let distance = value.wrapping_sub(self.0.values[0]) as u64;
        words.get((distance / 64) as usize).is_some_and(|word| word >> (distance % 64) & 1 == 1)
    }

    /// As [`Members::has`], of starts.
    #[inline(always)]
    pub(super) fn is_in_stretch(&self, shift: u32, starts: &[u32], value: i64) -> bool {
        let distance = value.wrapping_sub(self.0.values[0]) as u64;
        let stretch = (distance >> shift) as usize;
        let (Some(start), Some(end)) = (starts.get(stretch), starts.get(stretch + 1)) else { return false };
        let near = &self.0.values[*start as usize..*end as usize];
        match near.len() {
            0 => false,
            1..=8 => near.contains(&value),
            _ => near.binary_search(&value).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_its_ints_and_no_others() {
        assert_eq!(Members::new(vec![]), None);
        let spread =
            |count: i64, step: i64| (0..count).map(move |n| n.wrapping_mul(step)).collect::<Vec<_>>();
        let lists = [
            vec![5],
            vec![5, 5, 4],
            vec![i64::MIN, i64::MAX],
            vec![i64::MIN, -1, 0, 1, i64::MAX],
            spread(1_000, 3),
            spread(1_000, 100_003),
            spread(5_000, 0x1234_5678_9abc_def1),
            // Many near each other, one far away.
            spread(1_000, 7).into_iter().chain([i64::MAX - 3]).collect(),
        ];
        for list in lists {
            let members = Members::new(list.clone()).unwrap();
            assert!(members.values().is_sorted_by(|a, b| a < b));
            let near = list.iter().flat_map(|value| (-70..70).map(move |by| value.wrapping_add(by)));
            for value in near.chain([i64::MIN, i64::MAX, 0]) {
                assert_eq!(members.has(value), list.contains(&value), "{value} of {} ints", list.len());
            }
        }
    }
}
