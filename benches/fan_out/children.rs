//! Children that only wait and answer: a server stands for hundreds of them and tells them apart by the loopback address
//! that was connected to, so that thousands of them take few listeners and little of the processor.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use bytes::Bytes;
use futures::Stream;
use gannet_proto::wire::query_server::{Query, QueryServer};
use gannet_proto::{encode_body, wire};
use gannet_query::{
    Aggregate, AggregateFunction, Body, ColumnHolding, ColumnType, Completeness, Expr, Groups, Holdings,
    Input, Key, LeafEpoch, LeafState, Output, Plan, ScanStats, Span, States, TableHolding, TimeRange,
    TypeSet, Values, WeightKind, Weights,
};
use tokio::net::TcpListener;
use tonic::transport::server::{TcpConnectInfo, TcpIncoming};
use tonic::{Request, Response, Status};

/// Groups of each answer.
pub(crate) const GROUPS: usize = 100;
/// Rows that each child has of each group.
pub(crate) const ROWS: usize = 3;
/// The longest that a child takes.
pub(crate) const SLOWEST: Duration = Duration::from_millis(50);
/// The shortest, when they differ.
const QUICKEST: Duration = Duration::from_millis(10);

/// Children of one listener: all may connect at once, and what does not fit into its queue is reset.
const SERVED_TOGETHER: usize = 256;

/// How long children take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delays {
    /// All of them the same.
    Together,
    /// From the quickest to the slowest.
    Spread,
}

/// Answers of children as the wire has them, and how long the slowest took.
#[derive(Debug)]
pub(crate) struct Children {
    count: usize,
    delays: Delays,
    pieces: Vec<Bytes>,
    slowest_us: AtomicU64,
}

#[derive(Clone)]
struct Door(Arc<Children>);

type Replies = Pin<Box<dyn Stream<Item = Result<wire::RunReply, Status>> + Send>>;

/// The plan that is asked: counts and sums by a text.
pub(crate) fn plan() -> Plan {
    let of = |function, argument: Option<&str>| Aggregate {
        function,
        argument: argument.map(|name| (Expr::column(name), DataType::Int64)),
        filter: None,
        weighted: false,
    };
    Plan {
        table: "t".into(),
        columns: vec![("service".into(), ColumnType::String), ("x".into(), ColumnType::Int)],
        time_range: TimeRange::ALL,
        filter: None,
        weight: WeightKind::One,
        output: Output::Groups {
            keys: vec![Key { expr: Expr::column("service"), data_type: DataType::Utf8 }],
            aggregates: vec![of(AggregateFunction::Count, None), of(AggregateFunction::Sum, Some("x"))],
        },
    }
}

/// What each child answers.
fn body() -> Body {
    let plan = plan();
    let Output::Groups { aggregates, .. } = &plan.output else { panic!("the plan has groups") };
    let texts: StringArray = (0..GROUPS).map(|group| Some(format!("service-{group}"))).collect();
    let groups: Vec<u32> = (0..GROUPS * ROWS).map(|row| (row % GROUPS) as u32).collect();
    let values: Vec<i64> = (0..groups.len() as i64).collect();
    let states = aggregates.iter().map(|aggregate| {
        let mut states = States::new(aggregate, plan.weight).expect("counts and sums of ints there are");
        states.resize(GROUPS);
        let values = match aggregate.argument {
            None => Values::None,
            Some(_) => Values::Int(&values),
        };
        let input = Input { values, validity: None, weights: Weights::One, times: &[] };
        states.update(&groups, &input).expect("every row has a group");
        states.settle();
        states
    });
    let states = states.collect();
    Body::Groups(Groups { keys: vec![Arc::new(texts) as ArrayRef], states, group_count: GROUPS })
}

impl Children {
    /// Serves so many; gives back their addresses.
    pub(crate) async fn serve(count: usize, delays: Delays) -> (Arc<Children>, Vec<String>) {
        let pieces = encode_body(&body()).expect("a small body has its bytes");
        let children = Arc::new(Children { count, delays, pieces, slowest_us: AtomicU64::new(0) });
        let mut addresses = BTreeSet::new();
        for first in (0..count).step_by(SERVED_TOGETHER) {
            // All of 127.0.0.0/8 is this machine, but only a listener on every address hears it.
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.expect("a port is free");
            let port = listener.local_addr().expect("a listener has an address").port();
            let server = tonic::transport::Server::builder()
                .add_service(QueryServer::new(Door(Arc::clone(&children))))
                .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
            tokio::spawn(server);
            let together = first..count.min(first + SERVED_TOGETHER);
            addresses.extend(together.map(|child| SocketAddr::new(address(child), port).to_string()));
        }
        (children, addresses.into_iter().collect())
    }

    /// The longest that one of them took since this was called last.
    pub(crate) fn slowest(&self) -> Duration {
        Duration::from_micros(self.slowest_us.swap(0, Ordering::Relaxed))
    }

    fn delay(&self, child: usize) -> Duration {
        match self.delays {
            Delays::Together => SLOWEST,
            // The golden ratio spreads any number of them evenly.
            Delays::Spread => {
                let share = (child as f64 * 0.618_033_988_75).fract();
                if child + 1 == self.count { SLOWEST } else { QUICKEST + (SLOWEST - QUICKEST).mul_f64(share) }
            }
        }
    }
}

/// The loopback address of a child.
fn address(child: usize) -> IpAddr {
    let [_, high, middle, low] = (child as u32 + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 1 + high, middle, low))
}

/// Which child was connected to.
fn child_of<T>(request: &Request<T>) -> Result<usize, Status> {
    let connected = request.extensions().get::<TcpConnectInfo>();
    let ends = connected.and_then(|ends| Some((ends.local_addr()?.ip(), ends.remote_addr()?.ip())));
    match ends {
        Some((IpAddr::V4(local), IpAddr::V4(remote))) if local.is_loopback() && remote.is_loopback() => {
            let [_, high, middle, low] = local.octets();
            Ok(u32::from_be_bytes([0, high.wrapping_sub(1), middle, low]).wrapping_sub(1) as usize)
        }
        _ => Err(Status::permission_denied("only this machine is answered")),
    }
}

fn holdings(child: usize) -> Holdings {
    let rows = (GROUPS * ROWS) as u64;
    let column = |name: &str, column_type| ColumnHolding {
        name: name.into(),
        types: TypeSet::of(column_type, false),
        value_count: rows,
        distinct_estimate: rows,
        bytes: 8 * rows,
    };
    let columns = [("time", ColumnType::Time), ("service", ColumnType::String), ("x", ColumnType::Int)];
    let table = TableHolding {
        name: "t".into(),
        rows,
        bytes: 24 * rows,
        spans: vec![Span::of(0, 0, rows)],
        time_range: Some((0, 0)),
        columns: columns.into_iter().map(|(name, column_type)| column(name, column_type)).collect(),
        schema_version: 1,
        ..Default::default()
    };
    Holdings {
        leaf: format!("leaf-{child}"),
        epoch: 1,
        version: "0.1.0".into(),
        state: LeafState::Serving,
        source: "nothing".into(),
        source_detail: String::new(),
        memory_used_bytes: 24 * rows,
        memory_limit_bytes: 1 << 30,
        phases: vec![],
        tables: vec![table],
        rows_ingested: 0,
        rows_restored: rows,
        process: "bench:1".into(),
        machine: "bench".into(),
    }
}

#[tonic::async_trait]
impl Query for Door {
    type RunStream = Replies;

    async fn run(&self, request: Request<wire::RunRequest>) -> Result<Response<Replies>, Status> {
        let begun = Instant::now();
        let child = child_of(&request)?;
        tokio::time::sleep_until((begun + self.0.delay(child)).into()).await;
        let answered = LeafEpoch { leaf: format!("leaf-{child}"), epoch: 1 };
        let rows_covered = (GROUPS * ROWS) as u64;
        let completeness = Completeness { answered: vec![answered], rows_covered, ..Default::default() };
        let stats = ScanStats { rows_scanned: rows_covered, ..Default::default() };
        let bodies =
            self.0.pieces.iter().map(|body| wire::RunReply { body: body.clone(), ..Default::default() });
        let last = wire::RunReply {
            completeness: Some((&completeness).into()),
            stats: Some((&stats).into()),
            ..Default::default()
        };
        let replies: Vec<_> = bodies.chain([last]).map(Ok).collect();
        self.0.slowest_us.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        Ok(Response::new(Box::pin(futures::stream::iter(replies))))
    }

    async fn describe(
        &self,
        request: Request<wire::DescribeRequest>,
    ) -> Result<Response<wire::DescribeReply>, Status> {
        let leaves = vec![(&holdings(child_of(&request)?)).into()];
        Ok(Response::new(wire::DescribeReply { leaves, ..Default::default() }))
    }
}
