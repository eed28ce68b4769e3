//! Damage, seeded: what a bad disk, a torn copy, a build gone wrong or an attacker make of bytes.
//!
//! A [`Mutator`] draws one to a few changes: bits and runs of bits, ranges zeroed, filled, cut out, doubled, swapped, or
//! put in place of others; ends cut off or added; pieces of other artefacts; numbers at the edges of what fields can
//! hold, in binary at aligned places and in text where digits stand. The same seed makes the same changes. What checksums
//! stand over the bytes is the caller's business: [`crate::reseal`] puts them right, so that the checks behind them are
//! reached.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Numbers at which fields break, if they do.
const EDGES: [u64; 22] = [
    0,
    1,
    2,
    7,
    8,
    63,
    64,
    65,
    255,
    256,
    65_535,
    65_536,
    65_537,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    1 << 62,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// Draws changes to bytes. See the module.
#[derive(Debug)]
pub struct Mutator<'a> {
    random: StdRng,
    others: &'a [Vec<u8>],
    said: Vec<String>,
}

impl<'a> Mutator<'a> {
    /// One that makes the changes of `seed`, with pieces of these other artefacts.
    pub fn new(seed: u64, others: &'a [Vec<u8>]) -> Mutator<'a> {
        Mutator { random: StdRng::seed_from_u64(seed), others, said: Vec::new() }
    }

    /// Where the seed's other decisions come from.
    pub fn random(&mut self) -> &mut StdRng {
        &mut self.random
    }

    /// What was done, in words.
    pub fn said(&self) -> String {
        self.said.join(", ")
    }

    /// Changes bytes, mostly once.
    pub fn change(&mut self, bytes: &mut Vec<u8>) {
        let times = [1, 1, 1, 1, 2, 3][self.random.random_range(0..6)];
        for _ in 0..times {
            self.change_within(bytes, 0);
        }
    }

    /// Changes bytes once, none before `from`.
    pub fn change_within(&mut self, bytes: &mut Vec<u8>, from: usize) {
        match self.random.random_range(0..16) {
            0..3 => self.flip(bytes, from),
            3..7 => self.set_number(bytes, from),
            7 => self.fill(bytes, from),
            8 => self.cut_off(bytes, from),
            9 => self.add(bytes),
            10 => self.double(bytes, from),
            11 => self.swap(bytes, from),
            12 => self.remove(bytes, from),
            13 | 14 => self.splice(bytes, from),
            _ => self.set_digits(bytes, from),
        }
    }

    fn say(&mut self, what: String) {
        self.said.push(what);
    }

    /// A range of at least one byte; small ones are as likely as large ones.
    fn range(&mut self, from: usize, len: usize) -> Option<std::ops::Range<usize>> {
        let room = len.checked_sub(from).filter(|room| *room > 0)?;
        let at = from + self.random.random_range(0..room);
        let most = len - at;
        let bits = usize::BITS - most.leading_zeros();
        let longest = (1_usize << self.random.random_range(0..=bits)).min(most);
        Some(at..at + self.random.random_range(1..=longest))
    }

    fn flip(&mut self, bytes: &mut [u8], from: usize) {
        let Some(room) = bytes.len().checked_sub(from).filter(|room| *room > 0) else { return };
        let (at, bit) = (from + self.random.random_range(0..room), self.random.random_range(0..8));
        bytes[at] ^= 1 << bit;
        self.say(format!("bit {bit} of byte {at} turned"));
    }

    /// An edge in a number of 1, 2, 4 or 8 bytes, or the number there with a little more or less.
    fn set_number(&mut self, bytes: &mut [u8], from: usize) {
        let width = [1, 2, 4, 8][self.random.random_range(0..4)];
        let Some(places) = bytes.len().checked_sub(from + width) else { return };
        let at = (from + self.random.random_range(0..=places)) / width * width;
        if at < from {
            return;
        }
        let mut old = [0; 8];
        old[..width].copy_from_slice(&bytes[at..at + width]);
        let old = u64::from_le_bytes(old);
        let len = bytes.len() as u64;
        let new = match self.random.random_range(0..10) {
            0..6 => EDGES[self.random.random_range(0..EDGES.len())],
            6 => old.wrapping_add(1),
            7 => old.wrapping_sub(1),
            8 => old.wrapping_mul(2),
            _ => len.wrapping_add(self.random.random_range(0..3)).wrapping_sub(1),
        };
        bytes[at..at + width].copy_from_slice(&new.to_le_bytes()[..width]);
        self.say(format!("{width} bytes at {at} are {new} and not {old}"));
    }

    fn fill(&mut self, bytes: &mut [u8], from: usize) {
        let Some(range) = self.range(from, bytes.len()) else { return };
        match self.random.random_range(0..4) {
            0 => bytes[range.clone()].fill(0xff),
            1 => self.random.fill(&mut bytes[range.clone()]),
            _ => bytes[range.clone()].fill(0),
        }
        self.say(format!("{range:?} filled"));
    }

    fn cut_off(&mut self, bytes: &mut Vec<u8>, from: usize) {
        let Some(range) = self.range(from, bytes.len()) else { return };
        // A page or a sector is as likely as any other end.
        let to = match self.random.random_range(0..3) {
            0 => range.start / 4096 * 4096,
            1 => range.start / 64 * 64,
            _ => range.start,
        };
        bytes.truncate(to.max(from));
        self.say(format!("cut to {} bytes", bytes.len()));
    }

    fn add(&mut self, bytes: &mut Vec<u8>) {
        let count = 1 << self.random.random_range(0..13);
        let kind = self.random.random_range(0..3);
        let added: Vec<u8> = match kind {
            0 => vec![0; count],
            1 => (0..count).map(|_| self.random.random()).collect(),
            _ => bytes.iter().copied().take(count).collect(),
        };
        bytes.extend_from_slice(&added);
        self.say(format!("{} bytes added at the end", added.len()));
    }

    fn double(&mut self, bytes: &mut Vec<u8>, from: usize) {
        let Some(range) = self.range(from, bytes.len()) else { return };
        let piece = bytes[range.clone()].to_vec();
        bytes.splice(range.start..range.start, piece);
        self.say(format!("{range:?} doubled"));
    }

    fn swap(&mut self, bytes: &mut [u8], from: usize) {
        let (Some(one), Some(other)) = (self.range(from, bytes.len()), self.range(from, bytes.len())) else {
            return;
        };
        let len = one.len().min(other.len()).min(one.start.abs_diff(other.start));
        for index in 0..len {
            bytes.swap(one.start + index, other.start + index);
        }
        self.say(format!("{len} bytes at {} and {} swapped", one.start, other.start));
    }

    fn remove(&mut self, bytes: &mut Vec<u8>, from: usize) {
        let Some(range) = self.range(from, bytes.len()) else { return };
        bytes.drain(range.clone());
        self.say(format!("{range:?} removed"));
    }

    /// A piece of another artefact in the place of as many bytes, from where it was or from anywhere.
    fn splice(&mut self, bytes: &mut Vec<u8>, from: usize) {
        if self.others.is_empty() {
            return;
        }
        let which = self.random.random_range(0..self.others.len());
        let other = &self.others[which];
        if self.random.random_bool(0.1) && from == 0 {
            other.clone_into(bytes);
            return self.say(format!("all of artefact {which}"));
        }
        let Some(piece) = self.range(0, other.len()) else { return };
        let at = match self.random.random_bool(0.5) {
            true => piece.start,
            false => self.random.random_range(0..=bytes.len()),
        };
        if at < from || at > bytes.len() {
            return;
        }
        let end = (at + piece.len()).min(bytes.len());
        bytes.splice(at..end, other[piece.clone()].iter().copied());
        self.say(format!("{piece:?} of artefact {which} at {at}"));
    }

    /// Another number where digits stand.
    fn set_digits(&mut self, bytes: &mut Vec<u8>, from: usize) {
        let Some(range) = self.range(from, bytes.len()) else { return };
        let Some(start) = bytes[range.start..].iter().position(u8::is_ascii_digit) else { return };
        let start = range.start + start;
        let end = start + bytes[start..].iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(1);
        let edge = EDGES[self.random.random_range(0..EDGES.len())];
        let text = match self.random.random_range(0..6) {
            0 => format!("-{edge}"),
            1 => format!("{edge}.5"),
            _ => edge.to_string(),
        };
        let old = String::from_utf8_lossy(&bytes[start..end]).into_owned();
        bytes.splice(start..end, text.bytes());
        self.say(format!("{text} for {old} at {start}"));
    }

    /// Changes one value somewhere in a JSON document: a number at an edge, another kind of value, one left out, doubled,
    /// or in the place of another.
    pub fn change_json(&mut self, document: &mut serde_json::Value) {
        let mut places = Vec::new();
        walk(document, String::new(), &mut places);
        let at = places[self.random.random_range(0..places.len())].clone();
        let from = places[self.random.random_range(0..places.len())].clone();
        let taken = document.pointer(&from).cloned().unwrap_or_default();
        let choice = self.random.random_range(0..12);
        let edge = EDGES[self.random.random_range(0..EDGES.len())];
        let Some(value) = document.pointer_mut(&at) else { return };
        match (choice, &mut *value) {
            (0..7, serde_json::Value::Number(number)) => {
                let old = number.as_u64().unwrap_or(0);
                *value = match choice {
                    0 => old.wrapping_add(1).into(),
                    1 => old.wrapping_sub(1).into(),
                    2 => (-1).into(),
                    3 => 0.5.into(),
                    _ => edge.into(),
                };
            }
            (0..7, serde_json::Value::Array(items)) if !items.is_empty() => {
                let index = usize::try_from(edge).unwrap_or(0) % items.len();
                let item = items[index].clone();
                match choice {
                    0 | 1 => _ = items.remove(index),
                    2 => items.reverse(),
                    3 => items.clear(),
                    _ => items.push(item),
                }
            }
            (0..5, serde_json::Value::Object(fields)) if !fields.is_empty() => {
                let index = usize::try_from(edge).unwrap_or(0) % fields.len();
                let name = fields.keys().nth(index).cloned().unwrap_or_default();
                match choice {
                    0..3 => _ = fields.remove(&name),
                    _ => _ = fields.insert("more".to_owned(), edge.into()),
                }
            }
            (0..5, serde_json::Value::String(text)) => match choice {
                0 => text.clear(),
                1 => text.push('x'),
                2 => *text = text.repeat(2),
                _ => *text = edge.to_string(),
            },
            (0..9, _) => *value = taken,
            _ => *value = serde_json::Value::Null,
        }
        let now = document.pointer(&at).map(ToString::to_string).unwrap_or_default();
        self.say(format!("{at} is {}", now.chars().take(80).collect::<String>()));
    }
}

/// Every value in a document, by its JSON pointer.
fn walk(value: &serde_json::Value, at: String, places: &mut Vec<String>) {
    match value {
        serde_json::Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, format!("{at}/{index}"), places);
            }
        }
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                walk(field, format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), places);
            }
        }
        _ => {}
    }
    places.push(at);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_changes_and_most_seeds_change_something() {
        let bytes: Vec<u8> =
            (0..500_u32).map(|at| if at % 7 == 0 { b'5' } else { (at % 251) as u8 }).collect();
        let others = [vec![9; 300], vec![1, 2, 3]];
        let mutate = |seed| {
            let (mut mutator, mut bytes) = (Mutator::new(seed, &others), bytes.clone());
            mutator.change(&mut bytes);
            (bytes, mutator.said())
        };
        let changed = (0..1_000).filter(|seed| {
            assert_eq!(mutate(*seed), mutate(*seed));
            mutate(*seed).0 != bytes
        });
        assert!(changed.count() > 850);
        for seed in 0..200 {
            let mut some = bytes.clone();
            Mutator::new(seed, &others).change_within(&mut some, 100);
            assert_eq!(some[..100], bytes[..100], "seed {seed}");
            // Whatever is left of nothing can be changed, too.
            Mutator::new(seed, &others).change(&mut Vec::new());
        }
    }

    #[test]
    fn documents_change_in_one_place() {
        let document = serde_json::json!({"a/b": [1, {"c": "text"}], "d": null, "e": {"f": 2}});
        let mut different = 0;
        for seed in 0..300 {
            let mut changed = document.clone();
            Mutator::new(seed, &[]).change_json(&mut changed);
            different += usize::from(changed != document);
        }
        assert!(different > 200, "{different}");
    }
}
