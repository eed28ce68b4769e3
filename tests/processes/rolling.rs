//! Rolling restarts of real processes: under load nobody notices but by completeness, a leaf that stays away pauses it, and
//! an aggregator that is killed goes on with it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gannet_tests::http::{Client, Completeness};
use gannet_tests::process::{Parts, Up, gannet, leaf_of};
use gannet_tests::terminal::Terminal;
use gannet_tests::transcript;
use gannet_tests::wait::until;
use serde_json::Value as Json;

use crate::requests;

const LEAVES: usize = 8;
const PRODUCERS: u64 = 2;
const ROWS_PER_BATCH: u64 = 50;
/// Rows that are there before the load begins, as many on each leaf.
const ROWS_BEFORE: u64 = 80_000;
/// The least that answers may cover: seven of eight leaves, give or take that chance gives some leaves more rows of the
/// load than others.
const COMPLETENESS_MIN: f64 = 0.86;
/// A debug build on a busy machine is slow; nothing here should come near this.
const SECONDS_MAX: u64 = 300;

/// The rows of one batch: their `n` are nobody else's.
fn batch(producer: u64, sequence: u64) -> String {
    let first = ROWS_BEFORE + (sequence * (PRODUCERS + 1) + producer) * ROWS_PER_BATCH;
    requests(first, first + ROWS_PER_BATCH)
}

/// Posts batch after batch under their names, each until it is acknowledged. How many there were.
async fn produce(client: Client, producer: u64, done: Arc<AtomicBool>) -> u64 {
    let name = format!("producer-{producer}");
    for sequence in 0.. {
        if done.load(Ordering::Relaxed) {
            return sequence;
        }
        loop {
            let reply = client.try_ingest_as("requests", &name, sequence, &batch(producer, sequence)).await;
            let reply = reply.unwrap_or_else(|| panic!("the aggregator went away"));
            if reply.status == 200 {
                break;
            }
            assert_eq!(reply.status, 503, "{}", reply.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    0
}

/// Posts batches without a name, which nobody may have to send again. How many there were.
async fn post(client: Client, done: Arc<AtomicBool>) -> u64 {
    for sequence in 0.. {
        if done.load(Ordering::Relaxed) {
            return sequence;
        }
        client.ingest("requests", &batch(PRODUCERS, sequence)).await;
    }
    0
}

/// What the queries saw.
#[derive(Debug)]
struct Asked {
    queries: u64,
    least: f64,
    leaves_least: u64,
}

/// Asks all the time. Every question has an answer.
async fn ask(client: Client, done: Arc<AtomicBool>) -> Asked {
    let mut asked = Asked { queries: 0, least: 1.0, leaves_least: LEAVES as u64 };
    while !done.load(Ordering::Relaxed) {
        let answer = client.answer("SELECT service, count(*), max(ms) FROM requests GROUP BY service").await;
        let completeness = answer.completeness;
        asked.queries += 1;
        asked.least = asked.least.min(completeness.ratio.expect("every leaf was heard of"));
        asked.leaves_least = asked.leaves_least.min(completeness.leaves_answered);
    }
    asked
}

/// Posts events `0..rows`, as many to each leaf: the others drain meanwhile.
async fn spread(client: &Client, leaves: usize, rows: u64) {
    let order = async |leaf: usize, order: &str| {
        let reply = client.post(&format!("/v1/leaves/leaf-{leaf}/{order}"), "", None, Vec::new()).await;
        assert_eq!(reply.status, 200, "{order} of leaf-{leaf}: {}", reply.text());
    };
    for leaf in 1..leaves {
        order(leaf, "drain").await;
    }
    let each = rows / leaves as u64;
    for leaf in 0..leaves {
        order(leaf, "undrain").await;
        let first = each * leaf as u64;
        for from in (first..first + each).step_by(1000) {
            client.ingest("requests", &requests(from, (from + 1000).min(first + each))).await;
        }
        order(leaf, "drain").await;
    }
    for leaf in 0..leaves {
        order(leaf, "undrain").await;
    }
}

async fn leaves(client: &Client) -> Vec<Json> {
    let status = client.get("/v1/status").await.json();
    status["leaves"].as_array().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_over_eight_leaves_under_load() {
    let up = Up::start(LEAVES).await;
    let server = up.client().base().to_owned();
    spread(up.client(), LEAVES, ROWS_BEFORE).await;
    let done = Arc::new(AtomicBool::new(false));
    let client = || Client::new(&server);
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| tokio::spawn(produce(client(), producer, Arc::clone(&done))))
        .chain([tokio::spawn(post(client(), Arc::clone(&done)))])
        .collect();
    let askers: Vec<_> = (0..2).map(|_| tokio::spawn(ask(client(), Arc::clone(&done)))).collect();

    let least = COMPLETENESS_MIN.to_string();
    let args = ["rollout", "start", "--yes", "--watch", "--min-completeness", &least, "--server", &server];
    let said = gannet(&args, "").await;
    done.store(true, Ordering::Relaxed);
    println!("{}", said.out);
    assert_eq!(said.code, 0, "{said:?}");

    let mut rows = ROWS_BEFORE;
    for producer in producers {
        rows += producer.await.unwrap() * ROWS_PER_BATCH;
    }
    for asker in askers {
        let asked = asker.await.unwrap();
        println!("{asked:?}, {} rows came in meanwhile", rows - ROWS_BEFORE);
        assert!(asked.queries > 10, "{asked:?}");
        assert!(asked.leaves_least >= LEAVES as u64 - 1, "two leaves were missing: {asked:?}");
        assert!(asked.least >= COMPLETENESS_MIN, "{asked:?}");
    }
    let answer = up.client().answer("SELECT count(*), count(DISTINCT n) FROM requests").await;
    assert_eq!(answer.rows, [[rows, rows]]);
    assert_eq!(answer.completeness, Completeness::whole(LEAVES as u64, rows));
    assert!(rows > ROWS_BEFORE + 1000, "hardly anything came in: {rows}");
    for leaf in leaves(up.client()).await {
        let of = |name: &str| leaf[name].clone();
        assert_eq!(
            (of("epoch"), of("source"), of("state")),
            (2.into(), "shared memory".into(), "serving".into())
        );
    }
    assert!(up.said().contains("was told to stop and did; it starts again"), "{}", up.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregator_that_is_killed_goes_on_with_it() {
    let up = Up::start(3).await;
    let server = up.client().base().to_owned();
    for from in (0..3000).step_by(100) {
        up.client().ingest("requests", &requests(from, from + 100)).await;
    }
    let status = up.client().get("/v1/status").await.json();
    let said =
        gannet(&["rollout", "start", "-y", "--min-completeness", "0.4", "--server", &server], "").await;
    assert_eq!(said.code, 0, "{said:?}");
    until(SECONDS_MAX, "the first leaf to be begun", || async {
        let rollout = up.client().try_get("/v1/rollout").await?.json();
        (rollout["rollout"]["leaves"][0]["step"] != "waiting").then_some(())
    })
    .await;
    let pid = i32::try_from(status["aggregator"]["process_id"].as_i64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let said = gannet(&["rollout", "status", "--watch", "--server", &server], "").await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("r-1 done: 3 of 3 leaves done"), "{said:?}");
    for leaf in leaves(up.client()).await {
        assert_eq!(leaf["epoch"], 2, "each leaf was restarted once: {leaf}");
    }
    assert_eq!(up.client().count("requests").await, 3000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_nobody_starts_again_pauses_it() {
    let mut parts = Parts::start(3).await;
    let server = parts.client().base().to_owned();
    let run = async |args: &[&str]| gannet(&[&["rollout"], args, &["--server", &server]].concat(), "").await;
    let said = run(&["start", "--yes", "--watch", "--min-completeness", "0", "--leaf-timeout", "1s"]).await;
    assert_eq!(said.code, 7, "{said:?}");
    assert!(said.err.contains("error: rollout r-1 is paused: leaf-0 is not back after "), "{said:?}");
    assert!(said.err.contains("\nhint: its log says what it does; gannet rollout resume"), "{said:?}");
    assert_eq!(run(&["status"]).await.code, 7);
    // It ended well, and its rows are where the next start finds them.
    let (ended, _) = parts.take_leaf(0).end().await;
    assert!(ended.success());
    parts.start_leaf(0);
    until(SECONDS_MAX, "the rollout to see it again", || async {
        let rollout = parts.client().try_get("/v1/rollout").await?.json();
        (rollout["rollout"]["leaves"][0]["step"] == "done").then_some(())
    })
    .await;
    let said = run(&["abort"]).await;
    assert_eq!((said.code, &*said.out), (0, "rollout r-1 is aborted\n"), "{said:?}");
    let status = parts.client().get("/v1/status").await.json();
    for (leaf, epoch) in [("leaf-0", 2), ("leaf-1", 1), ("leaf-2", 1)] {
        assert_eq!(leaf_of(&status, leaf).unwrap()["epoch"], epoch);
    }
    let said = run(&["resume"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.starts_with("error: rollout r-1 is aborted and cannot be resumed\n"), "{said:?}");
}

/// What is seen of the commands for one leaf, and of a rollout that is not begun.
#[tokio::test(flavor = "multi_thread")]
async fn commands_for_leaves_and_rollouts() {
    let parts = Parts::start(3).await;
    spread(parts.client(), 3, 3000).await;
    let directory = tempfile::tempdir().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("processes/transcripts/rollout.txt");
    transcript::check(&path, parts.client().base(), directory.path()).await;
}

/// What a person at a terminal sees: the plan, a question, and a table that is redrawn in place.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_at_a_terminal() {
    let up = Up::start(3).await;
    let server = up.client().base().to_owned();
    spread(up.client(), 3, 3000).await;
    let home = tempfile::tempdir().unwrap();
    let start = ["rollout", "start", "--watch", "--min-completeness", "0.6", "--server", &server];
    let mut terminal = Terminal::start(30, 100, "xterm", home.path(), &start);
    let asks = |screen: &str| screen.ends_with("Restart 3 leaves? [y/N]");
    terminal.wait_until("the question", asks).await;
    terminal.press("no\r");
    assert_eq!(terminal.ended().await.code(), Some(1));
    assert!(up.client().get("/v1/rollout").await.json()["rollout"].is_null());

    let mut terminal = Terminal::start(30, 100, "xterm", home.path(), &start);
    terminal.wait_until("the question", asks).await;
    terminal.press("y\r");
    let screen = terminal.wait_until("the end", |screen| screen.contains("rollout r-1 done")).await;
    println!("{screen}");
    assert_eq!(terminal.ended().await.code(), Some(0));
    // It was drawn over itself: there is one head and one line for each leaf.
    assert_eq!(screen.matches("rollout r-1 done").count(), 1, "{screen}");
    assert_eq!(screen.matches("shared memory").count(), 3, "{screen}");
    assert_eq!(screen.matches("│ step").count(), 1, "{screen}");

    // On a narrow screen.
    let status = ["rollout", "status", "--server", &server];
    let mut terminal = Terminal::start(30, 60, "vt100", home.path(), &status);
    let screen = terminal.wait_until("the table", |screen| screen.contains("leaf-2")).await;
    println!("{screen}");
    assert_eq!(terminal.ended().await.code(), Some(0));
    assert!(screen.lines().all(|line| line.chars().count() <= 60), "{screen}");
}
