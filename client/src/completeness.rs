//! The completeness record of an answer as its readers see it. It is never rounded up.

use serde::{Deserialize, Serialize};

/// The record beside every answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Completeness {
    /// Rows covered / rows expected; `None` when nobody knows what is missing.
    pub ratio: Option<f64>,
    /// Rows the answer takes into account.
    pub rows_covered: u64,
    /// Rows there are to take into account.
    pub rows_expected: Option<u64>,
    /// Leaves that had to answer.
    pub leaves_asked: u64,
    /// Leaves that did.
    pub leaves_answered: u64,
    /// What is missing, leaf by leaf.
    pub missing: Vec<Missing>,
    /// Groups were left out because there were too many. Those that are there are exact.
    pub groups_truncated: bool,
    /// The first groups of an order may be others, or have more: leaves sent only their own first ones.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub approximate: bool,
    /// The newest time that a leaf holds (RFC 3339).
    pub newest_time: Option<String>,
    /// Step by step, where rows are missing from groups by time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<BucketCompleteness>,
}

/// How complete a step of time is. The ratio is never too good.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BucketCompleteness {
    /// When it begins (RFC 3339).
    pub time: String,
    /// Rows covered / rows expected; `None` when nobody knows.
    pub ratio: Option<f64>,
    /// At least so many rows are covered.
    pub rows_covered: u64,
    /// So many there are, at most.
    pub rows_expected: Option<u64>,
}

impl BucketCompleteness {
    /// `99.9%`, `100%` or `unknown`. Rounded down.
    pub fn percent(&self) -> String {
        self.ratio.map_or_else(|| "unknown".to_owned(), percent_of_ratio)
    }
}

/// Rows that are missing, of one leaf.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Missing {
    /// The leaf.
    pub leaf: String,
    /// Why.
    pub reason: String,
    /// How many; `None` when nobody knows.
    pub rows: Option<u64>,
    /// What the leaf or its connection said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Completeness {
    /// `99.9%`, `100%` or `unknown`. Rounded down.
    pub fn percent(&self) -> String {
        match (self.ratio, self.rows_expected) {
            (None, _) => "unknown".to_owned(),
            (Some(ratio), Some(expected)) if self.rows_covered < expected || ratio >= 1.0 => {
                percent(self.rows_covered, expected)
            }
            (Some(ratio), _) => percent_of_ratio(ratio),
        }
    }

    /// No row is missing. A leaf that is down and holds nothing of the table and time range takes nothing away.
    pub fn is_whole(&self) -> bool {
        self.ratio == Some(1.0) && self.rows_expected.is_none_or(|expected| expected <= self.rows_covered)
    }

    /// At least this share of the rows is covered. An unknown share is enough only for those who ask for none.
    pub fn reaches(&self, share: f64) -> bool {
        share <= 0.0 || self.ratio.is_some_and(|ratio| ratio >= share)
    }
}

/// `covered` of `expected` in percent, rounded down to 0.1; `100%` only when nothing is missing.
pub fn percent(covered: u64, expected: u64) -> String {
    if covered >= expected {
        return "100%".to_owned();
    }
    let tenths = u128::from(covered) * 1000 / u128::from(expected);
    format!("{}.{}%", tenths / 10, tenths % 10)
}

/// A ratio in percent, rounded down to 0.1; `100%` only for 1.
fn percent_of_ratio(ratio: f64) -> String {
    // Through millionths, which ratios are given in: 0.29 is slightly less than 29 % as a float.
    let millionths = (ratio.clamp(0.0, 1.0) * 1e6).round() as u64;
    if millionths == 1_000_000 && ratio < 1.0 { "99.9%".to_owned() } else { percent(millionths, 1_000_000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_down() {
        let check = |covered, expected, text: &str| assert_eq!(percent(covered, expected), text);
        check(0, 0, "100%");
        check(400_000, 400_000, "100%");
        check(399_999, 400_000, "99.9%");
        check(299_999, 400_000, "74.9%");
        check(300_000, 400_000, "75.0%");
        check(0, 5, "0.0%");
        check(u64::MAX - 1, u64::MAX, "99.9%");
        let check_ratio = |ratio, text: &str| assert_eq!(percent_of_ratio(ratio), text, "{ratio}");
        check_ratio(1.0, "100%");
        check_ratio(0.999_999_9, "99.9%");
        check_ratio(0.29, "29.0%");
        check_ratio(0.749_999, "74.9%");
        check_ratio(0.0, "0.0%");
    }

    fn record(covered: u64, expected: Option<u64>, ratio: Option<f64>) -> Completeness {
        Completeness { ratio, rows_covered: covered, rows_expected: expected, ..Completeness::default() }
    }

    #[test]
    fn whole_is_only_what_misses_nothing() {
        let check = |record: Completeness, percent: &str, whole: bool| {
            assert_eq!((record.percent().as_str(), record.is_whole()), (percent, whole), "{record:?}");
        };
        check(record(10, Some(10), Some(1.0)), "100%", true);
        check(record(9, Some(10), Some(1.0)), "90.0%", false);
        check(record(9, Some(10), Some(0.9)), "90.0%", false);
        check(record(5, None, None), "unknown", false);
        check(record(5, None, Some(0.5)), "50.0%", false);
    }

    #[test]
    fn thresholds() {
        let check = |ratio: Option<f64>, share: f64, enough: bool| {
            assert_eq!(record(1, None, ratio).reaches(share), enough, "{ratio:?} {share}");
        };
        check(Some(0.95), 0.9, true);
        check(Some(0.89), 0.9, false);
        check(Some(1.0), 1.0, true);
        check(None, 0.9, false);
        check(None, 0.0, true);
    }
}
