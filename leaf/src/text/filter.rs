//! A small filter of the values of one column of one run, so that a search for one value touches few runs.
//!
//! A split block Bloom filter (Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007; the form
//! with eight words is the one of Apache Parquet): a value's hash chooses one block of 32 bytes and one bit in each of
//! the block's eight words. With about eight bits for each value, around 2 % of the values that are not there seem to be.
//!
//! Bytes: blocks of eight 32-bit little-endian words, nothing else. Values are hashed with xxh3 and no seed, so filters
//! are the same on every machine.

use arrow::buffer::Buffer;
use xxhash_rust::xxh3::xxh3_64;

const BLOCK_BYTES: usize = 32;
const BITS_PER_VALUE: usize = 8;
/// Odd numbers that spread a hash over the words of a block, those of the Parquet format.
const SALTS: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

fn block_of(hash: u64, blocks: usize) -> usize {
    (((hash >> 32) * blocks as u64) >> 32) as usize
}

fn bits(hash: u64) -> [u32; 8] {
    SALTS.map(|salt| 1 << ((hash as u32).wrapping_mul(salt) >> 27))
}

/// A filter of `count` values.
pub fn build<'a>(values: impl Iterator<Item = &'a str>, count: usize) -> Buffer {
    let blocks = (count * BITS_PER_VALUE).div_ceil(BLOCK_BYTES * 8).max(1);
    let mut words = vec![0_u32; blocks * 8];
    for value in values {
        let hash = xxh3_64(value.as_bytes());
        let block = block_of(hash, blocks) * 8;
        for (word, bit) in words[block..block + 8].iter_mut().zip(bits(hash)) {
            *word |= bit;
        }
    }
    Buffer::from_vec(words)
}

/// False when the value is certainly not among those the filter was built of. Bytes that are no filter contain
/// everything.
pub fn may_contain(filter: &[u8], value: &str) -> bool {
    let blocks = filter.len() / BLOCK_BYTES;
    if blocks == 0 || !filter.len().is_multiple_of(BLOCK_BYTES) {
        return true;
    }
    let hash = xxh3_64(value.as_bytes());
    let block = block_of(hash, blocks) * BLOCK_BYTES;
    let (words, _) = filter[block..block + BLOCK_BYTES].as_chunks::<4>();
    words.iter().zip(bits(hash)).all(|(word, bit)| u32::from_le_bytes(*word) & bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_there_is_denied_and_little_else_is_admitted() {
        let values: Vec<String> =
            (0..20_000).map(|n: u64| format!("{:032x}", n.wrapping_mul(0x9e37_79b9))).collect();
        let filter = build(values.iter().map(String::as_str), values.len());
        assert!(filter.len() <= values.len() + 64);
        assert!(values.iter().all(|value| may_contain(&filter, value)));
        let admitted = (0..20_000).filter(|n| may_contain(&filter, &format!("other-{n}"))).count();
        assert!(admitted < 20_000 * 4 / 100, "{admitted} of 20000 that are not there");
        assert!(may_contain(&[], "anything") && may_contain(&filter[..31], "anything"));
    }
}
