//! The agent and the leaf are killed again and again while lines are written, with rotation in between.
//!
//! At the end every line counts exactly once. `KILLS` in the environment sets how often something is killed.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gannet_tests::http::Completeness;
use gannet_tests::process::Parts;
use gannet_tests::wait::until;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::agent::Agent;

/// How often something is killed, unless the environment says otherwise.
const KILLS: u64 = 30;
/// Files that the log becomes by rotation.
const ROTATIONS: u64 = 12;
/// A debug build on a busy machine is slow, and the last lines wait for the longest retry.
const SECONDS_MAX: u64 = 120;

/// Writes lines until it is told to stop, some of them in two halves. How many there were.
async fn write_lines(agent: Arc<Agent>, done: Arc<AtomicBool>, rotate: Arc<AtomicU64>) -> u64 {
    let mut random = StdRng::seed_from_u64(11);
    let path = agent.path("app.log");
    let open = || File::options().create(true).append(true).open(&path).unwrap();
    let (mut file, mut rotated, mut n) = (open(), 0, 0);
    while !done.load(Ordering::Relaxed) {
        for _ in 0..random.random_range(1..40) {
            let line = format!("{{\"time\":{},\"n\":{n}}}\n", 1_772_323_200 + n);
            let half = random.random_range(0..line.len());
            file.write_all(&line.as_bytes()[..half]).unwrap();
            if random.random_bool(0.1) {
                tokio::task::yield_now().await;
            }
            file.write_all(&line.as_bytes()[half..]).unwrap();
            n += 1;
        }
        if rotated < rotate.load(Ordering::Relaxed) {
            rotated += 1;
            std::fs::rename(&path, agent.path(&format!("app.log.{rotated}"))).unwrap();
            file = open();
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(1..10))).await;
    }
    n
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_counts_once_whatever_is_killed() {
    let kills = std::env::var("KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut parts = Parts::start(1).await;
    let flags = ["--input-format", "ndjson", "--batch-rows", "37"];
    let agent = Arc::new(Agent::new(parts.client().base(), &["app.log*"], &flags));
    let (done, rotate) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = tokio::spawn(write_lines(Arc::clone(&agent), Arc::clone(&done), Arc::clone(&rotate)));
    let mut random = StdRng::seed_from_u64(7);
    let mut process = agent.start();
    for kill in 0..kills {
        // At any moment of their lives: while they start, find their files, save, send, or wait.
        let lives = random.random_range(0..250);
        tokio::time::sleep(Duration::from_millis(lives)).await;
        if random.random_bool(0.6) {
            process.kill().await;
            process = agent.start();
        } else {
            parts.take_leaf(0).kill().await;
            parts.start_leaf(0);
        }
        rotate.store((kill + 1) * ROTATIONS / kills, Ordering::Relaxed);
    }
    done.store(true, Ordering::Relaxed);
    let lines = writer.await.unwrap();
    parts.wait_until_ready().await;
    let rows = until(SECONDS_MAX, "all lines to be counted", || async {
        // The leaf that was killed last may not be back yet.
        let answer = parts.client().query("SELECT unweighted(count(*)) FROM t").await.ok()?;
        let rows = answer.int() as u64;
        (rows >= lines).then_some(rows)
    })
    .await;
    println!("{kills} kills, {lines} lines");
    let code = process.terminated().await;
    assert_eq!(rows, lines, "{}", agent.said());
    let answer = parts.client().answer("SELECT count(*), count(DISTINCT n), min(n), max(n) FROM t").await;
    assert_eq!(answer.rows, [[lines, lines, 0, lines - 1]]);
    assert_eq!(answer.completeness, Completeness::whole(1, lines));
    assert_eq!(code, 0, "{}", agent.said());
    assert!(lines > kills * 10, "only {lines} lines were written between {kills} kills");
}
