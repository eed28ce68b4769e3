//! Children that only wait and answer: a server stands for hundreds of them and tells them apart by the loopback address
//! that was connected to, so that thousands of them take few listeners and little of the processor. They are a process of
//! their own, which ends with its standard input: thousands of connections have two ends, and a process has so many files.
//! What they say is gRPC, but no more than it takes to say it: on machines of their own they would cost the aggregators
//! nothing.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use bytes::Bytes;
use gannet_proto::{encode_body, wire};
use gannet_query::{
    Aggregate, AggregateFunction, Body, ColumnHolding, ColumnType, Completeness, Expr, Groups, Holdings,
    Input, Key, LeafEpoch, LeafState, Output, Plan, ScanStats, Span, States, TableHolding, TimeRange,
    TypeSet, Values, WeightKind, Weights,
};
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Request, Response};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};

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
    /// The messages with the body.
    bodies: Vec<u8>,
}

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
    let replies = pieces.into_iter().map(|body| wire::RunReply { body, ..Default::default() });
    let bodies = replies.flat_map(|reply| message(&reply)).collect();
    let count = count as usize;
    let served = Arc::new(Served { delays: Delays { least_ms, most_ms }, bodies });
    let mut addresses = BTreeSet::new();
    for first in (0..count).step_by(SERVED_TOGETHER) {
        // All of 127.0.0.0/8 is this machine, but only a listener on every address hears it.
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("a listener has an address").port();
        tokio::spawn(take_all(listener, Arc::clone(&served)));
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

/// Serves everybody who connects.
async fn take_all(listener: TcpListener, served: Arc<Served>) {
    loop {
        let (stream, _) = listener.accept().await.expect("there are enough files for all connections");
        stream.set_nodelay(true).expect("a connection of TCP can be set so");
        let served = Arc::clone(&served);
        tokio::spawn(async move {
            let child = child_of(&stream).expect("only this machine is answered");
            // However it ends: the bench counts the answers.
            let _ = take(stream, child, served).await;
        });
    }
}

/// Answers what a connection asks.
async fn take(stream: TcpStream, child: usize, served: Arc<Served>) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, reply) = request?;
        let served = Arc::clone(&served);
        tokio::spawn(async move { served.answer(child, request, reply).await });
    }
    Ok(())
}

/// Which child was connected to.
fn child_of(stream: &TcpStream) -> Option<usize> {
    match (stream.local_addr().ok()?.ip(), stream.peer_addr().ok()?.ip()) {
        (IpAddr::V4(local), IpAddr::V4(remote)) if local.is_loopback() && remote.is_loopback() => {
            let [_, high, middle, low] = local.octets();
            Some(u32::from_be_bytes([0, high.wrapping_sub(1), middle, low]).wrapping_sub(1) as usize)
        }
        _ => None,
    }
}

/// A message as gRPC has it: whether it is compressed, how long it is, and its bytes.
fn message(message: &impl Message) -> Vec<u8> {
    let mut bytes = vec![0; 5];
    message.encode(&mut bytes).expect("a vector has room");
    let length = u32::try_from(bytes.len() - 5).expect("the messages are small");
    bytes[1..5].copy_from_slice(&length.to_be_bytes());
    bytes
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
        takes_dictionaries: true,
    }
}

impl Served {
    async fn answer(
        &self,
        child: usize,
        request: Request<RecvStream>,
        mut reply: SendResponse<Bytes>,
    ) -> Result<(), h2::Error> {
        let begun = Instant::now();
        let (head, mut body) = request.into_parts();
        while let Some(piece) = body.data().await {
            body.flow_control().release_capacity(piece?.len())?;
        }
        let messages = match head.uri.path() {
            "/gannet.v1.Query/Describe" => {
                let leaves = vec![(&holdings(child)).into()];
                message(&wire::DescribeReply { leaves, ..Default::default() })
            }
            _ => self.run(child, begun).await,
        };
        let response = Response::builder().header(CONTENT_TYPE, "application/grpc").body(());
        let mut stream = reply.send_response(response.expect("the head is well formed"), false)?;
        stream.send_data(messages.into(), false)?;
        stream.send_trailers(HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), 0.into())]))
    }

    async fn run(&self, child: usize, begun: Instant) -> Vec<u8> {
        tokio::time::sleep_until((begun + self.delay(child)).into()).await;
        let answered = LeafEpoch { leaf: format!("leaf-{child}"), epoch: 1 };
        let rows_covered = (GROUPS * ROWS) as u64;
        let completeness = Completeness { answered: vec![answered], rows_covered, ..Default::default() };
        let scan_us_max = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let stats = ScanStats { rows_scanned: rows_covered, scan_us_max, ..Default::default() };
        let last = wire::RunReply {
            completeness: Some((&completeness).into()),
            stats: Some((&stats).into()),
            ..Default::default()
        };
        [self.bodies.as_slice(), &message(&last)].concat()
    }
}
