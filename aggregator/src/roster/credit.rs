//! Rows that a silent leaf may hold although nobody here heard of them.
//!
//! What a leaf takes through this aggregator is known when it is acknowledged. What it takes through others is known when
//! it describes itself, every second or so, or when they tell; a leaf that ends in between takes what it acknowledged
//! since with it. So a leaf that grew by other hands from each description to the next is believed to have gone on
//! growing, twice as fast, until it fell silent: that much more is expected of it in each table, whatever the time range,
//! until it is heard of again. A burst just before the end, through an aggregator that ends too, may still be more.

use std::collections::BTreeMap;

use gannet_query::{Holdings, TableHolding};

use super::{LeafRecord, Roster};

/// How much faster than it was seen to a leaf may have grown.
const FASTER: u64 = 2;

impl LeafRecord {
    /// By how many rows each table grew without anybody here knowing of it.
    pub(super) fn growth(&self, tables: &[TableHolding]) -> BTreeMap<String, u64> {
        let known = |name: &str| self.tables.get(name).map_or(0, |table| table.holding.rows);
        tables
            .iter()
            .map(|table| (table.name.clone(), table.rows.saturating_sub(known(&table.name))))
            .collect()
    }

    /// Believes that tables go on growing as they did; the others do not.
    pub(super) fn credit(&mut self, growth: &BTreeMap<String, u64>) {
        for (name, table) in &mut self.tables {
            let grew = growth.get(name).copied().unwrap_or(0);
            // Rows that came once are no stream.
            table.credit = grew.min(table.grew).saturating_mul(FASTER);
            table.grew = grew;
        }
    }
}

impl Roster {
    /// A leaf acknowledged rows that came through here. When its description was quicker than the reply, they were
    /// taken for rows that came by other hands.
    pub fn acknowledged(&mut self, said: &Holdings, rows: u64) {
        let Some(record) = self.leaves.get_mut(&said.leaf) else { return };
        if said.epoch != record.epoch || said.rows_ingested > record.rows_ingested {
            return;
        }
        for table in &said.tables {
            if let Some(known) = record.tables.get_mut(&table.name) {
                known.grew = known.grew.saturating_sub(rows);
                known.credit = known.credit.min(known.grew.saturating_mul(FASTER));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gannet_query::TimeRange;

    use super::*;
    use crate::fakes::holdings;

    fn said(rows: u64) -> Holdings {
        Holdings { rows_ingested: rows, ..holdings("a", 1, rows) }
    }

    #[test]
    fn a_leaf_that_grew_by_other_hands_is_expected_to_have_gone_on() {
        let mut roster = Roster::default();
        let expected = |roster: &Roster| roster.rows_expected("a", "t", &TimeRange::ALL);
        let mut check = |said: Holdings, expect: u64| {
            roster.described("c", vec![said], vec![], 0);
            assert_eq!(expected(&roster), expect);
        };
        check(said(10), 10);
        check(said(15), 15);
        check(said(22), 22 + 2 * 5);
        check(said(22), 22);
        // What came through here is known.
        roster.appended("c", &said(40));
        assert_eq!(expected(&roster), 40);
        roster.described("c", vec![said(40)], vec![], 0);
        assert_eq!(expected(&roster), 40);
        // Descriptions that were quicker than the reply.
        roster.described("c", vec![said(60)], vec![], 0);
        roster.described("c", vec![said(80)], vec![], 0);
        assert_eq!(expected(&roster), 80 + 2 * 20);
        roster.acknowledged(&said(80), 20);
        assert_eq!((roster.appended("c", &said(80)), expected(&roster)), (crate::roster::Noted::Done, 80));
        // A new epoch begins without.
        roster.described("c", vec![said(90)], vec![], 0);
        roster.described("c", vec![said(100)], vec![], 0);
        roster.described("c", vec![holdings("a", 2, 100)], vec![], 0);
        assert_eq!(expected(&roster), 100);
    }
}
