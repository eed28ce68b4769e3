//! Texts as a dictionary: the distinct ones, and which of them each row has.
//!
//! Senders of rows and sealing make the same of a column of texts that repeat. Values come in the order in which they were
//! first seen; [`Dictionary::sorted`] puts them in order of their bytes.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dictionary<'a> {
    /// The distinct texts.
    pub values: Vec<&'a str>,
    /// The place of each row's text among them, or [`NULL_CODE`].
    pub codes: Vec<u32>,
}

/// The code of a NULL until the values are in order and it gets the code just past them.
pub const NULL_CODE: u32 = u32::MAX;

impl<'a> Dictionary<'a> {
    /// That of some texts; `None` when more than `count_max` of them are distinct.
    pub fn of(texts: impl Iterator<Item = Option<&'a str>>, count_max: usize) -> Option<Dictionary<'a>> {
        let hasher = DefaultHashBuilder::default();
        let mut table: HashTable<u32> = HashTable::new();
        let mut values: Vec<&str> = Vec::new();
        let mut codes = Vec::with_capacity(texts.size_hint().0);
        for text in texts {
            let Some(text) = text else {
                codes.push(NULL_CODE);
                continue;
            };
            let hash = hasher.hash_one(text);
            let known = table.find(hash, |code| values[*code as usize] == text).copied();
            let code = known.unwrap_or_else(|| {
                let code = values.len() as u32;
                values.push(text);
                table.insert_unique(hash, code, |code| hasher.hash_one(values[*code as usize]));
                code
            });
            codes.push(code);
            if values.len() > count_max {
                return None;
            }
        }
        Some(Dictionary { values, codes })
    }

    /// Sorts the values by their bytes, so that ranges and prefixes are ranges of codes; NULLs get the code past them.
    #[must_use]
    pub fn sorted(&self) -> Dictionary<'a> {
        let mut order: Vec<u32> = (0..self.values.len() as u32).collect();
        order.sort_unstable_by_key(|code| self.values[*code as usize]);
        let mut place = vec![0_u32; order.len()];
        for (rank, code) in order.iter().enumerate() {
            place[*code as usize] = rank as u32;
        }
        let null_code = order.len() as u32;
        let code = |code: &u32| place.get(*code as usize).copied().unwrap_or(null_code);
        let codes = self.codes.iter().map(code).collect();
        let values = order.iter().map(|code| self.values[*code as usize]).collect();
        Dictionary { values, codes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_apart_and_put_in_order() {
        let texts = [Some("b"), None, Some(""), Some("b"), Some("ä"), Some("a"), None];
        let seen = Dictionary::of(texts.into_iter(), 4).unwrap();
        assert_eq!(seen.values, ["b", "", "ä", "a"]);
        assert_eq!(seen.codes, [0, NULL_CODE, 1, 0, 2, 3, NULL_CODE]);
        let sorted = seen.sorted();
        assert_eq!(sorted.values, ["", "a", "b", "ä"]);
        assert_eq!(sorted.codes, [2, 4, 0, 2, 3, 1, 4]);
        assert_eq!(Dictionary::of(texts.into_iter(), 3), None);
        assert_eq!(Dictionary::of(std::iter::empty(), 0), Some(Dictionary::default()));
    }
}
