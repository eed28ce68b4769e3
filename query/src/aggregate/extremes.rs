//! Smallest, largest, first and last values.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};

use super::scalars::{
    Kind, compare, expect, flags, from_ints, kind_for, to_floats, to_ints, to_texts, value_at,
    values_to_array, without_nulls,
};
use super::{Input, Values};
use crate::{QueryError, Value};

/// The best value a group, `None` before the first.
#[derive(Debug, Clone)]
enum Best {
    Int(Vec<Option<i64>>),
    Float(Vec<Option<f64>>),
    Text(Vec<Option<Box<str>>>),
}

/// Min or max.
#[derive(Debug, Clone)]
pub(crate) struct Extremes {
    /// The order that a better value has to a worse one: `Less` for min, `Greater` for max.
    better: Ordering,
    data_type: DataType,
    best: Best,
}

impl Extremes {
    pub(crate) fn new(
        function: &str,
        better: Ordering,
        data_type: &DataType,
    ) -> Result<Extremes, QueryError> {
        let best = match kind_for(function, data_type)? {
            Kind::Int => Best::Int(Vec::new()),
            Kind::Float => Best::Float(Vec::new()),
            Kind::Text => Best::Text(Vec::new()),
            Kind::Texts => {
                return Err(QueryError::UnsupportedType {
                    function: function.to_owned(),
                    data_type: data_type.to_string(),
                });
            }
        };
        Ok(Extremes { better, data_type: data_type.clone(), best })
    }

    pub(crate) fn len(&self) -> usize {
        match &self.best {
            Best::Int(best) => best.len(),
            Best::Float(best) => best.len(),
            Best::Text(best) => best.len(),
        }
    }

    pub(crate) fn resize(&mut self, group_count: usize) {
        match &mut self.best {
            Best::Int(best) => best.resize(group_count, None),
            Best::Float(best) => best.resize(group_count, None),
            Best::Text(best) => best.resize(group_count, None),
        }
    }

    fn offer_int(&mut self, group: u32, value: i64) {
        if let Best::Int(best) = &mut self.best {
            let known = &mut best[group as usize];
            if known.is_none_or(|known| value.cmp(&known) == self.better) {
                *known = Some(value);
            }
        }
    }

    fn offer_float(&mut self, group: u32, value: f64) {
        if let Best::Float(best) = &mut self.best {
            let known = &mut best[group as usize];
            if known.is_none_or(|known| value.total_cmp(&known) == self.better) {
                *known = Some(value);
            }
        }
    }

    fn offer_text(&mut self, group: u32, value: &str) {
        if let Best::Text(best) = &mut self.best {
            let known = &mut best[group as usize];
            if known.as_ref().is_none_or(|known| value.cmp(known) == self.better) {
                *known = Some(value.into());
            }
        }
    }

    pub(crate) fn update(&mut self, groups: &[u32], input: &Input<'_>) -> Result<(), QueryError> {
        let valid = |row: usize| input.validity.is_none_or(|validity| validity.is_valid(row));
        match input.values {
            Values::None => {}
            Values::Int(values) => {
                for (row, group) in groups.iter().enumerate().filter(|(row, _)| valid(*row)) {
                    self.offer_int(*group, values[row]);
                }
            }
            Values::Float(values) => {
                for (row, group) in groups.iter().enumerate().filter(|(row, _)| valid(*row)) {
                    self.offer_float(*group, values[row]);
                }
            }
            Values::Codes(codes, distinct) => {
                self.update_array(groups, distinct, |row| valid(row).then(|| codes[row] as usize))?;
            }
            Values::Array(array) => self.update_array(groups, array, |row| valid(row).then_some(row))?,
        }
        Ok(())
    }

    fn update_array(
        &mut self,
        groups: &[u32],
        array: &ArrayRef,
        place: impl Fn(usize) -> Option<usize>,
    ) -> Result<(), QueryError> {
        let places = groups.iter().enumerate().filter_map(|(row, group)| {
            let place = place(row)?;
            (place < array.len() && array.is_valid(place)).then_some((*group, place))
        });
        match &self.best {
            Best::Int(_) => {
                let ints = to_ints(array)?;
                places.for_each(|(group, place)| self.offer_int(group, ints.value(place)));
            }
            Best::Float(_) => {
                let floats = to_floats(array)?;
                places.for_each(|(group, place)| self.offer_float(group, floats.value(place)));
            }
            Best::Text(_) => {
                let texts = to_texts(array)?;
                places.for_each(|(group, place)| self.offer_text(group, texts.value(place)));
            }
        }
        Ok(())
    }

    pub(crate) fn merge(&mut self, other: &Extremes, to: &[u32]) -> Result<(), QueryError> {
        let array = other.to_array()?;
        self.update_array(to, &array, Some)
    }

    pub(crate) fn to_array(&self) -> Result<ArrayRef, QueryError> {
        match &self.best {
            Best::Int(best) => from_ints(Int64Array::from(best.clone()), &self.data_type),
            Best::Float(best) => {
                let floats = Float64Array::from(best.clone());
                cast(&floats, &self.data_type).map_err(|error| QueryError::Mismatch(error.to_string()))
            }
            Best::Text(best) => {
                let texts: StringArray = best.iter().map(|text| text.as_deref()).collect();
                cast(&texts, &self.data_type).map_err(|error| QueryError::Mismatch(error.to_string()))
            }
        }
    }

    pub(crate) fn from_arrays(mut empty: Extremes, arrays: &[ArrayRef]) -> Result<Extremes, QueryError> {
        let data_type = empty.data_type.clone();
        let array = expect(arrays, 0, &data_type)?;
        empty.resize(array.len());
        let to: Vec<u32> = (0..array.len() as u32).collect();
        empty.update_array(&to, array, Some)?;
        Ok(empty)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match &self.best {
            Best::Int(best) => best.capacity() * 16,
            Best::Float(best) => best.capacity() * 16,
            Best::Text(best) => best.iter().map(|text| 16 + text.as_ref().map_or(0, |text| text.len())).sum(),
        }
    }
}

/// The value with the earliest or latest time.
#[derive(Debug, Clone)]
pub(crate) struct FirstLast {
    /// The order that the time of a better value has to a worse one's.
    better: Ordering,
    ignore_nulls: bool,
    data_type: DataType,
    kind: Kind,
    /// Time and value a group, `None` before the first.
    best: Vec<Option<(i64, Value)>>,
}

impl FirstLast {
    pub(crate) fn new(
        function: &str,
        better: Ordering,
        ignore_nulls: bool,
        data_type: &DataType,
    ) -> Result<FirstLast, QueryError> {
        let kind = kind_for(function, data_type)?;
        Ok(FirstLast { better, ignore_nulls, data_type: data_type.clone(), kind, best: Vec::new() })
    }

    pub(crate) fn len(&self) -> usize {
        self.best.len()
    }

    pub(crate) fn resize(&mut self, group_count: usize) {
        self.best.resize(group_count, None);
    }

    fn offer(&mut self, group: u32, time: i64, value: impl FnOnce() -> Value) {
        let known = &mut self.best[group as usize];
        let wins = match known {
            None => true,
            Some((known_time, _)) if time != *known_time => time.cmp(known_time) == self.better,
            // Equal times: the smaller value wins, so that the order of merging does not matter.
            Some((_, known_value)) => {
                let value = value();
                if compare(&value, known_value) == Ordering::Less {
                    *known_value = value;
                }
                return;
            }
        };
        if wins {
            *known = Some((time, value()));
        }
    }

    pub(crate) fn update(&mut self, groups: &[u32], input: &Input<'_>) {
        let kind = self.kind;
        for (row, group) in groups.iter().enumerate() {
            let Some(time) = input.times.get(row).copied() else { continue };
            let valid = input.validity.is_none_or(|validity| validity.is_valid(row));
            let value = || match input.values {
                _ if !valid => Value::Null,
                Values::None => Value::Null,
                Values::Int(values) => Value::Int(values[row]),
                Values::Float(values) => Value::Float(values[row]),
                Values::Codes(codes, distinct) if (codes[row] as usize) < distinct.len() => {
                    value_at(distinct, kind, codes[row] as usize)
                }
                Values::Codes(..) => Value::Null,
                Values::Array(array) => value_at(array, kind, row),
            };
            if self.ignore_nulls {
                let value = value();
                if value != Value::Null {
                    self.offer(*group, time, || value);
                }
            } else {
                self.offer(*group, time, value);
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &FirstLast, to: &[u32]) {
        for (group, best) in to.iter().zip(&other.best) {
            if let Some((time, value)) = best {
                self.offer(*group, *time, || value.clone());
            }
        }
    }

    pub(crate) fn finish(&self) -> Result<ArrayRef, QueryError> {
        let values: Vec<Value> = self
            .best
            .iter()
            .map(|best| best.as_ref().map_or(Value::Null, |(_, value)| value.clone()))
            .collect();
        values_to_array(&values, &self.data_type)
    }

    pub(crate) fn array_types(data_type: &DataType) -> Vec<DataType> {
        vec![DataType::Boolean, DataType::Int64, data_type.clone()]
    }

    pub(crate) fn to_arrays(&self) -> Result<Vec<ArrayRef>, QueryError> {
        let seen: Vec<bool> = self.best.iter().map(Option::is_some).collect();
        let times: Vec<i64> =
            self.best.iter().map(|best| best.as_ref().map_or(0, |(time, _)| *time)).collect();
        Ok(vec![flags(&seen), Arc::new(Int64Array::from(times)), self.finish()?])
    }

    pub(crate) fn from_arrays(mut empty: FirstLast, arrays: &[ArrayRef]) -> Result<FirstLast, QueryError> {
        let data_type = empty.data_type.clone();
        let seen = without_nulls(expect(arrays, 0, &DataType::Boolean)?)?.as_boolean();
        let times = without_nulls(expect(arrays, 1, &DataType::Int64)?)?.as_primitive::<Int64Type>();
        let values = expect(arrays, 2, &data_type)?;
        empty.best = (0..seen.len())
            .map(|group| seen.value(group).then(|| (times.value(group), value_at(values, empty.kind, group))))
            .collect();
        Ok(empty)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let text = |value: &Value| match value {
            Value::String(text) => text.len(),
            Value::Strings(texts) => texts.iter().map(|text| text.len() + 24).sum(),
            _ => 0,
        };
        self.best.iter().map(|best| 48 + best.as_ref().map_or(0, |(_, value)| text(value))).sum()
    }
}
