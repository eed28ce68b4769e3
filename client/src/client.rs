//! The connection to one server: addresses, requests, replies and their failures.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind};

/// A server that does not answer on its port for so long is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server to ask. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
}

impl Client {
    /// A client of the aggregator at this URL. `host:port` alone is taken as http.
    ///
    /// # Errors
    /// When it is no URL, or one that Gannet does not serve. Nothing is connected yet.
    pub fn new(server: &str) -> Result<Client, Error> {
        let base = parse_server(server)?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("gannet/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Address, format!("set up the HTTP client for `{server}`: {error}"))
            })?;
        Ok(Client { http, base })
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
        self.http.request(method, url)
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
        "http" => {}
        "https" => {
            let hint =
                "use http:// on a network you trust, or a tunnel such as `ssh -L 7700:127.0.0.1:7700 HOST`";
            let error = wrong("asks for TLS, which Gannet does not speak yet");
            return Err(Error { hint: Some(hint.to_owned()), ..error });
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
        assert_eq!(refused("https://box").kind, ErrorKind::Address);
    }

    #[test]
    fn table_names_may_hold_anything() {
        let client = Client::new("http://box/gannet").unwrap();
        let request = client.request(Method::GET, &["v1", "tables", "a/b ?é"]).build().unwrap();
        assert_eq!(request.url().as_str(), "http://box/gannet/v1/tables/a%2Fb%20%3F%C3%A9");
    }
}
