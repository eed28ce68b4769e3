//! Rows that between them are stored in every encoding there is: for damage, for fuzzing, and for the stored samples of
//! formats.
//!
//! The values depend on a row's number and nothing else, not even on a version of a generator of random numbers, so that
//! rows that were stored years ago can be written down by their numbers.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
    TimestampNanosecondArray,
};
use arrow::datatypes::{Field, Schema};
use gannet_query::ColumnType;

/// The time of row 0: 2025-06-15T15:06:40Z.
pub const FIRST_TIME: i64 = 1_750_000_000_000_000_000;
/// Every column with its type, in order of name.
pub const COLUMNS: [(&str, ColumnType); 19] = [
    ("flag", ColumnType::Bool),
    ("free", ColumnType::String),
    ("host", ColumnType::String),
    ("kind", ColumnType::Int),
    ("level", ColumnType::Float),
    ("line", ColumnType::String),
    ("n", ColumnType::Int),
    ("noise", ColumnType::Float),
    ("ok", ColumnType::Bool),
    ("patched", ColumnType::Int),
    ("rare", ColumnType::Int),
    ("ratio", ColumnType::Float),
    ("same", ColumnType::String),
    ("seven", ColumnType::Int),
    ("tags", ColumnType::Strings),
    ("time", ColumnType::Time),
    ("trace", ColumnType::String),
    ("uuid", ColumnType::String),
    ("wide", ColumnType::Int),
];

/// A number that looks like any other, always the same for the same two.
fn mixed(number: u64, salt: u64) -> u64 {
    let mut mixed = (number ^ salt << 32).wrapping_add(salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn one_of<T: Copy, const N: usize>(values: [T; N], number: u64, salt: u64) -> T {
    values[(mixed(number, salt) % N as u64) as usize]
}

/// None for about one row in so many.
fn unless<T>(one_in: u64, number: u64, salt: u64, value: T) -> Option<T> {
    (!mixed(number, salt + 100).is_multiple_of(one_in)).then_some(value)
}

/// The time of a row.
pub fn time_of(number: u64) -> i64 {
    FIRST_TIME + number as i64 * 1_000_000_000 + (mixed(number, 1) % 999_000_000) as i64
}

/// The rows `first..first + count`.
///
/// # Panics
/// When there are none.
pub fn batch(first: u64, count: u64) -> RecordBatch {
    let numbers = first..first + count;
    let fields: Vec<Field> = COLUMNS
        .iter()
        .map(|(name, column_type)| Field::new(*name, column_type.arrow(), *name != "time"))
        .collect();
    let arrays = COLUMNS.iter().map(|(name, _)| column(name, numbers.clone())).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns of one length")
}

fn column(name: &str, numbers: std::ops::Range<u64>) -> ArrayRef {
    match name {
        "time" => {
            Arc::new(TimestampNanosecondArray::from_iter_values(numbers.map(time_of)).with_timezone("+00:00"))
        }
        "flag" | "ok" => Arc::new(numbers.map(|n| bool_of(name, n)).collect::<BooleanArray>()),
        "level" | "noise" | "ratio" => Arc::new(numbers.map(|n| float_of(name, n)).collect::<Float64Array>()),
        "tags" => {
            let mut lists = ListBuilder::new(StringBuilder::new());
            for n in numbers {
                lists.append_option(unless(5, n, 2, tags_of(n)));
            }
            Arc::new(lists.finish())
        }
        "free" | "host" | "line" | "same" | "trace" | "uuid" => {
            Arc::new(numbers.map(|n| text_of(name, n)).collect::<StringArray>())
        }
        _ => Arc::new(numbers.map(|n| int_of(name, n)).collect::<Int64Array>()),
    }
}

fn bool_of(name: &str, n: u64) -> Option<bool> {
    match name {
        "flag" => Some(true),
        _ => unless(7, n, 3, mixed(n, 3).is_multiple_of(3)),
    }
}

fn int_of(name: &str, n: u64) -> Option<i64> {
    match name {
        "n" => Some(n as i64),
        "seven" => Some(7),
        // Far apart, so that a dictionary is the smallest.
        "kind" => unless(11, n, 4, one_of([3, 1_000_000_000_007, -5_000_000_000_000_003, i64::MAX], n, 4)),
        "patched" => {
            Some(if mixed(n, 5).is_multiple_of(50) { i64::MIN } else { (mixed(n, 6) % 900 * 20) as i64 })
        }
        // In most runs of rows it has no value at all.
        "rare" => (n % 1_000 == 999).then_some(n as i64),
        _ => Some(mixed(n, 7) as i64),
    }
}

fn float_of(name: &str, n: u64) -> Option<f64> {
    match name {
        "level" => Some(one_of([0.1 + 0.2, -0.0, f64::INFINITY, 1e-300], n, 8)),
        "ratio" => unless(9, n, 9, (mixed(n, 9) % 100_000) as f64 / 100.0),
        _ => Some(f64::from_bits(mixed(n, 10) >> 2) * 1e3),
    }
}

fn text_of(name: &str, n: u64) -> Option<String> {
    Some(match name {
        "same" => "the same in every row".to_owned(),
        "host" => {
            return unless(
                13,
                n,
                11,
                one_of(["web-1", "web-2", "Web-2", "db", "", "näher ✓"], n, 11).to_owned(),
            );
        }
        "trace" => format!("{:016x}", mixed(n, 12)),
        "uuid" => {
            let (a, b) = (mixed(n, 13), mixed(n, 14));
            format!(
                "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                a >> 32,
                a >> 16 & 0xffff,
                a & 0xffff,
                b >> 48,
                b & 0xffff_ffff_ffff
            )
        }
        "line" => format!(
            "{} /api/v1/items/{} took {} ms",
            one_of(["GET", "PUT", "DELETE"], n, 15),
            mixed(n, 16) % 100_000,
            mixed(n, 17) % 900
        ),
        _ => {
            let letters = "etaoin shrdlu ✓äö,.-";
            let letter = |at| letters.chars().nth((mixed(n, 200 + at) % 20) as usize).unwrap_or(' ');
            return unless(17, n, 18, (0..3 + mixed(n, 19) % 20).map(letter).collect());
        }
    })
}

fn tags_of(n: u64) -> Vec<Option<String>> {
    let tags = ["canary", "eu", "us", "beta", ""];
    let tag = |at| unless(20, n + at, 21, one_of(tags, n + at, 20).to_owned());
    (0..mixed(n, 22) % 4).map(|at| tag(at * 7)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use gannet_leaf::row_block::{Preference, RowBlock};

    use super::*;

    #[test]
    fn every_encoding_is_there() {
        let rows = [batch(0, 900)];
        let mut found = BTreeSet::new();
        for preference in [
            Preference::Best,
            Preference::Plain,
            Preference::Packed,
            Preference::Dictionary,
            Preference::Text,
        ] {
            let block = RowBlock::seal_with(1, &rows, preference).unwrap();
            for column in block.columns() {
                found.insert((column.column_type.name(), column.encoding()));
            }
        }
        let expected = [
            ("bool", "bitmap"),
            ("bool", "constant"),
            ("float", "decimal"),
            ("float", "dictionary"),
            ("float", "plain"),
            ("int", "constant"),
            ("int", "dictionary"),
            ("int", "null"),
            ("int", "packed"),
            ("string", "constant"),
            ("string", "dictionary"),
            ("string", "hex"),
            ("string", "plain"),
            ("string", "template"),
            ("strings", "dictionary"),
            ("time", "packed"),
        ];
        let absent: Vec<_> = expected.iter().filter(|one| !found.contains(*one)).collect();
        assert!(absent.is_empty(), "{absent:?} of {found:?}");
    }
}
