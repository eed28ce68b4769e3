//! Sets of the hashes of ints, from a handful to many millions.
//!
//! The parts of a set that was split have nothing to do with one another: where many hashes go to many parts at once, all
//! threads of the pool that this runs in put them there.

use arrow::buffer::ScalarBuffer;
use rayon::iter::{
    IndexedParallelIterator, IntoParallelRefIterator, IntoParallelRefMutIterator, ParallelIterator,
};

use crate::tables::HashSet64;

/// A set with more hashes is split into parts.
const WHOLE_MAX: usize = 1 << 15;
/// Parts of a split set: 2 to this.
const PART_BITS: u32 = 6;
/// Hashes are collected for a part until there are so many, and half as many as it has: then the part is read from
/// memory once for many of them.
const WAITING_MIN: usize = 256;
/// Fewer hashes are put into the parts of a set by one thread.
const SHARED_MIN: usize = 1 << 15;

/// The hashes of a group's values.
#[derive(Debug, Clone, Default)]
pub(crate) enum IntSet {
    #[default]
    Empty,
    /// In order and each once.
    Ordered(ScalarBuffer<u64>),
    /// As they came, some of them more than once.
    List(ScalarBuffer<u64>),
    Whole(HashSet64),
    /// By their top bits.
    Split(Box<[Part]>),
}

/// Those with the same top bits.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    set: HashSet64,
    /// Not in the set yet.
    waiting: Vec<u64>,
}

impl Part {
    fn settle(&mut self) {
        self.set.reserve(self.set.len() + self.waiting.len());
        for hash in self.waiting.drain(..) {
            self.set.insert(hash);
        }
    }

    fn merge(&mut self, other: &Part) {
        self.set.reserve(self.set.len() + self.waiting.len() + other.set.len());
        self.settle();
        other.set.iter().for_each(|hash| self.set.insert(hash));
        other.waiting.iter().for_each(|hash| self.set.insert(*hash));
    }
}

impl IntSet {
    /// The set of a list of hashes.
    pub(crate) fn of_list(hashes: ScalarBuffer<u64>) -> IntSet {
        if hashes.is_empty() {
            return IntSet::Empty;
        }
        if hashes.windows(2).all(|pair| pair[0] < pair[1]) {
            return IntSet::Ordered(hashes);
        }
        let mut set = IntSet::List(hashes);
        set.settle();
        set
    }

    /// Adds hashes, of which some may be the same.
    pub(crate) fn add_list(&mut self, hashes: ScalarBuffer<u64>) {
        match self {
            IntSet::Empty => *self = IntSet::List(hashes),
            _ => self.extend(&hashes),
        }
    }

    /// Adds the hashes of another set.
    pub(crate) fn merge(&mut self, other: &IntSet) {
        match (&mut *self, other) {
            (_, IntSet::Empty) => {}
            (IntSet::Empty, IntSet::Ordered(_) | IntSet::Whole(_)) => *self = other.clone(),
            (IntSet::Ordered(ours), IntSet::Ordered(theirs)) => {
                let union = union(ours, theirs);
                *self = IntSet::Ordered(union.into());
            }
            (_, IntSet::Ordered(hashes) | IntSet::List(hashes)) => self.extend(hashes),
            (IntSet::Split(ours), IntSet::Split(theirs)) => {
                ours.par_iter_mut().zip(theirs.par_iter()).for_each(|(ours, theirs)| ours.merge(theirs));
            }
            (_, IntSet::Whole(set)) => self.extend_with(set.len(), set.iter()),
            (_, IntSet::Split(parts)) => {
                // Ours is not split: theirs with ours added is the same.
                let ours = std::mem::replace(self, IntSet::Split(parts.clone()));
                self.merge(&ours);
            }
        }
    }

    fn extend(&mut self, hashes: &[u64]) {
        self.extend_with(hashes.len(), hashes.iter().copied());
    }

    fn extend_with(&mut self, count: usize, hashes: impl Iterator<Item = u64>) {
        match self {
            IntSet::Split(parts) => {
                for hash in hashes {
                    let part = &mut parts[(hash >> (64 - PART_BITS)) as usize];
                    part.waiting.push(hash);
                    if part.waiting.len() >= WAITING_MIN.max(part.set.len() / 2) {
                        part.settle();
                    }
                }
            }
            IntSet::Whole(set) => {
                set.reserve(set.len() + count.min(WHOLE_MAX));
                hashes.for_each(|hash| set.insert(hash));
                if set.len() > WHOLE_MAX {
                    self.split();
                }
            }
            IntSet::Empty | IntSet::Ordered(_) | IntSet::List(_) => {
                let known = match std::mem::take(self) {
                    IntSet::Ordered(known) | IntSet::List(known) => known,
                    _ => ScalarBuffer::default(),
                };
                *self = IntSet::Whole(HashSet64::default());
                if known.len() + count > WHOLE_MAX {
                    self.split();
                }
                self.extend_with(known.len(), known.iter().copied());
                self.extend_with(count, hashes);
            }
        }
    }

    fn split(&mut self) {
        if let IntSet::Whole(set) = self {
            let part = || Part { set: HashSet64::skipping(PART_BITS), waiting: Vec::new() };
            let mut parts: Box<[Part]> = (0..1 << PART_BITS).map(|_| part()).collect();
            // Their order is nearly that of the parts, so each part gets all of its own one after the other.
            for part in &mut parts {
                part.set.reserve(set.len() / (1 << PART_BITS) + 1);
            }
            for hash in set.iter() {
                parts[(hash >> (64 - PART_BITS)) as usize].set.insert(hash);
            }
            *self = IntSet::Split(parts);
        }
    }

    /// Brings every hash into a form that holds it once.
    pub(crate) fn settle(&mut self) {
        match self {
            IntSet::Empty | IntSet::Ordered(_) | IntSet::Whole(_) => {}
            IntSet::List(_) => self.extend(&[]),
            IntSet::Split(_) => {}
        }
        // A long list was split above.
        if let IntSet::Split(parts) = self {
            match parts.iter().map(|part| part.waiting.len()).sum::<usize>() < SHARED_MIN {
                true => parts.iter_mut().for_each(Part::settle),
                false => parts.par_iter_mut().for_each(Part::settle),
            }
        }
    }

    /// How many there are; of a settled set.
    pub(crate) fn len(&self) -> usize {
        match self {
            IntSet::Empty => 0,
            IntSet::Ordered(hashes) | IntSet::List(hashes) => hashes.len(),
            IntSet::Whole(set) => set.len(),
            IntSet::Split(parts) => parts.iter().map(|part| part.set.len()).sum(),
        }
    }

    /// The hashes of a settled set in order.
    pub(crate) fn for_each_in_order(&self, mut visit: impl FnMut(u64)) {
        let mut ordered = |set: &HashSet64| set.in_order().into_iter().for_each(&mut visit);
        match self {
            IntSet::Empty => {}
            IntSet::Ordered(hashes) | IntSet::List(hashes) => hashes.iter().copied().for_each(visit),
            IntSet::Whole(set) => ordered(set),
            IntSet::Split(parts) => parts.iter().for_each(|part| ordered(&part.set)),
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            IntSet::Empty => 0,
            IntSet::Ordered(hashes) | IntSet::List(hashes) => hashes.len() * 8,
            IntSet::Whole(set) => set.memory_bytes(),
            IntSet::Split(parts) => {
                parts.iter().map(|part| 72 + part.set.memory_bytes() + part.waiting.capacity() * 8).sum()
            }
        }
    }
}

/// Both ordered lists as one.
fn union(ours: &[u64], theirs: &[u64]) -> Vec<u64> {
    let mut union = Vec::with_capacity(ours.len() + theirs.len());
    let (mut our, mut their) = (0, 0);
    while our < ours.len() && their < theirs.len() {
        let (left, right) = (ours[our], theirs[their]);
        union.push(left.min(right));
        our += usize::from(left <= right);
        their += usize::from(right <= left);
    }
    union.extend_from_slice(&ours[our..]);
    union.extend_from_slice(&theirs[their..]);
    union
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sketch::hash_int;

    /// Sets made of these runs of ints in several ways are all the same set.
    fn check(runs: &[std::ops::Range<i64>]) {
        let expect: BTreeSet<u64> = runs.iter().cloned().flatten().map(hash_int).collect();
        let (mut listed, mut merged, mut ordered) = (IntSet::Empty, IntSet::Empty, IntSet::Empty);
        for run in runs {
            let hashes: ScalarBuffer<u64> = run.clone().map(hash_int).collect();
            listed.add_list(hashes.clone());
            let mut one = IntSet::of_list(hashes);
            merged.merge(&one);
            one.settle();
            let mut in_order = Vec::new();
            one.for_each_in_order(|hash| in_order.push(hash));
            ordered.merge(&IntSet::of_list(in_order.into()));
        }
        let mut both = listed.clone();
        both.merge(&merged);
        let mut other = merged.clone();
        other.merge(&ordered);
        for mut set in [listed, merged, ordered, both, other] {
            set.settle();
            let mut hashes = Vec::new();
            set.for_each_in_order(|hash| hashes.push(hash));
            assert_eq!(set.len(), expect.len(), "{runs:?}");
            assert!(hashes.into_iter().eq(expect.iter().copied()), "{runs:?}");
        }
    }

    #[test]
    fn sets_of_all_sizes_are_exact() {
        check(&[]);
        check(&[5..6, 6..6]);
        check(&[0..10, 5..15, 0..1]);
        check(&[0..20_000, 10_000..40_000]);
        check(&[0..100_000, 50_000..60_000, 90_000..200_000, -5..5]);
        check(&[0..10, 0..100_000]);
    }
}
