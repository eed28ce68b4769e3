//! Requests and their responses, over leaves that are not there.

use std::sync::atomic::Ordering;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Value, json};
use tonic::Code;
use tower::ServiceExt;

use super::*;
use crate::fakes::{Does, Served, config, over};

mod access;
mod refined;
mod rollouts;
mod senders;
mod slow;

struct Door {
    router: Router,
    _folder: tempfile::TempDir,
}

struct Reply {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Door {
    async fn over(leaves: &[(&str, u64)]) -> (Door, Vec<Served>) {
        let folder = tempfile::tempdir().unwrap();
        let mut served = Vec::new();
        for (id, rows) in leaves {
            served.push(Served::start(folder.path(), id, *rows).await);
        }
        let children: Vec<&Served> = served.iter().collect();
        let router = router(over(folder.path(), &children).await);
        (Door { router, _folder: folder }, served)
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn delete(&self, path: &str) -> Reply {
        self.send(Request::delete(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }
}

#[tokio::test]
async fn a_table_is_deleted_when_its_name_is_said_twice() {
    let (door, leaves) = Door::over(&[("a", 30), ("b", 10)]).await;
    for path in [
        "/v1/tables/t",
        "/v1/tables/t?confirm=",
        "/v1/tables/t?confirm=T",
        "/v1/tables/t?confirm=t&confirm=t",
    ] {
        let reply = door.delete(path).await;
        assert_eq!(
            (reply.status, leaves[0].fake.rows.load(std::sync::atomic::Ordering::SeqCst)),
            (StatusCode::BAD_REQUEST, 30)
        );
        assert_eq!(reply.json()["error"]["message"], "deleting table `t` is not confirmed", "{path}");
    }
    let reply = door.delete("/v1/tables/t?confirm=t").await;
    assert_eq!((reply.status, reply.json()), (StatusCode::OK, json!({"table": "t", "rows": 40})));
    let reply = door.delete("/v1/tables/t?confirm=t").await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND, "{}", reply.body);
}

const COUNT: &str = r#"{"sql":"SELECT count(*) AS n FROM t"}"#;

#[tokio::test]
async fn a_query_has_rows_completeness_and_stats() {
    let (door, leaves) = Door::over(&[("a", 30), ("b", 10)]).await;
    leaves[1].does(Does::Fail(Code::Unavailable, "starting"));
    let reply = door.post("/v1/query", &[("content-type", "application/json")], COUNT).await;
    assert_eq!(reply.status, StatusCode::OK);
    let mut found = reply.json();
    assert!(found["stats"]["elapsed_ms"].take().is_f64());
    let expect = json!({
        "columns": [{"name": "n", "type": "int"}],
        "rows": [[30]],
        "completeness": {
            "ratio": 0.75, "rows_covered": 30, "rows_expected": 40, "leaves_asked": 2, "leaves_answered": 1,
            "missing": [{"leaf": "b", "reason": "restarting", "rows": 10, "detail": "starting"}],
            "groups_truncated": false, "newest_time": null,
        },
        "stats": {
            "elapsed_ms": null, "rows_scanned": 30, "blocks_scanned": 0, "blocks_pruned": 0, "stored_rows": 30,
            "represented_events": 0, "scan_ms_max": 0.0,
        },
    });
    assert_eq!(found, expect);
    let csv = door.post("/v1/query", &[("accept", "text/csv")], "SELECT count(*) AS n FROM t").await;
    assert_eq!(csv.body, "n\r\n30\r\n");
    assert!(csv.headers["gannet-completeness"].to_str().unwrap().starts_with(r#"{"ratio":0.75,"#));
    let lines = door.post("/v1/query", &[("accept", "application/x-ndjson")], COUNT).await;
    assert!(lines.body.starts_with(r#"{"type":"final","columns":"#) && lines.body.ends_with("}\n"));
    let thin = r#"{"sql":"SELECT count(*) FROM t","min_completeness":0.9}"#;
    let thin = door.post("/v1/query", &[], thin).await;
    assert_eq!(
        (thin.status, &thin.json()["error"]["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("incomplete"))
    );
}

#[tokio::test]
async fn errors_have_one_shape() {
    let (door, leaves) = Door::over(&[("a", 30)]).await;
    let check = async |reply: Reply, status: StatusCode, code: &str, message: &str| {
        assert_eq!(reply.status, status, "{}", reply.body);
        let error = &reply.json()["error"];
        assert_eq!(error["code"], code);
        assert!(error["message"].as_str().unwrap().contains(message), "{error}");
    };
    let not_found = StatusCode::NOT_FOUND;
    check(door.get("/nothing").await, not_found, "not_found", "nothing is served at `/nothing`").await;
    check(door.get("/v1/tables/u").await, not_found, "not_found", "no leaf holds a table `u`").await;
    let reply = door.get("/v1/query").await;
    check(reply, StatusCode::METHOD_NOT_ALLOWED, "bad_request", "is not served for method GET").await;
    let reply = door.post("/v1/query", &[], "SELECT count(*) FROM u").await;
    check(reply, StatusCode::BAD_REQUEST, "not_found", "u").await;
    let reply = door.post("/v1/query", &[], "SELECT count(* FROM t").await;
    check(reply, StatusCode::BAD_REQUEST, "bad_request", "").await;
    let reply = door.post("/v1/query", &[], vec![b' '; 2 << 20]).await;
    check(reply, StatusCode::PAYLOAD_TOO_LARGE, "too_large", "exceeds 1048576 bytes").await;
    let reply = door.post("/v1/query", &[], r#"{"sql":"SELECT 1","timeout_ms":600001}"#).await;
    check(
        reply,
        StatusCode::BAD_REQUEST,
        "bad_request",
        "timeout of 600001 ms is not between 1 and 600000 ms",
    )
    .await;
    let reply = door.post("/v1/query", &[], r#"{"sql":"SELECT 1","min_completeness":1.5}"#).await;
    check(
        reply,
        StatusCode::BAD_REQUEST,
        "bad_request",
        "min_completeness is 1.5, it must be between 0 and 1",
    )
    .await;
    leaves[0].does(Does::Fail(Code::ResourceExhausted, "full"));
    let reply = door.post("/v1/query", &[], COUNT).await;
    assert_eq!(reply.headers["retry-after"], "1");
    check(reply, StatusCode::TOO_MANY_REQUESTS, "overloaded", "no leaf answered").await;
    let reply = door.post("/v1/leaves/z/accept-loss", &[], "").await;
    check(reply, not_found, "not_found", "no leaf `z` is known").await;
}

const EVENTS: &str = "{\"x\":1}\n{\"x\":2}\nno json\n{\"x\":3}\n";

#[tokio::test]
async fn events_are_placed_and_counted() {
    let (door, leaves) = Door::over(&[("a", 30), ("b", 10)]).await;
    let reply = door.post("/v1/events/t", &[("content-type", "application/x-ndjson")], EVENTS).await;
    let found = reply.json();
    assert_eq!(reply.status, StatusCode::OK, "{found}");
    assert_eq!((&found["accepted"], &found["rejected_count"]), (&json!(3), &json!(1)));
    assert_eq!((&found["rejected"][0]["row"], &found["durability"]), (&json!(2), &json!("memory")));
    let rows: u64 = leaves.iter().map(|leaf| leaf.fake.rows.load(Ordering::SeqCst)).sum();
    assert_eq!(rows, 43);
    let answer = door.post("/v1/query", &[], COUNT).await.json();
    assert_eq!((&answer["rows"], &answer["completeness"]["ratio"]), (&json!([[43]]), &json!(1.0)));
    let all = door.post("/v1/events/t", &[("content-type", "application/x-ndjson")], "1\n2\n").await;
    assert_eq!(all.status, StatusCode::BAD_REQUEST);
    assert_eq!(all.json()["error"]["message"], "all 2 rows were rejected");
    let media = door.post("/v1/events/t", &[("content-type", "image/png")], EVENTS).await;
    assert_eq!(media.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let wrong = door.post("/v1/events/t?timefield=x", &[], EVENTS).await.json();
    let expect = "Parameters are time_field=NAME and csv_header=first or none.";
    assert_eq!(wrong["error"]["hint"], expect);
    let metrics = door.get("/metrics").await.body;
    for line in [
        "gannet_ingest_rows_total 3",
        "gannet_ingest_rows_rejected_total 3",
        "gannet_queries_total{outcome=\"complete\"} 1",
        "gannet_query_completeness_min 1",
        "gannet_query_seconds_bucket{le=\"+Inf\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn a_refused_batch_goes_to_another_leaf() {
    let (door, leaves) = Door::over(&[("a", 0), ("b", 0)]).await;
    for code in [Code::Unavailable, Code::ResourceExhausted, Code::Unimplemented] {
        leaves[0].does_with_rows(Does::Fail(code, "not now"));
        for _ in 0..8 {
            assert_eq!(door.post("/v1/events/t", &[], EVENTS).await.status, StatusCode::OK);
        }
    }
    assert_eq!(leaves[0].fake.rows.load(Ordering::SeqCst), 0);
    assert_eq!(leaves[1].fake.rows.load(Ordering::SeqCst), 3 * 8 * 3);
}

#[tokio::test]
async fn an_unknown_outcome_is_told_and_not_sent_again() {
    let (door, leaves) = Door::over(&[("a", 0), ("b", 0)]).await;
    leaves.iter().for_each(|leaf| leaf.does_with_rows(Does::Fail(Code::Internal, "lost in thought")));
    let reply = door.post("/v1/events/t", &[], EVENTS).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    let found = reply.json();
    let message = found["error"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("rows of table `t` may or may not have been taken: leaf at unix:"),
        "{message}"
    );
    assert_eq!(found["error"]["detail"], "lost in thought. It was row batch 1 of the request.");
    assert_eq!((&found["error"]["code"], reply.headers.get("retry-after")), (&json!("unconfirmed"), None));
    assert_eq!(found["accepted"], 0);
    let asked: u64 = leaves.iter().map(|leaf| leaf.fake.appends_asked.load(Ordering::SeqCst)).sum();
    assert_eq!(asked, 1);
    leaves.iter().for_each(|leaf| leaf.does_with_rows(Does::Fail(Code::ResourceExhausted, "full")));
    let reply = door.post("/v1/events/t", &[], EVENTS).await;
    assert_eq!(
        (reply.status, &reply.headers["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &HeaderValue::from(1))
    );
    leaves.iter().for_each(|leaf| leaf.does_with_rows(Does::Fail(Code::InvalidArgument, "too wide")));
    let reply = door.post("/v1/events/t", &[], EVENTS).await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["message"]),
        (StatusCode::BAD_REQUEST, &json!("too wide"))
    );
}

#[tokio::test]
async fn status_tells_what_is_there() {
    let (door, mut leaves) = Door::over(&[("a", 30), ("b", 10)]).await;
    assert_eq!(
        (door.get("/healthz").await.body.as_str(), door.get("/readyz").await.body.as_str()),
        ("ok\n", "ready\n")
    );
    assert!(door.get("/").await.body.starts_with("Gannet "));
    let tables = door.get("/v1/tables").await.json();
    assert_eq!(
        tables,
        json!({"tables": [{
            "name": "t", "rows": 40, "bytes": 640, "columns": 2,
            "time_min": "1970-01-01T00:00:00Z", "time_max": "1970-01-01T00:00:00Z",
        }]})
    );
    let table = door.get("/v1/tables/t").await.json();
    let x = json!({"name": "x", "type": "int", "null_share": 0.0, "distinct_estimate": 1, "bytes": 320});
    assert_eq!((&table["rows"], &table["columns"][1]), (&json!(40), &x));
    leaves.pop().unwrap().stop().await;
    door.post("/v1/query", &[], COUNT).await;
    let status = door.get("/v1/status").await.json();
    assert_eq!(status["ready"], false);
    assert_eq!(
        (&status["leaves"][0]["state"], &status["leaves"][1]["state"]),
        (&json!("serving"), &json!("down"))
    );
    assert_eq!((&status["leaves"][1]["leaf"], &status["leaves"][1]["rows"]), (&json!("b"), &json!(10)));
    let ready = door.get("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.body.starts_with("b: down: cannot connect: "), "{}", ready.body);
    let accepted = door.post("/v1/leaves/b/accept-loss", &[], "").await.json();
    assert_eq!(accepted, json!({"leaf": "b", "rows": 10}));
}

#[tokio::test]
async fn more_queries_than_may_wait_are_told_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let leaf = Served::start(folder.path(), "a", 30).await;
    let settings = crate::config::Config {
        queries_running_max: 1,
        queries_waiting_max: 0,
        ..config(folder.path(), &[&leaf])
    };
    let aggregator = Aggregator::start(settings).await.unwrap();
    let door = Door { router: router(Arc::clone(&aggregator)), _folder: folder };
    leaf.does(Does::Hang);
    let first = tokio::spawn({
        let router = door.router.clone();
        async move { router.oneshot(Request::post("/v1/query").body(Body::from(COUNT)).unwrap()).await }
    });
    while leaf.fake.runs_asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let refused = door.post("/v1/query", &[], COUNT).await;
    assert_eq!(
        (refused.status, &refused.headers["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap())
    );
    let error = &refused.json()["error"];
    assert_eq!(error["message"], "1 queries are running and 0 waiting, the limits");
    // Whoever hangs up gives the turn back.
    first.abort();
    while aggregator.load().running > 0 {
        tokio::task::yield_now().await;
    }
    leaf.does(Does::Work);
    assert_eq!(door.post("/v1/query", &[], COUNT).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_leaf_that_is_stopping_gets_no_more_rows() {
    let (door, leaves) = Door::over(&[("a", 1), ("b", 1)]).await;
    let stopping = || Does::Fail(Code::Unavailable, "stopping");
    leaves[0].does_with_rows(stopping());
    leaves[0].fake.silent.store(true, Ordering::SeqCst);
    for _ in 0..40 {
        let reply = door.post("/v1/events/t", &[], r#"{"x":1}"#).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    }
    assert_eq!(leaves[0].fake.appends_asked.load(Ordering::SeqCst), 1, "it is not asked again");
    leaves[1].does_with_rows(stopping());
    leaves[1].fake.silent.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let reply = door.post("/v1/events/t", &[], r#"{"x":1}"#).await;
        assert_eq!(
            (reply.status, &reply.headers["retry-after"]),
            (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap())
        );
        let detail = reply.json()["error"]["detail"].to_string();
        assert_eq!(detail.matches("stopping").count(), 2, "{detail}");
    }
    assert_eq!(leaves[1].fake.appends_asked.load(Ordering::SeqCst), 41);
}
