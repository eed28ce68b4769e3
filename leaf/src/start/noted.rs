//! What the catalogue of a hand-over says of the blocks: which columns each has.
//!
//! It is what a start would otherwise open thousands of blocks for. It is written as JSON: the leaf and its epoch for
//! somebody who looks, each set of columns once, and for each block the number of its set.
//!
//! Invariants: a catalogue that says nothing of a block, or nothing that can be read, is no error: the block is opened
//! then. What it says is compared with the block when that is opened.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gannet_query::{ColumnType, TIME_COLUMN, TypeSet};
use serde::{Deserialize, Serialize};

use crate::held_block::{Columns, KnownColumns};
use crate::table::Table;

/// The columns of each block, by its id.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    pub(super) columns: BTreeMap<u64, Columns>,
}

/// The payload of the catalogue.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    leaf: String,
    epoch: u64,
    /// Names with the bits of their types.
    #[serde(default)]
    columns: Vec<Vec<(String, u8)>>,
    /// Ids with the place of their columns above.
    #[serde(default)]
    blocks: Vec<(u64, usize)>,
}

impl Noted {
    /// The columns of all blocks of some tables.
    pub(crate) fn of(tables: &[Arc<Table>]) -> Noted {
        let mut columns: BTreeMap<u64, Columns> = BTreeMap::new();
        for table in tables {
            let state = table.snapshot();
            let mut before: Option<(KnownColumns<'_>, Columns)> = None;
            for held in state.blocks.iter() {
                let known = held.known_columns();
                // Blocks are many, and mostly like the one before.
                let same = before.as_ref().filter(|(before, _)| known.is_like(*before));
                let noted = same.map_or_else(|| held.noted_columns(), |(_, noted)| Arc::clone(noted));
                // One that cannot be read has no columns, and is read from its file then.
                if !noted.is_empty() {
                    columns.insert(held.id(), Arc::clone(&noted));
                }
                before = Some((known, noted));
            }
        }
        Noted { columns }
    }

    /// The payload of a catalogue.
    pub(crate) fn write(&self, leaf: &str, epoch: u64) -> Vec<u8> {
        let mut places: HashMap<&Columns, usize> = HashMap::new();
        let mut columns = Vec::new();
        let blocks = self.columns.iter().map(|(id, noted)| {
            let place = *places.entry(noted).or_insert_with(|| {
                columns.push(noted.iter().map(|(name, types)| (name.clone(), types.bits())).collect());
                columns.len() - 1
            });
            (*id, place)
        });
        let blocks = blocks.collect();
        // Text and numbers can always be written.
        serde_json::to_vec(&Payload { leaf: leaf.to_owned(), epoch, columns, blocks }).unwrap_or_default()
    }

    /// What a payload says; nothing when it cannot be read.
    pub(super) fn read(payload: &[u8]) -> Noted {
        let payload: Payload = match serde_json::from_slice(payload) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::warn!(%error, "the catalogue says nothing of blocks that can be read");
                return Noted::default();
            }
        };
        let sets: Vec<Columns> = payload
            .columns
            .into_iter()
            .map(|set| set.into_iter().map(|(name, bits)| (name, TypeSet::from_bits(bits))).collect())
            .collect();
        let time = (TIME_COLUMN.to_owned(), TypeSet::of(ColumnType::Time, false));
        let is_sound = |set: &&Columns| {
            set.contains(&time)
                && set.is_sorted_by(|a, b| a.0 < b.0)
                && set.iter().all(|(_, types)| types.resolve().is_some())
        };
        let columns = payload.blocks.into_iter().filter_map(|(id, place)| {
            let set = sets.get(place).filter(is_sound)?;
            Some((id, Arc::clone(set)))
        });
        Noted { columns: columns.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(set: &[(&str, u8)]) -> Columns {
        set.iter().map(|(name, bits)| ((*name).to_owned(), TypeSet::from_bits(*bits))).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let set = || columns(&[("a", 2), ("time", 64)]);
        let other = columns(&[("time", 64)]);
        let blocks = [(1, set()), (2, set()), (7, other.clone())];
        let noted = Noted { columns: blocks.into_iter().collect() };
        let payload = noted.write("leaf-1", 3);
        let text = r#"{"leaf":"leaf-1","epoch":3,"columns":[[["a",2],["time",64]],[["time",64]]],"blocks":[[1,0],[2,0],[7,1]]}"#;
        assert_eq!(String::from_utf8(payload.clone()), Ok(text.to_owned()));
        let read = Noted::read(&payload);
        assert_eq!(read.columns, noted.columns);
        assert!(Arc::ptr_eq(&read.columns[&1], &read.columns[&2]), "a set is kept once");
    }

    #[test]
    fn what_cannot_be_right_is_not_believed() {
        let check = |payload: &str, ids: &[u64]| {
            let read: Vec<u64> = Noted::read(payload.as_bytes()).columns.into_keys().collect();
            assert_eq!(read, ids, "{payload}");
        };
        check("", &[]);
        check("{\"leaf\":\"leaf-1\",\"epoch\":3}", &[]);
        let with = |columns: &str| {
            format!("{{\"leaf\":\"l\",\"epoch\":3,\"columns\":{columns},\"blocks\":[[1,0],[2,1]]}}")
        };
        check(&with("[[[\"time\",64]]]"), &[1]);
        check(&with("[[[\"time\",64]],[]]"), &[1]);
        check(&with("[[[\"time\",64]],[[\"a\",2]]]"), &[1]);
        check(&with("[[[\"time\",64]],[[\"a\",0],[\"time\",64]]]"), &[1]);
        check(&with("[[[\"time\",64]],[[\"time\",2]]]"), &[1]);
        check(&with("[[[\"time\",64]],[[\"a\",128],[\"time\",64]]]"), &[1]);
        check(&with("[[[\"time\",64]],[[\"time\",64],[\"a\",2]]]"), &[1]);
        check(&with("[[[\"time\",64]],[[\"time\",64],[\"time\",64]]]"), &[1]);
        check(&with("[[[\"time\",64]],[[\"time\",300]]]"), &[]);
    }
}
