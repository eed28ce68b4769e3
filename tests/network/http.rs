//! A client of the HTTP door, in the simulated network: one request a connection.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turmoil::net::TcpStream;

/// What a server said.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
    /// Seconds after which it is worth to come back.
    pub(crate) retry_after: Option<u64>,
}

impl Reply {
    /// The code of its error, if it is one.
    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or("")
    }
}

/// Why there is no reply.
#[derive(Debug)]
pub(crate) enum NoReply {
    /// Nobody was reached: nothing was asked.
    Unreached,
    /// The connection broke off.
    Broken(String),
    /// Nothing came in time.
    Silence,
}

impl std::fmt::Display for NoReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoReply::Unreached => f.write_str("nobody was reached"),
            NoReply::Broken(why) => f.write_str(why),
            NoReply::Silence => f.write_str("nothing came"),
        }
    }
}

/// Asks, and waits this long for the whole of a reply.
pub(crate) async fn ask(
    at: SocketAddr,
    call: &str,
    headers: &[(&str, String)],
    body: &str,
    patience: Duration,
) -> Result<Reply, NoReply> {
    match tokio::time::timeout(patience, exchange(at, call, headers, body)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(NoReply::Silence),
    }
}

async fn exchange(
    at: SocketAddr,
    call: &str,
    headers: &[(&str, String)],
    body: &str,
) -> Result<Reply, NoReply> {
    let mut stream = TcpStream::connect(at).await.map_err(|_| NoReply::Unreached)?;
    let mut text = format!("{call} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    // In one piece, so that a body has come when its head has.
    text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let broken = |error: std::io::Error| NoReply::Broken(error.to_string());
    stream.write_all(text.as_bytes()).await.map_err(broken)?;
    let mut reply = Vec::new();
    loop {
        if let Some(reply) = whole(&reply) {
            return Ok(reply);
        }
        if stream.read_buf(&mut reply).await.map_err(broken)? == 0 {
            return Err(NoReply::Broken("the reply ended early".to_owned()));
        }
    }
}

/// The reply, when all of it is there.
fn whole(bytes: &[u8]) -> Option<Reply> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let number = |wanted: &str| {
        let header = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
        header.1.trim().parse::<u64>().ok()
    };
    let length = number("content-length").and_then(|length| usize::try_from(length).ok());
    let retry_after = number("retry-after");
    let body = match length {
        Some(length) => body.get(..length)?.to_owned(),
        None => unchunked(body)?,
    };
    let body = serde_json::from_str(&body).unwrap_or(Value::Null);
    Some(Reply { status, body, retry_after })
}

/// A chunked body, when all of it is there.
fn unchunked(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n")?;
        let length = usize::from_str_radix(length.trim(), 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..length)?);
        body = rest.get(length + 2..)?;
    }
}
