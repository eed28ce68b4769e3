//! Percentile sketches a group.
//!
//! Rows of positive values go to a dense table, group by bucket, for as long as it is small; it covers the buckets that
//! were seen. What it does not cover (zero, negative values, infinities, values far from all others, all rows of many
//! groups) is gathered. Both go to the sketches of what they are merged into, or to their own when they settle: the
//! table run by run, not bucket by bucket.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Float64Array};
use arrow::buffer::NullBuffer;

use super::Input;
use super::Weights;
use super::each::{for_each_valid, with_floats};
use super::exact::take;
use super::gathered::Gathered;
use crate::QueryError;
use crate::sketch::{BUCKET_INFINITY, BUCKET_NORMAL, BUCKET_SHIFT, Sketch};

/// A table has at most so many buckets of all groups together: 1 MiB, which caches hold.
const TABLE_MAX: usize = 1 << 17;
/// Buckets that a table is wider than what was seen, on either side.
const SLACK: u32 = 16;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quantiles {
    sketches: Vec<Sketch>,
    table: Table,
    /// Values and weights.
    gathered: Gathered<(f64, f64)>,
    /// There was no room for a table: all rows are gathered.
    has_no_room: bool,
}

/// Weights by group and bucket; `width` is 0 while there is none.
#[derive(Debug, Clone, Default)]
struct Table {
    first: u32,
    width: usize,
    weights: Vec<f64>,
    /// Of the values counted here.
    min: Vec<f64>,
    max: Vec<f64>,
}

/// The bucket of a value as [`Sketch`] has it, for positive ones; of all others a number beyond every bucket or below
/// that of the smallest normal float.
#[inline(always)]
fn bucket(value: f64) -> u32 {
    (value.to_bits() >> BUCKET_SHIFT) as u32
}

fn is_ordinary(bucket: u32) -> bool {
    (BUCKET_NORMAL..BUCKET_INFINITY).contains(&bucket)
}

impl Table {
    fn resize(&mut self, group_count: usize) {
        self.weights.resize(group_count * self.width, 0.0);
        self.min.resize(group_count, f64::INFINITY);
        self.max.resize(group_count, f64::NEG_INFINITY);
    }

    /// Adds rows, and returns those that are not covered.
    #[inline(always)]
    fn add(
        &mut self,
        groups: &[u32],
        values: &[f64],
        validity: Option<&NullBuffer>,
        weight: impl Fn(usize) -> f64,
    ) -> Vec<u32> {
        let rows = groups.len();
        let values = &values[..rows];
        let mut missed = Vec::new();
        let Table { first, width, ref mut weights, ref mut min, ref mut max } = *self;
        let (weights, min, max) = (&mut weights[..], &mut min[..], &mut max[..]);
        for_each_valid(
            rows,
            validity,
            // Called, it would read all that it works with again for each row.
            #[inline(always)]
            |row| {
                let (value, group, weight) = (values[row], groups[row] as usize, weight(row));
                let index = bucket(value).wrapping_sub(first) as usize;
                if index >= width {
                    missed.push(row as u32);
                } else if weight > 0.0 {
                    weights[group * width + index] += weight;
                    if value < min[group] {
                        min[group] = value;
                    }
                    if value > max[group] {
                        max[group] = value;
                    }
                }
            },
        );
        missed
    }

    /// Covers these buckets as well; false when that takes too large a table.
    fn cover(&mut self, group_count: usize, low: u32, high: u32) -> bool {
        let (mut first, mut end) =
            (low.saturating_sub(SLACK).max(BUCKET_NORMAL), (high + SLACK).min(BUCKET_INFINITY));
        if self.width > 0 {
            first = first.min(self.first);
            end = end.max(self.first + self.width as u32);
        }
        let width = (end - first) as usize;
        if group_count.saturating_mul(width) > TABLE_MAX {
            return false;
        }
        let mut weights = vec![0.0; group_count * width];
        if self.width > 0 {
            let start = (self.first - first) as usize;
            for (wider, run) in weights.chunks_exact_mut(width).zip(self.weights.chunks_exact(self.width)) {
                wider[start..start + run.len()].copy_from_slice(run);
            }
        }
        (self.first, self.width, self.weights) = (first, width, weights);
        self.resize(group_count);
        true
    }

    fn merge_into(&self, group: usize, sketch: &mut Sketch) {
        if self.width > 0 {
            let run = &self.weights[group * self.width..(group + 1) * self.width];
            sketch.merge_run(self.first, run, self.min[group], self.max[group]);
        }
    }
}

impl Quantiles {
    pub(crate) fn len(&self) -> usize {
        self.sketches.len()
    }

    pub(crate) fn resize(&mut self, group_count: usize) {
        if self.table.width > 0 {
            if group_count.saturating_mul(self.table.width) > TABLE_MAX {
                self.settle();
            } else {
                self.table.resize(group_count);
            }
        }
        self.sketches.resize(group_count, Sketch::default());
    }

    pub(crate) fn update(&mut self, groups: &[u32], input: &Input<'_>) {
        let validity = input.validity;
        with_floats(input.values, |values| match input.weights {
            Weights::One => self.add(groups, values, validity, |_| 1.0),
            Weights::Int(weights) => {
                let weights = &weights[..groups.len()];
                self.add(groups, values, validity, |row| weights[row] as f64);
            }
            Weights::Float(weights) => {
                let weights = &weights[..groups.len()];
                self.add(groups, values, validity, |row| weights[row]);
            }
        });
    }

    #[inline(always)]
    fn add(
        &mut self,
        groups: &[u32],
        values: &[f64],
        validity: Option<&NullBuffer>,
        weight: impl Fn(usize) -> f64,
    ) {
        if self.has_no_room {
            self.gathered.reserve(groups.len());
            for_each_valid(groups.len(), validity, |row| {
                self.gathered.push(groups[row], (values[row], weight(row)));
            });
        } else {
            self.add_to_table(groups, values, validity, weight);
        }
        if self.gathered.is_full() {
            self.settle();
        }
    }

    #[inline(always)]
    fn add_to_table(
        &mut self,
        groups: &[u32],
        values: &[f64],
        validity: Option<&NullBuffer>,
        weight: impl Fn(usize) -> f64,
    ) {
        let mut missed = self.table.add(groups, values, validity, &weight);
        if self.cover(values, &missed) {
            let part = |row: &u32| (groups[*row as usize], values[*row as usize]);
            let (part_groups, part_values): (Vec<u32>, Vec<f64>) = missed.iter().map(part).unzip();
            let still = self.table.add(&part_groups, &part_values, None, |row| weight(missed[row] as usize));
            missed = still.into_iter().map(|index| missed[index as usize]).collect();
        }
        self.gathered.reserve(missed.len());
        for row in missed {
            let row = row as usize;
            self.gathered.push(groups[row], (values[row], weight(row)));
        }
    }

    /// Widens the table to the buckets of these rows, or to those of most of them; false when it stays as it was.
    fn cover(&mut self, values: &[f64], missed: &[u32]) -> bool {
        let buckets = missed.iter().map(|row| bucket(values[*row as usize]));
        let mut buckets: Vec<u32> = buckets.filter(|bucket| is_ordinary(*bucket)).collect();
        let (Some(low), Some(high)) = (buckets.iter().min().copied(), buckets.iter().max().copied()) else {
            return false;
        };
        if self.table.cover(self.sketches.len(), low, high) {
            return true;
        }
        // A few values far from all others must not keep the rest out.
        let few = buckets.len() / 64;
        if few == 0 {
            return false;
        }
        let low = *buckets.select_nth_unstable(few).1;
        let high_place = buckets.len() - 1 - few;
        let high = *buckets.select_nth_unstable(high_place).1;
        let covered = self.table.cover(self.sketches.len(), low, high);
        self.has_no_room = !covered && self.table.width == 0;
        covered
    }

    /// Sorts what was gathered, for a merge.
    pub(crate) fn gather(&mut self) {
        self.gathered.sort(self.sketches.len());
    }

    /// Ends what updates left open.
    pub(crate) fn settle(&mut self) {
        self.gather();
        let (table, gathered) = (std::mem::take(&mut self.table), std::mem::take(&mut self.gathered));
        for (group, sketch) in self.sketches.iter_mut().enumerate() {
            table.merge_into(group, sketch);
            sketch.add_all(gathered.of(group));
        }
    }

    /// Adds some groups of another, which is gathered: its group `groups.start + i` is our group `to[i]`.
    pub(crate) fn merge(&mut self, other: &Quantiles, groups: Range<usize>, to: &[u32]) {
        for (index, group) in groups.zip(to) {
            let ours = &mut self.sketches[*group as usize];
            ours.merge(&other.sketches[index]);
            other.table.merge_into(index, ours);
            ours.add_all(other.gathered.of(index));
        }
    }

    pub(crate) fn append(&mut self, mut other: Quantiles) {
        self.settle();
        other.settle();
        self.sketches.append(&mut other.sketches);
    }

    /// These groups of gathered ones.
    pub(crate) fn take(&self, groups: &[u32]) -> Quantiles {
        let mut sketches = take(&self.sketches, groups);
        for (sketch, group) in sketches.iter_mut().zip(groups) {
            self.table.merge_into(*group as usize, sketch);
        }
        Quantiles { sketches, gathered: self.gathered.take(groups), ..Quantiles::default() }
    }

    /// The quantiles of settled ones.
    pub(crate) fn finish(&self, fraction: f64) -> ArrayRef {
        Arc::new(self.sketches.iter().map(|sketch| sketch.quantile(fraction)).collect::<Float64Array>())
    }

    /// Settled ones for the wire.
    pub(crate) fn to_array(&self) -> ArrayRef {
        Arc::new(BinaryArray::from_iter_values(self.sketches.iter().map(Sketch::to_bytes)))
    }

    pub(crate) fn from_array(array: &BinaryArray) -> Result<Quantiles, QueryError> {
        let sketches = array.iter().flatten().map(Sketch::from_bytes).collect::<Result<_, _>>()?;
        Ok(Quantiles { sketches, ..Quantiles::default() })
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.sketches.iter().map(|sketch| 96 + sketch.memory_bytes()).sum::<usize>()
            + (self.table.weights.capacity() + self.table.min.capacity() + self.table.max.capacity()) * 8
            + self.gathered.memory_bytes()
    }
}
