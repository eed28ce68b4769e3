//! Events as lines: `name=value` after the time, chosen columns below each other, or JSON.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampNanosecondType};

use super::window::Found;
use crate::cells::{Cells, write_time};
use crate::outcome::Failure;
use crate::render::{self, Style};

/// The column that every row has.
pub(super) const TIME: &str = "time";

/// A screen without room for dates.
const NARROW: usize = 60;

/// A column is not padded further than this.
const PADDED_MAX: usize = 40;

/// A row with the text that is shown of it.
#[derive(Debug)]
pub(super) struct Event {
    /// What tells it from others.
    pub(super) found: Found,
    /// Names and values, without those that are NULL.
    values: Vec<(String, Option<String>)>,
}

/// The rows of an answer that has a column of times.
pub(super) fn events(batches: &[RecordBatch]) -> Result<Vec<Event>, Failure> {
    let wrong =
        |error: &dyn std::fmt::Display| Failure::failed(format!("read the rows of the answer: {error}"));
    let mut events = Vec::new();
    for batch in batches {
        let Some(times) = batch.column_by_name(TIME) else {
            return Err(wrong(&"there is no column `time`"));
        };
        let zone = match times.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            other => return Err(wrong(&format!("column `time` is {other}"))),
        };
        let times = cast(times, &DataType::Timestamp(TimeUnit::Nanosecond, zone)).map_err(|e| wrong(&e))?;
        let times = times.as_primitive::<TimestampNanosecondType>();
        let cells = batch.columns().iter().map(|column| Cells::new(column, None));
        let cells: Vec<Cells> = cells.collect::<Result<_, _>>().map_err(|e| wrong(&e))?;
        let names: Vec<String> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        for row in 0..batch.num_rows() {
            let time = if times.is_null(row) { i64::MIN } else { times.value(row) };
            let json = json(&names, &cells, row);
            let values = names.iter().zip(&cells).map(|(name, cells)| (name.clone(), cells.text(row)));
            events.push(Event { found: Found { time, json }, values: values.collect() });
        }
    }
    Ok(events)
}

/// The row as JSON without what is NULL, so that a column that appears later changes no row that was seen.
fn json(names: &[String], cells: &[Cells], row: usize) -> String {
    let mut text = vec![b'{'];
    for (name, cells) in names.iter().zip(cells).filter(|(_, cells)| !cells.is_null(row)) {
        if text.len() > 1 {
            text.push(b',');
        }
        text.extend_from_slice(serde_json::Value::from(name.as_str()).to_string().as_bytes());
        text.push(b':');
        cells.write_json(row, &mut text);
    }
    text.push(b'}');
    String::from_utf8_lossy(&text).into_owned()
}

/// Makes lines for people; chosen columns stay where they are as far as that is possible.
#[derive(Debug)]
pub(super) struct Lines {
    style: Style,
    /// Chosen columns are shown without their names.
    is_chosen: bool,
    widths: Vec<usize>,
}

impl Lines {
    /// Lines for this screen.
    pub(super) fn new(style: Style, is_chosen: bool) -> Lines {
        Lines { style, is_chosen, widths: Vec::new() }
    }

    /// The line of an event.
    pub(super) fn line(&mut self, event: &Event) -> String {
        let mut shown = if self.is_chosen { self.aligned(event) } else { self.named(event) };
        shown.truncate(shown.trim_end().len());
        match self.style.width {
            Some(width) if render::width(&shown) > width => render::cut(&shown, width, self.style),
            _ => shown,
        }
    }

    /// The names of chosen columns above their values, to be shown before the first event.
    pub(super) fn head(&mut self, event: &Event) -> Option<String> {
        if !self.is_chosen {
            return None;
        }
        let names: Vec<(String, Option<String>)> =
            event.values.iter().map(|(name, _)| (name.clone(), Some(name.clone()))).collect();
        // The widths of the first row are known before its names are written.
        self.aligned(event);
        let head = Event { found: event.found.clone(), values: names };
        let head = self.line(&head);
        Some(self.style.dim(&head))
    }

    /// The time as it is shown: to the millisecond on a screen, and without the date on a narrow one. The names of
    /// columns have no time.
    fn time(&self, event: &Event, value: &str) -> String {
        let Some(width) = self.style.width.filter(|_| value != TIME && event.found.time != i64::MIN) else {
            return render::cell_text(value);
        };
        let (seconds, rest) =
            (event.found.time.div_euclid(1_000_000_000), event.found.time.rem_euclid(1_000_000_000));
        let mut text = Vec::new();
        write_time(seconds.saturating_mul(1_000_000_000), None, &mut text);
        let text = String::from_utf8_lossy(&text);
        let text = format!("{}.{:03}Z", text.trim_end_matches('Z'), rest / 1_000_000);
        match text.split_once('T') {
            Some((_, clock)) if width < NARROW => clock.trim_end_matches('Z').to_owned(),
            _ => text,
        }
    }

    fn aligned(&mut self, event: &Event) -> String {
        let mut line = String::new();
        self.widths.resize(event.values.len().max(self.widths.len()), 0);
        let texts: Vec<String> = event
            .values
            .iter()
            .map(|(name, value)| match value.as_deref() {
                None => self.style.null().to_owned(),
                Some(value) if name == TIME => self.time(event, value),
                Some(value) => render::cell_text(value),
            })
            .collect();
        for (text, known) in texts.iter().zip(&mut self.widths) {
            let width = render::width(text);
            *known = (*known).max(width.min(PADDED_MAX));
            line.push_str(text);
            line.extend(std::iter::repeat_n(' ', known.saturating_sub(width) + 2));
        }
        line
    }

    /// `2026-11-21T09:00:00Z  service=cart error="no such item"`.
    fn named(&self, event: &Event) -> String {
        let mut line = String::new();
        let time = event.values.iter().find(|(name, _)| name == TIME).and_then(|(_, value)| value.as_deref());
        line.push_str(&self.time(event, time.unwrap_or("")));
        line.push(' ');
        for (name, value) in event.values.iter().filter(|(name, _)| name != TIME) {
            let Some(value) = value else { continue };
            line.push(' ');
            line.push_str(&render::cell_text(name));
            line.push('=');
            let value = render::cell_text(value);
            if value.is_empty() || value.contains([' ', '"', '=']) {
                line.push_str(&format!("\"{}\"", value.replace('"', "\\\"")));
            } else {
                line.push_str(&value);
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampNanosecondArray};

    use super::*;

    fn three() -> Vec<Event> {
        let times =
            TimestampNanosecondArray::from(vec![1_795_251_600_000_000_000, 1_795_251_601_500_000_000]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            (TIME, Arc::new(times.with_timezone("+00:00"))),
            ("service", Arc::new(StringArray::from(vec![Some("cart"), Some("a b\u{1b}")]))),
            ("status", Arc::new(Int64Array::from(vec![Some(200), None]))),
        ];
        events(&[RecordBatch::try_from_iter(columns).unwrap()]).unwrap()
    }

    #[test]
    fn events_are_lines() {
        let events = three();
        let mut lines = Lines::new(Style::PLAIN, false);
        let shown: Vec<String> = events.iter().map(|event| lines.line(event)).collect();
        assert_eq!(
            shown,
            [
                "2026-11-21T09:00:00Z  service=cart status=200",
                "2026-11-21T09:00:01.500Z  service=\"a b\\u{1b}\"",
            ]
        );
        let mut narrow = Lines::new(Style { width: Some(30), ..Style::PLAIN }, false);
        assert_eq!(narrow.line(&events[0]), "09:00:00.000  service=cart st…");
        let mut wide = Lines::new(Style { width: Some(60), ..Style::PLAIN }, false);
        assert_eq!(wide.line(&events[0]), "2026-11-21T09:00:00.000Z  service=cart status=200");
        assert_eq!(
            events[1].found,
            Found {
                time: 1_795_251_601_500_000_000,
                json: "{\"time\":\"2026-11-21T09:00:01.500Z\",\"service\":\"a b\\u001b\"}".to_owned()
            }
        );
    }

    #[test]
    fn chosen_columns_are_aligned() {
        let events = three();
        let mut lines = Lines::new(Style::PLAIN, true);
        assert_eq!(lines.head(&events[0]).as_deref(), Some("time                  service  status"));
        assert_eq!(lines.line(&events[0]), "2026-11-21T09:00:00Z  cart     200");
        assert_eq!(lines.line(&events[1]), "2026-11-21T09:00:01.500Z  a b\\u{1b}  ∅");
        let mut narrow = Lines::new(Style { width: Some(40), ..Style::PLAIN }, true);
        assert_eq!(narrow.head(&events[0]).as_deref(), Some("time          service  status"));
        assert_eq!(narrow.line(&events[1]), "09:00:01.500  a b\\u{1b}  ∅");
    }
}
