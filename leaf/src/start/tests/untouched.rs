//! After a clean stop, blocks are noted and not opened: what that changes, and what it must not.

use super::*;
use crate::start::noted::Noted;

/// A leaf that was handed over and attached, and has nothing to do behind its answers.
fn attached() -> (Cleanup, Arc<Leaf>) {
    let (directory, leaf) = filled();
    leaf.hand_over().unwrap();
    end(leaf);
    let leaf = Leaf::attach(config(directory.0.path())).unwrap().leaf;
    (directory, leaf)
}

fn blocks(leaf: &Leaf) -> Arc<Vec<Arc<crate::held_block::HeldBlock>>> {
    Arc::clone(&leaf.table("t").unwrap().snapshot().blocks)
}

fn open_blocks(leaf: &Leaf) -> usize {
    blocks(leaf).iter().filter(|held| held.is_open()).count()
}

/// Count of all rows, which no column is needed for.
fn count(leaf: &Leaf) -> (Partial, i64) {
    let count =
        Aggregate { function: AggregateFunction::Count, argument: None, filter: None, weighted: true };
    let plan = Plan {
        table: "t".into(),
        columns: vec![],
        time_range: TimeRange::ALL,
        filter: None,
        weight: WeightKind::One,
        output: Output::Groups { keys: vec![], aggregates: vec![count] },
    };
    let partial = leaf.query(&plan, &Cancel::new(None)).unwrap();
    let Body::Groups(groups) = &partial.body else { panic!("groups were asked for") };
    let column = groups.states[0].finish(&Finish::Count, &DataType::Int64).unwrap();
    let value = column.as_any().downcast_ref::<Int64Array>().unwrap().value(0);
    (partial, value)
}

#[test]
fn a_block_is_opened_when_a_column_of_it_is_asked_for() {
    let (_directory, leaf) = attached();
    assert_eq!((blocks(&leaf).len(), open_blocks(&leaf)), (3, 0));
    let before = leaf.used_bytes();
    let (partial, rows) = count(&leaf);
    assert_eq!((rows, partial.completeness.ratio()), (ROWS, Some(1.0)));
    assert_eq!(partial.completeness.newest_time, Some((ROWS - 1) * 1_000_000_000));
    let holding = leaf.holding("t", false);
    assert_eq!((holding.rows, holding.time_range), (ROWS as u64, Some((0, (ROWS - 1) * 1_000_000_000))));
    assert_eq!(open_blocks(&leaf), 0, "counting needs no column");
    check_whole(&leaf);
    assert_eq!(open_blocks(&leaf), 3);
    assert_eq!(leaf.used_bytes(), before, "what an opened block takes was accounted for before");
    let accounted: u64 = blocks(&leaf).iter().map(|held| held.memory_bytes()).sum();
    let taken: u64 =
        blocks(&leaf).iter().map(|held| held.bytes() + held.block().unwrap().directory_memory_bytes()).sum();
    assert_eq!(accounted, taken);
}

#[test]
fn columns_are_described_without_a_question() {
    let (_directory, leaf) = attached();
    let columns = leaf.holding("t", true).columns;
    let values: Vec<(&str, u64)> =
        columns.iter().map(|column| (column.name.as_str(), column.value_count)).collect();
    assert_eq!(values, [("text", ROWS as u64), ("time", ROWS as u64), ("x", ROWS as u64)]);
}

#[test]
fn the_next_stop_notes_what_was_never_touched() {
    let (directory, leaf) = attached();
    leaf.lifecycle.enter(LeafState::Serving);
    assert_eq!(leaf.hand_over().unwrap(), Stopped::HandedOver);
    assert_eq!(open_blocks(&leaf), 0);
    end(leaf);
    let leaf = Leaf::attach(config(directory.0.path())).unwrap().leaf;
    assert_eq!(open_blocks(&leaf), 0);
    check_whole(&leaf);
}

#[test]
fn what_expires_untouched_gives_its_memory_back() {
    let (directory, leaf) = attached();
    assert_eq!(segment_names(directory.0.path()).len(), 1);
    let gone = leaf.table("t").unwrap().expire(|_| true);
    assert!(gone.iter().all(|held| !held.is_open()));
    drop(gone);
    assert_eq!(segment_names(directory.0.path()), Vec::<String>::new());
}

#[test]
fn a_segment_that_goes_after_the_start_is_read_from_its_files() {
    let (directory, leaf) = attached();
    remove_segments(&OsSharedMemory, &segments(directory.0.path()), &BTreeSet::new());
    check_whole(&leaf);
    assert_eq!(ask(&leaf).0.completeness.missing, []);
}

#[test]
fn columns_that_were_noted_wrong_are_missing_until_the_block_is_checked() {
    let check = |what: &str, wrong: &[(&str, ColumnType)]| {
        let (directory, leaf) = filled();
        leaf.hand_over().unwrap();
        let wrong: crate::held_block::Columns = wrong
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), gannet_query::TypeSet::of(*kind, false)))
            .collect();
        end(leaf);
        let manifest = manifest_of(directory.0.path());
        let columns = manifest.tables[0].blocks.iter().map(|entry| (entry.id, Arc::clone(&wrong))).collect();
        let names = segments(directory.0.path());
        let payload = Noted { columns }.write("leaf-7", 1);
        gannet_shm::publish(&OsSharedMemory, &names, edition(manifest.generation), &payload).unwrap();

        let leaf = Leaf::attach(config(directory.0.path())).unwrap().leaf;
        assert_eq!(count(&leaf).1, ROWS, "{what}");
        let (partial, count, sum) = ask(&leaf);
        assert_eq!((count, sum), (0, 0), "{what}: a value may be absent, and never another");
        let missing = &partial.completeness.missing;
        assert!(missing.iter().all(|missing| missing.reason == MissingReason::Error), "{what}: {missing:?}");
        assert_eq!(missing.iter().filter_map(|missing| missing.rows).sum::<u64>(), ROWS as u64, "{what}");
        leaf.lifecycle.enter(LeafState::Serving);
        let table = leaf.table("t").unwrap();
        blocks(&leaf).iter().for_each(|held| leaf.verify(&table, held.id()));
        check_whole(&leaf);
    };
    use ColumnType::{Int, String, Time};
    check("a column less", &[("text", String), ("time", Time)]);
    check("a column more", &[("text", String), ("time", Time), ("x", Int), ("y", Int)]);
    check("another name", &[("text", String), ("time", Time), ("z", Int)]);
    check("another type", &[("text", Int), ("time", Time), ("x", Int)]);
}
