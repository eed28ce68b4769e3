//! Values on their way up the ladder of column types: bool → int → float → string → strings.
//!
//! A column may change type; every run of rows keeps its own, and this is how a run's values become values of the
//! least type that holds them all (`gannet_query::TypeSet::resolve`). The same value gives the same text wherever
//! it is cast. Nothing is ever lost: int → float is exact because callers send integers beyond ±2^53 to string.
//!
//! | from | to | value |
//! | --- | --- | --- |
//! | bool | int, float | true is 1, false is 0 |
//! | bool | string | `true`, `false` |
//! | int | float | the same number |
//! | int | string | decimal digits |
//! | float | string | the shortest decimal digits that read back as the same float, without exponent; `1` for 1.0, `-0`, `NaN`, `inf`, `-inf` |
//! | time | string | RFC 3339, as in `gannet_query::rfc3339::format_time` |
//! | anything | strings | a list with its text |
//!
//! NULL stays NULL. Any other pair is an error, never a guess. A column of strings that came as a dictionary is unpacked.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListArray, StringArray, StringBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, TimestampNanosecondType};

use gannet_query::ColumnType;
use gannet_query::rfc3339::format_time;

use crate::coded_texts::is_coded;

/// Why a column could not be cast.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum CastError {
    /// The array is of none of the six column types.
    #[error("cannot read a column of Arrow type {0}")]
    ArrowType(DataType),
    /// The target is not above the source in the ladder of types.
    #[error("cannot cast a column from {} to {}", from.name(), to.name())]
    Direction {
        /// The type of the column.
        from: ColumnType,
        /// The type asked for.
        to: ColumnType,
    },
    /// The text of the cast column would not fit into one array.
    #[error("cannot cast a column of {rows} rows to string: its text exceeds {limit} bytes")]
    Size {
        /// Rows of the column.
        rows: usize,
        /// The most bytes of text in one array.
        limit: usize,
    },
}

/// Casts a column to a type at or above its own. The result has exactly the type `ColumnType::arrow` names, also
/// when the column came with another time zone or list field.
pub fn cast_column(array: &ArrayRef, to: ColumnType) -> Result<ArrayRef, CastError> {
    let from = held_type(array.data_type()).ok_or_else(|| CastError::ArrowType(array.data_type().clone()))?;
    if is_coded(array.data_type()) {
        let texts = arrow::compute::cast(array, &DataType::Utf8);
        let too_large = |_| CastError::Size { rows: array.len(), limit: i32::MAX as usize };
        return cast_column(&texts.map_err(too_large)?, to);
    }
    if from == to {
        return Ok(canonical(array, to));
    }
    match to {
        ColumnType::Int if from == ColumnType::Bool => Ok(Arc::new(bool_to_int(array.as_boolean()))),
        ColumnType::Float if from == ColumnType::Bool => {
            Ok(Arc::new(int_to_float(&bool_to_int(array.as_boolean()))))
        }
        ColumnType::Float if from == ColumnType::Int => Ok(Arc::new(int_to_float(array.as_primitive()))),
        ColumnType::String if from != ColumnType::Strings => Ok(Arc::new(to_text(array, from)?)),
        ColumnType::Strings if from == ColumnType::String => Ok(Arc::new(to_lists(array.as_string()))),
        ColumnType::Strings => Ok(Arc::new(to_lists(&to_text(array, from)?))),
        _ => Err(CastError::Direction { from, to }),
    }
}

/// The column type of what a leaf is given in an Arrow type; `None` when it takes no such columns.
pub(crate) fn held_type(data_type: &DataType) -> Option<ColumnType> {
    match is_coded(data_type) {
        true => Some(ColumnType::String),
        false => ColumnType::from_arrow(data_type),
    }
}

/// The field of the items of a `strings` column.
pub(crate) fn item_field() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Utf8, true))
}

/// Gives times the time zone, and lists the field, that the column type has everywhere else.
fn canonical(array: &ArrayRef, column_type: ColumnType) -> ArrayRef {
    let expected = column_type.arrow();
    if *array.data_type() == expected {
        return Arc::clone(array);
    }
    match column_type {
        ColumnType::Time => {
            let times = array.as_primitive::<TimestampNanosecondType>().clone();
            Arc::new(times.with_timezone("+00:00"))
        }
        ColumnType::Strings => {
            let list = array.as_list::<i32>();
            let (_, offsets, items, validity) = list.clone().into_parts();
            Arc::new(ListArray::new(item_field(), offsets, items, validity))
        }
        _ => Arc::clone(array),
    }
}

fn bool_to_int(bools: &BooleanArray) -> Int64Array {
    let values: Vec<i64> = bools.values().iter().map(i64::from).collect();
    Int64Array::new(values.into(), bools.nulls().cloned())
}

fn int_to_float(ints: &Int64Array) -> Float64Array {
    ints.unary(|value| value as f64)
}

/// A list of one text for every text.
fn to_lists(texts: &StringArray) -> ListArray {
    // A NULL text is an empty, NULL list.
    let offsets = OffsetBuffer::from_lengths((0..texts.len()).map(|row| usize::from(texts.is_valid(row))));
    let items: ArrayRef = match texts.nulls() {
        Some(_) => Arc::new(StringArray::from_iter_values(texts.iter().flatten())),
        None => Arc::new(texts.clone()),
    };
    ListArray::new(item_field(), offsets, items, texts.nulls().cloned())
}

fn to_text(array: &ArrayRef, from: ColumnType) -> Result<StringArray, CastError> {
    match from {
        ColumnType::Bool => {
            let bools = array.as_boolean();
            texts(array, |row, text| text.push_str(if bools.value(row) { "true" } else { "false" }))
        }
        ColumnType::Int => {
            let ints = array.as_primitive::<Int64Type>();
            texts(array, |row, text| display(ints.value(row), text))
        }
        ColumnType::Float => {
            let floats = array.as_primitive::<Float64Type>();
            texts(array, |row, text| display(floats.value(row), text))
        }
        ColumnType::Time => {
            let times = array.as_primitive::<TimestampNanosecondType>();
            texts(array, |row, text| text.push_str(&format_time(times.value(row))))
        }
        ColumnType::String | ColumnType::Strings => Ok(array.as_string().clone()),
    }
}

fn display(value: impl std::fmt::Display, text: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{value}");
}

/// One text for every row that has a value.
fn texts(array: &ArrayRef, write: impl Fn(usize, &mut String)) -> Result<StringArray, CastError> {
    let mut builder = StringBuilder::with_capacity(array.len(), array.len() * 8);
    let mut text = String::new();
    let mut bytes = 0_usize;
    for row in 0..array.len() {
        if array.is_null(row) {
            builder.append_null();
            continue;
        }
        text.clear();
        write(row, &mut text);
        bytes += text.len();
        // Floats have up to 328 digits, so even numbers can exceed what 32-bit offsets reach.
        if bytes > i32::MAX as usize {
            return Err(CastError::Size { rows: array.len(), limit: i32::MAX as usize });
        }
        builder.append_value(&text);
    }
    Ok(builder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ListBuilder, TimestampNanosecondArray};

    use ColumnType::*;

    fn bools() -> ArrayRef {
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))
    }

    fn ints(values: Vec<Option<i64>>) -> ArrayRef {
        Arc::new(Int64Array::from(values))
    }

    fn floats(values: Vec<Option<f64>>) -> ArrayRef {
        Arc::new(Float64Array::from(values))
    }

    fn strings(values: Vec<Option<&str>>) -> ArrayRef {
        Arc::new(StringArray::from(values))
    }

    fn lists(values: Vec<Option<Vec<&str>>>) -> ArrayRef {
        let mut builder = ListBuilder::new(StringBuilder::new());
        for value in values {
            builder.append_option(value.map(|items| items.into_iter().map(Some)));
        }
        Arc::new(builder.finish())
    }

    fn check(from: &ArrayRef, to: ColumnType, expect: &ArrayRef) {
        let cast = cast_column(from, to).expect("a cast up the ladder");
        assert_eq!(cast.data_type(), &to.arrow());
        assert_eq!(&cast, expect);
    }

    #[test]
    fn every_step_up_keeps_the_value() {
        check(&bools(), Bool, &bools());
        check(&bools(), Int, &ints(vec![Some(1), None, Some(0)]));
        check(&bools(), Float, &floats(vec![Some(1.0), None, Some(0.0)]));
        check(&bools(), String, &strings(vec![Some("true"), None, Some("false")]));
        check(&bools(), Strings, &lists(vec![Some(vec!["true"]), None, Some(vec!["false"])]));
        let some = ints(vec![Some(-5), None, Some(1 << 53)]);
        check(&some, Float, &floats(vec![Some(-5.0), None, Some(9_007_199_254_740_992.0)]));
        check(&some, String, &strings(vec![Some("-5"), None, Some("9007199254740992")]));
        check(
            &ints(vec![Some(i64::MIN), Some(i64::MAX)]),
            String,
            &strings(vec![Some("-9223372036854775808"), Some("9223372036854775807")]),
        );
        check(&strings(vec![Some(""), None]), Strings, &lists(vec![Some(vec![""]), None]));
        check(&ints(vec![None, Some(7)]), Strings, &lists(vec![None, Some(vec!["7"])]));
    }

    #[test]
    fn floats_have_one_text() {
        check(
            &floats(vec![
                Some(1.0),
                Some(-0.0),
                Some(0.1),
                Some(1e21),
                Some(f64::NAN),
                Some(f64::NEG_INFINITY),
            ]),
            String,
            &strings(vec![
                Some("1"),
                Some("-0"),
                Some("0.1"),
                Some("1000000000000000000000"),
                Some("NaN"),
                Some("-inf"),
            ]),
        );
    }

    #[test]
    fn an_int_has_the_same_text_by_way_of_float() {
        for value in [0, 1, -1, 12_345, 1 << 53, -(1 << 53)] {
            let direct = cast_column(&ints(vec![Some(value)]), String);
            let float = cast_column(&ints(vec![Some(value)]), Float).expect("a cast up the ladder");
            assert_eq!(cast_column(&float, String), direct);
        }
    }

    #[test]
    fn times_and_lists_get_the_one_arrow_type() {
        let expect: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1]).with_timezone("+00:00"));
        check(&(Arc::new(TimestampNanosecondArray::from(vec![1])) as ArrayRef), Time, &expect);
        check(&expect, String, &strings(vec![Some("1970-01-01T00:00:00.000000001Z")]));

        let (_, offsets, items, validity) =
            lists(vec![Some(vec!["a", "b"]), None]).as_list::<i32>().clone().into_parts();
        let field = Arc::new(Field::new("element", DataType::Utf8, false));
        let foreign: ArrayRef = Arc::new(ListArray::new(field, offsets, items, validity));
        check(&foreign, Strings, &lists(vec![Some(vec!["a", "b"]), None]));
    }

    #[test]
    fn slices_are_cast_from_where_they_begin() {
        check(&bools().slice(2, 1), Int, &ints(vec![Some(0)]));
        check(
            &strings(vec![Some("a"), None, Some("c")]).slice(1, 2),
            Strings,
            &lists(vec![None, Some(vec!["c"])]),
        );
    }

    #[test]
    fn other_casts_are_errors() {
        let cases = [
            (ints(vec![Some(1)]), Bool, "cannot cast a column from int to bool"),
            (ints(vec![Some(1)]), Time, "cannot cast a column from int to time"),
            (floats(vec![Some(1.0)]), Int, "cannot cast a column from float to int"),
            (lists(vec![None]), String, "cannot cast a column from strings to string"),
            (strings(vec![None]), Float, "cannot cast a column from string to float"),
            (
                Arc::new(arrow::array::Int32Array::from(vec![1])),
                Int,
                "cannot read a column of Arrow type Int32",
            ),
        ];
        for (array, to, expect) in cases {
            assert_eq!(cast_column(&array, to).map_err(|error| error.to_string()), Err(expect.to_owned()));
        }
    }
}
