//! How different columns are: shares of values on both sides, and a score that ranks columns.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use gannet_client::Answer;

use crate::charts::numbers::short;
use crate::diff::question::{By, Question};
use crate::outcome::Failure;

/// Both sides, and the columns with the most different first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Difference {
    /// Events that are selected.
    pub(crate) selected: f64,
    /// Events they are compared with.
    pub(crate) rest: f64,
    /// The columns.
    pub(crate) columns: Vec<Column>,
}

/// A column with its values, the most different first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: String,
    /// From 0, the same on both sides, to 1, nothing in common.
    pub(crate) score: f64,
    /// The values.
    pub(crate) values: Vec<Value>,
}

/// A value, and its share on both sides.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Value {
    /// As text; `None` is NULL, which is a value as well.
    pub(crate) text: Option<String>,
    /// Share of the selected events.
    pub(crate) selected: f64,
    /// Share of the others.
    pub(crate) rest: f64,
}

impl Value {
    /// How much more often it is among the selected.
    pub(crate) fn difference(&self) -> f64 {
        self.selected - self.rest
    }
}

/// Counts of a value on both sides.
struct Counted {
    text: Option<String>,
    selected: f64,
    rest: f64,
}

/// Reads the answer.
pub(crate) fn read(question: &Question, answer: &Answer) -> Result<Difference, Failure> {
    let wrong = |error: arrow::error::ArrowError| Failure::failed(format!("read the answer: {error}"));
    let (mut selected, mut rest) = (0.0, 0.0);
    let mut counted: Vec<Vec<Counted>> = question.columns.iter().map(|_| Vec::new()).collect();
    for batch in &answer.batches {
        if batch.num_columns() != 4 {
            let found = batch.num_columns();
            return Err(Failure::failed(format!("the answer has {found} columns, and 4 were asked for")));
        }
        let places = cast(batch.column(0), &DataType::Int64).map_err(wrong)?;
        let texts = cast(batch.column(1), &DataType::Utf8).map_err(wrong)?;
        let sides = [cast(batch.column(2), &DataType::Float64), cast(batch.column(3), &DataType::Float64)];
        let [of_selected, of_rest] = sides.map(|side| side.map_err(wrong));
        let (of_selected, of_rest) = (of_selected?, of_rest?);
        for row in 0..batch.num_rows() {
            let count = |side: &arrow::array::ArrayRef| {
                let side = side.as_primitive::<Float64Type>();
                if side.is_valid(row) { side.value(row) } else { 0.0 }
            };
            let texts = texts.as_string::<i32>();
            let text = texts.is_valid(row).then(|| texts.value(row).to_owned());
            let count = Counted { text, selected: count(&of_selected), rest: count(&of_rest) };
            match usize::try_from(places.as_primitive::<Int64Type>().value(row)) {
                Err(_) => (selected, rest) = (count.selected, count.rest),
                Ok(place) => {
                    if let Some(column) = counted.get_mut(place) {
                        column.push(count);
                    }
                }
            }
        }
    }
    let named = question.columns.iter().zip(counted);
    let mut columns: Vec<Column> = named
        .filter_map(|(compared, counted)| column(&compared.name, compared.by, counted, selected, rest))
        .collect();
    columns.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.name.cmp(&b.name)));
    Ok(Difference { selected, rest, columns })
}

/// Shares and score of a column; none where it has a value for nobody.
fn column(name: &str, by: By, counted: Vec<Counted>, selected: f64, rest: f64) -> Option<Column> {
    let share = |part: f64, all: f64| if all > 0.0 { part / all } else { 0.0 };
    let mut values: Vec<Value> = counted
        .into_iter()
        .map(|count| Value {
            text: count.text.map(|text| if by == By::Octave { octave(&text) } else { text }),
            selected: share(count.selected, selected),
            rest: share(count.rest, rest),
        })
        .filter(|value| value.selected > 0.0 || value.rest > 0.0)
        .collect();
    if values.iter().all(|value| value.text.is_none()) {
        return None;
    }
    values.sort_by(|a, b| {
        let by_size = b.difference().abs().total_cmp(&a.difference().abs());
        by_size.then_with(|| a.text.cmp(&b.text))
    });
    // Values that are not among the counted ones say nothing, so what they take away lowers the score.
    let known: f64 = values.iter().map(|value| value.selected).sum::<f64>().min(1.0);
    let largest = values.first().map_or(0.0, |value| value.difference().abs());
    Some(Column { name: name.to_owned(), score: largest * known, values })
}

/// `64 to 128` for the octave 6.
fn octave(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(octave) if octave <= -10_000.0 => "below 0".to_owned(),
        Ok(octave) if octave <= -9_999.0 => "0".to_owned(),
        Ok(octave) => format!("{} to {}", short(octave.exp2()), short((octave + 1.0).exp2())),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(values: &[(&str, f64, f64)]) -> Vec<Counted> {
        let one = |(text, selected, rest): &(&str, f64, f64)| Counted {
            text: (!text.is_empty()).then(|| (*text).to_owned()),
            selected: *selected,
            rest: *rest,
        };
        values.iter().map(one).collect()
    }

    /// A value and how different it is.
    type Different = (Option<&'static str>, f64);

    fn check(values: &[(&str, f64, f64)], expect: Option<(f64, &[Different])>) {
        let found = column("c", By::Value, counted(values), 100.0, 1000.0);
        let found = found.map(|column| {
            let values = column.values.iter().map(|value| (value.text.clone(), value.difference()));
            (column.score, values.collect::<Vec<_>>())
        });
        let expect = expect.map(|(score, values)| {
            let values = values.iter().map(|(text, share)| (text.map(str::to_owned), *share));
            (score, values.collect::<Vec<_>>())
        });
        assert_eq!(found, expect);
    }

    #[test]
    fn the_largest_difference_scores() {
        check(
            &[("a", 50.0, 500.0), ("b", 50.0, 250.0), ("", 0.0, 250.0)],
            Some((0.25, &[(None, -0.25), (Some("b"), 0.25), (Some("a"), 0.0)])),
        );
        // Half of the selected rows have values that were not counted.
        check(&[("a", 50.0, 0.0)], Some((0.25, &[(Some("a"), 0.5)])));
        check(&[("", 100.0, 1000.0)], None);
        check(&[], None);
    }

    #[test]
    fn octaves_have_edges() {
        assert_eq!(
            ["6", "-1", "-9999", "-10000", "x"].map(octave),
            ["64 to 128", "0.5 to 1", "0", "below 0", "x"]
        );
    }
}
