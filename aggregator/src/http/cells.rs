//! The values of a column as text: JSON values, and the fields of CSV.
//!
//! A column is looked at once, and its cells are then written straight into the buffer of the answer.

use std::io::Write;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, Float64Array, GenericListArray, Int64Array,
    LargeStringArray, OffsetSizeTrait, StringArray, StringViewArray, StructArray, TimestampNanosecondArray,
    UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;
use gannet_query::rfc3339::write_time;

/// A column ready to be written.
pub(super) struct Cells {
    /// Which values are there; after casts, those of the column as it came.
    column: ArrayRef,
    kind: Kind,
}

enum Kind {
    Null,
    Bool(BooleanArray),
    Int(Int64Array),
    UInt(UInt64Array),
    Float(Float64Array),
    Text(StringArray),
    LargeText(LargeStringArray),
    TextView(StringViewArray),
    Time(TimestampNanosecondArray),
    /// Items and, for a row, which of them.
    List(Box<Cells>, Ranges),
    Struct(Vec<(String, Cells)>),
    /// Whatever Arrow shows, as a number.
    Number,
    /// Whatever Arrow shows, as text.
    Shown,
}

enum Ranges {
    Offsets(Vec<usize>),
    Size(usize),
}

impl Ranges {
    fn of<O: OffsetSizeTrait>(list: &GenericListArray<O>) -> Ranges {
        Ranges::Offsets(list.value_offsets().iter().map(|offset| offset.as_usize()).collect())
    }

    fn at(&self, row: usize) -> std::ops::Range<usize> {
        match self {
            Ranges::Offsets(offsets) => offsets[row]..offsets[row + 1],
            Ranges::Size(size) => row * size..(row + 1) * size,
        }
    }
}

/// The name users read for a type: those of columns, and Arrow's for everything else.
pub(super) fn type_name(data_type: &DataType) -> String {
    let text =
        |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match data_type {
        DataType::Boolean => "bool".to_owned(),
        other if other.is_integer() => "int".to_owned(),
        other if other.is_floating() => "float".to_owned(),
        other if text(other) => "string".to_owned(),
        DataType::Timestamp(..) => "time".to_owned(),
        DataType::List(item) | DataType::LargeList(item) if text(item.data_type()) => "strings".to_owned(),
        DataType::Dictionary(_, values) => type_name(values),
        other => other.to_string(),
    }
}

impl Cells {
    /// Looks at a column.
    ///
    /// # Errors
    /// When values cannot be cast to the type they are written as, which is a fault of ours.
    pub(super) fn new(column: &ArrayRef) -> Result<Cells, ArrowError> {
        let as_type = |data_type: &DataType| cast(column, data_type);
        let kind = match column.data_type() {
            DataType::Null => Kind::Null,
            DataType::Boolean => Kind::Bool(column.as_boolean().clone()),
            DataType::UInt64 => Kind::UInt(column.as_primitive().clone()),
            other if other.is_integer() => Kind::Int(as_type(&DataType::Int64)?.as_primitive().clone()),
            other if other.is_floating() => Kind::Float(as_type(&DataType::Float64)?.as_primitive().clone()),
            DataType::Utf8 => Kind::Text(column.as_string().clone()),
            DataType::LargeUtf8 => Kind::LargeText(column.as_string().clone()),
            DataType::Utf8View => Kind::TextView(column.as_string_view().clone()),
            DataType::Timestamp(_, zone) => {
                // Times beyond the range of nanoseconds are shown as Arrow shows them.
                match as_type(&DataType::Timestamp(TimeUnit::Nanosecond, zone.clone())) {
                    Ok(times) if times.null_count() == column.null_count() => {
                        Kind::Time(times.as_primitive().clone())
                    }
                    Ok(_) | Err(_) => Kind::Shown,
                }
            }
            DataType::List(_) => {
                let list = column.as_list::<i32>();
                Kind::List(Box::new(Cells::new(list.values())?), Ranges::of(list))
            }
            DataType::LargeList(_) => {
                let list = column.as_list::<i64>();
                Kind::List(Box::new(Cells::new(list.values())?), Ranges::of(list))
            }
            DataType::FixedSizeList(_, _) => {
                let list: &FixedSizeListArray = column.as_fixed_size_list();
                let size = list.value_length().unsigned_abs() as usize;
                Kind::List(Box::new(Cells::new(list.values())?), Ranges::Size(size))
            }
            DataType::Struct(fields) => {
                let array: &StructArray = column.as_struct();
                let named = fields.iter().zip(array.columns());
                let cells = named.map(|(field, column)| Ok((field.name().clone(), Cells::new(column)?)));
                Kind::Struct(cells.collect::<Result<_, ArrowError>>()?)
            }
            DataType::Dictionary(_, values) => return Cells::new(&as_type(values)?),
            DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..) => Kind::Number,
            _ => Kind::Shown,
        };
        Ok(Cells { column: column.clone(), kind })
    }

    /// Writes one cell as JSON. Ints are numbers however large; floats that are not finite are strings.
    pub(super) fn write_json(&self, row: usize, out: &mut Vec<u8>) {
        if self.column.is_null(row) {
            out.extend_from_slice(b"null");
            return;
        }
        match &self.kind {
            Kind::Null => out.extend_from_slice(b"null"),
            Kind::Bool(values) => show(out, values.value(row)),
            Kind::Int(values) => show(out, values.value(row)),
            Kind::UInt(values) => show(out, values.value(row)),
            Kind::Float(values) => match values.value(row) {
                value if value.is_finite() => json(out, &value),
                value => json(out, not_finite(value)),
            },
            Kind::Text(values) => json(out, values.value(row)),
            Kind::LargeText(values) => json(out, values.value(row)),
            Kind::TextView(values) => json(out, values.value(row)),
            Kind::Time(values) => {
                out.push(b'"');
                write_time(values.value(row), None, out);
                out.push(b'"');
            }
            Kind::List(items, ranges) => {
                out.push(b'[');
                for (index, item) in ranges.at(row).enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    items.write_json(item, out);
                }
                out.push(b']');
            }
            Kind::Struct(fields) => {
                out.push(b'{');
                for (index, (name, cells)) in fields.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    json(out, name.as_str());
                    out.push(b':');
                    cells.write_json(row, out);
                }
                out.push(b'}');
            }
            Kind::Number => out.extend_from_slice(self.shown(row).as_bytes()),
            Kind::Shown => json(out, self.shown(row).as_str()),
        }
    }

    /// Writes one cell as a field of CSV: NULL is nothing, an empty text is `""`, lists and structs are JSON.
    pub(super) fn write_csv(&self, row: usize, out: &mut Vec<u8>) {
        if self.column.is_null(row) {
            return;
        }
        match &self.kind {
            Kind::Null => {}
            Kind::Text(values) => csv_field(values.value(row), out),
            Kind::LargeText(values) => csv_field(values.value(row), out),
            Kind::TextView(values) => csv_field(values.value(row), out),
            Kind::Time(values) => write_time(values.value(row), None, out),
            Kind::Float(values) if !values.value(row).is_finite() => {
                csv_field(not_finite(values.value(row)), out);
            }
            Kind::List(..) | Kind::Struct(_) => {
                let mut text = Vec::new();
                self.write_json(row, &mut text);
                csv_field(&String::from_utf8_lossy(&text), out);
            }
            Kind::Shown => csv_field(&self.shown(row), out),
            Kind::Bool(_) | Kind::Int(_) | Kind::UInt(_) | Kind::Float(_) | Kind::Number => {
                self.write_json(row, out);
            }
        }
    }

    fn shown(&self, row: usize) -> String {
        array_value_to_string(&self.column, row).unwrap_or_default()
    }
}

fn not_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

/// Writes a text as a field of CSV, quoted where it must be.
pub(super) fn csv_field(text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() && !text.contains(['"', ',', '\n', '\r']) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

/// Writes a value as JSON; a buffer in memory takes everything.
fn json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let _ = serde_json::to_writer(out, value);
}

/// Writes a value as it shows itself; a buffer in memory takes everything.
fn show(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Decimal128Array, DictionaryArray, Float32Array, Int8Array, ListArray, NullArray, StringArray,
        TimestampMillisecondArray,
    };
    use arrow::datatypes::{Int8Type, Int64Type};

    use super::*;

    fn check(column: ArrayRef, json: &str, csv: &str) {
        let cells = Cells::new(&column).unwrap();
        let (mut found_json, mut found_csv) = (Vec::new(), Vec::new());
        for row in 0..column.len() {
            cells.write_json(row, &mut found_json);
            cells.write_csv(row, &mut found_csv);
            found_json.push(b' ');
            found_csv.push(b' ');
        }
        assert_eq!(String::from_utf8(found_json).unwrap().trim_end(), json);
        assert_eq!(String::from_utf8(found_csv).unwrap().trim_end(), csv);
    }

    #[test]
    fn every_type_has_a_text() {
        check(
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None])),
            "-9223372036854775808 null",
            "-9223372036854775808",
        );
        check(Arc::new(Int8Array::from(vec![-1])), "-1", "-1");
        check(Arc::new(UInt64Array::from(vec![u64::MAX])), "18446744073709551615", "18446744073709551615");
        check(
            Arc::new(Float64Array::from(vec![1.0, 0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY])),
            r#"1.0 0.1 "NaN" "Infinity" "-Infinity""#,
            "1.0 0.1 NaN Infinity -Infinity",
        );
        check(Arc::new(Float32Array::from(vec![0.5])), "0.5", "0.5");
        check(
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
            "true false null",
            "true false",
        );
        check(
            Arc::new(StringArray::from(vec!["a\"b", "", "x,y"])),
            r#""a\"b" "" "x,y""#,
            r#""a""b" "" "x,y""#,
        );
        check(Arc::new(StringViewArray::from(vec!["ä\n"])), r#""ä\n""#, "\"ä\n\"");
        check(Arc::new(NullArray::new(2)), "null null", "");
        check(
            Arc::new(TimestampNanosecondArray::from(vec![0, 1_500_000_000, -1])),
            r#""1970-01-01T00:00:00Z" "1970-01-01T00:00:01.500Z" "1969-12-31T23:59:59.999999999Z""#,
            "1970-01-01T00:00:00Z 1970-01-01T00:00:01.500Z 1969-12-31T23:59:59.999999999Z",
        );
        check(
            Arc::new(TimestampMillisecondArray::from(vec![1])),
            r#""1970-01-01T00:00:00.001Z""#,
            "1970-01-01T00:00:00.001Z",
        );
        let decimal = Decimal128Array::from(vec![-5]).with_precision_and_scale(10, 2).unwrap();
        check(Arc::new(decimal), "-0.05", "-0.05");
        check(Arc::new(["x", "y"].into_iter().collect::<DictionaryArray<Int8Type>>()), r#""x" "y""#, "x y");
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
        ]);
        check(Arc::new(list.clone()), "[1,null] null []", r#""[1,null]"  []"#);
        check(Arc::new(list.slice(2, 1)), "[]", "[]");
        let inner: ArrayRef = Arc::new(StringArray::from(vec![Some("v"), None]));
        let array = StructArray::try_from(vec![("k", inner)]).unwrap();
        check(
            Arc::new(array),
            r#"{"k":"v"} {"k":null}"#,
            r#""{""k"":""v""}" {"k":null}"#.replace(r#"{"k":null}"#, r#""{""k"":null}""#).as_str(),
        );
    }

    #[test]
    fn types_have_the_names_of_columns() {
        let names =
            [DataType::Int32, DataType::Float16, DataType::Utf8View, DataType::Date32].map(|t| type_name(&t));
        assert_eq!(names, ["int", "float", "string", "Date32"]);
        let strings = gannet_query::ColumnType::Strings.arrow();
        assert_eq!([type_name(&strings), type_name(&DataType::Boolean)], ["strings", "bool"]);
    }
}
