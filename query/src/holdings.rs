//! What a leaf says it holds: the material of catalogues and rosters.
//!
//! Rows are counted by [`Span`]s: coarse runs of time with the rows of the blocks that lie in them. The rows a time
//! range expects of a leaf are the rows of the spans that overlap it, which can only be more than the truth, so a
//! ratio made with them is never overstated.

use crate::{TimeRange, TypeSet};

/// Spans begin and end at multiples of this many nanoseconds (one minute).
pub const SPAN_STEP_NS: i64 = 60 * 1_000_000_000;

/// A table keeps at most this many spans; beyond it neighbours are joined, which keeps their sum exact.
pub const SPANS_MAX: usize = 256;

/// A table tells its rows by their own times in at most this many spans.
pub const BY_TIME_MAX: usize = 512;

/// A run of time and the rows in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Not later than the first row, a multiple of [`SPAN_STEP_NS`] unless at the end of time.
    pub first: i64,
    /// Not earlier than the last row.
    pub last: i64,
    /// Rows.
    pub rows: u64,
}

impl Span {
    /// The span of a run of rows with times `first..=last`.
    pub fn of(first: i64, last: i64, rows: u64) -> Span {
        let floor = |time: i64| time.div_euclid(SPAN_STEP_NS).saturating_mul(SPAN_STEP_NS);
        Span { first: floor(first), last: floor(last).saturating_add(SPAN_STEP_NS - 1), rows }
    }
}

/// Adds up spans over the same run of time, sorts them, and joins neighbours beyond [`SPANS_MAX`].
pub fn fold_spans(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|span| span.rows > 0);
    spans.sort_unstable();
    spans.dedup_by(|next, kept| {
        let same = (next.first, next.last) == (kept.first, kept.last);
        if same {
            kept.rows += next.rows;
        }
        same
    });
    while spans.len() > SPANS_MAX {
        spans = spans.chunks(2).map(joined).collect();
    }
    spans
}

/// Adds up spans over the same run of time, sorts them, and joins neighbours beyond [`BY_TIME_MAX`]: the older half of
/// them, so that the newest stay fine.
pub fn fold_by_time(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|span| span.rows > 0);
    spans.sort_unstable();
    spans.dedup_by(|next, kept| {
        let same = (next.first, next.last) == (kept.first, kept.last);
        if same {
            kept.rows += next.rows;
        }
        same
    });
    while spans.len() > BY_TIME_MAX {
        let newest = spans.split_off(spans.len() / 2);
        spans = spans.chunks(2).map(joined).chain(newest).collect();
    }
    spans
}

fn joined(neighbours: &[Span]) -> Span {
    Span {
        first: neighbours[0].first,
        last: neighbours.iter().map(|span| span.last).max().unwrap_or(neighbours[0].last),
        rows: neighbours.iter().map(|span| span.rows).sum(),
    }
}

/// The rows of a run of rows by their own times, in steps of a minute, or wider ones where the rows are spread over more
/// than [`STEPS_MAX`] of them.
pub fn by_time(times: &[i64]) -> Vec<Span> {
    let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else { return Vec::new() };
    let mut width = SPAN_STEP_NS;
    let steps = |width: i64| last.div_euclid(width) - first.div_euclid(width) + 1;
    while steps(width) > STEPS_MAX {
        width = width.saturating_mul(2);
    }
    let start = first.div_euclid(width);
    let mut rows = vec![0u64; usize::try_from(steps(width)).unwrap_or(1)];
    for time in times {
        rows[(time.div_euclid(width) - start) as usize] += 1;
    }
    let span = |(step, rows): (usize, u64)| {
        let first = (start + step as i64).saturating_mul(width);
        Span { first, last: first.saturating_add(width - 1), rows }
    };
    rows.into_iter().enumerate().filter(|(_, rows)| *rows > 0).map(span).collect()
}

/// Steps of time that one run of rows is told in.
const STEPS_MAX: i64 = 64;

/// The rows of the spans that overlap a time range.
pub fn rows_in(spans: &[Span], range: &TimeRange) -> u64 {
    spans.iter().filter(|span| range.overlaps(span.first, span.last)).map(|span| span.rows).sum()
}

/// The states of a leaf's life, in order (design: starting → attaching | recovering → serving → draining →
/// handing over → stopped).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum LeafState {
    Starting,
    Attaching,
    Recovering,
    Serving,
    Draining,
    HandingOver,
    Stopped,
}

impl LeafState {
    /// Every state with the word users read; the position is its number on the wire, so new ones go last.
    pub const ALL: [(LeafState, &'static str); 7] = [
        (LeafState::Starting, "starting"),
        (LeafState::Attaching, "attaching"),
        (LeafState::Recovering, "recovering"),
        (LeafState::Serving, "serving"),
        (LeafState::Draining, "draining"),
        (LeafState::HandingOver, "handing over"),
        (LeafState::Stopped, "stopped"),
    ];

    /// The word users read.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("stopped", |(_, name)| name)
    }
}

/// A finished or running phase of a leaf's start or stop.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    /// Its name, such as `attaching`.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// Bytes it handled.
    pub bytes: u64,
}

/// One column of one table on one leaf.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnHolding {
    /// Its exact name.
    pub name: String,
    /// The types it was seen with.
    pub types: TypeSet,
    /// Rows that have a value.
    pub value_count: u64,
    /// An estimate of distinct values: the largest of the leaf's blocks.
    pub distinct_estimate: u64,
    /// Bytes in memory.
    pub bytes: u64,
}

/// One table on one leaf.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableHolding {
    /// Its name.
    pub name: String,
    /// Rows held.
    pub rows: u64,
    /// Bytes held.
    pub bytes: u64,
    /// The rows by time, see [`Span`].
    pub spans: Vec<Span>,
    /// The rows by their own times; empty in an acknowledgement, and of leaves that do not tell. Rows that came since
    /// are not in it.
    pub by_time: Vec<Span>,
    /// Rows that were held once and are gone other than by retention, by time.
    pub lost: Vec<Span>,
    /// Oldest and newest row time.
    pub time_range: Option<(i64, i64)>,
    /// Its columns in order of name; may be left empty in an acknowledgement when nothing about them changed.
    pub columns: Vec<ColumnHolding>,
    /// Changes whenever a column appears or gains a type.
    pub schema_version: u64,
    /// Rows older than this are expired, seconds; 0 means no limit.
    pub retention_seconds: u64,
}

/// Everything a leaf says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Holdings {
    /// The leaf's id, which survives restarts.
    pub leaf: String,
    /// Grows with each start.
    pub epoch: u64,
    /// The program's version.
    pub version: String,
    /// Its state.
    pub state: LeafState,
    /// Where its data came from at the start: `shared memory`, `disk`, `nothing`.
    pub source: String,
    /// Why shared memory or disk was refused, in words; empty when nothing was.
    pub source_detail: String,
    /// Bytes in use.
    pub memory_used_bytes: u64,
    /// Bytes it may use.
    pub memory_limit_bytes: u64,
    /// Phases of its start (and of its stop, while stopping).
    pub phases: Vec<Phase>,
    /// Its tables in order of name.
    pub tables: Vec<TableHolding>,
    /// Rows accepted since the start.
    pub rows_ingested: u64,
    /// Rows that came with the start from shared memory or disk.
    pub rows_restored: u64,
    /// Address of the process for people: host and process id.
    pub process: String,
    /// The machine it runs on: leaves with the same text are on the same one. Empty when it does not say.
    pub machine: String,
    /// Rows may be sent to it with texts as dictionaries.
    pub takes_dictionaries: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_add_up_and_never_lose_rows() {
        let step = SPAN_STEP_NS;
        let spans =
            fold_spans(vec![Span::of(5, 10, 3), Span::of(step + 1, step + 2, 4), Span::of(0, step - 1, 2)]);
        assert_eq!(
            spans,
            [Span { first: 0, last: step - 1, rows: 5 }, Span { first: step, last: 2 * step - 1, rows: 4 }]
        );
        assert_eq!(rows_in(&spans, &TimeRange { min: 0, max: step }), 5);
        assert_eq!(rows_in(&spans, &TimeRange { min: step - 1, max: step + 1 }), 9);
        let many: Vec<Span> = (0..10_000).map(|i| Span::of(i * step, i * step, 1)).collect();
        let folded = fold_spans(many);
        assert!(folded.len() <= SPANS_MAX);
        assert_eq!(rows_in(&folded, &TimeRange::ALL), 10_000);
        Span::of(i64::MIN, i64::MAX, 1);
    }

    #[test]
    fn rows_are_told_by_their_own_times() {
        let step = SPAN_STEP_NS;
        let span = |first: i64, steps: i64, rows| Span {
            first: first * step,
            last: (first + steps) * step - 1,
            rows,
        };
        assert_eq!(by_time(&[]), []);
        assert_eq!(by_time(&[0, step - 1, step, -1]), [span(-1, 1, 1), span(0, 1, 2), span(1, 1, 1)]);
        // 65 minutes are too many: two minutes each.
        assert_eq!(by_time(&[0, 64 * step, 65 * step]), [span(0, 2, 1), span(64, 2, 2)]);
        let all = by_time(&[i64::MIN, 0, i64::MAX]);
        assert_eq!(all.iter().map(|span| span.rows).sum::<u64>(), 3);
        let many: Vec<Span> = (0..10_000).map(|minute| span(minute, 1, 1)).collect();
        let folded = fold_by_time(many);
        assert!(folded.len() <= BY_TIME_MAX);
        assert_eq!(folded.last(), Some(&span(9_999, 1, 1)));
        assert_eq!(rows_in(&folded, &TimeRange::ALL), 10_000);
    }
}
