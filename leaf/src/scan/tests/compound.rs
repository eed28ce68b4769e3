//! Several keys that are one int where groups are many, and what does not fit into it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Int64Type};
use gannet_query::{
    AggregateFunction, Body, ColumnType, Finish, Groups, Plan, Top, TopTerm, TopValue, WeightKind,
};

use super::fixture::*;
use crate::scan::readers::int_parts;
use crate::scan::{Cancel, RowRun, ScanLimits, Watcher, scan_watched};

const RUNS: usize = 9;
const ROWS: usize = 9_000;

/// Of each combination of keys, as ints: events and the sum of `small`.
type Sums = HashMap<Vec<Option<i64>>, (i64, Option<i64>)>;

/// Few values in a narrow range, and NULL.
fn status(row: usize) -> Option<i64> {
    (noise(row, 1) % 30 != 7).then(|| (noise(row, 2) % 300) as i64 - 100)
}

/// Few values far from one another.
fn wide(row: usize) -> Option<i64> {
    Some(noise((noise(row, 3) % 700) as usize, 4) as i64)
}

fn url(row: usize) -> Option<String> {
    (noise(row, 5) % 40 != 7).then(|| format!("/item/{}", noise(row, 6) % 5_000))
}

fn hour(row: usize) -> i64 {
    START + (noise(row, 7) % 900) as i64 * 3_600 * SECOND
}

fn small(row: usize) -> Option<i64> {
    (row % 9 != 4).then(|| (noise(row, 8) % 20) as i64 - 4)
}

fn table(from: usize, to: usize, status: fn(usize) -> Option<i64>) -> Table {
    let ints = |of: &dyn Fn(usize) -> Option<i64>| -> ArrayRef {
        Arc::new((from..to).map(of).collect::<Int64Array>())
    };
    let times = TimestampNanosecondArray::from_iter_values((from..to).map(hour)).with_timezone("+00:00");
    vec![
        ("time".into(), ColumnType::Time, Arc::new(times)),
        ("status".into(), ColumnType::Int, ints(&status)),
        ("wide".into(), ColumnType::Int, ints(&wide)),
        ("url".into(), ColumnType::String, Arc::new((from..to).map(url).collect::<StringArray>())),
        ("small".into(), ColumnType::Int, ints(&small)),
        ("sample_rate".into(), ColumnType::Int, ints(&|row| Some(1 + row as i64 % 5))),
    ]
}

fn asked(keys: &[&str], weight: WeightKind) -> Plan {
    let key = |name: &&str| {
        let data_type = match *name {
            "time" => ColumnType::Time.arrow(),
            "url" => DataType::Utf8,
            _ => DataType::Int64,
        };
        (column(name), data_type)
    };
    let sum = aggregate(AggregateFunction::Sum, column("small"), DataType::Int64);
    Plan { weight, ..plan(None, keys.iter().map(key).collect(), vec![count(), sum]) }
}

/// The values of a key; of a URL the number in it.
fn ints_of(values: &ArrayRef) -> Vec<Option<i64>> {
    match values.as_string_opt::<i32>() {
        Some(urls) => urls.iter().map(|url| url.map(|url| url["/item/".len()..].parse().unwrap())).collect(),
        None => {
            let (ints, nulls) = int_parts(values).unwrap();
            let is_null = |row: usize| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
            ints.iter().enumerate().map(|(row, int)| (!is_null(row)).then_some(*int)).collect()
        }
    }
}

fn expected(tables: &[Table], keys: &[&str], weighted: bool) -> Sums {
    let mut sums = Sums::default();
    for (index, table) in tables.iter().enumerate() {
        let column = |name: &&str| ints_of(&table.iter().find(|column| column.0 == *name).unwrap().2);
        let columns: Vec<_> = keys.iter().map(column).collect();
        for place in 0..ROWS {
            let row = index * ROWS + place;
            let key = columns.iter().map(|column| column[place]).collect();
            let (events, sum) = sums.entry(key).or_insert((0, None));
            let weight = if weighted { 1 + row as i64 % 5 } else { 1 };
            *events += weight;
            if let Some(small) = small(row) {
                *sum = Some(sum.unwrap_or(0) + small * weight);
            }
        }
    }
    sums
}

fn found(groups: &Groups) -> Sums {
    let values = |state: usize, finish: &Finish| {
        let column = groups.states[state].finish(finish, &DataType::Int64).unwrap();
        column.as_primitive::<Int64Type>().iter().collect::<Vec<Option<i64>>>()
    };
    let (events, sums) = (values(0, &Finish::Count), values(1, &Finish::Sum));
    let keys: Vec<_> = groups.keys.iter().map(ints_of).collect();
    let key = |at: usize| keys.iter().map(|key| key[at]).collect();
    let all: Sums = (0..groups.group_count).map(|at| (key(at), (events[at].unwrap(), sums[at]))).collect();
    assert_eq!(all.len(), groups.group_count, "keys are distinct");
    all
}

/// How the runs hold their rows: all sealed, or the last one open.
fn runs(tables: &[Table], last_is_open: bool) -> Vec<Arc<dyn RowRun>> {
    let encoding = |index: usize| match last_is_open && index + 1 == RUNS {
        true => Encoding::Plain,
        false => Encoding::Tight,
    };
    let run = |(index, table): (usize, &Table)| Arc::new(run(table, encoding(index))) as Arc<dyn RowRun>;
    tables.iter().enumerate().map(run).collect()
}

fn groups(runs: &[Arc<dyn RowRun>], plan: &Plan, threads: usize, top: Option<&Top>, told: bool) -> Groups {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(64 << 20).build().unwrap();
    let watcher = Watcher { every: Duration::from_millis(20), with_body: true, tell: &|_| () };
    let limits = ScanLimits { top, ..LIMITS };
    let watcher = told.then_some(&watcher);
    match scan_watched(runs, plan, &limits, &Cancel::default(), &pool, watcher).unwrap().body {
        Body::Groups(groups) => groups,
        Body::Rows(_) => panic!("rows"),
    }
}

fn check(keys: &[&str], last_is_open: bool, last_status: fn(usize) -> Option<i64>) {
    let of = |run: usize| if run + 1 == RUNS { last_status } else { status };
    let tables: Vec<Table> = (0..RUNS).map(|run| table(run * ROWS, (run + 1) * ROWS, of(run))).collect();
    for (weight, threads, told) in
        [(WeightKind::Int, 1, false), (WeightKind::One, 2, false), (WeightKind::Int, 2, true)]
    {
        let expect = expected(&tables, keys, weight == WeightKind::Int);
        assert!(expect.len() > 66_000, "{} groups are too few to be put together", expect.len());
        let plan = asked(keys, weight);
        let all = groups(&runs(&tables, last_is_open), &plan, threads, None, told);
        assert!(found(&all) == expect, "{plan} on {threads} threads");
        if threads == 1 {
            continue;
        }
        // The first by values, and the first by a key.
        let term = |value| TopTerm { value, descending: true, nulls_first: false };
        let by_count = vec![term(TopValue::State(0, Finish::Count))];
        let by_key = vec![term(TopValue::Key(1)), term(TopValue::State(0, Finish::Count))];
        for terms in [by_count, by_key] {
            let top = Top { terms, complete: false, limit: 20 };
            let mut first = groups(&runs(&tables, last_is_open), &plan, threads, Some(&top), told);
            first.cut(&plan, &top).unwrap();
            let mut wanted = all.clone();
            wanted.cut(&plan, &top).unwrap();
            assert_eq!(found(&first), found(&wanted), "{top:?} of {plan} on {threads} threads");
        }
    }
}

#[test]
fn an_int_and_a_text_are_one_int() {
    check(&["status", "url"], false, status);
}

#[test]
fn texts_times_and_ints_far_apart_are_one_int() {
    check(&["url", "time", "wide"], false, status);
}

#[test]
fn open_rows_with_ints_in_range_are_put_together() {
    check(&["url", "status"], true, status);
}

#[test]
fn ints_out_of_the_range_of_blocks_go_on_as_they_are() {
    check(&["url", "status"], true, |row| Some(if row % 3 == 0 { i64::MAX } else { -(row as i64) }));
}

#[test]
fn more_values_than_ids_go_on_as_they_are() {
    // Five keys leave twelve bits to each, and there are 5,001 URLs.
    check(&["time", "url", "wide", "url", "time"], false, status);
}

#[test]
fn keys_that_leave_too_few_bits_stay_as_they_are() {
    check(&["time", "url", "wide", "url", "time", "wide"], false, status);
}
