//! Group keys by value: which group a combination of key values is.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimestampNanosecondType};
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use hashbrown::HashTable;

use crate::QueryError;
use crate::plan::Key;
use crate::sketch::{hash_bytes, hash_int};

/// Numbers combinations of key values, in the order they first came.
#[derive(Debug)]
pub(crate) enum Keys {
    /// No keys: everything is group 0.
    None,
    /// One key of ints or times.
    Int { data_type: DataType, table: HashTable<(i64, u32)>, values: Vec<Option<i64>>, null: Option<u32> },
    /// Anything else, in Arrow's row format.
    Rows { converter: Box<RowConverter>, table: HashTable<(u64, u32)>, rows: Vec<OwnedRow>, bytes: usize },
}

impl Keys {
    pub(crate) fn new(keys: &[Key]) -> Result<Keys, QueryError> {
        Ok(match keys {
            [] => Keys::None,
            [Key { data_type: data_type @ (DataType::Int64 | DataType::Timestamp(..)), .. }] if !matches!(data_type, DataType::Timestamp(unit, _) if *unit != arrow::datatypes::TimeUnit::Nanosecond) => {
                Keys::Int {
                    data_type: data_type.clone(),
                    table: HashTable::new(),
                    values: Vec::new(),
                    null: None,
                }
            }
            keys => {
                let fields = keys.iter().map(|key| SortField::new(key.data_type.clone())).collect();
                let converter = RowConverter::new(fields).map_err(|error| {
                    let types: Vec<String> = keys.iter().map(|key| key.data_type.to_string()).collect();
                    QueryError::UnsupportedType {
                        function: "group by".to_owned(),
                        data_type: format!("{} ({error})", types.join(", ")),
                    }
                })?;
                Keys::Rows {
                    converter: Box::new(converter),
                    table: HashTable::new(),
                    rows: Vec::new(),
                    bytes: 0,
                }
            }
        })
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Keys::None => 1,
            Keys::Int { values, .. } => values.len(),
            Keys::Rows { rows, .. } => rows.len(),
        }
    }

    /// The group of each row of these key columns, new ones at the end.
    pub(crate) fn number(&mut self, columns: &[ArrayRef], row_count: usize) -> Result<Vec<u32>, QueryError> {
        match self {
            Keys::None => Ok(vec![0; row_count]),
            Keys::Int { table, values, null, .. } => {
                let ints = ints_of(&columns[0])?;
                table.reserve(ints.len().saturating_sub(table.len()), |(value, _)| hash_int(*value));
                Ok((0..ints.len()).map(|row| number_int(table, values, null, &ints, row)).collect())
            }
            Keys::Rows { converter, table, rows, bytes } => {
                let new = converter
                    .convert_columns(columns)
                    .map_err(|error| QueryError::Mismatch(format!("group keys: {error}")))?;
                Ok((0..new.num_rows()).map(|row| number_row(table, rows, bytes, &new, row)).collect())
            }
        }
    }

    /// The key columns, one value a group.
    pub(crate) fn columns(self) -> Result<Vec<ArrayRef>, QueryError> {
        match self {
            Keys::None => Ok(vec![]),
            Keys::Int { data_type, values, .. } => {
                let ints: ArrayRef = Arc::new(Int64Array::from(values));
                let column =
                    cast(&ints, &data_type).map_err(|error| QueryError::Mismatch(error.to_string()))?;
                Ok(vec![column])
            }
            Keys::Rows { converter, rows, .. } => converter
                .convert_rows(rows.iter().map(OwnedRow::row))
                .map_err(|error| QueryError::Mismatch(format!("group keys: {error}"))),
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Keys::None => 0,
            Keys::Int { table, values, .. } => table.capacity() * 17 + values.capacity() * 16,
            Keys::Rows { table, rows, bytes, .. } => table.capacity() * 17 + rows.capacity() * 56 + bytes,
        }
    }
}

fn ints_of(column: &ArrayRef) -> Result<Int64Array, QueryError> {
    match column.data_type() {
        DataType::Int64 => Ok(column.as_primitive::<Int64Type>().clone()),
        DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, _) => {
            Ok(column.as_primitive::<TimestampNanosecondType>().reinterpret_cast())
        }
        other => Err(QueryError::Mismatch(format!("group key is {other}, not an int or a time"))),
    }
}

fn number_int(
    table: &mut HashTable<(i64, u32)>,
    values: &mut Vec<Option<i64>>,
    null: &mut Option<u32>,
    ints: &Int64Array,
    row: usize,
) -> u32 {
    let next = values.len() as u32;
    if ints.is_null(row) {
        return *null.get_or_insert_with(|| {
            values.push(None);
            next
        });
    }
    let value = ints.value(row);
    let entry = table.entry(hash_int(value), |(known, _)| *known == value, |(known, _)| hash_int(*known));
    let group = entry.or_insert_with(|| {
        values.push(Some(value));
        (value, next)
    });
    group.get().1
}

fn number_row(
    table: &mut HashTable<(u64, u32)>,
    rows: &mut Vec<OwnedRow>,
    bytes: &mut usize,
    new: &Rows,
    row: usize,
) -> u32 {
    let row = new.row(row);
    let hash = hash_bytes(row.as_ref());
    let next = rows.len() as u32;
    let found = table.find(hash, |(known, group)| *known == hash && rows[*group as usize].row() == row);
    if let Some((_, group)) = found {
        return *group;
    }
    *bytes += row.as_ref().len();
    rows.push(row.owned());
    table.insert_unique(hash, (hash, next), |(known, _)| *known);
    next
}
