//! The plot of a restart bench, as SVG: how soon answers come, and what memory a stop takes.

use std::fmt::Write as _;

use super::memory::Sample;
use super::report::{Report, Run};
use crate::units;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 90.0;
const BAR: f64 = 14.0;
const ROW: f64 = 44.0;
const TOP: f64 = 64.0;
const PANEL: f64 = 200.0;
const FIRST: &str = "#7fb5a0";
const COMPLETE: &str = "#2a7f62";
const LOST: &str = "#b5442f";
const HEAP: &str = "#c9a227";
const SEGMENTS: &str = "#2a7f62";

/// The least time that the scale shows.
const SCALE_SECONDS_MIN: f64 = 0.001;

/// The plot.
pub(super) fn svg(report: &Report) -> String {
    let memory = report.runs.iter().find_map(|run| Some((run.name, run.stop.as_ref()?)));
    let bars_end = TOP + report.runs.len() as f64 * ROW + 30.0;
    let height = if memory.is_some() { bars_end + PANEL + 80.0 } else { bars_end + 10.0 };
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height}' font-family='sans-serif' \
         font-size='12'>\n<rect width='100%' height='100%' fill='white'/>\n"
    );
    let held = units::bytes(report.runs.first().map_or(report.bytes_asked, |run| run.load.bytes));
    text(
        &mut out,
        (12.0, 22.0),
        "start",
        15,
        &format!("Restart of a leaf that holds {held}: time from exec"),
    );
    text(
        &mut out,
        (12.0, 42.0),
        "start",
        12,
        "light: first answer, which says how complete it is; dark: every row is there (log scale)",
    );
    bars(&mut out, report, bars_end);
    if let Some((name, stop)) = memory {
        let title = format!(
            "Memory during the hand-over of “{name}”: heap, and segments above it; {} more than before at most",
            units::bytes(stop.memory_over_bytes())
        );
        text(&mut out, (12.0, bars_end + 30.0), "start", 15, &title);
        areas(&mut out, &stop.memory, bars_end + 50.0);
    }
    out.push_str("</svg>\n");
    out
}

/// Text at a place: `anchor` is SVG's word for where the place is in it.
fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, size: u32, text: &str) {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(
        out,
        "<text x='{x:.1}' y='{y:.1}' font-size='{size}' text-anchor='{anchor}' fill='#333'>{escaped}</text>"
    );
}

fn bars(out: &mut String, report: &Report, end: f64) {
    let times = |run: &Run| [Some(run.start.first_answer_seconds), run.start.correct_seconds];
    let longest = report.runs.iter().flat_map(times).flatten().fold(0.1, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / (longest / SCALE_SECONDS_MIN).ln();
    let x = |seconds: f64| LEFT + (seconds.max(SCALE_SECONDS_MIN) / SCALE_SECONDS_MIN).ln() * scale;
    for tick in [0.001, 0.01, 0.1, 1.0, 10.0, 100.0].into_iter().filter(|tick| *tick <= longest) {
        let at = x(tick);
        let _ = writeln!(
            out,
            "<line x1='{at:.1}' x2='{at:.1}' y1='{:.1}' y2='{:.1}' stroke='#ddd'/>",
            TOP - 8.0,
            end - 24.0
        );
        text(out, (at, end - 10.0), "middle", 11, &units::seconds(tick));
    }
    for (index, run) in report.runs.iter().enumerate() {
        let y = TOP + index as f64 * ROW;
        text(out, (LEFT - 8.0, y + 18.0), "end", 12, run.name);
        bar(
            out,
            (y, x(run.start.first_answer_seconds)),
            FIRST,
            &units::seconds(run.start.first_answer_seconds),
        );
        match run.start.correct_seconds {
            Some(seconds) => bar(out, (y + BAR + 2.0, x(seconds)), COMPLETE, &units::seconds(seconds)),
            None => {
                let lost = gannet_client::percent(run.start.rows_lost(), run.start.rows_expected);
                bar(out, (y + BAR + 2.0, LEFT + 1.0), LOST, &format!("never: {lost} lost"));
            }
        }
    }
}

fn bar(out: &mut String, (y, end): (f64, f64), colour: &str, label: &str) {
    let width = (end - LEFT).max(1.0);
    let _ = writeln!(out, "<rect x='{LEFT}' y='{y:.1}' width='{width:.1}' height='{BAR}' fill='{colour}'/>");
    text(out, (LEFT + width + 4.0, y + 11.0), "start", 11, label);
}

/// Heap and segments over time, one above the other.
fn areas(out: &mut String, samples: &[Sample], top: f64) {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return };
    let most = samples.iter().map(Sample::bytes).max().unwrap_or(0).max(1) as f64;
    let seconds = (last.seconds - first.seconds).max(1e-6);
    let x = |sample: &Sample| LEFT + (sample.seconds - first.seconds) / seconds * (WIDTH - LEFT - RIGHT);
    let y = |bytes: u64| top + PANEL - bytes as f64 / most * PANEL;
    let area =
        |out: &mut String, colour: &str, upper: &dyn Fn(&Sample) -> u64, lower: &dyn Fn(&Sample) -> u64| {
            let forth = samples.iter().map(|sample| format!("{:.1},{:.1}", x(sample), y(upper(sample))));
            let back = samples.iter().rev().map(|sample| format!("{:.1},{:.1}", x(sample), y(lower(sample))));
            let points: Vec<String> = forth.chain(back).collect();
            let _ = writeln!(out, "<polygon points='{}' fill='{colour}'/>", points.join(" "));
        };
    area(out, HEAP, &|sample| sample.heap_bytes, &|_| 0);
    area(out, SEGMENTS, &Sample::bytes, &|sample| sample.heap_bytes);
    text(out, (LEFT - 8.0, y(most as u64) + 4.0), "end", 11, &units::bytes(most as u64));
    text(out, (LEFT - 8.0, y(0) + 4.0), "end", 11, "0");
    text(out, (LEFT, top + PANEL + 18.0), "start", 11, "SIGTERM");
    let end = format!("exit, {} later", units::seconds(seconds));
    text(out, (WIDTH - RIGHT, top + PANEL + 18.0), "end", 11, &end);
    for (row, (colour, name)) in [(SEGMENTS, "segments"), (HEAP, "heap")].into_iter().enumerate() {
        let y = top + row as f64 * 18.0;
        let x = WIDTH - RIGHT + 8.0;
        let _ = writeln!(out, "<rect x='{x}' y='{y:.1}' width='10' height='10' fill='{colour}'/>");
        text(out, (x + 14.0, y + 9.0), "start", 11, name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plot_shows_times_losses_and_memory() {
        let svg = svg(&super::super::report::sample());
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        for expect in [">40 ms</text>", ">never: 100% lost</text>", "<polygon ", "16.0 MB more"] {
            assert!(svg.contains(expect), "{expect} is not in {svg}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let mut empty = super::super::report::sample();
        empty.runs.clear();
        assert!(super::svg(&empty).ends_with("</svg>\n"));
    }
}
