//! Partial answers to a statement: what the leaves have so far, taken through the rest of the statement.
//!
//! Only a statement that asks the leaves one plan and then orders, filters, cuts or computes what comes back has partial
//! answers: each is the answer over the rows that its record says are covered. Of others (joins, windows, groups over
//! pulled rows) only the records are told.

use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use async_trait::async_trait;
use datafusion::physical_plan::ExecutionPlan;
use gannet_query::{Completeness, Partial, Plan, ScanStats, SoFar};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::exec::FanOutExec;
use super::{SqlAnswer, completeness};
use crate::error::{ErrorCode, Failure};
use crate::fan_out::{Answerer, Watch};

/// Operators that may stand above the one fan-out.
const OPERATORS: [&str; 10] = [
    "ProjectionExec",
    "FilterExec",
    "SortExec",
    "SortPreservingMergeExec",
    "GlobalLimitExec",
    "LocalLimitExec",
    "CoalesceBatchesExec",
    "CoalescePartitionsExec",
    "RepartitionExec",
    "CooperativeExec",
];

/// Somebody who wants to hear of a statement before its answer is there.
#[derive(Clone)]
pub struct SqlWatch {
    /// How often; nothing is told before this much time has passed.
    pub every: Duration,
    /// Is called with what there is; it must not wait.
    pub tell: Arc<dyn Fn(SqlNews) + Send + Sync>,
}

/// What can be said before an answer is there.
#[derive(Debug, Clone)]
pub enum SqlNews {
    /// What an answer made now would cover.
    Progress(Completeness, ScanStats),
    /// The answer over what is covered so far.
    Partial(SqlAnswer),
}

/// How the fan-outs of one run of a statement come along.
#[derive(Debug)]
pub(super) struct QueryWatch {
    every: Duration,
    /// The statement has partial answers.
    pub(super) with_body: bool,
    newest: watch::Sender<Option<Arc<SoFar>>>,
    /// What each fan-out that has begun said last, after those that came before the run.
    records: Arc<Mutex<Vec<(Completeness, ScanStats)>>>,
}

impl QueryWatch {
    /// Of a run before which there were fan-outs that reported `before`.
    pub(super) fn new(
        every: Duration,
        with_body: bool,
        before: Vec<(Completeness, ScanStats)>,
    ) -> (QueryWatch, watch::Receiver<Option<Arc<SoFar>>>) {
        let (newest, news) = watch::channel(None);
        (QueryWatch { every, with_body, newest, records: Arc::new(Mutex::new(before)) }, news)
    }

    /// Who watches the next fan-out of the statement.
    pub(super) fn of_next_fan_out(&self) -> Watch {
        let (records, newest) = (Arc::clone(&self.records), self.newest.clone());
        let number = {
            let mut records = records.lock();
            records.push(Default::default());
            records.len() - 1
        };
        let tell = move |so_far: SoFar| {
            let together = {
                let mut records = records.lock();
                records[number] = (so_far.completeness, so_far.stats);
                records.clone()
            };
            let (completeness, stats) = completeness::together(together);
            let (body, left_out) = (so_far.body, so_far.left_out);
            newest.send_replace(Some(Arc::new(SoFar { body, completeness, stats, left_out })));
        };
        Watch { every: self.every, with_body: self.with_body, tell: Box::new(tell) }
    }
}

/// True when what the leaves have so far makes a partial answer. See the module.
pub(super) fn has_partial_answers(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let (mut open, mut fan_outs) = (vec![plan], 0);
    while let Some(node) = open.pop() {
        match node.downcast_ref::<FanOutExec>() {
            Some(fan_out) if fan_out.is_small() => fan_outs += 1,
            Some(_) => return false,
            None if OPERATORS.contains(&node.name()) => open.extend(node.children()),
            None => return false,
        }
    }
    fan_outs == 1
}

/// Answers one plan with what is there already.
#[derive(Debug)]
pub(super) struct Given(Mutex<Option<Partial>>);

impl Given {
    pub(super) fn new(partial: Partial) -> Given {
        Given(Mutex::new(Some(partial)))
    }
}

#[async_trait]
impl Answerer for Given {
    async fn answer(&self, _: &Plan, _: Instant) -> Result<Partial, Failure> {
        let none = || Failure::new(ErrorCode::Internal, "a partial answer was asked for twice");
        self.0.lock().take().ok_or_else(none)
    }
}
