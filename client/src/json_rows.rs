//! Rows that came as JSON, made into a record batch.
//!
//! The types that users know (`int`, `float`, `bool`, `string`, `strings`, `time`) get their Arrow types. Of other types
//! JSON keeps less than Arrow: they become what their values look like, and their exact text where they look like nothing
//! in particular.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListBuilder, RecordBatch, RecordBatchOptions,
    StringArray, StringBuilder, TimestampNanosecondArray, UInt64Array,
};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use arrow::json::reader::infer_json_schema_from_iterator;
use serde::Deserialize;
use serde_json::{Value, json};

/// A column as the server names it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    #[serde(default, rename = "type")]
    pub(crate) type_name: String,
}

/// The rows as one batch.
pub(crate) fn batch(columns: &[Column], rows: Vec<Vec<Value>>) -> Result<(SchemaRef, RecordBatch), String> {
    let wrong = rows.iter().enumerate().find(|(_, row)| row.len() != columns.len());
    if let Some((index, row)) = wrong {
        return Err(format!("row {index} has {} values for {} columns", row.len(), columns.len()));
    }
    let row_count = rows.len();
    let mut values: Vec<Vec<Value>> = columns.iter().map(|_| Vec::with_capacity(row_count)).collect();
    for row in rows {
        for (column, value) in values.iter_mut().zip(row) {
            column.push(value);
        }
    }
    let arrays: Vec<ArrayRef> =
        columns.iter().zip(&values).map(|(column, values)| array(&column.type_name, values)).collect();
    let fields = columns.iter().zip(&arrays);
    let fields: Vec<Field> =
        fields.map(|(column, array)| Field::new(&column.name, array.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let options = RecordBatchOptions::new().with_row_count(Some(row_count));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options);
    Ok((schema, batch.map_err(|error| error.to_string())?))
}

fn array(type_name: &str, values: &[Value]) -> ArrayRef {
    let known = match type_name {
        "bool" => bools(values),
        "int" => ints(values),
        "float" => floats(values),
        "string" => strings(values),
        "strings" => lists(values),
        "time" => times(values),
        _ => None,
    };
    known.or_else(|| as_they_look(values)).unwrap_or_else(|| texts(values))
}

/// An array of all values, unless one of them is of another type.
fn each<T, A: FromIterator<Option<T>>>(values: &[Value], read: impl Fn(&Value) -> Option<T>) -> Option<A> {
    let read = |value: &Value| if value.is_null() { Some(None) } else { read(value).map(Some) };
    values.iter().map(read).collect()
}

fn bools(values: &[Value]) -> Option<ArrayRef> {
    each::<_, BooleanArray>(values, Value::as_bool).map(|array| Arc::new(array) as ArrayRef)
}

fn ints(values: &[Value]) -> Option<ArrayRef> {
    let signed = each::<_, Int64Array>(values, Value::as_i64).map(|array| Arc::new(array) as ArrayRef);
    signed.or_else(|| each::<_, UInt64Array>(values, Value::as_u64).map(|array| Arc::new(array) as ArrayRef))
}

fn floats(values: &[Value]) -> Option<ArrayRef> {
    let read = |value: &Value| match value {
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        other => other.as_f64(),
    };
    each::<_, Float64Array>(values, read).map(|array| Arc::new(array) as ArrayRef)
}

fn strings(values: &[Value]) -> Option<ArrayRef> {
    let read: Option<Vec<Option<&str>>> = values
        .iter()
        .map(|value| if value.is_null() { Some(None) } else { value.as_str().map(Some) })
        .collect();
    read.map(|texts| Arc::new(StringArray::from(texts)) as ArrayRef)
}

fn lists(values: &[Value]) -> Option<ArrayRef> {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for value in values {
        if value.is_null() {
            builder.append_null();
            continue;
        }
        for item in value.as_array()? {
            match item {
                Value::Null => builder.values().append_null(),
                other => builder.values().append_value(other.as_str()?),
            }
        }
        builder.append(true);
    }
    Some(Arc::new(builder.finish()))
}

fn times(values: &[Value]) -> Option<ArrayRef> {
    let read = |value: &Value| string_to_timestamp_nanos(value.as_str()?).ok();
    let array: TimestampNanosecondArray = each(values, read)?;
    Some(Arc::new(array.with_timezone("+00:00")))
}

/// What Arrow makes of JSON values of which nothing is known.
fn as_they_look(values: &[Value]) -> Option<ArrayRef> {
    if values.iter().all(|value| value.is_null() || value.is_string()) {
        return strings(values);
    }
    let rows: Vec<Value> = values.iter().map(|value| json!({ "value": value })).collect();
    let schema = infer_json_schema_from_iterator(rows.iter().map(Ok)).ok()?;
    if schema.field_with_name("value").ok()?.data_type() == &DataType::Null {
        return None;
    }
    let mut decoder =
        ReaderBuilder::new(Arc::new(schema)).with_batch_size(rows.len().max(1)).build_decoder().ok()?;
    decoder.serialize(&rows).ok()?;
    let batch = decoder.flush().ok()??;
    (batch.num_rows() == values.len()).then(|| Arc::clone(batch.column(0)))
}

fn texts(values: &[Value]) -> ArrayRef {
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    Arc::new(values.iter().map(text).collect::<StringArray>())
}

#[cfg(test)]
mod tests {
    use arrow::util::display::array_value_to_string;

    use super::*;

    fn check(type_name: &str, values: Value, data_type: &str, shown: &[&str]) {
        let column = Column { name: "c".to_owned(), type_name: type_name.to_owned() };
        let rows = values.as_array().unwrap().iter().map(|value| vec![value.clone()]).collect();
        let (schema, batch) = batch(&[column], rows).unwrap();
        assert_eq!(schema.field(0).data_type().to_string(), data_type);
        let texts: Vec<String> =
            (0..batch.num_rows()).map(|row| array_value_to_string(batch.column(0), row).unwrap()).collect();
        assert_eq!(texts, shown);
    }

    #[test]
    fn types_that_users_know() {
        check("int", json!([1, null, -3]), "Int64", &["1", "", "-3"]);
        check("int", json!([u64::MAX]), "UInt64", &["18446744073709551615"]);
        check("float", json!([1.5, "NaN", "-Infinity", 2]), "Float64", &["1.5", "NaN", "-inf", "2.0"]);
        check("bool", json!([true, null]), "Boolean", &["true", ""]);
        check("string", json!(["a", null]), "Utf8", &["a", ""]);
        check("strings", json!([["a", null], null, []]), "List(Utf8)", &["[a, ]", "", "[]"]);
        check(
            "time",
            json!(["2026-11-21T09:00:00.5Z", null]),
            "Timestamp(ns, \"+00:00\")",
            &["2026-11-21T09:00:00.500Z", ""],
        );
    }

    #[test]
    fn other_types_become_what_they_look_like() {
        check("Decimal128(10, 2)", json!([1.25, null]), "Float64", &["1.25", ""]);
        check("Date32", json!(["2026-11-21"]), "Utf8", &["2026-11-21"]);
        check("Null", json!([null, null]), "Utf8", &["", ""]);
        // The server contradicts itself; nothing is lost.
        check("int", json!(["x", 1]), "Utf8", &["x", "1"]);
        let column = Column { name: "h".to_owned(), type_name: "List(Struct)".to_owned() };
        let rows = vec![vec![json!([{"lower": 0.0, "count": 2}])], vec![json!(null)], vec![json!([])]];
        let (_, batch) = batch(&[column], rows).unwrap();
        assert!(matches!(batch.column(0).data_type(), DataType::List(_)), "{:?}", batch.schema());
        assert_eq!((batch.num_rows(), batch.column(0).null_count()), (3, 1));
    }

    #[test]
    fn no_columns_and_no_rows() {
        let (_, empty) = batch(&[], vec![]).unwrap();
        assert_eq!((empty.num_rows(), empty.num_columns()), (0, 0));
        check("int", json!([]), "Int64", &[]);
        check("Interval", json!([]), "Utf8", &[]);
    }
}
