//! Counts per bucket of values.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, Float64Builder, Int64Builder, ListBuilder, StructBuilder,
};
use arrow::datatypes::{DataType, Field, Fields};

use super::counts::round_to_int;
use super::each::{float_weight, for_each_valid, with_floats};
use super::exact::take;
use super::scalars::{expect, without_nulls};
use super::{HistogramBuckets, Input};
use crate::QueryError;

/// Weights by bucket number, a group.
#[derive(Debug, Clone)]
pub(crate) struct Histograms {
    buckets: HistogramBuckets,
    pub(crate) groups: Vec<BTreeMap<i64, f64>>,
}

/// Bucket numbers beyond this are folded into the outermost ones: the edges of further buckets are no longer exact.
const BUCKET_MAX: f64 = 9.0e15;

fn fields() -> Fields {
    Fields::from(vec![
        Field::new("lower", DataType::Float64, true),
        Field::new("upper", DataType::Float64, true),
        Field::new("count", DataType::Int64, true),
    ])
}

/// The type of a finished histogram.
pub(crate) fn finished_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Struct(fields()), true)))
}

impl Histograms {
    pub(crate) fn new(buckets: &HistogramBuckets) -> Result<Histograms, QueryError> {
        let sound = match buckets {
            HistogramBuckets::Width(width) => width.is_finite() && *width > 0.0,
            HistogramBuckets::Range { min, max, count } => {
                min.is_finite() && max.is_finite() && min < max && (1..=100_000).contains(count)
            }
        };
        if !sound {
            return Err(QueryError::Mismatch(format!(
                "histogram buckets {buckets:?}: width must be above 0, or min below max with 1 to 100000 buckets"
            )));
        }
        Ok(Histograms { buckets: buckets.clone(), groups: Vec::new() })
    }

    fn bucket(&self, value: f64) -> i64 {
        match &self.buckets {
            HistogramBuckets::Width(width) => (value / width).floor().clamp(-BUCKET_MAX, BUCKET_MAX) as i64,
            HistogramBuckets::Range { min, max, count } => {
                if value < *min {
                    -1
                } else if value >= *max {
                    i64::from(*count)
                } else {
                    (((value - min) / (max - min) * f64::from(*count)) as i64).min(i64::from(*count) - 1)
                }
            }
        }
    }

    fn edges(&self, bucket: i64) -> (f64, f64) {
        match &self.buckets {
            HistogramBuckets::Width(width) => (bucket as f64 * width, (bucket + 1) as f64 * width),
            HistogramBuckets::Range { min, max, count } => {
                let count = i64::from(*count);
                let edge = |index: i64| match index {
                    i if i < 0 => f64::NEG_INFINITY,
                    i if i > count => f64::INFINITY,
                    i if i == count => *max,
                    i => min + (max - min) * (i as f64 / count as f64),
                };
                (edge(bucket), edge(bucket + 1))
            }
        }
    }

    pub(crate) fn update(&mut self, groups: &[u32], input: &Input<'_>) {
        with_floats(input.values, |values| {
            for_each_valid(groups.len(), input.validity, |row| {
                if !values[row].is_nan() {
                    let bucket = self.bucket(values[row]);
                    *self.groups[groups[row] as usize].entry(bucket).or_default() +=
                        float_weight(input.weights, row);
                }
            });
        });
    }

    /// Adds some groups of another: its group `groups.start + i` is our group `to[i]`.
    pub(crate) fn merge(&mut self, other: &Histograms, groups: Range<usize>, to: &[u32]) {
        for (group, counts) in to.iter().zip(&other.groups[groups]) {
            for (bucket, weight) in counts {
                *self.groups[*group as usize].entry(*bucket).or_default() += weight;
            }
        }
    }

    pub(crate) fn append(&mut self, mut other: Histograms) {
        self.groups.append(&mut other.groups);
    }

    pub(crate) fn take(&self, groups: &[u32]) -> Histograms {
        Histograms { buckets: self.buckets.clone(), groups: take(&self.groups, groups) }
    }

    pub(crate) fn finish(&self) -> Result<ArrayRef, QueryError> {
        let edges: Vec<Box<dyn arrow::array::ArrayBuilder>> = vec![
            Box::new(Float64Builder::new()),
            Box::new(Float64Builder::new()),
            Box::new(Int64Builder::new()),
        ];
        let mut lists = ListBuilder::new(StructBuilder::new(fields(), edges));
        for counts in &self.groups {
            for (bucket, weight) in counts {
                let (lower, upper) = self.edges(*bucket);
                let count = round_to_int(*weight)?;
                let item = lists.values();
                for (index, edge) in [lower, upper].into_iter().enumerate() {
                    if let Some(builder) = item.field_builder::<Float64Builder>(index) {
                        builder.append_value(edge);
                    }
                }
                if let Some(builder) = item.field_builder::<Int64Builder>(2) {
                    builder.append_value(count);
                }
                item.append(true);
            }
            lists.append(true);
        }
        Ok(Arc::new(lists.finish()))
    }

    pub(crate) fn to_array(&self) -> ArrayRef {
        let bytes = self.groups.iter().map(|counts| {
            let pairs =
                counts.iter().flat_map(|(bucket, weight)| [bucket.to_le_bytes(), weight.to_le_bytes()]);
            pairs.flatten().collect::<Vec<u8>>()
        });
        Arc::new(BinaryArray::from_iter_values(bytes))
    }

    pub(crate) fn from_arrays(mut empty: Histograms, arrays: &[ArrayRef]) -> Result<Histograms, QueryError> {
        let array = without_nulls(expect(arrays, 0, &DataType::Binary)?)?.as_binary::<i32>();
        for bytes in array.iter().flatten() {
            if bytes.len() % 16 != 0 {
                return Err(QueryError::Mismatch(format!("{} bytes are not a histogram", bytes.len())));
            }
            let mut counts = BTreeMap::new();
            for pair in bytes.chunks_exact(16) {
                let (mut bucket, mut weight) = ([0; 8], [0; 8]);
                bucket.copy_from_slice(&pair[..8]);
                weight.copy_from_slice(&pair[8..]);
                let (bucket, weight) = (i64::from_le_bytes(bucket), f64::from_le_bytes(weight));
                if bucket.unsigned_abs() > BUCKET_MAX as u64 || !weight.is_finite() {
                    return Err(QueryError::Mismatch(format!(
                        "histogram bucket {bucket} with weight {weight}"
                    )));
                }
                *counts.entry(bucket).or_default() += weight;
            }
            empty.groups.push(counts);
        }
        Ok(empty)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.groups.iter().map(|counts| 24 + counts.len() * 32).sum()
    }
}
