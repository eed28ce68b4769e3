//! Completeness and scan figures.

use gannet_query::{Completeness, LeafEpoch, Missing, MissingReason, ScanStats};

use super::{ConvertError, all, count, entry, position};
use crate::wire;

/// Rows that a completeness may add up to over all its missing leaves: their sum must not overflow.
const MISSING_MAX: usize = 1 << 20;

impl From<&Completeness> for wire::Completeness {
    fn from(completeness: &Completeness) -> Self {
        wire::Completeness {
            answered: completeness.answered.iter().map(Into::into).collect(),
            rows_covered: completeness.rows_covered,
            missing: completeness.missing.iter().map(Into::into).collect(),
            groups_truncated: completeness.groups_truncated,
            approximate: completeness.approximate,
            newest_time: completeness.newest_time,
        }
    }
}

impl TryFrom<wire::Completeness> for Completeness {
    type Error = ConvertError;

    fn try_from(completeness: wire::Completeness) -> Result<Self, ConvertError> {
        if completeness.missing.len() > MISSING_MAX || completeness.answered.len() > MISSING_MAX {
            return Err(ConvertError::Limit { what: "leaves in a completeness", limit: MISSING_MAX as u64 });
        }
        Ok(Completeness {
            answered: completeness.answered.into_iter().map(Into::into).collect(),
            rows_covered: count("rows covered", completeness.rows_covered)?,
            missing: all(completeness.missing)?,
            groups_truncated: completeness.groups_truncated,
            approximate: completeness.approximate,
            newest_time: completeness.newest_time,
            // Counted by whoever merges.
            buckets: Vec::new(),
        })
    }
}

impl From<&LeafEpoch> for wire::LeafEpoch {
    fn from(leaf: &LeafEpoch) -> Self {
        wire::LeafEpoch { leaf: leaf.leaf.clone(), epoch: leaf.epoch }
    }
}

impl From<wire::LeafEpoch> for LeafEpoch {
    fn from(leaf: wire::LeafEpoch) -> Self {
        LeafEpoch { leaf: leaf.leaf, epoch: leaf.epoch }
    }
}

impl From<&Missing> for wire::Missing {
    fn from(missing: &Missing) -> Self {
        wire::Missing {
            leaf: missing.leaf.clone(),
            reason: position(&MissingReason::ALL, &missing.reason),
            rows: missing.rows,
            answered: missing.answered,
            detail: missing.detail.clone(),
        }
    }
}

impl TryFrom<wire::Missing> for Missing {
    type Error = ConvertError;

    fn try_from(missing: wire::Missing) -> Result<Self, ConvertError> {
        Ok(Missing {
            leaf: missing.leaf,
            reason: entry("reason of missing rows", &MissingReason::ALL, missing.reason)?,
            rows: missing.rows.map(|rows| count("missing rows", rows)).transpose()?,
            answered: missing.answered,
            detail: missing.detail,
        })
    }
}

impl From<&ScanStats> for wire::ScanStats {
    fn from(stats: &ScanStats) -> Self {
        wire::ScanStats {
            rows_scanned: stats.rows_scanned,
            blocks_scanned: stats.blocks_scanned,
            blocks_pruned: stats.blocks_pruned,
            stored_rows: stats.stored_rows,
            represented_events: stats.represented_events,
            scan_us_max: stats.scan_us_max,
        }
    }
}

impl TryFrom<wire::ScanStats> for ScanStats {
    type Error = ConvertError;

    fn try_from(stats: wire::ScanStats) -> Result<Self, ConvertError> {
        Ok(ScanStats {
            rows_scanned: count("rows scanned", stats.rows_scanned)?,
            blocks_scanned: count("blocks scanned", stats.blocks_scanned)?,
            blocks_pruned: count("blocks pruned", stats.blocks_pruned)?,
            stored_rows: count("stored rows", stats.stored_rows)?,
            represented_events: stats.represented_events,
            scan_us_max: stats.scan_us_max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completeness() -> Completeness {
        Completeness {
            answered: vec![LeafEpoch { leaf: "leaf-1".into(), epoch: 7 }],
            rows_covered: 10,
            missing: MissingReason::ALL
                .iter()
                .enumerate()
                .map(|(index, (reason, name))| Missing {
                    leaf: format!("leaf-{index}"),
                    reason: *reason,
                    rows: (index > 0).then_some(index as u64),
                    answered: index == 2,
                    detail: (*name).to_owned(),
                })
                .collect(),
            groups_truncated: true,
            approximate: true,
            newest_time: Some(-5),
            buckets: vec![],
        }
    }

    #[test]
    fn completeness_comes_back_as_it_went() {
        assert_eq!(Completeness::try_from(wire::Completeness::from(&completeness())), Ok(completeness()));
        let empty = Completeness::default();
        assert_eq!(Completeness::try_from(wire::Completeness::from(&empty)), Ok(empty));
        let stats = ScanStats {
            rows_scanned: 1,
            blocks_scanned: 2,
            blocks_pruned: 3,
            stored_rows: 4,
            represented_events: u64::MAX,
            scan_us_max: 6,
        };
        assert_eq!(ScanStats::try_from(wire::ScanStats::from(&stats)), Ok(stats));
    }

    fn check(change: impl FnOnce(&mut wire::Completeness), expect: &str) {
        let mut message = wire::Completeness::from(&completeness());
        change(&mut message);
        assert_eq!(Completeness::try_from(message).unwrap_err().to_string(), expect);
    }

    #[test]
    fn numbers_are_checked() {
        check(|m| m.rows_covered = u64::MAX, "rows covered exceed the limit of 4503599627370496");
        check(|m| m.missing[1].rows = Some(u64::MAX), "missing rows exceed the limit of 4503599627370496");
        check(|m| m.missing[1].reason = 99, "reason of missing rows has no meaning for the number 99");
    }
}
