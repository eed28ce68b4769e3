//! Which rows did not come back with a later epoch.
//!
//! Rows are compared by spans of time, table by table: what was held or already lost, less what is held now and what
//! the leaf itself counts as lost, is lost. Two sums over the whole leaf correct what spans alone cannot see:
//!
//! * retention by bytes may have let old rows go while nobody looked, and newer rows took their place. When the new
//!   epoch is the very next one, no more rows can be lost than were held and did not come with its start;
//! * rows that were ingested since the start may lie where lost rows lay. At least as many are lost as were held and
//!   did not come with the start.

use std::collections::BTreeMap;

use gannet_query::holdings::fold_spans;
use gannet_query::{Holdings, Span, TableHolding};

use super::TableRecord;

/// How a leaf began an epoch, and what it took since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    pub(super) epoch: u64,
    /// Rows that came with its start.
    pub(super) rows_restored: u64,
    /// Rows that it took since.
    pub(super) rows_ingested: u64,
}

impl From<&Holdings> for Began {
    fn from(said: &Holdings) -> Began {
        let Holdings { epoch, rows_restored, rows_ingested, .. } = *said;
        Began { epoch, rows_restored, rows_ingested }
    }
}

/// The rows lost between an epoch and a later one, by table. `said` is of the later epoch, `new` its tables.
pub(super) fn losses(
    old_epoch: u64,
    old: &BTreeMap<String, TableRecord>,
    said: &Began,
    new: &[TableHolding],
    now: i64,
) -> BTreeMap<String, Vec<Span>> {
    let mut lost = BTreeMap::new();
    let mut needed: BTreeMap<&str, Vec<Span>> = BTreeMap::new();
    let mut rows_before = 0u64;
    for (name, table) in old {
        let holds = new.iter().find(|holding| holding.name == *name);
        let retention = holds.unwrap_or(&table.holding).retention_seconds;
        let all = table.holding.spans.iter().chain(&table.holding.lost).chain(&table.lost).copied();
        let all = fold_spans(all.collect());
        rows_before += sum(&all);
        let oldest = oldest(retention, now);
        let need: Vec<Span> = all.into_iter().filter(|span| span.last >= oldest).collect();
        let have: Vec<Span> =
            holds.iter().flat_map(|holding| holding.spans.iter().chain(&holding.lost)).copied().collect();
        lost.insert(name.clone(), shortfall(&need, have));
        needed.insert(name, need);
    }
    let reported: u64 = new.iter().map(|holding| sum(&holding.lost)).sum();
    let came_back = said.rows_restored.saturating_add(reported);
    let by_spans: u64 = lost.values().map(|spans| sum(spans)).sum();
    let most = rows_before.saturating_sub(came_back);
    if said.epoch == old_epoch + 1 && by_spans > most {
        scale_down(&mut lost, by_spans, most);
    } else {
        let rows_needed: u64 = needed.values().map(|spans| sum(spans)).sum();
        let least = rows_needed.saturating_sub(came_back);
        add_hidden(&mut lost, &needed, least.saturating_sub(by_spans).min(said.rows_ingested));
    }
    lost.retain(|_, spans| {
        *spans = fold_spans(std::mem::take(spans));
        !spans.is_empty()
    });
    lost
}

/// Times before this have expired; retention 0 means no limit.
pub(super) fn oldest(retention_seconds: u64, now: i64) -> i64 {
    match i64::try_from(retention_seconds) {
        Ok(0) | Err(_) => i64::MIN,
        Ok(seconds) => now.saturating_sub(seconds.saturating_mul(1_000_000_000)),
    }
}

/// Takes this many rows out of the spans, the oldest first.
pub(super) fn forget(spans: &mut Vec<Span>, mut rows: u64) {
    for span in spans.iter_mut() {
        let taken = span.rows.min(rows);
        span.rows -= taken;
        rows -= taken;
    }
    spans.retain(|span| span.rows > 0);
}

fn sum(spans: &[Span]) -> u64 {
    spans.iter().map(|span| span.rows).sum()
}

/// The rows of `need` that no overlapping span of `have` makes up for.
fn shortfall(need: &[Span], mut have: Vec<Span>) -> Vec<Span> {
    let mut need = need.to_vec();
    // Earliest end first, on both sides: a narrow span is served before a wide one that has other choices.
    need.sort_by_key(|span| (span.last, span.first));
    have.sort_by_key(|span| (span.last, span.first));
    for wanted in &mut need {
        for there in have.iter_mut().filter(|there| there.first <= wanted.last && wanted.first <= there.last)
        {
            let taken = there.rows.min(wanted.rows);
            there.rows -= taken;
            wanted.rows -= taken;
        }
    }
    need.retain(|span| span.rows > 0);
    need
}

/// Makes `rows` in all of `from`, in proportion.
fn scale_down(lost: &mut BTreeMap<String, Vec<Span>>, from: u64, rows: u64) {
    let mut left = rows;
    for span in lost.values_mut().flatten() {
        // Rounded up while any are left: the sum is exact, and no span is empty before its turn.
        let share = (u128::from(span.rows) * u128::from(rows)).div_ceil(u128::from(from)) as u64;
        span.rows = share.min(left);
        left -= span.rows;
    }
}

/// Adds rows that were lost where newer ones lie now, to the newest spans that can have held them.
fn add_hidden(lost: &mut BTreeMap<String, Vec<Span>>, needed: &BTreeMap<&str, Vec<Span>>, mut rows: u64) {
    let mut spans: Vec<(&str, Span)> =
        needed.iter().flat_map(|(table, spans)| spans.iter().map(|span| (*table, *span))).collect();
    spans.sort_by_key(|(_, span)| std::cmp::Reverse(span.last));
    for (table, span) in spans {
        let Some(lost) = lost.get_mut(table) else { continue };
        let already: u64 = lost
            .iter()
            .filter(|lost| (lost.first, lost.last) == (span.first, span.last))
            .map(|lost| lost.rows)
            .sum();
        let taken = span.rows.saturating_sub(already).min(rows);
        if taken > 0 {
            lost.push(Span { rows: taken, ..span });
            rows -= taken;
        }
    }
}
