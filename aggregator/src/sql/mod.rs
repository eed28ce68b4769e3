//! SQL to plans, and what comes back to answers.
//!
//! A statement goes through these steps, each in its own module:
//!
//! 1. `limits`: text → syntax tree, bounded in every direction, of a kind that only reads.
//! 2. `names` and `short_forms`: names become those of the catalogue, short forms become plain functions.
//!    `subqueries` whose values rows are compared with are asked first, and their values take their places; so are
//!    `sides` of joins that are groups.
//! 3. DataFusion plans, checks types and simplifies; `joined` groups a side of a join before it is joined, `push`
//!    replaces what leaves can do by fan-outs.
//! 4. `weights` refuses what would be answered unweighted in silence.
//! 5. DataFusion runs the rest over what the fan-outs (`exec`) bring back.
//!
//! While the fan-outs run, `refine` makes partial answers of what they have so far.
//!
//! Steps 1 to 4 (`planner`) run on threads with big stacks (`stack`); what they made is kept for the same text (`plan_cache`), mostly
//! with the operators of step 5.
//!
//! Invariants: a statement never reads a file or a URL and never changes anything; the answer's completeness is that
//! of all its fan-outs together; percentiles come from a sketch with a relative error of at most 1 %; an aggregate
//! whose argument names `sample_rate` is weighted by hand and runs over stored rows.

mod chain;
mod completeness;
pub(crate) mod errors;
mod exec;
mod functions;
mod grouped_first;
mod joined;
mod lateral;
mod limits;
mod names;
mod plan_cache;
mod planner;
mod push;
mod refine;
mod rule;
mod scope;
mod session;
mod short_forms;
mod show;
mod sides;
mod stack;
mod states;
mod subqueries;
pub(crate) mod suggest;
mod tables;
#[cfg(test)]
mod tests;
mod translate;
mod unnested;
mod weights;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;
use gannet_query::{Completeness, Partial, ScanStats, SoFar};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::catalogue::Catalogue;
use crate::error::{ErrorCode, Failure};
use crate::fan_out::Answerer;
use crate::surroundings::Planning;
use exec::{Begun, QueryContext};
use plan_cache::Prepared;
use planner::{Asking, Planned, Planner};
use refine::{Given, QueryWatch};
use stack::BigStacks;
use subqueries::Known;

pub use refine::{SqlNews, SqlWatch};

/// What one query may use on the aggregator.
#[derive(Debug, Clone)]
pub struct SqlConfig {
    /// Bytes of raw rows that one fan-out may pull when a part of a query cannot run on the leaves.
    pub pulled_bytes_max: usize,
    /// Bytes that sorting, joining and grouping of answers may take, all queries together.
    pub memory_bytes_max: usize,
    /// Bytes of one answer.
    pub answer_bytes_max: usize,
    /// Threads that plan.
    pub planning_threads: usize,
    /// How long finishing an answer may go on after the deadline for the leaves.
    pub finish_grace: Duration,
}

impl Default for SqlConfig {
    fn default() -> SqlConfig {
        SqlConfig {
            pulled_bytes_max: 256 << 20,
            memory_bytes_max: 1 << 30,
            answer_bytes_max: 256 << 20,
            planning_threads: 2,
            finish_grace: Duration::from_secs(2),
        }
    }
}

/// What a user gets.
#[derive(Debug, Clone)]
pub struct SqlAnswer {
    /// Names and types of the columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// Of all fan-outs together; complete when there was none.
    pub completeness: Completeness,
    /// Of all fan-outs together.
    pub stats: ScanStats,
    /// How many answers of the leaves it was made of.
    pub fan_outs: usize,
}

/// Answers SQL. See the module.
#[derive(Debug)]
pub struct SqlEngine {
    config: SqlConfig,
    planner: Arc<Planner>,
    stacks: BigStacks,
}

impl SqlEngine {
    /// Builds the session once; queries are clones of it.
    ///
    /// # Errors
    /// When the planning threads cannot be started.
    pub fn new(config: SqlConfig) -> Result<SqlEngine, Failure> {
        SqlEngine::planning(config, Planning::default())
    }

    /// As [`SqlEngine::new`], with how planning is waited for.
    ///
    /// # Errors
    /// As [`SqlEngine::new`].
    pub fn planning(config: SqlConfig, planning: Planning) -> Result<SqlEngine, Failure> {
        let stacks = BigStacks::start(config.planning_threads, planning).map_err(|error| {
            Failure::new(ErrorCode::Internal, format!("cannot start planning threads: {error}"))
        })?;
        let base = session::session(config.memory_bytes_max).map_err(|error| errors::failure(&error))?;
        let planner = Arc::new(Planner::new(base, config.planning_threads.max(1)));
        Ok(SqlEngine { planner, config, stacks })
    }

    /// Answers one statement over the tables of a catalogue.
    ///
    /// # Errors
    /// Whatever is wrong with the statement, with its place in the text where that is known; and what the answerer
    /// failed with, unchanged.
    pub async fn run(
        &self,
        catalogue: Arc<Catalogue>,
        answerer: Arc<dyn Answerer>,
        sql: &str,
        deadline: Instant,
    ) -> Result<SqlAnswer, Failure> {
        self.run_watched(catalogue, answerer, sql, deadline, None).await
    }

    /// As [`SqlEngine::run`], with somebody who wants to hear of it before the answer is there.
    ///
    /// # Errors
    /// As [`SqlEngine::run`].
    pub async fn run_watched(
        &self,
        catalogue: Arc<Catalogue>,
        answerer: Arc<dyn Answerer>,
        sql: &str,
        deadline: Instant,
        watch: Option<&SqlWatch>,
    ) -> Result<SqlAnswer, Failure> {
        let (mut planned, mut before) = (self.plan(catalogue, sql.to_owned()).await?, Vec::new());
        let (plan, prepared) = loop {
            planned = match planned {
                Planned::Shown(batch) => {
                    let (schema, batches) = (batch.schema(), vec![batch]);
                    let (completeness, stats) = completeness::together(vec![]);
                    return Ok(SqlAnswer { schema, batches, completeness, stats, fan_outs: 0 });
                }
                Planned::Physical(plan, prepared) => break (plan, prepared),
                Planned::Asking(asking) => self.ask(*asking, &answerer, deadline, &mut before).await?,
            };
        };
        let Some(watch) = watch else { return self.execute(plan, answerer, deadline, None, before).await };
        let has_partial_answers = refine::has_partial_answers(&plan);
        let (query_watch, newest) = QueryWatch::new(watch.every, has_partial_answers, before.clone());
        tokio::select! {
            biased;
            answer = self.execute(plan, answerer, deadline, Some(query_watch), before) => answer,
            never = self.refine(&prepared, newest, deadline, watch) => match never {},
        }
    }

    /// Asks the subqueries that come before a statement, and goes on planning it with what they say; `before` has the
    /// reports of all fan-outs so far. They have half of the time that is left: a leaf that does not answer would leave
    /// none for the rest.
    async fn ask(
        &self,
        asking: Asking,
        answerer: &Arc<dyn Answerer>,
        deadline: Instant,
        before: &mut Vec<(Completeness, ScanStats)>,
    ) -> Result<Planned, Failure> {
        let now = Instant::now();
        let half = now + deadline.saturating_duration_since(now) / 2;
        let answers = asking.subqueries.iter().map(|(place, plan)| async move {
            let answerer = Arc::clone(answerer);
            let (batches, reports) = self.batches(Arc::clone(plan), answerer, half, None, vec![]).await?;
            Ok::<_, Failure>((subqueries::known(place, &batches)?, reports))
        });
        let mut known = Vec::with_capacity(asking.subqueries.len());
        for (answer, reports) in futures::future::try_join_all(answers).await? {
            // What stays a subquery is asked again, as a part of the statement.
            if !matches!(answer, Known::Stays) {
                before.extend(reports);
            }
            known.push(answer);
        }
        let (planner, runtime) = (Arc::clone(&self.planner), tokio::runtime::Handle::current());
        self.stacks.run(move || planner.resume(asking, known, &runtime)).await
    }

    /// Runs a plan over what the answerer brings; `before` is what fan-outs reported that came before it.
    async fn execute(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        answerer: Arc<dyn Answerer>,
        deadline: Instant,
        watch: Option<QueryWatch>,
        before: Vec<(Completeness, ScanStats)>,
    ) -> Result<SqlAnswer, Failure> {
        let schema = plan.schema();
        let (batches, reports) = self.batches(plan, answerer, deadline, watch, before).await?;
        let fan_outs = reports.len();
        let (completeness, stats) = completeness::together(reports);
        Ok(SqlAnswer { schema, batches, completeness, stats, fan_outs })
    }

    async fn batches(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        answerer: Arc<dyn Answerer>,
        deadline: Instant,
        watch: Option<QueryWatch>,
        before: Vec<(Completeness, ScanStats)>,
    ) -> Result<(Vec<RecordBatch>, Vec<(Completeness, ScanStats)>), Failure> {
        let context = Arc::new(QueryContext {
            answerer,
            deadline,
            pulled_bytes_max: self.config.pulled_bytes_max,
            watch,
            reports: Mutex::new(before),
        });
        let begun = Begun::all(&plan, &context);
        let task_context = self.planner.task_context(Arc::clone(&context), begun);
        let end = deadline + self.config.finish_grace;
        // A task of its own: a panic in it is this query's alone, and dropping the set aborts it.
        let mut task = tokio::task::JoinSet::new();
        task.spawn(tokio::time::timeout_at(end, collect(plan, task_context, self.config.answer_bytes_max)));
        let finished = match task.join_next().await {
            Some(Ok(finished)) => finished,
            _ => return Err(Failure::new(ErrorCode::Internal, "running this statement failed")),
        };
        let batches = finished.map_err(|_| {
            Failure::new(ErrorCode::Timeout, "the query was not finished by its deadline")
                .hint("Give it more time, narrow the time range, or group by fewer columns.")
        })??;
        let reports = std::mem::take(&mut *context.reports.lock());
        Ok((batches, reports))
    }

    /// Tells what there is, whenever the leaves have more.
    async fn refine(
        &self,
        prepared: &Arc<Prepared>,
        mut newest: watch::Receiver<Option<Arc<SoFar>>>,
        deadline: Instant,
        watch: &SqlWatch,
    ) -> Infallible {
        loop {
            if newest.changed().await.is_err() {
                // The fan-outs are over: the answer is about to come.
                return std::future::pending().await;
            }
            let Some(so_far) = newest.borrow_and_update().clone() else { continue };
            let SoFar { body, completeness, stats, left_out } = Arc::unwrap_or_clone(so_far);
            let Some(body) = body else {
                (watch.tell)(SqlNews::Progress(completeness, stats));
                continue;
            };
            match self
                .partial_answer(prepared, Partial { body, completeness, stats, left_out }, deadline)
                .await
            {
                Ok(answer) => (watch.tell)(SqlNews::Partial(answer)),
                Err(error) => tracing::debug!(%error, "a partial answer is not told"),
            }
        }
    }

    /// A plan that was run knows what it has seen, so each partial answer gets one of its own.
    async fn partial_answer(
        &self,
        prepared: &Arc<Prepared>,
        partial: Partial,
        deadline: Instant,
    ) -> Result<SqlAnswer, Failure> {
        let plan = match prepared.operators() {
            Some(plan) => plan,
            None => {
                let (planner, prepared) = (Arc::clone(&self.planner), Arc::clone(prepared));
                let runtime = tokio::runtime::Handle::current();
                let plan = self.stacks.run(move || planner.again(&prepared, &runtime));
                plan.await?
            }
        };
        self.execute(plan, Arc::new(Given::new(partial)), deadline, None, vec![]).await
    }

    async fn plan(&self, catalogue: Arc<Catalogue>, sql: String) -> Result<Planned, Failure> {
        if let Some(kept) = self.planner.kept(&catalogue, &sql) {
            return Ok(kept);
        }
        let planner = Arc::clone(&self.planner);
        let runtime = tokio::runtime::Handle::current();
        self.stacks.run(move || planner.plan(&catalogue, &sql, &runtime)).await
    }
}

/// Runs a plan; the answer is bounded, because all of it is in memory at once.
async fn collect(
    plan: Arc<dyn ExecutionPlan>,
    task_context: Arc<TaskContext>,
    answer_bytes_max: usize,
) -> Result<Vec<RecordBatch>, Failure> {
    let failed = |error| errors::failure(&error);
    let mut stream = datafusion::physical_plan::execute_stream(plan, task_context).map_err(failed)?;
    let mut batches = Vec::new();
    let mut bytes = 0usize;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(failed)?;
        // Slices of one large batch share its memory: count what each shows.
        bytes = bytes.saturating_add(batch.columns().iter().map(shown_bytes).sum());
        if bytes > answer_bytes_max {
            let message = format!("the answer has more than {answer_bytes_max} bytes, which is the limit");
            return Err(Failure::new(ErrorCode::TooLarge, message)
                .hint("Add a LIMIT, select fewer columns, or aggregate."));
        }
        batches.push(batch);
    }
    Ok(batches)
}

fn shown_bytes(array: &ArrayRef) -> usize {
    array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
}
