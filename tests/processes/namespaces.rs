//! Real processes on machines of their own, as network namespaces: cables are cut, lose packets, or lose them in one
//! direction.
//!
//! Every answer comes by its deadline, counts exactly the rows it says it covers, names the leaf that cannot be reached and
//! never counts it as there; ingest goes on at the others; when the cable is whole again everything is there, once.

use std::time::{Duration, Instant};

use gannet_tests::http::{Answer, Client, Completeness};
use gannet_tests::namespaces::{Direction, Network};
use gannet_tests::process::Parts;
use gannet_tests::wait::until;
use serde_json::json;

use crate::requests;

const LEAVES: usize = 3;
/// The leaf whose cable it is.
const CUT: usize = 1;
const ROWS_BEFORE: u64 = 30_000;
const ROWS_PER_BATCH: u64 = 100;
const TIMEOUT: Duration = Duration::from_millis(1500);
/// What a debug build on a busy machine may take beyond a deadline; whoever waits for a leaf waits much longer.
const SLACK: Duration = Duration::from_secs(4);
/// How long anything may take that comes by itself: connections wait between their tries.
const SECONDS_MAX: u64 = 120;

/// A cluster on machines of its own, with rows on every leaf; `None` where there can be none, which is said.
async fn cluster(test: &str) -> Option<(Parts, Vec<u64>)> {
    let network = match Network::new(LEAVES) {
        Ok(network) => network,
        Err(why) => {
            eprintln!(
                "SKIPPED {test}: there are no network namespaces here (they take root, ip and tc): {why}"
            );
            return None;
        }
    };
    let parts = Parts::start_in(LEAVES, network).await;
    for from in (0..ROWS_BEFORE).step_by(1000) {
        parts.client().ingest("requests", &requests(from, from + 1000)).await;
    }
    let mut held = Vec::new();
    for index in 0..LEAVES {
        let leaf =
            parts.wait_for_leaf(index, "a leaf to hold rows", |leaf| leaf["rows"].as_u64() > Some(0)).await;
        held.push(leaf["rows"].as_u64().unwrap());
    }
    assert_eq!(held.iter().sum::<u64>(), ROWS_BEFORE);
    Some((parts, held))
}

/// An answer that came by its deadline and is what it says it is.
async fn ask(client: &Client) -> Answer {
    let asked = Instant::now();
    let question =
        json!({ "sql": "SELECT count(*) FROM requests", "timeout_ms": TIMEOUT.as_millis() as u64 });
    let answer = client.ask(question).await.unwrap();
    let took = asked.elapsed();
    assert!(took < TIMEOUT + SLACK, "an answer took {took:?}");
    assert_eq!(answer.int() as u64, answer.completeness.rows_covered);
    answer
}

/// The answer misses the leaf that cannot be reached and nothing else.
fn check_thin(answer: &Answer, rows: u64, held: u64) {
    let Completeness { rows_covered, leaves_asked, leaves_answered, missing, .. } = &answer.completeness;
    assert_eq!((*leaves_asked, *leaves_answered), (3, 2), "{answer:?}");
    let [missing] = missing.as_slice() else { panic!("one leaf is missing: {answer:?}") };
    assert_eq!(missing.leaf, format!("leaf-{CUT}"), "{answer:?}");
    assert!(["down", "timeout"].contains(&missing.reason.as_str()), "{answer:?}");
    // What it may have taken while nobody heard of it counts as missing too.
    assert!(missing.rows.is_none_or(|rows| rows >= held), "{answer:?}");
    assert_eq!(*rows_covered, rows - held, "{answer:?}");
    assert!(answer.completeness.ratio.is_none_or(|ratio| ratio < 1.0), "{answer:?}");
}

/// Sends named batches until each is acknowledged or refused with a time to come back. Those that were refused.
async fn send(client: &Client, numbers: std::ops::Range<u64>) -> Vec<u64> {
    let mut refused = Vec::new();
    for number in numbers {
        let first = ROWS_BEFORE + number * ROWS_PER_BATCH;
        let body = requests(first, first + ROWS_PER_BATCH);
        let reply = client.try_ingest_as("requests", "cable", number, &body).await.expect("a reply");
        match reply.status {
            200 => {}
            429 | 503 => {
                assert!(reply.headers.contains_key("retry-after"), "{}", reply.text());
                refused.push(number);
            }
            status => panic!("{status}: {}", reply.text()),
        }
    }
    refused
}

/// Waits until every answer is whole again, and sends again what was refused. Everything is there once.
async fn check_healed(client: &Client, refused: Vec<u64>, batches: u64) {
    until(SECONDS_MAX, "answers to be whole again", || async {
        (ask(client).await.completeness.ratio == Some(1.0)).then_some(())
    })
    .await;
    for number in refused {
        until(SECONDS_MAX, "a batch to be taken", || async {
            send(client, number..number + 1).await.is_empty().then_some(())
        })
        .await;
    }
    let rows = ROWS_BEFORE + batches * ROWS_PER_BATCH;
    let answer = client.answer("SELECT count(*), count(DISTINCT n) FROM requests").await;
    assert_eq!(answer.rows, [[rows, rows]]);
    assert_eq!(answer.completeness, Completeness::whole(LEAVES as u64, rows));
}

/// Nothing comes through for a while.
async fn nothing_comes_through(test: &str, fail: impl Fn(&Network) -> Result<(), String>) {
    let Some((parts, held)) = cluster(test).await else { return };
    let client = parts.client();
    fail(parts.network()).unwrap();
    for _ in 0..3 {
        check_thin(&ask(client).await, ROWS_BEFORE, held[CUT]);
    }
    parts.wait_for_leaf(CUT, "the leaf to be known to be away", |leaf| leaf["state"] == "down").await;
    // Nobody waits for it any more, and batches that are anybody's go to the others.
    for number in 0..20 {
        let first = ROWS_BEFORE + number * ROWS_PER_BATCH;
        client.ingest("requests", &requests(first, first + ROWS_PER_BATCH)).await;
    }
    let refused = send(client, 20..50).await;
    assert!((1..30).contains(&refused.len()), "of 30 some belong to the leaf that is away: {refused:?}");
    let rows = ROWS_BEFORE + (50 - refused.len() as u64) * ROWS_PER_BATCH;
    check_thin(&ask(client).await, rows, held[CUT]);
    parts.network().heal(CUT).unwrap();
    check_healed(client, refused, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cable_is_cut() {
    nothing_comes_through("a_cable_is_cut", |network| network.cut(CUT)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_hears_and_is_not_heard() {
    let fail = |network: &Network| network.lose_one_way(CUT, Direction::FromLeaf);
    nothing_comes_through("a_leaf_hears_and_is_not_heard", fail).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_does_not_hear() {
    let fail = |network: &Network| network.lose_one_way(CUT, Direction::ToLeaf);
    nothing_comes_through("a_leaf_does_not_hear", fail).await;
}

/// A bad cable: answers are whole or say what they miss, batches are taken or refused.
#[tokio::test(flavor = "multi_thread")]
async fn packets_are_lost() {
    let Some((parts, held)) = cluster("packets_are_lost").await else { return };
    let client = parts.client();
    parts.network().lose(CUT, 20).unwrap();
    let (mut whole, mut refused) = (0, Vec::new());
    for number in 0..30 {
        refused.extend(send(client, number..number + 1).await);
        let answer = ask(client).await;
        let Completeness { ratio, rows_covered, missing, .. } = &answer.completeness;
        if missing.is_empty() {
            whole += 1;
            assert_eq!(*ratio, Some(1.0), "{answer:?}");
            // Of a batch that was not confirmed nobody knows yet.
            let taken = number + 1 - refused.len() as u64..=number + 1;
            let batches = (rows_covered - ROWS_BEFORE) / ROWS_PER_BATCH;
            assert!(taken.contains(&batches), "{batches} batches of {taken:?}: {answer:?}");
        } else {
            assert!(missing.iter().all(|one| one.leaf == format!("leaf-{CUT}")), "{answer:?}");
            assert!(
                *rows_covered >= ROWS_BEFORE - held[CUT] && ratio.is_none_or(|ratio| ratio < 1.0),
                "{answer:?}"
            );
        }
    }
    println!(
        "with a fifth of the packets lost, {whole} of 30 answers were whole, {} of 30 batches refused",
        refused.len()
    );
    parts.network().heal(CUT).unwrap();
    check_healed(client, refused, 30).await;
}
