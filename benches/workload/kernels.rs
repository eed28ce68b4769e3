//! The plans that the scan is measured with, over the table of [`crate::requests`].
//!
//! Goals: one plan for each thing a scan can be slow at, reading no column it does not need, so that the bytes it
//! touches are known. Not a goal: what SQL makes of a question.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use gannet_query::{
    Aggregate, AggregateFunction, BinaryOp, Body, ColumnType, Expr, Finish, Key, OrderBy, Output,
    OutputColumn, Plan, QueryError, TimeRange, WeightKind,
};

use crate::measure::hash_rows;
use crate::{NEEDLE, START_NS, column_type};

/// A plan with a name, and how its states become an answer.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// What it measures.
    pub name: &'static str,
    /// The plan.
    pub plan: Plan,
    finishes: Vec<(Finish, DataType)>,
}

impl Kernel {
    /// A hash of the answer: of the groups with their finished values, or of the first column of the rows, because
    /// rows that tie in it may come in any order.
    ///
    /// # Errors
    /// When a state cannot be finished.
    pub fn hash(&self, body: &Body) -> Result<u64, QueryError> {
        match body {
            Body::Groups(groups) => {
                let mut columns: Vec<ArrayRef> = groups.keys.clone();
                for (states, (finish, data_type)) in groups.states.iter().zip(&self.finishes) {
                    columns.push(states.finish(finish, data_type)?);
                }
                Ok(hash_rows(&columns))
            }
            Body::Rows(rows) => {
                let hash = |batch: &arrow::array::RecordBatch| hash_rows(&batch.columns()[..1]);
                Ok(rows.batches.iter().map(hash).fold(0, u64::wrapping_add))
            }
        }
    }
}

/// An aggregate and how it is finished.
type Finished = (Aggregate, Finish, DataType);

/// Every kernel.
pub fn kernels() -> Vec<Kernel> {
    let mut kernels = filters();
    kernels.extend(groups());
    kernels.extend(aggregates());
    kernels.extend(rows());
    kernels
}

fn filters() -> Vec<Kernel> {
    let status = |op, value| Expr::binary(op, Expr::column("status"), Expr::int(value));
    let latency = |op, value| Expr::binary(op, Expr::column("latency_us"), Expr::int(value));
    let service = Expr::binary(BinaryOp::Eq, Expr::column("service"), Expr::text("svc-3"));
    let range = Expr::And(vec![latency(BinaryOp::GtEq, 1000), latency(BinaryOp::Lt, 5000)]);
    let words: ArrayRef = Arc::new(arrow::array::StringArray::from(vec!["svc-1", "svc-8", "svc-30"]));
    let list = Expr::InList { operand: Box::new(Expr::column("service")), list: words, negated: false };
    let tags = Expr::Call {
        function: "array_has".to_owned(),
        arguments: vec![Expr::column("tags"), Expr::text("tag:17")],
    };
    let needle = Expr::binary(BinaryOp::Eq, Expr::column("trace_id"), Expr::text(NEEDLE));
    let both = Expr::And(vec![service.clone(), status(BinaryOp::GtEq, 500)]);
    let counted = |name, reads: &[&str], filter| kernel(name, reads, Some(filter), vec![], vec![count()]);
    let mut hour = kernel("filter time range", &["time"], None, vec![], vec![count()]);
    // Not on the edges of blocks, so that some blocks need a filter and most none.
    hour.plan.time_range =
        TimeRange { min: START_NS + 3_700_000_000_000, max: START_NS + 40_000_000_000_000 };
    vec![
        kernel("count", &[], None, vec![], vec![count()]),
        hour,
        counted("filter int", &["status"], status(BinaryOp::GtEq, 500)),
        counted("filter int range", &["latency_us"], range),
        counted("filter string", &["service"], service),
        counted("filter string in", &["service"], list),
        counted("filter string and int", &["service", "status"], both),
        counted("filter prefix", &["url"], like("url", "https://www.example.com/api/v1/resource3%")),
        counted("filter contains", &["url"], like("url", "%item=4242%")),
        counted("filter contains rare", &["error"], like("error", "%quota%")),
        counted("filter list", &["tags"], tags),
        counted("needle", &["trace_id"], needle),
    ]
}

fn groups() -> Vec<Kernel> {
    let average = || sum("latency_us", Finish::Average);
    let minute = Key {
        expr: Expr::Call {
            function: "date_trunc".to_owned(),
            arguments: vec![Expr::text("minute"), Expr::column("time")],
        },
        data_type: ColumnType::Time.arrow(),
    };
    let pair = vec![key("region"), key("status")];
    let by_minute = vec![minute.clone(), key("status")];
    vec![
        kernel(
            "group string",
            &["service", "latency_us"],
            None,
            vec![key("service")],
            vec![count(), average()],
        ),
        kernel("group int", &["status"], None, vec![key("status")], vec![count()]),
        kernel("group two keys", &["region", "status", "latency_us"], None, pair, vec![count(), average()]),
        kernel("group minute", &["time"], None, vec![minute], vec![count()]),
        kernel("group minute and int", &["time", "status"], None, by_minute, vec![count()]),
        kernel("group many users", &["user_id"], None, vec![key("user_id")], vec![count()]),
        kernel("group every row", &["trace_id"], None, vec![key("trace_id")], vec![count()]),
    ]
}

fn aggregates() -> Vec<Kernel> {
    let sums = vec![
        sum("latency_us", Finish::Sum),
        sum("cpu_ms", Finish::Average),
        extreme(AggregateFunction::Min, "latency_us"),
        extreme(AggregateFunction::Max, "cpu_ms"),
    ];
    let reads = ["service", "latency_us"];
    let distinct =
        |function| vec![(aggregate(function, Some(of("user_id"))), Finish::DistinctCount, DataType::Int64)];
    let quantile = || {
        let operand = Box::new(Expr::column("latency_us"));
        let float = Expr::Cast { operand, to: DataType::Float64, lenient: false };
        let aggregate = aggregate(AggregateFunction::Quantiles, Some((float, DataType::Float64)));
        vec![(aggregate, Finish::Quantile(0.99), DataType::Float64)]
    };
    let averaged = vec![count(), sum("latency_us", Finish::Average)];
    let weighted_reads = ["service", "latency_us", "sample_rate"];
    let mut weighted = kernel("weighted", &weighted_reads, None, vec![key("service")], averaged);
    weighted.plan.weight = WeightKind::Int;
    let regions = || vec![key("region")];
    vec![
        kernel("sums", &["latency_us", "cpu_ms"], None, vec![], sums),
        weighted,
        kernel("percentile", &["latency_us"], None, vec![], quantile()),
        kernel("percentile by string", &reads, None, vec![key("service")], quantile()),
        kernel("distinct", &["region", "user_id"], None, regions(), distinct(AggregateFunction::Distinct)),
        kernel(
            "distinct about",
            &["region", "user_id"],
            None,
            regions(),
            distinct(AggregateFunction::ApproxDistinct),
        ),
    ]
}

fn rows() -> Vec<Kernel> {
    let reads = ["time", "service", "url", "status", "error"];
    let failed = Expr::IsNotNull(Box::new(Expr::column("error")));
    let columns = reads.map(|name| OutputColumn {
        name: name.to_owned(),
        expr: Expr::column(name),
        data_type: column_type(name).arrow(),
    });
    let mut newest = kernel("newest rows", &reads, Some(failed), vec![], vec![]);
    newest.plan.output = Output::Rows {
        columns: columns.to_vec(),
        order_by: vec![OrderBy { column: 0, descending: true, nulls_first: false }],
        limit: Some(100),
    };
    vec![newest]
}

fn kernel(
    name: &'static str,
    reads: &[&str],
    filter: Option<Expr>,
    keys: Vec<Key>,
    finished: Vec<Finished>,
) -> Kernel {
    let mut aggregates = Vec::new();
    let mut finishes = Vec::new();
    for (aggregate, finish, data_type) in finished {
        aggregates.push(aggregate);
        finishes.push((finish, data_type));
    }
    let plan = Plan {
        table: "requests".to_owned(),
        columns: reads.iter().map(|name| ((*name).to_owned(), column_type(name))).collect(),
        time_range: TimeRange::ALL,
        filter,
        weight: WeightKind::One,
        output: Output::Groups { keys, aggregates },
    };
    Kernel { name, plan, finishes }
}

fn key(name: &str) -> Key {
    Key { expr: Expr::column(name), data_type: column_type(name).arrow() }
}

fn of(name: &str) -> (Expr, DataType) {
    (Expr::column(name), column_type(name).arrow())
}

fn aggregate(function: AggregateFunction, argument: Option<(Expr, DataType)>) -> Aggregate {
    Aggregate { function, argument, filter: None, weighted: true }
}

fn count() -> Finished {
    (aggregate(AggregateFunction::Count, None), Finish::Count, DataType::Int64)
}

fn sum(name: &str, finish: Finish) -> Finished {
    (aggregate(AggregateFunction::Sum, Some(of(name))), finish, column_type(name).arrow())
}

fn extreme(function: AggregateFunction, name: &str) -> Finished {
    (aggregate(function, Some(of(name))), Finish::Value, column_type(name).arrow())
}

fn like(name: &str, pattern: &str) -> Expr {
    Expr::Like {
        operand: Box::new(Expr::column(name)),
        pattern: Box::new(Expr::text(pattern)),
        negated: false,
        case_insensitive: false,
        escape: None,
    }
}
