//! Every golden file in every arrangement: one set of questions, many ways to hold the rows, one answer.
//!
//! `GANNET_COMPLETE=1` writes the answers of the first arrangement into the files, in the place of expectations that
//! do not fit. Read the diff before you keep it: the files say what is right, not what happens.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and the backtrace says where")]

use std::path::{Path, PathBuf};

use gannet_tests::arrangement::Arrangement;
use gannet_tests::golden::Golden;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension() == Some("slt".as_ref())).collect();
    files.sort();
    assert!(files.len() >= 14, "only {} golden files found", files.len());
    // `GANNET_GOLDEN=weights` runs the files whose name holds the word.
    let wanted = std::env::var("GANNET_GOLDEN").unwrap_or_default();
    files.retain(|path| path.to_string_lossy().contains(&wanted));
    files
}

async fn run(arrangement: Arrangement) {
    let completes = arrangement == Arrangement::OpenRows && std::env::var_os("GANNET_COMPLETE").is_some();
    let mut told = Vec::new();
    for path in files() {
        let golden = Golden::read(&path);
        let cluster = arrangement.hold(&golden.rows).await;
        let (wrong, found) = golden.ask(cluster.client()).await;
        if completes {
            std::fs::write(&path, golden.completed(&found)).unwrap();
        } else {
            told.extend(wrong);
        }
    }
    assert!(told.is_empty(), "{arrangement:?}: {} answers differ\n\n{}\n", told.len(), told.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn open_rows() {
    run(Arrangement::OpenRows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_rows_with_dictionaries() {
    run(Arrangement::OpenDictionaries).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed() {
    run(Arrangement::Sealed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_from_dictionaries() {
    run(Arrangement::SealedFromDictionaries).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_in_plain_encodings() {
    run(Arrangement::SealedPlain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_in_packed_vectors() {
    run(Arrangement::SealedPacked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_in_dictionaries() {
    run(Arrangement::SealedDictionary).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_in_forms_of_text() {
    run(Arrangement::SealedText).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_leaves() {
    run(Arrangement::ThreeLeaves).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_intermediate_aggregator() {
    run(Arrangement::Intermediate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_hand_over_and_attach() {
    run(Arrangement::HandedOver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash() {
    run(Arrangement::Crashed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_from_disk() {
    run(Arrangement::ReadFromDisk).await;
}
