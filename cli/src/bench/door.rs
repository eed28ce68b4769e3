//! A client of the HTTP door that costs as little as can be: requests are bytes that were prepared, and of a reply only
//! what a generator of load acts on is read. It shares its machine with the servers that it measures.

use std::io;
use std::net::SocketAddr;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The status of "go on".
const CONTINUE: u16 = 100;
/// A body in chunks ends with this one.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// More is no reply to what is asked here.
const REPLY_BYTES_MAX: usize = 256 << 20;
/// Heads of replies are shorter; the completeness of an answer is in them.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The door, and connections to it that nobody uses now.
#[derive(Debug)]
pub(super) struct Door {
    at: SocketAddr,
    idle: Mutex<Vec<TcpStream>>,
}

/// A reply.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reply {
    /// The HTTP status.
    pub(super) status: u16,
    /// Seconds of `Retry-After`, if there is one that is a number.
    pub(super) retry_after: Option<u64>,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// The head of a reply, as far as it matters.
#[derive(Debug, PartialEq)]
struct Head {
    status: u16,
    retry_after: Option<u64>,
    content_bytes: usize,
    closes: bool,
}

impl Door {
    pub(super) fn new(at: SocketAddr) -> Door {
        Door { at, idle: Mutex::new(Vec::new()) }
    }

    /// Sends a whole request and reads its reply.
    pub(super) async fn send(&self, request: &[u8]) -> io::Result<Reply> {
        let connection = self.connection().await?;
        self.converse(connection, request).await
    }

    /// Sends the head of a request, which says `Expect: 100-continue` and that its body comes in chunks, and the body when
    /// the server wants it. The body of one that is refused ends before it began.
    pub(super) async fn send_if_wanted(
        &self,
        head: &[u8],
        body: impl FnOnce() -> Vec<u8>,
    ) -> io::Result<Reply> {
        let mut connection = self.connection().await?;
        connection.write_all(head).await?;
        match read_reply(&mut connection).await? {
            (Reply { status: CONTINUE, .. }, _) => self.converse(connection, &chunked(&body())).await,
            (refused, closes) => {
                if !closes && connection.write_all(LAST_CHUNK).await.is_ok() {
                    self.idle.lock().push(connection);
                }
                Ok(refused)
            }
        }
    }

    /// Writes all of this and reads the reply to it.
    async fn converse(&self, mut connection: TcpStream, request: &[u8]) -> io::Result<Reply> {
        // A server that refuses a body may stop reading it. What it says is there to be read all the same.
        let written = connection.write_all(request).await;
        match read_reply(&mut connection).await {
            Ok((reply, closes)) => {
                if !closes && written.is_ok() {
                    self.idle.lock().push(connection);
                }
                Ok(reply)
            }
            Err(error) => Err(written.err().unwrap_or(error)),
        }
    }

    async fn connection(&self) -> io::Result<TcpStream> {
        match self.idle_connection() {
            Some(connection) => Ok(connection),
            None => self.connect().await,
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let connection = TcpStream::connect(self.at).await?;
        connection.set_nodelay(true)?;
        Ok(connection)
    }

    /// The connection used last that the server has not closed since.
    fn idle_connection(&self) -> Option<TcpStream> {
        loop {
            let connection = self.idle.lock().pop()?;
            // An open one has nothing to be read.
            if connection.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return Some(connection);
            }
        }
    }
}

/// A whole body as one chunk.
fn chunked(body: &[u8]) -> Vec<u8> {
    let size = format!("{:x}\r\n", body.len());
    [size.as_bytes(), body, b"\r\n", LAST_CHUNK].concat()
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A reply, and whether the connection ends with it.
async fn read_reply(connection: &mut TcpStream) -> io::Result<(Reply, bool)> {
    let mut bytes = Vec::with_capacity(4096);
    let (head, head_bytes) = loop {
        if connection.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            break (head_of(&bytes[..end])?, end + 4);
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(wrong("the head of a reply does not end"));
        }
    };
    if head.content_bytes > REPLY_BYTES_MAX {
        return Err(wrong("a reply is larger than any that was asked for"));
    }
    let end = head_bytes + head.content_bytes;
    while bytes.len() < end {
        if connection.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let body = bytes[head_bytes..end].to_vec();
    Ok((Reply { status: head.status, retry_after: head.retry_after, body }, head.closes))
}

fn head_of(bytes: &[u8]) -> io::Result<Head> {
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("the head of a reply is not text"))?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| wrong("a reply does not begin with a status of HTTP/1.1"))?;
    let (mut retry_after, mut content_bytes, mut closes) = (None, None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("retry-after") {
            retry_after = value.parse().ok();
        } else if name.eq_ignore_ascii_case("content-length") {
            content_bytes = value.parse().ok();
        } else if name.eq_ignore_ascii_case("connection") {
            closes = value.eq_ignore_ascii_case("close");
        }
    }
    if status == CONTINUE {
        content_bytes = Some(0);
    }
    let content_bytes = content_bytes.ok_or_else(|| wrong("a reply does not say how long it is"))?;
    Ok(Head { status, retry_after, content_bytes, closes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let check = |text: &str, expect: Result<Head, &str>| {
            assert_eq!(
                head_of(text.as_bytes()).map_err(|error| error.to_string()),
                expect.map_err(str::to_owned)
            );
        };
        let head =
            |status, retry_after, content_bytes, closes| Head { status, retry_after, content_bytes, closes };
        check("HTTP/1.1 200 OK\r\ncontent-length: 12", Ok(head(200, None, 12, false)));
        check(
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 3",
            Ok(head(429, Some(1), 3, true)),
        );
        check("HTTP/1.1 503 x\r\nretry-after: soon\r\ncontent-length: 0", Ok(head(503, None, 0, false)));
        check("HTTP/1.1 100 Continue", Ok(head(100, None, 0, false)));
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked", Err("a reply does not say how long it is"));
        check("SSH-2.0-x", Err("a reply does not begin with a status of HTTP/1.1"));
    }
}
