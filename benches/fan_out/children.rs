//! Children that only wait and answer: a server stands for hundreds of them and tells them apart by the loopback address
//! that was connected to, so that thousands of them take few listeners and little of the processor. They are a process of
//! their own, which ends with its standard input: thousands of connections have two ends, and a process has so many files.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
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
/// Children of one listener: all may connect at once, and what does not fit into its queue is reset.
const SERVED_TOGETHER: usize = 256;
/// The argument that makes this program the children.
const SERVE: &str = "--serve";

/// How long children take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delays {
    /// The shortest.
    pub(crate) least_ms: u64,
    /// The longest; those between are evenly spread.
    pub(crate) most_ms: u64,
}

/// The process of the children.
#[derive(Debug)]
pub(crate) struct Children {
    process: Child,
}

impl Drop for Children {
    fn drop(&mut self) {
        // It is not there any more, or will not be.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Who answers.
#[derive(Debug)]
struct Served {
    delays: Delays,
    pieces: Vec<Bytes>,
}

#[derive(Clone)]
struct Door(Arc<Served>);

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
    /// Starts so many; gives back their addresses.
    pub(crate) fn start(count: usize, delays: Delays) -> (Children, Vec<String>) {
        let program = std::env::current_exe().expect("this program has a path");
        let numbers = [count as u64, delays.least_ms, delays.most_ms].map(|number| number.to_string());
        let mut command = Command::new(program);
        command.arg(SERVE).args(numbers).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("this program can be started again");
        let said = process.stdout.take().expect("its output is a pipe");
        let addresses: Result<Vec<String>, _> = BufReader::new(said).lines().take(count).collect();
        let addresses = addresses.expect("it says its addresses, as text");
        assert_eq!(addresses.len(), count, "the children did not start");
        (Children { process }, addresses)
    }

    /// Its id.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }
}

/// Serves and does not return, if this process was started for it.
pub(crate) async fn serve_if_asked() {
    let words = std::env::args().skip_while(|word| word != SERVE).skip(1);
    let numbers: Vec<u64> = words.map(|word| word.parse().expect("a number comes after --serve")).collect();
    let [count, least_ms, most_ms] = numbers[..] else { return };
    let pieces = encode_body(&body()).expect("a small body has its bytes");
    let count = count as usize;
    let served = Arc::new(Served { delays: Delays { least_ms, most_ms }, pieces });
    let mut addresses = BTreeSet::new();
    for first in (0..count).step_by(SERVED_TOGETHER) {
        // All of 127.0.0.0/8 is this machine, but only a listener on every address hears it.
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("a listener has an address").port();
        let server = tonic::transport::Server::builder()
            .add_service(QueryServer::new(Door(Arc::clone(&served))))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        tokio::spawn(server);
        let together = first..count.min(first + SERVED_TOGETHER);
        addresses.extend(together.map(|child| SocketAddr::new(address(child), port).to_string()));
    }
    let said = addresses.into_iter().map(|address| address + "\n").collect::<String>();
    std::io::stdout().write_all(said.as_bytes()).expect("somebody listens");
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    // However it ended, nobody wants the children any more.
    let _ = ended.await;
    std::process::exit(0);
}

impl Served {
    fn delay(&self, child: usize) -> Duration {
        let Delays { least_ms, most_ms } = self.delays;
        // The golden ratio spreads any number of them evenly, the slowest anywhere among them.
        let share = (child as f64 * 0.618_033_988_75).fract();
        Duration::from_millis(least_ms) + Duration::from_millis(most_ms - least_ms).mul_f64(share)
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
        let scan_us_max = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let stats = ScanStats { rows_scanned: rows_covered, scan_us_max, ..Default::default() };
        let bodies =
            self.0.pieces.iter().map(|body| wire::RunReply { body: body.clone(), ..Default::default() });
        let last = wire::RunReply {
            completeness: Some((&completeness).into()),
            stats: Some((&stats).into()),
            ..Default::default()
        };
        let replies: Vec<_> = bodies.chain([last]).map(Ok).collect();
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
