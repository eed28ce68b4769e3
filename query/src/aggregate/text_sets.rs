//! Sets of texts, one a group.
//!
//! A text is kept once, however many groups have it, and has a number; the set of a group is one of numbers. The numbers are
//! those of one [`TextSets`]: two of them are put together by numbering the texts of one again.
//!
//! Invariants: every text has an owner; where there is one group, it has all of them and needs no set.

use std::ops::Range;

use super::number_set::NumberSet;
use crate::sketch::hash_bytes;
use crate::tables::ByteTable;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct TextSets {
    texts: ByteTable,
    owners: Owners,
}

#[derive(Debug, Clone)]
enum Owners {
    One,
    Each(Vec<NumberSet>),
}

impl Default for Owners {
    fn default() -> Owners {
        Owners::Each(Vec::new())
    }
}

/// The number of a text that has none yet.
const UNKNOWN: u32 = u32::MAX;
/// Groups that have fewer than one in so many texts are not worth a list of the numbers of all texts.
const KNOWN_ONE_IN: usize = 8;

impl TextSets {
    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        match &self.owners {
            Owners::One => 1,
            Owners::Each(sets) => sets.len(),
        }
    }

    pub(crate) fn resize(&mut self, group_count: usize) {
        match (&mut self.owners, group_count) {
            (Owners::One, 1) => {}
            (Owners::Each(sets), 1) if sets.is_empty() => self.owners = Owners::One,
            (owners @ Owners::One, _) => {
                let mut sets = vec![NumberSet::all(self.texts.len() as u32)];
                sets.resize(group_count, NumberSet::default());
                *owners = Owners::Each(sets);
            }
            (Owners::Each(sets), _) => sets.resize(group_count, NumberSet::default()),
        }
    }

    /// Makes room for so many texts more, of so many bytes together.
    pub(crate) fn reserve(&mut self, texts: usize, bytes: usize) {
        self.texts.reserve(texts, bytes);
    }

    /// Adds a text to a group.
    #[inline]
    pub(crate) fn insert(&mut self, group: u32, text: &[u8]) {
        let number = self.number(text);
        self.insert_number(group, number);
    }

    /// The number of a text, which the caller adds to a group.
    #[inline]
    pub(crate) fn number(&mut self, text: &[u8]) -> u32 {
        self.texts.number(hash_bytes(text) as u32, text)
    }

    /// Adds the text with this number to a group.
    #[inline]
    pub(crate) fn insert_number(&mut self, group: u32, number: u32) {
        if let Owners::Each(sets) = &mut self.owners {
            sets[group as usize].insert(number);
        }
    }

    /// How many texts a group has.
    pub(crate) fn count(&self, group: usize) -> usize {
        match &self.owners {
            Owners::One => self.texts.len(),
            Owners::Each(sets) => sets[group].len(),
        }
    }

    /// Calls `visit` with every text of a group.
    pub(crate) fn for_each(&self, group: usize, mut visit: impl FnMut(&[u8])) {
        self.for_each_number(group, |number| visit(self.texts.get(number as usize)));
    }

    fn for_each_number(&self, group: usize, mut visit: impl FnMut(u32)) {
        match &self.owners {
            Owners::One => (0..self.texts.len() as u32).for_each(visit),
            Owners::Each(sets) => sets[group].for_each(&mut visit),
        }
    }

    /// Bytes of the texts of all groups, for how much room they take one after the other at most.
    pub(crate) fn bytes(&self) -> usize {
        match &self.owners {
            Owners::One => self.texts.bytes(),
            Owners::Each(_) => self.texts.bytes().saturating_mul(2),
        }
    }

    /// Adds some groups of another: its group `groups.start + i` is our group `to[i]`.
    pub(crate) fn merge(&mut self, other: &TextSets, groups: Range<usize>, to: &[u32]) {
        if self.texts.len() == 0 && groups == (0..other.len()) {
            self.texts.clone_from(&other.texts);
            if let (Owners::One, Owners::One) = (&self.owners, &other.owners) {
                return;
            }
            for (group, to) in groups.zip(to) {
                match (&mut self.owners, &other.owners) {
                    (Owners::Each(ours), Owners::Each(theirs)) if ours[*to as usize].is_empty() => {
                        ours[*to as usize].clone_from(&theirs[group]);
                    }
                    _ => other.for_each_number(group, |number| self.insert_number(*to, number)),
                }
            }
            return;
        }
        let mut again = other.numbers_again(groups.clone());
        for (group, to) in groups.zip(to) {
            other.for_each_number(group, |theirs| {
                let number = again.of(theirs, &mut self.texts);
                self.insert_number(*to, number);
            });
        }
    }

    /// New numbers for the texts of these groups.
    fn numbers_again(&self, groups: impl Iterator<Item = usize>) -> NumbersAgain<'_> {
        let count = match &self.owners {
            Owners::One => self.texts.len(),
            Owners::Each(sets) => groups.map(|group| sets[group].len_at_most()).sum(),
        };
        let is_worth_it = count >= self.texts.len() / KNOWN_ONE_IN;
        NumbersAgain {
            texts: &self.texts,
            known: if is_worth_it { vec![UNKNOWN; self.texts.len()] } else { Vec::new() },
        }
    }

    /// Adds the groups of another behind ours.
    pub(crate) fn append(&mut self, other: TextSets) {
        if self.len() == 0 {
            *self = other;
            return;
        }
        let (ours, theirs) = (self.len() as u32, other.len());
        self.resize(self.len() + theirs);
        let to: Vec<u32> = (ours..ours + theirs as u32).collect();
        self.merge(&other, 0..theirs, &to);
    }

    /// These groups, with their texts alone.
    pub(crate) fn take(&self, groups: &[u32]) -> TextSets {
        if let Owners::Each(sets) = &self.owners
            && groups.len() == sets.len()
        {
            // All of them in another order.
            let sets = groups.iter().map(|group| sets[*group as usize].clone()).collect();
            return TextSets { texts: self.texts.clone(), owners: Owners::Each(sets) };
        }
        let mut some = TextSets::default();
        some.resize(groups.len());
        let mut again = self.numbers_again(groups.iter().map(|group| *group as usize));
        for (to, group) in (0_u32..).zip(groups) {
            self.for_each_number(*group as usize, |ours| {
                let number = again.of(ours, &mut some.texts);
                some.insert_number(to, number);
            });
        }
        some
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let owners = match &self.owners {
            Owners::One => 0,
            Owners::Each(sets) => sets.iter().map(NumberSet::memory_bytes).sum(),
        };
        self.texts.memory_bytes() + owners
    }
}

/// The numbers of texts in another table.
struct NumbersAgain<'a> {
    texts: &'a ByteTable,
    /// Those that were looked for; empty where a text seldom comes twice.
    known: Vec<u32>,
}

impl NumbersAgain<'_> {
    #[inline]
    fn of(&mut self, number: u32, table: &mut ByteTable) -> u32 {
        if let Some(known) = self.known.get(number as usize).filter(|known| **known != UNKNOWN) {
            return *known;
        }
        let (tag, text) = self.texts.entry(number as usize);
        let new = table.number(tag, text);
        if let Some(known) = self.known.get_mut(number as usize) {
            *known = new;
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    type Expect = Vec<BTreeSet<String>>;

    fn check(sets: &TextSets, expect: &Expect) {
        assert_eq!(sets.len(), expect.len());
        for (group, expect) in expect.iter().enumerate() {
            let mut found = BTreeSet::new();
            sets.for_each(group, |text| assert!(found.insert(String::from_utf8(text.to_vec()).unwrap())));
            assert_eq!(&found, expect, "group {group}");
            assert_eq!(sets.count(group), expect.len());
        }
    }

    /// Groups that have texts in common, of which a few have most of them and most have a few.
    fn some(group_count: usize, salt: u64) -> (TextSets, Expect) {
        let (mut sets, mut expect) = (TextSets::default(), vec![BTreeSet::new(); group_count]);
        sets.resize(group_count);
        let mut state = salt;
        for _ in 0..4_000 * group_count.min(1) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (low, high) = ((state >> 33) as usize, (state >> 48) as usize);
            let group = (low % group_count).min(high % group_count);
            let text = format!("text {}", low % 1_500 + salt as usize * 300);
            sets.insert(group as u32, text.as_bytes());
            expect[group].insert(text);
        }
        (sets, expect)
    }

    #[test]
    fn groups_have_what_was_added() {
        for group_count in [0, 1, 2, 7, 300] {
            let (mut sets, mut expect) = some(group_count, 1);
            check(&sets, &expect);
            sets.resize(group_count + 2);
            expect.resize(group_count + 2, BTreeSet::new());
            sets.insert(group_count as u32 + 1, b"late");
            expect[group_count + 1].insert("late".to_owned());
            check(&sets, &expect);
        }
    }

    #[test]
    fn merged_groups_have_what_either_had() {
        for (ours, theirs) in [(0, 3), (1, 1), (1, 4), (5, 1), (7, 7), (300, 20), (3, 200)] {
            let (other, other_expect) = some(theirs, 2);
            for groups in [0..theirs, 1.min(theirs)..theirs, 0..theirs / 2] {
                for is_filled in [true, false] {
                    let (mut sets, mut expect) = some(if is_filled { ours } else { 0 }, 1);
                    let group_count = ours.max(theirs) + 1;
                    sets.resize(group_count);
                    expect.resize(group_count, BTreeSet::new());
                    // Two of theirs may be one of ours.
                    let to: Vec<u32> = groups.clone().map(|group| (group * 7 / 8) as u32).collect();
                    sets.merge(&other, groups.clone(), &to);
                    for (group, to) in groups.clone().zip(&to) {
                        expect[*to as usize].extend(other_expect[group].iter().cloned());
                    }
                    check(&sets, &expect);
                }
            }
        }
        let ((mut sets, mut expect), (other, other_expect)) = (some(1, 1), some(1, 3));
        sets.merge(&other, 0..1, &[0]);
        expect[0].extend(other_expect[0].iter().cloned());
        check(&sets, &expect);
    }

    #[test]
    fn groups_are_appended_and_taken() {
        for (ours, theirs) in [(0, 0), (0, 1), (1, 0), (1, 1), (4, 1), (300, 5)] {
            let ((mut sets, mut expect), (other, other_expect)) = (some(ours, 1), some(theirs, 2));
            sets.append(other);
            expect.extend(other_expect);
            check(&sets, &expect);
            for groups in [vec![], vec![0], (0..expect.len() as u32).rev().step_by(2).collect()] {
                let groups: Vec<u32> =
                    groups.into_iter().filter(|group| (*group as usize) < expect.len()).collect();
                let taken = sets.take(&groups);
                check(&taken, &groups.iter().map(|group| expect[*group as usize].clone()).collect());
                let held: BTreeSet<_> = groups.iter().flat_map(|group| &expect[*group as usize]).collect();
                assert_eq!(taken.texts.len(), held.len(), "no text without an owner");
            }
        }
    }
}
