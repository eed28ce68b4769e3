//! The SQL of a difference: for every column, how often each of its values is among the selected rows and among the rest.
//!
//! It is one statement, and both sides of a column are counted in one scan of it, so that a leaf that comes back meanwhile
//! is never taken for a difference.

use gannet_client::{TableColumn, TableDescription};

use crate::explore::question::quoted;
use crate::explore::span::instant_text;
use crate::query::statements::{is_closed, mentions};

/// Values of a column that are counted, those that occur most.
pub(crate) const VALUES_MAX: usize = 40;
/// Columns that are compared: each costs a scan.
pub(crate) const COLUMNS_MAX: usize = 100;
/// Ints with more values than this are compared by size.
const INT_VALUES_MAX: u64 = 64;
/// Columns of which a greater share of values is different tell rows apart, not groups of rows.
const DISTINCT_SHARE_MAX: f64 = 0.5;

/// What is compared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    /// The table.
    pub(crate) table: String,
    /// Which rows are selected.
    pub(crate) select: String,
    /// Which rows they are compared with; all others when nothing is said.
    pub(crate) against: Option<String>,
    /// Conditions that all rows fulfil.
    pub(crate) filters: Vec<String>,
    /// First instant.
    pub(crate) from: i64,
    /// First instant after.
    pub(crate) to: i64,
    /// The columns, in the order of their scans.
    pub(crate) columns: Vec<Compared>,
}

/// A column, and how its values are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compared {
    /// Its name.
    pub(crate) name: String,
    /// How.
    pub(crate) by: By,
}

/// How values are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Each for itself.
    Value,
    /// Numbers by their size: a bin is an octave.
    Octave,
    /// Lists by what they hold.
    List,
}

/// The columns to compare, and those that are left out with the reason.
pub(crate) fn choose(
    table: &TableDescription,
    conditions: &[&str],
) -> (Vec<Compared>, Vec<(String, &'static str)>) {
    let (mut chosen, mut left_out) = (Vec::new(), Vec::new());
    for column in &table.columns {
        match kind(column, table.rows, conditions) {
            Ok(by) if chosen.len() < COLUMNS_MAX => chosen.push(Compared { name: column.name.clone(), by }),
            Ok(_) => left_out.push((column.name.clone(), "too many columns")),
            Err("") => {}
            Err(why) => left_out.push((column.name.clone(), why)),
        }
    }
    (chosen, left_out)
}

fn kind(column: &TableColumn, rows: u64, conditions: &[&str]) -> Result<By, &'static str> {
    // Time is what selects, and a weight says nothing of an event.
    if column.name == "time" || column.name == "sample_rate" {
        return Err("");
    }
    if conditions.iter().any(|condition| mentions(condition, &column.name)) {
        return Err("selects");
    }
    let distinct_share = column.distinct_estimate as f64 / rows.max(1) as f64;
    match column.type_name.as_str() {
        "float" => Ok(By::Octave),
        "int" if column.distinct_estimate > INT_VALUES_MAX => Ok(By::Octave),
        "time" => Err("is a time"),
        _ if distinct_share > DISTINCT_SHARE_MAX && column.distinct_estimate > VALUES_MAX as u64 => {
            Err("nearly every value is different")
        }
        "strings" => Ok(By::List),
        _ => Ok(By::Value),
    }
}

impl Question {
    /// Checks what would make SQL that means something else than what was written.
    pub(crate) fn check(&self) -> Result<(), String> {
        let written = [&self.select].into_iter().chain(&self.against).chain(&self.filters);
        for text in written {
            if text.trim().is_empty() || !is_closed(text) {
                return Err(format!(
                    "`{text}` is no condition of its own: quotes and parentheses must close, and ; and -- end it"
                ));
            }
        }
        if self.from >= self.to {
            let (from, to) = (instant_text(self.from, None), instant_text(self.to, None));
            return Err(format!("the range from {from} to {to} is empty"));
        }
        Ok(())
    }

    /// The SQL: the number of rows on both sides, then the values of each column by its place.
    pub(crate) fn sql(&self) -> String {
        let mut text = self.branch("-1", "CAST(NULL AS VARCHAR)", false);
        for (place, column) in self.columns.iter().enumerate() {
            let name = quoted(&column.name);
            let value = match column.by {
                By::Value => format!("CAST({name} AS VARCHAR)"),
                By::List => format!("array_to_string({name}, ', ')"),
                By::Octave => format!(
                    "CAST(CASE WHEN {name} > 0 THEN floor(log2({name})) WHEN {name} = 0 THEN -9999 \
                     WHEN {name} < 0 THEN -10000 END AS VARCHAR)"
                ),
            };
            text.push_str("\nUNION ALL\n");
            text.push_str(&self.branch(&place.to_string(), &value, true));
        }
        text
    }

    fn branch(&self, place: &str, value: &str, is_grouped: bool) -> String {
        let select = &self.select;
        let rest = match &self.against {
            Some(against) => format!("({against}) AND ({select}) IS NOT TRUE"),
            None => format!("({select}) IS NOT TRUE"),
        };
        let mut text = format!(
            "(SELECT {place} AS place, {value} AS value, count(*) FILTER (WHERE {select}) AS selected, \
             count(*) FILTER (WHERE {rest}) AS rest\nFROM {}\nWHERE time >= TIMESTAMP '{}' AND time < TIMESTAMP '{}'",
            quoted(&self.table),
            instant_text(self.from, None),
            instant_text(self.to, None),
        );
        for filter in &self.filters {
            text.push_str(&format!("\n  AND ({filter})"));
        }
        if is_grouped {
            text.push_str(&format!("\nGROUP BY 2\nORDER BY count(*) DESC\nLIMIT {VALUES_MAX}"));
        }
        text.push(')');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            table: "requests".to_owned(),
            select: "status >= 500".to_owned(),
            against: None,
            filters: vec!["region = 'eu'".to_owned()],
            from: 1_795_251_600_000_000_000,
            to: 1_795_255_200_000_000_000,
            columns: vec![
                Compared { name: "service".to_owned(), by: By::Value },
                Compared { name: "Bytes".to_owned(), by: By::Octave },
                Compared { name: "tags".to_owned(), by: By::List },
            ],
        }
    }

    #[test]
    fn every_column_is_counted_on_both_sides() {
        let rows = "FROM requests\nWHERE time >= TIMESTAMP '2026-11-21T09:00:00Z' AND time < TIMESTAMP \
                    '2026-11-21T10:00:00Z'\n  AND (region = 'eu')";
        let counts = "count(*) FILTER (WHERE status >= 500) AS selected, \
                      count(*) FILTER (WHERE (status >= 500) IS NOT TRUE) AS rest";
        let end = "\nGROUP BY 2\nORDER BY count(*) DESC\nLIMIT 40)";
        let octave = "CAST(CASE WHEN \"Bytes\" > 0 THEN floor(log2(\"Bytes\")) WHEN \"Bytes\" = 0 THEN -9999 \
                      WHEN \"Bytes\" < 0 THEN -10000 END AS VARCHAR)";
        assert_eq!(
            question().sql(),
            format!(
                "(SELECT -1 AS place, CAST(NULL AS VARCHAR) AS value, {counts}\n{rows})\nUNION ALL\n\
                 (SELECT 0 AS place, CAST(service AS VARCHAR) AS value, {counts}\n{rows}{end}\nUNION ALL\n\
                 (SELECT 1 AS place, {octave} AS value, {counts}\n{rows}{end}\nUNION ALL\n\
                 (SELECT 2 AS place, array_to_string(tags, ', ') AS value, {counts}\n{rows}{end}"
            )
        );
        let against = Question { against: Some("status < 400".to_owned()), columns: vec![], ..question() };
        assert!(
            against.sql().contains("FILTER (WHERE (status < 400) AND (status >= 500) IS NOT TRUE) AS rest")
        );
        let open = Question { select: "a) OR (b".to_owned(), ..question() };
        assert_eq!(
            open.check(),
            Err("`a) OR (b` is no condition of its own: quotes and parentheses must close, and ; and -- end it"
                .to_owned())
        );
    }

    #[test]
    fn columns_that_say_nothing_are_left_out() {
        let column = |name: &str, type_name: &str, distinct_estimate| TableColumn {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            null_share: 0.0,
            distinct_estimate,
            bytes: 0,
        };
        let table = TableDescription {
            name: "t".to_owned(),
            rows: 1000,
            bytes: 0,
            time_min: None,
            time_max: None,
            columns: vec![
                column("time", "time", 1000),
                column("status", "int", 5),
                column("bytes", "int", 900),
                column("ms", "float", 3),
                column("trace", "string", 990),
                column("service", "string", 10),
                column("tags", "strings", 10),
            ],
        };
        let (chosen, left_out) = choose(&table, &["Status >= 500"]);
        let chosen: Vec<_> = chosen.iter().map(|column| (column.name.as_str(), column.by)).collect();
        assert_eq!(
            chosen,
            [("bytes", By::Octave), ("ms", By::Octave), ("service", By::Value), ("tags", By::List)]
        );
        assert_eq!(
            left_out,
            [("status".to_owned(), "selects"), ("trace".to_owned(), "nearly every value is different")]
        );
    }
}
