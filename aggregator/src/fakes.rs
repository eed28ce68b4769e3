//! Children for tests: gRPC servers on unix sockets that hold one number of rows and do what they are told.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array};
use futures::Stream;
use gannet_proto::address::{ChildAddress, Listener};
use gannet_proto::convert::wanted;
use gannet_proto::wire::admin_server::{Admin, AdminServer};
use gannet_proto::wire::ingest_server::{Ingest, IngestServer};
use gannet_proto::wire::query_server::{Query, QueryServer};
use gannet_proto::{Reason, decode_batches, encode_body, wire};
use gannet_query::{
    AggregateFunction, Body, ColumnHolding, ColumnType, Completeness, Groups, Holdings, Input, LeafEpoch,
    LeafState, Missing, MissingReason, Output, Plan, ScanStats, Span, States, TableHolding, TypeSet, Values,
    Wanted, Weights, cut_for_asker,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tonic::{Code, Request, Response, Status};

use crate::aggregator::Aggregator;
use crate::config::Config;

/// What a fake does when it is asked for a plan, or handed rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Does {
    /// What a leaf does.
    Work,
    /// Fails with this status.
    Fail(Code, &'static str),
    /// Refuses for a reason.
    Refuse(Reason, &'static str),
    /// Fails with this status so many times, then works.
    FailTimes(u32, Code),
    /// Takes its time, and works.
    Linger(Duration),
    /// Never replies.
    Hang,
    /// Sends its body and then nothing more.
    HangAfterBody,
    /// Ends its answer without completeness.
    EndEarly,
    /// Sends bytes that are no body.
    Garbage,
    /// Says what it has so far, this many of its rows, and then nothing more; only to those who want to hear it.
    SoFar(u64),
    /// The same with the record only.
    SoFarRecord(u64),
    /// Says what it has so far row by row, and then answers.
    Climb,
    /// Sends a byte now and then, and never ends.
    Drip,
    /// Sends as many bytes as are taken, and never ends.
    Flood,
    /// Counts distinct values, whether or not others are asked as well.
    Count,
}

/// How often a dripping fake sends a byte.
const DRIP: Duration = Duration::from_millis(5);

/// How long a climbing fake takes for half a row.
const STEP: Duration = Duration::from_millis(20);

/// A leaf that is not one.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) id: String,
    pub(crate) epoch: AtomicU64,
    pub(crate) rows: AtomicU64,
    /// How many rows have which value of `x`, for plans that group.
    pub(crate) groups: Mutex<Vec<(i64, u64)>>,
    pub(crate) runs: Mutex<Does>,
    pub(crate) appends: Mutex<Does>,
    pub(crate) runs_asked: AtomicU64,
    /// How many of the runs wanted only some groups.
    pub(crate) tops_asked: AtomicU64,
    /// How many of the runs said that nobody else is asked.
    pub(crate) alone_asked: AtomicU64,
    pub(crate) appends_asked: AtomicU64,
    pub(crate) deadline_ms: AtomicU64,
    /// How many aggregators stood between, in the last run.
    pub(crate) level: AtomicU64,
    /// It says nothing at all, as a process that was stopped.
    pub(crate) silent: AtomicBool,
    /// Runs whose asker went away before they ended.
    pub(crate) runs_abandoned: Arc<AtomicU64>,
    /// What it says that rows survive.
    pub(crate) durability: Mutex<&'static str>,
    /// The row batches it took, without their rows, as they came.
    pub(crate) parts: Mutex<Vec<wire::AppendRequest>>,
    /// What it is; what it becomes when it is told to stop, in its next life.
    pub(crate) state: Mutex<LeafState>,
    pub(crate) starts_as: Mutex<LeafState>,
    ingested: AtomicU64,
}

/// A fake that is being served.
pub(crate) struct Served {
    pub(crate) fake: Arc<Fake>,
    pub(crate) address: String,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    /// Serves a fake leaf of this many rows in a folder.
    pub(crate) async fn start(folder: &Path, id: &str, rows: u64) -> Served {
        Served::start_at(folder.join(format!("{id}.sock")), id, 1, rows).await
    }

    pub(crate) async fn start_at(path: PathBuf, id: &str, epoch: u64, rows: u64) -> Served {
        let fake = Arc::new(Fake::new(id, epoch, rows));
        let address = ChildAddress::Unix(path);
        let listener = Listener::bind(&address).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let door = Door(Arc::clone(&fake));
        let server = tonic::transport::Server::builder()
            .add_service(QueryServer::new(door.clone()))
            .add_service(IngestServer::new(door.clone()))
            .add_service(AdminServer::new(door))
            .serve_with_incoming_shutdown(listener.incoming(), async {
                let _ = stopped.await;
            });
        let task = tokio::spawn(async move { server.await.unwrap() });
        Served { fake, address: address.to_string(), stop: Some(stop), task }
    }

    /// Stops serving; connections are closed when this returns.
    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap();
    }

    /// Has it hold so many rows of each value of `x`.
    pub(crate) fn holds(&self, groups: impl IntoIterator<Item = (i64, u64)>) {
        let groups: Vec<(i64, u64)> = groups.into_iter().collect();
        self.fake.rows.store(groups.iter().map(|(_, rows)| rows).sum(), Ordering::SeqCst);
        *self.fake.groups.lock() = groups;
    }

    pub(crate) fn does(&self, does: Does) {
        *self.fake.runs.lock() = does;
    }

    pub(crate) fn does_with_rows(&self, does: Does) {
        *self.fake.appends.lock() = does;
    }
}

/// Settings for tests: these children, and no background work that a test does not wait for.
pub(crate) fn config(folder: &Path, children: &[&Served]) -> Config {
    Config {
        data_dir: folder.join("aggregator"),
        children: children.iter().map(|served| served.address.clone()).collect(),
        describe_interval_ms: 3_600_000,
        probe_interval_ms: 3_600_000,
        planning_threads: 1,
        ..Config::default()
    }
}

/// An aggregator over fakes.
pub(crate) async fn over(folder: &Path, children: &[&Served]) -> Arc<Aggregator> {
    Aggregator::start(config(folder, children)).await.unwrap()
}

/// Counts when it is dropped.
struct CountOnDrop(Arc<AtomicU64>);

impl Drop for CountOnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// What a fake leaf of this epoch and so many rows says of itself.
pub(crate) fn holdings(id: &str, epoch: u64, rows: u64) -> Holdings {
    Fake::new(id, epoch, rows).holdings()
}

impl Fake {
    fn new(id: &str, epoch: u64, rows: u64) -> Fake {
        Fake {
            id: id.to_owned(),
            epoch: AtomicU64::new(epoch),
            rows: AtomicU64::new(rows),
            groups: Mutex::default(),
            runs: Mutex::new(Does::Work),
            appends: Mutex::new(Does::Work),
            runs_asked: AtomicU64::new(0),
            tops_asked: AtomicU64::new(0),
            alone_asked: AtomicU64::new(0),
            appends_asked: AtomicU64::new(0),
            deadline_ms: AtomicU64::new(0),
            level: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            runs_abandoned: Arc::default(),
            durability: Mutex::new("memory"),
            parts: Mutex::default(),
            state: Mutex::new(LeafState::Serving),
            starts_as: Mutex::new(LeafState::Serving),
            ingested: AtomicU64::new(0),
        }
    }

    /// Never resolves while it is silent.
    async fn unless_silent(&self) {
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending().await
        }
    }

    /// What it says when it has seen so many of its rows.
    fn so_far(&self, plan: &Plan, rows: u64, with_body: bool) -> Vec<Result<wire::RunReply, Status>> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        let running = Missing {
            leaf: self.id.clone(),
            reason: MissingReason::Running,
            rows: Some(self.rows.load(Ordering::SeqCst) - rows),
            answered: true,
            detail: "at it".to_owned(),
        };
        let completeness = Completeness {
            answered: vec![LeafEpoch { leaf: self.id.clone(), epoch }],
            rows_covered: rows,
            missing: vec![running],
            ..Default::default()
        };
        let mut replies = Vec::new();
        if with_body {
            let pieces = encode_body(&self.body(plan, rows)).unwrap();
            replies.extend(pieces.into_iter().map(|body| Ok(wire::RunReply { body, ..Default::default() })));
        }
        replies.push(Ok(wire::RunReply {
            completeness: Some((&completeness).into()),
            so_far: if with_body { 1 } else { 2 },
            ..Default::default()
        }));
        replies
    }

    fn holdings(&self) -> Holdings {
        let rows = self.rows.load(Ordering::SeqCst);
        let column = |name: &str, column_type| ColumnHolding {
            name: name.into(),
            types: TypeSet::of(column_type, false),
            value_count: rows,
            distinct_estimate: 1,
            bytes: 8 * rows,
        };
        let table = TableHolding {
            name: "t".into(),
            rows,
            bytes: 16 * rows,
            spans: vec![Span::of(0, 0, rows)],
            time_range: Some((0, 0)),
            columns: vec![column("time", ColumnType::Time), column("x", ColumnType::Int)],
            schema_version: 1,
            ..Default::default()
        };
        let ingested = self.ingested.load(Ordering::SeqCst);
        Holdings {
            leaf: self.id.clone(),
            epoch: self.epoch.load(Ordering::SeqCst),
            version: "0.1.0".into(),
            state: *self.state.lock(),
            source: if self.epoch.load(Ordering::SeqCst) == 1 { "nothing" } else { "shared memory" }.into(),
            source_detail: String::new(),
            memory_used_bytes: 16 * rows,
            memory_limit_bytes: 1 << 30,
            phases: vec![],
            tables: if rows == 0 { vec![] } else { vec![table] },
            rows_ingested: ingested,
            rows_restored: rows - ingested.min(rows),
            process: "test:1".into(),
            machine: self.id.clone(),
            takes_dictionaries: true,
        }
    }

    fn is_meant(&self, epoch: u64) -> Result<(), Status> {
        match self.epoch.load(Ordering::SeqCst) {
            own if epoch == 0 || epoch == own => Ok(()),
            own => Err(Status::failed_precondition(format!("this is epoch {own}, not {epoch}"))),
        }
    }

    /// The body for a plan that only counts, over so many rows.
    fn body(&self, plan: &Plan, rows: u64) -> Body {
        let Output::Groups { keys, aggregates } = &plan.output else { panic!("fakes only count") };
        let held = self.groups.lock();
        let (group_count, groups): (usize, Vec<u32>) = match keys.is_empty() {
            true => (1, vec![0; rows as usize]),
            false => {
                let rows = |(group, (_, rows)): (usize, &(i64, u64))| vec![group as u32; *rows as usize];
                (held.len(), held.iter().enumerate().flat_map(rows).collect())
            }
        };
        let input = Input { values: Values::None, validity: None, weights: Weights::One, times: &[] };
        let states = aggregates.iter().map(|aggregate| {
            let mut states = States::new(aggregate, plan.weight).unwrap();
            states.resize(group_count);
            if aggregate.function == AggregateFunction::Distinct {
                // A value for each row.
                let values: Vec<i64> = (0..rows as i64).collect();
                let input = Input { values: Values::Int(&values), ..input };
                states.update(&groups, &input).unwrap();
                return states;
            }
            states.update(&groups, &input).unwrap();
            states
        });
        let values: ArrayRef = Arc::new(held.iter().map(|(value, _)| *value).collect::<Int64Array>());
        let keys = keys.iter().map(|_| Arc::clone(&values)).collect();
        Body::Groups(Groups { keys, states: states.collect(), group_count })
    }
}

/// What to do now; counts down what is done a number of times.
fn next(does: &Mutex<Does>) -> Does {
    let mut does = does.lock();
    match &mut *does {
        Does::FailTimes(0, _) => Does::Work,
        Does::FailTimes(left, code) => {
            *left -= 1;
            Does::Fail(*code, "for now")
        }
        other => other.clone(),
    }
}

#[derive(Clone)]
struct Door(Arc<Fake>);

type Replies = Pin<Box<dyn Stream<Item = Result<wire::RunReply, Status>> + Send>>;

#[tonic::async_trait]
impl Query for Door {
    type RunStream = Replies;

    async fn run(&self, request: Request<wire::RunRequest>) -> Result<Response<Replies>, Status> {
        let request = request.into_inner();
        self.0.runs_asked.fetch_add(1, Ordering::SeqCst);
        self.0.unless_silent().await;
        self.0.tops_asked.fetch_add(u64::from(request.top.is_some()), Ordering::SeqCst);
        self.0.alone_asked.fetch_add(u64::from(request.alone), Ordering::SeqCst);
        self.0.deadline_ms.store(u64::from(request.deadline_ms), Ordering::SeqCst);
        self.0.level.store(u64::from(request.level), Ordering::SeqCst);
        let plan = Plan::try_from(request.plan.unwrap()).unwrap();
        let wanted = wanted(&plan, request.top, request.loose, request.groups_max, request.alone).unwrap();
        let does = next(&self.0.runs);
        match &does {
            Does::Fail(code, text) => return Err(Status::new(*code, *text)),
            Does::Linger(time) => tokio::time::sleep(*time).await,
            Does::Hang => {
                let _abandoned = CountOnDrop(Arc::clone(&self.0.runs_abandoned));
                std::future::pending().await
            }
            _ => {}
        }
        if let Does::SoFar(rows) | Does::SoFarRecord(rows) = does
            && request.so_far_ms > 0
        {
            let with_body = request.so_far_body && matches!(does, Does::SoFar(_));
            let said = futures::stream::iter(self.0.so_far(&plan, rows, with_body));
            let hanging = futures::StreamExt::chain(said, futures::stream::pending());
            return Ok(Response::new(Box::pin(hanging)));
        }
        let body = self.0.body(&plan, self.0.rows.load(Ordering::SeqCst));
        let wanted = Wanted { alone: wanted.alone || does == Does::Count, ..wanted };
        let (body, left_out) = cut_for_asker(body, &plan, &wanted).unwrap();
        let pieces = encode_body(&body).unwrap();
        let piece = |body| Ok(wire::RunReply { body, ..Default::default() });
        let mut replies: Vec<_> = pieces.into_iter().map(piece).collect();
        let rows = self.0.rows.load(Ordering::SeqCst);
        let leaf = LeafEpoch { leaf: self.0.id.clone(), epoch: self.0.epoch.load(Ordering::SeqCst) };
        let completeness = Completeness { answered: vec![leaf], rows_covered: rows, ..Default::default() };
        let stats = ScanStats { rows_scanned: rows, stored_rows: rows, ..Default::default() };
        let last = Ok(wire::RunReply {
            body: Default::default(),
            completeness: Some((&completeness).into()),
            stats: Some((&stats).into()),
            so_far: 0,
            left_out: Some(left_out.into()),
        });
        match does {
            Does::Climb => {
                replies.push(last);
                let steps: Vec<_> = (1..rows).flat_map(|row| self.0.so_far(&plan, row, true)).collect();
                let ticks = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(STEP));
                let said = futures::StreamExt::map(
                    futures::StreamExt::zip(futures::stream::iter(steps), ticks),
                    |(reply, _)| reply,
                );
                let all = futures::StreamExt::chain(said, futures::stream::iter(replies));
                return Ok(Response::new(Box::pin(all)));
            }
            Does::HangAfterBody => {
                let hanging = futures::stream::pending();
                return Ok(Response::new(Box::pin(futures::StreamExt::chain(
                    futures::stream::iter(replies),
                    hanging,
                ))));
            }
            Does::Drip => {
                let drops = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(DRIP));
                return Ok(Response::new(Box::pin(futures::StreamExt::map(drops, move |_| {
                    piece("x".into())
                }))));
            }
            Does::Flood => {
                let flood = futures::stream::repeat_with(move || piece(vec![b'x'; 1 << 16].into()));
                return Ok(Response::new(Box::pin(flood)));
            }
            Does::EndEarly => {}
            Does::Garbage => {
                replies = vec![piece("no body".into()), last];
            }
            _ => replies.push(last),
        }
        Ok(Response::new(Box::pin(futures::stream::iter(replies))))
    }

    async fn describe(
        &self,
        _: Request<wire::DescribeRequest>,
    ) -> Result<Response<wire::DescribeReply>, Status> {
        self.0.unless_silent().await;
        let leaves = vec![(&self.0.holdings()).into()];
        Ok(Response::new(wire::DescribeReply { leaves, ..Default::default() }))
    }
}

#[tonic::async_trait]
impl Ingest for Door {
    async fn append(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::AppendReply>, Status> {
        self.0.appends_asked.fetch_add(1, Ordering::SeqCst);
        match next(&self.0.appends) {
            Does::Fail(code, text) => return Err(Status::new(code, text)),
            Does::Refuse(reason, text) => return Err(reason.status(text)),
            Does::Hang => std::future::pending().await,
            _ => {}
        }
        let mut request = request.into_inner();
        let batches = decode_batches(&request.rows).unwrap();
        let rows: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        request.rows.clear();
        let named = !request.producer.is_empty() || !request.idempotency_key.is_empty();
        let mut parts = self.0.parts.lock();
        // What comes again is not added again; a leaf that remembers nothing adds it.
        let known = named && parts.contains(&request) && *self.0.durability.lock() != "memory";
        parts.push(request);
        drop(parts);
        let added = if known { 0 } else { rows };
        self.0.rows.fetch_add(added, Ordering::SeqCst);
        self.0.ingested.fetch_add(added, Ordering::SeqCst);
        let holdings = Some((&self.0.holdings()).into());
        let durability = self.0.durability.lock().to_string();
        Ok(Response::new(wire::AppendReply { accepted: rows, durability, holdings, duplicate: rows - added }))
    }
}

#[tonic::async_trait]
impl Admin for Door {
    async fn stop(&self, request: Request<wire::StopRequest>) -> Result<Response<wire::StopReply>, Status> {
        self.0.is_meant(request.get_ref().epoch)?;
        *self.0.state.lock() = *self.0.starts_as.lock();
        self.0.epoch.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(wire::StopReply {}))
    }

    async fn drain(
        &self,
        request: Request<wire::DrainRequest>,
    ) -> Result<Response<wire::DrainReply>, Status> {
        self.0.is_meant(request.get_ref().epoch)?;
        let was = std::mem::replace(&mut *self.0.state.lock(), LeafState::Draining);
        Ok(Response::new(wire::DrainReply { already: was == LeafState::Draining, settled: true }))
    }

    async fn undrain(
        &self,
        request: Request<wire::UndrainRequest>,
    ) -> Result<Response<wire::UndrainReply>, Status> {
        self.0.is_meant(request.get_ref().epoch)?;
        let was = std::mem::replace(&mut *self.0.state.lock(), LeafState::Serving);
        Ok(Response::new(wire::UndrainReply { already: was == LeafState::Serving }))
    }

    async fn accept_loss(
        &self,
        _: Request<wire::AcceptLossRequest>,
    ) -> Result<Response<wire::AcceptLossReply>, Status> {
        Ok(Response::new(wire::AcceptLossReply { rows: 0 }))
    }

    async fn delete_table(
        &self,
        _: Request<wire::DeleteTableRequest>,
    ) -> Result<Response<wire::DeleteTableReply>, Status> {
        match next(&self.0.appends) {
            Does::Fail(code, text) => Err(Status::new(code, text)),
            _ => Ok(Response::new(wire::DeleteTableReply { rows: self.0.rows.swap(0, Ordering::SeqCst) })),
        }
    }
}
