//! The commands that ask a server, and what a shell sees of them.

use gannet_tests::process::{Parts, gannet, leaf_of};
use gannet_tests::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn commands_and_their_exit_codes() {
    let mut parts = Parts::start(2).await;
    let server = parts.client().base().to_owned();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();

    // Events in: from a file, from standard input, and with rows that are none.
    std::fs::write(path("events.ndjson"), "{\"a\":1,\"b\":\"x\"}\n{\"a\":2,\"b\":\"y\"}\n").unwrap();
    std::fs::write(path("events.csv"), "a,b\n3,z\n4,\n").unwrap();
    for name in ["events.ndjson", "events.csv"] {
        let said = gannet(&["ingest", "t", &path(name), "--server", &server], "").await;
        assert_eq!(said.code, 0, "{said:?}");
    }
    let said = gannet(&["ingest", "t", "-", "--server", &server], "{\"a\":5}\n").await;
    assert_eq!(said.code, 0, "{said:?}");
    let said = gannet(&["ingest", "t", "-", "--server", &server], "{\"a\":6}\nnonsense\n").await;
    assert_eq!(said.code, 6, "{said:?}");
    let said = gannet(&["ingest", "t", &path("nosuch.ndjson"), "--server", &server], "").await;
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("nosuch.ndjson"), "{said:?}");

    // Questions.
    let ask = async |args: &[&str]| gannet(&[&["query"], args, &["--server", &server]].concat(), "").await;
    let said = ask(&["SELECT count(*), sum(a), count(b) FROM t", "--format", "table"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("completeness 100%"), "{said:?}");
    let said = ask(&["SELECT a, b FROM t ORDER BY a", "--format", "csv"]).await;
    assert_eq!((said.code, said.out.as_str()), (0, "a,b\n1,x\n2,y\n3,z\n4,\n5,\n6,\n"), "{said:?}");
    let said = ask(&["SELECT max(a) AS m FROM t"]).await;
    assert_eq!((said.code, said.out.lines().next()), (0, Some("{\"m\":6}")), "{said:?}");
    let said = ask(&["SELECT nosuch FROM t"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    for part in ["error: ", "nosuch", "^"] {
        assert!(said.err.contains(part), "`{part}` is not in {said:?}");
    }
    let said = gannet(&["query", "SELECT 1", "--server", "http://127.0.0.1:1"], "").await;
    assert_eq!(said.code, 4, "{said:?}");
    let said = gannet(&["query", "SELECT 1", "--nosuch"], "").await;
    assert_eq!(said.code, 2, "{said:?}");

    // What there is.
    let said = gannet(&["status", "--server", &server], "").await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("leaf-0") && said.out.contains("leaf-1"), "{said:?}");
    let said = gannet(&["table", "list", "--server", &server], "").await;
    assert!(said.code == 0 && said.out.contains('t'), "{said:?}");
    let said = gannet(&["table", "describe", "t", "--server", &server], "").await;
    assert!(said.code == 0 && said.out.contains("string"), "{said:?}");
    let said = gannet(&["table", "describe", "nosuch", "--server", &server], "").await;
    assert_eq!(said.code, 1, "{said:?}");

    // A thin answer is printed, and the shell sees that it is thin. Which leaf took a request was chance so far; the one
    // that stops must have something to miss.
    until(60, "a row on the leaf that stops", || async {
        parts.client().ingest("t", "{\"a\":7}\n").await;
        let status = parts.client().try_get("/v1/status").await?.json();
        (leaf_of(&status, "leaf-0")?["rows"].as_u64()? > 0).then_some(())
    })
    .await;
    parts.take_leaf(0).stop().await;
    parts.wait_for_leaf(0, "the leaf to be down", |leaf| leaf["state"] == "down").await;
    let rows = parts.client().count("t").await;
    let said = ask(&["SELECT count(*) AS n FROM t", "--format", "csv", "--min-completeness", "1"]).await;
    assert_eq!((said.code, said.out), (3, format!("n\n{rows}\n")));
    assert!(said.err.contains("leaf-0"), "{}", said.err);
    let said = ask(&["SELECT count(*) AS n FROM t", "--min-completeness", "0", "--format", "table"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!said.out.contains("100%"), "{said:?}");
}
