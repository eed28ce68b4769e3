//! Answers, a row at a time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use gannet_query::{SAMPLE_RATE_COLUMN, TIME_COLUMN, Value};

use super::{Aggregate, Condition, Expected, Function, Key, Query, Table};
use crate::rows::Row;

/// How far floats that were added up may be off, against the sum of their magnitudes.
const RELATIVE: f64 = 1e-9;

/// A weighted value of a row.
struct Weighted {
    value: Value,
    weight: f64,
    time: i64,
}

impl Query {
    /// What the answer over these rows must be, row by row and column by column.
    pub fn evaluate(&self, table: &Table) -> Vec<Vec<Expected>> {
        match self {
            Query::Groups { filter, keys, aggregates, limit } => {
                let mut groups: BTreeMap<Vec<Ordered>, Vec<&Row>> = BTreeMap::new();
                if keys.is_empty() {
                    groups.insert(Vec::new(), Vec::new());
                }
                for row in matching(table, filter) {
                    let key = keys.iter().map(|key| Ordered(key.of(table, row))).collect();
                    groups.entry(key).or_default().push(row);
                }
                groups
                    .into_iter()
                    .take(limit.unwrap_or(usize::MAX))
                    .map(|(key, rows)| {
                        let keys = key
                            .into_iter()
                            .zip(keys)
                            .map(|(value, key)| Expected::Value(value.0, key.is_time()));
                        keys.chain(aggregates.iter().map(|aggregate| aggregate.of(table, &rows))).collect()
                    })
                    .collect()
            }
            Query::Rows { filter, columns, descending, limit } => {
                let mut rows: Vec<&Row> = matching(table, filter).collect();
                rows.sort_by_key(|row| time_of(row));
                if *descending {
                    rows.reverse();
                }
                rows.truncate(*limit);
                rows.iter()
                    .map(|row| {
                        let shown = columns.iter();
                        shown
                            .map(|name| Expected::Value(table.value(row, name), name == TIME_COLUMN))
                            .collect()
                    })
                    .collect()
            }
        }
    }
}

fn matching<'a>(table: &'a Table, filter: &'a Option<Condition>) -> impl Iterator<Item = &'a Row> {
    table
        .rows
        .iter()
        .filter(move |row| filter.as_ref().is_none_or(|filter| filter.of(table, row) == Some(true)))
}

fn time_of(row: &Row) -> i64 {
    match row.get(TIME_COLUMN) {
        Some(Value::Int(time)) => *time,
        other => panic!("every generated row has a time, not {other:?}"),
    }
}

/// A value with the order of ORDER BY … ASC NULLS LAST.
#[derive(Debug, Clone)]
struct Ordered(Value);

impl PartialEq for Ordered {
    fn eq(&self, other: &Ordered) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Ordered) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Ordered) -> Ordering {
        order(&self.0, &other.0)
    }
}

fn order(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Greater,
        (_, Value::Null) => Ordering::Less,
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Int(left), Value::Int(right)) => left.cmp(right),
        (Value::Float(left), Value::Float(right)) => left.total_cmp(right),
        (Value::String(left), Value::String(right)) => left.as_bytes().cmp(right.as_bytes()),
        (Value::Strings(left), Value::Strings(right)) => left.cmp(right),
        (left, right) => panic!("{left:?} and {right:?} are never in one column"),
    }
}

impl Key {
    fn is_time(&self) -> bool {
        match self {
            Key::Minute | Key::Bucket(_) => true,
            Key::Column(column) => column == TIME_COLUMN,
            _ => false,
        }
    }

    fn of(&self, table: &Table, row: &Row) -> Value {
        let floor = |step: i64| Value::Int(time_of(row).div_euclid(step) * step);
        match self {
            Key::Column(column) => table.value(row, column),
            Key::Minute => floor(60_000_000_000),
            Key::Bucket(seconds) => floor(seconds * 1_000_000_000),
            // The sign of SQL's remainder is that of the dividend, as in Rust.
            Key::Modulo(column, by) => match table.value(row, column) {
                Value::Int(int) => Value::Int(int.wrapping_rem(*by)),
                _ => Value::Null,
            },
            Key::Upper(column) => match table.value(row, column) {
                Value::String(text) => Value::String(text.to_uppercase()),
                _ => Value::Null,
            },
            Key::IsNull(column) => Value::Bool(table.value(row, column) == Value::Null),
            Key::Graded(column, from) => {
                let bad = matches!(table.value(row, column), Value::Int(int) if int >= *from);
                Value::String(if bad { "bad" } else { "good" }.to_owned())
            }
        }
    }
}

impl Condition {
    /// True, false, or NULL.
    pub fn of(&self, table: &Table, row: &Row) -> Option<bool> {
        let known = |column: &str| match table.value(row, column) {
            Value::Null => None,
            value => Some(value),
        };
        match self {
            Condition::Compare(column, operator, literal) => {
                let order = order(&known(column)?, literal);
                Some(match *operator {
                    "=" => order.is_eq(),
                    "<>" => order.is_ne(),
                    "<" => order.is_lt(),
                    "<=" => order.is_le(),
                    ">" => order.is_gt(),
                    ">=" => order.is_ge(),
                    other => panic!("operator {other}"),
                })
            }
            Condition::In(column, values, negated) => {
                let value = known(column)?;
                Some(values.iter().any(|other| order(&value, other).is_eq()) != *negated)
            }
            Condition::Between(column, low, high) => {
                let value = known(column)?;
                Some(order(&value, low).is_ge() && order(&value, high).is_le())
            }
            Condition::Like(column, pattern) => Some(like(&text(known(column)?), pattern)),
            Condition::ILike(column, pattern) => {
                Some(like(&text(known(column)?).to_lowercase(), &pattern.to_lowercase()))
            }
            Condition::IsNull(column) => Some(known(column).is_none()),
            Condition::Truth(column) => known(column).map(|value| value == Value::Bool(true)),
            Condition::ContainsAny(column, wanted) => {
                let held = list(known(column)?);
                Some(wanted.iter().any(|text| held.contains(text)))
            }
            Condition::ContainsAll(column, wanted) => {
                let held = list(known(column)?);
                Some(wanted.iter().all(|text| held.contains(text)))
            }
            Condition::And(all) => {
                let truths: Vec<Option<bool>> = all.iter().map(|next| next.of(table, row)).collect();
                if truths.contains(&Some(false)) {
                    Some(false)
                } else {
                    (!truths.contains(&None)).then_some(true)
                }
            }
            Condition::Or(any) => {
                let truths: Vec<Option<bool>> = any.iter().map(|next| next.of(table, row)).collect();
                if truths.contains(&Some(true)) {
                    Some(true)
                } else {
                    (!truths.contains(&None)).then_some(false)
                }
            }
            Condition::Not(condition) => condition.of(table, row).map(|value| !value),
        }
    }
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => panic!("LIKE over {other:?}"),
    }
}

fn list(value: Value) -> Vec<String> {
    match value {
        Value::Strings(texts) => texts,
        other => panic!("a list predicate over {other:?}"),
    }
}

/// `%` is any run of characters, `_` one character.
fn like(text: &str, pattern: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('%') => {
            let rest = &pattern[1..];
            text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| like(&text[at..], rest))
        }
        Some(wanted) => match text.chars().next() {
            Some(c) if wanted == '_' || c == wanted => {
                like(&text[c.len_utf8()..], &pattern[wanted.len_utf8()..])
            }
            _ => false,
        },
    }
}

impl Aggregate {
    fn of(&self, table: &Table, rows: &[&Row]) -> Expected {
        let rows =
            rows.iter().filter(|row| self.filter.as_ref().is_none_or(|f| f.of(table, row) == Some(true)));
        let argument = self.function.argument();
        let weighted = rows.map(|row| Weighted {
            value: argument.map_or(Value::Bool(true), |column| table.value(row, column)),
            weight: match table.value(row, SAMPLE_RATE_COLUMN) {
                Value::Int(rate) if !self.unweighted => rate as f64,
                Value::Float(rate) if !self.unweighted => rate,
                _ => 1.0,
            },
            time: time_of(row),
        });
        let is_time = argument == Some(TIME_COLUMN);
        // First and last keep NULLs; all others leave them out.
        let (all, known): (Vec<Weighted>, Vec<Weighted>) = match self.function {
            Function::First(_) | Function::Last(_) => (weighted.collect(), Vec::new()),
            _ => (Vec::new(), weighted.filter(|weighted| weighted.value != Value::Null).collect()),
        };
        let value = |found: Option<&Weighted>| {
            Expected::Value(found.map_or(Value::Null, |weighted| weighted.value.clone()), is_time)
        };
        match &self.function {
            Function::CountRows | Function::Count(_) => {
                Expected::int(known.iter().map(|weighted| weighted.weight).sum::<f64>().round())
            }
            Function::CountDistinct(_) => Expected::int(distinct(&known) as f64),
            Function::ApproxDistinct(_) => {
                let exact = distinct(&known) as f64;
                Expected::Near { value: exact, tolerance: (exact * 0.05).max(0.5) }
            }
            Function::Sum(_) => sum(&known),
            Function::Average(_) => average(&known),
            Function::Deviation(_) => deviation(&known),
            Function::Percentile(_, hundredths) => percentile(&known, f64::from(*hundredths) / 100.0),
            Function::Min(_) => value(known.iter().min_by(|a, b| order(&a.value, &b.value))),
            Function::Max(_) => value(known.iter().max_by(|a, b| order(&a.value, &b.value))),
            Function::First(_) => value(all.iter().min_by_key(|weighted| weighted.time)),
            Function::Last(_) => value(all.iter().max_by_key(|weighted| weighted.time)),
        }
    }
}

impl Function {
    fn argument(&self) -> Option<&str> {
        match self {
            Function::CountRows => None,
            Function::Count(column)
            | Function::CountDistinct(column)
            | Function::ApproxDistinct(column)
            | Function::Sum(column)
            | Function::Average(column)
            | Function::Min(column)
            | Function::Max(column)
            | Function::Deviation(column)
            | Function::Percentile(column, _)
            | Function::First(column)
            | Function::Last(column) => Some(column),
        }
    }
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Int(int) => *int as f64,
        Value::Float(float) => *float,
        other => panic!("{other:?} is not a number"),
    }
}

fn distinct(known: &[Weighted]) -> usize {
    known.iter().map(|weighted| Ordered(weighted.value.clone())).collect::<BTreeSet<_>>().len()
}

fn null() -> Expected {
    Expected::Value(Value::Null, false)
}

fn sum(known: &[Weighted]) -> Expected {
    let is_int = known.iter().all(|weighted| matches!(weighted.value, Value::Int(_)));
    let sum: f64 = known.iter().map(|weighted| weighted.weight * number(&weighted.value)).sum();
    let magnitude: f64 = known.iter().map(|weighted| (weighted.weight * number(&weighted.value)).abs()).sum();
    match known {
        [] => null(),
        // Weights are multiples of a quarter and ints are small here: the float sum is exact.
        _ if is_int && magnitude < 1e15 => Expected::int(sum.round()),
        _ => Expected::Near { value: sum, tolerance: magnitude * RELATIVE },
    }
}

fn average(known: &[Weighted]) -> Expected {
    let weight: f64 = known.iter().map(|weighted| weighted.weight).sum();
    let sum: f64 = known.iter().map(|weighted| weighted.weight * number(&weighted.value)).sum();
    let magnitude: f64 = known.iter().map(|weighted| (weighted.weight * number(&weighted.value)).abs()).sum();
    match known {
        [] => null(),
        _ => Expected::Near { value: sum / weight, tolerance: magnitude / weight * RELATIVE },
    }
}

fn deviation(known: &[Weighted]) -> Expected {
    let weight: f64 = known.iter().map(|weighted| weighted.weight).sum();
    if weight <= 1.0 {
        return null();
    }
    let mean = known.iter().map(|weighted| weighted.weight * number(&weighted.value)).sum::<f64>() / weight;
    let squares: f64 =
        known.iter().map(|weighted| weighted.weight * (number(&weighted.value) - mean).powi(2)).sum();
    let largest = known.iter().map(|weighted| number(&weighted.value).abs()).fold(0.0, f64::max);
    // Rounding in the mean shows in the root: of a hundred-millionth of the largest value, not of the deviation.
    Expected::Near { value: (squares / (weight - 1.0)).sqrt(), tolerance: largest * 1e-7 }
}

fn percentile(known: &[Weighted], fraction: f64) -> Expected {
    let mut values: Vec<(f64, f64)> =
        known.iter().map(|weighted| (number(&weighted.value), weighted.weight)).collect();
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let weight: f64 = values.iter().map(|(_, weight)| weight).sum();
    let mut seen = 0.0;
    for (value, weight_here) in &values {
        seen += weight_here;
        // A fraction such as 0.99 is no exact binary number; the hair of slack keeps a whole rank where it is.
        if seen >= weight * fraction * (1.0 - 1e-12) {
            return Expected::Near { value: *value, tolerance: value.abs() * 0.01 };
        }
    }
    null()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighted(values: &[(f64, f64)]) -> Vec<Weighted> {
        values
            .iter()
            .map(|(value, weight)| Weighted { value: Value::Float(*value), weight: *weight, time: 0 })
            .collect()
    }

    #[test]
    fn a_row_of_weight_ten_is_ten_rows() {
        let near = |expected: Expected| match expected {
            Expected::Near { value, .. } => value,
            other => panic!("{other:?}"),
        };
        let rows = weighted(&[(200.0, 10.0), (1100.0, 10.0)]);
        assert_eq!(near(average(&rows)), 650.0);
        assert_eq!(near(percentile(&rows, 0.5)), 200.0);
        assert_eq!(near(percentile(&rows, 0.51)), 1100.0);
        let one_by_one: Vec<(f64, f64)> = [200.0, 1100.0].iter().flat_map(|v| vec![(*v, 1.0); 10]).collect();
        assert_eq!(near(deviation(&rows)), near(deviation(&weighted(&one_by_one))));
    }

    #[test]
    fn like_matches_as_sql_does() {
        for (text, pattern, expect) in [
            ("web-1", "web%", true),
            ("web-1", "%-_", true),
            ("web-1", "web", false),
            ("", "%", true),
            ("", "_", false),
            ("näher", "n_her", true),
            ("a%b", "a%b", true),
        ] {
            assert_eq!(like(text, pattern), expect, "{text:?} LIKE {pattern:?}");
        }
    }
}
