//! The roster as JSON text, for its file.
//!
//! Reading checks everything: a roster that was read wrongly would expect too few rows without anyone noticing.

use std::collections::BTreeMap;

use gannet_query::{ColumnHolding, Span, TableHolding, TypeSet};
use serde::{Deserialize, Serialize};

use super::{ChildRecord, LeafRecord, Roster, Standing, TableRecord};

/// The version of the text that this build writes; the first had no decisions.
const VERSION: u32 = 2;
/// The first version: what is written as long as nothing was decided, so that an older build can read it.
const VERSION_FIRST: u32 = 1;

/// Rows of one span that are believed.
const SPAN_ROWS_MAX: u64 = 1 << 40;

/// Why a text is not a roster.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// Not JSON of the right shape.
    #[error("roster is not what was written: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by another version.
    #[error("roster has version {0}, this build reads {VERSION_FIRST} to {VERSION}")]
    Version(u32),
    /// A span that cannot be.
    #[error("roster of leaf `{leaf}`, table `{table}`: span [{first}, {last}] of {rows} rows cannot be")]
    Span {
        /// Whose.
        leaf: String,
        /// Of which table.
        table: String,
        /// Its first time.
        first: i64,
        /// Its last time.
        last: i64,
        /// Its rows.
        rows: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct Text {
    version: u32,
    leaves: Vec<LeafText>,
    /// By child: leaves below it of which nothing was heard but that they must exist, with why.
    #[serde(default)]
    unheard: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    standings: Vec<StandingText>,
}

#[derive(Serialize, Deserialize)]
struct StandingText {
    leaf: String,
    home: String,
    number: u64,
    is_out: bool,
    forgotten_epoch: u64,
    accepted_epoch: u64,
}

#[derive(Serialize, Deserialize)]
struct LeafText {
    leaf: String,
    child: String,
    epoch: u64,
    rows_ingested: u64,
    #[serde(default)]
    rows_restored: u64,
    tables: Vec<TableText>,
}

#[derive(Serialize, Deserialize)]
struct TableText {
    name: String,
    rows: u64,
    bytes: u64,
    time_range: Option<(i64, i64)>,
    schema_version: u64,
    retention_seconds: u64,
    #[serde(default)]
    gone: bool,
    spans: Vec<(i64, i64, u64)>,
    #[serde(default)]
    by_time: Vec<(i64, i64, u64)>,
    lost: Vec<(i64, i64, u64)>,
    lost_unknown_to_leaf: Vec<(i64, i64, u64)>,
    columns: Vec<ColumnText>,
}

#[derive(Serialize, Deserialize)]
struct ColumnText {
    name: String,
    types: u8,
    value_count: u64,
    distinct_estimate: u64,
    bytes: u64,
}

impl Roster {
    /// The roster as text.
    pub fn to_text(&self) -> String {
        let unheard = |record: &ChildRecord| -> BTreeMap<String, String> {
            let known = |leaf: &String| self.leaves.contains_key(leaf);
            record
                .unreachable
                .iter()
                .filter(|(leaf, _)| !known(leaf))
                .map(|(leaf, why)| (leaf.clone(), why.clone()))
                .collect()
        };
        let text = Text {
            version: if self.standings.is_empty() { VERSION_FIRST } else { VERSION },
            leaves: self.leaves.iter().map(|(leaf, record)| leaf_text(leaf, record)).collect(),
            unheard: self
                .children
                .iter()
                .map(|(child, record)| (child.clone(), unheard(record)))
                .filter(|(_, unheard)| !unheard.is_empty())
                .collect(),
            standings: self.standings.iter().map(standing_text).collect(),
        };
        // Maps with string keys, numbers and strings always have a JSON form.
        serde_json::to_string(&text).unwrap_or_default()
    }

    /// A roster from its text.
    ///
    /// # Errors
    /// When the text is not one that [`Roster::to_text`] of this version wrote.
    pub fn from_text(text: &str) -> Result<Roster, RosterError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_str(text)?;
        if !(VERSION_FIRST..=VERSION).contains(&head.version) {
            return Err(RosterError::Version(head.version));
        }
        let text: Text = serde_json::from_str(text)?;
        let mut roster = Roster::default();
        for leaf in text.leaves {
            let mut tables = BTreeMap::new();
            for table in leaf.tables {
                let name = table.name.clone();
                tables.insert(name, table_of(&leaf.leaf, table)?);
            }
            let record = LeafRecord {
                child: leaf.child,
                epoch: leaf.epoch,
                rows_ingested: leaf.rows_ingested,
                rows_restored: leaf.rows_restored,
                tables,
                said: None,
            };
            roster.leaves.insert(leaf.leaf, record);
        }
        for (child, unreachable) in text.unheard {
            roster.children.insert(child, ChildRecord { unreachable, ..Default::default() });
        }
        for text in text.standings {
            let StandingText { number, is_out, forgotten_epoch, accepted_epoch, .. } = text;
            let standing = Standing { number, is_out, forgotten_epoch, accepted_epoch };
            roster.standings.insert(text.leaf, (standing, text.home));
        }
        Ok(roster)
    }
}

fn standing_text((leaf, (standing, home)): (&String, &(Standing, String))) -> StandingText {
    StandingText {
        leaf: leaf.clone(),
        home: home.clone(),
        number: standing.number,
        is_out: standing.is_out,
        forgotten_epoch: standing.forgotten_epoch,
        accepted_epoch: standing.accepted_epoch,
    }
}

fn leaf_text(leaf: &str, record: &LeafRecord) -> LeafText {
    LeafText {
        leaf: leaf.to_owned(),
        child: record.child.clone(),
        epoch: record.epoch,
        rows_ingested: record.rows_ingested,
        rows_restored: record.rows_restored,
        tables: record.tables.values().map(table_text).collect(),
    }
}

fn table_text(table: &TableRecord) -> TableText {
    let spans =
        |spans: &[Span]| spans.iter().map(|span| (span.first, span.last, span.rows)).collect::<Vec<_>>();
    let holding = &table.holding;
    let column = |column: &ColumnHolding| ColumnText {
        name: column.name.clone(),
        types: column.types.bits(),
        value_count: column.value_count,
        distinct_estimate: column.distinct_estimate,
        bytes: column.bytes,
    };
    TableText {
        name: holding.name.clone(),
        rows: holding.rows,
        bytes: holding.bytes,
        time_range: holding.time_range,
        schema_version: holding.schema_version,
        retention_seconds: holding.retention_seconds,
        gone: table.gone,
        spans: spans(&holding.spans),
        by_time: spans(&holding.by_time),
        lost: spans(&holding.lost),
        lost_unknown_to_leaf: spans(&table.lost),
        columns: holding.columns.iter().map(column).collect(),
    }
}

fn table_of(leaf: &str, table: TableText) -> Result<TableRecord, RosterError> {
    let spans = |spans: &[(i64, i64, u64)]| -> Result<Vec<Span>, RosterError> {
        let span = |&(first, last, rows): &(i64, i64, u64)| {
            if first > last || rows > SPAN_ROWS_MAX {
                let (leaf, table) = (leaf.to_owned(), table.name.clone());
                return Err(RosterError::Span { leaf, table, first, last, rows });
            }
            Ok(Span { first, last, rows })
        };
        spans.iter().map(span).collect()
    };
    let column = |column: &ColumnText| ColumnHolding {
        name: column.name.clone(),
        types: TypeSet::from_bits(column.types),
        value_count: column.value_count,
        distinct_estimate: column.distinct_estimate,
        bytes: column.bytes,
    };
    let holding = TableHolding {
        rows: table.rows,
        bytes: table.bytes,
        spans: spans(&table.spans)?,
        by_time: spans(&table.by_time)?,
        lost: spans(&table.lost)?,
        time_range: table.time_range,
        columns: table.columns.iter().map(column).collect(),
        schema_version: table.schema_version,
        retention_seconds: table.retention_seconds,
        name: table.name.clone(),
    };
    let lost = spans(&table.lost_unknown_to_leaf)?;
    Ok(TableRecord { holding, lost, gone: table.gone, grew: 0, credit: 0 })
}
