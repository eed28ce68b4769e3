//! Hash tables for many small keys: flat arrays, linear probing, nothing allocated for a key of its own.
//!
//! * [`IntTable`] and [`ByteTable`] number keys in the order they first came.
//! * [`HashSet64`] holds the hashes of ints. [`crate::sketch::hash_int`] gives no two ints the same hash, so the hashes
//!   are as good as the ints. A hash's home is given by its top bits, so the slots are nearly in the order of hashes,
//!   and merging two sets walks through both from one end to the other.

use crate::sketch::hash_int;

const EMPTY: u32 = u32::MAX;
const SLOTS_MIN: usize = 8;
/// Ints that are looked up together.
const TOGETHER: usize = 64;

/// Slots with numbers of entries.
#[derive(Debug, Clone, Default)]
struct Slots {
    numbers: Vec<u32>,
}

impl Slots {
    /// True when there is no room for one more; half of the slots stay empty.
    fn is_full(&self, len: usize) -> bool {
        len * 2 >= self.numbers.len()
    }

    /// Makes room for `len` entries; `hash` tells the hashes of the known ones, or that one has no slot.
    fn grow(&mut self, len: usize, known: usize, hash: impl Fn(usize) -> Option<u64>) {
        let slots = ((len + 1) * 2).next_power_of_two().max(SLOTS_MIN);
        if slots <= self.numbers.len() {
            return;
        }
        self.numbers.clear();
        self.numbers.resize(slots, EMPTY);
        let mask = slots - 1;
        for number in 0..known {
            let Some(hash) = hash(number) else { continue };
            let mut slot = hash as usize & mask;
            while self.numbers[slot] != EMPTY {
                slot = (slot + 1) & mask;
            }
            self.numbers[slot] = number as u32;
        }
    }

    /// The entry for which `is` holds, or the empty slot where it belongs.
    #[inline(always)]
    fn find(&self, hash: u64, is: impl Fn(usize) -> bool) -> Result<u32, usize> {
        let mask = self.numbers.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let number = self.numbers[slot];
            if number == EMPTY {
                return Err(slot);
            }
            if is(number as usize) {
                return Ok(number);
            }
            slot = (slot + 1) & mask;
        }
    }
}

/// Numbers ints.
#[derive(Debug, Clone, Default)]
pub(crate) struct IntTable {
    slots: Slots,
    values: Vec<i64>,
    /// The number of NULL, which has a place among the values but no slot.
    null: Option<u32>,
}

impl IntTable {
    pub(crate) fn values(&self) -> &[i64] {
        &self.values
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// The numbers of values.
    ///
    /// A table is looked through in steps, each for many values: the processor then waits for many places of memory at
    /// once, and does not have to guess at what the first one holds before it asks for the next.
    pub(crate) fn number_all(&mut self, values: &[i64], numbers: &mut Vec<u32>) {
        for values in values.chunks(TOGETHER) {
            self.reserve(values.len());
            let mask = self.slots.numbers.len() - 1;
            let (mut homes, mut known) = ([0u32; TOGETHER], [0i64; TOGETHER]);
            for (home, value) in homes.iter_mut().zip(values) {
                *home = self.slots.numbers[hash_int(*value) as usize & mask];
            }
            if let Some(last) = self.values.len().checked_sub(1) {
                for (known, home) in known.iter_mut().zip(&homes) {
                    *known = self.values[(*home as usize).min(last)];
                }
            }
            for ((home, known), value) in homes.iter().zip(&known).zip(values) {
                let is_here = (*home != EMPTY) & (known == value);
                numbers.push(if is_here { *home } else { self.find(*value) });
            }
        }
    }

    /// The number of a value.
    pub(crate) fn number(&mut self, value: i64) -> u32 {
        self.reserve(1);
        self.find(value)
    }

    /// The number of a value for which there is room.
    fn find(&mut self, value: i64) -> u32 {
        match self.slots.find(hash_int(value), |number| self.values[number] == value) {
            Ok(number) => number,
            Err(slot) => {
                let number = self.values.len() as u32;
                self.slots.numbers[slot] = number;
                self.values.push(value);
                number
            }
        }
    }

    /// Makes room for so many more.
    fn reserve(&mut self, values: usize) {
        let (known, null) = (&self.values, self.null);
        if self.slots.is_full(known.len() + values) {
            let hash = |number| (null != Some(number as u32)).then(|| hash_int(known[number]));
            self.slots.grow(known.len() * 2 + values, known.len(), hash);
        }
    }

    /// The number of NULL.
    pub(crate) fn number_null(&mut self) -> u32 {
        let number = self.values.len() as u32;
        *self.null.get_or_insert_with(|| {
            self.values.push(0);
            number
        })
    }

    /// A table of some of these ints, which are distinct; NULL may be one of them.
    pub(crate) fn some(&self, numbers: &[u32]) -> IntTable {
        let mut some = IntTable::default();
        for number in numbers {
            if self.null == Some(*number) {
                some.number_null();
            } else {
                some.number(self.values[*number as usize]);
            }
        }
        some
    }

    pub(crate) fn null(&self) -> Option<u32> {
        self.null
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.slots.numbers.capacity() * 4 + self.values.capacity() * 8
    }
}

/// Numbers runs of bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct ByteTable {
    slots: Slots,
    /// The low bits of the hash of each entry.
    tags: Vec<u32>,
    ends: Vec<End>,
    bytes: Pieces,
}

/// Where an entry ends; it begins where the one before it ends, or with its piece.
#[derive(Debug, Clone, Copy)]
struct End {
    piece: u32,
    end: u32,
}

/// Entries one after the other, in pieces: what is there stays where it is when there is more.
#[derive(Debug, Clone, Default)]
struct Pieces {
    /// The last one has room for more; the first one grows until it is long.
    pieces: Vec<Vec<u8>>,
    len: usize,
}

/// Bytes of a piece, unless one entry takes more.
const PIECE: usize = 1 << 20;

impl Pieces {
    /// Adds an entry, which is below 4 GiB.
    fn push(&mut self, entry: &[u8]) -> End {
        if self.pieces.last().is_none_or(|last| last.len() + entry.len() > PIECE) {
            self.pieces.push(if self.len == 0 {
                Vec::new()
            } else {
                Vec::with_capacity(PIECE.max(entry.len()))
            });
        }
        let piece = self.pieces.len() - 1;
        let last = &mut self.pieces[piece];
        last.extend_from_slice(entry);
        self.len += entry.len();
        End { piece: piece as u32, end: last.len() as u32 }
    }

    /// Makes room for so many bytes more, as far as one piece goes.
    fn reserve(&mut self, bytes: usize) {
        if self.pieces.is_empty() {
            self.pieces.push(Vec::with_capacity(bytes.min(PIECE)));
        }
    }

    fn memory_bytes(&self) -> usize {
        self.pieces.iter().map(|piece| size_of::<Vec<u8>>() + piece.capacity()).sum()
    }
}

impl ByteTable {
    pub(crate) fn len(&self) -> usize {
        self.tags.len()
    }

    /// Bytes of all entries.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len
    }

    /// Makes room for so many entries more, of so many bytes together.
    pub(crate) fn reserve(&mut self, entries: usize, bytes: usize) {
        let tags = &self.tags;
        self.slots.grow(tags.len() + entries, tags.len(), |number| Some(u64::from(tags[number])));
        self.tags.reserve(entries);
        self.ends.reserve(entries);
        self.bytes.reserve(bytes);
    }

    pub(crate) fn get(&self, number: usize) -> &[u8] {
        let End { piece, end } = self.ends[number];
        let before = number.checked_sub(1).map(|before| self.ends[before]);
        let start = before.filter(|before| before.piece == piece).map_or(0, |before| before.end);
        &self.bytes.pieces[piece as usize][start as usize..end as usize]
    }

    /// A table of some of these entries, which are distinct.
    pub(crate) fn some(&self, numbers: &[u32]) -> ByteTable {
        let mut some = ByteTable::default();
        for number in numbers {
            some.number(self.tags[*number as usize], self.get(*number as usize));
        }
        some
    }

    /// The entries with the low bits of their hashes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        (0..self.len()).map(|number| self.entry(number))
    }

    /// An entry with the low bits of its hash.
    pub(crate) fn entry(&self, number: usize) -> (u32, &[u8]) {
        (self.tags[number], self.get(number))
    }

    /// The number of an entry; `tag` is the low bits of its [`crate::sketch::hash_bytes`].
    #[inline]
    pub(crate) fn number(&mut self, tag: u32, entry: &[u8]) -> u32 {
        if self.slots.is_full(self.tags.len()) {
            let tags = &self.tags;
            self.slots.grow(tags.len() * 2, tags.len(), |number| Some(u64::from(tags[number])));
        }
        let is = |number: usize| self.tags[number] == tag && self.get(number) == entry;
        match self.slots.find(u64::from(tag), is) {
            Ok(number) => number,
            Err(slot) => {
                let number = self.tags.len() as u32;
                self.slots.numbers[slot] = number;
                self.tags.push(tag);
                self.ends.push(self.bytes.push(entry));
                number
            }
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.slots.numbers.capacity() * 4
            + self.tags.capacity() * 4
            + self.ends.capacity() * size_of::<End>()
            + self.bytes.memory_bytes()
    }
}

/// A set of hashes. See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct HashSet64 {
    /// 0 is an empty slot. The home of a hash is its top bits, after `skipped_bits`.
    slots: Vec<u64>,
    len: usize,
    has_zero: bool,
    /// Top bits that are the same in all hashes.
    skipped_bits: u32,
}

impl HashSet64 {
    /// An empty set of hashes that share so many top bits.
    pub(crate) fn skipping(skipped_bits: u32) -> HashSet64 {
        HashSet64 { skipped_bits, ..HashSet64::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.len + usize::from(self.has_zero)
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        ((hash << self.skipped_bits) >> (64 - self.slots.len().trailing_zeros())) as usize
    }

    #[inline]
    pub(crate) fn insert(&mut self, hash: u64) {
        if hash == 0 {
            self.has_zero = true;
            return;
        }
        // A quarter of the slots stays empty.
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.reserve(self.len + 1);
        }
        let mask = self.slots.len() - 1;
        let mut slot = self.home(hash);
        loop {
            let known = self.slots[slot];
            if known == hash {
                return;
            }
            if known == 0 {
                break;
            }
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = hash;
        self.len += 1;
    }

    /// Makes room for so many hashes.
    pub(crate) fn reserve(&mut self, len: usize) {
        let slots = (len * 4 / 3 + 1).next_power_of_two().max(SLOTS_MIN);
        if slots <= self.slots.len() {
            return;
        }
        let known = std::mem::replace(&mut self.slots, vec![0; slots]);
        let mask = slots - 1;
        for hash in known.into_iter().filter(|hash| *hash != 0) {
            let mut slot = self.home(hash);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            self.slots[slot] = hash;
        }
    }

    /// The hashes, nearly in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        let zero = self.has_zero.then_some(0);
        zero.into_iter().chain(self.slots.iter().copied().filter(|hash| *hash != 0))
    }

    /// The hashes in order.
    pub(crate) fn in_order(&self) -> Vec<u64> {
        let mut hashes = Vec::with_capacity(self.len());
        hashes.extend(self.has_zero.then_some(0));
        // Hashes whose home was full at the end of the slots went on at their beginning.
        let wrapped =
            self.slots.iter().position(|hash| *hash == 0 || self.home(*hash) < self.slots.len() / 2);
        let (wrapped, rest) = self.slots.split_at(wrapped.unwrap_or(0));
        hashes.extend(rest.iter().chain(wrapped).copied().filter(|hash| *hash != 0));
        // Every other hash is near its home, and homes are in order.
        for index in 1..hashes.len() {
            let hash = hashes[index];
            let mut place = index;
            while place > 0 && hashes[place - 1] > hash {
                hashes[place] = hashes[place - 1];
                place -= 1;
            }
            hashes[place] = hash;
        }
        hashes
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sketch::hash_bytes;

    #[test]
    fn numbers_follow_the_order_of_first_appearance() {
        let (mut ints, mut bytes) = (IntTable::default(), ByteTable::default());
        for round in 0..2 {
            for value in 0..1000i64 {
                let expect = value as u32 + u32::from(value >= 500);
                if value == 500 {
                    assert_eq!(ints.number_null(), 500, "{round}");
                }
                let mut number = Vec::new();
                ints.number_all(&[value - 500], &mut number);
                assert_eq!(number, [expect], "{round}");
                let text = format!("{value}");
                assert_eq!(bytes.number(hash_bytes(text.as_bytes()) as u32, text.as_bytes()), value as u32);
            }
        }
        assert_eq!((ints.len(), bytes.len()), (1001, 1000));
        // Many at once, known and new, some of them twice; 0 is a value although NULL takes its place.
        let mut numbers = Vec::new();
        let values: Vec<i64> = (0..700).flat_map(|value| [value, value - 500, value]).collect();
        ints.number_all(&values, &mut numbers);
        let expect = |value: i64| (value + 500) as u32 + u32::from(value >= 0);
        for (value, number) in values.iter().zip(&numbers) {
            assert_eq!(*number, expect(*value), "{value}");
        }
        assert_eq!(ints.len(), 1201);
        assert_eq!(bytes.get(999), b"999");
    }

    #[test]
    fn entries_of_all_lengths_stay_what_they_are() {
        let mut table = ByteTable::default();
        // Longer than a piece, as long as one, empty, and many that fill some pieces.
        let lengths =
            [0, 3, PIECE + 7, 5, PIECE, 1, PIECE - 1, 2].into_iter().chain((0..400).map(|n| n * 29));
        let mut entries: Vec<Vec<u8>> = Vec::new();
        for (index, length) in lengths.enumerate() {
            let mut entry: Vec<u8> = index.to_le_bytes().into_iter().cycle().take(length).collect();
            entry.extend(index.to_le_bytes());
            entries.push(entry);
        }
        entries.push(Vec::new());
        for _ in 0..2 {
            for (number, entry) in entries.iter().enumerate() {
                assert_eq!(table.number(hash_bytes(entry) as u32, entry), number as u32);
            }
        }
        assert!(entries.iter().map(Vec::as_slice).eq(table.iter().map(|(_, entry)| entry)));
        assert_eq!(table.bytes(), entries.iter().map(Vec::len).sum::<usize>());
        assert!(table.memory_bytes() < table.bytes() * 2);
    }

    #[test]
    fn sets_hold_every_hash_once() {
        for skipped in [0, 6] {
            let mut set = HashSet64::skipping(skipped);
            for hash in (0..2000u64).chain(0..2000) {
                set.insert(if hash == 0 { 0 } else { hash_int(hash as i64) >> skipped });
            }
            assert_eq!(set.len(), 2000);
            assert_eq!(set.iter().count(), 2000);
            let mut sorted: Vec<u64> = set.iter().collect();
            sorted.sort_unstable();
            assert_eq!(set.in_order(), sorted);
        }
    }
}
