//! Numbering the values of rows by something small that equal values share.

use arrow::buffer::NullBuffer;
use hashbrown::HashTable;

/// Spreads what may be no random number over all bits.
#[inline]
fn spread(value: u64) -> u64 {
    let product = u128::from(value ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
    (product as u64) ^ ((product >> 64) as u64)
}

/// The first one part in this many of all rows tells how many values there may be.
const SHARE_LOOKED_AT: usize = 16;

/// A number for each value, in order of first appearance, and the row of each first appearance. Rows without value share
/// a number.
pub(super) fn number<T: PartialEq>(
    values: &[T],
    validity: Option<&NullBuffer>,
    digest: impl Fn(&T) -> u64,
) -> (Vec<u32>, Vec<u32>) {
    // Entries are numbers; the values themselves are where they first appeared.
    let mut table: HashTable<u32> = HashTable::new();
    let mut firsts: Vec<u32> = Vec::new();
    let mut codes: Vec<u32> = Vec::with_capacity(values.len());
    let mut null = None;
    let looked_at = values.len() / SHARE_LOOKED_AT;
    for (row, value) in values.iter().enumerate() {
        let next = firsts.len() as u32;
        if row == looked_at {
            // As many new ones as so far in each part to come: growing step by step would hash every value again and again.
            let at = |code: &u32| &values[firsts[*code as usize] as usize];
            table.reserve(firsts.len() * (SHARE_LOOKED_AT - 1), |code| spread(digest(at(code))));
        }
        if validity.is_some_and(|validity| validity.is_null(row)) {
            let code = *null.get_or_insert(next);
            if code == next {
                firsts.push(row as u32);
            }
            codes.push(code);
            continue;
        }
        // The rows of a trace often follow one another.
        if let Some(last) = codes.last().filter(|last| Some(**last) != null)
            && values[firsts[*last as usize] as usize] == *value
        {
            codes.push(*last);
            continue;
        }
        let at = |code: &u32| &values[firsts[*code as usize] as usize];
        let hash = spread(digest(value));
        let entry = table.entry(
            hash,
            |code| at(code) == value && Some(*code) != null,
            |code| spread(digest(at(code))),
        );
        let code = *entry.or_insert(next).get();
        if code == next {
            firsts.push(row as u32);
        }
        codes.push(code);
    }
    (codes, firsts)
}
