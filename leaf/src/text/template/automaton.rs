//! Tests of text as automata that read a value piece by piece.
//!
//! Whatever was read so far is one small number, the state, so the effect of a piece of text is a map of states: it is
//! worked out once for each word, and then looked up for each row. `Contains`, `EndsWith` and `Parts` are the automaton of
//! Knuth, Morris and Pratt, one behind the other for parts; the others are a tree of the values.

use memchr::memmem::Finder;

use super::super::TextTest;

/// Longest pattern, or all values together, in bytes.
const PATTERN_BYTES_MAX: usize = 4_096;
/// Longest first part that [`Idle`] knows the places of.
const IDLE_BYTES_MAX: usize = 64;
/// No value goes on from here.
const DEAD: u16 = u16::MAX;

/// A test as an automaton.
#[derive(Debug)]
pub(super) enum Automaton {
    /// The state says how many bytes of all parts were found: whole ones, and then those just read of the next.
    Find {
        /// All parts.
        needle: Vec<u8>,
        /// For each state, the one with fewer bytes of the same part just read.
        fallback: Vec<u16>,
        /// For each state, the one where its part begins.
        part: Vec<u16>,
        /// Bytes that a value must begin with.
        begins: usize,
        /// Once found, the rest does not matter.
        anywhere: bool,
        alphabet: ByteSet,
    },
    /// The state is a node of the tree.
    Tree {
        nodes: Vec<Place>,
        /// A value may go on behind its leaf.
        prefix: bool,
        alphabet: ByteSet,
    },
}

/// Some bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    /// The digits.
    pub(super) const DIGITS: ByteSet = ByteSet([0x3ff << b'0', 0, 0, 0]);

    /// Those of a text.
    pub(super) fn of(text: &[u8]) -> ByteSet {
        let mut seen = [false; 256];
        text.iter().for_each(|byte| seen[usize::from(*byte)] = true);
        let mut set = ByteSet::default();
        for (byte, _) in seen.iter().enumerate().filter(|(_, seen)| **seen) {
            set.0[byte / 64] |= 1 << (byte % 64);
        }
        set
    }

    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte / 64)] >> (byte % 64) & 1 != 0
    }

    fn iter(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |byte| self.has(*byte))
    }

    fn minus(self, other: ByteSet) -> ByteSet {
        ByteSet(std::array::from_fn(|at| self.0[at] & !other.0[at]))
    }
}

/// Reading from the state 0, in which nothing was found yet: unless the text has the whole first part, it leads to as many
/// bytes of it as the text ends with.
#[derive(Debug)]
pub(super) struct Idle<'a> {
    part: &'a [u8],
    /// For each byte a bit for each of its places in the part.
    ends: Box<[u64; 256]>,
    finder: Finder<'a>,
}

impl Idle<'_> {
    /// What finds the first part.
    pub(super) fn finder(&self) -> &Finder<'_> {
        &self.finder
    }

    /// The state after text that does not have the whole first part.
    #[inline]
    pub(super) fn read(&self, text: &[u8]) -> u16 {
        let Some(last) = text.last() else { return 0 };
        let mut places = self.ends[usize::from(*last)];
        while places != 0 {
            let place = places.ilog2() as usize;
            if text.ends_with(&self.part[..=place]) {
                return place as u16 + 1;
            }
            places ^= 1 << place;
        }
        0
    }
}

#[derive(Debug, Default)]
pub(super) struct Place {
    children: Vec<(u8, u16)>,
    accepts: bool,
}

impl Automaton {
    /// The automaton of a test, unless it would be large.
    pub(super) fn new(test: &TextTest) -> Option<Automaton> {
        Some(match test {
            TextTest::Contains(needle) => Automaton::find(std::slice::from_ref(needle), false, true)?,
            TextTest::EndsWith(needle) => Automaton::find(std::slice::from_ref(needle), false, false)?,
            TextTest::Parts { parts, begins, ends } => Automaton::find(parts, *begins, !ends)?,
            TextTest::StartsWith(start) => Automaton::tree(std::slice::from_ref(start), true)?,
            TextTest::Among(values) => Automaton::tree(values, false)?,
        })
    }

    fn tree(values: &[String], prefix: bool) -> Option<Automaton> {
        let alphabet = ByteSet::of(values.concat().as_bytes());
        Some(Automaton::Tree { nodes: tree(values)?, prefix, alphabet })
    }

    fn find(parts: &[String], begins: bool, anywhere: bool) -> Option<Automaton> {
        let needle = parts.concat().into_bytes();
        if needle.len() > PATTERN_BYTES_MAX {
            return None;
        }
        let (mut fallback, mut part) = (vec![0_u16], vec![0_u16]);
        for text in parts {
            let first = part.len() - 1;
            part[first] = first as u16;
            fallback[first] = first as u16;
            let (text, mut length) = (text.as_bytes(), 0_usize);
            for index in 0..text.len() {
                if index > 0 {
                    while length > 0 && text[length] != text[index] {
                        length = usize::from(fallback[first + length]) - first;
                    }
                    length += usize::from(text[length] == text[index]);
                }
                fallback.push((first + length) as u16);
                part.push(first as u16);
            }
        }
        let alphabet = ByteSet::of(&needle);
        let begins = if begins { parts.first().map_or(0, String::len) } else { 0 };
        Some(Automaton::Find { needle, fallback, part, begins, anywhere, alphabet })
    }

    #[inline]
    fn step(&self, state: u16, byte: u8) -> u16 {
        match self {
            Automaton::Find { needle, fallback, part, begins, anywhere, .. } => {
                let mut length = usize::from(state);
                let Some(first) = part.get(length) else { return DEAD };
                if length == needle.len() {
                    if *anywhere {
                        return state;
                    }
                    length = usize::from(fallback[length]);
                }
                loop {
                    if needle.get(length) == Some(&byte) {
                        return length as u16 + 1;
                    }
                    if length < *begins {
                        return DEAD;
                    }
                    if length == usize::from(*first) {
                        return *first;
                    }
                    length = usize::from(fallback[length]);
                }
            }
            Automaton::Tree { nodes, prefix, .. } => {
                let Some(node) = nodes.get(usize::from(state)) else { return DEAD };
                if *prefix && node.accepts {
                    return state;
                }
                let child = node.children.iter().find(|(edge, _)| *edge == byte);
                child.map_or(DEAD, |(_, child)| *child)
            }
        }
    }

    /// Reading from the state 0, where that can be done without reading.
    pub(super) fn idle(&self) -> Option<Idle<'_>> {
        let Automaton::Find { needle, part, begins: 0, .. } = self else { return None };
        let length = (1..part.len()).find(|at| usize::from(part[*at]) == *at).unwrap_or(needle.len());
        let part = &needle[..length];
        if !(1..=IDLE_BYTES_MAX).contains(&length) {
            return None;
        }
        let mut ends = Box::new([0; 256]);
        for (place, byte) in part.iter().enumerate() {
            ends[usize::from(*byte)] |= 1 << place;
        }
        Some(Idle { part, ends, finder: Finder::new(part) })
    }

    /// As [`Automaton::read`], of text that leads from the state 0 to `idle`.
    #[inline]
    pub(super) fn read_beside(&self, mut state: u16, text: &[u8], first: &Idle<'_>, idle: u16) -> u16 {
        for (byte, place) in text.iter().zip(1..) {
            state = self.step(state, *byte);
            if state == DEAD {
                break;
            }
            // All that counts was read here, so it is the same that would count there.
            let length = usize::from(state);
            if length <= place && length < first.part.len() {
                return idle;
            }
        }
        state
    }

    /// Whether no text changes this state.
    pub(super) fn is_final(&self, state: u16) -> bool {
        match self {
            Automaton::Find { needle, anywhere, .. } => {
                state == DEAD || (*anywhere && usize::from(state) == needle.len())
            }
            Automaton::Tree { nodes, prefix, .. } => {
                nodes.get(usize::from(state)).is_none_or(|node| *prefix && node.accepts)
            }
        }
    }

    /// The state after some text.
    #[inline]
    pub(super) fn read(&self, mut state: u16, text: &[u8]) -> u16 {
        if self.is_final(state) {
            return state;
        }
        for byte in text {
            state = self.step(state, *byte);
            if state == DEAD {
                break;
            }
        }
        state
    }

    /// The state after any text of these bytes, if all lead to the same.
    pub(super) fn read_any(&self, state: u16, bytes: ByteSet, may_be_empty: bool) -> Option<u16> {
        let (Automaton::Find { alphabet, .. } | Automaton::Tree { alphabet, .. }) = self;
        let others = bytes.minus(*alphabet);
        // All bytes that the test does not have are the same to it.
        let mut known = others.iter().take(1).chain(bytes.minus(others).iter());
        let Some(first) = known.next() else { return Some(state) };
        let after = self.step(state, first);
        let stays = !may_be_empty || after == state;
        let same = |byte| self.step(state, byte) == after && self.step(after, byte) == after;
        (stays && self.step(after, first) == after && known.all(same)).then_some(after)
    }

    /// Whether a value that ends in this state passes.
    pub(super) fn accepts(&self, state: u16) -> bool {
        match self {
            Automaton::Find { needle, .. } => usize::from(state) == needle.len(),
            Automaton::Tree { nodes, .. } => nodes.get(usize::from(state)).is_some_and(|node| node.accepts),
        }
    }
}

fn tree(values: &[String]) -> Option<Vec<Place>> {
    if values.iter().map(String::len).sum::<usize>() > PATTERN_BYTES_MAX {
        return None;
    }
    let mut nodes = vec![Place::default()];
    for value in values {
        let mut at = 0;
        for byte in value.bytes() {
            let child = nodes[at].children.iter().find(|(edge, _)| *edge == byte).map(|(_, child)| *child);
            at = usize::from(child.unwrap_or_else(|| {
                let child = nodes.len() as u16;
                nodes[at].children.push((byte, child));
                nodes.push(Place::default());
                child
            }));
        }
        nodes[at].accepts = true;
    }
    Some(nodes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn automata() -> impl Strategy<Value = Automaton> {
        let part = "[ab]{1,5}";
        let parts = || proptest::collection::vec(part, 2..4);
        let test = prop_oneof![
            part.prop_map(TextTest::Contains),
            part.prop_map(TextTest::EndsWith),
            (parts(), any::<bool>()).prop_map(|(parts, ends)| TextTest::Parts { parts, begins: false, ends }),
        ];
        test.prop_map(|test| Automaton::new(&test).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn reading_less_leads_to_the_same_states(automaton in automata(), text in "[abc]{0,12}") {
            let (text, idle) = (text.as_bytes(), automaton.idle().unwrap());
            let from_start = automaton.read(0, text);
            if idle.finder().find(text).is_none() {
                prop_assert_eq!(idle.read(text), from_start);
            }
            let Automaton::Find { part, .. } = &automaton else { panic!("no tree") };
            for state in 0..part.len() as u16 {
                let beside = automaton.read_beside(state, text, &idle, from_start);
                prop_assert_eq!(beside, automaton.read(state, text), "from {}", state);
            }
        }
    }

    #[test]
    fn long_and_bound_patterns_are_read() {
        let of = |test: TextTest| Automaton::new(&test).unwrap().idle().is_some();
        assert!(of(TextTest::Contains("x".repeat(64))));
        assert!(!of(TextTest::Contains("x".repeat(65))));
        assert!(!of(TextTest::Contains(String::new())));
        assert!(!of(TextTest::StartsWith("x".to_owned())));
        let parts = vec!["x".to_owned(), "y".repeat(100)];
        assert!(of(TextTest::Parts { parts: parts.clone(), begins: false, ends: true }));
        assert!(!of(TextTest::Parts { parts, begins: true, ends: false }));
    }
}
