//! Aggregates over the items of lists: rows are grouped by their whole lists first ([`super::grouped_first`]).
//!
//! `SELECT t, count(*), avg(ms) FROM (SELECT unnest(tags) AS t, ms FROM requests) GROUP BY t` makes a row of each tag of a
//! request. Requests that have the same tags are one group, which becomes as many rows as it has tags.
//!
//! Aggregates of the items themselves need the weights of their rows where they count, and no weights where they are
//! least and greatest or distinct values; sums of items stay as they were.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, UnnestOptions};
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr as SqlExpr, LogicalPlan, LogicalPlanBuilder, Unnest, lit};

use super::functions::Unweighted;
use super::grouped_first::{Made, Over, Side, place_of};

/// The rows below, and the items of their lists.
struct Lists<'a> {
    side: Side<'a>,
    /// Columns of items, and what stands for them when groups are unnested.
    items: HashMap<Column, SqlExpr>,
}

/// The same over groups of rows with the same lists; `None` when that cannot be, or does not pay.
pub(super) fn group_first(unnest: &Unnest, over: &Over<'_>) -> Result<Option<LogicalPlan>> {
    let lists = &unnest.list_type_columns;
    if !unnest.struct_type_columns.is_empty() || lists.iter().any(|(_, list)| list.depth != 1) {
        return Ok(None);
    }
    let mut below = unnest.input.schema().columns();
    let list_columns: Vec<Column> = lists.iter().map(|(place, _)| below[*place].clone()).collect();
    below.retain(|column| !list_columns.contains(column));
    let mut side = Side::new(&unnest.input, below, &unnest.schema);
    let keys: Vec<SqlExpr> =
        list_columns.into_iter().map(|column| side.key(SqlExpr::Column(column))).collect();
    let named = (0..lists.len()).map(|place| Column::from_name(format!("u{place}")));
    let named: Vec<Column> = named.collect();
    let items = lists.iter().zip(&named);
    let items =
        items.map(|((_, list), name)| (list.output_column.clone(), SqlExpr::Column(name.clone()))).collect();
    let mut lists = Lists { side, items };
    let made = over.aggregates.iter().zip(over.types()).map(|(expr, data_type)| lists.add(expr, data_type));
    let Some(made) = made.collect::<Result<Option<Vec<_>>>>()? else { return Ok(None) };
    let groups = lists.over_all(over.groups)?;
    let filters = lists.over_all(over.filters)?;
    let Some(grouped) = lists.side.grouped()? else { return Ok(None) };
    let columns = grouped.schema().columns().into_iter().map(SqlExpr::Column);
    let again = keys.into_iter().zip(&named).map(|(key, name)| key.alias(&name.name));
    let grouped = LogicalPlanBuilder::from(grouped).project(columns.chain(again))?.build()?;
    let options = UnnestOptions { recursions: vec![], ..unnest.options.clone() };
    let rows = LogicalPlan::Unnest(Unnest::try_new(Arc::new(grouped), named, options)?);
    over.added_up(rows, filters, groups, (&lists.side.sums, &made)).map(Some)
}

impl Lists<'_> {
    fn over_groups(&mut self, expr: &SqlExpr) -> Result<SqlExpr> {
        let replaced = self.side.over_groups(expr)?.transform_up(|expr| {
            Ok(match &expr {
                SqlExpr::Column(column) => match self.items.get(column) {
                    Some(item) => Transformed::yes(item.clone()),
                    None => Transformed::no(expr),
                },
                _ => Transformed::no(expr),
            })
        })?;
        Ok(replaced.data)
    }

    fn over_all(&mut self, exprs: &[SqlExpr]) -> Result<Vec<SqlExpr>> {
        exprs.iter().map(|expr| self.over_groups(expr)).collect()
    }

    /// Works an aggregate out; `None` when it cannot be.
    fn add(&mut self, expr: &SqlExpr, data_type: &DataType) -> Result<Option<Made>> {
        let SqlExpr::AggregateFunction(mut call) = expr.clone().unalias() else { return Ok(None) };
        if self.side.is_all_of(expr) {
            return Ok(self.side.add(call, data_type, None));
        }
        let function = call.func.inner().downcast_ref::<Unweighted>();
        let function = Arc::clone(function.map_or(&call.func, Unweighted::inner));
        let params = &mut call.params;
        let of_items = !params.args.iter().all(|value| self.side.is_all_of(value));
        match (function.name(), params.distinct) {
            ("min" | "max" | "bool_and" | "bool_or" | "approx_distinct", _) | ("count", true)
                if of_items && params.order_by.is_empty() && params.null_treatment.is_none() =>
            {
                params.args = self.over_all(&params.args)?;
                let filter = params.filter.as_deref().map(|filter| self.over_groups(filter)).transpose()?;
                params.filter = filter.map(Box::new);
                let of_items = SqlExpr::AggregateFunction(AggregateFunction { func: function, ..call });
                Ok(Some(Made::Of(place_of(&mut self.side.sums, of_items))))
            }
            (name, _) => {
                let mut conditions: Vec<SqlExpr> =
                    params.filter.take().map(|filter| *filter).into_iter().collect();
                match (name, params.args.as_slice()) {
                    ("count", [value]) if of_items => {
                        conditions.push(value.clone().is_not_null());
                        params.args = vec![lit(1i64)];
                    }
                    _ if of_items => return Ok(None),
                    _ => {}
                }
                let filter = conjunction(self.over_all(&conditions)?);
                Ok(self.side.add(call, data_type, filter.as_ref()))
            }
        }
    }
}
