//! One record of completeness for a query with several fan-outs.
//!
//! Rows add up, covered and missing alike, so the ratio is that of all rows the query had to see. Each leaf counts
//! once: as answered only if it answered every time.

use std::collections::BTreeMap;

use gannet_query::{Completeness, LeafEpoch, Missing, ScanStats};

/// All records as one; complete and empty when there is none.
pub(super) fn together(mut reports: Vec<(Completeness, ScanStats)>) -> (Completeness, ScanStats) {
    let mut sum = Completeness::default();
    // Steps of time are those of one fan-out; of several nobody could say what they are steps of.
    let buckets = match reports.as_mut_slice() {
        [(completeness, _)] => std::mem::take(&mut completeness.buckets),
        _ => Vec::new(),
    };
    let mut stats = ScanStats::default();
    for (completeness, scan) in reports {
        sum.merge(completeness);
        stats.merge(&scan);
    }
    let missing = union(std::mem::take(&mut sum.missing));
    let mut epochs: BTreeMap<String, u64> = BTreeMap::new();
    for leaf in std::mem::take(&mut sum.answered) {
        let epoch = epochs.entry(leaf.leaf).or_default();
        *epoch = leaf.epoch.max(*epoch);
    }
    for silent in missing.iter().filter(|one| !one.answered) {
        epochs.remove(&silent.leaf);
    }
    sum.answered = epochs.into_iter().map(|(leaf, epoch)| LeafEpoch { leaf, epoch }).collect();
    sum.missing = missing;
    sum.buckets = buckets;
    (sum, stats)
}

/// One entry for each leaf and reason; a leaf that did not answer once has exactly one entry that says so.
fn union(all: Vec<Missing>) -> Vec<Missing> {
    let mut merged: Vec<Missing> = Vec::new();
    for one in all {
        match merged.iter_mut().find(|known| known.leaf == one.leaf && known.reason == one.reason) {
            Some(known) => {
                known.rows = known.rows.zip(one.rows).map(|(a, b)| a.saturating_add(b));
                known.answered &= one.answered;
            }
            None => merged.push(one),
        }
    }
    for index in 0..merged.len() {
        let earlier = merged[..index].iter().any(|one| one.leaf == merged[index].leaf && !one.answered);
        if earlier {
            merged[index].answered = true;
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use gannet_query::MissingReason;

    use super::*;

    fn report(
        covered: u64,
        answered: &[&str],
        missing: &[(&str, MissingReason, Option<u64>, bool)],
    ) -> Completeness {
        Completeness {
            answered: answered.iter().map(|leaf| LeafEpoch { leaf: (*leaf).to_owned(), epoch: 1 }).collect(),
            rows_covered: covered,
            missing: missing
                .iter()
                .map(|(leaf, reason, rows, answered)| Missing {
                    leaf: (*leaf).to_owned(),
                    reason: *reason,
                    rows: *rows,
                    answered: *answered,
                    detail: String::new(),
                })
                .collect(),
            ..Default::default()
        }
    }

    fn check(reports: Vec<Completeness>, asked: u64, answered: u64, ratio: Option<f64>) {
        let (sum, _) = together(reports.into_iter().map(|one| (one, ScanStats::default())).collect());
        assert_eq!((sum.leaves_asked(), sum.leaves_answered(), sum.ratio()), (asked, answered, ratio));
    }

    #[test]
    fn a_leaf_counts_once_and_rows_add_up() {
        use MissingReason::{Down, Timeout};
        check(vec![], 0, 0, Some(1.0));
        check(vec![report(10, &["a", "b"], &[]), report(10, &["a", "b"], &[])], 2, 2, Some(1.0));
        let down = [("b", Down, Some(10), false)];
        check(vec![report(10, &["a"], &down), report(10, &["a"], &down)], 2, 1, Some(0.5));
        let late = [("b", Timeout, Some(10), false)];
        check(vec![report(10, &["a"], &down), report(10, &["a"], &late)], 2, 1, Some(0.5));
        check(vec![report(20, &["a", "b"], &[]), report(10, &["a"], &late)], 2, 1, Some(0.75));
        check(vec![report(20, &["a"], &[("a", Timeout, Some(20), true)])], 1, 1, Some(0.5));
        check(vec![report(20, &["a"], &[("b", Down, None, false)])], 2, 1, None);
    }
}
