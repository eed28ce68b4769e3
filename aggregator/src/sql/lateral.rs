//! An optimizer rule: `FROM requests, UNNEST(tags) AS u(tag)` becomes what `unnest` in a SELECT is.
//!
//! DataFusion plans the lists of each row as a subquery that speaks of the row beside it, and has no operator that could
//! run that. Rows joined with the items of their own lists are those rows unnested, so the join goes, and rules that
//! know unnested rows ([`super::unnested`]) see them. Outer joins with items, and items of lists that come from a
//! SELECT of their own, stay as they were.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr as SqlExpr, Join, LogicalPlan, LogicalPlanBuilder, Unnest};
use datafusion::optimizer::optimizer::ApplyOrder;

use super::chain::{Walked, walk};
use super::rule::Rule;

/// See the module.
pub(super) const UNNEST_BESIDE: Rule = Rule {
    name: "unnest_beside",
    order: ApplyOrder::TopDown,
    replace: |plan| match plan {
        LogicalPlan::Join(join) => unnested(join),
        _ => Ok(None),
    },
};

/// The rows of the left side with the items of their lists; `None` when the right side is something else.
fn unnested(join: &Join) -> Result<Option<LogicalPlan>> {
    if join.join_type != JoinType::Inner || !join.on.is_empty() {
        return Ok(None);
    }
    let right = LogicalPlan::clone(&join.right).transform_down(|plan| {
        Ok(match plan {
            LogicalPlan::Subquery(subquery) => Transformed::yes(LogicalPlan::clone(&subquery.subquery)),
            other => Transformed::no(other),
        })
    })?;
    let columns = right.data.schema().columns().into_iter().map(SqlExpr::Column).collect();
    let Some(Walked { end: LogicalPlan::Unnest(unnest), exprs, filters }) = walk(&right.data, columns)?
    else {
        return Ok(None);
    };
    let LogicalPlan::Projection(lists) = unnest.input.as_ref() else { return Ok(None) };
    if !matches!(lists.input.as_ref(), LogicalPlan::EmptyRelation(nothing) if nothing.produce_one_row) {
        return Ok(None);
    }
    let inner = |exprs: &[SqlExpr]| {
        exprs.iter().map(|expr| beside(expr, join)).collect::<Result<Option<Vec<SqlExpr>>>>()
    };
    let (Some(lists), Some(items), Some(filters)) = (inner(&lists.expr)?, inner(&exprs)?, inner(&filters)?)
    else {
        return Ok(None);
    };
    let left = || join.left.schema().columns().into_iter().map(SqlExpr::Column);
    let rows = LogicalPlanBuilder::from(Arc::clone(&join.left)).project(left().chain(lists))?.build()?;
    let rows = Unnest::try_new(Arc::new(rows), unnest.exec_columns.clone(), unnest.options.clone())?;
    let mut plan = LogicalPlanBuilder::from(LogicalPlan::Unnest(rows));
    if let Some(condition) = conjunction(filters) {
        plan = plan.filter(condition)?;
    }
    let items = items
        .into_iter()
        .zip(join.right.schema().iter())
        .map(|(item, (qualifier, field))| item.alias_qualified(qualifier.cloned(), field.name()));
    let mut plan = plan.project(left().chain(items))?;
    if let Some(condition) = &join.filter {
        plan = plan.filter(condition.clone())?;
    }
    plan.build().map(Some)
}

/// What an expression says of the row beside it; `None` when it is of a row further out.
fn beside(expr: &SqlExpr, join: &Join) -> Result<Option<SqlExpr>> {
    let mut is_beside = true;
    let expr = expr.clone().transform_up(|expr| {
        Ok(match expr {
            SqlExpr::OuterReferenceColumn(_, column) => {
                is_beside &= join.left.schema().has_column(&column);
                Transformed::yes(SqlExpr::Column(column))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(is_beside.then_some(expr.data))
}
