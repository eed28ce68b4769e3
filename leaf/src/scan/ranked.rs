//! Rows instead of groups: the first ones of an order, or as many as there may be.
//!
//! The columns of the order are evaluated first and the run's rows are cut to the limit; the other columns are decoded
//! for the survivors alone. What all threads know of the best rows so far prunes whole runs: under an order by time
//! a bound on the time that a row must reach, without an order the number of rows that are already there.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take};
use arrow::datatypes::TimestampNanosecondType;

use super::columns::Run;
use super::keys::per_value;
use super::prepare::{KeyPlan, RowsPlan};
use super::selection::Selection;
use super::{ScanError, ScanLimits, Stop};

/// Buffers may be this much larger than what an array shows of them.
const VIEW_SLACK_BYTES: usize = 4_096;

/// What the threads of one scan know of each other's rows.
#[derive(Debug)]
pub(super) struct Shared {
    /// No row older than this (younger, where the oldest come first) can be among the first.
    bound: AtomicI64,
    /// Rows found, for plans with a limit and no order.
    found: AtomicU64,
    /// Bytes of rows, for plans that keep all they find.
    bytes: AtomicU64,
}

impl Shared {
    pub(super) fn new(plan: &RowsPlan<'_>) -> Shared {
        let bound = AtomicI64::new(if plan.by_time == Some(false) { i64::MAX } else { i64::MIN });
        Shared { bound, found: AtomicU64::new(0), bytes: AtomicU64::new(0) }
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
    fn report(&self, plan: &RowsPlan<'_>, limits: &ScanLimits, batch: &RecordBatch) -> Result<(), ScanError> {
        if plan.limit.is_none() || plan.order_by.is_empty() {
            self.found.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            let bytes = gannet_query::value::rows_bytes(batch) as u64;
            let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
            if before.saturating_add(bytes) > limits.result_bytes_max {
                return Err(ScanError::Memory { limit: limits.result_bytes_max, what: "rows" });
            }
            return Ok(());
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
}

/// The rows of a run that the answer may need, in the plan's order; `None` when there is none.
pub(super) fn rows(
    run: &Run<'_>,
    plan: &RowsPlan<'_>,
    limits: &ScanLimits,
    shared: &Shared,
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
    shared.report(plan, limits, &batch)?;
    Ok(Some(batch))
}

fn first(
    run: &Run<'_>,
    plan: &RowsPlan<'_>,
    limits: &ScanLimits,
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
    limits: &ScanLimits,
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
    limits: &ScanLimits,
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
    match per_value(run, &column.compiled, column.step, selection)? {
        Some((mut coder, values)) => {
            let (mut ints, mut codes) = (Vec::new(), Vec::new());
            selection.with_rows(|rows| coder.read(rows, &mut ints, &mut codes));
            Ok(take(&values, &UInt32Array::new(codes.into(), None), None)?)
        }
        None => selection.with_rows(|rows| run.evaluate(&column.compiled, rows)),
    }
}
