//! Counts, sums and moments: states that add up.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};

use super::scalars::{expect, without_nulls};
use super::{Input, Values, Weights};
use crate::{QueryError, WeightKind};

/// The wire type of 128-bit integers.
const WIDE: DataType = DataType::Decimal128(38, 0);

/// Events per group, in the narrowest form that is exact.
#[derive(Debug, Clone)]
pub(crate) enum Counts {
    /// Rows: no weights.
    Rows(Vec<i64>),
    /// Sums of int weights.
    Ints(Vec<i128>),
    /// Sums of float weights.
    Floats(Vec<f64>),
}

impl Counts {
    pub(crate) fn new(weight: WeightKind) -> Counts {
        match weight {
            WeightKind::One => Counts::Rows(Vec::new()),
            WeightKind::Int => Counts::Ints(Vec::new()),
            WeightKind::Float => Counts::Floats(Vec::new()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Counts::Rows(counts) => counts.len(),
            Counts::Ints(counts) => counts.len(),
            Counts::Floats(counts) => counts.len(),
        }
    }

    pub(crate) fn resize(&mut self, group_count: usize) {
        match self {
            Counts::Rows(counts) => counts.resize(group_count, 0),
            Counts::Ints(counts) => counts.resize(group_count, 0),
            Counts::Floats(counts) => counts.resize(group_count, 0.0),
        }
    }

    /// Adds the weights of the rows for which `counts` is true.
    pub(crate) fn update(
        &mut self,
        groups: &[u32],
        weights: Weights<'_>,
        counts: Option<&dyn Fn(usize) -> bool>,
    ) {
        let valid = |row: usize| counts.is_none_or(|counts| counts(row));
        match (self, weights) {
            (Counts::Rows(sums), _) => match counts {
                None if sums.len() == 1 => sums[0] += groups.len() as i64,
                None => groups.iter().for_each(|group| sums[*group as usize] += 1),
                Some(_) => {
                    for (row, group) in groups.iter().enumerate() {
                        sums[*group as usize] += i64::from(valid(row));
                    }
                }
            },
            (Counts::Ints(sums), weights) => {
                let safe = largest_weight(weights).saturating_mul(groups.len() as u64) < NARROW_MAX;
                match counts {
                    None => add_ints(sums, groups, safe, |row| int_weight(weights, row)),
                    Some(_) => {
                        add_ints(
                            sums,
                            groups,
                            safe,
                            |row| if valid(row) { int_weight(weights, row) } else { 0 },
                        );
                    }
                }
            }
            (Counts::Floats(sums), weights) => {
                for (row, group) in groups.iter().enumerate().filter(|(row, _)| valid(*row)) {
                    sums[*group as usize] += float_weight(weights, row);
                }
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Counts, to: &[u32]) -> Result<(), QueryError> {
        match (self, other) {
            (Counts::Rows(ours), Counts::Rows(theirs)) => {
                for (group, count) in to.iter().zip(theirs) {
                    let sum = &mut ours[*group as usize];
                    *sum = sum.saturating_add(*count);
                }
            }
            (Counts::Ints(ours), Counts::Ints(theirs)) => {
                to.iter().zip(theirs).for_each(|(group, count)| {
                    let sum = &mut ours[*group as usize];
                    *sum = sum.saturating_add(*count);
                });
            }
            (Counts::Floats(ours), Counts::Floats(theirs)) => {
                to.iter().zip(theirs).for_each(|(group, count)| ours[*group as usize] += count);
            }
            _ => return Err(QueryError::Mismatch("counts of different weights".to_owned())),
        }
        Ok(())
    }

    pub(crate) fn float(&self, group: usize) -> f64 {
        match self {
            Counts::Rows(counts) => counts[group] as f64,
            Counts::Ints(counts) => counts[group] as f64,
            Counts::Floats(counts) => counts[group],
        }
    }

    /// Whole events.
    pub(crate) fn finish(&self) -> Result<ArrayRef, QueryError> {
        let counts: Vec<i64> = match self {
            Counts::Rows(counts) => counts.clone(),
            Counts::Ints(counts) => counts
                .iter()
                .map(|count| i64::try_from(*count).map_err(|_| QueryError::Overflow))
                .collect::<Result<_, _>>()?,
            Counts::Floats(counts) => {
                counts.iter().map(|count| round_to_int(*count)).collect::<Result<_, _>>()?
            }
        };
        Ok(Arc::new(Int64Array::from(counts)))
    }

    pub(crate) fn array_type(weight: WeightKind) -> DataType {
        match weight {
            WeightKind::One => DataType::Int64,
            WeightKind::Int => WIDE,
            WeightKind::Float => DataType::Float64,
        }
    }

    pub(crate) fn to_array(&self) -> ArrayRef {
        match self {
            Counts::Rows(counts) => Arc::new(Int64Array::from(counts.clone())),
            Counts::Ints(counts) => wide_array(counts),
            Counts::Floats(counts) => Arc::new(Float64Array::from(counts.clone())),
        }
    }

    pub(crate) fn from_array(
        weight: WeightKind,
        arrays: &[ArrayRef],
        index: usize,
    ) -> Result<Counts, QueryError> {
        let array = without_nulls(expect(arrays, index, &Counts::array_type(weight))?)?;
        Ok(match weight {
            WeightKind::One => Counts::Rows(array.as_primitive::<Int64Type>().values().to_vec()),
            WeightKind::Int => Counts::Ints(array.as_primitive::<Decimal128Type>().values().to_vec()),
            WeightKind::Float => Counts::Floats(array.as_primitive::<Float64Type>().values().to_vec()),
        })
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Counts::Rows(counts) => counts.capacity() * 8,
            Counts::Ints(counts) => counts.capacity() * 16,
            Counts::Floats(counts) => counts.capacity() * 8,
        }
    }
}

fn wide_array(values: &[i128]) -> ArrayRef {
    Arc::new(Decimal128Array::from(values.to_vec()).with_data_type(WIDE))
}

/// A float as the nearest int, or an overflow.
pub(crate) fn round_to_int(value: f64) -> Result<i64, QueryError> {
    let rounded = value.round();
    if rounded >= -(2f64.powi(63)) && rounded < 2f64.powi(63) {
        Ok(rounded as i64)
    } else {
        Err(QueryError::Overflow)
    }
}

#[inline]
fn int_weight(weights: Weights<'_>, row: usize) -> i64 {
    match weights {
        Weights::One => 1,
        Weights::Int(weights) => weights[row],
        Weights::Float(weights) => weights[row] as i64,
    }
}

#[inline]
pub(crate) fn float_weight(weights: Weights<'_>, row: usize) -> f64 {
    match weights {
        Weights::One => 1.0,
        Weights::Int(weights) => weights[row] as f64,
        Weights::Float(weights) => weights[row],
    }
}

/// Sums of one call whose magnitude is below this are exact in 64 bits.
const NARROW_MAX: u64 = i64::MAX as u64;

/// The largest int weight of a run.
fn largest_weight(weights: Weights<'_>) -> u64 {
    match weights {
        Weights::One => 1,
        Weights::Int(weights) => weights.iter().fold(0, |largest, weight| weight.unsigned_abs().max(largest)),
        Weights::Float(_) => u64::MAX,
    }
}

/// Adds a term of each row to the sum of its group. When the caller has shown that the sums of all terms stay below
/// [`NARROW_MAX`], they are added in 64 bits first: adding 128 bits in memory for every row is several times slower.
fn add_ints(sums: &mut [i128], groups: &[u32], narrow: bool, term: impl Fn(usize) -> i64) {
    if narrow && sums.len() == 1 {
        let sum: i64 = (0..groups.len()).map(term).sum();
        sums[0] += i128::from(sum);
    } else if narrow && sums.len() <= groups.len() {
        let mut narrow_sums = vec![0i64; sums.len()];
        for (row, group) in groups.iter().enumerate() {
            narrow_sums[*group as usize] += term(row);
        }
        sums.iter_mut().zip(narrow_sums).for_each(|(sum, narrow)| *sum += i128::from(narrow));
    } else {
        for (row, group) in groups.iter().enumerate() {
            let sum = &mut sums[*group as usize];
            *sum = sum.saturating_add(i128::from(term(row)));
        }
    }
}

/// Sums of weight × value.
#[derive(Debug, Clone)]
pub(crate) enum Sums {
    /// The argument is no number: only weights are summed.
    Nothing,
    /// Exact.
    Ints(Vec<i128>),
    /// The sum and what rounding left out of it (Neumaier's compensated sum).
    Floats(Vec<f64>, Vec<f64>),
}

#[inline]
fn add_compensated(sum: &mut f64, lost: &mut f64, value: f64) {
    let total = *sum + value;
    if total.is_finite() {
        *lost += if sum.abs() >= value.abs() { (*sum - total) + value } else { (value - total) + *sum };
    }
    *sum = total;
}

impl Sums {
    pub(crate) fn new(data_type: &DataType, weight: WeightKind) -> Sums {
        match (data_type, weight) {
            (DataType::Int64, WeightKind::One | WeightKind::Int) => Sums::Ints(Vec::new()),
            (DataType::Int64 | DataType::Float64, _) => Sums::Floats(Vec::new(), Vec::new()),
            _ => Sums::Nothing,
        }
    }

    pub(crate) fn resize(&mut self, group_count: usize) {
        match self {
            Sums::Nothing => {}
            Sums::Ints(sums) => sums.resize(group_count, 0),
            Sums::Floats(sums, lost) => {
                sums.resize(group_count, 0.0);
                lost.resize(group_count, 0.0);
            }
        }
    }

    pub(crate) fn update(&mut self, groups: &[u32], input: &Input<'_>) {
        let valid = |row: usize| input.validity.is_none_or(|validity| validity.is_valid(row));
        match (self, input.values, input.weights) {
            (Sums::Ints(sums), Values::Int(values), weights) => {
                let largest = values.iter().fold(0, |largest, value| value.unsigned_abs().max(largest));
                let rows = groups.len() as u64;
                if largest.saturating_mul(largest_weight(weights)).saturating_mul(rows) < NARROW_MAX {
                    let product = |row: usize| values[row].wrapping_mul(int_weight(weights, row));
                    match input.validity {
                        None => add_ints(sums, groups, true, product),
                        Some(_) => {
                            add_ints(sums, groups, true, |row| if valid(row) { product(row) } else { 0 })
                        }
                    }
                } else {
                    for (row, group) in groups.iter().enumerate().filter(|(row, _)| valid(*row)) {
                        let product = i128::from(values[row]) * i128::from(int_weight(weights, row));
                        let sum = &mut sums[*group as usize];
                        *sum = sum.saturating_add(product);
                    }
                }
            }
            (Sums::Floats(sums, lost), Values::Int(values), weights) => {
                for (row, group) in groups.iter().enumerate().filter(|(row, _)| valid(*row)) {
                    let group = *group as usize;
                    let product = values[row] as f64 * float_weight(weights, row);
                    add_compensated(&mut sums[group], &mut lost[group], product);
                }
            }
            (Sums::Floats(sums, lost), Values::Float(values), weights) => {
                for (row, group) in groups.iter().enumerate().filter(|(row, _)| valid(*row)) {
                    let group = *group as usize;
                    add_compensated(
                        &mut sums[group],
                        &mut lost[group],
                        values[row] * float_weight(weights, row),
                    );
                }
            }
            _ => {}
        }
    }

    pub(crate) fn merge(&mut self, other: &Sums, to: &[u32]) -> Result<(), QueryError> {
        match (self, other) {
            (Sums::Nothing, Sums::Nothing) => {}
            (Sums::Ints(ours), Sums::Ints(theirs)) => {
                for (group, value) in to.iter().zip(theirs) {
                    let sum = &mut ours[*group as usize];
                    *sum = sum.saturating_add(*value);
                }
            }
            (Sums::Floats(sums, lost), Sums::Floats(their_sums, their_lost)) => {
                for (index, group) in to.iter().enumerate() {
                    let group = *group as usize;
                    add_compensated(&mut sums[group], &mut lost[group], their_sums[index]);
                    lost[group] += their_lost[index];
                }
            }
            _ => return Err(QueryError::Mismatch("sums of different types".to_owned())),
        }
        Ok(())
    }

    /// The sum of a group as a float.
    pub(crate) fn float(&self, group: usize) -> f64 {
        match self {
            Sums::Nothing => 0.0,
            Sums::Ints(sums) => sums[group] as f64,
            Sums::Floats(sums, lost) => sums[group] + lost[group],
        }
    }

    /// The sum of a group as an int.
    pub(crate) fn int(&self, group: usize) -> Result<i64, QueryError> {
        match self {
            Sums::Ints(sums) => i64::try_from(sums[group]).map_err(|_| QueryError::Overflow),
            _ => round_to_int(self.float(group)),
        }
    }

    pub(crate) fn array_types(data_type: &DataType, weight: WeightKind) -> Vec<DataType> {
        match Sums::new(data_type, weight) {
            Sums::Nothing => vec![],
            Sums::Ints(_) => vec![WIDE],
            Sums::Floats(..) => vec![DataType::Float64, DataType::Float64],
        }
    }

    pub(crate) fn to_arrays(&self) -> Vec<ArrayRef> {
        match self {
            Sums::Nothing => vec![],
            Sums::Ints(sums) => vec![wide_array(sums)],
            Sums::Floats(sums, lost) => {
                vec![Arc::new(Float64Array::from(sums.clone())), Arc::new(Float64Array::from(lost.clone()))]
            }
        }
    }

    pub(crate) fn from_arrays(
        data_type: &DataType,
        weight: WeightKind,
        arrays: &[ArrayRef],
        first: usize,
    ) -> Result<Sums, QueryError> {
        let floats = |index: usize| -> Result<Vec<f64>, QueryError> {
            let array = without_nulls(expect(arrays, index, &DataType::Float64)?)?;
            Ok(array.as_primitive::<Float64Type>().values().to_vec())
        };
        Ok(match Sums::new(data_type, weight) {
            Sums::Nothing => Sums::Nothing,
            Sums::Ints(_) => {
                let array = without_nulls(expect(arrays, first, &WIDE)?)?;
                Sums::Ints(array.as_primitive::<Decimal128Type>().values().to_vec())
            }
            Sums::Floats(..) => Sums::Floats(floats(first)?, floats(first + 1)?),
        })
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Sums::Nothing => 0,
            Sums::Ints(sums) => sums.capacity() * 16,
            Sums::Floats(sums, lost) => (sums.capacity() + lost.capacity()) * 8,
        }
    }
}

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
        if let Values::Float(values) = input.values {
            for (row, group) in groups.iter().enumerate() {
                if input.validity.is_none_or(|validity| validity.is_valid(row)) {
                    self.add(*group as usize, float_weight(input.weights, row), values[row], 0.0);
                }
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Moments, to: &[u32]) {
        for (index, group) in to.iter().enumerate() {
            self.add(*group as usize, other.weight[index], other.mean[index], other.squares[index]);
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
