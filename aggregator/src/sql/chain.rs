//! The walk from an operator down to the table it reads.
//!
//! Between an Aggregate or a Sort and a TableScan may stand projections, filters and aliases. They are folded away:
//! expressions above are rewritten until they speak of the table's own columns, and filters are collected.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr as SqlExpr, LogicalPlan, TableScan};

use super::tables::{GannetTable, Pushed};

/// Expressions larger than this after folding stay on the aggregator: folding can double them at each step.
const FOLDED_NODES_MAX: usize = 20_000;

/// What was found below an operator.
pub(super) struct Chain {
    /// A [`GannetTable`], or a [`Pushed`] of groups.
    pub(super) provider: Arc<dyn TableProvider>,
    /// Its scan.
    pub(super) scan: TableScan,
    /// The expressions of the operator, over the table's columns.
    pub(super) exprs: Vec<SqlExpr>,
    /// Every condition on the way and of the scan itself, over the table's columns.
    pub(super) filters: Vec<SqlExpr>,
}

impl Chain {
    /// Follows `input` down to a table of the catalogue; `None` when there is something else on the way.
    pub(super) fn follow(input: &LogicalPlan, exprs: Vec<SqlExpr>) -> Result<Option<Chain>> {
        Chain::follow_to(GannetTable::of_scan, input, exprs)
    }

    /// Follows `input` down to groups that leaves were asked for.
    pub(super) fn follow_to_groups(input: &LogicalPlan, exprs: Vec<SqlExpr>) -> Result<Option<Chain>> {
        Chain::follow_to(Pushed::groups_of_scan, input, exprs)
    }

    fn follow_to(
        end: fn(&TableScan) -> Option<Arc<dyn TableProvider>>,
        input: &LogicalPlan,
        exprs: Vec<SqlExpr>,
    ) -> Result<Option<Chain>> {
        let Some(Walked { end: LogicalPlan::TableScan(scan), exprs, mut filters }) = walk(input, exprs)?
        else {
            return Ok(None);
        };
        let Some(provider) = end(scan).filter(|_| scan.fetch.is_none()) else { return Ok(None) };
        filters.extend(scan.filters.iter().cloned());
        Ok(Some(Chain { provider, scan: scan.clone(), exprs, filters }))
    }

    /// The table at the end of the chain.
    pub(super) fn table(&self) -> Option<&GannetTable> {
        self.provider.downcast_ref::<GannetTable>()
    }

    /// The groups at the end of the chain.
    pub(super) fn groups(&self) -> Option<&Pushed> {
        self.provider.downcast_ref::<Pushed>()
    }
}

/// Where projections, filters and aliases end.
pub(super) struct Walked<'a> {
    /// The first operator that is none of them.
    pub(super) end: &'a LogicalPlan,
    /// The expressions above, over its columns.
    pub(super) exprs: Vec<SqlExpr>,
    /// Every condition on the way, over its columns.
    pub(super) filters: Vec<SqlExpr>,
}

/// Follows `input` down through projections, filters and aliases; `None` when they cannot be folded away.
pub(super) fn walk(input: &LogicalPlan, mut exprs: Vec<SqlExpr>) -> Result<Option<Walked<'_>>> {
    let mut filters: Vec<SqlExpr> = Vec::new();
    let mut plan = input;
    loop {
        plan = match plan {
            LogicalPlan::Projection(projection) => {
                if projection.expr.iter().any(SqlExpr::is_volatile) {
                    return Ok(None);
                }
                let below: Vec<SqlExpr> = projection.expr.iter().map(|expr| expr.clone().unalias()).collect();
                let columns = projection.schema.columns();
                if !fold(&mut exprs, &mut filters, columns.into_iter().zip(below).collect())? {
                    return Ok(None);
                }
                &projection.input
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let below = alias.input.schema().columns().into_iter().map(SqlExpr::Column);
                let columns = alias.schema.columns();
                if !fold(&mut exprs, &mut filters, columns.into_iter().zip(below).collect())? {
                    return Ok(None);
                }
                &alias.input
            }
            LogicalPlan::Filter(filter) => {
                filters.push(filter.predicate.clone());
                &filter.input
            }
            end => return Ok(Some(Walked { end, exprs, filters })),
        }
    }
}

/// Replaces columns by what they stand for; false when the result would be too large.
fn fold(exprs: &mut [SqlExpr], filters: &mut [SqlExpr], below: HashMap<Column, SqlExpr>) -> Result<bool> {
    let mut budget = FOLDED_NODES_MAX;
    for expr in exprs.iter_mut().chain(filters.iter_mut()) {
        let size = folded_size(expr, &below)?;
        if size > budget {
            return Ok(false);
        }
        budget -= size;
        let owned = std::mem::take(expr);
        *expr = owned
            .transform_up(|node| match &node {
                SqlExpr::Column(column) => Ok(match below.get(column) {
                    Some(meaning) => Transformed::yes(meaning.clone()),
                    None => Transformed::no(node),
                }),
                _ => Ok(Transformed::no(node)),
            })?
            .data;
    }
    Ok(true)
}

fn folded_size(expr: &SqlExpr, below: &HashMap<Column, SqlExpr>) -> Result<usize> {
    let mut size = 0usize;
    expr.apply(|node| {
        size = size.saturating_add(match node {
            SqlExpr::Column(column) => match below.get(column) {
                Some(meaning) => size_of_expr(meaning)?,
                None => 1,
            },
            _ => 1,
        });
        Ok(if size > FOLDED_NODES_MAX { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(size)
}

fn size_of_expr(expr: &SqlExpr) -> Result<usize> {
    let mut size = 0;
    expr.apply(|_| {
        size += 1;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(size)
}
