//! Seeded rows of every kind a user may send: all types, NULLs, missing columns, columns that change type inside a
//! batch and between batches, weights, dotted and camelCase names, extreme values.
//!
//! The same seed gives the same rows. Times are distinct, so that an order by time is a total order.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
    TimestampNanosecondArray,
};
use arrow::datatypes::{Field, Schema};
use gannet_query::rfc3339::format_time;
use gannet_query::{ColumnType, SAMPLE_RATE_COLUMN, TIME_COLUMN, TypeSet, Value};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A row: what a user sent, by column. A column that is not there is missing, which reads as NULL.
pub type Row = BTreeMap<String, Value>;

/// The first time of generated rows: 2026-03-01T00:00:00Z.
pub const FIRST_TIME: i64 = 1_772_323_200_000_000_000;

/// Whether generated rows carry weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// No column `sample_rate`.
    None,
    /// Ints, some rows without.
    Ints,
    /// Floats with exact sums (multiples of a quarter), some rows without.
    Floats,
}

/// What to generate.
#[derive(Debug, Clone, Copy)]
pub struct RowsOf {
    /// The same seed gives the same rows.
    pub seed: u64,
    /// How many.
    pub count: usize,
    /// Weights.
    pub sampling: Sampling,
}

/// Integers beyond ±2^53 that no float holds.
const EXTREMES: [i64; 6] = [i64::MIN, i64::MAX, (1 << 53) + 1, -(1 << 53) - 1, 0, -1];
const HOSTS: [&str; 6] = ["web-1", "web-2", "Web-2", "db", "", "näher ✓"];
const SERVICES: [&str; 5] = ["cart", "checkout", "search", "auth", "mail"];
const TAGS: [&str; 5] = ["canary", "eu", "us", "beta", ""];

/// Rows in order of arrival; their times go up with jitter.
pub fn rows(of: RowsOf) -> Vec<Row> {
    let mut random = StdRng::seed_from_u64(of.seed);
    (0..of.count).map(|index| row(&mut random, index, of)).collect()
}

fn row(random: &mut StdRng, index: usize, of: RowsOf) -> Row {
    // Half a second apart, plus less than that: distinct, and with odd nanoseconds.
    let time = FIRST_TIME + index as i64 * 500_000_000 + random.random_range(0..499_999_999);
    let mut row = Row::from([(TIME_COLUMN.to_owned(), Value::Int(time))]);
    let mut set = |name: &str, value: Value| {
        row.insert(name.to_owned(), value);
    };
    set("host", text(HOSTS[random.random_range(0..HOSTS.len())]));
    if random.random_bool(0.9) {
        set("service.name", text(SERVICES[random.random_range(0..SERVICES.len())]));
    }
    set("statusCode", Value::Int([200, 200, 200, 201, 404, 500, 503][random.random_range(0..7)]));
    set("durationMs", nullable(random, 0.1, |r| Value::Float((r.random_range(1.0f64..9.0)).exp())));
    set("bytes", nullable(random, 0.05, |r| Value::Int(r.random_range(0..2_000_000))));
    set("ok", nullable(random, 0.1, |r| Value::Bool(r.random_bool(0.7))));
    if random.random_bool(0.8) {
        let tags =
            (0..random.random_range(0..4)).map(|_| TAGS[random.random_range(0..TAGS.len())].to_owned());
        set("tags", Value::Strings(tags.collect()));
    }
    set("extreme", nullable(random, 0.2, |r| Value::Int(EXTREMES[r.random_range(0..EXTREMES.len())])));
    set("traceId", text(&format!("{:016x}", random.random::<u64>())));
    // Columns that change type: inside a batch (`number`), between batches (the others).
    let late = index * 2 >= of.count;
    set(
        "number",
        match random.random_range(0..3) {
            0 => Value::Int(random.random_range(-50..50)),
            1 => Value::Float(f64::from(random.random_range(-200..200)) / 4.0),
            _ => Value::Null,
        },
    );
    set(
        "flag",
        if late { Value::Int(random.random_range(0..4)) } else { Value::Bool(random.random_bool(0.5)) },
    );
    let small = random.random_range(0..5);
    set("code", if late { text(&format!("E{small}")) } else { Value::Int(small) });
    set("level", if late { Value::Strings(vec!["b".to_owned(), "c".to_owned()]) } else { text("b") });
    set("wide", if late { Value::Float(0.5) } else { Value::Int((1 << 53) + small) });
    if late && random.random_bool(0.5) {
        set("lateOnly", Value::Int(random.random_range(0..10)));
    }
    match of.sampling {
        Sampling::None => {}
        _ if random.random_bool(0.1) => {}
        Sampling::Ints => set(SAMPLE_RATE_COLUMN, Value::Int([1, 10, 100][random.random_range(0..3)])),
        Sampling::Floats => {
            set(SAMPLE_RATE_COLUMN, Value::Float(1.0 + f64::from(random.random_range(0..40)) / 4.0));
        }
    }
    row
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn nullable(random: &mut StdRng, share: f64, value: impl Fn(&mut StdRng) -> Value) -> Value {
    if random.random_bool(share) { Value::Null } else { value(random) }
}

/// The types that a column's values were seen with.
pub fn types_of<'a>(values: impl Iterator<Item = &'a Value>, is_time: bool) -> TypeSet {
    values.fold(TypeSet::default(), |types, value| {
        let seen = match value {
            Value::Null => return types,
            Value::Int(_) if is_time => TypeSet::of(ColumnType::Time, false),
            Value::Int(int) => TypeSet::of(ColumnType::Int, int.unsigned_abs() > 1 << 53),
            Value::Bool(_) => TypeSet::of(ColumnType::Bool, false),
            Value::Float(_) => TypeSet::of(ColumnType::Float, false),
            Value::String(_) => TypeSet::of(ColumnType::String, false),
            Value::Strings(_) => TypeSet::of(ColumnType::Strings, false),
        };
        types.union(seen)
    })
}

/// A value as a column of this type reads it. Only ever upwards: bool → int → float → string → strings.
pub fn read_as(value: &Value, column_type: ColumnType) -> Value {
    match (value, column_type) {
        (Value::Null, _)
        | (Value::Bool(_), ColumnType::Bool)
        | (Value::Int(_), ColumnType::Int | ColumnType::Time)
        | (Value::Float(_), ColumnType::Float)
        | (Value::String(_), ColumnType::String)
        | (Value::Strings(_), ColumnType::Strings) => value.clone(),
        (Value::Bool(bool), ColumnType::Int) => Value::Int(i64::from(*bool)),
        (Value::Bool(bool), ColumnType::Float) => Value::Float(f64::from(u8::from(*bool))),
        (Value::Int(int), ColumnType::Float) => Value::Float(*int as f64),
        (Value::Bool(bool), ColumnType::String) => Value::String(bool.to_string()),
        (Value::Int(int), ColumnType::String) => Value::String(int.to_string()),
        (Value::Float(float), ColumnType::String) => Value::String(float.to_string()),
        (other, ColumnType::Strings) => match read_as(other, ColumnType::String) {
            Value::String(text) => Value::Strings(vec![text]),
            other => other,
        },
        (value, column_type) => panic!("{value:?} does not read as {}", column_type.name()),
    }
}

/// The rows as one record batch; a column has the least type that holds its values in these rows, and a column
/// without any value is left out.
pub fn record_batch(rows: &[Row]) -> RecordBatch {
    let mut columns: BTreeMap<&str, TypeSet> = BTreeMap::new();
    for (name, value) in rows.iter().flatten() {
        let types = columns.entry(name).or_default();
        *types = types.union(types_of([value].into_iter(), name == TIME_COLUMN));
    }
    let mut fields = Vec::new();
    let mut arrays = Vec::new();
    for (name, types) in columns {
        let Some(column_type) = types.resolve() else { continue };
        let values: Vec<Value> =
            rows.iter().map(|row| read_as(row.get(name).unwrap_or(&Value::Null), column_type)).collect();
        fields.push(Field::new(name, column_type.arrow(), name != TIME_COLUMN));
        arrays.push(array(&values, column_type));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn array(values: &[Value], column_type: ColumnType) -> ArrayRef {
    let int = |value: &Value| if let Value::Int(int) = value { Some(*int) } else { None };
    match column_type {
        ColumnType::Bool => Arc::new(BooleanArray::from_iter(
            values.iter().map(|value| if let Value::Bool(bool) = value { Some(*bool) } else { None }),
        )),
        ColumnType::Int => Arc::new(Int64Array::from_iter(values.iter().map(int))),
        ColumnType::Time => {
            Arc::new(TimestampNanosecondArray::from_iter(values.iter().map(int)).with_timezone("+00:00"))
        }
        ColumnType::Float => Arc::new(Float64Array::from_iter(
            values.iter().map(|value| if let Value::Float(float) = value { Some(*float) } else { None }),
        )),
        ColumnType::String => Arc::new(StringArray::from_iter(
            values.iter().map(|value| if let Value::String(text) = value { Some(text) } else { None }),
        )),
        ColumnType::Strings => {
            let mut lists = ListBuilder::new(StringBuilder::new());
            for value in values {
                match value {
                    Value::Strings(texts) => lists.append_value(texts.iter().map(Some)),
                    _ => lists.append_null(),
                }
            }
            Arc::new(lists.finish())
        }
    }
}

/// The rows as NDJSON, as a user would post them.
pub fn ndjson(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let object: serde_json::Map<String, serde_json::Value> =
            row.iter().map(|(name, value)| (name.clone(), json(name, value))).collect();
        text.push_str(&serde_json::Value::Object(object).to_string());
        text.push('\n');
    }
    text
}

fn json(name: &str, value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(bool) => (*bool).into(),
        Value::Int(time) if name == TIME_COLUMN => format_time(*time).into(),
        Value::Int(int) => (*int).into(),
        // Rust writes 5.0 as `5`, which would be an int; serde_json keeps the point.
        Value::Float(float) => {
            serde_json::Number::from_f64(*float).map_or(serde_json::Value::Null, Into::into)
        }
        Value::String(text) => text.clone().into(),
        Value::Strings(texts) => texts.clone().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_rows() {
        let of = RowsOf { seed: 7, count: 50, sampling: Sampling::Ints };
        assert_eq!(rows(of), rows(of));
        assert_ne!(rows(of), rows(RowsOf { seed: 8, ..of }));
    }

    #[test]
    fn rows_hold_every_kind() {
        let rows = rows(RowsOf { seed: 1, count: 400, sampling: Sampling::Floats });
        let resolved = |name: &str| {
            types_of(rows.iter().filter_map(|row| row.get(name)), name == TIME_COLUMN).resolve().unwrap()
        };
        for (name, expect) in [
            ("time", ColumnType::Time),
            ("host", ColumnType::String),
            ("number", ColumnType::Float),
            ("flag", ColumnType::Int),
            ("code", ColumnType::String),
            ("level", ColumnType::Strings),
            ("wide", ColumnType::String),
            ("extreme", ColumnType::Int),
            ("ok", ColumnType::Bool),
            ("tags", ColumnType::Strings),
            ("sample_rate", ColumnType::Float),
        ] {
            assert_eq!(resolved(name), expect, "{name}");
        }
        let batch = record_batch(&rows[..10]);
        assert_eq!(batch.num_rows(), 10);
        assert!(batch.column_by_name("lateOnly").is_none());
        assert_eq!(ndjson(&rows[..3]).lines().count(), 3);
    }
}
