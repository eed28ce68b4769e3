//! The tables that DataFusion sees: those of the catalogue, and those the push-down rule puts in their place.
//!
//! * [`GannetTable`] is a table of the catalogue. Scanning it pulls rows: the needed columns, filters evaluated on
//!   the leaves.
//! * [`Pushed`] is what the rule made of a part of the query: groups, or rows in an order up to a limit.
//!
//! None of them belongs to one query: plans over them are kept for the next one.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, Session, TableProvider};
use datafusion::datasource::source_as_provider;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr as SqlExpr, TableProviderFilterPushDown, TableScan, TableType};
use datafusion::physical_plan::ExecutionPlan;
use gannet_query::{
    Aggregate, AggregateFunction, ColumnType, Expr, OrderBy, Output, OutputColumn, Plan, SAMPLE_RATE_COLUMN,
    TIME_COLUMN, TimeRange, Top, TopTerm, TopValue, WeightKind,
};

use super::exec::{FanOutExec, GroupColumn, Shape};
use super::translate::{split_time_range, translate};
use crate::catalogue::{Catalogue, CatalogueTable};

/// The only catalog and the only schema with tables of users.
pub(super) const CATALOG: &str = "gannet";
pub(super) const SCHEMA: &str = "public";

/// Fewer rows to a group are not worth grouping them before they are joined.
const ROWS_A_GROUP: u64 = 8;

/// A table of the catalogue.
#[derive(Debug)]
pub(super) struct GannetTable {
    /// Its name.
    pub(super) name: String,
    /// Its columns.
    pub(super) schema: SchemaRef,
    types: Vec<ColumnType>,
    /// How its rows are weighted.
    pub(super) weight: WeightKind,
    /// About how many rows it had when it was last heard of, and how many values each column had.
    rows: u64,
    values: Vec<u64>,
}

impl GannetTable {
    fn new(table: &CatalogueTable) -> GannetTable {
        let fields: Vec<Field> = table
            .columns
            .iter()
            .map(|column| Field::new(&column.name, column.column_type.arrow(), column.name != TIME_COLUMN))
            .collect();
        let weight = match table.column(SAMPLE_RATE_COLUMN).map(|column| column.column_type) {
            Some(ColumnType::Int) => WeightKind::Int,
            Some(ColumnType::Float) => WeightKind::Float,
            // A `sample_rate` that is no number weighs nothing: it is an ordinary column.
            _ => WeightKind::One,
        };
        GannetTable {
            name: table.name.clone(),
            schema: Arc::new(Schema::new(fields)),
            types: table.columns.iter().map(|column| column.column_type).collect(),
            weight,
            rows: table.rows,
            values: table.columns.iter().map(|column| column.distinct_estimate).collect(),
        }
    }

    /// Whether its rows are many times as many as the combinations of the values of these columns.
    pub(super) fn repeats(&self, columns: &[&str]) -> bool {
        let mut groups = 1u64;
        for column in columns {
            let Ok(index) = self.schema.index_of(column) else { return false };
            // NULL is one more.
            groups = groups.saturating_mul(self.values[index].saturating_add(1));
        }
        groups <= self.rows / ROWS_A_GROUP
    }

    /// The table behind a scan, when it is one of the catalogue.
    pub(super) fn of_scan(scan: &TableScan) -> Option<Arc<dyn TableProvider>> {
        source_as_provider(&scan.source).ok().filter(|provider| provider.is::<GannetTable>())
    }

    /// A plan over this table; its columns are those its expressions read.
    pub(super) fn plan(&self, filters: Vec<Expr>, output: Output) -> Plan {
        let (time_range, filter) = split_time_range(filters);
        let fields = self.schema.fields().iter();
        let columns = fields.zip(&self.types).map(|(field, kind)| (field.name().clone(), *kind)).collect();
        let mut plan =
            Plan { table: self.name.clone(), columns, time_range, filter, weight: self.weight, output };
        keep_read_columns(&mut plan);
        plan
    }

    fn output_column(&self, index: usize) -> OutputColumn {
        let field = self.schema.field(index);
        OutputColumn {
            name: field.name().clone(),
            expr: Expr::column(field.name()),
            data_type: field.data_type().clone(),
        }
    }
}

/// Drops the columns that nothing in the plan reads.
fn keep_read_columns(plan: &mut Plan) {
    let mut read: BTreeSet<&str> = plan.filter.iter().flat_map(Expr::columns).collect();
    match &plan.output {
        Output::Groups { keys, aggregates } => {
            read.extend(keys.iter().flat_map(|key| key.expr.columns()));
            read.extend(aggregates.iter().flat_map(aggregate_columns));
        }
        Output::Rows { columns, .. } => read.extend(columns.iter().flat_map(|column| column.expr.columns())),
    }
    if plan.time_range != TimeRange::ALL {
        read.insert(TIME_COLUMN);
    }
    if plan.weight != WeightKind::One {
        read.insert(SAMPLE_RATE_COLUMN);
    }
    plan.columns.retain(|(name, _)| read.contains(name.as_str()));
}

fn aggregate_columns(aggregate: &Aggregate) -> Vec<&str> {
    let mut columns: Vec<&str> = aggregate.filter.iter().flat_map(Expr::columns).collect();
    columns.extend(aggregate.argument.iter().flat_map(|(argument, _)| argument.columns()));
    if matches!(aggregate.function, AggregateFunction::First { .. } | AggregateFunction::Last { .. }) {
        columns.push(TIME_COLUMN);
    }
    columns
}

fn projected(schema: &SchemaRef, projection: Option<&Vec<usize>>) -> Result<SchemaRef> {
    match projection {
        Some(indices) => Ok(Arc::new(schema.project(indices)?)),
        None => Ok(Arc::clone(schema)),
    }
}

#[async_trait]
impl TableProvider for GannetTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&SqlExpr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let exact = |filter: &&SqlExpr| match translate(filter) {
            Some(_) => TableProviderFilterPushDown::Exact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(exact).collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[SqlExpr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let filters = filters
            .iter()
            .map(|filter| {
                translate(filter).ok_or_else(|| {
                    DataFusionError::Internal(format!("filter {filter} was pushed down but cannot be"))
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let mut indices = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = projected(&self.schema, projection)?;
        let shape = Shape::Rows((0..indices.len()).collect());
        if indices.is_empty() {
            // Rows without columns have no form on the wire: `time` is there always, and is dropped on arrival.
            indices.push(0);
        }
        let columns = indices.iter().map(|index| self.output_column(*index)).collect();
        let limit = limit.map(|limit| limit as u64);
        let plan = self.plan(filters, Output::Rows { columns, order_by: vec![], limit });
        Ok(Arc::new(FanOutExec::new(plan, shape, schema)))
    }
}

/// The order in which the rest of a query reads groups, and how many of them.
#[derive(Debug, Clone)]
pub(super) struct FirstGroups {
    /// Terms over the columns of [`Pushed::schema`].
    pub(super) order_by: Vec<OrderBy>,
    /// Whether these are all terms of the order.
    pub(super) complete: bool,
    /// How many groups are read.
    pub(super) limit: u64,
}

/// A part of a query that runs on the leaves.
#[derive(Debug, Clone)]
pub(super) struct Pushed {
    /// What the leaves are asked when every column is needed.
    pub(super) plan: Plan,
    /// How their partial becomes the columns of `schema`.
    pub(super) shape: Shape,
    /// What the rest of the query sees.
    pub(super) schema: SchemaRef,
    /// The groups that the rest of the query needs; all when absent.
    pub(super) first: Option<FirstGroups>,
}

impl Pushed {
    /// The name of the table when a scan of ours shows its raw rows and they are weighted.
    pub(super) fn weighted_rows_of_scan(scan: &TableScan) -> Option<String> {
        let provider = source_as_provider(&scan.source).ok()?;
        if let Some(table) = provider.downcast_ref::<GannetTable>() {
            return (table.weight != WeightKind::One).then(|| table.name.clone());
        }
        let pushed = provider.downcast_ref::<Pushed>()?;
        let rows = matches!(pushed.plan.output, Output::Rows { .. });
        (rows && pushed.plan.weight != WeightKind::One).then(|| pushed.plan.table.clone())
    }

    /// The provider of a scan when it is one of groups.
    pub(super) fn groups_of_scan(scan: &TableScan) -> Option<Arc<dyn TableProvider>> {
        let is_groups = |pushed: &Pushed| matches!(pushed.shape, Shape::Groups(_));
        source_as_provider(&scan.source)
            .ok()
            .filter(|provider| provider.downcast_ref::<Pushed>().is_some_and(is_groups))
    }

    /// The wanted groups in the words of a narrowed plan, whose shape shows the columns of these indices.
    fn top(&self, indices: &[usize], shape: &Shape, limit: Option<usize>) -> Option<Top> {
        let Shape::Groups(columns) = shape else { return None };
        let Some(first) = &self.first else {
            return limit.map(|limit| Top { terms: vec![], complete: true, limit: limit as u64 });
        };
        let term = |order: &OrderBy| {
            let place = indices.iter().position(|index| *index == order.column)?;
            let value = match columns.get(place)? {
                GroupColumn::Key(key) => TopValue::Key(*key),
                GroupColumn::State(state, finish, _) => TopValue::State(*state, finish.clone()),
            };
            Some(TopTerm { value, descending: order.descending, nulls_first: order.nulls_first })
        };
        let terms = first.order_by.iter().map(term).collect::<Option<Vec<_>>>()?;
        Some(Top { terms, complete: first.complete, limit: first.limit })
    }

    /// The plan and shape for some of the columns: states that nobody reads are not asked for.
    fn narrowed(&self, indices: &[usize]) -> (Plan, Shape) {
        let mut plan = self.plan.clone();
        match (&self.shape, &mut plan.output) {
            (Shape::Groups(columns), Output::Groups { keys, aggregates }) => {
                // Without keys one state stays in any case: it says that there is one group.
                let mut kept: Vec<usize> = if keys.is_empty() { vec![0] } else { Vec::new() };
                let shape = indices
                    .iter()
                    .map(|index| match &columns[*index] {
                        GroupColumn::Key(key) => GroupColumn::Key(*key),
                        GroupColumn::State(state, finish, data_type) => {
                            let place = kept.iter().position(|one| one == state).unwrap_or_else(|| {
                                kept.push(*state);
                                kept.len() - 1
                            });
                            GroupColumn::State(place, finish.clone(), data_type.clone())
                        }
                    })
                    .collect();
                *aggregates = kept.iter().filter_map(|state| aggregates.get(*state).cloned()).collect();
                keep_read_columns(&mut plan);
                (plan, Shape::Groups(shape))
            }
            (Shape::Rows(columns), Output::Rows { .. }) => {
                // The columns of the order must travel in any case, so all of them do: there are few rows.
                let shape = Shape::Rows(indices.iter().map(|index| columns[*index]).collect());
                (plan, shape)
            }
            _ => (plan, self.shape.clone()),
        }
    }
}

#[async_trait]
impl TableProvider for Pushed {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[SqlExpr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let indices = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let (plan, shape) = self.narrowed(&indices);
        let top = self.top(&indices, &shape, limit);
        let schema = projected(&self.schema, projection)?;
        Ok(Arc::new(FanOutExec::new(plan, shape, schema).with_top(top)))
    }
}

/// The catalogue as DataFusion asks for it.
#[derive(Debug)]
pub(super) struct QueryCatalog {
    pub(super) catalogue: Arc<Catalogue>,
}

impl QueryCatalog {
    fn again(&self) -> QueryCatalog {
        QueryCatalog { catalogue: Arc::clone(&self.catalogue) }
    }
}

impl CatalogProviderList for QueryCatalog {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(self.again()) as Arc<dyn CatalogProvider>)
    }
}

impl CatalogProvider for QueryCatalog {
    fn schema_names(&self) -> Vec<String> {
        vec![SCHEMA.to_owned()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        (name == SCHEMA).then(|| Arc::new(self.again()) as Arc<dyn SchemaProvider>)
    }
}

#[async_trait]
impl SchemaProvider for QueryCatalog {
    fn table_names(&self) -> Vec<String> {
        self.catalogue.tables.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let table = self.catalogue.tables.get(name);
        Ok(table.map(|table| Arc::new(GannetTable::new(table)) as Arc<dyn TableProvider>))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.catalogue.tables.contains_key(name)
    }
}
