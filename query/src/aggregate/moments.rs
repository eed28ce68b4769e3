//! Weights, means and squared deviations.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};

use super::Input;
use super::each::{float_weight, for_each_valid, with_floats};
use super::exact::take;
use super::scalars::{expect, without_nulls};
use crate::QueryError;

/// Weight, mean and sum of squared deviations (Welford's update; Chan's merge).
#[derive(Debug, Clone, Default)]
pub(crate) struct Moments {
    weight: Vec<f64>,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    pub(crate) fn len(&self) -> usize {
        self.weight.len()
    }

    pub(crate) fn resize(&mut self, group_count: usize) {
        for field in [&mut self.weight, &mut self.mean, &mut self.squares] {
            field.resize(group_count, 0.0);
        }
    }

    fn add(&mut self, group: usize, weight: f64, mean: f64, squares: f64) {
        if weight <= 0.0 {
            return;
        }
        let total = self.weight[group] + weight;
        let distance = mean - self.mean[group];
        self.squares[group] += squares + distance * distance * (self.weight[group] * weight / total);
        self.mean[group] += distance * (weight / total);
        self.weight[group] = total;
    }

    pub(crate) fn update(&mut self, groups: &[u32], input: &Input<'_>) {
        with_floats(input.values, |values| {
            for_each_valid(groups.len(), input.validity, |row| {
                self.add(groups[row] as usize, float_weight(input.weights, row), values[row], 0.0);
            });
        });
    }

    /// Adds some groups of another: its group `groups.start + i` is our group `to[i]`.
    pub(crate) fn merge(&mut self, other: &Moments, groups: Range<usize>, to: &[u32]) {
        for (index, group) in groups.zip(to) {
            self.add(*group as usize, other.weight[index], other.mean[index], other.squares[index]);
        }
    }

    pub(crate) fn append(&mut self, mut other: Moments) {
        self.weight.append(&mut other.weight);
        self.mean.append(&mut other.mean);
        self.squares.append(&mut other.squares);
    }

    pub(crate) fn take(&self, groups: &[u32]) -> Moments {
        Moments {
            weight: take(&self.weight, groups),
            mean: take(&self.mean, groups),
            squares: take(&self.squares, groups),
        }
    }

    /// The variance of a group; `None` where too few events were.
    pub(crate) fn variance(&self, group: usize, sample: bool) -> Option<f64> {
        let over = self.weight[group] - if sample { 1.0 } else { 0.0 };
        (over > 0.0).then(|| self.squares[group] / over)
    }

    pub(crate) fn to_arrays(&self) -> Vec<ArrayRef> {
        [&self.weight, &self.mean, &self.squares]
            .map(|field| Arc::new(Float64Array::from(field.clone())) as ArrayRef)
            .to_vec()
    }

    pub(crate) fn from_arrays(arrays: &[ArrayRef]) -> Result<Moments, QueryError> {
        let field = |index: usize| -> Result<Vec<f64>, QueryError> {
            let array = without_nulls(expect(arrays, index, &DataType::Float64)?)?;
            Ok(array.as_primitive::<Float64Type>().values().to_vec())
        };
        Ok(Moments { weight: field(0)?, mean: field(1)?, squares: field(2)? })
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        (self.weight.capacity() + self.mean.capacity() + self.squares.capacity()) * 8
    }
}
