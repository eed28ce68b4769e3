//! A row-at-a-time reference: small queries that print themselves as SQL and answer themselves over rows.
//!
//! It shares types and values with Gannet, and nothing of how Gannet counts: no column, no state, no merge, no sketch.
//! What it computes is meant to be read in one go:
//!
//! * counts, sums of ints, extremes and distinct counts are exact; other floats agree within a relative 1e-9 of the
//!   magnitudes that were added up;
//! * a row weighs `sample_rate`, or 1 without it: count = Σw, sum = Σw·x, avg = Σw·x/Σw, variance = Σw(x−avg)²/(Σw−1);
//! * the percentile p is the smallest value at or below which at least p of the weight lies; the answer may be 1 % off
//!   that value;
//! * `approx_distinct` may be 5 % off.

mod compare;
mod evaluate;
mod generate;

use std::collections::BTreeMap;

use gannet_query::rfc3339::format_time;
use gannet_query::{ColumnType, TIME_COLUMN, Value};

use crate::rows::{Row, read_as, types_of};

pub use compare::{Expected, differences};
pub use generate::generate;

/// Rows under a name, with the type each column has over all of them.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: Vec<Row>,
    types: BTreeMap<String, ColumnType>,
}

impl Table {
    /// A table of these rows.
    pub fn new(name: &str, rows: Vec<Row>) -> Table {
        let mut names: Vec<&String> = rows.iter().flat_map(BTreeMap::keys).collect();
        names.sort();
        names.dedup();
        let types = names
            .into_iter()
            .filter_map(|column| {
                let values = rows.iter().filter_map(|row| row.get(column));
                Some((column.clone(), types_of(values, column == TIME_COLUMN).resolve()?))
            })
            .collect();
        Table { name: name.to_owned(), rows, types }
    }

    fn value(&self, row: &Row, column: &str) -> Value {
        match (row.get(column), self.types.get(column)) {
            (Some(value), Some(column_type)) => read_as(value, *column_type),
            _ => Value::Null,
        }
    }
}

/// A group key.
#[derive(Debug, Clone)]
pub enum Key {
    /// A column.
    Column(String),
    /// The minute of `time`.
    Minute,
    /// A bucket of this many seconds of `time`.
    Bucket(i64),
    /// An int column modulo a number.
    Modulo(String, i64),
    /// A string column in upper case.
    Upper(String),
    /// Whether a column is NULL.
    IsNull(String),
    /// `bad` from this int on, else `good`.
    Graded(String, i64),
}

/// A condition, in three-valued logic.
#[derive(Debug, Clone)]
pub enum Condition {
    /// A column against a literal; the operator is one of `= <> < <= > >=`.
    Compare(String, &'static str, Value),
    /// IN, or NOT IN.
    In(String, Vec<Value>, bool),
    /// BETWEEN.
    Between(String, Value, Value),
    /// LIKE.
    Like(String, String),
    /// ILIKE.
    ILike(String, String),
    /// IS NULL.
    IsNull(String),
    /// A bool column.
    Truth(String),
    /// `contains_any`.
    ContainsAny(String, Vec<String>),
    /// `contains_all`.
    ContainsAll(String, Vec<String>),
    /// AND.
    And(Vec<Condition>),
    /// OR.
    Or(Vec<Condition>),
    /// NOT.
    Not(Box<Condition>),
}

/// What an aggregate computes.
#[derive(Debug, Clone)]
pub enum Function {
    /// `count(*)`
    CountRows,
    /// `count(x)`
    Count(String),
    /// `count(distinct x)`
    CountDistinct(String),
    /// `approx_distinct(x)`
    ApproxDistinct(String),
    /// `sum(x)`
    Sum(String),
    /// `avg(x)`
    Average(String),
    /// `min(x)`
    Min(String),
    /// `max(x)`
    Max(String),
    /// `stddev(x)`
    Deviation(String),
    /// `p…(x)`, in hundredths.
    Percentile(String, u8),
    /// `first_value(x)` by time
    First(String),
    /// `last_value(x)` by time
    Last(String),
}

/// An aggregate of a query.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// What.
    pub function: Function,
    /// FILTER (WHERE …)
    pub filter: Option<Condition>,
    /// `unweighted(…)`
    pub unweighted: bool,
}

/// A question.
#[derive(Debug, Clone)]
pub enum Query {
    /// Aggregates by group, in the order of the keys, NULL last.
    Groups {
        /// WHERE
        filter: Option<Condition>,
        /// GROUP BY
        keys: Vec<Key>,
        /// What is computed.
        aggregates: Vec<Aggregate>,
        /// LIMIT
        limit: Option<usize>,
    },
    /// Rows in the order of time.
    Rows {
        /// WHERE
        filter: Option<Condition>,
        /// What of each row.
        columns: Vec<String>,
        /// Newest first.
        descending: bool,
        /// LIMIT
        limit: usize,
    },
}

impl Query {
    /// The question as SQL.
    pub fn sql(&self, table: &Table) -> String {
        let condition = |filter: &Option<Condition>| match filter {
            Some(filter) => format!(" WHERE {}", filter.sql()),
            None => String::new(),
        };
        match self {
            Query::Groups { filter, keys, aggregates, limit } => {
                let keys_sql: Vec<String> = keys.iter().map(Key::sql).collect();
                let shown: Vec<String> =
                    keys_sql.iter().cloned().chain(aggregates.iter().map(Aggregate::sql)).collect();
                let mut sql = format!("SELECT {} FROM {}{}", shown.join(", "), table.name, condition(filter));
                if !keys.is_empty() {
                    let order: Vec<String> =
                        (1..=keys.len()).map(|n| format!("{n} ASC NULLS LAST")).collect();
                    sql += &format!(" GROUP BY {} ORDER BY {}", keys_sql.join(", "), order.join(", "));
                }
                if let Some(limit) = limit {
                    sql += &format!(" LIMIT {limit}");
                }
                sql
            }
            Query::Rows { filter, columns, descending, limit } => {
                let shown: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
                let order = if *descending { "DESC" } else { "ASC" };
                format!(
                    "SELECT {} FROM {}{} ORDER BY time {order} LIMIT {limit}",
                    shown.join(", "),
                    table.name,
                    condition(filter)
                )
            }
        }
    }
}

fn quoted(column: &str) -> String {
    format!("\"{column}\"")
}

fn literal(column: &str, value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(bool) => bool.to_string(),
        Value::Int(time) if column == TIME_COLUMN => format!("'{}'", format_time(*time)),
        Value::Int(int) => int.to_string(),
        Value::Float(float) => format!("{float:?}"),
        Value::String(text) => text_literal(text),
        Value::Strings(_) => panic!("there is no literal for a list"),
    }
}

fn text_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Key {
    fn sql(&self) -> String {
        match self {
            Key::Column(column) => quoted(column),
            Key::Minute => "date_trunc('minute', time)".to_owned(),
            Key::Bucket(seconds) => format!("time_bucket('{seconds}s', time)"),
            Key::Modulo(column, by) => format!("{} % {by}", quoted(column)),
            Key::Upper(column) => format!("upper({})", quoted(column)),
            Key::IsNull(column) => format!("{} IS NULL", quoted(column)),
            Key::Graded(column, from) => {
                format!("CASE WHEN {} >= {from} THEN 'bad' ELSE 'good' END", quoted(column))
            }
        }
    }
}

impl Condition {
    fn sql(&self) -> String {
        let list = |column: &str, values: &[Value]| {
            values.iter().map(|value| literal(column, value)).collect::<Vec<_>>().join(", ")
        };
        let texts =
            |texts: &[String]| texts.iter().map(|text| text_literal(text)).collect::<Vec<_>>().join(", ");
        let all = |conditions: &[Condition], word: &str| {
            let parts: Vec<String> = conditions.iter().map(Condition::sql).collect();
            format!("({})", parts.join(word))
        };
        match self {
            Condition::Compare(column, operator, value) => {
                format!("{} {operator} {}", quoted(column), literal(column, value))
            }
            Condition::In(column, values, negated) => {
                let not = if *negated { "NOT " } else { "" };
                format!("{} {not}IN ({})", quoted(column), list(column, values))
            }
            Condition::Between(column, low, high) => {
                format!("{} BETWEEN {} AND {}", quoted(column), literal(column, low), literal(column, high))
            }
            Condition::Like(column, pattern) => format!("{} LIKE {}", quoted(column), text_literal(pattern)),
            Condition::ILike(column, pattern) => {
                format!("{} ILIKE {}", quoted(column), text_literal(pattern))
            }
            Condition::IsNull(column) => format!("{} IS NULL", quoted(column)),
            Condition::Truth(column) => quoted(column),
            Condition::ContainsAny(column, any) => {
                format!("contains_any({}, {})", quoted(column), texts(any))
            }
            Condition::ContainsAll(column, every) => {
                format!("contains_all({}, {})", quoted(column), texts(every))
            }
            Condition::And(conditions) => all(conditions, " AND "),
            Condition::Or(conditions) => all(conditions, " OR "),
            Condition::Not(condition) => format!("NOT ({})", condition.sql()),
        }
    }
}

impl Aggregate {
    fn sql(&self) -> String {
        let call = match &self.function {
            Function::CountRows => "count(*)".to_owned(),
            Function::Count(column) => format!("count({})", quoted(column)),
            Function::CountDistinct(column) => format!("count(DISTINCT {})", quoted(column)),
            Function::ApproxDistinct(column) => format!("approx_distinct({})", quoted(column)),
            Function::Sum(column) => format!("sum({})", quoted(column)),
            Function::Average(column) => format!("avg({})", quoted(column)),
            Function::Min(column) => format!("min({})", quoted(column)),
            Function::Max(column) => format!("max({})", quoted(column)),
            Function::Deviation(column) => format!("stddev({})", quoted(column)),
            Function::Percentile(column, hundredths) => format!("p{hundredths:02}({})", quoted(column)),
            Function::First(column) => format!("first_value({})", quoted(column)),
            Function::Last(column) => format!("last_value({})", quoted(column)),
        };
        let call = if self.unweighted { format!("unweighted({call})") } else { call };
        match &self.filter {
            Some(filter) => format!("{call} FILTER (WHERE {})", filter.sql()),
            None => call,
        }
    }
}
