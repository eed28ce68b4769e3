//! Open rows: the newest rows of a table, not yet encoded.
//!
//! They are an immutable list of immutable chunks. Adding rows makes a new list that shares the chunks it did not
//! touch, so whoever holds a list sees the same rows for as long as it likes, without a lock. Small neighbours are
//! merged as they come: a small chunk is always larger than the one after it, so n rows that arrive one by one
//! are in few chunks and are copied O(log n) times each. Chunks that are large already are never copied.
//!
//! Invariants: chunks have at least one row and are in order of arrival; each chunk keeps its own types, and every
//! column of a chunk has exactly the Arrow type of its column type, or is kept as [`crate::coded_texts`] says; a chunk knows
//! the number of each of its rows.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use gannet_query::{ColumnType, TIME_COLUMN, TypeSet};

use crate::coded_texts;
use crate::column::Column;
pub use crate::row_block::ROWS_PER_BLOCK_MAX;
use crate::row_block::{Gathered, RowsError, time_range, types_of};
use crate::row_ranges::{RowOrder, RowRanges};

/// What a column of a chunk takes beside its values, about: field, array, buffers, and what they are counted by.
const COLUMN_OVERHEAD_BYTES: usize = 1000;
/// Chunks are merged as long as the result has at most this many bytes: merging holds up other writers.
const MERGED_BYTES_MAX: usize = 16 << 20;
/// A chunk of this many rows stays as it is: scanning it costs no more than as a part of a larger one.
const UNMERGED_ROWS_MIN: usize = 4096;

/// Rows of at most this many bytes can always be sealed into one block, whatever they are. See
/// [`OpenRows::take_full`].
pub const SEAL_BYTES_MAX: usize = 1 << 30;

/// Open rows. See the module.
#[derive(Debug, Clone, Default)]
pub struct OpenRows {
    chunks: Vec<Arc<OpenChunk>>,
    rows: usize,
    bytes: usize,
}

/// Some open rows that arrived together or next to each other.
#[derive(Debug)]
pub struct OpenChunk {
    batch: RecordBatch,
    /// One for each column of the batch.
    columns: Vec<OpenColumn>,
    time_range: (i64, i64),
    bytes: usize,
    /// The number of each row.
    numbers: RowOrder,
}

#[derive(Debug)]
struct OpenColumn {
    types: TypeSet,
    bytes: usize,
}

impl OpenRows {
    /// Rows held.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The chunks, oldest arrival first.
    pub fn chunks(&self) -> &[Arc<OpenChunk>] {
        &self.chunks
    }

    /// The times of the oldest and the newest row.
    pub fn time_range(&self) -> Option<(i64, i64)> {
        self.chunks.iter().map(|chunk| chunk.time_range).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// These rows and some more. `self` stays as it is.
    pub fn append(&self, added: OpenChunk) -> OpenRows {
        // All neighbours that are to be merged are found first and copied once.
        let (mut rows, mut bytes) = (added.rows(), added.bytes);
        let mut kept = self.chunks.len();
        while let Some(last) = kept.checked_sub(1).map(|last| &self.chunks[last]) {
            let fits = rows + last.rows() <= ROWS_PER_BLOCK_MAX
                && bytes.saturating_add(last.bytes) <= MERGED_BYTES_MAX;
            if last.rows() > rows || last.rows() >= UNMERGED_ROWS_MIN || !fits {
                break;
            }
            kept -= 1;
            rows += last.rows();
            bytes += last.bytes;
        }
        let mut chunks = self.chunks[..kept].to_vec();
        match merged(&self.chunks[kept..], &added) {
            Some(merged) => chunks.push(Arc::new(merged)),
            None => {
                chunks.extend_from_slice(&self.chunks[kept..]);
                chunks.push(Arc::new(added));
            }
        }
        OpenRows::from_chunks(chunks)
    }

    /// The first `rows` rows and the others. A chunk in the middle is cut, without copying its values.
    ///
    /// # Errors
    /// Never for rows that [`OpenRows::append`] took.
    pub fn split(&self, rows: usize) -> Result<(OpenRows, OpenRows), RowsError> {
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        let mut wanted = rows;
        for chunk in &self.chunks {
            match wanted {
                0 => rest.push(Arc::clone(chunk)),
                _ if chunk.rows() <= wanted => first.push(Arc::clone(chunk)),
                _ => {
                    let (head, tail) =
                        (chunk.batch.slice(0, wanted), chunk.batch.slice(wanted, chunk.rows() - wanted));
                    let (head_numbers, tail_numbers) = chunk.numbers.split_at(wanted as u64);
                    first.push(Arc::new(OpenChunk::of(&[head], head_numbers)?));
                    rest.push(Arc::new(OpenChunk::of(&[tail], tail_numbers)?));
                }
            }
            wanted = wanted.saturating_sub(chunk.rows());
        }
        Ok((OpenRows::from_chunks(first), OpenRows::from_chunks(rest)))
    }

    /// The rows of the next block and the others, once there are enough for one: 65,536 rows, or more than
    /// `bytes_max` bytes, which is at most [`SEAL_BYTES_MAX`]. `None` until then.
    ///
    /// # Errors
    /// Never for rows that [`OpenRows::append`] took.
    pub fn take_full(&self, bytes_max: usize) -> Result<Option<(OpenRows, OpenRows)>, RowsError> {
        if self.rows < ROWS_PER_BLOCK_MAX && self.bytes <= bytes_max {
            return Ok(None);
        }
        let (mut rows, mut bytes) = (0, 0_usize);
        for chunk in &self.chunks {
            bytes = bytes.saturating_add(chunk.bytes);
            // One chunk always goes, however large it is.
            if rows > 0 && bytes > bytes_max {
                break;
            }
            rows += chunk.rows();
        }
        self.split(rows.min(ROWS_PER_BLOCK_MAX)).map(Some)
    }

    /// All rows, for sealing.
    pub fn batches(&self) -> Vec<RecordBatch> {
        self.chunks.iter().map(|chunk| chunk.batch.clone()).collect()
    }

    /// The numbers of all rows.
    pub fn numbers(&self) -> RowRanges {
        let mut numbers = RowRanges::default();
        self.chunks.iter().for_each(|chunk| numbers.union(&chunk.numbers.ranges()));
        numbers
    }

    /// Every type of every column.
    pub fn types(&self) -> BTreeMap<String, TypeSet> {
        let mut types: BTreeMap<String, TypeSet> = BTreeMap::new();
        for chunk in &self.chunks {
            for (name, column) in chunk.columns() {
                match types.get_mut(name) {
                    Some(known) => *known = known.union(column),
                    None => {
                        types.insert(name.to_owned(), column);
                    }
                }
            }
        }
        types
    }

    /// Of every column: its name, the rows that have a value, and its bytes.
    pub fn value_counts(&self) -> Vec<(String, u64, u64)> {
        let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for chunk in &self.chunks {
            for (index, field) in chunk.batch.schema_ref().fields().iter().enumerate() {
                let array = chunk.batch.column(index);
                let (values, bytes) =
                    ((array.len() - array.null_count()) as u64, chunk.columns[index].bytes as u64);
                match counts.entry(field.name()) {
                    Entry::Occupied(mut known) => {
                        known.get_mut().0 += values;
                        known.get_mut().1 += bytes;
                    }
                    Entry::Vacant(new) => {
                        new.insert((values, bytes));
                    }
                }
            }
        }
        counts.into_iter().map(|(name, (values, bytes))| (name.to_owned(), values, bytes)).collect()
    }

    fn from_chunks(chunks: Vec<Arc<OpenChunk>>) -> OpenRows {
        let rows = chunks.iter().map(|chunk| chunk.rows()).sum();
        let bytes = chunks.iter().map(|chunk| chunk.bytes).sum();
        OpenRows { chunks, rows, bytes }
    }
}

impl OpenChunk {
    /// Rows that are to be added, without their numbers: everything that can be wrong with them is found here.
    ///
    /// # Errors
    /// When there are none, `time` is not what it must be, or a column is of no known type or too large.
    pub fn new(rows: RecordBatch) -> Result<OpenChunk, RowsError> {
        OpenChunk::of(&[rows], RowOrder::default())
    }

    /// The same rows, numbered.
    pub fn numbered(self, numbers: RowOrder) -> OpenChunk {
        debug_assert_eq!(numbers.len(), self.rows() as u64);
        OpenChunk { numbers, ..self }
    }

    /// One chunk of some batches, which have at least one row together.
    fn of(batches: &[RecordBatch], numbers: RowOrder) -> Result<OpenChunk, RowsError> {
        let gathered = Gathered::of(batches)?;
        let mut fields = Vec::with_capacity(gathered.columns().len());
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(gathered.columns().len());
        let mut columns = Vec::with_capacity(gathered.columns().len());
        let (mut time, mut bytes) = (None, 0);
        for (name, column_type) in gathered.columns() {
            let array = match coded(batches, name).filter(|_| column_type == ColumnType::String) {
                Some(coded) => coded,
                None => gathered.column(name, column_type)?,
            };
            if name == TIME_COLUMN {
                time = time_range(&array);
            }
            let column = OpenColumn { types: types_of(name, &array)?, bytes: array_bytes(&array) };
            bytes += column.bytes;
            fields.push(Field::new(name, array.data_type().clone(), true));
            columns.push(column);
            arrays.push(array);
        }
        let absent = || RowsError::Time("is absent".to_owned());
        let time_range = time.ok_or_else(absent)?;
        // Only columns of different lengths could fail here, and all were made for the same rows.
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(|_| absent())?;
        bytes += columns.len() * COLUMN_OVERHEAD_BYTES;
        Ok(OpenChunk { batch, columns, time_range, bytes, numbers })
    }

    /// Its rows, at least one.
    pub fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// Its bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The times of its oldest and its newest row.
    pub fn time_range(&self) -> (i64, i64) {
        self.time_range
    }

    /// Its rows as they are; columns are in order of name.
    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// A column; `None` when the chunk lacks it, which reads as NULL.
    pub fn column(&self, name: &str) -> Option<Column> {
        let array = self.batch.column_by_name(name)?;
        Some(coded_texts::column(array).unwrap_or_else(|| Column::Plain(Arc::clone(array))))
    }

    /// The place of a column among the columns, and the types of its values.
    pub fn find(&self, name: &str) -> Option<(usize, TypeSet)> {
        self.batch.schema_ref().index_of(name).ok().map(|index| (index, self.columns[index].types))
    }

    /// Its columns with their types, in order of name.
    pub fn columns(&self) -> impl Iterator<Item = (&str, TypeSet)> {
        let fields = self.batch.schema_ref().fields().iter();
        fields.zip(&self.columns).map(|(field, column)| (field.name().as_str(), column.types))
    }
}

/// A column of one batch that came as a dictionary, as it is kept; `None` for any other, and where batches are merged.
fn coded(batches: &[RecordBatch], name: &str) -> Option<ArrayRef> {
    match batches {
        [batch] => coded_texts::kept(batch.column_by_name(name)?),
        _ => None,
    }
}

/// Chunks and one more as one; `None` when there is nothing to merge, or they do not fit together.
fn merged(chunks: &[Arc<OpenChunk>], added: &OpenChunk) -> Option<OpenChunk> {
    if chunks.is_empty() {
        return None;
    }
    let mut batches: Vec<RecordBatch> = chunks.iter().map(|chunk| chunk.batch.clone()).collect();
    batches.push(added.batch.clone());
    let mut numbers = RowOrder::default();
    chunks.iter().for_each(|chunk| numbers.extend(&chunk.numbers));
    numbers.extend(&added.numbers);
    OpenChunk::of(&batches, numbers).ok()
}

/// The bytes an array's own rows take. An array that is a slice of another one keeps more alive, but not for long:
/// it is copied when it is merged or sealed.
fn array_bytes(array: &ArrayRef) -> usize {
    let data = array.to_data();
    data.get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
}
