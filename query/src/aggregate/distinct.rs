//! Distinct values, exact and approximate.
//!
//! A value is known by its plain form: ints, times and bools as i64, floats by their bits after -0.0 became 0.0 and
//! every NaN the same NaN, texts by their bytes, lists by their texts with lengths.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, Int64Builder, ListBuilder};
use arrow::datatypes::{DataType, Field, Int64Type};
use hashbrown::HashSet;

use super::scalars::{Kind, expect, kind_for, to_floats, to_ints, to_texts, without_nulls};
use super::{Input, Values};
use crate::QueryError;
use crate::sketch::{HyperLogLog, hash_bytes, hash_int};

/// The form in which a distinct value is known.
#[derive(Debug, Clone, Copy)]
enum Known<'a> {
    Int(i64),
    Bytes(&'a [u8]),
}

/// A float as the integer it is known by.
fn float_key(value: f64) -> i64 {
    let value = if value == 0.0 { 0.0 } else { value };
    (if value.is_nan() { f64::NAN } else { value }).to_bits() as i64
}

/// Calls `visit` with the group and form of every row that has a value.
fn for_each(
    groups: &[u32],
    input: &Input<'_>,
    kind: Kind,
    mut visit: impl FnMut(u32, Known<'_>),
) -> Result<(), QueryError> {
    let valid = |row: usize| input.validity.is_none_or(|validity| validity.is_valid(row));
    match input.values {
        Values::None => {}
        Values::Int(values) => {
            for (row, group) in groups.iter().enumerate().filter(|(row, _)| valid(*row)) {
                visit(*group, Known::Int(values[row]));
            }
        }
        Values::Float(values) => {
            for (row, group) in groups.iter().enumerate().filter(|(row, _)| valid(*row)) {
                visit(*group, Known::Int(float_key(values[row])));
            }
        }
        Values::Codes(codes, distinct) => {
            each_of_array(groups, distinct, kind, |row| valid(row).then(|| codes[row] as usize), visit)?;
        }
        Values::Array(array) => each_of_array(groups, array, kind, |row| valid(row).then_some(row), visit)?,
    }
    Ok(())
}

fn each_of_array(
    groups: &[u32],
    array: &ArrayRef,
    kind: Kind,
    place: impl Fn(usize) -> Option<usize>,
    mut visit: impl FnMut(u32, Known<'_>),
) -> Result<(), QueryError> {
    let places = groups.iter().enumerate().filter_map(|(row, group)| {
        let place = place(row)?;
        (place < array.len() && array.is_valid(place)).then_some((*group, place))
    });
    match kind {
        Kind::Int => {
            let ints = to_ints(array)?;
            places.for_each(|(group, place)| visit(group, Known::Int(ints.value(place))));
        }
        Kind::Float => {
            let floats = to_floats(array)?;
            places.for_each(|(group, place)| visit(group, Known::Int(float_key(floats.value(place)))));
        }
        Kind::Text => {
            let texts = to_texts(array)?;
            places.for_each(|(group, place)| visit(group, Known::Bytes(texts.value(place).as_bytes())));
        }
        Kind::Texts => {
            let lists = array.as_list::<i32>();
            let mut bytes = Vec::new();
            for (group, place) in places {
                bytes.clear();
                for item in lists.value(place).as_string::<i32>().iter() {
                    let item = item.unwrap_or_default();
                    bytes.extend_from_slice(&(item.len() as u32).to_le_bytes());
                    bytes.extend_from_slice(item.as_bytes());
                }
                visit(group, Known::Bytes(&bytes));
            }
        }
    }
    Ok(())
}

/// The values of one group.
#[derive(Debug, Clone)]
enum Set {
    Ints(HashSet<i64>),
    Bytes(HashSet<Box<[u8]>>),
}

/// Exact distinct values a group.
#[derive(Debug, Clone)]
pub(crate) struct Distinct {
    kind: Kind,
    sets: Vec<Set>,
    text_bytes: usize,
}

impl Distinct {
    pub(crate) fn new(data_type: &DataType) -> Result<Distinct, QueryError> {
        Ok(Distinct { kind: kind_for("count(distinct)", data_type)?, sets: Vec::new(), text_bytes: 0 })
    }

    fn is_ints(kind: Kind) -> bool {
        matches!(kind, Kind::Int | Kind::Float)
    }

    pub(crate) fn len(&self) -> usize {
        self.sets.len()
    }

    pub(crate) fn resize(&mut self, group_count: usize) {
        let empty =
            if Self::is_ints(self.kind) { Set::Ints(HashSet::new()) } else { Set::Bytes(HashSet::new()) };
        self.sets.resize(group_count, empty);
    }

    fn insert(sets: &mut [Set], text_bytes: &mut usize, group: u32, value: Known<'_>) {
        match (&mut sets[group as usize], value) {
            (Set::Ints(set), Known::Int(int)) => {
                set.insert(int);
            }
            (Set::Bytes(set), Known::Bytes(bytes)) if !set.contains(bytes) => {
                *text_bytes += bytes.len();
                set.insert(bytes.into());
            }
            // The kind decides both, so they cannot differ.
            _ => {}
        }
    }

    pub(crate) fn update(&mut self, groups: &[u32], input: &Input<'_>) -> Result<(), QueryError> {
        let (sets, text_bytes) = (&mut self.sets, &mut self.text_bytes);
        for_each(groups, input, self.kind, |group, value| Self::insert(sets, text_bytes, group, value))
    }

    pub(crate) fn merge(&mut self, other: &Distinct, to: &[u32]) -> Result<(), QueryError> {
        if Self::is_ints(self.kind) != Self::is_ints(other.kind) {
            return Err(QueryError::Mismatch("distinct values of different types".to_owned()));
        }
        for (group, set) in to.iter().zip(&other.sets) {
            let (sets, text_bytes) = (&mut self.sets, &mut self.text_bytes);
            match set {
                Set::Ints(set) => {
                    set.iter().for_each(|int| Self::insert(sets, text_bytes, *group, Known::Int(*int)));
                }
                Set::Bytes(set) => {
                    set.iter().for_each(|bytes| Self::insert(sets, text_bytes, *group, Known::Bytes(bytes)));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn counts(&self) -> Vec<i64> {
        let count = |set: &Set| match set {
            Set::Ints(set) => set.len() as i64,
            Set::Bytes(set) => set.len() as i64,
        };
        self.sets.iter().map(count).collect()
    }

    pub(crate) fn array_type(data_type: &DataType) -> Result<DataType, QueryError> {
        let ints = Self::is_ints(kind_for("count(distinct)", data_type)?);
        let item = if ints { DataType::Int64 } else { DataType::Binary };
        Ok(DataType::List(Arc::new(Field::new("item", item, true))))
    }

    pub(crate) fn to_array(&self) -> ArrayRef {
        if Self::is_ints(self.kind) {
            let mut lists = ListBuilder::new(Int64Builder::new());
            for set in &self.sets {
                if let Set::Ints(set) = set {
                    set.iter().for_each(|int| lists.values().append_value(*int));
                }
                lists.append(true);
            }
            Arc::new(lists.finish())
        } else {
            let mut lists = ListBuilder::new(BinaryBuilder::new());
            for set in &self.sets {
                if let Set::Bytes(set) = set {
                    set.iter().for_each(|bytes| lists.values().append_value(bytes));
                }
                lists.append(true);
            }
            Arc::new(lists.finish())
        }
    }

    pub(crate) fn from_arrays(data_type: &DataType, arrays: &[ArrayRef]) -> Result<Distinct, QueryError> {
        let mut distinct = Distinct::new(data_type)?;
        let lists = without_nulls(expect(arrays, 0, &Self::array_type(data_type)?)?)?.as_list::<i32>();
        distinct.resize(lists.len());
        for group in 0..lists.len() {
            let items = lists.value(group);
            without_nulls(&items)?;
            let (sets, text_bytes) = (&mut distinct.sets, &mut distinct.text_bytes);
            if Self::is_ints(distinct.kind) {
                let ints = items.as_primitive::<Int64Type>().values();
                ints.iter().for_each(|int| Self::insert(sets, text_bytes, group as u32, Known::Int(*int)));
            } else {
                let items = items.as_binary::<i32>();
                let bytes = items.iter().flatten();
                bytes.for_each(|bytes| Self::insert(sets, text_bytes, group as u32, Known::Bytes(bytes)));
            }
        }
        Ok(distinct)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let set = |set: &Set| match set {
            Set::Ints(set) => 32 + set.capacity() * 9,
            Set::Bytes(set) => 32 + set.capacity() * 17,
        };
        self.sets.iter().map(set).sum::<usize>() + self.text_bytes
    }
}

/// Approximate distinct values a group.
#[derive(Debug, Clone)]
pub(crate) struct ApproxDistinct {
    kind: Kind,
    pub(crate) sketches: Vec<HyperLogLog>,
}

impl ApproxDistinct {
    pub(crate) fn new(data_type: &DataType) -> Result<ApproxDistinct, QueryError> {
        Ok(ApproxDistinct { kind: kind_for("approx_distinct", data_type)?, sketches: Vec::new() })
    }

    pub(crate) fn update(&mut self, groups: &[u32], input: &Input<'_>) -> Result<(), QueryError> {
        let sketches = &mut self.sketches;
        for_each(groups, input, self.kind, |group, value| {
            sketches[group as usize].add_hash(match value {
                Known::Int(int) => hash_int(int),
                Known::Bytes(bytes) => hash_bytes(bytes),
            });
        })
    }
}
