//! Bodies of events, as they are.

use crate::{Body, check, cluster};

/// Rows one by one: the wrong ones are named, the others are taken.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_none() {
    let cluster = cluster().await;
    let deep = format!("{{\"a\":{}1{}}}\n", "[".repeat(100_000), "]".repeat(100_000));
    let deep_objects = format!("{}1{}\n", "{\"a\":".repeat(5_000), "}".repeat(5_000));
    let long_name = format!("{{\"{}\":1}}\n", "n".repeat(300));
    let cases: [(&str, &[u8], &str); 22] = [
        ("cut off", b"{\"a\":", "row"),
        ("no object", b"[1,2]\n", "object"),
        ("a number", b"17\n", "object"),
        ("not json", b"hello there\n", "row"),
        ("nan literal", b"{\"a\":NaN}\n", "row"),
        ("trailing comma", b"{\"a\":1,}\n", "row"),
        ("two on a line", b"{\"a\":1} {\"a\":2}\n", "row"),
        ("invalid utf8", b"{\"a\":\"\xff\xfe\"}\n", "UTF-8"),
        ("half a surrogate", b"{\"a\":\"\\ud800\"}\n", "row"),
        ("control character", b"{\"a\":\"\x01\"}\n", "row"),
        ("deep arrays", deep.as_bytes(), "32"),
        ("deep objects", deep_objects.as_bytes(), "32"),
        ("long name", long_name.as_bytes(), "256"),
        ("empty name", b"{\"\":1}\n", "name"),
        ("time as text", b"{\"time\":\"yesterday\"}\n", "yesterday"),
        ("time as list", b"{\"time\":[1]}\n", "time"),
        ("time before time", b"{\"time\":\"0001-01-01T00:00:00Z\"}\n", "0001-01-01"),
        ("time after time", b"{\"time\":\"9999-12-31T23:59:59Z\"}\n", "9999-12-31"),
        ("time of 1e300", b"{\"time\":1e300}\n", "is not a time"),
        ("rate of zero", b"{\"sample_rate\":0}\n", "sample_rate"),
        ("rate below zero", b"{\"sample_rate\":-3}\n", "-3"),
        ("rate as text", b"{\"sample_rate\":\"many\"}\n", "many"),
    ];
    for (what, line, says) in cases {
        check(cluster.client(), Body { what, body: line.to_vec(), says: &[says], ..Body::default() }).await;
        // Beside good rows: they are taken, the wrong one is named by its number.
        let body = [b"{\"ok\":1}\n", line, b"\n{\"ok\":2}\n"].concat();
        let what = format!("{what} beside good ones");
        let says = [says, "\"row\":1"];
        let case = Body { what: &what, body, status: 200, accepted: Some(2), says: &says, ..Body::default() };
        check(cluster.client(), case).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_too_large() {
    let cluster = cluster().await;
    let line = format!("{{\"a\":\"{}\"}}\n", "x".repeat(10 << 20));
    let case = Body {
        what: "line of 10 MB",
        body: [line.as_bytes(), b"{\"ok\":1}\n"].concat(),
        status: 200,
        accepted: Some(1),
        says: &["8388608"],
        ..Body::default()
    };
    check(cluster.client(), case).await;

    let columns: Vec<String> = (0..1_000_000).map(|column| format!("\"c{column}\":1")).collect();
    for (what, count) in [("a million columns", 1_000_000), ("some columns too many", 2_500)] {
        let row = format!("{{{}}}\n", columns[..count].join(","));
        let case = Body {
            what,
            body: [row.as_bytes(), b"{\"ok\":1}\n"].concat(),
            status: 200,
            accepted: Some(1),
            says: &["limit"],
            ..Body::default()
        };
        check(cluster.client(), case).await;
    }
    // Rows with a thousand new columns each: the table has a limit too.
    let mut last = None;
    for from in (0..14_000).step_by(1_000) {
        let row: Vec<String> = (from..from + 1_000).map(|column| format!("\"k{column}\":1")).collect();
        let body = format!("{{{}}}\n", row.join(",")).into_bytes();
        let reply = cluster.client().post("/v1/events/wide", "application/x-ndjson", None, body).await;
        if reply.status != 200 {
            last = Some(reply);
            break;
        }
    }
    let reply = last.expect("14,000 columns in one table");
    assert!(reply.status < 500 && reply.text().contains("10000"), "{}", reply.text());
    crate::still_there(cluster.client()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_is_broken() {
    let cluster = cluster().await;
    let cases: [(&str, &str); 5] = [
        ("array cut off", "[{\"a\":1},{\"a\":2},{\"a\""),
        ("array without end", "[{\"a\":1},{\"a\":2}"),
        ("array with text", "[{\"a\":1} hello {\"a\":2}]"),
        ("array and more", "[{\"a\":1}] x"),
        ("brackets", "[[[[[[[["),
    ];
    for (what, body) in cases {
        let body = body.as_bytes().to_vec();
        let case = Body { what, content_type: "application/json", body, accepted: None, ..Body::default() };
        check(cluster.client(), case).await;
    }
    let deep = Body {
        what: "array of deep",
        content_type: "application/json",
        body: "[".repeat(1_000_000).into_bytes(),
        accepted: None,
        ..Body::default()
    };
    check(cluster.client(), deep).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_that_is_broken() {
    let cluster = cluster().await;
    let ragged = Body {
        what: "ragged",
        content_type: "text/csv",
        body: b"a,b\n1,2\n3\n4,5,6\n7,8\n".to_vec(),
        status: 200,
        accepted: Some(2),
        says: &["rejected"],
        ..Body::default()
    };
    check(cluster.client(), ragged).await;
    let cases: [(&str, Vec<u8>); 4] = [
        ("quote without end", b"a,b\n1,\"2\n3,4\n".to_vec()),
        ("twice the same column", b"a,a\n1,2\n".to_vec()),
        ("bytes that are no text", b"a,b\n\xff,1\n".to_vec()),
        ("endless field", [b"a\n\"".to_vec(), vec![b'x'; 12 << 20]].concat()),
    ];
    for (what, body) in cases {
        let case = Body { what, content_type: "text/csv", body, accepted: None, ..Body::default() };
        check(cluster.client(), case).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arrow_that_is_broken() {
    let cluster = cluster().await;
    let stream = gannet_proto::encode_batches(&batch().schema(), &[batch()]).unwrap().to_vec();
    let content_type = "application/vnd.apache.arrow.stream";
    let sound = Body {
        what: "sound",
        content_type,
        body: stream.clone(),
        status: 200,
        accepted: Some(100),
        ..Body::default()
    };
    check(cluster.client(), sound).await;
    let noise = Body {
        what: "noise",
        content_type,
        body: vec![0x5a; 10_000],
        status: 413,
        says: &["1515870810", "16777216"],
        ..Body::default()
    };
    check(cluster.client(), noise).await;
    // A length that promises more than any memory holds.
    let mut long = stream.clone();
    long[4..8].copy_from_slice(&0x7fff_fff0_u32.to_le_bytes());
    let promises = Body {
        what: "promises",
        content_type,
        body: long,
        status: 413,
        says: &["2147483632", "16777216"],
        ..Body::default()
    };
    check(cluster.client(), promises).await;
    // Cut and changed anywhere: an error, or rows that were whole before it; never a crash.
    for at in (1..stream.len()).step_by(stream.len() / 12) {
        let path = "/v1/events/cut";
        let before = cluster.client().count("cut").await as u64;
        let cut = cluster.client().post(path, content_type, None, stream[..at].to_vec()).await;
        assert!(cut.status < 500, "cut at {at}: {}", cut.text());
        let mut changed = stream.clone();
        changed[at] ^= 0x81;
        let changed = cluster.client().post(path, content_type, None, changed).await;
        assert!(changed.status < 500, "changed at {at}: {}", changed.text());
        let taken = [&cut, &changed].map(|reply| reply.json()["accepted"].as_u64().unwrap_or_default());
        assert_eq!(cluster.client().count("cut").await as u64, before + taken[0] + taken[1]);
        crate::still_there(cluster.client()).await;
    }
}

fn batch() -> arrow::array::RecordBatch {
    use gannet_tests::rows::{RowsOf, Sampling, record_batch, rows};
    record_batch(&rows(RowsOf { seed: 1, count: 100, sampling: Sampling::None }))
}
