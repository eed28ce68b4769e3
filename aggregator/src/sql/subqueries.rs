//! Subqueries that are asked before the statement they are a part of.
//!
//! Leaves compare rows with values. Where a statement compares the rows of a table with `(SELECT …)`, asks whether they are
//! `IN (SELECT …)` or whether anything `EXISTS`, and the subquery does not speak of the row outside, it is asked
//! first and its values take its place. The rest is then like any statement: filters run on the leaves, time ranges
//! leave out blocks, aggregates are weighted by `sample_rate`. As a join, all rows of the table would have to come here.
//!
//! Where rows of a table are joined with groups (`JOIN (SELECT … GROUP BY …)`), the groups are asked first too, and of the
//! rows only those that have their keys (see [`super::sides`]).
//!
//! Invariants: a statement means the same with the values as with the subqueries, NULLs included; a subquery with too
//! many values stays where it is; one that is not compared with rows of a table stays too, and runs beside the others.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr as SqlExpr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Subquery, Volatility, lit,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, InListExpr};
use parking_lot::Mutex;

use super::errors::external;
use super::sides;
use super::tables::GannetTable;
use crate::error::{ErrorCode, Failure};

/// Values of one `IN (SELECT …)`, and their bytes: they travel to every leaf.
pub(super) const VALUES_MAX: usize = 1 << 17;
pub(super) const VALUES_BYTES_MAX: usize = 2 << 20;

/// Where a subquery stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Place {
    /// In an expression.
    Expr(SqlExpr),
    /// At a side of a join.
    Side(Arc<LogicalPlan>),
}

/// A subquery of a statement.
#[derive(Debug)]
pub(super) struct Asked {
    /// Where it stands.
    pub(super) place: Place,
    /// What is asked: no more than what its place needs.
    pub(super) plan: LogicalPlan,
}

/// What a subquery turned out to be.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// One value.
    Value(ScalarValue),
    /// The values that something may be in.
    Among(ArrayRef),
    /// The rows of a side of a join, in its types.
    Rows(Vec<RecordBatch>),
    /// Too many of them: it stays a subquery.
    Stays,
}

/// The subqueries that are to be asked before a plan is run and have none of their own that are; `known` are those that
/// were asked.
pub(super) fn to_ask(plan: &LogicalPlan, known: &[(Place, Known)]) -> Result<Vec<Asked>> {
    let mut exprs: Vec<SqlExpr> = Vec::new();
    let is_new =
        |expr: &SqlExpr| known.iter().all(|(place, _)| !matches!(place, Place::Expr(asked) if asked == expr));
    plan.apply_with_subqueries(|node| {
        if !node.inputs().into_iter().any(reads_rows) {
            return Ok(TreeNodeRecursion::Continue);
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Some(subquery) = subquery_of(expr)
                    && !exprs.contains(expr)
                    && is_new(expr)
                    && !speaks_of_outside(&subquery.subquery)?
                {
                    exprs.push(expr.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    let mut asked = Vec::new();
    for expr in &exprs {
        let Some(subquery) = subquery_of(expr) else { continue };
        if !contains_any(&subquery.subquery, &exprs)? {
            asked.push(Asked { place: Place::Expr(expr.clone()), plan: bounded(expr, &subquery.subquery)? });
        }
    }
    // What they say may be a part of a side.
    if asked.is_empty() { sides::to_ask(plan, known) } else { Ok(asked) }
}

fn subquery_of(expr: &SqlExpr) -> Option<&Subquery> {
    match expr {
        SqlExpr::ScalarSubquery(subquery) => Some(subquery),
        SqlExpr::InSubquery(within) => Some(&within.subquery),
        SqlExpr::Exists(exists) => Some(&exists.subquery),
        _ => None,
    }
}

/// Whether rows of a table reach this plan; above an Aggregate there are groups.
pub(super) fn reads_rows(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let walked = plan.apply(|node| {
        Ok(match node {
            LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => TreeNodeRecursion::Jump,
            LogicalPlan::TableScan(scan) if GannetTable::of_scan(scan).is_some() => {
                found = true;
                TreeNodeRecursion::Stop
            }
            _ => TreeNodeRecursion::Continue,
        })
    });
    walked.is_ok() && found
}

/// Whether any expression of a subquery names a column of what is around it or around one of its own subqueries.
pub(super) fn speaks_of_outside(plan: &LogicalPlan) -> Result<bool> {
    any_expr(plan, |expr| matches!(expr, SqlExpr::OuterReferenceColumn(..)))
}

fn contains_any(plan: &LogicalPlan, places: &[SqlExpr]) -> Result<bool> {
    any_expr(plan, |expr| subquery_of(expr).is_some() && places.contains(expr))
}

fn any_expr(plan: &LogicalPlan, is: impl Fn(&SqlExpr) -> bool) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found |= is(expr);
                Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    Ok(found)
}

/// One row more than there may be is enough to tell that there are too many.
fn bounded(place: &SqlExpr, plan: &Arc<LogicalPlan>) -> Result<LogicalPlan> {
    let plan = LogicalPlanBuilder::from(Arc::clone(plan));
    match place {
        SqlExpr::InSubquery(_) => plan.distinct()?.limit(0, Some(VALUES_MAX + 1)),
        SqlExpr::Exists(_) => plan.limit(0, Some(1)),
        _ => plan.limit(0, Some(2)),
    }?
    .build()
}

/// What the answer to a subquery says.
pub(super) fn known(place: &Place, batches: &[RecordBatch]) -> Result<Known, Failure> {
    let place = match place {
        Place::Expr(expr) => expr,
        Place::Side(side) => return sides::known(side, batches),
    };
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(ErrorCode::Internal, format!("the values of a subquery cannot be read: {error}"))
    };
    let row_count: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let Some(subquery) = subquery_of(place) else { return Ok(Known::Stays) };
    if let SqlExpr::Exists(exists) = place {
        return Ok(Known::Value(ScalarValue::from((row_count > 0) != exists.negated)));
    }
    let data_type = subquery.subquery.schema().field(0).data_type();
    let mut parts = Vec::with_capacity(batches.len());
    for batch in batches {
        let Some(column) = batch.columns().first() else { return Ok(Known::Stays) };
        parts.push(arrow::compute::cast(column, data_type).map_err(|error| failed(&error))?);
    }
    if let SqlExpr::ScalarSubquery(_) = place {
        if row_count > 1 {
            return Err(Failure::new(
                ErrorCode::BadRequest,
                "a subquery that stands for one value has several rows",
            )
            .hint("Aggregate in it (max, min, …), add a LIMIT 1, or ask IN (SELECT …)."));
        }
        let row = parts.iter().find(|part| !part.is_empty());
        let value = match row {
            Some(row) => ScalarValue::try_from_array(row, 0),
            None => ScalarValue::try_from(data_type),
        };
        return Ok(Known::Value(value.map_err(|error| failed(&error))?));
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    let values = match parts.is_empty() {
        true => arrow::array::new_empty_array(data_type),
        false => arrow::compute::concat(&parts).map_err(|error| failed(&error))?,
    };
    let bytes = values.to_data().get_slice_memory_size().unwrap_or(usize::MAX);
    Ok(if row_count > VALUES_MAX || bytes > VALUES_BYTES_MAX { Known::Stays } else { Known::Among(values) })
}

/// The plan with values in the places of the subqueries that are known.
pub(super) fn put(plan: LogicalPlan, known: &[(Place, Known)]) -> Result<LogicalPlan> {
    let put = plan.transform_down_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let replaced = expr.transform_down(|expr| replace(expr, known, &schema))?;
            Ok(replaced.update_data(|expr| name.restore(expr)))
        })?;
        node.transform_data(|node| sides::put(node, known))
    })?;
    // What cannot be NULL any more is not NULL further up either.
    let again =
        put.data.transform_up_with_subqueries(|node| node.recompute_schema().map(Transformed::yes))?;
    Ok(again.data)
}

fn replace(expr: SqlExpr, known: &[(Place, Known)], schema: &DFSchema) -> Result<Transformed<SqlExpr>> {
    let value = known.iter().find(|(place, _)| matches!(place, Place::Expr(asked) if *asked == expr));
    Ok(match (value, &expr) {
        (Some((_, Known::Value(value))), _) => {
            Transformed::new(lit(value.clone()), true, TreeNodeRecursion::Jump)
        }
        (Some((_, Known::Among(values))), SqlExpr::InSubquery(within)) => {
            match among(&within.expr, values, within.negated, schema)? {
                Some(among) => Transformed::new(among, true, TreeNodeRecursion::Jump),
                None => Transformed::no(expr),
            }
        }
        _ => Transformed::no(expr),
    })
}

/// `operand IN (values)`, both as the type that a comparison of them has.
pub(super) fn among(
    operand: &SqlExpr,
    values: &ArrayRef,
    negated: bool,
    schema: &DFSchema,
) -> Result<Option<SqlExpr>> {
    if values.is_empty() {
        return Ok(Some(lit(negated)));
    }
    let Some(data_type) = comparison_coercion(&operand.get_type(schema)?, values.data_type()) else {
        return Ok(None);
    };
    let Ok(values) = arrow::compute::cast(values, &data_type) else { return Ok(None) };
    let operand = operand.clone().cast_to(&data_type, schema)?;
    Ok(Some(ScalarUDF::new_from_impl(InValues::new(values, negated)).call(vec![operand])))
}

/// `x IN (values)` over an array of values: a list of literals would be walked through by every rule of the planner.
#[derive(Debug)]
pub(super) struct InValues {
    /// At least one.
    pub(super) values: ArrayRef,
    pub(super) negated: bool,
    signature: Signature,
    /// For conditions that no leaf looks at.
    here: Mutex<Option<Arc<dyn PhysicalExpr>>>,
}

impl InValues {
    fn new(values: ArrayRef, negated: bool) -> InValues {
        let signature = Signature::exact(vec![values.data_type().clone()], Volatility::Immutable);
        InValues { values, negated, signature, here: Mutex::default() }
    }

    /// What a call of it asks, if it is one.
    pub(super) fn of(function: &ScalarUDF) -> Option<&InValues> {
        let inner: &dyn std::any::Any = function.inner().as_ref();
        inner.downcast_ref::<InValues>()
    }

    fn schema(&self) -> Schema {
        Schema::new(vec![Field::new("value", self.values.data_type().clone(), true)])
    }

    fn here(&self) -> Result<Arc<dyn PhysicalExpr>> {
        let mut here = self.here.lock();
        if let Some(here) = &*here {
            return Ok(Arc::clone(here));
        }
        let (column, values) = (Arc::new(Column::new("value", 0)), Arc::clone(&self.values));
        let list = InListExpr::try_new_from_array(column, values, self.negated, &self.schema())?;
        Ok(Arc::clone(here.insert(Arc::new(list))))
    }
}

impl PartialEq for InValues {
    fn eq(&self, other: &InValues) -> bool {
        Arc::ptr_eq(&self.values, &other.values) && self.negated == other.negated
    }
}

impl Eq for InValues {}

impl std::hash::Hash for InValues {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.values.len(), self.negated).hash(state);
    }
}

impl ScalarUDFImpl for InValues {
    fn name(&self) -> &str {
        if self.negated { "not_in_values" } else { "in_values" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let operand = args.args.first().ok_or_else(|| {
            external(Failure::new(ErrorCode::Internal, "nothing is compared with the values of a subquery"))
        })?;
        let column = operand.to_array(args.number_rows)?;
        let batch = RecordBatch::try_new(Arc::new(self.schema()), vec![column])?;
        self.here()?.evaluate(&batch)
    }
}
