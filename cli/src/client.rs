//! The HTTP client of the commands: one server, one timeout, errors in words people can act on.
//!
//! It never follows a proxy from the environment, because a proxy cannot reach the loopback address that servers
//! listen on by default, and it never speaks TLS yet.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::outcome::{Exit, Failure};
use crate::units;

/// A server that does not answer on its port for so long is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What is read of a reply that is not what was expected.
const FOREIGN_TEXT_MAX: usize = 300;

/// Where the server is and how long to wait: the same for all commands that ask a server.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientArgs {
    /// The aggregator to ask
    #[arg(long, env = "GANNET_SERVER", value_name = "URL", default_value = "http://127.0.0.1:7700")]
    pub(crate) server: String,
    /// How long to wait for an answer, such as 500ms, 10s or 2m [default: 10s; ingest: 60s for each request]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub(crate) timeout: Option<Duration>,
}

/// A server to ask.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
}

/// An error as the server writes it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ServerError {
    /// The kind, such as `bad_request`.
    pub(crate) code: String,
    /// What happened.
    pub(crate) message: String,
    /// More.
    pub(crate) detail: Option<String>,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// Where in the SQL.
    pub(crate) position: Option<Position>,
}

/// A place in SQL text, counted from 1.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Position {
    /// Line.
    pub(crate) line: u32,
    /// Column.
    pub(crate) column: u32,
}

impl Client {
    /// A client of the server at this URL. `host:port` alone is taken as http.
    pub(crate) fn new(server: &str) -> Result<Client, Failure> {
        let base = parse_server(server)?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("gannet/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::failed(format!("set up the HTTP client: {error}")))?;
        Ok(Client { http, base })
    }

    /// The server's address, for messages.
    pub(crate) fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// A request to a path given by its segments, which may hold any characters.
    pub(crate) fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        self.http.request(method, url)
    }

    /// Sends a request and returns the reply, whatever its status.
    pub(crate) async fn send(&self, request: RequestBuilder, timeout: Duration) -> Result<Response, Failure> {
        request.timeout(timeout).send().await.map_err(|error| self.failure(&error, timeout))
    }

    /// Gets the bytes of a successful reply.
    pub(crate) async fn get_bytes(&self, segments: &[&str], timeout: Duration) -> Result<Bytes, Failure> {
        let response = self.send(self.request(Method::GET, segments), timeout).await?;
        self.successful_body(response, timeout).await
    }

    /// The body of a successful reply; the server's error otherwise.
    pub(crate) async fn successful_body(
        &self,
        response: Response,
        timeout: Duration,
    ) -> Result<Bytes, Failure> {
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.failure(&error, timeout))?;
        if status.is_success() { Ok(body) } else { Err(self.refusal(status, &body)) }
    }

    /// Reads JSON that the server sent.
    pub(crate) fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Failure> {
        serde_json::from_slice(body).map_err(|error| {
            Failure::failed(format!("{} sent something else than was asked for: {error}", self.address()))
                .detail(excerpt(body))
                .hint("is it an aggregator of this version of Gannet?")
        })
    }

    /// What a reply with an error status says.
    pub(crate) fn refusal(&self, status: StatusCode, body: &[u8]) -> Failure {
        let Some(error) = server_error(body) else {
            return Failure::new(exit_of(status, ""), format!("{} answered {status}", self.address()))
                .detail(excerpt(body))
                .hint("is it an aggregator of Gannet?");
        };
        let message = if error.message.is_empty() { status.to_string() } else { error.message };
        Failure {
            exit: exit_of(status, &error.code),
            message,
            detail: error.detail,
            excerpt: None,
            hint: error.hint,
            position: error.position.map(|position| (position.line, position.column)),
            not_sent: false,
        }
    }

    fn failure(&self, error: &reqwest::Error, timeout: Duration) -> Failure {
        let address = self.address();
        if error.is_connect() {
            let message = format!("no server answers at {address}: {}", root_cause(error));
            let failure = Failure::new(Exit::Unreachable, message)
                .hint("start one with `gannet up`, or name another with --server URL");
            Failure { not_sent: true, ..failure }
        } else if error.is_timeout() {
            let waited = units::seconds(timeout.as_secs_f64());
            Failure::new(Exit::Timeout, format!("{address} did not answer within {waited}"))
                .hint("wait longer with --timeout TIME")
        } else {
            Failure::new(
                Exit::Unreachable,
                format!("the connection to {address} failed: {}", root_cause(error)),
            )
        }
    }
}

/// The error in a reply's body, if it is one of ours.
pub(crate) fn server_error(body: &[u8]) -> Option<ServerError> {
    #[derive(Deserialize)]
    struct Envelope {
        error: ServerError,
    }
    serde_json::from_slice::<Envelope>(body).ok().map(|envelope| envelope.error)
}

fn exit_of(status: StatusCode, code: &str) -> Exit {
    match status {
        _ if code == "incomplete" => Exit::Incomplete,
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => Exit::Timeout,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Unreachable,
        _ => Exit::Failed,
    }
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

fn parse_server(server: &str) -> Result<Url, Failure> {
    let wrong = |why: &str| Failure::usage(format!("server `{server}` {why}"));
    let with_scheme = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    let url = Url::parse(&with_scheme).map_err(|error| wrong(&format!("is not a URL: {error}")))?;
    match url.scheme() {
        "http" => {}
        "https" => {
            return Err(wrong("asks for TLS, which Gannet does not speak yet").hint(
                "use http:// on a network you trust, or a tunnel such as `ssh -L 7700:127.0.0.1:7700 HOST`",
            ));
        }
        other => return Err(wrong(&format!("has scheme `{other}`, must be http"))),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("names no host"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read() {
        let check = |server: &str, address: &str| assert_eq!(Client::new(server).unwrap().address(), address);
        check("http://127.0.0.1:7700", "http://127.0.0.1:7700");
        check("localhost:7701", "http://localhost:7701");
        check("http://box/gannet/", "http://box/gannet");
        let refused = |server: &str| Client::new(server).unwrap_err();
        assert_eq!(
            refused("https://box:7700").message,
            "server `https://box:7700` asks for TLS, which Gannet does not speak yet"
        );
        assert_eq!(refused("ftp://box").message, "server `ftp://box` has scheme `ftp`, must be http");
        assert_eq!(refused("http://").message, "server `http://` is not a URL: empty host");
        assert_eq!(refused("https://box").exit, Exit::Usage);
    }

    #[test]
    fn table_names_may_hold_anything() {
        let client = Client::new("http://box/gannet").unwrap();
        let request = client.request(Method::GET, &["v1", "tables", "a/b ?é"]).build().unwrap();
        assert_eq!(request.url().as_str(), "http://box/gannet/v1/tables/a%2Fb%20%3F%C3%A9");
    }

    #[test]
    fn refusals_are_read() {
        let client = Client::new("box:1").unwrap();
        let body =
            br#"{"error":{"code":"timeout","message":"m","hint":"h","position":{"line":2,"column":3}}}"#;
        let failure = client.refusal(StatusCode::GATEWAY_TIMEOUT, body);
        assert_eq!(
            (failure.exit, failure.message.as_str(), failure.position),
            (Exit::Timeout, "m", Some((2, 3)))
        );
        let foreign = client.refusal(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(foreign.message, "http://box:1 answered 502 Bad Gateway");
        assert_eq!(foreign.detail.as_deref(), Some("It sent: <html>"));
        let thin = client.refusal(StatusCode::SERVICE_UNAVAILABLE, br#"{"error":{"code":"incomplete"}}"#);
        assert_eq!(thin.exit, Exit::Incomplete);
    }
}
