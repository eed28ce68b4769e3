//! Real leaves with real rows below one aggregator: what does it add to what they take when they are asked by nobody
//! else? The leaves share the processors, and so the slowest of them is no faster than all of them together; that is why
//! the aggregator is compared with the same question put to all leaves at once, whose answers nobody merges.

use std::path::Path;
use std::time::Instant;

use gannet_aggregator::{Aggregator, Config, QueryOptions};
use gannet_benches::kernels::{Kernel, kernels};
use gannet_benches::{column_type, request_batches};
use gannet_leaf::Leaf;
use gannet_proto::address::{Listener, connect};
use gannet_proto::channel::Channel;
use gannet_proto::wire;
use gannet_proto::wire::query_client::QueryClient;
use gannet_query::WeightKind;

const LEAVES: usize = 8;
/// SQL, and the kernel that is its plan.
const QUESTIONS: [(&str, &str); 3] = [
    ("SELECT count(*) FROM requests", "count"),
    ("SELECT service, count(*), avg(latency_us) FROM requests GROUP BY service", "group string"),
    ("SELECT service, p99(latency_us) FROM requests GROUP BY service", "percentile by string"),
];

/// Prints what an aggregator adds, question by question.
pub(crate) async fn measure(rows: usize, runs: usize) {
    let folder = tempfile::tempdir().expect("a folder for the leaves");
    let (mut children, mut clients) = (Vec::with_capacity(LEAVES), Vec::with_capacity(LEAVES));
    for number in 0..LEAVES {
        let address = serve(folder.path(), number, rows).await;
        let channel = connect(&address.parse().expect("a path is an address"));
        clients.push(QueryClient::new(channel.expect("a path can be connected to")));
        children.push(address);
    }
    let config = Config { data_dir: folder.path().join("aggregator"), children, ..Config::default() };
    let aggregator = Aggregator::start(config).await.expect("an aggregator starts in an empty folder");
    println!("{LEAVES} leaves of {rows} rows; milliseconds, median of {runs}");
    println!("{:<22} {:>8} {:>13} {:>7}", "question", "answer", "leaves alone", "added");
    for (sql, name) in QUESTIONS {
        let kernel = kernels().into_iter().find(|kernel| kernel.name == name).expect("it is a kernel");
        let request = request(kernel);
        let (mut answers, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..runs + 3 {
            let begun = Instant::now();
            let answer = aggregator.query(sql, QueryOptions::default()).await.expect("every leaf answers");
            answers.push(begun.elapsed().as_secs_f64() * 1e3);
            assert_eq!(answer.completeness.ratio(), Some(1.0), "{sql}");
            let begun = Instant::now();
            let covered = futures::future::join_all(clients.iter().map(|client| ask(client, &request))).await;
            alone.push(begun.elapsed().as_secs_f64() * 1e3);
            assert_eq!(covered.iter().sum::<u64>(), (LEAVES * rows) as u64, "{name}");
        }
        let [answer, alone] = [answers, alone].map(|times| crate::median(&times[3..]));
        println!("{name:<22} {answer:>8.2} {alone:>13.2} {:>7.2}", answer - alone);
    }
}

/// The kernel as an aggregator asks for it: every row stands for as many as its weight says.
fn request(kernel: Kernel) -> wire::RunRequest {
    let mut plan = kernel.plan;
    plan.weight = WeightKind::Int;
    plan.columns.push(("sample_rate".to_owned(), column_type("sample_rate")));
    wire::RunRequest {
        plan: Some((&plan).into()),
        deadline_ms: 10_000,
        query_id: "alone".to_owned(),
        ..Default::default()
    }
}

/// Asks one leaf and hears its whole answer; gives back the rows that it covers.
async fn ask(client: &QueryClient<Channel>, request: &wire::RunRequest) -> u64 {
    let replies = client.clone().run(request.clone()).await;
    let mut replies = replies.expect("a leaf that serves answers").into_inner();
    let mut covered = 0;
    while let Some(reply) = replies.message().await.expect("a leaf ends its answer") {
        covered += reply.completeness.map_or(0, |completeness| completeness.rows_covered);
    }
    covered
}

/// Serves a leaf of so many rows on a unix socket.
async fn serve(folder: &Path, number: usize, rows: usize) -> String {
    let id = format!("leaf-{number}");
    let address = format!("unix:{}", folder.join(format!("{id}.sock")).display());
    let config = gannet_leaf::Config {
        data_dir: folder.join(&id),
        listen: address.clone(),
        id,
        scan_threads: 1,
        retention_seconds: 0,
        seal_into_shm: false,
        ..Default::default()
    };
    let listener = Listener::bind(&address.parse().expect("a path is an address")).await;
    let listener = listener.expect("nobody listens in a new folder");
    let started = tokio::task::spawn_blocking(move || {
        let leaf = Leaf::start(config).expect("a leaf starts in an empty folder");
        for batch in request_batches(rows, 8_192, number as u64) {
            leaf.append("requests", &[batch]).expect("rows of known types are taken");
        }
        leaf
    });
    let leaf = started.await.expect("a leaf that starts does not panic");
    tokio::spawn(gannet_leaf::service::serve(std::sync::Arc::clone(&leaf), listener, std::future::pending()));
    address
}
