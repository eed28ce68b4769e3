//! Old rows become fewer, and each stands for more: subsampling past an age, as Scuba does it.
//!
//! Of a block that is old enough, one row in so many is kept, every n-th from a random one on, and its `sample_rate` is
//! multiplied by n; a row without one gets n. Counts, sums, averages and percentiles stay what they were within the
//! error of a sample of that size; distinct values, minimum and maximum become those of the kept rows. A block is
//! subsampled once.
//!
//! Invariants: a query sees the old block or the new one and never both; so does every start, because one edit in the
//! log takes the old one and brings the new one; a table whose `sample_rate` is not a number is left alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};
use gannet_query::SAMPLE_RATE_COLUMN;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::LeafError;
use crate::held_block::{BlockFile, HeldBlock};
use crate::leaf::Leaf;
use crate::manifest::Edit;
use crate::row_block::{Preference, RowBlock};
use crate::surroundings::JobKind;
use crate::table::Table;

impl Leaf {
    /// Subsamples the oldest block of a table that is old enough, behind everything else.
    pub(crate) fn subsample_soon(self: &Arc<Self>, table: &Arc<Table>, now: i64) {
        let (after_seconds, one_in) = self.config.subsampling_of(table.name());
        if after_seconds == 0 || one_in < 2 {
            return;
        }
        let seconds = i64::try_from(after_seconds).unwrap_or(i64::MAX);
        let oldest = now.saturating_sub(seconds.saturating_mul(1_000_000_000));
        let state = table.snapshot();
        let due = state.blocks.iter().find(|held| {
            held.file().is_some()
                && held.time_range().1 < oldest
                && held.numbers.count() == held.rows() as u64
                && may_be_subsampled(held)
        });
        let Some(held) = due.cloned() else { return };
        if self.is_subsampling.swap(true, Ordering::AcqRel) {
            return;
        }
        let (leaf, table) = (Arc::clone(self), Arc::clone(table));
        let work = move || {
            if let Err(error) = leaf.subsample(&table, &held, one_in) {
                tracing::error!(table = table.name(), block = held.id(), %error, "not subsampled");
            }
            leaf.is_subsampling.store(false, Ordering::Release);
        };
        self.surroundings.background.spawn(JobKind::Seal, Box::new(work));
    }

    fn subsample(&self, table: &Arc<Table>, held: &HeldBlock, one_in: u64) -> Result<(), LeafError> {
        let id = self.next_block_id.fetch_add(1, Ordering::Relaxed);
        let block = subsampled(held, id, one_in, self.config.encodings).map_err(LeafError::Internal)?;
        let (old_id, name) = (held.id(), table.name().to_owned());
        let _turn = self.storing.lock();
        if !table.snapshot().blocks.iter().any(|held| held.id() == old_id) {
            return Ok(());
        }
        let (edit, new) = match block {
            None => (Edit::BlocksRemoved { table: name, ids: vec![old_id] }, None),
            Some(block) => {
                let failed = |source| LeafError::Disk { what: "write row blocks".to_owned(), source };
                let file = BlockFile::write_all(&self.surroundings.disk, &[&block]).map_err(failed)?.pop();
                let new = self.place(HeldBlock::sealed(block, held.numbers.clone()));
                let Some(file) = file else { return Ok(()) };
                let entry = new.entry_with(&file);
                new.set_file(file);
                (Edit::BlockAdded { table: name, block: entry, replaces: vec![old_id] }, Some(Arc::new(new)))
            }
        };
        self.log_edits(&mut self.manifest.lock(), vec![edit])?;
        let kept = new.as_ref().map_or(0, |new| new.rows());
        if let Some(grown) = table.replace(old_id, new) {
            self.used_bytes.fetch_add(grown, Ordering::Relaxed);
        }
        held.expire();
        self.wal.sync()?;
        if let Some(Err(error)) = held.file().map(BlockFile::remove) {
            tracing::warn!(%error, "the file of a subsampled block was not removed");
        }
        tracing::info!(table = table.name(), rows = held.rows(), kept, "rows were subsampled");
        Ok(())
    }
}

/// A weight can only be multiplied when it is a number.
fn may_be_subsampled(held: &HeldBlock) -> bool {
    use gannet_query::ColumnType::{Float, Int};
    let types = held.find(SAMPLE_RATE_COLUMN, 0).and_then(|(_, types)| types.resolve());
    types.is_none_or(|column_type| matches!(column_type, Int | Float))
}

/// One row in so many of a block, as a block of its own; `None` when none is kept.
fn subsampled(
    held: &HeldBlock,
    id: u64,
    one_in: u64,
    preference: Preference,
) -> Result<Option<RowBlock>, String> {
    let rows = held.rows() as u64;
    // Random over blocks, the same for one block however often it is tried.
    let first = xxh3_64_with_seed(&id.to_le_bytes(), held.id()) % one_in;
    let positions: Vec<u32> = (first..rows).step_by(one_in as usize).map(|row| row as u32).collect();
    if positions.is_empty() {
        return Ok(None);
    }
    let mut fields = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    let block = held.block().map_err(|error| error.to_string())?;
    for meta in block.columns().iter().filter(|meta| meta.name != SAMPLE_RATE_COLUMN) {
        let column = held.column(&meta.name).map_err(|error| error.to_string())?;
        let Some(column) = column else { continue };
        arrays.push(column.take_typed(meta.column_type, &positions));
        fields.push(Field::new(&meta.name, meta.column_type.arrow(), true));
    }
    let rates = held.column(SAMPLE_RATE_COLUMN).map_err(|error| error.to_string())?;
    let rates = multiplied(rates.map(|column| column.take(&positions)), positions.len(), one_in);
    fields.push(Field::new(SAMPLE_RATE_COLUMN, rates.data_type().clone(), true));
    arrays.push(rates);
    let batch =
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(|error| error.to_string())?;
    RowBlock::seal_with(id, &[batch], preference).map(Some).map_err(|error| error.to_string())
}

/// Weights, each times `by`; a row without one stood for one event. Ints that would not fit become floats.
fn multiplied(rates: Option<ArrayRef>, rows: usize, by: u64) -> ArrayRef {
    let by_int = i64::try_from(by).unwrap_or(i64::MAX);
    let Some(rates) = rates else { return Arc::new(Int64Array::from(vec![by_int; rows])) };
    if *rates.data_type() == DataType::Int64 {
        let ints = rates.as_primitive::<Int64Type>();
        let products: Option<Int64Array> = ints
            .iter()
            .map(|rate| rate.unwrap_or(1).checked_mul(by_int))
            .map(|rate| rate.map(Some))
            .collect();
        return match products {
            Some(products) => Arc::new(products),
            None => Arc::new(
                ints.iter().map(|rate| Some(rate.unwrap_or(1) as f64 * by as f64)).collect::<Float64Array>(),
            ),
        };
    }
    let floats = rates.as_primitive::<Float64Type>();
    Arc::new(floats.iter().map(|rate| Some(rate.unwrap_or(1.0) * by as f64)).collect::<Float64Array>())
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampNanosecondArray;

    use super::*;
    use crate::row_ranges::RowRanges;

    fn held(rates: Option<ArrayRef>, rows: i64) -> HeldBlock {
        let times: ArrayRef =
            Arc::new(TimestampNanosecondArray::from((0..rows).collect::<Vec<_>>()).with_timezone("+00:00"));
        let x: ArrayRef = Arc::new((0..rows).collect::<Int64Array>());
        let mut columns = vec![("time", times, false), ("x", x, true)];
        columns.extend(rates.map(|rates| (SAMPLE_RATE_COLUMN, rates, true)));
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let mut numbers = RowRanges::default();
        numbers.insert(0, rows as u64);
        HeldBlock::sealed(RowBlock::seal(7, &[batch]).unwrap(), numbers)
    }

    fn rates_of(block: &RowBlock) -> Vec<f64> {
        let column = block.column(SAMPLE_RATE_COLUMN).unwrap().unwrap();
        let rates = arrow::compute::cast(&column.to_array(block.rows()), &DataType::Float64).unwrap();
        rates.as_primitive::<Float64Type>().values().to_vec()
    }

    #[test]
    fn every_so_manieth_row_stands_for_the_others() {
        for id in 8..40 {
            let block = subsampled(&held(None, 1000), id, 10, Preference::Best).unwrap().unwrap();
            assert_eq!((block.rows(), block.id()), (100, id));
            assert_eq!(rates_of(&block), vec![10.0; 100]);
            let x = block.column("x").unwrap().unwrap().to_array(100);
            let x = x.as_primitive::<Int64Type>().values();
            assert!(x.windows(2).all(|pair| pair[1] - pair[0] == 10) && x[0] < 10, "{x:?}");
        }
        // A block with fewer rows may keep one or none; over many it is right.
        let kept: usize = (0..1000)
            .filter_map(|id| subsampled(&held(None, 3), id, 10, Preference::Best).unwrap())
            .map(|block| block.rows())
            .sum();
        assert!((200..400).contains(&kept), "{kept}");
    }

    #[test]
    fn weights_are_multiplied() {
        let check = |rates: Option<ArrayRef>, expect: &[f64]| {
            let rates = multiplied(rates, 3, 10);
            let floats = arrow::compute::cast(&rates, &DataType::Float64).unwrap();
            assert_eq!(floats.as_primitive::<Float64Type>().values(), expect);
            rates.data_type().clone()
        };
        let ints =
            |values: Vec<Option<i64>>| -> Option<ArrayRef> { Some(Arc::new(Int64Array::from(values))) };
        assert_eq!(check(None, &[10.0; 3]), DataType::Int64);
        assert_eq!(check(ints(vec![Some(1), None, Some(7)]), &[10.0, 10.0, 70.0]), DataType::Int64);
        let large = ints(vec![Some(1), None, Some(i64::MAX)]);
        assert_eq!(check(large, &[10.0, 10.0, i64::MAX as f64 * 10.0]), DataType::Float64);
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), None, Some(0.25)]));
        assert_eq!(check(Some(floats), &[15.0, 10.0, 2.5]), DataType::Float64);
        let texts: ArrayRef = Arc::new(arrow::array::StringArray::from(vec!["a", "b", "c"]));
        assert!(!may_be_subsampled(&held(Some(texts), 3)));
    }
}
