//! Aggregates over the groups of one run.
//!
//! Rows are taken a stretch at a time: their groups, their weights, then each argument in turn, which every aggregate
//! that needs it takes from the nearest cache. Aggregates with the same FILTER share their rows; arguments reach the
//! states as plain slices or as codes, never row by row.

use gannet_query::{AggregateFunction, Groups, Input, PlacedKeys, Plan, States, Values, WeightKind, Weights};

use super::arguments::{Argument, Buffers, Read, RowWeights, events, takes_codes};
use super::code_sums::{CodeSums, StretchWeights};
use super::columns::Run;
use super::filter;
use super::keys::{Key, key};
use super::numbering::{Numbered, Numbering, Scratch};
use super::prepare::{AggregatePlan, GroupsPlan, Prepared};
use super::readers::Ints;
use super::selection::{ROWS_PER_STRETCH, Rows, Selection};
use super::{ScanError, Stop, whole};

/// Aggregates that see the same rows, by the argument they share.
struct Sharing {
    argument: Option<usize>,
    aggregates: Vec<usize>,
}

/// The groups of a run's selected rows: each key with the code of each group, and the states.
#[derive(Debug)]
pub(super) struct RunGroups<'a> {
    pub(super) keys: Vec<Key<'a>>,
    pub(super) codes: Vec<Vec<u32>>,
    pub(super) states: Vec<States>,
    pub(super) group_count: usize,
    /// The keys, where each row is a group of its own.
    pub(super) placed: Option<PlacedKeys>,
    /// How many rows were selected.
    pub(super) row_count: usize,
    /// How many events they stand for.
    pub(super) events: f64,
}

impl RunGroups<'_> {
    /// With the values of the keys.
    pub(super) fn into_groups(self) -> Result<Groups, ScanError> {
        let keys = self.keys.iter().zip(&self.codes);
        let keys = keys.map(|(key, codes)| key.values_at(codes)).collect::<Result<_, _>>()?;
        Ok(Groups { keys, states: self.states, group_count: self.group_count })
    }
}

/// One run while it is aggregated.
struct Work<'a> {
    run: &'a Run<'a>,
    plan: &'a GroupsPlan<'a>,
    weights: RowWeights<'a>,
    /// Their column.
    weight: Option<usize>,
    /// Whether anybody asks for them.
    reads_weights: bool,
    /// Where some aggregate goes by time.
    times: Option<Ints<'a>>,
    numbering: Numbering<'a>,
    states: Vec<States>,
    /// Whether each aggregate is weighted.
    weighted: Vec<bool>,
    /// Whether each aggregate has all its rows already.
    settled: Vec<bool>,
    /// Counts that need not be made, because a sum over the same rows makes them: the aggregates of both.
    counted: Vec<(usize, usize)>,
    /// Weights as codes, and what the codes stand for, where they are few.
    coded_weights: Option<(&'a [u8], Box<[i64; 256]>)>,
    /// What is added up on codes, for each filter that aggregates have.
    on_codes: Vec<Vec<CodeSums<'a>>>,
    /// The one of the first of these that tells which groups have rows.
    teller: Option<usize>,
}

/// The groups of a run's selected rows with their states; `None` when there is no row. `apart` says that rows hardly
/// share groups.
pub(super) fn aggregate<'a>(
    run: &'a Run<'_>,
    prepared: &Prepared<'_>,
    plan: &'a GroupsPlan<'_>,
    selection: &Selection,
    apart: bool,
    scratch: &mut Scratch,
) -> Result<Option<RunGroups<'a>>, Stop> {
    if selection.is_empty() {
        return Ok(None);
    }
    if let Some(known) = known(run, prepared, plan, selection)? {
        return Ok(Some(known));
    }
    let mut keys = Vec::with_capacity(plan.keys.len());
    for plan in &plan.keys {
        run.look()?;
        keys.push(key(run, plan, selection)?);
    }
    let by_time = |function: &AggregateFunction| {
        matches!(function, AggregateFunction::First { .. } | AggregateFunction::Last { .. })
    };
    let times = match plan.aggregates.iter().any(|aggregate| by_time(&aggregate.aggregate.function)) {
        true => Some(run.slot(prepared.time)?.ints(run.row_count)?),
        false => None,
    };
    let weight = prepared.plan.weight;
    let mut states = Vec::with_capacity(plan.aggregates.len());
    for aggregate in &plan.aggregates {
        states.push(States::new(aggregate.aggregate, weight)?);
    }
    let weights = RowWeights::of(run, prepared)?;
    let is_whole = matches!(selection, Selection::All(count) if *count == run.row_count);
    let settled = match plan.keys.is_empty() && is_whole {
        true => whole::settle(run, prepared, plan, &weights, &mut states)?,
        false => vec![false; states.len()],
    };
    let weighted =
        plan.aggregates.iter().map(|of| of.aggregate.weight_kind(weight) != WeightKind::One).collect();
    let numbering = match apart && is_whole && plan.takes_gaps() {
        true => Numbering::apart(keys, run.row_count, &mut scratch.ints),
        false => Err(keys),
    };
    let numbered = |keys| Numbering::new(keys, selection.len(), plan.takes_gaps(), scratch);
    let mut work = Work {
        run,
        plan,
        coded_weights: weights.coded(),
        weights,
        weight: prepared.weight,
        reads_weights: true,
        times,
        numbering: numbering.unwrap_or_else(numbered),
        states,
        weighted,
        settled,
        counted: Vec::new(),
        on_codes: Vec::new(),
        teller: None,
    };
    // The rows of every group are numbered, whatever the filters of the aggregates leave of them.
    let events = work.add(None, selection, scratch)?;
    for filter in 0..plan.filters.len() {
        let left = filter::narrow(run, &plan.filters[filter], selection.clone())?.settle();
        work.add(Some(filter), &left, scratch)?;
    }
    Ok(Some(work.finish(selection.len(), events, scratch)?))
}

/// The one group of a plan without keys, when the run's directory knows all that is asked: how many events all its
/// rows stand for, the least and the greatest of its integers.
fn known<'a>(
    run: &'a Run<'_>,
    prepared: &Prepared<'_>,
    plan: &GroupsPlan<'_>,
    selection: &Selection,
) -> Result<Option<RunGroups<'a>>, Stop> {
    let is_whole = matches!(selection, Selection::All(count) if *count == run.row_count);
    if !plan.keys.is_empty() || !plan.filters.is_empty() || !is_whole {
        return Ok(None);
    }
    let rows = run.row_count as i128;
    let events = match (prepared.weight, prepared.plan.weight) {
        (None, _) => Some(rows),
        (Some(column), _) if run.is_missing(column) => Some(rows),
        (Some(column), WeightKind::Int) => run.int_sum(column).map(|(sum, nulls)| sum + i128::from(nulls)),
        (Some(_), WeightKind::One | WeightKind::Float) => None,
    };
    let Some(events) = events.and_then(|events| i64::try_from(events).ok()) else { return Ok(None) };
    let mut whole = empty_group(prepared.plan, plan)?;
    for (aggregate, states) in plan.aggregates.iter().zip(&mut whole.states) {
        let nothing = Input { values: Values::None, validity: None, weights: Weights::One, times: &[] };
        let ends = || aggregate.argument.and_then(|argument| run.int_range(plan.arguments[argument].column?));
        let end = match &aggregate.aggregate.function {
            AggregateFunction::Count => {
                let is_weighted = aggregate.aggregate.weight_kind(prepared.plan.weight) == WeightKind::Int;
                if !states.add_count(0, if is_weighted { events.into() } else { rows }) {
                    return Ok(None);
                }
                continue;
            }
            AggregateFunction::Min => ends().map(|(min, _)| min),
            AggregateFunction::Max => ends().map(|(_, max)| max),
            _ => None,
        };
        let Some(end) = end else { return Ok(None) };
        states.update(&[0], &Input { values: Values::Int(&[end]), ..nothing })?;
    }
    Ok(Some(RunGroups::of_one(whole, run.row_count, events)))
}

/// The one group of a plan that asks only how many events there are and for sums, where many rows are left and their
/// weights are few: they are counted and added up where they are.
pub(super) fn counted<'a>(
    run: &Run<'_>,
    prepared: &Prepared<'_>,
    plan: &GroupsPlan<'_>,
    selection: &Selection,
) -> Result<Option<RunGroups<'a>>, Stop> {
    let Selection::Bits { bits, count } = selection else { return Ok(None) };
    if !plan.keys.is_empty() || !plan.filters.is_empty() {
        return Ok(None);
    }
    let kind = |of: &AggregatePlan<'_>| of.aggregate.weight_kind(prepared.plan.weight);
    let is_count = |of: &AggregatePlan<'_>| {
        of.aggregate.function == AggregateFunction::Count && kind(of) != WeightKind::Float
    };
    let weights = RowWeights::of(run, prepared)?;
    let mut whole = empty_group(prepared.plan, plan)?;
    let events = if plan.aggregates.iter().all(is_count) {
        whole::events_at(&weights, bits, *count)
    } else {
        whole::settle_left(run, prepared, plan, &weights, (bits, *count), &mut whole.states)?
    };
    let Some(events) = events else { return Ok(None) };
    for (aggregate, states) in plan.aggregates.iter().zip(&mut whole.states).filter(|(of, _)| is_count(of)) {
        let is_weighted = kind(aggregate) == WeightKind::Int;
        if !states.add_count(0, if is_weighted { events.into() } else { *count as i128 }) {
            return Ok(None);
        }
    }
    Ok(Some(RunGroups::of_one(whole, *count, events)))
}

impl RunGroups<'_> {
    /// The one group of a plan without keys, to which so many rows were added that stand for so many events.
    fn of_one(Groups { states, group_count, .. }: Groups, row_count: usize, events: i64) -> Self {
        RunGroups {
            keys: Vec::new(),
            codes: Vec::new(),
            states,
            group_count,
            placed: None,
            row_count,
            events: events as f64,
        }
    }
}

/// The one group of a plan without keys before any row was seen.
pub(super) fn empty_group(plan: &Plan, groups: &GroupsPlan<'_>) -> Result<Groups, ScanError> {
    let mut states = Vec::with_capacity(groups.aggregates.len());
    for aggregate in &groups.aggregates {
        let mut state = States::new(aggregate.aggregate, plan.weight)?;
        state.resize(1);
        states.push(state);
    }
    Ok(Groups { keys: Vec::new(), states, group_count: 1 })
}

impl GroupsPlan<'_> {
    /// Whether groups without rows cost little, until they are left out, and groups of one row.
    fn takes_gaps(&self) -> bool {
        self.aggregates.iter().all(|of| {
            matches!(
                of.aggregate.function,
                AggregateFunction::Count
                    | AggregateFunction::Sum
                    | AggregateFunction::Min
                    | AggregateFunction::Max
                    | AggregateFunction::Moments
            )
        })
    }
}

impl<'a> Work<'a> {
    /// Adds the rows of a selection to the aggregates that have this filter. Returns the events they stand for.
    fn add(
        &mut self,
        filter: Option<usize>,
        selection: &Selection,
        scratch: &mut Scratch,
    ) -> Result<f64, Stop> {
        let mut sharing = self.sharing(filter);
        let (run, plan) = (self.run, self.plan);
        let mut arguments = Vec::with_capacity(sharing.len());
        for shared in &sharing {
            arguments.push(match shared.argument {
                Some(index) => {
                    let of = |index: &usize| &plan.aggregates[*index].aggregate.function;
                    let functions = shared.aggregates.iter().map(of);
                    Some(Argument::of(run, &plan.arguments[index], selection, functions)?)
                }
                None => None,
            });
        }
        self.leave_counts_to_sums(&mut sharing, &arguments);
        let mut on_codes = self.take_on_codes(&mut sharing, &mut arguments, selection.len());
        if filter.is_none() {
            self.teller = on_codes.iter().position(|sums| sums.tells_groups(&self.weights));
            if self.teller.is_some() {
                self.numbering.leave_marks_out();
            }
        }
        let known_events = match filter {
            None => self.known_events(selection),
            Some(_) => Some(0.0),
        };
        if let (Some(events), true, true) = (known_events, sharing.is_empty(), plan.keys.is_empty()) {
            return Ok(events);
        }
        let is_weighted = |shared: &Sharing| shared.aggregates.iter().any(|index| self.weighted[*index]);
        let has_codes = self.coded_weights.is_some() && matches!(selection, Selection::All(_));
        self.reads_weights = known_events.is_none()
            || sharing.iter().any(is_weighted)
            || (!has_codes && on_codes.iter().any(CodeSums::is_weighted));
        let weight_max = self.weights.bound();
        for (shared, argument) in sharing.iter().zip(&arguments) {
            let value_max = argument.as_ref().and_then(Argument::bound);
            for index in &shared.aggregates {
                self.states[*index].set_bounds(value_max, weight_max);
            }
        }
        let total = selection.with_rows(|rows| {
            let mut total = 0.0;
            for stretch in rows.stretches(ROWS_PER_STRETCH) {
                run.look()?;
                self.numbering.number(stretch, scratch);
                let weights = self.update(stretch, &sharing, &mut arguments, &mut on_codes, scratch)?;
                if known_events.is_none() {
                    total += events(weights, stretch.len());
                }
            }
            Ok::<f64, Stop>(total)
        })?;
        self.on_codes.push(on_codes);
        Ok(known_events.unwrap_or(total))
    }

    /// Takes the aggregates out of the work that can be found on codes.
    fn take_on_codes(
        &self,
        sharing: &mut Vec<Sharing>,
        arguments: &mut Vec<Option<Argument<'a>>>,
        row_count: usize,
    ) -> Vec<CodeSums<'a>> {
        let mut taken = Vec::new();
        let Some(group_count) = self.numbering.plain_count() else { return taken };
        for (shared, argument) in sharing.iter_mut().zip(arguments.iter()) {
            shared.aggregates.retain(|index| {
                let function = &self.plan.aggregates[*index].aggregate.function;
                if *function == AggregateFunction::Sum && !self.states[*index].sums_numbers() {
                    return true;
                }
                let weights = self.weighted[*index].then_some(&self.weights);
                let counts = (group_count, row_count);
                let sums = CodeSums::of((*index, function), argument.as_ref(), weights, counts);
                let left = sums.is_none();
                taken.extend(sums);
                left
            });
        }
        let pairs = std::mem::take(sharing).into_iter().zip(std::mem::take(arguments));
        (*sharing, *arguments) = pairs.filter(|(shared, _)| !shared.aggregates.is_empty()).unzip();
        CodeSums::share(&mut taken);
        taken
    }

    /// What has come together, of the groups that have rows.
    fn finish(self, row_count: usize, events: f64, scratch: &mut Scratch) -> Result<RunGroups<'a>, Stop> {
        let Work { numbering, mut states, counted, on_codes, teller, .. } = self;
        let all = numbering.group_count();
        let told = || teller.map(|teller| on_codes[0][teller].groups()).unwrap_or_default();
        let Numbered { keys, codes, used, placed } = numbering.finish(told, scratch);
        let group_count = used.as_ref().map_or(all, Vec::len);
        for (index, states) in states.iter_mut().enumerate() {
            if on_codes.iter().flatten().any(|sums| sums.aggregate() == index) {
                continue;
            }
            states.resize(all);
            if let Some(used) = used.as_ref().filter(|used| used.len() < all) {
                states.settle();
                *states = states.take(used);
            }
        }
        for sums in on_codes {
            CodeSums::finish(&sums, &mut states, used.as_deref().unwrap_or_default())?;
        }
        for (count, sum) in counted {
            if let Some(counted) = states[sum].counted() {
                states[count] = counted;
            }
        }
        Ok(RunGroups { keys, codes, states, group_count, placed, row_count, events })
    }

    /// Takes counts out of the work where a sum over the same rows, each with a value, counts them anyway.
    fn leave_counts_to_sums(&mut self, sharing: &mut [Sharing], arguments: &[Option<Argument<'_>>]) {
        let is_sum =
            |index: &usize| self.plan.aggregates[*index].aggregate.function == AggregateFunction::Sum;
        let whole = sharing
            .iter()
            .zip(arguments)
            .filter(|(_, argument)| argument.as_ref().is_some_and(|argument| argument.is_whole()));
        let sums: Vec<usize> = whole
            .flat_map(|(shared, _)| shared.aggregates.iter().copied().filter(|index| is_sum(index)))
            .collect();
        for shared in sharing.iter_mut().filter(|shared| shared.argument.is_none()) {
            shared.aggregates.retain(|count| {
                let sum = sums.iter().find(|sum| self.weighted[**sum] == self.weighted[*count]);
                self.counted.extend(sum.map(|sum| (*count, *sum)));
                sum.is_none()
            });
        }
    }

    /// The events that the selected rows stand for, where no weight has to be read for it.
    fn known_events(&self, selection: &Selection) -> Option<f64> {
        match (&self.weights, self.weight, selection) {
            (RowWeights::One, _, _) => Some(selection.len() as f64),
            (RowWeights::Ints(_), Some(column), Selection::All(count)) if *count == self.run.row_count => {
                let (sum, nulls) = self.run.int_sum(column)?;
                Some((sum + i128::from(nulls)) as f64)
            }
            _ => None,
        }
    }

    fn sharing(&self, filter: Option<usize>) -> Vec<Sharing> {
        let mut sharing: Vec<Sharing> = Vec::new();
        for (index, aggregate) in self.plan.aggregates.iter().enumerate() {
            if aggregate.filter != filter || self.settled[index] {
                continue;
            }
            match sharing.iter_mut().find(|shared| shared.argument == aggregate.argument) {
                Some(shared) => shared.aggregates.push(index),
                None => sharing.push(Sharing { argument: aggregate.argument, aggregates: vec![index] }),
            }
        }
        sharing
    }

    /// Adds one stretch, whose rows are numbered, to the states. Returns its weights.
    fn update<'s>(
        &'s mut self,
        rows: Rows<'_>,
        sharing: &[Sharing],
        arguments: &mut [Option<Argument<'a>>],
        on_codes: &mut [CodeSums<'a>],
        scratch: &'s mut Scratch,
    ) -> Result<Weights<'s>, Stop> {
        let Scratch { groups, ints, floats, weights, float_weights, times, argument_codes, .. } = scratch;
        let row_weights = match self.reads_weights {
            true => self.weights.read(rows, weights, float_weights),
            false => Weights::One,
        };
        let times: &[i64] = match &self.times {
            Some(reader) => reader.read(rows, times),
            None => &[],
        };
        let stretch_weights = match (rows, &self.coded_weights, row_weights) {
            (Rows::Range { start, count }, Some((codes, table)), _) => {
                StretchWeights::Coded(&codes[start..start + count], table)
            }
            (_, _, Weights::Int(weights)) => StretchWeights::Each(weights),
            (_, _, Weights::One | Weights::Float(_)) => StretchWeights::One,
        };
        for sums in on_codes {
            sums.add(rows, groups, stretch_weights, argument_codes);
        }
        let group_count = self.numbering.group_count();
        for (shared, argument) in sharing.iter().zip(arguments) {
            let functions =
                || shared.aggregates.iter().map(|index| &self.plan.aggregates[*index].aggregate.function);
            let with_codes = |data_type: &_| functions().all(|function| takes_codes(function, data_type));
            let read = match argument {
                None => Read::Nothing,
                Some(argument) => {
                    let buffers = Buffers { ints, floats, codes: argument_codes };
                    argument.read(self.run, rows, with_codes, buffers)?
                }
            };
            let (values, validity) = read.values();
            for index in &shared.aggregates {
                let weights = if self.weighted[*index] { row_weights } else { Weights::One };
                let states = &mut self.states[*index];
                states.resize(group_count);
                states.update(groups, &Input { values, validity, weights, times })?;
            }
        }
        Ok(row_weights)
    }
}
