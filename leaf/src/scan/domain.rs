//! Evaluating an expression once per distinct value instead of once per row.
//!
//! That is possible when at most one of the expression's columns varies in the run and that column has few values
//! with a code each: a dictionary, or integers packed into bytes. A code that no selected row has may stand for a
//! value on which the expression fails; whoever evaluates a domain falls back to the selected rows then.

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::concat;

use super::Stop;
use super::coder::Coder;
use super::columns::{Run, Shape, int_array, repeat};
use super::compile::Compiled;
use super::ints::{self, CodeTest};
use super::selection::{Rows, Selection, pack_bits};
use crate::column::Codes;

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
}

/// The domain of an expression in a run, when it has one that is no larger than the number of selected rows.
pub(super) fn domain<'a>(
    run: &'a Run<'_>,
    compiled: &Compiled,
    selection: &Selection,
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
            Shape::Packed { .. }
            | Shape::Ints { .. }
            | Shape::Decimal { .. }
            | Shape::Text(_)
            | Shape::Lists(_)
            | Shape::Other => return Ok(None),
        };
        if !matches!(found, Domain::One) {
            return Ok(None);
        }
        found = next;
    }
    let worthwhile = matches!(found, Domain::One) || found.len() <= selection.len();
    Ok(worthwhile.then_some(found))
}

impl<'a> Domain<'a> {
    /// How many distinct values, NULL included.
    pub(super) fn len(&self) -> usize {
        match self {
            Domain::One => 1,
            Domain::Dictionary { values, has_nulls, .. } => values.len() + usize::from(*has_nulls),
            Domain::Bytes { validity, distinct, .. } => distinct + usize::from(validity.is_some()),
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
            Ok(compiled.evaluate(arrays, count)?)
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
        }
    }

    /// The code of each row.
    pub(super) fn coder(&self) -> Coder<'a> {
        match self {
            Domain::One => Coder::One,
            Domain::Dictionary { codes, .. } => Coder::Codes(codes),
            Domain::Bytes { all, validity: None, .. } => Coder::Codes(all),
            Domain::Bytes { all, validity: Some(validity), distinct, .. } => {
                Coder::Offsets { codes: all, low: 0, validity: Some(validity), null: *distinct as u32 }
            }
        }
    }

    /// Keeps the rows whose code is set in the table.
    pub(super) fn narrow(&self, selection: Selection, table: &[bool]) -> Selection {
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
            Domain::Bytes { codes, validity: None, .. } => by_table(selection, codes, table, usize::from),
            Domain::Bytes { codes, validity: Some(validity), distinct, .. } => {
                let keep = |row: usize| {
                    let code = if validity.is_valid(row) { usize::from(codes[row]) } else { *distinct };
                    table.get(code).copied().unwrap_or(false)
                };
                let all = || arrow::buffer::BooleanBuffer::collect_bool(codes.len(), keep);
                selection.narrow(all, keep)
            }
        }
    }
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
