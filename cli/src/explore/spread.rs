//! The other views: numbers by group with bars, and how values are spread over time.

use std::io::{self, Write};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampNanosecondType};
use gannet_client::Answer;

use crate::cells::{Cells, is_number};
use crate::charts::bars::bar;
use crate::charts::heat;
use crate::charts::lines::axis;
use crate::charts::numbers::{change, full, short};
use crate::explore::question::{BIN_NEGATIVE, BIN_ZERO, BINS_PER_OCTAVE, Question, values_of};
use crate::explore::screen::Screen;
use crate::explore::series::bucket_count;
use crate::explore::span::span_text;
use crate::outcome::Failure;
use crate::render::{Style, Table, cell_text, fold};

/// Lines of a heatmap.
const MAP_ROWS_MAX: usize = 14;

impl Screen {
    /// Numbers by group.
    pub(crate) fn table(
        &self,
        out: &mut dyn Write,
        question: &Question,
        answer: &Answer,
    ) -> Result<(), Failure> {
        writeln!(out, "{}", self.heading(question, false))?;
        let sides = if question.compare.is_some() { 2 } else { 1 };
        let keys = question.group_by.len();
        let (found, asked) = (answer.schema.fields().len(), keys + question.show.len() * sides);
        if found != asked {
            return Err(Failure::failed(format!(
                "the answer has {found} columns, and {asked} were asked for"
            )));
        }
        let first_is_number =
            answer.schema.fields().get(keys).is_some_and(|field| is_number(field.data_type()));
        let has_bar = first_is_number && keys > 0;
        let mut head: Vec<(String, bool)> =
            question.group_by.iter().map(|group| (group.clone(), false)).collect();
        for (place, show) in question.show.iter().enumerate() {
            let field = answer.schema.fields().get(keys + place * sides);
            head.push((show.clone(), field.is_some_and(|field| is_number(field.data_type()))));
            if let Some(offset) = question.compare {
                head.push((format!("{} ago", span_text(offset)), true));
                head.push(("change".to_owned(), true));
            }
            if place == 0 && has_bar {
                head.push((String::new(), false));
            }
        }
        let mut table = Table::new(head);
        let most = answer
            .batches
            .iter()
            .filter(|_| has_bar)
            .flat_map(|batch| numbers(batch.column(keys)))
            .flatten()
            .filter(|value| value.is_finite())
            .fold(0.0, f64::max);
        for batch in &answer.batches {
            let cells = batch.columns().iter().map(|column| Cells::new(column, self.zone));
            let cells: Vec<Cells> = cells.collect::<Result<_, _>>().map_err(unread)?;
            let values: Vec<Vec<Option<f64>>> = batch.columns().iter().map(numbers).collect();
            for row in 0..batch.num_rows() {
                table.row(self.group(question, &cells, &values, row, has_bar.then_some(most)));
            }
        }
        let left_out = table.write(out, Style { width: Some(self.width), ..self.style })?;
        if left_out.columns > 0 {
            writeln!(out, "{} more columns do not fit", left_out.columns)?;
        }
        Ok(())
    }

    /// The texts of a group; `most` is what the longest bar stands for.
    fn group(
        &self,
        question: &Question,
        cells: &[Cells],
        values: &[Vec<Option<f64>>],
        row: usize,
        most: Option<f64>,
    ) -> Vec<Option<String>> {
        let (keys, sides) = (question.group_by.len(), if question.compare.is_some() { 2 } else { 1 });
        let mut texts: Vec<Option<String>> = cells[..keys].iter().map(|cells| cells.text(row)).collect();
        for place in 0..question.show.len() {
            let column = keys + place * sides;
            texts.push(text(&cells[column], &values[column], row));
            if sides == 2 {
                texts.push(text(&cells[column + 1], &values[column + 1], row));
                texts.push(match (values[column][row], values[column + 1][row]) {
                    (Some(now), Some(before)) => Some(change(now, before)),
                    (Some(_), None) => Some("new".to_owned()),
                    (None, Some(_)) => Some("gone".to_owned()),
                    (None, None) => None,
                });
            }
            if let (0, Some(most)) = (place, most) {
                let share = values[column][row].unwrap_or(0.0) / if most > 0.0 { most } else { 1.0 };
                texts.push(Some(bar(share, if self.width < 80 { 8 } else { 20 }, self.style.unicode)));
            }
        }
        texts
    }

    /// How values are spread, over time and in all.
    pub(crate) fn distribution(
        &self,
        out: &mut dyn Write,
        question: &Question,
        answer: &Answer,
    ) -> Result<(), Failure> {
        writeln!(out, "{}", self.heading(question, true))?;
        let show = question.show.first().map_or("", |show| values_of(show));
        let spread = Spread::read(question, answer)?;
        if spread.cells.is_empty() {
            writeln!(out, "no rows with a value of {}", cell_text(show))?;
            return Ok(());
        }
        let rows = spread.rows();
        let buckets = bucket_count(question);
        let map: Vec<(String, Vec<f64>)> =
            rows.iter().map(|row| (short(row.from), row.over_time(&spread, buckets))).collect();
        writeln!(out)?;
        writeln!(out, "{}", cell_text(show))?;
        let labels = map.iter().map(|(label, _)| label.len()).max().unwrap_or(0) + 2;
        let cells = (self.width.saturating_sub(labels) / buckets.max(1)).clamp(1, 6);
        let (lines, indent, legend) = heat::draw(&map, cells, self.style);
        for line in lines {
            writeln!(out, "{line}")?;
        }
        let right = indent + cells * buckets;
        for line in axis(&self.ticks(question, buckets, true), indent, right, self.style) {
            writeln!(out, "{line}")?;
        }
        let legend = format!("{}{legend} events in a cell", " ".repeat(indent));
        writeln!(out, "{}", fold(&legend, self.style))?;
        writeln!(out)?;
        self.bins(out, &rows)?;
        Ok(())
    }

    fn bins(&self, out: &mut dyn Write, rows: &[Row]) -> io::Result<()> {
        let all: f64 = rows.iter().map(|row| row.count).sum();
        let most = rows.iter().map(|row| row.count).fold(0.0, f64::max);
        let head = [
            ("from", true),
            ("below", true),
            ("rows", true),
            ("share", true),
            ("up to here", true),
            ("", false),
        ];
        let mut table = Table::new(head.map(|(name, right)| (name.to_owned(), right)));
        let mut below = 0.0;
        let percent = |part: f64| percent(part, all);
        for row in rows.iter().rev() {
            below += row.count;
            let edge = |edge: f64| if edge.is_finite() { short(edge) } else { String::new() };
            table.text_row([
                edge(row.from),
                edge(row.to),
                full(row.count),
                percent(row.count),
                percent(below),
                bar(
                    row.count / if most > 0.0 { most } else { 1.0 },
                    if self.width < 80 { 8 } else { 20 },
                    self.style.unicode,
                ),
            ]);
        }
        table.write(out, Style { width: Some(self.width), ..self.style })?;
        Ok(())
    }
}

/// A share in percent, rounded down; only nothing is `0%`, and only all is `100%`.
fn percent(part: f64, all: f64) -> String {
    if part <= 0.0 {
        return "0%".to_owned();
    }
    if part >= all {
        return "100%".to_owned();
    }
    match (part / all * 1000.0).floor() / 10.0 {
        small if small < 0.1 => "<0.1%".to_owned(),
        share => format!("{share:.1}%"),
    }
}

/// A number of a table: whole ones with separators.
fn text(cells: &Cells, values: &[Option<f64>], row: usize) -> Option<String> {
    match values[row] {
        Some(value) if !cells.is_null(row) => Some(full(value)),
        _ => cells.text(row),
    }
}

/// The values of a column as numbers; all are missing where it has none.
fn numbers(column: &ArrayRef) -> Vec<Option<f64>> {
    let numbers = is_number(column.data_type()).then(|| cast(column, &DataType::Float64).ok()).flatten();
    match numbers {
        Some(numbers) => numbers.as_primitive::<Float64Type>().iter().collect(),
        None => vec![None; column.len()],
    }
}

fn unread(error: arrow::error::ArrowError) -> Failure {
    Failure::failed(format!("read the answer: {error}"))
}

/// Counts by bucket and bin.
struct Spread {
    cells: Vec<(usize, i64, f64)>,
}

/// A line of a heatmap: some bins, and how many values they hold.
#[derive(Debug, PartialEq)]
struct Row {
    bins: std::ops::RangeInclusive<i64>,
    from: f64,
    to: f64,
    count: f64,
}

impl Spread {
    fn read(question: &Question, answer: &Answer) -> Result<Spread, Failure> {
        let mut cells = Vec::new();
        for batch in &answer.batches {
            if batch.num_columns() != 3 {
                let found = batch.num_columns();
                return Err(Failure::failed(format!("the answer has {found} columns, and 3 were asked for")));
            }
            let times =
                cast(batch.column(0), &DataType::Timestamp(TimeUnit::Nanosecond, None)).map_err(unread)?;
            let bins = cast(batch.column(1), &DataType::Int64).map_err(unread)?;
            let counts = cast(batch.column(2), &DataType::Float64).map_err(unread)?;
            let (times, bins, counts) = (
                times.as_primitive::<TimestampNanosecondType>(),
                bins.as_primitive::<Int64Type>(),
                counts.as_primitive::<Float64Type>(),
            );
            for row in 0..batch.num_rows() {
                let bucket = (times.value(row) - question.from).div_euclid(question.every);
                let is_whole = times.is_valid(row) && bins.is_valid(row) && counts.is_valid(row);
                if let (true, Ok(bucket)) = (is_whole, usize::try_from(bucket)) {
                    cells.push((bucket, bins.value(row), counts.value(row)));
                }
            }
        }
        Ok(Spread { cells })
    }

    /// The lines from the top: as fine as they fit, zero and what is below it last.
    fn rows(&self) -> Vec<Row> {
        let positive = || self.cells.iter().map(|cell| cell.1).filter(|bin| *bin > BIN_ZERO);
        let mut rows = Vec::new();
        if let (Some(low), Some(high)) = (positive().min(), positive().max()) {
            let bins = usize::try_from(high - low + 1).unwrap_or(usize::MAX);
            let each = i64::try_from(bins.div_ceil(MAP_ROWS_MAX)).unwrap_or(i64::MAX);
            // Whole octaves where they are merged, so that edges are doubles of each other.
            let low = low.div_euclid(each) * each;
            let mut from = low + (high - low) / each * each;
            while from >= low {
                let edge = |bin: i64| (bin as f64 / BINS_PER_OCTAVE).exp2();
                rows.push(self.row(from..=from + each - 1, edge(from), edge(from + each)));
                from -= each;
            }
        }
        for (bin, from, to) in [(BIN_ZERO, 0.0, f64::NAN), (BIN_NEGATIVE, f64::NEG_INFINITY, 0.0)] {
            if self.cells.iter().any(|cell| cell.1 == bin) {
                rows.push(self.row(bin..=bin, from, to));
            }
        }
        rows
    }

    fn row(&self, bins: std::ops::RangeInclusive<i64>, from: f64, to: f64) -> Row {
        let count = self.cells.iter().filter(|cell| bins.contains(&cell.1)).map(|cell| cell.2).sum();
        Row { bins, from, to, count }
    }
}

impl Row {
    fn over_time(&self, spread: &Spread, buckets: usize) -> Vec<f64> {
        let mut counts = vec![0.0; buckets];
        for (bucket, _, count) in spread.cells.iter().filter(|cell| self.bins.contains(&cell.1)) {
            if let Some(cell) = counts.get_mut(*bucket) {
                *cell += count;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_merged_to_fit() {
        let spread =
            Spread { cells: vec![(0, 0, 1.0), (1, 4, 2.0), (1, BIN_ZERO, 5.0), (0, BIN_NEGATIVE, 7.0)] };
        let rows = spread.rows();
        assert_eq!(rows.iter().map(|row| row.count).collect::<Vec<_>>(), [2.0, 0.0, 0.0, 0.0, 1.0, 5.0, 7.0]);
        assert_eq!((rows[0].from, rows[4].from, rows[4].to.fract() > 0.0), (2.0, 1.0, true));
        assert_eq!(rows[0].over_time(&spread, 2), [0.0, 2.0]);
        let wide = Spread { cells: vec![(0, -40, 1.0), (0, 39, 2.0)] };
        let rows = wide.rows();
        assert!(rows.len() <= MAP_ROWS_MAX + 1, "{}", rows.len());
        assert_eq!(rows.iter().map(|row| row.count).sum::<f64>(), 3.0);
    }
}
