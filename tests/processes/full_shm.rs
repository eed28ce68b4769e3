//! A leaf is asked to stop and `/dev/shm` has no room for its rows: it says so and serves on. Once there is room it hands
//! over, and the next process has every row.

use std::process::Command;

use gannet_tests::process::{Up, leaf_of, may_mount};
use gannet_tests::wait::until;
use rustix::process::{Pid, Signal, kill_process};

use crate::requests;

const ROWS: u64 = 20_000;
/// Less than the rows take.
const SHM_BYTES: u64 = 64 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn no_room_to_hand_over() {
    if !may_mount() {
        eprintln!("SKIPPED no_room_to_hand_over: this user cannot mount a small /dev/shm (it takes root)");
        return;
    }
    let up = Up::start_in_small_shm(1, SHM_BYTES).await;
    up.client().ingest("requests", &requests(0, ROWS)).await;
    let before = leaf_of(&up.client().get("/v1/status").await.json(), "leaf-0").unwrap();
    let process = before["process"].as_str().unwrap().trim_start_matches("process ").to_owned();
    kill_process(Pid::from_raw(process.parse().unwrap()).unwrap(), Signal::TERM).unwrap();

    let log = up.data_directory().join("leaf-0/leaf.log");
    let said = until(20, "the leaf to say that there is no room", || {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        async move { said.contains("cannot hand over").then_some(said) }
    })
    .await;
    assert!(said.contains("shared memory has") && said.contains("still serving"), "{said}");
    assert_eq!(up.client().count("requests").await, ROWS as i64, "nothing acknowledged changed");

    let namespace = format!("--mount=/proc/{process}/ns/mnt");
    let room = Command::new("nsenter")
        .args([&namespace, "mount", "-o", "remount,size=64m", "/dev/shm"])
        .output()
        .unwrap();
    assert!(room.status.success(), "{room:?}");
    let leaf = until(20, "the next process to serve from shared memory", || async {
        let status = up.client().get("/v1/status").await.json();
        leaf_of(&status, "leaf-0").filter(|leaf| leaf["source"] == "shared memory")
    })
    .await;
    assert_eq!((&leaf["rows"], &leaf["rows_lost"]), (&ROWS.into(), &0.into()));
    assert_eq!(up.client().count("requests").await, ROWS as i64);
}
