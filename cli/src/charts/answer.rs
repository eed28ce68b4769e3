//! An answer as a drawing above its numbers, when it has something to draw: `--chart` and `\chart`.
//!
//! Lines need a column of times and a column of numbers; the first column of text tells series apart, else every column
//! of numbers is one. Bars need a column of numbers; whatever stands first beside it is their label.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef, TimeUnit, TimestampNanosecondType};

use super::Chart;
use super::bars::bar;
use super::lines::{Frame, Line, Stroke, axis, draw};
use super::numbers::full;
use crate::cells::{Cells, Zone, is_number};
use crate::render::{self, Style};

/// Lines of a drawing without its axis.
const HEIGHT: usize = 10;
/// Columns of a drawing where the screen does not say.
const WIDTH: usize = 80;
/// Series that can be told apart.
const SERIES_MAX: usize = 6;
/// Bars of one drawing.
const BARS_MAX: usize = 40;
/// Columns that labels of bars may take.
const LABEL_WIDTH_MAX: usize = 30;

impl Chart {
    /// What the word after `\chart` means.
    pub(crate) fn named(name: &str) -> Option<Chart> {
        Some(match name.to_ascii_lowercase().as_str() {
            "on" | "auto" => Chart::Auto,
            "line" | "lines" => Chart::Line,
            "bar" | "bars" => Chart::Bar,
            "off" | "none" => Chart::None,
            _ => return None,
        })
    }
}

/// The columns of an answer by what can be done with them.
struct Sorted {
    time: Option<usize>,
    numbers: Vec<usize>,
    others: Vec<usize>,
}

fn sorted(schema: &SchemaRef) -> Sorted {
    let mut sorted = Sorted { time: None, numbers: Vec::new(), others: Vec::new() };
    for (index, field) in schema.fields().iter().enumerate() {
        match field.data_type() {
            DataType::Timestamp(_, _) if sorted.time.is_none() => sorted.time = Some(index),
            data_type if is_number(data_type) => sorted.numbers.push(index),
            _ => sorted.others.push(index),
        }
    }
    sorted
}

/// The drawing; nothing when there is nothing to draw.
pub(crate) fn drawn(
    chart: Chart,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    zone: Zone,
    style: Style,
) -> Option<String> {
    let columns = sorted(schema);
    let lines = match (chart, columns.time) {
        (Chart::Bar, _) | (Chart::Auto, None) => bars(&columns, batches, zone, style)?,
        (Chart::Line | Chart::Auto, Some(time)) => lines(&columns, time, schema, batches, zone, style)?,
        (Chart::Line, None) | (Chart::None, _) => return None,
    };
    Some(lines.join("\n") + "\n")
}

/// The numbers of a column, as floats.
fn numbers(batch: &RecordBatch, column: usize) -> Option<Vec<Option<f64>>> {
    let values = cast(batch.columns().get(column)?, &DataType::Float64).ok()?;
    let values = values.as_primitive::<Float64Type>();
    Some(values.iter().map(|value| value.filter(|value| value.is_finite())).collect())
}

fn bars(columns: &Sorted, batches: &[RecordBatch], zone: Zone, style: Style) -> Option<Vec<String>> {
    let value = *columns.numbers.first()?;
    let label = columns.others.first().copied().or(columns.time).or(columns.numbers.get(1).copied())?;
    let mut rows: Vec<(String, f64)> = Vec::new();
    for batch in batches {
        let labels = Cells::new(batch.columns().get(label)?, zone).ok()?;
        for (row, value) in numbers(batch, value)?.into_iter().enumerate() {
            let Some(value) = value else { continue };
            let text = labels.text(row).unwrap_or_else(|| style.null().to_owned());
            rows.push((render::cut(&render::cell_text(&text), LABEL_WIDTH_MAX, style), value));
        }
    }
    let most = rows.iter().map(|(_, value)| value.abs()).fold(0.0, f64::max);
    if most == 0.0 {
        return None;
    }
    let all = rows.len();
    rows.truncate(BARS_MAX);
    let label_width = rows.iter().map(|(label, _)| render::width(label)).max().unwrap_or(0);
    let texts: Vec<String> = rows.iter().map(|(_, value)| full(*value)).collect();
    let text_width = texts.iter().map(String::len).max().unwrap_or(0);
    let space = style.width.unwrap_or(WIDTH).saturating_sub(label_width + text_width + 4).max(4);
    let mut lines: Vec<String> = rows
        .iter()
        .zip(&texts)
        .map(|((label, value), text)| {
            let gap = " ".repeat(label_width - render::width(label));
            let line = format!(
                " {label}{gap} {text:>text_width$} {}",
                bar(value.abs() / most, space, style.unicode)
            );
            line.trim_end().to_owned()
        })
        .collect();
    if all > BARS_MAX {
        lines.push(format!(" ({BARS_MAX} of {all} bars)"));
    }
    Some(lines)
}

/// One series: its name and a value a time.
struct Series {
    name: String,
    values: Vec<(i64, f64)>,
}

fn lines(
    columns: &Sorted,
    time: usize,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    zone: Zone,
    style: Style,
) -> Option<Vec<String>> {
    let mut series = series(columns, time, schema, batches, zone)?;
    series.sort_by(|a, b| sum(b).total_cmp(&sum(a)));
    let left_out = series.len().saturating_sub(SERIES_MAX);
    series.truncate(SERIES_MAX);
    let mut times: Vec<i64> =
        series.iter().flat_map(|series| series.values.iter().map(|(time, _)| *time)).collect();
    times.sort_unstable();
    times.dedup();
    let (Some(first), Some(last)) = (times.first().copied(), times.last().copied()) else { return None };
    if times.len() < 2 {
        return None;
    }
    let values: Vec<Vec<Option<f64>>> = series
        .iter()
        .map(|series| {
            let mut values = vec![None; times.len()];
            for (time, value) in &series.values {
                if let Ok(place) = times.binary_search(time) {
                    values[place] = Some(*value);
                }
            }
            values
        })
        .collect();
    let has_letters = series.len() > 1;
    let letter = |index: usize| has_letters.then(|| char::from(b'a' + index as u8));
    let drawn: Vec<Line<'_>> = values
        .iter()
        .enumerate()
        .map(|(index, values)| Line { values, letter: letter(index), stroke: Stroke::Full(index) })
        .collect();
    let width = style.width.unwrap_or(WIDTH);
    let frame = Frame { width, height: HEIGHT, last_is_filling: false, style };
    let (mut text, indent) = draw(&drawn, frame);
    let [begin, end] = ends(first, last, zone);
    let labels = [(0.0, begin), (1.0, end)];
    text.extend(axis(&labels, indent, width, style));
    if has_letters {
        let names: Vec<String> = series
            .iter()
            .enumerate()
            .map(|(index, series)| format!("{} {}", char::from(b'a' + index as u8), series.name))
            .collect();
        let more = if left_out > 0 { format!("  and {left_out} more") } else { String::new() };
        text.push(render::cut(&format!(" {}{more}", names.join("  ")), width, style));
    }
    Some(text)
}

fn sum(series: &Series) -> f64 {
    series.values.iter().map(|(_, value)| value.abs()).sum()
}

fn series(
    columns: &Sorted,
    time: usize,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    zone: Zone,
) -> Option<Vec<Series>> {
    let mut series: Vec<Series> = Vec::new();
    let mut add =
        |name: &str, time: i64, value: f64| match series.iter_mut().find(|series| series.name == name) {
            Some(known) => known.values.push((time, value)),
            None => series.push(Series { name: name.to_owned(), values: vec![(time, value)] }),
        };
    for batch in batches {
        let as_nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let times = cast(batch.columns().get(time)?, &as_nanoseconds).ok()?;
        let times = times.as_primitive::<TimestampNanosecondType>();
        let key = columns.others.first().and_then(|key| Cells::new(batch.columns().get(*key)?, zone).ok());
        let numbers_of =
            |column: &usize| Some((schema.field(*column).name().as_str(), numbers(batch, *column)?));
        let shown = if key.is_some() { 1 } else { columns.numbers.len() };
        let values: Vec<(&str, Vec<Option<f64>>)> =
            columns.numbers.iter().take(shown).map(numbers_of).collect::<Option<_>>()?;
        for row in (0..batch.num_rows()).filter(|row| times.is_valid(*row)) {
            for (name, values) in &values {
                let Some(value) = values[row] else { continue };
                match &key {
                    Some(key) => {
                        let text = key.text(row).unwrap_or_else(|| "NULL".to_owned());
                        add(&render::cell_text(&text), times.value(row), value);
                    }
                    None => add(&render::cell_text(name), times.value(row), value),
                }
            }
        }
    }
    (!series.is_empty()).then_some(series)
}

/// The times at both ends, without what they have in common.
fn ends(first: i64, last: i64, zone: Zone) -> [String; 2] {
    let texts = [time_text(first, zone), time_text(last, zone)];
    let is_one_day = texts[0].get(..10) == texts[1].get(..10);
    // `2026-11-21T09:00:00Z`: the clock, or month, day, hour and minute.
    let part = if is_one_day { 11..19 } else { 5..16 };
    texts.map(|text| text.get(part.clone()).unwrap_or(&text).replace('T', " "))
}

fn time_text(nanoseconds: i64, zone: Zone) -> String {
    let mut text = Vec::new();
    crate::cells::write_time(nanoseconds / 1_000_000_000 * 1_000_000_000, zone, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampNanosecondArray};

    use super::*;

    fn check(columns: Vec<(&str, ArrayRef)>, chart: Chart, expect: Option<&str>) {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let style = Style { width: Some(40), ..Style::PLAIN };
        let found = drawn(chart, &batch.schema(), std::slice::from_ref(&batch), None, style);
        assert_eq!(found.as_deref(), expect);
    }

    #[test]
    fn bars_have_their_numbers() {
        let services: ArrayRef = Arc::new(StringArray::from(vec![Some("feed"), Some("cart"), None]));
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![12_000, 6_000, 0]));
        let columns = vec![("service", services), ("n", counts)];
        let expect = " feed 12,000 ██████████████████████████\n cart  6,000 █████████████\n ∅         0\n";
        check(columns.clone(), Chart::Auto, Some(expect));
        check(columns, Chart::Line, None);
    }

    #[test]
    fn lines_go_over_time() {
        let minute = 60_000_000_000;
        let times: ArrayRef =
            Arc::new(TimestampNanosecondArray::from_iter_values((0..60).map(|m| m * minute)));
        let counts: ArrayRef = Arc::new(Int64Array::from_iter_values(0..60));
        let batch = RecordBatch::try_from_iter([("minute", times), ("n", counts)]).unwrap();
        let style = Style { width: Some(40), ..Style::PLAIN };
        let text = drawn(Chart::Auto, &batch.schema(), std::slice::from_ref(&batch), None, style).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), HEIGHT + 2, "{text}");
        assert!(lines[0].trim_start().starts_with("59"), "{text}");
        assert!(lines[HEIGHT + 1].contains("00:00:00") && lines[HEIGHT + 1].ends_with("00:59:00"), "{text}");
        assert_eq!(ends(0, 86_400_000_000_000, None), ["01-01 00:00", "01-02 00:00"]);
        assert!(lines.iter().all(|line| render::width(line) <= 40), "{text}");
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        check(vec![("s", texts)], Chart::Auto, None);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        check(vec![("s", Arc::new(StringArray::from(vec!["a", "b"]))), ("n", numbers)], Chart::None, None);
        assert_eq!(Chart::named("pie"), None);
        assert_eq!(Chart::named("OFF"), Some(Chart::None));
    }
}
