//! How many distinct values there were. See [`crate::sketch`].

use crate::QueryError;

/// Register count is 2 to this.
const PRECISION: u32 = 14;
const REGISTERS: usize = 1 << PRECISION;
/// Beyond this many entries the list is larger than half the registers.
const LIST_MAX: usize = 2048;

/// A list shorter than this is not put in order.
const LIST_SLACK: usize = 64;

/// Approximate distinct count. See the module.
#[derive(Debug, Clone, Default)]
pub struct HyperLogLog {
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    /// `register << 8 | rank`: in the order of registers and one entry a register up to `ordered`, then as they came.
    List { entries: Vec<u32>, ordered: usize },
    /// One rank a register.
    Dense(Box<[u8]>),
}

impl Default for Form {
    fn default() -> Form {
        Form::List { entries: Vec::new(), ordered: 0 }
    }
}

/// The register that a hash belongs to, and its rank there.
#[inline(always)]
fn place(hash: u64) -> (u32, u8) {
    let register = (hash >> (64 - PRECISION)) as u32;
    let rank = ((hash << PRECISION) | (1 << (PRECISION - 1))).leading_zeros() as u8 + 1;
    (register, rank)
}

/// Puts entries in the order of registers and keeps the highest rank of each.
fn order(entries: &mut Vec<u32>) {
    entries.sort_unstable();
    let mut kept = 0;
    for index in 0..entries.len() {
        let entry = entries[index];
        if kept > 0 && entries[kept - 1] >> 8 == entry >> 8 {
            entries[kept - 1] = entry;
        } else {
            entries[kept] = entry;
            kept += 1;
        }
    }
    entries.truncate(kept);
}

/// Registers of many sketches side by side, for the rows of few groups.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registers {
    ranks: Vec<u8>,
}

impl Registers {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranks.is_empty()
    }

    /// Makes room for this many sketches.
    pub(crate) fn resize(&mut self, sketches: usize) {
        self.ranks.resize(sketches * REGISTERS, 0);
    }

    /// Counts the value whose hash this is.
    #[inline(always)]
    pub(crate) fn add_hash(&mut self, sketch: u32, hash: u64) {
        let (register, rank) = place(hash);
        let known = &mut self.ranks[((sketch << PRECISION) | register) as usize];
        if rank > *known {
            *known = rank;
        }
    }

    /// The registers of one sketch.
    pub(crate) fn of(&self, sketch: usize) -> &[u8] {
        &self.ranks[sketch * REGISTERS..(sketch + 1) * REGISTERS]
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.ranks.capacity()
    }
}

impl HyperLogLog {
    /// Counts the value whose hash this is. The hash must be good in all its 64 bits.
    #[inline]
    pub fn add_hash(&mut self, hash: u64) {
        let (register, rank) = place(hash);
        self.raise(register, rank);
    }

    #[inline]
    fn raise(&mut self, register: u32, rank: u8) {
        match &mut self.form {
            Form::Dense(ranks) => {
                let known = &mut ranks[register as usize];
                *known = (*known).max(rank);
            }
            Form::List { entries, ordered } => {
                entries.push((register << 8) | u32::from(rank));
                // Ordering whenever as many have come as were there keeps the work for each below a constant.
                if entries.len() >= *ordered * 2 + LIST_SLACK {
                    self.compact();
                }
            }
        }
    }

    fn compact(&mut self) {
        if let Form::List { entries, ordered } = &mut self.form {
            order(entries);
            *ordered = entries.len();
            if entries.len() > LIST_MAX {
                self.densify();
            }
        }
    }

    fn densify(&mut self) -> &mut [u8] {
        if let Form::List { entries, .. } = &self.form {
            let mut ranks = vec![0; REGISTERS].into_boxed_slice();
            for entry in entries {
                let known = &mut ranks[(entry >> 8) as usize];
                *known = (*known).max(*entry as u8);
            }
            self.form = Form::Dense(ranks);
        }
        match &mut self.form {
            Form::Dense(ranks) => ranks,
            Form::List { .. } => &mut [],
        }
    }

    /// Adds another's values.
    pub fn merge(&mut self, other: &HyperLogLog) {
        match &other.form {
            Form::List { entries, .. } => {
                entries.iter().for_each(|entry| self.raise(entry >> 8, *entry as u8));
            }
            Form::Dense(ranks) => {
                let ours = self.densify();
                ours.iter_mut().zip(ranks).for_each(|(ours, theirs)| *ours = (*ours).max(*theirs));
            }
        }
    }

    /// Adds the values behind a rank for each register.
    pub(crate) fn merge_registers(&mut self, ranks: &[u8]) {
        let there = || ranks.iter().enumerate().filter(|(_, rank)| **rank > 0);
        if matches!(self.form, Form::List { .. }) && there().take(LIST_MAX + 1).count() <= LIST_MAX {
            there().for_each(|(register, rank)| self.raise(register as u32, *rank));
        } else {
            let ours = self.densify();
            ours.iter_mut().zip(ranks).for_each(|(ours, theirs)| *ours = (*ours).max(*theirs));
        }
    }

    /// In order, one entry a register.
    fn entries(&self) -> Option<std::borrow::Cow<'_, [u32]>> {
        match &self.form {
            Form::Dense(_) => None,
            Form::List { entries, ordered } if *ordered == entries.len() => Some(entries.into()),
            Form::List { entries, .. } => {
                let mut entries = entries.clone();
                order(&mut entries);
                Some(entries.into())
            }
        }
    }

    /// The estimate.
    pub fn estimate(&self) -> u64 {
        const RANK_MAX: usize = (64 - PRECISION) as usize + 1;
        let mut histogram = [0u32; RANK_MAX + 1];
        match (&self.form, self.entries()) {
            (Form::Dense(ranks), _) => {
                ranks.iter().for_each(|rank| histogram[(*rank as usize).min(RANK_MAX)] += 1);
            }
            (_, entries) => {
                let entries = entries.unwrap_or_default();
                histogram[0] = (REGISTERS - entries.len()) as u32;
                entries.iter().for_each(|entry| histogram[(*entry as u8 as usize).min(RANK_MAX)] += 1);
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
        let mut whole;
        let form = match self.entries() {
            // As a list it would not be read back.
            Some(entries) if entries.len() > LIST_MAX => {
                whole = self.clone();
                whole.densify();
                &whole.form
            }
            Some(entries) => return entries.iter().flat_map(|entry| entry.to_le_bytes()).collect(),
            None => &self.form,
        };
        match form {
            Form::Dense(ranks) => ranks.to_vec(),
            Form::List { .. } => Vec::new(),
        }
    }

    /// From [`HyperLogLog::to_bytes`]: a list is always shorter than the registers.
    ///
    /// # Errors
    /// When the bytes are not one.
    pub fn from_bytes(bytes: &[u8]) -> Result<HyperLogLog, QueryError> {
        let broken = || QueryError::Mismatch(format!("{} bytes are not a distinct sketch", bytes.len()));
        if bytes.len() == REGISTERS {
            return Ok(HyperLogLog { form: Form::Dense(bytes.into()) });
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
        match &self.form {
            Form::List { entries, .. } => entries.capacity() * 4,
            Form::Dense(ranks) => ranks.len(),
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

/// The integer whose hash this is: no two integers have the same.
#[inline]
pub fn unhash_int(hash: u64) -> i64 {
    // The inverses modulo 2^64 of the multipliers, in the opposite order; the shift by 33 undoes itself.
    let mut value = hash ^ (hash >> 33);
    value = value.wrapping_mul(inverse(0xc4ce_b9fe_1a85_ec53));
    value = (value ^ (value >> 33)).wrapping_mul(inverse(0xff51_afd7_ed55_8ccd));
    value = (value ^ (value >> 33)) ^ 0x5bf0_3635;
    value.wrapping_mul(inverse(0x9e37_79b9_7f4a_7c15)) as i64
}

/// The number that an odd one is to be multiplied with for 1, by Newton's method: each step doubles the right bits.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut step = 0;
    while step < 5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
}

/// A good 64-bit hash of bytes.
#[inline]
pub fn hash_bytes(value: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_has_one_integer() {
        for value in [0, 1, -1, 42, i64::MIN, i64::MAX, 0x0123_4567_89ab_cdef] {
            assert_eq!(unhash_int(hash_int(value)), value);
        }
    }

    #[test]
    fn registers_and_lists_are_one_sketch() {
        for count in [0u64, 1, 63, 64, 65, 200, 1_000, 2_048, 5_000, 50_000] {
            let (mut one, mut registers) = (HyperLogLog::default(), Registers::default());
            registers.resize(2);
            for value in (0..count).chain(0..count / 2) {
                let hash = hash_int(value as i64);
                one.add_hash(hash);
                registers.add_hash(1, hash);
            }
            let mut other = HyperLogLog::default();
            other.merge_registers(registers.of(0));
            assert!(other.to_bytes().is_empty());
            other.merge_registers(registers.of(1));
            other.merge(&one);
            assert_eq!(HyperLogLog::from_bytes(&one.to_bytes()).unwrap().estimate(), other.estimate());
            assert_eq!(one.estimate(), other.estimate(), "{count}");
        }
    }
}
