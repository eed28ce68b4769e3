//! Explorations as people see them: charts, and below them the same numbers as text, so that nothing is only in a drawing.

use std::io::{self, Write};

use gannet_client::Completeness;

use crate::cells::Zone;
use crate::charts::Chart;
use crate::charts::bars::{columns, sparkline};
use crate::charts::lines::{Frame, Line, Stroke, axis, draw, marks};
use crate::charts::numbers::{change, full};
use crate::explore::question::Question;
use crate::explore::series::{Group, Key, Number, Series};
use crate::explore::span::{instant_text, parse_instant, span_text, tick_text, zone_text};
use crate::render::{Style, Table, cell_text, fold, width};
use crate::sql_tokens::tokens;

/// Numbers that get a chart of their own.
const CHARTS_MAX: usize = 3;
/// Lines in one chart; other groups are in the table.
const LINES_MAX: usize = 6;
/// Buckets that are few enough for bars.
const BARS_MAX: usize = 24;

/// Thin buckets that are named; the others are counted.
const THIN_NAMED_MAX: usize = 6;

/// What is drawn on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    /// What it can show.
    pub(crate) style: Style,
    /// How wide it is.
    pub(crate) width: usize,
    /// The zone of times.
    pub(crate) zone: Zone,
    /// How series are drawn.
    pub(crate) chart: Chart,
    /// The instant at which it was asked.
    pub(crate) now: i64,
}

impl Screen {
    /// The line above everything: what is shown.
    pub(crate) fn heading(&self, question: &Question, every: bool) -> String {
        let time = |instant| instant_text(instant, self.zone);
        let mut parts = vec![cell_text(&question.table)];
        if !question.filters.is_empty() {
            parts.push(format!("where {}", cell_text(&conjunction(&question.filters))));
        }
        if every {
            parts.push(format!("every {}", span_text(question.every)));
        }
        let zone = if self.zone.is_some() { format!(" {}", zone_text(self.zone)) } else { String::new() };
        parts.push(format!("{} to {}{zone}", time(question.from), time(question.to)));
        if let Some(offset) = question.compare {
            parts.push(format!("compared with {} earlier", span_text(offset)));
        }
        fold(&parts.join(" · "), self.style)
    }

    /// The newest bucket is not over yet.
    fn is_filling(&self, question: &Question, series: &Series) -> bool {
        let end = i64::try_from(series.buckets).unwrap_or(i64::MAX).saturating_mul(question.every);
        series.buckets > 1 && question.from.saturating_add(end) > self.now
    }

    /// Numbers over time.
    pub(crate) fn series(
        &self,
        out: &mut dyn Write,
        question: &Question,
        series: &Series,
        completeness: &Completeness,
    ) -> io::Result<()> {
        let thin = self.thin(question, series, completeness);
        writeln!(out, "{}", self.heading(question, true))?;
        if series.groups.is_empty() {
            return writeln!(out, "no rows");
        }
        let drawn = if self.chart == Chart::None { 0 } else { CHARTS_MAX };
        for (place, show) in question.show.iter().enumerate() {
            writeln!(out)?;
            writeln!(out, "{}", cell_text(show))?;
            if place < drawn {
                self.chart(out, question, series, place, &thin)?;
            }
            if let [only] = &series.groups[..] {
                let numbers = format!(" {}", self.numbers(question, series, &only.numbers[place]));
                writeln!(out, "{}", fold(&numbers, self.style))?;
            }
        }
        if !question.group_by.is_empty() {
            writeln!(out)?;
            self.groups(out, question, series)?;
        }
        if !thin.is_empty() {
            let named: Vec<String> = thin.iter().take(THIN_NAMED_MAX).map(|(_, text)| text.clone()).collect();
            let more = thin.len().saturating_sub(THIN_NAMED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            writeln!(out, "{} rows are missing: {}{more}", self.thin_mark(), named.join(", "))?;
        }
        if self.is_filling(question, series) {
            let last = i64::try_from(series.buckets - 1).unwrap_or(0) * question.every;
            let range = question.to - question.from;
            let begin = tick_text(question.from + last, range, question.every, self.zone);
            writeln!(out, "the newest bucket ({begin}) is still filling")?;
        }
        Ok(())
    }

    /// Buckets from which rows are missing: where they are in the period, and how complete they are.
    fn thin(
        &self,
        question: &Question,
        series: &Series,
        completeness: &Completeness,
    ) -> Vec<(usize, String)> {
        let thin = completeness.buckets.iter().filter(|bucket| bucket.ratio != Some(1.0));
        thin.filter_map(|bucket| {
            let time = parse_instant(&bucket.time, self.now, None).ok()?;
            let place = usize::try_from((time - question.from).div_euclid(question.every)).ok()?;
            let label = tick_text(time, question.to - question.from, question.every, self.zone);
            (place < series.buckets).then(|| (place, format!("{label} {}", bucket.percent())))
        })
        .collect()
    }

    fn thin_mark(&self) -> char {
        if self.style.unicode { '▒' } else { '!' }
    }

    fn chart(
        &self,
        out: &mut dyn Write,
        question: &Question,
        series: &Series,
        place: usize,
        thin: &[(usize, String)],
    ) -> io::Result<()> {
        let is_single = series.groups.len() == 1 && question.compare.is_none();
        let bars = match self.chart {
            Chart::Bar => true,
            Chart::Auto => is_single && series.buckets <= BARS_MAX,
            Chart::Line | Chart::None => false,
        };
        let height = if question.show.len() == 1 { 9 } else { 7 };
        let (indent, right) = if bars {
            self.bars(out, &series.groups[0].numbers[place].values[0], height)?
        } else {
            let frame = Frame {
                width: self.width,
                height,
                last_is_filling: self.is_filling(question, series),
                style: self.style,
            };
            let lines = lines(series, place, question.compare.is_some());
            let (text, indent) = draw(&lines, frame);
            for line in text {
                writeln!(out, "{line}")?;
            }
            let letters = lines.iter().any(|line| line.letter.is_some());
            (indent, self.width - if letters { 2 } else { 0 })
        };
        if !thin.is_empty() {
            let last = if bars { series.buckets } else { series.buckets.saturating_sub(1) };
            let places: Vec<f64> =
                thin.iter().map(|(bucket, _)| *bucket as f64 / last.max(1) as f64).collect();
            writeln!(out, "{}", marks(&places, indent, right, self.thin_mark()))?;
        }
        let labels = self.ticks(question, series.buckets, bars);
        for line in axis(&labels, indent, right, self.style) {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    fn bars(&self, out: &mut dyn Write, values: &[Option<f64>], height: usize) -> io::Result<(usize, usize)> {
        let most = values.iter().flatten().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
        let (top, bottom) = (crate::charts::numbers::short(most), "0");
        let label = width(&top).max(1);
        let indent = label + 2;
        let cells = (self.width.saturating_sub(indent) / values.len().max(1)).clamp(1, 8);
        let mark = self.style.dim(if self.style.unicode { "┤" } else { "|" });
        for (row, line) in columns(values, height, cells, self.style.unicode).iter().enumerate() {
            let text = match row {
                0 => top.as_str(),
                row if row + 1 == height => bottom,
                _ => "",
            };
            writeln!(out, "{}", format!("{text:>label$} {mark}{line}").trim_end())?;
        }
        Ok((indent, (indent + cells * values.len()).min(self.width)))
    }

    /// Labels of time at places from 0 to 1: some five to a chart, at round times.
    pub(crate) fn ticks(&self, question: &Question, buckets: usize, bars: bool) -> Vec<(f64, String)> {
        let range = question.to - question.from;
        let every = question.every;
        let wanted = (self.width / 18).clamp(2, 8);
        let apart = crate::explore::span::step(range, wanted, None).max(every);
        // A line goes from the first bucket to the last; bars have a width.
        let steps = if bars { buckets } else { buckets.saturating_sub(1) };
        let span = i64::try_from(steps.max(1)).unwrap_or(1) * every;
        let first = question.from.div_euclid(apart) * apart;
        let times = (0..=wanted as i64 + 2).map(|step| first + step * apart);
        times
            .filter(|time| *time >= question.from && *time <= question.from + span && *time < question.to)
            .map(|time| {
                let place = (time - question.from) as f64 / span as f64;
                (place, tick_text(time, range, apart, self.zone))
            })
            .collect()
    }

    /// `5,027 in all · 1d ago 4,310 (+16.6%) · most 70 at 13:28 · least 3 at 12:10 · latest 66`.
    fn numbers(&self, question: &Question, series: &Series, number: &Number) -> String {
        let mut parts = Vec::new();
        let total = number.totals[0];
        parts.push(format!("{} in all", total.map_or("nothing".to_owned(), full)));
        if let (Some(offset), [now, before]) = (question.compare, number.totals) {
            parts.push(match (now, before) {
                (Some(now), Some(before)) => {
                    format!("{} ago {} ({})", span_text(offset), full(before), change(now, before))
                }
                (_, before) => {
                    format!("{} ago {}", span_text(offset), before.map_or("nothing".to_owned(), full))
                }
            });
        }
        // What is still filling is neither the most nor the least of anything.
        let whole = number.values[0].len() - usize::from(self.is_filling(question, series));
        let known = number.values[0][..whole].iter().enumerate();
        let known: Vec<(usize, f64)> = known
            .filter_map(|(bucket, value)| {
                value.filter(|value| value.is_finite()).map(|value| (bucket, value))
            })
            .collect();
        let at = |bucket: usize| {
            let time = question.from + i64::try_from(bucket).unwrap_or(0) * question.every;
            tick_text(time, question.to - question.from, question.every, self.zone)
        };
        let most = known.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a });
        let least = known.iter().copied().reduce(|a, b| if b.1 < a.1 { b } else { a });
        if let (Some(most), Some(least), Some(last)) = (most, least, known.last()) {
            parts.push(format!("most {} at {}", full(most.1), at(most.0)));
            parts.push(format!("least {} at {}", full(least.1), at(least.0)));
            parts.push(format!("latest {} at {}", full(last.1), at(last.0)));
        }
        parts.join(" · ")
    }

    /// The groups with their numbers, and how each went over time.
    fn groups(&self, out: &mut dyn Write, question: &Question, series: &Series) -> io::Result<()> {
        // The lines over time give way first, then text, then the last columns.
        let tables = [16, 12, 8, 6].map(|trend| self.group_table(question, series, trend));
        let fitting = tables.iter().find(|table| table.natural_width() <= self.width);
        let [.., narrowest] = &tables;
        let left_out =
            fitting.unwrap_or(narrowest).write(out, Style { width: Some(self.width), ..self.style })?;
        if left_out.columns > 0 {
            writeln!(out, "{} more columns do not fit", left_out.columns)?;
        }
        let shown = series.groups.iter().filter(|group| group.key != Key::Other).count();
        if shown < series.group_count {
            writeln!(out, "{shown} of {} groups (more with --limit N)", series.group_count)?;
        }
        Ok(())
    }

    fn group_table(&self, question: &Question, series: &Series, trend_width: usize) -> Table {
        let mut head = vec![(String::new(), false)];
        head.extend(question.group_by.iter().map(|group| (group.clone(), false)));
        for show in &question.show {
            head.push((show.clone(), true));
            if let Some(offset) = question.compare {
                head.push((format!("{} ago", span_text(offset)), true));
                head.push(("change".to_owned(), true));
            }
            head.push(("over time".to_owned(), false));
        }
        let mut table = Table::new(head);
        let letters = letters(series);
        for (index, group) in series.groups.iter().enumerate() {
            let mut row = vec![Some(letters[index].map_or(String::new(), String::from))];
            row.extend(key_texts(&group.key, question.group_by.len()));
            for number in &group.numbers {
                let [now, before] = number.totals;
                row.push(now.map(full));
                if question.compare.is_some() {
                    row.push(before.map(full));
                    row.push(Some(match (now, before) {
                        (Some(now), Some(before)) => change(now, before),
                        (Some(_), None) => "new".to_owned(),
                        _ => "gone".to_owned(),
                    }));
                }
                row.push(Some(sparkline(&number.values[0], trend_width, self.style.unicode)));
            }
            table.row(row);
        }
        table
    }
}

/// Conditions that all hold, as one.
fn conjunction(conditions: &[String]) -> String {
    let has_or = |condition: &String| tokens(condition).any(|token| token.is_word("or"));
    let part = |condition: &String| match conditions.len() {
        2.. if has_or(condition) => format!("({condition})"),
        _ => condition.clone(),
    };
    conditions.iter().map(part).collect::<Vec<_>>().join(" and ")
}

/// The texts of a group's key, one for each expression.
fn key_texts(key: &Key, count: usize) -> Vec<Option<String>> {
    match key {
        Key::Values(texts) => texts.clone(),
        Key::Other => (0..count)
            .map(|place| Some(if place == 0 { "(others)".to_owned() } else { String::new() }))
            .collect(),
    }
}

/// The letter of each group that has a line.
fn letters(series: &Series) -> Vec<Option<char>> {
    let mut letters = ('a'..='z').take(LINES_MAX);
    let is_alone = series.groups.len() < 2;
    series
        .groups
        .iter()
        .map(|group| if is_alone || group.key == Key::Other { None } else { letters.next() })
        .collect()
}

fn lines(series: &Series, place: usize, compares: bool) -> Vec<Line<'_>> {
    let is_alone = series.groups.len() < 2;
    let letters = letters(series);
    let groups: Vec<(usize, &Group)> =
        series.groups.iter().enumerate().filter(|(index, _)| is_alone || letters[*index].is_some()).collect();
    let mut lines: Vec<Line<'_>> = groups
        .iter()
        .enumerate()
        .map(|(number, (index, group))| Line {
            values: &group.numbers[place].values[0],
            letter: letters[*index],
            stroke: Stroke::Full(number),
        })
        .collect();
    // Dotted lines of many groups could not be told apart.
    if compares && is_alone {
        let before = groups.iter().map(|(_, group)| Line {
            values: &group.numbers[place].values[1],
            letter: None,
            stroke: Stroke::Dotted,
        });
        lines.extend(before);
    }
    lines
}

#[cfg(test)]
mod tests {
    use gannet_client::BucketCompleteness;

    use super::*;
    use crate::explore::question::View;

    const SECOND: i64 = 1_000_000_000;

    fn question() -> Question {
        Question {
            table: "t".to_owned(),
            show: vec!["count(*)".to_owned()],
            filters: vec![],
            group_by: vec![],
            derive: vec![],
            having: vec![],
            order_by: None,
            limit: 10,
            from: 0,
            to: 300 * SECOND,
            every: 60 * SECOND,
            compare: None,
            view: View::Series,
        }
    }

    /// What stands below the chart, without the axis.
    fn check(now: i64, buckets: Vec<BucketCompleteness>, expect: &[&str]) {
        let values = vec![Some(4.0), Some(2.0), Some(1.0), Some(2.0), Some(3.0)];
        let number = Number { totals: [Some(12.0), None], values: [values, vec![None; 5]] };
        let group = Group { key: Key::Values(vec![]), numbers: vec![number] };
        let series = Series { groups: vec![group], group_count: 1, buckets: 5 };
        let style = Style { unicode: false, width: Some(40), ..Style::PLAIN };
        let screen = Screen { style, width: 40, zone: None, chart: Chart::Line, now };
        let completeness = Completeness { buckets, ..Completeness::default() };
        let mut out = Vec::new();
        screen.series(&mut out, &question(), &series, &completeness).unwrap();
        let text = String::from_utf8(out).unwrap();
        let below = text.lines().skip(12).filter(|line| !line.trim_start().starts_with(['+', '0']));
        assert_eq!(below.collect::<Vec<_>>(), expect);
    }

    #[test]
    fn what_is_thin_or_filling_is_said() {
        let first = " 12 in all | most 4 at 00:00";
        check(300 * SECOND, vec![], &[first, "  least 1 at 00:02 | latest 3 at 00:04"]);
        let thin = BucketCompleteness {
            time: "1970-01-01T00:01:00Z".to_owned(),
            ratio: Some(0.84),
            rows_covered: 84,
            rows_expected: Some(100),
        };
        check(
            299 * SECOND,
            vec![thin],
            &[
                "            !",
                first,
                "  least 1 at 00:02 | latest 2 at 00:03",
                "! rows are missing: 00:01 84.0%",
                "the newest bucket (00:04) is still filling",
            ],
        );
    }
}
