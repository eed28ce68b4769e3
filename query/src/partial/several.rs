//! The groups of several children, each of which may have left some out.
//!
//! Where an asker wants a few groups, or there are too many, children need not send all of them. What they leave out is
//! chosen so that what is kept is right, or so that it is known when it may not be:
//!
//! * The first groups of an order by keys: each child sends its own first ones and their equals. Whoever is among the
//!   first of all is among the first of each child that has it, so nothing is lacking.
//! * Any groups, and too many groups: each child sends those whose keys have the least hashes, and says from which hash
//!   on it left them out. Below the least of these every child sent what it has, so what is kept is whole.
//! * The first groups of an order by a value that adds up (counts, sums, distinct counts) or is an extreme: each child
//!   sends more of its own first groups than are wanted, and a *bound*: no group that it left out has a value there
//!   beyond it. The sum of the bounds is what a group that nobody sent can have at most. A group that some child left
//!   out *lacks* that child; with the bounds of those it lacks, it can have at most so much more. When the wanted groups
//!   lack nobody, and all others stay below the last of them with all that they may lack, the answer is exact; otherwise
//!   it is approximate, and says so.
//!
//! A parent of parents adds up the same way: groups that lack somebody travel with how many and with what they may have
//! more, as two aggregates beside those of the plan ([`Plan::with_lacks`]).
//!
//! Invariants: a group that is given to whoever asked first and lacks nobody has exactly its aggregates; what is not said
//! to be approximate is exact.

use arrow::array::{Array, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimeUnit};

use super::keys::KeyForm;
use super::top::mismatch;
use super::{Body, Groups, Merger, Top, TopTerm, TopValue};
use crate::{
    Aggregate, AggregateFunction, Expr, Finish, Input, Output, Plan, QueryError, States, Values, WeightKind,
    Weights,
};

/// Of a limit, each child sends so many times as many groups.
const KEPT_FACTOR: u64 = 5;
/// Fewer groups than this beyond the limit may pile up: counting them again and again takes longer.
const PILE_MIN: u64 = 65_536;
/// Sums of floats are told apart when they differ by more than this share of what was added up.
const TOLD_APART: f64 = 1e-9;

/// What an asker wants of the groups of a plan; all of them by default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// These, and the others may be left out for good.
    pub top: Option<Top>,
    /// The first ones of this order, with a bound of what is left out.
    pub loose: Option<Top>,
    /// At most so many, those of least hash.
    pub groups_max: Option<u64>,
    /// They are added up with nobody else's: how many distinct values a group has will do.
    pub alone: bool,
}

/// What was left out of groups that were sent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LeftOut {
    /// Groups were left out, or lack somebody: none that was left out has a value beyond this, seen in the direction of
    /// the order. The groups tell what they lack.
    pub bound: Option<f64>,
    /// Groups whose keys have this hash or a larger one were left out.
    pub hash: Option<u64>,
}

/// How several children are asked for what is wanted of them all.
#[derive(Debug, Clone, PartialEq)]
pub enum Cutting {
    /// They send what there is.
    Nothing,
    /// Their first groups by keys, with equals.
    Keys(Top),
    /// So many of least hash.
    Any(u64),
    /// Their first groups by a value, with a bound.
    Loose(Top),
}

/// How the values of one group on several children become that of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Adding {
    /// At most their sum.
    Sum,
    /// One of them.
    Extreme,
}

impl Top {
    /// How several children are asked for these groups. Of an order by a value each sends at least so many.
    pub fn for_several(&self, plan: &Plan, kept_min: u64) -> Cutting {
        let Output::Groups { keys, .. } = &plan.output else { return Cutting::Nothing };
        if keys.is_empty() {
            return Cutting::Nothing;
        }
        let is_key = |term: &&TopTerm| matches!(term.value, TopValue::Key(_));
        let terms: Vec<TopTerm> = self.terms.iter().take_while(is_key).cloned().collect();
        match self.terms.first() {
            None => Cutting::Any(self.limit),
            Some(_) if !terms.is_empty() => Cutting::Keys(Top { terms, complete: false, limit: self.limit }),
            Some(term) if term.adding(plan).is_some() => {
                let limit = self.limit.saturating_mul(KEPT_FACTOR).max(kept_min);
                Cutting::Loose(Top { terms: vec![term.clone()], complete: true, limit })
            }
            Some(_) => Cutting::Nothing,
        }
    }
}

impl TopTerm {
    /// How values of it add up; `None` when a bound of each says nothing about the whole.
    fn adding(&self, plan: &Plan) -> Option<Adding> {
        let (TopValue::State(index, finish), Output::Groups { aggregates, .. }) = (&self.value, &plan.output)
        else {
            return None;
        };
        let Aggregate { function, argument, .. } = aggregates.get(*index)?;
        let data_type = argument.as_ref().map(|(_, data_type)| data_type);
        let number = matches!(data_type, Some(DataType::Int64 | DataType::Float64));
        let time = matches!(data_type, Some(DataType::Timestamp(TimeUnit::Nanosecond, _)));
        match (function, finish) {
            (AggregateFunction::Count | AggregateFunction::Sum, Finish::Count)
            | (AggregateFunction::Distinct, Finish::DistinctCount) => Some(Adding::Sum),
            (AggregateFunction::Sum, Finish::Sum) if number => Some(Adding::Sum),
            (AggregateFunction::Min | AggregateFunction::Max, Finish::Value) if number || time => {
                Some(Adding::Extreme)
            }
            _ => None,
        }
    }

    /// By how much a value may be off: counts of events that are no whole numbers are rounded when they are finished.
    fn rounding(&self, plan: &Plan) -> f64 {
        match &self.value {
            TopValue::State(_, Finish::Count) if plan.weight == WeightKind::Float => 1.0,
            TopValue::State(..) | TopValue::Key(_) => 0.0,
        }
    }

    /// The values of groups, larger where they come earlier.
    fn values(&self, plan: &Plan, groups: &Groups) -> Result<Float64Array, QueryError> {
        let values = groups.column(plan, self)?.values;
        let values = match values.data_type() {
            DataType::Timestamp(..) => cast(&values, &DataType::Int64).map_err(|error| mismatch(&error))?,
            _ => values,
        };
        let values = cast(&values, &DataType::Float64).map_err(|error| mismatch(&error))?;
        let values = values.as_primitive::<Float64Type>();
        Ok(match self.descending {
            true => values.clone(),
            false => values.unary(|value| -value),
        })
    }
}

impl Plan {
    /// The plan whose groups also tell how many children they lack and what they may have more for it.
    pub fn with_lacks(&self) -> Plan {
        let mut plan = self.clone();
        if let Output::Groups { aggregates, .. } = &mut plan.output {
            aggregates.extend([lack(), lack()]);
        }
        plan
    }
}

/// A sum of floats that no row has.
fn lack() -> Aggregate {
    let argument = Some((Expr::column(""), DataType::Float64));
    Aggregate { function: AggregateFunction::Sum, argument, filter: None, weighted: false }
}

/// What groups lack, group by group.
struct Lacks {
    /// How many children.
    children: Vec<f64>,
    /// What they may have more for it, when it adds up.
    more: Vec<f64>,
}

impl Lacks {
    /// Of groups that lack nobody.
    fn none(groups: usize) -> Lacks {
        Lacks { children: vec![0.0; groups], more: vec![0.0; groups] }
    }

    fn plus(mut self, children: f64, more: f64) -> Lacks {
        self.children.iter_mut().for_each(|one| *one += children);
        self.more.iter_mut().for_each(|one| *one += more);
        self
    }

    fn put(self, groups: &mut Groups) -> Result<(), QueryError> {
        let numbers: Vec<u32> = (0..groups.group_count as u32).collect();
        for values in [self.children, self.more] {
            let mut states = States::new(&lack(), WeightKind::One)?;
            states.resize(groups.group_count);
            let values = Values::Float(&values);
            states.update(&numbers, &Input { values, validity: None, weights: Weights::One, times: &[] })?;
            states.settle();
            groups.states.push(states);
        }
        Ok(())
    }

    /// Takes them off groups that have them.
    fn take(groups: &mut Groups) -> Result<Lacks, QueryError> {
        let (more, children) = (groups.states.pop(), groups.states.pop());
        let values = |states: Option<States>| {
            let states =
                states.ok_or_else(|| QueryError::Mismatch("groups that tell no lacks".to_owned()))?;
            let values = states.finish(&Finish::Sum, &DataType::Float64)?;
            let values = values.as_primitive_opt::<Float64Type>();
            let values = values.ok_or_else(|| QueryError::Mismatch("lacks that are no floats".to_owned()))?;
            Ok(values.iter().map(Option::unwrap_or_default).collect())
        };
        Ok(Lacks { children: values(children)?, more: values(more)? })
    }
}

/// The groups of one child as an asker wants them, with what was left out.
///
/// # Errors
/// When they are not those of the plan, or have no bound in the wanted order.
pub fn cut_for_asker(body: Body, plan: &Plan, wanted: &Wanted) -> Result<(Body, LeftOut), QueryError> {
    let Body::Groups(mut groups) = body else { return Ok((body, LeftOut::default())) };
    let mut left_out = LeftOut::default();
    if let Some(top) = &wanted.top {
        // Where values have no order all groups are as good.
        let _ = groups.cut(plan, top);
    } else if let Some(loose) = &wanted.loose
        && groups.group_count as u64 > loose.limit
    {
        let lacks = Lacks::none(groups.group_count);
        left_out.bound = groups.cut_loosely(plan, loose, lacks, None)?;
    }
    left_out.hash = groups.keep_least_hashes(plan, wanted.groups_max, None)?;
    if wanted.alone {
        groups.states.iter_mut().for_each(States::conclude);
    }
    Ok((Body::Groups(groups), left_out))
}

impl Groups {
    /// Keeps the first groups of a loose order, and adds what they lack. `unseen` is what a group can have at most that
    /// is not among these; there may be such groups when it is there. Gives back the bound of all that is not kept.
    fn cut_loosely(
        &mut self,
        plan: &Plan,
        top: &Top,
        lacks: Lacks,
        unseen: Option<f64>,
    ) -> Result<Option<f64>, QueryError> {
        let limit = usize::try_from(top.limit).unwrap_or(usize::MAX);
        let Some(term) = top.terms.first() else { return Ok(None) };
        let adding = term.adding(plan).ok_or_else(|| no_bound(term))?;
        if self.group_count <= limit && unseen.is_none() {
            return Ok(None);
        }
        let values = term.values(plan, self)?;
        let kept = self.first(plan, top, limit)?;
        let mut is_kept = vec![false; self.group_count];
        kept.values().iter().for_each(|group| is_kept[*group as usize] = true);
        let mut bound = match adding {
            Adding::Sum => unseen.unwrap_or(0.0).max(0.0),
            Adding::Extreme => unseen.unwrap_or(f64::NEG_INFINITY),
        };
        for group in (0..self.group_count).filter(|group| !is_kept[*group]) {
            bound = bound.max(at_most(term, adding, &values, &lacks, unseen, group));
        }
        bound += term.rounding(plan);
        let take = |from: Vec<f64>| kept.values().iter().map(|group| from[*group as usize]).collect();
        let lacks = Lacks { children: take(lacks.children), more: take(lacks.more) };
        *self = self.take(kept.values())?;
        lacks.put(self)?;
        Ok(Some(bound))
    }

    /// Keeps groups whose keys have hashes below a limit, and of those at most so many. Gives back the limit, when one
    /// was met here or before.
    fn keep_least_hashes(
        &mut self,
        plan: &Plan,
        groups_max: Option<u64>,
        below: Option<u64>,
    ) -> Result<Option<u64>, QueryError> {
        let groups_max = usize::try_from(groups_max.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        if below.is_none() && self.group_count <= groups_max {
            return Ok(None);
        }
        let Output::Groups { keys, .. } = &plan.output else { return Ok(below) };
        if keys.is_empty() {
            return Ok(below);
        }
        let hashes = KeyForm::new(keys)?.batch(&self.keys, self.group_count)?.hashes();
        let mut limit = below.unwrap_or(u64::MAX);
        let mut kept: Vec<u64> = hashes.iter().copied().filter(|hash| *hash < limit).collect();
        if kept.len() > groups_max {
            // The first hash that is not kept; its equals are not kept either.
            limit = *kept.select_nth_unstable(groups_max).1;
        }
        let places = hashes.iter().enumerate().filter(|(_, hash)| **hash < limit);
        let places: Vec<u32> = places.map(|(place, _)| place as u32).collect();
        if places.len() < self.group_count {
            *self = self.take(&places)?;
        }
        Ok((limit < u64::MAX).then_some(limit))
    }
}

fn no_bound(term: &TopTerm) -> QueryError {
    QueryError::Mismatch(format!("an order by {:?} has no bound", term.value))
}

/// What a group can have at most, with all that it may lack.
fn at_most(
    term: &TopTerm,
    adding: Adding,
    values: &Float64Array,
    lacks: &Lacks,
    unseen: Option<f64>,
    group: usize,
) -> f64 {
    let lacking = lacks.children[group] > 0.5;
    let value = values.is_valid(group).then(|| values.value(group));
    let most = match (adding, value) {
        // NULLs that come first come before everything.
        (_, None) if term.nulls_first => f64::INFINITY,
        (Adding::Sum, value) => value.unwrap_or(0.0) + lacks.more[group],
        (Adding::Extreme, value) => {
            let unseen = unseen.filter(|_| lacking).unwrap_or(f64::NEG_INFINITY);
            value.unwrap_or(f64::NEG_INFINITY).max(unseen)
        }
    };
    if most.is_nan() { f64::INFINITY } else { most }
}

/// The groups of several children as they are added up. See the module.
#[derive(Debug)]
pub struct Several {
    plan: Plan,
    cutting: Cutting,
    adding: Adding,
    groups_max: Option<u64>,
    memory_bytes_max: u64,
    /// Of children that sent all they have.
    whole: Merger,
    /// Groups that came, some of them several times.
    pushed: u64,
    /// Of children that left groups out, with what they lack.
    lacking: Option<Merger>,
    /// How many of them there are, and what a group can have at most that none of them sent.
    cuts: f64,
    unseen: Option<f64>,
    hash: Option<u64>,
}

/// What several children come to, for whoever asked first.
#[derive(Debug)]
pub struct Sum {
    /// The groups or rows.
    pub body: Body,
    /// Some of the wanted groups may be others, or have more.
    pub is_approximate: bool,
    /// What was left out.
    pub left_out: LeftOut,
}

impl Several {
    /// Of no child yet.
    ///
    /// # Errors
    /// As [`Merger::new`].
    pub fn new(
        plan: &Plan,
        cutting: Cutting,
        groups_max: Option<u64>,
        memory_bytes_max: u64,
    ) -> Result<Several, QueryError> {
        let term = match &cutting {
            Cutting::Loose(top) => top.terms.first(),
            Cutting::Nothing | Cutting::Keys(_) | Cutting::Any(_) => None,
        };
        Ok(Several {
            adding: term.and_then(|term| term.adding(plan)).unwrap_or(Adding::Sum),
            whole: Merger::new(plan, memory_bytes_max)?,
            plan: plan.clone(),
            cutting,
            groups_max,
            memory_bytes_max,
            pushed: 0,
            lacking: None,
            cuts: 0.0,
            unseen: None,
            hash: None,
        })
    }

    /// Adds what a child sent, in pieces of one body.
    ///
    /// # Errors
    /// As [`Merger::push_pieces`].
    pub fn push(&mut self, mut bodies: Vec<Body>, left_out: LeftOut) -> Result<(), QueryError> {
        self.hash = match (self.hash, left_out.hash) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let Some(bound) = left_out.bound else {
            let groups = bodies.iter().map(|body| match body {
                Body::Groups(groups) => groups.group_count as u64,
                Body::Rows(_) => 0,
            });
            self.pushed += groups.sum::<u64>();
            self.whole.push_pieces(bodies)?;
            return self.keep_within();
        };
        // What others lack is counted from what each brings less than its bound.
        let bound = if bound.is_nan() { f64::INFINITY } else { bound };
        let more = if bound.is_finite() && self.adding == Adding::Sum { bound } else { 0.0 };
        for body in &mut bodies {
            if let Body::Groups(groups) = body {
                Lacks::take(groups)?.plus(-1.0, -more).put(groups)?;
            }
        }
        self.cuts += 1.0;
        self.unseen = Some(match (self.unseen, self.adding) {
            (None, _) => bound,
            (Some(unseen), Adding::Sum) => unseen + bound,
            (Some(unseen), Adding::Extreme) => unseen.max(bound),
        });
        let lacking = match &mut self.lacking {
            Some(lacking) => lacking,
            none => none.insert(Merger::new(&self.plan.with_lacks(), self.memory_bytes_max)?),
        };
        lacking.push_pieces(bodies)
    }

    /// All groups or rows, with what they lack when somebody left groups out.
    fn added_up(&mut self) -> Result<(Body, Option<Lacks>), QueryError> {
        let whole = std::mem::replace(&mut self.whole, Merger::new(&self.plan, self.memory_bytes_max)?);
        let mut whole = whole.finish()?;
        let Some(mut lacking) = self.lacking.take() else { return Ok((whole, None)) };
        if let Body::Groups(groups) = &mut whole {
            Lacks::none(groups.group_count).put(groups)?;
        }
        lacking.push(whole)?;
        let mut body = lacking.finish()?;
        let Body::Groups(groups) = &mut body else { return Ok((body, None)) };
        let unseen = match self.adding {
            Adding::Sum => self.unseen.filter(|unseen| unseen.is_finite()).unwrap_or(0.0),
            Adding::Extreme => 0.0,
        };
        let lacks = Lacks::take(groups)?.plus(self.cuts, unseen);
        Ok((body, Some(lacks)))
    }

    /// For a parent that adds this up with others: cut again as it wants it.
    ///
    /// # Errors
    /// When what came does not fit the plan.
    pub fn finish_for_parent(mut self) -> Result<(Body, LeftOut), QueryError> {
        let (mut body, lacks) = self.added_up()?;
        let mut left_out = LeftOut::default();
        let Body::Groups(groups) = &mut body else { return Ok((body, left_out)) };
        match &self.cutting {
            Cutting::Loose(top) => {
                let lacks = lacks.unwrap_or_else(|| Lacks::none(groups.group_count));
                left_out.bound = groups.cut_loosely(&self.plan, top, lacks, self.unseen)?;
            }
            Cutting::Keys(top) => {
                let _ = groups.cut(&self.plan, top);
            }
            Cutting::Nothing | Cutting::Any(_) => {}
        }
        left_out.hash = groups.keep_least_hashes(&self.plan, self.groups_max, self.hash)?;
        Ok((body, left_out))
    }

    /// For whoever asked first and wants these groups of all.
    ///
    /// # Errors
    /// When what came does not fit the plan.
    pub fn finish(mut self, top: Option<&Top>) -> Result<Sum, QueryError> {
        let (mut body, lacks) = self.added_up()?;
        let (mut is_approximate, mut left_out) = (false, LeftOut::default());
        if let Body::Groups(groups) = &mut body {
            left_out.hash = match self.cutting {
                Cutting::Any(limit) => {
                    groups.keep_least_hashes(&self.plan, Some(limit), self.hash)?;
                    None
                }
                _ if lacks.is_none() => groups.keep_least_hashes(&self.plan, self.groups_max, self.hash)?,
                _ => self.hash,
            };
            match (lacks, top) {
                // What hashes left out could be anything.
                (Some(lacks), Some(top)) => {
                    is_approximate = !self.keep_wanted(groups, &lacks, top)? || self.hash.is_some();
                }
                (None, Some(top)) => {
                    let _ = groups.cut(&self.plan, top);
                }
                (_, None) => {}
            }
        }
        Ok(Sum { body, is_approximate, left_out })
    }

    /// Keeps the wanted groups. True when they are proven to be them, and whole.
    fn keep_wanted(&self, groups: &mut Groups, lacks: &Lacks, top: &Top) -> Result<bool, QueryError> {
        let Some(term) = top.terms.first() else { return Ok(false) };
        let limit = usize::try_from(top.limit).unwrap_or(usize::MAX);
        let kept = groups.first(&self.plan, top, limit)?;
        let values = term.values(&self.plan, groups)?;
        let mut is_kept = vec![false; groups.group_count];
        kept.values().iter().for_each(|group| is_kept[*group as usize] = true);
        let lacking = |group: usize| lacks.children[group] > 0.5;
        // The last of the wanted groups has at least so much.
        let last = |least: Option<f64>, group: usize| {
            let value = (values.is_valid(group) && !lacking(group)).then(|| values.value(group));
            least.zip(value).map(|(least, value)| least.min(value))
        };
        let wanted = (0..groups.group_count).filter(|group| is_kept[*group]);
        let least = wanted.fold(Some(f64::INFINITY), last).filter(|_| kept.len() >= limit);
        let others = (0..groups.group_count).filter(|group| !is_kept[*group] && lacking(*group));
        let most = others.map(|group| at_most(term, self.adding, &values, lacks, self.unseen, group));
        let most = most.chain(self.unseen).fold(f64::NEG_INFINITY, f64::max);
        let proven = least.is_some_and(|least| {
            let apart = TOLD_APART * (least.abs() + most.abs() + self.unseen.unwrap_or(0.0).abs());
            let apart = apart + term.rounding(&self.plan);
            (most.is_finite() && least - most > apart) || most == f64::NEG_INFINITY
        });
        *groups = groups.take(kept.values())?;
        Ok(proven || limit == 0)
    }

    /// Drops groups of which more than enough have least hashes, so that they do not pile up while children answer.
    fn keep_within(&mut self) -> Result<(), QueryError> {
        let groups_max = match self.cutting {
            Cutting::Any(limit) => Some(limit),
            _ => self.groups_max,
        };
        let Some(groups_max) = groups_max.filter(|_| self.lacking.is_none()) else { return Ok(()) };
        if self.pushed <= groups_max.saturating_add(groups_max / 2).saturating_add(PILE_MIN) {
            return Ok(());
        }
        let whole = std::mem::replace(&mut self.whole, Merger::new(&self.plan, self.memory_bytes_max)?);
        let mut body = whole.finish()?;
        self.pushed = 0;
        if let Body::Groups(groups) = &mut body {
            self.hash = groups.keep_least_hashes(&self.plan, Some(groups_max), self.hash)?;
            self.pushed = groups.group_count as u64;
        }
        self.whole.push(body)
    }
}

#[cfg(test)]
mod tests;
