//! Stop and start, as a leaf lives through them.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use gannet_query::{
    Aggregate, AggregateFunction, Body, ColumnType, Expr, Finish, MissingReason, Output, Partial, Plan,
    TimeRange, WeightKind,
};

use super::*;
use crate::scan::Cancel;

fn check(expected: &[(i64, i64, u64)], held: &[(i64, i64, u64)], lost: &[(i64, i64, u64)]) {
    assert_eq!(missing_spans(&spans_in(expected), &spans_in(held)), spans_in(lost));
}

#[test]
fn lost_rows_are_never_understated() {
    check(&[(0, 59, 5)], &[(0, 59, 5)], &[]);
    check(&[(0, 59, 5)], &[], &[(0, 59, 5)]);
    check(&[(0, 59, 5), (60, 119, 3)], &[(0, 59, 5)], &[(60, 119, 3)]);
    check(&[(0, 59, 5), (60, 119, 3)], &[(0, 119, 8)], &[]);
    check(&[(0, 59, 5)], &[(0, 59, 9)], &[]);
}

fn config(directory: &Path) -> Config {
    Config { id: "leaf-7".into(), data_dir: directory.to_owned(), retention_seconds: 0, ..Config::default() }
}

fn rows(range: std::ops::Range<i64>) -> RecordBatch {
    let times: Vec<i64> = range.clone().map(|row| row * 1_000_000_000).collect();
    let texts: Vec<String> = range.clone().map(|row| format!("text {}", row % 100)).collect();
    let columns: Vec<(&str, ColumnType, ArrayRef)> = vec![
        ("time", ColumnType::Time, Arc::new(TimestampNanosecondArray::from(times).with_timezone("+00:00"))),
        ("x", ColumnType::Int, Arc::new(range.collect::<Int64Array>())),
        ("text", ColumnType::String, Arc::new(StringArray::from(texts))),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, column_type, _)| Field::new(*name, column_type.arrow(), true)).collect();
    RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns.into_iter().map(|(_, _, array)| array).collect(),
    )
    .unwrap()
}

/// Count and sum of x, over the whole table.
fn ask(leaf: &Leaf) -> (Partial, i64, i64) {
    let sum = Aggregate {
        function: AggregateFunction::Sum,
        argument: Some((Expr::column("x"), DataType::Int64)),
        filter: None,
        weighted: true,
    };
    let plan = Plan {
        table: "t".into(),
        columns: vec![("x".into(), ColumnType::Int)],
        time_range: TimeRange::ALL,
        filter: None,
        weight: WeightKind::One,
        output: Output::Groups { keys: vec![], aggregates: vec![sum] },
    };
    let partial = leaf.query(&plan, &Cancel::new(None)).unwrap();
    let Body::Groups(groups) = &partial.body else { panic!("groups were asked for") };
    let value = |finish| {
        let column = groups.states[0].finish(&finish, &DataType::Int64).unwrap();
        column.as_any().downcast_ref::<Int64Array>().unwrap().value(0)
    };
    let (count, sum) = (value(Finish::Count), value(Finish::Sum));
    (partial, count, sum)
}

fn segments(directory: &Path) -> Segments {
    let manifest = Manifest::load_or_new(directory, "leaf-7").unwrap();
    Segments::new(Instance::from_bytes(*manifest.instance.as_bytes()))
}

/// Removes what a test leaves in shared memory.
struct Cleanup(tempfile::TempDir);

impl Drop for Cleanup {
    fn drop(&mut self) {
        remove_segments(&segments(self.0.path()), &[]);
    }
}

const ROWS: i64 = 150_000;
const SUM: i64 = ROWS * (ROWS - 1) / 2;

fn filled() -> (Cleanup, Arc<Leaf>) {
    let directory = Cleanup(tempfile::tempdir().unwrap());
    let leaf = Leaf::start(config(directory.0.path())).unwrap();
    for first in (0..ROWS).step_by(30_000) {
        leaf.append("t", &[rows(first..first + 30_000)]).unwrap();
    }
    (directory, leaf)
}

/// Drops a leaf and waits for the sealing threads that still hold it.
fn end(leaf: Arc<Leaf>) {
    let weak = Arc::downgrade(&leaf);
    drop(leaf);
    while weak.strong_count() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_clean_stop_keeps_every_row_and_attaching_copies_none() {
    let (directory, first) = filled();
    let mut first = Some(first);
    for life in 1..4 {
        let leaf = first.take().unwrap_or_else(|| Leaf::start(config(directory.0.path())).unwrap());
        let (_, count, sum) = ask(&leaf);
        assert_eq!((count, sum), (ROWS, SUM));
        assert_eq!(ask(&leaf).0.completeness.ratio(), Some(1.0));
        let said = leaf.describe();
        assert_eq!(
            (said.epoch, said.source.as_str()),
            (life, if life == 1 { "nothing" } else { "shared memory" })
        );
        if life > 1 {
            assert_eq!(said.rows_restored, ROWS as u64);
            let table = leaf.tables.read()["t"].snapshot();
            assert!(table.blocks.iter().all(|held| held.home.is_some()), "blocks are served where they are");
        }
        leaf.hand_over().unwrap();
        assert_eq!(leaf.state(), LeafState::Stopped);
        assert!(matches!(leaf.append("t", &[rows(0..1)]), Err(LeafError::NotServing { .. })));
        end(leaf);
    }
}

#[test]
fn rows_are_added_to_what_was_attached() {
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    let leaf = Leaf::start(config(directory.0.path())).unwrap();
    leaf.append("t", &[rows(ROWS..ROWS + 10)]).unwrap();
    leaf.hand_over().unwrap();
    end(leaf);
    let leaf = Leaf::start(config(directory.0.path())).unwrap();
    assert_eq!(ask(&leaf).1, ROWS + 10);
}

#[test]
fn segments_that_are_gone_are_missed_by_name_and_number() {
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    remove_segments(&segments(directory.0.path()), &[]);
    let leaf = Leaf::start(config(directory.0.path())).unwrap();
    let (partial, count, _) = ask(&leaf);
    assert_eq!(count, 0);
    assert_eq!(partial.completeness.ratio(), Some(0.0));
    let missing = &partial.completeness.missing[0];
    assert_eq!(
        (missing.reason, missing.rows, missing.answered),
        (MissingReason::Lost, Some(ROWS as u64), true)
    );
    assert!(leaf.describe().source_detail.contains("does not exist"), "{}", leaf.describe().source_detail);
    assert_eq!(leaf.accept_loss().unwrap(), ROWS as u64);
    assert_eq!(ask(&leaf).0.completeness.ratio(), Some(1.0));
}

#[test]
fn a_process_that_just_ends_is_not_attached_to() {
    let (directory, leaf) = filled();
    leaf.maintain();
    end(leaf);
    let leaf = Leaf::start(config(directory.0.path())).unwrap();
    let (partial, count, _) = ask(&leaf);
    assert_eq!(count, 0);
    assert_eq!(partial.completeness.rows_expected(), Some(ROWS as u64));
    assert_eq!(leaf.describe().source, "nothing");
    assert_eq!(leaf.describe().source_detail, "the last stop was not clean");
}

#[test]
fn an_old_generation_is_refused() {
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    let mut manifest = Manifest::load_or_new(directory.0.path(), "leaf-7").unwrap();
    manifest.generation += 1;
    manifest.store(directory.0.path()).unwrap();
    let leaf = Leaf::start(config(directory.0.path())).unwrap();
    assert_eq!(ask(&leaf).1, 0);
    let detail = leaf.describe().source_detail;
    assert!(detail.contains("generation 1"), "{detail}");
    assert!(
        OsSharedMemory.list(&segments(directory.0.path())).unwrap().is_empty(),
        "what is refused is removed"
    );
}

#[test]
fn segments_of_another_layout_version_are_refused() {
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    // What a newer build would have left behind.
    let newer = Edition { layout_version: row_block::LAYOUT_VERSION + 1, generation: 1 };
    gannet_shm::publish(&OsSharedMemory, &segments(directory.0.path()), newer, b"{}").unwrap();
    let leaf = Leaf::start(config(directory.0.path())).unwrap();
    let (partial, count, _) = ask(&leaf);
    assert_eq!((count, partial.completeness.rows_expected()), (0, Some(ROWS as u64)));
    let said = leaf.describe();
    assert_eq!((said.source.as_str(), said.state), ("nothing", LeafState::Serving));
    assert_eq!(said.source_detail, "layout version 3, this build reads 2");
}

#[test]
fn a_changed_byte_is_found_named_and_not_served() {
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    let names = OsSharedMemory.list(&segments(directory.0.path())).unwrap();
    let name = names.iter().find(|name| !name.as_str().ends_with("catalogue")).unwrap();
    let path = format!("/dev/shm{}", name.as_str());
    let mut bytes = std::fs::read(&path).unwrap();
    // Every byte of column data in the first block but its header and directory.
    for byte in &mut bytes[8192..300_000] {
        *byte ^= 0x55;
    }
    std::fs::write(&path, bytes).unwrap();
    let leaf = Leaf::start(config(directory.0.path())).unwrap();
    let (partial, count, _) = ask(&leaf);
    let missing: u64 = partial.completeness.missing.iter().filter_map(|missing| missing.rows).sum();
    assert!(missing >= 65_536, "{missing}");
    assert_eq!(count as u64 + missing, ROWS as u64);
    assert!(partial.completeness.missing.iter().any(|missing| missing.reason == MissingReason::Error));
}

#[test]
fn one_directory_has_one_leaf() {
    let (directory, leaf) = filled();
    let error = Leaf::start(config(directory.0.path())).unwrap_err().to_string();
    assert!(error.contains(&directory.0.path().display().to_string()), "{error}");
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    assert_eq!(ask(&leaf).1, ROWS, "the first one is unharmed");
}

#[test]
fn a_full_leaf_expires_its_oldest_rows_or_refuses_by_name() {
    let directory = Cleanup(tempfile::tempdir().unwrap());
    let config = Config { memory_limit_bytes: 4 << 20, ..config(directory.0.path()) };
    let leaf = Leaf::start(config).unwrap();
    let mut refused = None;
    for first in (0..2_000_000).step_by(20_000) {
        if let Err(error) = leaf.append("t", &[rows(first..first + 20_000)]) {
            refused = Some(error);
        }
    }
    assert!(leaf.used_bytes() <= 4 << 20, "{}", leaf.used_bytes());
    assert!(ask(&leaf).1 < 2_000_000);
    let too_large = leaf.append("t", &[rows(0..500_000)]).unwrap_err();
    assert!(matches!(too_large, LeafError::Full { limit: 4_194_304, .. }), "{too_large}");
    assert!(refused.is_none() || matches!(refused, Some(LeafError::Full { .. })));
}
