//! Ids of the values of one group key, in order of first appearance.
//!
//! The same value has the same id whatever run it comes from, so that groups can meet by ids.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, TimeUnit};
use gannet_query::{ColumnType, QueryError};
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::ScanError;
use super::coder::Numbers;
use super::columns::int_array;
use super::readers::int_parts;

/// See the module.
#[derive(Debug)]
pub(super) enum KeyIds {
    Ints(Numbers, ColumnType),
    Texts(Texts),
}

#[derive(Debug, Default)]
pub(super) struct Texts {
    table: HashTable<(u64, u32)>,
    /// Where each text ends.
    ends: Vec<usize>,
    bytes: Vec<u8>,
    null: Option<u32>,
}

impl KeyIds {
    /// Of a key of this type; `None` where such values have no ids.
    pub(super) fn of(data_type: &DataType) -> Option<KeyIds> {
        match data_type {
            DataType::Int64 => Some(KeyIds::Ints(Numbers::default(), ColumnType::Int)),
            DataType::Timestamp(TimeUnit::Nanosecond, _) if data_type == &ColumnType::Time.arrow() => {
                Some(KeyIds::Ints(Numbers::default(), ColumnType::Time))
            }
            DataType::Utf8 => Some(KeyIds::Texts(Texts::default())),
            _ => None,
        }
    }

    /// Without values, for a key of the same type.
    pub(super) fn of_same_type(&self) -> KeyIds {
        match self {
            KeyIds::Ints(_, column_type) => KeyIds::Ints(Numbers::default(), *column_type),
            KeyIds::Texts(_) => KeyIds::Texts(Texts::default()),
        }
    }

    /// The id of each value.
    pub(super) fn number(&mut self, values: &ArrayRef) -> Result<Vec<u32>, ScanError> {
        match self {
            KeyIds::Ints(numbers, _) => {
                let (ints, nulls) = int_parts(values).ok_or_else(|| other_type(values))?;
                let id = |(place, value): (usize, &i64)| match nulls.as_ref() {
                    Some(nulls) if nulls.is_null(place) => numbers.number_null(),
                    _ => numbers.number(*value as u64),
                };
                Ok(ints.iter().enumerate().map(id).collect())
            }
            KeyIds::Texts(texts) => {
                let array = values.as_string_opt::<i32>().ok_or_else(|| other_type(values))?;
                texts.table.reserve(array.len(), |(hash, _)| *hash);
                Ok(array.iter().map(|text| texts.number(text)).collect())
            }
        }
    }

    /// How many values have ids.
    pub(super) fn len(&self) -> usize {
        match self {
            KeyIds::Ints(numbers, _) => numbers.values.len(),
            KeyIds::Texts(texts) => texts.ends.len(),
        }
    }

    /// The ids here of all values of another.
    pub(super) fn numbers_of(&mut self, other: &KeyIds) -> Vec<u32> {
        match (self, other) {
            (KeyIds::Ints(ours, _), KeyIds::Ints(theirs, _)) => {
                let id = |(at, value): (usize, &u64)| match theirs.null == Some(at as u32) {
                    true => ours.number_null(),
                    false => ours.number(*value),
                };
                theirs.values.iter().enumerate().map(id).collect()
            }
            (KeyIds::Texts(ours), KeyIds::Texts(theirs)) => {
                (0..theirs.ends.len() as u32).map(|id| ours.number(theirs.get(id))).collect()
            }
            // The keys of one plan are of the same types on all threads.
            (KeyIds::Ints(..) | KeyIds::Texts(_), _) => Vec::new(),
        }
    }

    /// The values of some ids.
    pub(super) fn values(&self, ids: &[u32]) -> ArrayRef {
        match self {
            KeyIds::Ints(numbers, column_type) => {
                let nulls = numbers.null.filter(|null| ids.contains(null));
                let nulls = nulls.map(|null| NullBuffer::from_iter(ids.iter().map(|id| *id != null)));
                let values = ids.iter().map(|id| numbers.values[*id as usize] as i64).collect();
                int_array(values, nulls, *column_type)
            }
            // So many that each is there several times: all are made, once.
            KeyIds::Texts(texts) if ids.len() > texts.ends.len() => {
                let all: StringArray = (0..texts.ends.len() as u32).map(|id| texts.get(id)).collect();
                take(&all, &UInt32Array::from(ids.to_vec()), None).unwrap_or_else(|_| texts.values(ids))
            }
            KeyIds::Texts(texts) => texts.values(ids),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            KeyIds::Ints(numbers, _) => numbers.values.len() * 32,
            KeyIds::Texts(texts) => texts.bytes.len() + texts.ends.len() * 32,
        }
    }
}

pub(super) fn other_type(values: &ArrayRef) -> ScanError {
    ScanError::Query(QueryError::Mismatch(format!("a group key of type {}", values.data_type())))
}

impl Texts {
    fn number(&mut self, text: Option<&str>) -> u32 {
        let next = self.ends.len() as u32;
        let Some(text) = text else {
            let null = *self.null.get_or_insert(next);
            if null == next {
                self.ends.push(self.bytes.len());
            }
            return null;
        };
        let hash = xxh3_64(text.as_bytes());
        let (ends, bytes) = (&self.ends, &self.bytes);
        let is_same = |(known, id): &(u64, u32)| {
            *known == hash && Some(*id) != self.null && bytes_of(ends, bytes, *id) == text.as_bytes()
        };
        if let Some((_, id)) = self.table.find(hash, is_same) {
            return *id;
        }
        self.table.insert_unique(hash, (hash, next), |(hash, _)| *hash);
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.bytes.len());
        next
    }

    fn values(&self, ids: &[u32]) -> ArrayRef {
        Arc::new(ids.iter().map(|id| self.get(*id)).collect::<StringArray>())
    }

    fn get(&self, id: u32) -> Option<&str> {
        // Only whole texts were put in.
        (Some(id) != self.null)
            .then(|| std::str::from_utf8(bytes_of(&self.ends, &self.bytes, id)).unwrap_or_default())
    }
}

fn bytes_of<'a>(ends: &[usize], bytes: &'a [u8], id: u32) -> &'a [u8] {
    let start = if id == 0 { 0 } else { ends[id as usize - 1] };
    &bytes[start..ends[id as usize]]
}
