//! Columns of one kind of values each, so that every encoding is met alone.
//!
//! Goals: the kinds of values that tables of events hold. A kind says what the values look like and not how they
//! are to be stored: that is chosen when a block is sealed, and the bench prints what was chosen.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListBuilder, StringArray, StringBuilder,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::{hex, skewed};

/// A kind of values: its name, and `rows` of them.
pub type Kind = (&'static str, fn(&mut StdRng, usize) -> ArrayRef);

/// Every kind.
pub const KINDS: [Kind; 21] = [
    ("int: one value", |_, rows| ints((0..rows).map(|_| 7))),
    ("int: below 200", |rng, rows| ints((0..rows).map(|_| rng.random_range(0..200)))),
    ("int: below 50,000", |rng, rows| ints((0..rows).map(|_| rng.random_range(0..50_000)))),
    ("int: below 2^31", |rng, rows| ints((0..rows).map(|_| rng.random_range(0..1 << 31)))),
    ("int: any", |rng, rows| ints((0..rows).map(|_| rng.random()))),
    ("int: 14 far apart", |rng, rows| ints((0..rows).map(|_| i64::from(skewed(rng, 14)).pow(9) * 7919))),
    ("int: long tail", |rng, rows| ints((0..rows).map(|_| (rng.random_range(0.0..14f64)).exp() as i64))),
    ("int: growing", |rng, rows| ints((0..rows).map(|row| row as i64 * 1000 + rng.random_range(0..500)))),
    ("int: a third absent", |rng, rows| {
        let value = |rng: &mut StdRng| rng.random_bool(0.67).then(|| rng.random_range(0..50_000));
        Arc::new((0..rows).map(|_| value(rng)).collect::<Int64Array>())
    }),
    ("float: three digits", |rng, rows| {
        floats((0..rows).map(|_| f64::from(rng.random_range(0..30_000)) / 1e3))
    }),
    ("float: any", |rng, rows| floats((0..rows).map(|_| rng.random::<f64>() * 1e3))),
    ("bool", |rng, rows| Arc::new(BooleanArray::from_iter((0..rows).map(|_| Some(rng.random_bool(0.62)))))),
    ("string: 40 words", |rng, rows| texts((0..rows).map(|_| format!("svc-{}", skewed(rng, 40))))),
    ("string: 2,000 words", |rng, rows| {
        texts((0..rows).map(|_| format!("host-{:04}", rng.random_range(0..2000))))
    }),
    ("string: 32 hex digits", |rng, rows| texts((0..rows).map(|_| hex(rng, 32)))),
    ("string: UUID", |rng, rows| texts((0..rows).map(|_| uuid(rng)))),
    ("string: address", |rng, rows| texts((0..rows).map(|_| address(rng)))),
    ("string: URL", |rng, rows| texts((0..rows).map(|_| url(rng)))),
    ("string: log line", |rng, rows| texts((0..rows).map(|_| log_line(rng)))),
    ("string: no pattern", |rng, rows| {
        let letters =
            |rng: &mut StdRng| (0..rng.random_range(4..40)).map(|_| rng.random_range('!'..'~')).collect();
        texts((0..rows).map(|_| letters(rng)))
    }),
    ("strings: up to three tags", |rng, rows| tags(rng, rows)),
];

/// `rows` values of a kind; the same for the same seed.
pub fn column(kind: &Kind, rows: usize, seed: u64) -> ArrayRef {
    kind.1(&mut StdRng::seed_from_u64(seed), rows)
}

fn ints(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<Int64Array>())
}

fn floats(values: impl Iterator<Item = f64>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<Float64Array>())
}

fn texts(values: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<StringArray>())
}

fn uuid(rng: &mut StdRng) -> String {
    let groups = [8, 4, 3, 3, 12].map(|digits| hex(rng, digits));
    let [a, b, c, d, e] = groups;
    format!("{a}-{b}-4{c}-a{d}-{e}")
}

fn address(rng: &mut StdRng) -> String {
    let client = skewed(rng, 200_000).wrapping_mul(2_654_435_761);
    let [a, b, c, d] = client.to_le_bytes();
    format!("{a}.{b}.{c}.{d}")
}

/// A URL of a request, with a query.
pub(crate) fn url(rng: &mut StdRng) -> String {
    let (path, item) = (skewed(rng, 400), rng.random_range(0..5_000_000));
    format!("https://www.example.com/api/v{}/resource{path}/get?item={item}&page={}", path % 2 + 1, item % 17)
}

fn log_line(rng: &mut StdRng) -> String {
    let (a, b) = (rng.random_range(0..1_000_000), rng.random_range(0..60_000));
    match skewed(rng, 6) {
        0 => format!("request {} finished in {b} us", a % 400),
        1 => format!("accepted connection from 10.{}.{}.{} port {b}", b % 256, a % 256, (a + b) % 256),
        2 => format!("cache miss for key item:{a}, loading"),
        3 => format!("user {a} logged in from session {}", hex(rng, 8)),
        4 => format!("query took {b} us, {} rows, plan {}", a % 5000, hex(rng, 8)),
        _ => format!("call to svc-{} timed out after {b} ms", a % 40),
    }
}

/// Lists of none to three tags of fifty.
pub(crate) fn tags(rng: &mut StdRng, rows: usize) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for _ in 0..rows {
        for _ in 0..rng.random_range(0..4) {
            lists.values().append_value(format!("tag:{}", rng.random_range(0..50)));
        }
        lists.append(true);
    }
    Arc::new(lists.finish())
}
