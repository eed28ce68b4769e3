//! Between Arrow arrays and the few plain forms that states keep.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListBuilder, StringArray, StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};

use crate::{QueryError, Value};

/// The plain form a type is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// i64: ints of all sizes that fit, bools, times, dates.
    Int,
    /// f64.
    Float,
    /// UTF-8 text.
    Text,
    /// A list of texts.
    Texts,
}

/// The plain form of a type, if it has one.
pub(crate) fn kind_of(data_type: &DataType) -> Option<Kind> {
    match data_type {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Timestamp(..)
        | DataType::Date32
        | DataType::Date64
        | DataType::Duration(_)
        | DataType::Time32(_)
        | DataType::Time64(_) => Some(Kind::Int),
        DataType::Float32 | DataType::Float64 => Some(Kind::Float),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Kind::Text),
        DataType::List(item) if item.data_type() == &DataType::Utf8 => Some(Kind::Texts),
        _ => None,
    }
}

/// The plain form of a type, or an error that names the function.
pub(crate) fn kind_for(function: &str, data_type: &DataType) -> Result<Kind, QueryError> {
    kind_of(data_type).ok_or_else(|| QueryError::UnsupportedType {
        function: function.to_owned(),
        data_type: data_type.to_string(),
    })
}

/// An array of ints, bools, times or dates as Int64. UInt64 beyond i64 becomes NULL, which no column holds.
pub(crate) fn to_ints(array: &ArrayRef) -> Result<Int64Array, QueryError> {
    let ints = match array.data_type() {
        DataType::Int64 => Arc::clone(array),
        // Arrow has no direct cast for these; their storage is 32 bits wide.
        DataType::Date32 | DataType::Time32(_) => cast(array, &DataType::Int32)
            .and_then(|array| cast(&array, &DataType::Int64))
            .map_err(|error| mismatch(array.data_type(), &error))?,
        _ => cast(array, &DataType::Int64).map_err(|error| mismatch(array.data_type(), &error))?,
    };
    Ok(ints.as_primitive::<Int64Type>().clone())
}

/// Int64 back to the type it came from.
pub(crate) fn from_ints(ints: Int64Array, data_type: &DataType) -> Result<ArrayRef, QueryError> {
    let ints: ArrayRef = Arc::new(ints);
    match data_type {
        DataType::Int64 => Ok(ints),
        DataType::Date32 | DataType::Time32(_) => {
            cast(&ints, &DataType::Int32).and_then(|array| cast(&array, data_type))
        }
        _ => cast(&ints, data_type),
    }
    .map_err(|error| mismatch(data_type, &error))
}

/// An array of floats as Float64.
pub(crate) fn to_floats(array: &ArrayRef) -> Result<Float64Array, QueryError> {
    let floats = cast(array, &DataType::Float64).map_err(|error| mismatch(array.data_type(), &error))?;
    Ok(floats.as_primitive::<Float64Type>().clone())
}

/// An array of texts as Utf8.
pub(crate) fn to_texts(array: &ArrayRef) -> Result<StringArray, QueryError> {
    let texts = cast(array, &DataType::Utf8).map_err(|error| mismatch(array.data_type(), &error))?;
    Ok(texts.as_string::<i32>().clone())
}

fn mismatch(data_type: &DataType, error: &arrow::error::ArrowError) -> QueryError {
    QueryError::Mismatch(format!("values of type {data_type}: {error}"))
}

/// One value of an array in its plain form.
pub(crate) fn value_at(array: &ArrayRef, kind: Kind, index: usize) -> Value {
    if array.is_null(index) {
        return Value::Null;
    }
    let one = array.slice(index, 1);
    let value = match kind {
        Kind::Int => match array.data_type() {
            DataType::Int64 => Ok(Value::Int(array.as_primitive::<Int64Type>().value(index))),
            DataType::Int32 => Ok(Value::Int(i64::from(array.as_primitive::<Int32Type>().value(index)))),
            _ => to_ints(&one).map(|ints| Value::Int(ints.value(0))),
        },
        Kind::Float => to_floats(&one).map(|floats| Value::Float(floats.value(0))),
        Kind::Text => to_texts(&one).map(|texts| Value::String(texts.value(0).to_owned())),
        Kind::Texts => {
            let items = one.as_list::<i32>().value(0);
            let items = items.as_string::<i32>();
            Ok(Value::Strings(items.iter().map(|item| item.unwrap_or_default().to_owned()).collect()))
        }
    };
    value.unwrap_or(Value::Null)
}

/// Values of one kind as an array of a type.
pub(crate) fn values_to_array(values: &[Value], data_type: &DataType) -> Result<ArrayRef, QueryError> {
    let kind = kind_for("first and last", data_type)?;
    match kind {
        Kind::Int => {
            let ints = values.iter().map(|value| match value {
                Value::Int(int) => Some(*int),
                _ => None,
            });
            from_ints(ints.collect(), data_type)
        }
        Kind::Float => {
            let floats: Float64Array = values
                .iter()
                .map(|value| match value {
                    Value::Float(float) => Some(*float),
                    _ => None,
                })
                .collect();
            cast(&floats, data_type).map_err(|error| mismatch(data_type, &error))
        }
        Kind::Text => {
            let texts: StringArray = values
                .iter()
                .map(|value| match value {
                    Value::String(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect();
            cast(&texts, data_type).map_err(|error| mismatch(data_type, &error))
        }
        Kind::Texts => {
            let mut lists = ListBuilder::new(StringBuilder::new());
            for value in values {
                match value {
                    Value::Strings(items) => lists.append_value(items.iter().map(Some)),
                    _ => lists.append_null(),
                }
            }
            Ok(Arc::new(lists.finish()))
        }
    }
}

/// An order over values of one kind: NULL last, floats in total order.
pub(crate) fn compare(a: &Value, b: &Value) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Greater,
        (_, Value::Null) => Ordering::Less,
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Strings(a), Value::Strings(b)) => a.cmp(b),
        // One state holds values of one kind only.
        _ => Ordering::Equal,
    }
}

/// A boolean array of a flag a group.
pub(crate) fn flags(values: &[bool]) -> ArrayRef {
    Arc::new(BooleanArray::from(values.to_vec()))
}

/// An array of the wire as the type it must have, with the length it must have.
pub(crate) fn expect<'a>(
    arrays: &'a [ArrayRef],
    index: usize,
    data_type: &DataType,
) -> Result<&'a ArrayRef, QueryError> {
    let array = arrays.get(index).ok_or_else(|| {
        QueryError::Mismatch(format!("state has {} arrays, not {}", arrays.len(), index + 1))
    })?;
    if array.data_type() != data_type || array.len() != arrays[0].len() {
        return Err(QueryError::Mismatch(format!(
            "state array {index} is {} of {}, not {} of {data_type}",
            array.len(),
            array.data_type(),
            arrays[0].len()
        )));
    }
    Ok(array)
}

/// Refuses NULLs where a state cannot have them.
pub(crate) fn without_nulls(array: &ArrayRef) -> Result<&ArrayRef, QueryError> {
    match array.null_count() {
        0 => Ok(array),
        nulls => Err(QueryError::Mismatch(format!("state array has {nulls} NULLs, not 0"))),
    }
}
