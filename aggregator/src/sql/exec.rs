//! The one physical operator of ours: it asks the leaves one plan and turns their partial into record batches.
//!
//! It has one partition and no children. Its line in EXPLAIN is the plan, so it shows what the leaves do. What the
//! leaves said about completeness is kept in the [`QueryContext`] that a run of it finds in its session's extensions.
//!
//! Of several fan-outs in one statement none waits for another: a join reads one side to its end before it looks at the
//! other, and a subquery comes before what it is a part of, so a late leaf would cost its time once for each. All
//! are [`Begun`] with the statement, and an operator takes up what was begun for it.

use std::sync::Arc;
use tokio::time::Instant;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
};
use futures::future::Either;
use gannet_query::{
    AggregateFunction, Body, Completeness, Finish, Groups, Output, Plan, RowSet, ScanStats, SoFar, Top,
};
use parking_lot::Mutex;

use super::errors::external;
use super::refine::QueryWatch;
use crate::error::{ErrorCode, Failure};
use crate::fan_out::Answerer;

/// Rows of a batch handed on to the operators above.
const BATCH_ROWS: usize = 8192;

/// Samples of up to this many rows are shown while they are still being found.
const SMALL_ROWS_MAX: u64 = 10_000;

/// What every fan-out of one query shares.
#[derive(Debug)]
pub(super) struct QueryContext {
    /// Who answers plans.
    pub(super) answerer: Arc<dyn Answerer>,
    /// By when.
    pub(super) deadline: Instant,
    /// How many bytes of raw rows one fan-out may pull.
    pub(super) pulled_bytes_max: usize,
    /// Who wants to hear of them before they are over.
    pub(super) watch: Option<QueryWatch>,
    /// What the fan-outs so far reported.
    pub(super) reports: Mutex<Vec<(Completeness, ScanStats)>>,
}

/// What one fan-out brought.
#[derive(Debug)]
struct Brought {
    batches: Vec<RecordBatch>,
    report: (Completeness, ScanStats),
}

/// Fan-outs of one run that nobody has read yet. They end when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Begun(Mutex<Vec<(usize, SpawnedTask<Result<Brought>>)>>);

impl Begun {
    /// Begins the fan-outs of a plan; an only one has nobody to wait for and runs where it is read.
    pub(super) fn all(plan: &Arc<dyn ExecutionPlan>, context: &Arc<QueryContext>) -> Begun {
        let (mut open, mut fan_outs) = (vec![plan], Vec::new());
        while let Some(node) = open.pop() {
            fan_outs.extend(node.downcast_ref::<FanOutExec>());
            open.extend(node.children().into_iter().rev());
        }
        if fan_outs.len() < 2 {
            return Begun::default();
        }
        let begin = |one: &FanOutExec| (one.place(), SpawnedTask::spawn(one.ask(Arc::clone(context))));
        Begun(Mutex::new(fan_outs.into_iter().map(begin).collect()))
    }

    fn take(&self, one: &FanOutExec) -> Option<SpawnedTask<Result<Brought>>> {
        let mut begun = self.0.lock();
        let found = begun.iter().position(|(place, _)| *place == one.place())?;
        Some(begun.swap_remove(found).1)
    }
}

/// How the body of a partial becomes the columns of the operator.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// Groups: each output column is a key or a finished state.
    Groups(Vec<GroupColumn>),
    /// Rows: each output column is a column of the rows, by index.
    Rows(Vec<usize>),
}

/// One output column over groups.
#[derive(Debug, Clone)]
pub(super) enum GroupColumn {
    /// A key, by index.
    Key(usize),
    /// A state, by index, and what to make of it. The type is the argument's.
    State(usize, Finish, DataType),
}

/// See the module.
#[derive(Debug)]
pub(super) struct FanOutExec {
    plan: Plan,
    shape: Shape,
    top: Option<Top>,
    properties: Arc<PlanProperties>,
}

impl FanOutExec {
    /// An operator whose batches have this schema.
    pub(super) fn new(plan: Plan, shape: Shape, schema: SchemaRef) -> FanOutExec {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        ));
        FanOutExec { plan, shape, top: None, properties }
    }

    /// What comes back can be merged and finished again and again: groups, or few rows.
    pub(super) fn is_small(&self) -> bool {
        match &self.plan.output {
            Output::Groups { .. } => true,
            Output::Rows { limit, .. } => limit.is_some_and(|limit| limit <= SMALL_ROWS_MAX),
        }
    }

    /// Of whose groups only these are read.
    pub(super) fn with_top(self, top: Option<Top>) -> FanOutExec {
        FanOutExec { top, ..self }
    }

    /// Where it is in memory, which tells it from others of its plan.
    fn place(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Asks the leaves.
    fn ask(&self, context: Arc<QueryContext>) -> impl Future<Output = Result<Brought>> + Send + use<> {
        let (plan, shape, top, schema) =
            (self.plan.clone(), self.shape.clone(), self.top.clone(), self.schema());
        async move {
            let watch = context.watch.as_ref().map(QueryWatch::of_next_fan_out);
            let answer =
                context.answerer.answer_watched(&plan, top.as_ref(), context.deadline, watch.as_ref());
            let partial = answer.await.map_err(external)?;
            if let Some(watch) = watch.filter(|watch| !watch.with_body) {
                let (completeness, stats) = (partial.completeness.clone(), partial.stats);
                (watch.tell)(SoFar { body: None, completeness, stats, left_out: partial.left_out });
            }
            let batches = match (partial.body, shape) {
                (Body::Groups(groups), Shape::Groups(columns)) => finish_groups(&groups, &columns, &schema)?,
                (Body::Rows(rows), Shape::Rows(columns)) => {
                    check_budget(&rows, &plan, context.pulled_bytes_max).map_err(external)?;
                    pick_columns(&rows, &columns, &schema)?
                }
                _ => return Err(external(mismatch("groups and rows were mixed up"))),
            };
            Ok(Brought { batches, report: (partial.completeness, partial.stats) })
        }
    }
}

impl DisplayAs for FanOutExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FanOutExec: {}", self.plan)?;
        if let Some(top) = &self.top {
            write!(f, ", first={} groups", top.limit)?;
        }
        match &self.plan.output {
            Output::Groups { aggregates, .. }
                if aggregates.iter().any(|one| one.function == AggregateFunction::Quantiles) =>
            {
                f.write_str(", percentiles within 1 %")
            }
            _ => Ok(()),
        }
    }
}

impl ExecutionPlan for FanOutExec {
    fn name(&self) -> &'static str {
        "FanOutExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    #[allow(deprecated, reason = "the trait has no other required method for it yet")]
    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let context = task.session_config().get_extension::<QueryContext>();
        let context = context.ok_or_else(|| external(mismatch("it runs outside of a query")))?;
        let begun = task.session_config().get_extension::<Begun>().and_then(|begun| begun.take(self));
        let brought = match begun {
            Some(begun) => Either::Left(async move {
                let ended = |_| external(Failure::new(ErrorCode::Internal, "asking the leaves failed"));
                begun.join().await.map_err(ended)?
            }),
            None => Either::Right(self.ask(Arc::clone(&context))),
        };
        let read = async move {
            let Brought { batches, report } = brought.await?;
            context.reports.lock().push(report);
            Ok::<_, DataFusionError>(futures::stream::iter(batches.into_iter().map(Ok)))
        };
        let stream = futures::TryStreamExt::try_flatten(futures::stream::once(read));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}

fn mismatch(what: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::Internal, format!("the merged partial does not fit the plan: {what}"))
}

/// Keys and finished states as batches of the operator's schema.
fn finish_groups(groups: &Groups, columns: &[GroupColumn], schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.len());
    for (column, field) in columns.iter().zip(schema.fields()) {
        let array = match column {
            GroupColumn::Key(index) => {
                Arc::clone(groups.keys.get(*index).ok_or_else(|| external(mismatch("a key is missing")))?)
            }
            GroupColumn::State(index, finish, data_type) => {
                let states =
                    groups.states.get(*index).ok_or_else(|| external(mismatch("a state is missing")))?;
                states.finish(finish, data_type).map_err(|error| external(finish_failure(error)))?
            }
        };
        arrays.push(fit(&array, field.data_type())?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(groups.group_count));
    let batch = RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)
        .map_err(|error| external(mismatch(error)))?;
    Ok(slices(&batch))
}

fn finish_failure(error: gannet_query::QueryError) -> Failure {
    match error {
        gannet_query::QueryError::Overflow => Failure::new(ErrorCode::BadRequest, error.to_string())
            .hint("Cast the argument to double: sum(CAST(x AS DOUBLE))."),
        other => Failure::new(ErrorCode::Internal, other.to_string()),
    }
}

/// The array in the type the planner was promised.
fn fit(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if array.data_type() == data_type {
        return Ok(Arc::clone(array));
    }
    arrow::compute::cast(array, data_type).map_err(|error| external(mismatch(error)))
}

fn slices(batch: &RecordBatch) -> Vec<RecordBatch> {
    (0..batch.num_rows())
        .step_by(BATCH_ROWS)
        .map(|start| batch.slice(start, BATCH_ROWS.min(batch.num_rows() - start)))
        .collect()
}

/// Refuses pulled rows beyond the budget. Rows that leaves cut to a limit are within it by nature.
fn check_budget(rows: &RowSet, plan: &Plan, pulled_bytes_max: usize) -> std::result::Result<(), Failure> {
    let bytes: usize = rows.batches.iter().map(gannet_query::value::rows_bytes).sum();
    if bytes <= pulled_bytes_max {
        return Ok(());
    }
    let message = format!(
        "table `{}` would send {bytes} bytes of rows for this query, the limit is {pulled_bytes_max}",
        plan.table
    );
    Err(Failure::new(ErrorCode::TooLarge, message)
        .detail("The query needs rows rather than groups of the table, because a part of it cannot run on the leaves.")
        .hint("Narrow the time range, filter more, add a LIMIT, or aggregate in a subquery first."))
}

/// The wanted columns of the rows, in the operator's schema.
fn pick_columns(rows: &RowSet, columns: &[usize], schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::with_capacity(rows.batches.len());
    for batch in &rows.batches {
        let mut arrays = Vec::with_capacity(columns.len());
        for (index, field) in columns.iter().zip(schema.fields()) {
            let array =
                batch.columns().get(*index).ok_or_else(|| external(mismatch("a column is missing")))?;
            arrays.push(fit(array, field.data_type())?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)
            .map_err(|error| external(mismatch(error)))?;
        batches.extend(slices(&batch));
    }
    Ok(batches)
}
