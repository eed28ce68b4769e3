//! Arrow record batches of any schema become row batches: column by column, a window of rows at a time.
//!
//! Structs flatten with dots, every other type becomes one of the column types (`arrow_text` says how). Only the time
//! and the sample rate are looked at row by row. Dictionaries and views can be far smaller than the values they stand
//! for, so rows are weighed first and a window never unpacks to more than about one batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, StructArray, TimestampNanosecondArray, make_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Field, Float64Type, Int64Type, Schema, TimeUnit, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use gannet_query::{ColumnType, SAMPLE_RATE_COLUMN, TIME_COLUMN};

use super::arrow_text::{dictionary_keys, normalise, timestamp_values, unit_nanoseconds};
use super::batch::{check_column_name, looks_like_time, original_time, time_error};
use super::row_error::{RowError, shown};
use super::tally::Tally;
use super::{IngestLimits, times};
use crate::error::{ErrorCode, Failure};

/// Rows that are handled at once, at most.
const WINDOW_ROWS: usize = 8_192;
/// Bytes of a value of fixed width in a column of its own, and as text in a list.
const FIXED_BYTES: u64 = 8;
const FIXED_TEXT_BYTES: u64 = 24;

/// See the module.
pub(super) struct Columns {
    time_field: Box<str>,
    limits: IngestLimits,
    arrival_ns: i64,
    saw_time: bool,
    time_candidate: Option<String>,
}

impl Columns {
    pub(super) fn new(time_field: &str, limits: IngestLimits, arrival_ns: i64) -> Columns {
        Columns { time_field: time_field.into(), limits, arrival_ns, saw_time: false, time_candidate: None }
    }

    pub(super) fn saw_time(&self) -> bool {
        self.saw_time
    }

    pub(super) fn time_candidate(&self) -> Option<&str> {
        self.time_candidate.as_deref()
    }

    /// Refuses schemas whose rows cannot be taken.
    pub(super) fn check_schema(&mut self, schema: &Schema) -> Result<(), Failure> {
        let mut names = Vec::new();
        for field in schema.fields() {
            self.check_field(field.name().clone(), field, 1, &mut names)?;
        }
        self.time_candidate = names.iter().find(|name| looks_like_time(name)).cloned();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(twice) => Err(bad_schema(format!("it has two columns {}", shown(&twice[0])))),
            None => Ok(()),
        }
    }

    fn check_field(
        &self,
        name: String,
        field: &Field,
        depth: usize,
        names: &mut Vec<String>,
    ) -> Result<(), Failure> {
        if let DataType::Struct(fields) = field.data_type() {
            if depth > self.limits.nesting_max {
                return Err(bad_schema(RowError::Nesting { limit: self.limits.nesting_max }.to_string()));
            }
            for inner in fields {
                self.check_field(format!("{name}.{}", inner.name()), inner, depth + 1, names)?;
            }
            return Ok(());
        }
        check_column_name(&name, self.limits.column_name_bytes_max)
            .map_err(|error| bad_schema(error.to_string()))?;
        if !is_known(field.data_type(), depth, self.limits.nesting_max) {
            let what = format!(
                "column {} has the type {}, which cannot be ingested",
                shown(&name),
                field.data_type()
            );
            return Err(bad_schema(what));
        }
        names.push(name);
        let limit = self.limits.columns_max;
        if names.len() > limit {
            let what = format!("Arrow stream has more columns than the limit of {limit}");
            return Err(Failure::new(ErrorCode::TooLarge, what));
        }
        Ok(())
    }

    /// Normalises the rows of a batch into `out`; rows that cannot be taken are rejected.
    pub(super) fn take(
        &mut self,
        batch: &RecordBatch,
        tally: &mut Tally,
        out: &mut Vec<RecordBatch>,
    ) -> Result<(), Failure> {
        let mut leaves = Vec::new();
        for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
            flatten(field.name().clone(), array, &mut leaves)
                .map_err(|error| unreadable(field.name(), &error))?;
        }
        for start in (0..batch.num_rows()).step_by(WINDOW_ROWS) {
            let rows = WINDOW_ROWS.min(batch.num_rows() - start);
            let mut refused = BTreeMap::new();
            let weights = self.weigh(&leaves, start, rows, &mut refused)?;
            let mut at = 0;
            while let Some(rest) = weights.get(at..).filter(|rest| !rest.is_empty()) {
                let next = refused.range(at..).next().map(|(row, _)| row - at);
                let count = self.window_rows(rest, next);
                let window = match next {
                    Some(0) => {
                        refused.remove(&at).map_or_else(BTreeMap::new, |error| BTreeMap::from([(0, error)]))
                    }
                    _ => BTreeMap::new(),
                };
                out.push(self.window(&leaves, start + at, count, window, tally)?);
                at += count;
            }
        }
        Ok(())
    }

    /// Bytes of every row; rows with values beyond the limits are rejected.
    fn weigh(
        &self,
        leaves: &[(String, ArrayRef)],
        start: usize,
        rows: usize,
        rejected: &mut BTreeMap<usize, RowError>,
    ) -> Result<Vec<u64>, Failure> {
        let mut sums = vec![0_u64; rows];
        let limit = self.limits.value_bytes_max;
        for (name, array) in leaves {
            let mut weights = vec![0; rows];
            add_weights(&array.slice(start, rows), FIXED_BYTES, &mut weights)
                .map_err(|error| unreadable(name, &error))?;
            for (row, bytes) in weights.iter().enumerate() {
                sums[row] = sums[row].saturating_add(*bytes);
                if *bytes > limit as u64 {
                    let bytes = usize::try_from(*bytes).unwrap_or(usize::MAX);
                    let error = RowError::Value { column: shown(name), bytes, limit };
                    rejected.entry(row).or_insert(error);
                }
            }
        }
        let limit = self.limits.line_bytes_max;
        for (row, _) in sums.iter().enumerate().filter(|(_, bytes)| **bytes > limit as u64) {
            rejected.entry(row).or_insert(RowError::RowLength { limit });
        }
        Ok(sums)
    }

    /// How many of the rows to handle at once. A row that is refused for its size stands alone in its window.
    fn window_rows(&self, weights: &[u64], next_refused: Option<usize>) -> usize {
        let rows_max = match next_refused {
            Some(0) => 1,
            Some(row) => row,
            None => weights.len(),
        };
        let mut sum = 0_u64;
        let fits = |bytes: &&u64| {
            sum = sum.saturating_add(**bytes);
            sum <= self.limits.batch_bytes_max as u64
        };
        weights.iter().take(rows_max.min(self.limits.batch_rows_max)).take_while(fits).count().max(1)
    }

    fn window(
        &mut self,
        leaves: &[(String, ArrayRef)],
        start: usize,
        rows: usize,
        mut rejected: BTreeMap<usize, RowError>,
        tally: &mut Tally,
    ) -> Result<RecordBatch, Failure> {
        let renamed = original_time(|name| leaves.iter().any(|(leaf, _)| leaf == name));
        let mut times = vec![self.arrival_ns; rows];
        let mut fields = vec![Field::new(TIME_COLUMN, ColumnType::Time.arrow(), false)];
        let mut arrays: Vec<ArrayRef> = Vec::new();
        // A window of one row that is too large is not unpacked at all.
        let is_refused = rows == 1 && !rejected.is_empty();
        for (name, array) in leaves.iter().filter(|_| !is_refused) {
            let array = array.slice(start, rows);
            if **name == *self.time_field {
                self.read_times(name, &array, &mut times, &mut rejected)?;
                continue;
            }
            let normalised = normalise(&array).map_err(|error| unreadable(name, &error))?;
            let Some(array) = normalised else { continue };
            if name == SAMPLE_RATE_COLUMN {
                check_rates(&array, &mut rejected);
            }
            let name = if name == TIME_COLUMN { &renamed } else { name };
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array);
        }
        arrays.insert(0, Arc::new(TimestampNanosecondArray::from(times).with_timezone("+00:00")));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .map_err(|error| unreadable("time", &error))?;
        let first = tally.rows_seen;
        tally.rows_seen += rows as u64;
        if rejected.is_empty() {
            return Ok(batch);
        }
        for (row, error) in &rejected {
            tally.reject(first + *row as u64, error);
        }
        let kept: BooleanArray = (0..rows).map(|row| Some(!rejected.contains_key(&row))).collect();
        let kept = filter_record_batch(&batch, &kept).map_err(|error| unreadable("time", &error))?;
        Ok(without_empty_columns(kept))
    }

    fn read_times(
        &mut self,
        name: &str,
        array: &ArrayRef,
        times: &mut [i64],
        rejected: &mut BTreeMap<usize, RowError>,
    ) -> Result<(), Failure> {
        let found = row_times(array).map_err(|error| unreadable(name, &error))?;
        for (row, (time, found)) in times.iter_mut().zip(found).enumerate() {
            match found {
                FoundTime::Absent => {}
                FoundTime::At(at) => {
                    *time = at;
                    self.saw_time = true;
                }
                FoundTime::Not(value) => {
                    rejected.entry(row).or_insert_with(|| time_error(name, &value));
                }
            }
        }
        Ok(())
    }
}

fn bad_schema(what: String) -> Failure {
    Failure::new(ErrorCode::BadRequest, format!("Arrow schema: {what}"))
}

fn unreadable(column: &str, error: &ArrowError) -> Failure {
    Failure::new(ErrorCode::BadRequest, format!("cannot read Arrow column {}: {error}", shown(column)))
}

/// Whether values of this type can be taken; structs at the top are flattened before.
fn is_known(data_type: &DataType, depth: usize, depth_max: usize) -> bool {
    if depth > depth_max {
        return false;
    }
    let is_known = |inner: &DataType| is_known(inner, depth + 1, depth_max);
    match data_type {
        DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::Union(..)
        | DataType::RunEndEncoded(..) => false,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            is_known(item.data_type())
        }
        DataType::Map(entries, _) => is_known(entries.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| is_known(field.data_type())),
        // A few keys over nested values would make a stream of any size out of little.
        DataType::Dictionary(_, values) => {
            !values.is_nested() && !matches!(**values, DataType::Dictionary(..))
        }
        _ => true,
    }
}

/// Replaces structs by their fields; a NULL struct makes its fields NULL.
fn flatten(name: String, array: &ArrayRef, out: &mut Vec<(String, ArrayRef)>) -> Result<(), ArrowError> {
    let Some(parent) = array.as_any().downcast_ref::<StructArray>() else {
        out.push((name, Arc::clone(array)));
        return Ok(());
    };
    for (field, child) in parent.fields().iter().zip(parent.columns()) {
        let child = match parent.nulls() {
            Some(nulls) if child.data_type() != &DataType::Null => with_nulls(child, nulls)?,
            _ => Arc::clone(child),
        };
        flatten(format!("{name}.{}", field.name()), &child, out)?;
    }
    Ok(())
}

fn with_nulls(array: &ArrayRef, nulls: &NullBuffer) -> Result<ArrayRef, ArrowError> {
    let nulls = NullBuffer::union(array.nulls(), Some(nulls));
    Ok(make_array(array.to_data().into_builder().nulls(nulls).build()?))
}

/// Leaves out columns that lost their last value with the rejected rows.
fn without_empty_columns(batch: RecordBatch) -> RecordBatch {
    let kept: Vec<usize> = (0..batch.num_columns())
        .filter(|place| *place == 0 || batch.column(*place).null_count() < batch.num_rows())
        .collect();
    // The places are those of columns that exist.
    batch.project(&kept).unwrap_or(batch)
}

/// Adds the bytes each row unpacks to; `fixed` is what a value of fixed width counts.
fn add_weights(array: &ArrayRef, fixed: u64, weights: &mut [u64]) -> Result<(), ArrowError> {
    let mut add = |row: usize, bytes: u64| {
        if let Some(weight) = weights.get_mut(row) {
            *weight = weight.saturating_add(bytes);
        }
    };
    let spans = |lengths: &mut dyn Iterator<Item = u64>, add: &mut dyn FnMut(usize, u64)| {
        lengths.enumerate().for_each(|(row, length)| add(row, length));
    };
    match array.data_type() {
        DataType::Utf8 => {
            spans(&mut array.as_string::<i32>().offsets().lengths().map(|l| l as u64), &mut add)
        }
        DataType::LargeUtf8 => {
            spans(&mut array.as_string::<i64>().offsets().lengths().map(|l| l as u64), &mut add)
        }
        DataType::Binary => {
            spans(&mut array.as_binary::<i32>().offsets().lengths().map(|l| l as u64), &mut add)
        }
        DataType::LargeBinary => {
            spans(&mut array.as_binary::<i64>().offsets().lengths().map(|l| l as u64), &mut add);
        }
        DataType::Utf8View => spans(&mut array.as_string_view().lengths().map(u64::from), &mut add),
        DataType::BinaryView => spans(&mut array.as_binary_view().lengths().map(u64::from), &mut add),
        DataType::FixedSizeBinary(bytes) => {
            let bytes = u64::from(bytes.unsigned_abs());
            (0..array.len()).for_each(|row| add(row, bytes));
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let values = dictionary.values();
            for (row, key) in dictionary_keys(dictionary)?.iter().enumerate() {
                let key = key.and_then(|key| usize::try_from(key).ok()).filter(|key| *key < values.len());
                add(row, key.and_then(|key| text_length(values, key)).unwrap_or(fixed));
            }
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let ends = list.offsets().iter().map(|end| usize::try_from(*end).unwrap_or(0));
            add_item_weights(list.values(), ends, &mut add)?;
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let ends = list.offsets().iter().map(|end| usize::try_from(*end).unwrap_or(0));
            add_item_weights(list.values(), ends, &mut add)?;
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let entries: ArrayRef = Arc::new(map.entries().clone());
            let ends = map.offsets().iter().map(|end| usize::try_from(*end).unwrap_or(0));
            add_item_weights(&entries, ends, &mut add)?;
        }
        DataType::FixedSizeList(_, length) => {
            let list = array.as_fixed_size_list();
            let length = usize::try_from(*length).unwrap_or(0);
            add_item_weights(list.values(), (0..=list.len()).map(|row| row * length), &mut add)?;
        }
        DataType::Struct(fields) => {
            let names: u64 = fields.iter().map(|field| field.name().len() as u64 + 4).sum();
            (0..array.len()).for_each(|row| add(row, names));
            for column in array.as_struct().columns() {
                add_weights(column, FIXED_TEXT_BYTES, weights)?;
            }
        }
        _ => (0..array.len()).for_each(|row| add(row, fixed)),
    }
    Ok(())
}

/// Bytes of one text; `None` for values of fixed width. `row` is one of the array's.
fn text_length(array: &ArrayRef, row: usize) -> Option<u64> {
    let length = match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).len(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).len(),
        DataType::Utf8View => array.as_string_view().value(row).len(),
        DataType::Binary => array.as_binary::<i32>().value(row).len(),
        DataType::LargeBinary => array.as_binary::<i64>().value(row).len(),
        DataType::BinaryView => array.as_binary_view().value(row).len(),
        DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().value(row).len(),
        _ => return None,
    };
    Some(length as u64)
}

/// Adds the weights of list items to the rows they belong to; `ends` begins with the start of the first list.
fn add_item_weights(
    items: &ArrayRef,
    mut ends: impl Iterator<Item = usize> + Clone,
    add: &mut dyn FnMut(usize, u64),
) -> Result<(), ArrowError> {
    let (Some(first), Some(last)) = (ends.next(), ends.clone().last()) else { return Ok(()) };
    let count = last.saturating_sub(first).min(items.len().saturating_sub(first));
    let mut weights = vec![0; count];
    add_weights(&items.slice(first.min(items.len()), count), FIXED_TEXT_BYTES, &mut weights)?;
    let mut start = 0;
    for (row, end) in ends.enumerate() {
        let end = end.saturating_sub(first);
        let items = weights.get(start..end).unwrap_or_default();
        add(row, items.iter().fold(0, |sum: u64, bytes| sum.saturating_add(bytes + 1)));
        start = end;
    }
    Ok(())
}

fn check_rates(array: &ArrayRef, rejected: &mut BTreeMap<usize, RowError>) {
    let bad = |row: usize| -> Option<String> {
        if array.is_null(row) {
            return None;
        }
        match array.data_type() {
            DataType::Int64 => {
                let rate = array.as_primitive::<Int64Type>().value(row);
                (!times::int_rate_is_valid(rate)).then(|| rate.to_string())
            }
            DataType::Float64 => {
                let rate = array.as_primitive::<Float64Type>().value(row);
                (!times::float_rate_is_valid(rate)).then(|| rate.to_string())
            }
            DataType::Utf8 => Some(format!("{:?}", shown(array.as_string::<i32>().value(row)))),
            DataType::Boolean => Some(array.as_boolean().value(row).to_string()),
            _ => Some("a list".to_owned()),
        }
    };
    for row in 0..array.len() {
        if let Some(value) = bad(row) {
            rejected.entry(row).or_insert(RowError::SampleRate { value });
        }
    }
}

enum FoundTime {
    Absent,
    At(i64),
    /// The value that is not a time.
    Not(String),
}

impl FoundTime {
    fn of(time: Option<i64>, value: impl FnOnce() -> String) -> FoundTime {
        time.map_or_else(|| FoundTime::Not(value()), FoundTime::At)
    }
}

/// The time of every row.
fn row_times(array: &ArrayRef) -> Result<Vec<FoundTime>, ArrowError> {
    const DAY_NS: i128 = 86_400 * 1_000_000_000;
    let rows = |time: &dyn Fn(usize) -> FoundTime, array: &ArrayRef| -> Vec<FoundTime> {
        (0..array.len()).map(|row| if array.is_null(row) { FoundTime::Absent } else { time(row) }).collect()
    };
    let exact = |value: i64, unit: i128| {
        FoundTime::of(times::in_range(i128::from(value) * unit), || value.to_string())
    };
    Ok(match array.data_type() {
        DataType::Null => (0..array.len()).map(|_| FoundTime::Absent).collect(),
        DataType::Timestamp(unit, _) => {
            let values = timestamp_values(array, *unit)?;
            rows(&|row| exact(values.value(row), unit_nanoseconds(*unit)), array)
        }
        DataType::Date32 => {
            let days = array.as_primitive::<Date32Type>();
            rows(&|row| exact(i64::from(days.value(row)), DAY_NS), array)
        }
        DataType::Date64 => {
            let values = array.as_primitive::<Date64Type>();
            rows(&|row| exact(values.value(row), unit_nanoseconds(TimeUnit::Millisecond)), array)
        }
        DataType::UInt64 => {
            let values = array.as_primitive::<UInt64Type>();
            let time = |value: u64| i64::try_from(value).ok().and_then(times::from_int);
            rows(&|row| FoundTime::of(time(values.value(row)), || values.value(row).to_string()), array)
        }
        other if other.is_integer() => {
            let values = cast(array, &DataType::Int64)?;
            let values = values.as_primitive::<Int64Type>();
            rows(
                &|row| FoundTime::of(times::from_int(values.value(row)), || values.value(row).to_string()),
                array,
            )
        }
        other if other.is_floating() => {
            let values = cast(array, &DataType::Float64)?;
            let values = values.as_primitive::<Float64Type>();
            rows(
                &|row| FoundTime::of(times::from_float(values.value(row)), || values.value(row).to_string()),
                array,
            )
        }
        DataType::Dictionary(_, values) => row_times(&cast(array, values)?)?,
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..)
        | DataType::LargeUtf8
        | DataType::Utf8View => row_times(&cast(array, &DataType::Utf8)?)?,
        DataType::Utf8 => {
            let texts = array.as_string::<i32>();
            let time = |row: usize| {
                let text = texts.value(row);
                FoundTime::of(times::from_text(text), || format!("{:?}", shown(text)))
            };
            rows(&time, array)
        }
        other => rows(&|_| FoundTime::Not(format!("a value of Arrow type {other}")), array),
    })
}
