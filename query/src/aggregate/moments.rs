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

/// With fewer rows a group, they are added one by one.
const ROWS_A_GROUP: usize = 8;
/// Rows that follow one another add to sums of their own, or each would wait for the one before it.
const LANES: usize = 8;

/// Weight, and weighted sums of how far values are from the first one and of the squares of that. Values are about as far
/// from the first as from their mean, so that the difference of the sums keeps its digits (Chan, Golub & LeVeque,
/// *Algorithms for Computing the Sample Variance*, 1983).
#[derive(Debug, Clone, Copy, Default)]
struct Shifted {
    first: f64,
    weight: f64,
    sum: f64,
    squares: f64,
}

impl Shifted {
    #[inline(always)]
    fn add(&mut self, weight: f64, value: f64) {
        if weight <= 0.0 {
            return;
        }
        if self.weight == 0.0 {
            self.first = value;
        }
        let distance = value - self.first;
        self.weight += weight;
        self.sum += weight * distance;
        self.squares += weight * distance * distance;
    }
}

/// The sums of so many groups, `LANES` for each.
fn sums_of<const LANES: usize>(
    group_count: usize,
    groups: &[u32],
    values: &[f64],
    input: &Input<'_>,
) -> Vec<Shifted> {
    let mut sums = vec![Shifted::default(); group_count * LANES];
    let place =
        |row: usize| if group_count == 1 { row % LANES } else { groups[row] as usize * LANES + row % LANES };
    for_each_valid(groups.len(), input.validity, |row| {
        sums[place(row)].add(float_weight(input.weights, row), values[row]);
    });
    sums
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
        if self.weight[group] == 0.0 {
            (self.weight[group], self.mean[group], self.squares[group]) = (weight, mean, squares);
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
            let is_few = self.len() * ROWS_A_GROUP <= groups.len();
            if is_few && self.update_by_group(groups, values, input) {
                return;
            }
            for_each_valid(groups.len(), input.validity, |row| {
                self.add(groups[row] as usize, float_weight(input.weights, row), values[row], 0.0);
            });
        });
    }

    /// Adds up the rows of each group first, which takes no division a row. False where floats cannot hold the sums: then
    /// nothing was added.
    fn update_by_group(&mut self, groups: &[u32], values: &[f64], input: &Input<'_>) -> bool {
        let has_lanes = self.len() * LANES * ROWS_A_GROUP <= groups.len();
        let sums = match has_lanes {
            true => sums_of::<LANES>(self.len(), groups, values, input),
            false => sums_of::<1>(self.len(), groups, values, input),
        };
        let lanes = if has_lanes { LANES } else { 1 };
        if !sums.iter().all(|sums| sums.squares.is_finite()) {
            return false;
        }
        for (lane, sums) in sums.into_iter().enumerate().filter(|(_, sums)| sums.weight > 0.0) {
            let mean = sums.sum / sums.weight;
            self.add(lane / lanes, sums.weight, sums.first + mean, (sums.squares - sums.sum * mean).max(0.0));
        }
        true
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

#[cfg(test)]
mod tests {
    use arrow::buffer::NullBuffer;

    use super::*;
    use crate::aggregate::{Values, Weights};

    fn variance(values: &[f64], weights: &[i64], validity: Option<&NullBuffer>, stretch: usize) -> f64 {
        let mut moments = Moments::default();
        moments.resize(1);
        for start in (0..values.len()).step_by(stretch) {
            let rows = start..(start + stretch).min(values.len());
            let validity = validity.map(|validity| validity.slice(rows.start, rows.len()));
            let input = Input {
                values: Values::Float(&values[rows.clone()]),
                validity: validity.as_ref(),
                weights: Weights::Int(&weights[rows.clone()]),
                times: &[],
            };
            moments.update(&vec![0; rows.len()], &input);
        }
        moments.variance(0, false).unwrap()
    }

    #[test]
    fn small_deviations_from_large_means_keep_their_digits() {
        let count = 5_000_usize;
        let weights: Vec<i64> = (0..count).map(|row| (row % 5) as i64).collect();
        let validity: NullBuffer = (0..count).map(|row| row % 7 != 3).collect();
        let deviation = |row: usize| (row * 37 % 101) as f64 / 8.0;
        let rows: Vec<usize> = (0..count).filter(|row| validity.is_valid(*row)).collect();
        let weight: f64 = rows.iter().map(|row| weights[*row] as f64).sum();
        let sum =
            |of: &dyn Fn(usize) -> f64| rows.iter().map(|row| weights[*row] as f64 * of(*row)).sum::<f64>();
        let mean = sum(&deviation) / weight;
        let expect = sum(&|row| (deviation(row) - mean).powi(2)) / weight;
        for offset in [0.0, 1e6, -1e12] {
            let mut values: Vec<f64> = (0..count).map(|row| offset + deviation(row)).collect();
            // What is not there has no say.
            (0..count).filter(|row| validity.is_null(*row)).for_each(|row| values[row] = f64::NAN);
            for stretch in [1, 5, 8, 100, 4_096] {
                let found = variance(&values, &weights, Some(&validity), stretch);
                assert!(
                    (found / expect - 1.0).abs() < 1e-6,
                    "{offset} by {stretch}: {found} is not {expect}"
                );
            }
        }
    }

    #[test]
    fn what_floats_cannot_add_up_is_added_one_by_one() {
        let values = [vec![1e200; 50], vec![-1e200; 50]].concat();
        let weights = vec![1; 100];
        assert_eq!(variance(&values, &weights, None, 100), f64::INFINITY);
        let mut values = vec![2.0; 100];
        values[50] = f64::NAN;
        assert!(variance(&values, &weights, None, 100).is_nan());
    }
}
