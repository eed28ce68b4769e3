//! Adding partial bodies up.

use arrow::array::{Array, RecordBatch};
use arrow::compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, take_record_batch};

use super::keys::Keys;
use super::{Body, Groups, RowSet};
use crate::plan::Key;
use crate::value::rows_bytes;
use crate::{OrderBy, Output, Plan, QueryError, States};

/// Rows beyond the limit are kept until there are this many, then sorted and cut.
const ROWS_SLACK: usize = 65_536;

/// Adds partial bodies of one plan up. Groups meet by the values of their keys; rows keep the plan's order and limit.
#[derive(Debug)]
pub struct Merger {
    memory_bytes_max: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Groups {
        plan_keys: Vec<Key>,
        keys: Keys,
        states: Vec<States>,
        /// The first body, kept as it is: most often there is no second one to merge it with.
        first: Option<Groups>,
    },
    Rows {
        order_by: Vec<OrderBy>,
        limit: Option<usize>,
        batches: Vec<RecordBatch>,
        rows: usize,
        bytes: usize,
    },
}

impl Merger {
    /// For a plan, within a memory limit.
    ///
    /// # Errors
    /// When the plan's keys or aggregates are of types that cannot be merged.
    pub fn new(plan: &Plan, memory_bytes_max: u64) -> Result<Merger, QueryError> {
        let kind = match &plan.output {
            Output::Groups { keys, aggregates } => {
                let mut states = aggregates
                    .iter()
                    .map(|aggregate| States::new(aggregate, plan.weight))
                    .collect::<Result<Vec<_>, _>>()?;
                if keys.is_empty() {
                    states.iter_mut().for_each(|states| states.resize(1));
                }
                Kind::Groups { plan_keys: keys.clone(), keys: Keys::new(keys)?, states, first: None }
            }
            Output::Rows { columns, order_by, limit } => {
                if let Some(term) = order_by.iter().find(|term| term.column >= columns.len()) {
                    return Err(QueryError::Mismatch(format!(
                        "order by column {} of {}",
                        term.column,
                        columns.len()
                    )));
                }
                let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
                Kind::Rows { order_by: order_by.clone(), limit, batches: Vec::new(), rows: 0, bytes: 0 }
            }
        };
        Ok(Merger { memory_bytes_max, kind })
    }

    /// Adds a body, of a block, a leaf or an aggregator.
    ///
    /// # Errors
    /// When it does not fit the plan, or the memory limit is met.
    pub fn push(&mut self, body: Body) -> Result<(), QueryError> {
        match (&mut self.kind, body) {
            (Kind::Groups { plan_keys, keys, states, first }, Body::Groups(groups)) => {
                check_groups(plan_keys, states.len(), &groups)?;
                if groups.group_count == 0 {
                    return Ok(());
                }
                if first.is_none() && keys.memory_bytes() == 0 && !plan_keys.is_empty() {
                    *first = Some(groups);
                    return Ok(());
                }
                if let Some(first) = first.take() {
                    merge_groups(keys, states, &first)?;
                }
                merge_groups(keys, states, &groups)?;
                let memory = keys.memory_bytes() + states.iter().map(States::memory_bytes).sum::<usize>();
                check_memory(memory, keys.len(), self.memory_bytes_max)
            }
            (Kind::Rows { order_by, limit, batches, rows, bytes }, Body::Rows(new)) => {
                for batch in new.batches {
                    *rows += batch.num_rows();
                    *bytes += rows_bytes(&batch);
                    batches.push(batch);
                }
                if limit.is_some_and(|limit| *rows > limit.saturating_mul(2).saturating_add(ROWS_SLACK)) {
                    *batches = sort_rows(std::mem::take(batches), order_by, *limit)?;
                    *rows = batches.iter().map(RecordBatch::num_rows).sum();
                    *bytes = batches.iter().map(rows_bytes).sum();
                }
                check_memory(*bytes, *rows, self.memory_bytes_max)
            }
            _ => Err(QueryError::Mismatch("groups and rows in one answer".to_owned())),
        }
    }

    /// The sum of all that was pushed; an empty body of the right types when nothing was.
    ///
    /// # Errors
    /// When keys or rows cannot be put together, which is a fault of ours.
    pub fn finish(self) -> Result<Body, QueryError> {
        match self.kind {
            Kind::Groups { first: Some(groups), .. } => Ok(Body::Groups(groups)),
            Kind::Groups { keys, mut states, plan_keys, .. } => {
                let group_count = keys.len();
                states.iter_mut().for_each(|states| states.resize(group_count));
                let columns = match group_count {
                    0 => plan_keys.iter().map(|key| arrow::array::new_empty_array(&key.data_type)).collect(),
                    _ => keys.columns()?,
                };
                Ok(Body::Groups(Groups { keys: columns, states, group_count }))
            }
            Kind::Rows { order_by, limit, batches, .. } => {
                Ok(Body::Rows(RowSet { batches: sort_rows(batches, &order_by, limit)? }))
            }
        }
    }
}

fn check_memory(bytes: usize, groups: usize, limit: u64) -> Result<(), QueryError> {
    if bytes as u64 > limit { Err(QueryError::Memory { groups, limit }) } else { Ok(()) }
}

fn check_groups(plan_keys: &[Key], state_count: usize, groups: &Groups) -> Result<(), QueryError> {
    let count = groups.group_count;
    let fits = groups.keys.len() == plan_keys.len()
        && groups.states.len() == state_count
        && groups.states.iter().all(|states| states.len() == count)
        && groups
            .keys
            .iter()
            .zip(plan_keys)
            .all(|(key, plan)| key.len() == count && key.data_type() == &plan.data_type)
        && (!plan_keys.is_empty() || count <= 1);
    if fits {
        return Ok(());
    }
    Err(QueryError::Mismatch(format!(
        "{count} groups with {} keys and {} states for a plan with {} keys and {state_count} aggregates",
        groups.keys.len(),
        groups.states.len(),
        plan_keys.len(),
    )))
}

fn merge_groups(keys: &mut Keys, states: &mut [States], groups: &Groups) -> Result<(), QueryError> {
    let to = keys.number(&groups.keys, groups.group_count)?;
    for (ours, theirs) in states.iter_mut().zip(&groups.states) {
        ours.resize(keys.len());
        ours.merge(theirs, &to)?;
    }
    Ok(())
}

/// All rows in the plan's order, at most `limit` of them.
fn sort_rows(
    mut batches: Vec<RecordBatch>,
    order_by: &[OrderBy],
    limit: Option<usize>,
) -> Result<Vec<RecordBatch>, QueryError> {
    let mismatch = |error: arrow::error::ArrowError| QueryError::Mismatch(format!("rows: {error}"));
    batches.retain(|batch| batch.num_rows() > 0);
    if order_by.is_empty() {
        let mut left = limit.unwrap_or(usize::MAX);
        for batch in &mut batches {
            *batch = batch.slice(0, batch.num_rows().min(left));
            left -= batch.num_rows();
        }
        batches.retain(|batch| batch.num_rows() > 0);
        return Ok(batches);
    }
    let Some(first) = batches.first() else { return Ok(batches) };
    let all = concat_batches(&first.schema(), &batches).map_err(mismatch)?;
    let columns: Vec<SortColumn> = order_by
        .iter()
        .map(|term| SortColumn {
            values: all.column(term.column).clone(),
            options: Some(SortOptions { descending: term.descending, nulls_first: term.nulls_first }),
        })
        .collect();
    let order = lexsort_to_indices(&columns, limit).map_err(mismatch)?;
    Ok(vec![take_record_batch(&all, &order).map_err(mismatch)?])
}
