//! Tests of text as automata that read a value piece by piece.
//!
//! Whatever was read so far is one small number, the state, so the effect of a piece of text is a map of states: it is
//! worked out once for each word, and then looked up for each row. `Contains` and `EndsWith` are the automaton of Knuth,
//! Morris and Pratt, the others a tree of the values.

use super::super::TextTest;

/// Longest pattern, or all values together, in bytes.
const PATTERN_BYTES_MAX: usize = 4_096;
/// No value goes on from here.
const DEAD: u16 = u16::MAX;

/// A test as an automaton.
#[derive(Debug)]
pub(super) enum Automaton {
    /// The state says how many bytes of the needle were just read.
    Find {
        needle: Vec<u8>,
        /// For each number of bytes just read, how many bytes of the needle's start end them too.
        fallback: Vec<u16>,
        /// Once found, the rest does not matter.
        anywhere: bool,
    },
    /// The state is a node of the tree.
    Tree {
        nodes: Vec<Place>,
        /// A value may go on behind its leaf.
        prefix: bool,
    },
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
            TextTest::Contains(needle) => Automaton::find(needle, true)?,
            TextTest::EndsWith(needle) => Automaton::find(needle, false)?,
            TextTest::StartsWith(start) => {
                Automaton::Tree { nodes: tree(std::slice::from_ref(start))?, prefix: true }
            }
            TextTest::Among(values) => Automaton::Tree { nodes: tree(values)?, prefix: false },
        })
    }

    fn find(needle: &str, anywhere: bool) -> Option<Automaton> {
        let needle = needle.as_bytes().to_vec();
        if needle.len() > PATTERN_BYTES_MAX {
            return None;
        }
        let mut fallback = vec![0_u16; needle.len() + 1];
        let mut length = 0_usize;
        for index in 1..needle.len() {
            while length > 0 && needle[length] != needle[index] {
                length = usize::from(fallback[length]);
            }
            length += usize::from(needle[length] == needle[index]);
            fallback[index + 1] = length as u16;
        }
        Some(Automaton::Find { needle, fallback, anywhere })
    }

    #[inline]
    fn step(&self, state: u16, byte: u8) -> u16 {
        match self {
            Automaton::Find { needle, fallback, anywhere } => {
                let mut length = usize::from(state);
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
                    if length == 0 {
                        return 0;
                    }
                    length = usize::from(fallback[length]);
                }
            }
            Automaton::Tree { nodes, prefix } => {
                let Some(node) = nodes.get(usize::from(state)) else { return DEAD };
                if *prefix && node.accepts {
                    return state;
                }
                let child = node.children.iter().find(|(edge, _)| *edge == byte);
                child.map_or(DEAD, |(_, child)| *child)
            }
        }
    }

    /// Whether no text changes this state.
    pub(super) fn is_final(&self, state: u16) -> bool {
        match self {
            Automaton::Find { needle, anywhere, .. } => *anywhere && usize::from(state) == needle.len(),
            Automaton::Tree { nodes, prefix } => {
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

    /// The state after any number at all, if all lead to the same.
    pub(super) fn read_any_number(&self, state: u16) -> Option<u16> {
        let after = self.step(state, b'0');
        let same = |from| (b'0'..=b'9').all(|digit| self.step(from, digit) == after);
        (same(state) && same(after)).then_some(after)
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
