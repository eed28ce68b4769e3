//! Requests that are wrong before anybody looks at their body, and clients that behave badly.

use gannet_tests::http::Client;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{cluster, still_there};

/// A request and its refusal: status, code, and texts it must hold.
async fn check(
    client: &Client,
    path: &str,
    content_type: &str,
    body: &[u8],
    status: u16,
    code: &str,
    says: &[&str],
) {
    let reply = client.post(path, content_type, None, body.to_vec()).await;
    assert_eq!(reply.status, status, "{path}: {}", reply.text());
    let refusal = reply.refusal();
    assert_eq!(refusal.code, code, "{path}: {refusal:?}");
    for part in says {
        assert!(refusal.all().contains(part), "{path}: `{part}` is not in {refusal:?}");
    }
    still_there(client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_types() {
    let cluster = cluster().await;
    let client = cluster.client();
    let row = b"{\"a\":1}\n";
    let ndjson = "application/x-ndjson";
    let long = format!("/v1/events/{}", "t".repeat(129));
    check(
        client,
        "/v1/events/t",
        "application/xml",
        row,
        415,
        "unsupported_media",
        &["application/xml", "application/x-ndjson"],
    )
    .await;
    check(client, "/v1/events/t", "\"", row, 415, "unsupported_media", &[]).await;
    check(client, &long, ndjson, row, 400, "bad_request", &["129", "128"]).await;
    check(client, "/v1/events/a%00b", ndjson, row, 400, "bad_request", &["table"]).await;
    check(client, "/v1/events/a%2Fb", ndjson, row, 400, "bad_request", &["table"]).await;
    check(client, "/v1/events/t?nosuch=1", ndjson, row, 400, "bad_request", &["nosuch", "time_field"]).await;
    check(client, "/v1/nosuch", ndjson, row, 404, "not_found", &["/v1/nosuch"]).await;
    check(client, "/v1/query", "application/json", b"{\"sql\":", 400, "bad_request", &[]).await;
    check(client, "/v1/query", "application/json", b"{}", 400, "bad_request", &["sql"]).await;
    check(client, "/v1/query", "application/json", b"[1]", 400, "bad_request", &[]).await;
    check(
        client,
        "/v1/query",
        "application/json",
        b"{\"sql\":\"SELECT 1\",\"nosuch\":1}",
        400,
        "bad_request",
        &["nosuch"],
    )
    .await;
    check(
        client,
        "/v1/query",
        "application/xml",
        b"SELECT 1",
        415,
        "unsupported_media",
        &["application/xml"],
    )
    .await;
    check(client, "/v1/query", "text/plain", b"SELECT '\xff'", 400, "bad_request", &["UTF-8"]).await;
    check(client, "/v1/leaves/nosuch/accept-loss", "", b"", 404, "not_found", &["nosuch"]).await;
    let large = vec![b' '; 2 << 20];
    check(client, "/v1/query", "text/plain", &large, 413, "too_large", &["1048576"]).await;
    assert_eq!(client.get("/v1/tables/nosuch").await.status, 404);
    assert_eq!(client.get("/v1/events/t").await.status, 405);
    let tables: Vec<String> = client.get("/v1/tables").await.json()["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].to_string())
        .collect();
    assert_eq!(tables, ["\"kept\""], "a refused body made a table");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_question() {
    let cluster = cluster().await;
    for (setting, value, says) in [
        ("timeout_ms", json!(0), "0 ms"),
        ("timeout_ms", json!(1_000_000_000), "600000"),
        ("timeout_ms", json!(-1), "timeout_ms"),
        ("timeout_ms", json!("soon"), "timeout_ms"),
        ("min_completeness", json!(1.5), "1.5"),
        ("min_completeness", json!(-0.1), "-0.1"),
        ("sql", json!(7), "sql"),
    ] {
        let mut question = json!({ "sql": "SELECT 1" });
        question[setting] = value.clone();
        let refusal = cluster.client().ask(question).await.unwrap_err();
        assert_eq!(
            (refusal.status, refusal.code.as_str()),
            (400, "bad_request"),
            "{setting} = {value}: {refusal:?}"
        );
        assert!(refusal.all().contains(says), "{setting} = {value}: {refusal:?}");
    }
    still_there(cluster.client()).await;
}

/// Clients that say one thing and do another: they get an answer or are cut off, and nobody else notices.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_go_away() {
    let cluster = cluster().await;
    let address = cluster.client().base().trim_start_matches("http://").to_owned();
    let head = "POST /v1/events/broken HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n";
    let requests = [
        format!("{head}Content-Length: 1000\r\n\r\n{{\"a\":1}}\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\n{{\"a\""),
        format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        format!("{head}Content-Length: -5\r\n\r\n"),
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20)),
        "\u{1}\u{2}\u{3}\u{4}\r\n\r\n".to_owned(),
        "POST /v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"sql\":".to_owned(),
    ];
    for request in requests {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        // The server may hang up before it has read everything.
        let _ = stream.write_all(request.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply).await;
        let reply = String::from_utf8_lossy(&reply).into_owned();
        assert!(!reply.starts_with("HTTP/1.1 5"), "{reply}");
        still_there(cluster.client()).await;
    }
}
