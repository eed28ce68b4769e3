//! Which leaf takes a row batch: the one with more free memory of two chosen at random, or, for a request that may come
//! again, always the same.
//!
//! Two random choices spread rows almost as evenly as asking everybody, and unlike "always the emptiest" they do not
//! send every aggregator's rows to the same leaf at once.
//!
//! Only the leaf that took a request knows that it did. So a request with a sender goes to the leaf whose id, hashed
//! together with the request, comes out highest among all leaves there are, up or not (rendezvous hashing): every
//! aggregator finds the same one, and a leaf that joins moves no more requests than it takes.

use rand::Rng;
use xxhash_rust::xxh3::xxh3_64_with_seed;

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

/// The leaf for a request with this number ([`crate::sender::Sender::number`]); `None` without leaves.
pub fn pinned<'a>(leaves: impl Iterator<Item = &'a str>, request: u64) -> Option<&'a str> {
    leaves.max_by_key(|leaf| (xxh3_64_with_seed(leaf.as_bytes(), request), *leaf))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::sender::Sender;

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
    #[test]
    fn a_request_has_one_leaf_and_requests_are_spread() {
        let leaves = ["leaf-0", "leaf-1", "leaf-2", "leaf-3"];
        let request = |sequence| Sender::Producer { producer: "agent-7".to_owned(), sequence }.number("t");
        let at = |leaves: &[&'static str], sequence| pinned(leaves.iter().copied(), request(sequence));
        assert_eq!(at(&[], 1), None);
        let mut counts = std::collections::BTreeMap::new();
        for sequence in 0..10_000 {
            let leaf = at(&leaves, sequence).unwrap();
            *counts.entry(leaf).or_insert(0) += 1;
            assert_eq!(at(&["leaf-3", "leaf-1", "leaf-0", "leaf-2"], sequence), Some(leaf));
            // A leaf that is gone moves its own requests, and no others.
            let without = at(&leaves[..3], sequence);
            assert!(leaf == "leaf-3" || without == Some(leaf), "{sequence}");
        }
        assert!(counts.values().all(|count| (2_300..2_700).contains(count)), "{counts:?}");
        // Written down, because another version must find the same leaf.
        let key = Sender::Key("k".to_owned()).number("t");
        assert_eq!((request(1), key), (8_466_866_258_016_766_636, 1_539_538_472_443_626_376));
    }
}
