//! The connection to one server: addresses, requests, replies and their failures.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind};
use crate::token::Token;
use crate::trust::Trust;

/// A server that does not answer on its port for so long is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that was not used for so long is not used again: the server may be about to close it.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// Who asks, and whom they believe.
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    /// Shown with every request.
    pub token: Option<Token>,
    /// Which servers are believed, when they are asked over TLS.
    pub trust: Trust,
}

/// A server to ask. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Token>,
}

impl Client {
    /// A client of the aggregator at this URL, without a token. `host:port` alone is taken as http.
    ///
    /// # Errors
    /// When it is no URL, or one that Gannet does not serve. Nothing is connected yet.
    pub fn new(server: &str) -> Result<Client, Error> {
        Client::with(server, ClientOptions::default())
    }

    /// A client of the aggregator at this URL.
    ///
    /// # Errors
    /// As [`Client::new`]; and when the certificates that are to be trusted are none.
    pub fn with(server: &str, options: ClientOptions) -> Result<Client, Error> {
        let base = parse_server(server)?;
        let mut http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("gannet/", env!("CARGO_PKG_VERSION")));
        if base.scheme() == "https" {
            http = http.use_preconfigured_tls(options.trust.tls()?);
        }
        let http = http.build().map_err(|error| {
            Error::new(ErrorKind::Address, format!("set up the HTTP client for `{server}`: {error}"))
        })?;
        Ok(Client { http, base, token: options.token })
    }

    /// The server's address, for messages.
    pub fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// A request to a path given by its segments, which may hold any characters. For calls that have no function here.
    pub fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, token.header()),
            None => request,
        }
    }

    /// Whether others on the network can read what is sent, the token with it.
    pub fn is_readable_by_others(&self) -> bool {
        let host = self.base.host_str().unwrap_or_default();
        let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        let is_local = ip.map_or_else(|_| host == "localhost", |ip| ip.to_canonical().is_loopback());
        self.base.scheme() != "https" && !is_local
    }

    /// Sends a request and returns the reply, whatever its status. The time is for the reply with its body.
    ///
    /// # Errors
    /// When there is no reply.
    pub async fn send(&self, request: RequestBuilder, timeout: Duration) -> Result<Response, Error> {
        let sent = request.timeout(timeout).send().await;
        sent.map_err(|error| Error::of_connection(self.address(), &error, timeout))
    }

    /// The body of a successful reply.
    ///
    /// # Errors
    /// The server's error when the reply is none, or what broke the connection.
    pub async fn successful_body(&self, response: Response, timeout: Duration) -> Result<Bytes, Error> {
        let (status, retry_after) = (response.status(), retry_after_seconds(&response));
        let body = response.bytes().await;
        let body = body.map_err(|error| Error::of_connection(self.address(), &error, timeout))?;
        if status.is_success() {
            Ok(body)
        } else {
            Err(Error::of_reply(self.address(), status, retry_after, &body))
        }
    }

    /// Gets the bytes of a successful reply.
    ///
    /// # Errors
    /// The server's error, or what broke the connection.
    pub async fn get(&self, segments: &[&str], timeout: Duration) -> Result<Bytes, Error> {
        let response = self.send(self.request(Method::GET, segments), timeout).await?;
        self.successful_body(response, timeout).await
    }

    /// Reads JSON that the server sent.
    ///
    /// # Errors
    /// When it is something else.
    pub fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| Error::foreign(self.address(), &error.to_string(), body))
    }
}

/// After how many seconds the server asks to come back.
pub(crate) fn retry_after_seconds(response: &Response) -> Option<u32> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

fn parse_server(server: &str) -> Result<Url, Error> {
    let wrong = |why: &str| Error::new(ErrorKind::Address, format!("server `{server}` {why}"));
    let with_scheme = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    let url = Url::parse(&with_scheme).map_err(|error| wrong(&format!("is not a URL: {error}")))?;
    match url.scheme() {
        "http" | "https" => {}
        other => return Err(wrong(&format!("has scheme `{other}`, must be http or https"))),
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
            refused("ftp://box").message,
            "server `ftp://box` has scheme `ftp`, must be http or https"
        );
        assert_eq!(refused("http://").message, "server `http://` is not a URL: empty host");
        assert_eq!(refused("ftp://box").kind, ErrorKind::Address);
    }

    #[test]
    fn who_can_listen_is_known() {
        let check = |server: &str, expect: bool| {
            let trust = Trust::Authority(crate::trust::tests::authority());
            let client = Client::with(server, ClientOptions { token: None, trust }).unwrap();
            assert_eq!(client.is_readable_by_others(), expect, "{server}");
        };
        for server in ["127.0.0.1:1", "http://[::1]:1", "localhost:1", "https://box:1"] {
            check(server, false);
        }
        for server in ["10.0.0.7:1", "http://box:1", "http://localhost.example"] {
            check(server, true);
        }
    }

    #[test]
    fn the_token_goes_with_every_request_and_into_no_text() {
        let token = Token::new("gannet_0123456789abcdef0123456789abcdef").unwrap();
        let options = ClientOptions { token: Some(token), ..ClientOptions::default() };
        let client = Client::with("http://box", options).unwrap();
        let request = client.request(Method::GET, &["v1", "status"]).build().unwrap();
        let shown = &request.headers()[AUTHORIZATION];
        assert_eq!(shown, "Bearer gannet_0123456789abcdef0123456789abcdef");
        assert!(shown.is_sensitive());
        assert!(!format!("{client:?} {request:?}").contains("0123456789"));
    }

    #[test]
    fn table_names_may_hold_anything() {
        let client = Client::new("http://box/gannet").unwrap();
        let request = client.request(Method::GET, &["v1", "tables", "a/b ?é"]).build().unwrap();
        assert_eq!(request.url().as_str(), "http://box/gannet/v1/tables/a%2Fb%20%3F%C3%A9");
    }
}
