//! The gRPC door: the same `Query` service as a leaf's, so that an aggregator can be the child of another, and `Admin`.
//!
//! A parent gets what there is, even from no leaf at all: which leaves are missing, and why, is in the record.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use gannet_proto::address::grpc_server;
use gannet_proto::convert::wanted;
use gannet_proto::wire::admin_server::{Admin, AdminServer};
use gannet_proto::wire::query_server::{Query, QueryServer};
use gannet_proto::wire::roster_server::{Roster, RosterServer};
use gannet_proto::{MESSAGE_BYTES_MAX, PLAN_BYTES_MAX, Reason, wire};
use gannet_query::Plan;
use tokio::sync::Notify;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status};

use crate::aggregator::Aggregator;
use crate::children::Obeyed;
use crate::error::{ErrorCode, Failure};
use crate::exchange;
use crate::fan_out::tree::AskedChild;
use crate::rollout::Order;

mod answers;

use answers::{Question, Replies};

/// The services of an aggregator as a server that can be given connections. `stop` is notified when somebody asks the
/// aggregator to stop.
pub(crate) fn router(aggregator: Arc<Aggregator>, stop: Arc<Notify>) -> Router {
    let door = Door { aggregator, stop };
    let query = QueryServer::new(door.clone())
        .max_decoding_message_size(PLAN_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let roster = RosterServer::new(door.clone())
        .max_decoding_message_size(PLAN_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let admin = AdminServer::new(door)
        .max_decoding_message_size(PLAN_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    grpc_server().add_service(query).add_service(roster).add_service(admin)
}

#[derive(Debug, Clone)]
struct Door {
    aggregator: Arc<Aggregator>,
    stop: Arc<Notify>,
}

impl Door {
    /// Has a leaf below do something.
    async fn pass_on(&self, order: Order, leaf: &str, epoch: u64) -> Result<Obeyed, Status> {
        if leaf.is_empty() {
            return Err(Status::invalid_argument("an aggregator does not drain: name a leaf"));
        }
        self.aggregator.order(order, leaf, epoch).await.map_err(|failure| status(&failure))
    }
}

/// What it says to be an aggregator.
fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// One exhaustive match from failure to status.
fn status(failure: &Failure) -> Status {
    let text = match &failure.detail {
        Some(detail) => format!("{}: {detail}", failure.message),
        None => failure.message.clone(),
    };
    match failure.code {
        ErrorCode::BadRequest | ErrorCode::Unsupported | ErrorCode::UnsupportedMedia => {
            Status::invalid_argument(text)
        }
        ErrorCode::NotFound => Status::not_found(text),
        ErrorCode::WrongState => Status::failed_precondition(text),
        ErrorCode::Unauthenticated => Status::unauthenticated(text),
        ErrorCode::Forbidden => Status::permission_denied(text),
        ErrorCode::TooLarge => Status::out_of_range(text),
        ErrorCode::SequenceTooOld => Reason::SequenceTooOld.status(text),
        ErrorCode::DiskFull => Reason::DiskFull.status(text),
        ErrorCode::Overloaded => Status::resource_exhausted(text),
        ErrorCode::Unavailable | ErrorCode::Unconfirmed | ErrorCode::Incomplete => Status::unavailable(text),
        ErrorCode::Timeout => Status::deadline_exceeded(text),
        ErrorCode::Internal => {
            tracing::error!(error = text, "request failed");
            Status::internal(text)
        }
    }
}

/// The children that another aggregator wants asked; each must say where it is and who.
fn asked_children(asked: Vec<wire::AskedChild>) -> Result<Vec<AskedChild>, Status> {
    let mut leaves = BTreeSet::new();
    let child = |asked: wire::AskedChild| {
        let wire::AskedChild { address, leaf } = asked;
        if leaf.is_empty() || !leaves.insert(leaf.clone()) {
            let text = format!("leaf `{leaf}` at `{address}` is asked for twice, or has no name");
            return Err(Status::invalid_argument(text));
        }
        Ok(AskedChild { address, leaf })
    };
    asked.into_iter().map(child).collect()
}

#[tonic::async_trait]
impl Query for Door {
    type RunStream = Replies;

    async fn run(&self, request: Request<wire::RunRequest>) -> Result<Response<Replies>, Status> {
        let request = request.into_inner();
        let longest = Duration::from_millis(self.aggregator.config().query_timeout_ms_max);
        let timeout = Duration::from_millis(u64::from(request.deadline_ms)).min(longest);
        let deadline = Instant::now() + timeout;
        let plan = request.plan.ok_or_else(|| Status::invalid_argument("the plan is missing"))?;
        let plan = Plan::try_from(plan).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let wanted = wanted(&plan, request.top, request.loose, request.groups_max, request.alone);
        let wanted = wanted.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let asked = asked_children(request.asked)?;
        // Who asks for another one begins to reply at once: the asker knows then that somebody is at it.
        let at_once = request.so_far_ms == 0 && asked.is_empty();
        let question = Question {
            aggregator: Arc::clone(&self.aggregator),
            plan,
            wanted,
            deadline,
            query_id: request.query_id,
            asked,
            level: request.level,
        };
        if at_once {
            return Ok(Response::new(question.at_once().await?));
        }
        let every = Some(Duration::from_millis(u64::from(request.so_far_ms)));
        let every = every.filter(|every| !every.is_zero());
        Ok(Response::new(question.refined(every, request.so_far_body)))
    }

    async fn describe(
        &self,
        request: Request<wire::DescribeRequest>,
    ) -> Result<Response<wire::DescribeReply>, Status> {
        if request.into_inner().brief {
            return Ok(Response::new(wire::DescribeReply {
                aggregator_version: version(),
                ..Default::default()
            }));
        }
        let aggregator = &self.aggregator;
        let children = aggregator.children();
        let down: std::collections::BTreeMap<&str, String> =
            children.iter().filter_map(|child| Some((child.address(), child.down()?))).collect();
        let roster = aggregator.roster().lock();
        let (mut leaves, mut missing) = (Vec::new(), Vec::new());
        let mut unreachable =
            |leaf: String, detail: String| missing.push(wire::UnreachableLeaf { leaf, detail });
        for leaf in roster.leaves() {
            if let Some(why) = down.get(leaf.child.as_str()).cloned().or(leaf.unreachable) {
                unreachable(leaf.leaf.clone(), why);
            } else if !leaf.configured {
                let why = format!("its child {} is not among the configured children", leaf.child);
                unreachable(leaf.leaf.clone(), why);
            }
            leaves.extend(roster.holdings(&leaf.leaf).as_ref().map(Into::into));
        }
        for (leaf, why) in roster.unheard() {
            unreachable(leaf, why);
        }
        let aggregator_version = version();
        Ok(Response::new(wire::DescribeReply { leaves, unreachable: missing, aggregator_version }))
    }
}

#[tonic::async_trait]
impl Roster for Door {
    type LearnStream = tokio_stream::Iter<std::vec::IntoIter<Result<wire::LearnReply, Status>>>;

    async fn learn(
        &self,
        request: Request<wire::LearnRequest>,
    ) -> Result<Response<Self::LearnStream>, Status> {
        let replies = exchange::replies(&self.aggregator.roster().lock(), request.into_inner());
        let replies: Vec<_> = replies.into_iter().map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(replies)))
    }

    async fn decide(
        &self,
        request: Request<wire::DecideRequest>,
    ) -> Result<Response<wire::DecideReply>, Status> {
        let standings = self.aggregator.decide(request.into_inner().standings).await;
        let standings = standings.map_err(|failure| status(&failure))?;
        Ok(Response::new(wire::DecideReply { standings }))
    }

    async fn rollout(
        &self,
        _: Request<wire::RolloutRequest>,
    ) -> Result<Response<wire::RolloutReply>, Status> {
        let text = self.aggregator.rollout_text().unwrap_or_default();
        Ok(Response::new(wire::RolloutReply { text }))
    }
}

#[tonic::async_trait]
impl Admin for Door {
    async fn stop(&self, request: Request<wire::StopRequest>) -> Result<Response<wire::StopReply>, Status> {
        let wire::StopRequest { leaf, epoch } = request.into_inner();
        if leaf.is_empty() {
            self.stop.notify_one();
        } else {
            self.pass_on(Order::Stop, &leaf, epoch).await?;
        }
        Ok(Response::new(wire::StopReply {}))
    }

    async fn drain(
        &self,
        request: Request<wire::DrainRequest>,
    ) -> Result<Response<wire::DrainReply>, Status> {
        let wire::DrainRequest { leaf, epoch } = request.into_inner();
        let obeyed = self.pass_on(Order::Drain, &leaf, epoch).await?;
        Ok(Response::new(wire::DrainReply { already: obeyed.already, settled: obeyed.settled }))
    }

    async fn undrain(
        &self,
        request: Request<wire::UndrainRequest>,
    ) -> Result<Response<wire::UndrainReply>, Status> {
        let wire::UndrainRequest { leaf, epoch } = request.into_inner();
        let obeyed = self.pass_on(Order::Undrain, &leaf, epoch).await?;
        Ok(Response::new(wire::UndrainReply { already: obeyed.already }))
    }

    async fn accept_loss(
        &self,
        request: Request<wire::AcceptLossRequest>,
    ) -> Result<Response<wire::AcceptLossReply>, Status> {
        let leaf = request.into_inner().leaf;
        let rows = self.aggregator.accept_loss(&leaf).await.map_err(|failure| status(&failure))?;
        Ok(Response::new(wire::AcceptLossReply { rows }))
    }

    async fn delete_table(
        &self,
        request: Request<wire::DeleteTableRequest>,
    ) -> Result<Response<wire::DeleteTableReply>, Status> {
        let table = request.into_inner().table;
        let rows = self.aggregator.delete_table(&table).await.map_err(|failure| status(&failure))?;
        Ok(Response::new(wire::DeleteTableReply { rows }))
    }
}
