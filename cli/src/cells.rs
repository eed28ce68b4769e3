//! The values of a column as text, for every format.
//!
//! A column is looked at once; its cells are then written straight into a buffer, so that formats for programs cost
//! little more than copying. JSON, CSV and TSV are exact; text for tables rounds floats to six digits.

use std::ops::Range;

use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, GenericListArray, Int64Array, LargeStringArray,
    OffsetSizeTrait, StringArray, StringViewArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;
use chrono::{DateTime, Offset, TimeZone};
use gannet_query::rfc3339;

/// Digits that a table shows of a fraction; whole digits are always shown.
const SIGNIFICANT_DIGITS: i32 = 6;

/// The time zone that times are written in; UTC when none is given.
pub(crate) type Zone = Option<Tz>;

/// A column ready to be written.
#[derive(Debug)]
pub(crate) struct Cells {
    /// Which values are there.
    column: ArrayRef,
    kind: Kind,
    zone: Zone,
}

#[derive(Debug)]
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
    List(Box<Cells>, Vec<usize>),
    Struct(Vec<(String, Cells)>),
    /// Whatever Arrow shows, as a number.
    Number,
    /// Whatever Arrow shows, as text.
    Shown,
}

impl Cells {
    /// Looks at a column.
    pub(crate) fn new(column: &ArrayRef, zone: Zone) -> Result<Cells, ArrowError> {
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
            DataType::Timestamp(_, named) => {
                // Times beyond the range of nanoseconds are shown as Arrow shows them.
                match as_type(&DataType::Timestamp(TimeUnit::Nanosecond, named.clone())) {
                    Ok(times) if times.null_count() == column.null_count() => {
                        Kind::Time(times.as_primitive().clone())
                    }
                    Ok(_) | Err(_) => Kind::Shown,
                }
            }
            DataType::List(_) => list(column.as_list::<i32>(), zone)?,
            DataType::LargeList(_) => list(column.as_list::<i64>(), zone)?,
            DataType::Struct(fields) => {
                let named = fields.iter().zip(column.as_struct().columns());
                let cells =
                    named.map(|(field, column)| Ok((field.name().clone(), Cells::new(column, zone)?)));
                Kind::Struct(cells.collect::<Result<_, ArrowError>>()?)
            }
            DataType::Dictionary(_, values) => return Cells::new(&as_type(values)?, zone),
            other if is_decimal(other) => Kind::Number,
            _ => Kind::Shown,
        };
        Ok(Cells { column: column.clone(), kind, zone })
    }

    /// The cell is NULL.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.column.is_null(row) || matches!(self.kind, Kind::Null)
    }

    /// Writes one cell as JSON. Ints are numbers however large; floats that are not finite are strings.
    pub(crate) fn write_json(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return;
        }
        match &self.kind {
            Kind::Text(values) => json(out, values.value(row)),
            Kind::LargeText(values) => json(out, values.value(row)),
            Kind::TextView(values) => json(out, values.value(row)),
            Kind::Float(values) if !values.value(row).is_finite() => json(out, not_finite(values.value(row))),
            Kind::Time(values) => {
                out.push(b'"');
                write_time(values.value(row), self.zone, out);
                out.push(b'"');
            }
            Kind::Shown => json(out, self.shown(row).as_str()),
            Kind::List(items, offsets) => {
                out.push(b'[');
                for (index, item) in items_of(offsets, row).enumerate() {
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
            _ => self.write_exact(row, out),
        }
    }

    /// Writes one cell as it is, without quotes and without loss; lists and structs are JSON, NULL is nothing.
    pub(crate) fn write_exact(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            return;
        }
        match &self.kind {
            Kind::Null => {}
            Kind::Bool(values) => json(out, &values.value(row)),
            Kind::Int(values) => json(out, &values.value(row)),
            Kind::UInt(values) => json(out, &values.value(row)),
            Kind::Float(values) => match values.value(row) {
                value if value.is_finite() => json(out, &value),
                value => out.extend_from_slice(not_finite(value).as_bytes()),
            },
            Kind::Text(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Kind::LargeText(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Kind::TextView(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Kind::Time(values) => write_time(values.value(row), self.zone, out),
            Kind::List(..) | Kind::Struct(_) => self.write_json(row, out),
            Kind::Number | Kind::Shown => out.extend_from_slice(self.shown(row).as_bytes()),
        }
    }

    /// Values that need no quotes in any format: numbers, truth values and times.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(
            self.kind,
            Kind::Null
                | Kind::Bool(_)
                | Kind::Int(_)
                | Kind::UInt(_)
                | Kind::Float(_)
                | Kind::Number
                | Kind::Time(_)
        )
    }

    /// One cell for people: floats rounded, lists in brackets. `None` for NULL.
    pub(crate) fn text(&self, row: usize) -> Option<String> {
        if self.is_null(row) {
            return None;
        }
        Some(match &self.kind {
            Kind::Float(values) if values.value(row).is_finite() => rounded(values.value(row)),
            Kind::List(items, offsets) => {
                let items = items_of(offsets, row).map(|item| items.text(item).unwrap_or_default());
                format!("[{}]", items.collect::<Vec<_>>().join(", "))
            }
            _ => {
                let mut text = Vec::new();
                self.write_exact(row, &mut text);
                String::from_utf8_lossy(&text).into_owned()
            }
        })
    }

    fn shown(&self, row: usize) -> String {
        array_value_to_string(&self.column, row).unwrap_or_default()
    }
}

/// Columns of this type are numbers, which people read from their last digit.
pub(crate) fn is_number(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_number(values),
        other => other.is_numeric() || is_decimal(other),
    }
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..)
    )
}

fn list<O: OffsetSizeTrait>(list: &GenericListArray<O>, zone: Zone) -> Result<Kind, ArrowError> {
    let offsets = list.value_offsets().iter().map(|offset| offset.as_usize()).collect();
    Ok(Kind::List(Box::new(Cells::new(list.values(), zone)?), offsets))
}

fn items_of(offsets: &[usize], row: usize) -> Range<usize> {
    offsets[row]..offsets[row + 1]
}

/// Writes a value as JSON; a buffer in memory takes everything.
fn json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let _ = serde_json::to_writer(out, value);
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

/// Writes a time as RFC 3339 with as many digits as it needs: `2026-11-21T09:30:00Z`, `2026-11-21T10:30:00.500+01:00`.
pub(crate) fn write_time(nanoseconds: i64, zone: Zone, out: &mut Vec<u8>) {
    let offset_seconds = zone.map(|zone| {
        let time = DateTime::from_timestamp_nanos(nanoseconds).naive_utc();
        i64::from(zone.offset_from_utc_datetime(&time).fix().local_minus_utc())
    });
    rfc3339::write_time(nanoseconds, offset_seconds, out);
}

/// Six significant digits, without trailing zeros.
pub(crate) fn rounded(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-5..1e15).contains(&magnitude) {
        let text = format!("{value:.5e}");
        return match text.split_once('e') {
            Some((digits, exponent)) => format!("{}e{exponent}", trim_zeros(digits)),
            None => text,
        };
    }
    let whole_digits = if magnitude < 1.0 { 0 } else { magnitude.log10().floor() as i32 + 1 };
    let decimals = (SIGNIFICANT_DIGITS - whole_digits).clamp(0, 10) as usize;
    trim_zeros(&format!("{value:.decimals$}")).to_owned()
}

fn trim_zeros(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Decimal128Array, DictionaryArray, Int8Array, ListArray, NullArray, StructArray,
        TimestampMillisecondArray,
    };
    use arrow::datatypes::{Int8Type, Int64Type};

    use super::*;

    fn check(column: ArrayRef, json: &str, exact: &str, people: &[&str]) {
        let cells = Cells::new(&column, None).unwrap();
        let (mut found_json, mut found_exact) = (Vec::new(), Vec::new());
        for row in 0..column.len() {
            cells.write_json(row, &mut found_json);
            cells.write_exact(row, &mut found_exact);
            found_json.push(b' ');
            found_exact.push(b'|');
        }
        assert_eq!(String::from_utf8(found_json).unwrap().trim_end(), json);
        assert_eq!(String::from_utf8(found_exact).unwrap().trim_end_matches('|'), exact);
        let texts: Vec<String> =
            (0..column.len()).map(|row| cells.text(row).unwrap_or("∅".to_owned())).collect();
        assert_eq!(texts, people);
    }

    #[test]
    fn every_type_has_a_text() {
        check(
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None])),
            "-9223372036854775808 null",
            "-9223372036854775808",
            &["-9223372036854775808", "∅"],
        );
        check(Arc::new(Int8Array::from(vec![-1])), "-1", "-1", &["-1"]);
        check(
            Arc::new(UInt64Array::from(vec![u64::MAX])),
            "18446744073709551615",
            "18446744073709551615",
            &["18446744073709551615"],
        );
        check(
            Arc::new(Float64Array::from(vec![1.0, 87.329_182_736_45, f64::NAN, f64::NEG_INFINITY])),
            r#"1.0 87.32918273645 "NaN" "-Infinity""#,
            "1.0|87.32918273645|NaN|-Infinity",
            &["1", "87.3292", "NaN", "-Infinity"],
        );
        check(Arc::new(BooleanArray::from(vec![Some(true), None])), "true null", "true", &["true", "∅"]);
        check(Arc::new(StringArray::from(vec!["a\"b", ""])), r#""a\"b" """#, "a\"b", &["a\"b", ""]);
        check(Arc::new(StringViewArray::from(vec!["ä\n"])), r#""ä\n""#, "ä\n", &["ä\n"]);
        check(Arc::new(NullArray::new(1)), "null", "", &["∅"]);
        check(
            Arc::new(TimestampMillisecondArray::from(vec![1])),
            r#""1970-01-01T00:00:00.001Z""#,
            "1970-01-01T00:00:00.001Z",
            &["1970-01-01T00:00:00.001Z"],
        );
        let decimal = Decimal128Array::from(vec![-5]).with_precision_and_scale(10, 2).unwrap();
        check(Arc::new(decimal), "-0.05", "-0.05", &["-0.05"]);
        let dictionary = ["x", "y"].into_iter().collect::<DictionaryArray<Int8Type>>();
        check(Arc::new(dictionary), r#""x" "y""#, "x|y", &["x", "y"]);
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), None]), None]);
        check(Arc::new(list), "[1,null] null", "[1,null]", &["[1, ]", "∅"]);
        let inner: ArrayRef = Arc::new(StringArray::from(vec![Some("v")]));
        let array = StructArray::try_from(vec![("k", inner)]).unwrap();
        check(Arc::new(array), r#"{"k":"v"}"#, r#"{"k":"v"}"#, &[r#"{"k":"v"}"#]);
    }

    #[test]
    fn times_follow_the_zone() {
        let check = |zone: &str, nanoseconds: i64, expect: &str| {
            let mut text = Vec::new();
            write_time(nanoseconds, Some(zone.parse().unwrap()), &mut text);
            assert_eq!(String::from_utf8(text).unwrap(), expect);
        };
        // 2026-07-01 and 2026-12-01, noon UTC.
        check("Europe/Berlin", 1_782_907_200_000_000_000, "2026-07-01T14:00:00+02:00");
        check("Europe/Berlin", 1_796_126_400_000_000_000, "2026-12-01T13:00:00+01:00");
        check("-03:30", 1_796_126_400_250_000_000, "2026-12-01T08:30:00.250-03:30");
    }

    #[test]
    fn floats_are_rounded_for_people() {
        let check = |value: f64, text: &str| assert_eq!(rounded(value), text, "{value:?}");
        check(0.0, "0");
        check(87.329_182_736_45, "87.3292");
        check(0.333_333_333_3, "0.333333");
        check(1_234_567.891, "1234568");
        check(-2.5, "-2.5");
        check(1e15, "1e15");
        check(1.5e-7, "1.5e-7");
        check(100.0, "100");
        check(999_999.96, "1000000");
    }
}
