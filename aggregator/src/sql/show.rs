//! SHOW TABLES, SHOW COLUMNS and DESCRIBE, answered from the catalogue in the user's words.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{ObjectName, ShowStatementOptions, Statement as SqlStatement};

use super::names;
use crate::catalogue::{Catalogue, CatalogueTable};
use crate::error::{ErrorCode, Failure};

/// The answer, if the statement is one of these.
pub(super) fn answer(statement: &Statement, catalogue: &Catalogue) -> Result<Option<RecordBatch>, Failure> {
    let Statement::Statement(statement) = statement else { return Ok(None) };
    match &**statement {
        SqlStatement::ShowTables { show_options, .. } => {
            refuse_options(show_options)?;
            tables(catalogue).map(Some)
        }
        SqlStatement::ExplainTable { table_name, .. } => describe(table_name, catalogue).map(Some),
        SqlStatement::ShowColumns { show_options, .. } => {
            let name = show_options.show_in.as_ref().and_then(|show_in| show_in.parent_name.as_ref());
            match name {
                Some(name) => describe(name, catalogue).map(Some),
                None => Err(Failure::new(ErrorCode::BadRequest, "SHOW COLUMNS needs a table")
                    .hint("Write DESCRIBE table.")),
            }
        }
        _ => Ok(None),
    }
}

fn refuse_options(options: &ShowStatementOptions) -> Result<(), Failure> {
    match options.filter_position.is_some() || options.show_in.is_some() {
        true => Err(Failure::new(ErrorCode::Unsupported, "SHOW TABLES takes no conditions")
            .hint("Ask information_schema.tables instead.")),
        false => Ok(()),
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, Failure> {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))
}

fn ints(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.map(|value| i64::try_from(value).unwrap_or(i64::MAX))))
}

fn tables(catalogue: &Catalogue) -> Result<RecordBatch, Failure> {
    let all = || catalogue.tables.values();
    let time = |pick: fn(&CatalogueTable) -> Option<i64>| -> ArrayRef {
        Arc::new(TimestampNanosecondArray::from_iter(all().map(pick)).with_timezone("+00:00"))
    };
    batch(vec![
        ("table", Arc::new(StringArray::from_iter_values(all().map(|table| &table.name)))),
        ("rows", ints(all().map(|table| table.rows))),
        ("columns", ints(all().map(|table| table.columns.len() as u64))),
        ("bytes", ints(all().map(|table| table.bytes))),
        ("oldest", time(|table| table.time_range.map(|(oldest, _)| oldest))),
        ("newest", time(|table| table.time_range.map(|(_, newest)| newest))),
    ])
}

fn describe(name: &ObjectName, catalogue: &Catalogue) -> Result<RecordBatch, Failure> {
    let table = names::find_table(name, catalogue)?;
    let columns = || table.columns.iter();
    batch(vec![
        ("column", Arc::new(StringArray::from_iter_values(columns().map(|column| &column.name)))),
        ("type", Arc::new(StringArray::from_iter_values(columns().map(|column| column.column_type.name())))),
        ("values", ints(columns().map(|column| column.value_count))),
        ("distinct_estimate", ints(columns().map(|column| column.distinct_estimate))),
        ("bytes", ints(columns().map(|column| column.bytes))),
    ])
}
