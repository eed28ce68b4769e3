//! Rows instead of groups: the first ones of an order, or as many as there may be.
//!
//! The columns of the order are evaluated first and the run's rows are cut to the limit; the other columns are decoded
//! for the survivors alone. What all threads know of the best rows so far prunes rows and whole runs: under an order by
//! time, or by another number, a bound that a row must reach; without an order the number of rows that are already there.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take};
use arrow::datatypes::{Float64Type, TimestampNanosecondType};
use gannet_query::{BinaryOp, ColumnType};

use super::columns::{Run, Shape};
use super::cuts::{float_key, float_of_key};
use super::domain::Reach;
use super::floats::over_decimals;
use super::ints::{self, IntTest};
use super::keys::per_value;
use super::prepare::{ByValue, KeyPlan, RowsPlan};
use super::readers::int_parts;
use super::selection::Selection;
use super::{ScanError, ScanLimits, Stop, filter};

/// So many keys of best rows are kept at most.
const BEST_MAX: usize = 10_000;
/// Buffers may be this much larger than what an array shows of them.
const VIEW_SLACK_BYTES: usize = 4_096;

/// What the threads of one scan know of each other's rows.
#[derive(Debug)]
pub(super) struct Shared {
    /// No row older than this (younger, where the oldest come first) can be among the first; where the order begins
    /// with another number than time, the same of its key.
    bound: AtomicI64,
    /// The keys of the best rows so far, best first, under an order by another number than time.
    best: Mutex<Vec<i64>>,
    /// Rows found, for plans with a limit and no order.
    found: AtomicU64,
    /// Bytes of rows, for plans that keep all they find.
    bytes: AtomicU64,
}

impl Shared {
    pub(super) fn new(plan: &RowsPlan<'_>) -> Shared {
        let descending = plan.by_time.or(plan.by_value.map(|by| by.descending)).unwrap_or(true);
        let bound = AtomicI64::new(if descending { i64::MIN } else { i64::MAX });
        Shared { bound, best: Mutex::default(), found: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Which keys of the order's first column can still be among the first; `None` when all can.
    fn open_keys(&self, by: ByValue) -> Option<IntTest> {
        match (self.bound.load(Ordering::Relaxed), by.descending) {
            (i64::MIN, true) | (i64::MAX, false) => None,
            (bound, true) => Some(IntTest::Within(bound, i64::MAX)),
            (bound, false) => Some(IntTest::Within(i64::MIN, bound)),
        }
    }

    /// True when no row of a run can be among the first, judged by the range of a column.
    pub(super) fn excludes(&self, run: &Run<'_>, plan: &RowsPlan<'_>) -> bool {
        let Some(by) = plan.by_value else { return false };
        let (Some(test), Some((min, max))) = (self.open_keys(by), run.int_range(by.column)) else {
            return false;
        };
        let may_have_nulls = run.int_sum(by.column).is_none_or(|(_, nulls)| nulls > 0);
        !(by.nulls_first && may_have_nulls) && test.excludes(min, max)
    }

    /// The rows that can still be among the first, where the codes of the order's first column tell.
    pub(super) fn narrow(
        &self,
        run: &Run<'_>,
        plan: &RowsPlan<'_>,
        selection: Selection,
    ) -> Result<Selection, Stop> {
        let Some((by, test)) = plan.by_value.and_then(|by| Some((by, self.open_keys(by)?))) else {
            return Ok(selection);
        };
        let shape = run.slot(by.column)?.shape();
        let has_nulls = match &shape {
            Shape::Packed { validity, .. }
            | Shape::Decimal { validity, .. }
            | Shape::Ints { validity, .. } => validity.is_some(),
            Shape::Dictionary { has_nulls, .. } => *has_nulls,
            _ => return Ok(selection),
        };
        // Without nulls first, enough rows with a value are known to come before those without.
        if by.nulls_first && has_nulls {
            return Ok(selection);
        }
        if run.spec(by.column).column_type != ColumnType::Float {
            return Ok(filter::narrow_ints(run, by.column, &test, selection)?.unwrap_or_else(|back| back));
        }
        let bound = float_of_key(self.bound.load(Ordering::Relaxed));
        let op = if by.descending { BinaryOp::GtEq } else { BinaryOp::LtEq };
        Ok(match shape {
            Shape::Decimal { base, gcd, digits, codes, validity } => match over_decimals(op, bound, digits) {
                Some(test) => ints::narrow(selection, codes, &test.over_codes(base, gcd), validity),
                None => selection,
            },
            _ => selection,
        })
    }

    /// The part of a time range whose rows can still be among the first; `None` when there is none.
    pub(super) fn open_range(&self, plan: &RowsPlan<'_>, range: (i64, i64)) -> Option<(i64, i64)> {
        if plan.limit == Some(0) {
            return None;
        }
        if plan.order_by.is_empty() {
            let full = plan.limit.is_some_and(|limit| self.found.load(Ordering::Relaxed) >= limit);
            return (!full).then_some(range);
        }
        let bound = self.bound.load(Ordering::Relaxed);
        let range = match plan.by_time {
            None => range,
            Some(true) => (range.0.max(bound), range.1),
            Some(false) => (range.0, range.1.min(bound)),
        };
        (range.0 <= range.1).then_some(range)
    }

    /// Tells the other threads what `limit` rows that were found mean for them.
    pub(super) fn report(
        &self,
        plan: &RowsPlan<'_>,
        limits: &ScanLimits<'_>,
        batch: &RecordBatch,
    ) -> Result<(), ScanError> {
        if plan.limit.is_none() || plan.order_by.is_empty() {
            self.found.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            let bytes = gannet_query::value::rows_bytes(batch) as u64;
            let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
            if before.saturating_add(bytes) > limits.result_bytes_max {
                return Err(ScanError::Memory { limit: limits.result_bytes_max, what: "rows" });
            }
            return Ok(());
        }
        if let (Some(by), Some(limit)) = (plan.by_value, plan.limit) {
            self.report_values(by, limit, batch.column(plan.order_by[0].column));
        }
        let (Some(latest_first), Some(limit)) = (plan.by_time, plan.limit) else { return Ok(()) };
        let Some(times) = batch.column(plan.order_by[0].column).as_primitive_opt::<TimestampNanosecondType>()
        else {
            return Ok(());
        };
        if (times.len() as u64) < limit || times.null_count() > 0 {
            return Ok(());
        }
        // The worst of `limit` rows is the last one.
        let worst = times.value(times.len() - 1);
        match latest_first {
            true => self.bound.fetch_max(worst, Ordering::Relaxed),
            false => self.bound.fetch_min(worst, Ordering::Relaxed),
        };
        Ok(())
    }

    /// Adds the values of rows that were found to the best. Rows without value only make the bound weaker than it
    /// could be.
    fn report_values(&self, by: ByValue, limit: u64, values: &ArrayRef) {
        let Some(limit) = usize::try_from(limit).ok().filter(|limit| (1..=BEST_MAX).contains(limit)) else {
            return;
        };
        let new = keys(values);
        // Keys are only ever added, so what a thread left when it panicked is as good.
        let mut best = self.best.lock().unwrap_or_else(PoisonError::into_inner);
        best.extend(new);
        match by.descending {
            true => best.sort_unstable_by(|a, b| b.cmp(a)),
            false => best.sort_unstable(),
        }
        best.truncate(limit);
        if let Some(worst) = best.get(limit - 1) {
            self.bound.store(*worst, Ordering::Relaxed);
        }
    }
}

/// The keys of an array of numbers, without NULLs.
fn keys(values: &ArrayRef) -> Vec<i64> {
    if let Some(floats) = values.as_primitive_opt::<Float64Type>() {
        return floats.iter().flatten().map(float_key).collect();
    }
    let Some((ints, nulls)) = int_parts(values) else { return Vec::new() };
    let valid = |place: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(place));
    ints.iter().enumerate().filter(|(place, _)| valid(*place)).map(|(_, value)| *value).collect()
}

/// The rows of a run that the answer may need, in the plan's order; `None` when there is none.
pub(super) fn rows(
    run: &Run<'_>,
    plan: &RowsPlan<'_>,
    limits: &ScanLimits<'_>,
    selection: Selection,
) -> Result<Option<RecordBatch>, Stop> {
    if selection.is_empty() {
        return Ok(None);
    }
    let limit = plan.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let batch = if plan.order_by.is_empty() {
        first(run, plan, limits, limit, selection)?
    } else {
        sorted(run, plan, limits, limit, &selection)?
    };
    Ok(Some(batch))
}

fn first(
    run: &Run<'_>,
    plan: &RowsPlan<'_>,
    limits: &ScanLimits<'_>,
    limit: usize,
    selection: Selection,
) -> Result<RecordBatch, Stop> {
    let cut;
    let (run, selection) = match selection {
        selection if selection.len() <= limit => (run, selection),
        other => {
            cut = run.pick(other.positions()[..limit].to_vec());
            (&cut, Selection::All(limit))
        }
    };
    let mut arrays = Vec::with_capacity(plan.columns.len());
    let mut bytes = 0;
    for column in &plan.columns {
        keep(evaluate(run, column, &selection)?, &mut arrays, &mut bytes, limits)?;
    }
    batch(plan, arrays, selection.len())
}

fn sorted(
    run: &Run<'_>,
    plan: &RowsPlan<'_>,
    limits: &ScanLimits<'_>,
    limit: usize,
    selection: &Selection,
) -> Result<RecordBatch, Stop> {
    let mut known: Vec<Option<ArrayRef>> = vec![None; plan.columns.len()];
    let mut order = Vec::with_capacity(plan.order_by.len());
    for term in plan.order_by {
        let values = match &known[term.column] {
            Some(values) => Arc::clone(values),
            None => evaluate(run, &plan.columns[term.column], selection)?,
        };
        known[term.column] = Some(Arc::clone(&values));
        let options = SortOptions { descending: term.descending, nulls_first: term.nulls_first };
        order.push(SortColumn { values, options: Some(options) });
    }
    run.look()?;
    let best = lexsort_to_indices(&order, (limit < selection.len()).then_some(limit))?;
    run.look()?;
    // Ascending positions for decoding, and where each of the best then is.
    let positions = selection.positions();
    let rows: Vec<u32> = best.values().iter().map(|index| positions[*index as usize]).collect();
    let mut ascending = rows.clone();
    ascending.sort_unstable();
    let place = |row: &u32| ascending.partition_point(|other| other < row) as u32;
    let places: UInt32Array = rows.iter().map(place).collect::<Vec<u32>>().into();
    let survivors = Selection::All(ascending.len());
    let run = &run.pick(ascending);
    let mut arrays = Vec::with_capacity(plan.columns.len());
    let mut bytes = 0;
    for (column, known) in plan.columns.iter().zip(&known) {
        let array = match known {
            Some(values) => take(values, &best, None)?,
            None => take(&evaluate(run, column, &survivors)?, &places, None)?,
        };
        keep(array, &mut arrays, &mut bytes, limits)?;
    }
    batch(plan, arrays, places.len())
}

/// Adds a column to the result while the bytes allow it.
fn keep(
    array: ArrayRef,
    arrays: &mut Vec<ArrayRef>,
    bytes: &mut u64,
    limits: &ScanLimits<'_>,
) -> Result<(), ScanError> {
    let needed = array.to_data().get_slice_memory_size()?;
    *bytes += needed as u64;
    if *bytes > limits.result_bytes_max {
        return Err(ScanError::Memory { limit: limits.result_bytes_max, what: "rows" });
    }
    // A view of a block's image would keep the whole image alive and be counted as large as that.
    let is_view = array.get_buffer_memory_size() > 2 * needed + VIEW_SLACK_BYTES;
    let array = match is_view {
        true => take(&array, &UInt32Array::from_iter_values(0..array.len() as u32), None)?,
        false => array,
    };
    arrays.push(array);
    Ok(())
}

fn batch(plan: &RowsPlan<'_>, arrays: Vec<ArrayRef>, row_count: usize) -> Result<RecordBatch, Stop> {
    let options = RecordBatchOptions::new().with_row_count(Some(row_count));
    Ok(RecordBatch::try_new_with_options(Arc::clone(&plan.schema), arrays, &options)?)
}

fn evaluate(run: &Run<'_>, column: &KeyPlan, selection: &Selection) -> Result<ArrayRef, Stop> {
    if let Some(column) = column.column {
        return selection.with_rows(|rows| run.array(column, rows));
    }
    match per_value(run, &column.compiled, column.step, selection, Reach::Near)? {
        Some((mut coder, values)) => {
            let (mut ints, mut codes) = (Vec::new(), Vec::new());
            selection.with_rows(|rows| coder.read(rows, &mut ints, &mut codes));
            Ok(take(&values, &UInt32Array::new(codes.into(), None), None)?)
        }
        None => selection.with_rows(|rows| run.evaluate(&column.compiled, rows)),
    }
}
