//! The columns of a table, with their most frequent values.
//!
//! Values are asked for column by column, of columns that repeat themselves; ids and measurements have none worth
//! showing. A column whose values do not come in time is shown without them.

use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use futures::StreamExt;
use gannet_client::{Client, QueryOptions, TableColumn, TableDescription};

use crate::cells::Cells;
use crate::outcome::Failure;
use crate::render::{self, Style, Table};
use crate::sql_names::quoted_name;
use crate::units;

/// Values that are shown of a column.
const VALUES_SHOWN: usize = 5;
/// Columns of more different values have no frequent ones.
const DISTINCT_MAX: u64 = 10_000;
/// Rows that may be open, of which it is not known how many values are different.
const OPEN_ROWS_MAX: u64 = 500_000;
/// A value is cut at this width.
const VALUE_WIDTH_MAX: usize = 24;
/// Questions that are asked at once.
const ASKED_AT_ONCE: usize = 4;
/// How long the values of a column may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks for a table and its values, and writes all of it.
pub(crate) async fn text(client: &Client, table: &str, style: Style) -> Result<String, Failure> {
    let table = client.table(table).await?;
    let asked = table.columns.iter().map(|column| frequent(client, &table, column));
    let values: Vec<String> = futures::stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await;
    Ok(described(&table, &values, style))
}

/// The columns, one a line, with values where there are any.
pub(super) fn described(table: &TableDescription, values: &[String], style: Style) -> String {
    let mut columns =
        vec![("column", false), ("type", false), ("null", true), ("distinct", true), ("memory", true)];
    let has_values = values.iter().any(|values| !values.is_empty());
    if has_values {
        columns.push(("most frequent values", false));
    }
    let mut shown = Table::new(columns.into_iter().map(|(name, right)| (name.to_owned(), right)));
    for (index, column) in table.columns.iter().enumerate() {
        let mut texts = vec![
            column.name.clone(),
            column.type_name.clone(),
            null_percent(column.null_share),
            units::count(column.distinct_estimate),
            units::bytes(column.bytes),
        ];
        if has_values {
            texts.push(values.get(index).cloned().unwrap_or_default());
        }
        shown.text_row(texts);
    }
    let mut out = Vec::new();
    // Writing to memory does not fail.
    let left_out = shown.write(&mut out, style).unwrap_or_default();
    let mut text = String::from_utf8_lossy(&out).into_owned();
    text.push_str(&left_out.note(""));
    // A name may hold anything; the renderer made the columns' names harmless, this is the table's.
    let name: String = table.name.chars().filter(|c| !c.is_control()).collect();
    let columns = table.columns.len();
    let mut all =
        format!("{name}: {columns} columns · {} · {}", units::rows(table.rows), units::bytes(table.bytes));
    if let (Some(min), Some(max)) = (&table.time_min, &table.time_max) {
        let [min, max] = [min, max].map(|time| units::seconds_only(Some(time)));
        all.push_str(&format!(" · {min} to {max}"));
    }
    text.push_str(&render::fold(&all, style));
    text.push('\n');
    text
}

/// `feed 31%, search 20%, …`; nothing for a column that has no frequent values.
async fn frequent(client: &Client, table: &TableDescription, column: &TableColumn) -> String {
    let repeats = matches!(column.type_name.as_str(), "string" | "int" | "bool" | "strings")
        && column.distinct_estimate <= DISTINCT_MAX
        // Of open rows nobody knows how many are different.
        && (column.distinct_estimate > 0 || table.rows <= OPEN_ROWS_MAX)
        && column.name != "time";
    if !repeats {
        return String::new();
    }
    let (table, column) = (quoted_name(&table.name), quoted_name(&column.name));
    let sql = format!(
        "SELECT {column} AS value, unweighted(count(*)) AS n FROM {table} WHERE {column} IS NOT NULL \
         GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {VALUES_SHOWN}"
    );
    let all = format!("SELECT unweighted(count(*)) FROM {table}");
    let options = QueryOptions { timeout: Some(TIMEOUT), min_completeness: None };
    let (values, all) = tokio::join!(client.query(&sql, &options), client.query(&all, &options));
    let (Ok(values), Ok(all)) = (values, all) else { return String::new() };
    let all = all.batches.first().and_then(|batch| number(batch.columns().first()?, 0)).unwrap_or(0);
    let mut shown = Vec::new();
    let mut most = 0;
    for batch in &values.batches {
        let [value, count] = batch.columns() else { continue };
        let Ok(cells) = Cells::new(value, None) else { continue };
        for row in 0..batch.num_rows() {
            most = most.max(number(count, row).unwrap_or(0));
            let text = cells.text(row).unwrap_or_default();
            let text = render::cut(&render::cell_text(&text), VALUE_WIDTH_MAX, Style::PLAIN);
            shown.push(format!("{text} {}", share(number(count, row).unwrap_or(0), all)));
        }
    }
    // Where every value is there once, none is frequent.
    if most <= 1 && all > VALUES_SHOWN as u64 { String::new() } else { shown.join(", ") }
}

fn number(column: &arrow::array::ArrayRef, row: usize) -> Option<u64> {
    let column = cast(column, &DataType::Int64).ok()?;
    let column = column.as_primitive_opt::<Int64Type>()?;
    (row < column.len() && column.is_valid(row)).then(|| u64::try_from(column.value(row)).unwrap_or(0))
}

/// Whole percents, rounded down; what is there at all is not 0 %.
fn share(part: u64, all: u64) -> String {
    match u128::from(part) * 100 / u128::from(all.max(1)) {
        0 => "<1%".to_owned(),
        percent => format!("{}%", percent.min(100)),
    }
}

/// `0%` and `100%` only for exactly none and all.
fn null_percent(share: f64) -> String {
    match share {
        share if share <= 0.0 => "0%".to_owned(),
        share if share >= 1.0 => "100%".to_owned(),
        share => format!("{:.1}%", (share * 100.0).clamp(0.1, 99.9)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_described() {
        let table = json!({"name": "t\n", "rows": 10, "bytes": 1200, "time_min": null, "time_max": null, "columns": [
            {"name": "time", "type": "time", "null_share": 0.0, "distinct_estimate": 10, "bytes": 700},
            {"name": "error", "type": "string", "null_share": 0.9999, "distinct_estimate": 1, "bytes": 500},
        ]});
        let table: TableDescription = serde_json::from_value(table).unwrap();
        let check = |values: &[&str], expect: &str| {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            assert_eq!(described(&table, &values, Style::PLAIN), expect);
        };
        check(
            &[],
            " column │ type   │  null │ distinct │ memory\n\
             ────────┼────────┼───────┼──────────┼────────\n \
             time   │ time   │    0% │       10 │  700 B\n \
             error  │ string │ 99.9% │        1 │  500 B\n\
             t: 2 columns · 10 rows · 1.2 KB\n",
        );
        check(
            &["", "no such item <1%"],
            " column │ type   │  null │ distinct │ memory │ most frequent values\n\
             ────────┼────────┼───────┼──────────┼────────┼──────────────────────\n \
             time   │ time   │    0% │       10 │  700 B │\n \
             error  │ string │ 99.9% │        1 │  500 B │ no such item <1%\n\
             t: 2 columns · 10 rows · 1.2 KB\n",
        );
    }

    #[test]
    fn shares_are_not_rounded_up() {
        assert_eq!(
            [share(0, 0), share(1, 1000), share(999, 1000), share(5, 5)],
            ["<1%", "<1%", "99%", "100%"]
        );
    }
}
