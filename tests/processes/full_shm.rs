//! A leaf is asked to stop and `/dev/shm` has no room for its rows: it stops all the same, and the next process has every
//! row, from disk. Once there is room it hands over again.

use std::process::Command;

use gannet_tests::process::{Up, leaf_of, may_mount};
use gannet_tests::wait::until;
use rustix::process::{Pid, Signal, kill_process};

use crate::requests;

const ROWS: u64 = 20_000;
/// Less than the rows take.
const SHM_BYTES: u64 = 64 << 10;

/// Stops the leaf and waits for the next process to hold all rows from where it should.
async fn stop_and_start(up: &Up, epoch: u64, source: &str) -> String {
    let leaf = leaf_of(&up.client().get("/v1/status").await.json(), "leaf-0").unwrap();
    let process = leaf["process"].as_str().unwrap().trim_start_matches("process ").to_owned();
    kill_process(Pid::from_raw(process.parse().unwrap()).unwrap(), Signal::TERM).unwrap();
    let leaf = until(20, "the next process to serve", || async {
        let status = up.client().try_get("/v1/status").await?.json();
        leaf_of(&status, "leaf-0").filter(|leaf| leaf["epoch"] == epoch && leaf["state"] == "serving")
    })
    .await;
    assert_eq!((&leaf["source"], &leaf["rows_lost"]), (&source.into(), &0.into()), "{leaf}");
    assert_eq!(up.client().count("requests").await, ROWS as i64);
    leaf["process"].as_str().unwrap().trim_start_matches("process ").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_room_to_hand_over() {
    if !may_mount() {
        eprintln!("SKIPPED no_room_to_hand_over: this user cannot mount a small /dev/shm (it takes root)");
        return;
    }
    let up = Up::start_in_small_shm(1, SHM_BYTES).await;
    up.client().ingest("requests", &requests(0, ROWS)).await;
    let process = stop_and_start(&up, 2, "disk").await;
    let log = std::fs::read_to_string(up.data_directory().join("leaf-0/leaf.log")).unwrap();
    assert!(
        log.contains("not all was handed over") && log.contains("do not go into shared memory, which has"),
        "{log}"
    );

    let namespace = format!("--mount=/proc/{process}/ns/mnt");
    let room = Command::new("nsenter")
        .args([&namespace, "mount", "-o", "remount,size=64m", "/dev/shm"])
        .output()
        .unwrap();
    assert!(room.status.success(), "{room:?}");
    stop_and_start(&up, 3, "shared memory").await;
}
