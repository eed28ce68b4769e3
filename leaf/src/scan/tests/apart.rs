//! Keys that hardly any two rows share, which are groups of their own before they meet, and keys that hardly any two
//! runs share.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Int64Type};
use gannet_query::{
    AggregateFunction, BinaryOp, Body, ColumnType, Expr, Finish, Groups, Plan, Top, TopTerm, TopValue,
    WeightKind,
};

use super::fixture::*;
use crate::scan::{Cancel, RowRun, ScanLimits, scan};

const RUNS: usize = 8;
const ROWS: usize = 17_000;

/// Of each key: events, the sum of `small`, its least value, and events where it is above 5.
type Sums = BTreeMap<Option<i64>, (i64, Option<i64>, Option<i64>, i64)>;

/// A key that few rows share, but for NULL.
fn key(row: usize) -> Option<i64> {
    (row % 50 != 7).then(|| noise((noise(row, 1) % 90_000) as usize, 4) as i64)
}

/// A key whose rows are near one another, but for NULL and a few.
fn near(row: usize) -> Option<i64> {
    (row % 50 != 7).then(|| if row % 64 == 5 { (noise(row, 5) % 1_000) as i64 } else { (row * 2 / 3) as i64 })
}

/// It as the id that it is in the table.
fn id(near: i64) -> String {
    format!("{near:016x}")
}

fn small(row: usize) -> Option<i64> {
    (row % 9 != 4).then(|| (noise(row, 2) % 20) as i64 - 4)
}

fn weight(row: usize) -> i64 {
    1 + (noise(row, 3) % 5) as i64
}

fn part(from: usize, to: usize) -> Table {
    let ints = |of: &dyn Fn(usize) -> Option<i64>| Arc::new((from..to).map(of).collect::<Int64Array>());
    let ids: StringArray = (from..to).map(|row| near(row).map(id)).collect();
    let times = (from..to).map(|row| START + row as i64 * SECOND);
    vec![
        ("time".into(), ColumnType::Time, Arc::new(TimestampNanosecondArray::from_iter_values(times))),
        ("size".into(), ColumnType::Int, ints(&key) as ArrayRef),
        ("url".into(), ColumnType::String, Arc::new(ids)),
        ("small".into(), ColumnType::Int, ints(&small)),
        ("sample_rate".into(), ColumnType::Int, ints(&|row| Some(weight(row)))),
    ]
}

fn expected(rows: impl Iterator<Item = usize>, key: fn(usize) -> Option<i64>, weighted: bool) -> Sums {
    let mut sums = Sums::new();
    for row in rows {
        let weight = if weighted { weight(row) } else { 1 };
        let (events, sum, least, large) = sums.entry(key(row)).or_insert((0, None, None, 0));
        *events += weight;
        if let Some(small) = small(row) {
            *sum = Some(sum.unwrap_or(0) + small * weight);
            *least = Some(least.map_or(small, |least| least.min(small)));
            *large += if small > 5 { weight } else { 0 };
        }
    }
    sums
}

fn found(groups: &Groups) -> Sums {
    let values = |state: usize, finish: &Finish| {
        let column = groups.states[state].finish(finish, &DataType::Int64).unwrap();
        column.as_primitive::<Int64Type>().iter().collect::<Vec<Option<i64>>>()
    };
    let (events, large) = (values(0, &Finish::Count), values(3, &Finish::Count));
    let (sums, least) = (values(1, &Finish::Sum), values(2, &Finish::Value));
    let keys: Vec<Option<i64>> = match groups.keys[0].as_string_opt::<i32>() {
        None => groups.keys[0].as_primitive::<Int64Type>().iter().collect(),
        Some(ids) => ids.iter().map(|id| id.map(|id| i64::from_str_radix(id, 16).unwrap())).collect(),
    };
    let of = |at: usize| (events[at].unwrap(), sums[at], least[at], large[at].unwrap());
    let all: Sums = keys.into_iter().enumerate().map(|(at, key)| (key, of(at))).collect();
    assert_eq!(all.len(), groups.group_count, "keys are distinct");
    all
}

fn asked(key: (&str, DataType), weight: WeightKind, filter: Option<Expr>) -> Plan {
    let mut large = count();
    large.filter = Some(binary(BinaryOp::Gt, column("small"), Expr::int(5)));
    let of = |function| aggregate(function, column("small"), DataType::Int64);
    let aggregates = vec![count(), of(AggregateFunction::Sum), of(AggregateFunction::Min), large];
    Plan { weight, ..plan(filter, vec![(column(key.0), key.1)], aggregates) }
}

#[test]
fn rows_that_share_no_groups_are_added_up_all_the_same() {
    check("size", &DataType::Int64, key);
}

#[test]
fn runs_that_share_no_groups_are_added_up_all_the_same() {
    check("url", &DataType::Utf8, near);
}

fn check(name: &str, data_type: &DataType, key: fn(usize) -> Option<i64>) {
    let parts = || (0..RUNS).map(|run| part(run * ROWS, (run + 1) * ROWS));
    let filter = || binary(BinaryOp::GtEq, column("small"), Expr::int(0));
    let passes = |row: &usize| small(*row).is_some_and(|small| small >= 0);
    let rows = 0..RUNS * ROWS;
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(64 << 20).build().unwrap();
        for (weight, filter) in
            [(WeightKind::Int, None), (WeightKind::One, None), (WeightKind::Int, Some(filter()))]
        {
            let is_weighted = weight == WeightKind::Int;
            let expect = match filter {
                None => expected(rows.clone(), key, is_weighted),
                Some(_) => expected(rows.clone().filter(passes), key, is_weighted),
            };
            let plan = asked((name, data_type.clone()), weight, filter);
            let runs: Vec<Arc<dyn RowRun>> =
                parts().map(|part| Arc::new(run(&part, Encoding::Tight)) as Arc<dyn RowRun>).collect();
            let groups = |limits: &ScanLimits<'_>| match scan(&runs, &plan, limits, &Cancel::default(), &pool)
            {
                Ok(outcome) => match outcome.body {
                    Body::Groups(groups) => groups,
                    Body::Rows(_) => panic!("rows"),
                },
                Err(error) => panic!("{error}"),
            };
            assert!(found(&groups(&LIMITS)) == expect, "{plan} on {threads} threads");
            // Other groups than the first may be left out.
            let value = TopValue::State(0, Finish::Count);
            let terms = vec![TopTerm { value, descending: true, nulls_first: true }];
            let top = Top { terms, complete: true, limit: 20 };
            let mut first = groups(&ScanLimits { top: Some(&top), ..LIMITS });
            assert!(first.group_count < expect.len() || threads == 1);
            first.cut(&plan, &top).unwrap();
            let mut most: Vec<i64> = expect.values().map(|sums| sums.0).collect();
            most.sort_unstable_by_key(|events| std::cmp::Reverse(*events));
            let first = found(&first);
            let mut events: Vec<i64> = first.values().map(|sums| sums.0).collect();
            events.sort_unstable_by_key(|events| std::cmp::Reverse(*events));
            assert_eq!(events, most[..20], "{plan} on {threads} threads");
            assert!(first.iter().all(|(key, sums)| expect[key] == *sums), "{plan} on {threads} threads");
        }
    }
}
