//! "Did you mean": the nearest of the known names.

/// A hint with the nearest name, if one is near.
pub(crate) fn did_you_mean<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let wrong = wrong.to_lowercase();
    let near_enough = wrong.chars().count().div_ceil(3).min(wrong.chars().count() / 2);
    let mut best: Option<(usize, &str)> = None;
    for name in known {
        let lower = name.to_lowercase();
        let mut distance = edit_distance(&wrong, &lower);
        // The last part of a dotted name, or a name that goes on, is near as well.
        if lower.rsplit('.').next() == Some(wrong.as_str()) || (wrong.len() > 3 && lower.starts_with(&wrong))
        {
            distance = distance.min(1);
        }
        if distance <= near_enough && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| format!("Did you mean `{name}`?"))
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one text into the other.
fn edit_distance(one: &str, other: &str) -> usize {
    const LENGTH_MAX: usize = 128;
    let one: Vec<char> = one.chars().take(LENGTH_MAX).collect();
    let other: Vec<char> = other.chars().take(LENGTH_MAX).collect();
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut least = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

/// Names for people: at most twenty of them.
pub(super) fn quoted_list(names: &[String]) -> String {
    const SHOWN_MAX: usize = 20;
    let mut shown: Vec<String> = names.iter().take(SHOWN_MAX).map(|name| format!("`{name}`")).collect();
    if names.len() > SHOWN_MAX {
        shown.push(format!("{} more", names.len() - SHOWN_MAX));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wrong: &str, known: &[&str], expect: Option<&str>) {
        let expect = expect.map(|name| format!("Did you mean `{name}`?"));
        assert_eq!(did_you_mean(wrong, known.iter().copied()), expect, "{wrong}");
    }

    #[test]
    fn the_nearest_name_is_found() {
        check("servce", &["service", "host"], Some("service"));
        check("sevrice", &["service", "host"], Some("service"));
        check("LATENCY", &["latency_us", "host"], Some("latency_us"));
        check("name", &["user.name", "host"], Some("user.name"));
        check("zzz", &["service", "host"], None);
        check("x", &["y"], None);
        check("", &["service"], None);
    }
}
