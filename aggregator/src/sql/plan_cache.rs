//! Plans of statements that came before, by their text.
//!
//! A plan is kept up to the point where nothing in it belongs to one query: simplified, pushed down and checked. Operators
//! have state; of those that can be given it anew, the first made are kept as well, and never run: every run gets a copy.
//! A plan never answers anything: only the leaves do, each time anew.
//!
//! Invariants: every plan kept was made for tables and columns equal to those of the catalogue it is taken for; none
//! has a function in it whose value is another one at another time, and none reads anything but the catalogue's tables.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use parking_lot::Mutex;

use super::short_forms::Places;
use super::tables::GannetTable;
use crate::catalogue::Catalogue;

/// Statements whose plans are kept; beyond it the one goes that was not asked for longest.
const KEPT_MAX: usize = 64;
/// Longer texts are planned each time, bytes.
const TEXT_BYTES_MAX: usize = 8 << 10;
/// Plans that name more columns than this, all their operators together, are not kept: it bounds their memory.
const COLUMNS_MAX: usize = 4_096;

/// Operators that are nothing but themselves once their state is made anew.
const RENEWABLE: [&str; 7] = [
    "FanOutExec",
    "ProjectionExec",
    "SortExec",
    "SortExec(TopK)",
    "CooperativeExec",
    "GlobalLimitExec",
    "LocalLimitExec",
];
/// More operators on top of each other are made each time, on a big stack.
const OPERATORS_MAX: usize = 16;

/// A statement that needs nothing more but its operators.
#[derive(Debug)]
pub(super) struct Prepared {
    /// What is to be run.
    pub(super) plan: LogicalPlan,
    /// Where functions are called, for errors that are found later.
    pub(super) functions: Places,
    /// Its operators, as they were made first.
    operators: OnceLock<Arc<dyn ExecutionPlan>>,
}

impl Prepared {
    pub(super) fn new(plan: LogicalPlan, functions: Places) -> Prepared {
        Prepared { plan, functions, operators: OnceLock::new() }
    }

    /// Keeps operators that were just made, if they can be had anew; gives back some to run.
    pub(super) fn keep(&self, operators: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        match is_renewable(&operators).then(|| renewed(&operators)).flatten() {
            Some(copy) => {
                self.operators.get_or_init(|| operators);
                copy
            }
            None => operators,
        }
    }

    /// Operators for one run, when they need not be made.
    pub(super) fn operators(&self) -> Option<Arc<dyn ExecutionPlan>> {
        renewed(self.operators.get()?)
    }
}

fn renewed(operators: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    reset_plan_states(Arc::clone(operators)).ok()
}

/// A few operators on top of a fan-out.
fn is_renewable(operators: &Arc<dyn ExecutionPlan>) -> bool {
    let mut next = operators;
    for _ in 0..OPERATORS_MAX {
        let children = next.children();
        match children.as_slice() {
            _ if !RENEWABLE.contains(&next.name()) => return false,
            [] => return true,
            [child] => next = child,
            _ => return false,
        }
    }
    false
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PlanCache(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// All plans were made for tables and columns equal to these.
    catalogue: Arc<Catalogue>,
    plans: HashMap<String, (u64, Arc<Prepared>)>,
    /// Counts what was asked for.
    clock: u64,
}

impl PlanCache {
    /// The plan of a statement, when it was kept and still fits the catalogue.
    pub(super) fn get(&self, catalogue: &Arc<Catalogue>, sql: &str) -> Option<Arc<Prepared>> {
        let mut kept = self.0.lock();
        if !kept.is_of(catalogue) {
            return None;
        }
        kept.clock += 1;
        let now = kept.clock;
        let (used, prepared) = kept.plans.get_mut(sql)?;
        *used = now;
        Some(Arc::clone(prepared))
    }

    /// Keeps the plan of a statement made for a catalogue.
    pub(super) fn put(&self, catalogue: &Arc<Catalogue>, sql: &str, prepared: &Arc<Prepared>) {
        if sql.len() > TEXT_BYTES_MAX || columns_named(&prepared.plan) > COLUMNS_MAX {
            return;
        }
        let mut kept = self.0.lock();
        if !kept.is_of(catalogue) {
            kept.plans.clear();
            kept.catalogue = Arc::clone(catalogue);
        }
        if kept.plans.len() >= KEPT_MAX
            && let Some(oldest) =
                kept.plans.iter().min_by_key(|(_, (used, _))| *used).map(|(sql, _)| sql.clone())
        {
            kept.plans.remove(&oldest);
        }
        kept.clock += 1;
        let now = kept.clock;
        kept.plans.insert(sql.to_owned(), (now, Arc::clone(prepared)));
    }
}

impl Kept {
    /// Whether plans were made for tables and columns like these; row counts change all the time and do not matter.
    fn is_of(&mut self, catalogue: &Arc<Catalogue>) -> bool {
        if Arc::ptr_eq(&self.catalogue, catalogue) {
            return true;
        }
        let same = self.catalogue.has_columns_of(catalogue);
        if same {
            self.catalogue = Arc::clone(catalogue);
        }
        same
    }
}

/// Whether a plan, before it is simplified, means the same whenever it is run.
pub(super) fn is_lasting(plan: &LogicalPlan) -> Result<bool> {
    let mut lasting = true;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            lasting &= GannetTable::of_scan(scan).is_some();
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr {
                    lasting &= call.func.signature().volatility == Volatility::Immutable;
                }
                Ok(if lasting { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
            })
        })?;
        Ok(if lasting { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(lasting)
}

fn columns_named(plan: &LogicalPlan) -> usize {
    let mut columns = 0usize;
    let counted = plan.apply_with_subqueries(|node| {
        columns += node.schema().fields().len();
        if let LogicalPlan::TableScan(scan) = node {
            columns += scan.source.schema().fields().len();
        }
        Ok(TreeNodeRecursion::Continue)
    });
    if counted.is_ok() { columns } else { usize::MAX }
}
