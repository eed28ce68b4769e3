//! Heatmaps: how many values lie where, over time. Darkness follows the logarithm of the count, and what it stands for is
//! written below.

use crate::charts::numbers::short;
use crate::render::{Style, width};

/// From little to much; nothing is a blank.
const SHADES: [char; 4] = ['░', '▒', '▓', '█'];
const SHADES_ASCII: [char; 4] = ['.', ':', 'o', '#'];

/// The lines of a map: `rows` from the top, each with its label and a count for each column. The second value is how many
/// cells the labels take, the last line is the legend.
pub(crate) fn draw(rows: &[(String, Vec<f64>)], cells: usize, style: Style) -> (Vec<String>, usize, String) {
    let most =
        rows.iter().flat_map(|(_, counts)| counts).copied().filter(|v| v.is_finite()).fold(0.0, f64::max);
    let shades = if style.unicode { SHADES } else { SHADES_ASCII };
    let steps = shades.len() as f64;
    let level = |count: f64| {
        let share = if most > 1.0 { (count.max(1.0)).ln() / most.ln() } else { 1.0 };
        ((share * steps) as usize).min(shades.len() - 1)
    };
    let label_width = rows.iter().map(|(label, _)| width(label)).max().unwrap_or(0);
    let axis = style.dim(if style.unicode { "┤" } else { "|" });
    let line = |(label, counts): &(String, Vec<f64>)| {
        let shown = counts.iter().map(|count| {
            let shade = if *count > 0.0 { shades[level(*count)] } else { ' ' };
            std::iter::repeat_n(shade, cells)
        });
        let shown: String = shown.flatten().collect();
        format!("{}{label} {axis}{}", " ".repeat(label_width - width(label)), shown.trim_end())
    };
    let lines = rows.iter().map(line).collect();
    // Each shade begins at this count.
    let from = |step: usize| if step == 0 { 1.0 } else { most.powf(step as f64 / steps).ceil() };
    let legend = shades.iter().enumerate().filter(|(step, _)| *step == 0 || from(*step) > from(step - 1));
    let legend: Vec<String> =
        legend.map(|(step, shade)| format!("{shade} from {}", short(from(step)))).collect();
    (lines, label_width + 2, legend.join(" · "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn darkness_follows_the_logarithm() {
        let rows =
            [("100".to_owned(), vec![0.0, 1.0, 9.0]), ("10".to_owned(), vec![150.0, 1200.0, 10_000.0])];
        let (lines, indent, legend) = draw(&rows, 2, Style::PLAIN);
        assert_eq!(lines, ["100 ┤  ░░░░", " 10 ┤▓▓████"]);
        assert_eq!(indent, 5);
        assert_eq!(legend, "░ from 1 · ▒ from 10 · ▓ from 100 · █ from 1k");
        let (lines, _, legend) = draw(&rows[..1], 1, Style { unicode: false, ..Style::PLAIN });
        assert_eq!(lines, ["100 | .#"]);
        assert_eq!(legend, ". from 1 · : from 2 · o from 3 · # from 6");
    }

    #[test]
    fn an_empty_map() {
        assert_eq!(draw(&[], 1, Style::PLAIN).0, Vec::<String>::new());
        let (lines, ..) = draw(&[("1".to_owned(), vec![f64::NAN, 0.0, 1.0])], 1, Style::PLAIN);
        assert_eq!(lines, ["1 ┤  █"]);
    }
}
