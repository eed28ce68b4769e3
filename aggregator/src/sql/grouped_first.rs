//! An optimizer rule: aggregates over rows that are made of other rows are worked out before they are.
//!
//! Joined rows ([`super::joined`]) and the rows of list items ([`super::unnested`]) are made by the aggregator, which
//! cannot weight what it reads there. But they speak of a table's rows only by what those are joined, unnested and
//! grouped by. So a table is grouped by that first, on the leaves, which weight its rows by `sample_rate`; the groups are
//! joined or unnested, and counts and sums of groups added up. A group that becomes three rows counts three times, as
//! each of its rows would (Yan and Larson, "Eager Aggregation and Lazy Aggregation", VLDB 1995).
//!
//! It is done for tables whose rows are weighted, because nobody else can weight them, and for others where it leaves
//! few groups of many rows. What cannot be added up again from groups (percentiles, distinct counts) stays as it was.
//!
//! Invariants: the replacement has the names, qualifiers and types of what it replaces, and the same values; sums of
//! ints are exact or an error.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::logical_plan::Aggregate as SqlAggregate;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    AggregateUDF, Expr as SqlExpr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, cast, lit,
};
use datafusion::optimizer::optimizer::ApplyOrder;
use gannet_query::WeightKind;

use super::chain::{Chain, Walked, walk};
use super::functions::Unweighted;
use super::rule::Rule;
use super::{joined, unnested};

/// Sums of ints that 64 bits cannot hold.
const WIDE: DataType = DataType::Decimal128(38, 0);

/// See the module.
pub(super) const GROUP_FIRST: Rule = Rule {
    name: "group_first",
    order: ApplyOrder::TopDown,
    replace: |plan| match plan {
        LogicalPlan::Aggregate(aggregate) => group_first(aggregate),
        _ => Ok(None),
    },
};

fn group_first(aggregate: &SqlAggregate) -> Result<Option<LogicalPlan>> {
    let exprs: Vec<SqlExpr> = aggregate.group_expr.iter().chain(&aggregate.aggr_expr).cloned().collect();
    if exprs.iter().any(|expr| matches!(expr, SqlExpr::GroupingSet(_)) || expr.is_volatile()) {
        return Ok(None);
    }
    let Some(Walked { end, exprs, filters }) = walk(&aggregate.input, exprs)? else { return Ok(None) };
    if filters.iter().any(SqlExpr::is_volatile) {
        return Ok(None);
    }
    let (groups, aggregates) = exprs.split_at(aggregate.group_expr.len());
    let over = Over { schema: &aggregate.schema, groups, aggregates, filters: &filters };
    match end {
        LogicalPlan::Join(join) => joined::group_first(join, &over),
        LogicalPlan::Unnest(unnest) => unnested::group_first(unnest, &over),
        _ => Ok(None),
    }
}

/// An Aggregate over rows that are made of others.
pub(super) struct Over<'a> {
    schema: &'a DFSchema,
    pub(super) groups: &'a [SqlExpr],
    pub(super) aggregates: &'a [SqlExpr],
    /// Conditions on the rows that were made.
    pub(super) filters: &'a [SqlExpr],
}

/// Rows that are grouped first, by what, and what is worked out for their groups.
pub(super) struct Side<'a> {
    rows: &'a Arc<LogicalPlan>,
    /// Those of their columns that expressions above can speak of.
    columns: HashSet<Column>,
    name: TableReference,
    pub(super) keys: Vec<SqlExpr>,
    states: Vec<SqlExpr>,
    /// Aggregates over what was made of the groups.
    pub(super) sums: Vec<SqlExpr>,
}

/// How an aggregate is made of [`Side::sums`], by their places.
pub(super) enum Made {
    Of(usize),
    Count(usize),
    Quotient(usize, usize),
}

impl Over<'_> {
    /// The types of the aggregates.
    pub(super) fn types(&self) -> impl Iterator<Item = &DataType> {
        self.schema.fields().iter().skip(self.groups.len()).map(|field| field.data_type())
    }

    /// The values of the aggregates, from sums over these rows.
    pub(super) fn added_up(
        &self,
        rows: LogicalPlan,
        filters: Vec<SqlExpr>,
        groups: Vec<SqlExpr>,
        (sums, made): (&[SqlExpr], &[Made]),
    ) -> Result<LogicalPlan> {
        let mut plan = LogicalPlanBuilder::from(rows);
        if let Some(condition) = conjunction(filters) {
            plan = plan.filter(condition)?;
        }
        let plan = plan.aggregate(groups, named("t", sums))?;
        let columns: Vec<SqlExpr> = plan.schema().columns().into_iter().map(SqlExpr::Column).collect();
        let (keys, sums) = columns.split_at(self.groups.len());
        let values = keys.iter().cloned().chain(made.iter().map(|made| made.value(sums)));
        let shown = values
            .zip(self.schema.iter())
            .map(|(expr, (qualifier, field))| {
                let expr = expr.cast_to(field.data_type(), plan.schema())?;
                Ok(expr.alias_qualified(qualifier.cloned(), field.name()))
            })
            .collect::<Result<Vec<_>>>()?;
        plan.project(shown)?.build()
    }
}

impl<'a> Side<'a> {
    /// Nothing is worked out yet. Its groups get a name that nothing in the other schema has.
    pub(super) fn new(rows: &'a Arc<LogicalPlan>, columns: Vec<Column>, other: &DFSchema) -> Side<'a> {
        let taken = |name: &str| {
            let mut qualifiers = other.iter().filter_map(|(qualifier, _)| qualifier);
            qualifiers.any(|qualifier| qualifier.table() == name)
        };
        let mut names = (0..).map(|number| format!("grouped_{number}")).filter(|name| !taken(name));
        let name = TableReference::bare(names.next().unwrap_or_default());
        let columns = columns.into_iter().collect();
        Side { rows, columns, name, keys: vec![], states: vec![], sums: vec![] }
    }

    /// Whether an expression speaks of nothing else.
    pub(super) fn is_all_of(&self, expr: &SqlExpr) -> bool {
        expr.column_refs().into_iter().all(|column| self.columns.contains(column))
    }

    /// An expression over the rows that were made as one over what is made of groups: what speaks of the side alone is a
    /// key of its groups.
    pub(super) fn over_groups(&mut self, expr: &SqlExpr) -> Result<SqlExpr> {
        let replaced = expr.clone().transform_down(|expr| {
            if matches!(expr, SqlExpr::Alias(_)) || expr.column_refs().is_empty() || !self.is_all_of(&expr) {
                return Ok(Transformed::no(expr));
            }
            Ok(Transformed::new(self.key(expr), true, TreeNodeRecursion::Jump))
        })?;
        Ok(replaced.data)
    }

    /// Groups by this as well; gives back its column.
    pub(super) fn key(&mut self, expr: SqlExpr) -> SqlExpr {
        let place = place_of(&mut self.keys, expr);
        self.column("k", place)
    }

    /// The groups; `None` when leaves cannot make them or it does not pay.
    pub(super) fn grouped(&self) -> Result<Option<LogicalPlan>> {
        let builder = LogicalPlanBuilder::from(Arc::clone(self.rows));
        let plan = builder.aggregate(named("k", &self.keys), named("s", &self.states))?.build()?;
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(None) };
        let plan = match Chain::follow(self.rows, self.keys.clone())? {
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
            // Rows that are made of others themselves.
            None => match group_first(aggregate)? {
                Some(plan) => plan,
                None => return Ok(None),
            },
        };
        LogicalPlanBuilder::from(plan).alias(self.name.clone())?.build().map(Some)
    }

    fn column(&self, kind: &str, place: usize) -> SqlExpr {
        SqlExpr::Column(Column::new(Some(self.name.clone()), format!("{kind}{place}")))
    }

    /// Works an aggregate out for groups and again for what is made of those that pass a filter; `None` when it cannot be
    /// made of what groups have.
    pub(super) fn add(
        &mut self,
        call: AggregateFunction,
        data_type: &DataType,
        filter: Option<&SqlExpr>,
    ) -> Option<Made> {
        let params = &call.params;
        if !params.order_by.is_empty() || params.null_treatment.is_some() {
            return None;
        }
        let stored = call.func.inner().downcast_ref::<Unweighted>();
        let function = stored.map_or(&call.func, Unweighted::inner);
        Some(match (function.name(), params.distinct) {
            ("count", false) => Made::Count(self.sum_of(call, WIDE, filter)),
            ("sum", false) => match data_type {
                DataType::Int64 => Made::Of(self.sum_of(call, WIDE, filter)),
                DataType::Float64 => Made::Of(self.sum_of(call, DataType::Float64, filter)),
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
                Made::Quotient(self.sum_of(sum, DataType::Float64, filter), self.sum_of(count, WIDE, filter))
            }
            ("min" | "max" | "bool_and" | "bool_or", _) => {
                let function = Arc::clone(function);
                let state = place_of(&mut self.states, SqlExpr::AggregateFunction(call));
                let again = called(function, self.column("s", state), filter);
                Made::Of(place_of(&mut self.sums, again))
            }
            _ => return None,
        })
    }

    /// The sum, over what is made of groups, of what this is for each group.
    fn sum_of(
        &mut self,
        of_group: AggregateFunction,
        data_type: DataType,
        filter: Option<&SqlExpr>,
    ) -> usize {
        let state = place_of(&mut self.states, SqlExpr::AggregateFunction(of_group));
        let sum = called(sum_udaf(), cast(self.column("s", state), data_type), filter);
        place_of(&mut self.sums, sum)
    }
}

/// Expressions under names that cannot clash.
fn named(kind: &str, exprs: &[SqlExpr]) -> Vec<SqlExpr> {
    (0..).zip(exprs).map(|(place, expr): (usize, _)| expr.clone().alias(format!("{kind}{place}"))).collect()
}

/// The place of an expression in a list that has each once.
pub(super) fn place_of(list: &mut Vec<SqlExpr>, expr: SqlExpr) -> usize {
    list.iter().position(|known| *known == expr).unwrap_or_else(|| {
        list.push(expr);
        list.len() - 1
    })
}

fn called(function: Arc<AggregateUDF>, argument: SqlExpr, filter: Option<&SqlExpr>) -> SqlExpr {
    let params = AggregateFunctionParams {
        args: vec![argument],
        distinct: false,
        filter: filter.cloned().map(Box::new),
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
