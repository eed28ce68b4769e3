//! The replies to a plan: one answer, or what there is so far, again and again, and then the answer.
//!
//! What there is so far waits in one place for the caller to take it; while the caller does not, the next replaces it,
//! and the scan never waits. Dropping the replies cancels the scan.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use gannet_proto::{encode_body, wire};
use gannet_query::{Body, Completeness, LeftOut, Plan, ScanStats, SoFar, Wanted, cut_for_asker};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tonic::Status;

use super::status;
use crate::Leaf;
use crate::planted::{Bug, planted};
use crate::query::Watch;
use crate::scan::{Cancel, Deadline};

pub(super) type Replies = Pin<Box<dyn Stream<Item = Reply> + Send>>;

type Reply = Result<wire::RunReply, Status>;

/// What is asked of a leaf, with the permit to ask it.
pub(super) struct Question {
    pub(super) leaf: Arc<Leaf>,
    pub(super) plan: Plan,
    pub(super) wanted: Wanted,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Cancels a scan when it is dropped, that is, when the caller went away.
struct CancelOnDrop(Arc<Cancel>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if !planted(Bug::CancelNotHonoured) {
            self.0.cancel();
        }
    }
}

/// The answer.
pub(super) async fn at_once(question: Question, deadline: Deadline) -> Result<Replies, Status> {
    let cancel = Arc::new(Cancel::new(Some(deadline)));
    let _guard = CancelOnDrop(Arc::clone(&cancel));
    let answer = question.begin(move |question| question.answer(&cancel, None));
    let replies = answer.await.unwrap_or_else(|_| Err(ended_early()))?;
    Ok(Box::pin(futures::stream::iter(replies)))
}

/// What there is so far, at most this often, and then the answer.
pub(super) fn refined(question: Question, deadline: Deadline, every: Duration, with_body: bool) -> Replies {
    let cancel = Arc::new(Cancel::new(Some(deadline)));
    let guard = CancelOnDrop(Arc::clone(&cancel));
    let (news, newest) = watch::channel(None);
    let (plan, wanted) = (question.plan.clone(), question.wanted.clone());
    let answer = question.begin(move |question| {
        let tell = |so_far: SoFar| drop(news.send_replace(Some(Arc::new(so_far))));
        question.answer(&cancel, Some(&Watch { every, with_body, tell: &tell }))
    });
    let refining =
        Refining { answer: Some(answer), newest, plan, wanted, ready: VecDeque::new(), _guard: guard };
    Box::pin(futures::stream::unfold(refining, |mut refining| async move {
        let reply = refining.next().await?;
        Some((reply, refining))
    }))
}

struct Refining {
    /// `None` once it is there.
    answer: Option<oneshot::Receiver<Result<Vec<Reply>, Status>>>,
    newest: watch::Receiver<Option<Arc<SoFar>>>,
    plan: Plan,
    wanted: Wanted,
    /// To be sent, in this order.
    ready: VecDeque<Reply>,
    _guard: CancelOnDrop,
}

impl Refining {
    async fn next(&mut self) -> Option<Reply> {
        loop {
            if let Some(reply) = self.ready.pop_front() {
                return Some(reply);
            }
            let answer = self.answer.as_mut()?;
            let told = async {
                if self.newest.changed().await.is_err() {
                    // Nothing more will be told: the answer is about to come.
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                answer = answer => {
                    self.answer = None;
                    match answer.unwrap_or_else(|_| Err(ended_early())) {
                        Ok(replies) => self.ready.extend(replies),
                        Err(status) => self.ready.push_back(Err(status)),
                    }
                }
                () = told => self.take_newest(),
            }
        }
    }

    fn take_newest(&mut self) {
        let Some(so_far) = self.newest.borrow_and_update().clone() else { return };
        let body = so_far.body.clone().map(|body| cut(body, &self.plan, &self.wanted)).transpose();
        let replies = body.and_then(|body| {
            let kind = if body.is_some() { 1 } else { 2 };
            replies(body.as_ref(), &so_far.completeness, &so_far.stats, kind)
        });
        match replies {
            Ok(replies) => self.ready.extend(replies),
            Err(error) => tracing::debug!(%error, "what there is so far is not told"),
        }
    }
}

impl Question {
    /// Has it answered on the threads that scan.
    fn begin(
        self,
        answer: impl FnOnce(Question) -> Result<Vec<Reply>, Status> + Send + 'static,
    ) -> oneshot::Receiver<Result<Vec<Reply>, Status>> {
        let (reply, answered) = oneshot::channel();
        let leaf = Arc::clone(&self.leaf);
        // Nobody may be waiting any more.
        let job = Box::new(move || drop(reply.send(answer(self))));
        leaf.surroundings.background.scan(&leaf.scan_pool, job);
        answered
    }

    /// Scans; to be called on a thread that may block.
    fn answer(self, cancel: &Cancel, watch: Option<&Watch<'_>>) -> Result<Vec<Reply>, Status> {
        let partial =
            self.leaf.query_watched(&self.plan, cancel, self.wanted.top.as_ref(), watch).map_err(status)?;
        drop(self.permit);
        let cut = cut(partial.body, &self.plan, &self.wanted)?;
        replies(Some(&cut), &partial.completeness, &partial.stats, 0)
    }
}

fn ended_early() -> Status {
    Status::internal("the scan ended early")
}

/// The groups that are wanted, with what was left out.
fn cut(body: Body, plan: &Plan, wanted: &Wanted) -> Result<(Body, LeftOut), Status> {
    cut_for_asker(body, plan, wanted).map_err(|error| Status::internal(format!("groups to be cut: {error}")))
}

/// The replies that carry an answer, or what there is so far.
fn replies(
    body: Option<&(Body, LeftOut)>,
    completeness: &Completeness,
    stats: &ScanStats,
    so_far: u32,
) -> Result<Vec<Reply>, Status> {
    let mut replies = Vec::new();
    if let Some((body, _)) = body {
        let pieces = encode_body(body).map_err(|error| Status::out_of_range(error.to_string()))?;
        replies.extend(pieces.into_iter().map(|body| Ok(wire::RunReply { body, ..Default::default() })));
    }
    let (completeness, stats) = (Some(completeness.into()), Some(stats.into()));
    let left_out = body.map(|(_, left_out)| (*left_out).into());
    replies.push(Ok(wire::RunReply { body: bytes::Bytes::new(), completeness, stats, so_far, left_out }));
    Ok(replies)
}
