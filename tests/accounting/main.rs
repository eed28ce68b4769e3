//! Whether the bytes a leaf says it holds are the bytes it takes.
//!
//! Every allocation of this process is counted, and large blocks are mappings of their own, which the system lists; so the
//! truth is known: what is live after rows were added, less what was live before. Everything runs in one test, for nothing else may allocate meanwhile. What a leaf takes without any row (its
//! log's buffers, threads, the memory of producers) is in the slack, which is small beside the rows.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and the backtrace says where")]

use std::alloc::System;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use gannet_leaf::{Config, Leaf};
use gannet_proto::{decode_batches, encode_batches};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The promise: the truth is at most this share away from what a leaf accounts for.
const SHARE: f64 = 0.02;
/// What does not grow with the rows.
const SLACK_BYTES: u64 = 512 << 10;
/// Rows of a batch.
const BATCH_ROWS: usize = 5_000;

fn live_bytes() -> u64 {
    let stats = ALLOCATOR.stats();
    (stats.bytes_allocated - stats.bytes_deallocated) as u64 + sealed_pages()
}

/// Bytes of mappings that have no file and are no longer written: what [`gannet_shm::Pages`] gives out.
fn sealed_pages() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let bytes = |line: &str| -> Option<u64> {
        let [range, rights, _, _, "0"] = line.split_whitespace().collect::<Vec<_>>()[..] else { return None };
        let (from, to) = range.split_once('-')?;
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16));
        (rights == "r--p").then_some(to.ok()? - from.ok()?)
    };
    maps.lines().filter_map(bytes).sum()
}

/// Rows as a leaf gets them: decoded from one message.
fn received(random: &mut StdRng, first: usize, count: usize) -> Vec<RecordBatch> {
    let sent = rows(random, first, count);
    decode_batches(&encode_batches(&sent.schema(), &[sent]).unwrap()).unwrap()
}

/// Rows as they come from a sender: words that repeat, ids, numbers, NULLs.
fn rows(random: &mut StdRng, first: usize, count: usize) -> RecordBatch {
    let texts = |values: Vec<Option<String>>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let ints = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    let time = (first..first + count).map(|row| 1_790_000_000_000_000_000 + row as i64 * 1_000_000);
    let time = TimestampNanosecondArray::from_iter_values(time).with_timezone("+00:00");
    let mut columns: Vec<(String, ArrayRef)> = vec![("time".to_owned(), Arc::new(time))];
    for word in 0..4 {
        let values = (0..count).map(|_| Some(format!("word-{}", random.random_range(0..20 << (2 * word)))));
        columns.push((format!("word_{word}"), texts(values.collect())));
    }
    let ids = (0..count).map(|_| Some(format!("{:032x}", random.random::<u128>())));
    columns.push(("trace_id".to_owned(), texts(ids.collect())));
    let urls = (0..count).map(|_| {
        let page = random.random_range(0..1_000_000);
        random.random_bool(0.8).then(|| format!("/api/v2/orders/{page}?from=mail"))
    });
    columns.push(("url".to_owned(), texts(urls.collect())));
    for bits in [3, 12, 40] {
        let values = (0..count).map(|_| random.random_range(0..1_i64 << bits));
        columns.push((format!("int_{bits}"), ints(values.collect())));
    }
    let floats = Float64Array::from_iter_values((0..count).map(|_| random.random::<f64>()));
    columns.push(("load".to_owned(), Arc::new(floats)));
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .unwrap()
}

fn leaf(directory: &tempfile::TempDir, settings: Config) -> Arc<Leaf> {
    let data_dir = directory.path().join("leaf");
    Leaf::start(Config { data_dir, seal_age_seconds: 1_000_000, seal_into_shm: false, ..settings }).unwrap()
}

/// Waits until nothing changes any more: rows are sealed, written and cut from the log by other threads.
fn settled(leaf: &Leaf) -> (u64, u64) {
    let mut before = (0, 0);
    let mut same = 0;
    loop {
        let now = (leaf.used_bytes(), live_bytes());
        let near = now.0 == before.0 && now.1.abs_diff(before.1) < 64 << 10;
        same = if near { same + 1 } else { 0 };
        if same == 20 {
            return now;
        }
        before = now;
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn check(what: &str, accounted: u64, truth: u64) {
    eprintln!("{what}: {accounted} bytes accounted for, {truth} taken");
    let off = accounted.abs_diff(truth);
    let allowed = (truth as f64 * SHARE) as u64 + SLACK_BYTES;
    assert!(
        off <= allowed,
        "{what}: {accounted} bytes accounted for, {truth} taken, {allowed} may be between"
    );
}

#[test]
fn a_leaf_accounts_for_what_it_takes() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let leaf = leaf(&directory, Config::default());
    let empty = live_bytes();
    let truth = |live: u64| live.saturating_sub(empty);

    for batch in 0..10 {
        leaf.append("open", &received(&mut random, batch * BATCH_ROWS, BATCH_ROWS)).unwrap();
    }
    let (accounted, live) = settled(&leaf);
    check("open rows", accounted, truth(live));

    for batch in 0..60 {
        leaf.append("sealed", &received(&mut random, batch * BATCH_ROWS, BATCH_ROWS)).unwrap();
    }
    let (accounted, live) = settled(&leaf);
    check("open and sealed rows", accounted, truth(live));

    for table in 0..400 {
        leaf.append(&format!("small_{table}"), &received(&mut random, 0, 20)).unwrap();
    }
    let (accounted, live) = settled(&leaf);
    check("with many small tables", accounted, truth(live));
}
