//! What every manifest keeps, whoever wrote it: the invariants that the rest of a leaf relies on.
//!
//! A checksum says that the bytes are those that were written, not that they make sense. What is refused here would
//! otherwise count rows twice, lose them without a word, or reach numbers that cannot be added any more.

use std::collections::BTreeSet;

use super::{BlockEntry, Manifest, TableManifest};
use crate::row_block::ROWS_PER_BLOCK_MAX;
use crate::row_ranges::RowRanges;
use crate::wal::ROW_NUMBERS_MAX;

/// Counters are smaller, and so are sums of rows.
const COUNTER_MAX: u64 = 1 << 62;
/// The log takes rows with smaller numbers than half of this; a batch that it refuses has had its numbers all the same.
const NEXT_ROW_MAX: u64 = 2 * ROW_NUMBERS_MAX;

impl Manifest {
    /// Checks that it can be one.
    ///
    /// # Errors
    /// In words that follow "the manifest".
    pub(crate) fn check(&self) -> Result<(), String> {
        for (name, counter) in [
            ("epoch", self.epoch),
            ("generation", self.generation),
            ("checkpoint_lsn", self.checkpoint_lsn),
            ("next_block_id", self.next_block_id),
            ("running_seconds", self.running_seconds),
        ] {
            if counter > COUNTER_MAX {
                return Err(format!("has the {name} {counter}, the limit is {COUNTER_MAX}"));
            }
        }
        let mut ids = BTreeSet::new();
        let mut before: Option<&str> = None;
        for table in &self.tables {
            if before.is_some_and(|before| before >= table.name.as_str()) {
                return Err(format!("has table {} out of order", table.name));
            }
            before = Some(&table.name);
            table.check().map_err(|what| format!("has table {} that {what}", table.name))?;
            for block in &table.blocks {
                if block.id >= self.next_block_id || !ids.insert(block.id) {
                    let next = self.next_block_id;
                    return Err(format!("has block {} twice, or not below {next}", block.id));
                }
            }
        }
        Ok(())
    }
}

impl TableManifest {
    fn check(&self) -> Result<(), String> {
        let end = self.done.end().max(self.withdrawn.end());
        if self.next_row > NEXT_ROW_MAX || end > self.next_row {
            let next = self.next_row;
            return Err(format!("has rows up to {end} of {next}, the limit is {NEXT_ROW_MAX}"));
        }
        let mut in_blocks = RowRanges::default();
        let mut count: u64 = 0;
        for block in &self.blocks {
            block.check().map_err(|what| format!("has block {} {what}", block.id))?;
            count = count.saturating_add(block.numbers.count());
            in_blocks.union(&block.numbers);
        }
        if in_blocks.count() != count {
            return Err("has a row in two blocks".to_owned());
        }
        let is_done = |(from, to)| self.done.missing_in(from, to).is_empty();
        if !in_blocks.iter().all(is_done) {
            return Err("has a row in a block that is not done".to_owned());
        }
        let lost = self.lost.iter().fold(0_u64, |sum, (_, _, rows)| sum.saturating_add(*rows));
        match self.lost.iter().find(|(first, last, _)| first > last) {
            Some((first, last, _)) => Err(format!("lost rows from {first} to {last}")),
            None if lost > COUNTER_MAX => Err(format!("lost {lost} rows, the limit is {COUNTER_MAX}")),
            None => Ok(()),
        }
    }
}

impl BlockEntry {
    fn check(&self) -> Result<(), String> {
        let (rows, numbers) = (self.rows, self.numbers.count());
        if rows == 0 || rows > ROWS_PER_BLOCK_MAX as u64 || rows > numbers {
            return Err(format!("of {rows} rows that were {numbers}, the limit is {ROWS_PER_BLOCK_MAX}"));
        }
        if self.first > self.last {
            return Err(format!("that begins at {} and ends at {}", self.first, self.last));
        }
        match self.bytes > COUNTER_MAX {
            true => Err(format!("of {} bytes, the limit is {COUNTER_MAX}", self.bytes)),
            false => Ok(()),
        }
    }
}
