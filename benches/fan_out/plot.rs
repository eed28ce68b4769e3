//! The plot of a fan-out: milliseconds over the slowest child, by the number of children.

use std::fmt::Write as _;

use crate::Measured;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 60.0;
const COLOURS: [&str; 4] = ["#2a7f62", "#b5442f", "#7fb5a0", "#c9a227"];
/// The least that the scale shows, milliseconds.
const LEAST_MS: f64 = 0.1;

/// The plot of these lines, each with its name.
pub(crate) fn svg(lines: &[(String, Vec<Measured>)], machine: &str) -> String {
    let all = || lines.iter().flat_map(|(_, points)| points);
    let most = all().map(|point| point.over_ms).fold(1.0, f64::max) * 1.3;
    let widest = all().map(|point| point.children).max().unwrap_or(1).max(2) as f64;
    let x = |children: usize| LEFT + (children as f64).ln() / widest.ln() * (WIDTH - LEFT - RIGHT);
    let y = |ms: f64| {
        let share = (ms.max(LEAST_MS) / LEAST_MS).ln() / (most / LEAST_MS).ln();
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    };
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{HEIGHT}' font-family='sans-serif' \
         font-size='12'>\n<rect width='100%' height='100%' fill='white'/>\n"
    );
    text(&mut out, (12.0, 22.0), "start", 15, "A fan-out: milliseconds over the slowest child");
    text(&mut out, (12.0, 42.0), "start", 12, machine);
    for ms in [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0] {
        if ms > most {
            break;
        }
        let colour = if ms == 20.0 { "#999" } else { "#ddd" };
        let _ = writeln!(
            out,
            "<line x1='{LEFT}' x2='{:.1}' y1='{at:.1}' y2='{at:.1}' stroke='{colour}'/>",
            WIDTH - RIGHT,
            at = y(ms)
        );
        text(&mut out, (LEFT - 8.0, y(ms) + 4.0), "end", 11, &format!("{ms} ms"));
    }
    let mut counts: Vec<usize> = all().map(|point| point.children).collect();
    counts.sort_unstable();
    counts.dedup();
    for children in counts {
        text(&mut out, (x(children), HEIGHT - BOTTOM + 20.0), "middle", 11, &children.to_string());
    }
    let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
    text(&mut out, (middle, HEIGHT - 16.0), "middle", 12, "children");
    for ((name, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let places: Vec<String> =
            points.iter().map(|point| format!("{:.1},{:.1}", x(point.children), y(point.over_ms))).collect();
        let _ = writeln!(
            out,
            "<polyline points='{}' fill='none' stroke='{colour}' stroke-width='2'/>",
            places.join(" ")
        );
        for point in points {
            let (x, y) = (x(point.children), y(point.over_ms));
            let _ = writeln!(out, "<circle cx='{x:.1}' cy='{y:.1}' r='3' fill='{colour}'/>");
        }
        if let Some(last) = points.last() {
            let label = format!("{name}: {:.1} ms", last.over_ms);
            text(&mut out, (x(last.children) + 8.0, y(last.over_ms) + 4.0), "start", 11, &label);
        }
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
