//! Small numbers side by side in as few bits as the largest of them needs.
//!
//! Any one of them is read with one load of eight bytes, which is why the bytes they all lie in end with [`PAD`] more.
//! A number that is not there reads as zero.

use crate::vectors::vectorized;

/// Bytes that follow the last numbers.
pub(super) const PAD: usize = 8;
/// Numbers that need more bits than this take all of 64, so that one load always gets them.
const BITS_PACKED_MAX: u8 = 56;
/// Text is found from the start of its group of this many.
const GROUP: usize = 32;

/// Bits that hold this number.
pub(super) fn bits_for(max: u64) -> u8 {
    match (u64::BITS - max.leading_zeros()) as u8 {
        bits if bits > BITS_PACKED_MAX => 64,
        bits => bits,
    }
}

/// Where some packed numbers lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sub {
    bits: u8,
    /// First byte.
    at: usize,
    mask: u64,
}

impl Sub {
    /// Numbers of some bits from `at`, which moves behind them; `None` when they would not fit in the bytes.
    pub(super) fn open(bits: u64, count: usize, at: &mut usize, bytes: &[u8]) -> Option<Sub> {
        let bits = u8::try_from(bits).ok().filter(|bits| *bits <= BITS_PACKED_MAX || *bits == 64)?;
        let mask = if bits == 0 { 0 } else { u64::MAX >> (64 - bits) };
        let sub = Sub { bits, at: *at, mask };
        let end = count.checked_mul(usize::from(bits))?.div_ceil(8).checked_add(*at)?;
        if end.checked_add(PAD)? > bytes.len() {
            return None;
        }
        *at = end;
        Some(sub)
    }

    pub(super) fn bits(&self) -> u8 {
        self.bits
    }

    #[inline]
    pub(super) fn get(&self, bytes: &[u8], index: usize) -> u64 {
        let bit = index * usize::from(self.bits);
        let word = bytes.get(self.at + bit / 8..).and_then(|bytes| bytes.first_chunk::<8>());
        word.map_or(0, |word| u64::from_le_bytes(*word) >> (bit % 8) & self.mask)
    }

    /// Reads numbers from `first` on, of at most 32 bits.
    #[inline(always)]
    pub(super) fn unpack(&self, bytes: &[u8], first: usize, out: &mut [u32]) {
        let bits = usize::from(self.bits);
        let bytes = bytes.get(self.at..).unwrap_or(&[]);
        let mut bit = first * bits;
        let mut out = out;
        if first.is_multiple_of(8) {
            let done = eights_of(bits, bytes.get(bit / 8..).unwrap_or(&[]), out);
            bit += done * bits;
            out = &mut out[done..];
        }
        for number in out {
            let word = bytes.get(bit / 8..).and_then(|bytes| bytes.first_chunk::<8>());
            *number = word.map_or(0, |word| (u64::from_le_bytes(*word) >> (bit % 8) & self.mask) as u32);
            bit += bits;
        }
    }
}

/// Bytes that hold eight numbers of up to 16 bits and what a load behind the last of them reads.
const EIGHT_BYTES: usize = 24;

/// Reads numbers of so many bits, eight at a time, for as long as there are bytes enough. Returns how many.
#[inline(always)]
fn eights_of(bits: usize, bytes: &[u8], out: &mut [u32]) -> usize {
    match bits {
        1 => eights::<1>(bytes, out),
        2 => eights::<2>(bytes, out),
        3 => eights::<3>(bytes, out),
        4 => eights::<4>(bytes, out),
        5 => eights::<5>(bytes, out),
        6 => eights::<6>(bytes, out),
        7 => eights::<7>(bytes, out),
        8 => eights::<8>(bytes, out),
        9 => eights::<9>(bytes, out),
        10 => eights::<10>(bytes, out),
        11 => eights::<11>(bytes, out),
        12 => eights::<12>(bytes, out),
        13 => eights::<13>(bytes, out),
        14 => eights::<14>(bytes, out),
        15 => eights::<15>(bytes, out),
        16 => eights::<16>(bytes, out),
        _ => 0,
    }
}

/// Eight numbers of `BITS` bits begin at a byte, and where each of them lies after that is known when this is compiled.
#[inline(always)]
fn eights<const BITS: usize>(bytes: &[u8], out: &mut [u32]) -> usize {
    let (eights, _) = out.as_chunks_mut::<8>();
    let mut done = 0;
    for (index, eight) in eights.iter_mut().enumerate() {
        let Some(bytes) = bytes.get(index * BITS..).and_then(|bytes| bytes.first_chunk::<EIGHT_BYTES>())
        else {
            break;
        };
        for (place, number) in eight.iter_mut().enumerate() {
            let (byte, shift) = (place * BITS / 8, place * BITS % 8);
            let word = [bytes[byte], bytes[byte + 1], bytes[byte + 2], bytes[byte + 3]];
            *number = u32::from_le_bytes(word) >> shift & ((1 << BITS) - 1);
        }
        done += 8;
    }
    done
}

/// Appends numbers of these bits, each of which fits.
pub(super) fn write(numbers: impl Iterator<Item = u64>, bits: u8, out: &mut Vec<u8>) {
    if bits == 0 {
        return;
    }
    if bits == 64 {
        numbers.for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        return;
    }
    let (mut held, mut held_bits) = (0_u64, 0_u32);
    for number in numbers {
        held |= number << held_bits;
        held_bits += u32::from(bits);
        // Fewer than 8 bits stay, so that 56 more always fit.
        let whole = held_bits as usize / 8;
        out.extend_from_slice(&held.to_le_bytes()[..whole]);
        held = held.checked_shr(whole as u32 * 8).unwrap_or(0);
        held_bits %= 8;
    }
    if held_bits > 0 {
        out.push(held as u8);
    }
}

/// Where each of some pieces of text lies, which follow one another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// First byte of the first piece.
    text_at: usize,
    /// For each group, where its first piece begins after that.
    starts: Sub,
    /// For each piece, where it ends after its group began.
    ends: Sub,
    count: usize,
}

impl Ends {
    /// Places of `count` pieces of `total` bytes together; `None` when they would not fit.
    pub(super) fn open(
        (count, total, bits): (usize, usize, u64),
        text_at: usize,
        at: &mut usize,
        bytes: &[u8],
    ) -> Option<Ends> {
        let starts = Sub::open(u64::from(bits_for(total as u64)), count.div_ceil(GROUP), at, bytes)?;
        let ends = Sub::open(bits, count, at, bytes)?;
        Some(Ends { text_at, starts, ends, count })
    }

    /// The piece at an index, empty when there is none.
    #[inline]
    pub(super) fn get<'a>(&self, bytes: &[u8], text: &'a [u8], index: usize) -> &'a [u8] {
        let (start, end) = self.range(bytes, index);
        text.get(self.text_at.saturating_add(start)..self.text_at.saturating_add(end)).unwrap_or(&[])
    }

    fn range(&self, bytes: &[u8], index: usize) -> (usize, usize) {
        if index >= self.count {
            return (0, 0);
        }
        let base = self.starts.get(bytes, index / GROUP) as usize;
        let start = if index.is_multiple_of(GROUP) { 0 } else { self.ends.get(bytes, index - 1) as usize };
        (base.saturating_add(start), base.saturating_add(self.ends.get(bytes, index) as usize))
    }

    /// Where each piece begins, and how long it is.
    pub(super) fn pieces(&self, bytes: &[u8]) -> impl Iterator<Item = (usize, usize)> {
        let places = (0..self.count).map(|index| self.range(bytes, index));
        places.map(|(start, end)| (self.text_at.saturating_add(start), end.saturating_sub(start)))
    }

    /// How many bytes each piece has.
    pub(super) fn lengths(&self, bytes: &[u8]) -> Vec<u32> {
        let mut lengths = vec![0_u32; self.count];
        if self.ends.bits() > 32 {
            let length = |index| {
                let (start, end) = self.range(bytes, index);
                end.saturating_sub(start) as u32
            };
            return (0..self.count).map(length).collect();
        }
        let (all, ends) = (&mut lengths[..], self.ends);
        vectorized(
            #[inline(always)]
            move || {
                ends.unpack(bytes, 0, all);
                for group in all.chunks_mut(GROUP) {
                    for place in (1..group.len()).rev() {
                        group[place] = group[place].wrapping_sub(group[place - 1]);
                    }
                }
            },
        );
        lengths
    }

    /// The text of all pieces, which have so many bytes together.
    pub(super) fn text<'a>(&self, text: &'a [u8], total: usize) -> &'a [u8] {
        text.get(self.text_at..self.text_at.saturating_add(total)).unwrap_or(&[])
    }

    /// The text of all pieces, and whether one of them is empty.
    pub(super) fn all<'a>(&self, bytes: &[u8], text: &'a [u8], total: usize) -> (&'a [u8], bool) {
        let is_empty = |index| {
            let (start, end) = self.range(bytes, index);
            end <= start
        };
        (self.text(text, total), (0..self.count).any(is_empty))
    }

    /// The pieces that have some text, ascending, and maybe others whose end and what follows have it; all pieces have
    /// `total` bytes together, which are looked through as a whole.
    pub(super) fn having(
        &self,
        finder: &memchr::memmem::Finder<'_>,
        bytes: &[u8],
        text: &[u8],
        total: usize,
    ) -> Vec<u32> {
        let all = self.text(text, total);
        let groups = self.count.div_ceil(GROUP);
        let (mut pieces, mut group, mut at) = (Vec::new(), 0, 0);
        while let Some(found) = all.get(at..).and_then(|rest| finder.find(rest)) {
            at += found;
            while group + 1 < groups && self.starts.get(bytes, group + 1) as usize <= at {
                group += 1;
            }
            let base = self.starts.get(bytes, group) as usize;
            let mut in_group = group * GROUP..self.count.min((group + 1) * GROUP);
            let end = |piece: usize| base.saturating_add(self.ends.get(bytes, piece) as usize);
            let piece = in_group.find(|piece| end(*piece) > at);
            pieces.extend(piece.map(|piece| piece as u32));
            // Behind the piece, which is known to have it.
            at = piece.map_or(0, end).max(at + 1);
        }
        pieces
    }

    /// Whether the pieces follow one another without gaps and have so many bytes together.
    pub(super) fn are_ascending(&self, bytes: &[u8], total: usize) -> bool {
        let mut last = 0;
        for index in 0..self.count {
            let (start, end) = self.range(bytes, index);
            if start != last || end < start {
                return false;
            }
            last = end;
        }
        last == total
    }
}

/// Appends the places of pieces of these lengths and returns the bits of their ends.
pub(super) fn write_ends(lengths: &[usize], out: &mut Vec<u8>) -> u8 {
    let total: usize = lengths.iter().sum();
    let mut starts = Vec::with_capacity(lengths.len().div_ceil(GROUP));
    let mut ends = Vec::with_capacity(lengths.len());
    let mut start = 0_u64;
    for group in lengths.chunks(GROUP) {
        starts.push(start);
        let mut end = 0_u64;
        for length in group {
            end += *length as u64;
            ends.push(end);
        }
        start += end;
    }
    write(starts.into_iter(), bits_for(total as u64), out);
    let bits = bits_for(ends.iter().copied().max().unwrap_or(0));
    write(ends.into_iter(), bits, out);
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::forms;

    #[test]
    fn many_numbers_are_read_as_single_ones_are() {
        forms::both(many_numbers);
    }

    fn many_numbers() {
        for bits in 0..=32_u8 {
            let mask = u64::MAX.checked_shr(64 - u32::from(bits)).unwrap_or(0);
            let numbers: Vec<u64> =
                (0..300_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask).collect();
            let mut bytes = vec![7; 3];
            write(numbers.iter().copied(), bits, &mut bytes);
            bytes.extend([0; PAD]);
            let sub = Sub::open(u64::from(bits), numbers.len(), &mut 3, &bytes).unwrap();
            for (first, count) in [(0, 300), (8, 292), (16, 5), (3, 100), (299, 1), (296, 4), (300, 0)] {
                let mut out = vec![u32::MAX; count];
                let all = &mut out[..];
                vectorized(
                    #[inline(always)]
                    || sub.unpack(&bytes, first, all),
                );
                let one = |index: usize| sub.get(&bytes, index) as u32;
                assert!(out.iter().copied().eq((first..first + count).map(one)), "{bits} bits from {first}");
                assert!((first..first + count).all(|index| sub.get(&bytes, index) == numbers[index]));
            }
        }
    }

    #[test]
    fn pieces_are_found_by_what_they_have() {
        let pieces = ["ab", "", "xabx", "b", "a", "b", "", "aab", "xx", "abab"];
        for repeated in [1, 10] {
            let pieces: Vec<&str> = pieces.iter().copied().cycle().take(pieces.len() * repeated).collect();
            let lengths: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
            let mut bytes = Vec::new();
            let bits = write_ends(&lengths, &mut bytes);
            bytes.extend([0; PAD]);
            let text = pieces.concat();
            let places = (pieces.len(), text.len(), u64::from(bits));
            let ends = Ends::open(places, 0, &mut 0, &bytes).unwrap();
            let finder = memchr::memmem::Finder::new("ab");
            let found = ends.having(&finder, &bytes, text.as_bytes(), text.len());
            assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
            let lengths = lengths.into_iter().map(|length| length as u32);
            assert!(ends.lengths(&bytes).into_iter().eq(lengths));
            for (index, piece) in (0_u32..).zip(&pieces) {
                assert!(!piece.contains("ab") || found.contains(&index), "{index} of {repeated}");
            }
        }
    }
}
