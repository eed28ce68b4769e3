//! Narrowing a selection, conjunct by conjunct.
//!
//! Each conjunct takes the cheapest way it can: over packed codes, once per distinct value, over all rows at once, or
//! over the rows that are left. One that fails is set aside until the others have had their say, because the value it
//! fails on may be one that they exclude; only what then still fails is an error. So neither the order of the conjuncts
//! nor the encoding of a column decides whether a query fails.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::BooleanBuffer;

use super::columns::{Run, Shape};
use super::domain::{Reach, domain, narrow_codes};
use super::floats::over_decimals;
use super::ints::{self, IntTest};
use super::prepare::Conjunct;
use super::readers::int_parts;
use super::selection::{Rows, Selection};
use super::text_tests::ColumnTest;
use super::{ScanError, Stop, text_tests};

/// Rows are looked at on their own when fewer than one in this many is left.
const FEW: usize = 32;

/// The rows of a selection for which every conjunct is true.
pub(super) fn narrow(run: &Run<'_>, conjuncts: &[Conjunct], selection: Selection) -> Result<Selection, Stop> {
    let mut selection = selection;
    let mut late: Vec<&Conjunct> = Vec::new();
    for (index, conjunct) in conjuncts.iter().enumerate() {
        if selection.is_empty() {
            return Ok(selection);
        }
        if let Selection::Rows(rows) = &selection
            && late.is_empty()
            && rows.len() * FEW < run.row_count
        {
            // The columns of the other conjuncts are read for these rows alone.
            let left = narrow(&run.pick(rows.clone()), &conjuncts[index..], Selection::All(rows.len()))?;
            return Ok(match left {
                Selection::All(_) => selection,
                left => Selection::Rows(left.positions().iter().map(|row| rows[*row as usize]).collect()),
            });
        }
        match apply(run, conjunct, selection.clone()) {
            Ok(left) => selection = left,
            Err(Stop::Failed(ScanError::Evaluate(_))) => late.push(conjunct),
            Err(stop) => return Err(stop),
        }
    }
    while !late.is_empty() && !selection.is_empty() {
        let before = late.len();
        let mut first_error = None;
        let mut still_late = Vec::new();
        for conjunct in late {
            match by_row(run, conjunct, selection.clone()) {
                Ok(left) => selection = left,
                Err(Stop::Failed(ScanError::Evaluate(text))) => {
                    first_error.get_or_insert(ScanError::Evaluate(text));
                    still_late.push(conjunct);
                }
                Err(stop) => return Err(stop),
            }
        }
        late = still_late;
        if let Some(error) = first_error.filter(|_| late.len() == before) {
            return Err(Stop::Failed(error));
        }
    }
    Ok(selection)
}

/// Keeps the rows whose time is in the range, both ends included.
pub(super) fn narrow_time(
    run: &Run<'_>,
    column: usize,
    range: (i64, i64),
    selection: Selection,
) -> Result<Selection, Stop> {
    let test = IntTest::Within(range.0, range.1);
    match narrow_ints(run, column, &test, selection)? {
        Ok(left) => Ok(left),
        Err(selection) => {
            let ints = run.slot(column)?.ints(run.row_count)?;
            let mut times = Vec::new();
            let bits = selection.with_rows(|rows| {
                let (times, nulls) = (ints.read(rows, &mut times), ints.nulls(rows));
                let keep = |place: usize| {
                    test.passes(times[place]) && nulls.as_ref().is_none_or(|nulls| nulls.is_valid(place))
                };
                BooleanBuffer::collect_bool(times.len(), keep)
            });
            Ok(selection.keep(&bits))
        }
    }
}

fn apply(run: &Run<'_>, conjunct: &Conjunct, selection: Selection) -> Result<Selection, Stop> {
    let mut selection = selection;
    if let Some((column, test)) = &conjunct.int_test {
        match narrow_ints(run, *column, test, selection)? {
            Ok(left) => return Ok(left),
            Err(back) => selection = back,
        }
    }
    if let Some((column, test)) = &conjunct.column_test {
        match text_tests::narrow(run, *column, test, selection)? {
            Ok(left) => return Ok(left),
            Err(back) => selection = back,
        }
    }
    if let Some((column, tests)) = &conjunct.hints
        && matches!(run.slot(*column)?.shape(), Shape::Text(_))
    {
        for test in tests {
            let test = ColumnTest::Text(test.clone());
            match text_tests::narrow(run, *column, &test, selection)? {
                Ok(left) => selection = left,
                Err(back) => selection = back,
            }
        }
        return by_row(run, conjunct, selection);
    }
    if let Some((column, op, literal)) = conjunct.float_test
        && let Shape::Decimal { base, gcd, digits, codes, validity } = run.slot(column)?.shape()
        && let Some(test) = over_decimals(op, literal, digits)
    {
        return Ok(ints::narrow(selection, codes, &test.over_codes(base, gcd), validity));
    }
    if let Some(domain) = domain(run, &conjunct.compiled, &selection, Reach::Far)? {
        match domain.evaluate(run, &conjunct.compiled) {
            Ok(values) => {
                let table: Vec<bool> = truth(&values)?.iter().collect();
                return Ok(domain.narrow(selection, &table));
            }
            // A value that no selected row has may be the one that failed.
            Err(Stop::Failed(ScanError::Evaluate(_))) => {}
            Err(stop) => return Err(stop),
        }
    } else if let Some(comparison) = &conjunct.float_comparison {
        return comparison.narrow(run, selection);
    } else if matches!(selection, Selection::Bits { count, .. } if count * 2 >= run.row_count)
        && !conjunct.compiled.volatile
    {
        // Most rows are in: evaluating all of them costs less than gathering those.
        if let Ok(values) = run.evaluate(&conjunct.compiled, Rows::all(run.row_count)) {
            let bits = truth(&values)?;
            return Ok(selection.narrow(|| bits.clone(), |row| bits.value(row)));
        }
    }
    by_row(run, conjunct, selection)
}

/// Evaluates a conjunct on the rows that are in and on no others.
fn by_row(run: &Run<'_>, conjunct: &Conjunct, selection: Selection) -> Result<Selection, Stop> {
    let values = selection.with_rows(|rows| run.evaluate(&conjunct.compiled, rows))?;
    Ok(selection.keep(&truth(&values)?))
}

/// One bit a value: set where it is true, not where it is false or NULL.
pub(super) fn truth(values: &ArrayRef) -> Result<BooleanBuffer, ScanError> {
    let values = values.as_boolean_opt().ok_or_else(|| {
        ScanError::Compile(format!("a filter of type {}, not {}", values.data_type(), "Boolean"))
    })?;
    Ok(match values.nulls() {
        Some(nulls) => values.values() & nulls.inner(),
        None => values.values().clone(),
    })
}

/// Runs an int test without decoding; gives the selection back when the column's shape does not allow it.
pub(super) fn narrow_ints(
    run: &Run<'_>,
    column: usize,
    test: &IntTest,
    selection: Selection,
) -> Result<Result<Selection, Selection>, Stop> {
    Ok(match run.slot(column)?.shape() {
        Shape::Constant(value) => match int_parts(value) {
            Some((values, None)) if values.first().is_some_and(|value| test.passes(*value)) => Ok(selection),
            Some(_) => Ok(Selection::none()),
            None => Err(selection),
        },
        Shape::Packed { base, gcd, codes, validity } => {
            Ok(ints::narrow(selection, codes, &test.over_codes(base, gcd), validity))
        }
        Shape::Ints { values, validity } => Ok(ints::narrow_values(selection, values, test, validity)),
        Shape::Dictionary { values, codes, has_nulls } => match int_parts(&values) {
            Some((values, _)) => {
                let mut table: Vec<bool> = values.iter().map(|value| test.passes(*value)).collect();
                table.extend(has_nulls.then_some(false));
                Ok(narrow_codes(codes, selection, &table))
            }
            None => Err(selection),
        },
        Shape::Decimal { .. }
        | Shape::Text(_)
        | Shape::Lists(_)
        | Shape::Bits { .. }
        | Shape::Floats
        | Shape::Other => Err(selection),
    })
}
