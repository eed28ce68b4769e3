//! Sides of joins that are asked before the statement they are a part of.
//!
//! Where rows of a table are joined with groups by equal keys, the groups come first. They then are a table of their own,
//! and the rows are asked only for those that have one of their keys: leaves look it up, and what nobody would join is
//! never sent.
//!
//! Invariants: the join stays, so that rows are still joined by it alone; rows that have to be in the answer without a
//! partner are not filtered; groups that are too many stay a subquery.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, NullEquality, TableReference};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::Result;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr as SqlExpr, Join, LogicalPlan, LogicalPlanBuilder, Operator};

use super::subqueries::{
    Asked, Known, Place, VALUES_BYTES_MAX, VALUES_MAX, among, reads_rows, speaks_of_outside,
};
use super::tables::GannetTable;
use crate::error::{ErrorCode, Failure};

/// Bytes of the rows of one side: they stay here, only keys travel.
const SIDE_BYTES_MAX: usize = 16 << 20;

/// The sides that are to be asked before a plan is run and have none in them that are.
pub(super) fn to_ask(plan: &LogicalPlan, known: &[(Place, Known)]) -> Result<Vec<Asked>> {
    let mut sides: Vec<Arc<LogicalPlan>> = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Join(join) = node
            && let Some(meeting) = Meeting::of(join)
            && !sides.contains(meeting.groups)
            && known.iter().all(|(place, _)| !matches!(place, Place::Side(side) if side == meeting.groups))
            && !speaks_of_outside(meeting.groups)?
        {
            sides.push(Arc::clone(meeting.groups));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let mut asked = Vec::new();
    for side in &sides {
        let has_another =
            side.exists(|node| Ok(sides.iter().any(|one| !Arc::ptr_eq(one, side) && node == &**one)))?;
        if !has_another {
            let plan = LogicalPlanBuilder::from(Arc::clone(side)).limit(0, Some(VALUES_MAX + 1))?.build()?;
            asked.push(Asked { place: Place::Side(Arc::clone(side)), plan });
        }
    }
    Ok(asked)
}

/// A join of rows with groups.
struct Meeting<'a> {
    rows: &'a Arc<LogicalPlan>,
    groups: &'a Arc<LogicalPlan>,
    /// Of the rows the expression and of the groups the column that are equal.
    keys: Vec<(SqlExpr, usize)>,
}

impl Meeting<'_> {
    /// A join whose rows nobody sees without a partner, if it is one with groups by equal keys.
    fn of(join: &Join) -> Option<Meeting<'_>> {
        let is_left = match (reads_rows(&join.left), reads_rows(&join.right)) {
            (true, false) => true,
            (false, true) => false,
            _ => return None,
        };
        let outer = if is_left { JoinType::Right } else { JoinType::Left };
        let (rows, groups) = if is_left { (&join.left, &join.right) } else { (&join.right, &join.left) };
        let keeps = join.join_type == JoinType::Inner || join.join_type == outer;
        if !keeps || join.null_equality != NullEquality::NullEqualsNothing || !reads_any_table(groups) {
            return None;
        }
        let on = join.on.iter().map(|(left, right)| (left, right));
        let conditions = join.filter.iter().flat_map(split_conjunction);
        let equal = conditions.filter_map(|condition| match condition {
            SqlExpr::BinaryExpr(binary) if binary.op == Operator::Eq => Some((&*binary.left, &*binary.right)),
            _ => None,
        });
        let key = |one: &SqlExpr, other: &SqlExpr| {
            let SqlExpr::Column(column) = other else { return None };
            let index = groups.schema().maybe_index_of_column(column)?;
            let refs = one.column_refs();
            let of_rows = !refs.is_empty() && refs.iter().all(|column| rows.schema().has_column(column));
            (of_rows && !one.is_volatile()).then(|| (one.clone(), index))
        };
        let keys: Vec<_> = on
            .chain(equal)
            .filter_map(|(left, right)| key(left, right).or_else(|| key(right, left)))
            .collect();
        (!keys.is_empty()).then_some(Meeting { rows, groups, keys })
    }
}

fn reads_any_table(plan: &LogicalPlan) -> bool {
    plan.exists(|node| {
        Ok(matches!(node, LogicalPlan::TableScan(scan) if GannetTable::of_scan(scan).is_some()))
    })
    .unwrap_or(false)
}

/// What the answer to a side says.
pub(super) fn known(side: &LogicalPlan, batches: &[RecordBatch]) -> Result<Known, Failure> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let bytes: usize = batches.iter().map(gannet_query::value::rows_bytes).sum();
    if rows > VALUES_MAX || bytes > SIDE_BYTES_MAX {
        return Ok(Known::Stays);
    }
    let schema = Arc::new(numbered_fields(side));
    let in_types = |batch: &RecordBatch| {
        let columns = batch.columns().iter().zip(schema.fields());
        let columns = columns.map(|(column, field)| arrow::compute::cast(column, field.data_type()));
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)
    };
    let batches = batches.iter().map(in_types).collect::<Result<Vec<_>, _>>().map_err(|error| {
        Failure::new(ErrorCode::Internal, format!("the rows of a side of a join cannot be read: {error}"))
    })?;
    Ok(Known::Rows(batches))
}

fn numbered_fields(side: &LogicalPlan) -> Schema {
    let fields = side.schema().fields().iter().enumerate();
    Schema::new(
        fields
            .map(|(index, field)| {
                Field::new(format!("c{index}"), field.data_type().clone(), field.is_nullable())
            })
            .collect::<Vec<_>>(),
    )
}

/// A join with its groups in their place, and only those rows that have one of their keys.
pub(super) fn put(node: LogicalPlan, known: &[(Place, Known)]) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Join(join) = &node else { return Ok(Transformed::no(node)) };
    let Some(Meeting { rows, groups, keys }) = Meeting::of(join) else { return Ok(Transformed::no(node)) };
    let of_side = |(place, known): &'_ (Place, Known)| match (place, known) {
        (Place::Side(side), Known::Rows(batches)) if side == groups => Some(batches.clone()),
        _ => None,
    };
    let Some(batches) = known.iter().find_map(of_side) else { return Ok(Transformed::no(node)) };
    let mut filtered = LogicalPlanBuilder::from(Arc::clone(rows));
    for (expr, index) in keys {
        let Some(values) = values_of(&batches, index, groups)? else { continue };
        if let Some(condition) = among(&expr, &values, false, rows.schema())? {
            filtered = filtered.filter(condition)?;
        }
    }
    let (rows, table) = (Arc::new(filtered.build()?), Arc::new(table_of(groups, batches)?));
    let is_left = Arc::ptr_eq(&join.right, groups);
    let (left, right) = if is_left { (rows, table) } else { (table, rows) };
    Ok(Transformed::yes(LogicalPlan::Join(Join { left, right, ..join.clone() })))
}

/// The values of a key; none when they are too many to travel.
fn values_of(batches: &[RecordBatch], index: usize, groups: &LogicalPlan) -> Result<Option<ArrayRef>> {
    let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(index).as_ref()).collect();
    let values = match parts.is_empty() {
        true => arrow::array::new_empty_array(groups.schema().field(index).data_type()),
        false => arrow::compute::concat(&parts)?,
    };
    let bytes = values.to_data().get_slice_memory_size().unwrap_or(usize::MAX);
    Ok((bytes <= VALUES_BYTES_MAX).then_some(values))
}

/// A scan of the rows, with exactly the schema of what they are of.
fn table_of(groups: &LogicalPlan, batches: Vec<RecordBatch>) -> Result<LogicalPlan> {
    let table = MemTable::try_new(Arc::new(numbered_fields(groups)), vec![batches])?;
    let name = TableReference::bare("asked_before");
    let shown = groups.schema().iter().enumerate().map(|(index, (qualifier, field))| {
        let column = Column::new(Some(name.clone()), format!("c{index}"));
        SqlExpr::Column(column).alias_qualified(qualifier.cloned(), field.name())
    });
    let scan = LogicalPlanBuilder::scan(name.clone(), provider_as_source(Arc::new(table)), None)?;
    scan.project(shown)?.build()
}
