//! The completeness record of an answer as people read it: a percentage, and a warning that names what is missing.

use serde::Deserialize;

use crate::units;

/// The record beside every answer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Completeness {
    /// Rows covered / rows expected; `None` when nobody knows what is missing.
    pub(crate) ratio: Option<f64>,
    /// Rows the answer takes into account.
    pub(crate) rows_covered: u64,
    /// Rows there are to take into account.
    pub(crate) rows_expected: Option<u64>,
    /// Leaves that had to answer.
    pub(crate) leaves_asked: u64,
    /// Leaves that did.
    pub(crate) leaves_answered: u64,
    /// What is missing, leaf by leaf.
    pub(crate) missing: Vec<Missing>,
    /// Groups were left out because there were too many.
    pub(crate) groups_truncated: bool,
}

/// Rows that are missing, of one leaf.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Missing {
    /// The leaf.
    pub(crate) leaf: String,
    /// Why.
    pub(crate) reason: String,
    /// How many; `None` when nobody knows.
    pub(crate) rows: Option<u64>,
}

/// More missing leaves than this are counted, not named.
const NAMED_MAX: usize = 8;

impl Completeness {
    /// `99.9%`, `100%` or `unknown`. Rounded down.
    pub(crate) fn percent(&self) -> String {
        match (self.ratio, self.rows_expected) {
            (None, _) => "unknown".to_owned(),
            (Some(ratio), Some(expected)) if self.rows_covered < expected || ratio >= 1.0 => {
                units::percent(self.rows_covered, expected)
            }
            (Some(ratio), _) => units::percent_of_ratio(ratio),
        }
    }

    /// No row is missing. A leaf that is down and holds nothing of the table and time range takes nothing away.
    fn is_whole(&self) -> bool {
        self.ratio == Some(1.0) && self.rows_expected.is_none_or(|expected| expected <= self.rows_covered)
    }

    /// At least this share of the rows is covered. An unknown share is enough only for those who ask for none.
    pub(crate) fn reaches(&self, share: f64) -> bool {
        share <= 0.0 || self.ratio.is_some_and(|ratio| ratio >= share)
    }

    /// What people must know before they believe the numbers; `None` when nothing is missing.
    pub(crate) fn warning(&self) -> Option<String> {
        let truncated = "there were too many groups, and some were left out";
        match (self.is_whole(), self.groups_truncated) {
            (true, false) => None,
            (true, true) => Some(format!("warning: {truncated}.")),
            (false, false) => Some(format!("{}. Counts are lower bounds.", self.what_is_missing())),
            (false, true) => {
                Some(format!("{}; {truncated}. Counts are lower bounds.", self.what_is_missing()))
            }
        }
    }

    fn what_is_missing(&self) -> String {
        let leaves = format!("{} of {} leaves", self.leaves_answered, self.leaves_asked);
        let mut text = format!("warning: completeness {} ({leaves})", self.percent());
        let mut named: Vec<String> = self.missing.iter().take(NAMED_MAX).map(Missing::text).collect();
        if self.missing.len() > NAMED_MAX {
            named.push(format!("{} more", self.missing.len() - NAMED_MAX));
        }
        if !named.is_empty() {
            text.push_str(": ");
            text.push_str(&named.join("; "));
        }
        text
    }
}

impl Missing {
    fn text(&self) -> String {
        let leaf: String = self.leaf.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        match self.rows {
            Some(rows) => format!("{leaf} {}, {} missing", self.reason, units::rows(rows)),
            None => format!("{leaf} {}, nobody knows how many rows are missing", self.reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(
        covered: u64,
        expected: Option<u64>,
        ratio: Option<f64>,
        missing: Vec<Missing>,
    ) -> Completeness {
        let absent = missing.len() as u64;
        Completeness {
            ratio,
            rows_covered: covered,
            rows_expected: expected,
            leaves_asked: 4,
            leaves_answered: 4 - absent,
            missing,
            groups_truncated: false,
        }
    }

    fn missing(leaf: &str, reason: &str, rows: Option<u64>) -> Missing {
        Missing { leaf: leaf.to_owned(), reason: reason.to_owned(), rows }
    }

    #[test]
    fn what_is_missing_is_named() {
        let whole = record(400_000, Some(400_000), Some(1.0), vec![]);
        assert_eq!((whole.percent().as_str(), whole.warning()), ("100%", None));

        let thin =
            record(299_999, Some(400_000), Some(0.749_997), vec![missing("leaf-2", "down", Some(100_001))]);
        assert_eq!(
            thin.warning().as_deref(),
            Some(
                "warning: completeness 74.9% (3 of 4 leaves): leaf-2 down, 100,001 rows missing. \
                 Counts are lower bounds."
            )
        );

        let unknown = record(5, None, None, vec![missing("leaf-3", "down", None)]);
        assert_eq!(
            unknown.warning().as_deref(),
            Some(
                "warning: completeness unknown (3 of 4 leaves): leaf-3 down, nobody knows how many rows are \
                 missing. Counts are lower bounds."
            )
        );
    }

    #[test]
    fn an_absent_leaf_without_rows_takes_nothing_away() {
        let absent = record(10, Some(10), Some(1.0), vec![missing("leaf-1", "restarting", Some(0))]);
        assert_eq!((absent.percent().as_str(), absent.warning()), ("100%", None));
        let truncated = Completeness { groups_truncated: true, ..absent };
        assert_eq!(
            truncated.warning().as_deref(),
            Some("warning: there were too many groups, and some were left out.")
        );
    }

    #[test]
    fn thresholds() {
        let check = |ratio: Option<f64>, share: f64, enough: bool| {
            assert_eq!(record(1, None, ratio, vec![]).reaches(share), enough, "{ratio:?} {share}");
        };
        check(Some(0.95), 0.9, true);
        check(Some(0.89), 0.9, false);
        check(Some(1.0), 1.0, true);
        check(None, 0.9, false);
        check(None, 0.0, true);
    }
}
