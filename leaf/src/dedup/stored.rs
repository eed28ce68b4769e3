//! How dedup state is stored: producers by table as short tuples, keys as one string of hex digits.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;

use hashbrown::HashSet;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::producer::{Parts, Producer};
use super::{Dedup, DedupError, RowRanges};

/// Hex digits of one key.
const KEY_DIGITS: usize = 32;

/// The stored form, as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    running_seconds: u64,
    tables: BTreeMap<String, BTreeMap<String, StoredProducer>>,
    keys: String,
}

/// When it was last heard of, floor, complete sequences, open sequences as (sequence, last part, parts).
#[derive(Deserialize)]
struct StoredProducer(u64, u64, RowRanges, Vec<(u64, Option<u32>, RowRanges)>);

/// The stored form, as it is written.
#[derive(Serialize)]
struct Storing<'a> {
    running_seconds: u64,
    tables: Tables<'a>,
    keys: String,
}

struct Tables<'a>(&'a BTreeMap<Arc<str>, BTreeMap<Arc<str>, Producer>>);

struct Producers<'a>(&'a BTreeMap<Arc<str>, Producer>);

impl Serialize for Tables<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, producers) in self.0 {
            map.serialize_entry(&**name, &Producers(producers))?;
        }
        map.end()
    }
}

impl Serialize for Producers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, producer) in self.0 {
            let open: Vec<(u64, Option<u32>, &RowRanges)> =
                producer.open.iter().map(|(sequence, parts)| (*sequence, parts.last, &parts.seen)).collect();
            map.serialize_entry(&**name, &(producer.seen, producer.floor, &producer.done, open))?;
        }
        map.end()
    }
}

impl Serialize for Dedup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut keys = String::with_capacity(self.keys.len() * KEY_DIGITS);
        for key in &self.keys {
            // Writing to a string cannot fail.
            let _ = write!(keys, "{key:032x}");
        }
        let tables = Tables(&self.tables);
        Storing { running_seconds: self.running_seconds, tables, keys }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Dedup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Dedup, D::Error> {
        Stored::deserialize(deserializer)?.check().map_err(serde::de::Error::custom)
    }
}

impl Stored {
    fn check(self) -> Result<Dedup, DedupError> {
        let mut dedup = Dedup { running_seconds: self.running_seconds, ..Dedup::default() };
        for (table, producers) in self.tables {
            let table: Arc<str> = table.into();
            let mut checked = BTreeMap::new();
            for (name, stored) in producers {
                let name: Arc<str> = name.into();
                let producer = stored.check(self.running_seconds).map_err(|what| {
                    DedupError::Stored(format!("producer {name} of table {table}: {what}"))
                })?;
                dedup.intervals += producer.intervals();
                dedup.ages.insert((producer.seen, Arc::clone(&table), Arc::clone(&name)));
                checked.insert(name, producer);
            }
            if !checked.is_empty() {
                dedup.tables.insert(table, checked);
            }
        }
        dedup.keys = keys(&self.keys)?;
        dedup.known_keys = dedup.keys.iter().copied().collect::<HashSet<u128>>();
        if dedup.known_keys.len() != dedup.keys.len() {
            return Err(DedupError::Stored("a key is there twice".to_owned()));
        }
        Ok(dedup)
    }
}

/// The keys in a string of hex digits.
fn keys(text: &str) -> Result<VecDeque<u128>, DedupError> {
    let broken = |what: String| Err(DedupError::Stored(what));
    if !text.len().is_multiple_of(KEY_DIGITS) {
        return broken(format!("keys of {} digits, not a multiple of {KEY_DIGITS}", text.len()));
    }
    let mut keys = VecDeque::with_capacity(text.len() / KEY_DIGITS);
    for digits in text.as_bytes().chunks_exact(KEY_DIGITS) {
        let mut key = 0_u128;
        for &byte in digits {
            // One spelling for each key, so that what is read is written again as it was.
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => return broken(format!("byte {byte} in a key, not a hex digit")),
            };
            key = key << 4 | u128::from(digit);
        }
        keys.push_back(key);
    }
    Ok(keys)
}

impl StoredProducer {
    fn check(self, running_seconds: u64) -> Result<Producer, String> {
        let StoredProducer(seen, floor, done, open) = self;
        if seen > running_seconds {
            return Err(format!("heard of at {seen} seconds of {running_seconds}"));
        }
        if done.is_empty() && open.is_empty() && floor == 0 {
            return Err("it has no sequence".to_owned());
        }
        let mut producer = Producer { seen, floor, done, open: BTreeMap::new(), open_intervals: 0 };
        for (sequence, last, seen) in open {
            if producer.open.last_key_value().is_some_and(|(before, _)| *before >= sequence) {
                return Err(format!("open sequence {sequence} is out of order"));
            }
            if sequence == u64::MAX || producer.done.contains(sequence) {
                return Err(format!("sequence {sequence} is open and cannot be"));
            }
            let end = last.map_or(1 << 32, |last| u64::from(last) + 1);
            let parts = Parts { seen, last };
            if parts.seen.is_empty() || parts.seen.end() > end || parts.are_complete() {
                return Err(format!("the parts of open sequence {sequence} cannot be"));
            }
            producer.open_intervals += parts.intervals();
            producer.open.insert(sequence, parts);
        }
        Ok(producer)
    }
}
