//! Request events of twenty columns for the benches: made fast, because gigabytes of them are loaded.
//!
//! A few batches are made once, with skews and cardinalities like those of request logs, and repeated with fresh times
//! and row numbers: how long a restart takes depends on bytes and blocks, not on what they say. The column `n` numbers
//! the rows from 0, so that sums over it tell whether every row is there once.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
    TimestampNanosecondArray,
};
use arrow::error::ArrowError;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The table.
pub(super) const TABLE: &str = "requests";
/// The column that numbers the rows.
pub(super) const NUMBER: &str = "n";
/// Rows of a batch, as the door makes them.
pub(super) const BATCH_ROWS: u64 = 65_536;
/// Batches before the values repeat.
const DIFFERENT_BATCHES: usize = 8;
/// Between two events.
const STEP_NS: i64 = 20_000;

const SERVICES: u32 = 40;
const REGIONS: [&str; 8] =
    ["us-east", "us-west", "eu-central", "eu-west", "ap-south", "ap-northeast", "sa-east", "af-south"];
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];
const PATHS: [&str; 6] = ["cart/items", "users/profile", "search", "orders", "media/photos", "feed/next"];

/// Makes batches one after another.
pub(super) struct Events {
    batches: Vec<Vec<(&'static str, ArrayRef)>>,
    first_ns: i64,
    rows: u64,
}

impl Events {
    /// Events from this time on.
    pub(super) fn new(seed: u64, first_ns: i64) -> Events {
        let mut random = StdRng::seed_from_u64(seed);
        let batches = (0..DIFFERENT_BATCHES).map(|_| columns(&mut random, BATCH_ROWS as usize)).collect();
        Events { batches, first_ns, rows: 0 }
    }

    /// Rows made so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The next batch.
    pub(super) fn batch(&mut self) -> Result<RecordBatch, ArrowError> {
        let numbers = self.rows as i64..(self.rows + BATCH_ROWS) as i64;
        let which = (self.rows / BATCH_ROWS) as usize % DIFFERENT_BATCHES;
        let times = numbers.clone().map(|number| self.first_ns + number * STEP_NS);
        let time = TimestampNanosecondArray::from_iter_values(times).with_timezone("+00:00");
        let mut named: Vec<(&str, ArrayRef)> =
            vec![("time", Arc::new(time)), (NUMBER, Arc::new(Int64Array::from_iter_values(numbers)))];
        named.extend(self.batches[which].iter().cloned());
        self.rows += BATCH_ROWS;
        RecordBatch::try_from_iter_with_nullable(named.into_iter().map(|(name, array)| (name, array, true)))
    }
}

/// A rank below `count`, small ones more often.
fn skewed(random: &mut StdRng, count: u32) -> u32 {
    let exponent: f64 = random.random();
    (f64::from(count).powf(exponent) - 1.0) as u32
}

/// Every column but time and number.
fn columns(random: &mut StdRng, rows: usize) -> Vec<(&'static str, ArrayRef)> {
    let services: Vec<u32> = (0..rows).map(|_| skewed(random, SERVICES)).collect();
    let regions: Vec<u32> = (0..rows).map(|_| skewed(random, REGIONS.len() as u32)).collect();
    let statuses: Vec<i64> = (0..rows).map(|_| status(random)).collect();
    let text = |values: Vec<String>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let mut texts = |make: &mut dyn FnMut(&mut StdRng, usize) -> String| {
        text((0..rows).map(|row| make(random, row)).collect())
    };
    let service = texts(&mut |_, row| format!("svc-{}", services[row]));
    let region = texts(&mut |_, row| REGIONS[regions[row] as usize].to_owned());
    let host = texts(&mut |random, row| {
        format!("{}-{}-{:02}", services[row], REGIONS[regions[row] as usize], random.random_range(0..20))
    });
    let method = texts(&mut |random, _| METHODS[skewed(random, 4) as usize].to_owned());
    let url = texts(&mut |random, _| {
        format!(
            "/api/v2/{}/{}?page={}",
            PATHS[skewed(random, 6) as usize],
            random.random_range(0..5_000_000),
            skewed(random, 50)
        )
    });
    let trace_id = texts(&mut |random, _| format!("{:032x}", random.random::<u128>()));
    let span_id = texts(&mut |random, _| format!("{:016x}", random.random::<u64>()));
    let tenant = texts(&mut |random, _| format!("tenant-{}", skewed(random, 3_000)));
    let build = texts(&mut |random, _| format!("2026.47.{}", skewed(random, 12)));
    let error = (0..rows).map(|row| {
        (statuses[row] >= 400).then(|| {
            let kind = ["timeout", "connection reset", "quota exceeded", "not found"][row % 4];
            format!("{kind}: case {}", row % 7)
        })
    });
    let error: ArrayRef = Arc::new(StringArray::from_iter(error));
    let mut ints = |make: &mut dyn FnMut(&mut StdRng) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values((0..rows).map(|_| make(random))))
    };
    let user_id = ints(&mut |random| i64::from(skewed(random, 2_000_000)) * 48_271 % 2_147_483_647);
    let bytes_in = ints(&mut |random| random.random_range(80..4_000));
    let bytes_out = ints(&mut |random| (5.0 + random.random_range(0.0..7.0f64)).exp() as i64);
    let duration_us = ints(&mut |random| (8.2 + random.random_range(-2.0..2.5f64)).exp() as i64);
    let cpu = (0..rows).map(|_| f64::from(random.random_range(0..30_000)) / 1000.0);
    let cpu_ms: ArrayRef = Arc::new(Float64Array::from_iter_values(cpu));
    let hits: Vec<bool> = (0..rows).map(|_| random.random_bool(0.62)).collect();
    vec![
        ("service", service),
        ("region", region),
        ("host", host),
        ("method", method),
        ("url", url),
        ("trace_id", trace_id),
        ("span_id", span_id),
        ("tenant", tenant),
        ("build", build),
        ("error", error),
        ("status", Arc::new(Int64Array::from(statuses))),
        ("user_id", user_id),
        ("bytes_in", bytes_in),
        ("bytes_out", bytes_out),
        ("duration_us", duration_us),
        ("cpu_ms", cpu_ms),
        ("cache_hit", Arc::new(BooleanArray::from(hits))),
        ("tags", tags(random, rows)),
    ]
}

fn status(random: &mut StdRng) -> i64 {
    if random.random_bool(0.93) { 200 } else { [201, 304, 400, 404, 500, 503][random.random_range(0..6)] }
}

fn tags(random: &mut StdRng, rows: usize) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for _ in 0..rows {
        for tag in ["canary", "mobile", "beta", "internal"] {
            if random.random_bool(0.3) {
                lists.values().append_value(tag);
            }
        }
        lists.append(true);
    }
    Arc::new(lists.finish())
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, types::Int64Type};

    use super::*;

    #[test]
    fn rows_are_numbered_through_all_batches() {
        let mut events = Events::new(1, 5);
        for number in 0..DIFFERENT_BATCHES as i64 + 1 {
            let batch = events.batch().unwrap();
            assert_eq!((batch.num_rows() as u64, batch.num_columns()), (BATCH_ROWS, 20));
            let numbers = batch.column_by_name(NUMBER).unwrap().as_primitive::<Int64Type>();
            let first = number * BATCH_ROWS as i64;
            assert_eq!((numbers.value(0), numbers.value(65_535)), (first, first + 65_535));
        }
        assert_eq!(events.rows(), (DIFFERENT_BATCHES as u64 + 1) * BATCH_ROWS);
        assert_eq!(Events::new(1, 5).batch().unwrap(), Events::new(1, 5).batch().unwrap());
    }
}
