//! A leaf is killed again and again while producers post to it, each batch under its name and until it is acknowledged.
//!
//! At the end every batch counts exactly once: nothing that was acknowledged is gone, and nothing that was sent twice is
//! there twice. `KILLS` in the environment sets how often.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gannet_tests::http::{Client, Completeness};
use gannet_tests::process::Parts;
use gannet_tests::wait::until;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How often the leaf is killed, unless the environment says otherwise.
const KILLS: u64 = 200;
const PRODUCERS: u64 = 3;
const ROWS_PER_BATCH: u64 = 7;

/// What a batch of a producer holds: rows whose `n` names them.
fn batch(producer: u64, sequence: u64) -> String {
    let row = |row| {
        let n = (sequence * PRODUCERS + producer) * ROWS_PER_BATCH + row;
        format!("{{\"time\":{},\"n\":{n}}}\n", 1_772_323_200 + n)
    };
    (0..ROWS_PER_BATCH).map(row).collect()
}

/// Of requests, and of batches.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    acknowledged: AtomicU64,
}

/// Posts batch after batch, each until it is acknowledged. Returns how many there were.
async fn produce(client: Client, producer: u64, done: Arc<AtomicBool>, counts: Arc<Counts>) -> u64 {
    let name = format!("producer-{producer}");
    for sequence in 0.. {
        if done.load(Ordering::Relaxed) {
            return sequence;
        }
        loop {
            let reply = client.try_ingest_as("t", &name, sequence, &batch(producer, sequence)).await;
            counts.sent.fetch_add(1, Ordering::Relaxed);
            match reply {
                Some(reply) if reply.status == 200 => break,
                Some(reply) => assert_eq!(reply.status, 503, "{}", reply.text()),
                None => {}
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        counts.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    0
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled() {
    let kills = std::env::var("KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut parts = Parts::start(1).await;
    let (done, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let client = Client::new(parts.client().base());
            tokio::spawn(produce(client, producer, Arc::clone(&done), Arc::clone(&counts)))
        })
        .collect();
    let mut random = StdRng::seed_from_u64(7);
    for kill in 0..kills {
        // At any moment of its life: while it starts, recovers, or takes rows. On a busy machine most lives end before
        // that, so every fourth lasts until something was taken in it.
        let acknowledged = || counts.acknowledged.load(Ordering::Relaxed);
        let before = acknowledged();
        let lives = random.random_range(0..120);
        tokio::time::sleep(Duration::from_millis(lives)).await;
        if kill % 4 == 0 {
            until(60, "a batch to be acknowledged", async || (acknowledged() > before).then_some(())).await;
        }
        parts.take_leaf(0).kill().await;
        parts.start_leaf(0);
    }
    done.store(true, Ordering::Relaxed);
    let mut batches = 0;
    for producer in producers {
        batches += producer.await.unwrap();
    }
    parts.wait_until_ready().await;
    let rows = batches * ROWS_PER_BATCH;
    let answer = parts.client().answer("SELECT count(*), count(DISTINCT n) FROM t").await;
    println!("{kills} kills, {batches} batches, {} requests", counts.sent.load(Ordering::Relaxed));
    assert_eq!(answer.rows, [[rows, rows]]);
    assert_eq!(answer.completeness, Completeness::whole(1, rows));
    assert!(batches > kills / 4, "{batches} batches were acknowledged between {kills} kills");
}
