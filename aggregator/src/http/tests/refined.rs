//! Lines before the answer, over leaves that say what they have so far and no more.

use super::*;

/// The lines of a reply, each as its kind, its rows and its record, in words.
async fn lines(door: &Door, question: &str) -> Vec<String> {
    let reply = door.post("/v1/query", &[("accept", "application/x-ndjson")], question.to_owned()).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    let shown = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let record = &line["completeness"];
        let missing = record["missing"].as_array().into_iter().flatten().map(|missing| {
            format!(
                " {}:{}:{}",
                missing["leaf"].as_str().unwrap(),
                missing["reason"].as_str().unwrap(),
                missing["rows"]
            )
        });
        match line["type"].as_str().unwrap() {
            "error" => format!("error {}", line["error"]["code"].as_str().unwrap()),
            kind => format!("{kind} {} {}{}", line["rows"], record["ratio"], missing.collect::<String>()),
        }
    };
    reply.body.lines().map(shown).collect()
}

fn question(sql: &str, more: &str) -> String {
    format!(r#"{{"sql":"{sql}","timeout_ms":1500{more}}}"#)
}

const SQL: &str = "SELECT count(*) AS n FROM t";

#[tokio::test]
async fn what_leaves_have_so_far_is_told_and_stands_when_they_fail() {
    let (door, leaves) = Door::over(&[("a", 30), ("b", 10)]).await;
    leaves[1].does(Does::SoFar(5));
    let expect = ["partial [[35]] 0.875 b:running:5", "final [[35]] 0.875 b:timeout:5"];
    assert_eq!(lines(&door, &question(SQL, "")).await, expect);
    // The answer is thinner than was asked for: that is known when the status is gone.
    let thin = lines(&door, &question(SQL, r#","min_completeness":0.9"#)).await;
    assert_eq!(thin, ["partial [[35]] 0.875 b:running:5", "error incomplete"]);
    // Whoever does not ask for lines gets what came by the deadline.
    let whole = door.post("/v1/query", &[], question(SQL, "")).await.json();
    assert_eq!((&whole["rows"], &whole["completeness"]["ratio"]), (&json!([[40]]), &json!(1.0)));
}

#[tokio::test]
async fn a_leaf_that_has_not_said_anything_is_running() {
    let (door, leaves) = Door::over(&[("a", 30), ("b", 10)]).await;
    leaves[1].does(Does::Hang);
    let expect = ["partial [[30]] 0.75 b:running:10", "final [[30]] 0.75 b:timeout:10"];
    assert_eq!(lines(&door, &question(SQL, "")).await, expect);
}

#[tokio::test]
async fn statements_without_partial_answers_tell_how_far_they_are() {
    let (door, leaves) = Door::over(&[("a", 30), ("b", 10)]).await;
    leaves[1].does(Does::SoFar(5));
    let joined = "SELECT one.n FROM (SELECT count(*) AS n FROM t) one, (SELECT count(*) AS m FROM t) two";
    let told = lines(&door, &question(joined, "")).await;
    assert!(told.len() >= 2, "{told:?}");
    let (last, before) = told.split_last().unwrap();
    assert!(before.iter().all(|line| line.starts_with("progress null 0.875 b:running:")), "{told:?}");
    // Only the record was asked for, so there is nothing that could stand.
    assert_eq!(last, "final [[30]] 0.75 b:timeout:20");
}

#[tokio::test]
async fn a_leaf_that_sends_no_groups_so_far_makes_progress() {
    let (door, leaves) = Door::over(&[("a", 30), ("b", 10)]).await;
    leaves[1].does(Does::SoFarRecord(5));
    let told = lines(&door, &question(SQL, "")).await;
    assert_eq!(told, ["progress null 0.875 b:running:5", "final [[30]] 0.75 b:timeout:10"]);
}

#[tokio::test]
async fn what_is_below_an_aggregator_is_told_through_it() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Served::start(folder.path(), "a", 30).await, Served::start(folder.path(), "b", 10).await);
    let middle = over(&folder.path().join("middle"), &[&a, &b]).await;
    let address = format!("unix:{}", folder.path().join("middle.sock").display());
    let listener = gannet_proto::address::Listener::bind(&address.parse().unwrap()).await.unwrap();
    tokio::spawn(crate::service::router(middle, Arc::default()).serve_with_incoming(listener.incoming()));
    let mut settings = config(&folder.path().join("root"), &[]);
    settings.children = vec![address];
    let root = Aggregator::start(settings).await.unwrap();
    let door = Door { router: router(root), _folder: folder };
    b.does(Does::SoFar(4));
    let told = lines(&door, &question(SQL, "")).await;
    assert_eq!(told.first().unwrap(), "partial [[34]] 0.85 b:running:6");
    assert_eq!(told.last().unwrap(), "final [[34]] 0.85 b:timeout:6");
}

#[tokio::test]
async fn an_answer_that_is_there_at_once_is_one_line_with_its_header() {
    let (door, _leaves) = Door::over(&[("a", 30)]).await;
    let reply = door.post("/v1/query", &[("accept", "application/x-ndjson")], question(SQL, "")).await;
    assert_eq!(reply.body.lines().count(), 1);
    assert!(reply.headers["gannet-completeness"].to_str().unwrap().starts_with(r#"{"ratio":1.0,"#));
    let wrong = question("SELECT count(* FROM t", "");
    let reply = door.post("/v1/query", &[("accept", "application/x-ndjson")], wrong).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let a = Served::start(folder.path(), "a", 12).await;
    let aggregator = over(folder.path(), &[&a]).await;
    let router = router(Arc::clone(&aggregator));
    a.does(Does::Climb);
    let ask = || {
        let request = Request::post("/v1/query").header("accept", "application/x-ndjson");
        router.clone().oneshot(request.body(Body::from(question(SQL, ""))).unwrap())
    };
    let eager = to_bytes(ask().await.unwrap().into_body(), usize::MAX).await.unwrap();
    let eager = String::from_utf8(eager.to_vec()).unwrap();
    assert!(eager.lines().count() > 2, "{eager}");
    // It begins to read when the query is long over, and all that was in between is gone.
    let response = ask().await.unwrap();
    while aggregator.load().running > 0 {
        tokio::task::yield_now().await;
    }
    let late = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let late: Value = serde_json::from_slice(&late).unwrap();
    assert_eq!((&late["type"], &late["rows"]), (&json!("final"), &json!([[12]])));
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_query() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Served::start(folder.path(), "a", 12).await, Served::start(folder.path(), "b", 1).await);
    let aggregator = over(folder.path(), &[&a, &b]).await;
    b.does(Does::Hang);
    let request = Request::post("/v1/query").header("accept", "application/x-ndjson");
    let asked = format!(r#"{{"sql":"{SQL}","timeout_ms":600000}}"#);
    let response = router(Arc::clone(&aggregator)).oneshot(request.body(Body::from(asked)).unwrap());
    drop(response.await.unwrap());
    while b.fake.runs_abandoned.load(Ordering::SeqCst) == 0 || aggregator.load().running > 0 {
        tokio::task::yield_now().await;
    }
}
