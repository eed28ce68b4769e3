//! What a column of any Arrow type becomes.
//!
//! | Arrow type | column type |
//! | --- | --- |
//! | booleans | bool |
//! | integers | int; a column with larger unsigned ones is float if each is exactly a float, else string |
//! | floats | float |
//! | decimals | float if no value has more digits than 2^53, else string; int if there is no fraction and all fit |
//! | texts | string |
//! | bytes | string: the text if they are UTF-8, else hexadecimal digits |
//! | dates, times, timestamps, intervals | string: RFC 3339, dates as `2026-09-22`, times of day as `12:00:00` |
//! | durations | int, in the unit they come in |
//! | lists | strings: items as text, NULL as `null`, nested items as JSON |
//! | maps | string: a JSON object |
//! | dictionaries | what their values become |
//!
//! A column without any value becomes nothing.

use std::sync::Arc;

use arrow::array::{
    AnyDictionaryArray, Array, ArrayRef, AsArray, GenericByteArray, Int64Array, ListArray, StringArray,
    StringBuilder,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{ByteArrayType, DataType, Date64Type, Float64Type, Int64Type, TimeUnit, UInt64Type};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, make_encoder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use gannet_query::rfc3339::format_time;
use gannet_query::value::EXACT_INT_MAX;

use super::columns::{Scalar, item_field, wide_integer};

/// The column in one of the Arrow types of the column types; `None` when it has no value.
pub(super) fn normalise(array: &ArrayRef) -> Result<Option<ArrayRef>, ArrowError> {
    if array.data_type() == &DataType::Null || array.null_count() == array.len() {
        return Ok(None);
    }
    Ok(Some(match array.data_type() {
        DataType::Boolean | DataType::Int64 | DataType::Float64 | DataType::Utf8 => Arc::clone(array),
        DataType::UInt64 => unsigned(array)?,
        other if other.is_integer() => cast(array, &DataType::Int64)?,
        other if other.is_floating() => cast(array, &DataType::Float64)?,
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => decimal(array)?,
        DataType::LargeUtf8 | DataType::Utf8View => cast(array, &DataType::Utf8)?,
        DataType::Binary => bytes(array.as_binary::<i32>()),
        DataType::LargeBinary => bytes(array.as_binary::<i64>()),
        DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            bytes(cast(array, &DataType::Binary)?.as_binary::<i32>())
        }
        DataType::Timestamp(unit, _) => timestamps(array, *unit)?,
        DataType::Date64 => {
            let is_whole = |value: i64| value.rem_euclid(86_400_000) == 0;
            if array.as_primitive::<Date64Type>().iter().flatten().all(is_whole) {
                cast(&cast(array, &DataType::Date32)?, &DataType::Utf8)?
            } else {
                timestamps(
                    &cast(array, &DataType::Timestamp(TimeUnit::Millisecond, None))?,
                    TimeUnit::Millisecond,
                )?
            }
        }
        DataType::Duration(_) => cast(array, &DataType::Int64)?,
        DataType::Date32 | DataType::Time32(_) | DataType::Time64(_) | DataType::Interval(_) => {
            displayed(array)?
        }
        DataType::Dictionary(_, values) => return normalise(&cast(array, values)?),
        DataType::Map(field, _) => {
            let texts = nested_texts(array, field)?;
            let texts = texts.iter().enumerate();
            Arc::new(texts.map(|(row, text)| text.filter(|_| array.is_valid(row))).collect::<StringArray>())
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => lists(array)?,
        other => return Err(ArrowError::NotYetImplemented(format!("values of type {other}"))),
    }))
}

fn unsigned(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let values = array.as_primitive::<UInt64Type>();
    if values.iter().flatten().all(|value| i64::try_from(value).is_ok()) {
        return cast(array, &DataType::Int64);
    }
    let is_exact = |value: u64| matches!(wide_integer(&value.to_string()), Scalar::Float(_));
    let target = if values.iter().flatten().all(is_exact) { DataType::Float64 } else { DataType::Utf8 };
    cast(array, &target)
}

fn decimal(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let scale = match array.data_type() {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => *scale,
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => *scale,
        _ => 0,
    };
    let texts = cast(array, &DataType::Utf8)?;
    let digits = texts.as_string::<i32>();
    if scale <= 0 {
        let ints: Option<Vec<Option<i64>>> =
            digits.iter().map(|text| text.map_or(Some(None), |text| text.parse().ok().map(Some))).collect();
        return Ok(ints.map_or(Arc::clone(&texts), |ints| Arc::new(Int64Array::from(ints))));
    }
    // Up to 2^53 the digits come back from the float; it is what the same number in JSON becomes.
    let is_exact = |text: &str| {
        let unscaled = text.bytes().filter(u8::is_ascii_digit);
        unscaled.fold(0_i64, |sum, digit| sum.saturating_mul(10).saturating_add(i64::from(digit - b'0')))
            <= EXACT_INT_MAX
    };
    if !digits.iter().flatten().all(is_exact) {
        return Ok(texts);
    }
    let floats = digits.iter().map(|text| text.and_then(|text| text.parse::<f64>().ok()));
    Ok(Arc::new(floats.collect::<arrow::array::Float64Array>()))
}

fn bytes<T: ByteArrayType<Native = [u8]>>(array: &GenericByteArray<T>) -> ArrayRef {
    let mut texts = StringBuilder::with_capacity(array.len(), 0);
    let mut hex = String::new();
    for value in array.iter() {
        match value.map(|value| std::str::from_utf8(value).map_err(|_| value)) {
            None => texts.append_null(),
            Some(Ok(text)) => texts.append_value(text),
            Some(Err(bytes)) => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                hex.clear();
                for byte in bytes {
                    hex.extend([byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)])));
                }
                texts.append_value(&hex);
            }
        }
    }
    Arc::new(texts.finish())
}

pub(super) fn unit_nanoseconds(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// The plain numbers of a timestamp column.
pub(super) fn timestamp_values(array: &ArrayRef, unit: TimeUnit) -> Result<Int64Array, ArrowError> {
    // Casting away the zone first would shift the values; reinterpreting them does not.
    let data = array.to_data().into_builder().data_type(DataType::Timestamp(unit, None)).build()?;
    let ints = cast(&arrow::array::make_array(data), &DataType::Int64)?;
    Ok(ints.as_primitive::<Int64Type>().clone())
}

fn timestamps(array: &ArrayRef, unit: TimeUnit) -> Result<ArrayRef, ArrowError> {
    let values = timestamp_values(array, unit)?;
    let text = |value: i64| {
        let nanoseconds = i128::from(value) * unit_nanoseconds(unit);
        match i64::try_from(nanoseconds) {
            Ok(nanoseconds) => format_time(nanoseconds),
            // Beyond the years a row's time can have, seconds are all that is left to say.
            Err(_) => far_time(nanoseconds).unwrap_or_else(|| nanoseconds.to_string()),
        }
    };
    Ok(Arc::new(values.iter().map(|value| value.map(text)).collect::<StringArray>()))
}

fn far_time(nanoseconds: i128) -> Option<String> {
    let seconds = i64::try_from(nanoseconds.div_euclid(1_000_000_000)).ok()?;
    let rest = u32::try_from(nanoseconds.rem_euclid(1_000_000_000)).ok()?;
    Some(chrono::DateTime::from_timestamp(seconds, rest)?.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string())
}

/// Texts as Arrow displays the values.
fn displayed(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options)?;
    let mut texts = StringBuilder::with_capacity(array.len(), array.len() * 10);
    for row in 0..array.len() {
        if array.is_null(row) {
            texts.append_null();
        } else {
            texts.append_value(formatter.value(row).try_to_string()?);
        }
    }
    Ok(Arc::new(texts.finish()))
}

/// The keys of a dictionary of any key type.
pub(super) fn dictionary_keys(dictionary: &dyn AnyDictionaryArray) -> Result<Int64Array, ArrowError> {
    let keys = cast(dictionary.keys(), &DataType::Int64)?;
    Ok(keys.as_primitive::<Int64Type>().clone())
}

fn lists(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let place = |offset: i64| usize::try_from(offset).unwrap_or(0);
    let (ends, items): (Vec<usize>, &ArrayRef) = match array.data_type() {
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            (list.offsets().iter().map(|end| place(*end)).collect(), list.values())
        }
        DataType::FixedSizeList(_, length) => {
            let list = array.as_fixed_size_list();
            let length = usize::try_from(*length).unwrap_or(0);
            ((0..=list.len()).map(|row| row * length).collect(), list.values())
        }
        _ => {
            let list = array.as_list::<i32>();
            (list.offsets().iter().map(|end| place(i64::from(*end))).collect(), list.values())
        }
    };
    let (first, last) = (ends.first().copied().unwrap_or(0), ends.last().copied().unwrap_or(0));
    let texts = item_texts(&items.slice(first, last.saturating_sub(first)))?;
    let mut kept = StringBuilder::new();
    let mut offsets: Vec<i32> = vec![0];
    let mut count = 0_i32;
    for (row, span) in ends.windows(2).enumerate() {
        // What a NULL list points at is not part of it.
        for item in (span[0] - first..span[1] - first).filter(|_| array.is_valid(row)) {
            kept.append_value(texts.value(item));
            count += 1;
        }
        offsets.push(count);
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    let nulls = array.nulls().cloned();
    Ok(Arc::new(ListArray::try_new(item_field(), offsets, Arc::new(kept.finish()), nulls)?))
}

/// Items as texts, without NULLs.
fn item_texts(items: &ArrayRef) -> Result<StringArray, ArrowError> {
    if let DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) =
        items.data_type()
    {
        return nested_texts(items, field);
    }
    if let DataType::Map(field, _) = items.data_type() {
        return nested_texts(items, field);
    }
    if let DataType::Struct(_) = items.data_type() {
        let field = Arc::new(arrow::datatypes::Field::new("item", items.data_type().clone(), true));
        return nested_texts(items, &field);
    }
    let Some(values) = normalise(items)? else {
        return Ok(std::iter::repeat_n(Some("null"), items.len()).collect());
    };
    let mut texts = StringBuilder::with_capacity(values.len(), values.len() * 8);
    let mut text = Vec::new();
    for item in 0..values.len() {
        let value = match values.data_type() {
            _ if values.is_null(item) => Scalar::Text("null"),
            DataType::Boolean => Scalar::Bool(values.as_boolean().value(item)),
            DataType::Int64 => Scalar::Int(values.as_primitive::<Int64Type>().value(item)),
            DataType::Float64 => Scalar::Float(values.as_primitive::<Float64Type>().value(item)),
            _ => Scalar::Text(values.as_string::<i32>().value(item)),
        };
        text.clear();
        value.write_text(&mut text);
        texts.append_value(String::from_utf8_lossy(&text));
    }
    Ok(texts.finish())
}

/// Values as compact JSON, `null` for NULL.
fn nested_texts(array: &ArrayRef, field: &arrow::datatypes::FieldRef) -> Result<StringArray, ArrowError> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(field, array.as_ref(), &options)?;
    let mut texts = StringBuilder::with_capacity(array.len(), array.len() * 16);
    let mut json = Vec::new();
    for row in 0..array.len() {
        json.clear();
        if encoder.is_null(row) {
            json.extend_from_slice(b"null");
        } else {
            encoder.encode(row, &mut json);
        }
        texts.append_value(String::from_utf8_lossy(&json));
    }
    Ok(texts.finish())
}
