//! Bodies that are refused, and what becomes of their bytes.
//!
//! A connection that ends over bytes that nobody read is reset, and its client may never see why; one whose bytes were
//! read can be used again. So a short body is read and forgotten before the reply. A long one is left where it is:
//! reading what is not wanted would take from those who are being served.
//!
//! A client that asked first (`Expect: 100-continue`) has sent nothing, and is not told to go on. It learns from the
//! reply that its body is not wanted, and ends a body in chunks with the empty one (RFC 9112, section 7.1): such a
//! connection stays, so that saying no costs no new connection. Whoever closes instead may do so, and whoever sends the
//! body all the same is treated as above.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, Version, header};
use axum::response::Response;
use futures::StreamExt;
use hyper::body::{Frame, SizeHint};

/// A body that is refused is read if it is no longer than this.
const READ_BYTES_MAX: usize = 64 << 10;
/// And it is waited for so long.
const READ_WAIT_MAX: Duration = Duration::from_secs(1);

/// The refusal of a request, with what is left of its body taken care of.
pub(super) async fn refuse(
    (version, headers): (Version, &HeaderMap),
    body: Body,
    refusal: Response,
) -> Response {
    if headers.contains_key(header::EXPECT) {
        return match version {
            Version::HTTP_11 => refusal.map(|reply| Body::new(Then { reply, unread: Some(body) })),
            // Each request is a stream of its own, which ends with the reply.
            _ => refusal,
        };
    }
    let bytes = headers.get(header::CONTENT_LENGTH).and_then(|bytes| bytes.to_str().ok()?.parse().ok());
    let is_long = bytes.is_some_and(|bytes: usize| bytes > READ_BYTES_MAX);
    if !is_long {
        read(body).await;
    }
    refusal
}

/// Reads a body to its end, if that comes soon. What did not come by then is left, and the connection with it.
async fn read(body: Body) {
    let mut pieces = body.into_data_stream();
    let read = async {
        let mut bytes = 0;
        while let Some(Ok(piece)) = pieces.next().await {
            bytes += piece.len();
            if bytes > READ_BYTES_MAX {
                return;
            }
        }
    };
    // Either way nobody wants more of it.
    let _ = tokio::time::timeout(READ_WAIT_MAX, read).await;
}

/// A reply, and then what is left of the request. Reading that any sooner would tell the client to send it.
struct Then {
    reply: Body,
    unread: Option<Body>,
}

impl HttpBody for Then {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.reply).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.reply.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.reply.size_hint()
    }
}

impl Drop for Then {
    /// The reply is written, or will not be.
    fn drop(&mut self) {
        if let Some(unread) = self.unread.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(read(unread));
        }
    }
}
