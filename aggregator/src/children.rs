//! The children: connections, health, and what they are asked.
//!
//! A child whose connection fails counts as down at once, and then costs no query any waiting: only the background
//! probe tries it, and the first description it gives makes it count as up again. A child that is silent for too long
//! although it was asked counts as down as well (`health`); a query that hears nothing asks the probe to find out.
//!
//! This module and the gRPC door are the only ones that know the wire.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

use bytes::Bytes;
use gannet_proto::address::{AddressError, ChildAddress, connect_over};
use gannet_proto::channel::Channel;
use gannet_proto::network::{Network, System};
use gannet_proto::tls::Tls;
use gannet_proto::wire::admin_client::AdminClient;
use gannet_proto::wire::ingest_client::IngestClient;
use gannet_proto::wire::query_client::QueryClient;
use gannet_proto::wire::roster_client::RosterClient;
use gannet_proto::{ConvertError, MESSAGE_BYTES_MAX, Reason, wire};
use gannet_query::{Completeness, Holdings, LeftOut, Plan, ScanStats};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout_at;
use tonic::{Code, Status};

use crate::fan_out::room::{Held, Room};
use crate::sender::{Part, Sender};

mod failure;
mod health;
mod learning;
mod orders;
mod pace;
mod set;

pub use failure::ChildError;
use health::Health;
pub use orders::Obeyed;
use pace::Pace;
pub use set::{Changed, ChildSet, Links};

/// A server as its parent sees it.
#[derive(Debug)]
pub struct Child {
    address: String,
    query: QueryClient<Channel>,
    ingest: IngestClient<Channel>,
    admin: AdminClient<Channel>,
    /// Served by aggregators only.
    roster: RosterClient<Channel>,
    health: Mutex<Health>,
    /// Of its answers to questions.
    pace: Pace,
    /// It said that it does not take rows: it is an aggregator.
    takes_no_rows: AtomicBool,
    /// Its version, when it said that it is an aggregator.
    aggregator_version: Mutex<Option<String>>,
    /// Why it takes no rows for now: it is stopping or starting.
    closed: Mutex<Option<ChildError>>,
    /// Asks the background probe to describe the child now.
    probe: Notify,
    /// Held while the child is asked what it holds: its answers are noted in the order they were given.
    describing: tokio::sync::Mutex<()>,
}

/// Whoever goes on without room says something within this time, or lets others go on.
const BEYOND_SILENCE: Duration = Duration::from_millis(50);

/// What a run of a plan may take.
#[derive(Debug, Clone)]
pub struct RunLimits {
    /// By when the answer must be here.
    pub until: Instant,
    /// How large it may be.
    pub bytes_max: u64,
    /// How long a child may be silent before it counts as down.
    pub silence_max: Duration,
    /// A child that takes a question at once and answers later must have taken it within this time.
    pub taken_within: Option<Duration>,
    /// Where the answer waits to be merged.
    pub room: Room,
}

/// What a child returned for a plan: pieces of one body, still encoded, and the record beside it.
#[derive(Debug)]
pub struct ChildAnswer {
    /// The pieces.
    pub pieces: Vec<Bytes>,
    /// How complete it is.
    pub completeness: Completeness,
    /// What the scans did.
    pub stats: ScanStats,
    /// What was left out of the pieces.
    pub left_out: LeftOut,
    /// The room that the pieces take.
    pub held: Held,
}

/// What a child has so far, as it said last; what nobody looked at is replaced.
#[derive(Debug, Default)]
pub struct Newest(Mutex<Option<(ChildAnswer, bool)>>);

impl Newest {
    fn put(&self, mut answer: ChildAnswer, with_body: bool) {
        // What is shown has a limit of its own, and must not keep an answer from coming in.
        answer.held = Held::default();
        *self.0.lock() = Some((answer, with_body));
    }

    /// What it said since this was called last, and whether that includes groups or rows.
    pub fn take(&self) -> Option<(ChildAnswer, bool)> {
        self.0.lock().take()
    }
}

/// What a child says of itself and what is below it.
#[derive(Debug)]
pub struct Description {
    /// Every leaf at or below it.
    pub leaves: Vec<Holdings>,
    /// Leaves that it must have and cannot reach, with why.
    pub unreachable: Vec<(String, String)>,
}

/// What a leaf says when it took a row batch.
#[derive(Debug)]
pub struct Acknowledgement {
    /// Rows taken, now or before.
    pub accepted: u64,
    /// Those of them that were taken before.
    pub duplicates: u64,
    /// What they survive.
    pub durability: String,
    /// What the leaf holds now of the table.
    pub holdings: Holdings,
}

impl Child {
    /// A child at an address of the system's network, without TLS; see [`Child::over`].
    ///
    /// # Errors
    /// When the address cannot be connected to by its form.
    pub fn new(address: &ChildAddress) -> Result<Child, AddressError> {
        let network: Arc<dyn Network> = Arc::new(System);
        Child::over(&network, address, None)
    }

    /// A child at an address; nothing is connected yet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be connected to by its form.
    pub fn over(
        network: &Arc<dyn Network>,
        address: &ChildAddress,
        tls: Option<&Arc<Tls>>,
    ) -> Result<Child, AddressError> {
        let channel = connect_over(network, address, tls)?;
        Ok(Child {
            address: address.to_string(),
            query: QueryClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            ingest: IngestClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            roster: RosterClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            admin: AdminClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            health: Mutex::default(),
            pace: Pace::default(),
            takes_no_rows: AtomicBool::new(false),
            aggregator_version: Mutex::default(),
            closed: Mutex::default(),
            probe: Notify::new(),
            describing: tokio::sync::Mutex::default(),
        })
    }

    /// Its address, which names it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Why it counts as down, if it does.
    pub fn down(&self) -> Option<String> {
        self.health.lock().down().map(str::to_owned)
    }

    /// How long it takes to answer, about; nothing until it did.
    pub fn pace(&self) -> Duration {
        self.pace.mean()
    }

    /// It said that it does not take rows.
    pub fn takes_no_rows(&self) -> bool {
        self.takes_no_rows.load(Ordering::Relaxed)
    }

    /// Why it takes no rows, if it said so since it described itself last.
    pub fn closed(&self) -> Option<ChildError> {
        self.closed.lock().clone()
    }

    /// Asks the background probe to describe it now.
    pub fn probe_soon(&self) {
        self.probe.notify_one();
    }

    /// Waits until it is time to describe the child: after its interval, or when somebody asked.
    pub async fn probe_due(&self, up: Duration, down: Duration) {
        let interval = if self.down().is_some() { down } else { up };
        // Asked or not: it is time.
        let _ = tokio::time::timeout(interval, self.probe.notified()).await;
    }

    /// The turn to ask it what it holds; to be kept until the answer is noted, so that no older one overtakes it.
    pub async fn turn_to_describe(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.describing.lock().await
    }

    /// Asks for a plan. Dropping the future tells the child that nobody waits for its answer any more.
    ///
    /// # Errors
    /// When it does not answer, or with something that is no answer.
    pub async fn run(
        &self,
        request: wire::RunRequest,
        limits: &RunLimits,
        so_far: Option<&Newest>,
    ) -> Result<ChildAnswer, ChildError> {
        let begun = Instant::now();
        self.health.lock().asked(begun);
        let mut answer = std::pin::pin!(self.answer(request, limits, so_far));
        let doubt = begun + limits.silence_max / 4;
        let outcome = match timeout_at(doubt.min(limits.until), &mut answer).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // It may be busy with this very question, or it may be stopped: whoever comes next should know.
                self.probe.notify_one();
                timeout_at(limits.until, answer).await.unwrap_or(Err(ChildError::Timeout))
            }
        };
        match &outcome {
            Err(ChildError::Timeout) => {
                self.pace.took(begun.elapsed());
                self.waited(limits.silence_max);
            }
            Err(_) => {}
            Ok(_) => self.pace.took(begun.elapsed()),
        }
        self.note(outcome)
    }

    async fn answer(
        &self,
        request: wire::RunRequest,
        limits: &RunLimits,
        so_far: Option<&Newest>,
    ) -> Result<ChildAnswer, ChildError> {
        let mut client = self.query.clone();
        let taken = client.run(request);
        let taken = match limits.taken_within {
            None => taken.await,
            Some(within) => tokio::time::timeout(within, taken).await.map_err(|_| {
                ChildError::Down(format!("it did not take a question within {} ms", within.as_millis()))
            })?,
        };
        let mut replies = self.hear(taken)?.into_inner();
        let (mut pieces, mut bytes, mut held) = (Vec::new(), 0u64, Held::default());
        loop {
            let next = replies.message();
            let next = match held.is_beyond() {
                false => next.await,
                true => match tokio::time::timeout(BEYOND_SILENCE, next).await {
                    Ok(next) => next,
                    Err(_) => {
                        held.give_turn_away();
                        continue;
                    }
                },
            };
            let Some(reply) = self.hear(next)? else { break };
            bytes += reply.body.len() as u64;
            if bytes > limits.bytes_max {
                // This child is out of its mind, or the question too large; what the others say is as good.
                return Err(ChildError::Failed(format!("its answer exceeds {} bytes", limits.bytes_max)));
            }
            if !reply.body.is_empty() {
                limits.room.take(&mut held, reply.body.len()).await;
                pieces.push(reply.body);
            }
            let Some(completeness) = reply.completeness else { continue };
            let completeness = Completeness::try_from(completeness).map_err(malformed)?;
            let stats = reply.stats.map(ScanStats::try_from).transpose().map_err(malformed)?;
            let (pieces, held) = (std::mem::take(&mut pieces), std::mem::take(&mut held));
            let (stats, left_out) = (stats.unwrap_or_default(), reply.left_out.map(LeftOut::from));
            let left_out = left_out.unwrap_or_default();
            let answer = ChildAnswer { pieces, completeness, stats, left_out, held };
            bytes = 0;
            match (reply.so_far, so_far) {
                (0, _) => return Ok(answer),
                (1, Some(so_far)) => so_far.put(answer, true),
                (2, Some(so_far)) => so_far.put(answer, false),
                // Nobody asked for it, or it is of a kind that is not known here.
                _ => {}
            }
        }
        Err(ChildError::Failed("the answer ended without its completeness".to_owned()))
    }

    /// What came over the connection; whatever the child itself said, it is there.
    fn hear<T>(&self, received: Result<T, Status>) -> Result<T, ChildError> {
        let received = received.map_err(classify);
        if !matches!(&received, Err(ChildError::Down(_) | ChildError::Lost(_))) {
            self.health.lock().heard();
        }
        received
    }

    /// Somebody waited in vain.
    fn waited(&self, silence_max: Duration) {
        let mut health = self.health.lock();
        if health.waited(Instant::now(), silence_max) {
            tracing::warn!(child = self.address, why = health.down(), "child counts as down");
            self.probe.notify_one();
        }
    }

    /// Asks what it holds, and notes whether it is up.
    ///
    /// # Errors
    /// When it does not say, in time.
    pub async fn describe(&self, timeout: Duration, silent_max: u32) -> Result<Description, ChildError> {
        self.health.lock().asked(Instant::now());
        let mut client = self.query.clone();
        let describe = async {
            let reply = self.hear(client.describe(wire::DescribeRequest::default()).await)?.into_inner();
            self.told_version(&reply);
            let leaves = reply.leaves.into_iter().map(Holdings::try_from).collect::<Result<_, _>>();
            let unreachable = reply.unreachable.into_iter().map(|leaf| (leaf.leaf, leaf.detail)).collect();
            Ok(Description { leaves: leaves.map_err(malformed)?, unreachable })
        };
        let outcome = tokio::time::timeout(timeout, describe).await.unwrap_or(Err(ChildError::Timeout));
        match &outcome {
            Ok(_) => {
                *self.closed.lock() = None;
                if let Some(why) = self.health.lock().described() {
                    tracing::info!(child = self.address, was = why, "child is up");
                }
            }
            Err(ChildError::Timeout) => self.waited(timeout * silent_max),
            Err(_) => {}
        }
        self.note(outcome)
    }

    /// Asks whether it is there, and no more.
    ///
    /// # Errors
    /// When it does not say so, in time.
    pub async fn look(&self, timeout: Duration, silent_max: u32) -> Result<(), ChildError> {
        self.health.lock().asked(Instant::now());
        let mut client = self.query.clone();
        let look = async { self.hear(client.describe(wire::DescribeRequest { brief: true }).await) };
        let outcome = tokio::time::timeout(timeout, look).await.unwrap_or(Err(ChildError::Timeout));
        match &outcome {
            Ok(reply) => {
                self.told_version(reply.get_ref());
                if let Some(why) = self.health.lock().described() {
                    tracing::info!(aggregator = self.address, was = why, "aggregator is up");
                }
            }
            Err(ChildError::Timeout) => self.waited(timeout * silent_max),
            Err(_) => {}
        }
        self.note(outcome.map(drop))
    }

    /// Hands it a row batch, encoded; with a sender, as one part of their request.
    ///
    /// # Errors
    /// When it did not take it; [`ChildError::may_have_happened`] tells whether it may have, after all.
    pub async fn append(
        &self,
        table: &str,
        rows: Bytes,
        part: Option<&Part>,
        timeout: Duration,
    ) -> Result<Acknowledgement, ChildError> {
        let request = append_request(table, rows, part);
        let mut client = self.ingest.clone();
        let append = async {
            let reply = client.append(request).await.map_err(classify)?.into_inner();
            let holdings = reply.holdings.ok_or(ConvertError::Missing("holdings")).map_err(malformed)?;
            Ok(Acknowledgement {
                accepted: reply.accepted,
                duplicates: reply.duplicate.min(reply.accepted),
                durability: reply.durability,
                holdings: holdings.try_into().map_err(malformed)?,
            })
        };
        let outcome = tokio::time::timeout(timeout, append).await.unwrap_or(Err(ChildError::Timeout));
        if outcome.as_ref().is_err_and(|error| *error == ChildError::NotServed) {
            self.takes_no_rows.store(true, Ordering::Relaxed);
        }
        if let Err(error @ ChildError::Restarting(_)) = &outcome {
            *self.closed.lock() = Some(error.clone());
            self.probe.notify_one();
        }
        self.note(outcome)
    }

    /// Tells it that the loss of a leaf's rows is accepted; gives back how many it no longer misses.
    ///
    /// # Errors
    /// When it did not do so.
    pub async fn accept_loss(&self, leaf: &str, timeout: Duration) -> Result<u64, ChildError> {
        let mut client = self.admin.clone();
        let request = wire::AcceptLossRequest { leaf: leaf.to_owned() };
        let accept = async { Ok(client.accept_loss(request).await.map_err(classify)?.into_inner().rows) };
        let outcome = tokio::time::timeout(timeout, accept).await.unwrap_or(Err(ChildError::Timeout));
        self.note(outcome)
    }

    /// Has it delete a table; gives back how many rows there were.
    ///
    /// # Errors
    /// When it did not do so, or nobody knows.
    pub async fn delete_table(&self, table: &str, timeout: Duration) -> Result<u64, ChildError> {
        let mut client = self.admin.clone();
        let request = wire::DeleteTableRequest { table: table.to_owned() };
        let delete = async { Ok(client.delete_table(request).await.map_err(classify)?.into_inner().rows) };
        let outcome = tokio::time::timeout(timeout, delete).await.unwrap_or(Err(ChildError::Timeout));
        self.note(outcome)
    }

    /// Notes a failed connection.
    fn note<T>(&self, outcome: Result<T, ChildError>) -> Result<T, ChildError> {
        if let Err(ChildError::Down(why) | ChildError::Lost(why)) = &outcome
            && self.health.lock().failed(why)
        {
            tracing::warn!(child = self.address, why, "child is down");
            self.probe.notify_one();
        }
        outcome
    }
}

fn malformed(error: ConvertError) -> ChildError {
    ChildError::Failed(format!("the answer is malformed: {error}"))
}

/// What a status means. A status with a source was made on this side, from a connection that failed; one without was
/// sent by the child.
fn classify(status: Status) -> ChildError {
    let text = status.message().to_owned();
    if let Some(source) = status.source() {
        let mut causes = std::iter::successors(Some(source), |error| (*error).source());
        let unconnected = causes.any(|error| error.is::<tonic::ConnectError>());
        let root = std::iter::successors(Some(source), |error| (*error).source()).last();
        let why = root.map_or(text, ToString::to_string);
        return if unconnected {
            ChildError::Down(format!("cannot connect: {why}"))
        } else {
            ChildError::Lost(format!("connection lost: {why}"))
        };
    }
    match Reason::of(&status) {
        Some(Reason::DiskFull) => return ChildError::DiskFull(text),
        Some(Reason::TooManyProducers) => return ChildError::TooManyProducers(text),
        Some(Reason::SequenceTooOld) => return ChildError::SequenceTooOld(text),
        None => {}
    }
    match status.code() {
        Code::Unavailable => ChildError::Restarting(text),
        Code::ResourceExhausted => ChildError::Overloaded(text),
        Code::FailedPrecondition => ChildError::Stale(text),
        Code::InvalidArgument | Code::NotFound => ChildError::Refused(text),
        Code::OutOfRange => ChildError::TooLarge(text),
        Code::DeadlineExceeded => ChildError::Timeout,
        Code::Unimplemented => ChildError::NotServed,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Aborted
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => ChildError::Failed(text),
    }
}

fn append_request(table: &str, rows: Bytes, part: Option<&Part>) -> wire::AppendRequest {
    let mut request = wire::AppendRequest { table: table.to_owned(), rows, ..Default::default() };
    if let Some(part) = part {
        (request.part, request.last_part) = (part.number, part.is_last);
        match &*part.sender {
            Sender::Producer { producer, sequence } => {
                (request.producer, request.sequence) = (producer.clone(), *sequence);
            }
            Sender::Key(key) => request.idempotency_key = key.clone(),
        }
    }
    request
}

/// A plan as the wire has it; made once for all children.
pub fn wire_plan(plan: &Plan) -> wire::Plan {
    plan.into()
}
