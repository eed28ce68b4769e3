//! From group keys to one dense group number a row.
//!
//! Each key becomes codes with a value each; codes of several keys are combined by mixed radix while a table of all
//! combinations is small, and by hash where it is not. Numbers follow the order of first appearance, so that a group's
//! first row tells its keys.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use gannet_query::ColumnType;

use super::columns::{Run, Shape, int_array, nulls_at};
use super::compile::Compiled;
use super::domain::{dictionary_codes, domain};
use super::intern::{intern, number};
use super::prepare::KeyPlan;
use super::selection::Selection;
use super::steps::Step;
use super::{ScanError, Stop};
use crate::column::Codes;

/// Tables of at most this many entries are dense; larger ones are hashed.
const DENSE_MAX: u64 = 65_536;

/// The groups of a run's selected rows.
#[derive(Debug)]
pub(super) struct Grouped {
    /// For each selected row its group.
    pub(super) groups: Vec<u32>,
    /// One array a key, one value a group.
    pub(super) keys: Vec<ArrayRef>,
    pub(super) group_count: usize,
}

/// One key of the selected rows: distinct codes stand for distinct values.
#[derive(Debug)]
struct KeyCodes {
    codes: Vec<u32>,
    /// Larger than every code.
    bound: u64,
    values: KeyValues,
}

/// What codes stand for.
#[derive(Debug)]
enum KeyValues {
    /// The value at the code; NULL for codes beyond.
    Listed(ArrayRef),
    /// base + step × code; NULL for the code `null`.
    Spaced { base: i64, step: i64, null: Option<u32>, column_type: ColumnType },
    /// base + step × the number at the code; NULL for the code `null`.
    Sparse { numbers: Vec<u64>, base: i64, step: i64, null: Option<u32>, column_type: ColumnType },
}

/// Groups the selected rows by the keys; without keys they are one group.
pub(super) fn group(run: &Run<'_>, keys: &[KeyPlan], selection: &Selection) -> Result<Grouped, Stop> {
    if keys.is_empty() {
        return Ok(Grouped { groups: vec![0; selection.len()], keys: Vec::new(), group_count: 1 });
    }
    let mut coded = Vec::with_capacity(keys.len());
    for key in keys {
        run.look()?;
        coded.push(key_codes(run, key, selection)?);
    }
    let (groups, firsts) = combine(&coded);
    let mut arrays = Vec::with_capacity(keys.len());
    for (key, plan) in coded.iter().zip(keys) {
        let codes: Vec<u32> = firsts.iter().map(|row| key.codes[*row as usize]).collect();
        let array = key.values.at(&codes)?;
        debug_assert_eq!(array.data_type(), &plan.compiled.data_type);
        arrays.push(array);
    }
    Ok(Grouped { groups, keys: arrays, group_count: firsts.len() })
}

/// An expression's value for each selected row as a code, and the value of each code, when that takes fewer
/// evaluations than one a row. Different codes may have equal values.
pub(super) fn per_value(
    run: &Run<'_>,
    compiled: &Compiled,
    step: Option<Step>,
    selection: &Selection,
) -> Result<Option<(Vec<u32>, ArrayRef)>, Stop> {
    if let Some(domain) = domain(run, compiled, selection)? {
        return match domain.evaluate(run, compiled) {
            Ok(values) => Ok(Some((domain.codes(selection), values))),
            Err(Stop::Failed(ScanError::Evaluate(_))) => Ok(None),
            Err(stop) => Err(stop),
        };
    }
    let Some(step) = step else { return Ok(None) };
    let (times, nulls) = run.slot(step.column)?.ints(selection, run.row_count)?;
    if nulls.is_some() {
        return Ok(None);
    }
    let (codes, firsts) = step.number(&times);
    let count = firsts.len();
    let firsts = int_array(firsts, None, ColumnType::Time);
    Ok(Some((codes, compiled.evaluate(vec![firsts], count)?)))
}

fn key_codes(run: &Run<'_>, key: &KeyPlan, selection: &Selection) -> Result<KeyCodes, Stop> {
    if let Some(column) = key.column {
        let column_type = run.spec(column).column_type;
        match run.slot(column)?.shape() {
            Shape::Dictionary { values, codes, .. } => {
                let codes = dictionary_codes(codes, values.len(), selection);
                let bound = values.len() as u64 + 1;
                return Ok(KeyCodes { codes, bound, values: KeyValues::Listed(values.clone()) });
            }
            Shape::Packed { base, gcd, codes, validity } => {
                let nulls = validity.and_then(|validity| nulls_at(validity, selection));
                return Ok(packed_codes(codes, nulls, base, gcd, selection, column_type));
            }
            Shape::Ints { values, validity } => {
                let nulls = validity.and_then(|validity| nulls_at(validity, selection));
                let values = selection.gather(values, |value| value);
                let base = values.iter().min().copied().unwrap_or(0);
                let offsets = values.iter().map(|value| value.wrapping_sub(base) as u64).collect();
                return Ok(offset_codes(offsets, nulls, base, 1, column_type));
            }
            Shape::Constant(_) | Shape::Other => {}
        }
    }
    if let Some((codes, values)) = per_value(run, &key.compiled, key.step, selection)? {
        let (to, values) = intern(&values)?;
        let codes = codes.into_iter().map(|code| to[code as usize]).collect();
        return Ok(KeyCodes { codes, bound: values.len() as u64, values: KeyValues::Listed(values) });
    }
    let values = run.evaluate(&key.compiled, selection)?;
    let (codes, values) = intern(&values)?;
    Ok(KeyCodes { codes, bound: values.len() as u64, values: KeyValues::Listed(values) })
}

fn packed_codes(
    codes: &Codes,
    nulls: Option<NullBuffer>,
    base: i64,
    gcd: i64,
    selection: &Selection,
    column_type: ColumnType,
) -> KeyCodes {
    let spaced = |mut codes: Vec<u32>, null: u32| {
        let null = nulls.as_ref().map(|nulls| {
            mark_nulls(&mut codes, nulls, null);
            null
        });
        let bound = 1 + codes.iter().max().map_or(0, |max| u64::from(*max));
        KeyCodes { codes, bound, values: KeyValues::Spaced { base, step: gcd, null, column_type } }
    };
    match codes {
        Codes::U8(codes) => spaced(selection.gather(codes, u32::from), 1 << 8),
        Codes::U16(codes) => spaced(selection.gather(codes, u32::from), 1 << 16),
        Codes::U32(codes) => offset_codes(selection.gather(codes, u64::from), nulls, base, gcd, column_type),
        Codes::U64(codes) => {
            offset_codes(selection.gather(codes, |code| code), nulls, base, gcd, column_type)
        }
    }
}

fn mark_nulls(codes: &mut [u32], nulls: &NullBuffer, null: u32) {
    for (code, valid) in codes.iter_mut().zip(nulls.iter()) {
        if !valid {
            *code = null;
        }
    }
}

/// Wide integers: dense when they lie close together, hashed when not.
fn offset_codes(
    offsets: Vec<u64>,
    nulls: Option<NullBuffer>,
    base: i64,
    step: i64,
    column_type: ColumnType,
) -> KeyCodes {
    let (min, max) = match offsets.iter().min().zip(offsets.iter().max()) {
        Some((min, max)) => (*min, *max),
        None => (0, 0),
    };
    if max - min < DENSE_MAX {
        let mut codes: Vec<u32> = offsets.iter().map(|offset| (offset - min) as u32).collect();
        let null = (max - min) as u32 + 1;
        let null = nulls.map(|nulls| {
            mark_nulls(&mut codes, &nulls, null);
            null
        });
        let base = base.wrapping_add(step.wrapping_mul(min as i64));
        let values = KeyValues::Spaced { base, step, null, column_type };
        return KeyCodes { codes, bound: max - min + 2, values };
    }
    let valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    let (codes, firsts) =
        number(offsets.iter().enumerate().map(|(row, offset)| valid(row).then_some(*offset)));
    let null = firsts.iter().position(|row| !valid(*row as usize)).map(|code| code as u32);
    let bound = firsts.len() as u64;
    let numbers = firsts.iter().map(|row| offsets[*row as usize]).collect();
    KeyCodes { codes, bound, values: KeyValues::Sparse { numbers, base, step, null, column_type } }
}

impl KeyValues {
    /// The values of these codes.
    fn at(&self, codes: &[u32]) -> Result<ArrayRef, ScanError> {
        let ints = |null: Option<u32>, column_type: ColumnType, value: &dyn Fn(u32) -> i64| {
            let is_null = |code: u32| Some(code) == null;
            let values = codes.iter().map(|code| if is_null(*code) { 0 } else { value(*code) }).collect();
            let nulls = codes
                .iter()
                .any(|code| is_null(*code))
                .then(|| NullBuffer::from_iter(codes.iter().map(|code| !is_null(*code))));
            int_array(values, nulls, column_type)
        };
        Ok(match self {
            KeyValues::Listed(values) => {
                let there = |code: &u32| ((*code as usize) < values.len()).then_some(*code);
                take(values, &codes.iter().map(there).collect::<UInt32Array>(), None)?
            }
            KeyValues::Spaced { base, step, null, column_type } => {
                ints(*null, *column_type, &|code| base.wrapping_add(step.wrapping_mul(i64::from(code))))
            }
            KeyValues::Sparse { numbers, base, step, null, column_type } => {
                let value = |code: u32| base.wrapping_add(step.wrapping_mul(numbers[code as usize] as i64));
                ints(*null, *column_type, &value)
            }
        })
    }
}

/// The group of each row, and the first row of each group.
fn combine(keys: &[KeyCodes]) -> (Vec<u32>, Vec<u32>) {
    let Some((first, rest)) = keys.split_first() else { return (Vec::new(), Vec::new()) };
    let mut combined = first.codes.clone();
    let mut bound = first.bound;
    for key in rest {
        let dense_max = DENSE_MAX.max(combined.len() as u64);
        if bound.saturating_mul(key.bound) > dense_max && bound > combined.len() as u64 {
            let firsts;
            (combined, firsts) = renumber(&combined, bound);
            bound = firsts.len() as u64;
        }
        if bound.saturating_mul(key.bound) <= dense_max {
            let radix = key.bound as u32;
            for (number, code) in combined.iter_mut().zip(&key.codes) {
                *number = *number * radix + code;
            }
            bound *= key.bound;
        } else {
            let pairs = combined.iter().zip(&key.codes);
            let pairs = pairs.map(|(number, code)| Some(u64::from(*number) << 32 | u64::from(*code)));
            let firsts;
            (combined, firsts) = number(pairs);
            bound = firsts.len() as u64;
        }
    }
    renumber(&combined, bound)
}

/// Dense numbers in order of first appearance, and the first row of each.
fn renumber(codes: &[u32], bound: u64) -> (Vec<u32>, Vec<u32>) {
    if bound > DENSE_MAX.max(codes.len() as u64) {
        return number(codes.iter().map(|code| Some(*code)));
    }
    const UNSEEN: u32 = u32::MAX;
    let mut table = vec![UNSEEN; bound as usize];
    let mut firsts = Vec::new();
    let mut groups = Vec::with_capacity(codes.len());
    for (row, code) in codes.iter().enumerate() {
        let entry = &mut table[*code as usize];
        if *entry == UNSEEN {
            *entry = firsts.len() as u32;
            firsts.push(row as u32);
        }
        groups.push(*entry);
    }
    (groups, firsts)
}
