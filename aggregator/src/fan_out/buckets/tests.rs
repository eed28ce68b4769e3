//! Two leaves by minute, and what their steps say when rows are missing.

use arrow::datatypes::IntervalMonthDayNanoType;
use std::sync::Arc;

use arrow::array::IntervalMonthDayNanoArray;
use gannet_query::holdings::SPAN_STEP_NS as MINUTE;
use gannet_query::{Holdings, Key, LeafState, Missing, WeightKind};

use super::*;

fn span((from, to, rows): (i64, i64, u64)) -> Span {
    Span { first: from * MINUTE, last: (to + 1) * MINUTE - 1, rows }
}

/// A leaf by blocks and, when it tells them, by times.
fn leaf(
    id: &str,
    blocks: &[(i64, i64, u64)],
    by_time: &[(i64, i64, u64)],
    lost: &[(i64, i64, u64)],
) -> Holdings {
    let spans = |spans: &[(i64, i64, u64)]| spans.iter().copied().map(span).collect::<Vec<_>>();
    let table = TableHolding {
        name: "t".into(),
        rows: blocks.iter().map(|block| block.2).sum(),
        spans: spans(blocks),
        by_time: spans(by_time),
        lost: spans(lost),
        ..Default::default()
    };
    Holdings {
        leaf: id.into(),
        epoch: 1,
        version: String::new(),
        state: LeafState::Serving,
        source: String::new(),
        source_detail: String::new(),
        memory_used_bytes: 0,
        memory_limit_bytes: 0,
        phases: vec![],
        tables: vec![table],
        rows_ingested: 0,
        rows_restored: 0,
        process: String::new(),
        machine: String::new(),
        takes_dictionaries: true,
    }
}

fn bin(minutes: i64) -> Expr {
    let width = IntervalMonthDayNanoType::make_value(0, 0, minutes * MINUTE);
    let width = Expr::literal(Arc::new(IntervalMonthDayNanoArray::from(vec![width])));
    Expr::Call { function: "date_bin".into(), arguments: vec![width, Expr::column(TIME_COLUMN)] }
}

fn plan(key: Expr, range: (i64, i64)) -> Plan {
    let data_type = gannet_query::ColumnType::Time.arrow();
    Plan {
        table: "t".into(),
        columns: vec![],
        time_range: TimeRange { min: range.0 * MINUTE, max: range.1 * MINUTE },
        filter: None,
        weight: WeightKind::One,
        output: Output::Groups { keys: vec![Key { expr: key, data_type }], aggregates: vec![] },
    }
}

fn missing(leaf: &str, reason: MissingReason, rows: Option<u64>, answered: bool) -> Missing {
    Missing { leaf: leaf.into(), reason, rows, answered, detail: String::new() }
}

/// Steps as minute, rows covered, rows expected.
fn check(leaves: Vec<Holdings>, key: Expr, missing: Vec<Missing>, expect: &[(i64, u64, Option<u64>)]) {
    let mut roster = Roster::default();
    roster.described("child", leaves, vec![], 0);
    let completeness = Completeness { missing, ..Default::default() };
    let found = buckets(&roster, &plan(key, (0, 60)), &completeness);
    let shown: Vec<_> = found
        .iter()
        .map(|bucket| (bucket.time / MINUTE, bucket.rows_covered, bucket.rows_expected))
        .collect();
    assert_eq!(shown, expect);
    for bucket in found {
        assert!(bucket.ratio().is_none_or(|ratio| ratio <= 1.0));
    }
}

/// Blocks of ten minutes whose rows are told minute by minute.
fn two() -> Vec<Holdings> {
    let a = leaf("a", &[(0, 9, 60)], &[(0, 0, 10), (1, 1, 20), (5, 5, 30)], &[]);
    let b = leaf("b", &[(0, 9, 50)], &[(1, 1, 20), (2, 2, 30)], &[]);
    vec![a, b]
}

#[test]
fn a_leaf_that_is_down_thins_the_steps_it_has_rows_in() {
    use MissingReason::Down;
    check(two(), bin(1), vec![], &[]);
    check(two(), bin(1), vec![missing("b", Down, Some(0), false)], &[]);
    let down = || vec![missing("b", Down, Some(50), false)];
    let expect = [(0, 10, Some(10)), (1, 20, Some(40)), (2, 0, Some(30)), (5, 30, Some(30))];
    check(two(), bin(1), down(), &expect);
    check(two(), bin(5), down(), &[(0, 30, Some(80)), (5, 30, Some(30))]);
    let unknown = vec![missing("b", Down, None, false)];
    check(two(), bin(5), unknown, &[(0, 30, None), (5, 30, None)]);
    // Not by time: nothing is told.
    check(two(), Expr::column("service"), down(), &[]);
}

#[test]
fn what_a_leaf_did_not_scan_may_be_in_any_step() {
    let late = vec![missing("b", MissingReason::Timeout, Some(25), true)];
    let expect = [(0, 10, Some(10)), (1, 20, Some(40)), (2, 5, Some(30)), (5, 30, Some(30))];
    check(two(), bin(1), late, &expect);
}

#[test]
fn lost_rows_are_missing_where_they_were() {
    let mut leaves = two();
    leaves[1].tables[0].lost = vec![span((2, 3, 7))];
    let lost = vec![missing("b", MissingReason::Lost, Some(7), true)];
    let expect =
        [(0, 10, Some(10)), (1, 40, Some(40)), (2, 30, Some(37)), (3, 0, Some(7)), (5, 30, Some(30))];
    check(leaves, bin(1), lost, &expect);
}

#[test]
fn coarse_knowledge_understates() {
    // The blocks of one are told by their first and last rows only; 10 rows of the other came since it told its rows.
    let a = leaf("a", &[(0, 1, 60)], &[], &[]);
    let b = leaf("b", &[(0, 1, 40)], &[(0, 0, 30)], &[]);
    let down = |leaf: &str, rows| vec![missing(leaf, MissingReason::Down, Some(rows), false)];
    let both = || vec![a.clone(), b.clone()];
    check(both(), bin(1), down("a", 60), &[(0, 30, Some(90)), (1, 0, Some(60))]);
    check(both(), bin(1), down("b", 40), &[(0, 0, Some(40)), (1, 0, Some(10))]);
    check(both(), bin(2), down("b", 40), &[(0, 60, Some(100))]);
}

#[test]
fn steps_are_those_of_the_key() {
    let call = |function: &str, unit: &str| Expr::Call {
        function: function.into(),
        arguments: vec![Expr::text(unit), Expr::column(TIME_COLUMN)],
    };
    let check = |expr: Expr, expect: Option<(i64, i64)>| {
        assert_eq!(steps(&expr).map(|steps| (steps.origin, steps.width)), expect, "{expr}");
    };
    check(bin(5), Some((0, 5 * MINUTE)));
    check(call("date_trunc", "Hour"), Some((0, 60 * MINUTE)));
    check(call("date_trunc", "week"), Some((-3 * DAY, 7 * DAY)));
    check(call("date_trunc", "month"), None);
    check(call("date_part", "hour"), None);
    check(Expr::column(TIME_COLUMN), None);
    let week = Steps { origin: -3 * DAY, width: 7 * DAY };
    // 2026-11-16 was a Monday.
    assert_eq!(week.start(week.number(1_795_219_200 * SECOND)), 1_794_787_200 * SECOND);
}

#[test]
fn too_many_steps_are_not_told() {
    let many = leaf("a", &[(0, 9, 60)], &[], &[]);
    let one_second = Expr::Call {
        function: "date_trunc".into(),
        arguments: vec![Expr::text("second"), Expr::column(TIME_COLUMN)],
    };
    let mut roster = Roster::default();
    roster.described("child", vec![many], vec![], 0);
    let down = Completeness {
        missing: vec![missing("a", MissingReason::Down, Some(60), false)],
        ..Default::default()
    };
    let count = |minutes| buckets(&roster, &plan(one_second.clone(), (0, minutes)), &down).len();
    assert_eq!((count(1), count(10)), (60, 600));
    let all = Plan { time_range: TimeRange::ALL, ..plan(one_second.clone(), (0, 1)) };
    assert_eq!(buckets(&roster, &all, &down).len(), 600);
    let far = leaf("b", &[(100_000, 100_000, 1)], &[], &[]);
    roster.described("other", vec![far], vec![], 0);
    assert_eq!(buckets(&roster, &all, &down).len(), 0);
}
