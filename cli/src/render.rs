//! Answers as text: a table for people, CSV and NDJSON for programs.
//!
//! A table never lets a value reach the terminal raw: control characters are written as escapes, long values are cut.
//! CSV and NDJSON are exact.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

/// A value in a table is cut at this width.
const CELL_WIDTH_MAX: usize = 200;
/// Digits that a table shows of a fraction; whole digits are always shown.
const SIGNIFICANT_DIGITS: i32 = 6;

/// Colours for a terminal, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Plain text.
    Plain,
    /// Dimmed rules and NULLs.
    Colour,
}

/// Colours where stdout is a terminal and nobody objects.
pub(crate) fn style() -> Style {
    if io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        Style::Colour
    } else {
        Style::Plain
    }
}

/// A table being made: names, which columns are aligned right, and the text of every cell.
#[derive(Debug)]
pub(crate) struct Table {
    names: Vec<String>,
    right: Vec<bool>,
    widths: Vec<usize>,
    cells: Vec<Vec<Cell>>,
}

#[derive(Debug)]
struct Cell {
    text: String,
    width: usize,
    null: bool,
}

impl Cell {
    fn new(text: String, null: bool) -> Cell {
        Cell { width: width(&text), text, null }
    }
}

impl Table {
    /// A table with these columns; `true` for a column of numbers.
    pub(crate) fn new(columns: impl IntoIterator<Item = (String, bool)>) -> Table {
        let (names, right): (Vec<String>, Vec<bool>) =
            columns.into_iter().map(|(name, right)| (cell_text(&name), right)).unzip();
        let widths = names.iter().map(|name| width(name)).collect();
        Table { names, right, widths, cells: Vec::new() }
    }

    /// Adds a row of JSON values. Values that are missing are NULL.
    pub(crate) fn row(&mut self, values: &[Value]) {
        let cells = (0..self.names.len()).map(|column| match values.get(column) {
            None | Some(Value::Null) => Cell::new("∅".to_owned(), true),
            Some(value) => Cell::new(cell_text(&table_text(value)), false),
        });
        self.add(cells.collect());
    }

    /// Adds a row of ready text.
    pub(crate) fn text_row(&mut self, texts: impl IntoIterator<Item = String>) {
        self.add(texts.into_iter().map(|text| Cell::new(cell_text(&text), false)).collect());
    }

    fn add(&mut self, cells: Vec<Cell>) {
        for (known, cell) in self.widths.iter_mut().zip(&cells) {
            *known = (*known).max(cell.width);
        }
        self.cells.push(cells);
    }

    /// Writes it.
    pub(crate) fn write(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let (dim, plain) = match style {
            Style::Colour => ("\u{1b}[2m", "\u{1b}[0m"),
            Style::Plain => ("", ""),
        };
        let bar = format!(" {dim}│{plain} ");
        let mut line = String::new();
        for (column, name) in self.names.iter().enumerate() {
            line.push_str(if column == 0 { " " } else { &bar });
            self.pad(&mut line, column, name, width(name));
        }
        writeln!(out, "{}", line.trim_end())?;
        let rules: Vec<String> = self.widths.iter().map(|width| "─".repeat(width + 2)).collect();
        writeln!(out, "{dim}{}{plain}", rules.join("┼"))?;
        for cells in &self.cells {
            line.clear();
            for (column, cell) in cells.iter().enumerate() {
                line.push_str(if column == 0 { " " } else { &bar });
                if cell.null && style == Style::Colour {
                    self.pad(&mut line, column, &format!("{dim}{}{plain}", cell.text), cell.width);
                } else {
                    self.pad(&mut line, column, &cell.text, cell.width);
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn pad(&self, line: &mut String, column: usize, text: &str, text_width: usize) {
        let space = self.widths[column].saturating_sub(text_width);
        if self.right[column] {
            line.extend(std::iter::repeat_n(' ', space));
            line.push_str(text);
        } else {
            line.push_str(text);
            line.extend(std::iter::repeat_n(' ', space));
        }
    }
}

/// A value as a table shows it: floats rounded, lists in brackets.
fn table_text(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map_or_else(|| number.to_string(), rounded)
        }
        other => plain_text(other),
    }
}

/// A value as text without loss.
fn plain_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain_text).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// Six significant digits, without trailing zeros.
fn rounded(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-5..1e15).contains(&magnitude) {
        let text = format!("{value:.5e}");
        return match text.split_once('e') {
            Some((digits, exponent)) => format!("{}e{exponent}", trim_zeros(digits)),
            None => text,
        };
    }
    let whole_digits = if magnitude < 1.0 { 0 } else { magnitude.log10().floor() as i32 + 1 };
    let decimals = (SIGNIFICANT_DIGITS - whole_digits).clamp(0, 10) as usize;
    trim_zeros(&format!("{value:.decimals$}")).to_owned()
}

fn trim_zeros(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

/// Text that takes one line of a terminal, and not too much of it.
fn cell_text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(CELL_WIDTH_MAX + 8));
    let mut taken = 0;
    for c in text.chars() {
        if taken >= CELL_WIDTH_MAX {
            shown.push('…');
            break;
        }
        if c.is_control() || is_direction(c) {
            let escaped: String = c.escape_default().collect();
            taken += escaped.len();
            shown.push_str(&escaped);
        } else {
            taken += char_width(c);
            shown.push(c);
        }
    }
    shown
}

/// Marks that turn the direction of the text around them, which would garble a table.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Cells of a terminal that a character takes: 0 for combining marks, 2 for East Asian and emoji, else 1.
fn char_width(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036f | 0x200b..=0x200d | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f680..=0x1f6ff
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Writes CSV with a header line (RFC 4180, line ends LF). NULL is an empty field, an empty string is `""`.
pub(crate) fn write_csv<'a>(
    out: &mut dyn Write,
    names: impl IntoIterator<Item = &'a str>,
    rows: &[Vec<Value>],
) -> io::Result<()> {
    let mut line = String::new();
    for (index, name) in names.into_iter().enumerate() {
        if index > 0 {
            line.push(',');
        }
        push_csv(&mut line, name);
    }
    writeln!(out, "{line}")?;
    for row in rows {
        line.clear();
        for (index, value) in row.iter().enumerate() {
            if index > 0 {
                line.push(',');
            }
            match value {
                Value::Null => {}
                Value::Array(_) | Value::Object(_) => push_csv(&mut line, &value.to_string()),
                other => push_csv(&mut line, &plain_text(other)),
            }
        }
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn push_csv(line: &mut String, text: &str) {
    if text.is_empty()
        || text.contains([',', '"', '\n', '\r'])
        || text.starts_with(' ')
        || text.ends_with(' ')
    {
        line.push('"');
        line.push_str(&text.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(text);
    }
}

/// Writes one JSON object a line.
pub(crate) fn write_ndjson<'a>(
    out: &mut dyn Write,
    names: impl IntoIterator<Item = &'a str>,
    rows: &[Vec<Value>],
) -> io::Result<()> {
    let names: Vec<String> = names.into_iter().map(|name| Value::from(name).to_string()).collect();
    for row in rows {
        let mut line = String::from("{");
        for (index, (name, value)) in names.iter().zip(row).enumerate() {
            if index > 0 {
                line.push(',');
            }
            line.push_str(name);
            line.push(':');
            line.push_str(&value.to_string());
        }
        line.push('}');
        writeln!(out, "{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(value: Value) -> Vec<Vec<Value>> {
        serde_json::from_value(value).unwrap()
    }

    fn check(columns: &[(&str, bool)], values: Value, expect: &str) {
        let mut table = Table::new(columns.iter().map(|(name, right)| ((*name).to_owned(), *right)));
        for row in rows(values) {
            table.row(&row);
        }
        let mut out = Vec::new();
        table.write(&mut out, Style::Plain).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn a_table_is_aligned() {
        check(
            &[("region", false), ("count", true), ("p99", true)],
            json!([["eu", 18_204_118, 412.5], ["äß東", null, 1e-9]]),
            " region │    count │   p99\n\
             ────────┼──────────┼───────\n \
             eu     │ 18204118 │ 412.5\n \
             äß東   │        ∅ │  1e-9\n",
        );
        check(&[("n", true)], json!([]), " n\n───\n");
    }

    #[test]
    fn values_cannot_garble_the_terminal() {
        check(
            &[("s", false)],
            json!([["a\u{1b}[31m\nb"], ["x\u{202e}y"], [["p", "q"]]]),
            " s\n\
             ────────────────\n \
             a\\u{1b}[31m\\nb\n \
             x\\u{202e}y\n \
             [p, q]\n",
        );
        let long = cell_text(&"x".repeat(10_000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (CELL_WIDTH_MAX + 1, true));
    }

    #[test]
    fn floats_are_rounded_in_tables_only() {
        let check = |value: f64, text: &str| assert_eq!(rounded(value), text, "{value:?}");
        check(0.0, "0");
        check(87.329_182_736_45, "87.3292");
        check(0.333_333_333_3, "0.333333");
        check(1_234_567.891, "1234568");
        check(-2.5, "-2.5");
        check(1e15, "1e15");
        check(1.5e-7, "1.5e-7");
        check(100.0, "100");
        check(999_999.96, "1000000");
        let mut out = Vec::new();
        write_csv(&mut out, ["v"], &rows(json!([[87.329_182_736_45]]))).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "v\n87.32918273645\n");
    }

    #[test]
    fn csv_and_ndjson_are_exact() {
        let values = rows(json!([["a,b", null, ["x", "y\""]], ["", 1, "say \"hi\"\n"]]));
        let mut out = Vec::new();
        write_csv(&mut out, ["s", "n", "l,"], &values).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "s,n,\"l,\"\n\"a,b\",,\"[\"\"x\"\",\"\"y\\\"\"\"\"]\"\n\"\",1,\"say \"\"hi\"\"\n\"\n"
        );
        let mut out = Vec::new();
        write_ndjson(&mut out, ["s", "n", "n"], &values).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"s\":\"a,b\",\"n\":null,\"n\":[\"x\",\"y\\\"\"]}\n{\"s\":\"\",\"n\":1,\"n\":\"say \\\"hi\\\"\\n\"}\n"
        );
    }
}
