//! Nothing is unweighted in silence.
//!
//! On a table with `sample_rate`, aggregates that count a row as `sample_rate` events are weighted by the leaves.
//! An aggregate or window that stayed on the aggregator and reads raw rows of such a table would count stored rows
//! instead: it is refused here, unless its result does not depend on how often a row counts.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr as SqlExpr, LogicalPlan, WindowFunctionDefinition};

use super::errors::external;
use super::functions::UNWEIGHTED_PREFIX;
use super::states::names_sample_rate;
use super::tables::Pushed;
use crate::error::{ErrorCode, Failure};

/// Aggregates that give the same for a row and for copies of it, or that speak of stored rows by nature.
const WEIGHT_FREE: [&str; 14] = [
    "min",
    "max",
    "approx_distinct",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "array_agg",
    "string_agg",
    "first_value",
    "last_value",
    "nth_value",
    "any_value",
    "grouping",
];

/// Refuses a plan that would answer unweighted; runs once the push-down rule has done what it can.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let (exprs, input) = match node {
            LogicalPlan::Aggregate(aggregate) => (&aggregate.aggr_expr, &aggregate.input),
            LogicalPlan::Window(window) => (&window.window_expr, &window.input),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        for expr in exprs {
            let Some(function) = weighted_function(expr)? else { continue };
            if let Some(table) = weighted_rows_below(input)? {
                return Err(external(refusal(&function, &table)));
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn refusal(function: &str, table: &str) -> Failure {
    Failure::new(
        ErrorCode::Unsupported,
        format!("{function} cannot be weighted by sample_rate in this place of a query on table `{table}`"),
    )
    .detail("Rows of this table stand for sample_rate events each, and this part of the query cannot run on the leaves.")
    .hint(format!(
        "Aggregate the table in a subquery first, or write unweighted({function}(…)) to count stored rows."
    ))
}

/// The name of the first function in an expression whose result depends on weights.
fn weighted_function(expr: &SqlExpr) -> Result<Option<String>> {
    let mut found = None;
    expr.apply(|node| {
        let (name, distinct, args) = match node {
            SqlExpr::AggregateFunction(call) => (call.func.name(), call.params.distinct, &call.params.args),
            SqlExpr::WindowFunction(call) => match &call.fun {
                WindowFunctionDefinition::AggregateUDF(udaf) => {
                    (udaf.name(), call.params.distinct, &call.params.args)
                }
                WindowFunctionDefinition::WindowUDF(_) => return Ok(TreeNodeRecursion::Continue),
            },
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        let free = distinct
            || name.starts_with(UNWEIGHTED_PREFIX)
            || WEIGHT_FREE.contains(&name)
            || args.iter().any(names_sample_rate);
        if !free {
            found = Some(name.to_owned());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// The first weighted table whose raw rows reach this plan; below an Aggregate there are groups, not rows.
pub(super) fn weighted_rows_below(plan: &LogicalPlan) -> Result<Option<String>> {
    let mut found = None;
    plan.apply(|node| {
        Ok(match node {
            LogicalPlan::Aggregate(_) => TreeNodeRecursion::Jump,
            LogicalPlan::TableScan(scan) => {
                found = Pushed::weighted_rows_of_scan(scan);
                if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue }
            }
            _ => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}
