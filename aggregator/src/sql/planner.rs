//! From the text of a statement to operators: steps 1 to 4 of [`super`].
//!
//! Everything here runs on a thread with a big stack. A statement whose subqueries are asked before it is planned up to
//! these, and goes on with their values.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::EmptyCatalogProviderList;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::Statement;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::exec::{Begun, QueryContext};
use super::plan_cache::{PlanCache, Prepared, is_lasting};
use super::short_forms::Places;
use super::subqueries::{self, Known, Place};
use super::tables::QueryCatalog;
use super::{errors, limits, names, short_forms, show, weights};
use crate::catalogue::Catalogue;
use crate::error::Failure;

/// What planning needs, shared by the threads that plan.
#[derive(Debug)]
pub(super) struct Planner {
    base: SessionState,
    /// Clones of the session that no statement is using: a clone copies a name for each of hundreds of functions.
    pub(super) idle: Mutex<Vec<SessionState>>,
    idle_max: usize,
    pub(super) cache: PlanCache,
}

/// A statement ready to run.
pub(super) enum Planned {
    /// Answered from the catalogue.
    Shown(RecordBatch),
    /// To be run; it can be made again of what was prepared.
    Physical(Arc<dyn ExecutionPlan>, Arc<Prepared>),
    /// Its subqueries come first.
    Asking(Box<Asking>),
}

/// A statement whose subqueries are asked before it.
pub(super) struct Asking {
    /// Where each stands, and its operators.
    pub(super) subqueries: Vec<(Place, Arc<dyn ExecutionPlan>)>,
    known: Vec<(Place, Known)>,
    plan: LogicalPlan,
    functions: Places,
    state: SessionState,
}

impl Planner {
    /// A planner whose sessions are clones of one; so many of them are kept.
    pub(super) fn new(base: SessionState, idle_max: usize) -> Planner {
        Planner { base, idle: Mutex::default(), idle_max, cache: PlanCache::default() }
    }

    /// What was prepared for a statement that came before, with operators that can be run.
    pub(super) fn kept(&self, catalogue: &Arc<Catalogue>, sql: &str) -> Option<Planned> {
        let prepared = self.cache.get(catalogue, sql)?;
        Some(Planned::Physical(prepared.operators()?, prepared))
    }

    /// Plans a statement, or what is left of it when it came before.
    pub(super) fn plan(
        &self,
        catalogue: &Arc<Catalogue>,
        sql: &str,
        runtime: &Handle,
    ) -> Result<Planned, Failure> {
        let mut state = self.session();
        state.mark_start_execution();
        if let Some(prepared) = self.cache.get(catalogue, sql) {
            return self.operators(state, prepared, runtime);
        }
        let statement = limits::parse(sql)?;
        if let Some(batch) = show::answer(&statement, catalogue)? {
            return Ok(Planned::Shown(batch));
        }
        let (plan, functions, lasting) = logical(&mut state, statement, catalogue, runtime)?;
        let planned = self.ask_or_prepare(state, plan, functions, Vec::new(), runtime)?;
        if let Planned::Physical(_, prepared) = &planned
            && lasting
        {
            self.cache.put(catalogue, sql, prepared);
        }
        Ok(planned)
    }

    /// Goes on with a statement whose subqueries were asked; `answers` are in their order.
    pub(super) fn resume(
        &self,
        asking: Asking,
        answers: Vec<Known>,
        runtime: &Handle,
    ) -> Result<Planned, Failure> {
        let Asking { subqueries, mut known, plan, functions, state } = asking;
        known.extend(subqueries.into_iter().map(|(place, _)| place).zip(answers));
        let plan = subqueries::put(plan, &known).map_err(|error| functions.place(errors::failure(&error)))?;
        self.ask_or_prepare(state, plan, functions, known, runtime)
    }

    /// Operators for another run of what was prepared.
    pub(super) fn again(
        &self,
        prepared: &Arc<Prepared>,
        runtime: &Handle,
    ) -> Result<Arc<dyn ExecutionPlan>, Failure> {
        let state = self.session();
        let physical = physical(&state, &prepared.plan, &prepared.functions, runtime)?;
        self.put_back(state);
        Ok(prepared.keep(physical))
    }

    fn session(&self) -> SessionState {
        let idle = self.idle.lock().pop();
        idle.unwrap_or_else(|| self.base.clone())
    }

    fn ask_or_prepare(
        &self,
        state: SessionState,
        plan: LogicalPlan,
        functions: Places,
        known: Vec<(Place, Known)>,
        runtime: &Handle,
    ) -> Result<Planned, Failure> {
        let failed = |error| functions.place(errors::failure(&error));
        let asked = subqueries::to_ask(&plan, &known).map_err(failed)?;
        if asked.is_empty() {
            let plan = simplified(&state, &plan).map_err(failed)?;
            return self.operators(state, Arc::new(Prepared::new(plan, functions)), runtime);
        }
        let mut subqueries = Vec::with_capacity(asked.len());
        for one in asked {
            let plan = simplified(&state, &one.plan).map_err(failed)?;
            subqueries.push((one.place, physical(&state, &plan, &functions, runtime)?));
        }
        Ok(Planned::Asking(Box::new(Asking { subqueries, known, plan, functions, state })))
    }

    fn operators(
        &self,
        state: SessionState,
        prepared: Arc<Prepared>,
        runtime: &Handle,
    ) -> Result<Planned, Failure> {
        let physical = physical(&state, &prepared.plan, &prepared.functions, runtime)?;
        self.put_back(state);
        Ok(Planned::Physical(prepared.keep(physical), prepared))
    }

    /// Keeps a session for the next statement, unless the last one gave it functions of its own.
    fn put_back(&self, mut state: SessionState) {
        if state.aggregate_functions().len() != self.base.aggregate_functions().len() {
            return;
        }
        state.register_catalog_list(Arc::new(EmptyCatalogProviderList));
        let mut idle = self.idle.lock();
        if idle.len() < self.idle_max {
            idle.push(state);
        }
    }

    /// What operators of one query run with. Functions are part of the operators: nobody looks for them by name again.
    pub(super) fn task_context(&self, context: Arc<QueryContext>, begun: Begun) -> Arc<TaskContext> {
        Arc::new(TaskContext::new(
            None,
            self.base.session_id().to_owned(),
            self.base.config().clone().with_extension(context).with_extension(Arc::new(begun)),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            Arc::clone(self.base.runtime_env()),
        ))
    }
}

/// What a statement asks for, not simplified yet; where it calls functions; and whether it means the same at any time.
fn logical(
    state: &mut SessionState,
    mut statement: Statement,
    catalogue: &Arc<Catalogue>,
    runtime: &Handle,
) -> Result<(LogicalPlan, Places, bool), Failure> {
    let functions = {
        let query = innermost(&mut statement);
        limits::balance(query);
        short_forms::name_columns(query);
        names::resolve(query, catalogue)?;
        short_forms::rewrite(query, state)?
    };
    state.register_catalog_list(Arc::new(QueryCatalog { catalogue: Arc::clone(catalogue) }));
    let planned = runtime.block_on(async {
        let plan = state.statement_to_plan(statement).await?;
        let read_only =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&plan)?;
        let lasting = is_lasting(&plan)?;
        Ok((plan, lasting))
    });
    match planned {
        Ok((plan, lasting)) => Ok((plan, functions, lasting)),
        Err(error) => Err(functions.place(errors::failure(&error))),
    }
}

/// A plan as it is run: what leaves can do is theirs, and nothing is unweighted in silence.
fn simplified(state: &SessionState, plan: &LogicalPlan) -> datafusion::error::Result<LogicalPlan> {
    let plan = state.optimize(plan)?;
    weights::check(&plan)?;
    Ok(plan)
}

fn physical(
    state: &SessionState,
    plan: &LogicalPlan,
    functions: &Places,
    runtime: &Handle,
) -> Result<Arc<dyn ExecutionPlan>, Failure> {
    let physical = runtime.block_on(state.query_planner().create_physical_plan(plan, state));
    physical.map_err(|error| functions.place(errors::failure(&error)))
}

/// The statement below any EXPLAIN.
fn innermost(statement: &mut Statement) -> &mut Statement {
    match statement {
        Statement::Explain(explain) => innermost(&mut explain.statement),
        other => other,
    }
}
