//! Seeded rows for benchmarks: request events with the columns a Scuba-like store holds.
//!
//! The same seed gives the same rows on every machine. Goals: cardinalities and skews like those of real request
//! logs. Not a goal: believable text.

use std::sync::Arc;

use arrow::array::TimestampNanosecondArray;
use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use gannet_query::ColumnType;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The first row's time, nanoseconds; the rows of one run span a day.
pub const START_NS: i64 = 1_790_000_000_000_000_000;
const DAY_NS: i64 = 86_400_000_000_000;

/// A rank below `count`, small ones more often (roughly Zipf with exponent one).
fn skewed(rng: &mut StdRng, count: u32) -> u32 {
    let exponent: f64 = rng.random();
    (f64::from(count).powf(exponent) - 1.0) as u32
}

/// `rows` request events in batches of at most `batch_rows`.
pub fn requests(rows: usize, batch_rows: usize, seed: u64) -> Vec<RecordBatch> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut batches = Vec::new();
    let mut done = 0;
    while done < rows {
        let count = batch_rows.min(rows - done);
        batches.push(batch(&mut rng, done, count, rows));
        done += count;
    }
    batches
}

fn batch(rng: &mut StdRng, done: usize, count: usize, total: usize) -> RecordBatch {
    let mut times = Vec::with_capacity(count);
    let (mut services, mut urls, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    let (mut statuses, mut users, mut latencies) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cpus, mut hits, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for row in done..done + count {
        let progress = row as i128 * i128::from(DAY_NS) / total as i128;
        times.push(START_NS + progress as i64 + rng.random_range(-1_500..1_500) * 1_000_000);
        let service = skewed(rng, 40);
        services.push(format!("svc-{service}"));
        urls.push(format!("/api/v1/item/{}?page={}", rng.random_range(0..5_000_000), service));
        let status =
            if rng.random_bool(0.93) { 200 } else { [201, 304, 400, 404, 500, 503][rng.random_range(0..6)] };
        errors.push((status >= 400).then(|| format!("error {}", rng.random_range(0..30))));
        statuses.push(status);
        users.push(i64::from(skewed(rng, 2_000_000)) * 48_271 % 2_147_483_647);
        latencies.push((8.2 + rng.random_range(-2.0..2.5f64)).exp() as i64);
        cpus.push(f64::from(rng.random_range(0..30_000)) / 1000.0);
        hits.push(rng.random_bool(0.62));
        weights.push(if status >= 500 { 1 } else { [1, 10, 100][rng.random_range(0..3)] });
    }
    let columns: Vec<(&str, ColumnType, ArrayRef)> = vec![
        ("time", ColumnType::Time, Arc::new(TimestampNanosecondArray::from(times).with_timezone("+00:00"))),
        ("service", ColumnType::String, Arc::new(StringArray::from(services))),
        ("url", ColumnType::String, Arc::new(StringArray::from(urls))),
        ("error", ColumnType::String, Arc::new(StringArray::from(errors))),
        ("status", ColumnType::Int, Arc::new(Int64Array::from(statuses))),
        ("user_id", ColumnType::Int, Arc::new(Int64Array::from(users))),
        ("latency_us", ColumnType::Int, Arc::new(Int64Array::from(latencies))),
        ("cpu_ms", ColumnType::Float, Arc::new(Float64Array::from(cpus))),
        ("cache_hit", ColumnType::Bool, Arc::new(BooleanArray::from(hits))),
        ("sample_rate", ColumnType::Int, Arc::new(Int64Array::from(weights))),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, column_type, _)| Field::new(*name, column_type.arrow(), true)).collect();
    let arrays = columns.into_iter().map(|(_, _, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .expect("every array has its field's type and one length")
}
