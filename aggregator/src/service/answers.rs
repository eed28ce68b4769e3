//! The replies to a plan: one answer, or what there is so far, again and again, and then the answer.
//!
//! What there is so far waits in one place for the parent to take it; while the parent does not, the next replaces it.
//! Dropping the replies drops the fan-out, and with it what the children do.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use futures::Stream;
use gannet_proto::{encode_body, wire};
use gannet_query::{Body, Completeness, LeftOut, Partial, Plan, ScanStats, SoFar, Wanted};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Status;

use super::status;
use crate::aggregator::Aggregator;
use crate::fan_out::tree::AskedChild;
use crate::fan_out::{self, GatherError, Watch};

pub(super) type Replies = Pin<Box<dyn Stream<Item = Reply> + Send>>;

type Reply = Result<wire::RunReply, Status>;

/// What a parent asks.
pub(super) struct Question {
    pub(super) aggregator: Arc<Aggregator>,
    pub(super) plan: Plan,
    pub(super) wanted: Wanted,
    pub(super) deadline: Instant,
    pub(super) query_id: String,
    /// The children to ask for another aggregator; none to ask its own.
    pub(super) asked: Vec<AskedChild>,
    pub(super) level: u32,
}

impl Question {
    /// The answer.
    pub(super) async fn at_once(self) -> Result<Replies, Status> {
        Ok(Box::pin(futures::stream::iter(self.answer(None).await?)))
    }

    /// What there is so far, at most this often, or not at all, and then the answer. The reply begins before that.
    pub(super) fn refined(self, every: Option<Duration>, with_body: bool) -> Replies {
        let (news, newest) = watch::channel(None);
        let mut answer = JoinSet::new();
        answer.spawn(async move {
            let tell = Box::new(move |so_far: SoFar| drop(news.send_replace(Some(Arc::new(so_far)))));
            self.answer(every.map(|every| Watch { every, with_body, tell })).await
        });
        let refining = Refining { answer, newest, ready: VecDeque::new() };
        Box::pin(futures::stream::unfold(refining, |mut refining| async move {
            let reply = refining.next().await?;
            Some((reply, refining))
        }))
    }

    async fn answer(self, watch: Option<Watch>) -> Result<Vec<Reply>, Status> {
        let Question { aggregator, plan, wanted, deadline, query_id, asked, level } = self;
        let gathered = if asked.is_empty() {
            aggregator.gather(&plan, &wanted, deadline, &query_id, watch.as_ref()).await
        } else {
            let (plan, wanted, query_id) = (&plan, &wanted, query_id.as_str());
            let question = fan_out::Question { plan, wanted, deadline, query_id, level };
            aggregator.gather_for(question, &asked, watch.as_ref()).await
        };
        let Partial { body, completeness, stats, left_out } = match gathered {
            Ok(partial) => partial,
            Err(GatherError::Stale(text)) => return Err(Status::failed_precondition(text)),
            Err(GatherError::Failed(failure)) => return Err(status(&failure)),
        };
        let encode = move || replies(Some(&body), left_out, (&completeness, &stats), 0);
        let encoded = tokio::task::spawn_blocking(encode).await;
        encoded.map_err(|error| Status::internal(format!("a thread ended early: {error}")))?
    }
}

struct Refining {
    /// Empty once the answer is there.
    answer: JoinSet<Result<Vec<Reply>, Status>>,
    newest: watch::Receiver<Option<Arc<SoFar>>>,
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
        let (body, record) = (so_far.body.as_ref(), (&so_far.completeness, &so_far.stats));
        let kind = if body.is_some() { 1 } else { 2 };
        match replies(body, so_far.left_out, record, kind) {
            Ok(replies) => self.ready.extend(replies),
            Err(error) => tracing::debug!(%error, "what there is so far is not told"),
        }
    }
}

/// The replies that carry an answer, or what there is so far.
fn replies(
    body: Option<&Body>,
    left_out: LeftOut,
    (completeness, stats): (&Completeness, &ScanStats),
    so_far: u32,
) -> Result<Vec<Reply>, Status> {
    let mut replies = Vec::new();
    if let Some(body) = body {
        let pieces = encode_body(body).map_err(|error| Status::out_of_range(error.to_string()))?;
        replies.extend(pieces.into_iter().map(|body| Ok(wire::RunReply { body, ..Default::default() })));
    }
    let (completeness, stats) = (Some(completeness.into()), Some(stats.into()));
    let left_out = Some(left_out.into());
    replies.push(Ok(wire::RunReply { body: bytes::Bytes::new(), completeness, stats, so_far, left_out }));
    Ok(replies)
}
