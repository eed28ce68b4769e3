//! The replies to a plan: one answer, or what there is so far, again and again, and then the answer.
//!
//! What there is so far waits in one place for the parent to take it; while the parent does not, the next replaces it.
//! Dropping the replies drops the fan-out, and with it what the children do.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::Stream;
use gannet_proto::{encode_body, wire};
use gannet_query::{Body, Completeness, Partial, Plan, ScanStats, SoFar, Top};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Status;

use super::status;
use crate::aggregator::Aggregator;
use crate::fan_out::{GatherError, Watch};

pub(super) type Replies = Pin<Box<dyn Stream<Item = Reply> + Send>>;

type Reply = Result<wire::RunReply, Status>;

/// What a parent asks.
pub(super) struct Question {
    pub(super) aggregator: Arc<Aggregator>,
    pub(super) plan: Plan,
    pub(super) top: Option<Top>,
    pub(super) deadline: Instant,
    pub(super) query_id: String,
}

impl Question {
    /// The answer.
    pub(super) async fn at_once(self) -> Result<Replies, Status> {
        Ok(Box::pin(futures::stream::iter(self.answer(None).await?)))
    }

    /// What there is so far, at most this often, and then the answer.
    pub(super) fn refined(self, every: Duration, with_body: bool) -> Replies {
        let (news, newest) = watch::channel(None);
        let (plan, top) = (self.plan.clone(), self.top.clone());
        let mut answer = JoinSet::new();
        answer.spawn(async move {
            let tell = Box::new(move |so_far: SoFar| drop(news.send_replace(Some(Arc::new(so_far)))));
            self.answer(Some(Watch { every, with_body, tell })).await
        });
        let refining = Refining { answer, newest, plan, top, ready: VecDeque::new() };
        Box::pin(futures::stream::unfold(refining, |mut refining| async move {
            let reply = refining.next().await?;
            Some((reply, refining))
        }))
    }

    async fn answer(self, watch: Option<Watch>) -> Result<Vec<Reply>, Status> {
        let Question { aggregator, plan, top, deadline, query_id } = self;
        let gathered = aggregator.gather(&plan, top.as_ref(), deadline, &query_id, watch.as_ref()).await;
        let Partial { body, completeness, stats } = match gathered {
            Ok(partial) => partial,
            Err(GatherError::Stale(text)) => return Err(Status::failed_precondition(text)),
            Err(GatherError::Failed(failure)) => return Err(status(&failure)),
        };
        let encode = move || replies(Some(&cut(body, &plan, top.as_ref())), &completeness, &stats, 0);
        let encoded = tokio::task::spawn_blocking(encode).await;
        encoded.map_err(|error| Status::internal(format!("a thread ended early: {error}")))?
    }
}

struct Refining {
    /// Empty once the answer is there.
    answer: JoinSet<Result<Vec<Reply>, Status>>,
    newest: watch::Receiver<Option<Arc<SoFar>>>,
    plan: Plan,
    top: Option<Top>,
    /// To be sent, in this order.
    ready: VecDeque<Reply>,
}

impl Refining {
    async fn next(&mut self) -> Option<Reply> {
        loop {
            if let Some(reply) = self.ready.pop_front() {
                return Some(reply);
            }
            let told = async {
                if self.newest.changed().await.is_err() {
                    // Nothing more will be told: the answer is about to come.
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                answer = self.answer.join_next() => match answer? {
                    Ok(Ok(replies)) => self.ready.extend(replies),
                    Ok(Err(status)) => self.ready.push_back(Err(status)),
                    Err(error) => {
                        let status = Status::internal(format!("the fan-out ended early: {error}"));
                        self.ready.push_back(Err(status));
                    }
                },
                () = told => self.take_newest(),
            }
        }
    }

    fn take_newest(&mut self) {
        let Some(so_far) = self.newest.borrow_and_update().clone() else { return };
        let body = so_far.body.clone().map(|body| cut(body, &self.plan, self.top.as_ref()));
        let kind = if body.is_some() { 1 } else { 2 };
        match replies(body.as_ref(), &so_far.completeness, &so_far.stats, kind) {
            Ok(replies) => self.ready.extend(replies),
            Err(error) => tracing::debug!(%error, "what there is so far is not told"),
        }
    }
}

/// The groups that are wanted.
fn cut(mut body: Body, plan: &Plan, top: Option<&Top>) -> Body {
    if let (Some(top), Body::Groups(groups)) = (top, &mut body)
        && let Err(error) = groups.cut(plan, top)
    {
        tracing::debug!(%error, "sending all groups");
    }
    body
}

/// The replies that carry an answer, or what there is so far.
fn replies(
    body: Option<&Body>,
    completeness: &Completeness,
    stats: &ScanStats,
    so_far: u32,
) -> Result<Vec<Reply>, Status> {
    let mut replies = Vec::new();
    if let Some(body) = body {
        let pieces = encode_body(body).map_err(|error| Status::out_of_range(error.to_string()))?;
        replies.extend(pieces.into_iter().map(|body| Ok(wire::RunReply { body, ..Default::default() })));
    }
    let (completeness, stats) = (Some(completeness.into()), Some(stats.into()));
    replies.push(Ok(wire::RunReply { body: bytes::Bytes::new(), completeness, stats, so_far }));
    Ok(replies)
}
