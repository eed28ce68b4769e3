//! What a watcher hears is exact for what it says is covered.
//!
//! Runs have 1, 2, 4, 8 … rows, so the number of rows that are covered tells which runs they are; a scan of those runs
//! alone must give the same groups or rows.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::DataType;
use gannet_query::{AggregateFunction, BinaryOp, Body, Expr, Plan};
use parking_lot::Mutex;

use super::behaviour::{rows_of, rows_plan};
use super::fixture::*;
use crate::scan::{Cancel, RowRun, ScanOutcome, Watcher, scan, scan_watched};

const RUNS: usize = 9;

fn doubling() -> Vec<Arc<dyn RowRun>> {
    let bounds: Vec<usize> = (0..=RUNS).map(|power| (1 << power) - 1).collect();
    let runs = bounds.windows(2).map(|pair| run(&table(pair[0], pair[1]), Encoding::Tight));
    runs.map(|run| Arc::new(run) as Arc<dyn RowRun>).collect()
}

fn shown(outcome: &ScanOutcome, plan: &Plan) -> String {
    match &outcome.body {
        Body::Groups(_) => format!("{:?}", answer(outcome, plan)),
        Body::Rows(_) => format!("{:?}", rows_of(outcome, plan)),
    }
}

/// Gives back how many times something was told.
fn check(plan: &Plan, with_body: bool) -> usize {
    let runs = doubling();
    let told = Mutex::new(Vec::new());
    let tell = |so_far: ScanOutcome<Option<Body>>| told.lock().push(so_far);
    let watcher = Watcher { every: Duration::ZERO, with_body, tell: &tell };
    let whole = scan_watched(&runs, plan, &LIMITS, &Cancel::default(), &pool(), Some(&watcher)).unwrap();
    let plain = scan(&runs, plan, &LIMITS, &Cancel::default(), &pool()).unwrap();
    assert_eq!(shown(&whole, plan), shown(&plain, plan), "{plan}");
    assert_eq!((whole.rows_covered, whole.unscanned), (plain.rows_covered, 0));
    let told = told.into_inner();
    let mut before = 0;
    for so_far in &told {
        assert!(so_far.rows_covered >= before, "covered rows only become more");
        before = so_far.rows_covered;
        assert_eq!(so_far.rows_covered + so_far.unscanned, plain.rows_covered, "{plan}");
        let Some(body) = so_far.body.clone() else { continue };
        let covered = |index: &usize| so_far.rows_covered & (1 << index) != 0;
        let those: Vec<_> = (0..RUNS).filter(covered).map(|index| Arc::clone(&runs[index])).collect();
        let expect = scan(&those, plan, &LIMITS, &Cancel::default(), &pool()).unwrap();
        let so_far = ScanOutcome {
            body,
            stats: so_far.stats,
            rows_covered: so_far.rows_covered,
            unreadable: vec![],
            unscanned: so_far.unscanned,
            newest_time: so_far.newest_time,
        };
        assert_eq!(shown(&so_far, plan), shown(&expect, plan), "{plan} of {}", so_far.rows_covered);
        assert_eq!(so_far.newest_time, expect.newest_time);
        // Which rows are looked at depends on what is known of better ones; groups look at all.
        if matches!(so_far.body, Body::Groups(_)) {
            assert_eq!(so_far.stats.stored_rows, expect.stats.stored_rows);
        }
    }
    assert!(told.iter().all(|so_far| so_far.body.is_some() == with_body));
    told.len()
}

#[test]
fn groups_so_far_are_those_of_the_covered_runs() {
    let aggregates = || {
        vec![
            count(),
            aggregate(AggregateFunction::Sum, column("small"), DataType::Int64),
            aggregate(AggregateFunction::Max, column("status"), DataType::Int64),
            aggregate(AggregateFunction::Distinct, column("service"), DataType::Utf8),
            aggregate(AggregateFunction::Quantiles, column("latency"), DataType::Float64),
        ]
    };
    let filter = || binary(BinaryOp::Gt, column("small"), Expr::int(10));
    let by_service = || vec![(column("service"), DataType::Utf8)];
    for keys in [vec![], by_service(), vec![(column("latency"), DataType::Float64)]] {
        for filter in [None, Some(filter()), Some(Expr::Or(vec![]))] {
            let plan = plan(filter, keys.clone(), aggregates());
            assert!(check(&plan, true) > 0, "{plan}");
            check(&plan, false);
        }
    }
}

#[test]
fn rows_so_far_are_the_first_of_the_covered_runs() {
    // Threads race for what they learn of each other's rows, so each is tried some times.
    for _ in 0..8 {
        for limit in [Some(1), Some(7), Some(200)] {
            for descending in [false, true] {
                for first in [0, 3, 5] {
                    let plan = rows_plan(None, vec![(first, descending, false), (0, true, false)], limit);
                    check(&plan, true);
                }
            }
        }
    }
    let all = rows_plan(None, vec![(0, true, false)], None);
    assert!(check(&all, true) > 0);
}
