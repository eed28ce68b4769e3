//! Evaluating an expression once per distinct value instead of once per row.
//!
//! That is possible when the columns that vary have few values with a code each (dictionaries, integers packed into
//! bytes, bools), or make a difference by the interval their value is in (see [`super::cuts`]), and there are few
//! combinations of those. A code that no selected row has may stand for a value on which the expression fails; whoever
//! evaluates a domain falls back to the selected rows then.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, BooleanBufferBuilder, Float64Array, UInt32Array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{concat, take};

use super::coder::Coder;
use super::columns::{Run, Shape, int_array, repeat};
use super::compile::Compiled;
use super::cuts::{self, Scale};
use super::ints::{self, CodeTest};
use super::selection::{ROWS_PER_STRETCH, Rows, Selection};
use super::{ScanError, Stop};
use crate::column::{Codes, power_of_ten};
use crate::vectors::pack_bits;

/// The distinct values that an expression meets in a run.
#[derive(Debug)]
pub(super) enum Domain<'a> {
    /// One: no column varies.
    One,
    /// A dictionary's; NULL, if there is any, has the code behind the last value.
    Dictionary { column: usize, values: ArrayRef, codes: &'a Codes, has_nulls: bool },
    /// Integers of one byte; NULL, if there is any, counts as one more code.
    Bytes {
        column: usize,
        base: i64,
        gcd: i64,
        all: &'a Codes,
        codes: &'a [u8],
        validity: Option<&'a NullBuffer>,
        distinct: usize,
    },
    /// Every combination of what several columns have.
    Product(Vec<Part<'a>>),
}

/// What one column brings to a product.
#[derive(Debug)]
pub(super) struct Part<'a> {
    column: usize,
    coder: Coder<'a>,
    /// The value at each code; NULL at the code behind the last one.
    values: ArrayRef,
    /// How many codes.
    count: usize,
}

/// So many combinations are evaluated at most.
const COMBINATIONS_MAX: usize = 1 << 14;
/// A column of codes that are no bytes has so many rows for each code at least: most codes may be those of no row.
const ROWS_A_CODE: usize = 4;

/// How far codes may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those of a dictionary, and bytes: for what is quickly computed from row to row.
    Near,
    /// Also those of two bytes.
    Far,
}

/// The domain of an expression in a run, when it has one that is no larger than the number of selected rows.
pub(super) fn domain<'a>(
    run: &'a Run<'_>,
    compiled: &Compiled,
    selection: &Selection,
    reach: Reach,
) -> Result<Option<Domain<'a>>, Stop> {
    if compiled.volatile {
        return Ok(None);
    }
    let mut found = Domain::One;
    for column in &compiled.columns {
        let next = match run.slot(*column)?.shape() {
            Shape::Constant(_) => continue,
            Shape::Dictionary { values, codes, has_nulls } => {
                Domain::Dictionary { column: *column, values, codes, has_nulls }
            }
            Shape::Packed { base, gcd, codes: all @ Codes::U8(codes), validity } => {
                let distinct = codes.iter().max().map_or(0, |max| usize::from(*max) + 1);
                Domain::Bytes { column: *column, base, gcd, all, codes, validity, distinct }
            }
            // Telling all values apart is too much for a few rows.
            Shape::Text(_) if selection.len() * 2 >= run.row_count => match run.slot(*column)?.coded_text() {
                Some((values, codes, has_nulls)) => {
                    Domain::Dictionary { column: *column, values, codes, has_nulls }
                }
                None => return product(run, compiled, selection, reach),
            },
            Shape::Packed { .. }
            | Shape::Ints { .. }
            | Shape::Decimal { .. }
            | Shape::Text(_)
            | Shape::Lists(_)
            | Shape::Bits { .. }
            | Shape::Floats
            | Shape::Other => return product(run, compiled, selection, reach),
        };
        if !matches!(found, Domain::One) {
            return product(run, compiled, selection, reach);
        }
        found = next;
    }
    let worthwhile = matches!(found, Domain::One) || found.len() <= selection.len();
    Ok(worthwhile.then_some(found))
}

/// The combinations of several columns, where each of them has few codes.
fn product<'a>(
    run: &'a Run<'_>,
    compiled: &Compiled,
    selection: &Selection,
    reach: Reach,
) -> Result<Option<Domain<'a>>, Stop> {
    let most = selection.len().min(COMBINATIONS_MAX);
    let (mut parts, mut combinations) = (Vec::new(), 1_usize);
    for (column, cuts) in compiled.columns.iter().zip(&compiled.cuts) {
        if matches!(run.slot(*column)?.shape(), Shape::Constant(_)) {
            continue;
        }
        let part = match (part(run, *column, cuts.as_deref())?, reach) {
            (None, Reach::Far) => far_part(run, *column, selection.len() / ROWS_A_CODE)?,
            (part, _) => part,
        };
        let Some(part) = part else { return Ok(None) };
        combinations = combinations.saturating_mul(part.count);
        if combinations > most {
            return Ok(None);
        }
        parts.push(part);
    }
    Ok(Some(Domain::Product(parts)))
}

fn part<'a>(run: &'a Run<'_>, column: usize, cuts: Option<&[i64]>) -> Result<Option<Part<'a>>, Stop> {
    let slot = run.slot(column)?;
    let column_type = run.spec(column).column_type;
    let interval = |cuts: &[i64], coder: Coder<'a>, has_nulls: bool| {
        let values = cuts::values(cuts, column_type);
        Some(Part { column, coder, count: values.len() + usize::from(has_nulls), values })
    };
    Ok(match (slot.shape(), cuts) {
        (Shape::Dictionary { values, codes, has_nulls }, _) => {
            let count = values.len() + usize::from(has_nulls);
            Some(Part { column, coder: Coder::Codes(codes), values, count })
        }
        (Shape::Bits { bits, validity }, _) => {
            let values: ArrayRef = Arc::new(BooleanArray::from(vec![false, true]));
            let count = 2 + usize::from(validity.is_some());
            Some(Part { column, coder: Coder::Bits { bits, validity }, values, count })
        }
        (Shape::Packed { base, gcd, codes, validity }, Some(cuts)) => {
            let (thresholds, null) = (cuts::thresholds(cuts, base, gcd, Scale::Int, codes), null(cuts));
            interval(cuts, Coder::Reached { codes, thresholds, validity, null }, validity.is_some())
        }
        (Shape::Decimal { base, gcd, digits, codes, validity }, Some(cuts)) => {
            let thresholds = cuts::thresholds(cuts, base, gcd, Scale::Decimal(digits), codes);
            let coder = Coder::Reached { codes, thresholds, validity, null: null(cuts) };
            interval(cuts, coder, validity.is_some())
        }
        (Shape::Packed { base, gcd, codes: all @ Codes::U8(codes), validity }, None) => {
            let distinct = codes.iter().max().map_or(0, |max| usize::from(*max) + 1);
            let values = (0..distinct as i64).map(|code| base.wrapping_add(gcd.wrapping_mul(code))).collect();
            let coder = Coder::Offsets { codes: all, low: 0, validity, null: distinct as u32 };
            let count = distinct + usize::from(validity.is_some());
            Some(Part { column, coder, values: int_array(values, None, column_type), count })
        }
        (Shape::Ints { .. }, Some(cuts)) => {
            let ints = slot.ints(run.row_count)?;
            let has_nulls = ints.has_nulls();
            interval(cuts, Coder::CutInts { ints, cuts: cuts.to_vec(), null: null(cuts) }, has_nulls)
        }
        (Shape::Floats, Some(cuts)) => {
            let floats = slot.floats(run.row_count)?;
            let (has_nulls, values) = (floats.has_nulls(), Vec::new());
            interval(
                cuts,
                Coder::CutFloats { floats, cuts: cuts.to_vec(), null: null(cuts), values },
                has_nulls,
            )
        }
        _ => None,
    })
}

/// As [`part`], of codes of two bytes, which are at most so many.
fn far_part<'a>(run: &'a Run<'_>, column: usize, codes_max: usize) -> Result<Option<Part<'a>>, Stop> {
    let slot = run.slot(column)?;
    let (base, gcd, digits, codes, validity) = match slot.shape() {
        Shape::Packed { base, gcd, codes, validity } => (base, gcd, None, codes, validity),
        Shape::Decimal { base, gcd, digits, codes, validity } => (base, gcd, Some(digits), codes, validity),
        _ => return Ok(None),
    };
    let distinct = match codes {
        Codes::U8(_) | Codes::U16(_) => codes.max().map_or(0, |max| max as usize + 1),
        Codes::U32(_) | Codes::U64(_) => return Ok(None),
    };
    if distinct > codes_max.min(COMBINATIONS_MAX) {
        return Ok(None);
    }
    let ints = (0..distinct as i64).map(|code| base.wrapping_add(gcd.wrapping_mul(code)));
    let values: ArrayRef = match digits {
        None => int_array(ints.collect(), None, run.spec(column).column_type),
        Some(digits) => {
            let power = power_of_ten(digits);
            Arc::new(Float64Array::from_iter_values(ints.map(|int| int as f64 / power)))
        }
    };
    let coder = Coder::Offsets { codes, low: 0, validity, null: distinct as u32 };
    Ok(Some(Part { column, coder, values, count: distinct + usize::from(validity.is_some()) }))
}

/// The code of NULL behind those of the intervals.
fn null(cuts: &[i64]) -> u32 {
    cuts.len() as u32 + 1
}

impl<'a> Domain<'a> {
    /// How many distinct values, NULL included.
    pub(super) fn len(&self) -> usize {
        match self {
            Domain::One => 1,
            Domain::Dictionary { values, has_nulls, .. } => values.len() + usize::from(*has_nulls),
            Domain::Bytes { validity, distinct, .. } => distinct + usize::from(validity.is_some()),
            Domain::Product(parts) => parts.iter().map(|part| part.count).product(),
        }
    }

    /// The expression's value for each code.
    pub(super) fn evaluate(&self, run: &Run<'_>, compiled: &Compiled) -> Result<ArrayRef, Stop> {
        run.look()?;
        let over = |varying: Option<(usize, &ArrayRef)>, count: usize| -> Result<ArrayRef, Stop> {
            let mut arrays = Vec::with_capacity(compiled.columns.len());
            for column in &compiled.columns {
                arrays.push(match (varying, run.slot(*column)?.shape()) {
                    (Some((varying, values)), _) if varying == *column => values.clone(),
                    (_, Shape::Constant(value)) => repeat(value, count)?,
                    _ => run.array(*column, Rows::all(run.row_count))?,
                });
            }
            run.evaluate_over(compiled, arrays, count)
        };
        match self {
            Domain::One => over(None, 1),
            Domain::Dictionary { column, values, has_nulls: false, .. } => {
                over(Some((*column, values)), values.len())
            }
            Domain::Dictionary { column, values, has_nulls: true, .. } => {
                // Two evaluations and a copy of the results cost less than a copy of the values.
                let null = new_null_array(values.data_type(), 1);
                let there = over(Some((*column, values)), values.len())?;
                let missing = over(Some((*column, &null)), 1)?;
                Ok(concat(&[&there, &missing])?)
            }
            Domain::Bytes { column, base, gcd, validity, distinct, .. } => {
                let mut values: Vec<i64> =
                    (0..*distinct as i64).map(|code| base.wrapping_add(gcd.wrapping_mul(code))).collect();
                let nulls = validity.map(|_| {
                    values.push(0);
                    NullBuffer::from_iter((0..=*distinct).map(|code| code < *distinct))
                });
                let values = int_array(values, nulls, run.spec(*column).column_type);
                over(Some((*column, &values)), values.len())
            }
            Domain::Product(parts) => combined(run, compiled, parts, self.len()),
        }
    }

    /// The code of each row.
    pub(super) fn coder(self) -> Coder<'a> {
        match self {
            Domain::One => Coder::One,
            Domain::Dictionary { codes, .. } => Coder::Codes(codes),
            Domain::Bytes { all, validity: None, .. } => Coder::Codes(all),
            Domain::Bytes { all, validity: Some(validity), distinct, .. } => {
                Coder::Offsets { codes: all, low: 0, validity: Some(validity), null: distinct as u32 }
            }
            Domain::Product(parts) => {
                let mut parts: Vec<_> =
                    parts.into_iter().map(|part| (part.coder, part.count as u32)).collect();
                match (parts.pop(), parts.is_empty()) {
                    (Some((only, _)), true) => only,
                    (last, _) => {
                        parts.extend(last);
                        Coder::Mixed { parts, codes: Vec::new() }
                    }
                }
            }
        }
    }

    /// Keeps the rows whose code is set in the table.
    pub(super) fn narrow(self, selection: Selection, table: &[bool]) -> Selection {
        if table.iter().all(|keep| *keep) {
            return selection;
        }
        if !table.iter().any(|keep| *keep) {
            return Selection::none();
        }
        match self {
            // One value keeps all or none.
            Domain::One => selection,
            Domain::Dictionary { codes, .. } => narrow_codes(codes, selection, table),
            Domain::Product(parts) => narrow_product(parts, selection, table),
            Domain::Bytes { codes, validity: None, .. } => by_table(selection, codes, table, usize::from),
            Domain::Bytes { codes, validity: Some(validity), distinct, .. } => {
                let keep = |row: usize| {
                    let code = if validity.is_valid(row) { usize::from(codes[row]) } else { distinct };
                    table.get(code).copied().unwrap_or(false)
                };
                let all = || arrow::buffer::BooleanBuffer::collect_bool(codes.len(), keep);
                selection.narrow(all, keep)
            }
        }
    }
}

/// The expression's value for each combination.
fn combined(run: &Run<'_>, compiled: &Compiled, parts: &[Part<'_>], count: usize) -> Result<ArrayRef, Stop> {
    let mut arrays = Vec::with_capacity(compiled.columns.len());
    for column in &compiled.columns {
        let mut stride = count;
        let found = parts.iter().find(|part| {
            stride /= part.count.max(1);
            part.column == *column
        });
        arrays.push(match (found, run.slot(*column)?.shape()) {
            (Some(part), _) => {
                let code = |at: usize| (at / stride % part.count) as u32;
                let there = |code: u32| ((code as usize) < part.values.len()).then_some(code);
                take(&part.values, &(0..count).map(|at| there(code(at))).collect::<UInt32Array>(), None)?
            }
            (None, Shape::Constant(value)) => repeat(value, count)?,
            // Only constants are no part.
            (None, _) => return Err(Stop::Failed(ScanError::Evaluate("a column of no domain".to_owned()))),
        });
    }
    run.evaluate_over(compiled, arrays, count)
}

fn narrow_product(mut parts: Vec<Part<'_>>, selection: Selection, table: &[bool]) -> Selection {
    let is_bits = |part: &Part<'_>| matches!(part.coder, Coder::Bits { .. });
    if parts.len() == 1
        && parts.iter().all(is_bits)
        && let Some(Part { coder: Coder::Bits { bits, validity }, .. }) = parts.pop()
    {
        return narrow_bits(bits, validity, selection, table);
    }
    let mut coder = Domain::Product(parts).coder();
    let (mut ints, mut codes) = (Vec::new(), Vec::new());
    let test = |code: u32| table.get(code as usize).copied().unwrap_or(false);
    match selection {
        Selection::Rows(mut rows) => {
            coder.read(Rows::At(&rows), &mut ints, &mut codes);
            let mut codes = codes.iter();
            rows.retain(|_| codes.next().is_some_and(|code| test(*code)));
            Selection::Rows(rows)
        }
        Selection::All(count) => {
            let all = bits_of(&mut coder, count, test);
            Selection::All(count).narrow(|| all, |_| false)
        }
        Selection::Bits { bits, count } => {
            let all = bits_of(&mut coder, bits.len(), test);
            Selection::Bits { bits, count }.narrow(|| all, |_| false)
        }
    }
}

/// One bit a row.
fn bits_of(coder: &mut Coder<'_>, row_count: usize, test: impl Fn(u32) -> bool) -> BooleanBuffer {
    let (mut ints, mut codes) = (Vec::new(), Vec::new());
    let mut all = BooleanBufferBuilder::new(row_count);
    for rows in Rows::all(row_count).stretches(ROWS_PER_STRETCH) {
        coder.read(rows, &mut ints, &mut codes);
        all.append_buffer(&pack_bits(&codes, &test));
    }
    all.finish()
}

/// Keeps the rows whose bool is set in a table of false, true and NULL.
fn narrow_bits(
    bits: &BooleanBuffer,
    validity: Option<&NullBuffer>,
    selection: Selection,
    table: &[bool],
) -> Selection {
    let at = |code: usize| table.get(code).copied().unwrap_or(false);
    let (keep_false, keep_true, keep_null) = (at(0), at(1), at(2));
    let all = || {
        let values = match (keep_false, keep_true) {
            (false, false) => BooleanBuffer::new_unset(bits.len()),
            (false, true) => bits.clone(),
            (true, false) => !bits,
            (true, true) => BooleanBuffer::new_set(bits.len()),
        };
        match (validity, keep_null) {
            (None, _) => values,
            (Some(validity), false) => &values & validity.inner(),
            (Some(validity), true) => &values | &!validity.inner(),
        }
    };
    selection.narrow(all, |row| match validity.is_none_or(|validity| validity.is_valid(row)) {
        true => at(usize::from(bits.value(row))),
        false => keep_null,
    })
}

/// Keeps the rows whose code is set in the table.
pub(super) fn narrow_codes(codes: &Codes, selection: Selection, table: &[bool]) -> Selection {
    if table.iter().all(|keep| *keep) {
        return selection;
    }
    if !table.iter().any(|keep| *keep) {
        return Selection::none();
    }
    let first = table.iter().position(|keep| *keep).unwrap_or(0);
    let last = table.iter().rposition(|keep| *keep).unwrap_or(0);
    if table[first..=last].iter().all(|keep| *keep) {
        // Values are sorted, so a comparison or a prefix keeps a range of codes, which needs no table.
        return ints::narrow(selection, codes, &CodeTest::Within(first as u64, last as u64), None);
    }
    match codes {
        Codes::U8(codes) => {
            let mut whole = [false; 256];
            whole.iter_mut().zip(table).for_each(|(to, keep)| *to = *keep);
            let test = |code: u8| whole[usize::from(code)];
            selection.narrow(|| pack_bits(codes, test), |row| test(codes[row]))
        }
        Codes::U16(codes) => by_table(selection, codes, table, usize::from),
        Codes::U32(codes) => by_table(selection, codes, table, |code| code as usize),
        Codes::U64(codes) => by_table(selection, codes, table, |code| code as usize),
    }
}

fn by_table<T: Copy>(
    selection: Selection,
    codes: &[T],
    table: &[bool],
    index: impl Fn(T) -> usize,
) -> Selection {
    let test = |code: T| table.get(index(code)).copied().unwrap_or(false);
    selection.narrow(|| pack_bits(codes, test), |row| test(codes[row]))
}
