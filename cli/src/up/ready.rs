//! Waiting until there is somebody to ask.

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::client::{Client, server_error};
use crate::outcome::Failure;
use crate::up::terminal::Terminal;

/// How often the aggregator is asked.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How long it may take to answer.
const ASK_MAX: Duration = Duration::from_secs(2);
/// An aggregator that has served so long without being ready waits for something that does not come by itself.
const PARTLY_AFTER: Duration = Duration::from_secs(5);
/// When nothing answers at all for so long, the user should know what is being waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What there is to ask.
#[derive(Debug, PartialEq)]
pub(crate) enum Readiness {
    /// All rows are served.
    Whole,
    /// Something is missing, in the aggregator's words.
    Partly(String),
}

/// Waits until the aggregator serves.
pub(crate) async fn wait(client: &Client, terminal: &Terminal) -> Result<Readiness, Failure> {
    let started = Instant::now();
    let mut served_since = None;
    let mut told = false;
    loop {
        let answer = client.send(client.request(reqwest::Method::GET, &["readyz"]), ASK_MAX).await;
        if let Ok(response) = answer {
            if response.status().is_success() {
                return Ok(Readiness::Whole);
            }
            let served_since = *served_since.get_or_insert_with(Instant::now);
            let body = response.bytes().await.unwrap_or_default();
            if served_since.elapsed() > PARTLY_AFTER || all_serve(client).await {
                return Ok(Readiness::Partly(what(&body)));
            }
        }
        if !told && started.elapsed() > PATIENCE {
            told = true;
            terminal.say("still waiting for the aggregator to answer; the logs are in the data directory");
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Every leaf serves what it has; what is missing then does not come by waiting.
async fn all_serve(client: &Client) -> bool {
    let status = client.get_bytes(&["v1", "status"], ASK_MAX).await;
    status.is_ok_and(|body| client.decode::<Status>(&body).is_ok_and(|status| status.all_serve()))
}

/// As much of the status as tells whether there is something to wait for.
#[derive(Debug, Deserialize)]
struct Status {
    leaves: Vec<Leaf>,
    unheard: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Leaf {
    state: String,
}

impl Status {
    fn all_serve(&self) -> bool {
        self.unheard.is_empty()
            && !self.leaves.is_empty()
            && self.leaves.iter().all(|leaf| leaf.state == "serving")
    }
}

/// What the reply of an aggregator that is not ready says.
fn what(body: &[u8]) -> String {
    let text = match server_error(body) {
        Some(error) => match error.detail {
            Some(detail) => format!("{}: {detail}", error.message),
            None => error.message,
        },
        None => String::from_utf8_lossy(body).trim().to_owned(),
    };
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    if text.is_empty() { "see `gannet status`".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_leaves_that_do_not_serve_yet_are_waited_for() {
        let check = |status: &str, expect: bool| {
            assert_eq!(serde_json::from_str::<Status>(status).unwrap().all_serve(), expect, "{status}");
        };
        check(r#"{"leaves":[{"state":"serving","rows_lost":5}],"unheard":[]}"#, true);
        check(r#"{"leaves":[{"state":"serving"},{"state":"attaching"}],"unheard":[]}"#, false);
        check(r#"{"leaves":[{"state":"serving"}],"unheard":[{"leaf":"a:1"}]}"#, false);
        check(r#"{"leaves":[],"unheard":[]}"#, false);
    }

    #[test]
    fn the_reason_is_told() {
        assert_eq!(what(br#"{"error":{"code":"unavailable","message":"leaf-1 is down"}}"#), "leaf-1 is down");
        assert_eq!(what(b"1 of 2 leaves\n"), "1 of 2 leaves");
        assert_eq!(what(b""), "see `gannet status`");
    }
}
