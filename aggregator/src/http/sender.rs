//! Headers that say who sends a body of events, so that a retry is counted once.

use axum::http::HeaderMap;

use crate::error::{ErrorCode, Failure};
use crate::sender::{NAME_BYTES_MAX, Sender};

const PRODUCER: &str = "Gannet-Producer";
const SEQUENCE: &str = "Gannet-Sequence";
const KEY: &str = "Idempotency-Key";

/// The sender that a request names, if it does.
///
/// # Errors
/// When the headers are not what they must be, or not together what they must be.
pub(super) fn sender(headers: &HeaderMap) -> Result<Option<Sender>, Failure> {
    let (producer, sequence, key) = (name(headers, PRODUCER)?, only(headers, SEQUENCE)?, name(headers, KEY)?);
    let alone = |there: &str, missing: &str| {
        Failure::new(ErrorCode::BadRequest, format!("header {there} comes without {missing}"))
            .hint("A producer numbers its requests: the two go together.")
    };
    match (producer, sequence, key) {
        (None, None, None) => Ok(None),
        (None, None, Some(key)) => Ok(Some(Sender::Key(key))),
        (Some(producer), Some(sequence), None) => {
            Ok(Some(Sender::Producer { producer, sequence: number(&sequence)? }))
        }
        (Some(_), None, None) => Err(alone(PRODUCER, SEQUENCE)),
        (None, Some(_), None) => Err(alone(SEQUENCE, PRODUCER)),
        (_, _, Some(_)) => {
            let message = format!("header {KEY} comes together with {PRODUCER} or {SEQUENCE}");
            Err(Failure::new(ErrorCode::BadRequest, message)
                .hint("Name a request by producer and sequence, or by a key."))
        }
    }
}

/// A header's text, if it is there.
fn only(headers: &HeaderMap, header: &str) -> Result<Option<String>, Failure> {
    let mut values = headers.get_all(header).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Failure::new(ErrorCode::BadRequest, format!("header {header} comes more than once")));
    }
    Ok(Some(String::from_utf8_lossy(value.as_bytes()).into_owned()))
}

/// A header that holds a name.
fn name(headers: &HeaderMap, header: &str) -> Result<Option<String>, Failure> {
    let Some(text) = only(headers, header)? else { return Ok(None) };
    let bad = |what: String| Err(Failure::new(ErrorCode::BadRequest, what));
    if text.is_empty() {
        return bad(format!("header {header} is empty"));
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return bad(format!("header {header} holds the character {c:?}, which is not visible ASCII"));
    }
    if text.len() > NAME_BYTES_MAX {
        let bytes = text.len();
        return bad(format!(
            "header {header} of {bytes} bytes is longer than the limit of {NAME_BYTES_MAX} bytes"
        ));
    }
    Ok(Some(text))
}

fn number(text: &str) -> Result<u64, Failure> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        let message = format!("header {SEQUENCE} is {shown:?}, it must be a number from 0 to {}", u64::MAX);
        Failure::new(ErrorCode::BadRequest, message)
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn read(headers: &[(&str, &[u8])]) -> Result<Option<Sender>, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value).unwrap());
        }
        sender(&map).map_err(|failure| {
            assert_eq!(failure.code, ErrorCode::BadRequest);
            failure.message
        })
    }

    #[test]
    fn senders_are_read() {
        assert_eq!(read(&[("content-type", b"text/csv")]), Ok(None));
        let producer = Sender::Producer { producer: "agent/7:a".to_owned(), sequence: u64::MAX };
        let numbered = [("gannet-producer", &b"agent/7:a"[..]), ("gannet-sequence", b"18446744073709551615")];
        assert_eq!(read(&numbered), Ok(Some(producer)));
        assert_eq!(read(&[("idempotency-key", b"\"k1\"")]), Ok(Some(Sender::Key("\"k1\"".to_owned()))));
    }

    #[test]
    fn headers_that_are_not_what_they_must_be_are_named() {
        let refused = |headers: &[(&str, &[u8])], expect: &str| {
            assert_eq!(read(headers).unwrap_err(), expect);
        };
        refused(&[("gannet-producer", b"p")], "header Gannet-Producer comes without Gannet-Sequence");
        refused(&[("gannet-sequence", b"1")], "header Gannet-Sequence comes without Gannet-Producer");
        let together = "header Idempotency-Key comes together with Gannet-Producer or Gannet-Sequence";
        refused(&[("gannet-producer", b"p"), ("gannet-sequence", b"1"), ("idempotency-key", b"k")], together);
        refused(&[("gannet-sequence", b"1"), ("idempotency-key", b"k")], together);
        refused(&[("gannet-producer", b"")], "header Gannet-Producer is empty");
        refused(
            &[("gannet-producer", b"a b")],
            "header Gannet-Producer holds the character ' ', which is not visible ASCII",
        );
        refused(
            &[("idempotency-key", "k\u{e9}".as_bytes())],
            "header Idempotency-Key holds the character 'é', which is not visible ASCII",
        );
        refused(
            &[("idempotency-key", &[b'k'; 257])],
            "header Idempotency-Key of 257 bytes is longer than the limit of 256 bytes",
        );
        refused(
            &[("idempotency-key", b"k"), ("idempotency-key", b"k")],
            "header Idempotency-Key comes more than once",
        );
        for text in ["", "-1", "+1", "1.0", "18446744073709551616", "seven"] {
            let expect = format!(
                "header Gannet-Sequence is {text:?}, it must be a number from 0 to 18446744073709551615"
            );
            refused(&[("gannet-producer", b"p"), ("gannet-sequence", text.as_bytes())], &expect);
        }
    }
}
