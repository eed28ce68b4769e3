//! Stop and start, as a leaf lives through them.

mod untouched;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use gannet_query::expr::BinaryOp;
use gannet_query::plan::OutputColumn;
use gannet_query::{
    Aggregate, AggregateFunction, Body, ColumnType, Expr, Finish, LeafState, MissingReason, Output, Partial,
    Plan, TimeRange, WeightKind,
};
use gannet_shm::{Edition, OsSharedMemory, SharedMemory};

use super::*;
use crate::dedup::BatchName;
use crate::disk::{Disk, OsDisk};
use crate::hand_over::Stopped;
use crate::scan::Cancel;
use crate::{Batch, row_block};

fn config(directory: &Path) -> Config {
    Config {
        id: "leaf-7".into(),
        data_dir: directory.to_owned(),
        retention_seconds: 0,
        // Rows are where a crash takes them, unless a test says otherwise.
        seal_into_shm: false,
        ..Config::default()
    }
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

fn manifest_of(directory: &Path) -> Manifest {
    manifest::load(&OsDisk::new(directory), "leaf-7").unwrap().unwrap()
}

fn segments(directory: &Path) -> Segments {
    Segments::new(Instance::from_bytes(*manifest_of(directory).instance.as_bytes()))
}

fn segment_names(directory: &Path) -> Vec<String> {
    let names = OsSharedMemory.list(&segments(directory)).unwrap();
    names.iter().map(|name| name.as_str().to_owned()).collect()
}

/// Removes what a test leaves in shared memory.
struct Cleanup(tempfile::TempDir);

impl Drop for Cleanup {
    fn drop(&mut self) {
        remove_segments(&OsSharedMemory, &segments(self.0.path()), &BTreeSet::new());
    }
}

const ROWS: i64 = 150_000;
const SUM: i64 = ROWS * (ROWS - 1) / 2;

fn fill(leaf: &Arc<Leaf>) {
    for first in (0..ROWS).step_by(30_000) {
        leaf.append("t", &[rows(first..first + 30_000)]).unwrap();
    }
}

fn filled() -> (Cleanup, Arc<Leaf>) {
    let directory = Cleanup(tempfile::tempdir().unwrap());
    let leaf = Leaf::start(config(directory.0.path())).unwrap();
    fill(&leaf);
    (directory, leaf)
}

/// Starts a leaf and waits until it has everything.
fn start_again(directory: &Cleanup) -> Arc<Leaf> {
    let leaf = Leaf::start(config(directory.0.path())).unwrap();
    while leaf.state() == LeafState::Recovering {
        std::thread::yield_now();
    }
    leaf
}

/// Drops a leaf, as a crash does, and waits for the threads that still hold it.
fn end(leaf: Arc<Leaf>) {
    let directory = leaf.config.data_dir.clone();
    drop(leaf);
    while DirectoryLock::acquire(&directory).is_err() {
        std::thread::yield_now();
    }
}

fn check_whole(leaf: &Leaf) {
    let (partial, count, sum) = ask(leaf);
    assert_eq!((count, sum), (ROWS, SUM));
    assert_eq!(partial.completeness.ratio(), Some(1.0), "{:?}", partial.completeness);
}

#[test]
fn a_clean_stop_keeps_every_row_and_attaching_copies_none() {
    let (directory, first) = filled();
    let mut first = Some(first);
    for life in 1..4 {
        let leaf = first.take().unwrap_or_else(|| Leaf::start(config(directory.0.path())).unwrap());
        check_whole(&leaf);
        let said = leaf.describe();
        let source = if life == 1 { "nothing" } else { "shared memory" };
        assert_eq!((said.epoch, said.source.as_str(), said.source_detail.as_str()), (life, source, ""));
        if life > 1 {
            assert_eq!((said.rows_restored, said.state), (ROWS as u64, LeafState::Serving));
            let table = leaf.tables.read()["t"].snapshot();
            assert!(table.blocks.iter().all(|held| held.home.is_some()), "blocks are served where they are");
        }
        assert_eq!(leaf.hand_over().unwrap(), Stopped::HandedOver);
        assert_eq!(leaf.state(), LeafState::Stopped);
        // Its blocks have left the tables; what it says it holds does not shrink with them.
        let last = leaf.describe();
        assert_eq!(leaf.tables.read()["t"].snapshot().rows() < last.tables[0].rows, life == 1);
        assert_eq!((last.tables[0].rows, last.state), (said.tables[0].rows, LeafState::Stopped));
        assert!(matches!(leaf.append("t", &[rows(0..1)]), Err(LeafError::NotServing { .. })));
        end(leaf);
    }
}

#[test]
fn rows_are_added_to_what_was_attached() {
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    let leaf = start_again(&directory);
    leaf.append("t", &[rows(ROWS..ROWS + 10)]).unwrap();
    leaf.hand_over().unwrap();
    end(leaf);
    assert_eq!(ask(&start_again(&directory)).1, ROWS + 10);
}

#[test]
fn a_crash_at_once_loses_nothing() {
    let (directory, leaf) = filled();
    end(leaf);
    let leaf = start_again(&directory);
    check_whole(&leaf);
    assert_eq!(leaf.describe().source, "disk");
    // And once more, with blocks that have files, open rows, and a checkpoint between them.
    leaf.store_all().unwrap();
    leaf.checkpoint(&mut leaf.manifest.lock()).unwrap();
    leaf.append("u", &[rows(0..10)]).unwrap();
    end(leaf);
    let leaf = start_again(&directory);
    check_whole(&leaf);
    assert_eq!(leaf.describe().tables[1].rows, 10);
    leaf.hand_over().unwrap();
    end(leaf);
    let leaf = start_again(&directory);
    check_whole(&leaf);
    assert_eq!(leaf.describe().source, "shared memory");
    assert_eq!(leaf.wal.files().len(), 1, "a stop leaves nothing in the log but its newest file");
}

#[test]
fn a_crash_after_an_attach_takes_the_blocks_over_where_they_are() {
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    let leaf = start_again(&directory);
    leaf.append("t", &[rows(ROWS..ROWS + 10)]).unwrap();
    end(leaf);
    let leaf = start_again(&directory);
    assert_eq!(ask(&leaf).1, ROWS + 10);
    let said = leaf.describe();
    assert_eq!((said.source.as_str(), said.source_detail.as_str()), ("shared memory and disk", ""));
    let state = leaf.table("t").unwrap().snapshot();
    assert!(state.blocks.iter().all(|held| held.home.is_some()));
}

#[test]
fn blocks_that_were_sealed_into_shared_memory_survive_a_crash_there() {
    let directory = Cleanup(tempfile::tempdir().unwrap());
    let settings = || Config { seal_into_shm: true, ..config(directory.0.path()) };
    let leaf = Leaf::start(settings()).unwrap();
    fill(&leaf);
    while leaf.table("t").unwrap().snapshot().blocks.len() < 2 {
        std::thread::yield_now();
    }
    leaf.store_all().unwrap();
    end(leaf);
    let leaf = Leaf::start(settings()).unwrap();
    let state = leaf.table("t").unwrap().snapshot();
    assert_eq!(state.blocks.iter().filter(|held| held.home.is_some()).count(), 2, "at once");
    drop(state);
    while leaf.state() == LeafState::Recovering {
        std::thread::yield_now();
    }
    check_whole(&leaf);
    // A clean stop has nothing to copy but what was open.
    leaf.hand_over().unwrap();
    end(leaf);
    let leaf = start_again(&directory);
    check_whole(&leaf);
    let said = leaf.describe();
    assert_eq!((said.source.as_str(), said.source_detail.as_str()), ("shared memory", ""));
}

#[test]
fn a_batch_with_a_name_counts_once_through_every_kind_of_start() {
    let directory = Cleanup(tempfile::tempdir().unwrap());
    let send = |leaf: &Arc<Leaf>, sequence: i64| {
        let name = BatchName {
            table: "t".into(),
            producer: "p".into(),
            sequence: sequence as u64,
            part: 0,
            last_part: true,
        };
        let rows = [rows(sequence..sequence + 1)];
        leaf.append_batch(Batch { table: "t", rows: &rows, encoded: None, name: Some(name) })
            .unwrap()
            .duplicate
    };
    for life in 0..6 {
        let leaf = start_again(&directory);
        for sequence in 0..life {
            assert!(send(&leaf, sequence), "life {life}, sequence {sequence}");
        }
        assert!(!send(&leaf, life));
        assert!(send(&leaf, life), "at once");
        assert_eq!(ask(&leaf).1, life + 1);
        match life % 3 {
            0 => _ = leaf.hand_over().unwrap(),
            1 => leaf.checkpoint(&mut leaf.manifest.lock()).unwrap(),
            _ => {}
        }
        end(leaf);
    }
}

#[test]
fn without_its_segments_a_leaf_reads_its_files() {
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    remove_segments(&OsSharedMemory, &segments(directory.0.path()), &BTreeSet::new());
    let leaf = start_again(&directory);
    check_whole(&leaf);
    let said = leaf.describe();
    assert_eq!(said.source, "disk");
    assert!(said.source_detail.contains("does not exist"), "{}", said.source_detail);
}

#[test]
fn an_old_generation_is_refused() {
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    let mut manifest = manifest_of(directory.0.path());
    manifest.generation += 1;
    manifest::store(&OsDisk::new(directory.0.path()), &manifest).unwrap();
    let leaf = start_again(&directory);
    check_whole(&leaf);
    let said = leaf.describe();
    assert_eq!(said.source, "disk");
    assert!(said.source_detail.contains("generation 1"), "{}", said.source_detail);
    assert!(segment_names(directory.0.path()).is_empty(), "what is refused is removed");
}

#[test]
fn segments_of_another_layout_version_are_refused() {
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    // What a newer build would have left behind.
    let newer = Edition { layout_version: row_block::LAYOUT_VERSION + 1, generation: 1 };
    gannet_shm::publish(&OsSharedMemory, &segments(directory.0.path()), newer, b"{}").unwrap();
    let leaf = start_again(&directory);
    check_whole(&leaf);
    let said = leaf.describe();
    assert_eq!(
        (said.source.as_str(), said.source_detail.as_str()),
        ("disk", "layout version 3, this build reads 2")
    );
}

/// Changes every byte of column data of the oldest block in shared memory, but not its header and directory.
fn damage_oldest_block(directory: &Path) {
    let manifest = manifest_of(directory);
    let entry = &manifest.tables[0].blocks[0];
    let home = entry.home.clone().unwrap();
    let path = format!("/dev/shm{}", home.segment);
    let mut bytes = std::fs::read(&path).unwrap();
    for byte in &mut bytes[home.offset as usize + 1024..(home.offset + entry.bytes) as usize] {
        *byte ^= 0x55;
    }
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn a_damaged_buffer_is_read_from_the_file_instead() {
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    damage_oldest_block(directory.0.path());
    let leaf = start_again(&directory);
    check_whole(&leaf);
    assert_eq!(leaf.describe().source, "shared memory");
}

#[test]
fn a_block_that_is_damaged_everywhere_is_named_and_not_served() {
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    let disk = OsDisk::new(directory.0.path());
    // Of two blocks that are sealed at once, either may get the lower id.
    let file = crate::held_block::file_name(manifest_of(directory.0.path()).tables[0].blocks[0].id);
    let path = directory.0.path().join(DIRECTORY).join(&file);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    damage_oldest_block(directory.0.path());
    let leaf = start_again(&directory);
    let (partial, count, _) = ask(&leaf);
    let missing: u64 = partial.completeness.missing.iter().filter_map(|missing| missing.rows).sum();
    assert_eq!((missing, count as u64 + missing), (65_536, ROWS as u64));
    assert!(partial.completeness.missing.iter().any(|missing| missing.reason == MissingReason::Error));
    end(leaf);
    // Without shared memory the file alone is tried, set aside, and the loss is remembered until it is accepted.
    remove_segments(&OsSharedMemory, &segments(directory.0.path()), &BTreeSet::new());
    for _ in 0..2 {
        let leaf = start_again(&directory);
        let (partial, count, _) = ask(&leaf);
        assert_eq!(count as u64, ROWS as u64 - 65_536);
        let missing = &partial.completeness.missing[0];
        assert_eq!(
            (missing.reason, missing.rows, missing.answered),
            (MissingReason::Lost, Some(65_536), true)
        );
        assert_eq!(disk.list(crate::held_block::BAD_DIRECTORY).unwrap(), [file.as_str()]);
        end(leaf);
    }
    let leaf = start_again(&directory);
    assert_eq!(leaf.accept_loss().unwrap(), 65_536);
    assert_eq!(ask(&leaf).0.completeness.ratio(), Some(1.0));
    end(leaf);
    assert_eq!(ask(&start_again(&directory)).0.completeness.ratio(), Some(1.0));
}

#[test]
fn few_rows_of_a_damaged_block_are_read_from_its_file_too() {
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    damage_oldest_block(directory.0.path());
    // Nothing is checked behind this leaf before the question comes.
    #[derive(Debug)]
    struct Never;
    impl crate::surroundings::Background for Never {
        fn spawn(&self, _: crate::surroundings::JobKind, _: crate::surroundings::Job) {}
    }
    let config = config(directory.0.path());
    let surroundings = Surroundings { background: Arc::new(Never), ..Surroundings::of(&config).unwrap() };
    let leaf = Leaf::start_in(config, surroundings).unwrap();
    for (held, row) in [("text", 78), ("time", 79)] {
        let is_row = Expr::binary(BinaryOp::Eq, Expr::column("x"), Expr::int(row));
        let column_type = match held {
            "text" => ColumnType::String,
            _ => ColumnType::Time,
        };
        let shown =
            OutputColumn { name: held.into(), expr: Expr::column(held), data_type: column_type.arrow() };
        let plan = Plan {
            table: "t".into(),
            columns: vec![("x".into(), ColumnType::Int), (held.into(), column_type)],
            time_range: TimeRange::ALL,
            filter: Some(is_row),
            weight: WeightKind::One,
            output: Output::Rows { columns: vec![shown], order_by: vec![], limit: None },
        };
        let partial = leaf.query(&plan, &Cancel::new(None)).unwrap();
        let Body::Rows(rows) = &partial.body else { panic!("rows were asked for") };
        let count: usize = rows.batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!((count, partial.completeness.ratio()), (1, Some(1.0)), "{held}");
    }
}

#[test]
fn a_leaf_does_not_begin_anew_beside_what_it_held() {
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    let (kept, away) = (directory.0.path().join("leaf.json"), directory.0.path().join("away"));
    std::fs::rename(&kept, &away).unwrap();
    let error = Leaf::start(config(directory.0.path())).unwrap_err().to_string();
    assert!(
        error.ends_with("leaf.json: it is gone, but wal has 1 files: put it back, or move them away"),
        "{error}"
    );
    assert!(!kept.exists());
    std::fs::rename(away, kept).unwrap();
    check_whole(&start_again(&directory));
}

#[test]
fn a_log_that_is_gone_is_missed() {
    let (directory, leaf) = filled();
    end(leaf);
    let disk = OsDisk::new(directory.0.path());
    let blocks = disk.list(DIRECTORY).unwrap();
    for name in disk.list(wal::DIRECTORY).unwrap() {
        disk.remove(&format!("{}/{name}", wal::DIRECTORY)).unwrap();
    }
    for _ in 0..2 {
        let leaf = start_again(&directory);
        assert_eq!(ask(&leaf).0.completeness.ratio(), None, "nobody knows what was in it");
        end(leaf);
    }
    assert_eq!(disk.list(DIRECTORY).unwrap(), blocks, "whatever else there is stays");
    // Behind a clean stop nothing is in the log.
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    let disk = OsDisk::new(directory.0.path());
    for name in disk.list(wal::DIRECTORY).unwrap() {
        disk.remove(&format!("{}/{name}", wal::DIRECTORY)).unwrap();
    }
    check_whole(&start_again(&directory));
    // A leaf that nobody wrote to has a log all the same.
    let directory = Cleanup(tempfile::tempdir().unwrap());
    for _ in 0..2 {
        let leaf = start_again(&directory);
        assert_eq!(ask(&leaf).0.completeness.ratio(), Some(1.0));
        end(leaf);
    }
}

#[test]
fn what_is_pending_is_missing_and_not_covered() {
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    remove_segments(&OsSharedMemory, &segments(directory.0.path()), &BTreeSet::new());
    // Nothing runs behind this leaf.
    #[derive(Default)]
    struct Never(parking_lot::Mutex<Vec<crate::surroundings::Job>>);
    impl std::fmt::Debug for Never {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Never")
        }
    }
    impl crate::surroundings::Background for Never {
        fn spawn(&self, _: crate::surroundings::JobKind, job: crate::surroundings::Job) {
            self.0.lock().push(job);
        }
    }
    let config = config(directory.0.path());
    let jobs = Arc::new(Never::default());
    let background: Arc<dyn crate::surroundings::Background> = jobs.clone();
    let surroundings = Surroundings { background, ..Surroundings::of(&config).unwrap() };
    let leaf = Leaf::start_in(config, surroundings).unwrap();
    let mut before = 0;
    loop {
        let (partial, count, _) = ask(&leaf);
        let missing = partial.completeness.missing.clone();
        let pending: u64 = missing.iter().filter_map(|missing| missing.rows).sum();
        assert_eq!(count as u64 + pending, ROWS as u64);
        assert!(missing.iter().all(|missing| missing.reason == MissingReason::Restarting));
        assert!(count >= before);
        before = count;
        assert_eq!(leaf.describe().tables[0].rows, ROWS as u64, "they are held all the time");
        let Some(job) = jobs.0.lock().pop() else { break };
        job();
    }
    check_whole(&leaf);
    assert_eq!(leaf.state(), LeafState::Serving);
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
    let settings = || Config { memory_limit_bytes: 4 << 20, ..config(directory.0.path()) };
    let leaf = Leaf::start(settings()).unwrap();
    let mut refused = None;
    for first in (0..2_000_000).step_by(20_000) {
        if let Err(error) = leaf.append("t", &[rows(first..first + 20_000)]) {
            refused = Some(error);
        }
    }
    assert!(leaf.used_bytes() <= 4 << 20, "{}", leaf.used_bytes());
    let held = ask(&leaf).1;
    assert!(held < 2_000_000);
    let too_large = leaf.append("t", &[rows(0..500_000)]).unwrap_err();
    assert!(matches!(too_large, LeafError::Full { limit: 4_194_304, .. }), "{too_large}");
    assert!(refused.is_none() || matches!(refused, Some(LeafError::Full { .. })));
    let held = ask(&leaf).1;
    leaf.store_all().unwrap();
    end(leaf);
    // What expired does not come back.
    let leaf = Leaf::start(settings()).unwrap();
    while leaf.state() == LeafState::Recovering {
        std::thread::yield_now();
    }
    assert_eq!(ask(&leaf).1, held);
    assert_eq!(ask(&leaf).0.completeness.ratio(), Some(1.0));
}

#[test]
fn old_rows_are_subsampled_and_stand_for_the_others() {
    let directory = Cleanup(tempfile::tempdir().unwrap());
    let settings = || Config { subsample_after_seconds: 3600, ..config(directory.0.path()) };
    let leaf = Leaf::start(settings()).unwrap();
    fill(&leaf);
    while leaf.table("t").unwrap().snapshot().blocks.len() < 2 {
        std::thread::yield_now();
    }
    leaf.store_all().unwrap();
    // The rows are of 1970. Open rows are not sealed, and not subsampled.
    let expected = 150_000 - 2 * 65_536 + 2 * 65_536 / 10;
    let mut turns = 0;
    while leaf.table("t").unwrap().snapshot().rows().abs_diff(expected) > 2 {
        leaf.maintain();
        std::thread::yield_now();
        turns += 1;
        assert!(turns < 100_000, "{:?}", leaf.table("t").unwrap().snapshot().blocks);
    }
    let held = leaf.table("t").unwrap().snapshot().rows();
    let weights = |leaf: &Leaf| {
        let state = leaf.table("t").unwrap().snapshot();
        let weight = |held: &Arc<crate::held_block::HeldBlock>| match held.column("sample_rate").unwrap() {
            Some(column) => {
                let rates = column.to_array(held.rows());
                rates.as_any().downcast_ref::<Int64Array>().unwrap().iter().flatten().sum::<i64>()
            }
            None => held.rows() as i64,
        };
        state.blocks.iter().map(weight).sum::<i64>()
            + state.open_runs().map(|open| open.rows() as i64).sum::<i64>()
    };
    assert!((weights(&leaf) - ROWS).abs() <= 20, "{}", weights(&leaf));
    assert_eq!(ask(&leaf).0.completeness.ratio(), Some(1.0));
    end(leaf);
    // A crash brings neither the others back nor loses these.
    let leaf = start_again(&directory);
    assert_eq!(leaf.table("t").unwrap().snapshot().rows(), held);
    assert!((weights(&leaf) - ROWS).abs() <= 20);
    assert_eq!(leaf.surroundings.disk.list(DIRECTORY).unwrap().len(), 2, "the old files are gone");
}

#[test]
fn a_deleted_table_does_not_come_back() {
    // After a crash or a stop, and with its rows open, in blocks, in files and in shared memory.
    for (is_stored, is_attached, is_stopped) in [
        (false, false, false),
        (false, false, true),
        (true, false, false),
        (true, true, false),
        (true, true, true),
    ] {
        let (directory, mut leaf) = filled();
        leaf.append("other", &[rows(0..10)]).unwrap();
        if is_stored {
            leaf.store_all().unwrap();
            leaf.checkpoint(&mut leaf.manifest.lock()).unwrap();
        }
        if is_attached {
            leaf.hand_over().unwrap();
            end(leaf);
            leaf = start_again(&directory);
        }
        leaf.append("t", &[rows(ROWS..ROWS + 5)]).unwrap();
        assert_eq!(leaf.delete_table("t").unwrap(), ROWS as u64 + 5);
        assert_eq!(leaf.delete_table("t").unwrap(), 0);
        let names = |leaf: &Leaf| -> Vec<(String, u64)> {
            leaf.describe().tables.into_iter().map(|table| (table.name, table.rows)).collect()
        };
        assert_eq!(names(&leaf), [("other".to_owned(), 10)]);
        if is_stopped {
            leaf.hand_over().unwrap();
        }
        end(leaf);
        let leaf = start_again(&directory);
        assert_eq!(names(&leaf), [("other".to_owned(), 10)], "{is_stored} {is_attached} {is_stopped}");
        assert_eq!(ask(&leaf).0.completeness.ratio(), Some(1.0));

        // The table begins anew, and its numbers go on: what the log still holds is not taken for its rows.
        leaf.append("t", &[rows(0..3)]).unwrap();
        assert_eq!((ask(&leaf).1, ask(&leaf).2), (3, 3));
        end(leaf);
        let leaf = start_again(&directory);
        assert_eq!((ask(&leaf).1, ask(&leaf).2), (3, 3));
        let left = leaf.surroundings.disk.list(DIRECTORY).unwrap().len();
        assert!(left <= 1, "{left} files of blocks are left");
    }
}

#[test]
fn a_deletion_that_was_cut_short_is_done_by_the_next() {
    let (directory, leaf) = filled();
    leaf.store_all().unwrap();
    // As far as memory, but not to the log.
    assert_eq!(leaf.take_out("t").unwrap(), ROWS as u64);
    end(leaf);
    let leaf = start_again(&directory);
    assert!(ask(&leaf).1 <= ROWS);
    leaf.delete_table("t").unwrap();
    end(leaf);
    assert_eq!(ask(&start_again(&directory)).1, 0);
}
