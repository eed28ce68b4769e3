//! A row block: up to 65,536 sealed rows, encoded column by column in one image.
//!
//! Sealing ([`RowBlock::seal`]) turns row batches into an image; opening ([`RowBlock::open`]) turns an image, whoever
//! owns its bytes, back into a row block without copying or reading its buffers. A column is checked when it is first
//! touched ([`RowBlock::column`]) and costs nothing from then on. The bytes of an image are described in
//! `row_block/layout.rs` and nowhere else.
//!
//! Invariants: a row block never changes, and is dropped whole; every column has a value or NULL for every row;
//! `time` is one of the columns and never NULL; time min ≤ every row's time ≤ time max; no bytes of any image make it
//! panic.

mod cursor;
mod decode;
mod encode;
mod gather;
mod layout;
mod shape;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use gannet_query::{ColumnType, TIME_COLUMN};

use crate::column::{Column, codes_of};
use crate::text::Verified;
use crate::text::filter::may_contain;
pub use encode::Preference;
pub use gather::RowsError;
pub(crate) use gather::{Gathered, time_range, types_of};
use layout::Header;
pub use layout::{
    ALIGNMENT, COLUMNS_MAX, ColumnMeta, LAYOUT_VERSION, LAYOUT_VERSION_OLDEST, NAME_BYTES_MAX, ValueRange,
};

/// A row block holds at most this many rows.
pub const ROWS_PER_BLOCK_MAX: usize = 65_536;
/// What the allocator keeps for a column's name and the range of its texts, about.
const RANGE_BYTES: usize = 64;

/// Why a row block cannot be made or read. Whoever holds the image decides where to get the rows from instead.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum BlockError {
    /// The image as a whole is not what it must be.
    #[error("row block {block}: {what}")]
    Corrupt {
        /// Which block was expected.
        block: u64,
        /// What is wrong.
        what: String,
    },
    /// The image was written by a build with another layout.
    #[error("row block {block}: layout version {found}, this build reads {LAYOUT_VERSION}")]
    Version {
        /// Which block was expected.
        block: u64,
        /// Its layout version.
        found: u32,
    },
    /// The image is of another block.
    #[error("row block {found} is in the place of row block {expected}")]
    WrongBlock {
        /// Which block was expected.
        expected: u64,
        /// Which block it says it is.
        found: u64,
    },
    /// One column is not what it must be; others may be fine.
    #[error("row block {block}: column {column} {what}")]
    Column {
        /// Which block.
        block: u64,
        /// Which column.
        column: String,
        /// What is wrong.
        what: String,
    },
    /// The rows cannot be sealed.
    #[error("cannot seal row block {block}: {source}")]
    Seal {
        /// Which block.
        block: u64,
        /// What is wrong with the rows.
        source: RowsError,
    },
}

/// A row block. See the module.
pub struct RowBlock {
    image: Buffer,
    header: Header,
    /// In order of name.
    columns: Vec<ColumnMeta>,
    /// What is known of each column's buffers, once one was touched: a start opens thousands of blocks.
    touched: OnceLock<Box<[Touched]>>,
    /// Every byte of the image is known to be what was written.
    is_verified: bool,
    /// See [`RowBlock::directory_memory_bytes`], which is asked for all the time.
    directory_memory_bytes: u64,
}

/// What was learnt when a column was touched.
#[derive(Default)]
struct Touched {
    /// The checksums of its buffers were right, or were made by this process.
    verified: AtomicBool,
    /// The column, when keeping it costs no memory.
    column: OnceLock<Column>,
    /// The values of its dictionary, which never do.
    values: OnceLock<ArrayRef>,
    /// The checksum of the filter of its values is right.
    filter: OnceLock<bool>,
}

impl RowBlock {
    /// Encodes rows. Columns with different types among the batches get the least type that holds all; a column
    /// that a batch lacks is NULL there. Rows stay in their order.
    ///
    /// # Errors
    /// [`BlockError::Seal`] when there are no rows or too many, `time` is not what it must be, or a column is of no
    /// known type or too large.
    pub fn seal(id: u64, rows: &[RecordBatch]) -> Result<RowBlock, BlockError> {
        RowBlock::seal_with(id, rows, Preference::Best)
    }

    /// As [`RowBlock::seal`], in the encodings that are preferred.
    ///
    /// # Errors
    /// As [`RowBlock::seal`].
    pub fn seal_with(id: u64, rows: &[RecordBatch], preference: Preference) -> Result<RowBlock, BlockError> {
        RowBlock::encode(id, rows, preference).map_err(|source| BlockError::Seal { block: id, source })
    }

    fn encode(id: u64, rows: &[RecordBatch], preference: Preference) -> Result<RowBlock, RowsError> {
        let gathered = Gathered::of(rows)?;
        let row_count = gathered.row_count();
        if !(1..=ROWS_PER_BLOCK_MAX).contains(&row_count) {
            return Err(RowsError::Rows { rows: row_count, limit: ROWS_PER_BLOCK_MAX });
        }
        let mut encoded = Vec::with_capacity(gathered.columns().len());
        // One column at a time, so that the decoded form of only one is alive.
        for (name, column_type) in gathered.columns() {
            let coded = match preference {
                Preference::Best => gathered.coded(name, column_type),
                _ => None,
            };
            let coded = coded.and_then(|(parts, null_count)| encode::encode_coded(name, &parts, null_count));
            encoded.push(match coded {
                Some(column) => column,
                None => {
                    let array = gathered.column(name, column_type)?;
                    encode::encode(name, column_type, &array, preference)
                }
            });
        }
        let time = encoded.iter().find(|(column, _)| column.name == TIME_COLUMN);
        let (time_first, time_last) = time
            .and_then(|(column, _)| column.int_range())
            .ok_or_else(|| RowsError::Time("is absent".to_owned()))?;
        let header = Header { block_id: id, row_count, time_first, time_last };
        let image = layout::write(&header, &mut encoded);
        let columns: Vec<ColumnMeta> = encoded.into_iter().map(|(column, _)| column).collect();
        Ok(RowBlock { is_verified: true, ..RowBlock::of(image, header, columns) })
    }

    /// Opens an image that must be of the block `expected_id`. Checks header and directory, and reads no buffer.
    ///
    /// # Errors
    /// When anything about header or directory is not what [`RowBlock::seal`] writes.
    pub fn open(image: Buffer, expected_id: u64) -> Result<RowBlock, BlockError> {
        let (header, columns) = layout::read(&image, expected_id)?;
        let time = columns.iter().find(|column| column.name == TIME_COLUMN);
        let times = Some((header.time_first, header.time_last));
        if !time.is_some_and(|column| {
            column.column_type == ColumnType::Time && column.null_count == 0 && column.int_range() == times
        }) {
            let what = "column time does not have the time range of the header".to_owned();
            return Err(BlockError::Corrupt { block: expected_id, what });
        }
        Ok(RowBlock::of(image, header, columns))
    }

    fn of(image: Buffer, header: Header, columns: Vec<ColumnMeta>) -> RowBlock {
        let directory_memory_bytes =
            directory_memory_bytes(columns.iter().map(|column| column.name.as_str()));
        let touched = OnceLock::new();
        RowBlock { image, header, columns, touched, is_verified: false, directory_memory_bytes }
    }

    fn touched(&self) -> &[Touched] {
        let each = || Touched { verified: AtomicBool::new(self.is_verified), ..Touched::default() };
        self.touched.get_or_init(|| self.columns.iter().map(|_| each()).collect())
    }

    /// Opens an image whose bytes are known to be those that were written, by a checksum over all of them: its columns
    /// are not checked again when they are touched.
    ///
    /// # Errors
    /// As [`RowBlock::open`].
    pub fn open_verified(image: Buffer, expected_id: u64) -> Result<RowBlock, BlockError> {
        Ok(RowBlock { is_verified: true, ..RowBlock::open(image, expected_id)? })
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.header.block_id
    }

    /// Its rows, at least one.
    pub fn rows(&self) -> usize {
        self.header.row_count
    }

    /// The times of its oldest and its newest row.
    pub fn time_range(&self) -> (i64, i64) {
        (self.header.time_first, self.header.time_last)
    }

    /// Its bytes.
    pub fn image(&self) -> &Buffer {
        &self.image
    }

    /// Bytes that are kept beside the image, so that its directory need not be read again.
    pub fn directory_memory_bytes(&self) -> u64 {
        self.directory_memory_bytes
    }

    /// Its columns in order of name.
    pub fn columns(&self) -> &[ColumnMeta] {
        &self.columns
    }

    /// What is known of one column without touching it.
    pub fn column_meta(&self, name: &str) -> Option<&ColumnMeta> {
        self.index_of(name).map(|index| &self.columns[index])
    }

    /// The place of a column among the columns, and what is known of it; it is looked for in one place first.
    pub fn find(&self, name: &str, near: usize) -> Option<(usize, &ColumnMeta)> {
        let is_there = self.columns.get(near).is_some_and(|column| column.name == name);
        let place = if is_there { near } else { self.index_of(name)? };
        Some((place, &self.columns[place]))
    }

    /// A column, checked; `None` when the block lacks it, which reads as NULL.
    ///
    /// # Errors
    /// When its bytes are not those that were written.
    pub fn column(&self, name: &str) -> Result<Option<Column>, BlockError> {
        let Some(index) = self.index_of(name) else { return Ok(None) };
        let (meta, touched) = (&self.columns[index], &self.touched()[index]);
        if let Some(column) = touched.column.get() {
            return Ok(Some(column.clone()));
        }
        let verified = match touched.verified.load(Ordering::Acquire) {
            true => Verified::Before,
            false => {
                self.check_buffers(meta)?;
                Verified::No
            }
        };
        let column = self.decode(meta, verified, touched.values.get())?;
        touched.verified.store(true, Ordering::Release);
        if let Some(values) = decode::dictionary_values(&column) {
            touched.values.get_or_init(|| Arc::clone(values));
        }
        if decode::is_view(meta) {
            // Two threads may both come here; what they found is the same.
            return Ok(Some(touched.column.get_or_init(|| column).clone()));
        }
        Ok(Some(column))
    }

    /// The rows of a column at some ascending positions. Few of them are found without reading the others.
    ///
    /// # Errors
    /// As [`RowBlock::column`].
    pub fn column_at(&self, name: &str, rows: &[u32]) -> Result<Option<Column>, BlockError> {
        let Some(index) = self.index_of(name) else { return Ok(None) };
        let (meta, touched) = (&self.columns[index], &self.touched()[index]);
        let is_known = touched.verified.load(Ordering::Acquire) && touched.column.get().is_none();
        // Finding one row takes as long as unpacking this many.
        if is_known && rows.len() < self.rows() / 64 {
            let some = decode::decode_at(&self.image, meta, self.rows(), touched.values.get(), rows);
            if let Some(column) = some.map_err(|what| self.refuse(meta, what))? {
                return Ok(Some(column));
            }
        }
        Ok(self.column(name)?.map(|column| column.pick(rows)))
    }

    /// False when a string column certainly has no row with this value, or none with a value that begins with it: judged
    /// by its range, its filter and the dictionary that was read before, without touching the column.
    pub fn may_hold_text(&self, name: &str, value: &str, is_prefix: bool) -> bool {
        let Some(index) = self.index_of(name) else { return false };
        let (meta, touched) = (&self.columns[index], &self.touched()[index]);
        if meta.column_type != ColumnType::String {
            return true;
        }
        if let Some(ValueRange::Text(first, last)) = &meta.range {
            let prefix = &value.as_bytes()[..value.len().min(layout::PREFIX_BYTES)];
            let first = if is_prefix { &first[..first.len().min(prefix.len())] } else { &first[..] };
            if prefix < first || prefix > &last[..] {
                return false;
            }
        }
        if meta.stored.encoding.form().is_none() {
            // Of a dictionary that was read before.
            let values = touched.values.get().map(|values| values.as_string::<i32>());
            return meta.null_count < self.header.row_count as u64
                && values.is_none_or(|values| {
                    let (first, end) = codes_of(values, value, is_prefix);
                    first < end
                });
        }
        if is_prefix {
            return true;
        }
        let place = meta.stored.buffers[decode::TEXT_FILTER];
        let filter = &self.image[place.offset as usize..(place.offset + place.len) as usize];
        // A filter with wrong bytes must not hide a row: whoever then reads the column learns what is wrong.
        let is_sound = || {
            touched.verified.load(Ordering::Acquire)
                || layout::checksum(self.header.block_id, filter) == place.checksum
        };
        !*touched.filter.get_or_init(is_sound) || may_contain(filter, value)
    }

    /// Checks every byte that [`RowBlock::column`] would ever believe, also those that were checked before.
    ///
    /// # Errors
    /// The first column whose bytes are not those that were written.
    pub fn verify(&self) -> Result<(), BlockError> {
        for (meta, touched) in self.columns.iter().zip(self.touched()) {
            self.check_buffers(meta)?;
            self.decode(meta, Verified::No, None)?;
            touched.verified.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.binary_search_by(|column| column.name.as_str().cmp(name)).ok()
    }

    fn check_buffers(&self, meta: &ColumnMeta) -> Result<(), BlockError> {
        for (index, place) in meta.stored.buffers.iter().enumerate() {
            let bytes = &self.image[place.offset as usize..(place.offset + place.len) as usize];
            if layout::checksum(self.header.block_id, bytes) != place.checksum {
                return Err(self.refuse(meta, format!("has a buffer {index} whose checksum does not match")));
            }
        }
        Ok(())
    }

    fn decode(
        &self,
        meta: &ColumnMeta,
        verified: Verified,
        values: Option<&ArrayRef>,
    ) -> Result<Column, BlockError> {
        decode::decode(&self.image, meta, self.header.row_count, verified, values)
            .map_err(|what| self.refuse(meta, what))
    }

    fn refuse(&self, meta: &ColumnMeta, what: String) -> BlockError {
        BlockError::Column { block: self.header.block_id, column: meta.name.clone(), what }
    }
}

/// Bytes that a block with these columns keeps beside its image.
pub(crate) fn directory_memory_bytes<'a>(names: impl Iterator<Item = &'a str>) -> u64 {
    let each = size_of::<ColumnMeta>() + size_of::<Touched>() + RANGE_BYTES;
    names.fold(size_of::<RowBlock>(), |bytes, name| bytes + each + name.len()) as u64
}

impl fmt::Debug for RowBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowBlock")
            .field("id", &self.id())
            .field("rows", &self.rows())
            .field("columns", &self.columns.len())
            .field("bytes", &self.image.len())
            .finish()
    }
}
