//! First and last values by time.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};

use super::each::power_of_ten;
use super::exact::take;
use super::scalars::{Kind, compare, expect, flags, kind_for, value_at, values_to_array, without_nulls};
use super::{Input, Values};
use crate::{QueryError, Value};

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
                Values::Scaled(values, digits) => Value::Float(values[row] as f64 / power_of_ten(digits)),
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

    /// Adds some groups of another: its group `groups.start + i` is our group `to[i]`.
    pub(crate) fn merge(&mut self, other: &FirstLast, groups: Range<usize>, to: &[u32]) {
        for (group, best) in to.iter().zip(&other.best[groups]) {
            if let Some((time, value)) = best {
                self.offer(*group, *time, || value.clone());
            }
        }
    }

    pub(crate) fn append(&mut self, mut other: FirstLast) {
        self.best.append(&mut other.best);
    }

    pub(crate) fn take(&self, groups: &[u32]) -> FirstLast {
        FirstLast { best: take(&self.best, groups), data_type: self.data_type.clone(), ..*self }
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
