//! How complete each step of time is, for groups by `date_bin`, `date_trunc` or `time_bucket` of the time column.
//!
//! It is counted from what the roster knows of every leaf's rows by time and from the record of what is missing, so a
//! chart can mark the steps that are thin. Nothing is missing most of the time, and then there is nothing to mark.
//!
//! Invariant: a ratio is never overstated. What a leaf holds in a step is known within bounds (at least the spans wholly
//! inside it, at most those that touch it): of rows that are covered the least is taken, of rows that are missing the
//! most. A leaf that covers only a part of its rows may lack any of them, so all it lacks counts in every step, up to
//! what it can have there.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, TimestampNanosecondType};
use gannet_query::{
    Bucket, Completeness, Expr, MissingReason, Output, Plan, Span, TIME_COLUMN, TableHolding, TimeRange,
};

use crate::roster::Roster;

/// Answers with more steps than this do not tell them one by one.
const BUCKETS_MAX: usize = 2_000;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Steps of one width, one of which begins at the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Steps {
    origin: i64,
    width: i64,
}

/// What one leaf lacks.
#[derive(Debug, Default)]
struct Lacks {
    /// It did not answer at all.
    silent: bool,
    /// Rows that it holds and did not cover.
    held: u64,
    /// Rows that it lost.
    lost: u64,
}

/// The steps of an answer's groups with what is covered and missing in each; none when nothing is missing, or the groups
/// are not by steps of time.
pub(super) fn buckets(roster: &Roster, plan: &Plan, completeness: &Completeness) -> Vec<Bucket> {
    let Some(steps) = steps_of(plan) else { return Vec::new() };
    if completeness.missing.iter().all(|missing| missing.rows == Some(0)) {
        return Vec::new();
    }
    let mut lacks: BTreeMap<&str, Lacks> = BTreeMap::new();
    let mut known = true;
    for missing in &completeness.missing {
        let of_leaf = lacks.entry(&missing.leaf).or_default();
        let rows = missing.rows.unwrap_or(u64::MAX);
        known &= missing.rows.is_some();
        match (missing.answered, missing.reason) {
            (false, _) => of_leaf.silent = true,
            (true, MissingReason::Lost) => of_leaf.lost = of_leaf.lost.saturating_add(rows),
            (true, _) => of_leaf.held = of_leaf.held.saturating_add(rows),
        }
    }
    let Some(mut sum) = Sum::over(roster, plan, steps) else { return Vec::new() };
    let none = Lacks::default();
    for leaf in roster.leaf_ids() {
        if let Some((holding, lost)) = roster.held(leaf, &plan.table) {
            sum.add(holding, lost, lacks.get(leaf).unwrap_or(&none));
        }
    }
    sum.buckets(known)
}

/// The steps and what is known of each so far.
struct Sum {
    steps: Steps,
    /// The number of the first step.
    first: i128,
    covered: Vec<u64>,
    missing: Vec<u64>,
}

impl Sum {
    /// Over all steps in which a leaf may hold rows of the plan's time range; `None` when there are none or too many.
    fn over(roster: &Roster, plan: &Plan, steps: Steps) -> Option<Sum> {
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        for leaf in roster.leaf_ids() {
            let Some((holding, lost)) = roster.held(leaf, &plan.table) else { continue };
            for span in holding.spans.iter().chain(&holding.lost).chain(lost) {
                first = first.min(span.first);
                last = last.max(span.last);
            }
        }
        let TimeRange { min, max } = plan.time_range;
        first = first.max(min);
        last = last.min(if max == i64::MAX { max } else { max.saturating_sub(1) });
        if first > last {
            return None;
        }
        let (first, last) = (steps.number(first), steps.number(last));
        let count = usize::try_from(last - first + 1).ok().filter(|count| *count <= BUCKETS_MAX)?;
        Some(Sum { steps, first, covered: vec![0; count], missing: vec![0; count] })
    }

    /// Adds a leaf.
    fn add(&mut self, holding: &TableHolding, lost: &[Span], lacks: &Lacks) {
        let (least, most) = self.bounds(holding);
        let mut lost_most = self.touched(&holding.lost);
        for (sum, rows) in lost_most.iter_mut().zip(self.touched(lost)) {
            *sum += rows;
        }
        for step in 0..self.covered.len() {
            let (covered, missing) = match lacks.silent {
                true => (0, most[step].saturating_add(lost_most[step])),
                false => {
                    let held = lacks.held.min(most[step]);
                    (least[step].saturating_sub(held), held + lacks.lost.min(lost_most[step]))
                }
            };
            self.covered[step] += covered;
            self.missing[step] = self.missing[step].saturating_add(missing);
        }
    }

    /// The rows that a leaf has in each step, at least and at most.
    fn bounds(&self, holding: &TableHolding) -> (Vec<u64>, Vec<u64>) {
        let by_blocks = self.touched(&holding.spans);
        // Rows that came since the leaf told its rows by time can be wherever its blocks can have them.
        let rows = |spans: &[Span]| spans.iter().map(|span| span.rows).sum::<u64>();
        let untold = rows(&holding.spans).saturating_sub(rows(&holding.by_time));
        let by_time = self.touched(&holding.by_time);
        let most =
            by_time.iter().zip(&by_blocks).map(|(told, blocks)| (told + untold.min(*blocks)).min(*blocks));
        let mut least = vec![0; self.covered.len()];
        let told = if holding.by_time.is_empty() { &holding.spans } else { &holding.by_time };
        for span in told {
            let (from, to) = (self.steps.number(span.first), self.steps.number(span.last));
            let at = usize::try_from(from - self.first).ok().filter(|at| from == to && *at < least.len());
            if let Some(at) = at {
                least[at] += span.rows;
            }
        }
        (least, most.collect())
    }

    /// The rows of the spans that touch each step.
    fn touched(&self, spans: &[Span]) -> Vec<u64> {
        let mut rows = vec![0u64; self.covered.len()];
        let end = rows.len() as i128;
        for span in spans {
            let from = (self.steps.number(span.first) - self.first).clamp(0, end) as usize;
            let to = (self.steps.number(span.last) - self.first + 1).clamp(0, end) as usize;
            for step in rows.get_mut(from..to).unwrap_or_default() {
                *step = step.saturating_add(span.rows);
            }
        }
        rows
    }

    fn buckets(self, known: bool) -> Vec<Bucket> {
        let (steps, first) = (self.steps, self.first);
        let bucket = |(step, (covered, missing)): (usize, (u64, u64))| Bucket {
            time: steps.start(first + step as i128),
            rows_covered: covered,
            rows_expected: known.then(|| covered.saturating_add(missing)),
        };
        let all = self.covered.into_iter().zip(self.missing).enumerate();
        all.filter(|(_, (covered, missing))| covered + missing > 0).map(bucket).collect()
    }
}

impl Steps {
    /// The number of the step that a time is in.
    fn number(self, time: i64) -> i128 {
        (i128::from(time) - i128::from(self.origin)).div_euclid(i128::from(self.width))
    }

    /// The first time of a step.
    fn start(self, number: i128) -> i64 {
        let start = i128::from(self.origin) + number * i128::from(self.width);
        i64::try_from(start).unwrap_or(i64::MIN)
    }
}

/// The steps of the first key that is one of time.
fn steps_of(plan: &Plan) -> Option<Steps> {
    let Output::Groups { keys, .. } = &plan.output else { return None };
    keys.iter().find_map(|key| steps(&key.expr))
}

fn steps(expr: &Expr) -> Option<Steps> {
    match expr {
        Expr::Cast { operand, .. } => steps(operand),
        Expr::Call { function, arguments } => match (function.as_str(), arguments.as_slice()) {
            ("date_trunc" | "datetrunc", [unit, time]) if is_time(time) => {
                trunc(&unit.literal_text()?.to_lowercase())
            }
            ("date_bin", [width, time]) if is_time(time) => {
                Some(Steps { origin: 0, width: interval(width)? })
            }
            ("date_bin", [width, time, origin]) if is_time(time) => {
                let origin = origin.as_literal()?.as_primitive_opt::<TimestampNanosecondType>()?.value(0);
                Some(Steps { origin, width: interval(width)? })
            }
            _ => None,
        },
        _ => None,
    }
}

fn is_time(expr: &Expr) -> bool {
    match expr {
        Expr::Column(name) => name == TIME_COLUMN,
        Expr::Cast { operand, to: DataType::Timestamp(_, zone), .. } => {
            zone.as_ref().is_none_or(|zone| matches!(&**zone, "+00:00" | "UTC" | "Z")) && is_time(operand)
        }
        _ => false,
    }
}

/// Units of one length; months and years have several.
fn trunc(unit: &str) -> Option<Steps> {
    let (origin, width) = match unit {
        "second" => (0, SECOND),
        "minute" => (0, 60 * SECOND),
        "hour" => (0, 3_600 * SECOND),
        "day" => (0, DAY),
        // Weeks begin on Monday, and 1970 began on a Thursday.
        "week" => (-3 * DAY, 7 * DAY),
        _ => return None,
    };
    Some(Steps { origin, width })
}

/// The width of an interval that may be one of steps.
fn interval(expr: &Expr) -> Option<i64> {
    expr.literal_interval().filter(|width| *width > 0)
}

#[cfg(test)]
mod tests;
