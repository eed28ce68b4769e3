use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[test]
fn replies_say_what_was_accepted() {
    let text = r#"{"accepted":1,"rejected":[{"row":0,"error":"e"}],"durability":"power"}"#;
    let reply: Reply = serde_json::from_str(text).unwrap();
    assert_eq!((reply.accepted, reply.rejected_all()), (1, 1));
    let many: Reply = serde_json::from_str(r#"{"accepted":1,"rejected":[],"rejected_count":900}"#).unwrap();
    assert_eq!(many.rejected_all(), 900);
}

/// The kind of the ending, the accepted rows, and whether the rest is known.
fn check(status: u16, retry_after: Option<u32>, body: &str, expect: (&str, u64, Rest)) {
    let status = StatusCode::from_u16(status).unwrap();
    let error = Error::of_reply("a", status, retry_after, body.as_bytes());
    let (kind, failed) = match ending(error, status, body.as_bytes()) {
        Ending::Done(reply) => ("done", PostError { reply, ..failed() }),
        Ending::Later(failed) => ("later", failed),
        Ending::ComeBack(failed) => ("come back", failed),
        Ending::BodyRefused(failed) => ("body refused", failed),
        Ending::Refused(failed) => ("refused", failed),
        Ending::TooOld(failed) => ("too old", failed),
    };
    assert_eq!((kind, failed.reply.accepted, failed.rest), expect, "{status} {body}");
}

fn failed() -> PostError {
    PostError { error: Error::new(ErrorKind::Refused, ""), reply: Reply::default(), rest: Rest::NotAccepted }
}

#[test]
fn refusals_tell_what_was_accepted() {
    use Rest::{NotAccepted, Unknown};
    let soon = Some(1);
    check(429, soon, r#"{"error":{"code":"overloaded"}}"#, ("come back", 0, NotAccepted));
    check(503, soon, r#"{"error":{},"accepted":0}"#, ("come back", 0, NotAccepted));
    check(503, soon, r#"{"error":{},"accepted":7}"#, ("come back", 7, NotAccepted));
    check(507, soon, r#"{"error":{"code":"disk_full"}}"#, ("come back", 0, NotAccepted));
    // Rows may have been taken.
    check(503, soon, r#"{"error":{"code":"unconfirmed"}}"#, ("come back", 0, Unknown));
    check(503, None, r#"{"error":{},"accepted":0}"#, ("later", 0, Unknown));
    check(500, None, r#"{"error":{},"accepted":7}"#, ("later", 7, Unknown));
    check(409, None, r#"{"error":{"code":"sequence_too_old"}}"#, ("too old", 0, Unknown));
    // The same for ever.
    check(400, None, r#"{"error":{},"accepted":7}"#, ("body refused", 7, NotAccepted));
    check(413, None, r#"{"error":{},"accepted":0}"#, ("body refused", 0, NotAccepted));
    check(400, None, r#"{"error":{"code":"bad_request"}}"#, ("refused", 0, NotAccepted));
    check(415, None, r#"{"error":{}}"#, ("refused", 0, NotAccepted));
    // Not from a server of ours.
    check(502, None, "<html>", ("later", 0, Unknown));
    check(404, None, "<html>", ("later", 0, Unknown));
    check(400, None, r#"{"error":{},"accepted":0,"rejected_count":3}"#, ("done", 0, NotAccepted));
}

/// A server that answers one request a connection, each with the next of these; an empty one breaks off.
async fn server(replies: Vec<&'static str>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(&listener.local_addr().unwrap().to_string()).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let asks = Arc::clone(&asked);
    tokio::spawn(async move {
        for reply in replies {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"{}\n") {
                let mut some = [0; 1024];
                let read = stream.read(&mut some).await.unwrap();
                request.extend_from_slice(&some[..read]);
            }
            let text = String::from_utf8(request).unwrap();
            let number = text.lines().find_map(|line| line.strip_prefix("gannet-sequence: ")).unwrap();
            asks.lock().unwrap().push(number.to_owned());
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
    });
    (client, asked)
}

#[tokio::test]
async fn a_number_is_kept_while_its_fate_is_unknown() {
    let accepted = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 14\r\n\r\n{\"accepted\":1}";
    let refused =
        "HTTP/1.1 503 S\r\nretry-after: 0\r\nconnection: close\r\ncontent-length: 12\r\n\r\n{\"error\":{}}";
    let (client, asked) = server(vec![refused, "", refused, "", accepted]).await;
    let producer = Producer::new("p", 7);
    let reply = client.post(&Events::ndjson("t", "{}\n"), &producer, &PostOptions::default()).await.unwrap();
    assert_eq!(reply.accepted, 1);
    // Refused for certain: a new number. Broken off: nobody knows, now or after any later refusal.
    assert_eq!(*asked.lock().unwrap(), ["7", "8", "8", "8", "8"]);
}

#[tokio::test]
async fn patience_ends() {
    let (client, _) = server(vec![""]).await;
    let options = PostOptions { patience: Duration::ZERO, ..PostOptions::default() };
    let producer = Producer::new("p", 1);
    let failed = client.post(&Events::ndjson("t", "{}\n"), &producer, &options).await.unwrap_err();
    assert_eq!((failed.error.kind, failed.rest), (ErrorKind::BrokenOff, Rest::Unknown));
}
