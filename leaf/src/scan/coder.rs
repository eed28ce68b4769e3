//! Codes for rows: numbers that stand for values, read a stretch at a time.
//!
//! A coder is made once per run and says for any of its rows which of few values the row has. Codes come from the
//! column where it has some (dictionaries, narrow integers), from the steps of time, or are handed out in the order
//! in which values appear.

use std::ops::Range;

use arrow::array::ArrowNativeTypeOp;
use arrow::buffer::{BooleanBuffer, NullBuffer};
use hashbrown::HashTable;

use super::cuts::float_key;
use super::readers::{Floats, Ints};
use super::selection::Rows;
use crate::column::Codes;
use crate::vectors::vectorized;

/// See the module.
#[derive(Debug)]
pub(super) enum Coder<'a> {
    /// Every row has the code 0.
    One,
    /// Those of the column.
    Codes(&'a Codes),
    /// Those of the column less `low`; rows without value have the code `null`.
    Offsets { codes: &'a Codes, low: u64, validity: Option<&'a NullBuffer>, null: u32 },
    /// Integers less `low`; rows without value have the code `null`.
    Distances { ints: Ints<'a>, low: i64, null: u32 },
    /// Steps of time.
    Steps { ints: Ints<'a>, divider: Divider },
    /// Numbers in order of first appearance.
    Numbered { ints: Ints<'a>, numbers: Numbers },
    /// One for each row of the run.
    Listed(Vec<u32>),
    /// How many thresholds the code of the column reaches; rows without value have the code `null`.
    Reached { codes: &'a Codes, thresholds: Vec<u64>, validity: Option<&'a NullBuffer>, null: u32 },
    /// How many cuts an integer reaches.
    CutInts { ints: Ints<'a>, cuts: Vec<i64>, null: u32 },
    /// How many cuts the key of a float reaches.
    CutFloats { floats: Floats<'a>, cuts: Vec<i64>, null: u32, values: Vec<f64> },
    /// 0 for false, 1 for true, 2 for NULL.
    Bits { bits: &'a BooleanBuffer, validity: Option<&'a NullBuffer> },
    /// The codes of several coders as one number; each comes with the number of its codes.
    Mixed { parts: Vec<(Coder<'a>, u32)>, codes: Vec<u32> },
    /// Codes of another coder, each replaced by the one at its place.
    Mapped(Box<Coder<'a>>, Vec<u32>),
}

impl Coder<'_> {
    /// The codes of some rows.
    pub(super) fn read(&mut self, rows: Rows<'_>, ints: &mut Vec<i64>, out: &mut Vec<u32>) {
        match self {
            Coder::One => {
                out.clear();
                out.resize(rows.len(), 0);
            }
            Coder::Codes(codes) => match codes {
                Codes::U8(codes) => rows.read(codes, out, u32::from),
                Codes::U16(codes) => rows.read(codes, out, u32::from),
                Codes::U32(codes) => rows.read(codes, out, |code| code),
                Codes::U64(codes) => rows.read(codes, out, clamp),
            },
            Coder::Offsets { codes, low, validity, null } => {
                let low = *low;
                match codes {
                    Codes::U8(codes) => rows.read(codes, out, move |code| (u64::from(code) - low) as u32),
                    Codes::U16(codes) => rows.read(codes, out, move |code| (u64::from(code) - low) as u32),
                    Codes::U32(codes) => {
                        rows.read(codes, out, move |code| u64::from(code).wrapping_sub(low) as u32)
                    }
                    Codes::U64(codes) => rows.read(codes, out, move |code| code.wrapping_sub(low) as u32),
                }
                mark(*validity, rows, *null, out);
            }
            Coder::Distances { ints: reader, low, null } => {
                let values = reader.read(rows, ints);
                out.clear();
                out.extend(values.iter().map(|value| value.wrapping_sub(*low) as u32));
                if let Some(nulls) = reader.nulls(rows) {
                    mark_all(&nulls, *null, out);
                }
            }
            Coder::Steps { ints: reader, divider } => match (rows, &*reader) {
                (Rows::Range { start, count }, Ints::Packed { base, gcd, codes, .. }) => {
                    divider.read_codes((*base, *gcd), codes, start..start + count, out);
                }
                _ => divider.read(reader.read(rows, ints), out),
            },
            Coder::Numbered { ints: reader, numbers } => {
                let nulls = reader.nulls(rows);
                numbers.read(reader.read(rows, ints), nulls.as_ref(), out);
            }
            Coder::Listed(codes) => rows.read(codes, out, |code| code),
            Coder::Reached { .. } | Coder::CutInts { .. } | Coder::CutFloats { .. } => {
                self.read_cuts(rows, ints, out);
            }
            Coder::Bits { bits, validity } => {
                out.clear();
                match rows {
                    Rows::Range { start, count } => {
                        out.extend(bits.slice(start, count).iter().map(u32::from));
                    }
                    Rows::At(rows) => out.extend(rows.iter().map(|row| u32::from(bits.value(*row as usize)))),
                }
                mark(*validity, rows, 2, out);
            }
            Coder::Mixed { parts, codes } => {
                let Some(((first, _), rest)) = parts.split_first_mut() else { return };
                first.read(rows, ints, out);
                for (coder, count) in rest {
                    coder.read(rows, ints, codes);
                    out.iter_mut().zip(&*codes).for_each(|(all, code)| *all = *all * *count + code);
                }
            }
            Coder::Mapped(coder, to) => {
                coder.read(rows, ints, out);
                out.iter_mut().for_each(|code| *code = to[*code as usize]);
            }
        }
    }

    /// The codes of those that say how many cuts a value reaches.
    fn read_cuts(&mut self, rows: Rows<'_>, ints: &mut Vec<i64>, out: &mut Vec<u32>) {
        match self {
            Coder::Reached { codes, thresholds, validity, null } => {
                let always = thresholds.iter().take_while(|threshold| **threshold == 0).count();
                let (thresholds, always) = (&thresholds[always..], always as u32);
                // Thresholds are codes of the column, so they fit.
                match codes {
                    Codes::U8(codes) => {
                        reached(rows, codes, &narrow(thresholds, |code| code as u8), always, out)
                    }
                    Codes::U16(codes) => {
                        reached(rows, codes, &narrow(thresholds, |code| code as u16), always, out)
                    }
                    Codes::U32(codes) => {
                        reached(rows, codes, &narrow(thresholds, |code| code as u32), always, out)
                    }
                    Codes::U64(codes) => reached(rows, codes, thresholds, always, out),
                }
                mark(*validity, rows, *null, out);
            }
            Coder::CutInts { ints: reader, cuts, null } => {
                let values = reader.read(rows, ints);
                reached(Rows::all(values.len()), values, cuts, 0, out);
                if let Some(nulls) = reader.nulls(rows) {
                    mark_all(&nulls, *null, out);
                }
            }
            Coder::CutFloats { floats, cuts, null, values } => {
                let read = floats.read(rows, ints, values);
                let keys: Vec<i64> = read.iter().map(|value| float_key(*value)).collect();
                reached(Rows::all(keys.len()), &keys, cuts, 0, out);
                if let Some(nulls) = floats.nulls(rows) {
                    mark_all(&nulls, *null, out);
                }
            }
            _ => out.clear(),
        }
    }
}

fn narrow<T>(codes: &[u64], to: impl Fn(u64) -> T) -> Vec<T> {
    codes.iter().map(|code| to(*code)).collect()
}

/// How many of the thresholds, which ascend, each value reaches, beside those that all reach.
fn reached<T: Copy + PartialOrd>(
    rows: Rows<'_>,
    values: &[T],
    thresholds: &[T],
    always: u32,
    out: &mut Vec<u32>,
) {
    // For so many, comparing with all of them is as fast as looking for the place.
    const FEW: usize = 12;
    match *thresholds {
        [] => rows.read(values, out, move |_| always),
        [a] => rows.read(values, out, move |value| always + u32::from(value >= a)),
        [a, b] => rows.read(values, out, move |value| always + u32::from(value >= a) + u32::from(value >= b)),
        [a, b, c] => rows.read(values, out, move |value| {
            always + u32::from(value >= a) + u32::from(value >= b) + u32::from(value >= c)
        }),
        _ if thresholds.len() <= FEW => rows.read(values, out, move |value| {
            always + thresholds.iter().map(|threshold| u32::from(value >= *threshold)).sum::<u32>()
        }),
        _ => rows.read(values, out, move |value| {
            always + thresholds.partition_point(|threshold| value >= *threshold) as u32
        }),
    }
}

fn clamp(code: u64) -> u32 {
    u32::try_from(code).unwrap_or(u32::MAX)
}

fn mark(validity: Option<&NullBuffer>, rows: Rows<'_>, null: u32, codes: &mut [u32]) {
    let Some(validity) = validity.filter(|validity| validity.null_count() > 0) else { return };
    for (place, code) in codes.iter_mut().enumerate() {
        if validity.is_null(rows.get(place)) {
            *code = null;
        }
    }
}

fn mark_all(nulls: &NullBuffer, null: u32, codes: &mut [u32]) {
    for (code, valid) in codes.iter_mut().zip(nulls.iter()) {
        if !valid {
            *code = null;
        }
    }
}

/// Division of times by the width of a step: times become the number of their step after the first one.
#[derive(Debug)]
pub(super) struct Divider {
    /// Where the first step begins; no time of the run is earlier.
    pub(super) start: i64,
    /// Nanoseconds.
    pub(super) width: u64,
    /// The number of the last step.
    pub(super) last: u32,
}

/// Distances below this are exact as floats.
const EXACT_MAX: u64 = 1 << 52;

/// Times that are divided together when they share their step: they come nearly in order.
const TIMES_TOGETHER: usize = 128;

impl Divider {
    fn read(&self, times: &[i64], out: &mut Vec<u32>) {
        out.clear();
        for times in times.chunks(TIMES_TOGETHER) {
            match self.shared(times) {
                Some(step) => out.resize(out.len() + times.len(), step),
                None => self.divide(times, out),
            }
        }
    }

    /// The step that all of these times share, if they do.
    fn shared(&self, times: &[i64]) -> Option<u32> {
        let distance = times.first()?.checked_sub(self.start)?;
        let step = u64::try_from(distance).ok()? / self.width;
        let step = u32::try_from(step).ok().filter(|step| *step <= self.last)?;
        let begins = self.start.checked_add(i64::try_from(self.width).ok()?.checked_mul(i64::from(step))?)?;
        let ends = begins.checked_add_unsigned(self.width - 1)?;
        // One negative distance to either end leaves its sign; this way it is a few vector instructions.
        let sign =
            times.iter().fold(0, |sign, time| sign | time.wrapping_sub(begins) | ends.wrapping_sub(*time));
        (sign >= 0).then_some(step)
    }

    /// As [`Divider::read`], of times that are base + gcd × code.
    fn read_codes(&self, times: (i64, i64), codes: &Codes, rows: Range<usize>, out: &mut Vec<u32>) {
        out.clear();
        match codes {
            Codes::U8(codes) => self.read_narrow(times, &codes[rows], out),
            Codes::U16(codes) => self.read_narrow(times, &codes[rows], out),
            Codes::U32(codes) => self.read_narrow(times, &codes[rows], out),
            Codes::U64(codes) => self.read_narrow(times, &codes[rows], out),
        }
    }

    fn read_narrow<T: ArrowNativeTypeOp>(&self, (base, gcd): (i64, i64), codes: &[T], out: &mut Vec<u32>) {
        let mut times = [0; TIMES_TOGETHER];
        // The codes of the last step that was found, from the first to the last of them.
        let mut near: Option<(u32, T, T)> = None;
        for codes in codes.chunks(TIMES_TOGETHER) {
            let is_in = |first: T, last: T, code: T| code.sub_wrapping(first).is_le(last.sub_wrapping(first));
            let first = codes.first().copied().unwrap_or_default();
            near = near
                .filter(|(_, from, to)| is_in(*from, *to, first))
                .or_else(|| self.around(base, gcd, first));
            if let Some((step, from, to)) = near
                && vectorized(
                    #[inline(always)]
                    || codes.iter().fold(true, |all, code| all & is_in(from, to, *code)),
                )
            {
                out.resize(out.len() + codes.len(), step);
                continue;
            }
            for (time, code) in times.iter_mut().zip(codes) {
                *time = base.wrapping_add(gcd.wrapping_mul(code.as_usize() as i64));
            }
            self.divide(&times[..codes.len()], out);
        }
    }

    /// The step that a code is in, with its first and last code.
    fn around<T: ArrowNativeTypeOp>(&self, base: i64, gcd: i64, code: T) -> Option<(u32, T, T)> {
        let code_max = i128::from(u64::MAX >> (64 - 8 * size_of::<T>()));
        let (base, gcd) = (i128::from(base), i128::from(gcd.max(1)));
        let (start, width) = (i128::from(self.start), i128::from(self.width));
        let distance = base + gcd * code.as_usize() as i128 - start;
        let step = u32::try_from(distance.checked_div(width)?).ok()?;
        if distance < 0 || step > self.last {
            return None;
        }
        let begins = start + width * i128::from(step) - base;
        let first = (begins.max(0) + gcd - 1) / gcd;
        let last = ((begins + width - 1) / gcd).min(code_max);
        Some((step, T::usize_as(first as usize), T::usize_as(last as usize)))
    }

    fn divide(&self, times: &[i64], out: &mut Vec<u32>) {
        let (start, width, last) = (self.start, self.width, u64::from(self.last));
        if width.saturating_mul(last + 1) < EXACT_MAX {
            let inverse = 1.0 / width as f64;
            out.extend(times.iter().map(|time| {
                let distance = time.wrapping_sub(start);
                // The product is less than one off, so one correction to either side makes it exact.
                let guess = (distance as f64 * inverse) as i64;
                let rest = distance - guess.wrapping_mul(width as i64);
                let step = guess - i64::from(rest < 0) + i64::from(rest >= width as i64);
                step.clamp(0, last as i64) as u32
            }));
        } else {
            out.extend(times.iter().map(|time| {
                let step = (time.wrapping_sub(start) as u64) / width;
                // A block whose times belie its header must not lead out of a table.
                step.min(last) as u32
            }));
        }
    }
}

/// Integers with their numbers.
pub(super) type NumberTable = HashTable<(u64, u32)>;

/// Numbers for distinct integers, in order of first appearance.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    table: NumberTable,
    /// The integer of each number; 0 for that of NULL.
    pub(super) values: Vec<u64>,
    pub(super) null: Option<u32>,
}

/// Spreads an integer over all bits.
#[inline]
pub(super) fn spread(value: u64) -> u64 {
    let product = u128::from(value ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
    (product as u64) ^ ((product >> 64) as u64)
}

impl Numbers {
    /// Into a table that is empty, but has room.
    pub(super) fn with_table(table: NumberTable) -> Numbers {
        Numbers { table, ..Numbers::default() }
    }

    /// The table, emptied, for others. Numbers that were given out stay what they are, but none is found any more.
    pub(super) fn give_table(&mut self) -> NumberTable {
        let mut table = std::mem::take(&mut self.table);
        table.clear();
        table
    }

    /// The number of an integer.
    #[inline]
    pub(super) fn number(&mut self, value: u64) -> u32 {
        let next = self.values.len() as u32;
        let entry =
            self.table.entry(spread(value), |(known, _)| *known == value, |(known, _)| spread(*known));
        match entry {
            hashbrown::hash_table::Entry::Occupied(entry) => entry.get().1,
            hashbrown::hash_table::Entry::Vacant(entry) => {
                entry.insert((value, next));
                self.values.push(value);
                next
            }
        }
    }

    pub(super) fn number_null(&mut self) -> u32 {
        if let Some(number) = self.null {
            return number;
        }
        let next = self.values.len() as u32;
        self.values.push(0);
        self.null = Some(next);
        next
    }

    fn read(&mut self, values: &[i64], nulls: Option<&NullBuffer>, out: &mut Vec<u32>) {
        out.clear();
        match nulls {
            None => out.extend(values.iter().map(|value| self.number(*value as u64))),
            Some(nulls) => out.extend(values.iter().zip(nulls.iter()).map(|(value, valid)| match valid {
                true => self.number(*value as u64),
                false => self.number_null(),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::forms;

    #[test]
    fn steps_are_counted_from_the_first() {
        for (start, width, times) in [
            (0_i64, 10_u64, vec![0_i64, 9, 10, 25, 99]),
            (-20, 10, vec![-20, -11, -10, -1, 0, 9]),
            (
                1_790_000_000_000_000_000,
                60_000_000_000,
                vec![
                    1_790_000_000_000_000_000,
                    1_790_000_059_999_999_999,
                    1_790_000_060_000_000_000,
                    1_790_003_600_000_000_000,
                ],
            ),
            (i64::MIN, u64::MAX / 2, vec![i64::MIN, 0, i64::MAX]),
        ] {
            let steps = |time: i64| ((i128::from(time) - i128::from(start)) / i128::from(width)) as u32;
            let last = times.iter().map(|time| steps(*time)).max().unwrap_or(0);
            let mut out = Vec::new();
            Divider { start, width, last }.read(&times, &mut out);
            assert_eq!(out, times.iter().map(|time| steps(*time)).collect::<Vec<u32>>(), "{start} {width}");
        }
    }

    #[test]
    fn steps_are_the_same_on_codes() {
        forms::both(steps_on_codes);
    }

    fn steps_on_codes() {
        // Times that nearly ascend, from one step a hundred rows to ten steps a row.
        for (base, gcd, slope) in
            [(7_i64, 1_i64, 3_u64), (-5_000, 1_000, 40), (1_790_000_000_000_000_123, 1_000, 9_000)]
        {
            for width in [1_u64, 300, 1_000, 60_000_000, 1 << 53] {
                let codes: Vec<u64> = (0..1_000_u64).map(|row| row * slope + row * row % 97).collect();
                let time = |code: &u64| base + gcd * *code as i64;
                let times: Vec<i64> = codes.iter().map(time).collect();
                let least = times.iter().copied().min().unwrap_or(0);
                let start = least - least.rem_euclid(width as i64);
                let steps = |time: i64| u32::try_from((time - start) as u64 / width).ok();
                let expect: Option<Vec<u32>> = times.iter().map(|time| steps(*time)).collect();
                // More steps than there can be in a run.
                let Some(expect) = expect else { continue };
                let divider = Divider { start, width, last: expect.iter().copied().max().unwrap_or(0) };
                let mut forms = vec![Codes::U64(codes.clone().into())];
                forms.push(Codes::U32(codes.iter().map(|code| *code as u32).collect::<Vec<_>>().into()));
                if slope == 3 {
                    forms.push(Codes::U16(codes.iter().map(|code| *code as u16).collect::<Vec<_>>().into()));
                }
                for form in forms {
                    let mut out = Vec::new();
                    divider.read_codes((base, gcd), &form, 3..1_000, &mut out);
                    assert_eq!(out, expect[3..], "{base} {gcd} {slope} {width}");
                }
            }
        }
    }

    #[test]
    fn times_that_belie_their_block_stay_within_its_steps() {
        let divider = Divider { start: 1_000, width: 10, last: 3 };
        let mut out = Vec::new();
        let codes = Codes::U64(vec![0, 5, 500, u64::MAX, 1 << 63, 990, 1_029].into());
        divider.read_codes((0, 1), &codes, 0..7, &mut out);
        assert!(out.iter().all(|step| *step <= 3), "{out:?}");
        divider.read_codes((i64::MAX, i64::MAX), &codes, 0..7, &mut out);
        assert!(out.iter().all(|step| *step <= 3), "{out:?}");
    }

    #[test]
    fn numbers_follow_first_appearance() {
        let mut numbers = Numbers::default();
        let mut out = Vec::new();
        let nulls = NullBuffer::from(vec![true, false, true, true, false]);
        numbers.read(&[7, 0, -1, 7, 0], Some(&nulls), &mut out);
        assert_eq!(out, [0, 1, 2, 0, 1]);
        numbers.read(&[0, -1], None, &mut out);
        assert_eq!((out, numbers.values, numbers.null), (vec![3, 2], vec![7, 0, u64::MAX, 0], Some(1)));
    }
}
