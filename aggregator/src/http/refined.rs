//! An answer that gets better while the leaves reply: NDJSON lines `progress`, `partial` and, last, `final` or `error`.
//!
//! A query that is over before anything could be told is answered as any other, with its status and headers; else the
//! status is 200 and what goes wrong later is the last line. The query runs by itself: what it tells waits in one place
//! for the client to take it, and is replaced while the client does not. A client that goes away ends the query.
//!
//! Invariants: lines before the last come at most every [`EVERY`]; what they cover only grows, and none covers less
//! than the one before it.

use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use gannet_query::Completeness;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::query::{unwritten, written};
use super::render::{self, Format};
use super::{About, refused};
use crate::aggregator::{Aggregator, QueryOptions};
use crate::error::Failure;
use crate::sql::{SqlAnswer, SqlNews, SqlWatch};

/// How often there is a line, at most; and how long there is none.
pub(super) const EVERY: Duration = Duration::from_millis(100);

type Outcome = Result<SqlAnswer, Failure>;

/// Answers with lines.
pub(super) async fn answer(
    aggregator: Arc<Aggregator>,
    sql: String,
    options: QueryOptions,
    begun: Instant,
) -> Response {
    let (news, mut newest) = watch::channel(None);
    let tell = Arc::new(move |one: SqlNews| drop(news.send_replace(Some(Arc::new(one)))));
    let watch = SqlWatch { every: EVERY, tell };
    let mut query = JoinSet::new();
    query.spawn(async move { aggregator.query_watched(&sql, options, Some(&watch)).await });
    tokio::select! {
        biased;
        outcome = query.join_next() => match ended(outcome) {
            Ok(answer) => return written(answer, begun, Format::Ndjson).await,
            Err(failure) => return refused(failure, About::Statement),
        },
        // Without anybody to tell, the outcome is about to come.
        () = async { if newest.wait_for(Option::is_some).await.is_err() { std::future::pending().await } } => {}
    }
    newest.mark_changed();
    let lines = Lines { query, newest, begun, next: Instant::now(), told: Told::default(), over: false };
    let lines = futures::stream::unfold(lines, |mut lines| async move {
        let line = lines.next().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(line), lines))
    });
    let mut response = Body::from_stream(lines).into_response();
    let content_type = HeaderValue::from_static(Format::Ndjson.content_type());
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

fn ended(outcome: Option<Result<Outcome, JoinError>>) -> Outcome {
    match outcome {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Err(unwritten(&error.to_string())),
        None => Err(unwritten("it was taken before")),
    }
}

/// The lines that are still to come.
struct Lines {
    query: JoinSet<Outcome>,
    newest: watch::Receiver<Option<Arc<SqlNews>>>,
    begun: Instant,
    /// No line but the last one comes before.
    next: Instant,
    told: Told,
    over: bool,
}

impl Lines {
    async fn next(&mut self) -> Option<Bytes> {
        while !self.over {
            let told = async {
                tokio::time::sleep_until(self.next).await;
                if self.newest.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                outcome = self.query.join_next() => {
                    self.over = true;
                    return Some(self.last(ended(outcome)).await);
                }
                () = told => {}
            }
            let Some(news) = self.newest.borrow_and_update().clone() else { continue };
            if let Some(line) = self.line(news).await {
                self.next = Instant::now() + EVERY;
                return Some(line);
            }
        }
        None
    }

    /// A line before the last one, unless it would cover less than the one before.
    async fn line(&mut self, news: Arc<SqlNews>) -> Option<Bytes> {
        let elapsed = self.begun.elapsed();
        let completeness = match &*news {
            SqlNews::Progress(completeness, _) => completeness,
            SqlNews::Partial(answer) => &answer.completeness,
        };
        if !self.told.grows(completeness) {
            return None;
        }
        let write = move || match &*news {
            SqlNews::Progress(completeness, stats) => Ok(render::progress(completeness, stats, elapsed)),
            SqlNews::Partial(answer) => render::partial(answer, elapsed),
        };
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(line)) => Some(line.into()),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a partial answer is not written");
                None
            }
            Err(error) => {
                tracing::debug!(%error, "a partial answer is not written");
                None
            }
        }
    }

    async fn last(&self, outcome: Outcome) -> Bytes {
        let elapsed = self.begun.elapsed();
        let failure = match outcome {
            Ok(answer) => {
                let write = move || render::body(&answer, elapsed, Format::Ndjson);
                match tokio::task::spawn_blocking(write).await {
                    Ok(Ok(line)) => return line.into(),
                    Ok(Err(error)) => unwritten(&error.to_string()),
                    Err(error) => unwritten(&error.to_string()),
                }
            }
            Err(failure) => failure,
        };
        render::failed(failure).into()
    }
}

/// What the lines so far covered.
#[derive(Debug, Default)]
struct Told {
    rows_covered: u64,
    ratio: Option<f64>,
}

impl Told {
    /// Notes a record; false when it covers less than the one before, which happens when a query begins anew.
    fn grows(&mut self, completeness: &Completeness) -> bool {
        let ratio = completeness.ratio();
        if completeness.rows_covered < self.rows_covered || ratio.zip(self.ratio).is_some_and(|(a, b)| a < b)
        {
            return false;
        }
        (self.rows_covered, self.ratio) = (completeness.rows_covered, ratio.or(self.ratio));
        true
    }
}

#[cfg(test)]
mod tests {
    use gannet_query::{Missing, MissingReason};

    use super::*;

    #[test]
    fn lines_only_cover_more() {
        let mut told = Told::default();
        let mut check = |covered: u64, missing: Option<u64>, expect: bool| {
            let missing = Missing {
                leaf: "a".into(),
                reason: MissingReason::Running,
                rows: missing,
                answered: true,
                detail: String::new(),
            };
            let record = Completeness { rows_covered: covered, missing: vec![missing], ..Default::default() };
            assert_eq!(told.grows(&record), expect, "{covered}");
        };
        check(10, Some(30), true);
        check(10, Some(30), true);
        check(9, Some(1), false);
        check(11, Some(50), false);
        check(12, None, true);
        check(13, Some(60), false);
        check(20, Some(20), true);
    }
}
