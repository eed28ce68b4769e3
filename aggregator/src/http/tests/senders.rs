//! Requests that say who sends them, so that a retry is counted once.

use gannet_proto::Reason;
use gannet_proto::wire::AppendRequest;

use super::*;

fn numbered(sequence: &str) -> [(&str, &str); 2] {
    [("gannet-producer", "agent-7"), ("gannet-sequence", sequence)]
}

/// Three row batches.
fn three_batches() -> String {
    "{\"time\":1,\"x\":1}\n".repeat(140_000)
}

/// What a leaf was sent, in the order of the parts.
fn parts(leaf: &Served) -> Vec<AppendRequest> {
    let mut parts = std::mem::take(&mut *leaf.fake.parts.lock());
    parts.sort_by_key(|request| (request.producer.clone(), request.sequence, request.part));
    parts
}

fn part(sequence: u64, part: u32, last_part: bool) -> AppendRequest {
    let (table, producer) = ("t".to_owned(), "agent-7".to_owned());
    AppendRequest { table, producer, sequence, part, last_part, ..Default::default() }
}

fn remember(leaves: &[Served]) {
    leaves.iter().for_each(|leaf| *leaf.fake.durability.lock() = "power");
}

/// The leaf that a request of this sequence went to.
async fn leaf_of(door: &Door, leaves: &[Served], sequence: u64) -> usize {
    let reply = door.post("/v1/events/t", &numbered(&sequence.to_string()), EVENTS).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    let took: Vec<usize> = (0..leaves.len()).filter(|leaf| !parts(&leaves[*leaf]).is_empty()).collect();
    assert_eq!(took.len(), 1);
    took[0]
}

#[tokio::test]
async fn a_request_goes_to_one_leaf_in_parts_and_is_counted_once() {
    let (door, leaves) = Door::over(&[("a", 0), ("b", 0), ("c", 0)]).await;
    remember(&leaves);
    let send = async || door.post("/v1/events/t", &numbered("8"), three_batches()).await;
    let first = send().await.json();
    assert_eq!(
        first,
        json!({"accepted": 140_000, "rejected": [], "rejected_count": 0, "durability": "power"})
    );
    let took = leaves.iter().find(|leaf| leaf.fake.rows.load(Ordering::SeqCst) == 140_000).unwrap();
    let again = send().await.json();
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(140_000), &json!(140_000)));
    let each = |number, is_last| [part(8, number, is_last), part(8, number, is_last)];
    assert_eq!(parts(took), [each(0, false), each(1, false), each(2, true)].concat());
    let rows: u64 = leaves.iter().map(|leaf| leaf.fake.rows.load(Ordering::SeqCst)).sum();
    assert_eq!(rows, 140_000);
    let metrics = door.get("/metrics").await.body;
    for line in ["gannet_ingest_rows_total 140000", "gannet_ingest_rows_duplicate_total 140000"] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    // A key does the same for those who do not count.
    let key = [("idempotency-key", "\"k\"")];
    for duplicates in [json!(null), json!(3)] {
        let reply = door.post("/v1/events/t", &key, EVENTS).await.json();
        assert_eq!((&reply["accepted"], &reply["duplicates"]), (&json!(3), &duplicates));
    }
    let one = AppendRequest {
        table: "t".to_owned(),
        last_part: true,
        idempotency_key: "\"k\"".to_owned(),
        ..Default::default()
    };
    let sent: Vec<AppendRequest> = leaves.iter().flat_map(parts).collect();
    assert_eq!(sent, [one.clone(), one]);
}

#[tokio::test]
async fn every_aggregator_finds_the_same_leaf() {
    let (door, leaves) = Door::over(&[("a", 0), ("b", 0), ("c", 0)]).await;
    let folder = tempfile::tempdir().unwrap();
    let reversed: Vec<&Served> = leaves.iter().rev().collect();
    let other = Door { router: router(over(folder.path(), &reversed).await), _folder: folder };
    let mut taken = [0; 3];
    for sequence in 0..20 {
        let leaf = leaf_of(&door, &leaves, sequence).await;
        assert_eq!(leaf_of(&other, &leaves, sequence).await, leaf);
        taken[leaf] += 1;
    }
    assert!(taken.iter().all(|count| *count > 0), "{taken:?}");
}

#[tokio::test]
async fn a_leaf_that_is_down_is_waited_for() {
    let (door, mut leaves) = Door::over(&[("a", 0), ("b", 0)]).await;
    let mut sequence = 0;
    while leaf_of(&door, &leaves, sequence).await == 0 {
        sequence += 1;
    }
    let sequence = sequence.to_string();
    leaves[1].does_with_rows(Does::Fail(Code::Unavailable, "leaf b is stopping"));
    let check = |reply: Reply, message: &str, detail: &str| {
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(reply.headers["retry-after"], "1");
        let found = reply.json();
        assert_eq!(
            (&found["error"]["code"], &found["error"]["message"]),
            (&json!("unavailable"), &json!(message))
        );
        let told = found["error"]["detail"].as_str().unwrap();
        assert!(told.contains(detail), "{told}");
        let hint = "Come back with the same sequence: rows that were counted are not counted again.";
        assert_eq!(found["error"]["hint"], hint);
    };
    let reply = door.post("/v1/events/t", &numbered(&sequence), EVENTS).await;
    let message = "the leaf for this batch of table `t` does not take it now";
    check(reply, message, "b.sock: leaf b is stopping. It was row batch 1 of the request.");
    leaves.pop().unwrap().stop().await;
    door.post("/v1/query", &[], COUNT).await;
    let reply = door.post("/v1/events/t", &numbered(&sequence), EVENTS).await;
    check(reply, "leaf b, which takes this batch of table `t`, is down", "b.sock: ");
    // Whoever does not count is not kept waiting.
    assert_eq!(door.post("/v1/events/t", &[], EVENTS).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_child_that_was_never_heard_of_may_hold_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let a = Served::start(folder.path(), "a", 0).await;
    let mut config = config(folder.path(), &[&a]);
    config.children.push(format!("unix:{}", folder.path().join("b.sock").display()));
    let door = Door { router: router(Aggregator::start(config).await.unwrap()), _folder: folder };
    let reply = door.post("/v1/events/t", &numbered("1"), EVENTS).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("the leaf for this batch of table `t` cannot be told: child unix:")
            && message.ends_with("b.sock was never heard of"),
        "{message}"
    );
    assert_eq!(door.post("/v1/events/t", &[], EVENTS).await.status, StatusCode::OK);
}

#[tokio::test]
async fn refusals_have_their_statuses() {
    let (door, leaves) = Door::over(&[("a", 0)]).await;
    let check = async |does: Does, headers: &[(&str, &str)], expect: (u16, &str, Option<&str>)| {
        leaves[0].does_with_rows(does);
        let reply = door.post("/v1/events/t", headers, EVENTS).await;
        let retry_after = reply.headers.get("retry-after").map(|value| value.to_str().unwrap());
        let found = reply.json();
        let code = found["error"]["code"].as_str().unwrap();
        assert_eq!((reply.status.as_u16(), code, retry_after), expect, "{found}");
    };
    let refuse = |reason| Does::Refuse(reason, "no");
    check(refuse(Reason::DiskFull), &numbered("1"), (507, "disk_full", Some("10"))).await;
    check(refuse(Reason::DiskFull), &[], (507, "disk_full", Some("10"))).await;
    check(refuse(Reason::SequenceTooOld), &numbered("1"), (409, "sequence_too_old", None)).await;
    check(refuse(Reason::TooManyProducers), &numbered("1"), (429, "overloaded", Some("10"))).await;
    let full = Does::Fail(Code::ResourceExhausted, "full");
    check(full, &numbered("1"), (429, "overloaded", Some("1"))).await;
    let lost = Does::Fail(Code::Internal, "lost in thought");
    check(lost, &numbered("1"), (503, "unconfirmed", Some("1"))).await;
    let wrong = Does::Fail(Code::InvalidArgument, "too wide");
    check(wrong, &numbered("1"), (400, "bad_request", None)).await;
    leaves[0].does_with_rows(Does::Work);
    let half = [("gannet-producer", "p")];
    check(Does::Work, &half, (400, "bad_request", None)).await;
    assert_eq!(parts(&leaves[0]), []);
    // A leaf that remembers nothing is not passed off as one that does.
    let reply = door.post("/v1/events/t", &numbered("1"), EVENTS).await.json();
    let note = "Retries are not recognised yet: rows that are sent twice are counted twice.";
    assert_eq!(reply["notes"].as_array().unwrap().last(), Some(&json!(note)));
}

#[tokio::test]
async fn a_body_that_ends_too_early_may_come_again_whole() {
    let (door, leaves) = Door::over(&[("a", 0)]).await;
    remember(&leaves);
    let rows = "{\"x\":1},".repeat(70_000);
    let whole = format!("[{rows}{{\"x\":2}}]");
    let mut headers = numbered("1").to_vec();
    headers.push(("content-type", "application/json"));
    let reply = door.post("/v1/events/t", &headers, whole[..whole.len() - 4].to_owned()).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    let detail = reply.json()["error"]["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("only whole row batches were taken"), "{detail}");
    assert_eq!(reply.json()["accepted"], 0);
    let reply = door.post("/v1/events/t", &headers, whole).await.json();
    assert_eq!(reply["accepted"], 70_001);
    assert_eq!(parts(&leaves[0]), [part(1, 0, false), part(1, 1, true)]);
    assert_eq!(leaves[0].fake.rows.load(Ordering::SeqCst), 70_001);
}
