//! Which leaf takes a row batch: the one with more free memory of two chosen at random.
//!
//! Two random choices spread rows almost as evenly as asking everybody, and unlike "always the emptiest" they do not
//! send every aggregator's rows to the same leaf at once.

use rand::Rng;

/// A leaf that takes rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Which child it is.
    pub child: usize,
    /// What it has left of its memory limit.
    pub free_bytes: u64,
}

/// The child to send a row batch to; `None` without candidates.
pub fn choose(candidates: &[Candidate], random: &mut impl Rng) -> Option<usize> {
    let first = *candidates.get(random.random_range(0..candidates.len().max(1)))?;
    let second = *candidates.get(random.random_range(0..candidates.len()))?;
    Some(if second.free_bytes > first.free_bytes { second.child } else { first.child })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn shares(free: &[u64]) -> Vec<u32> {
        let candidates: Vec<Candidate> =
            free.iter().enumerate().map(|(child, free)| Candidate { child, free_bytes: *free }).collect();
        let mut random = StdRng::seed_from_u64(7);
        let mut counts = vec![0; free.len()];
        for _ in 0..10_000 {
            counts[choose(&candidates, &mut random).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn more_free_memory_takes_more_batches() {
        assert_eq!(choose(&[], &mut StdRng::seed_from_u64(7)), None);
        assert_eq!(shares(&[5]), [10_000]);
        let even = shares(&[5, 5, 5, 5]);
        assert!(even.iter().all(|count| (2_200..2_800).contains(count)), "{even:?}");
        let uneven = shares(&[1, 2, 3]);
        // Of nine pairs, one picks the fullest, three the middle one, five the emptiest.
        assert!((900..1_350).contains(&uneven[0]) && (5_200..5_900).contains(&uneven[2]), "{uneven:?}");
    }
}
