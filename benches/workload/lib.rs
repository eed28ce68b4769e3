//! Seeded rows for benchmarks: request events with the columns a Scuba-like store holds.
//!
//! The same seed gives the same rows on every machine. Goals: cardinalities and skews like those of real request
//! logs. Not a goal: believable text. [`columns`] holds single columns of one kind of values each, [`kernels`] the
//! plans that scans are measured with, [`measure`] what benches have in common.

pub mod columns;
pub mod kernels;
pub mod measure;

use std::sync::Arc;

use arrow::array::TimestampNanosecondArray;
use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use gannet_query::ColumnType;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The first row's time, nanoseconds; the rows of one run span a day.
pub const START_NS: i64 = 1_790_000_000_000_000_000;
/// The `trace_id` of one row, a good third into the table.
pub const NEEDLE: &str = "7b9e01c4d2a85f3360ad91e4c07b25f8";
const DAY_NS: i64 = 86_400_000_000_000;

const REGIONS: [&str; 8] =
    ["us-east", "us-west", "eu-central", "eu-west", "ap-south", "ap-northeast", "sa-east", "af-south"];

/// The columns of the table with their types, in order.
pub const COLUMNS: [(&str, ColumnType); 13] = [
    ("time", ColumnType::Time),
    ("service", ColumnType::String),
    ("region", ColumnType::String),
    ("url", ColumnType::String),
    ("error", ColumnType::String),
    ("trace_id", ColumnType::String),
    ("tags", ColumnType::Strings),
    ("status", ColumnType::Int),
    ("user_id", ColumnType::Int),
    ("latency_us", ColumnType::Int),
    ("cpu_ms", ColumnType::Float),
    ("cache_hit", ColumnType::Bool),
    ("sample_rate", ColumnType::Int),
];

/// The type of one of [`COLUMNS`].
///
/// # Panics
/// When there is none of that name.
pub fn column_type(name: &str) -> ColumnType {
    let found = COLUMNS.iter().find(|(column, _)| *column == name);
    found.unwrap_or_else(|| panic!("the table of requests has no column {name}")).1
}

/// A rank below `count`, small ones more often (roughly Zipf with exponent one).
fn skewed(rng: &mut StdRng, count: u32) -> u32 {
    let exponent: f64 = rng.random();
    (f64::from(count).powf(exponent) - 1.0) as u32
}

/// That many random hex digits.
fn hex(rng: &mut StdRng, digits: usize) -> String {
    (0..digits).map(|_| char::from(b"0123456789abcdef"[rng.random_range(0..16)])).collect()
}

/// `rows` request events in batches of at most `batch_rows`.
pub fn requests(rows: usize, batch_rows: usize, seed: u64) -> Vec<RecordBatch> {
    request_batches(rows, batch_rows, seed).collect()
}

/// The same batches as [`requests`], one at a time.
pub fn request_batches(rows: usize, batch_rows: usize, seed: u64) -> impl Iterator<Item = RecordBatch> {
    let mut rng = StdRng::seed_from_u64(seed);
    let firsts = (0..rows).step_by(batch_rows.max(1));
    firsts.map(move |first| batch(&mut rng, first, batch_rows.min(rows - first), rows))
}

fn batch(rng: &mut StdRng, done: usize, count: usize, total: usize) -> RecordBatch {
    let mut times = Vec::with_capacity(count);
    let (mut services, mut urls, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    let (mut statuses, mut users, mut latencies) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cpus, mut hits, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    let (mut regions, mut traces) = (Vec::new(), Vec::new());
    for row in done..done + count {
        let progress = row as i128 * i128::from(DAY_NS) / total as i128;
        times.push(START_NS + progress as i64 + rng.random_range(-1_500..1_500) * 1_000_000);
        services.push(format!("svc-{}", skewed(rng, 40)));
        regions.push(REGIONS[skewed(rng, 8) as usize]);
        urls.push(columns::url(rng));
        let status =
            if rng.random_bool(0.93) { 200 } else { [201, 304, 400, 404, 500, 503][rng.random_range(0..6)] };
        errors.push((status >= 400).then(|| failure(rng)));
        traces.push(if row == total * 37 / 100 { NEEDLE.to_owned() } else { hex(rng, 32) });
        statuses.push(status);
        users.push(i64::from(skewed(rng, 2_000_000)) * 48_271 % 2_147_483_647);
        latencies.push((8.2 + rng.random_range(-2.0..2.5f64)).exp() as i64);
        cpus.push(f64::from(rng.random_range(0..30_000)) / 1000.0);
        hits.push(rng.random_bool(0.62));
        weights.push(if status >= 500 { 1 } else { [1, 10, 100][rng.random_range(0..3)] });
    }
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from(times).with_timezone("+00:00")),
        Arc::new(StringArray::from(services)),
        Arc::new(StringArray::from(regions)),
        Arc::new(StringArray::from(urls)),
        Arc::new(StringArray::from(errors)),
        Arc::new(StringArray::from(traces)),
        columns::tags(rng, count),
        Arc::new(Int64Array::from(statuses)),
        Arc::new(Int64Array::from(users)),
        Arc::new(Int64Array::from(latencies)),
        Arc::new(Float64Array::from(cpus)),
        Arc::new(BooleanArray::from(hits)),
        Arc::new(Int64Array::from(weights)),
    ];
    let fields: Vec<Field> =
        COLUMNS.iter().map(|(name, column_type)| Field::new(*name, column_type.arrow(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .expect("every array has its field's type and one length")
}

fn failure(rng: &mut StdRng) -> String {
    let kind =
        ["timeout", "connection reset", "quota exceeded", "not found", "internal"][skewed(rng, 5) as usize];
    format!("{kind}: case {}", rng.random_range(0..6))
}
