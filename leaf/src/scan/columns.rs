//! The columns of one run as one scan sees them: loaded once, in the plan's types, with the encoding still visible.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, UInt32Array, new_null_array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampNanosecondType};
use gannet_query::{ColumnType, TIME_COLUMN, TypeSet};

use super::coder::Coder;
use super::compile::Compiled;
use super::prepare::ColumnSpec;
use super::readers::{Floats, Ints, float_parts, int_parts, int_values};
use super::selection::Rows;
use super::{Cancel, RowRun, ScanError, Stop};
use crate::cast::cast_column;
use crate::column::{Codes, Column, power_of_ten};
use crate::text::{Form, StoredText};

/// A column of one run under the plan's type.
#[derive(Debug)]
pub(super) struct Slot {
    column: Column,
    /// The run's own type.
    held: ColumnType,
    /// The plan's type, when it is another one.
    cast_to: Option<ColumnType>,
    /// Text with a code for each distinct value, once somebody asked for it.
    coded: OnceCell<Option<CodedText>>,
}

/// Text as a dictionary has it; NULL is the code behind the last value.
#[derive(Debug)]
struct CodedText {
    values: ArrayRef,
    codes: Codes,
    has_nulls: bool,
}

impl CodedText {
    fn of(text: &StoredText) -> Option<CodedText> {
        let (mut codes, mut firsts) = text.number()?;
        let is_null = |row: &u32| text.validity().is_some_and(|validity| validity.is_null(*row as usize));
        let null = firsts.iter().position(is_null);
        if let Some(null) = null {
            firsts.remove(null);
            let (null, last) = (null as u32, firsts.len() as u32);
            codes
                .iter_mut()
                .for_each(|code| *code = if *code == null { last } else { *code - u32::from(*code > null) });
        }
        let values = Arc::new(text.take(&firsts));
        Some(CodedText { values, codes: Codes::U32(codes.into()), has_nulls: null.is_some() })
    }
}

/// How a column's values can be worked on without decoding them.
#[derive(Debug)]
pub(super) enum Shape<'a> {
    /// One value for all rows.
    Constant(&'a ArrayRef),
    /// Ints or times as codes.
    Packed { base: i64, gcd: i64, codes: &'a Codes, validity: Option<&'a NullBuffer> },
    /// Strings, ints, times or floats as codes; NULL is the code behind the last value.
    Dictionary { values: ArrayRef, codes: &'a Codes, has_nulls: bool },
    /// Floats as codes of ints over a power of ten.
    Decimal { base: i64, gcd: i64, digits: u8, codes: &'a Codes, validity: Option<&'a NullBuffer> },
    /// Strings that answer some tests without being decoded.
    Text(&'a StoredText),
    /// Lists of strings as codes of their items.
    Lists(ListCodes<'a>),
    /// Ints or times as they are.
    Ints { values: &'a [i64], validity: Option<&'a NullBuffer> },
    /// Bools as they are.
    Bits { bits: &'a BooleanBuffer, validity: Option<&'a NullBuffer> },
    /// Floats as they are.
    Floats,
    /// Only arrays will do.
    Other,
}

/// The items of lists as codes.
#[derive(Debug)]
pub(super) struct ListCodes<'a> {
    pub(super) offsets: &'a [i32],
    /// The distinct items, without NULL.
    pub(super) values: &'a ArrayRef,
    pub(super) codes: &'a Codes,
    pub(super) validity: Option<&'a NullBuffer>,
}

impl Slot {
    fn new(column: Column, held: ColumnType, cast_to: Option<ColumnType>) -> Slot {
        Slot { column, held, cast_to, coded: OnceCell::new() }
    }

    fn missing(column_type: ColumnType) -> Slot {
        Slot::new(Column::Constant(new_null_array(&column_type.arrow(), 1)), column_type, None)
    }

    /// The distinct values of text and their codes, as of a dictionary, where rows share values and telling these apart
    /// takes no decoding. Worth it when most rows are wanted.
    pub(super) fn coded_text(&self) -> Option<(ArrayRef, &Codes, bool)> {
        let Shape::Text(text) = self.shape() else { return None };
        // Ids hardly repeat where they are not in a dictionary already.
        if text.form() != Form::Template {
            return None;
        }
        let coded = self.coded.get_or_init(|| CodedText::of(text)).as_ref()?;
        Some((Arc::clone(&coded.values), &coded.codes, coded.has_nulls))
    }

    pub(super) fn shape(&self) -> Shape<'_> {
        match &self.column {
            Column::Constant(value) => Shape::Constant(value),
            _ if self.cast_to.is_some() => Shape::Other,
            Column::Packed { base, gcd, codes, validity } => {
                Shape::Packed { base: *base, gcd: *gcd, codes, validity: validity.as_ref() }
            }
            Column::Dictionary { values, codes, has_nulls } => {
                Shape::Dictionary { values: Arc::clone(values), codes, has_nulls: *has_nulls }
            }
            Column::IntDictionary { values, codes, has_nulls } => {
                let ints: ArrayRef = Arc::new(Int64Array::new(values.clone(), None));
                Shape::Dictionary { values: with_type(ints, self.held), codes, has_nulls: *has_nulls }
            }
            Column::FloatDictionary { values, codes, has_nulls } => {
                let floats = Arc::new(Float64Array::new(values.clone(), None));
                Shape::Dictionary { values: floats, codes, has_nulls: *has_nulls }
            }
            Column::Decimal { base, gcd, digits, codes, validity } => {
                Shape::Decimal { base: *base, gcd: *gcd, digits: *digits, codes, validity: validity.as_ref() }
            }
            Column::Text(text) => Shape::Text(text),
            Column::Lists { offsets, values, codes, validity, .. } => {
                Shape::Lists(ListCodes { offsets, values, codes, validity: validity.as_ref() })
            }
            Column::Plain(array) => match (int_values(array), array.as_boolean_opt()) {
                (Some(values), _) => Shape::Ints { values, validity: array.nulls() },
                (None, Some(bools)) => Shape::Bits { bits: bools.values(), validity: bools.nulls() },
                (None, None) if array.data_type() == &DataType::Float64 => Shape::Floats,
                (None, None) => Shape::Other,
            },
        }
    }

    /// The values at some rows, decoded and cast.
    pub(super) fn array(&self, rows: Rows<'_>, row_count: usize) -> Result<ArrayRef, Stop> {
        let array = match (&self.column, rows) {
            // Casting one value is cheaper than casting its copies, but it was cast when it was loaded.
            (Column::Constant(value), rows) => repeat(value, rows.len())?,
            (Column::Plain(array), Rows::Range { start, count }) => array.slice(start, count),
            (Column::Plain(array), Rows::At(rows)) => {
                take(array, &UInt32Array::new(rows.to_vec().into(), None), None)?
            }
            (column, rows) if rows.is_all(row_count) => column.to_array(row_count),
            (Column::Packed { base, gcd, codes, validity }, rows) => {
                let ints = Ints::Packed { base: *base, gcd: *gcd, codes, validity: validity.as_ref() };
                let mut values = Vec::with_capacity(rows.len());
                ints.read(rows, &mut values);
                Arc::new(Int64Array::new(values.into(), ints.nulls(rows)))
            }
            (Column::Text(text), Rows::Range { start, count }) => Arc::new(text.slice(start, count)),
            (column, rows) => column.take(&rows.positions()),
        };
        let array = with_type(array, self.held);
        match self.cast_to {
            Some(to) => cast(&array, to),
            None => Ok(array),
        }
    }

    /// How many characters each text has, or how many items each list, as a column of ints.
    fn lengths(&self, row_count: usize) -> Result<Column, Stop> {
        let count = |text: Option<&str>| text.map_or(0, |text| text.chars().count() as u32);
        let of_lists =
            |offsets: &[i32]| offsets.windows(2).map(|ends| (ends[1] - ends[0]) as u32).collect::<Vec<_>>();
        let of_array = |values: &ArrayRef| match (values.as_string_opt::<i32>(), values.as_list_opt::<i32>())
        {
            (Some(texts), _) => Ok(texts.iter().map(count).collect::<Vec<u32>>()),
            (None, Some(lists)) => Ok(of_lists(lists.offsets())),
            (None, None) => {
                Err(Stop::Failed(ScanError::Evaluate(format!("the length of a {}", values.data_type()))))
            }
        };
        let known = match self.shape() {
            Shape::Text(text) => text.characters().map(|lengths| (lengths, text.validity().cloned())),
            Shape::Lists(lists) => Some((of_lists(lists.offsets), lists.validity.cloned())),
            Shape::Constant(value) => {
                let lengths = of_array(value)?.into_iter().map(i64::from).collect::<Vec<_>>();
                let lengths = Int64Array::new(lengths.into(), value.logical_nulls());
                return Ok(Column::Constant(Arc::new(lengths)));
            }
            Shape::Dictionary { values, codes, has_nulls } => {
                // Rows without value have the code behind the last one.
                let mut of_values = of_array(&values)?;
                of_values.push(0);
                let (mut ints, mut rows) = (Vec::new(), Vec::new());
                Coder::Codes(codes).read(Rows::all(row_count), &mut ints, &mut rows);
                let null = values.len();
                let validity = || NullBuffer::from_iter(rows.iter().map(|code| (*code as usize) < null));
                let validity = has_nulls.then(validity);
                Some((rows.iter().map(|code| of_values[(*code as usize).min(null)]).collect(), validity))
            }
            _ => None,
        };
        let (lengths, validity) = match known {
            Some(known) => known,
            None => {
                let texts = self.array(Rows::all(row_count), row_count)?;
                (of_array(&texts)?, texts.logical_nulls())
            }
        };
        Ok(Column::packed(lengths, validity))
    }

    /// The values of an int or time column.
    pub(super) fn ints(&self, row_count: usize) -> Result<Ints<'_>, Stop> {
        Ok(match self.shape() {
            Shape::Constant(value) => match int_parts(value) {
                Some((values, nulls)) => Ints::Constant(nulls.is_none().then(|| values[0])),
                None => return Err(no_numbers(value.data_type())),
            },
            Shape::Packed { base, gcd, codes, validity } => Ints::Packed { base, gcd, codes, validity },
            Shape::Ints { values, validity } => Ints::Values(values, validity),
            Shape::Dictionary { values, codes, has_nulls } if int_parts(&values).is_some() => {
                let mut table = int_values(&values).unwrap_or_default().to_vec();
                let null = has_nulls.then_some(table.len() as u32);
                table.push(0);
                Ints::Dictionary { table, codes, null }
            }
            Shape::Dictionary { .. }
            | Shape::Decimal { .. }
            | Shape::Text(_)
            | Shape::Lists(_)
            | Shape::Bits { .. }
            | Shape::Floats
            | Shape::Other => {
                let array = self.array(Rows::all(row_count), row_count)?;
                let (values, nulls) = int_parts(&array).ok_or_else(|| no_numbers(array.data_type()))?;
                Ints::Cast(values, nulls)
            }
        })
    }

    /// The values of a float column.
    pub(super) fn floats(&self, row_count: usize) -> Result<Floats<'_>, Stop> {
        if let Column::Constant(value) = &self.column {
            let (values, nulls) = float_parts(value).ok_or_else(|| no_numbers(value.data_type()))?;
            return Ok(Floats::Constant(nulls.is_none().then(|| values[0])));
        }
        if let Shape::Decimal { base, gcd, digits, codes, validity } = self.shape() {
            return Ok(Floats::Scaled(Ints::Packed { base, gcd, codes, validity }, power_of_ten(digits)));
        }
        if let (Column::Plain(array), None) = (&self.column, self.cast_to)
            && let Some(floats) = array.as_primitive_opt::<Float64Type>()
        {
            return Ok(Floats::Values(floats.values(), floats.nulls()));
        }
        let array = self.array(Rows::all(row_count), row_count)?;
        let (values, nulls) = float_parts(&array).ok_or_else(|| no_numbers(array.data_type()))?;
        Ok(Floats::Cast(values, nulls))
    }
}

fn no_numbers(data_type: &DataType) -> Stop {
    Stop::Failed(ScanError::Evaluate(format!("a column of {data_type} as numbers")))
}

/// Ints as an array of a column's type.
pub(super) fn int_array(values: Vec<i64>, nulls: Option<NullBuffer>, column_type: ColumnType) -> ArrayRef {
    with_type(Arc::new(Int64Array::new(values.into(), nulls)), column_type)
}

/// Packed columns do not know whether they are times; the run does.
fn with_type(array: ArrayRef, column_type: ColumnType) -> ArrayRef {
    match (column_type, array.data_type()) {
        (ColumnType::Time, DataType::Int64) => {
            let times = array.as_primitive::<Int64Type>().reinterpret_cast::<TimestampNanosecondType>();
            Arc::new(times.with_data_type(ColumnType::Time.arrow()))
        }
        _ => array,
    }
}

fn cast(array: &ArrayRef, to: ColumnType) -> Result<ArrayRef, Stop> {
    cast_column(array, to).map_err(|error| Stop::Failed(ScanError::Evaluate(error.to_string())))
}

/// An array of one value, this many times.
pub(super) fn repeat(value: &ArrayRef, count: usize) -> Result<ArrayRef, ScanError> {
    if value.is_null(0) {
        return Ok(new_null_array(value.data_type(), count));
    }
    Ok(take(value, &UInt32Array::new(vec![0; count].into(), None), None)?)
}

/// One run in one scan, or some of its rows.
pub(super) struct Run<'a> {
    run: &'a dyn RowRun,
    pub(super) row_count: usize,
    pub(super) cancel: &'a Cancel,
    specs: &'a [ColumnSpec],
    /// Where each column is, and of which types; `None` where the run lacks it.
    found: Rc<[Option<(usize, TypeSet)>]>,
    slots: Vec<OnceCell<Slot>>,
    picked: Option<Picked<'a>>,
}

/// Which rows of another run a run is.
struct Picked<'a> {
    of: &'a Run<'a>,
    /// Their positions in it, ascending.
    rows: Vec<u32>,
    /// Their positions among all rows, where those are others.
    absolute: Option<Vec<u32>>,
}

impl<'a> Run<'a> {
    /// Checks that the run's types fit under the plan's. The places are where columns were in the run before.
    pub(super) fn open(
        run: &'a dyn RowRun,
        specs: &'a [ColumnSpec],
        places: &mut Vec<usize>,
        cancel: &'a Cancel,
    ) -> Result<Self, Stop> {
        let row_count = run.rows();
        if u32::try_from(row_count).is_err() {
            return Err(Stop::Unreadable(format!("it has {row_count} rows, more than {}", u32::MAX)));
        }
        // Rows that are only counted need not be there to be read, and every run has times.
        if specs.iter().any(|spec| spec.name != TIME_COLUMN) {
            run.ready().map_err(|error| Stop::Unreadable(error.to_string()))?;
        }
        places.resize(specs.len(), 0);
        let find = |(spec, place): (&ColumnSpec, &mut usize)| {
            let held = spec.lengths_of.map_or(spec, |source| &specs[source]);
            let found = run.find(&held.name, *place)?;
            *place = found.0;
            let is_derived = spec.lengths_of.is_some();
            Some(if is_derived { (found.0, TypeSet::of(ColumnType::Int, false)) } else { found })
        };
        let found: Rc<[_]> = specs.iter().zip(places).map(find).collect();
        for (spec, found) in specs.iter().zip(&*found) {
            let Some((_, types)) = found else { continue };
            let held = types.union(TypeSet::of(spec.column_type, false)).resolve();
            if let Some(held) = held.filter(|held| *held != spec.column_type) {
                let column = spec.name.clone();
                return Err(Stop::Failed(ScanError::StalePlan { column, plan: spec.column_type, held }));
            }
        }
        let slots = specs.iter().map(|_| OnceCell::new()).collect();
        Ok(Run { run, row_count, cancel, specs, found, slots, picked: None })
    }

    /// Some of its rows, by ascending position, as a run of their own. Whatever is then read is read of them alone.
    pub(super) fn pick(&self, rows: Vec<u32>) -> Run<'_> {
        let absolute = self.picked.as_ref().map(|picked| {
            let before = picked.absolute.as_deref().unwrap_or(&picked.rows);
            rows.iter().map(|row| before[*row as usize]).collect()
        });
        let slots = self.specs.iter().map(|_| OnceCell::new()).collect();
        Run {
            run: self.run,
            row_count: rows.len(),
            cancel: self.cancel,
            specs: self.specs,
            found: Rc::clone(&self.found),
            slots,
            picked: Some(Picked { of: self, rows, absolute }),
        }
    }

    pub(super) fn time_range(&self) -> (i64, i64) {
        self.run.time_range()
    }

    /// True when the run lacks the column; then it reads as NULL.
    pub(super) fn is_missing(&self, column: usize) -> bool {
        self.held(column).is_none()
    }

    /// The type of a column's values in the run.
    fn held(&self, column: usize) -> Option<ColumnType> {
        self.found[column].and_then(|(_, types)| types.resolve())
    }

    /// A column that the run itself holds, not one that is worked out of another.
    fn held_spec(&self, column: usize) -> Option<&ColumnSpec> {
        Some(&self.specs[column]).filter(|spec| spec.lengths_of.is_none())
    }

    /// The range of a column's values, when the run holds it in the plan's type and knows.
    pub(super) fn int_range(&self, column: usize) -> Option<(i64, i64)> {
        if self.picked.is_some() {
            return None;
        }
        let (spec, (place, types)) = (self.held_spec(column)?, self.found[column]?);
        let is_same = types.resolve() == Some(spec.column_type);
        if is_same { self.run.int_range(&spec.name, place) } else { None }
    }

    /// False when the run certainly has no row with this text in a column, or with one that begins with it.
    pub(super) fn may_hold_text(&self, column: usize, value: &str, is_prefix: bool) -> bool {
        let is_text = self.held(column) == Some(ColumnType::String);
        !is_text || self.run.may_hold_text(&self.specs[column].name, value, is_prefix)
    }

    /// The sum of a column's values and its rows without value, when the run holds it as ints and knows.
    pub(super) fn int_sum(&self, column: usize) -> Option<(i128, u64)> {
        if self.picked.is_some() {
            return None;
        }
        let (spec, (place, types)) = (self.held_spec(column)?, self.found[column]?);
        let is_int = types.resolve() == Some(ColumnType::Int) && spec.column_type == ColumnType::Int;
        if is_int { self.run.int_sum(&spec.name, place) } else { None }
    }

    pub(super) fn spec(&self, column: usize) -> &ColumnSpec {
        &self.specs[column]
    }

    /// A column, loaded when it is first asked for.
    pub(super) fn slot(&self, column: usize) -> Result<&Slot, Stop> {
        let cell = &self.slots[column];
        if let Some(slot) = cell.get() {
            return Ok(slot);
        }
        let slot = match self.loaded(column) {
            Some((slot, rows)) => Slot::new(slot.column.pick(&rows), slot.held, slot.cast_to),
            None => match self.specs[column].lengths_of {
                Some(source) if !self.is_missing(column) => {
                    Slot::new(self.slot(source)?.lengths(self.row_count)?, ColumnType::Int, None)
                }
                _ => self.load(column)?,
            },
        };
        Ok(cell.get_or_init(|| slot))
    }

    /// A column of a run that this one is a part of, if it was loaded there, and this run's rows in it.
    fn loaded(&self, column: usize) -> Option<(&Slot, Cow<'_, [u32]>)> {
        let picked = self.picked.as_ref()?;
        match picked.of.slots[column].get() {
            Some(slot) => Some((slot, Cow::Borrowed(&picked.rows))),
            None => {
                let (slot, rows) = picked.of.loaded(column)?;
                Some((slot, picked.rows.iter().map(|row| rows[*row as usize]).collect()))
            }
        }
    }

    fn load(&self, column: usize) -> Result<Slot, Stop> {
        let (spec, held) = (&self.specs[column], self.held(column));
        let unreadable = |error: String| Stop::Unreadable(format!("column `{}`: {error}", spec.name));
        let column = match &self.picked {
            None => self.run.column(&spec.name),
            Some(picked) => {
                self.run.column_at(&spec.name, picked.absolute.as_deref().unwrap_or(&picked.rows))
            }
        };
        let column = column.map_err(|error| unreadable(error.to_string()))?;
        let (Some(held), Some(column)) = (held, column) else {
            return Ok(Slot::missing(spec.column_type));
        };
        let row_count = self.row_count;
        let found = match &column {
            Column::Constant(value) if value.len() == 1 => row_count,
            Column::Constant(value) => {
                return Err(unreadable(format!("a constant of {} values", value.len())));
            }
            Column::Packed { codes, .. }
            | Column::Dictionary { codes, .. }
            | Column::IntDictionary { codes, .. }
            | Column::FloatDictionary { codes, .. }
            | Column::Decimal { codes, .. } => codes.len(),
            Column::Text(text) => text.len(),
            Column::Lists { offsets, .. } => offsets.len() - 1,
            Column::Plain(array) => array.len(),
        };
        if found != row_count {
            return Err(unreadable(format!("it has {found} values in {row_count} rows")));
        }
        let cast_to = (held != spec.column_type).then_some(spec.column_type);
        match (column, cast_to) {
            (Column::Constant(value), Some(to)) => {
                Ok(Slot::new(Column::Constant(cast(&with_type(value, held), to)?), to, None))
            }
            (Column::Constant(value), None) => {
                Ok(Slot::new(Column::Constant(with_type(value, held)), held, None))
            }
            (column, cast_to) => Ok(Slot::new(column, held, cast_to)),
        }
    }

    /// A column's values at some rows.
    pub(super) fn array(&self, column: usize, rows: Rows<'_>) -> Result<ArrayRef, Stop> {
        self.slot(column)?.array(rows, self.row_count)
    }

    /// An expression's values at some rows, row by row.
    pub(super) fn evaluate(&self, compiled: &Compiled, rows: Rows<'_>) -> Result<ArrayRef, Stop> {
        let row_count = rows.len();
        let arrays: Vec<ArrayRef> =
            compiled.columns.iter().map(|column| self.array(*column, rows)).collect::<Result<_, _>>()?;
        self.evaluate_over(compiled, arrays, row_count)
    }

    /// An expression's values over arrays of its columns, so many rows at a time that a deadline is met in between.
    pub(super) fn evaluate_over(
        &self,
        compiled: &Compiled,
        arrays: Vec<ArrayRef>,
        row_count: usize,
    ) -> Result<ArrayRef, Stop> {
        let evaluate = |arrays, count| -> Result<ArrayRef, Stop> {
            self.look()?;
            let begun = Instant::now();
            let values = compiled.evaluate(arrays, count)?;
            compiled.pace.took(count, begun.elapsed());
            Ok(values)
        };
        if row_count <= compiled.pace.rows() || arrays.iter().any(|array| array.len() != row_count) {
            return evaluate(arrays, row_count);
        }
        let (mut parts, mut start) = (Vec::new(), 0);
        while start < row_count {
            let count = compiled.pace.rows().min(row_count - start);
            parts.push(evaluate(arrays.iter().map(|array| array.slice(start, count)).collect(), count)?);
            start += count;
        }
        let parts: Vec<&dyn Array> = parts.iter().map(|part| &**part).collect();
        Ok(arrow::compute::concat(&parts)?)
    }

    /// Stops when the deadline has come.
    pub(super) fn look(&self) -> Result<(), Stop> {
        if self.cancel.is_cancelled() { Err(Stop::Cancelled) } else { Ok(()) }
    }
}
