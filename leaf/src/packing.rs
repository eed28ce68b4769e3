//! Codes in as few bits as they need.
//!
//! Unsigned integers are stored in one of three ways, whichever is smaller by a margin that pays for unpacking: as a
//! plain array of 8, 16, 32 or 64 bits; packed in vectors of 1,024 (in the layout of the crate `fastlanes`, by Afroozeh
//! and Boncz, "The FastLanes Compression Layout", VLDB 2023); or either with the few codes that need more bits stored
//! aside as patches. A base for each vector can be taken off first, which suits times that nearly ascend.
//!
//! ```text
//! bits 8, 16, 32, 64      the codes as they are
//! other bits              vectors of 1,024 codes, 128 × bits bytes each, the last one padded with zeros
//! then, framed            one base for each 1,024 codes, 8 bytes each
//! then                    patches: the codes, 8 bytes each; then their rows, 2 bytes each, ascending
//! ```
//!
//! A patched code is 0 where it is packed. Codes are unpacked whole and at once into an array of 8, 16, 32 or 64 bits,
//! which is what a scan works on; plain ones without patches or bases are a view and cost nothing.

use arrow::buffer::{Buffer, MutableBuffer, ScalarBuffer};
use arrow::datatypes::ArrowNativeType;
use fastlanes::BitPacking;
use fearless_simd::kernel;

use crate::column::Codes;
#[cfg(target_arch = "x86_64")]
use crate::vectors::avx2;
use crate::vectors::vectorized;

/// Codes in a vector.
const VECTOR: usize = 1_024;
/// Patches name their row in two bytes.
pub const CODES_MAX: usize = 65_536;
const PATCH_BYTES: usize = PATCH_CODE_BYTES + 2;
const PATCH_CODE_BYTES: usize = 8;
/// Of plain codes, packed ones must save one part in this many.
const MARGIN: usize = 8;

/// How codes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packing {
    /// Bits of one stored code, 1 to 64; 0 where there are no codes.
    pub bits: u8,
    /// Bytes of one code after unpacking: 1, 2, 4 or 8.
    pub bytes: u8,
    /// Whether each vector has a base.
    pub framed: bool,
    /// Codes stored aside.
    pub patches: u32,
}

impl Packing {
    /// Plain codes of this many bytes.
    pub fn plain(bytes: u8) -> Packing {
        Packing { bits: bytes * 8, bytes, framed: false, patches: 0 }
    }

    /// Whether unpacking is a view.
    pub fn is_view(&self) -> bool {
        self.bits == self.bytes * 8 && !self.framed && self.patches == 0
    }

    /// Checks everything that can be known without the codes.
    ///
    /// # Errors
    /// In words that follow the name of a column.
    pub fn check(&self, bytes_max: u8) -> Result<(), String> {
        let Packing { bits, bytes, patches, .. } = *self;
        if !(matches!(bytes, 1 | 2 | 4 | 8) && bytes <= bytes_max) {
            return Err(format!("has codes of {bytes} bytes"));
        }
        if !is_width(bits) || bits > bytes * 8 {
            return Err(format!("has codes of {bits} bits in {bytes} bytes"));
        }
        if patches as usize > CODES_MAX {
            return Err(format!("has {patches} patches, the limit is {CODES_MAX}"));
        }
        Ok(())
    }

    /// Bytes that this many codes take.
    pub fn stored_bytes(&self, count: usize) -> usize {
        self.packed_bytes(count) + self.frame_bytes(count) + self.patches as usize * PATCH_BYTES
    }

    fn packed_bytes(&self, count: usize) -> usize {
        match self.bits {
            0 => 0,
            // Bases and patches behind it begin at a multiple of eight.
            8 | 16 | 32 | 64 if self.framed || self.patches > 0 => {
                (count * usize::from(self.bits / 8)).next_multiple_of(8)
            }
            8 | 16 | 32 | 64 => count * usize::from(self.bits / 8),
            bits => count.div_ceil(VECTOR) * VECTOR / 8 * usize::from(bits),
        }
    }

    fn frame_bytes(&self, count: usize) -> usize {
        if self.framed { count.div_ceil(VECTOR) * 8 } else { 0 }
    }
}

/// Whether codes are ever stored in this many bits: beyond 32 only in multiples of four.
fn is_width(bits: u8) -> bool {
    (1..=32).contains(&bits) || (bits <= 64 && bits > 32 && bits.is_multiple_of(4))
}

fn round_up(bits: u32) -> u8 {
    match bits.max(1) {
        bits @ 1..=32 => bits as u8,
        bits => bits.next_multiple_of(4) as u8,
    }
}

fn bit_length(code: u64) -> u32 {
    u64::BITS - code.leading_zeros()
}

/// Bytes of the narrowest array that holds a code.
fn array_bytes(code_max: u64) -> u8 {
    match bit_length(code_max) {
        0..=8 => 1,
        9..=16 => 2,
        17..=32 => 4,
        _ => 8,
    }
}

/// Stores codes in the way that is smallest.
pub fn pack(codes: &[u64]) -> (Packing, Buffer) {
    let whole = Plan::of(codes.iter().copied(), codes.len(), 0);
    let bases: Vec<u64> =
        codes.chunks(VECTOR).map(|vector| vector.iter().copied().min().unwrap_or(0)).collect();
    let framed = codes.iter().enumerate().map(|(row, code)| code - bases[row / VECTOR]);
    let framed = Plan::of(framed, codes.len(), bases.len() * 8);
    let bytes = array_bytes(codes.iter().copied().max().unwrap_or(0));
    let plain = Packing::plain(bytes);
    let pays = |bytes: usize, than: usize| bytes + than / MARGIN < than;
    let plain_bytes = plain.stored_bytes(codes.len());
    let best = if pays(framed.total, whole.total) { (&framed, &bases[..]) } else { (&whole, &[][..]) };
    if !pays(best.0.total, plain_bytes) {
        return (plain, narrow(codes.iter().copied(), bytes));
    }
    let (plan, bases) = best;
    let packing = Packing { bits: plan.bits, bytes, framed: !bases.is_empty(), patches: plan.patches as u32 };
    (packing, write(&packing, codes, bases))
}

/// Stores codes in the bits they need, without bases and patches, so that there can be any number of them.
pub fn pack_bits(codes: &[u64]) -> (Packing, Buffer) {
    let code_max = codes.iter().copied().max().unwrap_or(0);
    let plain = Packing::plain(array_bytes(code_max));
    let packed = Packing { bits: round_up(bit_length(code_max)), ..plain };
    let (packed_bytes, plain_bytes) = (packed.stored_bytes(codes.len()), plain.stored_bytes(codes.len()));
    if packed_bytes + plain_bytes / MARGIN < plain_bytes {
        return (packed, write(&packed, codes, &[]));
    }
    pack_plain(codes)
}

/// Stores codes with a base for each vector and, where they differ in length, the longest tenth as patches, whatever
/// that costs.
pub fn pack_framed(codes: &[u64]) -> (Packing, Buffer) {
    let bases: Vec<u64> =
        codes.chunks(VECTOR).map(|vector| vector.iter().copied().min().unwrap_or(0)).collect();
    let mut lengths: Vec<u32> =
        codes.iter().enumerate().map(|(row, code)| bit_length(code - bases[row / VECTOR])).collect();
    let bytes = array_bytes(codes.iter().copied().max().unwrap_or(0));
    lengths.sort_unstable();
    let bits = round_up(lengths.get(lengths.len() * 9 / 10).copied().unwrap_or(1)).min(bytes * 8);
    let patches = lengths.iter().filter(|length| **length > u32::from(bits)).count() as u32;
    let packing = Packing { bits, bytes, framed: true, patches };
    (packing, write(&packing, codes, &bases))
}

/// Stores codes as a plain array.
pub fn pack_plain(codes: &[u64]) -> (Packing, Buffer) {
    let bytes = array_bytes(codes.iter().copied().max().unwrap_or(0));
    (Packing::plain(bytes), narrow(codes.iter().copied(), bytes))
}

/// The best number of bits for some codes.
struct Plan {
    bits: u8,
    patches: usize,
    /// Bytes of it all.
    total: usize,
}

impl Plan {
    fn of(codes: impl Iterator<Item = u64>, count: usize, base_bytes: usize) -> Plan {
        let mut lengths = [0_usize; 65];
        codes.for_each(|code| lengths[bit_length(code) as usize] += 1);
        let mut best: Option<Plan> = None;
        let mut longer = 0;
        for length in (1..=64_u32).rev() {
            // `longer` codes need more than this many bits.
            let bits = round_up(length);
            if u32::from(bits) == length {
                let packing = Packing { bits, bytes: 8, framed: base_bytes > 0, patches: longer as u32 };
                let total = packing.stored_bytes(count);
                if best.as_ref().is_none_or(|best| total < best.total) {
                    best = Some(Plan { bits, patches: longer, total });
                }
            }
            longer += lengths[length as usize];
        }
        best.unwrap_or(Plan { bits: 64, patches: 0, total: count * 8 + base_bytes })
    }
}

fn write(packing: &Packing, codes: &[u64], bases: &[u64]) -> Buffer {
    let base = |row: usize| bases.get(row / VECTOR).copied().unwrap_or(0);
    let fits = |code: u64| bit_length(code) <= u32::from(packing.bits);
    let mut patches: Vec<(u16, u64)> = Vec::with_capacity(packing.patches as usize);
    let rest: Vec<u64> = codes
        .iter()
        .enumerate()
        .map(|(row, code)| {
            let code = code - base(row);
            if fits(code) {
                return code;
            }
            patches.push((row as u16, code));
            0
        })
        .collect();
    debug_assert_eq!(patches.len(), packing.patches as usize);
    let packed = match packing.bits {
        8 | 16 | 32 | 64 => narrow(rest.iter().copied(), packing.bits / 8),
        bits => pack_vectors(&rest, bits),
    };
    let total = packing.stored_bytes(codes.len());
    let mut out = MutableBuffer::with_capacity(total);
    out.extend_from_slice(packed.as_slice());
    out.resize(packing.packed_bytes(codes.len()), 0);
    bases.iter().for_each(|base| out.extend_from_slice(&base.to_le_bytes()));
    patches.iter().for_each(|(_, code)| out.extend_from_slice(&code.to_le_bytes()));
    patches.iter().for_each(|(row, _)| out.extend_from_slice(&row.to_le_bytes()));
    debug_assert_eq!(out.len(), total);
    out.into()
}

/// Codes as a plain array; every one fits.
fn narrow(codes: impl Iterator<Item = u64>, bytes: u8) -> Buffer {
    match bytes {
        1 => Buffer::from_vec(codes.map(|code| code as u8).collect::<Vec<_>>()),
        2 => Buffer::from_vec(codes.map(|code| code as u16).collect::<Vec<_>>()),
        4 => Buffer::from_vec(codes.map(|code| code as u32).collect::<Vec<_>>()),
        _ => Buffer::from_vec(codes.collect::<Vec<_>>()),
    }
}

/// Calls a macro with the element type's bits and every width that is packed in that type.
macro_rules! by_width {
    ($bits:expr, $do:ident) => {
        match $bits {
            1 => $do!(u8, 8, 1),
            2 => $do!(u8, 8, 2),
            3 => $do!(u8, 8, 3),
            4 => $do!(u8, 8, 4),
            5 => $do!(u8, 8, 5),
            6 => $do!(u8, 8, 6),
            7 => $do!(u8, 8, 7),
            9 => $do!(u16, 16, 9),
            10 => $do!(u16, 16, 10),
            11 => $do!(u16, 16, 11),
            12 => $do!(u16, 16, 12),
            13 => $do!(u16, 16, 13),
            14 => $do!(u16, 16, 14),
            15 => $do!(u16, 16, 15),
            17 => $do!(u32, 32, 17),
            18 => $do!(u32, 32, 18),
            19 => $do!(u32, 32, 19),
            20 => $do!(u32, 32, 20),
            21 => $do!(u32, 32, 21),
            22 => $do!(u32, 32, 22),
            23 => $do!(u32, 32, 23),
            24 => $do!(u32, 32, 24),
            25 => $do!(u32, 32, 25),
            26 => $do!(u32, 32, 26),
            27 => $do!(u32, 32, 27),
            28 => $do!(u32, 32, 28),
            29 => $do!(u32, 32, 29),
            30 => $do!(u32, 32, 30),
            31 => $do!(u32, 32, 31),
            36 => $do!(u64, 64, 36),
            40 => $do!(u64, 64, 40),
            44 => $do!(u64, 64, 44),
            48 => $do!(u64, 64, 48),
            52 => $do!(u64, 64, 52),
            56 => $do!(u64, 64, 56),
            60 => $do!(u64, 64, 60),
            _ => Default::default(),
        }
    };
}

fn pack_vectors(codes: &[u64], bits: u8) -> Buffer {
    macro_rules! pack_as {
        ($type:ty, $type_bits:literal, $width:literal) => {{
            const WORDS: usize = VECTOR * $width / $type_bits;
            let mut out: Vec<$type> = Vec::with_capacity(codes.len().div_ceil(VECTOR) * WORDS);
            for vector in codes.chunks(VECTOR) {
                let mut input = [0 as $type; VECTOR];
                input.iter_mut().zip(vector).for_each(|(to, code)| *to = *code as $type);
                let mut packed = [0 as $type; WORDS];
                <$type as BitPacking>::pack::<$width, WORDS>(&input, &mut packed);
                out.extend_from_slice(&packed);
            }
            Buffer::from_vec(out)
        }};
    }
    by_width!(bits, pack_as)
}

/// Unpacks `count` codes. The packing was checked, and the buffer is as long as it says.
pub fn unpack(packing: &Packing, buffer: &Buffer, count: usize) -> Codes {
    if buffer.len() != packing.stored_bytes(count) {
        // Nobody gets here: lengths are checked with the directory. Zeros are codes of every column.
        return Codes::U8(vec![0; count].into());
    }
    if packing.is_view() {
        return match packing.bytes {
            1 => Codes::U8(ScalarBuffer::new(buffer.clone(), 0, count)),
            2 => Codes::U16(ScalarBuffer::new(buffer.clone(), 0, count)),
            4 => Codes::U32(ScalarBuffer::new(buffer.clone(), 0, count)),
            _ => Codes::U64(ScalarBuffer::new(buffer.clone(), 0, count)),
        };
    }
    match packing.bytes {
        1 => Codes::U8(unpack_as::<u8>(packing, buffer, count).into()),
        2 => Codes::U16(unpack_as::<u16>(packing, buffer, count).into()),
        4 => Codes::U32(unpack_as::<u32>(packing, buffer, count).into()),
        _ => Codes::U64(unpack_as::<u64>(packing, buffer, count).into()),
    }
}

fn unpack_as<T: Narrow>(packing: &Packing, buffer: &Buffer, count: usize) -> Vec<T> {
    vectorized(
        #[inline(always)]
        || unpack_all(packing, buffer, count),
    )
}

/// A code in an array of its width.
trait Narrow: ArrowNativeType + Into<u64> {
    fn narrow(code: u64) -> Self;
    fn plus(self, base: u64) -> Self;
    /// Unpacks codes of `width` bits, fewer than these have.
    fn unpack_vector(packed: &[Self], width: usize, out: &mut [Self; VECTOR]);
}

/// The order of rows of sixteen codes in a vector, which is that of the layout.
const ORDER: [usize; 8] = [0, 4, 2, 6, 1, 5, 3, 7];

macro_rules! narrow_impl {
    ($($type:ty),*) => {$(
        impl Narrow for $type {
            #[inline(always)]
            fn narrow(code: u64) -> $type {
                code as $type
            }
            #[inline(always)]
            fn plus(self, base: u64) -> $type {
                self.wrapping_add(base as $type)
            }
            // Row by row, because the lanes of a row lie next to each other in both forms: each loop over lanes is a
            // few vector instructions, whatever the width.
            fn unpack_vector(packed: &[$type], width: usize, out: &mut [$type; VECTOR]) {
                #[inline(always)]
                fn unpack(packed: &[$type], width: usize, out: &mut [$type; VECTOR]) {
                    const BITS: usize = <$type>::BITS as usize;
                    const LANES: usize = VECTOR / BITS;
                    let mask = <$type>::MAX >> (BITS - width);
                    let (words, _) = packed.as_chunks::<LANES>();
                    for row in 0..BITS {
                        let (word, shift) = (row * width / BITS, row * width % BITS);
                        let first = ORDER[row / 8] * 16 + row % 8 * 128;
                        let out = &mut out[first..first + LANES];
                        let low = &words[word];
                        if shift + width <= BITS {
                            for (code, low) in out.iter_mut().zip(low) {
                                *code = low >> shift & mask;
                            }
                        } else {
                            for ((code, low), high) in out.iter_mut().zip(low).zip(&words[word + 1]) {
                                *code = (low >> shift | high << (BITS - shift)) & mask;
                            }
                        }
                    }
                }
                // A function with these arguments and not a closure that takes them along: only so is it known that
                // reading and writing do not meet, without which the loops are no vector instructions.
                kernel!(
                    #[inline(never)]
                    fn with_avx2(avx2: Avx2, packed: &[$type], width: usize, out: &mut [$type; VECTOR]) {
                        unpack(packed, width, out);
                    }
                );
                #[cfg(target_arch = "x86_64")]
                if let Some(avx2) = avx2() {
                    return with_avx2(avx2, packed, width, out);
                }
                unpack(packed, width, out);
            }
        }
    )*};
}

narrow_impl!(u8, u16, u32, u64);

#[inline(always)]
fn unpack_all<T: Narrow>(packing: &Packing, buffer: &Buffer, count: usize) -> Vec<T> {
    // A whole number of vectors, so that each is unpacked in place; the end is cut off.
    let mut out: Vec<T> = Vec::with_capacity(count.next_multiple_of(VECTOR));
    let frame = packing.packed_bytes(count);
    let patch_codes = frame + packing.frame_bytes(count);
    let patch_rows = patch_codes + packing.patches as usize * PATCH_CODE_BYTES;
    let (bases, _) = buffer[frame..patch_codes].as_chunks::<8>();
    let base = |vector: usize| bases.get(vector).map_or(0, |base| u64::from_le_bytes(*base));
    // Each vector gets its base while it is near.
    macro_rules! widen {
        ($type:ty) => {{
            let codes: ScalarBuffer<$type> = ScalarBuffer::new(buffer.clone(), 0, count);
            for (index, vector) in codes.chunks(VECTOR).enumerate() {
                let base = base(index);
                out.extend(vector.iter().map(|code| T::narrow(u64::from(*code)).plus(base)));
            }
        }};
    }
    macro_rules! unpack_vectors {
        ($type:ty) => {{
            let width = usize::from(packing.bits);
            let words = VECTOR * width / <$type>::BITS as usize;
            let packed: ScalarBuffer<$type> =
                ScalarBuffer::new(buffer.clone(), 0, count.div_ceil(VECTOR) * words);
            let mut unpacked = [0 as $type; VECTOR];
            for (index, vector) in packed.chunks_exact(words).enumerate() {
                <$type>::unpack_vector(vector, width, &mut unpacked);
                let base = base(index);
                out.extend(unpacked.iter().map(|code| T::narrow(u64::from(*code)).plus(base)));
            }
        }};
    }
    match packing.bits {
        8 => widen!(u8),
        16 => widen!(u16),
        32 => widen!(u32),
        64 => widen!(u64),
        0 => {}
        1..8 => unpack_vectors!(u8),
        9..16 => unpack_vectors!(u16),
        17..32 => unpack_vectors!(u32),
        _ => unpack_vectors!(u64),
    }
    out.resize(count, T::default());
    let (codes, _) = buffer[patch_codes..patch_rows].as_chunks::<PATCH_CODE_BYTES>();
    let (rows, _) = buffer[patch_rows..].as_chunks::<2>();
    for (code, row) in codes.iter().zip(rows) {
        let row = usize::from(u16::from_le_bytes(*row));
        if let Some(place) = out.get_mut(row) {
            *place = T::narrow(u64::from_le_bytes(*code)).plus(base(row / VECTOR));
        }
    }
    out
}

/// Unpacks the codes of some of `count` rows, which ascend. As [`unpack`], without touching what lies between.
pub fn unpack_at(packing: &Packing, buffer: &Buffer, count: usize, rows: &[u32]) -> Codes {
    let fits = buffer.len() == packing.stored_bytes(count);
    if packing.is_view() || !fits || rows.iter().any(|row| *row as usize >= count) {
        let codes = unpack(packing, buffer, count);
        let rows: Vec<u32> = rows.iter().copied().filter(|row| (*row as usize) < count).collect();
        return codes.pick(&rows);
    }
    match packing.bytes {
        1 => Codes::U8(unpack_some::<u8>(packing, buffer, count, rows).into()),
        2 => Codes::U16(unpack_some::<u16>(packing, buffer, count, rows).into()),
        4 => Codes::U32(unpack_some::<u32>(packing, buffer, count, rows).into()),
        _ => Codes::U64(unpack_some::<u64>(packing, buffer, count, rows).into()),
    }
}

fn unpack_some<T: Narrow>(packing: &Packing, buffer: &Buffer, count: usize, rows: &[u32]) -> Vec<T> {
    let mut out: Vec<T> = Vec::with_capacity(rows.len());
    macro_rules! widen {
        ($type:ty) => {{
            let codes: ScalarBuffer<$type> = ScalarBuffer::new(buffer.clone(), 0, count);
            out.extend(rows.iter().map(|row| T::narrow(u64::from(codes[*row as usize]))));
        }};
    }
    macro_rules! unpack_singles {
        ($type:ty, $type_bits:literal, $width:literal) => {{
            const WORDS: usize = VECTOR * $width / $type_bits;
            let words = count.div_ceil(VECTOR) * WORDS;
            let packed: ScalarBuffer<$type> = ScalarBuffer::new(buffer.clone(), 0, words);
            let (vectors, _) = packed.as_chunks::<WORDS>();
            out.extend(rows.iter().map(|row| {
                let row = *row as usize;
                let code = <$type as BitPacking>::unpack_single::<$width, WORDS>(
                    &vectors[row / VECTOR],
                    row % VECTOR,
                );
                T::narrow(u64::from(code))
            }));
        }};
    }
    match packing.bits {
        8 => widen!(u8),
        16 => widen!(u16),
        32 => widen!(u32),
        64 => widen!(u64),
        bits => by_width!(bits, unpack_singles),
    }
    out.resize(rows.len(), T::default());
    let at = packing.packed_bytes(count);
    let patches = packing.patches as usize;
    let patch_codes = at + packing.frame_bytes(count);
    let patch_rows = patch_codes + patches * 8;
    let (codes, _) = buffer[patch_codes..patch_rows].as_chunks::<8>();
    let (mut patched, _) = buffer[patch_rows..].as_chunks::<2>();
    let row_of = |patch: &[u8; 2]| u32::from(u16::from_le_bytes(*patch));
    for (place, row) in out.iter_mut().zip(rows) {
        // Both ascend. Doubling the distance finds the next one soon, whether it is near or far.
        let mut far = 1;
        while far < patched.len() && row_of(&patched[far]) < *row {
            far *= 2;
        }
        let near = &patched[..patched.len().min(far + 1)];
        patched = &patched[near.partition_point(|patch| row_of(patch) < *row)..];
        if let Some(patch) = patched.first()
            && row_of(patch) == *row
        {
            let code = &codes[codes.len() - patched.len()];
            *place = T::narrow(u64::from_le_bytes(*code));
        }
    }
    if packing.framed {
        let (bases, _) = buffer[at..patch_codes].as_chunks::<8>();
        for (code, row) in out.iter_mut().zip(rows) {
            *code = code.plus(u64::from_le_bytes(bases[*row as usize / VECTOR]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::forms;
    use proptest::prelude::*;

    fn check(codes: &[u64], bytes_max: usize) {
        forms::both(|| check_form(codes));
        assert!(pack(codes).1.len() <= bytes_max, "{:?}", pack(codes).0);
    }

    fn check_form(codes: &[u64]) {
        for (packing, buffer) in [pack(codes), pack_plain(codes), pack_framed(codes)] {
            packing.check(8).expect("a packing that was made");
            assert_eq!(buffer.len(), packing.stored_bytes(codes.len()), "{packing:?}");
            let unpacked = unpack(&packing, &buffer, codes.len());
            let found: Vec<u64> = (0..unpacked.len()).map(|row| unpacked.get(row)).collect();
            assert_eq!(found, codes, "{packing:?}");
            assert_eq!(unpacked.width(), usize::from(packing.bytes));
            for step in [1, 3, 700] {
                let rows: Vec<u32> = (0..codes.len() as u32).skip(step / 2).step_by(step).collect();
                let some = unpack_at(&packing, &buffer, codes.len(), &rows);
                let found: Vec<u64> = (0..some.len()).map(|place| some.get(place)).collect();
                let expect: Vec<u64> = rows.iter().map(|row| codes[*row as usize]).collect();
                assert_eq!((found, some.width()), (expect, unpacked.width()), "{packing:?} every {step}");
            }
        }
    }

    #[test]
    fn every_width_comes_back() {
        for bits in 1..=64_u32 {
            let mask = u64::MAX >> (64 - bits);
            let codes: Vec<u64> =
                (0..2_500_u64).map(|row| row.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask).collect();
            check(&codes, codes.len() * 8);
        }
        check(&[], 0);
        check(&[u64::MAX], 8);
        check(&[0; 3], 3);
    }

    #[test]
    fn codes_take_what_they_need() {
        let spread = |row: u64| row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        check(&(0..65_536).map(|row| spread(row) % 8).collect::<Vec<_>>(), 65_536 * 3 / 8);
        // Few large ones are set aside.
        let codes: Vec<u64> =
            (0..65_536).map(|row| if row % 1_000 == 7 { 1 << 40 } else { spread(row) % 1_000 }).collect();
        check(&codes, 65_536 * 10 / 8 + 66 * 10);
        // A ramp needs the bits of its jitter.
        let codes: Vec<u64> = (0..65_536).map(|row| row * 9 + spread(row) % 3_000).collect();
        check(&codes, 65_536 * 14 / 8 + 64 * 8);
    }

    proptest! {
        #[test]
        fn any_codes_come_back(
            bits in 0_u32..64,
            patches in proptest::collection::vec((0_usize..3_000, any::<u64>()), 0..5),
            slope in 0_u64..50_000,
            count in 0_usize..3_000,
        ) {
            let mut codes: Vec<u64> = (0..count as u64)
                .map(|row| ((row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1) >> bits).saturating_add(row * slope))
                .collect();
            for (row, code) in patches {
                if let Some(place) = codes.get_mut(row) {
                    *place = code;
                }
            }
            check(&codes, count * 8);
        }
    }
}
