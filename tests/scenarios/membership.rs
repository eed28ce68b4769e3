//! Three leaves and two aggregators find each other by gossip. Rows go in, and both answer them all.
//!
//! A leaf stops and starts again at another address: it is found there. A leaf ends and gossip forgets it: it stays on the
//! roster and counts as missing, with its rows, also for an aggregator that begins later and never saw it. A person takes
//! it out of the roster at one aggregator: all of them stop expecting it. It starts again: it stays out, until a person
//! takes it back in at another aggregator. A leaf that is up is not taken out by a slip.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use gannet_aggregator::Config as AggregatorConfig;
use gannet_leaf::Config as LeafConfig;
use gannet_proto::address::Listener;
use gannet_proto::gossip::GossipConfig;
use gannet_tests::http::Client;
use gannet_tests::segments;
use gannet_tests::wait::until;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::numbered;

const SECONDS_MAX: u64 = 60;
const BATCHES: u64 = 60;
const ROWS: u64 = 10 * BATCHES;

/// A server that runs until it is stopped, or killed with the test.
struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), String>>,
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

async fn told(stopping: oneshot::Receiver<()>) {
    if stopping.await.is_err() {
        std::future::pending::<()>().await;
    }
}

struct Place {
    directory: TempDir,
    /// Where the first aggregator gossips.
    seed: String,
}

impl Place {
    fn new() -> Place {
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        Place {
            directory: TempDir::with_prefix("gannet-").unwrap(),
            seed: free.local_addr().unwrap().to_string(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn gossip(&self, listen: &str) -> Option<GossipConfig> {
        let (listen, seeds) = (listen.to_owned(), vec![self.seed.clone()]);
        Some(GossipConfig { listen, seeds, interval_ms: 50, ..Default::default() })
    }

    /// Starts a leaf on a port that the system chooses.
    fn leaf(&self, index: usize) -> Running {
        let config = LeafConfig {
            id: format!("leaf-{index}"),
            data_dir: self.path(&format!("leaf-{index}")),
            listen: "127.0.0.1:0".to_owned(),
            gossip: self.gossip("127.0.0.1:0"),
            scan_threads: 1,
            seal_into_shm: false,
            ..Default::default()
        };
        let (stop, stopping) = oneshot::channel();
        let run = async move {
            let mut stopping = std::pin::pin!(told(stopping));
            let begun = Instant::now();
            // The directory is free when the last of the life before is gone.
            loop {
                match gannet_leaf::run(config.clone(), stopping.as_mut()).await {
                    Ok(()) => return Ok(()),
                    Err(error) if begun.elapsed().as_secs() > SECONDS_MAX => return Err(error.to_string()),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        Running { stop, task: tokio::spawn(run) }
    }

    async fn aggregator(&self, name: &str, gossip: &str) -> (Client, Running) {
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", http.local_addr().unwrap()));
        let grpc = format!("unix:{}", self.path(&format!("{name}.sock")).display());
        let listener = Listener::bind(&grpc.parse().unwrap()).await.unwrap();
        let config = AggregatorConfig {
            data_dir: self.path(name),
            id: Some(name.to_owned()),
            grpc: Some(grpc),
            gossip: self.gossip(gossip),
            describe_interval_ms: 50,
            probe_interval_ms: 50,
            roster_save_ms: 20,
            roster_exchange_ms: 50,
            planning_threads: 1,
            ..Default::default()
        };
        let (stop, stopping) = oneshot::channel();
        let run = async move {
            let run = gannet_aggregator::run(config, http, Some(listener), told(stopping));
            run.await.map_err(|error| error.to_string())
        };
        (client, Running { stop, task: tokio::spawn(run) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        (0..3).for_each(|index| segments::remove(&self.path(&format!("leaf-{index}"))));
    }
}

/// Waits until an aggregator answers this: rows counted, their share, and who is missing with how many rows.
async fn answers(client: &Client, what: &str, rows: u64, missing: &[(&str, u64)]) {
    let expect: Vec<(String, Option<u64>)> =
        missing.iter().map(|(leaf, rows)| ((*leaf).to_owned(), Some(*rows))).collect();
    until(SECONDS_MAX, what, || async {
        let answer = client.query("SELECT count(*) FROM t").await.ok()?;
        let found = answer.completeness.missing.iter().map(|missing| (missing.leaf.clone(), missing.rows));
        let all = rows + missing.iter().map(|(_, rows)| rows).sum::<u64>();
        let completeness = &answer.completeness;
        let covered = completeness.rows_covered == rows && completeness.rows_expected == Some(all);
        let is_whole = (completeness.ratio == Some(1.0)) == missing.is_empty();
        let counted = answer.rows[0][0] == json!(rows);
        (counted && covered && is_whole && found.collect::<Vec<_>>() == expect).then_some(())
    })
    .await;
}

async fn leaf_in_status(client: &Client, leaf: &str) -> Option<(String, u64)> {
    let status = client.get("/v1/status").await.json();
    let leaves = status["leaves"].as_array()?;
    let found = leaves.iter().find(|known| known["leaf"] == leaf)?;
    Some((found["address"].as_str()?.to_owned(), found["rows"].as_u64()?))
}

async fn members(client: &Client) -> Option<u64> {
    let metrics = client.get("/metrics").await.text();
    let line = metrics.lines().find(|line| line.starts_with("gannet_gossip_members "))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_move_vanish_and_are_taken_out() {
    let place = Place::new();
    let (a, _a) = place.aggregator("a", &place.seed).await;
    let (b, _b) = place.aggregator("b", "127.0.0.1:0").await;
    let mut leaves: Vec<Option<Running>> = (0..3).map(|index| Some(place.leaf(index))).collect();
    for client in [&a, &b] {
        until(SECONDS_MAX, "four others to be heard of", || async {
            let status = client.get("/v1/status").await.json();
            (members(client).await == Some(4) && status["leaves"].as_array()?.len() == 3).then_some(())
        })
        .await;
    }
    until(SECONDS_MAX, "the leaves to serve", || async {
        (a.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    for batch in 0..BATCHES {
        a.ingest("t", &numbered(10 * batch, 10 * batch + 10)).await;
    }
    answers(&a, "the first aggregator to answer all", ROWS, &[]).await;
    answers(&b, "the second aggregator to answer all", ROWS, &[]).await;

    // It moves.
    let (before, _) = leaf_in_status(&a, "leaf-1").await.unwrap();
    leaves[1].take().unwrap().stop().await;
    leaves[1] = Some(place.leaf(1));
    answers(&a, "the moved leaf to answer", ROWS, &[]).await;
    answers(&b, "the moved leaf to answer", ROWS, &[]).await;
    assert_ne!(leaf_in_status(&a, "leaf-1").await.unwrap().0, before);

    // It vanishes.
    let (_, gone) = leaf_in_status(&a, "leaf-2").await.unwrap();
    let rest = ROWS - gone;
    leaves[2].take().unwrap().stop().await;
    for client in [&a, &b] {
        until(SECONDS_MAX, "gossip to forget the leaf", || async {
            (members(client).await == Some(3)).then_some(())
        })
        .await;
        answers(client, "the leaf to be missed", rest, &[("leaf-2", gone)]).await;
    }
    // Somebody who never saw it misses it too.
    let (c, _c) = place.aggregator("c", "127.0.0.1:0").await;
    answers(&c, "a new aggregator to miss the leaf", rest, &[("leaf-2", gone)]).await;

    // It is taken out.
    let refusal = a
        .post("/v1/leaves/leaf-0/decommission?confirm=leaf-0", "application/json", None, Vec::new())
        .await
        .refusal();
    assert_eq!((refusal.status, refusal.message.as_str()), (409, "leaf `leaf-0` is up"));
    let refusal =
        a.post("/v1/leaves/leaf-2/decommission", "application/json", None, Vec::new()).await.refusal();
    assert_eq!(refusal.message, "taking leaf `leaf-2` out is not confirmed");
    let refusal = a
        .post("/v1/leaves/leaf-9/decommission?confirm=leaf-9", "application/json", None, Vec::new())
        .await
        .refusal();
    assert_eq!(refusal.message, "no leaf `leaf-9` is known");
    let out =
        a.post("/v1/leaves/leaf-2/decommission?confirm=leaf-2", "application/json", None, Vec::new()).await;
    assert_eq!(out.json(), json!({"leaf": "leaf-2", "rows": gone}));
    for client in [&a, &b, &c] {
        answers(client, "nobody to expect the leaf", rest, &[]).await;
    }
    // It stays out.
    leaves[2] = Some(place.leaf(2));
    for client in [&a, &b] {
        until(SECONDS_MAX, "gossip to tell of the leaf", || async {
            (members(client).await == Some(5)).then_some(())
        })
        .await;
        answers(client, "nobody to expect the leaf", rest, &[]).await;
    }
    // It is taken back in.
    let back = b.post("/v1/leaves/leaf-2/recommission", "application/json", None, Vec::new()).await;
    assert_eq!(back.json(), json!({"leaf": "leaf-2"}));
    for client in [&a, &b, &c] {
        answers(client, "the leaf to be back", ROWS, &[]).await;
    }
    for leaf in leaves.into_iter().flatten() {
        leaf.stop().await;
    }
}

/// A rolling restart that one aggregator runs is seen from the other, which leaves it alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_seen_from_everywhere() {
    let place = Place::new();
    let (a, _a) = place.aggregator("a", &place.seed).await;
    let (b, _b) = place.aggregator("b", "127.0.0.1:0").await;
    let _leaves = [place.leaf(0), place.leaf(1)];
    for client in [&a, &b] {
        until(SECONDS_MAX, "the leaves to serve", || async {
            let status = client.get("/v1/status").await.json();
            let others = status["aggregators"].as_array()?.iter().filter(|other| other["state"] == "up");
            (status["ready"] == true && status["leaves"].as_array()?.len() == 2 && others.count() == 1)
                .then_some(())
        })
        .await;
    }
    assert!(b.get("/v1/rollout").await.json()["rollout"].is_null());
    let post = async |client: &Client, what: &str, body: &str| {
        let path = format!("/v1/rollout/{what}");
        client.post(&path, "application/json", None, body.as_bytes().to_vec()).await
    };
    // Nobody starts the leaf again that it stops.
    let reply = post(&a, "start", "{\"min_completeness\":0}").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.json()["rollout"]["aggregator"].is_null(), "{}", reply.text());
    let seen = b.get("/v1/rollout").await.json()["rollout"].clone();
    assert_eq!((&seen["id"], seen["leaves"].as_array().map(Vec::len)), (&"r-1".into(), Some(2)), "{seen}");
    let at = format!("unix:{}", place.path("a.sock").display());
    assert_eq!(seen["aggregator"], at.as_str(), "{seen}");
    for what in ["start", "pause", "resume", "abort"] {
        let refusal = post(&b, what, "").await.refusal();
        let expect = format!("rollout r-1 is run by another aggregator, at {at}");
        assert_eq!((refusal.status, refusal.message), (409, expect), "{what}");
    }
    assert_eq!(post(&a, "abort", "").await.status, 200);
    let seen = b.get("/v1/rollout").await.json()["rollout"].clone();
    assert_eq!((&seen["id"], &seen["state"]), (&"r-1".into(), &"aborted".into()), "{seen}");
}
