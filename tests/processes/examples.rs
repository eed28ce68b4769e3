//! The example that needs nothing but Python, run as its reader would run it.

use std::path::Path;
use std::process::Stdio;

use gannet_tests::process::Parts;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn events_from_python_count_once() {
    let has_python = tokio::process::Command::new("python3").arg("--version").output().await.is_ok();
    if !has_python {
        eprintln!("SKIPPED: client/examples/events.py was NOT run, because there is no python3 here");
        return;
    }
    let parts = Parts::start(1).await;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/examples/events.py");
    let run = async || {
        let output = tokio::process::Command::new("python3")
            .arg(&example)
            .arg(parts.client().base())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(run().await, "accepted 10, rejected 0, durability power\ncart: 10\nleaves 1 of 1\n");
    assert_eq!(run().await, "accepted 10, rejected 0, durability power\ncart: 20\nleaves 1 of 1\n");

    // What it sends again under the same number is counted once, also when the reply was lost.
    let sent_twice = "import sys; sys.path.insert(0, sys.argv[1]); import events\n\
        for _ in range(2): print(events.Producer(sys.argv[2], 'p', 7).post('t', [{'n': 1}, {'n': 2}])['accepted'])";
    let output = tokio::process::Command::new("python3")
        .args(["-B", "-c", sent_twice])
        .args([example.parent().unwrap().as_os_str(), parts.client().base().as_ref()])
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2\n2\n", "{output:?}");
    assert_eq!(parts.client().answer("SELECT count(*), sum(n) FROM t").await.rows, [[json!(2), json!(3)]]);
}
