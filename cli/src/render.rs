//! Tables for people.
//!
//! A table never lets a value reach the terminal raw: control characters are written as escapes, long values are cut. On
//! a terminal it never gets wider than that: text is cut first, then the last columns are left out, and both is said.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use clap::ValueEnum;

/// A value in a table is cut at this width.
const CELL_WIDTH_MAX: usize = 200;
/// Columns of text are not cut below this width to make a table fit.
const SHRUNK_WIDTH_MIN: usize = 8;
/// They are cut to this width where the last columns are left out.
const READABLE_WIDTH_MAX: usize = 24;

/// How a screen can be drawn on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    /// Dimmed rules and NULLs, and more where it helps.
    pub(crate) colour: bool,
    /// Lines and blocks beyond ASCII.
    pub(crate) unicode: bool,
    /// Columns of the terminal, where there is one.
    pub(crate) width: Option<usize>,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set or TERM is `dumb`
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What `--color` said; commands without it follow the terminal.
static COLOUR: OnceLock<Colour> = OnceLock::new();

/// Takes what `--color` said, once, for everything that is drawn after.
pub(crate) fn choose_colour(colour: Colour) {
    // A second call would be a second command in one process, which there is not.
    let _ = COLOUR.set(colour);
}

/// What stdout can show.
pub(crate) fn style() -> Style {
    let is_terminal = io::stdout().is_terminal();
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let wanted = !is_set("NO_COLOR") && variable("TERM") != "dumb";
    let colour = match COLOUR.get().copied().unwrap_or(Colour::Auto) {
        Colour::Auto => is_terminal && wanted,
        Colour::Always => true,
        Colour::Never => false,
    };
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(variable).into_iter().find(|value| !value.is_empty());
    // What is piped goes to programs and files, whose encoding does not depend on where this runs.
    let unicode = !is_terminal || locale.is_some_and(|locale| is_utf8(&locale));
    let width = is_terminal.then(terminal_width).flatten();
    Style { colour, unicode, width }
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

fn is_utf8(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Columns of the terminal behind stdout.
pub(crate) fn terminal_width() -> Option<usize> {
    terminal_size::terminal_size_of(io::stdout())
        .map(|(width, _)| usize::from(width.0))
        .filter(|width| *width > 0)
}

impl Style {
    /// Plain text of any width.
    pub(crate) const PLAIN: Style = Style { colour: false, unicode: true, width: None };

    /// Text between the codes that dim it.
    pub(crate) fn dim(self, text: &str) -> String {
        if self.colour { format!("\u{1b}[2m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// What stands for NULL.
    pub(crate) fn null(self) -> &'static str {
        if self.unicode { "∅" } else { "NULL" }
    }

    fn ellipsis(self) -> char {
        if self.unicode { '…' } else { '~' }
    }
}

/// A table being made: names, which columns are aligned right, and the text of every cell.
#[derive(Debug)]
pub(crate) struct Table {
    names: Vec<String>,
    right: Vec<bool>,
    widths: Vec<usize>,
    cells: Vec<Vec<Option<Cell>>>,
}

#[derive(Debug)]
struct Cell {
    text: String,
    width: usize,
}

impl Cell {
    fn new(text: &str) -> Cell {
        let text = cell_text(text);
        Cell { width: width(&text), text }
    }
}

/// What did not fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// Columns at the end.
    pub(crate) columns: usize,
}

impl LeftOut {
    /// A line that says so, with what to do; nothing when everything fit.
    pub(crate) fn note(self, hint: &str) -> String {
        match self.columns {
            0 => String::new(),
            1 => format!("1 more column does not fit{hint}\n"),
            columns => format!("{columns} more columns do not fit{hint}\n"),
        }
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

    /// Adds a row; `None` is NULL.
    pub(crate) fn row(&mut self, texts: impl IntoIterator<Item = Option<String>>) {
        let cells: Vec<Option<Cell>> =
            texts.into_iter().map(|text| text.map(|text| Cell::new(&text))).collect();
        for (known, cell) in self.widths.iter_mut().zip(&cells) {
            *known = (*known).max(cell.as_ref().map_or(1, |cell| cell.width));
        }
        self.cells.push(cells);
    }

    /// Adds a row of ready text.
    pub(crate) fn text_row(&mut self, texts: impl IntoIterator<Item = String>) {
        self.row(texts.into_iter().map(Some));
    }

    /// How wide it is where nothing limits it.
    pub(crate) fn natural_width(&self) -> usize {
        self.widths.iter().map(|width| width + 3).sum::<usize>().saturating_sub(1)
    }

    /// Writes it, as wide as the terminal at most.
    pub(crate) fn write(&self, out: &mut dyn Write, style: Style) -> io::Result<LeftOut> {
        let widths = self.fitted(style);
        let shown = widths.len();
        let (bar, dash, cross) = if style.unicode { ("│", "─", "┼") } else { ("|", "-", "+") };
        let bar = format!(" {} ", style.dim(bar));
        let mut line = String::new();
        for (column, name) in self.names.iter().enumerate().take(shown) {
            line.push_str(if column == 0 { " " } else { &bar });
            let name = cut(name, widths[column], style);
            pad(&mut line, &name, width(&name), widths[column], self.right[column]);
        }
        writeln!(out, "{}", line.trim_end())?;
        let rules: Vec<String> = widths.iter().map(|width| dash.repeat(width + 2)).collect();
        writeln!(out, "{}", style.dim(&rules.join(cross)))?;
        for cells in &self.cells {
            line.clear();
            for (column, cell) in cells.iter().enumerate().take(shown) {
                line.push_str(if column == 0 { " " } else { &bar });
                let (space, right) = (widths[column], self.right[column]);
                match cell {
                    None => pad(&mut line, &style.dim(style.null()), width(style.null()), space, right),
                    Some(cell) if cell.width <= space => pad(&mut line, &cell.text, cell.width, space, right),
                    Some(cell) => {
                        let text = cut(&cell.text, space, style);
                        pad(&mut line, &text, width(&text), space, right);
                    }
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(LeftOut { columns: self.names.len() - shown })
    }

    /// The widths of the columns that are shown.
    fn fitted(&self, style: Style) -> Vec<usize> {
        let mut widths = self.widths.clone();
        if !style.unicode {
            // `NULL` is longer than the sign for it.
            for (column, width) in widths.iter_mut().enumerate() {
                if self.cells.iter().any(|cells| matches!(cells.get(column), Some(None))) {
                    *width = (*width).max(4);
                }
            }
        }
        let Some(limit) = style.width else { return widths };
        let taken = |widths: &[usize]| widths.iter().map(|width| width + 3).sum::<usize>().saturating_sub(1);
        let least = |column: usize| {
            if self.right[column] { widths[column] } else { widths[column].min(SHRUNK_WIDTH_MIN) }
        };
        if taken(&(0..widths.len()).map(least).collect::<Vec<_>>()) > limit {
            // Columns are left out in any case, so those that stay can be read.
            for (width, right) in widths.iter_mut().zip(&self.right) {
                if !right {
                    *width = (*width).min(READABLE_WIDTH_MAX);
                }
            }
            while widths.len() > 1 && taken(&widths) > limit {
                widths.pop();
            }
        }
        while taken(&widths) > limit {
            let text = |column: &usize| !self.right[*column] && widths[*column] > SHRUNK_WIDTH_MIN;
            let Some(widest) = (0..widths.len()).filter(text).max_by_key(|column| widths[*column]) else {
                break;
            };
            let over = taken(&widths) - limit;
            // The widest gives way until it is as narrow as the next.
            let next = (0..widths.len()).filter(|column| *column != widest && text(column));
            let next = next.map(|column| widths[column]).max().unwrap_or(SHRUNK_WIDTH_MIN);
            let least = next.clamp(SHRUNK_WIDTH_MIN, widths[widest] - 1);
            widths[widest] = widths[widest].saturating_sub(over).max(least);
        }
        widths
    }
}

fn pad(line: &mut String, text: &str, text_width: usize, space: usize, right: bool) {
    let space = space.saturating_sub(text_width);
    if right {
        line.extend(std::iter::repeat_n(' ', space));
        line.push_str(text);
    } else {
        line.push_str(text);
        line.extend(std::iter::repeat_n(' ', space));
    }
}

/// Text of this width at most; what was cut off shows as an ellipsis.
pub(crate) fn cut(text: &str, space: usize, style: Style) -> String {
    if width(text) <= space {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut taken = 0;
    for c in text.chars() {
        if taken + char_width(c) > space.saturating_sub(1) {
            break;
        }
        taken += char_width(c);
        shown.push(c);
    }
    // What was cut before is not marked twice.
    shown.truncate(shown.trim_end_matches(style.ellipsis()).len());
    shown.push(style.ellipsis());
    shown
}

/// A line of parts between ` · `, on as many lines as the width asks for; what goes on is set in by a blank more.
pub(crate) fn fold(line: &str, style: Style) -> String {
    let dot = if style.unicode { " · " } else { " | " };
    let limit = style.width.unwrap_or(usize::MAX);
    let indent = " ".repeat(line.len() - line.trim_start_matches(' ').len() + 1);
    let (mut folded, mut taken) = (String::new(), 0);
    for (place, part) in line.split(" · ").enumerate() {
        let needed = width(part);
        if place == 0 {
            taken = needed;
        } else if taken.saturating_add(needed + 3) <= limit {
            folded.push_str(dot);
            taken += needed + 3;
        } else {
            folded.push('\n');
            folded.push_str(&indent);
            taken = indent.len() + needed;
        }
        folded.push_str(part);
    }
    folded
}

/// Text that takes one line of a terminal, and not too much of it.
pub(crate) fn cell_text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(CELL_WIDTH_MAX + 8));
    let mut taken = 0;
    for c in text.chars() {
        if taken >= CELL_WIDTH_MAX {
            shown.push('…');
            break;
        }
        if is_harmful(c) {
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

/// Characters that do something to a terminal other than being shown: controls, and marks that turn the direction of the
/// text around them.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// Cells of a terminal that a text takes.
pub(crate) fn width(text: &str) -> usize {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(columns: &[(&str, bool)], rows: &[&[Option<&str>]], style: Style, expect: &str) -> LeftOut {
        let mut table = Table::new(columns.iter().map(|(name, right)| ((*name).to_owned(), *right)));
        for row in rows {
            table.row(row.iter().map(|text| text.map(str::to_owned)));
        }
        let mut out = Vec::new();
        let left_out = table.write(&mut out, style).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expect);
        left_out
    }

    #[test]
    fn lines_of_parts_are_folded() {
        let check = |line: &str, width: Option<usize>, unicode: bool, expect: &str| {
            assert_eq!(fold(line, Style { width, unicode, ..Style::PLAIN }), expect);
        };
        check("12 rows · 5 ms · 100%", None, true, "12 rows · 5 ms · 100%");
        check("12 rows · 5 ms · 100%", Some(21), true, "12 rows · 5 ms · 100%");
        check("12 rows · 5 ms · 100%", Some(20), true, "12 rows · 5 ms\n 100%");
        check(" 12 rows · 5 ms · 100%", Some(10), false, " 12 rows\n  5 ms\n  100%");
        check("a · b", None, false, "a | b");
    }

    #[test]
    fn a_table_is_aligned() {
        let columns = [("region", false), ("count", true), ("p99", true)];
        let rows: [&[Option<&str>]; 2] =
            [&[Some("eu"), Some("18204118"), Some("412.5")], &[Some("äß東"), None, Some("1e-9")]];
        check(
            &columns,
            &rows,
            Style::PLAIN,
            " region │    count │   p99\n\
             ────────┼──────────┼───────\n \
             eu     │ 18204118 │ 412.5\n \
             äß東   │        ∅ │  1e-9\n",
        );
        check(
            &columns,
            &rows[..1],
            Style { unicode: false, ..Style::PLAIN },
            " region |    count |   p99\n\
             --------+----------+-------\n \
             eu     | 18204118 | 412.5\n",
        );
        check(&[("n", true)], &[], Style::PLAIN, " n\n───\n");
    }

    #[test]
    fn values_cannot_garble_the_terminal() {
        check(
            &[("s", false)],
            &[&[Some("a\u{1b}[31m\nb")], &[Some("x\u{202e}y")]],
            Style::PLAIN,
            " s\n\
             ────────────────\n \
             a\\u{1b}[31m\\nb\n \
             x\\u{202e}y\n",
        );
        let long = cell_text(&"x".repeat(10_000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (CELL_WIDTH_MAX + 1, true));
    }

    #[test]
    fn a_table_is_no_wider_than_the_terminal() {
        let columns = [("url", false), ("text", false), ("n", true), ("m", true)];
        let row: &[Option<&str>] =
            &[Some("https://a/b/c/d/e/f"), Some("one two three four"), Some("1234567"), Some("7654321")];
        let at = |width| Style { width: Some(width), ..Style::PLAIN };
        let left_out = check(
            &columns,
            &[row],
            at(50),
            " url           │ text         │       n │       m\n\
             ───────────────┼──────────────┼─────────┼─────────\n \
             https://a/b/… │ one two thr… │ 1234567 │ 7654321\n",
        );
        assert_eq!(left_out, LeftOut { columns: 0 });
        let left_out = check(
            &columns,
            &[row],
            at(32),
            " url\n\
             ─────────────────────\n \
             https://a/b/c/d/e/f\n",
        );
        assert_eq!(left_out, LeftOut { columns: 3 });
    }

    #[test]
    fn locales() {
        for (locale, expect) in
            [("en_US.UTF-8", true), ("C.utf8", true), ("C", false), ("de_DE.ISO-8859-1", false)]
        {
            assert_eq!(is_utf8(locale), expect, "{locale}");
        }
    }
}
