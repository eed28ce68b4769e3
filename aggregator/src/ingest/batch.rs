//! Rows become record batches.
//!
//! The values of a row wait in a scratch area until the row is complete, so that a row that turns out to be wrong
//! leaves nothing behind, and the last of several values of one column wins. A batch closes when it has enough rows
//! or bytes, or when a row brings more new columns than one batch may have.
//!
//! Finding a column by name is mostly a comparison with the column that followed the last one in the row before;
//! only when that fails is the name hashed.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampNanosecondArray};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use gannet_query::{ColumnType, SAMPLE_RATE_COLUMN, TIME_COLUMN};

use super::columns::Column;
pub use super::columns::Scalar;
use super::row_error::{RowError, shown};
use super::{IngestLimits, times};
use crate::error::{ErrorCode, Failure};

/// The name a column `time` is kept under when another column gives the time.
const ORIGINAL_TIME_COLUMN: &str = "original_time";
/// Bytes of a value that is not text, and of the offset of one that is, for the size of a batch.
const FIXED_VALUE_BYTES: usize = 8;

/// What a column's values are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Time,
    SampleRate,
    Plain,
}

#[derive(Debug)]
struct Slot {
    /// As rows have it.
    name: Box<str>,
    /// The name as JSON has it, up to the closing quote; `None` for a name that JSON writes with escapes.
    in_json: Option<NameInJson>,
    role: Role,
    column: Column,
    /// The slot that came after this one in the last row that had both.
    next: usize,
    /// The last row that had a value for it, counted over all batches, from 1.
    stamp: u64,
    /// That value's place in the scratch area.
    cell: usize,
}

/// A value in the scratch area; texts and items are ranges of it, or of the source of the row.
#[derive(Debug, Clone)]
enum Held {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(std::ops::Range<usize>),
    SourceText(std::ops::Range<usize>),
    List(std::ops::Range<usize>),
}

/// A name with the quote that ends it. Most names fit into one word, and are compared as one.
#[derive(Debug)]
struct NameInJson {
    text: Box<[u8]>,
    /// The first bytes, and a mask of those that count.
    start: u64,
    mask: u64,
}

impl NameInJson {
    fn of(name: &str) -> Option<NameInJson> {
        if name.bytes().any(|byte| matches!(byte, 0..0x20 | b'"' | b'\\')) {
            return None;
        }
        let text: Box<[u8]> = [name.as_bytes(), b"\""].concat().into();
        let mut word = [0; 8];
        let mut mask = [0; 8];
        for (place, byte) in text.iter().take(8).enumerate() {
            word[place] = *byte;
            mask[place] = 0xFF;
        }
        Some(NameInJson { text, start: u64::from_le_bytes(word), mask: u64::from_le_bytes(mask) })
    }

    /// Whether the source begins with the name and its closing quote.
    #[inline]
    fn starts(&self, source: &[u8]) -> bool {
        match source.first_chunk::<8>() {
            Some(word) if u64::from_le_bytes(*word) & self.mask != self.start => false,
            Some(_) if self.text.len() <= 8 => true,
            _ => source.starts_with(&self.text),
        }
    }
}

/// A column that was found by the order of columns, see [`BatchBuilder::follow`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Followed {
    slot: usize,
    /// Bytes of its name and the closing quote.
    pub(super) name_bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub struct BatchBuilder {
    limits: IngestLimits,
    time_field: Box<str>,
    arrival_ns: i64,
    slots: Vec<Slot>,
    index: HashMap<Box<str>, usize>,
    /// Row times of the open batch; their number is the number of its rows.
    times: Vec<i64>,
    ready: Vec<RecordBatch>,
    broken: Option<ArrowError>,
    /// Bytes of text in the open batch.
    text_bytes: usize,
    saw_time: bool,
    time_candidate: Option<String>,
    row: Row,
}

/// The scratch area: the row that is being filled.
#[derive(Debug, Default)]
struct Row {
    /// Rows begun so far, over all batches.
    number: u64,
    cells: Vec<(usize, Held)>,
    text: Vec<u8>,
    /// Ends of list items in `text`, and before those of each list the start of its first item.
    items: Vec<usize>,
    time: Option<i64>,
    first_new_slot: usize,
    last_slot: Option<usize>,
    list_start: usize,
    list_text_start: usize,
}

impl BatchBuilder {
    /// A builder whose rows have their time in `time_field`, or else `arrival_ns`.
    pub fn new(time_field: &str, limits: IngestLimits, arrival_ns: i64) -> BatchBuilder {
        BatchBuilder {
            limits,
            time_field: time_field.into(),
            arrival_ns,
            slots: Vec::new(),
            index: HashMap::new(),
            times: Vec::new(),
            ready: Vec::new(),
            broken: None,
            text_bytes: 0,
            saw_time: false,
            time_candidate: None,
            row: Row::default(),
        }
    }

    /// Begins a row; the one before was ended or abandoned.
    pub fn begin_row(&mut self) {
        let number = self.row.number + 1;
        self.row.cells.clear();
        self.row.text.clear();
        self.row.items.clear();
        self.row.number = number;
        self.row.time = None;
        self.row.first_new_slot = self.slots.len();
        self.row.last_slot = None;
    }

    /// Gives the row a value; a value it already has under this name is replaced.
    pub fn put(&mut self, name: &str, value: Scalar<'_>) -> Result<(), RowError> {
        if value == Scalar::Null && self.find(name).is_none() {
            return Ok(());
        }
        let slot = self.slot(name)?;
        self.put_in(slot, value)
    }

    /// The column whose name the source has next, after a double quote and before another, when it is the one that
    /// followed in the row before. It is taken as the row's next column then.
    #[inline]
    pub(super) fn follow(&mut self, source: &[u8]) -> Option<Followed> {
        let place = match self.row.last_slot {
            Some(last) => self.slots.get(last)?.next,
            None => 0,
        };
        let name = self.slots.get(place)?.in_json.as_ref()?;
        if !name.starts(source) {
            return None;
        }
        let name_bytes = name.text.len();
        self.row.last_slot = Some(place);
        Some(Followed { slot: place, name_bytes })
    }

    /// Gives the row the value of a column that was followed.
    pub(super) fn put_followed(&mut self, followed: Followed, value: Scalar<'_>) -> Result<(), RowError> {
        self.put_in(followed.slot, value)
    }

    /// Gives the row a text that stands at `start` of the source that ends the row, see
    /// [`BatchBuilder::end_row_of`].
    #[inline]
    pub(super) fn put_source_text(
        &mut self,
        followed: Followed,
        text: &str,
        start: usize,
    ) -> Result<(), RowError> {
        let slot = followed.slot;
        if self.slots[slot].role != Role::Plain || text.len() > self.limits.value_bytes_max {
            return self.put_in(slot, Scalar::Text(text));
        }
        self.hold(slot, Held::SourceText(start..start + text.len()))
    }

    fn put_in(&mut self, slot: usize, value: Scalar<'_>) -> Result<(), RowError> {
        match self.slots[slot].role {
            Role::Time => return self.put_time(slot, value),
            Role::SampleRate => check_sample_rate(value)?,
            Role::Plain => {}
        }
        let held = match value {
            Scalar::Null => Held::Null,
            Scalar::Bool(value) => Held::Bool(value),
            Scalar::Int(value) => Held::Int(value),
            Scalar::Float(value) => Held::Float(value),
            Scalar::Text(text) => {
                self.check_value(&self.slots[slot].name, text.len())?;
                let start = self.row.text.len();
                self.row.text.extend_from_slice(text.as_bytes());
                Held::Text(start..self.row.text.len())
            }
        };
        self.hold(slot, held)
    }

    /// Begins a list; its items follow, and then [`BatchBuilder::end_list`].
    pub fn begin_list(&mut self) {
        // The start of the first item stands before the list's range, as the end of an item would.
        self.row.list_text_start = self.row.text.len();
        self.row.items.push(self.row.list_text_start);
        self.row.list_start = self.row.items.len();
    }

    /// An item of the list; NULL becomes the text `null`.
    pub fn put_item(&mut self, name: &str, value: Scalar<'_>) -> Result<(), RowError> {
        match value {
            Scalar::Null => self.row.text.extend_from_slice(b"null"),
            value => value.write_text(&mut self.row.text),
        }
        self.row.items.push(self.row.text.len());
        let items = self.row.items.len() - self.row.list_start;
        self.check_value(name, self.row.text.len() - self.row.list_text_start + items)
    }

    /// Ends the list and gives it to the row.
    pub fn end_list(&mut self, name: &str) -> Result<(), RowError> {
        let slot = self.slot(name)?;
        match self.slots[slot].role {
            Role::Time => return Err(time_error(name, "a list")),
            Role::SampleRate => return Err(RowError::SampleRate { value: "a list".to_owned() }),
            Role::Plain => {}
        }
        let range = self.row.list_start..self.row.items.len();
        self.hold(slot, Held::List(range))
    }

    /// Takes the row into the batch.
    pub fn end_row(&mut self) -> Result<(), RowError> {
        self.end_row_of(&[])
    }

    /// Takes the row into the batch; texts that were put as parts of its source are read from there.
    pub(super) fn end_row_of(&mut self, source: &[u8]) -> Result<(), RowError> {
        if self.slots.len() > self.limits.columns_max && !self.times.is_empty() {
            let number = self.row.number;
            self.close();
            let moved = self.keep_slots(|slot| slot.stamp == number);
            for (slot, _) in &mut self.row.cells {
                *slot = moved[*slot];
            }
        }
        let row_index = self.times.len();
        self.times.push(self.row.time.unwrap_or(self.arrival_ns));
        self.saw_time |= self.row.time.is_some();
        let Row { cells, text, items, .. } = &self.row;
        let bytes = |range: &std::ops::Range<usize>| text.get(range.clone()).unwrap_or_default();
        for (slot, held) in cells {
            let column = &mut self.slots[*slot].column;
            let before = column.text_bytes();
            match held {
                Held::Null => {}
                Held::Bool(value) => column.set(row_index, Scalar::Bool(*value)),
                Held::Int(value) => column.set(row_index, Scalar::Int(*value)),
                Held::Float(value) => column.set(row_index, Scalar::Float(*value)),
                Held::Text(range) => column.set_text(row_index, bytes(range)),
                Held::SourceText(range) => {
                    column.set_text(row_index, source.get(range.clone()).unwrap_or_default());
                }
                Held::List(range) => {
                    let texts = range.clone().map(|item| bytes(&(items[item - 1]..items[item])));
                    column.set_list(row_index, texts);
                }
            }
            self.text_bytes += column.text_bytes().saturating_sub(before);
        }
        let fixed = self.times.len() * (self.slots.len() + 1) * FIXED_VALUE_BYTES;
        if self.times.len() >= self.limits.batch_rows_max
            || fixed + self.text_bytes >= self.limits.batch_bytes_max
        {
            self.close_batch();
        }
        Ok(())
    }

    /// Drops the row, with the columns only it brought.
    pub fn abandon_row(&mut self) {
        for slot in self.slots.drain(self.row.first_new_slot.min(self.slots.len())..) {
            self.index.remove(&slot.name);
        }
        self.row.cells.clear();
    }

    /// Closes the open batch, if it has rows.
    pub fn close_batch(&mut self) {
        if self.times.is_empty() {
            return;
        }
        let used: Vec<bool> = self.slots.iter().map(|slot| !slot.column.is_empty()).collect();
        self.close();
        if used.contains(&false) {
            let mut used = used.into_iter();
            self.keep_slots(|slot| used.next().unwrap_or(false) || slot.role == Role::Time);
        }
    }

    /// Whether [`BatchBuilder::take_ready`] has something to give.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty() || self.broken.is_some()
    }

    /// The batches closed since the last call.
    pub fn take_ready(&mut self) -> Result<Vec<RecordBatch>, Failure> {
        match self.broken.take() {
            Some(error) => {
                Err(Failure::new(ErrorCode::Internal, format!("cannot build a row batch: {error}")))
            }
            None => Ok(std::mem::take(&mut self.ready)),
        }
    }

    /// Whether any row had its own time.
    pub fn saw_time(&self) -> bool {
        self.saw_time
    }

    /// A column that looks as if it held the time.
    pub fn time_candidate(&self) -> Option<&str> {
        self.time_candidate.as_deref()
    }

    /// The time of rows that have none.
    pub fn arrival_ns(&self) -> i64 {
        self.arrival_ns
    }

    fn check_value(&self, name: &str, bytes: usize) -> Result<(), RowError> {
        let limit = self.limits.value_bytes_max;
        if bytes > limit { Err(RowError::Value { column: shown(name), bytes, limit }) } else { Ok(()) }
    }

    fn put_time(&mut self, slot: usize, value: Scalar<'_>) -> Result<(), RowError> {
        let (time, text) = match value {
            Scalar::Null => {
                self.row.time = None;
                return Ok(());
            }
            Scalar::Bool(value) => (None, value.to_string()),
            Scalar::Int(value) => (times::from_int(value), String::new()),
            Scalar::Float(value) => (times::from_float(value), String::new()),
            Scalar::Text(text) => (times::from_text(text), String::new()),
        };
        if time.is_none() {
            let text = match value {
                Scalar::Int(value) => value.to_string(),
                Scalar::Float(value) => value.to_string(),
                Scalar::Text(text) => format!("{:?}", shown(text)),
                Scalar::Null | Scalar::Bool(_) => text,
            };
            return Err(time_error(&self.slots[slot].name, &text));
        }
        self.row.time = time;
        Ok(())
    }

    fn hold(&mut self, slot: usize, held: Held) -> Result<(), RowError> {
        let number = self.row.number;
        let found = &mut self.slots[slot];
        if found.stamp == number {
            self.row.cells[found.cell].1 = held;
            return Ok(());
        }
        let limit = self.limits.columns_max;
        if self.row.cells.len() >= limit {
            return Err(RowError::Columns { limit });
        }
        found.stamp = number;
        found.cell = self.row.cells.len();
        self.row.cells.push((slot, held));
        Ok(())
    }

    fn guess(&self, name: &str) -> Option<usize> {
        let guess = match self.row.last_slot {
            Some(last) => self.slots.get(last)?.next,
            None => 0,
        };
        self.slots.get(guess).is_some_and(|slot| *slot.name == *name).then_some(guess)
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.guess(name).or_else(|| self.index.get(name).copied())
    }

    /// The slot of this name, made when there is none.
    fn slot(&mut self, name: &str) -> Result<usize, RowError> {
        let slot = match self.guess(name) {
            Some(slot) => slot,
            None => {
                let slot = match self.index.get(name) {
                    Some(slot) => *slot,
                    None => self.new_slot(name)?,
                };
                if let Some(last) = self.row.last_slot.and_then(|last| self.slots.get_mut(last)) {
                    last.next = slot;
                }
                slot
            }
        };
        self.row.last_slot = Some(slot);
        Ok(slot)
    }

    fn new_slot(&mut self, name: &str) -> Result<usize, RowError> {
        check_column_name(name, self.limits.column_name_bytes_max)?;
        // Any number of columns may have passed since the batch began, but a row can add only so many.
        let limit = self.limits.columns_max;
        if self.slots.len() - self.row.first_new_slot > limit {
            return Err(RowError::Columns { limit });
        }
        let role = if *name == *self.time_field {
            Role::Time
        } else if name == SAMPLE_RATE_COLUMN {
            Role::SampleRate
        } else {
            Role::Plain
        };
        if self.time_candidate.is_none() && looks_like_time(name) {
            self.time_candidate = Some(name.to_owned());
        }
        let slot = self.slots.len();
        let in_json = NameInJson::of(name);
        let column = Column::default();
        self.slots.push(Slot { name: name.into(), in_json, role, column, next: slot + 1, stamp: 0, cell: 0 });
        self.index.insert(name.into(), slot);
        Ok(slot)
    }

    /// Keeps some slots for the next batch; returns the new place of each.
    fn keep_slots(&mut self, mut keep: impl FnMut(&Slot) -> bool) -> Vec<usize> {
        let mut moved = Vec::with_capacity(self.slots.len());
        let mut kept = 0;
        self.slots.retain_mut(|slot| {
            moved.push(kept);
            let keep = keep(slot);
            kept += usize::from(keep);
            slot.next = kept;
            keep
        });
        self.index = self.slots.iter().enumerate().map(|(place, slot)| (slot.name.clone(), place)).collect();
        moved
    }

    /// Turns the open batch into record batches; its columns are empty then.
    fn close(&mut self) {
        match self.build() {
            Ok(batch) => self.ready.extend(split(&batch, self.text_bytes, self.limits.batch_bytes_max)),
            Err(error) => self.broken = Some(error),
        }
        self.text_bytes = 0;
    }

    fn build(&mut self) -> Result<RecordBatch, ArrowError> {
        let times = std::mem::take(&mut self.times);
        let row_count = times.len();
        let times = TimestampNanosecondArray::from(times).with_timezone("+00:00");
        let mut fields = vec![Field::new(TIME_COLUMN, ColumnType::Time.arrow(), false)];
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(times)];
        let renamed = original_time(|name| self.index.contains_key(name));
        for slot in &mut self.slots {
            let Some(array) = slot.column.take(row_count)? else { continue };
            let name = if *slot.name == *TIME_COLUMN { renamed.as_str() } else { &slot.name };
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array);
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
    }
}

/// The name for a column `time` that is not the row's time: it steps aside, also for a column of its new name.
pub(super) fn original_time(is_taken: impl Fn(&str) -> bool) -> String {
    let mut name = ORIGINAL_TIME_COLUMN.to_owned();
    while is_taken(&name) {
        name.push('_');
    }
    name
}

/// Slices of a batch that grew far beyond the limit because its values became texts.
fn split(batch: &RecordBatch, text_bytes: usize, bytes_max: usize) -> Vec<RecordBatch> {
    let parts = (text_bytes / bytes_max.max(1)).clamp(1, batch.num_rows().max(1));
    let rows = batch.num_rows().div_ceil(parts).max(1);
    let starts = (0..batch.num_rows()).step_by(rows);
    starts.map(|start| batch.slice(start, rows.min(batch.num_rows() - start))).collect()
}

pub(super) fn check_column_name(name: &str, limit: usize) -> Result<(), RowError> {
    if name.is_empty() {
        return Err(RowError::EmptyName);
    }
    if name.len() > limit {
        let start: String = name.chars().take(32).collect();
        return Err(RowError::ColumnName { name: start, bytes: name.len(), limit });
    }
    Ok(())
}

fn check_sample_rate(value: Scalar<'_>) -> Result<(), RowError> {
    let value = match value {
        Scalar::Null => return Ok(()),
        Scalar::Int(rate) if times::int_rate_is_valid(rate) => return Ok(()),
        Scalar::Float(rate) if times::float_rate_is_valid(rate) => return Ok(()),
        Scalar::Int(rate) => rate.to_string(),
        Scalar::Float(rate) => rate.to_string(),
        Scalar::Bool(value) => value.to_string(),
        Scalar::Text(text) => format!("{:?}", shown(text)),
    };
    Err(RowError::SampleRate { value })
}

pub(super) fn time_error(column: &str, value: &str) -> RowError {
    RowError::Time { column: shown(column), value: shown(value) }
}

/// Names that senders use for the time of a row.
pub(super) fn looks_like_time(name: &str) -> bool {
    const NAMES: [&str; 12] = [
        "time",
        "timestamp",
        "@timestamp",
        "ts",
        "_time",
        "datetime",
        "date",
        "event_time",
        "eventtime",
        "created_at",
        "createdat",
        "time_iso8601",
    ];
    NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}
