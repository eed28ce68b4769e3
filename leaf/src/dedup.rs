//! Which batches were counted already, in bounded memory.
//!
//! A producer numbers its batches, and may send one number in parts. For each table and producer this remembers the
//! sequences that are complete, as intervals (a high-water mark and its gaps), and the parts seen of those that are
//! not. Idempotency keys are remembered in a ring of their own, of the last [`DedupLimits::keys_max`].
//!
//! It never guesses. What it can no longer tell is refused by name: below a producer's floor, a batch that is not
//! known as counted is too old to tell. Producers are forgotten only when there are too many and one has been idle for
//! [`DedupLimits::idle_seconds_min`] of the leaf's running time, so that neither a stop nor a clock can age them.
//!
//! Only batches that survive may be told to it: what is in flight is the caller's. Invariants: after
//! [`Dedup::complete`] the same batch is never new again, while its producer or key is remembered; nothing here grows
//! beyond [`DedupLimits`] but by what was in flight when a limit was reached; what is read is checked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashSet;
use xxhash_rust::xxh3::xxh3_128;

use crate::row_ranges::RowRanges;

mod producer;
mod stored;

use producer::Producer;

/// Producers whose name is this and 32 hex digits are the hashes of idempotency keys.
pub const KEY_PREFIX: &str = "key:";

/// How much is remembered, each with what happens beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupLimits {
    /// Pairs of a table and a producer; beyond them the longest idle one is forgotten, or the new one refused.
    pub producers_max: usize,
    /// Intervals of complete sequences of one producer, or of parts of one sequence; the floor rises beyond them.
    pub gaps_max: usize,
    /// Sequences of one producer with some of their parts; the floor rises beyond them.
    pub open_sequences_max: usize,
    /// Intervals of all producers; the floor of the producer that adds one rises beyond them.
    pub intervals_max: usize,
    /// Idempotency keys; the oldest is forgotten beyond them.
    pub keys_max: usize,
    /// Seconds of running time for which a producer is remembered even when there are too many.
    pub idle_seconds_min: u64,
}

impl Default for DedupLimits {
    fn default() -> DedupLimits {
        DedupLimits {
            producers_max: 100_000,
            gaps_max: 1_024,
            open_sequences_max: 1_024,
            intervals_max: 1 << 20,
            keys_max: 262_144,
            idle_seconds_min: 86_400,
        }
    }
}

/// What a producer calls a batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchName {
    /// The table it is for.
    pub table: String,
    /// Who sends it, or [`KEY_PREFIX`] and the hash of an idempotency key.
    pub producer: String,
    /// Its number.
    pub sequence: u64,
    /// Which part of the sequence it is, from 0.
    pub part: u32,
    /// It is the last part of the sequence.
    pub last_part: bool,
}

impl BatchName {
    /// Its name under an idempotency key.
    pub fn of_key(table: &str, key: &[u8], part: u32, last_part: bool) -> BatchName {
        let producer = format!("{KEY_PREFIX}{:032x}", xxh3_128(key));
        BatchName { table: table.to_owned(), producer, sequence: 0, part, last_part }
    }

    /// What the ring of keys holds for it, when it goes by a key.
    ///
    /// All of the name is hashed, so that a producer that calls itself like a key loses nothing by it.
    fn key_hash(&self) -> Option<u128> {
        let digits = self.producer.strip_prefix(KEY_PREFIX)?;
        let is_hash = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then(|| {
            let numbers = format!("{}\0{}\0", self.sequence, self.part);
            xxh3_128(&[numbers.as_bytes(), self.producer.as_bytes(), self.table.as_bytes()].concat())
        })
    }
}

/// What is known of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It was not counted.
    New,
    /// It was counted.
    Counted,
}

/// Why a batch can be neither counted nor called a duplicate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DedupError {
    /// Its sequence is below all that is remembered of its producer.
    #[error(
        "sequence {sequence} of producer {producer} is too old to tell whether it was counted; the oldest that can be told is {floor}"
    )]
    TooOld {
        /// Whose.
        producer: String,
        /// Which.
        sequence: u64,
        /// The lowest that can be told.
        floor: u64,
    },
    /// There is no room for another producer, and none has been idle for long enough.
    #[error(
        "producer {producer} is one too many: {limit} are remembered, none of them idle for {idle_seconds_min} seconds"
    )]
    TooManyProducers {
        /// Whose batch it is.
        producer: String,
        /// How many there may be.
        limit: usize,
        /// How long one must be idle to be forgotten.
        idle_seconds_min: u64,
    },
    /// A part lies behind the one that was said to be the last.
    #[error("part {part} of sequence {sequence} of producer {producer} lies behind its last part, {last}")]
    PartBehindLast {
        /// Whose.
        producer: String,
        /// Which sequence.
        sequence: u64,
        /// Which part.
        part: u32,
        /// The last one.
        last: u32,
    },
    /// The number that stands for no sequence.
    #[error("sequence {sequence} of producer {producer} is greater than {}", u64::MAX - 1)]
    SequenceTooGreat {
        /// Whose.
        producer: String,
        /// Which.
        sequence: u64,
    },
    /// What was stored is not the state of a leaf's dedup.
    #[error("stored dedup state: {0}")]
    Stored(String),
}

/// The batches that were counted. See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dedup {
    /// Seconds of running time, as last told.
    running_seconds: u64,
    tables: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Producer>>,
    /// All producers by when they were last heard of, with their tables.
    ages: BTreeSet<(u64, Arc<str>, Arc<str>)>,
    /// Intervals of all producers.
    intervals: usize,
    /// Hashes of keys, the oldest first.
    keys: VecDeque<u128>,
    known_keys: HashSet<u128>,
}

impl Dedup {
    /// Whether a batch was counted.
    ///
    /// # Errors
    /// When that can no longer be told, or could not be remembered. The batch must be refused then.
    pub fn check(&self, name: &BatchName, limits: &DedupLimits) -> Result<Known, DedupError> {
        if let Some(hash) = name.key_hash() {
            return Ok(if self.known_keys.contains(&hash) { Known::Counted } else { Known::New });
        }
        if name.sequence == u64::MAX {
            let producer = name.producer.clone();
            return Err(DedupError::SequenceTooGreat { producer, sequence: name.sequence });
        }
        match self.producer(&name.table, &name.producer) {
            Some(producer) => producer.check(name),
            None if self.ages.len() < limits.producers_max || self.forgettable(limits) => Ok(Known::New),
            None => Err(DedupError::TooManyProducers {
                producer: name.producer.clone(),
                limit: limits.producers_max,
                idle_seconds_min: limits.idle_seconds_min,
            }),
        }
    }

    /// Remembers that a batch was counted, which it must survive to say.
    ///
    /// Saying it again changes nothing but that its producer was heard of: do so when a duplicate comes in. It cannot
    /// fail: what has no room any more raises a floor, or forgets who may be forgotten.
    pub fn complete(&mut self, name: &BatchName, running_seconds: u64, limits: &DedupLimits) {
        self.advance(running_seconds);
        if let Some(hash) = name.key_hash() {
            self.remember_key(hash, limits);
            return;
        }
        if name.sequence == u64::MAX {
            return;
        }
        if self.producer(&name.table, &name.producer).is_none() {
            while self.ages.len() >= limits.producers_max && self.forgettable(limits) {
                self.forget_idlest();
            }
        }
        let (table, producer_name) = self.names(name);
        let now = self.running_seconds;
        let producers = self.tables.entry(Arc::clone(&table)).or_default();
        let producer = producers.entry(Arc::clone(&producer_name)).or_default();
        let (seen, before) = (producer.seen, producer.intervals());
        producer.seen = now;
        producer.complete(name);
        let others = self.intervals - before;
        producer.keep_within(limits, others);
        self.intervals = others + producer.intervals();
        if seen != now || before == 0 {
            self.ages.remove(&(seen, Arc::clone(&table), Arc::clone(&producer_name)));
            self.ages.insert((now, table, producer_name));
        }
    }

    /// Tells how long the leaf has run in all its lives; less than was told before is ignored.
    ///
    /// Without it, producers grow idle only while others are heard of.
    pub fn advance(&mut self, running_seconds: u64) {
        self.running_seconds = self.running_seconds.max(running_seconds);
    }

    /// Forgets all batches of a table, which is gone with its rows. Keys stay, as nobody can tell whose they are.
    pub fn forget_table(&mut self, table: &str) {
        let Some((table, producers)) = self.tables.remove_entry(table) else { return };
        for (name, producer) in producers {
            self.intervals -= producer.intervals();
            self.ages.remove(&(producer.seen, Arc::clone(&table), name));
        }
    }

    /// How many pairs of a table and a producer are remembered.
    pub fn producers(&self) -> usize {
        self.ages.len()
    }

    /// How many idempotency keys are remembered.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    fn producer(&self, table: &str, producer: &str) -> Option<&Producer> {
        self.tables.get(table)?.get(producer)
    }

    /// The names of a batch's table and producer, shared with those that are there.
    fn names(&self, name: &BatchName) -> (Arc<str>, Arc<str>) {
        let Some((table, producers)) = self.tables.get_key_value(name.table.as_str()) else {
            return (name.table.as_str().into(), name.producer.as_str().into());
        };
        let known = producers.get_key_value(name.producer.as_str());
        let producer = known.map_or_else(|| name.producer.as_str().into(), |(known, _)| Arc::clone(known));
        (Arc::clone(table), producer)
    }

    /// Whether the producer that has been idle the longest may be forgotten.
    fn forgettable(&self, limits: &DedupLimits) -> bool {
        self.ages.first().is_some_and(|(seen, _, _)| self.running_seconds - seen > limits.idle_seconds_min)
    }

    fn forget_idlest(&mut self) {
        let Some((_, table, name)) = self.ages.pop_first() else { return };
        let Some(producers) = self.tables.get_mut(&table) else { return };
        if let Some(producer) = producers.remove(&name) {
            self.intervals -= producer.intervals();
        }
        if producers.is_empty() {
            self.tables.remove(&table);
        }
    }

    fn remember_key(&mut self, hash: u128, limits: &DedupLimits) {
        if self.known_keys.insert(hash) {
            self.keys.push_back(hash);
        }
        while self.keys.len() > limits.keys_max {
            if let Some(oldest) = self.keys.pop_front() {
                self.known_keys.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests;
