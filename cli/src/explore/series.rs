//! Rows of an answer as series: a value for each bucket of each group, number and period.

use std::collections::HashMap;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampNanosecondType};
use gannet_client::Answer;

use crate::cells::{Cells, Zone};
use crate::explore::question::{Question, adds_up};
use crate::outcome::Failure;

/// Buckets beyond this are refused: no screen shows them.
pub(crate) const BUCKETS_MAX: usize = 10_000;

/// The series of an answer, those with most first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    /// The groups that are shown.
    pub(crate) groups: Vec<Group>,
    /// How many groups there are.
    pub(crate) group_count: usize,
    /// How many buckets a period has.
    pub(crate) buckets: usize,
}

/// A group: what it is, and its numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Group {
    /// A text for each expression of the groups; `None` is NULL. Empty for all rows, and `other` for the rest.
    pub(crate) key: Key,
    /// The numbers, as they are shown.
    pub(crate) numbers: Vec<Number>,
}

/// What a group is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// These values.
    Values(Vec<Option<String>>),
    /// All groups that are not shown.
    Other,
}

/// A number of a group: in all, and bucket by bucket; for now and for before.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Number {
    /// Of the whole period.
    pub(crate) totals: [Option<f64>; 2],
    /// Of each bucket.
    pub(crate) values: [Vec<Option<f64>>; 2],
}

/// How many buckets the question has.
pub(crate) fn bucket_count(question: &Question) -> usize {
    let range = question.to - question.from;
    usize::try_from(range.div_euclid(question.every) + i64::from(range % question.every != 0))
        .unwrap_or(usize::MAX)
}

/// Reads the answer to a question of the view `series`.
pub(crate) fn read(question: &Question, answer: &Answer, zone: Zone) -> Result<Series, Failure> {
    let mut reader =
        Reader { question, groups: HashMap::new(), order: Vec::new(), buckets: bucket_count(question) };
    for batch in &answer.batches {
        reader.batch(batch, zone)?;
    }
    Ok(reader.finish())
}

struct Reader<'a> {
    question: &'a Question,
    groups: HashMap<Key, Vec<Number>>,
    order: Vec<Key>,
    buckets: usize,
}

impl Reader<'_> {
    fn batch(&mut self, batch: &arrow::array::RecordBatch, zone: Zone) -> Result<(), Failure> {
        let question = self.question;
        let wrong = |error: arrow::error::ArrowError| Failure::failed(format!("read the answer: {error}"));
        let has_period = usize::from(question.compare.is_some());
        let (first_group, first_show) = (1 + has_period, 1 + has_period + question.group_by.len());
        if batch.num_columns() != first_show + question.show.len() {
            let found = batch.num_columns();
            return Err(Failure::failed(format!(
                "the answer has {found} columns, and other ones were asked for"
            )));
        }
        let times = cast(batch.column(0), &DataType::Timestamp(TimeUnit::Nanosecond, None)).map_err(wrong)?;
        let times = times.as_primitive::<TimestampNanosecondType>();
        let periods = cast(batch.column(first_group - 1), &DataType::Int64).map_err(wrong);
        let keys = batch.columns()[first_group..first_show].iter().map(|column| Cells::new(column, zone));
        let keys = keys.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let shows = batch.columns()[first_show..].iter().zip(&question.show).map(|(column, show)| {
            cast(column, &DataType::Float64).map_err(|_| {
                Failure::usage(format!("`{show}` is no number, but {}", column.data_type()))
                    .hint("show numbers over time, or look at it with --view table")
            })
        });
        let shows = shows.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let key = Key::Values(keys.iter().map(|cells| cells.text(row)).collect());
            let period = match &periods {
                Ok(periods) if has_period == 1 => {
                    usize::from(periods.as_primitive::<Int64Type>().value(row) != 0)
                }
                _ => 0,
            };
            let bucket = times.is_valid(row).then(|| times.value(row));
            let numbers = self.numbers(key);
            let Some(numbers) = numbers else { continue };
            for (number, show) in numbers.iter_mut().zip(&shows) {
                let show = show.as_primitive::<Float64Type>();
                let value = show.is_valid(row).then(|| show.value(row));
                match bucket.map(|bucket| place(question, period, bucket)) {
                    None => number.totals[period] = value,
                    Some(Some(place)) => {
                        if let Some(cell) = number.values[period].get_mut(place) {
                            *cell = value;
                        }
                    }
                    Some(None) => {}
                }
            }
        }
        Ok(())
    }

    /// The numbers of a group.
    fn numbers(&mut self, key: Key) -> Option<&mut Vec<Number>> {
        if !self.groups.contains_key(&key) {
            let empty = |show: &String| {
                let nothing = if adds_up(show) { Some(0.0) } else { None };
                let values = || vec![nothing; self.buckets];
                Number { totals: [None, None], values: [values(), values()] }
            };
            let numbers = self.question.show.iter().map(empty).collect();
            self.groups.insert(key.clone(), numbers);
            self.order.push(key.clone());
        }
        self.groups.get_mut(&key)
    }

    fn finish(mut self) -> Series {
        let has_total =
            |numbers: &[Number]| numbers.iter().any(|number| number.totals.iter().any(Option::is_some));
        // Conditions on groups are asked of totals, so a group that has none is not meant.
        if !self.question.having.is_empty() {
            self.groups.retain(|_, numbers| has_total(numbers));
        }
        let by = self.question.order_by.as_deref().map(order).unwrap_or(("", true));
        let place = self.question.show.iter().position(|show| show == by.0).unwrap_or(0);
        let rank = |numbers: &[Number]| {
            let total = numbers.get(place).and_then(|number| number.totals[0]);
            total.filter(|total| total.is_finite()).unwrap_or(f64::NEG_INFINITY)
        };
        let mut groups: Vec<Group> = std::mem::take(&mut self.order)
            .into_iter()
            .filter_map(|key| self.groups.remove(&key).map(|numbers| Group { key, numbers }))
            .collect();
        // The order in which leaves answer is not kept, so equal ones are ordered by what they are.
        groups.sort_by(|a, b| {
            let (a_rank, b_rank) = (rank(&a.numbers), rank(&b.numbers));
            let by_rank = if by.1 { b_rank.total_cmp(&a_rank) } else { a_rank.total_cmp(&b_rank) };
            by_rank.then_with(|| a.key.texts().cmp(b.key.texts()))
        });
        let group_count = groups.len();
        let rest = groups.split_off(group_count.min(self.question.limit.max(1)));
        if let Some(other) = self.other(&rest) {
            groups.push(other);
        }
        Series { groups, group_count, buckets: self.buckets }
    }

    /// The rest as one group, of those numbers that add up.
    fn other(&self, rest: &[Group]) -> Option<Group> {
        if rest.is_empty() {
            return None;
        }
        let number = |(place, show): (usize, &String)| {
            let numbers = || rest.iter().map(|group| &group.numbers[place]);
            let sum = |of: &dyn Fn(&Number) -> Option<f64>| {
                adds_up(show).then(|| numbers().filter_map(of).sum::<f64>())
            };
            let total = |period: usize| sum(&|number| number.totals[period]);
            let values = |period: usize| {
                (0..self.buckets).map(|bucket| sum(&|number| number.values[period][bucket])).collect()
            };
            Number { totals: [total(0), total(1)], values: [values(0), values(1)] }
        };
        let numbers = self.question.show.iter().enumerate().map(number).collect();
        Some(Group { key: Key::Other, numbers })
    }
}

impl Key {
    fn texts(&self) -> &[Option<String>] {
        match self {
            Key::Values(texts) => texts,
            Key::Other => &[],
        }
    }
}

/// An order as people write it: the expression, and whether it goes downwards.
fn order(text: &str) -> (&str, bool) {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    if lower.ends_with(" asc") {
        (text[..text.len() - 4].trim_end(), false)
    } else if lower.ends_with(" desc") {
        (text[..text.len() - 5].trim_end(), true)
    } else {
        (text, false)
    }
}

/// Which bucket of its period a time is in.
fn place(question: &Question, period: usize, time: i64) -> Option<usize> {
    let begin = if period == 0 { question.from } else { question.from - question.compare.unwrap_or(0) };
    usize::try_from((time - begin).div_euclid(question.every)).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
    use gannet_client::{Completeness, Stats};

    use super::*;
    use crate::explore::question::View;

    fn question(compare: Option<i64>, limit: usize) -> Question {
        Question {
            table: "t".to_owned(),
            show: vec!["count(*)".to_owned(), "max(n)".to_owned()],
            filters: vec![],
            group_by: vec!["g".to_owned()],
            derive: vec![],
            having: vec![],
            order_by: None,
            limit,
            from: 100,
            to: 130,
            every: 10,
            compare,
            view: View::Series,
        }
    }

    /// Bucket, period, group, count, max.
    type Row = (Option<i64>, i64, &'static str, i64, Option<i64>);

    fn answer(rows: &[Row], has_period: bool) -> Answer {
        let times = TimestampNanosecondArray::from_iter(rows.iter().map(|row| row.0));
        let mut columns: Vec<(&str, ArrayRef)> = vec![("bucket", Arc::new(times))];
        if has_period {
            columns.push(("period", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)))));
        }
        columns.push(("g", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.2)))));
        columns.push(("count", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.3)))));
        columns.push(("max", Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.4)))));
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, array)| (name, array, true)),
        );
        let batch = batch.unwrap();
        Answer {
            schema: batch.schema(),
            batches: vec![batch],
            completeness: Completeness::default(),
            stats: Stats::default(),
        }
    }

    #[test]
    fn groups_are_ranked_and_the_rest_is_summed() {
        let rows = [
            (Some(100), 0, "b", 1, Some(5)),
            (None, 0, "a", 2, Some(1)),
            (None, 0, "b", 9, Some(7)),
            (None, 0, "c", 3, Some(9)),
            (Some(120), 0, "c", 3, None),
        ];
        let series = read(&question(None, 1), &answer(&rows, false), None).unwrap();
        assert_eq!((series.buckets, series.group_count, series.groups.len()), (3, 3, 2));
        let [first, other] = &series.groups[..] else { unreachable!() };
        assert_eq!(first.key, Key::Values(vec![Some("b".to_owned())]));
        assert_eq!(first.numbers[0].totals, [Some(9.0), None]);
        assert_eq!(first.numbers[0].values[0], [Some(1.0), Some(0.0), Some(0.0)]);
        assert_eq!(first.numbers[1].values[0], [Some(5.0), None, None]);
        assert_eq!(other.key, Key::Other);
        assert_eq!((other.numbers[0].totals[0], other.numbers[1].totals[0]), (Some(5.0), None));
        assert_eq!(other.numbers[0].values[0], [Some(0.0), Some(0.0), Some(3.0)]);
    }

    #[test]
    fn both_periods_have_the_same_buckets() {
        let rows = [
            (None, 0, "a", 2, None),
            (None, 1, "a", 4, None),
            (Some(110), 0, "a", 2, None),
            (Some(60), 1, "a", 4, None),
            // Beyond the ends, where no bucket is.
            (Some(10), 1, "a", 1, None),
            (Some(1000), 0, "a", 1, None),
        ];
        let series = read(&question(Some(50), 10), &answer(&rows, true), None).unwrap();
        let number = &series.groups[0].numbers[0];
        assert_eq!(number.totals, [Some(2.0), Some(4.0)]);
        assert_eq!(number.values[0], [Some(0.0), Some(2.0), Some(0.0)]);
        assert_eq!(number.values[1], [Some(0.0), Some(4.0), Some(0.0)]);
    }

    #[test]
    fn orders_are_read() {
        assert_eq!(order("count(*)"), ("count(*)", false));
        assert_eq!(order("count(*) DESC"), ("count(*)", true));
        assert_eq!(order(" p99(ms)  asc "), ("p99(ms)", false));
    }
}
