//! The gRPC door of a leaf: wire → domain, call, error → status. Nothing else in the leaf knows the wire.
//!
//! Work never runs on the runtime's threads: plans and batches go to blocking threads, scans from there to the leaf's
//! pool. A caller that goes away cancels its scan.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use gannet_proto::address::{ChildAddress, Guard, Listener, grpc_server};
use gannet_proto::convert::wanted;
use gannet_proto::exposed::{Exposed, Protection, Way};
use gannet_proto::tls::{self, Tls};
use gannet_proto::wire::admin_server::{Admin, AdminServer};
use gannet_proto::wire::ingest_server::{Ingest, IngestServer};
use gannet_proto::wire::query_server::{Query, QueryServer};
use gannet_proto::{MESSAGE_BYTES_MAX, PLAN_BYTES_MAX, Reason, decode_batches, wire};
use gannet_query::Plan;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::dedup::{BatchName, DedupError};
use crate::scan::Deadline;
use crate::surroundings::JobKind;
use crate::{Batch, Config, Leaf, LeafError, membership};

mod answers;

use answers::{Question, Replies};

/// How often sealing by age, retention and the manifest are looked after.
const MAINTENANCE: Duration = Duration::from_secs(1);
/// Runs a leaf until `shutdown` resolves or somebody calls Admin.Stop, then hands over.
///
/// # Errors
/// When it cannot start, listen, or hand over.
pub async fn run(config: Config, shutdown: impl Future<Output = ()> + Send) -> Result<(), LeafError> {
    // Before anything is touched: a leaf that may not serve should not have started.
    let (address, tls) = way_in(&config)?;
    raise_file_limit();
    let attached = blocking(move || Leaf::attach(config)).await?;
    let listener = Listener::bind(&address).await.map_err(|error| wrong_listen(&address, &error))?;
    let leaf = Arc::clone(&attached.leaf);
    let at = listener.local_address().map_err(|error| wrong_listen(&address, &error))?;
    membership::tell(&leaf, &at).await?;
    // Queries are answered meanwhile.
    let begun = blocking(move || attached.begin());
    serve_from(leaf, begun, listener, tls, shutdown).await
}

/// Serves a started leaf on a listener until `shutdown` resolves or somebody calls Admin.Stop, then hands over.
///
/// # Errors
/// When the server or the disk fails. A hand-over that finds no room is no error: the next start reads from disk.
pub async fn serve(
    leaf: Arc<Leaf>,
    listener: Listener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), LeafError> {
    let begun = std::future::ready(Ok(Arc::clone(&leaf)));
    let tls = tls_of(leaf.config())?;
    let at = listener.local_address().map_err(|error| wrong_listen(&leaf.config().listen, &error))?;
    membership::tell(&leaf, &at).await?;
    serve_from(leaf, begun, listener, tls, shutdown).await
}

/// Checks that a leaf with these settings may listen where it is told to, and that it can show its certificates.
///
/// # Errors
/// When it may not, with what to do; or when a file cannot be used.
pub fn check_way_in(config: &Config) -> Result<(), LeafError> {
    way_in(config).map(|_| ())
}

/// Where to listen, and the certificates to show.
fn way_in(config: &Config) -> Result<(ChildAddress, Option<Arc<Tls>>), LeafError> {
    let address = config.listen.parse().map_err(|error| wrong_listen(&config.listen, &error))?;
    let tls = tls_of(config)?;
    check_exposure(&address, tls.is_some(), config.insecure)?;
    Ok((address, tls))
}

fn wrong_listen(listen: &dyn std::fmt::Display, error: &dyn std::fmt::Display) -> LeafError {
    LeafError::Config(format!("setting listen is {listen}: {error}"))
}

/// The certificates that settings name.
fn tls_of(config: &Config) -> Result<Option<Arc<Tls>>, LeafError> {
    let settings = tls::Settings {
        authority: config.tls_ca.as_ref(),
        certificate: config.tls_cert.as_ref(),
        key: config.tls_key.as_ref(),
        name: config.tls_name.as_deref(),
    };
    Tls::of_settings(settings).map_err(|error| LeafError::Config(error.to_string()))
}

/// Refuses to listen to other machines without TLS, unless a person insists.
fn check_exposure(address: &ChildAddress, tls: bool, insecure: bool) -> Result<(), LeafError> {
    match Exposed::find(Way::Grpc, address, Protection { tls, tokens: false }) {
        None => Ok(()),
        Some(_) if insecure => Ok(()),
        Some(exposed) => Err(LeafError::Config(format!("{exposed}: {}", exposed.hint()))),
    }
}

/// Serves a leaf whose start ends when `begun` does; nothing but queries happens before that.
async fn serve_from(
    leaf: Arc<Leaf>,
    begun: impl Future<Output = Result<Arc<Leaf>, LeafError>> + Send,
    listener: Listener,
    tls: Option<Arc<Tls>>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), LeafError> {
    let _refreshed = tls.clone().map(|tls| EndOnDrop(tokio::spawn(tls::look_after(tls, "gRPC"))));
    if let Ok(address) = listener.local_address() {
        tracing::info!(%address, tls = tls.is_some(), "listening");
        let protection = Protection { tls: tls.is_some(), tokens: false };
        if let Some(exposed) = Exposed::find(Way::Grpc, &address, protection) {
            tracing::warn!(%address, "insecure: gRPC is open to other machines without {}", exposed.lacks);
        }
    }
    let incoming = listener.guarded(Guard { tls, ..Guard::default() });
    let stop = Arc::new(Notify::new());
    let door = Door {
        queries: Arc::new(Semaphore::new(leaf.config().queries_running_max)),
        leaf: Arc::clone(&leaf),
        stop: Arc::clone(&stop),
    };
    let (close, closed) = tokio::sync::oneshot::channel::<()>();
    let server = services(door).serve_with_incoming_shutdown(incoming, async {
        let _ = closed.await;
    });
    let mut server = EndOnDrop(tokio::spawn(server));
    // A stop waits for this as well: a start that was noted by half is no start.
    let leaf = begun.await?;
    let _maintenance = EndOnDrop(tokio::spawn(maintain(Arc::clone(&leaf))));
    let mut shutdown = std::pin::pin!(shutdown);
    tokio::select! {
        () = &mut shutdown => {}
        () = stop.notified() => {}
    }
    // The server goes on while the leaf hands over: it tells the state, and refuses the rest with "come back".
    let outcome = hand_over(&leaf).await;
    let _ = close.send(());
    // Connections that stay open must not keep the process.
    match tokio::time::timeout(Duration::from_secs(1), &mut server.0).await {
        Ok(Ok(Err(error))) => tracing::warn!(%error, "the server ended with an error"),
        Ok(Err(error)) => tracing::warn!(%error, "the server's task failed"),
        Ok(Ok(Ok(()))) | Err(_) => {}
    }
    outcome
}

/// The three services with the limits of their messages, in both directions.
fn services(door: Door) -> tonic::transport::server::Router {
    grpc_server()
        .add_service(
            QueryServer::new(door.clone())
                .max_decoding_message_size(PLAN_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(
            IngestServer::new(door.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(
            AdminServer::new(door)
                .max_decoding_message_size(PLAN_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
}

/// A task that ends with whoever waits for it.
struct EndOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for EndOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn hand_over(leaf: &Arc<Leaf>) -> Result<(), LeafError> {
    let handed = Arc::clone(leaf);
    beside(leaf, JobKind::HandOver, move || handed.hand_over()).await.map(|_| ())
}

/// Every segment that is mapped holds a descriptor; a leaf of many gigabytes holds thousands.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

async fn maintain(leaf: Arc<Leaf>) {
    let mut ticks = tokio::time::interval(MAINTENANCE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let kept = Arc::clone(&leaf);
        let maintained = move || {
            kept.maintain();
            Ok(())
        };
        if beside(&leaf, JobKind::Request, maintained).await.is_err() {
            tracing::error!("maintenance failed; it goes on at its next turn");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LeafError> + Send + 'static,
) -> Result<T, LeafError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(LeafError::Internal(format!("a thread ended early: {error}"))),
    }
}

/// Has work done that must not run on the runtime's threads.
async fn beside<T: Send + 'static>(
    leaf: &Leaf,
    kind: JobKind,
    work: impl FnOnce() -> Result<T, LeafError> + Send + 'static,
) -> Result<T, LeafError> {
    let (reply, done) = oneshot::channel();
    // Nobody may be waiting any more.
    leaf.surroundings.background.spawn(kind, Box::new(move || drop(reply.send(work()))));
    done.await.unwrap_or_else(|_| Err(LeafError::Internal("a thread ended early".to_owned())))
}

/// The three services over one leaf.
#[derive(Debug, Clone)]
struct Door {
    leaf: Arc<Leaf>,
    queries: Arc<Semaphore>,
    stop: Arc<Notify>,
}

/// What a batch is called; none when its sender does not say.
fn name_of(request: &wire::AppendRequest) -> Option<BatchName> {
    let wire::AppendRequest { table, producer, idempotency_key: key, .. } = request;
    let (part, last_part) = (request.part, request.last_part);
    if !key.is_empty() {
        return Some(BatchName::of_key(table, key.as_bytes(), part, last_part));
    }
    (!producer.is_empty()).then(|| BatchName {
        table: table.clone(),
        producer: producer.clone(),
        sequence: request.sequence,
        part,
        last_part,
    })
}

/// One exhaustive match from error to status.
fn status(error: LeafError) -> Status {
    let text = error.to_string();
    match error {
        LeafError::NotServing { .. } | LeafError::NoRoom { .. } => Status::unavailable(text),
        LeafError::Full { .. } => Status::resource_exhausted(text),
        // It passes when blocks are written.
        LeafError::LogFull { .. } => Status::resource_exhausted(text),
        // A batch may be in the log all the same: nobody knows what became of it.
        LeafError::Log(error) if error.may_survive() => {
            tracing::error!(error = text, "the outcome of a batch is unknown");
            Status::internal(text)
        }
        LeafError::Log(error) if error.is_full() => Reason::DiskFull.status(text),
        LeafError::Log(_) | LeafError::Disk { .. } => {
            tracing::error!(error = text, "request failed");
            Status::unavailable(text)
        }
        LeafError::Sequence(DedupError::TooOld { .. }) => Reason::SequenceTooOld.status(text),
        LeafError::Sequence(DedupError::TooManyProducers { .. }) => Reason::TooManyProducers.status(text),
        LeafError::Sequence(_) => Status::invalid_argument(text),
        // Not overload, which passes: this query is too large for any leaf.
        LeafError::Limit(_) => Status::out_of_range(text),
        LeafError::StalePlan { .. } => Status::failed_precondition(text),
        LeafError::Batch { .. } | LeafError::Plan(_) => Status::invalid_argument(text),
        LeafError::Config(_)
        | LeafError::Manifest { .. }
        | LeafError::Block(_)
        | LeafError::Shm(_)
        | LeafError::Internal(_) => {
            tracing::error!(error = text, "request failed");
            Status::internal(text)
        }
    }
}

/// The leaf can do this only while it serves or drains.
fn wrong_state(error: &LeafError) -> Status {
    Status::failed_precondition(error.to_string())
}

impl Door {
    /// Whether a request that names a leaf and a life of it is for this one.
    fn is_meant(&self, leaf: &str, epoch: u64) -> Result<(), Status> {
        let (id, own) = (self.leaf.id(), self.leaf.epoch());
        if !leaf.is_empty() && leaf != id {
            return Err(Status::not_found(format!("this is leaf {id}, not {leaf}")));
        }
        if epoch != 0 && epoch != own {
            let text =
                format!("leaf {id} has been started {own} times, and this was meant for start {epoch}");
            return Err(Status::failed_precondition(text));
        }
        Ok(())
    }
}

fn wrong(what: impl std::fmt::Display) -> Status {
    Status::invalid_argument(what.to_string())
}

#[tonic::async_trait]
impl Query for Door {
    type RunStream = Replies;

    async fn run(&self, request: Request<wire::RunRequest>) -> Result<Response<Replies>, Status> {
        let request = request.into_inner();
        let left = Duration::from_millis(u64::from(request.deadline_ms));
        let deadline = Instant::now() + left;
        let plan =
            Plan::try_from(request.plan.ok_or_else(|| wrong("a request without a plan"))?).map_err(wrong)?;
        let wanted = wanted(&plan, request.top, request.loose, request.groups_max, request.alone);
        let wanted = wanted.map_err(wrong)?;
        let permit = tokio::time::timeout_at(deadline, Arc::clone(&self.queries).acquire_owned());
        let permit = match permit.await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) | Err(_) => {
                return Err(Status::resource_exhausted("too many queries run on this leaf"));
            }
        };
        let question = Question { leaf: Arc::clone(&self.leaf), plan, wanted, permit };
        let clock = Arc::clone(&self.leaf.surroundings.clock);
        let left = deadline.saturating_duration_since(Instant::now());
        let deadline = Deadline { at: clock.monotonic() + left, clock };
        if request.so_far_ms == 0 {
            return Ok(Response::new(answers::at_once(question, deadline).await?));
        }
        let every = Duration::from_millis(u64::from(request.so_far_ms));
        Ok(Response::new(answers::refined(question, deadline, every, request.so_far_body)))
    }

    async fn describe(
        &self,
        _: Request<wire::DescribeRequest>,
    ) -> Result<Response<wire::DescribeReply>, Status> {
        let leaf = Arc::clone(&self.leaf);
        let holdings =
            beside(&self.leaf, JobKind::Request, move || Ok(leaf.describe())).await.map_err(status)?;
        Ok(Response::new(wire::DescribeReply { leaves: vec![(&holdings).into()], ..Default::default() }))
    }
}

#[tonic::async_trait]
impl Ingest for Door {
    async fn append(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::AppendReply>, Status> {
        let request = request.into_inner();
        let leaf = Arc::clone(&self.leaf);
        let append = move || {
            let batches = decode_batches(&request.rows).map_err(|error| LeafError::Batch {
                table: request.table.clone(),
                what: error.to_string(),
            })?;
            let accepted = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            let name = name_of(&request);
            let batch =
                Batch { table: &request.table, rows: &batches, encoded: Some(request.rows.clone()), name };
            let receipt = leaf.append_batch(batch)?;
            let duplicate = if receipt.duplicate { accepted } else { 0 };
            let durability = receipt.durability.name().to_owned();
            Ok((accepted, duplicate, durability, leaf.describe_table(receipt.holding)))
        };
        let taken = beside(&self.leaf, JobKind::Request, append).await.map_err(status)?;
        let (accepted, duplicate, durability, holdings) = taken;
        let holdings = Some((&holdings).into());
        Ok(Response::new(wire::AppendReply { accepted, durability, holdings, duplicate }))
    }
}

#[tonic::async_trait]
impl Admin for Door {
    async fn stop(&self, request: Request<wire::StopRequest>) -> Result<Response<wire::StopReply>, Status> {
        let wire::StopRequest { leaf, epoch } = request.into_inner();
        self.is_meant(&leaf, epoch)?;
        self.stop.notify_one();
        Ok(Response::new(wire::StopReply {}))
    }

    async fn drain(
        &self,
        request: Request<wire::DrainRequest>,
    ) -> Result<Response<wire::DrainReply>, Status> {
        let wire::DrainRequest { leaf, epoch } = request.into_inner();
        self.is_meant(&leaf, epoch)?;
        let leaf = Arc::clone(&self.leaf);
        let drained = beside(&self.leaf, JobKind::Request, move || leaf.drain()).await;
        let drained = drained.map_err(|error| wrong_state(&error))?;
        Ok(Response::new(wire::DrainReply { already: drained.already, settled: drained.settled }))
    }

    async fn undrain(
        &self,
        request: Request<wire::UndrainRequest>,
    ) -> Result<Response<wire::UndrainReply>, Status> {
        let wire::UndrainRequest { leaf, epoch } = request.into_inner();
        self.is_meant(&leaf, epoch)?;
        let already = self.leaf.undrain().map_err(|error| wrong_state(&error))?;
        Ok(Response::new(wire::UndrainReply { already }))
    }

    async fn accept_loss(
        &self,
        request: Request<wire::AcceptLossRequest>,
    ) -> Result<Response<wire::AcceptLossReply>, Status> {
        let named = request.into_inner().leaf;
        if named != self.leaf.id() {
            return Err(Status::not_found(format!("this is leaf {}, not {named}", self.leaf.id())));
        }
        let leaf = Arc::clone(&self.leaf);
        let rows = beside(&self.leaf, JobKind::Request, move || leaf.accept_loss()).await.map_err(status)?;
        Ok(Response::new(wire::AcceptLossReply { rows }))
    }

    async fn delete_table(
        &self,
        request: Request<wire::DeleteTableRequest>,
    ) -> Result<Response<wire::DeleteTableReply>, Status> {
        let (leaf, table) = (Arc::clone(&self.leaf), request.into_inner().table);
        let delete = move || leaf.delete_table(&table);
        let rows = beside(&self.leaf, JobKind::Request, delete).await.map_err(status)?;
        Ok(Response::new(wire::DeleteTableReply { rows }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_leaf_that_would_be_open_does_not_start() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("leaf");
        let config =
            Config { listen: "0.0.0.0:0".to_owned(), data_dir: data_dir.clone(), ..Config::default() };
        let error = run(config, std::future::pending()).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "gRPC on 0.0.0.0:0 would be open to other machines without TLS at both ends: give --tls-ca, --tls-cert \
             and --tls-key (`gannet cluster certificates` makes them), or listen on 127.0.0.1; --insecure opens it \
             as it is, for networks you trust"
        );
        assert!(!data_dir.exists(), "nothing was touched");
        let check = |address: &str, tls: bool, insecure: bool| {
            check_exposure(&address.parse().unwrap(), tls, insecure).is_ok()
        };
        assert!(check("127.0.0.1:0", false, false) && check("unix:a", false, false));
        assert!(check("0.0.0.0:0", true, false) && check("0.0.0.0:0", false, true));
    }
}
