//! Aggregates: one enum, and for each a mergeable state over many groups with three verbs.
//!
//! * `update` takes rows: for each a group number, a value and a weight. It runs on plain slices.
//! * `merge` takes the states of another partial: for each of its groups, the number of ours.
//! * `finish` turns states into a column of values.
//!
//! One state serves several SQL functions: count(x), sum(x) and avg(x) share [`AggregateFunction::Sum`], all
//! percentiles of one argument share one [`AggregateFunction::Quantiles`]. The aggregator asks for a state once and
//! finishes it in as many ways as the query needs ([`Finish`]).
//!
//! Weights: a row counts as `sample_rate` events in `Count`, `Sum`, `Moments`, `Quantiles` and `Histogram`, unless the
//! aggregate says it is unweighted. `Min`, `Max`, `Distinct`, `ApproxDistinct`, `First` and `Last` take no weight.
//! Rows whose argument is NULL do not count, in any of them but `Count` without argument and `First`/`Last`, which
//! keep NULLs unless told otherwise.
//!
//! Sums of ints are exact (128 bits inside, an error when the answer leaves 64 bits). Sums of floats are compensated
//! when partials merge, with an error below 1e-11 of the sum of magnitudes. Percentiles come from a [`crate::sketch::Sketch`] with a relative error of at most 1 %.

use arrow::array::ArrayRef;
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;

use crate::Expr;

mod approx;
mod counts;
mod distinct;
mod each;
mod exact;
mod extremes;
mod first_last;
mod gathered;
mod hash_sets;
mod histogram;
mod known;
mod lanes;
mod moments;
mod number_set;
mod pairs;
mod quantiles;
mod scalars;
mod states;
mod sums;
mod text_sets;

pub use states::States;

/// One aggregate of a plan.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// Which.
    pub function: AggregateFunction,
    /// Its argument and the argument's Arrow type; only `Count` goes without.
    pub argument: Option<(Expr, DataType)>,
    /// FILTER (WHERE …).
    pub filter: Option<Expr>,
    /// Whether a row counts as `sample_rate` events. False for the `unweighted_…` forms, and then also for functions
    /// that take no weight.
    pub weighted: bool,
}

/// The aggregates a leaf can compute.
#[derive(Debug, Clone, PartialEq)]
pub enum AggregateFunction {
    /// Events: the sum of weights. No argument.
    Count,
    /// Sum of weight × value together with the sum of weights of non-NULL values: serves sum, avg and count(x).
    /// Argument: Int64, Float64, or Boolean and any other type for which only the weights are summed (then the sum is 0).
    Sum,
    /// Smallest value.
    Min,
    /// Largest value.
    Max,
    /// Weight, mean and squared deviations: serves variance and standard deviation. Argument: Float64.
    Moments,
    /// Exact distinct values.
    Distinct,
    /// HyperLogLog with 2^14 registers: standard error 0.8 %.
    ApproxDistinct,
    /// A sketch of the values with relative error ≤ 1 %. Argument: Float64.
    Quantiles,
    /// Counts per bucket of values. Argument: Float64.
    Histogram(HistogramBuckets),
    /// The value with the earliest `time`; equal times are broken by value so that merge order does not matter.
    First {
        /// Skip NULLs.
        ignore_nulls: bool,
    },
    /// The value with the latest `time`.
    Last {
        /// Skip NULLs.
        ignore_nulls: bool,
    },
}

/// How `histogram` cuts the values.
#[derive(Debug, Clone, PartialEq)]
pub enum HistogramBuckets {
    /// Buckets `[k·width, (k+1)·width)`.
    Width(f64),
    /// `count` equal buckets from `min` to `max`, and one below and one above for what lies outside.
    Range {
        /// Lower edge of the first bucket.
        min: f64,
        /// Upper edge of the last bucket.
        max: f64,
        /// How many.
        count: u32,
    },
}

/// How a state becomes a column of the answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Finish {
    /// `Count`, or the weights of `Sum`: events as Int64 (float weights are rounded).
    Count,
    /// `Sum`: Int64 or Float64 after the argument's type; NULL where no value was.
    Sum,
    /// `Sum`: Σw·x / Σw as Float64; NULL where no value was.
    Average,
    /// `Min`, `Max`, `First`, `Last`: the value in the argument's type.
    Value,
    /// `Moments`: variance; `sample` divides by Σw − 1, else by Σw.
    Variance {
        /// Sample variance.
        sample: bool,
    },
    /// `Moments`: the square root of the variance.
    StandardDeviation {
        /// Of the sample variance.
        sample: bool,
    },
    /// `Distinct`, `ApproxDistinct`: how many, as Int64.
    DistinctCount,
    /// `Quantiles`: the value below which this fraction (0 to 1) of the events lies, as Float64.
    Quantile(f64),
    /// `Histogram`: a list of `{lower, upper, count}` (Float64, Float64, Int64), in order, without empty buckets.
    Histogram,
}

/// The values of one argument for a run of rows.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// No argument: `Count`.
    None,
    /// Int64, or a time or date as its integer.
    Int(&'a [i64]),
    /// Float64.
    Float(&'a [f64]),
    /// Float64 as an int and the digits that it has after the point: the value is int / 10^digits. Sums of these are
    /// exact until they are merged or finished.
    Scaled(&'a [i64], u8),
    /// Per row an index into the distinct values of a block; an index whose value is NULL is a NULL.
    Codes(&'a [u32], &'a ArrayRef),
    /// Any other type.
    Array(&'a ArrayRef),
}

/// The weights of a run of rows. NULL weights were replaced by one before they came here.
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    /// Each row is one event.
    One,
    /// `sample_rate` as int.
    Int(&'a [i64]),
    /// `sample_rate` as float.
    Float(&'a [f64]),
}

/// A run of rows as `update` takes it; all slices have one length.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The argument.
    pub values: Values<'a>,
    /// Which values are there; `None` when all are. For `Array` and `Codes` their own NULLs count too.
    pub validity: Option<&'a NullBuffer>,
    /// The weights.
    pub weights: Weights<'a>,
    /// Row times in nanoseconds; needed by `First` and `Last` only, empty otherwise.
    pub times: &'a [i64],
}

impl AggregateFunction {
    /// The word EXPLAIN and errors use.
    pub fn name(&self) -> &'static str {
        match self {
            AggregateFunction::Count => "count",
            AggregateFunction::Sum => "sum",
            AggregateFunction::Min => "min",
            AggregateFunction::Max => "max",
            AggregateFunction::Moments => "moments",
            AggregateFunction::Distinct => "distinct",
            AggregateFunction::ApproxDistinct => "approx_distinct",
            AggregateFunction::Quantiles => "quantiles",
            AggregateFunction::Histogram(_) => "histogram",
            AggregateFunction::First { .. } => "first",
            AggregateFunction::Last { .. } => "last",
        }
    }

    /// Whether a row counts as `sample_rate` events in it.
    pub fn takes_weight(&self) -> bool {
        match self {
            AggregateFunction::Count
            | AggregateFunction::Sum
            | AggregateFunction::Moments
            | AggregateFunction::Quantiles
            | AggregateFunction::Histogram(_) => true,
            AggregateFunction::Min
            | AggregateFunction::Max
            | AggregateFunction::Distinct
            | AggregateFunction::ApproxDistinct
            | AggregateFunction::First { .. }
            | AggregateFunction::Last { .. } => false,
        }
    }
}

impl std::fmt::Display for Aggregate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.function.takes_weight() && !self.weighted {
            f.write_str("unweighted ")?;
        }
        write!(f, "{}(", self.function.name())?;
        match &self.argument {
            Some((argument, _)) => write!(f, "{argument})")?,
            None => f.write_str("*)")?,
        }
        match &self.filter {
            Some(filter) => write!(f, " where {filter}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
