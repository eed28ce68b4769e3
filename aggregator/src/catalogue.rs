//! The tables and columns that the leaves hold, as one picture for the planner.
//!
//! A column of the catalogue has the least type that holds every value any leaf has of it. Nobody creates or alters
//! anything here: a table is in the catalogue because some leaf holds rows of it (or did, and is expected back).

use std::collections::BTreeMap;

use gannet_query::{ColumnType, Holdings, TIME_COLUMN, TypeSet};

/// Every table, by exact name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalogue {
    /// By name.
    pub tables: BTreeMap<String, CatalogueTable>,
}

/// One table over all leaves.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CatalogueTable {
    /// Its name.
    pub name: String,
    /// `time` first, then by name.
    pub columns: Vec<CatalogueColumn>,
    /// Rows on all leaves.
    pub rows: u64,
    /// Bytes on all leaves.
    pub bytes: u64,
    /// Oldest and newest row time.
    pub time_range: Option<(i64, i64)>,
}

/// One column over all leaves.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogueColumn {
    /// Its exact name.
    pub name: String,
    /// The least type that holds all its values.
    pub column_type: ColumnType,
    /// Rows that have a value.
    pub value_count: u64,
    /// Estimate of distinct values, from the leaf that has most.
    pub distinct_estimate: u64,
    /// Bytes on all leaves.
    pub bytes: u64,
}

impl CatalogueTable {
    /// A column by its exact name.
    pub fn column(&self, name: &str) -> Option<&CatalogueColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl Catalogue {
    /// Whether both have the same tables with the same columns of the same types.
    pub(crate) fn has_columns_of(&self, other: &Catalogue) -> bool {
        let same_column = |(one, other): (&CatalogueColumn, &CatalogueColumn)| {
            one.column_type == other.column_type && one.name == other.name
        };
        self.tables.len() == other.tables.len()
            && self.tables.iter().zip(&other.tables).all(|((name, one), (other_name, other))| {
                name == other_name
                    && one.columns.len() == other.columns.len()
                    && one.columns.iter().zip(&other.columns).all(same_column)
            })
    }

    /// The picture of these leaves together.
    pub fn from_holdings<'a>(leaves: impl IntoIterator<Item = &'a Holdings>) -> Catalogue {
        let mut types: BTreeMap<(String, String), TypeSet> = BTreeMap::new();
        let mut catalogue = Catalogue::default();
        for table in leaves.into_iter().flat_map(|leaf| &leaf.tables) {
            let merged = catalogue.tables.entry(table.name.clone()).or_default();
            merged.name.clone_from(&table.name);
            merged.rows += table.rows;
            merged.bytes += table.bytes;
            merged.time_range = match (merged.time_range, table.time_range) {
                (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
                (one, other) => one.or(other),
            };
            for column in &table.columns {
                let seen = types.entry((table.name.clone(), column.name.clone())).or_default();
                *seen = seen.union(column.types);
                let column_type = seen.resolve().unwrap_or(ColumnType::Bool);
                match merged.columns.iter_mut().find(|known| known.name == column.name) {
                    Some(known) => {
                        known.column_type = column_type;
                        known.value_count += column.value_count;
                        known.distinct_estimate = known.distinct_estimate.max(column.distinct_estimate);
                        known.bytes += column.bytes;
                    }
                    None => merged.columns.push(CatalogueColumn {
                        name: column.name.clone(),
                        column_type,
                        value_count: column.value_count,
                        distinct_estimate: column.distinct_estimate,
                        bytes: column.bytes,
                    }),
                }
            }
        }
        for table in catalogue.tables.values_mut() {
            table
                .columns
                .sort_by(|a, b| (a.name != TIME_COLUMN, &a.name).cmp(&(b.name != TIME_COLUMN, &b.name)));
        }
        catalogue
    }
}
