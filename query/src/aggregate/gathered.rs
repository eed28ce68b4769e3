//! What rows bring, gathered first and then put in the order of their groups.
//!
//! A state that takes much memory a group is not made for every group of every block: what the rows of a block bring is
//! gathered, sorted by group when the block is done, and added to the states that the block is merged into.

use std::ops::Range;

/// So many items at most are gathered before they must go to states.
pub(crate) const GATHERED_MAX: usize = 1 << 17;

/// Items and the groups they belong to.
#[derive(Debug, Clone)]
pub(crate) struct Gathered<T> {
    /// As they came.
    groups: Vec<u32>,
    items: Vec<T>,
    /// Where each group's items begin, and the end of all, once they are in order; empty before.
    starts: Vec<usize>,
}

impl<T> Default for Gathered<T> {
    fn default() -> Gathered<T> {
        Gathered { groups: Vec::new(), items: Vec::new(), starts: Vec::new() }
    }
}

impl<T: Copy + Default> Gathered<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.items.len() >= GATHERED_MAX
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Makes room for so many more, which may be in any order.
    pub(crate) fn reserve(&mut self, items: usize) {
        if !self.starts.is_empty() {
            let starts = std::mem::take(&mut self.starts);
            for (group, bounds) in starts.windows(2).enumerate() {
                self.groups.extend(std::iter::repeat_n(group as u32, bounds[1] - bounds[0]));
            }
        }
        self.groups.reserve(items);
        self.items.reserve(items);
    }

    /// Adds an item, after [`Gathered::reserve`].
    #[inline(always)]
    pub(crate) fn push(&mut self, group: u32, item: T) {
        self.groups.push(group);
        self.items.push(item);
    }

    /// Puts the items in the order of their groups.
    pub(crate) fn sort(&mut self, group_count: usize) {
        if self.items.is_empty() || !self.starts.is_empty() {
            return;
        }
        let mut next = vec![0usize; group_count + 1];
        self.groups.iter().for_each(|group| next[*group as usize + 1] += 1);
        for group in 0..group_count {
            next[group + 1] += next[group];
        }
        let starts = next.clone();
        let mut sorted = vec![T::default(); self.items.len()];
        for (group, item) in self.groups.iter().zip(&self.items) {
            let place = &mut next[*group as usize];
            sorted[*place] = *item;
            *place += 1;
        }
        *self = Gathered { groups: Vec::new(), items: sorted, starts };
    }

    /// The items of a group, once they are in order. There may be more groups now than were then.
    pub(crate) fn of(&self, group: usize) -> &[T] {
        match (self.starts.get(group), self.starts.get(group + 1)) {
            (Some(start), Some(end)) => &self.items[*start..*end],
            _ => &[],
        }
    }

    /// The places of a group's items among all, once they are in order.
    pub(crate) fn places(&self, group: usize) -> Range<usize> {
        match (self.starts.get(group), self.starts.get(group + 1)) {
            (Some(start), Some(end)) => *start..*end,
            _ => 0..0,
        }
    }

    /// All items, in order.
    pub(crate) fn into_items(self) -> Vec<T> {
        self.items
    }

    /// These groups of items that are in order.
    pub(crate) fn take(&self, groups: &[u32]) -> Gathered<T> {
        if self.items.is_empty() {
            return Gathered::default();
        }
        let mut items = Vec::with_capacity(self.items.len());
        let mut starts = Vec::with_capacity(groups.len() + 1);
        starts.push(0);
        for group in groups {
            items.extend_from_slice(self.of(*group as usize));
            starts.push(items.len());
        }
        Gathered { groups: Vec::new(), items, starts }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.groups.capacity() * 4
            + self.items.capacity() * size_of::<T>()
            + self.starts.capacity() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_groups_and_their_order() {
        let mut gathered = Gathered::default();
        let items = [(2, 10), (0, 11), (2, 12), (1, 13), (2, 14)];
        for half in [&items[..3], &items[3..]] {
            gathered.reserve(half.len());
            half.iter().for_each(|(group, item)| gathered.push(*group, *item));
            gathered.sort(3);
        }
        assert_eq!(
            (gathered.of(0), gathered.of(1), gathered.of(2), gathered.of(3)),
            ([11].as_slice(), [13].as_slice(), [10, 12, 14].as_slice(), [].as_slice())
        );
        assert_eq!(gathered.places(2), 2..5);
        let taken = gathered.take(&[2, 3, 2, 0]);
        assert_eq!(
            (taken.of(0), taken.of(1), taken.of(2), taken.of(3)),
            ([10, 12, 14].as_slice(), [].as_slice(), [10, 12, 14].as_slice(), [11].as_slice())
        );
        assert_eq!(gathered.into_items(), [11, 13, 10, 12, 14]);
        assert!(Gathered::<u8>::default().is_empty());
    }
}
