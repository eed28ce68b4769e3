//! The server that a command asks: where it is, how long to wait, and errors in words people can act on.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use gannet_client::{ClientOptions, Error, ErrorKind, Token, Trust};
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
    /// A file that holds the token to show
    #[arg(long, env = "GANNET_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The certificates of authorities to believe for https://, PEM [default: those of the system]
    #[arg(long, env = "GANNET_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// How long to wait for an answer, such as 500ms, 10s or 2m [default: 10s; ingest: 60s for each request]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Take defaults of flags from this file, instead of .gannet.toml of the project, gannet/config.toml in
    /// $XDG_CONFIG_HOME, and /etc/gannet/config.toml
    #[arg(id = "preferences", long = "config", env = "GANNET_CONFIG", value_name = "FILE")]
    pub(crate) preferences: Option<PathBuf>,
}

/// Files larger than this hold no token and no certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl ClientArgs {
    /// The server that they name, asked in the name of the token that they name.
    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        let mut options = ClientOptions::default();
        if let Some(path) = &self.token_file {
            options.token = Some(read_token(path)?);
        }
        if let Some(path) = &self.ca_file {
            options.trust = Trust::Authority(read_file("CA file", path)?);
        }
        let shows_token = options.token.is_some();
        let client = Client(gannet_client::Client::with(&self.server, options)?);
        if shows_token && client.0.is_readable_by_others() {
            warn(&format!("the token goes to {} unencrypted", client.0.address()));
        }
        Ok(client)
    }
}

/// Tells what is no error; who does not listen need not.
fn warn(what: &str) {
    let _ = writeln!(std::io::stderr().lock(), "warning: {what}");
}

/// Reads a token, and warns when others can.
fn read_token(path: &Path) -> Result<Token, Failure> {
    let bytes = read_file("token file", path)?;
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0) {
        warn(&format!("token file {} can be read by others: chmod 600 it", path.display()));
    }
    let what = |what: String| Failure::usage(format!("token file {}: {what}", path.display()));
    let text = std::str::from_utf8(&bytes).map_err(|_| what("is not UTF-8".to_owned()))?;
    Token::new(text)
        .map_err(|error| what(error.message).hint("it holds the token that `gannet token new` printed"))
}

fn read_file(what: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |why: String| Failure::usage(format!("{what} {}: {why}", path.display()));
    let bytes = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(failed(format!("{bytes} bytes exceed the limit of {FILE_BYTES_MAX}")));
    }
    std::fs::read(path).map_err(|error| failed(error.to_string()))
}

/// A server to ask; its errors are failures of the command.
#[derive(Debug, Clone)]
pub(crate) struct Client(gannet_client::Client);

impl Client {
    /// A client of the server at this URL, without a token. `host:port` alone is taken as http.
    #[cfg(test)]
    pub(crate) fn new(server: &str) -> Result<Client, Failure> {
        Client::with(server, ClientOptions::default())
    }

    /// A client of the server at this URL.
    pub(crate) fn with(server: &str, options: ClientOptions) -> Result<Client, Failure> {
        Ok(Client(gannet_client::Client::with(server, options)?))
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
        let failure = Client::new("ftp://box").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(failure.message, "server `ftp://box` has scheme `ftp`, must be http or https");
    }

    #[test]
    fn files_of_tokens_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let args = ClientArgs {
            server: "127.0.0.1:1".to_owned(),
            token_file: Some(path.clone()),
            ca_file: None,
            timeout: None,
            preferences: None,
        };
        let refused = || args.connect().unwrap_err();
        let gone = format!("token file {}: No such file or directory (os error 2)", path.display());
        assert_eq!((refused().exit, refused().message), (Exit::Usage, gone));
        std::fs::write(&path, " \n").unwrap();
        assert_eq!(refused().message, format!("token file {}: the token is empty", path.display()));
        std::fs::write(&path, "gannet_secret\n").unwrap();
        let client = args.connect().unwrap();
        assert!(!format!("{client:?}").contains("secret"));
    }
}
