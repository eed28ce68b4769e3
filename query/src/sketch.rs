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

/// Mantissa bits that choose a bucket.
const BUCKET_BITS: u32 = 6;
const BUCKET_SHIFT: u32 = 52 - BUCKET_BITS;
/// The bucket of infinity, the largest there is.
const BUCKET_INFINITY: u32 = 0x7ff << BUCKET_BITS;
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

    /// Adds another sketch's values.
    pub fn merge(&mut self, other: &Sketch) {
        other.positive.for_each(|bucket, weight| self.positive.add(bucket, weight));
        other.negative.for_each(|bucket, weight| self.negative.add(bucket, weight));
        self.zero += other.zero;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
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

/// Register count is 2 to this.
const PRECISION: u32 = 14;
const REGISTERS: usize = 1 << PRECISION;
/// Beyond this many entries the list is larger than half the registers.
const LIST_MAX: usize = 2048;

/// Approximate distinct count. See the module.
#[derive(Debug, Clone, PartialEq)]
pub enum HyperLogLog {
    /// Sorted `register << 8 | rank`, one entry a register.
    List(Vec<u32>),
    /// One rank a register.
    Dense(Box<[u8]>),
}

impl Default for HyperLogLog {
    fn default() -> HyperLogLog {
        HyperLogLog::List(Vec::new())
    }
}

impl HyperLogLog {
    /// Counts the value whose hash this is. The hash must be good in all its 64 bits.
    #[inline]
    pub fn add_hash(&mut self, hash: u64) {
        let register = (hash >> (64 - PRECISION)) as u32;
        let rank = ((hash << PRECISION) | (1 << (PRECISION - 1))).leading_zeros() as u8 + 1;
        self.raise(register, rank);
    }

    #[inline]
    fn raise(&mut self, register: u32, rank: u8) {
        match self {
            HyperLogLog::Dense(ranks) => {
                let known = &mut ranks[register as usize];
                *known = (*known).max(rank);
            }
            HyperLogLog::List(list) => {
                let entry = (register << 8) | u32::from(rank);
                match list.binary_search_by_key(&register, |entry| entry >> 8) {
                    Ok(found) => list[found] = list[found].max(entry),
                    Err(place) => {
                        list.insert(place, entry);
                        if list.len() > LIST_MAX {
                            let mut ranks = vec![0; REGISTERS].into_boxed_slice();
                            for entry in list.iter() {
                                ranks[(entry >> 8) as usize] = *entry as u8;
                            }
                            *self = HyperLogLog::Dense(ranks);
                        }
                    }
                }
            }
        }
    }

    /// Adds another's values.
    pub fn merge(&mut self, other: &HyperLogLog) {
        match other {
            HyperLogLog::List(list) => list.iter().for_each(|entry| self.raise(entry >> 8, *entry as u8)),
            HyperLogLog::Dense(ranks) => {
                for (register, rank) in ranks.iter().enumerate().filter(|(_, rank)| **rank > 0) {
                    self.raise(register as u32, *rank);
                }
            }
        }
    }

    /// The estimate.
    pub fn estimate(&self) -> u64 {
        const RANK_MAX: usize = (64 - PRECISION) as usize + 1;
        let mut histogram = [0u32; RANK_MAX + 1];
        match self {
            HyperLogLog::List(list) => {
                histogram[0] = (REGISTERS - list.len()) as u32;
                list.iter().for_each(|entry| histogram[(*entry as u8 as usize).min(RANK_MAX)] += 1);
            }
            HyperLogLog::Dense(ranks) => {
                ranks.iter().for_each(|rank| histogram[(*rank as usize).min(RANK_MAX)] += 1);
            }
        }
        let registers = REGISTERS as f64;
        let mut z = registers * tau(1.0 - f64::from(histogram[RANK_MAX]) / registers);
        for count in histogram[1..RANK_MAX].iter().rev() {
            z = 0.5 * (z + f64::from(*count));
        }
        z += registers * sigma(f64::from(histogram[0]) / registers);
        (registers * registers / (2.0 * std::f64::consts::LN_2) / z).round() as u64
    }

    /// Bytes for the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            HyperLogLog::List(list) => list.iter().flat_map(|entry| entry.to_le_bytes()).collect(),
            HyperLogLog::Dense(ranks) => ranks.to_vec(),
        }
    }

    /// From [`HyperLogLog::to_bytes`]: a list is always shorter than the registers.
    ///
    /// # Errors
    /// When the bytes are not one.
    pub fn from_bytes(bytes: &[u8]) -> Result<HyperLogLog, QueryError> {
        let broken = || QueryError::Mismatch(format!("{} bytes are not a distinct sketch", bytes.len()));
        if bytes.len() == REGISTERS {
            return Ok(HyperLogLog::Dense(bytes.into()));
        }
        if !bytes.len().is_multiple_of(4) || bytes.len() / 4 > LIST_MAX {
            return Err(broken());
        }
        let mut sketch = HyperLogLog::default();
        for entry in bytes.chunks_exact(4) {
            let entry = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
            if entry >> 8 >= REGISTERS as u32 {
                return Err(broken());
            }
            sketch.raise(entry >> 8, entry as u8);
        }
        Ok(sketch)
    }

    /// Bytes in use beyond the struct itself.
    pub fn memory_bytes(&self) -> usize {
        match self {
            HyperLogLog::List(list) => list.capacity() * 4,
            HyperLogLog::Dense(ranks) => ranks.len(),
        }
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// A good 64-bit hash of an integer (the finaliser of MurmurHash3, Austin Appleby, over a multiplied input).
#[inline]
pub fn hash_int(value: i64) -> u64 {
    let mut hash = (value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bf0_3635;
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// A good 64-bit hash of bytes.
#[inline]
pub fn hash_bytes(value: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(value)
}

#[cfg(test)]
mod tests {
    use super::*;

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
