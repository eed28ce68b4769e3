//! What becomes of a request under load, and what many of them add up to.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value as Json;

use super::super::door::Reply;
use super::super::percentiles::percentile;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A batch of events.
    Ingest,
    /// A question.
    Query,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// Every event was acknowledged; the whole answer came.
    Done,
    /// 429 or 503 with `Retry-After`, and nothing was kept of it.
    Refused,
    /// The query's time passed: an answer without everything, or 504.
    Late,
    /// Nobody knows whether events were kept: the server says so.
    Unconfirmed,
    /// No reply: the connection broke, or there was none.
    Broken(String),
    /// A reply that a client under load cannot act on, in words.
    Odd(String),
}

/// What became of a request, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// What it was for.
    pub(super) kind: Kind,
    /// Its number among all of this kind.
    pub(super) number: u64,
    /// When it was to arrive, since its phase began.
    pub(super) at: Duration,
    /// When it was over.
    pub(super) ended: Duration,
    /// What became of it.
    pub(super) fate: Fate,
}

impl Outcome {
    /// From when it was to arrive until it was over.
    fn took_ms(&self) -> f64 {
        self.ended.saturating_sub(self.at).as_secs_f64() * 1e3
    }
}

/// What a reply says of a request; rows are those of the batch, and none of a query.
pub(super) fn fate_of(kind: Kind, rows: u64, reply: &Reply) -> Fate {
    let text = || String::from_utf8_lossy(&reply.body).chars().take(300).collect::<String>();
    let Ok(json) = serde_json::from_slice::<Json>(&reply.body) else {
        return Fate::Odd(format!("status {} without JSON: {}", reply.status, text()));
    };
    let code = json["error"]["code"].as_str().unwrap_or("");
    match (reply.status, kind) {
        (200, Kind::Ingest) if json["accepted"].as_u64() == Some(rows) => Fate::Done,
        (200, Kind::Query) if json["completeness"]["ratio"].as_f64() == Some(1.0) => Fate::Done,
        (200 | 504, Kind::Query) => Fate::Late,
        (503, _) if code == "unconfirmed" => Fate::Unconfirmed,
        (429 | 503, _) if reply.retry_after.is_some_and(|seconds| seconds > 0) && !code.is_empty() => {
            // A body of several batches may have been refused half-way; these bodies are one batch each.
            if json["accepted"].as_u64().unwrap_or(0) == 0 {
                return Fate::Refused;
            }
            Fate::Odd(format!("a part of one batch was taken: {}", text()))
        }
        (status, _) => Fate::Odd(format!("status {status}, Retry-After {:?}: {}", reply.retry_after, text())),
    }
}

/// What one kind of requests came to in one phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Tally {
    /// Requests.
    pub(super) sent: u64,
    /// Those that were done.
    pub(super) done: u64,
    /// Those that were refused as they should be.
    pub(super) refused: u64,
    /// Queries whose time passed.
    pub(super) late: u64,
    /// Batches of which the server does not know.
    pub(super) unconfirmed: u64,
    /// Requests without a reply.
    pub(super) broken: u64,
    /// Replies that nobody can act on.
    pub(super) odd: u64,
    /// Requests a second.
    pub(super) offered_per_second: f64,
    /// Requests a second that were done within the phase.
    pub(super) done_per_second: f64,
    /// Milliseconds from arrival to the end of those that were done: median, 99th percentile, most.
    pub(super) done_ms: [f64; 3],
    /// The same of those that were refused.
    pub(super) refused_ms: [f64; 3],
}

fn three(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [0.5, 0.99, 1.0].map(|share| percentile(&values, share))
}

impl Tally {
    /// Of the outcomes of this kind, in a phase that was so long.
    pub(super) fn of(outcomes: &[Outcome], kind: Kind, phase: Duration) -> Tally {
        let of_kind: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.kind == kind).collect();
        let count =
            |is: &dyn Fn(&Outcome) -> bool| of_kind.iter().filter(|outcome| is(outcome)).count() as u64;
        let took =
            |fate: &Fate| three(of_kind.iter().filter(|o| o.fate == *fate).map(|o| o.took_ms()).collect());
        let per_second = |requests: u64| requests as f64 / phase.as_secs_f64();
        Tally {
            sent: of_kind.len() as u64,
            done: count(&|o| o.fate == Fate::Done),
            refused: count(&|o| o.fate == Fate::Refused),
            late: count(&|o| o.fate == Fate::Late),
            unconfirmed: count(&|o| o.fate == Fate::Unconfirmed),
            broken: count(&|o| matches!(o.fate, Fate::Broken(_))),
            odd: count(&|o| matches!(o.fate, Fate::Odd(_))),
            offered_per_second: per_second(of_kind.len() as u64),
            done_per_second: per_second(count(&|o| o.fate == Fate::Done && o.ended <= phase)),
            done_ms: took(&Fate::Done),
            refused_ms: took(&Fate::Refused),
        }
    }
}

/// Pieces into which the time after an overload is cut.
const WINDOW: Duration = Duration::from_millis(250);
/// So many in a row must be as before.
const WINDOWS_WELL: usize = 4;
/// A median as long as this is as before, whatever it was before.
const WELL_MS: f64 = 50.0;

/// Seconds after which requests fared as before for a second on end: all of them done, and half of them no slower than the
/// slowest hundredth before. `None` when that did not come.
pub(super) fn recovery_seconds(after: &[Outcome], before: &[Outcome]) -> Option<f64> {
    let slowest_before = |kind| {
        let took = before.iter().filter(|o| o.kind == kind && o.fate == Fate::Done).map(Outcome::took_ms);
        three(took.collect())[1].max(WELL_MS)
    };
    let limits = [(Kind::Ingest, slowest_before(Kind::Ingest)), (Kind::Query, slowest_before(Kind::Query))];
    let windows = after.iter().map(|o| o.at).max()?.div_duration_f64(WINDOW) as usize + 1;
    let mut well = 0;
    for window in 0..windows {
        let of_window = |o: &&Outcome| o.at.div_duration_f64(WINDOW) as usize == window;
        let is_well = limits.iter().all(|(kind, limit_ms)| {
            let here: Vec<&Outcome> = after.iter().filter(|o| o.kind == *kind).filter(of_window).collect();
            here.iter().all(|o| o.fate == Fate::Done)
                && three(here.iter().map(|o| o.took_ms()).collect())[0] <= *limit_ms
        });
        well = if is_well { well + 1 } else { 0 };
        if well == WINDOWS_WELL {
            return Some(WINDOW.as_secs_f64() * (window + 1 - WINDOWS_WELL) as f64);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, retry_after: Option<u64>, body: &str) -> Reply {
        Reply { status, retry_after, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn replies_are_judged() {
        let check = |kind, reply: Reply, expect: Fate| assert_eq!(fate_of(kind, 5, &reply), expect);
        let odd = |text: &str| Fate::Odd(text.to_owned());
        let refusal = |code: &str| format!("{{\"error\":{{\"code\":\"{code}\"}},\"accepted\":0}}");
        check(Kind::Ingest, reply(200, None, "{\"accepted\":5}"), Fate::Done);
        check(
            Kind::Ingest,
            reply(200, None, "{\"accepted\":4}"),
            odd("status 200, Retry-After None: {\"accepted\":4}"),
        );
        check(Kind::Ingest, reply(429, Some(1), &refusal("overloaded")), Fate::Refused);
        check(Kind::Ingest, reply(503, Some(1), &refusal("unconfirmed")), Fate::Unconfirmed);
        check(
            Kind::Ingest,
            reply(429, None, &refusal("overloaded")),
            odd("status 429, Retry-After None: {\"error\":{\"code\":\"overloaded\"},\"accepted\":0}"),
        );
        check(Kind::Query, reply(429, Some(1), "busy"), odd("status 429 without JSON: busy"));
        check(Kind::Query, reply(200, None, "{\"completeness\":{\"ratio\":1.0}}"), Fate::Done);
        check(Kind::Query, reply(200, None, "{\"completeness\":{\"ratio\":0.5}}"), Fate::Late);
        check(Kind::Query, reply(504, None, &refusal("timeout")), Fate::Late);
    }

    /// Batches that arrive every 10 ms; what becomes of each, and after how many milliseconds, by its number.
    fn outcomes(count: u64, of: impl Fn(u64) -> (Fate, u64)) -> Vec<Outcome> {
        let one = |number| {
            let (fate, ms) = of(number);
            let at = Duration::from_millis(10 * number);
            Outcome { kind: Kind::Ingest, number, at, ended: at + Duration::from_millis(ms), fate }
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn outcomes_add_up() {
        let fates = [Fate::Done, Fate::Done, Fate::Refused, Fate::Broken(String::new())];
        let all = outcomes(100, |number| (fates[number as usize % 4].clone(), 5));
        let tally = Tally::of(&all, Kind::Ingest, Duration::from_secs(1));
        assert_eq!((tally.sent, tally.done, tally.refused, tally.broken), (100, 50, 25, 25));
        assert_eq!((tally.offered_per_second, tally.done_per_second), (100.0, 50.0));
        assert_eq!((tally.done_ms, tally.refused_ms), ([5.0; 3], [5.0; 3]));
        let none = Tally::of(&all, Kind::Query, Duration::from_secs(1));
        assert_eq!((none.sent, none.offered_per_second, none.done_ms), (0, 0.0, [0.0; 3]));
    }

    #[test]
    fn it_is_over_when_it_is_as_before_for_a_second() {
        let before = outcomes(100, |_| (Fate::Done, 20));
        let check = |of: fn(u64) -> (Fate, u64), expect: Option<f64>| {
            assert_eq!(recovery_seconds(&outcomes(300, of), &before), expect);
        };
        check(|_| (Fate::Done, 30), Some(0.0));
        check(|number| (if number < 60 { Fate::Refused } else { Fate::Done }, 1), Some(0.75));
        check(|number| (Fate::Done, if number < 100 { 400 } else { 10 }), Some(1.0));
        check(|number| (if number % 50 == 0 { Fate::Refused } else { Fate::Done }, 1), None);
    }
}
