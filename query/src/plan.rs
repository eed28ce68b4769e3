//! What a child is asked.
//!
//! A plan names one table. It is self-contained: it carries the type of every column it reads, as the aggregator's
//! catalogue resolved it, so that a leaf casts its blocks to those types and the partials of all leaves fit together.
//! A leaf whose column no longer fits the plan's type refuses the plan as stale; the aggregator refreshes its
//! catalogue and plans again.

use arrow::datatypes::DataType;

use crate::{Aggregate, ColumnType, Expr};

/// A half-open range of times in nanoseconds UTC: `min ≤ time < max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// First nanosecond inside.
    pub min: i64,
    /// First nanosecond after. `i64::MAX` includes everything after `min`, that last nanosecond too.
    pub max: i64,
}

impl TimeRange {
    /// Every time there is.
    pub const ALL: TimeRange = TimeRange { min: i64::MIN, max: i64::MAX };

    /// True when a run of rows with times `first..=last` can have a row inside the range.
    pub fn overlaps(&self, first: i64, last: i64) -> bool {
        last >= self.min && (first < self.max || self.max == i64::MAX) && self.min < self.max
    }

    /// True when every time in `first..=last` is inside the range.
    pub fn contains(&self, first: i64, last: i64) -> bool {
        first >= self.min && (last < self.max || self.max == i64::MAX)
    }
}

/// How the rows of a table are weighted by `sample_rate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightKind {
    /// The table has no `sample_rate`: each row stands for one event, and it costs nothing.
    One,
    /// `sample_rate` is an int column.
    Int,
    /// `sample_rate` is a float column.
    Float,
}

/// What a child is asked. See the module.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The table.
    pub table: String,
    /// Every column the plan reads with its type, `sample_rate` and `time` included when they are read.
    pub columns: Vec<(String, ColumnType)>,
    /// Rows outside are not asked for. Completeness counts the rows of blocks that overlap it.
    pub time_range: TimeRange,
    /// Rows for which this is not true are not asked for. It includes the conditions on `time` that
    /// `time_range` was derived from only where the range does not say all of them.
    pub filter: Option<Expr>,
    /// How weighted aggregates count a row.
    pub weight: WeightKind,
    /// Groups or rows.
    pub output: Output,
}

/// What comes back.
#[derive(Debug, Clone)]
pub enum Output {
    /// Aggregates by group; no keys means one group, which exists even when no row matched.
    Groups {
        /// The group keys.
        keys: Vec<Key>,
        /// The aggregates; those that can share a state are one (see [`crate::aggregate`]).
        aggregates: Vec<Aggregate>,
    },
    /// Rows themselves.
    Rows {
        /// What each row shows.
        columns: Vec<OutputColumn>,
        /// The order, which every partial's rows already have.
        order_by: Vec<OrderBy>,
        /// At most this many rows, the first ones of the order.
        limit: Option<u64>,
    },
}

/// A group key and its Arrow type.
#[derive(Debug, Clone)]
pub struct Key {
    /// The expression.
    pub expr: Expr,
    /// The type it evaluates to.
    pub data_type: DataType,
}

/// A column of a row and its Arrow type.
#[derive(Debug, Clone)]
pub struct OutputColumn {
    /// Its name in the row.
    pub name: String,
    /// The expression.
    pub expr: Expr,
    /// The type it evaluates to.
    pub data_type: DataType,
}

/// One term of an order over the output columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderBy {
    /// Index into the output's `columns`.
    pub column: usize,
    /// Largest first.
    pub descending: bool,
    /// NULL before all others.
    pub nulls_first: bool,
}

impl Plan {
    /// The type of a column as the plan has it.
    pub fn column_type(&self, name: &str) -> Option<ColumnType> {
        self.columns.iter().find(|(column, _)| column == name).map(|(_, column_type)| *column_type)
    }

    /// Every expression, whole.
    pub fn exprs(&self) -> Vec<&Expr> {
        let mut exprs: Vec<&Expr> = self.filter.iter().collect();
        match &self.output {
            Output::Groups { keys, aggregates } => {
                exprs.extend(keys.iter().map(|key| &key.expr));
                for aggregate in aggregates {
                    exprs.extend(aggregate.argument.iter().map(|(argument, _)| argument));
                    exprs.extend(&aggregate.filter);
                }
            }
            Output::Rows { columns, .. } => exprs.extend(columns.iter().map(|column| &column.expr)),
        }
        exprs
    }

    /// Every expression, whole, to be changed.
    pub fn exprs_mut(&mut self) -> Vec<&mut Expr> {
        let mut exprs: Vec<&mut Expr> = self.filter.iter_mut().collect();
        match &mut self.output {
            Output::Groups { keys, aggregates } => {
                exprs.extend(keys.iter_mut().map(|key| &mut key.expr));
                for aggregate in aggregates {
                    exprs.extend(aggregate.argument.iter_mut().map(|(argument, _)| argument));
                    exprs.extend(&mut aggregate.filter);
                }
            }
            Output::Rows { columns, .. } => exprs.extend(columns.iter_mut().map(|column| &mut column.expr)),
        }
        exprs
    }
}

impl std::fmt::Display for Plan {
    /// What EXPLAIN shows of the work of a leaf, on one line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "table={}", self.table)?;
        if self.time_range != TimeRange::ALL {
            let show = |ns: i64, open: &str| match ns {
                i64::MIN | i64::MAX => open.to_owned(),
                ns => crate::rfc3339::format_time(ns),
            };
            write!(f, ", time=[{}, {})", show(self.time_range.min, "…"), show(self.time_range.max, "…"))?;
        }
        if let Some(filter) = &self.filter {
            write!(f, ", filter={filter}")?;
        }
        if self.weight != WeightKind::One {
            f.write_str(", weighted by sample_rate")?;
        }
        match &self.output {
            Output::Groups { keys, aggregates } => {
                let keys: Vec<String> = keys.iter().map(|key| key.expr.to_string()).collect();
                let aggregates: Vec<String> = aggregates.iter().map(Aggregate::to_string).collect();
                write!(f, ", group_by=[{}], aggregates=[{}]", keys.join(", "), aggregates.join(", "))
            }
            Output::Rows { columns, order_by, limit } => {
                let shown: Vec<String> = columns.iter().map(|column| column.expr.to_string()).collect();
                write!(f, ", rows=[{}]", shown.join(", "))?;
                if !order_by.is_empty() {
                    let order: Vec<String> = order_by
                        .iter()
                        .map(|term| {
                            format!("{}{}", shown[term.column], if term.descending { " DESC" } else { "" })
                        })
                        .collect();
                    write!(f, ", order_by=[{}]", order.join(", "))?;
                }
                limit.map_or(Ok(()), |limit| write!(f, ", limit={limit}"))
            }
        }
    }
}
