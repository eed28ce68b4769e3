//! Lines over time: braille dots, two by four in a cell; in ASCII one mark a series and cell.
//!
//! Series are told apart by colour where there is colour, and always by a letter at their end.

use crate::charts::numbers::short;
use crate::colours::OF_SERIES;
use crate::render::{Style, width};

/// Marks of series in ASCII.
const MARKS: [char; 6] = ['*', 'o', '+', 'x', '#', '@'];

/// A line.
#[derive(Debug, Clone)]
pub(crate) struct Line<'a> {
    /// A value a bucket.
    pub(crate) values: &'a [Option<f64>],
    /// What stands at its end.
    pub(crate) letter: Option<char>,
    /// How it is drawn.
    pub(crate) stroke: Stroke,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stroke {
    /// In the colour of this number.
    Full(usize),
    /// Dotted and dim: another time.
    Dotted,
}

/// The size of a chart and what it is beside its lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    /// Cells from the left of the labels to the right end.
    pub(crate) width: usize,
    /// Lines without the axis of time.
    pub(crate) height: usize,
    /// The last bucket is still filling: the way to it is dotted.
    pub(crate) last_is_filling: bool,
    /// What the screen can show.
    pub(crate) style: Style,
}

/// What a cell holds.
#[derive(Clone, Copy, Default)]
struct Cell {
    dots: u8,
    mark: Option<char>,
    stroke: Option<Stroke>,
}

/// The lines of text, and how many cells the labels on their left take.
pub(crate) fn draw(lines: &[Line<'_>], frame: Frame) -> (Vec<String>, usize) {
    let values =
        || lines.iter().flat_map(|line| line.values.iter().flatten().copied()).filter(|v| v.is_finite());
    let low = values().fold(0.0, f64::min);
    let high = values().fold(low, f64::max);
    let high = if high > low { high } else { low + 1.0 };
    let labels = [short(high), short((high + low) / 2.0), short(low)];
    let label_of = |row: usize| match row {
        0 => Some(&labels[0]),
        row if row + 1 == frame.height => Some(&labels[2]),
        row if frame.height % 2 == 1 && row == frame.height / 2 => Some(&labels[1]),
        _ => None,
    };
    let label_width = (0..frame.height).filter_map(label_of).map(|label| width(label)).max().unwrap_or(0);
    let letters = lines.iter().any(|line| line.letter.is_some());
    let cells_wide = frame.width.saturating_sub(label_width + 2 + usize::from(letters) * 2).max(2);
    let mut canvas =
        Canvas { cells: vec![Cell::default(); cells_wide * frame.height], width: cells_wide, frame };
    for line in lines.iter().rev() {
        canvas.line(line, low, high);
    }
    let ends = if letters { ends(lines, low, high, frame.height) } else { vec![None; frame.height] };
    let axis = if frame.style.unicode { "┤" } else { "|" };
    let text = (0..frame.height).map(|row| {
        let label = label_of(row).map_or("", String::as_str);
        let mut text = format!("{label:>label_width$} {}", frame.style.dim(axis));
        text.push_str(&canvas.row(row));
        if let Some((letter, stroke)) = ends[row] {
            text.push(' ');
            text.push_str(&coloured(&letter.to_string(), stroke, frame.style));
        }
        text.trim_end().to_owned()
    });
    (text.collect(), label_width + 2)
}

/// The letters at the ends: beside the last value, or in the nearest row that is free.
fn ends(lines: &[Line<'_>], low: f64, high: f64, height: usize) -> Vec<Option<(char, Stroke)>> {
    let mut rows = vec![None; height];
    for line in lines {
        let last = line.values.iter().rev().flatten().find(|value| value.is_finite());
        let (Some(letter), Some(last)) = (line.letter, last) else { continue };
        let wanted = ((high - last) / (high - low) * (height - 1) as f64).round() as usize;
        let free = (0..height).filter(|row| rows[*row].is_none()).min_by_key(|row| row.abs_diff(wanted));
        if let Some(row) = free {
            rows[row] = Some((letter, line.stroke));
        }
    }
    rows
}

fn coloured(text: &str, stroke: Stroke, style: Style) -> String {
    match stroke {
        Stroke::Full(number) if style.colour => OF_SERIES[number % OF_SERIES.len()].paint(text),
        Stroke::Full(_) => text.to_owned(),
        Stroke::Dotted => style.dim(text),
    }
}

struct Canvas {
    cells: Vec<Cell>,
    width: usize,
    frame: Frame,
}

impl Canvas {
    fn line(&mut self, line: &Line<'_>, low: f64, high: f64) {
        let (dots_wide, dots_high) = self.dots();
        let count = line.values.len();
        let place = |index: usize| {
            let value = line.values[index].filter(|value| value.is_finite())?;
            let x = if count > 1 { index as f64 / (count - 1) as f64 } else { 0.0 };
            let y = (high - value) / (high - low);
            Some((x * (dots_wide - 1) as f64, y * (dots_high - 1) as f64))
        };
        for index in 0..count {
            let Some(to) = place(index) else { continue };
            let from = index.checked_sub(1).and_then(place).unwrap_or(to);
            let is_last = index + 1 == count && self.frame.last_is_filling;
            let every = match line.stroke {
                Stroke::Dotted => 3,
                Stroke::Full(_) if is_last => 2,
                Stroke::Full(_) => 1,
            };
            let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil().max(1.0) as usize;
            for step in 0..=steps {
                let share = step as f64 / steps as f64;
                let x = (from.0 + (to.0 - from.0) * share).round() as usize;
                let y = (from.1 + (to.1 - from.1) * share).round() as usize;
                // A pattern by place, so that it does not depend on where buckets begin.
                if (x + y).is_multiple_of(every) {
                    self.dot(x, y, line.stroke);
                }
            }
        }
    }

    fn dots(&self) -> (usize, usize) {
        if self.frame.style.unicode {
            (self.width * 2, self.frame.height * 4)
        } else {
            (self.width, self.frame.height)
        }
    }

    fn dot(&mut self, x: usize, y: usize, stroke: Stroke) {
        let unicode = self.frame.style.unicode;
        let (column, row) = if unicode { (x / 2, y / 4) } else { (x, y) };
        let Some(cell) = self.cells.get_mut(row * self.width + column) else { return };
        // Bits of a braille sign: 1, 2, 3, 7 down the left side, 4, 5, 6, 8 down the right.
        const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
        if unicode {
            cell.dots |= BITS[x % 2][y % 4];
        }
        cell.mark = Some(match stroke {
            Stroke::Full(number) => MARKS[number % MARKS.len()],
            Stroke::Dotted => '.',
        });
        cell.stroke = Some(stroke);
    }

    fn row(&self, row: usize) -> String {
        let style = self.frame.style;
        let mut text = String::new();
        let cells = &self.cells[row * self.width..(row + 1) * self.width];
        let mut start = 0;
        // Runs of one colour get one pair of codes.
        while start < cells.len() {
            let stroke = cells[start].stroke;
            let length = cells[start..].iter().take_while(|cell| cell.stroke == stroke).count();
            let run: String = cells[start..start + length]
                .iter()
                .map(|cell| match cell.mark {
                    None => ' ',
                    Some(mark) if !style.unicode => mark,
                    Some(_) => char::from_u32(0x2800 + u32::from(cell.dots)).unwrap_or(' '),
                })
                .collect();
            text.push_str(&stroke.map_or(run.clone(), |stroke| coloured(&run, stroke, style)));
            start += length;
        }
        text
    }
}

/// The axis of time: a rule with ticks, and the labels below them. `labels` are places from 0 to 1 with their text.
pub(crate) fn axis(labels: &[(f64, String)], indent: usize, total: usize, style: Style) -> [String; 2] {
    let space = total.saturating_sub(indent);
    let (corner, rule, tick) = if style.unicode { ("└", '─', '┴') } else { ("+", '-', '+') };
    let mut rules: Vec<char> = vec![rule; space];
    let mut below: Vec<char> = vec![' '; total];
    let mut free = 0;
    for (place, label) in labels {
        let at = (place.clamp(0.0, 1.0) * space.saturating_sub(1) as f64).round() as usize;
        let length = width(label);
        // Labels begin below their tick; the last ones end at the right.
        let start = (indent + at).min(total.saturating_sub(length));
        if start < free || start + length > total {
            continue;
        }
        if let Some(place) = rules.get_mut(at) {
            *place = tick;
        }
        for (offset, c) in label.chars().enumerate() {
            below[start + offset] = c;
        }
        free = start + length + 2;
    }
    let rules: String = rules.into_iter().collect();
    let line = format!("{}{}", " ".repeat(indent.saturating_sub(1)), style.dim(&format!("{corner}{rules}")));
    [line, below.into_iter().collect::<String>().trim_end().to_owned()]
}

/// A line below a chart with a mark at each of these places from 0 to 1.
pub(crate) fn marks(places: &[f64], indent: usize, total: usize, mark: char) -> String {
    let mut line = vec![' '; total];
    let space = total.saturating_sub(indent);
    for place in places {
        let at = (place.clamp(0.0, 1.0) * space.saturating_sub(1) as f64).round() as usize;
        if let Some(cell) = line.get_mut(indent + at) {
            *cell = mark;
        }
    }
    line.into_iter().collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(values: &[f64]) -> Vec<Option<f64>> {
        values.iter().map(|value| Some(*value)).collect()
    }

    fn check(lines: &[Line<'_>], frame: Frame, expect: &[&str]) {
        assert_eq!(draw(lines, frame).0, expect);
    }

    fn frame(width: usize, height: usize) -> Frame {
        Frame { width, height, last_is_filling: false, style: Style::PLAIN }
    }

    fn full(values: &[Option<f64>]) -> Line<'_> {
        Line { values, letter: None, stroke: Stroke::Full(0) }
    }

    #[test]
    fn a_line_is_drawn() {
        let values = some(&[0.0, 1.0, 2.0, 3.0, 2.0, 1.0, 0.0]);
        check(&[full(&values)], frame(10, 3), &["  3 ┤ ⢀⠾⡀", "1.5 ┤ ⡜ ⠣⡀", "  0 ┤⡜   ⢣"]);
        let ascii = Frame { style: Style { unicode: false, ..Style::PLAIN }, ..frame(12, 3) };
        check(&[full(&values)], ascii, &["  3 |   *", "1.5 | ** **", "  0 |*     *"]);
    }

    #[test]
    fn gaps_and_odd_values_are_left_out() {
        let values = [Some(1.0), None, Some(f64::NAN), Some(1.0), Some(1.0)];
        let ascii = Frame { style: Style { unicode: false, ..Style::PLAIN }, ..frame(8, 1) };
        check(&[full(&values)], ascii, &["1 |*  **"]);
        check(&[full(&[])], frame(8, 2), &["1 ┤", "0 ┤"]);
        let one = some(&[5.0]);
        check(&[full(&one)], frame(8, 2), &["5 ┤⠁", "0 ┤"]);
    }

    #[test]
    fn ends_have_letters() {
        let (low, high) = (some(&[1.0, 1.0]), some(&[2.0, 2.0]));
        let lines = [
            Line { values: &low, letter: Some('a'), stroke: Stroke::Full(0) },
            Line { values: &high, letter: Some('b'), stroke: Stroke::Full(1) },
        ];
        let ascii = Frame { style: Style { unicode: false, ..Style::PLAIN }, ..frame(10, 3) };
        check(&lines, ascii, &["2 |ooooo b", "1 |***** a", "0 |"]);
    }

    #[test]
    fn another_time_and_the_filling_bucket_are_dotted() {
        let values = some(&[1.0, 1.0, 1.0]);
        let ascii = Frame { style: Style { unicode: false, ..Style::PLAIN }, ..frame(15, 1) };
        let dotted = Line { values: &values, letter: None, stroke: Stroke::Dotted };
        check(&[dotted], ascii, &["1 |.  .  .  ."]);
        check(&[full(&values)], Frame { last_is_filling: true, ..ascii }, &["1 |******* * *"]);
    }

    #[test]
    fn places_are_marked() {
        assert_eq!(marks(&[0.0, 0.5, 1.0, 7.0], 2, 11, '!'), "  !   !   !");
        assert_eq!(marks(&[], 2, 11, '!'), "");
    }

    #[test]
    fn labels_of_time_do_not_overlap() {
        let label = |place: f64, text: &str| (place, text.to_owned());
        let labels = [label(0.0, "12:00"), label(0.1, "12:05"), label(0.5, "12:30"), label(1.0, "13:00")];
        assert_eq!(
            axis(&labels, 3, 33, Style::PLAIN),
            ["  └┴──────────────┴─────────────┴", "   12:00          12:30     13:00"]
        );
    }
}
