//! The optimizer rule that everything is about: what the leaves can do, they do.
//!
//! * An Aggregate over a table becomes a scan of [`Pushed`] groups: keys and finished states are its columns.
//! * A Sort with a limit over a table becomes a scan of [`Pushed`] rows.
//! * A Sort with a limit over such groups stays, and tells the groups which of them it reads.
//!
//! It runs once filters have been pushed down and simplified, and before other rules take aggregates apart. What
//! it cannot push it leaves alone; the rest of DataFusion then works on pulled rows.
//!
//! Invariant: the replacement has the names, qualifiers and types of what it replaces.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchemaRef, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::logical_expr::logical_plan::Aggregate as SqlAggregate;
use datafusion::logical_expr::{
    Expr as SqlExpr, ExprSchemable, LogicalPlan, Projection, Sort, TableScanBuilder,
};
use datafusion::optimizer::optimizer::ApplyOrder;
use gannet_query::{Expr, Key, Merger, OrderBy, Output, OutputColumn};

use super::chain::Chain;
use super::exec::{GroupColumn, Shape};
use super::rule::Rule;
use super::states::StateList;
use super::tables::{FirstGroups, GannetTable, Pushed};
use super::translate::translate;

/// Rows that an ordered limit may ask each leaf for; beyond it the rows are pulled under the budget and sorted here.
const PUSHED_LIMIT_MAX: usize = 1_000_000;

/// See the module.
pub(super) const PUSH_TO_LEAVES: Rule = Rule {
    name: "push_to_leaves",
    order: ApplyOrder::BottomUp,
    replace: |plan| match plan {
        LogicalPlan::Aggregate(aggregate) => push_aggregate(aggregate),
        LogicalPlan::Sort(sort) => match push_sort(sort)? {
            Some(replacement) => Ok(Some(replacement)),
            None => push_first_groups(sort),
        },
        _ => Ok(None),
    },
};

fn push_aggregate(aggregate: &SqlAggregate) -> Result<Option<LogicalPlan>> {
    if aggregate.group_expr.iter().any(|expr| matches!(expr, SqlExpr::GroupingSet(_))) {
        return Ok(None);
    }
    let exprs = aggregate.group_expr.iter().chain(&aggregate.aggr_expr).cloned().collect();
    let Some(chain) = Chain::follow(&aggregate.input, exprs)? else { return Ok(None) };
    let Some(table) = chain.table() else { return Ok(None) };
    let Some(filters) = translate_all(&chain.filters) else { return Ok(None) };
    let key_count = aggregate.group_expr.len();
    let fields = aggregate.schema.fields();

    let mut keys = Vec::with_capacity(key_count);
    let mut columns = Vec::with_capacity(fields.len());
    for (index, (expr, field)) in chain.exprs.iter().zip(fields).take(key_count).enumerate() {
        let Some(expr) = translate(expr) else { return Ok(None) };
        keys.push(Key { expr, data_type: field.data_type().clone() });
        columns.push(GroupColumn::Key(index));
    }
    let mut states = StateList::new(table);
    for expr in &chain.exprs[key_count..] {
        let Some(column) = states.add(expr)? else { return Ok(None) };
        columns.push(column);
    }
    let output = Output::Groups { keys, aggregates: states.into_aggregates() };
    let scan_schema = numbered_fields(&aggregate.schema);
    let plan = table.plan(filters, output);
    if Merger::new(&plan, u64::MAX).is_err() {
        // Keys of a type that partials cannot be merged by.
        return Ok(None);
    }
    let pushed = Pushed { plan, shape: Shape::Groups(columns), schema: Arc::new(scan_schema), first: None };
    let name = TableReference::bare(table.name.clone());
    let columns = (0..fields.len()).map(|index| column_of(&name, format!("c{index}"))).collect();
    replace_by(pushed, name.clone(), columns, &aggregate.schema).map(Some)
}

/// The fields of a schema under names that cannot clash.
fn numbered_fields(schema: &DFSchemaRef) -> Schema {
    let numbered =
        |(index, field): (usize, &Arc<Field>)| field.as_ref().clone().with_name(format!("c{index}"));
    Schema::new(schema.fields().iter().enumerate().map(numbered).collect::<Vec<_>>())
}

fn column_of(relation: &TableReference, name: impl Into<String>) -> SqlExpr {
    SqlExpr::Column(Column::new(Some(relation.clone()), name))
}

fn translate_all(exprs: &[SqlExpr]) -> Option<Vec<Expr>> {
    exprs.iter().map(translate).collect()
}

/// A projection over a scan of `pushed`, with exactly the schema of what it replaces.
fn replace_by(
    pushed: Pushed,
    name: TableReference,
    exprs: Vec<SqlExpr>,
    schema: &DFSchemaRef,
) -> Result<LogicalPlan> {
    let scan = TableScanBuilder::new(name, provider_as_source(Arc::new(pushed))).build()?;
    let named = exprs
        .into_iter()
        .zip(schema.iter())
        .map(|(expr, (qualifier, field))| expr.alias_qualified(qualifier.cloned(), field.name()))
        .collect();
    Ok(LogicalPlan::Projection(Projection::try_new(named, Arc::new(LogicalPlan::TableScan(scan)))?))
}

fn push_sort(sort: &Sort) -> Result<Option<LogicalPlan>> {
    let Some(limit) = sort.fetch.filter(|fetch| *fetch <= PUSHED_LIMIT_MAX) else { return Ok(None) };
    let shown: Vec<SqlExpr> = sort.input.schema().columns().into_iter().map(SqlExpr::Column).collect();
    let shown_count = shown.len();
    let exprs = shown.into_iter().chain(sort.expr.iter().map(|term| term.expr.clone())).collect();
    let Some(chain) = Chain::follow(&sort.input, exprs)? else { return Ok(None) };
    let Some(table) = chain.table() else { return Ok(None) };
    let Some(filters) = translate_all(&chain.filters) else { return Ok(None) };
    let (shown, terms) = chain.exprs.split_at(shown_count);
    if terms.iter().chain(shown).any(SqlExpr::is_volatile) {
        return Ok(None);
    }

    let mut columns = shown_columns(table, shown);
    let mut order_by = Vec::with_capacity(terms.len());
    for (expr, term) in terms.iter().zip(&sort.expr) {
        let Some(expr) = translate(expr) else { return Ok(None) };
        let column = match columns.iter().position(|column| is_same_column(&column.expr, &expr)) {
            Some(column) => column,
            None => {
                let data_type = term.expr.get_type(sort.input.schema())?;
                columns.push(OutputColumn { name: format!("order_{}", columns.len()), expr, data_type });
                columns.len() - 1
            }
        };
        order_by.push(OrderBy { column, descending: !term.asc, nulls_first: term.nulls_first });
    }
    let shape = Shape::Rows((0..columns.len()).collect());
    let schema = Schema::new(
        columns
            .iter()
            .map(|column| match table.schema.field_with_name(&column.name) {
                Ok(field) => field.clone(),
                Err(_) => Field::new(&column.name, column.data_type.clone(), true),
            })
            .collect::<Vec<_>>(),
    );
    let plan = table.plan(filters, Output::Rows { columns, order_by, limit: Some(limit as u64) });
    let pushed = Pushed { plan, shape, schema: Arc::new(schema), first: None };
    replace_by(pushed, chain.scan.table_name.clone(), shown.to_vec(), sort.input.schema()).map(Some)
}

/// The same sort over groups that know which of them it reads: those that come first by as many terms as are keys or
/// aggregates themselves. Not where a filter (HAVING) drops groups in between.
fn push_first_groups(sort: &Sort) -> Result<Option<LogicalPlan>> {
    let Some(limit) = sort.fetch.filter(|fetch| *fetch <= PUSHED_LIMIT_MAX) else { return Ok(None) };
    let exprs = sort.expr.iter().map(|term| term.expr.clone()).collect();
    let Some(chain) = Chain::follow_to_groups(&sort.input, exprs)? else { return Ok(None) };
    let Some(groups) = chain.groups().filter(|groups| groups.first.is_none()) else { return Ok(None) };
    if !chain.filters.is_empty() {
        return Ok(None);
    }
    let column = |expr: &SqlExpr| match expr {
        SqlExpr::Column(column) => groups.schema.index_of(&column.name).ok(),
        _ => None,
    };
    let order_by: Vec<OrderBy> = chain
        .exprs
        .iter()
        .zip(&sort.expr)
        .map_while(|(expr, term)| {
            let column = column(expr)?;
            Some(OrderBy { column, descending: !term.asc, nulls_first: term.nulls_first })
        })
        .collect();
    if order_by.is_empty() {
        return Ok(None);
    }
    let complete = order_by.len() == sort.expr.len();
    let first = FirstGroups { order_by, complete, limit: limit as u64 };
    let source = provider_as_source(Arc::new(Pushed { first: Some(first), ..groups.clone() }));
    let replaced = LogicalPlan::clone(&sort.input).transform_up(|node| {
        Ok(match node {
            LogicalPlan::TableScan(mut scan) => {
                scan.source = Arc::clone(&source);
                Transformed::yes(LogicalPlan::TableScan(scan))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(Some(LogicalPlan::Sort(Sort { input: Arc::new(replaced.data), ..sort.clone() })))
}

/// The table's columns that the shown expressions read; expressions over them are computed here, for few rows.
fn shown_columns(table: &GannetTable, shown: &[SqlExpr]) -> Vec<OutputColumn> {
    let mut read: Vec<&Column> = shown.iter().flat_map(SqlExpr::column_refs).collect();
    read.sort_by_key(|column| table.schema.index_of(&column.name).ok());
    read.dedup_by_key(|column| &column.name);
    read.into_iter()
        .filter_map(|column| {
            let field = table.schema.field_with_name(&column.name).ok()?;
            let expr = Expr::column(field.name());
            Some(OutputColumn { name: field.name().clone(), expr, data_type: field.data_type().clone() })
        })
        .collect()
}

fn is_same_column(one: &Expr, other: &Expr) -> bool {
    matches!((one, other), (Expr::Column(one), Expr::Column(other)) if one == other)
}
