//! Rows as groups of their own, put in the order of the parts that a merger cuts groups into.
//!
//! Where nearly every row of a run has another key, numbering the keys of the run costs more than it saves: the same key
//! is looked up once for its run and once more where runs meet. Then each row is a group, and its *place* is its number:
//! the rows of one part come one after the other, so that what is added for them lies where the merger reads it.

use arrow::buffer::NullBuffer;

use super::keys::KeyBatch;
use super::parts::{PARTS, part_of};
use crate::sketch::hash_int;

/// The int keys of rows in the order of their places. Several rows may have one key.
#[derive(Debug)]
pub struct PlacedKeys {
    pub(super) keys: KeyBatch,
    /// Where each part begins, and the end of all.
    pub(super) starts: Vec<usize>,
}

impl PlacedKeys {
    /// Of the key of each row, with the place of each row.
    pub fn new(values: &[i64], nulls: Option<&NullBuffer>) -> (PlacedKeys, Vec<u32>) {
        let mut hashes: Vec<u64> = values.iter().map(|value| hash_int(*value)).collect();
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        if let Some(nulls) = nulls {
            // As a batch of keys has it.
            hashes.iter_mut().zip(nulls).filter(|(_, valid)| !valid).for_each(|(hash, _)| *hash = 0);
        }
        let starts = starts(&hashes);
        let mut next: Vec<u32> = starts[..PARTS].iter().map(|start| *start as u32).collect();
        let mut places = vec![0; values.len()];
        let mut ints = vec![0; values.len()];
        for ((value, hash), place) in values.iter().zip(&hashes).zip(&mut places) {
            let at = &mut next[part_of(*hash)];
            *place = *at;
            *at += 1;
            ints[*place as usize] = *value;
        }
        let nulls = nulls.map(|nulls| {
            let mut valid = vec![false; values.len()];
            places.iter().zip(nulls).for_each(|(place, is_valid)| valid[*place as usize] = is_valid);
            NullBuffer::from(valid)
        });
        (PlacedKeys { keys: KeyBatch::Int(ints.into(), nulls), starts }, places)
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.keys.len() == 0
    }
}

/// Where each part begins among keys with these hashes, and the end of all.
pub(super) fn starts(hashes: &[u64]) -> Vec<usize> {
    let mut starts = vec![0; PARTS + 1];
    hashes.iter().for_each(|hash| starts[part_of(*hash) + 1] += 1);
    for part in 0..PARTS {
        starts[part + 1] += starts[part];
    }
    starts
}
