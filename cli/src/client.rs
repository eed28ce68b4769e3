//! The server that a command asks: where it is, how long to wait, and errors in words people can act on.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use gannet_client::{Error, ErrorKind};
use reqwest::{Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;

pub(crate) use gannet_client::server_error;

use crate::outcome::{Exit, Failure};
use crate::units;

/// Where the server is and how long to wait: the same for all commands that ask a server.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientArgs {
    /// The aggregator to ask
    #[arg(long, env = "GANNET_SERVER", value_name = "URL", default_value = "http://127.0.0.1:7700")]
    pub(crate) server: String,
    /// How long to wait for an answer, such as 500ms, 10s or 2m [default: 10s; ingest: 60s for each request]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Take defaults of flags from this file, instead of .gannet.toml of the project, gannet/config.toml in
    /// $XDG_CONFIG_HOME, and /etc/gannet/config.toml
    #[arg(id = "preferences", long = "config", env = "GANNET_CONFIG", value_name = "FILE")]
    pub(crate) preferences: Option<PathBuf>,
}

/// A server to ask; its errors are failures of the command.
#[derive(Debug, Clone)]
pub(crate) struct Client(gannet_client::Client);

impl Client {
    /// A client of the server at this URL. `host:port` alone is taken as http.
    pub(crate) fn new(server: &str) -> Result<Client, Failure> {
        Ok(Client(gannet_client::Client::new(server)?))
    }

    /// The client itself.
    pub(crate) fn inner(&self) -> &gannet_client::Client {
        &self.0
    }

    /// A request to a path given by its segments, which may hold any characters.
    pub(crate) fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        self.0.request(method, segments)
    }

    /// Sends a request and returns the reply, whatever its status.
    pub(crate) async fn send(&self, request: RequestBuilder, timeout: Duration) -> Result<Response, Failure> {
        Ok(self.0.send(request, timeout).await?)
    }

    /// Gets the bytes of a successful reply.
    pub(crate) async fn get_bytes(&self, segments: &[&str], timeout: Duration) -> Result<Bytes, Failure> {
        Ok(self.0.get(segments, timeout).await?)
    }

    /// The body of a successful reply; the server's error otherwise.
    pub(crate) async fn successful_body(
        &self,
        response: Response,
        timeout: Duration,
    ) -> Result<Bytes, Failure> {
        Ok(self.0.successful_body(response, timeout).await?)
    }

    /// Reads JSON that the server sent.
    pub(crate) fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Failure> {
        Ok(self.0.decode(body)?)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let hint = match error.kind {
            ErrorKind::NotSent => Some("start one with `gannet up`, or name another with --server URL"),
            ErrorKind::TimedOut => Some("wait longer with --timeout TIME"),
            _ => None,
        };
        Failure {
            exit: exit_of(&error),
            message: error.message,
            detail: error.detail,
            excerpt: None,
            hint: error.hint.or(hint.map(str::to_owned)),
            position: error.position.map(|position| (position.line, position.column)),
            not_sent: error.kind == ErrorKind::NotSent,
        }
    }
}

fn exit_of(error: &Error) -> Exit {
    match (error.kind, &*error.code, error.status) {
        (ErrorKind::Address, ..) => Exit::Usage,
        (ErrorKind::NotSent | ErrorKind::BrokenOff, ..) => Exit::Unreachable,
        (ErrorKind::TimedOut, ..) => Exit::Timeout,
        (_, "incomplete", _) => Exit::Incomplete,
        // A streamed answer that fails late has a code and no status.
        (_, "timeout", _) | (_, _, Some(408 | 504)) => Exit::Timeout,
        (_, _, Some(401 | 403)) => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    #[test]
    fn refusals_end_with_codes() {
        let refusal =
            |status, body: &[u8]| Failure::from(Error::of_reply("http://box:1", status, None, body));
        let check = |status: u16, body: &str, exit: Exit, message: &str| {
            let failure = refusal(StatusCode::from_u16(status).unwrap(), body.as_bytes());
            assert_eq!((failure.exit, failure.message.as_str()), (exit, message), "{status} {body}");
        };
        check(504, r#"{"error":{"code":"timeout","message":"m"}}"#, Exit::Timeout, "m");
        check(400, r#"{"error":{"code":"bad_request","message":"m"}}"#, Exit::Failed, "m");
        check(503, r#"{"error":{"code":"incomplete"}}"#, Exit::Incomplete, "503 Service Unavailable");
        check(502, "<html>", Exit::Failed, "http://box:1 answered 502 Bad Gateway");
        check(403, "<html>", Exit::Unreachable, "http://box:1 answered 403 Forbidden");
        let at = br#"{"error":{"message":"m","position":{"line":2,"column":3}}}"#;
        assert_eq!(refusal(StatusCode::BAD_REQUEST, at).position, Some((2, 3)));
    }

    #[test]
    fn wrong_addresses_are_wrong_usage() {
        let failure = Client::new("https://box").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(failure.message, "server `https://box` asks for TLS, which Gannet does not speak yet");
    }
}
