//! What there is: tables, their columns, and the leaves.

use std::time::Duration;

use serde::Deserialize;

use crate::client::Client;
use crate::error::Error;

/// How long the server may take to say what there is.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A table, in short.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Rows on all leaves that were heard of.
    pub rows: u64,
    /// Memory they take.
    pub bytes: u64,
    /// Time of the oldest row (RFC 3339).
    pub time_min: Option<String>,
    /// Time of the newest row (RFC 3339).
    pub time_max: Option<String>,
    /// How many columns it has.
    pub columns: u64,
}

/// A table with its columns.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TableDescription {
    /// Its name.
    pub name: String,
    /// Rows on all leaves that were heard of.
    pub rows: u64,
    /// Memory they take.
    pub bytes: u64,
    /// Time of the oldest row (RFC 3339).
    pub time_min: Option<String>,
    /// Time of the newest row (RFC 3339).
    pub time_max: Option<String>,
    /// Its columns.
    pub columns: Vec<TableColumn>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// `int`, `float`, `bool`, `string`, `strings` or `time`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The share of rows without a value.
    pub null_share: f64,
    /// About how many different values there are.
    pub distinct_estimate: u64,
    /// Memory they take.
    pub bytes: u64,
}

/// The leaves behind an aggregator.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Status {
    /// All rows are served.
    pub ready: bool,
    /// The aggregator itself.
    #[serde(default)]
    pub aggregator: AggregatorStatus,
    /// What is open to other machines without protection, because a person insisted.
    #[serde(default)]
    pub insecure: Vec<String>,
    /// Leaves that were heard of.
    pub leaves: Vec<LeafStatus>,
    /// Children of which nothing was ever heard.
    #[serde(default)]
    pub unheard: Vec<UnheardChild>,
    /// Other aggregators that it works with.
    #[serde(default)]
    pub aggregators: Vec<OtherAggregator>,
}

/// An aggregator that the one that was asked works with.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct OtherAggregator {
    /// Where it is.
    pub address: String,
    /// `child`, or `helper`: it asks groups of children for the one that was asked.
    pub role: String,
    /// `up` or `down`.
    pub state: String,
    /// The version of its program, when it said so.
    pub version: String,
    /// Why it is down.
    pub detail: String,
}

/// The aggregator that was asked.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AggregatorStatus {
    /// Its version.
    pub version: String,
    /// How long it has run.
    pub uptime_seconds: f64,
}

/// A leaf.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LeafStatus {
    /// Its id.
    pub leaf: String,
    /// Where the aggregator asks it.
    pub address: String,
    /// The version of its program.
    pub version: String,
    /// `serving`, `attaching`, …; `down` when it does not answer.
    pub state: String,
    /// Why it is down.
    pub detail: String,
    /// Where its rows came from when it started.
    pub source: String,
    /// Why not from somewhere faster.
    pub source_detail: String,
    /// Rows it holds.
    pub rows: u64,
    /// Rows that it once acknowledged and no longer has.
    pub rows_lost: u64,
    /// Rows it took since it started.
    pub rows_ingested: u64,
    /// Memory that its rows take.
    pub memory_used_bytes: u64,
    /// Memory that its rows may take.
    pub memory_limit_bytes: u64,
    /// What its start was made of.
    pub phases: Vec<Phase>,
}

/// A step of a leaf's start.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Phase {
    /// Which.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// What it read.
    pub bytes: u64,
}

/// A child that nothing was ever heard of.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct UnheardChild {
    /// Its address.
    pub leaf: String,
    /// Why.
    #[serde(default)]
    pub detail: String,
}

impl Client {
    /// The tables there are.
    ///
    /// # Errors
    /// When the server does not say.
    pub async fn tables(&self) -> Result<Vec<Table>, Error> {
        #[derive(Deserialize)]
        struct Tables {
            tables: Vec<Table>,
        }
        let tables: Tables = self.decode(&self.get(&["v1", "tables"], TIMEOUT).await?)?;
        Ok(tables.tables)
    }

    /// A table with its columns.
    ///
    /// # Errors
    /// When the server does not say; with status 404 when there is no such table.
    pub async fn table(&self, name: &str) -> Result<TableDescription, Error> {
        self.decode(&self.get(&["v1", "tables", name], TIMEOUT).await?)
    }

    /// The leaves and how they are.
    ///
    /// # Errors
    /// When the server does not say.
    pub async fn status(&self) -> Result<Status, Error> {
        self.decode(&self.get(&["v1", "status"], TIMEOUT).await?)
    }
}
