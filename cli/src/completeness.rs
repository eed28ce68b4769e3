//! What people must know about an answer before they believe its numbers.

use gannet_client::{Completeness, Missing};

use crate::units;

/// More missing leaves than this are counted, not named.
const NAMED_MAX: usize = 8;

/// The warning that goes with an answer; `None` when nothing is missing.
pub(crate) fn warning(completeness: &Completeness) -> Option<String> {
    let mut parts = Vec::new();
    if !completeness.is_whole() {
        parts.push(what_is_missing(completeness));
    }
    if completeness.groups_truncated {
        parts.push("there were too many groups, and some were left out".to_owned());
    }
    if completeness.approximate {
        parts.push("the first groups may be others, and have more".to_owned());
    }
    let lower = if completeness.is_whole() { "" } else { " Counts are lower bounds." };
    (!parts.is_empty()).then(|| format!("warning: {}.{lower}", parts.join("; ")))
}

fn what_is_missing(completeness: &Completeness) -> String {
    let leaves = format!("{} of {} leaves", completeness.leaves_answered, completeness.leaves_asked);
    let mut text = format!("completeness {} ({leaves})", completeness.percent());
    let mut named: Vec<String> = completeness.missing.iter().take(NAMED_MAX).map(missing_text).collect();
    if completeness.missing.len() > NAMED_MAX {
        named.push(format!("{} more", completeness.missing.len() - NAMED_MAX));
    }
    if !named.is_empty() {
        text.push_str(": ");
        text.push_str(&named.join("; "));
    }
    text
}

fn missing_text(missing: &Missing) -> String {
    let harmless =
        |text: &str| -> String { text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect() };
    let (leaf, reason) = (harmless(&missing.leaf), harmless(&missing.reason));
    match missing.rows {
        Some(rows) => format!("{leaf} {reason}, {} missing", units::rows(rows)),
        None => format!("{leaf} {reason}, nobody knows how many rows are missing"),
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
            ..Completeness::default()
        }
    }

    fn missing(leaf: &str, reason: &str, rows: Option<u64>) -> Missing {
        Missing { leaf: leaf.to_owned(), reason: reason.to_owned(), rows, detail: None }
    }

    #[test]
    fn what_is_missing_is_named() {
        let whole = record(400_000, Some(400_000), Some(1.0), vec![]);
        assert_eq!((whole.percent().as_str(), warning(&whole)), ("100%", None));

        let thin =
            record(299_999, Some(400_000), Some(0.749_997), vec![missing("leaf-2", "down", Some(100_001))]);
        assert_eq!(
            warning(&thin).as_deref(),
            Some(
                "warning: completeness 74.9% (3 of 4 leaves): leaf-2 down, 100,001 rows missing. \
                 Counts are lower bounds."
            )
        );

        let unknown = record(5, None, None, vec![missing("leaf-3", "down", None)]);
        assert_eq!(
            warning(&unknown).as_deref(),
            Some(
                "warning: completeness unknown (3 of 4 leaves): leaf-3 down, nobody knows how many rows are \
                 missing. Counts are lower bounds."
            )
        );
    }

    #[test]
    fn an_absent_leaf_without_rows_takes_nothing_away() {
        let absent = record(10, Some(10), Some(1.0), vec![missing("leaf-1", "restarting", Some(0))]);
        assert_eq!((absent.percent().as_str(), warning(&absent)), ("100%", None));
        let truncated = Completeness { groups_truncated: true, ..absent };
        assert_eq!(
            warning(&truncated).as_deref(),
            Some("warning: there were too many groups, and some were left out.")
        );
        let approximate = Completeness { approximate: true, groups_truncated: false, ..truncated };
        assert_eq!(
            warning(&approximate).as_deref(),
            Some("warning: the first groups may be others, and have more.")
        );
    }
}
