//! Exact distinct values a group.
//!
//! Ints (and what is known as ints) are kept as their hashes, which no two of them share. Rows are gathered first,
//! without the pairs of group and value that were seen just before, as long as some do come again; when states merge
//! they become a list a group, and the lists are put into a table a group. A table that grows beyond what caches hold is
//! split by the top bits of the hashes: hashes are then collected for each part, and put into it many at a time.
//!
//! For the wire a group's values are listed in the order of their hashes. A list that comes in that order is known to
//! hold no value twice, so it is left as it is until another one has to be merged with it; lists in any other order
//! are put into a table.
//!
//! Where nobody will add values any more the numbers of values take their place.
//!
//! Texts have numbers, and groups sets of these (see [`super::text_sets`]); codes are looked at once for every pair of
//! group and code, and a text at its first code.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, Int64Array, ListArray, ListBuilder};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Int64Type};

use super::exact::take;
use super::gathered::Gathered;
use super::hash_sets::IntSet;
use super::known::{Known, each_of_array, for_each};
use super::pairs::Pairs;
use super::scalars::{Kind, expect, kind_for, without_nulls};
use super::text_sets::TextSets;
use super::{Input, Values};
use crate::QueryError;
use crate::sketch::{hash_int, unhash_int};

/// Pairs that are remembered while rows are gathered: a power of two.
const RECENT: usize = 1 << 10;
/// Fewer than one row in so many that brings one of them again is not worth the look.
const RECENT_ONE_IN: usize = 16;

/// The number of a text that nobody looked at.
const UNKNOWN: u32 = u32::MAX;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Distinct {
    kind: Kind,
    sets: Sets,
    pairs: Pairs,
}

#[derive(Debug, Clone)]
enum Sets {
    Ints {
        sets: Vec<IntSet>,
        /// Hashes that are in no set yet, some more than once.
        gathered: Gathered<u64>,
        recent: Recent,
    },
    Texts {
        sets: TextSets,
        /// The number of the text of each code of the distinct values that came last.
        of_codes: Vec<u32>,
    },
    /// Only how many there are: nothing can be added to a group that has some.
    Counted(Vec<i64>),
}

/// The pairs of group and hash that came last, one at each place; no places where looking for them is in vain.
#[derive(Debug, Clone, Default)]
struct Recent {
    pairs: Vec<(u32, u64)>,
    is_vain: bool,
}

impl Recent {
    fn open(&mut self) {
        self.pairs.resize(if self.is_vain { 0 } else { RECENT }, (u32::MAX, 0));
    }

    /// Notes how many of some rows were new.
    fn found(&mut self, new: usize, rows: usize) {
        self.is_vain |= rows >= RECENT && new > rows - rows / RECENT_ONE_IN;
    }

    /// False when the pair is among the last.
    #[inline(always)]
    fn is_new(&mut self, group: u32, hash: u64) -> bool {
        let place = (hash as usize ^ (group as usize).wrapping_mul(0x9e37)) % RECENT;
        match self.pairs.get_mut(place) {
            Some(recent) => std::mem::replace(recent, (group, hash)) != (group, hash),
            None => true,
        }
    }
}

impl Distinct {
    pub(crate) fn new(data_type: &DataType) -> Result<Distinct, QueryError> {
        let kind = kind_for("count(distinct)", data_type)?;
        let sets = match kind {
            Kind::Int | Kind::Float => {
                Sets::Ints { sets: Vec::new(), gathered: Gathered::default(), recent: Recent::default() }
            }
            Kind::Text | Kind::Texts => Sets::Texts { sets: TextSets::default(), of_codes: Vec::new() },
        };
        Ok(Distinct { kind, sets, pairs: Pairs::default() })
    }

    pub(crate) fn len(&self) -> usize {
        match &self.sets {
            Sets::Ints { sets, .. } => sets.len(),
            Sets::Texts { sets, .. } => sets.len(),
            Sets::Counted(counts) => counts.len(),
        }
    }

    pub(crate) fn resize(&mut self, group_count: usize) {
        match &mut self.sets {
            Sets::Ints { sets, .. } => sets.resize(group_count, IntSet::Empty),
            Sets::Texts { sets, .. } => sets.resize(group_count),
            Sets::Counted(counts) => counts.resize(group_count, 0),
        }
    }

    /// Keeps of settled ones how many there are.
    pub(crate) fn count(&mut self) {
        self.sets = Sets::Counted(self.counts());
    }

    /// There are only numbers of values.
    pub(crate) fn is_counted(&self) -> bool {
        matches!(self.sets, Sets::Counted(_))
    }

    /// Numbers of values, where they can be had without values that others may have too.
    fn counted(&mut self) -> Result<&mut Vec<i64>, QueryError> {
        self.settle();
        if !self.is_counted() && self.counts().iter().all(|count| *count == 0) {
            self.count();
        }
        match &mut self.sets {
            Sets::Counted(counts) => Ok(counts),
            _ => Err(already_counted()),
        }
    }

    pub(crate) fn update(&mut self, groups: &[u32], input: &Input<'_>) -> Result<(), QueryError> {
        let group_count = self.len();
        let (kind, pairs) = (self.kind, &mut self.pairs);
        let mut visit_all = |visit: &mut dyn FnMut(u32, Known<'_>)| match input.values {
            Values::Codes(codes, distinct) => {
                let fresh = pairs.fresh(group_count, groups, codes, distinct, input.validity);
                let (groups, places): (Vec<u32>, Vec<u32>) = fresh.into_iter().unzip();
                each_of_array(&groups, distinct, kind, None, |row| places[row] as usize, visit)
            }
            _ => for_each(groups, input, kind, visit),
        };
        match &mut self.sets {
            Sets::Counted(_) => return Err(already_counted()),
            Sets::Texts { sets, of_codes } => match input.values {
                Values::Codes(codes, distinct) => {
                    if !pairs.knows(distinct) {
                        of_codes.clear();
                        of_codes.resize(distinct.len(), UNKNOWN);
                    }
                    let fresh = pairs.fresh(group_count, groups, codes, distinct, input.validity);
                    add_codes(&fresh, distinct, kind, of_codes, sets)?;
                }
                _ => for_each(groups, input, kind, |group, value| {
                    if let Known::Bytes(text) = value {
                        sets.insert(group, text);
                    }
                })?,
            },
            Sets::Ints { gathered, recent, .. } => {
                recent.open();
                gathered.reserve(groups.len());
                let before = gathered.len();
                let mut push = |group: u32, value: Known<'_>| {
                    if let Known::Int(int) = value {
                        let hash = hash_int(int);
                        if recent.is_new(group, hash) {
                            gathered.push(group, hash);
                        }
                    }
                };
                match input.values {
                    // The common case has a loop of its own.
                    Values::Int(_) if kind == Kind::Int => for_each(groups, input, kind, push)?,
                    _ => visit_all(&mut push)?,
                }
                recent.found(gathered.len() - before, groups.len());
                if gathered.is_full() {
                    self.settle();
                }
            }
        }
        Ok(())
    }

    /// Makes lists of what was gathered, for a merge.
    pub(crate) fn gather(&mut self) {
        self.pairs = Pairs::default();
        if let Sets::Ints { sets, gathered, recent } = &mut self.sets {
            *recent = Recent::default();
            if gathered.is_empty() {
                return;
            }
            gathered.sort(sets.len());
            let places: Vec<Range<usize>> = (0..sets.len()).map(|group| gathered.places(group)).collect();
            let hashes: ScalarBuffer<u64> = std::mem::take(gathered).into_items().into();
            for (set, places) in sets.iter_mut().zip(places).filter(|(_, places)| !places.is_empty()) {
                set.add_list(hashes.slice(places.start, places.len()));
            }
        }
    }

    /// Brings every value into its set.
    pub(crate) fn settle(&mut self) {
        self.gather();
        if let Sets::Ints { sets, .. } = &mut self.sets {
            sets.iter_mut().for_each(IntSet::settle);
        }
    }

    /// Adds some groups of another, which is gathered: its group `groups.start + i` is our group `to[i]`.
    pub(crate) fn merge(
        &mut self,
        other: &Distinct,
        groups: Range<usize>,
        to: &[u32],
    ) -> Result<(), QueryError> {
        if self.is_counted() || other.is_counted() {
            let (ours, mut other) = (self.counted()?, other.clone());
            for (group, theirs) in to.iter().zip(&other.counted()?[groups]) {
                match (&mut ours[*group as usize], *theirs) {
                    (_, 0) => {}
                    (none @ 0, theirs) => *none = theirs,
                    _ => return Err(already_counted()),
                }
            }
            return Ok(());
        }
        match (&mut self.sets, &other.sets) {
            (Sets::Ints { sets, .. }, Sets::Ints { sets: theirs, .. }) => {
                to.iter().zip(&theirs[groups]).for_each(|(group, set)| sets[*group as usize].merge(set));
            }
            (Sets::Texts { sets, .. }, Sets::Texts { sets: theirs, .. }) => sets.merge(theirs, groups, to),
            _ => return Err(QueryError::Mismatch("distinct values of different types".to_owned())),
        }
        Ok(())
    }

    pub(crate) fn append(&mut self, mut other: Distinct) -> Result<(), QueryError> {
        if self.is_counted() || other.is_counted() {
            self.counted()?.append(other.counted()?);
            return Ok(());
        }
        self.gather();
        other.gather();
        match (&mut self.sets, other.sets) {
            (Sets::Ints { sets, .. }, Sets::Ints { sets: mut theirs, .. }) => sets.append(&mut theirs),
            (Sets::Texts { sets, .. }, Sets::Texts { sets: theirs, .. }) => sets.append(theirs),
            _ => return Err(QueryError::Mismatch("distinct values of different types".to_owned())),
        }
        Ok(())
    }

    /// These groups of gathered ones.
    pub(crate) fn take(&self, groups: &[u32]) -> Distinct {
        let sets = match &self.sets {
            Sets::Ints { sets, .. } => {
                let (gathered, recent) = (Gathered::default(), Recent::default());
                Sets::Ints { sets: take(sets, groups), gathered, recent }
            }
            Sets::Texts { sets, .. } => Sets::Texts { sets: sets.take(groups), of_codes: Vec::new() },
            Sets::Counted(counts) => Sets::Counted(take(counts, groups)),
        };
        Distinct { kind: self.kind, sets, pairs: Pairs::default() }
    }

    /// How many values each group has; of settled ones.
    pub(crate) fn counts(&self) -> Vec<i64> {
        match &self.sets {
            Sets::Ints { sets, .. } => sets.iter().map(|set| set.len() as i64).collect(),
            Sets::Texts { sets, .. } => (0..sets.len()).map(|group| sets.count(group) as i64).collect(),
            Sets::Counted(counts) => counts.clone(),
        }
    }

    pub(crate) fn array_type(data_type: &DataType) -> Result<DataType, QueryError> {
        let item = match kind_for("count(distinct)", data_type)? {
            Kind::Int | Kind::Float => DataType::Int64,
            Kind::Text | Kind::Texts => DataType::Binary,
        };
        Ok(DataType::List(Arc::new(Field::new("item", item, true))))
    }

    /// Settled ones for the wire: lists of values, or of ints alone how many there are.
    pub(crate) fn to_array(&self) -> Result<ArrayRef, QueryError> {
        match &self.sets {
            Sets::Counted(counts) => Ok(Arc::new(Int64Array::from(counts.clone()))),
            Sets::Ints { sets, .. } => {
                let mut values = Vec::with_capacity(sets.iter().map(IntSet::len).sum());
                let mut ends = vec![0i32];
                for set in sets {
                    set.for_each_in_order(|hash| values.push(unhash_int(hash)));
                    ends.push(i32::try_from(values.len()).map_err(|_| {
                        QueryError::Mismatch(format!("{} distinct values do not fit an array", values.len()))
                    })?);
                }
                let item = Arc::new(Field::new("item", DataType::Int64, true));
                let values = Arc::new(Int64Array::from(values));
                Ok(Arc::new(ListArray::new(item, OffsetBuffer::new(ends.into()), values, None)))
            }
            Sets::Texts { sets, .. } => {
                let entries = (0..sets.len()).map(|group| sets.count(group)).sum();
                let values = BinaryBuilder::with_capacity(entries, sets.bytes());
                let mut lists = ListBuilder::with_capacity(values, sets.len());
                for group in 0..sets.len() {
                    sets.for_each(group, |text| lists.values().append_value(text));
                    lists.append(true);
                }
                Ok(Arc::new(lists.finish()))
            }
        }
    }

    pub(crate) fn from_arrays(data_type: &DataType, arrays: &[ArrayRef]) -> Result<Distinct, QueryError> {
        let mut distinct = Distinct::new(data_type)?;
        if arrays.first().is_some_and(|array| array.data_type() == &DataType::Int64) {
            let counts = without_nulls(expect(arrays, 0, &DataType::Int64)?)?;
            let counts = counts.as_primitive::<Int64Type>().values();
            if let Some(count) = counts.iter().find(|count| **count < 0) {
                return Err(QueryError::Mismatch(format!("a group has {count} distinct values")));
            }
            distinct.sets = Sets::Counted(counts.to_vec());
            return Ok(distinct);
        }
        let lists = without_nulls(expect(arrays, 0, &Self::array_type(data_type)?)?)?.as_list::<i32>();
        distinct.resize(lists.len());
        // Only what the lists refer to; there may be more beside it.
        let (first, last) = (lists.value_offsets()[0] as usize, lists.value_offsets()[lists.len()] as usize);
        let items = lists.values().slice(first, last - first);
        without_nulls(&items)?;
        let list = |group: usize| {
            let offsets = &lists.value_offsets()[group..=group + 1];
            offsets[0] as usize - first..offsets[1] as usize - first
        };
        match &mut distinct.sets {
            Sets::Counted(_) => {}
            Sets::Ints { sets, .. } => {
                let values = items.as_primitive::<Int64Type>().values();
                let hashes: ScalarBuffer<u64> = values.iter().map(|value| hash_int(*value)).collect();
                for (group, set) in sets.iter_mut().enumerate() {
                    let list = list(group);
                    *set = IntSet::of_list(hashes.slice(list.start, list.len()));
                }
            }
            Sets::Texts { sets, .. } => {
                let items = items.as_binary::<i32>();
                if sets.len() == 1 {
                    // They are distinct.
                    let ends = items.value_offsets();
                    sets.reserve(items.len(), (ends[items.len()] - ends[0]) as usize);
                }
                for group in 0..sets.len() {
                    list(group).for_each(|index| sets.insert(group as u32, items.value(index)));
                }
            }
        }
        Ok(distinct)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let sets = match &self.sets {
            Sets::Ints { sets, gathered, recent } => {
                let gathered = gathered.memory_bytes() + recent.pairs.capacity() * 16;
                gathered + sets.iter().map(|set| 32 + set.memory_bytes()).sum::<usize>()
            }
            Sets::Texts { sets, of_codes } => sets.memory_bytes() + of_codes.capacity() * 4,
            Sets::Counted(counts) => counts.len() * 8,
        };
        sets + self.pairs.memory_bytes()
    }
}

/// Adds texts to groups by their codes; each is looked at when its code first comes.
fn add_codes(
    pairs: &[(u32, u32)],
    distinct: &ArrayRef,
    kind: Kind,
    of_codes: &mut [u32],
    sets: &mut TextSets,
) -> Result<(), QueryError> {
    let mut new = Vec::new();
    for (_, code) in pairs {
        let number = &mut of_codes[*code as usize];
        if *number == UNKNOWN {
            // Its number follows; here it is only asked for once.
            *number = 0;
            new.push(*code);
        }
    }
    each_of_array(
        &new,
        distinct,
        kind,
        None,
        |place| new[place] as usize,
        |code, value| {
            if let Known::Bytes(text) = value {
                of_codes[code as usize] = sets.number(text);
            }
        },
    )?;
    pairs.iter().for_each(|(group, code)| sets.insert_number(*group, of_codes[*code as usize]));
    Ok(())
}

fn already_counted() -> QueryError {
    QueryError::Mismatch("distinct values that were counted already cannot be added up".to_owned())
}
