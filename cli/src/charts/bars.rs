//! Bars in cells of a table, and sparklines.

/// A bar of this share of `width` cells, in eighths of a cell.
pub(crate) fn bar(share: f64, width: usize, unicode: bool) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    if !unicode {
        return "#".repeat((share * width as f64).round() as usize);
    }
    let eighths = (share * width as f64 * 8.0).round() as usize;
    let mut text = "█".repeat(eighths / 8);
    text.push_str(["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8]);
    // Something is never drawn as nothing.
    if text.is_empty() && share > 0.0 { "▏".to_owned() } else { text }
}

/// A line of levels, one a value, `width` cells at most; neighbours share a cell by their mean when there are more. The
/// lowest level is zero, or the least value when that is below zero. Blanks are values that are not there.
pub(crate) fn sparkline(values: &[Option<f64>], width: usize, unicode: bool) -> String {
    let cells = merged(values, width);
    let known = cells.iter().flatten();
    let most = known.clone().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = known.copied().fold(0.0, f64::min);
    let levels: &[&str] = if unicode {
        &["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"]
    } else {
        &["_", ".", "-", "=", "+", "*", "#", "@"]
    };
    let level = |value: f64| {
        let share = if most > least { (value - least) / (most - least) } else { 0.0 };
        levels[((share * 8.0) as usize).min(7)]
    };
    cells.iter().map(|cell| cell.map_or(" ", level)).collect()
}

/// At most `width` values, each the mean of a run of them.
pub(crate) fn merged(values: &[Option<f64>], width: usize) -> Vec<Option<f64>> {
    let finite = |value: &Option<f64>| value.filter(|value| value.is_finite());
    if values.len() <= width || width == 0 {
        return values.iter().map(finite).collect();
    }
    let mean = |cell: usize| {
        let run = &values[cell * values.len() / width..(cell + 1) * values.len() / width];
        let known: Vec<f64> = run.iter().filter_map(finite).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    };
    (0..width).map(mean).collect()
}

/// Columns of blocks from the ground up: `height` lines, the highest first, each bar `cells` wide.
pub(crate) fn columns(values: &[Option<f64>], height: usize, cells: usize, unicode: bool) -> Vec<String> {
    let most = values.iter().flatten().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    let blocks = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
    let line = |line: usize| {
        let below = (height - 1 - line) * 8;
        let each = values.iter().map(|value| {
            let value = value.filter(|value| value.is_finite()).unwrap_or(0.0).max(0.0);
            let eighths = if most > 0.0 { (value / most * (height * 8) as f64).round() as usize } else { 0 };
            let filled = eighths.saturating_sub(below).min(8);
            let block = if unicode {
                blocks[filled]
            } else if filled >= 4 {
                "#"
            } else {
                " "
            };
            // A gap tells bars apart, where there is room for one.
            let gap = usize::from(cells > 1);
            format!("{}{}", block.repeat(cells - gap), " ".repeat(gap))
        });
        each.collect::<String>()
    };
    (0..height).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_in_proportion() {
        let check = |share, text: &str, ascii: &str| {
            assert_eq!(
                (bar(share, 4, true).as_str(), bar(share, 4, false).as_str()),
                (text, ascii),
                "{share}"
            );
        };
        check(0.0, "", "");
        check(0.001, "▏", "");
        check(0.5, "██", "##");
        check(0.6, "██▍", "##");
        check(1.0, "████", "####");
        check(7.0, "████", "####");
        check(f64::NAN, "", "");
    }

    #[test]
    fn sparklines_have_eight_levels() {
        let some = |values: &[f64]| values.iter().map(|value| Some(*value)).collect::<Vec<_>>();
        assert_eq!(sparkline(&some(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), 8, true), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&some(&[0.0, 7.0]), 8, false), "_@");
        assert_eq!(sparkline(&[Some(1.0), None, Some(f64::NAN), Some(2.0)], 8, true), "▅  █");
        assert_eq!(sparkline(&some(&[-1.0, 0.0, 1.0]), 8, true), "▁▅█");
        assert_eq!(sparkline(&some(&[0.0, 0.0]), 8, true), "▁▁");
        assert_eq!(sparkline(&[], 8, true), "");
        assert_eq!(sparkline(&some(&[1.0, 3.0, 4.0, 4.0]), 2, true), "▅█");
    }

    #[test]
    fn columns_stand_on_the_ground() {
        let values = [Some(1.0), None, Some(4.0)];
        assert_eq!(columns(&values, 2, 2, true), ["    █ ", "▄   █ "]);
        assert_eq!(columns(&values, 2, 1, false), ["  #", "# #"]);
    }
}
