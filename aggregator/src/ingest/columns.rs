//! One column of a batch while its rows come in.
//!
//! A column starts without a type and gets the least type that holds all its values: bool → int → float → string,
//! anything with a list → strings, and integers beyond ±2^53 never become floats. Values that are already there are
//! rewritten when the type grows; which of them came as bools is remembered, so that the text of a value does not
//! depend on what stood between it and the first text.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, NullBufferBuilder, StringArray,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use gannet_query::value::EXACT_INT_MAX;
use gannet_query::{ColumnType, TypeSet};

/// One value on its way into a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    /// Absent.
    Null,
    /// true or false
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float, also NaN and infinite.
    Float(f64),
    /// A text.
    Text(&'a str),
}

impl Scalar<'_> {
    /// Writes the text a leaf gives this value when its column becomes string; nothing for NULL.
    pub(super) fn write_text(&self, out: &mut Vec<u8>) {
        match self {
            Scalar::Null => {}
            Scalar::Bool(value) => out.extend_from_slice(bool_text(*value).as_bytes()),
            Scalar::Int(value) => display(value, out),
            Scalar::Float(value) => display(value, out),
            Scalar::Text(value) => out.extend_from_slice(value.as_bytes()),
        }
    }
}

pub(super) fn bool_text(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn display(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = std::io::Write::write_fmt(out, format_args!("{value}"));
}

/// Texts one after another; text `i` ends at `ends[i]`.
#[derive(Debug, Default)]
struct Texts {
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl Texts {
    /// Ends the text whose bytes were just written.
    fn end(&mut self) {
        self.ends.push(length(self.bytes.len()));
    }

    #[inline]
    fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.end();
    }

    fn finish(self, nulls: Option<arrow::buffer::NullBuffer>) -> Result<StringArray, ArrowError> {
        StringArray::try_new(offsets(self.ends), Buffer::from_vec(self.bytes), nulls)
    }
}

/// A length as Arrow offsets have it. Batches are closed long before 2 GiB, and the arrays are checked when built.
fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

/// Offsets from ends, which only grow.
fn offsets(mut ends: Vec<i32>) -> OffsetBuffer<i32> {
    ends.insert(0, 0);
    OffsetBuffer::new(ScalarBuffer::from(ends))
}

#[derive(Debug, Default)]
enum Data {
    #[default]
    Empty,
    Bool(Vec<bool>),
    Int(Vec<i64>),
    Float(Vec<f64>),
    Text(Texts),
    List {
        ends: Vec<i32>,
        items: Texts,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Column {
    data: Data,
    types: TypeSet,
    /// The type of `data`.
    current: Option<ColumnType>,
    validity: NullBufferBuilder,
    row_count: usize,
    /// Rows that came as bools and are kept as numbers now, ascending.
    bool_rows: Vec<usize>,
    /// How large the batch before this one was: as much room is made at once.
    expected: Expected,
}

/// Rows and bytes of text of a column.
#[derive(Debug, Clone, Copy, Default)]
struct Expected {
    rows: usize,
    text_bytes: usize,
}

impl Default for Column {
    fn default() -> Column {
        Column {
            data: Data::Empty,
            types: TypeSet::default(),
            current: None,
            validity: NullBufferBuilder::new(0),
            row_count: 0,
            bool_rows: Vec::new(),
            expected: Expected::default(),
        }
    }
}

impl Column {
    pub(super) fn is_empty(&self) -> bool {
        self.current.is_none()
    }

    /// Bytes of text held; other values are counted by their fixed width.
    pub(super) fn text_bytes(&self) -> usize {
        match &self.data {
            Data::Text(texts) => texts.bytes.len(),
            Data::List { items, .. } => items.bytes.len() + items.ends.len() * 4,
            _ => 0,
        }
    }

    /// Sets the text of `row`, as `set` does. What is not UTF-8 is found out when the batch is built.
    #[inline]
    pub(super) fn set_text(&mut self, row: usize, text: &[u8]) {
        self.admit(ColumnType::String, false);
        self.pad(row);
        match &mut self.data {
            Data::Text(texts) => texts.push(text),
            Data::List { ends, items } => {
                items.push(text);
                ends.push(length(items.ends.len()));
            }
            // `admit` made the data of a type that holds texts.
            Data::Empty | Data::Bool(_) | Data::Int(_) | Data::Float(_) => return,
        }
        self.validity.append_non_null();
        self.row_count = row + 1;
    }

    /// Sets the value of `row`, which must not be before any row already set.
    #[inline]
    pub(super) fn set(&mut self, row: usize, value: Scalar<'_>) {
        let (column_type, wide) = match value {
            Scalar::Null => return,
            Scalar::Bool(_) => (ColumnType::Bool, false),
            Scalar::Int(int) => (ColumnType::Int, int.unsigned_abs() > EXACT_INT_MAX.unsigned_abs()),
            Scalar::Float(_) => (ColumnType::Float, false),
            Scalar::Text(text) => return self.set_text(row, text.as_bytes()),
        };
        self.admit(column_type, wide);
        self.pad(row);
        if matches!(value, Scalar::Bool(_)) && matches!(self.data, Data::Int(_) | Data::Float(_)) {
            self.bool_rows.push(row);
        }
        match (&mut self.data, value) {
            (Data::Bool(values), Scalar::Bool(value)) => values.push(value),
            (Data::Int(values), Scalar::Int(value)) => values.push(value),
            (Data::Int(values), Scalar::Bool(value)) => values.push(i64::from(value)),
            (Data::Float(values), Scalar::Float(value)) => values.push(value),
            (Data::Float(values), Scalar::Int(value)) => values.push(value as f64),
            (Data::Float(values), Scalar::Bool(value)) => values.push(f64::from(u8::from(value))),
            (Data::Text(texts), value) => {
                value.write_text(&mut texts.bytes);
                texts.end();
            }
            (Data::List { ends, items }, value) => {
                value.write_text(&mut items.bytes);
                items.end();
                ends.push(length(items.ends.len()));
            }
            // `admit` made the data of a type that holds the value.
            _ => return,
        }
        self.validity.append_non_null();
        self.row_count = row + 1;
    }

    /// Sets the list of `row`, as `set` does for single values.
    pub(super) fn set_list<'t>(&mut self, row: usize, texts: impl Iterator<Item = &'t [u8]>) {
        self.admit(ColumnType::Strings, false);
        self.pad(row);
        if let Data::List { ends, items } = &mut self.data {
            texts.for_each(|text| items.push(text));
            ends.push(length(items.ends.len()));
            self.validity.append_non_null();
            self.row_count = row + 1;
        }
    }

    /// Makes the data able to hold a value of this type.
    #[inline]
    fn admit(&mut self, column_type: ColumnType, wide: bool) {
        if self.current != Some(column_type) || wide {
            self.widen(column_type, wide);
        }
    }

    fn widen(&mut self, column_type: ColumnType, wide: bool) {
        self.types = self.types.union(TypeSet::of(column_type, wide));
        let target = self.types.resolve();
        if target == self.current {
            return;
        }
        let data = std::mem::take(&mut self.data);
        self.data = match (data, target) {
            (Data::Empty, target) => self.padding(target),
            (Data::Bool(values), Some(ColumnType::Int)) => {
                self.remember_bools();
                Data::Int(values.into_iter().map(i64::from).collect())
            }
            (Data::Bool(values), Some(ColumnType::Float)) => {
                self.remember_bools();
                Data::Float(values.into_iter().map(|value| f64::from(u8::from(value))).collect())
            }
            (Data::Int(values), Some(ColumnType::Float)) => {
                Data::Float(values.into_iter().map(|value| value as f64).collect())
            }
            (data @ Data::Text(_), Some(ColumnType::Strings)) => self.lists(data),
            (data, Some(ColumnType::Strings)) => {
                let texts = Data::Text(self.texts(&data));
                self.lists(texts)
            }
            (data, _) => Data::Text(self.texts(&data)),
        };
        self.current = target;
    }

    /// Data of a type with NULLs for the rows so far.
    fn padding(&self, target: Option<ColumnType>) -> Data {
        let text_bytes = self.expected.text_bytes;
        match target {
            None | Some(ColumnType::Time) => Data::Empty,
            Some(ColumnType::Bool) => Data::Bool(self.padded(false)),
            Some(ColumnType::Int) => Data::Int(self.padded(0)),
            Some(ColumnType::Float) => Data::Float(self.padded(0.0)),
            Some(ColumnType::String) => {
                Data::Text(Texts { ends: self.padded(0), bytes: Vec::with_capacity(text_bytes) })
            }
            Some(ColumnType::Strings) => Data::List {
                ends: self.padded(0),
                items: Texts { ends: Vec::new(), bytes: Vec::with_capacity(text_bytes) },
            },
        }
    }

    /// A value for each row so far, with room for those expected.
    fn padded<T: Clone>(&self, value: T) -> Vec<T> {
        let mut values = Vec::with_capacity(self.expected.rows.max(self.row_count));
        values.resize(self.row_count, value);
        values
    }

    fn remember_bools(&mut self) {
        self.bool_rows = (0..self.row_count).filter(|row| self.validity.is_valid(*row)).collect();
    }

    fn texts(&self, data: &Data) -> Texts {
        let mut texts = Texts { ends: Vec::with_capacity(self.row_count), bytes: Vec::new() };
        let mut bools = self.bool_rows.iter().peekable();
        for row in 0..self.row_count {
            let was_bool = bools.next_if(|bool_row| **bool_row == row).is_some();
            if self.validity.is_valid(row) {
                let value = match data {
                    Data::Bool(values) => Scalar::Bool(values[row]),
                    Data::Int(values) if was_bool => Scalar::Bool(values[row] != 0),
                    Data::Float(values) if was_bool => Scalar::Bool(values[row] != 0.0),
                    Data::Int(values) => Scalar::Int(values[row]),
                    Data::Float(values) => Scalar::Float(values[row]),
                    Data::Empty | Data::Text(_) | Data::List { .. } => Scalar::Null,
                };
                value.write_text(&mut texts.bytes);
            }
            texts.end();
        }
        texts
    }

    /// A list of one for every text.
    fn lists(&self, data: Data) -> Data {
        let Data::Text(texts) = data else { return data };
        let mut items = Texts { ends: Vec::new(), bytes: texts.bytes };
        let mut ends = Vec::with_capacity(self.row_count);
        for (row, end) in texts.ends.into_iter().enumerate() {
            if self.validity.is_valid(row) {
                items.ends.push(end);
            }
            ends.push(length(items.ends.len()));
        }
        Data::List { ends, items }
    }

    /// NULLs up to `row_count` rows.
    #[inline]
    fn pad(&mut self, row_count: usize) {
        let missing = row_count.saturating_sub(self.row_count);
        if missing > 0 {
            self.pad_by(missing);
        }
    }

    fn pad_by(&mut self, missing: usize) {
        let row_count = self.row_count + missing;
        self.validity.append_n_nulls(missing);
        self.row_count = row_count;
        match &mut self.data {
            Data::Empty => {}
            Data::Bool(values) => values.resize(row_count, false),
            Data::Int(values) => values.resize(row_count, 0),
            Data::Float(values) => values.resize(row_count, 0.0),
            Data::Text(texts) => texts.ends.resize(row_count, length(texts.bytes.len())),
            Data::List { ends, items } => ends.resize(row_count, length(items.ends.len())),
        }
    }

    /// The column of a batch of `row_count` rows, and an empty column in its place; `None` when it has no value.
    pub(super) fn take(&mut self, row_count: usize) -> Result<Option<ArrayRef>, ArrowError> {
        self.pad(row_count);
        let expected = Expected { rows: row_count, text_bytes: self.text_bytes() };
        let Column { data, mut validity, .. } =
            std::mem::replace(self, Column { expected, ..Column::default() });
        let nulls = validity.finish();
        Ok(Some(match data {
            Data::Empty => return Ok(None),
            Data::Bool(values) => Arc::new(BooleanArray::new(values.into(), nulls)),
            Data::Int(values) => Arc::new(Int64Array::try_new(values.into(), nulls)?),
            Data::Float(values) => Arc::new(Float64Array::try_new(values.into(), nulls)?),
            Data::Text(texts) => Arc::new(texts.finish(nulls)?),
            Data::List { ends, items } => {
                let items: ArrayRef = Arc::new(items.finish(None)?);
                Arc::new(ListArray::try_new(item_field(), offsets(ends), items, nulls)?)
            }
        }))
    }
}

/// The field of the items of a `strings` column.
pub(super) fn item_field() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Utf8, true))
}

/// An integer that 64 signed bits do not hold, from its decimal digits: a float when the float is exactly it, else
/// its digits as text, so that nothing of it is lost.
pub(super) fn wide_integer(digits: &str) -> Scalar<'_> {
    // No float is longer than 309 digits; this also bounds the work for absurd ones.
    const FLOAT_DIGITS_MAX: usize = 310;
    if digits.len() <= FLOAT_DIGITS_MAX
        && let Ok(float) = digits.parse::<f64>()
        && float.is_finite()
    {
        let mut exact = String::with_capacity(digits.len());
        let _ = write!(exact, "{float:.0}");
        if exact == digits {
            return Scalar::Float(float);
        }
    }
    Scalar::Text(digits)
}
