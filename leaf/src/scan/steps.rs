//! Expressions of time that are constant on steps of a fixed width, such as `date_trunc('hour', time)`.
//!
//! For those the calendar is asked once per step that occurs, not once per row. What is recognised is only the width;
//! the value of a step is DataFusion's, evaluated on a time inside it, so NULLs, signs and zones are its affair.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, TimeUnit, TimestampNanosecondType};
use gannet_query::{ColumnType, Expr};
use hashbrown::HashMap;

use super::prepare::ColumnSpec;

/// An expression of one time column is constant where `floor((time - origin) / width)` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) column: usize,
    pub(super) origin: i64,
    /// Nanoseconds, at least 1.
    pub(super) width: i64,
}

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The steps an expression is constant on, if it is.
pub(super) fn step(expr: &Expr, specs: &[ColumnSpec]) -> Option<Step> {
    let mut found: Option<Step> = None;
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        match expr {
            // Time outside a step function: it changes with every nanosecond.
            Expr::Column(_) => return None,
            Expr::Call { function, arguments } => match step_call(function, arguments, specs) {
                Some(step) => {
                    found = Some(match found {
                        Some(known) => refine(known, step)?,
                        None => step,
                    });
                }
                None => open.extend(arguments),
            },
            other => open.extend(other.children()),
        }
    }
    found
}

/// Steps on which both are constant.
fn refine(a: Step, b: Step) -> Option<Step> {
    let apart = a.origin.checked_sub(b.origin)?.checked_abs()?;
    (a.column == b.column).then(|| Step { width: divisor(divisor(a.width, b.width), apart), ..a })
}

fn divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

fn step_call(function: &str, arguments: &[Expr], specs: &[ColumnSpec]) -> Option<Step> {
    let column = time_column(arguments.get(1)?, specs)?;
    let (origin, width) = match (function, arguments) {
        ("date_trunc" | "datetrunc", [unit, _]) => (0, trunc_width(&unit.literal_text()?.to_lowercase())?),
        ("date_part" | "datepart", [unit, _]) => (0, part_width(&unit.literal_text()?.to_lowercase())?),
        ("date_bin", [interval, _]) => (0, interval.literal_interval()?),
        ("date_bin", [interval, _, origin]) => (time_literal(origin)?, interval.literal_interval()?),
        _ => return None,
    };
    (width > 0).then_some(Step { column, origin, width })
}

/// A time column, as it is or cast to another zone's name for UTC.
fn time_column(expr: &Expr, specs: &[ColumnSpec]) -> Option<usize> {
    match expr {
        Expr::Column(name) => {
            specs.iter().position(|spec| &spec.name == name && spec.column_type == ColumnType::Time)
        }
        Expr::Cast { operand, to: DataType::Timestamp(TimeUnit::Nanosecond, zone), .. } => {
            let is_utc = zone.as_ref().is_none_or(|zone| matches!(&**zone, "+00:00" | "UTC" | "Z"));
            if is_utc && matches!(&**operand, Expr::Column(_)) { time_column(operand, specs) } else { None }
        }
        _ => None,
    }
}

fn time_literal(expr: &Expr) -> Option<i64> {
    let array = expr.as_literal()?;
    Some(array.as_primitive_opt::<TimestampNanosecondType>()?.value(0))
}

fn trunc_width(unit: &str) -> Option<i64> {
    Some(match unit {
        "microsecond" => 1_000,
        "millisecond" => 1_000_000,
        "second" => SECOND,
        "minute" => MINUTE,
        "hour" => HOUR,
        // Longer units are constant on days.
        "day" | "week" | "month" | "quarter" | "year" => DAY,
        _ => return None,
    })
}

fn part_width(unit: &str) -> Option<i64> {
    Some(match unit {
        "minute" => MINUTE,
        "hour" => HOUR,
        "day" | "dow" | "isodow" | "doy" | "week" | "month" | "quarter" | "year" | "isoyear" => DAY,
        _ => return None,
    })
}

impl Step {
    /// Where the first step of a run begins whose times are from `first` to `last`, and the number of its last step;
    /// `None` when the first step begins before all times.
    pub(super) fn steps_within(&self, (first, last): (i64, i64)) -> Option<(i64, u64)> {
        let width = i128::from(self.width);
        let offset = (i128::from(first) - i128::from(self.origin)).rem_euclid(width);
        let start = i64::try_from(i128::from(first) - offset).ok()?;
        let steps = (i128::from(last) - i128::from(start)).max(0) / width;
        Some((start, u64::try_from(steps).ok()?))
    }

    /// For each time the number of its step, in order of first appearance, and for each step one of its times.
    pub(super) fn number(&self, times: &[i64]) -> (Vec<u32>, Vec<i64>) {
        let mut numbers: HashMap<i128, u32> = HashMap::new();
        let mut firsts = Vec::new();
        let (mut first, mut last, mut number) = (1, 0, 0);
        let mut codes = Vec::with_capacity(times.len());
        for time in times {
            // Times come nearly in order, so that most rows share the step of the row before.
            if *time < first || *time > last {
                let width = i128::from(self.width);
                let at = (i128::from(*time) - i128::from(self.origin)).div_euclid(width);
                number = *numbers.entry(at).or_insert_with(|| {
                    firsts.push(*time);
                    firsts.len() as u32 - 1
                });
                let start = i128::from(self.origin) + at * width;
                first = i64::try_from(start).unwrap_or(i64::MIN);
                last = i64::try_from(start + width - 1).unwrap_or(i64::MAX);
            }
            codes.push(number);
        }
        (codes, firsts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(step: (i64, i64), times: &[i64], codes: &[u32], firsts: &[i64]) {
        let step = Step { column: 0, origin: step.0, width: step.1 };
        assert_eq!(step.number(times), (codes.to_vec(), firsts.to_vec()), "{step:?} {times:?}");
    }

    #[test]
    fn steps_round_down_on_both_sides_of_the_origin() {
        check((0, 10), &[0, 9, 10, -1, -10, -11], &[0, 0, 1, 2, 2, 3], &[0, 10, -1, -11]);
        check((5, 10), &[4, 5, 14, 15, -5, -6], &[0, 1, 1, 2, 0, 3], &[4, 5, 15, -6]);
        check((0, 1), &[i64::MIN, i64::MAX, i64::MIN], &[0, 1, 0], &[i64::MIN, i64::MAX]);
        check((i64::MAX, i64::MAX), &[i64::MIN, i64::MAX], &[0, 1], &[i64::MIN, i64::MAX]);
    }
}
