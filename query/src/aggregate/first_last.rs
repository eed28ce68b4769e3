//! First and last values by time.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};

use super::each::{for_each_valid, own_nulls, power_of_ten};
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
        let own = own_nulls(input);
        let validity = own.as_ref().or(input.validity);
        let kind = self.kind;
        let value = |row: usize| match input.values {
            _ if validity.is_some_and(|validity| validity.is_null(row)) => Value::Null,
            Values::None => Value::Null,
            Values::Int(values) => Value::Int(values[row]),
            Values::Float(values) => Value::Float(values[row]),
            Values::Scaled(values, digits) => Value::Float(values[row] as f64 / power_of_ten(digits)),
            Values::Codes(codes, distinct) => value_at(distinct, kind, codes[row] as usize),
            Values::Array(array) => value_at(array, kind, row),
        };
        let rows = groups.len();
        if input.times.len() < rows {
            // Without times nothing is first.
            return;
        }
        let counted = if self.ignore_nulls { validity } else { None };
        if self.best.len() > rows * 4 {
            for_each_valid(rows, counted, |row| self.offer(groups[row], input.times[row], || value(row)));
            return;
        }
        // The best row of each group is found by its time alone; only where times are equal is a value looked at.
        const NONE: u32 = u32::MAX;
        let mut best = vec![NONE; self.best.len()];
        let better = self.better;
        for_each_valid(rows, counted, |row| {
            let known = &mut best[groups[row] as usize];
            let order = match *known {
                NONE => better,
                known => input.times[row].cmp(&input.times[known as usize]),
            };
            let wins = order == better
                || order == Ordering::Equal
                    && compare(&value(row), &value(*known as usize)) == Ordering::Less;
            if wins {
                *known = row as u32;
            }
        });
        for (group, row) in best.into_iter().enumerate().filter(|(_, row)| *row != NONE) {
            let row = row as usize;
            self.offer(group as u32, input.times[row], || value(row));
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
