//! Many row batches as one run of rows: each column once, in the least type that holds all its values.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{Int64Type, TimestampNanosecondType};
use gannet_query::{ColumnType, TIME_COLUMN, TypeSet};

use super::decode::TEXT_BYTES_MAX;
use super::encode::is_wide;
use super::layout::{COLUMNS_MAX, NAME_BYTES_MAX};
use crate::cast::{CastError, cast_column, held_type};
use crate::coded_texts::{self, Part, unpacked_bytes};

/// Why rows cannot be kept.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum RowsError {
    /// The column `time` is absent, of another type, or NULL somewhere.
    #[error("column time {0}")]
    Time(String),
    /// A batch has two columns of one name.
    #[error("column {0} is twice in one row batch")]
    Duplicate(String),
    /// A column's name is empty or too long.
    #[error("name of a column has {bytes} bytes, it must have 1 to {limit}")]
    Name {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many columns.
    #[error("rows have {columns} columns, the limit is {limit}")]
    Columns {
        /// How many there are.
        columns: usize,
        /// The limit.
        limit: usize,
    },
    /// More rows than one run can have, or none.
    #[error("{rows} rows are no run of 1 to {limit} rows")]
    Rows {
        /// How many there are.
        rows: usize,
        /// The limit.
        limit: usize,
    },
    /// The text of one column would not fit into one array.
    #[error("column {column} has {bytes} bytes of text, the limit is {limit}")]
    Size {
        /// Which column.
        column: String,
        /// Its bytes.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A column is of no type that is kept.
    #[error("column {column}: {source}")]
    Cast {
        /// Which column.
        column: String,
        /// What is wrong with it.
        source: CastError,
    },
}

/// The columns of some row batches, by name.
pub(crate) struct Gathered<'a> {
    rows: &'a [RecordBatch],
    row_count: usize,
    columns: BTreeMap<&'a str, TypeSet>,
}

impl<'a> Gathered<'a> {
    /// Checks row batches and finds the type of each column.
    pub(crate) fn of(rows: &'a [RecordBatch]) -> Result<Gathered<'a>, RowsError> {
        let mut columns: BTreeMap<&str, TypeSet> = BTreeMap::new();
        for batch in rows {
            check_batch(batch)?;
            for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
                let types = types_of(field.name(), array)?;
                let known = columns.entry(field.name()).or_default();
                *known = known.union(types);
            }
        }
        if columns.len() > COLUMNS_MAX {
            return Err(RowsError::Columns { columns: columns.len(), limit: COLUMNS_MAX });
        }
        Ok(Gathered { rows, row_count: rows.iter().map(RecordBatch::num_rows).sum(), columns })
    }

    /// Rows of all batches.
    pub(crate) fn row_count(&self) -> usize {
        self.row_count
    }

    /// Names and types in order of name.
    pub(crate) fn columns(&self) -> impl ExactSizeIterator<Item = (&'a str, ColumnType)> + '_ {
        // A set that came from an array is never empty.
        self.columns.iter().map(|(name, types)| (*name, types.resolve().unwrap_or(ColumnType::String)))
    }

    /// The parts of a column whose texts all came as dictionaries, and its NULLs; `None` for any other.
    pub(crate) fn coded(&self, name: &str, column_type: ColumnType) -> Option<(Vec<Part>, usize)> {
        if column_type != ColumnType::String {
            return None;
        }
        let mut null_count = 0;
        let part = |batch: &RecordBatch| match batch.column_by_name(name) {
            Some(array) => {
                null_count += array.null_count();
                coded_texts::part(&coded_texts::kept(array)?)
            }
            None => {
                null_count += batch.num_rows();
                Some(Part::Absent(batch.num_rows()))
            }
        };
        let parts = self.rows.iter().map(part).collect::<Option<Vec<Part>>>()?;
        Some((parts, null_count))
    }

    /// The values of one column; rows of a batch that lacks it are NULL.
    pub(crate) fn column(&self, name: &str, column_type: ColumnType) -> Result<ArrayRef, RowsError> {
        let failed = |source| RowsError::Cast { column: name.to_owned(), source };
        let mut arrays = Vec::with_capacity(self.rows.len());
        let mut bytes = 0;
        for batch in self.rows.iter().filter(|batch| batch.num_rows() > 0) {
            let array = match batch.column_by_name(name) {
                Some(array) if unpacked_bytes(array).is_some_and(|bytes| bytes > TEXT_BYTES_MAX) => {
                    let bytes = unpacked_bytes(array).unwrap_or_default();
                    return Err(RowsError::Size { column: name.to_owned(), bytes, limit: TEXT_BYTES_MAX });
                }
                Some(array) => cast_column(array, column_type).map_err(failed)?,
                None => new_null_array(&column_type.arrow(), batch.num_rows()),
            };
            bytes += text_bytes(&array);
            arrays.push(array);
        }
        let too_large = || RowsError::Size { column: name.to_owned(), bytes, limit: TEXT_BYTES_MAX };
        if bytes > TEXT_BYTES_MAX {
            return Err(too_large());
        }
        if let [array] = &arrays[..] {
            return Ok(Arc::clone(array));
        }
        let arrays: Vec<&dyn Array> = arrays.iter().map(|array| array.as_ref()).collect();
        // All arrays have one type, so only their size is left to fail.
        arrow::compute::concat(&arrays).map_err(|_| too_large())
    }
}

fn check_batch(batch: &RecordBatch) -> Result<(), RowsError> {
    let mut names: Vec<&str> =
        batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(RowsError::Duplicate(pair[0].to_owned()));
    }
    if let Some(name) = names.iter().find(|name| !(1..=NAME_BYTES_MAX).contains(&name.len())) {
        return Err(RowsError::Name { bytes: name.len(), limit: NAME_BYTES_MAX });
    }
    let time = batch.column_by_name(TIME_COLUMN).ok_or_else(|| RowsError::Time("is absent".to_owned()))?;
    if ColumnType::from_arrow(time.data_type()) != Some(ColumnType::Time) {
        return Err(RowsError::Time(format!("has the Arrow type {}", time.data_type())));
    }
    match time.null_count() {
        0 => Ok(()),
        nulls => Err(RowsError::Time(format!("is NULL in {nulls} rows"))),
    }
}

/// The type of an array, and whether it holds ints that no float represents.
pub(crate) fn types_of(name: &str, array: &ArrayRef) -> Result<TypeSet, RowsError> {
    let column_type = held_type(array.data_type()).ok_or_else(|| RowsError::Cast {
        column: name.to_owned(),
        source: CastError::ArrowType(array.data_type().clone()),
    })?;
    let wide = array.as_primitive_opt::<Int64Type>().is_some_and(|ints| {
        let ends = [arrow::compute::min(ints), arrow::compute::max(ints)];
        ends.into_iter().flatten().any(is_wide)
    });
    Ok(TypeSet::of(column_type, wide))
}

/// The oldest and the newest time of rows that were checked; `None` when there are no rows.
pub(crate) fn time_range(array: &ArrayRef) -> Option<(i64, i64)> {
    let times = array.as_primitive_opt::<TimestampNanosecondType>()?;
    Some((arrow::compute::min(times)?, arrow::compute::max(times)?))
}

/// Bytes of the text of an array, also of the items of lists.
fn text_bytes(array: &ArrayRef) -> u64 {
    if let Some(texts) = array.as_string_opt::<i32>() {
        let offsets = texts.value_offsets();
        return (offsets[texts.len()] - offsets[0]) as u64;
    }
    let Some(lists) = array.as_list_opt::<i32>() else { return 0 };
    let offsets = lists.value_offsets();
    let (first, last) = (offsets[0] as usize, offsets[lists.len()] as usize);
    let Some(items) = lists.values().as_string_opt::<i32>() else { return 0 };
    (items.value_offsets()[last] - items.value_offsets()[first]) as u64
}
