//! The groups of all runs that one thread scans.
//!
//! Two runs have different codes for the same value, so groups meet by value. Values are few where groups are many
//! combinations of them: each key's values get ids that hold for all runs, looked up once per distinct value and run, and
//! groups meet by their ids. What is hashed for a group is then a pair of small integers, however long its keys are.
//!
//! Beyond [`GROUPS_MAX`] groups, or for keys of types without ids, groups go to a [`Merger`], which is made for millions.
//! Where rows hardly share groups, it takes the rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, TimeUnit};
use gannet_query::{Body, Groups, Merger, Output, Plan, QueryError, States};
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::ScanError;
use super::coder::Numbers;
use super::columns::int_array;
use super::groups::RunGroups;
use super::pairs::Pairs;
use super::readers::int_parts;
use gannet_query::ColumnType;

/// With more groups than this, tables that are cut into parts are faster than one that is not.
const GROUPS_MAX: usize = 1 << 17;
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
    /// Whether the only key is one of ints, so that the merger takes rows.
    has_int_key: bool,
    /// Whether it does, and rows hardly shared groups in the last run whose rows were grouped.
    is_apart: bool,
}

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

/// Ids of the values of one key, in order of first appearance.
#[derive(Debug)]
enum KeyIds {
    Ints(Numbers, ColumnType),
    Texts(Texts),
}

#[derive(Debug, Default)]
struct Texts {
    table: HashTable<(u64, u32)>,
    /// Where each text ends.
    ends: Vec<usize>,
    bytes: Vec<u8>,
    null: Option<u32>,
}

impl Gathering {
    pub(super) fn new(plan: &Plan, memory_bytes_max: u64) -> Result<Gathering, ScanError> {
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
        Ok(Gathering { merger, memory_bytes_max, ids, has_int_key, is_apart: false })
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
            return Ok(self.merger.push(Body::Groups(run.into_groups()?))?);
        };
        run.states.iter_mut().for_each(States::gather);
        let known = ids.group_count;
        ids.push(&run)?;
        // Where most groups of a run are new, as ids that come again soon are, looking them up here saves nothing.
        let are_new = ids.keys.len() == 1 && (ids.group_count - known) * 4 > run.group_count * 3;
        self.check_memory()?;
        let groups_max = if self.is_apart || are_new { GROUPS_APART_MAX } else { GROUPS_MAX };
        if let Some(ids) = self.ids.take_if(|ids| ids.group_count > groups_max) {
            self.merger.push(Body::Groups(ids.finish()))?;
        }
        Ok(())
    }

    /// Adds rows, or groups that were put together elsewhere.
    pub(super) fn push(&mut self, body: Body) -> Result<(), ScanError> {
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
        if let Some(ids) = self.ids.take().filter(|ids| ids.group_count > 0) {
            self.merger.push(Body::Groups(ids.finish()))?;
        }
        Ok(self.merger)
    }
}

impl Ids {
    fn push(&mut self, run: &RunGroups<'_>) -> Result<(), ScanError> {
        let mut of_keys: Vec<Vec<u32>> = Vec::with_capacity(self.keys.len());
        for (ids, (key, codes)) in self.keys.iter_mut().zip(run.keys.iter().zip(&run.codes)) {
            let bound = codes.iter().max().map_or(0, |code| *code as usize + 1);
            let mut to = vec![u32::MAX; bound];
            let mut used: Vec<u32> = Vec::new();
            for code in codes {
                if to[*code as usize] == u32::MAX {
                    to[*code as usize] = 0;
                    used.push(*code);
                }
            }
            let values = key.values_at(&used)?;
            ids.number(&values, |place, id| to[used[place] as usize] = id)?;
            of_keys.push(codes.iter().map(|code| to[*code as usize]).collect());
        }
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

impl KeyIds {
    fn of(data_type: &DataType) -> Option<KeyIds> {
        match data_type {
            DataType::Int64 => Some(KeyIds::Ints(Numbers::default(), ColumnType::Int)),
            DataType::Timestamp(TimeUnit::Nanosecond, _) if data_type == &ColumnType::Time.arrow() => {
                Some(KeyIds::Ints(Numbers::default(), ColumnType::Time))
            }
            DataType::Utf8 => Some(KeyIds::Texts(Texts::default())),
            _ => None,
        }
    }

    /// Calls `put` with the place and the id of each value.
    fn number(&mut self, values: &ArrayRef, mut put: impl FnMut(usize, u32)) -> Result<(), ScanError> {
        match self {
            KeyIds::Ints(numbers, _) => {
                let (ints, nulls) = int_parts(values).ok_or_else(|| other_type(values))?;
                for (place, value) in ints.iter().enumerate() {
                    let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(place));
                    put(place, if is_null { numbers.number_null() } else { numbers.number(*value as u64) });
                }
            }
            KeyIds::Texts(texts) => {
                let array = values.as_string_opt::<i32>().ok_or_else(|| other_type(values))?;
                texts.table.reserve(array.len(), |(hash, _)| *hash);
                array.iter().enumerate().for_each(|(place, text)| put(place, texts.number(text)));
            }
        }
        Ok(())
    }

    /// The ids here of all values of another.
    fn numbers_of(&mut self, other: &KeyIds) -> Vec<u32> {
        match (self, other) {
            (KeyIds::Ints(ours, _), KeyIds::Ints(theirs, _)) => {
                let id = |(at, value): (usize, &u64)| match theirs.null == Some(at as u32) {
                    true => ours.number_null(),
                    false => ours.number(*value),
                };
                theirs.values.iter().enumerate().map(id).collect()
            }
            (KeyIds::Texts(ours), KeyIds::Texts(theirs)) => {
                (0..theirs.ends.len() as u32).map(|id| ours.number(theirs.get(id))).collect()
            }
            // The keys of one plan are of the same types on all threads.
            (KeyIds::Ints(..) | KeyIds::Texts(_), _) => Vec::new(),
        }
    }

    /// The values of some ids.
    fn values(&self, ids: &[u32]) -> ArrayRef {
        match self {
            KeyIds::Ints(numbers, column_type) => {
                let nulls = numbers.null.filter(|null| ids.contains(null));
                let nulls = nulls.map(|null| NullBuffer::from_iter(ids.iter().map(|id| *id != null)));
                let values = ids.iter().map(|id| numbers.values[*id as usize] as i64).collect();
                int_array(values, nulls, *column_type)
            }
            KeyIds::Texts(texts) => Arc::new(ids.iter().map(|id| texts.get(*id)).collect::<StringArray>()),
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            KeyIds::Ints(numbers, _) => numbers.values.len() * 32,
            KeyIds::Texts(texts) => texts.bytes.len() + texts.ends.len() * 32,
        }
    }
}

fn other_type(values: &ArrayRef) -> ScanError {
    ScanError::Query(QueryError::Mismatch(format!("a group key of type {}", values.data_type())))
}

impl Texts {
    fn number(&mut self, text: Option<&str>) -> u32 {
        let next = self.ends.len() as u32;
        let Some(text) = text else {
            let null = *self.null.get_or_insert(next);
            if null == next {
                self.ends.push(self.bytes.len());
            }
            return null;
        };
        let hash = xxh3_64(text.as_bytes());
        let (ends, bytes) = (&self.ends, &self.bytes);
        let is_same = |(known, id): &(u64, u32)| {
            *known == hash && Some(*id) != self.null && bytes_of(ends, bytes, *id) == text.as_bytes()
        };
        if let Some((_, id)) = self.table.find(hash, is_same) {
            return *id;
        }
        self.table.insert_unique(hash, (hash, next), |(hash, _)| *hash);
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.bytes.len());
        next
    }

    fn get(&self, id: u32) -> Option<&str> {
        // Only whole texts were put in.
        (Some(id) != self.null)
            .then(|| std::str::from_utf8(bytes_of(&self.ends, &self.bytes, id)).unwrap_or_default())
    }
}

fn bytes_of<'a>(ends: &[usize], bytes: &'a [u8], id: u32) -> &'a [u8] {
    let start = if id == 0 { 0 } else { ends[id as usize - 1] };
    &bytes[start..ends[id as usize]]
}
