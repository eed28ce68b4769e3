//! `gannet up`: starts everything, stops with hand-over on Ctrl-C, attaches the next time. It does not start twice on
//! one directory, nor on a port that somebody has, and it starts again what dies.

use std::net::TcpListener;

use gannet_tests::http::Completeness;
use gannet_tests::process::{Up, gannet, leaf_of};
use gannet_tests::wait::until;

use crate::requests;

#[tokio::test(flavor = "multi_thread")]
async fn up_and_up_again() {
    let mut up = Up::start(2).await;
    let said = up.said();
    for part in [up.client().base(), "gannet query", "/v1/events/"] {
        assert!(said.contains(part), "`{part}` is not in what it prints:\n{said}");
    }
    // Without --demo there is nothing yet.
    assert_eq!(up.client().answer("SHOW TABLES").await.rows.len(), 0);
    for from in (0..4000).step_by(200) {
        up.client().ingest("requests", &requests(from, from + 200)).await;
    }
    let sql = "SELECT service, count(*), sum(n), max(ms) FROM requests GROUP BY service ORDER BY service";
    let before = up.client().answer(sql).await;
    assert_eq!(before.completeness, Completeness::whole(2, 4000));

    let said = up.interrupt().await;
    assert!(said.contains("stopped"), "{said}");
    up.start_again().await;
    let after = up.client().answer(sql).await;
    assert_eq!((after.rows, after.completeness), (before.rows, before.completeness));
    let status = up.client().get("/v1/status").await.json();
    for leaf in ["leaf-0", "leaf-1"] {
        let leaf = leaf_of(&status, leaf).unwrap();
        assert_eq!((&leaf["source"], &leaf["rows_lost"]), (&"shared memory".into(), &0.into()));
    }

    // A second one on the same directory is refused, and the first does not notice.
    let directory = up.data_directory().display().to_string();
    let second = gannet(&["up", "--data-dir", &directory, "--http", "127.0.0.1:0"], "").await;
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.err.contains(&directory) && second.err.contains("process"), "{second:?}");
    assert_eq!(up.client().count("requests").await, 4000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_somebody_has() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data").display().to_string();
    let said = gannet(&["up", "--data-dir", &data, "--http", &address], "").await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains(&address), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_is_started_again() {
    let up = Up::start(1).await;
    up.client().ingest("t", "{\"x\":1}\n").await;
    let status = up.client().get("/v1/status").await.json();
    let process = leaf_of(&status, "leaf-0").unwrap()["process"].as_str().unwrap().to_owned();
    let pid: i32 = process.trim_start_matches("process ").parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until(60, "the leaf to be started again", || async {
        let status = up.client().try_get("/v1/status").await?.json();
        let leaf = leaf_of(&status, "leaf-0")?;
        (leaf["epoch"] == 2 && leaf["state"] == "serving").then_some(())
    })
    .await;
    // It came back with its row.
    let answer = up.client().answer("SELECT count(*) FROM t").await;
    assert_eq!((answer.int(), answer.completeness.ratio), (1, Some(1.0)));
    assert!(up.said().contains("leaf-0"), "{}", up.said());
}
