//! What can go wrong with a request, in words for people and with a kind for programs.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

/// What is read of a reply that is not what was expected.
const FOREIGN_TEXT_MAX: usize = 300;

/// A request that failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of failure it is, for programs that act on it.
    pub kind: ErrorKind,
    /// The server's word for what it refused, such as `bad_request`; empty when the server said nothing.
    pub code: Box<str>,
    /// What happened: short, lower case, names the thing.
    pub message: String,
    /// More, in full sentences.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// The place in the SQL that it is about.
    pub position: Option<Position>,
    /// The HTTP status of the reply, when there was one.
    pub status: Option<u16>,
    /// After how many seconds the server asks to come back.
    pub retry_after_seconds: Option<u32>,
}

/// The kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The address of the server is none.
    Address,
    /// There was no connection, so the server cannot have seen anything of the request.
    NotSent,
    /// The connection broke; nobody knows what the server did.
    BrokenOff,
    /// No reply, or no more of it, within the time that was given.
    TimedOut,
    /// The server refused the request or failed with it, and says why.
    Refused,
    /// What replied is no Gannet, or one that this client does not understand.
    Foreign,
}

/// A place in SQL text, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

/// An error as the server writes it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServerError {
    /// The kind, such as `bad_request`.
    pub code: String,
    /// What happened.
    pub message: String,
    /// More.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Where in the SQL.
    pub position: Option<Position>,
}

impl Error {
    /// A failure with a message only.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error {
            kind,
            code: Box::default(),
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            status: None,
            retry_after_seconds: None,
        }
    }

    /// The server at this address sent something that is no reply to what was asked.
    pub(crate) fn foreign(address: &str, why: &str, sent: &[u8]) -> Error {
        let message = format!("{address} sent something else than was asked for: {why}");
        let hint = "is it an aggregator of this version of Gannet?".to_owned();
        Error { detail: Some(excerpt(sent)), hint: Some(hint), ..Error::new(ErrorKind::Foreign, message) }
    }

    /// What a reply with an error status says.
    pub fn of_reply(
        address: &str,
        status: StatusCode,
        retry_after_seconds: Option<u32>,
        body: &[u8],
    ) -> Error {
        let about = Error {
            status: Some(status.as_u16()),
            retry_after_seconds,
            ..Error::new(ErrorKind::Foreign, "")
        };
        let Some(error) = server_error(body) else {
            return Error {
                message: format!("{address} answered {status}"),
                detail: Some(excerpt(body)),
                hint: Some("is it an aggregator of Gannet?".to_owned()),
                ..about
            };
        };
        let message = if error.message.is_empty() { status.to_string() } else { error.message };
        Error {
            kind: ErrorKind::Refused,
            code: error.code.into(),
            message,
            detail: error.detail,
            hint: error.hint,
            position: error.position,
            ..about
        }
    }

    /// What a line of a streamed reply says that ends it with an error.
    pub(crate) fn of_line(error: ServerError) -> Error {
        Error {
            code: error.code.into(),
            detail: error.detail,
            hint: error.hint,
            position: error.position,
            ..Error::new(ErrorKind::Refused, error.message)
        }
    }

    /// What the connection says; `waited` is how long it was given.
    pub(crate) fn of_connection(address: &str, error: &reqwest::Error, waited: Duration) -> Error {
        if let Some(cause) = tls_error(error) {
            let message = format!("{address} cannot be trusted: {cause}");
            let hint = "name the authority that signed its certificate: --ca-file FILE";
            return Error { hint: Some(hint.to_owned()), ..Error::new(ErrorKind::NotSent, message) };
        }
        if error.is_connect() {
            let message = format!("no server answers at {address}: {}", root_cause(error));
            Error::new(ErrorKind::NotSent, message)
        } else if error.is_timeout() {
            Error::timed_out(address, waited)
        } else {
            let cause = root_cause(error);
            let message = format!("the connection to {address} failed: {cause}");
            let speaks_tls = cause == "invalid HTTP version parsed" && address.starts_with("http://");
            let hint = speaks_tls.then(|| "if it speaks TLS, its address begins with https://".to_owned());
            Error { hint, ..Error::new(ErrorKind::BrokenOff, message) }
        }
    }

    /// The server took longer than it was given.
    pub(crate) fn timed_out(address: &str, waited: Duration) -> Error {
        let message = format!("{address} did not answer within {}", seconds(waited));
        Error::new(ErrorKind::TimedOut, message)
    }
}

/// The error in a reply's body, if it is one of ours.
pub fn server_error(body: &[u8]) -> Option<ServerError> {
    #[derive(Deserialize)]
    struct Envelope {
        error: ServerError,
    }
    serde_json::from_slice::<Envelope>(body).ok().map(|envelope| envelope.error)
}

fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(FOREIGN_TEXT_MAX)]);
    format!("It sent: {}", if text.trim().is_empty() { "nothing" } else { text.trim() })
}

/// The innermost error, which says what happened; the outer ones only say where.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What TLS has against the server, if that is it.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let error: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(error), |error| error.source()).find_map(carried)
}

/// The error of TLS that an error is, or carries: those of the system carry others, which are not in the chain.
fn carried<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<std::io::Error>() {
        Some(carrier) => carried(carrier.get_ref()?),
        None => error.downcast_ref(),
    }
}

/// `500 ms`, `15.00 s`.
fn seconds(duration: Duration) -> String {
    match duration.as_secs_f64() {
        short if short < 0.9995 => format!("{:.0} ms", short * 1000.0),
        long => format!("{long:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read() {
        let body =
            br#"{"error":{"code":"timeout","message":"m","hint":"h","position":{"line":2,"column":3}}}"#;
        let error = Error::of_reply("http://box:1", StatusCode::GATEWAY_TIMEOUT, None, body);
        assert_eq!(
            (error.kind, &*error.code, error.message.as_str(), error.status),
            (ErrorKind::Refused, "timeout", "m", Some(504))
        );
        assert_eq!(error.position, Some(Position { line: 2, column: 3 }));
        let silent = Error::of_reply("a", StatusCode::SERVICE_UNAVAILABLE, None, br#"{"error":{}}"#);
        assert_eq!(silent.message, "503 Service Unavailable");
    }

    #[test]
    fn what_is_no_gannet_is_named() {
        let foreign = Error::of_reply("http://box:1", StatusCode::BAD_GATEWAY, None, b"<html>");
        assert_eq!(foreign.kind, ErrorKind::Foreign);
        assert_eq!(foreign.message, "http://box:1 answered 502 Bad Gateway");
        assert_eq!(foreign.detail.as_deref(), Some("It sent: <html>"));
        let long = Error::foreign("http://box:1", "no JSON", &[b'x'; 10_000]);
        assert_eq!(long.detail.map(|detail| detail.len()), Some("It sent: ".len() + FOREIGN_TEXT_MAX));
        assert_eq!(Error::foreign("a", "no JSON", b" ").detail.as_deref(), Some("It sent: nothing"));
    }

    #[test]
    fn errors_of_tls_are_found_in_what_carries_them() {
        use std::io::Error as Carrier;
        let tls = || rustls::Error::NoCertificatesPresented;
        let twice = Carrier::other(Carrier::other(tls()));
        assert_eq!((carried(&tls()), carried(&twice)), (Some(&tls()), Some(&tls())));
        assert_eq!(carried(&Carrier::other("full")), None);
        assert_eq!(carried(&Carrier::from(std::io::ErrorKind::NotFound)), None);
    }

    #[test]
    fn waits_are_told() {
        let check = |wait, text: &str| assert_eq!(Error::timed_out("a", wait).message, text);
        check(Duration::from_millis(500), "a did not answer within 500 ms");
        check(Duration::from_secs(15), "a did not answer within 15.00 s");
    }
}
