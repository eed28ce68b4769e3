//! The states of one aggregate over many groups, and the three verbs.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array};
use arrow::datatypes::DataType;

use super::approx::ApproxDistinct;
use super::counts::Counts;
use super::distinct::Distinct;
use super::each::{Bounds, own_nulls};
use super::extremes::Extremes;
use super::first_last::FirstLast;
use super::histogram::{Histograms, finished_type};
use super::moments::Moments;
use super::quantiles::Quantiles;
use super::scalars::{expect, without_nulls};
use super::sums::Sums;
use super::{Aggregate, AggregateFunction, Finish, Input};
use crate::{QueryError, WeightKind};

/// The states of one aggregate over many groups.
///
/// Rows may leave them unsettled: with something gathered that is yet to be put in its place. Everything works on them
/// all the same, but what needs settled states makes a settled copy of others, so settle them once
/// ([`States::settle`]) before they are read several times.
#[derive(Debug, Clone)]
pub struct States {
    kinds: Kinds,
    progress: Progress,
    bounds: Bounds,
}

/// How far what was gathered has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    /// Rows were added.
    Open,
    /// It can be merged into others.
    Gathered,
    /// It can be finished.
    Settled,
}

#[derive(Debug, Clone)]
enum Kinds {
    Count(Counts),
    Sum { sums: Sums, events: Counts },
    Extremes(Extremes),
    Moments(Moments),
    Distinct(Distinct),
    ApproxDistinct(ApproxDistinct),
    Quantiles(Quantiles),
    Histogram(Histograms),
    FirstLast(FirstLast),
}

impl Aggregate {
    /// The weight that this aggregate's states have, for a plan's weight.
    pub fn weight_kind(&self, weight: WeightKind) -> WeightKind {
        if self.weighted && self.function.takes_weight() { weight } else { WeightKind::One }
    }

    fn argument_type(&self) -> Result<&DataType, QueryError> {
        self.argument
            .as_ref()
            .map(|(_, data_type)| data_type)
            .ok_or_else(|| QueryError::Mismatch(format!("{} needs an argument", self.function.name())))
    }
}

impl States {
    /// No groups yet.
    ///
    /// # Errors
    /// [`QueryError::UnsupportedType`] when the function cannot take its argument's type.
    pub fn new(aggregate: &Aggregate, weight: WeightKind) -> Result<States, QueryError> {
        let name = aggregate.function.name();
        let weight = aggregate.weight_kind(weight);
        let floats = |data_type: &DataType| match data_type {
            DataType::Float64 => Ok(()),
            other => {
                Err(QueryError::UnsupportedType { function: name.to_owned(), data_type: other.to_string() })
            }
        };
        let kinds = match &aggregate.function {
            AggregateFunction::Count => Kinds::Count(Counts::new(weight)),
            AggregateFunction::Sum => Kinds::Sum {
                sums: Sums::new(aggregate.argument_type()?, weight),
                events: Counts::new(weight),
            },
            AggregateFunction::Min => {
                Kinds::Extremes(Extremes::new(name, Ordering::Less, aggregate.argument_type()?)?)
            }
            AggregateFunction::Max => {
                Kinds::Extremes(Extremes::new(name, Ordering::Greater, aggregate.argument_type()?)?)
            }
            AggregateFunction::Moments => {
                floats(aggregate.argument_type()?)?;
                Kinds::Moments(Moments::default())
            }
            AggregateFunction::Distinct => Kinds::Distinct(Distinct::new(aggregate.argument_type()?)?),
            AggregateFunction::ApproxDistinct => {
                Kinds::ApproxDistinct(ApproxDistinct::new(aggregate.argument_type()?)?)
            }
            AggregateFunction::Quantiles => {
                floats(aggregate.argument_type()?)?;
                Kinds::Quantiles(Quantiles::default())
            }
            AggregateFunction::Histogram(buckets) => {
                floats(aggregate.argument_type()?)?;
                Kinds::Histogram(Histograms::new(buckets)?)
            }
            AggregateFunction::First { ignore_nulls } => {
                let data_type = aggregate.argument_type()?;
                Kinds::FirstLast(FirstLast::new(name, Ordering::Less, *ignore_nulls, data_type)?)
            }
            AggregateFunction::Last { ignore_nulls } => {
                let data_type = aggregate.argument_type()?;
                Kinds::FirstLast(FirstLast::new(name, Ordering::Greater, *ignore_nulls, data_type)?)
            }
        };
        Ok(States { kinds, progress: Progress::Settled, bounds: Bounds::default() })
    }

    /// How many groups.
    pub fn len(&self) -> usize {
        match &self.kinds {
            Kinds::Count(counts) | Kinds::Sum { events: counts, .. } => counts.len(),
            Kinds::Extremes(extremes) => extremes.len(),
            Kinds::Moments(moments) => moments.len(),
            Kinds::Distinct(distinct) => distinct.len(),
            Kinds::ApproxDistinct(distinct) => distinct.len(),
            Kinds::Quantiles(sketches) => sketches.len(),
            Kinds::Histogram(histograms) => histograms.groups.len(),
            Kinds::FirstLast(values) => values.len(),
        }
    }

    /// True without groups.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for this many groups; new ones have seen no rows.
    pub fn resize(&mut self, group_count: usize) {
        match &mut self.kinds {
            Kinds::Count(counts) => counts.resize(group_count),
            Kinds::Sum { sums, events } => {
                sums.resize(group_count);
                events.resize(group_count);
            }
            Kinds::Extremes(extremes) => extremes.resize(group_count),
            Kinds::Moments(moments) => moments.resize(group_count),
            Kinds::Distinct(distinct) => distinct.resize(group_count),
            Kinds::ApproxDistinct(distinct) => distinct.resize(group_count),
            Kinds::Quantiles(sketches) => sketches.resize(group_count),
            Kinds::Histogram(histograms) => histograms.groups.resize(group_count, Default::default()),
            Kinds::FirstLast(values) => values.resize(group_count),
        }
    }

    /// Says what the caller knows of the rows that [`States::update`] will bring: no int (of `Values::Int`, or before the
    /// digits of `Values::Scaled`) and no int weight has a larger magnitude than these. Then sums need not look at them
    /// before they add them up. A bound that does not hold makes sums wrong.
    pub fn set_bounds(&mut self, value_max: Option<u64>, weight_max: Option<u64>) {
        self.bounds = Bounds { value: value_max, weight: weight_max };
    }

    /// The events that a sum has counted beside its values, as the states of a count: those of a count over the same rows
    /// where every row has a value. `None` when this is no sum.
    pub fn counted(&self) -> Option<States> {
        let Kinds::Sum { events, .. } = &self.kinds else { return None };
        Some(States { kinds: Kinds::Count(events.clone()), progress: self.progress, bounds: self.bounds })
    }

    /// Adds many rows to a group at once: the sum of weight × int (of `Values::Int`, or before the digits of
    /// `Values::Scaled`), and the events that those with a value stand for. False when this is no sum that takes them; then
    /// nothing was added.
    pub fn add_sum(&mut self, group: usize, sum: i128, digits: Option<u8>, events: i128) -> bool {
        let Kinds::Sum { sums, events: counts } = &mut self.kinds else { return false };
        if !counts.takes(events) || !sums.add(group, sum, digits) {
            return false;
        }
        counts.add(group, events);
        self.progress = Progress::Open;
        true
    }

    /// Adds many events to a group of a count at once. False when this is no count that takes them; then nothing was
    /// added.
    pub fn add_count(&mut self, group: usize, events: i128) -> bool {
        let Kinds::Count(counts) = &mut self.kinds else { return false };
        if !counts.takes(events) {
            return false;
        }
        counts.add(group, events);
        self.progress = Progress::Open;
        true
    }

    /// Whether these are sums of numbers, which take [`States::add_sum`].
    pub fn sums_numbers(&self) -> bool {
        matches!(&self.kinds, Kinds::Sum { sums: Sums::Ints(_) | Sums::Floats(_), .. })
    }

    /// Adds rows: row `i` belongs to group `groups[i]`, which is below `len()`.
    ///
    /// # Errors
    /// When the values do not have the argument's type.
    pub fn update(&mut self, groups: &[u32], input: &Input<'_>) -> Result<(), QueryError> {
        self.progress = Progress::Open;
        match &mut self.kinds {
            Kinds::Count(counts) => counts.update(groups, input.weights, None, self.bounds),
            Kinds::Sum { sums, events } => match own_nulls(input) {
                None => sums.update(events, groups, input, self.bounds),
                Some(nulls) => {
                    let input = Input { validity: Some(&nulls), ..*input };
                    sums.update(events, groups, &input, self.bounds);
                }
            },
            Kinds::Extremes(extremes) => extremes.update(groups, input)?,
            Kinds::Moments(moments) => moments.update(groups, input),
            Kinds::Distinct(distinct) => distinct.update(groups, input)?,
            Kinds::ApproxDistinct(distinct) => distinct.update(groups, input)?,
            Kinds::Quantiles(sketches) => sketches.update(groups, input),
            Kinds::Histogram(histograms) => histograms.update(groups, input),
            Kinds::FirstLast(values) => values.update(groups, input),
        }
        Ok(())
    }

    /// Adds the states of another partial: its group `i` is our group `to[i]`.
    ///
    /// # Errors
    /// When the other states are of another aggregate.
    pub fn merge(&mut self, other: &States, to: &[u32]) -> Result<(), QueryError> {
        self.merge_range(other, 0..other.len(), to)
    }

    /// Adds some groups of the states of another partial: its group `groups.start + i` is our group `to[i]`.
    ///
    /// # Errors
    /// When the other states are of another aggregate.
    pub fn merge_range(
        &mut self,
        other: &States,
        groups: Range<usize>,
        to: &[u32],
    ) -> Result<(), QueryError> {
        if other.progress == Progress::Open {
            let mut gathered = other.clone();
            gathered.gather();
            return self.merge_range(&gathered, groups, to);
        }
        self.progress = self.progress.min(Progress::Gathered);
        match (&mut self.kinds, &other.kinds) {
            (Kinds::Count(ours), Kinds::Count(theirs)) => ours.merge(theirs, groups, to)?,
            (Kinds::Sum { sums, events }, Kinds::Sum { sums: their_sums, events: their_events }) => {
                sums.merge(their_sums, groups.clone(), to)?;
                events.merge(their_events, groups, to)?;
            }
            (Kinds::Extremes(ours), Kinds::Extremes(theirs)) => ours.merge(theirs, groups, to)?,
            (Kinds::Moments(ours), Kinds::Moments(theirs)) => ours.merge(theirs, groups, to),
            (Kinds::Distinct(ours), Kinds::Distinct(theirs)) => ours.merge(theirs, groups, to)?,
            (Kinds::ApproxDistinct(ours), Kinds::ApproxDistinct(theirs)) => ours.merge(theirs, groups, to),
            (Kinds::Quantiles(ours), Kinds::Quantiles(theirs)) => ours.merge(theirs, groups, to),
            (Kinds::Histogram(ours), Kinds::Histogram(theirs)) => ours.merge(theirs, groups, to),
            (Kinds::FirstLast(ours), Kinds::FirstLast(theirs)) => ours.merge(theirs, groups, to),
            _ => return Err(QueryError::Mismatch("states of different aggregates".to_owned())),
        }
        Ok(())
    }

    /// Puts the groups of another partial after ours; no group is in both.
    ///
    /// # Errors
    /// When the other states are of another aggregate.
    pub fn append(&mut self, mut other: States) -> Result<(), QueryError> {
        self.gather();
        other.gather();
        self.progress = self.progress.min(other.progress);
        match (&mut self.kinds, other.kinds) {
            (Kinds::Count(ours), Kinds::Count(theirs)) => ours.append(theirs)?,
            (Kinds::Sum { sums, events }, Kinds::Sum { sums: their_sums, events: their_events }) => {
                sums.append(their_sums)?;
                events.append(their_events)?;
            }
            (Kinds::Extremes(ours), Kinds::Extremes(theirs)) => ours.append(theirs),
            (Kinds::Moments(ours), Kinds::Moments(theirs)) => ours.append(theirs),
            (Kinds::Distinct(ours), Kinds::Distinct(theirs)) => ours.append(theirs)?,
            (Kinds::ApproxDistinct(ours), Kinds::ApproxDistinct(theirs)) => ours.append(theirs),
            (Kinds::Quantiles(ours), Kinds::Quantiles(theirs)) => ours.append(theirs),
            (Kinds::Histogram(ours), Kinds::Histogram(theirs)) => ours.append(theirs),
            (Kinds::FirstLast(ours), Kinds::FirstLast(theirs)) => ours.append(theirs),
            _ => return Err(QueryError::Mismatch("states of different aggregates".to_owned())),
        }
        Ok(())
    }

    /// The states of these groups, in this order; a group may be named several times.
    #[must_use]
    pub fn take(&self, groups: &[u32]) -> States {
        self.unless_settled().as_ref().unwrap_or(self).take_gathered(groups)
    }

    /// As [`States::take`], of states that are at least gathered.
    pub(crate) fn take_gathered(&self, groups: &[u32]) -> States {
        let kinds = match &self.kinds {
            Kinds::Count(counts) => Kinds::Count(counts.take(groups)),
            Kinds::Sum { sums, events } => {
                Kinds::Sum { sums: sums.take(groups), events: events.take(groups) }
            }
            Kinds::Extremes(extremes) => Kinds::Extremes(extremes.take(groups)),
            Kinds::Moments(moments) => Kinds::Moments(moments.take(groups)),
            Kinds::Distinct(distinct) => Kinds::Distinct(distinct.take(groups)),
            Kinds::ApproxDistinct(distinct) => Kinds::ApproxDistinct(distinct.take(groups)),
            Kinds::Quantiles(sketches) => Kinds::Quantiles(sketches.take(groups)),
            Kinds::Histogram(histograms) => Kinds::Histogram(histograms.take(groups)),
            Kinds::FirstLast(values) => Kinds::FirstLast(values.take(groups)),
        };
        States { kinds, progress: self.progress, bounds: self.bounds }
    }

    /// Prepares them to be merged into others.
    pub fn gather(&mut self) {
        if self.progress == Progress::Open {
            match &mut self.kinds {
                Kinds::Extremes(extremes) => extremes.settle(),
                Kinds::Distinct(distinct) => distinct.gather(),
                Kinds::ApproxDistinct(distinct) => distinct.gather(),
                Kinds::Quantiles(sketches) => sketches.gather(),
                _ => {}
            }
            self.progress = Progress::Gathered;
        }
    }

    /// Puts everything in its place.
    pub fn settle(&mut self) {
        if self.progress != Progress::Settled {
            match &mut self.kinds {
                Kinds::Extremes(extremes) => extremes.settle(),
                Kinds::Distinct(distinct) => distinct.settle(),
                Kinds::ApproxDistinct(distinct) => distinct.settle(),
                Kinds::Quantiles(sketches) => sketches.settle(),
                _ => {}
            }
            self.progress = Progress::Settled;
        }
    }

    /// Keeps only what finishing needs, for whoever adds nothing to them any more: of distinct values how many there are.
    pub fn conclude(&mut self) {
        if matches!(self.kinds, Kinds::Distinct(_)) {
            self.settle();
        }
        if let Kinds::Distinct(distinct) = &mut self.kinds {
            distinct.count();
        }
    }

    /// Nothing can be added to groups that have something.
    pub fn is_concluded(&self) -> bool {
        matches!(&self.kinds, Kinds::Distinct(distinct) if distinct.is_counted())
    }

    /// A settled copy, when they are not settled.
    fn unless_settled(&self) -> Option<States> {
        (self.progress != Progress::Settled).then(|| {
            let mut settled = self.clone();
            settled.settle();
            settled
        })
    }

    /// A column of the answer, one value a group. `data_type` is the argument's type, for `Finish::Sum`.
    ///
    /// # Errors
    /// [`QueryError::Overflow`] when a count or an int sum leaves 64 bits; [`QueryError::Mismatch`] when the state
    /// cannot be finished this way.
    pub fn finish(&self, finish: &Finish, data_type: &DataType) -> Result<ArrayRef, QueryError> {
        if let Some(settled) = self.unless_settled() {
            return settled.finish(finish, data_type);
        }
        let groups = 0..self.len();
        match (&self.kinds, finish) {
            (Kinds::Count(counts) | Kinds::Sum { events: counts, .. }, Finish::Count) => counts.finish(),
            (Kinds::Sum { sums, events }, Finish::Sum) if data_type == &DataType::Int64 => {
                let sum = |group| (events.float(group) > 0.0).then(|| sums.int(group)).transpose();
                Ok(Arc::new(groups.map(sum).collect::<Result<Int64Array, _>>()?))
            }
            (Kinds::Sum { sums, events }, Finish::Sum) => {
                let sum = |group| (events.float(group) > 0.0).then(|| sums.float(group));
                Ok(Arc::new(groups.map(sum).collect::<Float64Array>()))
            }
            (Kinds::Sum { sums, events }, Finish::Average) => {
                let average =
                    |group| (events.float(group) > 0.0).then(|| sums.float(group) / events.float(group));
                Ok(Arc::new(groups.map(average).collect::<Float64Array>()))
            }
            (Kinds::Extremes(extremes), Finish::Value) => extremes.to_array(),
            (Kinds::FirstLast(values), Finish::Value) => values.finish(),
            (Kinds::Moments(moments), Finish::Variance { sample }) => {
                Ok(Arc::new(groups.map(|group| moments.variance(group, *sample)).collect::<Float64Array>()))
            }
            (Kinds::Moments(moments), Finish::StandardDeviation { sample }) => {
                let deviation = |group| moments.variance(group, *sample).map(f64::sqrt);
                Ok(Arc::new(groups.map(deviation).collect::<Float64Array>()))
            }
            (Kinds::Distinct(distinct), Finish::DistinctCount) => {
                Ok(Arc::new(Int64Array::from(distinct.counts())))
            }
            (Kinds::ApproxDistinct(distinct), Finish::DistinctCount) => Ok(distinct.finish()),
            (Kinds::Quantiles(sketches), Finish::Quantile(fraction)) => Ok(sketches.finish(*fraction)),
            (Kinds::Histogram(histograms), Finish::Histogram) => histograms.finish(),
            _ => Err(QueryError::Mismatch(format!("this state cannot be finished as {finish:?}"))),
        }
    }

    /// The Arrow types of [`States::to_arrays`] for an aggregate; those that are [concluded](States::conclude) are ints.
    ///
    /// # Errors
    /// As [`States::new`].
    pub fn array_types(aggregate: &Aggregate, weight: WeightKind) -> Result<Vec<DataType>, QueryError> {
        let weight = aggregate.weight_kind(weight);
        Ok(match &aggregate.function {
            AggregateFunction::Count => vec![Counts::array_type(weight)],
            AggregateFunction::Sum => {
                let mut types = vec![Counts::array_type(weight)];
                types.extend(Sums::array_types(aggregate.argument_type()?, weight));
                types
            }
            AggregateFunction::Min | AggregateFunction::Max => vec![aggregate.argument_type()?.clone()],
            AggregateFunction::Moments => vec![DataType::Float64; 3],
            AggregateFunction::Distinct => vec![Distinct::array_type(aggregate.argument_type()?)?],
            AggregateFunction::ApproxDistinct
            | AggregateFunction::Quantiles
            | AggregateFunction::Histogram(_) => {
                vec![DataType::Binary]
            }
            AggregateFunction::First { .. } | AggregateFunction::Last { .. } => {
                FirstLast::array_types(aggregate.argument_type()?)
            }
        })
    }

    /// The states as arrays, for the wire.
    ///
    /// # Errors
    /// When a value cannot be given the argument's type, which is a fault of ours.
    pub fn to_arrays(&self) -> Result<Vec<ArrayRef>, QueryError> {
        if let Some(settled) = self.unless_settled() {
            return settled.to_arrays();
        }
        Ok(match &self.kinds {
            Kinds::Count(counts) => vec![counts.to_array()],
            Kinds::Sum { sums, events } => {
                let mut arrays = vec![events.to_array()];
                arrays.extend(sums.to_arrays());
                arrays
            }
            Kinds::Extremes(extremes) => vec![extremes.to_array()?],
            Kinds::Moments(moments) => moments.to_arrays(),
            Kinds::Distinct(distinct) => vec![distinct.to_array()?],
            Kinds::ApproxDistinct(distinct) => vec![distinct.to_array()],
            Kinds::Quantiles(sketches) => vec![sketches.to_array()],
            Kinds::Histogram(histograms) => vec![histograms.to_array()],
            Kinds::FirstLast(values) => values.to_arrays()?,
        })
    }

    /// The states from their arrays; everything is checked.
    ///
    /// # Errors
    /// When the arrays are not states of this aggregate.
    pub fn from_arrays(
        aggregate: &Aggregate,
        weight: WeightKind,
        arrays: &[ArrayRef],
    ) -> Result<States, QueryError> {
        let empty = States::new(aggregate, weight)?;
        let weight = aggregate.weight_kind(weight);
        let types = States::array_types(aggregate, weight)?;
        if arrays.len() != types.len() {
            return Err(QueryError::Mismatch(format!(
                "state has {} arrays, not {}",
                arrays.len(),
                types.len()
            )));
        }
        let blobs = || -> Result<&BinaryArray, QueryError> {
            Ok(without_nulls(expect(arrays, 0, &DataType::Binary)?)?.as_binary::<i32>())
        };
        let kinds = match empty.kinds {
            Kinds::Count(_) => Kinds::Count(Counts::from_array(weight, arrays, 0)?),
            Kinds::Sum { .. } => Kinds::Sum {
                events: Counts::from_array(weight, arrays, 0)?,
                sums: Sums::from_arrays(aggregate.argument_type()?, weight, arrays, 1)?,
            },
            Kinds::Extremes(empty) => Kinds::Extremes(Extremes::from_arrays(empty, arrays)?),
            Kinds::Moments(_) => Kinds::Moments(Moments::from_arrays(arrays)?),
            Kinds::Distinct(_) => Kinds::Distinct(Distinct::from_arrays(aggregate.argument_type()?, arrays)?),
            Kinds::ApproxDistinct(empty) => {
                Kinds::ApproxDistinct(ApproxDistinct::from_array(empty, blobs()?)?)
            }
            Kinds::Quantiles(_) => Kinds::Quantiles(Quantiles::from_array(blobs()?)?),
            Kinds::Histogram(empty) => Kinds::Histogram(Histograms::from_arrays(empty, arrays)?),
            Kinds::FirstLast(empty) => Kinds::FirstLast(FirstLast::from_arrays(empty, arrays)?),
        };
        Ok(States { kinds, progress: Progress::Settled, bounds: Bounds::default() })
    }

    /// Bytes in use.
    pub fn memory_bytes(&self) -> usize {
        match &self.kinds {
            Kinds::Count(counts) => counts.memory_bytes(),
            Kinds::Sum { sums, events } => sums.memory_bytes() + events.memory_bytes(),
            Kinds::Extremes(extremes) => extremes.memory_bytes(),
            Kinds::Moments(moments) => moments.memory_bytes(),
            Kinds::Distinct(distinct) => distinct.memory_bytes(),
            Kinds::ApproxDistinct(distinct) => distinct.memory_bytes(),
            Kinds::Quantiles(sketches) => sketches.memory_bytes(),
            Kinds::Histogram(histograms) => histograms.memory_bytes(),
            Kinds::FirstLast(values) => values.memory_bytes(),
        }
    }
}

impl Finish {
    /// The Arrow type of the finished column, for an argument of this type.
    pub fn data_type(&self, argument: &DataType) -> DataType {
        match self {
            Finish::Count | Finish::DistinctCount => DataType::Int64,
            Finish::Sum if argument == &DataType::Int64 => DataType::Int64,
            Finish::Sum
            | Finish::Average
            | Finish::Variance { .. }
            | Finish::StandardDeviation { .. }
            | Finish::Quantile(_) => DataType::Float64,
            Finish::Value => argument.clone(),
            Finish::Histogram => finished_type(),
        }
    }
}
