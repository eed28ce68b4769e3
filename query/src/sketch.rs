//! Sketches: small summaries of many values that merge.
//!
//! [`Sketch`] answers percentiles with a relative error of at most 1/128 (0.8 %), for weights as well. It counts values
//! in log-linear buckets, 64 to each power of two, as HdrHistogram does (Gil Tene): the bucket of a float is its
//! exponent and the top six bits of its mantissa, so finding it is a shift. Values nearer to zero than the smallest
//! normal float count as zero; NaN does not count.
//!
//! [`HyperLogLog`] answers how many distinct values there were, with 2^14 registers (standard error 0.8 %), by Otmar
//! Ertl's improved estimator ("New cardinality estimation algorithms for HyperLogLog sketches", 2017), which needs
//! no tables of corrections.
//!
//! Both turn into bytes and back; bytes from elsewhere are checked. Merging is exact: the same rows give the same
//! sketch in whatever parts and order they came (up to the rounding of float weights).

use crate::QueryError;

mod hyperloglog;

pub(crate) use hyperloglog::Registers;
pub use hyperloglog::{HyperLogLog, hash_bytes, hash_int, unhash_int};

/// Mantissa bits that choose a bucket.
const BUCKET_BITS: u32 = 6;
pub(crate) const BUCKET_SHIFT: u32 = 52 - BUCKET_BITS;
/// The bucket of the smallest normal float.
pub(crate) const BUCKET_NORMAL: u32 = 1 << BUCKET_BITS;
/// The bucket of infinity, the largest there is.
pub(crate) const BUCKET_INFINITY: u32 = 0x7ff << BUCKET_BITS;
/// Buckets are kept as a sorted list up to this many, then as a dense run.
const SPARSE_MAX: usize = 24;

/// Weights by bucket of the magnitude of a value.
#[derive(Debug, Clone, PartialEq)]
enum Buckets {
    /// Sorted by bucket.
    Sparse(Vec<(u32, f64)>),
    /// `weights[i]` belongs to bucket `first + i`.
    Dense { first: u32, weights: Vec<f64> },
}

impl Buckets {
    fn add(&mut self, bucket: u32, weight: f64) {
        match self {
            Buckets::Sparse(list) => match list.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
                Ok(found) => list[found].1 += weight,
                Err(place) => {
                    list.insert(place, (bucket, weight));
                    if list.len() > SPARSE_MAX {
                        self.densify();
                    }
                }
            },
            Buckets::Dense { first, weights } => {
                let index = bucket.wrapping_sub(*first) as usize;
                if index < weights.len() {
                    weights[index] += weight;
                } else {
                    Self::widen(first, weights, bucket);
                    weights[(bucket - *first) as usize] += weight;
                }
            }
        }
    }

    fn merge(&mut self, other: &Buckets) {
        match other {
            Buckets::Sparse(list) => list.iter().for_each(|(bucket, weight)| self.add(*bucket, *weight)),
            Buckets::Dense { first, weights } => self.add_run(*first, weights),
        }
    }

    /// Adds weights to as many buckets from `first` on.
    fn add_run(&mut self, first: u32, run: &[f64]) {
        let there = || run.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
        if let Buckets::Sparse(list) = self {
            if there().take(SPARSE_MAX + 1).count() + list.len() <= SPARSE_MAX {
                there().for_each(|(index, weight)| self.add(first + index as u32, *weight));
                return;
            }
            if list.is_empty() {
                *self = Buckets::Dense { first, weights: run.to_vec() };
                return;
            }
            self.densify();
        }
        if let Buckets::Dense { first: our_first, weights } = self {
            if first < *our_first {
                Self::widen(our_first, weights, first);
            }
            let start = (first - *our_first) as usize;
            if start + run.len() > weights.len() {
                weights.resize(start + run.len(), 0.0);
            }
            weights[start..].iter_mut().zip(run).for_each(|(ours, theirs)| *ours += theirs);
        }
    }

    fn densify(&mut self) {
        if let Buckets::Sparse(list) = self {
            let (Some(low), Some(high)) = (list.first(), list.last()) else { return };
            let first = low.0;
            let mut weights = vec![0.0; (high.0 - first) as usize + 1];
            for (bucket, weight) in list.iter() {
                weights[(bucket - first) as usize] += weight;
            }
            *self = Buckets::Dense { first, weights };
        }
    }

    fn widen(first: &mut u32, weights: &mut Vec<f64>, bucket: u32) {
        const SLACK: u32 = 64;
        if bucket < *first {
            let new_first = bucket.saturating_sub(SLACK);
            let mut wider = vec![0.0; (*first - new_first) as usize];
            wider.append(weights);
            *weights = wider;
            *first = new_first;
        } else {
            weights.resize((bucket - *first) as usize + 1 + SLACK as usize, 0.0);
        }
    }

    fn for_each(&self, mut visit: impl FnMut(u32, f64)) {
        match self {
            Buckets::Sparse(list) => list.iter().for_each(|(bucket, weight)| visit(*bucket, *weight)),
            Buckets::Dense { first, weights } => {
                for (index, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
                    visit(first + index as u32, *weight);
                }
            }
        }
    }

    fn list(&self) -> Vec<(u32, f64)> {
        let mut list = Vec::new();
        self.for_each(|bucket, weight| list.push((bucket, weight)));
        list
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Buckets::Sparse(list) => list.capacity() * 16,
            Buckets::Dense { weights, .. } => weights.capacity() * 8,
        }
    }
}

/// Percentiles of weighted floats. See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Sketch {
    positive: Buckets,
    negative: Buckets,
    zero: f64,
    min: f64,
    max: f64,
}

impl Default for Sketch {
    fn default() -> Sketch {
        Sketch {
            positive: Buckets::Sparse(Vec::new()),
            negative: Buckets::Sparse(Vec::new()),
            zero: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }
}

impl Sketch {
    /// Counts a value as `weight` events; NaN and weights that are not positive do not count.
    #[inline]
    pub fn add(&mut self, value: f64, weight: f64) {
        if value.is_nan() || weight.is_nan() || weight <= 0.0 {
            return;
        }
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        let magnitude = value.abs();
        if magnitude < f64::MIN_POSITIVE {
            self.zero += weight;
        } else if value > 0.0 {
            self.positive.add((magnitude.to_bits() >> BUCKET_SHIFT) as u32, weight);
        } else {
            self.negative.add((magnitude.to_bits() >> BUCKET_SHIFT) as u32, weight);
        }
    }

    /// Counts values as so many events each, as [`Sketch::add`] does one by one.
    pub(crate) fn add_all(&mut self, items: &[(f64, f64)]) {
        let mut left = items.iter();
        while let Some((value, weight)) = left.next() {
            self.add(*value, *weight);
            // Buckets of ordinary values alone: not of those that count as zero, and not of NaN.
            if let Buckets::Dense { first, weights } = &mut self.positive
                && *first >= BUCKET_NORMAL
                && weights.len() <= (BUCKET_INFINITY - *first) as usize
            {
                let (mut min, mut max) = (self.min, self.max);
                // Until one comes that is in none of them.
                for (value, weight) in left.as_slice() {
                    let index = ((value.to_bits() >> BUCKET_SHIFT) as u32).wrapping_sub(*first) as usize;
                    let Some(known) = weights.get_mut(index).filter(|_| *weight > 0.0) else { break };
                    *known += weight;
                    min = min.min(*value);
                    max = max.max(*value);
                    left.next();
                }
                (self.min, self.max) = (min, max);
            }
        }
    }

    /// Adds another sketch's values.
    pub fn merge(&mut self, other: &Sketch) {
        self.positive.merge(&other.positive);
        self.negative.merge(&other.negative);
        self.zero += other.zero;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Adds the weights of positive buckets from `first` on, whose values lie between `min` and `max`.
    pub(crate) fn merge_run(&mut self, first: u32, weights: &[f64], min: f64, max: f64) {
        let Some(low) = weights.iter().position(|weight| *weight > 0.0) else { return };
        let high = weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(low);
        self.min = self.min.min(min);
        self.max = self.max.max(max);
        self.positive.add_run(first + low as u32, &weights[low..=high]);
    }

    /// The sum of weights.
    pub fn weight(&self) -> f64 {
        let mut sum = self.zero;
        self.positive.for_each(|_, weight| sum += weight);
        self.negative.for_each(|_, weight| sum += weight);
        sum
    }

    /// The smallest value at or below which at least `fraction` of the weight lies, within 1/128 of itself;
    /// `None` when nothing was counted.
    pub fn quantile(&self, fraction: f64) -> Option<f64> {
        let total = self.weight();
        if total <= 0.0 {
            return None;
        }
        if fraction <= 0.0 {
            return Some(self.min);
        }
        // Weights may be fractions whose sum rounds; a hair of slack keeps a whole rank from slipping to the next value.
        let target = (total * fraction.min(1.0)) * (1.0 - 1e-12);
        let mut seen = 0.0;
        let mut found = None;
        let mut visit = |value: f64, weight: f64| {
            seen += weight;
            if found.is_none() && seen >= target {
                found = Some(value);
            }
        };
        for (bucket, weight) in self.negative.list().into_iter().rev() {
            visit(-middle(bucket), weight);
        }
        visit(0.0, self.zero);
        self.positive.for_each(|bucket, weight| visit(middle(bucket), weight));
        Some(found.unwrap_or(self.max).clamp(self.min, self.max))
    }

    /// Bytes for the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (positive, negative) = (self.positive.list(), self.negative.list());
        let mut bytes = Vec::with_capacity(32 + (positive.len() + negative.len()) * 12);
        for field in [self.zero, self.min, self.max] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&(positive.len() as u32).to_le_bytes());
        for (bucket, weight) in positive.iter().chain(&negative) {
            bytes.extend_from_slice(&bucket.to_le_bytes());
            bytes.extend_from_slice(&weight.to_le_bytes());
        }
        bytes
    }

    /// A sketch from [`Sketch::to_bytes`].
    ///
    /// # Errors
    /// When the bytes are not a sketch.
    pub fn from_bytes(bytes: &[u8]) -> Result<Sketch, QueryError> {
        let broken = || QueryError::Mismatch(format!("{} bytes are not a percentile sketch", bytes.len()));
        let float =
            |at: usize| -> Option<f64> { Some(f64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)) };
        let word =
            |at: usize| -> Option<u32> { Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
        let mut sketch = Sketch {
            zero: float(0).ok_or_else(broken)?,
            min: float(8).ok_or_else(broken)?,
            max: float(16).ok_or_else(broken)?,
            ..Sketch::default()
        };
        let positive = word(24).ok_or_else(broken)? as usize;
        let pairs = bytes.len().saturating_sub(28);
        let empty = sketch.min > sketch.max;
        if !pairs.is_multiple_of(12) || positive > pairs / 12 || sketch.min.is_nan() || sketch.max.is_nan() {
            return Err(broken());
        }
        if !(sketch.zero >= 0.0 && sketch.zero.is_finite()) || (empty && (pairs > 0 || sketch.zero > 0.0)) {
            return Err(broken());
        }
        for pair in 0..pairs / 12 {
            let bucket = word(28 + pair * 12).ok_or_else(broken)?;
            let weight = float(32 + pair * 12).ok_or_else(broken)?;
            if bucket > BUCKET_INFINITY || !(weight > 0.0 && weight.is_finite()) {
                return Err(broken());
            }
            let side = if pair < positive { &mut sketch.positive } else { &mut sketch.negative };
            side.add(bucket, weight);
        }
        Ok(sketch)
    }

    /// Bytes in use beyond the struct itself.
    pub fn memory_bytes(&self) -> usize {
        self.positive.memory_bytes() + self.negative.memory_bytes()
    }
}

/// The middle of a bucket.
fn middle(bucket: u32) -> f64 {
    if bucket >= BUCKET_INFINITY {
        return f64::INFINITY;
    }
    let low = f64::from_bits(u64::from(bucket) << BUCKET_SHIFT);
    let high = f64::from_bits(u64::from(bucket + 1) << BUCKET_SHIFT);
    if high.is_infinite() { low } else { low + (high - low) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_values_count_as_they_do_one_by_one() {
        // Buckets next to those of NaN, and next to those that count as zero.
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, -3.5, 5e-324, f64::MIN_POSITIVE];
        for (low, factor) in [(1.0, 1.07), (f64::MIN_POSITIVE, 1.01), (f64::MAX / 1e3, 1.02), (-1.0, 1.1)] {
            let mut items: Vec<(f64, f64)> =
                (0..400).map(|step| (low * f64::powi(factor, step * 7 % 300), f64::from(step % 5))).collect();
            for (place, value) in odd.into_iter().cycle().take(64).enumerate() {
                items.insert(place * 6, (value, 2.0));
            }
            items.push((7.0, f64::NAN));
            let (mut all, mut each) = (Sketch::default(), Sketch::default());
            items.iter().for_each(|(value, weight)| each.add(*value, *weight));
            items.chunks(97).for_each(|items| all.add_all(items));
            assert_eq!(all, each, "from {low}");
        }
    }

    fn check_quantiles(values: &[(f64, f64)]) {
        let mut sketch = Sketch::default();
        let mut halves = [Sketch::default(), Sketch::default()];
        for (index, (value, weight)) in values.iter().enumerate() {
            sketch.add(*value, *weight);
            halves[index % 2].add(*value, *weight);
        }
        let [mut merged, other] = halves;
        merged.merge(&other);
        assert_eq!(Sketch::from_bytes(&merged.to_bytes()).unwrap().to_bytes(), merged.to_bytes());
        let mut sorted = values.to_vec();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: f64 = sorted.iter().map(|(_, weight)| weight).sum();
        for fraction in [0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let mut seen = 0.0;
            let exact = sorted
                .iter()
                .find(|(_, weight)| {
                    seen += weight;
                    seen >= total * fraction
                })
                .unwrap()
                .0;
            for answer in [sketch.quantile(fraction).unwrap(), merged.quantile(fraction).unwrap()] {
                assert!((answer - exact).abs() <= exact.abs() * 0.01, "{fraction}: {answer} for {exact}");
            }
        }
    }

    #[test]
    fn quantiles_are_within_one_percent() {
        check_quantiles(&[(5.0, 1.0)]);
        check_quantiles(&[(-3.0, 1.0), (0.0, 2.0), (7.0, 1.0)]);
        let spread: Vec<(f64, f64)> =
            (0..10_000).map(|i| ((f64::from(i) * 0.013).exp() - 1e10, f64::from(1 + i % 3))).collect();
        check_quantiles(&spread);
        let tiny: Vec<(f64, f64)> = (1..5_000).map(|i| (1e-300 * f64::from(i), 1.0)).collect();
        check_quantiles(&tiny);
    }

    #[test]
    fn infinite_and_missing_values() {
        let mut sketch = Sketch::default();
        assert_eq!(sketch.quantile(0.5), None);
        sketch.add(f64::NAN, 1.0);
        assert_eq!(sketch.quantile(0.5), None);
        sketch.add(f64::INFINITY, 1.0);
        assert_eq!(sketch.quantile(0.5), Some(f64::INFINITY));
        sketch.add(f64::NEG_INFINITY, 2.0);
        assert_eq!(sketch.quantile(0.5), Some(f64::NEG_INFINITY));
    }

    #[test]
    fn hostile_bytes_are_refused() {
        let mut sketch = Sketch::default();
        (1..100).for_each(|i| sketch.add(f64::from(i), 1.0));
        let bytes = sketch.to_bytes();
        for length in 0..bytes.len() {
            // A cut at a whole pair is a smaller sketch only if the count of positives still fits, which it does not.
            assert!(Sketch::from_bytes(&bytes[..length]).is_err(), "{length}");
        }
        for length in [1, 2, 3, 16_383, 16_385] {
            assert!(HyperLogLog::from_bytes(&vec![255; length]).is_err(), "{length}");
        }
    }

    #[test]
    fn distinct_estimates_are_within_three_percent() {
        for count in [0u64, 1, 10, 1_000, 5_000, 20_000, 100_000, 1_000_000] {
            let (mut a, mut b) = (HyperLogLog::default(), HyperLogLog::default());
            for value in 0..count {
                (if value % 3 == 0 { &mut a } else { &mut b }).add_hash(hash_int(value as i64));
            }
            a.merge(&b);
            let a = HyperLogLog::from_bytes(&a.to_bytes()).unwrap();
            let estimate = a.estimate();
            let error = (estimate as f64 - count as f64).abs();
            assert!(error <= count as f64 * 0.03, "{estimate} for {count}");
        }
    }
}
