//! `gannet tail`: events are shown as they arrive, each of them once.

use std::process::Stdio;

use gannet_tests::process::{Parts, binary, gannet};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A running `gannet tail` and its lines.
struct Tail {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(parts: &Parts, args: &[&str]) -> Tail {
        let mut child = Command::new(binary())
            .args(["tail", "--server", parts.client().base()])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Tail { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(std::time::Duration::from_secs(60), self.lines.next_line()).await;
        line.expect("a line comes").unwrap().expect("the tail goes on")
    }

    /// Ctrl-C, and what it says then.
    async fn interrupt(self) -> (Option<i32>, String) {
        let id = rustix::process::Pid::from_raw(self.child.id().unwrap() as i32).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        let output = self.child.wait_with_output().await.unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_shown_as_they_arrive() {
    let mut parts = Parts::start(2).await;
    let event = |n: u64| {
        format!("{{\"time\":\"2026-03-01T00:00:{:02}Z\",\"n\":{n},\"kind\":\"k{}\"}}\n", n % 60, n % 2)
    };
    parts.client().ingest("t", &(0..5).map(event).collect::<String>()).await;

    let mut tail = Tail::start(&parts, &["t", "--lines", "2", "--lateness", "60s"]);
    assert_eq!(tail.line().await, "2026-03-01T00:00:03Z  kind=k1 n=3");
    assert_eq!(tail.line().await, "2026-03-01T00:00:04Z  kind=k0 n=4");
    let mut some = Tail::start(
        &parts,
        &["t", "-n", "0", "--where", "kind = 'k1'", "--columns", "n", "--format", "ndjson"],
    );
    // It has begun once an event after its start is shown; the first are its own.
    parts.client().ingest("t", &(event(6) + &event(5))).await;
    assert_eq!(tail.line().await, "2026-03-01T00:00:05Z  kind=k1 n=5");
    assert_eq!(tail.line().await, "2026-03-01T00:00:06Z  kind=k0 n=6");
    for n in [7, 9, 11] {
        parts.client().ingest("t", &event(n)).await;
        assert_eq!(tail.line().await, format!("2026-03-01T00:00:{n:02}Z  kind=k1 n={n}"));
    }
    // An event like one that was shown is another event.
    parts.client().ingest("t", &event(11)).await;
    assert_eq!(tail.line().await, "2026-03-01T00:00:11Z  kind=k1 n=11");
    let line = some.line().await;
    assert!(line.starts_with("{\"time\":\"2026-03-01T00:00:") && line.ends_with('}'), "{line}");

    // A leaf goes and comes back: that is said, nothing is shown twice, and what comes after is shown.
    parts.take_leaf(0).stop().await;
    parts.wait_for_leaf(0, "the leaf to be down", |leaf| leaf["state"] == "down").await;
    parts.start_leaf(0);
    parts.wait_until_ready().await;
    parts.client().ingest("t", &event(13)).await;
    assert_eq!(tail.line().await, "2026-03-01T00:00:13Z  kind=k1 n=13");
    let (code, said) = tail.interrupt().await;
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("-- 9 events shown, 0 skipped"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_table_stays_deleted() {
    let mut parts = Parts::start(2).await;
    for number in 0..20 {
        parts.client().ingest("t", &format!("{{\"n\":{number}}}\n")).await;
    }
    parts.client().ingest("kept", "{\"n\":1}\n").await;
    let server = parts.client().base().to_owned();
    let delete = async |args: &[&str]| {
        gannet(&[&["table", "delete", "t", "--server", &server], args].concat(), "").await
    };
    let said = delete(&[]).await;
    assert_eq!((said.code, said.out.as_str()), (2, ""), "{said:?}");
    assert!(said.err.contains("--confirm=t"), "{said:?}");

    // A leaf that is away would bring its rows back.
    parts.take_leaf(0).kill().await;
    parts.wait_for_leaf(0, "the leaf to be down", |leaf| leaf["state"] == "down").await;
    let said = delete(&["--confirm=t"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("not every leaf is there (leaf-0: "), "{said:?}");
    parts.start_leaf(0);
    parts.wait_until_ready().await;
    assert_eq!(parts.client().count("t").await, 20);

    let said = delete(&["--confirm=t"]).await;
    assert_eq!((said.code, said.out.as_str()), (0, "t: 20 rows deleted\n"), "{said:?}");
    let said = delete(&["--confirm=t"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    parts.take_leaf(0).kill().await;
    parts.take_leaf(1).stop().await;
    parts.start_leaf(0);
    parts.start_leaf(1);
    parts.wait_until_ready().await;
    let said = gannet(&["table", "list", "--server", &server], "").await;
    assert!(said.out.contains(" kept ") && said.out.ends_with("\n1 table\n"), "{said:?}");
}
