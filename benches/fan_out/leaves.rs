//! Real leaves with real rows below one aggregator: what does it add to the slowest of them?

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gannet_aggregator::{Aggregator, Config, QueryOptions};
use gannet_benches::request_batches;
use gannet_leaf::Leaf;
use gannet_proto::address::Listener;

const LEAVES: usize = 8;
const QUESTIONS: [(&str, &str); 3] = [
    ("count", "SELECT count(*) FROM requests"),
    ("40 groups", "SELECT service, count(*), avg(latency_us) FROM requests GROUP BY service ORDER BY 2 DESC"),
    (
        "8 x 40 groups",
        "SELECT region, service, p99(latency_us) FROM requests GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 10",
    ),
];

/// Prints what an aggregator adds, question by question.
pub(crate) async fn measure(rows: usize, runs: usize) {
    let folder = tempfile::tempdir().expect("a folder for the leaves");
    let mut children = Vec::with_capacity(LEAVES);
    for number in 0..LEAVES {
        children.push(serve(folder.path(), number, rows).await);
    }
    let config = Config { data_dir: folder.path().join("aggregator"), children, ..Config::default() };
    let aggregator = Aggregator::start(config).await.expect("an aggregator starts in an empty folder");
    println!("{LEAVES} leaves of {rows} rows; milliseconds, median of {runs}");
    println!("{:<16} {:>10} {:>14} {:>8}", "question", "answer", "slowest leaf", "added");
    for (name, sql) in QUESTIONS {
        let (mut all, mut slowest, mut added) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..runs + 3 {
            let begun = Instant::now();
            let answer = aggregator.query(sql, QueryOptions::default()).await.expect("every leaf answers");
            let took = begun.elapsed();
            assert_eq!(answer.completeness.ratio(), Some(1.0), "{sql}");
            let leaf = Duration::from_micros(answer.stats.scan_us_max);
            all.push(took.as_secs_f64() * 1e3);
            slowest.push(leaf.as_secs_f64() * 1e3);
            added.push(took.saturating_sub(leaf).as_secs_f64() * 1e3);
        }
        let [all, slowest, added] = [all, slowest, added].map(|values| crate::median(&values[3..]));
        println!("{name:<16} {all:>10.2} {slowest:>14.2} {added:>8.2}");
    }
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
    tokio::spawn(gannet_leaf::service::serve(Arc::clone(&leaf), listener, std::future::pending()));
    address
}
