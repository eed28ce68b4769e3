//! The groups of all runs that one thread scans.
//!
//! Two runs have different codes for the same value, so groups meet by value. Values are few where groups are many
//! combinations of them: each key's values get ids that hold for all runs, looked up once per distinct value and run, and
//! groups meet by their ids. What is hashed for a group is then a pair of small integers, however long its keys are.
//!
//! Beyond [`GROUPS_MAX`] groups, or for keys of types without ids, groups go to a [`Merger`], which is made for millions:
//! several keys as one int where they can be ([`Compound`]). Where rows hardly share groups, it takes the rows.

use std::sync::Arc;

use gannet_query::{Body, Groups, Merger, Output, Plan, QueryError, States};

use super::ScanError;
use super::compound::{Compound, Packer};
use super::groups::RunGroups;
use super::key_ids::KeyIds;
use super::pairs::Pairs;

/// With more groups than this, tables that are cut into parts are faster than one that is not. Tests have fewer rows.
const GROUPS_MAX: usize = if cfg!(test) { 1 << 12 } else { 1 << 17 };
/// So many groups are enough where rows hardly share groups.
const GROUPS_APART_MAX: usize = 1 << 15;
/// Bytes of a state that is merged in no time.
const LIGHT_BYTES_MAX: usize = 64;
/// Rows hardly share groups where a run has fewer rows than this a group.
const ROWS_APART: usize = 3;

/// See the module.
#[derive(Debug)]
pub(super) struct Gathering {
    merger: Merger,
    memory_bytes_max: u64,
    /// `None` when groups go to the merger at once.
    ids: Option<Ids>,
    /// How several keys become one int, if they can.
    compound: Option<Arc<Compound>>,
    /// Where they do: then nothing is in the merger.
    packer: Option<Packer>,
    /// Whether the only key is one of ints, so that the merger takes rows.
    has_int_key: bool,
    /// Whether it does, and rows hardly shared groups in the last run whose rows were grouped.
    is_apart: bool,
}

/// See [`Gathering::packed`].
pub(super) type Packed = Result<(Arc<Compound>, Vec<Merger>), Vec<Gathering>>;

/// Groups by the ids of their keys.
#[derive(Debug)]
struct Ids {
    keys: Vec<KeyIds>,
    /// The number of each pair of what came before and the id of the next key.
    pairs: Vec<Pairs>,
    /// For each key the id of each group.
    group_ids: Vec<Vec<u32>>,
    states: Vec<States>,
    group_count: usize,
}

impl Gathering {
    pub(super) fn new(
        plan: &Plan,
        compound: Option<&Arc<Compound>>,
        memory_bytes_max: u64,
    ) -> Result<Gathering, ScanError> {
        let merger = Merger::new(plan, memory_bytes_max)?;
        let ids = match &plan.output {
            Output::Groups { keys, aggregates } if !keys.is_empty() => {
                let key_ids = keys.iter().map(|key| KeyIds::of(&key.data_type)).collect::<Option<Vec<_>>>();
                let states = aggregates.iter().map(|aggregate| States::new(aggregate, plan.weight));
                let states = states.collect::<Result<Vec<_>, _>>()?;
                key_ids.map(|keys| Ids {
                    pairs: keys.iter().skip(1).map(|_| Pairs::default()).collect(),
                    group_ids: vec![Vec::new(); keys.len()],
                    keys,
                    states,
                    group_count: 0,
                })
            }
            _ => None,
        };
        let is_int = |ids: &Ids| matches!(&ids.keys[..], [KeyIds::Ints(..)]);
        let has_int_key = ids.as_ref().is_some_and(is_int);
        let (compound, packer) = (compound.cloned(), None);
        Ok(Gathering { merger, memory_bytes_max, ids, compound, packer, has_int_key, is_apart: false })
    }

    /// Whether rows as groups of their own are welcome, because they hardly share groups.
    pub(super) fn takes_rows(&self) -> bool {
        self.ids.is_none() && self.is_apart
    }

    /// Adds the groups of a run.
    pub(super) fn push_run(&mut self, mut run: RunGroups<'_>) -> Result<(), ScanError> {
        if let Some(placed) = run.placed {
            return Ok(self.merger.push_placed(placed, run.states)?);
        }
        self.is_apart = self.has_int_key && run.group_count * ROWS_APART > run.row_count;
        let Some(ids) = &mut self.ids else {
            if let Some(packer) = &mut self.packer {
                if packer.push_run(&mut run)? {
                    return Ok(());
                }
                self.unpack()?;
            }
            return Ok(self.merger.push(Body::Groups(run.into_groups()?))?);
        };
        run.states.iter_mut().for_each(States::gather);
        let known = ids.group_count;
        ids.push(&run)?;
        // Where most groups of a run are new, as ids that come again soon are, looking them up here saves nothing.
        let are_new = ids.keys.len() == 1 && (ids.group_count - known) * 4 > run.group_count * 3;
        let group_count = ids.group_count;
        self.check_memory()?;
        let groups_max = if self.is_apart || are_new { GROUPS_APART_MAX } else { GROUPS_MAX };
        if group_count > groups_max
            && !self.pack()?
            && let Some(ids) = self.ids.take()
        {
            self.merger.push(Body::Groups(ids.finish()))?;
        }
        Ok(())
    }

    /// Goes on with several keys as one int, if they can be. True when they are.
    fn pack(&mut self) -> Result<bool, ScanError> {
        if let (Some(ids), Some(compound)) = (&mut self.ids, &self.compound) {
            let values = |key: &KeyIds| key.values(&(0..key.len() as u32).collect::<Vec<_>>());
            let keys: Vec<_> =
                ids.keys.iter().zip(&ids.group_ids).map(|(key, ids)| (values(key), &ids[..])).collect();
            self.packer = Packer::of(compound, &keys, &mut ids.states)?;
            if self.packer.is_some() {
                self.ids = None;
            }
        }
        Ok(self.packer.is_some())
    }

    /// Goes on with keys as they are.
    fn unpack(&mut self) -> Result<(), ScanError> {
        self.compound = None;
        match self.packer.take() {
            Some(packer) => Ok(self.merger.push(packer.apart()?)?),
            None => Ok(()),
        }
    }

    /// What all threads gathered by several keys as one int, and how they became one, if that is so for one of them and
    /// can be for all; gives it back where not. `others` is what is held elsewhere, and goes with it.
    pub(super) fn packed(mut all: Vec<Gathering>, others: &mut Vec<Merger>) -> Result<Packed, ScanError> {
        let Some(first) = all.iter_mut().find(|gathering| gathering.packer.is_some()) else {
            return Ok(Err(all));
        };
        for other in others.drain(..) {
            first.push(other.finish()?)?;
        }
        let Some(compound) = first.compound.clone() else { return Ok(Err(all)) };
        for gathering in &mut all {
            if !gathering.pack()? {
                return Ok(Err(all));
            }
        }
        let mergers = all.into_iter().filter_map(|gathering| gathering.packer).map(Packer::finish);
        Ok(Ok((compound, mergers.collect())))
    }

    /// Adds rows, or groups that were put together elsewhere.
    pub(super) fn push(&mut self, mut body: Body) -> Result<(), ScanError> {
        if let (Some(packer), Body::Groups(groups)) = (&mut self.packer, &mut body) {
            if packer.push_groups(groups)? {
                return Ok(());
            }
            self.unpack()?;
        }
        Ok(self.merger.push(body)?)
    }

    /// Adds what another thread gathered, where both have their groups by ids (and so none elsewhere) and adding them up
    /// is quick; gives it back where not. A merger of both would compare keys group by group, and not once for each value.
    pub(super) fn absorb(&mut self, mut other: Gathering) -> Result<Option<Gathering>, ScanError> {
        match (&mut self.ids, other.ids.take_if(|ids| ids.is_light())) {
            (Some(ours), Some(theirs)) => {
                ours.absorb(theirs)?;
                self.check_memory()?;
                Ok(None)
            }
            (_, Some(theirs)) => Ok(Some(Gathering { ids: Some(theirs), ..other })),
            (_, None) => Ok(Some(other)),
        }
    }

    fn check_memory(&self) -> Result<(), ScanError> {
        let Some(ids) = &self.ids else { return Ok(()) };
        if ids.memory_bytes() as u64 > self.memory_bytes_max {
            let limit = self.memory_bytes_max;
            return Err(QueryError::Memory { limit, groups: ids.group_count }.into());
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Merger, ScanError> {
        self.unpack()?;
        if let Some(ids) = self.ids.take().filter(|ids| ids.group_count > 0) {
            self.merger.push(Body::Groups(ids.finish()))?;
        }
        Ok(self.merger)
    }
}

impl Ids {
    fn push(&mut self, run: &RunGroups<'_>) -> Result<(), ScanError> {
        let keys = self.keys.iter_mut().zip(run.keys.iter().zip(&run.codes));
        let of_keys = keys.map(|(ids, (key, codes))| key.translated(codes, |values| ids.number(values)));
        let of_keys: Vec<Vec<u32>> = of_keys.collect::<Result<_, ScanError>>()?;
        self.add(&of_keys, &run.states)
    }

    /// Adds groups by the ids of each key, and their states, which are gathered.
    fn add(&mut self, of_keys: &[Vec<u32>], states: &[States]) -> Result<(), ScanError> {
        let Some((first, rest)) = of_keys.split_first() else { return Ok(()) };
        let mut groups = first.clone();
        for (pairs, ids) in self.pairs.iter_mut().zip(rest) {
            pairs.number(&mut groups, ids);
        }
        // New numbers ascend, so a group is new when its number is the next one.
        for (place, group) in groups.iter().enumerate() {
            if *group as usize == self.group_count {
                self.group_count += 1;
                for (all, ids) in self.group_ids.iter_mut().zip(of_keys) {
                    all.push(ids[place]);
                }
            }
        }
        for (ours, theirs) in self.states.iter_mut().zip(states) {
            ours.resize(self.group_count);
            ours.merge(theirs, &groups)?;
        }
        Ok(())
    }

    /// Whether states take so little memory that many of them are merged in no time.
    fn is_light(&self) -> bool {
        let bytes: usize = self.states.iter().map(States::memory_bytes).sum();
        bytes <= self.group_count * LIGHT_BYTES_MAX * self.states.len()
    }

    /// Adds the groups of another thread.
    fn absorb(&mut self, mut other: Ids) -> Result<(), ScanError> {
        other.states.iter_mut().for_each(States::gather);
        let mut of_keys = Vec::with_capacity(self.keys.len());
        for ((ours, theirs), group_ids) in self.keys.iter_mut().zip(&other.keys).zip(&other.group_ids) {
            let to = ours.numbers_of(theirs);
            of_keys.push(group_ids.iter().map(|id| to[*id as usize]).collect());
        }
        self.add(&of_keys, &other.states)
    }

    fn finish(self) -> Groups {
        let keys = self.keys.iter().zip(&self.group_ids).map(|(key, ids)| key.values(ids)).collect();
        Groups { keys, states: self.states, group_count: self.group_count }
    }

    fn memory_bytes(&self) -> usize {
        let states: usize = self.states.iter().map(States::memory_bytes).sum();
        let keys: usize = self.keys.iter().map(KeyIds::memory_bytes).sum();
        let pairs: usize = self.pairs.iter().map(Pairs::memory_bytes).sum();
        states + keys + pairs + self.group_count * 4 * self.keys.len()
    }
}
