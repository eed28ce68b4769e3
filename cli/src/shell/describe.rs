//! The tables, with how many events came lately.

use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use futures::StreamExt;
use gannet_client::{Client, QueryOptions, Table as Listed};

use crate::charts::bars::sparkline;
use crate::outcome::Failure;
use crate::render::{Style, Table};
use crate::sql_names::quoted_name;
use crate::units;

/// Minutes that are drawn of each table.
const MINUTES: usize = 20;
/// Tables that are drawn; of many, drawing takes too long.
const DRAWN_MAX: usize = 50;
/// Questions that are asked at once.
const ASKED_AT_ONCE: usize = 4;
/// How long the minutes of a table may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A table and its events in the last minutes, oldest first; none when nobody knows.
pub(super) type Recent = (Listed, Vec<u64>);

/// Asks for the tables and their last minutes.
pub(super) async fn tables(client: &Client) -> Result<Vec<Recent>, Failure> {
    let tables = client.tables().await?;
    let drawn = if tables.len() <= DRAWN_MAX { tables.len() } else { 0 };
    let asked = tables.iter().take(drawn).map(|table| minutes(client, &table.name));
    let mut minutes: Vec<Vec<u64>> = futures::stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await;
    minutes.resize(tables.len(), Vec::new());
    Ok(tables.into_iter().zip(minutes).collect())
}

async fn minutes(client: &Client, table: &str) -> Vec<u64> {
    let sql = format!(
        "SELECT CAST(date_part('epoch', now() - date_trunc('minute', time)) / 60 AS BIGINT) AS ago, count(*) \
         FROM {} WHERE time > now() - interval '{MINUTES} minutes' AND time <= now() GROUP BY 1",
        quoted_name(table)
    );
    let options = QueryOptions { timeout: Some(TIMEOUT), min_completeness: None };
    let Ok(answer) = client.query(&sql, &options).await else { return Vec::new() };
    let mut counts = vec![0; MINUTES];
    for batch in &answer.batches {
        let numbers = |at: usize| {
            let column = cast(batch.columns().get(at)?, &DataType::Int64).ok()?;
            Some(column.as_primitive::<Int64Type>().clone())
        };
        let (Some(ago), Some(count)) = (numbers(0), numbers(1)) else { continue };
        for row in 0..batch.num_rows() {
            let place = usize::try_from(ago.value(row)).ok().and_then(|ago| MINUTES.checked_sub(1 + ago));
            if let (Some(place), true) = (place, count.is_valid(row)) {
                counts[place] = u64::try_from(count.value(row)).unwrap_or(0);
            }
        }
    }
    counts
}

/// The tables, one a line.
pub(super) fn tables_text(tables: &[Recent], style: Style) -> Result<String, Failure> {
    let last = format!("last {MINUTES} minutes");
    let columns = [
        ("table", false),
        ("rows", true),
        ("memory", true),
        (last.as_str(), false),
        ("newest", false),
        ("oldest", false),
    ];
    let mut shown = Table::new(columns.map(|(name, right)| (name.to_owned(), right)));
    for (table, minutes) in tables {
        shown.text_row([
            table.name.clone(),
            units::count(table.rows),
            units::bytes(table.bytes),
            sparkline(&levels(minutes), MINUTES, style.unicode),
            units::seconds_only(table.time_max.as_deref()),
            units::seconds_only(table.time_min.as_deref()),
        ]);
    }
    let mut out = Vec::new();
    let left_out = shown.write(&mut out, style)?;
    let mut text = String::from_utf8_lossy(&out).into_owned();
    text.push_str(&left_out.note(""));
    match tables.len() {
        0 => text.push_str("no tables yet: a table exists from its first row\n"),
        1 => text.push_str("1 table\n"),
        count => text.push_str(&format!("{count} tables\n")),
    }
    Ok(text)
}

/// A minute without events is a blank.
fn levels(counts: &[u64]) -> Vec<Option<f64>> {
    counts.iter().map(|count| (*count > 0).then_some(*count as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_listed_with_their_minutes() {
        let table = Listed {
            name: "requests".to_owned(),
            rows: 1_000_000,
            bytes: 61_234_567,
            time_min: Some("2026-11-20T09:00:00Z".to_owned()),
            time_max: Some("2026-11-21T09:00:00.123Z".to_owned()),
            columns: 13,
        };
        let text = tables_text(&[(table, vec![0, 1, 50, 100])], Style::PLAIN).unwrap();
        assert_eq!(
            text,
            " table    │      rows │  memory │ last 20 minutes │ newest               │ oldest\n\
             ──────────┼───────────┼─────────┼─────────────────┼──────────────────────┼──────────────────────\n \
             requests │ 1,000,000 │ 61.2 MB │  ▁▅█            │ 2026-11-21T09:00:00Z │ 2026-11-20T09:00:00Z\n\
             1 table\n"
        );
        assert!(
            tables_text(&[], Style::PLAIN)
                .unwrap()
                .ends_with("no tables yet: a table exists from its first row\n")
        );
    }
}
