//! Generated questions over generated rows: Gannet, in every arrangement, against a reference that looks at one row
//! at a time.
//!
//! A failure names the seed of the rows and of the question. `GANNET_SEED=n` starts at another question.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and the backtrace says where")]

use gannet_tests::arrangement::Arrangement;
use gannet_tests::oracle::{Table, differences, generate};
use gannet_tests::rows::{RowsOf, Sampling, ndjson, rows};

const ROW_COUNT: usize = 600;
const QUESTION_COUNT: u64 = 120;

async fn agree(arrangement: Arrangement, rows_seed: u64) {
    let first: u64 = std::env::var("GANNET_SEED").map_or(rows_seed * 10_000, |seed| seed.parse().unwrap());
    let mut told = Vec::new();
    for sampling in [Sampling::None, Sampling::Ints, Sampling::Floats] {
        let table = Table::new("events", rows(RowsOf { seed: rows_seed, count: ROW_COUNT, sampling }));
        let lines = ndjson(&table.rows).lines().map(str::to_owned).collect();
        let cluster = arrangement.hold(&[("events".to_owned(), lines)]).await;
        for seed in first..first + QUESTION_COUNT {
            let query = generate(seed, ROW_COUNT);
            let sql = query.sql(&table);
            let wrong = match cluster.client().query(&sql).await {
                Ok(answer) => differences(&query.evaluate(&table), &answer.rows),
                Err(refusal) => vec![format!("{refusal:?}")],
            };
            if !wrong.is_empty() {
                told.push(format!("{sampling:?}, question {seed}\n{sql}\n    {}", wrong.join("\n    ")));
            }
        }
    }
    assert!(told.is_empty(), "{arrangement:?}: {} answers differ\n\n{}\n", told.len(), told.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn open_rows() {
    agree(Arrangement::OpenRows, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_rows_with_dictionaries() {
    agree(Arrangement::OpenDictionaries, 11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed() {
    agree(Arrangement::Sealed, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_from_dictionaries() {
    agree(Arrangement::SealedFromDictionaries, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_in_plain_encodings() {
    agree(Arrangement::SealedPlain, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_in_packed_vectors() {
    agree(Arrangement::SealedPacked, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_in_dictionaries() {
    agree(Arrangement::SealedDictionary, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_in_forms_of_text() {
    agree(Arrangement::SealedText, 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_leaves() {
    agree(Arrangement::ThreeLeaves, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_intermediate_aggregator() {
    agree(Arrangement::Intermediate, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_hand_over_and_attach() {
    agree(Arrangement::HandedOver, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash() {
    agree(Arrangement::Crashed, 10).await;
}

#[test]
fn questions_are_of_every_kind_and_repeat() {
    let table = Table::new("events", rows(RowsOf { seed: 1, count: 50, sampling: Sampling::Ints }));
    let texts: Vec<String> = (0..500).map(|seed| generate(seed, 50).sql(&table)).collect();
    let again: Vec<String> = (0..500).map(|seed| generate(seed, 50).sql(&table)).collect();
    assert_eq!(texts, again);
    for part in [
        "count(*)",
        "DISTINCT",
        "approx_distinct",
        "stddev",
        "p95",
        "unweighted",
        "FILTER",
        "contains_all",
        "ILIKE",
        "NOT",
        "LIMIT",
        "time_bucket",
        "first_value",
        "ORDER BY time DESC",
    ] {
        assert!(texts.iter().any(|text| text.contains(part)), "no question in 500 has {part}");
    }
    // Every question has an answer by the reference.
    (0..500).for_each(|seed| drop(generate(seed, 50).evaluate(&table)));
}
