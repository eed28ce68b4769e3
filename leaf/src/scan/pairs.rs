//! Numbers for pairs of numbers, in order of first appearance.
//!
//! While all pairs that there could be are few, their numbers are in a table with a line for each first number; then they
//! are found by hash. Going over from one to the other changes no number.

use super::coder::Numbers;

/// Tables of at most this many entries, which caches hold.
const TABLE_MAX: usize = 1 << 19;

const UNSEEN: u32 = u32::MAX;

/// See the module.
#[derive(Debug)]
pub(super) enum Pairs {
    /// Lines of `width` entries, a power of two.
    Table { width: usize, numbers: Vec<u32>, count: u32 },
    /// By both as one number.
    Hashed(Numbers),
}

impl Default for Pairs {
    fn default() -> Pairs {
        Pairs::Table { width: 1, numbers: Vec::new(), count: 0 }
    }
}

fn joined(first: u32, second: u32) -> u64 {
    u64::from(first) << 32 | u64::from(second)
}

impl Pairs {
    /// Replaces each first number by that of the pair it is in.
    pub(super) fn number(&mut self, firsts: &mut [u32], seconds: &[u32]) {
        let bound = |numbers: &[u32]| numbers.iter().max().map_or(0, |max| *max as usize + 1);
        self.widen(bound(firsts), bound(seconds));
        match self {
            Pairs::Table { width, numbers, count } => {
                for (first, second) in firsts.iter_mut().zip(seconds) {
                    let entry = &mut numbers[*first as usize * *width + *second as usize];
                    if *entry == UNSEEN {
                        *entry = *count;
                        *count += 1;
                    }
                    *first = *entry;
                }
            }
            Pairs::Hashed(numbers) => {
                for (first, second) in firsts.iter_mut().zip(seconds) {
                    *first = numbers.number(joined(*first, *second));
                }
            }
        }
    }

    /// Makes room for so many first and second numbers.
    fn widen(&mut self, firsts: usize, seconds: usize) {
        let Pairs::Table { width, numbers, count } = self else { return };
        let lines = firsts.max(numbers.len() / *width);
        let wider = seconds.next_power_of_two().max(*width);
        if lines.saturating_mul(wider) > TABLE_MAX {
            let mut pairs = vec![0; *count as usize];
            for (at, number) in numbers.iter().enumerate().filter(|(_, number)| **number != UNSEEN) {
                pairs[*number as usize] = joined((at / *width) as u32, (at % *width) as u32);
            }
            let mut hashed = Numbers::default();
            pairs.into_iter().for_each(|pair| {
                hashed.number(pair);
            });
            *self = Pairs::Hashed(hashed);
            return;
        }
        if wider > *width {
            let mut moved = vec![UNSEEN; lines * wider];
            for (line, old) in moved.chunks_exact_mut(wider).zip(numbers.chunks_exact(*width)) {
                line[..*width].copy_from_slice(old);
            }
            (*width, *numbers) = (wider, moved);
        }
        numbers.resize(lines * wider, UNSEEN);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Pairs::Table { numbers, .. } => numbers.len() * 4,
            Pairs::Hashed(numbers) => numbers.values.len() * 24,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_numbered_as_they_come_however_many_there_are() {
        // Some more of both in each step, from a table of one entry to more than a table holds.
        let mut pairs = Pairs::default();
        let mut expected = Numbers::default();
        for step in 1..40_u32 {
            let rows = step * 50;
            let firsts: Vec<u32> = (0..rows).map(|row| row * 7 % (step * step)).collect();
            let seconds: Vec<u32> = (0..rows).map(|row| row * row % (step * 9)).collect();
            let mut numbered = firsts.clone();
            pairs.number(&mut numbered, &seconds);
            let wanted = firsts.iter().zip(&seconds).map(|(a, b)| expected.number(joined(*a, *b)));
            assert_eq!(numbered, wanted.collect::<Vec<u32>>(), "step {step}");
            assert_eq!(matches!(pairs, Pairs::Hashed(_)), step >= 33, "step {step}");
        }
    }

    #[test]
    fn no_rows_change_nothing() {
        let mut pairs = Pairs::default();
        pairs.number(&mut [], &[]);
        let mut firsts = [0, 0, 1];
        pairs.number(&mut firsts, &[0, 1, 0]);
        assert_eq!(firsts, [0, 1, 2]);
        pairs.number(&mut [], &[]);
        assert!(matches!(pairs, Pairs::Table { count: 3, .. }));
    }
}
