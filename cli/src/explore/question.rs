//! What is explored: the query object, and the SQL it stands for. Pure: times are given, nothing is asked here.
//!
//! Every view is one statement. Both periods of a comparison come from one scan of it, so that a leaf that comes back between
//! two questions never looks like a change of the data. Texts that people wrote are taken as expressions in parentheses
//! of their own; text that would end its place early is refused.

use crate::explore::span::{SECOND, instant_text};
use crate::query::statements::{self, is_closed};

/// The ways to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum View {
    /// Numbers over time, as lines
    Series,
    /// Numbers by group
    Table,
    /// How values are spread, over time
    Distribution,
    /// The newest rows
    Samples,
}

/// What is explored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    /// The table.
    pub(crate) table: String,
    /// Aggregates, or for a distribution the values.
    pub(crate) show: Vec<String>,
    /// Conditions that all hold.
    pub(crate) filters: Vec<String>,
    /// Expressions that make groups.
    pub(crate) group_by: Vec<String>,
    /// Columns made of others: name and expression.
    pub(crate) derive: Vec<(String, String)>,
    /// Conditions on groups.
    pub(crate) having: Vec<String>,
    /// An expression, with `asc` or `desc`; by the first number downwards when nothing is said.
    pub(crate) order_by: Option<String>,
    /// Groups or rows that are shown.
    pub(crate) limit: usize,
    /// First instant.
    pub(crate) from: i64,
    /// First instant after.
    pub(crate) to: i64,
    /// Width of a bucket.
    pub(crate) every: i64,
    /// How long ago the period is that is compared with.
    pub(crate) compare: Option<i64>,
    /// The way to look.
    pub(crate) view: View,
}

/// Values of a distribution fall into bins whose edges grow by a quarter of an octave.
pub(crate) const BINS_PER_OCTAVE: f64 = 4.0;
/// The bin of zero, and that of all below.
pub(crate) const BIN_ZERO: i64 = -100_000;
/// The bin of all below zero.
pub(crate) const BIN_NEGATIVE: i64 = -100_001;

/// Words that cannot be names without quotes.
const RESERVED: [&str; 22] = [
    "all", "and", "as", "by", "case", "desc", "distinct", "end", "from", "group", "having", "in", "is",
    "limit", "not", "null", "on", "or", "order", "select", "table", "where",
];

/// A name as SQL.
pub(crate) fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && !RESERVED.contains(&name);
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Cuts `count, p99(duration_ms)` at commas outside of parentheses and quotes; `count` alone counts rows.
pub(crate) fn list(text: &str) -> Result<Vec<String>, String> {
    let items = statements::split_at_commas(text)?;
    Ok(items
        .into_iter()
        .map(|item| if item.eq_ignore_ascii_case("count") { "count(*)".to_owned() } else { item })
        .collect())
}

/// Numbers that add up: those of groups make that of all, and where nothing is, they are zero.
pub(crate) fn adds_up(show: &str) -> bool {
    let show = show.trim().to_ascii_lowercase();
    let is_one_call = show.find('(').is_some_and(|open| closing(&show, open) == Some(show.len() - 1));
    is_one_call && (show.starts_with("count(") && !show.contains("distinct") || show.starts_with("sum("))
}

/// The values whose distribution is meant: `p99(duration_ms)` means `duration_ms`.
pub(crate) fn values_of(show: &str) -> &str {
    let show = show.trim();
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match show.find('(') {
        Some(open) if is_name(&show[..open]) && closing(show, open) == Some(show.len() - 1) => {
            show[open + 1..show.len() - 1].trim()
        }
        _ => show,
    }
}

/// Where the parenthesis closes that opens here.
fn closing(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate().skip(open) {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

impl Question {
    /// Checks what would make SQL that means something else than what is shown.
    pub(crate) fn check(&self) -> Result<(), String> {
        let derived = self.derive.iter().map(|(_, expression)| expression);
        let written = [&self.show, &self.filters, &self.group_by, &self.having].into_iter().flatten();
        for text in written.chain(derived).chain(&self.order_by) {
            if text.trim().is_empty() {
                return Err("an expression is empty".to_owned());
            }
            if !is_closed(text) {
                return Err(format!(
                    "`{text}` is no expression of its own: quotes and parentheses must close, and ; and -- end it"
                ));
            }
        }
        if self.from >= self.to {
            let (from, to) = (instant_text(self.from, None), instant_text(self.to, None));
            return Err(format!("the range from {from} to {to} is empty"));
        }
        match self.compare {
            Some(offset) if self.view == View::Series && offset % self.every != 0 => {
                Err("--compare must be a multiple of --every, so that both periods have the same buckets"
                    .to_owned())
            }
            Some(_) if matches!(self.view, View::Samples | View::Distribution) => {
                Err("--compare is for the views series and table".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The SQL.
    pub(crate) fn sql(&self) -> String {
        match self.view {
            View::Series => self.series(),
            View::Table => self.groups(),
            View::Distribution => self.distribution(),
            View::Samples => self.samples(),
        }
    }

    /// A name of ours that is none of the table's as far as it is known.
    pub(crate) fn name(&self, name: &str) -> String {
        let taken = |name: &str| {
            self.group_by.iter().any(|group| group == name)
                || self.derive.iter().any(|(derived, _)| derived == name)
        };
        let mut name = name.to_owned();
        while taken(&name) {
            name.push('_');
        }
        name
    }

    fn source(&self) -> String {
        if self.derive.is_empty() {
            return quoted(&self.table);
        }
        let derived =
            self.derive.iter().map(|(name, expression)| format!("({expression}) AS {}", quoted(name)));
        format!("(SELECT *, {} FROM {})", derived.collect::<Vec<_>>().join(", "), quoted(&self.table))
    }

    /// FROM and WHERE.
    fn rows(&self) -> String {
        let time = |instant: i64| format!("TIMESTAMP '{}'", instant_text(instant, None));
        let mut text = format!("FROM {}\nWHERE ", self.source());
        match self.compare {
            None => text.push_str(&format!("time >= {} AND time < {}", time(self.from), time(self.to))),
            Some(offset) => text.push_str(&format!(
                "time >= {} AND time < {}\n  AND (time < {} OR time >= {})",
                time(self.from - offset),
                time(self.to),
                time(self.to - offset),
                time(self.from)
            )),
        }
        for filter in &self.filters {
            text.push_str(&format!("\n  AND ({filter})"));
        }
        text
    }

    /// Which of the two periods a row is in: 0 is now.
    fn period(&self) -> Option<String> {
        self.compare.map(|_| {
            let from = instant_text(self.from, None);
            format!("CASE WHEN time >= TIMESTAMP '{from}' THEN 0 ELSE 1 END")
        })
    }

    fn bucket(&self) -> String {
        let width = match self.every {
            whole if whole % SECOND == 0 => format!("{} seconds", whole / SECOND),
            part => format!("{} milliseconds", part / 1_000_000),
        };
        format!("date_bin(INTERVAL '{width}', time)")
    }

    /// A SELECT with groups: keys with their names first, then what is shown.
    fn grouped(&self, keys: &[(String, String)], having: &[String]) -> String {
        let named = |(expression, name): &(String, String)| {
            let name = quoted(name);
            if *expression == name { name } else { format!("{expression} AS {name}") }
        };
        let shown = self.show.iter().map(|show| (show.clone(), show.clone()));
        let columns: Vec<String> = keys.iter().cloned().chain(shown).map(|column| named(&column)).collect();
        let mut text = format!("SELECT {}\n{}", columns.join(", "), self.rows());
        // A NULL that fills a column is no key.
        let places =
            keys.iter().enumerate().filter(|(_, (expression, _))| !expression.starts_with("CAST(NULL"));
        let places: Vec<String> = places.map(|(place, _)| (place + 1).to_string()).collect();
        if !places.is_empty() {
            text.push_str(&format!("\nGROUP BY {}", places.join(", ")));
        }
        if !having.is_empty() {
            let having: Vec<String> = having.iter().map(|having| format!("({having})")).collect();
            text.push_str(&format!("\nHAVING {}", having.join(" AND ")));
        }
        text
    }

    fn keys(&self) -> Vec<(String, String)> {
        let period = self.period().map(|period| (period, self.name("period")));
        let groups = self.group_by.iter().map(|group| (group.clone(), group.clone()));
        period.into_iter().chain(groups).collect()
    }

    /// Numbers of whole periods first, with no bucket; then those of each bucket.
    fn series(&self) -> String {
        let with_bucket = |bucket: String| {
            let mut keys = vec![(bucket, self.name("bucket"))];
            keys.extend(self.keys());
            keys
        };
        let totals = self.grouped(&with_bucket("CAST(NULL AS TIMESTAMP)".to_owned()), &self.having);
        let buckets = self.grouped(&with_bucket(self.bucket()), &[]);
        format!("{totals}\nUNION ALL\n{buckets}")
    }

    fn order(&self, first: &str) -> String {
        let order = self.order_by.clone().unwrap_or_else(|| format!("{first} DESC"));
        format!("ORDER BY {order} NULLS LAST\nLIMIT {}", self.limit)
    }

    fn groups(&self) -> String {
        let first = self.show.first().map_or_else(|| "1".to_owned(), |show| quoted(show));
        if self.compare.is_none() {
            return format!("{}\n{}", self.grouped(&self.keys(), &self.having), self.order(&first));
        }
        // Both periods side by side: each group has at most one row a period, of which max takes the value.
        let period = quoted(&self.name("period"));
        let groups = self.group_by.iter().map(|group| quoted(group));
        let shows = self.show.iter().flat_map(|show| {
            let name = quoted(show);
            let before = quoted(&format!("{show} before"));
            [(0, name.clone(), name.clone()), (1, name, before)]
        });
        let sides =
            shows.map(|(side, from, to)| format!("max(CASE WHEN {period} = {side} THEN {from} END) AS {to}"));
        let columns: Vec<String> = groups.chain(sides).collect();
        let mut text = format!(
            "WITH periods AS (\n{}\n)\nSELECT {}\nFROM periods",
            self.grouped(&self.keys(), &self.having),
            columns.join(", ")
        );
        if !self.group_by.is_empty() {
            let places: Vec<String> = (1..=self.group_by.len()).map(|place| place.to_string()).collect();
            text.push_str(&format!("\nGROUP BY {}", places.join(", ")));
        }
        format!("{text}\n{}", self.order(&first))
    }

    fn distribution(&self) -> String {
        let value = format!("({})", self.show.first().map_or("NULL", |show| values_of(show)));
        let bin = format!(
            "CASE WHEN {value} > 0 THEN CAST(floor(log2({value}) * {BINS_PER_OCTAVE}) AS BIGINT) \
             WHEN {value} = 0 THEN {BIN_ZERO} ELSE {BIN_NEGATIVE} END"
        );
        let filters = self.filters.iter().cloned().chain([format!("{value} IS NOT NULL")]).collect();
        let counted = Question { show: vec!["count(*)".to_owned()], filters, ..self.clone() };
        let keys = [(self.bucket(), self.name("bucket")), (bin, self.name("bin"))];
        counted.grouped(&keys, &[])
    }

    fn samples(&self) -> String {
        let order = self.order_by.as_deref().unwrap_or("time DESC");
        format!("SELECT *\n{}\nORDER BY {order}\nLIMIT {}", self.rows(), self.limit)
    }
}

#[cfg(test)]
mod tests;
