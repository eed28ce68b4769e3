//! How a rollout looks: its plan before it begins, and how far it is.

use std::collections::BTreeSet;
use std::io::{self, Write};

use super::reply::{Leaf, Rollout};
use crate::render::{Style, Table, cell_text, cut, width};
use crate::units;

/// Up to so many leaves are all listed; of more, those that something is to be said of.
const LISTED_MAX: usize = 16;
/// Leaves named in a plan.
const NAMED_MAX: usize = 8;
/// Cells of the bar, where the screen has as many.
const BAR_WIDTH_MAX: usize = 48;
/// The width of a screen that does not say its own.
const WIDTH_DEFAULT: usize = 100;

/// Says what a start would do; `known` is the same rollout as it is now, if it was begun before.
pub(super) fn plan(out: &mut dyn Write, planned: &Rollout, known: Option<&Rollout>) -> io::Result<()> {
    let count = planned.leaves.len();
    let (leaves, machines) =
        (counted(count, "leaf", "leaves"), counted(planned.machines as usize, "machine", "machines"));
    if let Some(known) = known {
        let goes_on = if known.state == "running" { "runs already" } else { "is paused and goes on" };
        writeln!(out, "rollout {} {goes_on}: {} of {leaves} done", known.id, known.over())?;
    } else {
        writeln!(out, "rollout {} of {leaves} on {machines}", planned.id)?;
    }
    let left: Vec<&str> =
        planned.leaves.iter().filter(|leaf| !leaf.is_over()).map(|leaf| leaf.leaf.as_str()).collect();
    if left.is_empty() {
        let version = planned.settings.to.as_deref().unwrap_or_default();
        return writeln!(out, "  restarts  nothing: every leaf runs {} already", cell_text(version));
    }
    let mut named = left.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    if left.len() > NAMED_MAX {
        named.push_str(&format!(" and {} more", left.len() - NAMED_MAX));
    }
    let version = planned.settings.to.as_ref().map(|to| format!(", with version {}", cell_text(to)));
    writeln!(out, "  restarts  {}{}", cell_text(&named), version.unwrap_or_default())?;
    let disk = if planned.settings.allow_disk { "" } else { ", two come back from disk" };
    writeln!(
        out,
        "  away      at most {} at a time, one of a machine, each for {} at most",
        planned.unavailable_max,
        units::seconds(planned.settings.leaf_seconds_max as f64)
    )?;
    writeln!(
        out,
        "  pauses    when answers would be less than {} complete, a leaf is slow, late or loses rows{disk}",
        units::share(planned.settings.min_completeness)
    )
}

/// Says how far it is.
pub(super) fn status(out: &mut dyn Write, rollout: &Rollout, style: Style) -> io::Result<()> {
    let limit = style.width.unwrap_or(WIDTH_DEFAULT).saturating_sub(1);
    for line in head(rollout, style) {
        writeln!(out, "{}", fitted(&line, limit, style))?;
    }
    writeln!(out, "{}", bar(rollout, style, limit))?;
    let shown: Vec<&Leaf> = listed(rollout);
    table(&shown).write(out, style)?;
    let hidden = rollout.leaves.len() - shown.len();
    if hidden > 0 {
        writeln!(out, "{}", fitted(&format!("and {hidden} more leaves; --json lists all"), limit, style))?;
    }
    for leaf in shown.iter().filter(|leaf| !leaf.note.is_empty()) {
        let line = format!("{}: {}", cell_text(&leaf.leaf), cell_text(&leaf.note));
        writeln!(out, "{}", fitted(&line, limit, style))?;
    }
    if rollout.state == "running" {
        let next =
            "next: automatic; `gannet rollout pause` stops after this leaf, `abort` leaves versions mixed";
        writeln!(out, "{}", fitted(next, limit, style))?;
    }
    Ok(())
}

/// The lines above the bar; as many as it takes to say it all on a narrow screen.
fn head(rollout: &Rollout, style: Style) -> Vec<String> {
    let separator = if style.unicode { " · " } else { " | " };
    let mut parts = vec![format!("rollout {} {}", rollout.id, rollout.state)];
    parts.extend(rollout.aggregator.as_ref().map(|at| format!("run by {}", cell_text(at))));
    parts.extend(versions(rollout, style));
    parts.push(format!("{}/{} done", rollout.over(), rollout.leaves.len()));
    parts.push(format!("at most {} away", rollout.unavailable_max));
    let guard = units::share(rollout.settings.min_completeness);
    let least = if style.unicode { "≥" } else { ">=" };
    parts.push(format!("completeness {} (guard {least} {guard})", percent(rollout.completeness)));
    parts.push(units::seconds(rollout.elapsed_seconds));
    if let (Some(left), "running") = (rollout.left_seconds, rollout.state.as_str()) {
        parts.push(format!("about {} left", units::seconds(left)));
    }
    let limit = style.width.unwrap_or(usize::MAX).saturating_sub(1);
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if width(line) + width(separator) + width(&part) <= limit => {
                line.push_str(separator);
                line.push_str(&part);
            }
            _ => lines.push(part),
        }
    }
    lines
}

/// `0.1.0 → 0.2.0`, or the one version there is.
fn versions(rollout: &Rollout, style: Style) -> Option<String> {
    let joined = |versions: BTreeSet<&str>| {
        let versions: Vec<String> = versions.into_iter().map(cell_text).collect();
        versions.join(", ")
    };
    let of = |version: fn(&Leaf) -> &str| -> BTreeSet<&str> {
        rollout.leaves.iter().map(version).filter(|version| !version.is_empty()).collect()
    };
    let (before, after) = (of(|leaf| &leaf.version_before), of(|leaf| &leaf.version));
    let arrow = if style.unicode { "→" } else { "->" };
    match (before.is_empty(), after.is_empty() || before == after) {
        (true, _) => None,
        (false, true) => Some(joined(before)),
        (false, false) => Some(format!("{} {arrow} {}", joined(before), joined(after))),
    }
}

/// One cell for so many leaves: new, restoring, draining, old; with what the signs mean.
fn bar(rollout: &Rollout, style: Style, limit: usize) -> String {
    let signs = if style.unicode { ["█", "░", "▒", "·"] } else { ["#", "~", "=", "."] };
    let count = rollout.leaves.len().max(1);
    let cells = BAR_WIDTH_MAX.min(limit.saturating_sub(1)).max(1);
    let is = |step: &[&str]| rollout.leaves.iter().filter(|leaf| step.contains(&leaf.step.as_str())).count();
    let counts = [is(&["done", "skipped"]), is(&["stopping", "restoring"]), is(&["draining"])];
    let mut text = String::from(" ");
    let (mut leaves, mut drawn) = (0, 0);
    for (sign, of_them) in signs.iter().zip(counts) {
        leaves += of_them;
        // Rounded down, but what is there is seen.
        let mut end = leaves * cells / count;
        if of_them > 0 && end == drawn && end < cells && leaves < count {
            end += 1;
        }
        text.push_str(&sign.repeat(end - drawn));
        drawn = end;
    }
    text.push_str(&signs[3].repeat(cells - drawn));
    let legend =
        format!("  {} new  {} restoring  {} draining  {} old", signs[0], signs[1], signs[2], signs[3]);
    if width(&text) + width(&legend) <= limit {
        text.push_str(&legend);
    }
    text
}

/// The leaves to list: all of few, else those of which something is to be said.
fn listed(rollout: &Rollout) -> Vec<&Leaf> {
    if rollout.leaves.len() <= LISTED_MAX {
        return rollout.leaves.iter().collect();
    }
    let mut leaves: Vec<&Leaf> = rollout.leaves.iter().filter(|leaf| leaf.is_in_flight()).collect();
    leaves.extend(rollout.leaves.iter().filter(|leaf| leaf.is_over() && leaf.is_from_disk()));
    let mut rest: Vec<&Leaf> =
        rollout.leaves.iter().filter(|leaf| leaf.step == "done" && !leaf.is_from_disk()).collect();
    // The slowest are the interesting ones.
    rest.sort_by(|a, b| b.seconds.unwrap_or(0.0).total_cmp(&a.seconds.unwrap_or(0.0)));
    leaves.extend(rest);
    leaves.truncate(LISTED_MAX);
    leaves
}

fn table(leaves: &[&Leaf]) -> Table {
    let columns = [
        ("leaf", false),
        ("step", false),
        ("for", true),
        ("took", true),
        ("path", false),
        ("version", false),
    ];
    let mut table = Table::new(columns.map(|(name, right)| (name.to_owned(), right)));
    for leaf in leaves {
        let path = if leaf.is_from_disk() { leaf.path.to_uppercase() } else { leaf.path.clone() };
        let version = if leaf.version.is_empty() { &leaf.version_before } else { &leaf.version };
        table.text_row([
            leaf.leaf.clone(),
            step(leaf),
            if leaf.is_in_flight() { units::seconds(leaf.since_seconds) } else { String::new() },
            leaf.seconds.map(units::seconds).unwrap_or_default(),
            path,
            version.clone(),
        ]);
    }
    table
}

/// The step, and what the leaf is when that says more.
fn step(leaf: &Leaf) -> String {
    match (leaf.step.as_str(), leaf.state.as_str()) {
        ("restoring", "down" | "starting") => format!("{} ({})", leaf.step, leaf.state),
        ("waiting" | "done" | "skipped", "down" | "starting" | "stopping" | "draining") => {
            format!("{} ({})", leaf.step, leaf.state)
        }
        _ => leaf.step.clone(),
    }
}

/// A line for each thing that happened between two looks.
pub(super) fn news(before: Option<&Rollout>, now: &Rollout) -> Vec<String> {
    let before = before.filter(|before| before.id == now.id);
    let mut lines = Vec::new();
    if before.is_none() {
        let leaves = counted(now.leaves.len(), "leaf", "leaves");
        lines.push(format!("{} {}: {} of {leaves} done", now.id, now.state, now.over()));
    }
    for (index, leaf) in now.leaves.iter().enumerate() {
        let was = before.and_then(|before| before.leaves.get(index));
        let is_news = match was {
            Some(was) => was.step != leaf.step,
            None => leaf.is_in_flight(),
        };
        if is_news {
            lines.push(format!("{} {}{}", now.id, cell_text(&leaf.leaf), happened(leaf)));
        }
    }
    if before.is_some_and(|before| before.state != now.state) {
        let took = units::seconds(now.elapsed_seconds);
        let done = format!("{} of {} leaves done in {took}", now.over(), now.leaves.len());
        lines.push(format!("{} {}: {done}, completeness {}", now.id, now.state, percent(now.completeness)));
    }
    lines
}

fn happened(leaf: &Leaf) -> String {
    match (leaf.step.as_str(), leaf.seconds) {
        ("done", Some(seconds)) => {
            let from =
                if leaf.path.is_empty() { "without rows".to_owned() } else { format!("from {}", leaf.path) };
            let note =
                if leaf.note.is_empty() { String::new() } else { format!(": {}", cell_text(&leaf.note)) };
            format!(" done in {} {}{note}", units::seconds(seconds), cell_text(&from))
        }
        (step, _) => format!(" {step}"),
    }
}

/// `97.8%`, rounded down.
fn percent(ratio: Option<f64>) -> String {
    match ratio {
        None => "unknown".to_owned(),
        Some(ratio) if ratio >= 1.0 => "100%".to_owned(),
        Some(ratio) => format!("{:.1}%", (ratio * 1000.0 + 1e-6).floor() / 10.0),
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

fn fitted(line: &str, limit: usize, style: Style) -> String {
    if style.width.is_some() && width(line) > limit { cut(line, limit, style) } else { line.to_owned() }
}

#[cfg(test)]
mod tests;
