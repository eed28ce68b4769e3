//! Tables of events, and the rows expected after each.

use gannet_query::holdings::SPAN_STEP_NS as MINUTE;
use gannet_query::{ColumnHolding, ColumnType, TypeSet};

use super::*;

const NOW: i64 = 1_000 * MINUTE;

/// A leaf that serves one table; `(minute, rows)` by minute.
fn leaf(id: &str, epoch: u64, rows: &[(i64, u64)]) -> Holdings {
    let spans: Vec<Span> = rows.iter().map(|(at, rows)| Span::of(at * MINUTE, at * MINUTE, *rows)).collect();
    let column = ColumnHolding {
        name: "x".into(),
        types: TypeSet::of(ColumnType::Int, false),
        value_count: 1,
        distinct_estimate: 1,
        bytes: 8,
    };
    let table = TableHolding {
        name: "t".into(),
        rows: spans.iter().map(|span| span.rows).sum(),
        bytes: 100,
        spans,
        columns: vec![column],
        schema_version: 1,
        ..Default::default()
    };
    let restored = if epoch > 1 { table.rows } else { 0 };
    Holdings {
        leaf: id.into(),
        epoch,
        version: "0.1.0".into(),
        state: LeafState::Serving,
        source: "nothing".into(),
        source_detail: String::new(),
        memory_used_bytes: 0,
        memory_limit_bytes: 100,
        phases: vec![],
        tables: if rows.is_empty() { vec![] } else { vec![table] },
        rows_ingested: 0,
        rows_restored: restored,
        process: String::new(),
        machine: String::new(),
        takes_dictionaries: true,
    }
}

fn lost(mut holdings: Holdings, at: i64, rows: u64) -> Holdings {
    holdings.tables[0].lost = vec![Span::of(at * MINUTE, at * MINUTE, rows)];
    holdings
}

fn state(mut holdings: Holdings, state: LeafState) -> Holdings {
    holdings.state = state;
    holdings
}

fn retention(mut holdings: Holdings, minutes: u64) -> Holdings {
    holdings.tables[0].retention_seconds = minutes * 60;
    holdings
}

/// Of what it holds, this much came since the start and not with it.
fn ingested(mut holdings: Holdings, rows: u64) -> Holdings {
    holdings.rows_ingested = rows;
    holdings.rows_restored -= rows;
    holdings
}

/// After all these descriptions of leaf `l` through child `c`, what is expected and what is lost of it.
fn check(said: Vec<Holdings>, expected: u64, lost: u64) -> Roster {
    let mut roster = Roster::default();
    roster.configure(["c".to_owned()]);
    for holdings in said {
        roster.described("c", vec![holdings], vec![], NOW);
    }
    let found =
        (roster.rows_expected("l", "t", &TimeRange::ALL), roster.rows_lost("l", "t", &TimeRange::ALL));
    assert_eq!(found, (expected, lost));
    roster
}

#[test]
fn within_an_epoch_the_leaf_is_believed() {
    check(vec![leaf("l", 1, &[(1, 10)])], 10, 0);
    check(vec![leaf("l", 1, &[(1, 10)]), leaf("l", 1, &[(1, 10), (2, 5)])], 15, 0);
    check(vec![leaf("l", 1, &[(1, 10)]), leaf("l", 1, &[(2, 5)])], 5, 0);
    check(vec![leaf("l", 1, &[(1, 10)]), leaf("l", 1, &[])], 0, 0);
    check(vec![lost(leaf("l", 1, &[(1, 10)]), 1, 3)], 13, 0);
}

#[test]
fn a_later_epoch_loses_what_it_does_not_bring() {
    let before = || leaf("l", 1, &[(1, 10), (2, 20)]);
    check(vec![before(), leaf("l", 2, &[(1, 10), (2, 20)])], 30, 0);
    check(vec![before(), leaf("l", 2, &[(1, 10)])], 30, 20);
    check(vec![before(), leaf("l", 2, &[])], 30, 30);
    // Rows that came since do not make up for lost ones, wherever they lie.
    check(vec![before(), ingested(leaf("l", 2, &[(5, 8)]), 8)], 38, 30);
    check(vec![before(), ingested(leaf("l", 2, &[(2, 8)]), 8)], 38, 30);
    check(vec![before(), ingested(leaf("l", 2, &[(1, 10), (2, 20), (5, 8)]), 8)], 38, 0);
    // What the leaf counts as lost by itself is not lost twice.
    check(vec![before(), lost(leaf("l", 2, &[(1, 10)]), 2, 20)], 30, 0);
    check(vec![before(), leaf("l", 2, &[(1, 10)]), lost(leaf("l", 2, &[(1, 10)]), 2, 15)], 30, 5);
    // Lost rows stay lost through later epochs, and may come back.
    check(vec![before(), leaf("l", 2, &[(1, 10)]), leaf("l", 3, &[(1, 10)])], 30, 20);
    check(vec![before(), leaf("l", 2, &[]), leaf("l", 3, &[(1, 10), (2, 20)])], 30, 0);
    // A leaf that began anew at its own address, without what it knew.
    check(vec![leaf("l", 7, &[(1, 10)]), leaf("l", 1, &[(3, 5)])], 15, 10);
}

#[test]
fn retention_is_no_loss() {
    // By bytes: newer rows took the place of old ones while nobody looked.
    check(vec![leaf("l", 1, &[(1, 10), (2, 20)]), leaf("l", 2, &[(2, 20), (3, 10)])], 30, 0);
    // By age, across a restart: minute 1 is older than ten minutes.
    let old = || retention(leaf("l", 1, &[(1, 10), (995, 20)]), 10);
    check(vec![old(), retention(leaf("l", 2, &[(995, 20)]), 10)], 20, 0);
    // Lost rows expire too.
    let mut roster = check(vec![old(), retention(leaf("l", 2, &[(995, 5)]), 10)], 20, 15);
    let later = NOW + 20 * MINUTE;
    roster.described("c", vec![retention(leaf("l", 2, &[(995, 5)]), 10)], vec![], later);
    assert_eq!(roster.rows_lost("l", "t", &TimeRange::ALL), 0);
}

#[test]
fn a_leaf_that_starts_changes_nothing_yet() {
    for starting in [LeafState::Starting, LeafState::Attaching, LeafState::Recovering, LeafState::HandingOver]
    {
        let early = state(leaf("l", 2, &[(1, 3)]), starting);
        check(vec![leaf("l", 1, &[(1, 10)]), early], 10, 0);
    }
    let early = state(leaf("l", 2, &[(1, 3)]), LeafState::Recovering);
    check(vec![leaf("l", 1, &[(1, 10)]), early.clone(), leaf("l", 2, &[(1, 10)])], 10, 0);
    check(vec![leaf("l", 1, &[(1, 10)]), early, leaf("l", 2, &[(1, 4)])], 10, 6);
    // While it hands over, it frees what it has copied.
    check(vec![leaf("l", 1, &[(1, 10)]), state(leaf("l", 1, &[]), LeafState::HandingOver)], 10, 0);
}

#[test]
fn time_ranges_expect_the_spans_they_meet() {
    let roster = check(vec![leaf("l", 1, &[(1, 10), (2, 20)]), leaf("l", 2, &[(1, 10), (2, 5)])], 30, 15);
    let rows = |min, max| roster.rows_expected("l", "t", &TimeRange { min: min * MINUTE, max: max * MINUTE });
    assert_eq!([rows(0, 1), rows(1, 2), rows(2, 3), rows(1, 3), rows(3, 9)], [0, 10, 20, 30, 0]);
}

#[test]
fn tables_that_are_gone_stay_known_while_rows_are_lost() {
    let mut roster = check(vec![leaf("l", 1, &[(1, 10)]), leaf("l", 2, &[])], 10, 10);
    let table = roster.catalogue().tables["t"].clone();
    assert_eq!((table.rows, table.columns.len()), (0, 1));
    assert_eq!(roster.accept_loss("l"), Some(10));
    assert_eq!(roster.catalogue(), Catalogue::default());
    assert_eq!(roster.rows_expected("l", "t", &TimeRange::ALL), 0);
}

#[test]
fn replies_to_batches_are_noted() {
    let mut roster = check(vec![leaf("l", 1, &[(1, 10)])], 10, 0);
    let reply = |epoch, rows, ingested, columns: bool, schema_version| {
        let mut said = leaf("l", epoch, &[(1, rows)]);
        said.rows_ingested = ingested;
        said.tables[0].schema_version = schema_version;
        if !columns {
            said.tables[0].columns.clear();
        }
        said
    };
    let all = &TimeRange::ALL;
    assert_eq!(roster.appended("c", &reply(1, 15, 5, false, 1)), Noted::Done);
    assert_eq!(roster.rows_expected("l", "t", all), 15);
    assert_eq!(roster.catalogue().tables["t"].columns.len(), 1, "columns are kept");
    // An older reply that was overtaken, and an older description.
    assert_eq!(roster.appended("c", &reply(1, 12, 2, true, 1)), Noted::Done);
    roster.described("c", vec![leaf("l", 1, &[(1, 10)])], vec![], NOW);
    assert_eq!(roster.rows_expected("l", "t", all), 15);
    // Columns that changed and are not in the reply; a new epoch; another child; another leaf.
    assert_eq!(roster.appended("c", &reply(1, 20, 10, false, 2)), Noted::DescribeFirst);
    assert_eq!(roster.appended("c", &reply(2, 20, 10, true, 1)), Noted::DescribeFirst);
    assert_eq!(roster.appended("d", &reply(1, 20, 10, true, 1)), Noted::DescribeFirst);
    assert_eq!(roster.appended("c", &leaf("m", 1, &[(1, 1)])), Noted::DescribeFirst);
    assert_eq!(roster.rows_expected("l", "t", all), 15);
}

fn shown(missing: &[Missing]) -> Vec<(&str, Option<u64>)> {
    missing.iter().map(|missing| (missing.leaf.as_str(), missing.rows)).collect()
}

#[test]
fn a_child_stands_for_its_leaves() {
    let mut roster = Roster::default();
    roster.configure(["a".to_owned(), "b".to_owned()]);
    let leaves = vec![leaf("l1", 1, &[(1, 10)]), leaf("l2", 1, &[(1, 5)])];
    roster.described("a", leaves, vec![("l9".into(), "connection refused".into())], NOW);
    let missing = |roster: &Roster, child| {
        let missing = roster.missing_of(child, MissingReason::Down, "why", "t", &TimeRange::ALL);
        shown(&missing).into_iter().map(|(leaf, rows)| (leaf.to_owned(), rows)).collect::<Vec<_>>()
    };
    let of_a = vec![("l1".to_owned(), Some(10)), ("l2".to_owned(), Some(5)), ("l9".to_owned(), None)];
    assert_eq!(missing(&roster, "a"), of_a);
    assert_eq!(missing(&roster, "b"), [("b".to_owned(), None)]);
    let mut read = Roster::from_text(&roster.to_text()).unwrap();
    read.configure(["b".to_owned()]);
    assert_eq!(missing(&read, "a"), of_a, "the same after it was written and read");
    let besides = read.missing_besides(|leaf| leaf == "l1", "t", &TimeRange::ALL);
    assert_eq!(shown(&besides), [("l2", Some(5))]);
    assert_eq!(besides[0].detail, "its child a is not among the configured children");
}

#[test]
fn two_processes_with_one_id() {
    let mut roster = Roster::default();
    roster.configure(["a".to_owned(), "b".to_owned()]);
    roster.described("a", vec![leaf("l", 2, &[(1, 10)])], vec![], NOW);
    roster.described("b", vec![leaf("l", 1, &[(1, 3)])], vec![], NOW);
    assert_eq!(roster.rows_expected("l", "t", &TimeRange::ALL), 10);
    assert_eq!(roster.child_of("l"), Some(("a", true)));
    assert_eq!(roster.contested(), BTreeSet::from(["l".to_owned()]));
    roster.described("b", vec![], vec![], NOW);
    assert_eq!(roster.contested(), BTreeSet::new());
}

#[test]
fn a_leaf_that_will_not_come_back_is_forgotten() {
    let mut roster = check(vec![leaf("l", 1, &[(1, 10)])], 10, 0);
    assert_eq!((roster.accept_loss("m"), roster.forget("m")), (None, None));
    roster.described("c", vec![leaf("new", 1, &[])], vec![("gone".into(), "why".into())], NOW);
    assert_eq!((roster.forget("l"), roster.forget("gone")), (Some(10), Some(0)));
    assert_eq!(roster.leaves().len(), 1);
    assert_eq!(roster.unheard(), []);
}

#[test]
fn the_text_keeps_everything() {
    let before = leaf("l", 1, &[(1, 10), (2, 20)]);
    let roster = check(vec![before, lost(leaf("l", 2, &[(1, 4)]), 1, 2)], 30, 24);
    let text = roster.to_text();
    let read = Roster::from_text(&text).unwrap();
    assert_eq!(read.to_text(), text);
    assert_eq!(read.rows_expected("l", "t", &TimeRange::ALL), 30);
    assert_eq!(read.catalogue(), roster.catalogue());
}

fn refused(text: &str, expect: &str) {
    let error = Roster::from_text(text).unwrap_err().to_string();
    assert!(error.starts_with(expect), "{error}");
}

#[test]
fn texts_are_checked() {
    refused("", "roster is not what was written: EOF");
    refused("{}", "roster is not what was written: missing field `version`");
    refused(r#"{"version":3}"#, "roster has version 3, this build reads 1 to 2");
    let good = check(vec![leaf("l", 1, &[(1, 10)])], 10, 0).to_text();
    refused(&good.replace("60000000000", "70000000000000"), "roster of leaf `l`, table `t`: span [");
    refused(&good[..good.len() / 2], "roster is not what was written: EOF");
}
