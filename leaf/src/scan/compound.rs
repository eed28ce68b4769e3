//! Several group keys as one int.
//!
//! Where groups are millions, they are mostly combinations of far fewer values. A [`Merger`] compares several keys as runs
//! of bytes, which takes several times as long as one int. So each key gets a code of so many bits, and the codes of a
//! group, one behind the other, are its key for a merger that knows no other. A code is how far a value is from the
//! least one where the key is a column of ints whose range the blocks know, and otherwise an id that all threads share.
//!
//! What does not fit, as an int of open rows that is outside of all blocks' range, or more distinct values than there are
//! ids, ends this for the thread that meets it: what it merged is taken apart again and goes on with keys as they are.
//!
//! Invariants: equal combinations of values, and no others, have equal ints; all threads of a scan give the same ints;
//! ids are never given anew.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use gannet_query::{Body, ColumnType, Expr, Groups, Key, Merger, Output, Plan, QueryError, States, Top};
use parking_lot::RwLock;

use super::columns::int_array;
use super::groups::RunGroups;
use super::key_ids::{KeyIds, other_type};
use super::prepare::{OutputPlan, Prepared};
use super::readers::int_parts;
use super::{RowRun, ScanError};

/// Bits that all codes together have: an int that is not negative.
const BITS: u32 = 63;
/// Distances have at most so many bits; ints further from one another get ids.
const DISTANCE_BITS_MAX: u32 = 32;
/// Ids have at most so many bits, and at least so many: with fewer the keys are not put together.
const ID_BITS_MAX: u32 = 32;
const ID_BITS_MIN: u32 = 12;

/// How the keys of a plan become one int. See the module.
#[derive(Debug)]
pub(super) struct Compound {
    /// The same plan with the int as its only key.
    plan: Plan,
    memory_bytes_max: u64,
    parts: Vec<Part>,
}

/// The code of one key.
#[derive(Debug)]
struct Part {
    shift: u32,
    bits: u32,
    kind: PartKind,
}

#[derive(Debug)]
enum PartKind {
    /// How far ints are from this one; all bits set stands for NULL.
    Distance { least: i64 },
    /// Ids that all threads share.
    Shared(RwLock<KeyIds>),
}

/// What one thread puts together.
#[derive(Debug)]
pub(super) struct Packer {
    compound: Arc<Compound>,
    /// Of each key that has ids.
    known: Vec<Option<Known>>,
    merger: Merger,
}

/// The values of a key that a thread has seen, by ids of its own, and the code of each: nobody waits for others to look
/// up what he has looked up before.
#[derive(Debug)]
struct Known {
    ids: KeyIds,
    codes: Vec<u64>,
}

/// Why values have no codes.
#[derive(Debug)]
enum NoCode {
    TooLarge,
    Failed(ScanError),
}

impl<E: Into<ScanError>> From<E> for NoCode {
    fn from(error: E) -> NoCode {
        NoCode::Failed(error.into())
    }
}

impl Compound {
    /// For the keys of a plan over these runs; `None` where they cannot be put together, or there are not several.
    pub(super) fn new<'r>(
        prepared: &Prepared<'_>,
        runs: impl Iterator<Item = &'r dyn RowRun> + Clone,
        memory_bytes_max: u64,
    ) -> Option<Compound> {
        let Output::Groups { keys, aggregates } = &prepared.plan.output else { return None };
        let OutputPlan::Groups(groups) = &prepared.output else { return None };
        if keys.len() < 2 {
            return None;
        }
        let mut distances = Vec::with_capacity(keys.len());
        for (key, plan) in keys.iter().zip(&groups.keys) {
            KeyIds::of(&key.data_type)?;
            let spec = plan.column.map(|column| &prepared.specs[column]);
            let spec = spec.filter(|spec| spec.column_type == ColumnType::Int && spec.lengths_of.is_none());
            distances.push(spec.and_then(|spec| distance(runs.clone(), &spec.name)));
        }
        let of_distances: u32 = distances.iter().flatten().map(|(_, bits)| bits).sum();
        let id_count = distances.iter().filter(|distance| distance.is_none()).count() as u32;
        let left = BITS.checked_sub(of_distances)?;
        let of_ids = left.checked_div(id_count).unwrap_or(ID_BITS_MAX).min(ID_BITS_MAX);
        if of_ids < ID_BITS_MIN {
            return None;
        }
        let mut shift = 0;
        let mut parts = Vec::with_capacity(keys.len());
        for (key, distance) in keys.iter().zip(distances) {
            let (kind, bits) = match distance {
                Some((least, bits)) => (PartKind::Distance { least }, bits),
                None => (PartKind::Shared(RwLock::new(KeyIds::of(&key.data_type)?)), of_ids),
            };
            parts.push(Part { shift, bits, kind });
            shift += bits;
        }
        let key = Key { expr: Expr::column("compound"), data_type: DataType::Int64 };
        let output = Output::Groups { keys: vec![key], aggregates: aggregates.clone() };
        Some(Compound { plan: Plan { output, ..prepared.plan.clone() }, memory_bytes_max, parts })
    }

    /// The plan that the ints are the only key of.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether an order of the groups is the same for the ints: one that knows no key.
    pub(super) fn takes(&self, top: &Top) -> bool {
        top.check(&self.plan).is_ok() && top.is_without_keys()
    }

    /// Groups by ints as groups by the keys that the ints stand for.
    pub(super) fn apart(&self, body: Body) -> Result<Body, ScanError> {
        let Body::Groups(Groups { keys, states, group_count }) = body else { return Ok(body) };
        let ints = keys.first().and_then(|key| key.as_primitive_opt::<Int64Type>());
        let ints =
            ints.ok_or_else(|| QueryError::Mismatch("groups without the int that is their key".into()))?;
        let key = |part: &Part| {
            let codes = ints.values().iter().map(|int| (*int as u64 >> part.shift) & part.mask());
            match &part.kind {
                PartKind::Distance { least } => {
                    let valid: Vec<bool> = codes.clone().map(|code| code != part.mask()).collect();
                    let nulls = valid.contains(&false).then(|| valid.into());
                    let values = codes.map(|code| least.wrapping_add(code as i64)).collect();
                    int_array(values, nulls, ColumnType::Int)
                }
                PartKind::Shared(ids) => {
                    ids.read().values(&codes.map(|code| code as u32).collect::<Vec<_>>())
                }
            }
        };
        Ok(Body::Groups(Groups { keys: self.parts.iter().map(key).collect(), states, group_count }))
    }
}

/// The least int of a column and the bits of distances from it, with as much room again on both sides, where blocks know
/// and they are few.
fn distance<'r>(runs: impl Iterator<Item = &'r dyn RowRun>, name: &str) -> Option<(i64, u32)> {
    let ranges = runs.filter_map(|run| run.int_range(name, 0));
    let (min, max) = ranges.reduce(|all, range| (all.0.min(range.0), all.1.max(range.1)))?;
    let room = max.checked_sub(min)? / 2;
    let least = min.saturating_sub(room);
    let span = max.saturating_add(room).checked_sub(least)?;
    // One code more, for NULL.
    let bits = u64::BITS - (span as u64 + 1).leading_zeros();
    (bits <= DISTANCE_BITS_MAX).then_some((least, bits))
}

impl Part {
    fn mask(&self) -> u64 {
        (1 << self.bits) - 1
    }
}

impl Packer {
    /// With no groups.
    fn new(compound: Arc<Compound>) -> Result<Packer, ScanError> {
        let known = |part: &Part| match &part.kind {
            PartKind::Distance { .. } => None,
            PartKind::Shared(ids) => Some(Known { ids: ids.read().of_same_type(), codes: Vec::new() }),
        };
        let known = compound.parts.iter().map(known).collect();
        let merger = Merger::new(&compound.plan, compound.memory_bytes_max)?;
        Ok(Packer { compound, known, merger })
    }

    /// With groups that are given by the ids of their keys: for each key, all values in the order of their ids, and the
    /// id of each group. `None` where a value has no code; the states are still there then.
    pub(super) fn of(
        compound: &Arc<Compound>,
        keys: &[(ArrayRef, &[u32])],
        states: &mut Vec<States>,
    ) -> Result<Option<Packer>, ScanError> {
        let mut packer = Packer::new(Arc::clone(compound))?;
        let group_count = keys.first().map_or(0, |(_, ids)| ids.len());
        let codes = |packer: &mut Packer, key: usize| {
            let (values, ids) = &keys[key];
            let codes = packer.codes(key, values)?;
            Ok(ids.iter().map(|id| codes[*id as usize]).collect())
        };
        Ok(packer.add(group_count, states, codes)?.then_some(packer))
    }

    /// Adds the groups of a run, unless a value has no code: then nothing is added, and false comes back.
    pub(super) fn push_run(&mut self, run: &mut RunGroups<'_>) -> Result<bool, ScanError> {
        let (keys, codes_of) = (&run.keys, &run.codes);
        self.add(run.group_count, &mut run.states, |packer, key| {
            keys[key].translated(&codes_of[key], |values| packer.codes(key, values))
        })
    }

    /// Adds groups with their keys, as [`Packer::push_run`] does.
    pub(super) fn push_groups(&mut self, groups: &mut Groups) -> Result<bool, ScanError> {
        let keys = &groups.keys;
        self.add(groups.group_count, &mut groups.states, |packer, key| packer.codes(key, &keys[key]))
    }

    /// Adds groups, of which `codes` tells the codes of each key. False when one has none: then nothing is added.
    fn add(
        &mut self,
        group_count: usize,
        states: &mut Vec<States>,
        codes: impl Fn(&mut Packer, usize) -> Result<Vec<u64>, NoCode>,
    ) -> Result<bool, ScanError> {
        let mut ints = vec![0; group_count];
        for key in 0..self.known.len() {
            let codes = match codes(self, key) {
                Ok(codes) => codes,
                Err(NoCode::TooLarge) => return Ok(false),
                Err(NoCode::Failed(error)) => return Err(error),
            };
            let shift = self.compound.parts[key].shift;
            ints.iter_mut().zip(codes).for_each(|(int, code)| *int |= (code << shift) as i64);
        }
        let keys: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(ints))];
        let groups = Groups { keys, states: std::mem::take(states), group_count };
        self.merger.push(Body::Groups(groups))?;
        Ok(true)
    }

    /// What merged, by ints.
    pub(super) fn finish(self) -> Merger {
        self.merger
    }

    /// What merged, by the keys that the ints stand for.
    pub(super) fn apart(self) -> Result<Body, ScanError> {
        self.compound.apart(self.merger.finish()?)
    }

    /// The codes of values of a key.
    fn codes(&mut self, key: usize, values: &ArrayRef) -> Result<Vec<u64>, NoCode> {
        let part = &self.compound.parts[key];
        match &part.kind {
            PartKind::Distance { least } => {
                let (ints, nulls) = int_parts(values).ok_or_else(|| other_type(values))?;
                let code = |(place, int): (usize, &i64)| {
                    if nulls.as_ref().is_some_and(|nulls| nulls.is_null(place)) {
                        return Ok(part.mask());
                    }
                    let distance = int.checked_sub(*least).and_then(|distance| u64::try_from(distance).ok());
                    distance.filter(|distance| *distance < part.mask()).ok_or(NoCode::TooLarge)
                };
                ints.iter().enumerate().map(code).collect()
            }
            PartKind::Shared(shared) => {
                let known = self.known[key].as_mut().ok_or_else(|| other_type(values))?;
                let ids = known.ids.number(values)?;
                if known.ids.len() > known.codes.len() {
                    let fresh: Vec<u32> = (known.codes.len() as u32..known.ids.len() as u32).collect();
                    let fresh = known.ids.values(&fresh);
                    let mut shared = shared.write();
                    known.codes.extend(shared.number(&fresh)?.into_iter().map(u64::from));
                    let is_large = shared.memory_bytes() as u64 > self.compound.memory_bytes_max;
                    if is_large || shared.len() as u64 > part.mask() {
                        return Err(NoCode::TooLarge);
                    }
                }
                Ok(ids.into_iter().map(|id| known.codes[id as usize]).collect())
            }
        }
    }
}
