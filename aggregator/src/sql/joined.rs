//! The other optimizer rule of ours: aggregates over a join are worked out on one side before it is joined.
//!
//! `SELECT t.team, count(*), avg(r.ms) FROM requests r JOIN teams t ON r.service = t.service GROUP BY t.team` reads rows of
//! `requests` only by what they are joined and grouped by. So they are grouped by that first, on the leaves, which
//! weight them by `sample_rate`; the groups are joined, and counts and sums of groups added up. A group that is joined
//! to three rows counts three times, as each of its rows would (Yan and Larson, "Eager Aggregation and Lazy
//! Aggregation", VLDB 1995).
//!
//! It is done for tables whose rows are weighted, because nobody else can weight them, and for others where it leaves
//! few groups of many rows. What cannot be added up again from groups (percentiles, distinct counts) stays as it was.
//!
//! Invariants: the replacement has the names, qualifiers and types of what it replaces, and the same values; the other
//! side of the join has no weights; sums of ints are exact or an error.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, TableReference};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::logical_plan::Aggregate as SqlAggregate;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    AggregateUDF, Expr as SqlExpr, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, cast, lit,
};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use gannet_query::WeightKind;

use super::chain::{Chain, Walked, walk};
use super::functions::Unweighted;
use super::weights::weighted_rows_below;

/// Sums of ints that 64 bits cannot hold.
const WIDE: DataType = DataType::Decimal128(38, 0);

/// See the module.
#[derive(Debug)]
pub(super) struct GroupBelowJoins;

impl OptimizerRule for GroupBelowJoins {
    fn name(&self) -> &str {
        "group_below_joins"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        Ok(match group_below_join(aggregate)? {
            Some(replacement) => Transformed::yes(replacement),
            None => Transformed::no(plan),
        })
    }
}

fn group_below_join(aggregate: &SqlAggregate) -> Result<Option<LogicalPlan>> {
    let exprs: Vec<SqlExpr> = aggregate.group_expr.iter().chain(&aggregate.aggr_expr).cloned().collect();
    if exprs.iter().any(|expr| matches!(expr, SqlExpr::GroupingSet(_)) || expr.is_volatile()) {
        return Ok(None);
    }
    let Some(Walked { end: LogicalPlan::Join(join), exprs, filters }) = walk(&aggregate.input, exprs)? else {
        return Ok(None);
    };
    let (groups, aggregates) = exprs.split_at(aggregate.group_expr.len());
    for is_left in [true, false] {
        let over = Over { join, is_left, groups, aggregates, filters: &filters };
        if let Some(replacement) = over.grouped_first(aggregate)? {
            return Ok(Some(replacement));
        }
    }
    Ok(None)
}

/// An Aggregate over a join, one of whose sides may be grouped first.
struct Over<'a> {
    join: &'a Join,
    is_left: bool,
    groups: &'a [SqlExpr],
    aggregates: &'a [SqlExpr],
    /// Conditions on joined rows.
    filters: &'a [SqlExpr],
}

/// What the side is grouped by, and what is worked out for its groups.
struct Parts {
    name: TableReference,
    keys: Vec<SqlExpr>,
    states: Vec<SqlExpr>,
    /// Aggregates over joined groups.
    sums: Vec<SqlExpr>,
}

/// How an aggregate is made of [`Parts::sums`], by their places.
enum Made {
    Of(usize),
    Count(usize),
    Quotient(usize, usize),
}

impl Over<'_> {
    fn side(&self) -> &Arc<LogicalPlan> {
        if self.is_left { &self.join.left } else { &self.join.right }
    }

    fn other(&self) -> &Arc<LogicalPlan> {
        if self.is_left { &self.join.right } else { &self.join.left }
    }

    fn is_of_side(&self, expr: &SqlExpr) -> bool {
        let schema = self.side().schema();
        expr.column_refs().into_iter().all(|column| schema.has_column(column))
    }

    fn grouped_first(&self, aggregate: &SqlAggregate) -> Result<Option<LogicalPlan>> {
        let on = self.join.on.iter().flat_map(|(left, right)| [left, right]);
        if on.chain(&self.join.filter).chain(self.filters).any(SqlExpr::is_volatile) {
            return Ok(None);
        }
        if !self.keeps_rows()? || !self.aggregates.iter().all(|expr| self.is_of_side(expr)) {
            return Ok(None);
        }
        let mut parts = Parts { name: self.free_name(), keys: vec![], states: vec![], sums: vec![] };
        let types = aggregate.schema.fields().iter().skip(self.groups.len()).map(|field| field.data_type());
        let made = self.aggregates.iter().zip(types).map(|(expr, data_type)| parts.add(expr, data_type));
        let Some(made) = made.collect::<Option<Vec<_>>>() else { return Ok(None) };
        let replaced = |exprs: &mut dyn Iterator<Item = &SqlExpr>, parts: &mut Parts| {
            exprs.map(|expr| self.over_groups(expr, parts)).collect::<Result<Vec<_>>>()
        };
        let groups = replaced(&mut self.groups.iter(), &mut parts)?;
        let filters = replaced(&mut self.filters.iter(), &mut parts)?;
        let left = replaced(&mut self.join.on.iter().map(|(left, _)| left), &mut parts)?;
        let right = replaced(&mut self.join.on.iter().map(|(_, right)| right), &mut parts)?;
        let filter = self.join.filter.as_ref().map(|expr| self.over_groups(expr, &mut parts)).transpose()?;
        // What has no keys is one group even of no rows, which would meet rows that none of them did.
        if parts.keys.is_empty() && !groups.is_empty() {
            return Ok(None);
        }
        let Some(grouped) = self.grouped(&parts)? else { return Ok(None) };
        let grouped = Arc::new(grouped);
        let (left_input, right_input) = match self.is_left {
            true => (grouped, Arc::clone(&self.join.right)),
            false => (Arc::clone(&self.join.left), grouped),
        };
        let joined = Join::try_new(
            left_input,
            right_input,
            left.into_iter().zip(right).collect(),
            filter,
            self.join.join_type,
            self.join.join_constraint,
            self.join.null_equality,
            false,
        )?;
        let mut plan = LogicalPlanBuilder::from(LogicalPlan::Join(joined));
        if let Some(condition) = conjunction(filters) {
            plan = plan.filter(condition)?;
        }
        let group_count = groups.len();
        let plan = plan.aggregate(groups, named("t", &parts.sums))?;
        let columns: Vec<SqlExpr> = plan.schema().columns().into_iter().map(SqlExpr::Column).collect();
        let (keys, sums) = columns.split_at(group_count);
        let values = keys.iter().cloned().chain(made.iter().map(|made| made.value(sums)));
        let shown = values
            .zip(aggregate.schema.iter())
            .map(|(expr, (qualifier, field))| {
                let expr = expr.cast_to(field.data_type(), plan.schema())?;
                Ok(expr.alias_qualified(qualifier.cloned(), field.name()))
            })
            .collect::<Result<Vec<_>>>()?;
        plan.project(shown)?.build().map(Some)
    }

    /// Whether every row of the side is joined as it is, and counts once for each row that it is joined to.
    fn keeps_rows(&self) -> Result<bool> {
        let (keeps, is_filter) = match self.join.join_type {
            JoinType::Inner => (true, false),
            JoinType::Left => (self.is_left, false),
            JoinType::Right => (!self.is_left, false),
            JoinType::LeftSemi | JoinType::LeftAnti => (self.is_left, true),
            JoinType::RightSemi | JoinType::RightAnti => (!self.is_left, true),
            _ => (false, false),
        };
        Ok(keeps && !self.join.null_aware && (is_filter || weighted_rows_below(self.other())?.is_none()))
    }

    /// A name that nothing in the other side has.
    fn free_name(&self) -> TableReference {
        let taken = |name: &str| {
            let mut qualifiers = self.other().schema().iter().filter_map(|(qualifier, _)| qualifier);
            qualifiers.any(|qualifier| qualifier.table() == name)
        };
        let names = (0..).map(|number| format!("grouped_{number}"));
        let mut free = names.filter(|name| !taken(name));
        TableReference::bare(free.next().unwrap_or_default())
    }

    /// An expression over joined rows as one over joined groups: what speaks of the side alone is a key of its groups.
    fn over_groups(&self, expr: &SqlExpr, parts: &mut Parts) -> Result<SqlExpr> {
        let replaced = expr.clone().transform_down(|expr| {
            if matches!(expr, SqlExpr::Alias(_)) || expr.column_refs().is_empty() || !self.is_of_side(&expr) {
                return Ok(Transformed::no(expr));
            }
            let place = place_of(&mut parts.keys, expr);
            Ok(Transformed::new(parts.column("k", place), true, TreeNodeRecursion::Jump))
        })?;
        Ok(replaced.data)
    }

    /// The groups of the side; `None` when leaves cannot make them or it does not pay.
    fn grouped(&self, parts: &Parts) -> Result<Option<LogicalPlan>> {
        let builder = LogicalPlanBuilder::from(Arc::clone(self.side()));
        let plan = builder.aggregate(named("k", &parts.keys), named("s", &parts.states))?.build()?;
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(None) };
        let plan = match Chain::follow(self.side(), parts.keys.clone())? {
            Some(chain) => {
                let Some(table) = chain.table() else { return Ok(None) };
                let columns = chain.exprs.iter().map(|key| match key {
                    SqlExpr::Column(column) => Some(column.name.as_str()),
                    _ => None,
                });
                let pays = match table.weight {
                    WeightKind::Int => true,
                    // Counts of events are rounded once, at the end; those of groups would be before.
                    WeightKind::Float => false,
                    WeightKind::One => {
                        columns.collect::<Option<Vec<_>>>().is_some_and(|it| table.repeats(&it))
                    }
                };
                if !pays {
                    return Ok(None);
                }
                plan
            }
            // A join of several: one of its own sides is grouped first.
            None => match group_below_join(aggregate)? {
                Some(plan) => plan,
                None => return Ok(None),
            },
        };
        LogicalPlanBuilder::from(plan).alias(parts.name.clone())?.build().map(Some)
    }
}

/// Expressions under names that cannot clash.
fn named(kind: &str, exprs: &[SqlExpr]) -> Vec<SqlExpr> {
    (0..).zip(exprs).map(|(place, expr): (usize, _)| expr.clone().alias(format!("{kind}{place}"))).collect()
}

/// The place of an expression in a list that has each once.
fn place_of(list: &mut Vec<SqlExpr>, expr: SqlExpr) -> usize {
    list.iter().position(|known| *known == expr).unwrap_or_else(|| {
        list.push(expr);
        list.len() - 1
    })
}

impl Parts {
    fn column(&self, kind: &str, place: usize) -> SqlExpr {
        SqlExpr::Column(Column::new(Some(self.name.clone()), format!("{kind}{place}")))
    }

    /// Works an aggregate out for groups and again for joined groups; `None` when it cannot be made of what groups have.
    fn add(&mut self, expr: &SqlExpr, data_type: &DataType) -> Option<Made> {
        let SqlExpr::AggregateFunction(call) = expr.clone().unalias() else { return None };
        let params = &call.params;
        if !params.order_by.is_empty() || params.null_treatment.is_some() {
            return None;
        }
        let stored = call.func.inner().downcast_ref::<Unweighted>();
        let function = stored.map_or(&call.func, Unweighted::inner);
        Some(match (function.name(), params.distinct) {
            ("count", false) => Made::Count(self.sum_of(call, WIDE)),
            ("sum", false) => match data_type {
                DataType::Int64 => Made::Of(self.sum_of(call, WIDE)),
                DataType::Float64 => Made::Of(self.sum_of(call, DataType::Float64)),
                _ => return None,
            },
            ("avg", false) if data_type == &DataType::Float64 => {
                let again = |function: Arc<AggregateUDF>| {
                    let function = match stored {
                        Some(_) => Arc::new(Unweighted::of(function)),
                        None => function,
                    };
                    AggregateFunction { func: function, params: params.clone() }
                };
                let (sum, count) = (again(sum_udaf()), again(count_udaf()));
                Made::Quotient(self.sum_of(sum, DataType::Float64), self.sum_of(count, WIDE))
            }
            ("min" | "max" | "bool_and" | "bool_or", _) => {
                let function = Arc::clone(function);
                let state = place_of(&mut self.states, SqlExpr::AggregateFunction(call));
                let again = called(function, self.column("s", state));
                Made::Of(place_of(&mut self.sums, again))
            }
            _ => return None,
        })
    }

    /// The sum over joined groups of what this is for each group.
    fn sum_of(&mut self, of_group: AggregateFunction, data_type: DataType) -> usize {
        let state = place_of(&mut self.states, SqlExpr::AggregateFunction(of_group));
        let sum = called(sum_udaf(), cast(self.column("s", state), data_type));
        place_of(&mut self.sums, sum)
    }
}

fn called(function: Arc<AggregateUDF>, argument: SqlExpr) -> SqlExpr {
    let params = AggregateFunctionParams {
        args: vec![argument],
        distinct: false,
        filter: None,
        order_by: vec![],
        null_treatment: None,
    };
    SqlExpr::AggregateFunction(AggregateFunction { func: function, params })
}

impl Made {
    fn value(&self, sums: &[SqlExpr]) -> SqlExpr {
        match self {
            Made::Of(place) => sums[*place].clone(),
            // Of no group it is none.
            Made::Count(place) => coalesce(vec![cast(sums[*place].clone(), DataType::Int64), lit(0i64)]),
            Made::Quotient(sum, count) => sums[*sum].clone() / cast(sums[*count].clone(), DataType::Float64),
        }
    }
}
