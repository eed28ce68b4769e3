//! Group keys of one run: codes for its rows, and the value that each code stands for.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::DataType;
use gannet_query::ColumnType;

use super::coder::{Coder, Divider, Numbers};
use super::columns::{Run, Shape, int_array};
use super::compile::Compiled;
use super::domain::{Reach, domain};
use super::intern::intern;
use super::list_keys::number_lists;
use super::numbering::DENSE_MAX;
use super::prepare::KeyPlan;
use super::readers::Ints;
use super::selection::{Rows, Selection};
use super::steps::Step;
use super::{ScanError, Stop};
use crate::text::{Form, StoredText};

/// One key of a run: distinct codes stand for distinct values.
#[derive(Debug)]
pub(super) struct Key<'a> {
    pub(super) coder: Coder<'a>,
    /// Larger than every code.
    pub(super) bound: u64,
    /// Codes are handed out in the order in which the selected rows have them, without a gap.
    pub(super) is_numbered: bool,
    values: KeyValues<'a>,
}

/// What codes stand for.
#[derive(Debug)]
enum KeyValues<'a> {
    /// The value at the code; NULL for codes beyond.
    Listed(ArrayRef),
    /// base + step × code; NULL for the code `null`.
    Spaced { base: i64, step: i64, null: u32, column_type: ColumnType },
    /// The integers that the coder numbered.
    Numbered(ColumnType),
    /// The text of the row at the code.
    Stored(&'a StoredText, Vec<u32>),
}

/// The key's codes for the selected rows of a run.
pub(super) fn key<'a>(run: &'a Run<'_>, plan: &KeyPlan, selection: &Selection) -> Result<Key<'a>, Stop> {
    if let Some(column) = plan.column
        && let Some(key) = column_key(run, column, selection)?
    {
        return Ok(key);
    }
    if let Some((coder, values)) = per_value(run, &plan.compiled, plan.step, selection, Reach::Far)? {
        let (to, values) = intern(&values)?;
        let bound = values.len() as u64;
        let coder = Coder::Mapped(Box::new(coder), to);
        return Ok(Key { coder, bound, is_numbered: false, values: KeyValues::Listed(values) });
    }
    let values = selection.with_rows(|rows| run.evaluate(&plan.compiled, rows))?;
    let (codes, values) = intern(&values)?;
    Ok(listed(codes, values, selection, run.row_count))
}

/// The key of selected rows with these numbers, in order of first appearance, and the value of each number.
fn listed<'a>(codes: Vec<u32>, values: ArrayRef, selection: &Selection, row_count: usize) -> Key<'a> {
    let coder = Coder::Listed(by_row(codes, selection, row_count));
    Key { coder, bound: values.len() as u64, is_numbered: true, values: KeyValues::Listed(values) }
}

/// Codes of the selected rows as codes of all rows; those of the others mean nothing.
fn by_row(codes: Vec<u32>, selection: &Selection, row_count: usize) -> Vec<u32> {
    if matches!(selection, Selection::All(_)) {
        return codes;
    }
    let mut all = vec![0; row_count];
    for (row, code) in selection.positions().iter().zip(codes) {
        all[*row as usize] = code;
    }
    all
}

fn column_key<'a>(run: &'a Run<'_>, column: usize, selection: &Selection) -> Result<Option<Key<'a>>, Stop> {
    let column_type = run.spec(column).column_type;
    let slot = run.slot(column)?;
    Ok(match slot.shape() {
        // Floats that differ in their bits can be one key: they are told apart by value, not by code.
        Shape::Dictionary { values, .. } if values.data_type() == &DataType::Float64 => None,
        Shape::Dictionary { values, codes, .. } => Some(Key {
            coder: Coder::Codes(codes),
            bound: values.len() as u64 + 1,
            is_numbered: false,
            values: KeyValues::Listed(values),
        }),
        Shape::Packed { base, gcd, codes, validity } => {
            let (low, high) = (codes.min().unwrap_or(0), codes.max().unwrap_or(0));
            if high - low >= DENSE_MAX - 1 {
                return Ok(Some(numbered(slot.ints(run.row_count)?, column_type)));
            }
            let null = (high - low) as u32 + 1;
            let base = base.wrapping_add(gcd.wrapping_mul(low as i64));
            Some(Key {
                coder: Coder::Offsets { codes, low, validity, null },
                bound: u64::from(null) + 1,
                is_numbered: false,
                values: KeyValues::Spaced { base, step: gcd, null, column_type },
            })
        }
        Shape::Ints { values, .. } => {
            let ints = slot.ints(run.row_count)?;
            let near = selection.with_rows(|rows| extent(values, rows));
            match near.filter(|(low, high)| high.wrapping_sub(*low) as u64 <= DENSE_MAX - 2) {
                Some((low, high)) => {
                    let null = high.wrapping_sub(low) as u32 + 1;
                    let values = KeyValues::Spaced { base: low, step: 1, null, column_type };
                    let coder = Coder::Distances { ints, low, null };
                    Some(Key { coder, bound: u64::from(null) + 1, is_numbered: false, values })
                }
                None => Some(numbered(ints, column_type)),
            }
        }
        // Text is told apart as it is stored; only one of each is decoded.
        Shape::Text(text) if matches!(selection, Selection::All(_)) => match (slot.coded_text(), text.form())
        {
            (Some((values, codes, _)), _) => Some(Key {
                coder: Coder::Codes(codes),
                bound: values.len() as u64 + 1,
                is_numbered: false,
                values: KeyValues::Listed(values),
            }),
            (None, Form::Hex) => text.number().map(|(codes, firsts)| Key {
                coder: Coder::Listed(codes),
                bound: firsts.len() as u64,
                is_numbered: true,
                values: KeyValues::Stored(text, firsts),
            }),
            (None, Form::Template) => None,
        },
        Shape::Lists(lists) => {
            let (codes, firsts) = selection.with_rows(|rows| number_lists(&lists, rows));
            Some(listed(codes, slot.array(Rows::At(&firsts), run.row_count)?, selection, run.row_count))
        }
        Shape::Constant(_)
        | Shape::Decimal { .. }
        | Shape::Text(_)
        | Shape::Bits { .. }
        | Shape::Floats
        | Shape::Other => None,
    })
}

fn numbered(ints: Ints<'_>, column_type: ColumnType) -> Key<'_> {
    Key {
        coder: Coder::Numbered { ints, numbers: Numbers::default() },
        bound: u64::from(u32::MAX),
        is_numbered: true,
        values: KeyValues::Numbered(column_type),
    }
}

/// The least and the largest of the selected values, rows without value among them.
fn extent(values: &[i64], rows: Rows<'_>) -> Option<(i64, i64)> {
    match rows {
        Rows::Range { start, count } => {
            let values = &values[start..start + count];
            Some((values.iter().copied().min()?, values.iter().copied().max()?))
        }
        Rows::At(rows) => {
            let mut values = rows.iter().map(|row| values[*row as usize]);
            let first = values.next()?;
            Some(values.fold((first, first), |(low, high), value| (low.min(value), high.max(value))))
        }
    }
}

/// An expression's value for each selected row as a code, and the value of each code, when that takes fewer
/// evaluations than one a row. Different codes may have equal values.
pub(super) fn per_value<'a>(
    run: &'a Run<'_>,
    compiled: &Compiled,
    step: Option<Step>,
    selection: &Selection,
    reach: Reach,
) -> Result<Option<(Coder<'a>, ArrayRef)>, Stop> {
    if let Some(domain) = domain(run, compiled, selection, reach)? {
        return match domain.evaluate(run, compiled) {
            Ok(values) => Ok(Some((domain.coder(), values))),
            Err(Stop::Failed(ScanError::Evaluate(_))) => Ok(None),
            Err(stop) => Err(stop),
        };
    }
    let Some(step) = step else { return Ok(None) };
    let ints = run.slot(step.column)?.ints(run.row_count)?;
    if ints.has_nulls() {
        return Ok(None);
    }
    let steps = step.steps_within(run.time_range());
    if let Some((start, last)) = steps.filter(|(_, last)| *last < selection.len() as u64) {
        let divider = Divider { start, width: step.width.unsigned_abs(), last: last as u32 };
        let first_time = run.time_range().0;
        // The first step may begin before every row.
        let times = (0..=last as i64).map(|at| (start + at * step.width).max(first_time)).collect::<Vec<_>>();
        let count = times.len();
        match compiled.evaluate(vec![int_array(times, None, ColumnType::Time)], count) {
            Ok(values) => return Ok(Some((Coder::Steps { ints, divider }, values))),
            // A step in which no selected row lies may be the one that failed.
            Err(ScanError::Evaluate(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut times = Vec::new();
    let (codes, firsts) = selection.with_rows(|rows| step.number(ints.read(rows, &mut times)));
    let count = firsts.len();
    let values = compiled.evaluate(vec![int_array(firsts, None, ColumnType::Time)], count)?;
    Ok(Some((Coder::Listed(by_row(codes, selection, run.row_count)), values)))
}

impl Key<'_> {
    /// What each of these codes stands for, by a translation that is given each value once, in the order in which they
    /// first come.
    pub(super) fn translated<T: Copy + Default, E: From<ScanError>>(
        &self,
        codes: &[u32],
        translate: impl FnOnce(&ArrayRef) -> Result<Vec<T>, E>,
    ) -> Result<Vec<T>, E> {
        let bound = codes.iter().max().map_or(0, |code| *code as usize + 1);
        let mut is_used = vec![false; bound];
        let is_first = |code: &&u32| !std::mem::replace(&mut is_used[**code as usize], true);
        let used: Vec<u32> = codes.iter().filter(is_first).copied().collect();
        let mut to = vec![T::default(); bound];
        for (code, translated) in used.iter().zip(translate(&self.values_at(&used)?)?) {
            to[*code as usize] = translated;
        }
        Ok(codes.iter().map(|code| to[*code as usize]).collect())
    }

    /// The values of these codes.
    pub(super) fn values_at(&self, codes: &[u32]) -> Result<ArrayRef, ScanError> {
        let ints = |null: Option<u32>, column_type: ColumnType, value: &dyn Fn(u32) -> i64| {
            let is_null = |code: u32| Some(code) == null;
            let values = codes.iter().map(|code| if is_null(*code) { 0 } else { value(*code) }).collect();
            let nulls = codes
                .iter()
                .any(|code| is_null(*code))
                .then(|| NullBuffer::from_iter(codes.iter().map(|code| !is_null(*code))));
            int_array(values, nulls, column_type)
        };
        Ok(match (&self.values, &self.coder) {
            // All of them in order.
            (KeyValues::Listed(values), _)
                if codes.len() == values.len()
                    && codes.iter().enumerate().all(|(at, code)| *code as usize == at) =>
            {
                ArrayRef::clone(values)
            }
            (KeyValues::Listed(values), _) => {
                let there = |code: &u32| ((*code as usize) < values.len()).then_some(*code);
                take(values, &codes.iter().map(there).collect::<UInt32Array>(), None)?
            }
            (KeyValues::Spaced { base, step, null, column_type }, _) => {
                ints(Some(*null), *column_type, &|code| base.wrapping_add(step.wrapping_mul(i64::from(code))))
            }
            (KeyValues::Numbered(column_type), Coder::Numbered { numbers, .. }) => {
                ints(numbers.null, *column_type, &|code| numbers.values[code as usize] as i64)
            }
            (KeyValues::Stored(text, rows), _) => {
                let rows: Vec<u32> = codes.iter().map(|code| rows[*code as usize]).collect();
                Arc::new(text.take(&rows))
            }
            (KeyValues::Numbered(_), _) => {
                return Err(ScanError::Evaluate("a key whose coder has no numbers".to_owned()));
            }
        })
    }
}
