//! Pruning, deadlines, errors, rows and limits.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int64Type, TimestampNanosecondType};
use gannet_query::{
    AggregateFunction, BinaryOp, Body, ColumnType, Expr, OrderBy, Output, OutputColumn, Plan, TimeRange,
    WeightKind,
};

use super::fixture::*;
use crate::scan::{Cancel, Deadline, RowRun, ScanError, ScanLimits, ScanOutcome, scan};
use crate::surroundings::OsClock;

fn blocks(bounds: &[usize]) -> Vec<TestRun> {
    bounds.windows(2).map(|pair| run(&table(pair[0], pair[1]), Encoding::Tight)).collect()
}

fn counting(filter: Expr) -> Plan {
    plan(Some(filter), vec![], vec![count()])
}

/// Blocks pruned and scanned, rows scanned and covered.
fn check_pruning(plan: &Plan, expect: (u64, u64, u64, u64)) {
    let outcome = scan_all(blocks(&[0, 100, 200, 300]), plan).unwrap();
    let stats = outcome.stats;
    let found = (stats.blocks_pruned, stats.blocks_scanned, stats.rows_scanned, outcome.rows_covered);
    assert_eq!(found, expect, "{plan}");
    assert_eq!((outcome.unscanned, outcome.unreadable), (0, vec![]));
}

#[test]
fn blocks_are_pruned_when_proven_irrelevant() {
    let at = |row: i64| START + row * 7 * SECOND;
    let some = || Expr::IsNotNull(Box::new(column("service")));
    check_pruning(&counting(some()), (0, 3, 300, 300));
    // Outside the time range rows do not count at all.
    let range = TimeRange { min: at(110), max: at(150) };
    check_pruning(&Plan { time_range: range, ..counting(some()) }, (2, 1, 100, 100));
    check_pruning(&counting(binary(BinaryOp::Lt, column("time"), time(at(50)))), (2, 1, 100, 300));
    check_pruning(&counting(binary(BinaryOp::Gt, column("status"), Expr::int(1_500))), (3, 0, 0, 300));
    check_pruning(&counting(binary(BinaryOp::Gt, column("status"), Expr::int(1_499))), (0, 3, 300, 300));
    let list = Arc::new(arrow::array::Int64Array::from(vec![201, 199, 5_000]));
    let in_list = |negated| Expr::InList { operand: Box::new(column("status")), list: list.clone(), negated };
    check_pruning(&counting(in_list(false)), (0, 3, 300, 300));
    check_pruning(&counting(in_list(true)), (0, 3, 300, 300));
    let between = Expr::And(vec![
        some(),
        binary(BinaryOp::GtEq, column("small"), Expr::int(100)),
        binary(BinaryOp::LtEq, column("small"), Expr::int(200)),
    ]);
    check_pruning(&counting(between), (3, 0, 0, 300));
    check_pruning(&counting(Expr::Or(vec![])), (3, 0, 0, 300));
}

#[test]
fn a_missing_column_prunes_what_null_excludes() {
    let check = |filter: Expr, pruned: u64, matched: u64| {
        let mut runs = blocks(&[0, 100, 200]);
        runs[0].columns.retain(|column| !["service", "status"].contains(&column.0.as_str()));
        let outcome = scan_all(runs, &counting(filter.clone())).unwrap();
        assert_eq!((outcome.stats.blocks_pruned, outcome.rows_covered), (pruned, 200), "{filter}");
        let found: u64 = answer(&outcome, &counting(filter.clone()))[&vec![]][0].parse().unwrap();
        assert!(found >= matched, "{filter}: {found}");
    };
    check(like(column("service"), "%"), 1, 1);
    check(binary(BinaryOp::Eq, column("status"), Expr::int(200)), 1, 1);
    check(Expr::IsNull(Box::new(column("service"))), 0, 100);
    check(Expr::Not(Box::new(binary(BinaryOp::Eq, column("service"), Expr::text("x")))), 1, 1);
}

#[test]
fn a_deadline_leaves_runs_uncovered() {
    let plan = plan(None, vec![(column("service"), DataType::Utf8)], vec![count()]);
    let runs: Vec<Arc<dyn RowRun>> =
        blocks(&[0, 100, 250]).into_iter().map(|run| Arc::new(run) as Arc<dyn RowRun>).collect();
    let late = Cancel::new(Some(Deadline { clock: Arc::new(OsClock::start()), at: Duration::ZERO }));
    let outcome = scan(&runs, &plan, &LIMITS, &late, &pool()).unwrap();
    assert_eq!((outcome.rows_covered, outcome.unscanned, outcome.newest_time), (0, 250, None));
    assert_eq!(answer(&outcome, &plan).len(), 0);
    let cancelled = Cancel::new(None);
    cancelled.cancel();
    let outcome = scan(&runs, &plan, &LIMITS, &cancelled, &pool()).unwrap();
    assert_eq!((outcome.rows_covered, outcome.unscanned), (0, 250));
}

#[test]
fn no_keys_are_one_group_even_without_rows() {
    let plan = plan(
        None,
        vec![],
        vec![count(), aggregate(AggregateFunction::Sum, column("small"), DataType::Int64)],
    );
    let outcome = scan_all(vec![], &plan).unwrap();
    assert_eq!(answer(&outcome, &plan)[&vec![]], ["0", "NULL", "0"]);
    let none = Plan { filter: Some(Expr::Or(vec![])), ..plan };
    let outcome = scan_all(blocks(&[0, 10]), &none).unwrap();
    assert_eq!(answer(&outcome, &none)[&vec![]], ["0", "NULL", "0"]);
}

#[test]
fn an_unreadable_run_is_left_out_whole() {
    let mut runs = blocks(&[0, 100, 200, 300]);
    runs[1].broken = Some("status".into());
    let by_status = plan(
        None,
        vec![(column("service"), DataType::Utf8)],
        vec![count(), aggregate(AggregateFunction::Max, column("status"), DataType::Int64)],
    );
    let outcome = scan_all(runs, &by_status).unwrap();
    assert_eq!(outcome.unreadable, [(1, "column `status`: checksum mismatch".to_owned())]);
    assert_eq!(
        (outcome.rows_covered, outcome.stats.rows_scanned, outcome.stats.stored_rows),
        (200, 200, 200)
    );
    assert_eq!(
        answer(&outcome, &by_status),
        reference(&together(&[table(0, 100), table(200, 300)]), &by_status)
    );
}

#[test]
fn a_run_of_a_larger_type_makes_the_plan_stale() {
    let check = |held: ColumnType, expect: Option<ColumnType>| {
        let mut runs = blocks(&[0, 50, 100]);
        for known in runs[1].columns.iter_mut().filter(|known| known.0 == "small") {
            let array = crate::column::Column::Constant(arrow::array::new_null_array(&held.arrow(), 1));
            (known.1, known.2) = (held, array);
        }
        let found = scan_all(runs, &plan(None, vec![], vec![count()]));
        let stale = |held| ScanError::StalePlan { column: "small".into(), plan: ColumnType::Int, held };
        assert_eq!(found.err(), expect.map(stale));
    };
    check(ColumnType::Bool, None);
    check(ColumnType::Int, None);
    check(ColumnType::Float, Some(ColumnType::Float));
    check(ColumnType::String, Some(ColumnType::String));
    check(ColumnType::Strings, Some(ColumnType::Strings));
}

fn check_error(plan: &Plan, expect: &str) {
    for encoding in [Encoding::Plain, Encoding::Tight] {
        let error = scan_all(vec![run(&table(0, 100), encoding)], plan).unwrap_err();
        assert_eq!(error.to_string(), expect, "{encoding:?}");
    }
}

#[test]
fn what_cannot_be_compiled_is_named() {
    let call_of =
        |name: &str| counting(binary(BinaryOp::Eq, call(name, vec![column("url")]), Expr::text("x")));
    check_error(
        &call_of("no_such"),
        "cannot compile (no_such(url) = 'x'): function `no_such` does not exist",
    );
    check_error(
        &counting(Expr::IsNull(Box::new(column("nope")))),
        "cannot compile nope IS NULL: column `nope` is not among the plan's columns",
    );
    check_error(&counting(column("tags")), "cannot compile tags: its type is List(Utf8), not Boolean");
    let plan = plan(
        None,
        vec![],
        vec![aggregate(AggregateFunction::Min, column("tags"), ColumnType::Strings.arrow())],
    );
    let error = scan_all(vec![], &plan).unwrap_err();
    assert!(matches!(error, ScanError::Query(_)), "{error}");
}

/// 10 / (small - 3) > 0: fails where `small` is 3.
fn fails_on_three() -> Expr {
    let below = binary(BinaryOp::Minus, column("small"), Expr::int(3));
    binary(BinaryOp::Gt, binary(BinaryOp::Divide, Expr::int(10), below), Expr::int(0))
}

#[test]
fn an_expression_fails_only_on_rows_that_are_left() {
    let text = "cannot evaluate ((10 / (small - 3)) > 0): Divide by zero error";
    check_error(&counting(fails_on_three()), text);
    let not_three = || binary(BinaryOp::NotEq, column("small"), Expr::int(3));
    let ok = || binary(BinaryOp::Gt, column("small"), Expr::int(3));
    for conjuncts in [
        vec![not_three(), fails_on_three()],
        vec![fails_on_three(), not_three()],
        vec![ok(), fails_on_three()],
    ] {
        let plan = counting(Expr::And(conjuncts));
        for encoding in [Encoding::Plain, Encoding::Tight] {
            let outcome = scan_all(vec![run(&table(0, 300), encoding)], &plan).unwrap();
            let small = table(0, 300)[5].2.clone();
            let above = small
                .as_primitive::<Int64Type>()
                .iter()
                .flatten()
                .filter(|value| (4..=13).contains(value))
                .count();
            assert!(above > 0);
            assert_eq!(answer(&outcome, &plan)[&vec![]], [above.to_string()]);
        }
    }
    let still =
        counting(Expr::And(vec![fails_on_three(), binary(BinaryOp::LtEq, column("small"), Expr::int(3))]));
    check_error(&still, text);
    // A key, an argument and a FILTER see selected rows only.
    let tenth =
        || binary(BinaryOp::Divide, Expr::int(10), binary(BinaryOp::Minus, column("small"), Expr::int(3)));
    let mut sum = aggregate(AggregateFunction::Sum, tenth(), DataType::Int64);
    let grouped = plan(Some(not_three()), vec![(tenth(), DataType::Int64)], vec![sum.clone()]);
    scan_all(blocks(&[0, 300]), &grouped).unwrap();
    sum.filter = Some(not_three());
    scan_all(blocks(&[0, 300]), &plan(None, vec![], vec![sum])).unwrap();
    let text = "cannot evaluate (10 / (small - 3)): Divide by zero error";
    check_error(&plan(None, vec![(tenth(), DataType::Int64)], vec![count()]), text);
}

#[test]
fn a_cast_that_fails_is_named() {
    let number = cast(column("service"), DataType::Int64);
    check_error(
        &counting(binary(BinaryOp::Eq, number, Expr::int(1))),
        "cannot evaluate (CAST(service AS Int64) = 1): Cannot cast string 'cache' to value of Int64 type",
    );
}

#[test]
fn a_volatile_function_is_evaluated_for_each_row() {
    let plan = plan(None, vec![(call("uuid", vec![]), DataType::Utf8)], vec![count()]);
    assert_eq!(answer(&scan_all(blocks(&[0, 100]), &plan).unwrap(), &plan).len(), 100);
    let key = call("concat", vec![column("region"), call("uuid", vec![])]);
    let outcome =
        scan_all(blocks(&[0, 100]), &super::fixture::plan(None, vec![(key, DataType::Utf8)], vec![count()]));
    assert_eq!(answer(&outcome.unwrap(), &plan).len(), 100);
    let half = binary(BinaryOp::Lt, call("random", vec![]), float(0.5));
    let outcome = scan_all(blocks(&[0, 300]), &counting(half)).unwrap();
    assert!((1..300).contains(&outcome.stats.stored_rows), "{}", outcome.stats.stored_rows);
}

#[test]
fn a_long_chain_is_no_deep_tree() {
    let one = |value: i64| {
        binary(BinaryOp::Eq, binary(BinaryOp::Plus, column("small"), Expr::int(0)), Expr::int(value))
    };
    let any = Expr::Or((0..20_000).map(one).collect());
    let outcome = scan_all(blocks(&[0, 20]), &counting(any)).unwrap();
    assert!(outcome.stats.stored_rows > 0);
}

#[test]
fn a_deep_tree_fits_the_stacks_of_the_pool() {
    let deep = (0..2_000).fold(column("small"), |sum, _| binary(BinaryOp::Plus, sum, Expr::int(1)));
    let outcome =
        scan_all(blocks(&[0, 20]), &counting(binary(BinaryOp::Gt, deep, Expr::int(1_990)))).unwrap();
    assert!(outcome.stats.stored_rows > 0);
}

#[test]
fn rows_stand_for_events() {
    let all = plan(None, vec![], vec![]);
    let check = |weight: WeightKind, events: u64| {
        let outcome = scan_all(blocks(&[0, 100, 300]), &Plan { weight, ..all.clone() }).unwrap();
        assert_eq!((outcome.stats.stored_rows, outcome.stats.represented_events), (300, events));
    };
    let table = table(0, 300);
    let rates = table.last().unwrap().2.as_primitive::<Int64Type>();
    let events = rates.iter().map(|rate| rate.unwrap_or(1) as u64).sum();
    check(WeightKind::One, 300);
    check(WeightKind::Int, events);
    let mut floats = all.clone();
    floats.columns.pop();
    floats.columns.push(("sample_rate".into(), ColumnType::Float));
    let outcome = scan_all(blocks(&[0, 300]), &Plan { weight: WeightKind::Float, ..floats }).unwrap();
    assert_eq!(outcome.stats.represented_events, events);
}

#[test]
fn the_newest_time_is_inside_the_range() {
    let all = plan(None, vec![], vec![count()]);
    let newest = |plan: &Plan| scan_all(blocks(&[0, 100, 300]), plan).unwrap().newest_time;
    let table = table(0, 300);
    let times = table[0].2.as_primitive::<TimestampNanosecondType>();
    assert_eq!(newest(&all), times.values().iter().copied().max());
    let cut = TimeRange { min: i64::MIN, max: START + 10 * SECOND };
    assert_eq!(newest(&Plan { time_range: cut, ..all.clone() }), Some(START + 10 * SECOND - 1));
    let none = TimeRange { min: i64::MIN, max: START - 1 };
    assert_eq!(newest(&Plan { time_range: none, ..all }), None);
}

pub(super) fn rows_plan(
    filter: Option<Expr>,
    order_by: Vec<(usize, bool, bool)>,
    limit: Option<u64>,
) -> Plan {
    let names = ["time", "url", "latency", "small", "tags"];
    let groups = plan(filter, vec![], vec![]);
    let mut columns: Vec<OutputColumn> = names
        .iter()
        .map(|name| {
            let data_type = groups.column_type(name).unwrap().arrow();
            OutputColumn { name: (*name).into(), expr: column(name), data_type }
        })
        .collect();
    let minute = call("date_trunc", vec![Expr::text("minute"), column("time")]);
    columns.push(OutputColumn { name: "minute".into(), expr: minute, data_type: ColumnType::Time.arrow() });
    let order_by = order_by
        .into_iter()
        .map(|(column, descending, nulls_first)| OrderBy { column, descending, nulls_first })
        .collect();
    Plan { output: Output::Rows { columns, order_by, limit }, ..groups }
}

pub(super) fn rows_of(outcome: &ScanOutcome, plan: &Plan) -> Vec<String> {
    let (Body::Rows(rows), Output::Rows { columns, .. }) = (&outcome.body, &plan.output) else {
        panic!("not rows")
    };
    let Some(first) = rows.batches.first() else { return vec![] };
    let all: RecordBatch = concat_batches(&first.schema(), &rows.batches).unwrap();
    for (column, shown) in all.schema().fields().iter().zip(columns) {
        assert_eq!((column.name(), column.data_type()), (&shown.name, &shown.data_type));
    }
    let cell = |array: &arrow::array::ArrayRef, row| {
        if array.is_null(row) {
            return "NULL".to_owned();
        }
        arrow::util::display::array_value_to_string(array, row).unwrap()
    };
    (0..all.num_rows())
        .map(|row| all.columns().iter().map(|array| cell(array, row)).collect::<Vec<_>>().join("|"))
        .collect()
}

/// The reference: all rows in one plain run, without a limit, cut afterwards.
fn check_rows(filter: Option<Expr>, order_by: Vec<(usize, bool, bool)>, limit: Option<u64>) {
    let all = rows_plan(filter.clone(), order_by.clone(), None);
    let whole = scan_all(vec![run(&table(0, 300), Encoding::Plain)], &all).unwrap();
    let mut expect = rows_of(&whole, &all);
    let matched = is_true(&table(0, 300), filter.as_ref()).into_iter().filter(|matches| *matches).count();
    assert_eq!(expect.len(), matched);
    expect.truncate(limit.map_or(usize::MAX, |limit| limit as usize));
    let plan = rows_plan(filter, order_by, limit);
    for encodings in [[Encoding::Plain; 3], [Encoding::Tight; 3]] {
        let parts = [(0, 90), (90, 100), (100, 300)];
        let runs =
            parts.iter().zip(encodings).map(|((from, to), encoding)| run(&table(*from, *to), encoding));
        let outcome = scan_all(runs.collect(), &plan).unwrap();
        assert_eq!(rows_of(&outcome, &plan), expect, "{plan}");
        assert_eq!(outcome.rows_covered, 300);
    }
}

#[test]
fn rows_come_in_order_and_cut() {
    for limit in [None, Some(0), Some(1), Some(7), Some(299), Some(10_000)] {
        let filter = || binary(BinaryOp::Gt, column("small"), Expr::int(10));
        for filter in [None, Some(filter())] {
            for descending in [false, true] {
                check_rows(filter.clone(), vec![(0, descending, false)], limit);
                for nulls_first in [false, true] {
                    check_rows(filter.clone(), vec![(2, descending, nulls_first), (0, true, false)], limit);
                    check_rows(
                        filter.clone(),
                        vec![(5, descending, false), (3, true, nulls_first), (0, false, true)],
                        limit,
                    );
                }
            }
        }
    }
}

#[test]
fn an_order_by_time_prunes_runs_that_come_too_late() {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let runs: Vec<Arc<dyn RowRun>> =
        blocks(&[0, 100, 200, 300]).into_iter().map(|run| Arc::new(run) as Arc<dyn RowRun>).collect();
    for (order_by, pruned) in
        [(vec![(0, true, false)], 2), (vec![(0, false, false)], 2), (vec![(3, true, false)], 0)]
    {
        let plan = rows_plan(None, order_by, Some(5));
        let outcome = scan(&runs, &plan, &LIMITS, &Cancel::default(), &one).unwrap();
        assert_eq!((outcome.stats.blocks_pruned, outcome.rows_covered), (pruned, 300), "{plan}");
    }
    let any = rows_plan(None, vec![], Some(150));
    let outcome = scan(&runs, &any, &LIMITS, &Cancel::default(), &one).unwrap();
    assert_eq!((outcome.stats.blocks_pruned, outcome.rows_covered), (1, 300));
    assert_eq!(rows_of(&outcome, &any).len(), 150);
}

#[test]
fn limits_on_memory_are_named() {
    let runs: Vec<Arc<dyn RowRun>> =
        blocks(&[0, 100, 200]).into_iter().map(|run| Arc::new(run) as Arc<dyn RowRun>).collect();
    let small = ScanLimits { memory_bytes_max: 64, result_bytes_max: 1_000, top: None };
    let check = |plan: Plan, expect: &str| {
        let error = scan(&runs, &plan, &small, &Cancel::default(), &pool()).unwrap_err();
        assert_eq!(error.to_string(), expect);
    };
    check(rows_plan(None, vec![], None), "query needs more than 1000 bytes for its rows");
    check(rows_plan(None, vec![(0, true, false)], None), "query needs more than 1000 bytes for its rows");
    let many = plan(None, vec![(column("bytes"), DataType::Int64)], vec![count()]);
    check(many, "query needs more than 64 bytes for its groups");
}
