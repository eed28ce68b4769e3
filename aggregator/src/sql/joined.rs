//! Aggregates over a join: one of its sides is grouped first ([`super::grouped_first`]).
//!
//! `SELECT t.team, count(*), avg(r.ms) FROM requests r JOIN teams t ON r.service = t.service GROUP BY t.team` reads rows of
//! `requests` only by what they are joined and grouped by.
//!
//! Invariant: the other side of the join has no weights.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr as SqlExpr, Join, LogicalPlan};

use super::grouped_first::{Over, Side};
use super::weights::weighted_rows_below;

/// The same with one side grouped first; `None` when that cannot be, or does not pay.
pub(super) fn group_first(join: &Join, over: &Over<'_>) -> Result<Option<LogicalPlan>> {
    for is_left in [true, false] {
        if let Some(replacement) = side_grouped_first(join, is_left, over)? {
            return Ok(Some(replacement));
        }
    }
    Ok(None)
}

fn side_grouped_first(join: &Join, is_left: bool, over: &Over<'_>) -> Result<Option<LogicalPlan>> {
    let (rows, other) = if is_left { (&join.left, &join.right) } else { (&join.right, &join.left) };
    let on = join.on.iter().flat_map(|(left, right)| [left, right]);
    if on.chain(&join.filter).any(SqlExpr::is_volatile) || !keeps_rows(join, is_left, other)? {
        return Ok(None);
    }
    let mut side = Side::new(rows, rows.schema().columns(), other.schema());
    let made = over.aggregates.iter().zip(over.types()).map(|(expr, data_type)| {
        let SqlExpr::AggregateFunction(call) = expr.clone().unalias() else { return None };
        side.is_all_of(expr).then(|| side.add(call, data_type, None)).flatten()
    });
    let Some(made) = made.collect::<Option<Vec<_>>>() else { return Ok(None) };
    let replaced = |exprs: &mut dyn Iterator<Item = &SqlExpr>, side: &mut Side<'_>| {
        exprs.map(|expr| side.over_groups(expr)).collect::<Result<Vec<_>>>()
    };
    let groups = replaced(&mut over.groups.iter(), &mut side)?;
    let filters = replaced(&mut over.filters.iter(), &mut side)?;
    let left = replaced(&mut join.on.iter().map(|(left, _)| left), &mut side)?;
    let right = replaced(&mut join.on.iter().map(|(_, right)| right), &mut side)?;
    let filter = join.filter.as_ref().map(|expr| side.over_groups(expr)).transpose()?;
    // What has no keys is one group even of no rows, which would meet rows that none of them did.
    if side.keys.is_empty() && !groups.is_empty() {
        return Ok(None);
    }
    let Some(grouped) = side.grouped()? else { return Ok(None) };
    let (grouped, other) = (Arc::new(grouped), Arc::clone(other));
    let (left_input, right_input) = if is_left { (grouped, other) } else { (other, grouped) };
    let joined = Join::try_new(
        left_input,
        right_input,
        left.into_iter().zip(right).collect(),
        filter,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        false,
    )?;
    over.added_up(LogicalPlan::Join(joined), filters, groups, (&side.sums, &made)).map(Some)
}

/// Whether every row of the side is joined as it is, and counts once for each row that it is joined to.
fn keeps_rows(join: &Join, is_left: bool, other: &LogicalPlan) -> Result<bool> {
    let (keeps, is_filter) = match join.join_type {
        JoinType::Inner => (true, false),
        JoinType::Left => (is_left, false),
        JoinType::Right => (!is_left, false),
        JoinType::LeftSemi | JoinType::LeftAnti => (is_left, true),
        JoinType::RightSemi | JoinType::RightAnti => (!is_left, true),
        _ => (false, false),
    };
    Ok(keeps && !join.null_aware && (is_filter || weighted_rows_below(other)?.is_none()))
}
