//! The bodies of partials: groups as one batch of keys and states, rows as batches of the plan's columns.
//!
//! A body travels in pieces so that no message grows without bound; each piece is a body of its own, and merging all
//! of them gives the body back. Reading checks every piece against the plan it answers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use gannet_query::{Body, Groups, Output, Plan, RowSet, States};

use crate::{ConvertError, MESSAGE_BYTES_MAX, decode_batches, encode_batches};

/// Groups or rows in one piece.
pub const PIECE_ROWS_MAX: usize = 65_536;

/// A piece of more than one row that comes out larger than this is cut in two, bytes; 8 MiB.
pub const PIECE_BYTES_MAX: usize = 8 << 20;

/// A body in pieces; none for a body without groups or rows.
///
/// # Errors
/// When a single group or row is larger than a message may be, or its types cannot be written.
pub fn encode_body(body: &Body) -> Result<Vec<Bytes>, ConvertError> {
    let mut pieces = Vec::new();
    match body {
        Body::Groups(groups) => encode_batch(&groups_batch(groups)?, &mut pieces)?,
        Body::Rows(rows) => rows.batches.iter().try_for_each(|batch| encode_batch(batch, &mut pieces))?,
    }
    Ok(pieces)
}

/// The body of one piece, checked against the plan.
///
/// # Errors
/// When the bytes are not a piece of an answer to this plan.
pub fn decode_body(plan: &Plan, bytes: &Bytes) -> Result<Body, ConvertError> {
    let batches = decode_batches(bytes)?;
    match &plan.output {
        Output::Groups { .. } => match batches.as_slice() {
            [batch] => Ok(Body::Groups(groups_of(plan, batch)?)),
            _ => Err(ConvertError::Body(format!("{} batches of groups in one piece, not 1", batches.len()))),
        },
        Output::Rows { columns, .. } => {
            let fields =
                columns.iter().map(|column| Field::new(&column.name, column.data_type.clone(), true));
            let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            let batches = batches.iter().map(|batch| rows_of(&schema, batch)).collect::<Result<_, _>>()?;
            Ok(Body::Rows(RowSet { batches }))
        }
    }
}

fn encode_batch(batch: &RecordBatch, pieces: &mut Vec<Bytes>) -> Result<(), ConvertError> {
    let mut open: Vec<RecordBatch> = (0..batch.num_rows())
        .step_by(PIECE_ROWS_MAX)
        .map(|start| batch.slice(start, PIECE_ROWS_MAX.min(batch.num_rows() - start)))
        .collect();
    open.reverse();
    while let Some(batch) = open.pop() {
        let bytes = encode_batches(&batch.schema(), std::slice::from_ref(&batch))?;
        let rows = batch.num_rows();
        if bytes.len() > PIECE_BYTES_MAX && rows > 1 {
            open.push(batch.slice(rows / 2, rows - rows / 2));
            open.push(batch.slice(0, rows / 2));
        } else if bytes.len() > MESSAGE_BYTES_MAX - 1024 {
            return Err(ConvertError::Limit {
                what: "bytes of one group or row",
                limit: MESSAGE_BYTES_MAX as u64,
            });
        } else {
            pieces.push(bytes);
        }
    }
    Ok(())
}

fn groups_batch(groups: &Groups) -> Result<RecordBatch, ConvertError> {
    let mut columns = groups.keys.clone();
    for states in &groups.states {
        columns.extend(states.to_arrays()?);
    }
    let named = columns.iter().enumerate();
    let fields: Vec<Field> =
        named.map(|(index, array)| Field::new(index.to_string(), array.data_type().clone(), true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(groups.group_count));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(|error| ConvertError::Arrow { what: "groups", text: error.to_string() })
}

fn groups_of(plan: &Plan, batch: &RecordBatch) -> Result<Groups, ConvertError> {
    let Output::Groups { keys, aggregates } = &plan.output else {
        return Err(ConvertError::Body("groups for a plan of rows".to_owned()));
    };
    if keys.is_empty() && batch.num_rows() > 1 {
        return Err(ConvertError::Body(format!("{} groups for a plan without keys", batch.num_rows())));
    }
    let mut columns = batch.columns();
    let mut next = |count: usize| -> Result<&[ArrayRef], ConvertError> {
        let (taken, rest) = columns.split_at_checked(count).ok_or_else(|| {
            ConvertError::Body(format!("{} columns are too few for the plan's groups", batch.num_columns()))
        })?;
        columns = rest;
        Ok(taken)
    };
    let key_columns = next(keys.len())?.to_vec();
    for (index, (column, key)) in key_columns.iter().zip(keys).enumerate() {
        check_type("group key", index, column.data_type(), &key.data_type)?;
    }
    let mut states = Vec::with_capacity(aggregates.len());
    for aggregate in aggregates {
        let types = States::array_types(aggregate, plan.weight)?;
        states.push(States::from_arrays(aggregate, plan.weight, next(types.len())?)?);
    }
    if !columns.is_empty() {
        return Err(ConvertError::Body(format!(
            "{} columns more than the plan's groups have",
            columns.len()
        )));
    }
    if let Some(states) = states.iter().find(|states| states.len() != batch.num_rows()) {
        return Err(ConvertError::Body(format!("{} states for {} groups", states.len(), batch.num_rows())));
    }
    Ok(Groups { keys: key_columns, states, group_count: batch.num_rows() })
}

fn rows_of(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, ConvertError> {
    if batch.num_columns() != schema.fields().len() {
        return Err(ConvertError::Body(format!(
            "rows of {} columns for a plan of {}",
            batch.num_columns(),
            schema.fields().len()
        )));
    }
    for (index, (column, field)) in batch.columns().iter().zip(schema.fields()).enumerate() {
        check_type("column", index, column.data_type(), field.data_type())?;
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)
        .map_err(|error| ConvertError::Arrow { what: "rows", text: error.to_string() })
}

fn check_type(what: &str, index: usize, found: &DataType, plan: &DataType) -> Result<(), ConvertError> {
    if found == plan {
        return Ok(());
    }
    Err(ConvertError::Body(format!("{what} {index} has type {found}, the plan says {plan}")))
}

#[cfg(test)]
mod tests;
