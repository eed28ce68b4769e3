//! Adding partial bodies up.
//!
//! [`Merger::push`] takes bodies one after the other. Several mergers, of several threads, become one body either by
//! pushing what they finish to one of them, or by [`Merger::shares`], which leaves nothing for one thread to do alone
//! but to put what the shares gave behind one another.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, take_record_batch};

use super::keys::KeyForm;
use super::parts::{FEW_MAX, Gathered, Part, Shares, Waiting, merge_share};
use super::{Body, Groups, PlacedKeys, RowSet};
use crate::plan::Key;
use crate::value::rows_bytes;
use crate::{OrderBy, Output, Plan, QueryError, States, Top};

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
    Groups(GroupsKind),
    Rows {
        order_by: Vec<OrderBy>,
        limit: Option<usize>,
        batches: Vec<RecordBatch>,
        rows: usize,
        bytes: usize,
    },
}

#[derive(Debug)]
struct GroupsKind {
    plan_keys: Vec<Key>,
    form: Arc<KeyForm>,
    /// The states of no groups.
    empty: Vec<States>,
    gathered: Gathered,
    /// The first body, kept as it is: most often there is no second one to merge it with.
    first: Option<Groups>,
}

impl Merger {
    /// For a plan, within a memory limit.
    ///
    /// # Errors
    /// When the plan's keys or aggregates are of types that cannot be merged.
    pub fn new(plan: &Plan, memory_bytes_max: u64) -> Result<Merger, QueryError> {
        let kind = match &plan.output {
            Output::Groups { keys, aggregates } => {
                let empty = aggregates
                    .iter()
                    .map(|aggregate| States::new(aggregate, plan.weight))
                    .collect::<Result<Vec<_>, _>>()?;
                let form = Arc::new(KeyForm::new(keys)?);
                let gathered = Gathered::Few(Part::new(&form, &empty));
                Kind::Groups(GroupsKind { plan_keys: keys.clone(), form, empty, gathered, first: None })
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
            (Kind::Groups(kind), Body::Groups(groups)) => {
                check_groups(&kind.plan_keys, kind.empty.len(), &groups)?;
                if groups.group_count > 0
                    && kind.first.is_none()
                    && kind.gathered.memory_bytes() == 0
                    && !kind.plan_keys.is_empty()
                {
                    kind.first = Some(groups);
                    return Ok(());
                }
                kind.push(groups, self.memory_bytes_max)
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

    /// Adds a body that came in pieces: no group is in two of them, so they are put behind one another without a look
    /// at their keys.
    ///
    /// # Errors
    /// As [`Merger::push`].
    pub fn push_pieces(&mut self, mut pieces: Vec<Body>) -> Result<(), QueryError> {
        let is_groups = |piece: &Body| matches!(piece, Body::Groups(_));
        if let Kind::Groups(kind) = &self.kind
            && pieces.len() > 1
            && pieces.iter().all(is_groups)
        {
            for piece in &pieces {
                if let Body::Groups(groups) = piece {
                    check_groups(&kind.plan_keys, kind.empty.len(), groups)?;
                }
            }
            if kind.plan_keys.is_empty() {
                return Err(QueryError::Mismatch("one group in several pieces".to_owned()));
            }
            pieces = vec![Merger::join(pieces, self.memory_bytes_max)?];
        }
        pieces.into_iter().try_for_each(|piece| self.push(piece))
    }

    /// Adds rows, each a group of its own, whose states are those of their places.
    ///
    /// # Errors
    /// When the plan has another key than one of ints, or as [`Merger::push`].
    pub fn push_placed(&mut self, placed: PlacedKeys, states: Vec<States>) -> Result<(), QueryError> {
        let Kind::Groups(kind) = &mut self.kind else {
            return Err(QueryError::Mismatch("groups and rows in one answer".to_owned()));
        };
        let rows = placed.len();
        let are_of_rows = |states: &States| states.len() == rows;
        let is_int = matches!(&*kind.form, KeyForm::Int(_));
        if !is_int || states.len() != kind.empty.len() || !states.iter().all(are_of_rows) {
            return Err(QueryError::Mismatch(format!(
                "{rows} rows with one int key and {} states for a plan with {} keys and {} aggregates",
                states.len(),
                kind.plan_keys.len(),
                kind.empty.len(),
            )));
        }
        kind.push_first(self.memory_bytes_max)?;
        kind.gathered.push_placed(&kind.form, &kind.empty, placed, states, self.memory_bytes_max)
    }

    /// The sum of all that was pushed; an empty body of the right types when nothing was.
    ///
    /// # Errors
    /// When keys or rows cannot be put together, which is a fault of ours.
    pub fn finish(self) -> Result<Body, QueryError> {
        match self.kind {
            Kind::Groups(GroupsKind { first: Some(mut groups), .. }) => {
                groups.states.iter_mut().for_each(States::settle);
                Ok(Body::Groups(groups))
            }
            Kind::Groups(kind) => Ok(Body::Groups(kind.gathered.finish(&kind.form, &kind.empty)?)),
            Kind::Rows { order_by, limit, batches, .. } => {
                Ok(Body::Rows(RowSet { batches: sort_rows(batches, &order_by, limit)? }))
            }
        }
    }

    /// Cuts what several mergers of one plan hold into shares that can be merged at the same time, each by a thread of
    /// its own; [`Merger::join`] makes one body of what they give. Few groups, or rows, are one share.
    ///
    /// # Errors
    /// As [`Merger::push`].
    pub fn shares(mut mergers: Vec<Merger>) -> Result<Vec<Share>, QueryError> {
        let is_many = |merger: &Merger| match &merger.kind {
            Kind::Groups(kind) => kind.is_many(),
            Kind::Rows { .. } => false,
        };
        if mergers.len() < 2 || !mergers.iter().any(is_many) {
            return Ok(vec![Share(Work::Whole(mergers))]);
        }
        let mut threads = Vec::with_capacity(mergers.len());
        let mut plan = None;
        for merger in &mut mergers {
            let memory_bytes_max = merger.memory_bytes_max;
            let Kind::Groups(kind) = &mut merger.kind else {
                return Err(QueryError::Mismatch("groups and rows in one answer".to_owned()));
            };
            kind.push_first(memory_bytes_max)?;
            let nothing = Gathered::Few(Part::new(&kind.form, &[]));
            threads.push(std::mem::replace(&mut kind.gathered, nothing));
            plan.get_or_insert_with(|| (kind.form.clone(), kind.empty.clone()));
        }
        let Some((form, empty)) = plan else { return Ok(vec![]) };
        let shares = Shares::new(form, &empty, threads)?;
        let share = |(index, parts)| {
            let (form, waiting) = (Arc::clone(&shares.form), Arc::clone(&shares.waiting));
            Share(Work::Part { form, waiting, index, parts })
        };
        Ok(shares.parts.into_iter().enumerate().map(share).collect())
    }

    /// One body of those that the shares gave; they have no group in common.
    ///
    /// # Errors
    /// When they are of different plans, or take more memory than the limit.
    pub fn join(bodies: Vec<Body>, memory_bytes_max: u64) -> Result<Body, QueryError> {
        let mut bodies = bodies.into_iter();
        let Some(first) = bodies.next() else {
            return Err(QueryError::Mismatch("no bodies to join".to_owned()));
        };
        if bodies.len() == 0 {
            return Ok(first);
        }
        let mut all = Vec::with_capacity(bodies.len() + 1);
        for body in [first].into_iter().chain(bodies) {
            match body {
                Body::Groups(groups) => all.push(groups),
                Body::Rows(_) => return Err(QueryError::Mismatch("rows of several shares".to_owned())),
            }
        }
        let groups = Groups::concat(all)?;
        let memory = groups.states.iter().map(States::memory_bytes).sum::<usize>()
            + groups.keys.iter().map(|key| key.get_array_memory_size()).sum::<usize>();
        check_memory(memory, groups.group_count, memory_bytes_max)?;
        Ok(Body::Groups(groups))
    }
}

/// A part of what several mergers hold. See [`Merger::shares`].
#[derive(Debug)]
pub struct Share(Work);

#[derive(Debug)]
enum Work {
    Whole(Vec<Merger>),
    Part { form: Arc<KeyForm>, waiting: Arc<Vec<Waiting>>, index: usize, parts: Vec<Part> },
}

impl Share {
    /// Merges it. When it is one of several, only the groups that are `wanted` of it need be in what it gives.
    ///
    /// # Errors
    /// As [`Merger::push`] and [`Merger::finish`].
    pub fn merge(self, wanted: Option<(&Plan, &Top)>) -> Result<Body, QueryError> {
        match self.0 {
            Work::Whole(mergers) => {
                let mut mergers = mergers.into_iter();
                let Some(mut whole) = mergers.next() else {
                    return Err(QueryError::Mismatch("no partials to merge".to_owned()));
                };
                for merger in mergers {
                    whole.push(merger.finish()?)?;
                }
                whole.finish()
            }
            Work::Part { form, waiting, index, parts } => {
                Ok(Body::Groups(merge_share(&form, index, parts, &waiting, wanted)?))
            }
        }
    }
}

impl GroupsKind {
    fn is_many(&self) -> bool {
        matches!(self.gathered, Gathered::Many { .. })
            || self.first.as_ref().is_some_and(|first| first.group_count > FEW_MAX)
    }

    fn push_first(&mut self, memory_bytes_max: u64) -> Result<(), QueryError> {
        match self.first.take() {
            Some(first) => self.gathered.push(&self.form, &self.empty, first, memory_bytes_max),
            None => Ok(()),
        }
    }

    fn push(&mut self, groups: Groups, memory_bytes_max: u64) -> Result<(), QueryError> {
        self.push_first(memory_bytes_max)?;
        if groups.group_count == 0 {
            return Ok(());
        }
        self.gathered.push(&self.form, &self.empty, groups, memory_bytes_max)
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
        && (!plan_keys.is_empty() || count <= 1)
        && u32::try_from(count).is_ok();
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
