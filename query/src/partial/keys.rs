//! Group keys by value: which group a combination of key values is.
//!
//! A [`KeyForm`] turns key columns into a [`KeyBatch`] of plain keys: ints, or runs of bytes in one buffer (a text as it
//! is, the texts of a list one after the other, anything else in Arrow's row format). [`Keys`] numbers plain keys. Both know nothing of columns, so that batches
//! can be cut up and put in another order cheaply.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, AsArray, BooleanBufferBuilder, Int64Array, ListArray, StringArray,
    StringBuilder, new_empty_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type, TimeUnit, TimestampNanosecondType};
use arrow::row::{RowConverter, SortField};

use crate::QueryError;
use crate::plan::Key;
use crate::sketch::{hash_bytes, hash_int};
use crate::tables::{ByteTable, IntTable};

/// Stands for a NULL among texts, or among lists of texts: no UTF-8 text has this byte.
const NULL_TEXT: &[u8] = &[0xff];
/// Ends each item of a list of texts; no UTF-8 text has this byte.
const ITEM_END: u8 = 0xfe;

/// How the keys of a plan are held.
#[derive(Debug)]
pub(crate) enum KeyForm {
    /// No keys: everything is group 0.
    None,
    /// One key of ints or times.
    Int(DataType),
    /// One key of texts.
    Text,
    /// One key of lists of texts, whose items are this field.
    Texts(FieldRef),
    /// Anything else, in Arrow's row format.
    Rows(Box<RowConverter>, Vec<DataType>),
}

/// The keys of some groups.
#[derive(Debug)]
pub(crate) enum KeyBatch {
    None(usize),
    Int(ScalarBuffer<i64>, Option<NullBuffer>),
    Bytes { bytes: Vec<u8>, ends: Vec<usize> },
}

/// Numbers keys, in the order they first came.
#[derive(Debug)]
pub(crate) enum Keys {
    None,
    Int(IntTable),
    Bytes(ByteTable),
}

impl KeyForm {
    pub(crate) fn new(keys: &[Key]) -> Result<KeyForm, QueryError> {
        Ok(match keys {
            [] => KeyForm::None,
            [Key { data_type, .. }] => match data_type {
                DataType::Int64 | DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                    KeyForm::Int(data_type.clone())
                }
                DataType::Utf8 => KeyForm::Text,
                DataType::List(item) if item.data_type() == &DataType::Utf8 => KeyForm::Texts(item.clone()),
                _ => KeyForm::rows(keys)?,
            },
            keys => KeyForm::rows(keys)?,
        })
    }

    fn rows(keys: &[Key]) -> Result<KeyForm, QueryError> {
        let types: Vec<DataType> = keys.iter().map(|key| key.data_type.clone()).collect();
        let fields = types.iter().cloned().map(SortField::new).collect();
        let converter = RowConverter::new(fields).map_err(|error| {
            let types: Vec<String> = types.iter().map(DataType::to_string).collect();
            QueryError::UnsupportedType {
                function: "group by".to_owned(),
                data_type: format!("{} ({error})", types.join(", ")),
            }
        })?;
        Ok(KeyForm::Rows(Box::new(converter), types))
    }

    /// No keys yet.
    pub(crate) fn keys(&self) -> Keys {
        match self {
            KeyForm::None => Keys::None,
            KeyForm::Int(_) => Keys::Int(IntTable::default()),
            KeyForm::Text | KeyForm::Texts(_) | KeyForm::Rows(..) => Keys::Bytes(ByteTable::default()),
        }
    }

    /// The keys of these columns.
    pub(crate) fn batch(&self, columns: &[ArrayRef], row_count: usize) -> Result<KeyBatch, QueryError> {
        match self {
            KeyForm::None => Ok(KeyBatch::None(row_count)),
            KeyForm::Int(_) => {
                let (values, nulls) = ints_of(&columns[0])?;
                Ok(KeyBatch::Int(values, nulls.filter(|nulls| nulls.null_count() > 0)))
            }
            KeyForm::Text => {
                let texts = columns[0].as_string_opt::<i32>().ok_or_else(|| {
                    QueryError::Mismatch(format!("group key is {}, not a text", columns[0].data_type()))
                })?;
                let offsets = texts.value_offsets();
                let (first, end) = (offsets[0] as usize, offsets[texts.len()] as usize);
                if texts.null_count() == 0 {
                    let ends = offsets[1..].iter().map(|end| *end as usize - first).collect();
                    return Ok(KeyBatch::Bytes { bytes: texts.values()[first..end].to_vec(), ends });
                }
                let mut bytes = Vec::with_capacity(end - first + texts.null_count());
                let mut ends = Vec::with_capacity(texts.len());
                for text in texts {
                    bytes.extend_from_slice(text.map_or(NULL_TEXT, str::as_bytes));
                    ends.push(bytes.len());
                }
                Ok(KeyBatch::Bytes { bytes, ends })
            }
            KeyForm::Texts(_) => {
                let lists = columns[0].as_list_opt::<i32>();
                let texts = lists.and_then(|lists| lists.values().as_string_opt::<i32>());
                let (Some(lists), Some(texts)) = (lists, texts) else {
                    let text = format!("group key is {}, not a list of texts", columns[0].data_type());
                    return Err(QueryError::Mismatch(text));
                };
                Ok(texts_batch(lists, texts))
            }
            KeyForm::Rows(converter, _) => {
                let rows = converter
                    .convert_columns(columns)
                    .map_err(|error| QueryError::Mismatch(format!("group keys: {error}")))?;
                let mut bytes = Vec::with_capacity(rows.size());
                let mut ends = Vec::with_capacity(rows.num_rows());
                for row in &rows {
                    bytes.extend_from_slice(row.as_ref());
                    ends.push(bytes.len());
                }
                Ok(KeyBatch::Bytes { bytes, ends })
            }
        }
    }

    /// The key columns of several sets of keys, one after the other, one value a group.
    pub(crate) fn columns(&self, sets: &[&Keys]) -> Result<Vec<ArrayRef>, QueryError> {
        let mismatch = |error: arrow::error::ArrowError| QueryError::Mismatch(format!("group keys: {error}"));
        if sets.iter().all(|keys| keys.len() == 0) {
            return Ok(self.empty_columns());
        }
        match self {
            KeyForm::None => Ok(vec![]),
            KeyForm::Int(data_type) => {
                let mut values: Vec<i64> = Vec::with_capacity(sets.iter().map(|keys| keys.len()).sum());
                let mut null = None;
                for keys in sets {
                    if let Keys::Int(table) = keys {
                        null = null.or(table.null().map(|number| values.len() + number as usize));
                        values.extend_from_slice(table.values());
                    }
                }
                let nulls = null.map(|null| NullBuffer::from_iter((0..values.len()).map(|i| i != null)));
                let ints: ArrayRef = Arc::new(Int64Array::new(values.into(), nulls));
                Ok(vec![cast(&ints, data_type).map_err(mismatch)?])
            }
            KeyForm::Text => {
                let bytes = bytes_of_array(sets)?;
                let mut texts = StringBuilder::with_capacity(sets.iter().map(|keys| keys.len()).sum(), bytes);
                for entry in entries(sets) {
                    match entry {
                        NULL_TEXT => texts.append_null(),
                        text => texts.append_value(text_of(text)?),
                    }
                }
                Ok(vec![Arc::new(texts.finish())])
            }
            KeyForm::Texts(item) => Ok(vec![texts_column(item, sets)?]),
            KeyForm::Rows(converter, _) => {
                let parser = converter.parser();
                converter.convert_rows(entries(sets).map(|entry| parser.parse(entry))).map_err(mismatch)
            }
        }
    }

    fn empty_columns(&self) -> Vec<ArrayRef> {
        match self {
            KeyForm::None => vec![],
            KeyForm::Int(data_type) => vec![new_empty_array(data_type)],
            KeyForm::Text => vec![new_empty_array(&DataType::Utf8)],
            KeyForm::Texts(item) => vec![new_empty_array(&DataType::List(item.clone()))],
            KeyForm::Rows(_, types) => types.iter().map(new_empty_array).collect(),
        }
    }
}

fn entries<'a>(sets: &'a [&Keys]) -> impl Iterator<Item = &'a [u8]> {
    let tables = sets.iter().filter_map(|keys| match keys {
        Keys::Bytes(table) => Some(table),
        Keys::None | Keys::Int(_) => None,
    });
    tables.flat_map(|table| table.iter().map(|(_, entry)| entry))
}

/// The bytes of all entries, which one array can hold.
fn bytes_of_array(sets: &[&Keys]) -> Result<usize, QueryError> {
    let bytes = entries(sets).map(<[u8]>::len).sum::<usize>();
    match i32::try_from(bytes) {
        Ok(_) => Ok(bytes),
        Err(_) => Err(QueryError::Mismatch(format!("{bytes} bytes of group keys exceed an array"))),
    }
}

fn text_of(bytes: &[u8]) -> Result<&str, QueryError> {
    std::str::from_utf8(bytes).map_err(|error| QueryError::Mismatch(format!("group keys: {error}")))
}

/// Each list as its items, one after the other.
fn texts_batch(lists: &ListArray, texts: &StringArray) -> KeyBatch {
    let mut bytes = Vec::with_capacity(texts.values().len() + texts.len() + lists.null_count());
    let mut ends = Vec::with_capacity(lists.len());
    for (row, places) in lists.value_offsets().windows(2).enumerate() {
        match lists.is_null(row) {
            true => bytes.extend_from_slice(NULL_TEXT),
            false => (places[0] as usize..places[1] as usize).for_each(|item| {
                let is_null = texts.is_null(item);
                bytes.extend_from_slice(if is_null { NULL_TEXT } else { texts.value(item).as_bytes() });
                bytes.push(ITEM_END);
            }),
        }
        ends.push(bytes.len());
    }
    KeyBatch::Bytes { bytes, ends }
}

/// The lists that [`texts_batch`] wrote down.
fn texts_column(item: &FieldRef, sets: &[&Keys]) -> Result<ArrayRef, QueryError> {
    let bytes = bytes_of_array(sets)?;
    let count = sets.iter().map(|keys| keys.len()).sum();
    let mut texts = StringBuilder::with_capacity(count, bytes);
    let mut ends = Vec::with_capacity(count + 1);
    let mut is_valid = BooleanBufferBuilder::new(count);
    ends.push(0);
    for entry in entries(sets) {
        is_valid.append(entry != NULL_TEXT);
        // What is behind the last end is nothing, or says that the list is NULL.
        for item in entry.split_inclusive(|byte| *byte == ITEM_END) {
            match item.split_last() {
                Some((&ITEM_END, NULL_TEXT)) => texts.append_null(),
                Some((&ITEM_END, text)) => texts.append_value(text_of(text)?),
                _ => {}
            }
        }
        ends.push(texts.len() as i32);
    }
    let nulls = Some(NullBuffer::new(is_valid.finish())).filter(|nulls| nulls.null_count() > 0);
    let lists =
        ListArray::try_new(item.clone(), OffsetBuffer::new(ends.into()), Arc::new(texts.finish()), nulls);
    lists
        .map(|lists| Arc::new(lists) as ArrayRef)
        .map_err(|error| QueryError::Mismatch(format!("group keys: {error}")))
}

fn ints_of(column: &ArrayRef) -> Result<(ScalarBuffer<i64>, Option<NullBuffer>), QueryError> {
    match column.data_type() {
        DataType::Int64 => {
            let ints = column.as_primitive::<Int64Type>();
            Ok((ints.values().clone(), ints.nulls().cloned()))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let times = column.as_primitive::<TimestampNanosecondType>();
            Ok((times.values().clone(), times.nulls().cloned()))
        }
        other => Err(QueryError::Mismatch(format!("group key is {other}, not an int or a time"))),
    }
}

impl KeyBatch {
    pub(crate) fn len(&self) -> usize {
        match self {
            KeyBatch::None(rows) => *rows,
            KeyBatch::Int(values, _) => values.len(),
            KeyBatch::Bytes { ends, .. } => ends.len(),
        }
    }

    fn entry(bytes: &[u8], ends: &[usize], row: usize) -> Range<usize> {
        debug_assert!(ends[row] <= bytes.len());
        (if row == 0 { 0 } else { ends[row - 1] })..ends[row]
    }

    /// A good hash of each key.
    pub(crate) fn hashes(&self) -> Vec<u64> {
        match self {
            KeyBatch::None(rows) => vec![0; *rows],
            KeyBatch::Int(values, None) => values.iter().map(|value| hash_int(*value)).collect(),
            KeyBatch::Int(values, Some(nulls)) => {
                let hash = |(value, valid): (&i64, bool)| if valid { hash_int(*value) } else { 0 };
                values.iter().zip(nulls).map(hash).collect()
            }
            KeyBatch::Bytes { bytes, ends } => {
                (0..ends.len()).map(|row| hash_bytes(&bytes[Self::entry(bytes, ends, row)])).collect()
            }
        }
    }

    /// What [`Keys::number`] wants to have of the hashes of these keys: ints are hashed faster than a hash is read.
    pub(crate) fn tags(&self, hashes: impl Iterator<Item = u64>) -> Vec<u32> {
        match self {
            KeyBatch::None(_) | KeyBatch::Int(..) => Vec::new(),
            KeyBatch::Bytes { .. } => hashes.map(|hash| hash as u32).collect(),
        }
    }

    /// These keys, in this order.
    pub(crate) fn take(&self, order: &[u32]) -> KeyBatch {
        match self {
            KeyBatch::None(_) => KeyBatch::None(order.len()),
            KeyBatch::Int(values, nulls) => {
                let taken = order.iter().map(|row| values[*row as usize]).collect();
                let nulls = nulls.as_ref().map(|nulls| {
                    NullBuffer::from_iter(order.iter().map(|row| nulls.is_valid(*row as usize)))
                });
                KeyBatch::Int(taken, nulls)
            }
            KeyBatch::Bytes { bytes, ends } => {
                let mut taken = KeyBatch::empty_bytes(bytes.len(), order.len());
                if let KeyBatch::Bytes { bytes: taken_bytes, ends: taken_ends } = &mut taken {
                    for row in order {
                        taken_bytes.extend_from_slice(&bytes[Self::entry(bytes, ends, *row as usize)]);
                        taken_ends.push(taken_bytes.len());
                    }
                }
                taken
            }
        }
    }

    fn empty_bytes(bytes: usize, rows: usize) -> KeyBatch {
        KeyBatch::Bytes { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(rows) }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            KeyBatch::None(_) => 0,
            KeyBatch::Int(values, _) => values.len() * 8,
            KeyBatch::Bytes { bytes, ends } => bytes.capacity() + ends.capacity() * 8,
        }
    }
}

impl Keys {
    pub(crate) fn len(&self) -> usize {
        match self {
            Keys::None => 1,
            Keys::Int(table) => table.len(),
            Keys::Bytes(table) => table.len(),
        }
    }

    /// The group of each of these rows of a batch, new ones at the end. `tags` are all of the batch's.
    pub(crate) fn number(
        &mut self,
        batch: &KeyBatch,
        tags: &[u32],
        rows: Range<usize>,
    ) -> Result<Vec<u32>, QueryError> {
        match (self, batch) {
            (Keys::None, KeyBatch::None(_)) => Ok(vec![0; rows.len()]),
            (Keys::Int(table), KeyBatch::Int(values, nulls)) => {
                let mut numbers = Vec::with_capacity(rows.len());
                match nulls {
                    None => table.number_all(&values[rows], &mut numbers),
                    Some(nulls) => rows.for_each(|row| match nulls.is_valid(row) {
                        true => table.number_all(&values[row..=row], &mut numbers),
                        false => numbers.push(table.number_null()),
                    }),
                }
                Ok(numbers)
            }
            (Keys::Bytes(table), KeyBatch::Bytes { bytes, ends }) => Ok(rows
                .map(|row| table.number(tags[row], &bytes[KeyBatch::entry(bytes, ends, row)]))
                .collect()),
            _ => Err(QueryError::Mismatch("group keys of different types".to_owned())),
        }
    }

    /// These keys alone, which are distinct.
    pub(crate) fn some(&self, numbers: &[u32]) -> Keys {
        match self {
            Keys::None => Keys::None,
            Keys::Int(table) => Keys::Int(table.some(numbers)),
            Keys::Bytes(table) => Keys::Bytes(table.some(numbers)),
        }
    }

    /// As [`KeyBatch::tags`], of these keys, which know them.
    pub(crate) fn tags(&self) -> Vec<u32> {
        match self {
            Keys::None | Keys::Int(_) => Vec::new(),
            Keys::Bytes(table) => table.iter().map(|(tag, _)| tag).collect(),
        }
    }

    /// The keys as a batch.
    pub(crate) fn to_batch(&self) -> KeyBatch {
        match self {
            Keys::None => KeyBatch::None(1),
            Keys::Int(table) => {
                let nulls = table
                    .null()
                    .map(|null| NullBuffer::from_iter((0..table.len()).map(|row| row != null as usize)));
                KeyBatch::Int(ScalarBuffer::from(table.values().to_vec()), nulls)
            }
            Keys::Bytes(table) => {
                let mut batch = KeyBatch::empty_bytes(0, table.len());
                if let KeyBatch::Bytes { bytes, ends } = &mut batch {
                    for (_, entry) in table.iter() {
                        bytes.extend_from_slice(entry);
                        ends.push(bytes.len());
                    }
                }
                batch
            }
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Keys::None => 0,
            Keys::Int(table) => table.memory_bytes(),
            Keys::Bytes(table) => table.memory_bytes(),
        }
    }
}
