//! Groups by key: one table while they are few, parts by hash once they are many.
//!
//! A table of millions of groups misses the cache for every group that is looked up. So, once there are many, what
//! comes is put in the order of the parts that its hashes belong to and waits; when enough waits, it is merged part by
//! part, and each part's table is in the cache while it is worked on. The parts of several threads are merged the same
//! way, each on its own: they have no group in common with other parts.

use std::sync::Arc;

use super::Groups;
use super::keys::{KeyBatch, KeyForm, Keys};
use super::placed::{PlacedKeys, starts};
use crate::{Plan, QueryError, States, Top};

/// Parts: 2 to this. One and a half million groups make tables of a quarter of a megabyte.
const PART_BITS: u32 = 8;
pub(super) const PARTS: usize = 1 << PART_BITS;
/// More groups than this are split into parts.
pub(super) const FEW_MAX: usize = 1 << 15;
/// So much waits at most, if the memory limit is not a small one.
const WAITING_BYTES_MAX: usize = 48 << 20;

/// Groups with distinct keys.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) keys: Keys,
    pub(super) states: Vec<States>,
    memory_bytes: usize,
}

/// Groups in the order of their parts, their keys not distinct.
#[derive(Debug)]
pub(super) struct Waiting {
    keys: KeyBatch,
    tags: Vec<u32>,
    states: Vec<States>,
    /// Where each part begins, and the end of all.
    starts: Vec<usize>,
}

/// Groups of a plan.
#[derive(Debug)]
pub(super) enum Gathered {
    Few(Part),
    Many { parts: Vec<Part>, waiting: Vec<Waiting>, waiting_bytes: usize, parts_bytes: usize },
}

pub(super) fn part_of(hash: u64) -> usize {
    (hash >> (64 - PART_BITS)) as usize
}

impl Part {
    pub(super) fn new(form: &KeyForm, empty: &[States]) -> Part {
        Part { keys: form.keys(), states: empty.to_vec(), memory_bytes: 0 }
    }

    fn merge(
        &mut self,
        keys: &KeyBatch,
        tags: &[u32],
        states: &[States],
        rows: std::ops::Range<usize>,
    ) -> Result<(), QueryError> {
        if rows.is_empty() {
            return Ok(());
        }
        let to = self.keys.number(keys, tags, rows.clone())?;
        self.merge_numbered(&to, states, rows)
    }

    /// Adds the states of groups whose keys have these numbers.
    fn merge_numbered(
        &mut self,
        to: &[u32],
        states: &[States],
        rows: std::ops::Range<usize>,
    ) -> Result<(), QueryError> {
        for (ours, theirs) in self.states.iter_mut().zip(states) {
            ours.resize(self.keys.len());
            ours.merge_range(theirs, rows.clone(), to)?;
        }
        Ok(())
    }

    /// Adds groups with all of their states, which an empty part keeps as they are.
    fn merge_whole(&mut self, keys: &KeyBatch, tags: &[u32], states: Vec<States>) -> Result<(), QueryError> {
        let is_empty = self.keys.len() == 0;
        let to = self.keys.number(keys, tags, 0..keys.len())?;
        if is_empty && self.keys.len() == to.len() {
            // Distinct keys have numbers in order.
            self.states = states;
            return Ok(());
        }
        self.merge_numbered(&to, &states, 0..to.len())
    }

    /// Adds what waits for this part.
    pub(super) fn merge_waiting(&mut self, waiting: &Waiting, part: usize) -> Result<(), QueryError> {
        let rows = waiting.starts[part]..waiting.starts[part + 1];
        self.merge(&waiting.keys, &waiting.tags, &waiting.states, rows)
    }

    /// Adds the groups of another part.
    pub(super) fn merge_part(&mut self, other: &Part) -> Result<(), QueryError> {
        let keys = other.keys.to_batch();
        self.merge(&keys, &other.keys.tags(), &other.states, 0..keys.len())
    }

    pub(super) fn measure(&mut self) -> usize {
        self.memory_bytes =
            self.keys.memory_bytes() + self.states.iter().map(States::memory_bytes).sum::<usize>();
        self.memory_bytes
    }

    /// As a partial's groups.
    pub(super) fn finish(mut self, form: &KeyForm) -> Result<Groups, QueryError> {
        let group_count = self.keys.len();
        for states in &mut self.states {
            states.resize(group_count);
            states.settle();
        }
        Ok(Groups { keys: form.columns(&[&self.keys])?, states: self.states, group_count })
    }

    /// As [`Part::finish`], of the wanted groups alone where an order by values tells them: the keys of the others are not
    /// made.
    fn finish_top(mut self, form: &KeyForm, plan: &Plan, top: &Top) -> Result<Groups, QueryError> {
        let group_count = self.keys.len();
        if group_count as u64 <= top.limit || !top.is_by_values() {
            return self.finish(form);
        }
        for states in &mut self.states {
            states.resize(group_count);
            states.settle();
        }
        let states = std::mem::take(&mut self.states);
        let keyless = Groups { keys: vec![], states, group_count };
        // What has no order is as good an answer whole.
        let Some(first) = keyless.first_by_values(plan, top) else {
            return Part { states: keyless.states, ..self }.finish(form);
        };
        let keys = self.keys.some(first.values());
        let states = keyless.states.iter().map(|states| states.take(first.values())).collect();
        Ok(Groups { keys: form.columns(&[&keys])?, states, group_count: first.len() })
    }
}

impl Waiting {
    /// Puts groups in the order of their parts.
    fn new(keys: KeyBatch, hashes: &[u64], mut states: Vec<States>) -> Waiting {
        let starts = starts(hashes);
        let mut next = starts.clone();
        let mut order = vec![0u32; hashes.len()];
        for (row, hash) in hashes.iter().enumerate() {
            let place = &mut next[part_of(*hash)];
            order[*place] = row as u32;
            *place += 1;
        }
        states.iter_mut().for_each(States::gather);
        Waiting {
            keys: keys.take(&order),
            tags: keys.tags(order.iter().map(|row| hashes[*row as usize])),
            states: states.iter().map(|states| states.take_gathered(&order)).collect(),
            starts,
        }
    }

    fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes()
            + self.tags.capacity() * 4
            + self.states.iter().map(States::memory_bytes).sum::<usize>()
            + self.starts.len() * 8
    }
}

impl Gathered {
    /// Adds groups, whose keys need not be distinct.
    pub(super) fn push(
        &mut self,
        form: &KeyForm,
        empty: &[States],
        mut groups: Groups,
        memory_bytes_max: u64,
    ) -> Result<(), QueryError> {
        let keys = form.batch(&groups.keys, groups.group_count)?;
        let hashes = keys.hashes();
        if let Gathered::Few(part) = self {
            // So few of them cannot make many: there is nothing to split.
            if part.keys.len() + groups.group_count <= FEW_MAX * 2 {
                groups.states.iter_mut().for_each(States::gather);
                part.merge_whole(&keys, &keys.tags(hashes.into_iter()), groups.states)?;
                part.measure();
                if part.keys.len() > FEW_MAX {
                    self.split(form, empty)?;
                }
                return self.check(memory_bytes_max);
            }
            self.split(form, empty)?;
        }
        self.wait(Waiting::new(keys, &hashes, groups.states), memory_bytes_max)
    }

    /// Adds rows, each a group of its own, with the states of their places.
    pub(super) fn push_placed(
        &mut self,
        form: &KeyForm,
        empty: &[States],
        placed: PlacedKeys,
        mut states: Vec<States>,
        memory_bytes_max: u64,
    ) -> Result<(), QueryError> {
        states.iter_mut().for_each(States::gather);
        let PlacedKeys { keys, starts } = placed;
        if let Gathered::Few(part) = self
            && part.keys.len() + keys.len() <= FEW_MAX
        {
            part.merge(&keys, &[], &states, 0..keys.len())?;
            part.measure();
            return self.check(memory_bytes_max);
        }
        self.split(form, empty)?;
        self.wait(Waiting { keys, tags: Vec::new(), states, starts }, memory_bytes_max)
    }

    /// Leaves groups waiting until they are so many that merging them pays.
    fn wait(&mut self, new: Waiting, memory_bytes_max: u64) -> Result<(), QueryError> {
        if let Gathered::Many { waiting, waiting_bytes, .. } = self {
            *waiting_bytes += new.memory_bytes();
            waiting.push(new);
            let most = WAITING_BYTES_MAX.min(usize::try_from(memory_bytes_max / 4).unwrap_or(usize::MAX));
            if *waiting_bytes > most {
                self.flush()?;
            }
        }
        self.check(memory_bytes_max)
    }

    /// Splits few groups into parts.
    pub(super) fn split(&mut self, form: &KeyForm, empty: &[States]) -> Result<(), QueryError> {
        let Gathered::Few(part) = self else { return Ok(()) };
        let few = std::mem::replace(part, Part::new(form, empty));
        let parts = (0..PARTS).map(|_| Part::new(form, empty)).collect();
        let keys = few.keys.to_batch();
        let hashes = keys.hashes();
        let states: Vec<States> = few.states;
        let waiting = if keys.len() == 0 { vec![] } else { vec![Waiting::new(keys, &hashes, states)] };
        let waiting_bytes = waiting.iter().map(Waiting::memory_bytes).sum();
        *self = Gathered::Many { parts, waiting, waiting_bytes, parts_bytes: 0 };
        Ok(())
    }

    /// Merges what waits.
    pub(super) fn flush(&mut self) -> Result<(), QueryError> {
        if let Gathered::Many { parts, waiting, waiting_bytes, parts_bytes } = self {
            *parts_bytes = 0;
            for (index, part) in parts.iter_mut().enumerate() {
                for waiting in waiting.iter() {
                    part.merge_waiting(waiting, index)?;
                }
                *parts_bytes += part.measure();
            }
            waiting.clear();
            *waiting_bytes = 0;
        }
        Ok(())
    }

    /// Refuses more memory than the limit. Groups that wait may be known already, so they are merged first.
    fn check(&mut self, limit: u64) -> Result<(), QueryError> {
        if self.memory_bytes() as u64 > limit {
            self.flush()?;
        }
        if self.memory_bytes() as u64 > limit {
            return Err(QueryError::Memory { groups: self.len(), limit });
        }
        Ok(())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Gathered::Few(part) => part.memory_bytes,
            Gathered::Many { waiting_bytes, parts_bytes, .. } => waiting_bytes + parts_bytes,
        }
    }

    /// Groups, without those that wait.
    fn len(&self) -> usize {
        match self {
            Gathered::Few(part) => part.keys.len(),
            Gathered::Many { parts, .. } => parts.iter().map(|part| part.keys.len()).sum(),
        }
    }

    /// As a partial's groups.
    pub(super) fn finish(mut self, form: &KeyForm, empty: &[States]) -> Result<Groups, QueryError> {
        self.flush()?;
        match self {
            Gathered::Few(part) => part.finish(form),
            Gathered::Many { parts, .. } => {
                let keys: Vec<&Keys> = parts.iter().map(|part| &part.keys).collect();
                let columns = form.columns(&keys)?;
                let group_count = keys.iter().map(|keys| keys.len()).sum();
                let mut states = empty.to_vec();
                for part in parts {
                    for (all, states) in states.iter_mut().zip(part.states) {
                        all.append(states)?;
                    }
                }
                states.iter_mut().for_each(States::settle);
                Ok(Groups { keys: columns, states, group_count })
            }
        }
    }
}

/// What several threads gathered, cut into parts that can be merged each on its own.
#[derive(Debug)]
pub(super) struct Shares {
    pub(super) form: Arc<KeyForm>,
    /// Of each part what each thread has.
    pub(super) parts: Vec<Vec<Part>>,
    pub(super) waiting: Arc<Vec<Waiting>>,
}

impl Shares {
    /// Of threads of which one at least has many groups.
    pub(super) fn new(
        form: Arc<KeyForm>,
        empty: &[States],
        threads: Vec<Gathered>,
    ) -> Result<Shares, QueryError> {
        let mut shares: Vec<Vec<Part>> = (0..PARTS).map(|_| Vec::with_capacity(threads.len())).collect();
        let mut all_waiting = Vec::new();
        for mut gathered in threads {
            gathered.split(&form, empty)?;
            if let Gathered::Many { parts, waiting, .. } = gathered {
                shares.iter_mut().zip(parts).for_each(|(share, part)| share.push(part));
                all_waiting.extend(waiting);
            }
        }
        Ok(Shares { form, parts: shares, waiting: Arc::new(all_waiting) })
    }
}

/// Merges what the threads have of one part; of an order with a limit only the wanted groups.
pub(super) fn merge_share(
    form: &KeyForm,
    index: usize,
    mut parts: Vec<Part>,
    waiting: &[Waiting],
    wanted: Option<(&Plan, &Top)>,
) -> Result<Groups, QueryError> {
    // The largest takes the others in.
    parts.sort_by_key(|part| part.keys.len());
    let mut whole = parts.pop().ok_or_else(|| QueryError::Mismatch("a part of no thread".to_owned()))?;
    for part in &mut parts {
        part.states.iter_mut().for_each(States::gather);
        whole.merge_part(part)?;
    }
    for waiting in waiting {
        whole.merge_waiting(waiting, index)?;
    }
    match wanted {
        Some((plan, top)) => whole.finish_top(form, plan, top),
        None => whole.finish(form),
    }
}
