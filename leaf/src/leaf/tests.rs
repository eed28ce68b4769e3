//! Appending while rows are sealed behind it.

use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampNanosecondArray};
use gannet_query::TIME_COLUMN;
use gannet_query::value::rows_bytes;

use super::*;
use crate::append::SEALING_PART_OF_MEMORY;
use crate::held_block::HeldBlock;
use crate::open_rows::OpenChunk;
use crate::row_block::Preference;
use crate::row_ranges::RowOrder;
use crate::table::Arrival;

/// Rows with `time` and `x` from the range.
fn rows(range: std::ops::Range<i64>) -> RecordBatch {
    let x: ArrayRef = Arc::new(range.clone().collect::<Int64Array>());
    let times: ArrayRef =
        Arc::new(TimestampNanosecondArray::from(range.collect::<Vec<_>>()).with_timezone("+00:00"));
    RecordBatch::try_from_iter_with_nullable([(TIME_COLUMN, times, false), ("x", x, true)]).unwrap()
}

/// The values of `x`, sorted.
fn held(leaf: &Leaf) -> Vec<i64> {
    let state = leaf.table("t").unwrap().snapshot();
    let mut times = Vec::new();
    for block in state.blocks.iter() {
        let (first, last) = block.time_range();
        assert_eq!(block.rows() as i64, last - first + 1, "blocks of one writer are runs of numbers");
        times.extend(first..=last);
    }
    for chunk in state.open_runs().flat_map(|open| open.chunks().to_vec()) {
        let times_of_chunk = chunk.batch().column_by_name("x").unwrap().clone();
        times.extend(times_of_chunk.as_any().downcast_ref::<Int64Array>().unwrap().values());
    }
    times.sort_unstable();
    times
}

#[test]
fn what_waits_to_be_sealed_is_bounded_and_stays_visible() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config {
        data_dir: directory.path().to_owned(),
        // Two megabytes may wait: about two runs of these rows.
        table_bytes_max: (2 << 20) * SEALING_PART_OF_MEMORY,
        seal_into_shm: false,
        ..Config::default()
    };
    let leaf = Leaf::start(config).unwrap();
    assert_eq!(leaf.sealing_bytes_max("t"), 2 << 20);
    let run_bytes = rows_bytes(&rows(0..65_536)) as u64;
    let end = 600_000;
    for first in (0..end).step_by(10_000) {
        leaf.append("t", &[rows(first..first + 10_000)]).unwrap();
        // One writer seals at most one run beyond the limit by itself, and its rows are there at once.
        let waiting = leaf.sealing_bytes.load(Ordering::Relaxed);
        assert!(waiting <= leaf.sealing_bytes_max("t") + 2 * run_bytes, "{waiting} bytes wait");
        assert_eq!(leaf.holding("t", false).rows, (first + 10_000) as u64);
    }
    while leaf.sealing_bytes.load(Ordering::Relaxed) > 0 {
        std::thread::yield_now();
    }
    assert_eq!(held(&leaf), (0..end).collect::<Vec<_>>());
    let state = leaf.table("t").unwrap().snapshot();
    assert_eq!((state.blocks.len(), state.sealing.len()), ((end / 65_536) as usize, 0));
    assert_eq!(leaf.used_bytes(), state.bytes());
    drop(state);
    let weak = Arc::downgrade(&leaf);
    drop(leaf);
    while weak.strong_count() > 0 {
        std::thread::yield_now();
    }
}

/// A log that is longer than it may be does not wait for its next turn to be cut.
#[test]
fn a_batch_longer_than_the_log_may_be_holds_up_later_ones_only_until_it_is_stored() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config {
        data_dir: directory.path().to_owned(),
        wal_bytes_max: 1 << 20,
        seal_age_seconds: 0,
        seal_into_shm: false,
        ..Config::default()
    };
    let leaf = Leaf::start(config).unwrap();
    let count = 200_000;
    leaf.append("t", &[rows(0..count)]).unwrap();
    let refused = leaf.append("t", &[rows(count..count + 1)]).unwrap_err();
    assert!(matches!(refused, LeafError::LogFull { limit, .. } if limit == 1 << 20), "{refused}");
    let patience = Instant::now() + Duration::from_secs(20);
    while leaf.append("t", &[rows(count..count + 1)]).is_err() {
        leaf.maintain();
        assert!(Instant::now() < patience, "the log stays full: {:?}", leaf.wal.files());
        std::thread::yield_now();
    }
    assert_eq!(leaf.holding("t", false).rows, count as u64 + 1);
}

#[test]
fn a_run_is_sealed_once() {
    let table = Table::empty("t");
    let mut numbers = RowOrder::default();
    numbers.push(0, 65_536);
    let chunk = OpenChunk::new(rows(0..65_536)).unwrap().numbered(numbers);
    let appended = table.insert(chunk, Arrival::New, Duration::ZERO);
    let [run] = &appended.to_seal[..] else { panic!("one run is full") };
    let seal = |id| {
        let block = table.encode(run, id, Preference::Best).unwrap()?;
        table.put_sealed(run, Arc::new(HeldBlock::sealed(block, run.numbers())))
    };
    assert!(seal(1).unwrap() < 0);
    let bytes = table.snapshot().bytes();
    assert_eq!(seal(2), None);
    assert_eq!((table.snapshot().blocks.len(), table.snapshot().bytes()), (1, bytes));
}
