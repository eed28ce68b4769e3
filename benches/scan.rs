//! How fast a leaf scans: milliseconds and rows a second for typical plans over sealed row blocks.
//!
//! Goals: the cost of filter, group and aggregate inside one leaf, without SQL, wire or merge over leaves.
//! Not a goal: end-to-end time. Under `cargo test` it runs on a few rows, so that it cannot rot; every plan prints a
//! hash of its answer, so that nobody makes the answer faster by making it another one.
//!
//! `cargo bench -p gannet-benches --bench scan [-- ROWS]`

use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::DataType;
use gannet_benches::requests;
use gannet_leaf::scan::Cancel;
use gannet_leaf::{Config, Leaf};
use gannet_query::{
    Aggregate, AggregateFunction, BinaryOp, Body, ColumnType, Expr, Key, Output, Plan, TimeRange, WeightKind,
};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let measured = arguments.iter().any(|argument| argument == "--bench");
    let asked = arguments.iter().find_map(|argument| argument.parse::<usize>().ok());
    let rows = asked.unwrap_or(if measured { 4_000_000 } else { 5_000 });
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let config = Config {
        data_dir: directory.path().to_owned(),
        memory_limit_bytes: 16 << 30,
        retention_seconds: 0,
        ..Config::default()
    };
    let leaf = Leaf::start(config).expect("a leaf starts in an empty directory");
    for batch in requests(rows, 65_536, 1) {
        leaf.append("requests", &[batch]).expect("the leaf has room");
    }
    println!("{rows} rows");
    println!("{:<24} {:>9} {:>12}  answer", "plan", "ms", "rows/s");
    for (name, plan) in plans() {
        measure(&leaf, name, &plan, if measured { 7 } else { 1 });
    }
}

/// Runs a plan and prints its median time.
fn measure(leaf: &Arc<Leaf>, name: &str, plan: &Plan, runs: usize) {
    let mut seconds = Vec::new();
    let (mut rows, mut hash) = (0, 0);
    for _ in 0..runs {
        let started = Instant::now();
        let partial = leaf.query(plan, &Cancel::new(None)).expect("the plan is sound");
        seconds.push(started.elapsed().as_secs_f64());
        rows = partial.completeness.rows_covered;
        hash = fingerprint(partial.body);
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    println!("{name:<24} {:>9.2} {:>12.0}  {hash:016x}", median * 1e3, rows as f64 / median);
}

/// A hash of the groups that does not depend on their order.
fn fingerprint(body: Body) -> u64 {
    let Body::Groups(groups) = body else { return 0 };
    let mut columns = groups.keys.clone();
    for states in &groups.states {
        columns.extend(states.to_arrays().expect("states have arrays"));
    }
    let row = |index: usize| {
        let texts = columns.iter().map(|column| arrow::util::display::array_value_to_string(column, index));
        let text: Vec<String> = texts.map(|text| text.unwrap_or_default()).collect();
        xxhash_rust::xxh3::xxh3_64(text.join("|").as_bytes())
    };
    (0..groups.group_count).map(row).fold(0, u64::wrapping_add)
}

fn plans() -> Vec<(&'static str, Plan)> {
    let columns = vec![
        ("time".to_owned(), ColumnType::Time),
        ("service".to_owned(), ColumnType::String),
        ("url".to_owned(), ColumnType::String),
        ("status".to_owned(), ColumnType::Int),
        ("user_id".to_owned(), ColumnType::Int),
        ("latency_us".to_owned(), ColumnType::Int),
        ("sample_rate".to_owned(), ColumnType::Int),
    ];
    let plan = |weight, filter: Option<Expr>, keys: Vec<Key>, aggregates: Vec<Aggregate>| Plan {
        table: "requests".to_owned(),
        columns: columns.clone(),
        time_range: TimeRange::ALL,
        filter,
        weight,
        output: Output::Groups { keys, aggregates },
    };
    let aggregate = |function, argument: Option<(Expr, DataType)>| Aggregate {
        function,
        argument,
        filter: None,
        weighted: true,
    };
    let count = || aggregate(AggregateFunction::Count, None);
    let latency = || aggregate(AggregateFunction::Sum, Some((Expr::column("latency_us"), DataType::Int64)));
    let float =
        Expr::Cast { operand: Box::new(Expr::column("latency_us")), to: DataType::Float64, lenient: false };
    let quantiles = aggregate(AggregateFunction::Quantiles, Some((float, DataType::Float64)));
    let service = || Key { expr: Expr::column("service"), data_type: DataType::Utf8 };
    let user = Key { expr: Expr::column("user_id"), data_type: DataType::Int64 };
    let failed = Expr::binary(BinaryOp::GtEq, Expr::column("status"), Expr::int(500));
    let like = Expr::Like {
        operand: Box::new(Expr::column("url")),
        pattern: Box::new(Expr::text("%/item/4242%")),
        negated: false,
        case_insensitive: false,
        escape: None,
    };
    vec![
        ("count", plan(WeightKind::One, None, vec![], vec![count()])),
        ("filter int", plan(WeightKind::One, Some(failed), vec![], vec![count()])),
        ("group text avg", plan(WeightKind::One, None, vec![service()], vec![count(), latency()])),
        ("group text weighted", plan(WeightKind::Int, None, vec![service()], vec![count(), latency()])),
        ("group text percentiles", plan(WeightKind::One, None, vec![service()], vec![quantiles])),
        ("filter text contains", plan(WeightKind::One, Some(like), vec![service()], vec![count()])),
        ("group user", plan(WeightKind::One, None, vec![user], vec![count()])),
    ]
}
