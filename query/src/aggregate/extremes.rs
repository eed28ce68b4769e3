//! Smallest and largest values.
//!
//! Numbers are kept as ints that have the same order (a float as its bits, turned so that they sort as the total order
//! of floats does), for max with all bits flipped: so there is one loop, and it looks for the smallest.

use std::cmp::Ordering;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::each::{for_each_valid, own_nulls, power_of_ten};
use super::exact::take;
use super::pairs::Pairs;
use super::scalars::{Kind, expect, from_ints, kind_for, to_floats, to_ints, to_texts};
use super::{Input, Values};
use crate::QueryError;

/// The smallest key a group.
#[derive(Debug, Clone, Default)]
struct Smallest {
    keys: Vec<i64>,
    /// Whether there was any.
    seen: Vec<bool>,
}

#[derive(Debug, Clone)]
enum Best {
    Int(Smallest),
    /// Floats, and of scaled ints (with their digits) those that have not been turned into floats yet.
    Float(Smallest, Option<(u8, Smallest)>),
    Text(Vec<Option<Box<str>>>),
}

/// Min or max.
#[derive(Debug, Clone)]
pub(crate) struct Extremes {
    /// Flips the order: 0 for min, all bits for max.
    flip: i64,
    data_type: DataType,
    best: Best,
    pairs: Pairs,
}

/// A float as an int of the same order, and back: it is its own inverse.
#[inline(always)]
fn ordered(bits: i64) -> i64 {
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

#[inline(always)]
fn float_key(value: f64) -> i64 {
    ordered(value.to_bits() as i64)
}

fn key_float(key: i64) -> f64 {
    f64::from_bits(ordered(key) as u64)
}

impl Smallest {
    fn resize(&mut self, group_count: usize) {
        self.keys.resize(group_count, i64::MAX);
        self.seen.resize(group_count, false);
    }

    #[inline(always)]
    fn offer(&mut self, group: usize, key: i64) {
        // Also when they are equal: the first of all may be the largest int there is.
        if key <= self.keys[group] {
            self.keys[group] = key;
            self.seen[group] = true;
        }
    }

    #[inline(always)]
    fn update(&mut self, groups: &[u32], validity: Option<&NullBuffer>, key: impl Fn(usize) -> i64) {
        let rows = groups.len();
        if self.keys.len() == 1 {
            if rows > validity.map_or(0, NullBuffer::null_count) {
                let mut smallest = i64::MAX;
                for_each_valid(rows, validity, |row| smallest = smallest.min(key(row)));
                self.offer(0, smallest);
            }
            return;
        }
        let seen = &mut self.seen[..self.keys.len()];
        let keys = &mut self.keys;
        for_each_valid(rows, validity, |row| {
            let (group, key) = (groups[row] as usize, key(row));
            if key <= keys[group] {
                keys[group] = key;
                seen[group] = true;
            }
        });
    }

    fn get(&self, group: usize) -> Option<i64> {
        self.seen[group].then_some(self.keys[group])
    }

    fn take(&self, groups: &[u32]) -> Smallest {
        Smallest { keys: take(&self.keys, groups), seen: take(&self.seen, groups) }
    }

    fn append(&mut self, mut other: Smallest) {
        self.keys.append(&mut other.keys);
        self.seen.append(&mut other.seen);
    }

    fn memory_bytes(&self) -> usize {
        self.keys.capacity() * 8 + self.seen.capacity()
    }
}

impl Extremes {
    pub(crate) fn new(
        function: &str,
        better: Ordering,
        data_type: &DataType,
    ) -> Result<Extremes, QueryError> {
        let best = match kind_for(function, data_type)? {
            Kind::Int => Best::Int(Smallest::default()),
            Kind::Float => Best::Float(Smallest::default(), None),
            Kind::Text => Best::Text(Vec::new()),
            Kind::Texts => {
                return Err(QueryError::UnsupportedType {
                    function: function.to_owned(),
                    data_type: data_type.to_string(),
                });
            }
        };
        let flip = if better == Ordering::Less { 0 } else { -1 };
        Ok(Extremes { flip, data_type: data_type.clone(), best, pairs: Pairs::default() })
    }

    pub(crate) fn len(&self) -> usize {
        match &self.best {
            Best::Int(best) | Best::Float(best, _) => best.keys.len(),
            Best::Text(best) => best.len(),
        }
    }

    pub(crate) fn resize(&mut self, group_count: usize) {
        match &mut self.best {
            Best::Int(best) => best.resize(group_count),
            Best::Float(best, scaled) => {
                best.resize(group_count);
                if let Some((_, scaled)) = scaled {
                    scaled.resize(group_count);
                }
            }
            Best::Text(best) => best.resize(group_count, None),
        }
    }

    pub(crate) fn update(&mut self, groups: &[u32], input: &Input<'_>) -> Result<(), QueryError> {
        let (rows, flip, validity) = (groups.len(), self.flip, input.validity);
        match (&mut self.best, input.values) {
            (_, Values::None) => {}
            (Best::Int(best), Values::Int(values)) => {
                let values = &values[..rows];
                best.update(groups, validity, |row| values[row] ^ flip);
            }
            (Best::Float(best, _), Values::Float(values)) => {
                let values = &values[..rows];
                best.update(groups, validity, |row| float_key(values[row]) ^ flip);
            }
            (Best::Float(..), Values::Int(values)) => self.update_scaled(groups, values, 0, validity),
            (Best::Float(..), Values::Scaled(values, digits)) => {
                self.update_scaled(groups, values, digits, validity);
            }
            (_, Values::Codes(codes, distinct)) => {
                let fresh = self.pairs.fresh(self.best.len(), groups, codes, distinct, validity);
                let (groups, places): (Vec<u32>, Vec<u32>) = fresh.into_iter().unzip();
                self.update_array(&groups, distinct, None, |row| places[row] as usize)?;
            }
            (_, Values::Array(array)) => {
                let own = own_nulls(input);
                self.update_array(groups, array, own.as_ref().or(validity), |row| row)?;
            }
            (_, Values::Int(_) | Values::Float(_) | Values::Scaled(..)) => {
                return Err(QueryError::Mismatch(format!("numbers for extremes of {}", self.data_type)));
            }
        }
        Ok(())
    }

    fn update_scaled(&mut self, groups: &[u32], values: &[i64], digits: u8, validity: Option<&NullBuffer>) {
        self.settle_unless(Some(digits));
        let (group_count, flip) = (self.len(), self.flip);
        if let Best::Float(_, scaled) = &mut self.best {
            let (_, best) = scaled.get_or_insert_with(|| (digits, Smallest::default()));
            best.resize(group_count);
            let values = &values[..groups.len()];
            best.update(groups, validity, |row| values[row] ^ flip);
        }
    }

    /// Turns scaled ints into floats, unless they have these digits.
    fn settle_unless(&mut self, digits: Option<u8>) {
        let flip = self.flip;
        if let Best::Float(best, scaled) = &mut self.best
            && let Some((known, values)) = scaled.take_if(|(known, _)| Some(*known) != digits)
        {
            for group in 0..values.keys.len() {
                if let Some(key) = values.get(group) {
                    let float = (key ^ flip) as f64 / power_of_ten(known);
                    best.offer(group, float_key(float) ^ flip);
                }
            }
        }
    }

    /// Ends what updates left open.
    pub(crate) fn settle(&mut self) {
        self.settle_unless(None);
        self.pairs = Pairs::default();
    }

    /// Offers the values at the places of the rows that are there; the values there are not NULL.
    fn update_array(
        &mut self,
        groups: &[u32],
        array: &ArrayRef,
        validity: Option<&NullBuffer>,
        place: impl Fn(usize) -> usize,
    ) -> Result<(), QueryError> {
        let flip = self.flip;
        match &mut self.best {
            Best::Int(best) => {
                let ints = to_ints(array)?;
                best.update(groups, validity, |row| ints.value(place(row)) ^ flip);
            }
            Best::Float(best, _) => {
                let floats = to_floats(array)?;
                best.update(groups, validity, |row| float_key(floats.value(place(row))) ^ flip);
            }
            Best::Text(best) => {
                let texts = to_texts(array)?;
                for_each_valid(groups.len(), validity, |row| {
                    offer_text(&mut best[groups[row] as usize], texts.value(place(row)), flip);
                });
            }
        }
        Ok(())
    }

    /// Adds some groups of another, which is settled: its group `groups.start + i` is our group `to[i]`.
    pub(crate) fn merge(
        &mut self,
        other: &Extremes,
        groups: Range<usize>,
        to: &[u32],
    ) -> Result<(), QueryError> {
        if self.flip != other.flip || self.data_type != other.data_type {
            return Err(QueryError::Mismatch("extremes of different aggregates".to_owned()));
        }
        match (&mut self.best, &other.best) {
            (Best::Int(ours), Best::Int(theirs)) | (Best::Float(ours, _), Best::Float(theirs, _)) => {
                for (index, group) in groups.zip(to) {
                    if theirs.seen[index] {
                        ours.offer(*group as usize, theirs.keys[index]);
                    }
                }
            }
            (Best::Text(ours), Best::Text(theirs)) => {
                for (theirs, group) in theirs[groups].iter().zip(to) {
                    if let Some(text) = theirs {
                        offer_text(&mut ours[*group as usize], text, self.flip);
                    }
                }
            }
            // One data type has one form.
            _ => {}
        }
        Ok(())
    }

    /// The groups of another, which is settled, after ours.
    pub(crate) fn append(&mut self, other: Extremes) {
        self.settle();
        match (&mut self.best, other.best) {
            (Best::Int(ours), Best::Int(theirs)) | (Best::Float(ours, _), Best::Float(theirs, _)) => {
                ours.append(theirs);
            }
            (Best::Text(ours), Best::Text(mut theirs)) => ours.append(&mut theirs),
            // One data type has one form.
            _ => {}
        }
    }

    /// These groups of settled ones.
    pub(crate) fn take(&self, groups: &[u32]) -> Extremes {
        let best = match &self.best {
            Best::Int(best) => Best::Int(best.take(groups)),
            Best::Float(best, scaled) => {
                let scaled = scaled.as_ref().map(|(digits, scaled)| (*digits, scaled.take(groups)));
                Best::Float(best.take(groups), scaled)
            }
            Best::Text(best) => Best::Text(take(best, groups)),
        };
        Extremes { flip: self.flip, data_type: self.data_type.clone(), best, pairs: Pairs::default() }
    }

    pub(crate) fn to_array(&self) -> Result<ArrayRef, QueryError> {
        let cannot = |error: arrow::error::ArrowError| QueryError::Mismatch(error.to_string());
        if let Best::Float(_, Some(_)) = self.best {
            let mut settled = self.clone();
            settled.settle();
            return settled.to_array();
        }
        match &self.best {
            Best::Int(best) => {
                let ints: ScalarBuffer<i64> = best.keys.iter().map(|key| key ^ self.flip).collect();
                from_ints(Int64Array::new(ints, nulls(&best.seen)), &self.data_type)
            }
            Best::Float(best, _) => {
                let floats: ScalarBuffer<f64> =
                    best.keys.iter().map(|key| key_float(key ^ self.flip)).collect();
                cast(&Float64Array::new(floats, nulls(&best.seen)), &self.data_type).map_err(cannot)
            }
            Best::Text(best) => {
                let texts: StringArray = best.iter().map(|text| text.as_deref()).collect();
                cast(&texts, &self.data_type).map_err(cannot)
            }
        }
    }

    pub(crate) fn from_arrays(mut empty: Extremes, arrays: &[ArrayRef]) -> Result<Extremes, QueryError> {
        let data_type = empty.data_type.clone();
        let array = expect(arrays, 0, &data_type)?;
        empty.resize(array.len());
        let to: Vec<u32> = (0..array.len() as u32).collect();
        empty.update_array(&to, array, array.logical_nulls().as_ref(), |row| row)?;
        Ok(empty)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let best = match &self.best {
            Best::Int(best) => best.memory_bytes(),
            Best::Float(best, scaled) => {
                best.memory_bytes() + scaled.as_ref().map_or(0, |(_, scaled)| scaled.memory_bytes())
            }
            Best::Text(best) => best.iter().map(|text| 16 + text.as_ref().map_or(0, |text| text.len())).sum(),
        };
        best + self.pairs.memory_bytes()
    }
}

impl Best {
    fn len(&self) -> usize {
        match self {
            Best::Int(best) | Best::Float(best, _) => best.keys.len(),
            Best::Text(best) => best.len(),
        }
    }
}

fn nulls(seen: &[bool]) -> Option<NullBuffer> {
    let nulls = NullBuffer::from(seen);
    (nulls.null_count() > 0).then_some(nulls)
}

fn offer_text(known: &mut Option<Box<str>>, text: &str, flip: i64) {
    let better = if flip == 0 { Ordering::Less } else { Ordering::Greater };
    if known.as_ref().is_none_or(|known| text.cmp(known) == better) {
        *known = Some(text.into());
    }
}
