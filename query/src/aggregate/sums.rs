//! Sums of weight × value.
//!
//! Ints are summed exactly ([`ExactSums`]), and so are the ints of [`Values::Scaled`]: what they stand for is rounded
//! once, when the sum is merged or finished.
//!
//! Floats are added plainly, 65,536 rows at most; then, and whenever states merge, what came together is added to a
//! compensated sum (Neumaier). The relative error, measured against the sum of the magnitudes of all terms, is
//! therefore below 65,536 × 2⁻⁵³ < 1e-11, however many rows there are.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type};

use super::counts::{Counts, add_ints, round_to_int};
use super::each::{Bounds, for_each_valid, int_weight, power_of_ten, scaled_floats};
use super::exact::{ExactSums, WIDE, take};
use super::lanes;
use super::scalars::{expect, without_nulls};
use super::{Input, Values, Weights};
use crate::{QueryError, WeightKind};

/// So many floats are added to one another at most before they join the compensated sum.
const PLAIN_ROWS_MAX: usize = 65_536;

/// Sums of weight × value.
#[derive(Debug, Clone)]
pub(crate) enum Sums {
    /// The argument is no number: only weights are summed.
    Nothing,
    /// Exact.
    Ints(ExactSums),
    /// With rounding; see the module.
    Floats(FloatSums),
}

/// The sum of a group is all of these together. Vectors are empty while they are all zero.
#[derive(Debug, Clone, Default)]
pub(crate) struct FloatSums {
    len: usize,
    /// Sums of the last `plain_rows` rows.
    plain: Vec<f64>,
    plain_rows: usize,
    /// Exact sums of scaled ints with this many digits.
    scaled: Option<(u8, ExactSums)>,
    sum: Vec<f64>,
    /// What rounding left out of `sum`.
    lost: Vec<f64>,
}

#[inline]
fn add_compensated(sum: &mut f64, lost: &mut f64, value: f64) {
    let total = *sum + value;
    if total.is_finite() {
        *lost += if sum.abs() >= value.abs() { (*sum - total) + value } else { (value - total) + *sum };
    }
    *sum = total;
}

impl FloatSums {
    fn resize(&mut self, group_count: usize) {
        self.len = group_count;
        for sums in [&mut self.plain, &mut self.sum, &mut self.lost] {
            if !sums.is_empty() {
                sums.resize(group_count, 0.0);
            }
        }
        if let Some((_, scaled)) = &mut self.scaled {
            scaled.resize(group_count);
        }
    }

    /// Sums to which this many rows are added plainly.
    fn plain(&mut self, rows: usize) -> &mut [f64] {
        if self.plain_rows + rows > PLAIN_ROWS_MAX {
            self.fold();
        }
        self.plain_rows += rows;
        self.plain.resize(self.len, 0.0);
        &mut self.plain
    }

    /// Exact sums of ints with so many digits.
    fn scaled(&mut self, digits: u8) -> &mut ExactSums {
        if self.scaled.as_ref().is_some_and(|(known, _)| *known != digits) {
            self.fold();
        }
        let len = self.len;
        let (_, sums) = self.scaled.get_or_insert_with(|| {
            let mut sums = ExactSums::default();
            sums.resize(len);
            (digits, sums)
        });
        sums
    }

    /// Moves everything into the compensated sums.
    fn fold(&mut self) {
        let (plain, scaled) = (std::mem::take(&mut self.plain), self.scaled.take());
        self.plain_rows = 0;
        self.sum.resize(self.len, 0.0);
        self.lost.resize(self.len, 0.0);
        for (group, (sum, lost)) in self.sum.iter_mut().zip(&mut self.lost).enumerate() {
            if let Some(value) = plain.get(group) {
                add_compensated(sum, lost, *value);
            }
            if let Some((digits, sums)) = &scaled {
                add_compensated(sum, lost, sums.float(group) / power_of_ten(*digits));
            }
        }
    }

    /// The sum of a group and what rounding left out of it.
    #[inline]
    fn parts(&self, group: usize) -> (f64, f64) {
        let (mut sum, mut lost) = match self.sum.get(group) {
            Some(sum) => (*sum, self.lost[group]),
            None => (0.0, 0.0),
        };
        if let Some(plain) = self.plain.get(group) {
            add_compensated(&mut sum, &mut lost, *plain);
        }
        if let Some((digits, scaled)) = &self.scaled {
            add_compensated(&mut sum, &mut lost, scaled.float(group) / power_of_ten(*digits));
        }
        (sum, lost)
    }

    fn merge(&mut self, other: &FloatSums, groups: Range<usize>, to: &[u32]) {
        self.sum.resize(self.len, 0.0);
        self.lost.resize(self.len, 0.0);
        for (index, group) in groups.zip(to) {
            let group = *group as usize;
            let (sum, lost) = other.parts(index);
            add_compensated(&mut self.sum[group], &mut self.lost[group], sum);
            self.lost[group] += lost;
        }
    }

    fn take(&self, groups: &[u32]) -> FloatSums {
        FloatSums {
            len: groups.len(),
            plain: take(&self.plain, groups),
            plain_rows: self.plain_rows,
            scaled: self.scaled.as_ref().map(|(digits, sums)| (*digits, sums.take(groups))),
            sum: take(&self.sum, groups),
            lost: take(&self.lost, groups),
        }
    }

    fn append(&mut self, mut other: FloatSums) {
        self.fold();
        other.fold();
        self.len += other.len;
        self.sum.append(&mut other.sum);
        self.lost.append(&mut other.lost);
    }
}

impl Sums {
    pub(crate) fn new(data_type: &DataType, weight: WeightKind) -> Sums {
        match (data_type, weight) {
            (DataType::Int64, WeightKind::One | WeightKind::Int) => Sums::Ints(ExactSums::default()),
            (DataType::Int64 | DataType::Float64, _) => Sums::Floats(FloatSums::default()),
            _ => Sums::Nothing,
        }
    }

    pub(crate) fn resize(&mut self, group_count: usize) {
        match self {
            Sums::Nothing => {}
            Sums::Ints(sums) => sums.resize(group_count),
            Sums::Floats(sums) => sums.resize(group_count),
        }
    }

    /// Adds rows to sums and their weights to events, in one pass where both are common.
    pub(crate) fn update(&mut self, events: &mut Counts, groups: &[u32], input: &Input<'_>, bounds: Bounds) {
        match self {
            Sums::Ints(sums) => match input.values {
                Values::Int(values) => add_exact(sums, events, groups, values, input, bounds),
                _ => events.update(groups, input.weights, input.validity, bounds),
            },
            Sums::Floats(sums) => match input.values {
                Values::Float(values) => add_floats(sums, events, groups, values, input, bounds),
                Values::Int(values) => sums.add_scaled(events, groups, values, 0, input, bounds),
                Values::Scaled(values, digits) => {
                    sums.add_scaled(events, groups, values, digits, input, bounds)
                }
                _ => events.update(groups, input.weights, input.validity, bounds),
            },
            Sums::Nothing => events.update(groups, input.weights, input.validity, bounds),
        }
    }

    /// Adds an exact sum of ints with so many digits to a group; false when these are sums of something else.
    pub(crate) fn add(&mut self, group: usize, sum: i128, digits: Option<u8>) -> bool {
        let sums = match (self, digits) {
            (Sums::Ints(sums), None) => sums,
            (Sums::Floats(sums), digits) => sums.scaled(digits.unwrap_or(0)),
            (Sums::Nothing, _) => return sum == 0,
            (Sums::Ints(_), Some(_)) => return false,
        };
        sums.add(group, sum);
        true
    }

    /// Adds the sums of some groups of another: its group `groups.start + i` is our group `to[i]`.
    pub(crate) fn merge(&mut self, other: &Sums, groups: Range<usize>, to: &[u32]) -> Result<(), QueryError> {
        match (self, other) {
            (Sums::Nothing, Sums::Nothing) => {}
            (Sums::Ints(ours), Sums::Ints(theirs)) => ours.merge(theirs, groups, to),
            (Sums::Floats(ours), Sums::Floats(theirs)) => ours.merge(theirs, groups, to),
            _ => return Err(QueryError::Mismatch("sums of different types".to_owned())),
        }
        Ok(())
    }

    pub(crate) fn append(&mut self, other: Sums) -> Result<(), QueryError> {
        match (self, other) {
            (Sums::Nothing, Sums::Nothing) => {}
            (Sums::Ints(ours), Sums::Ints(theirs)) => ours.append(theirs),
            (Sums::Floats(ours), Sums::Floats(theirs)) => ours.append(theirs),
            _ => return Err(QueryError::Mismatch("sums of different types".to_owned())),
        }
        Ok(())
    }

    pub(crate) fn take(&self, groups: &[u32]) -> Sums {
        match self {
            Sums::Nothing => Sums::Nothing,
            Sums::Ints(sums) => Sums::Ints(sums.take(groups)),
            Sums::Floats(sums) => Sums::Floats(sums.take(groups)),
        }
    }

    /// The sum of a group as a float.
    pub(crate) fn float(&self, group: usize) -> f64 {
        match self {
            Sums::Nothing => 0.0,
            Sums::Ints(sums) => sums.float(group),
            Sums::Floats(sums) => {
                let (sum, lost) = sums.parts(group);
                sum + lost
            }
        }
    }

    /// The sum of a group as an int.
    pub(crate) fn int(&self, group: usize) -> Result<i64, QueryError> {
        match self {
            Sums::Ints(sums) => sums.int(group),
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
            Sums::Ints(sums) => vec![sums.to_array()],
            Sums::Floats(sums) => {
                let (sums, lost): (Vec<f64>, Vec<f64>) = (0..sums.len).map(|group| sums.parts(group)).unzip();
                vec![Arc::new(Float64Array::from(sums)), Arc::new(Float64Array::from(lost))]
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
                Sums::Ints(ExactSums::from_values(array.as_primitive::<Decimal128Type>().values()))
            }
            Sums::Floats(empty) => {
                let (sum, lost) = (floats(first)?, floats(first + 1)?);
                Sums::Floats(FloatSums { len: sum.len(), sum, lost, ..empty })
            }
        })
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Sums::Nothing => 0,
            Sums::Ints(sums) => sums.memory_bytes(),
            Sums::Floats(sums) => {
                (sums.plain.capacity() + sums.sum.capacity() + sums.lost.capacity()) * 8
                    + sums.scaled.as_ref().map_or(0, |(_, sums)| sums.memory_bytes())
            }
        }
    }
}

/// Adds ints and their weights.
fn add_exact(
    sums: &mut ExactSums,
    events: &mut Counts,
    groups: &[u32],
    values: &[i64],
    input: &Input<'_>,
    bounds: Bounds,
) {
    let (rows, weights, validity) = (groups.len(), input.weights, input.validity);
    let values = &values[..rows];
    let weight_bound = bounds.weights(weights).saturating_mul(rows as u64);
    let bound = bounds.values(values).saturating_mul(weight_bound);
    let Some(narrow) = sums.narrow(bound) else {
        let sums = sums.wide();
        for_each_valid(rows, validity, |row| {
            let product = i128::from(values[row]) * i128::from(int_weight(weights, row));
            let sum = &mut sums[groups[row] as usize];
            *sum = sum.saturating_add(product);
        });
        return events.update(groups, weights, validity, bounds);
    };
    match (events, weights) {
        (Counts::Rows(counts), Weights::One) => {
            let bounds = (bound, weight_bound);
            add_pairs((narrow, counts), bounds, groups, validity, |row| (values[row], 1));
        }
        (Counts::Ints(counts), Weights::Int(weights)) if weight_bound <= bound => {
            let weights = &weights[..rows];
            // What bounds the products bounds the weights as well, so there is a narrow form of both.
            if let Some(counts) = counts.narrow(weight_bound) {
                add_pairs((narrow, counts), (bound, weight_bound), groups, validity, |row| {
                    (values[row].wrapping_mul(weights[row]), weights[row])
                });
            }
        }
        (events, weights) => {
            add_ints(narrow, groups, validity, |row| values[row].wrapping_mul(int_weight(weights, row)));
            events.update(groups, weights, validity, bounds);
        }
    }
}

/// Adds a pair of terms for every row that is there. The caller has shown that no sum overflows, and what those of
/// these rows do not exceed in magnitude.
#[inline(always)]
fn add_pairs(
    (sums, counts): (&mut [i64], &mut [i64]),
    bounds: (u64, u64),
    groups: &[u32],
    validity: Option<&NullBuffer>,
    terms: impl Fn(usize) -> (i64, i64),
) {
    if let ([sum], [count]) = (&mut *sums, &mut *counts) {
        let (mut total, mut events) = (0i64, 0i64);
        for_each_valid(groups.len(), validity, |row| {
            let (term, weight) = terms(row);
            total = total.wrapping_add(term);
            events = events.wrapping_add(weight);
        });
        *sum += total;
        *count += events;
        return;
    }
    let counts = &mut counts[..sums.len()];
    if lanes::pay(sums.len(), groups.len(), validity) {
        return lanes::add_ints((sums, counts), bounds, groups, terms);
    }
    for_each_valid(groups.len(), validity, |row| {
        let group = groups[row] as usize;
        let (term, weight) = terms(row);
        sums[group] = sums[group].wrapping_add(term);
        counts[group] = counts[group].wrapping_add(weight);
    });
}

/// Adds floats and their weights: in runs, so that no more than the most are ever added plainly.
fn add_floats(
    sums: &mut FloatSums,
    events: &mut Counts,
    groups: &[u32],
    values: &[f64],
    input: &Input<'_>,
    bounds: Bounds,
) {
    for start in (0..groups.len()).step_by(PLAIN_ROWS_MAX) {
        let rows = start..groups.len().min(start + PLAIN_ROWS_MAX);
        let validity = input.validity.map(|validity| validity.slice(start, rows.len()));
        let weights = match input.weights {
            Weights::One => Weights::One,
            Weights::Int(weights) => Weights::Int(&weights[rows.clone()]),
            Weights::Float(weights) => Weights::Float(&weights[rows.clone()]),
        };
        let (groups, values) = (&groups[rows.clone()], &values[rows.clone()]);
        let run = Input { values: Values::Float(values), validity: validity.as_ref(), weights, times: &[] };
        add_float_run(sums.plain(rows.len()), events, groups, values, &run, bounds);
    }
}

fn add_float_run(
    sums: &mut [f64],
    events: &mut Counts,
    groups: &[u32],
    values: &[f64],
    input: &Input<'_>,
    bounds: Bounds,
) {
    let (validity, rows) = (input.validity, groups.len());
    match (&mut *events, input.weights) {
        (Counts::Rows(counts), Weights::One) if sums.len() > 1 => {
            return add_both(sums, counts, groups, validity, |row| (values[row], 1));
        }
        (Counts::Ints(counts), Weights::Int(weights)) if sums.len() > 1 => {
            let bound = bounds.weights(input.weights).saturating_mul(rows as u64);
            if let Some(counts) = counts.narrow(bound) {
                let term = |row: usize| (values[row] * weights[row] as f64, weights[row]);
                return add_both(sums, counts, groups, validity, term);
            }
        }
        _ => {}
    }
    match input.weights {
        Weights::One => add_plain(sums, groups, values, validity, |row| values[row]),
        Weights::Int(weights) => {
            add_plain(sums, groups, values, validity, |row| values[row] * weights[row] as f64);
        }
        Weights::Float(weights) => {
            add_plain(sums, groups, values, validity, |row| values[row] * weights[row]);
        }
    }
    events.update(groups, input.weights, validity, bounds);
}

/// Adds a float and a weight for every row that is there. The caller has shown that no sum of weights overflows.
#[inline(always)]
fn add_both(
    sums: &mut [f64],
    counts: &mut [i64],
    groups: &[u32],
    validity: Option<&NullBuffer>,
    terms: impl Fn(usize) -> (f64, i64),
) {
    let counts = &mut counts[..sums.len()];
    if lanes::pay(sums.len(), groups.len(), validity) {
        return lanes::add_both((sums, counts), groups, terms);
    }
    for_each_valid(groups.len(), validity, |row| {
        let group = groups[row] as usize;
        let (term, weight) = terms(row);
        sums[group] += term;
        counts[group] = counts[group].wrapping_add(weight);
    });
}

/// Adds a float for every row that is there; one group in eight lanes.
#[inline(always)]
fn add_plain(
    sums: &mut [f64],
    groups: &[u32],
    values: &[f64],
    validity: Option<&NullBuffer>,
    term: impl Fn(usize) -> f64,
) {
    let rows = groups.len().min(values.len());
    match sums {
        [sum] => {
            let mut lanes = [0.0; 8];
            match validity {
                None => {
                    let whole = rows - rows % 8;
                    for first in (0..whole).step_by(8) {
                        for (lane, total) in lanes.iter_mut().enumerate() {
                            *total += term(first + lane);
                        }
                    }
                    (whole..rows).for_each(|row| lanes[row % 8] += term(row));
                }
                Some(_) => for_each_valid(rows, validity, |row| lanes[row % 8] += term(row)),
            }
            *sum += lanes.iter().sum::<f64>();
        }
        sums => for_each_valid(rows, validity, |row| sums[groups[row] as usize] += term(row)),
    }
}

impl FloatSums {
    /// Adds scaled ints and their weights: exactly when the weights are ints.
    fn add_scaled(
        &mut self,
        events: &mut Counts,
        groups: &[u32],
        values: &[i64],
        digits: u8,
        input: &Input<'_>,
        bounds: Bounds,
    ) {
        match input.weights {
            Weights::One | Weights::Int(_) if !matches!(events, Counts::Floats(_)) => {
                add_exact(self.scaled(digits), events, groups, values, input, bounds);
            }
            _ => add_floats(self, events, groups, &scaled_floats(values, digits), input, bounds),
        }
    }
}
