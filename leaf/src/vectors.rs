//! Loops over rows that are compiled twice: for every processor, and for those with vectors of 256 bits.
//!
//! The binary runs on every processor of its architecture, so the compiler may use no more than all of them have; on
//! x86-64 those are vectors of 128 bits without many comparisons and shifts. What runs in [`vectorized`] is also there in a
//! form for AVX2, BMI and POPCNT, which is taken where the processor has them. Both are the same Rust, and do
//! the same: no operation on floats is fused or put in another order.

use arrow::buffer::BooleanBuffer;
#[cfg(target_arch = "x86_64")]
use fearless_simd::{Avx2, Level};
use wide::u8x16;

/// Says that this processor has AVX2 and what comes with it.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn avx2() -> Option<Avx2> {
    #[cfg(test)]
    if forms::IS_PLAIN.get() {
        return None;
    }
    Level::new().as_avx2()
}

/// Runs `work` in the best form for this processor. What `work` calls is only in that form where it is inlined, so loops
/// belong into it, or into functions with `#[inline(always)]`, and so does the closure. It is called from a function of its
/// own: numbers that it takes by reference are read again for each row, so it should `move` them in.
#[inline(always)]
pub(crate) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = avx2() {
        use fearless_simd::Simd;
        return avx2.vectorize(work);
    }
    work()
}

/// One bit a value.
pub(crate) fn pack_bits<T: Copy>(values: &[T], test: impl Fn(T) -> bool) -> BooleanBuffer {
    let words: Vec<u64> = pack_words(values, test).into_iter().map(u64::to_le).collect();
    BooleanBuffer::new(words.into(), 0, values.len())
}

/// One bit a value, sixty-four at a time. Each test becomes a byte, which the compiler does many at once; then the bits of
/// the bytes are moved next to each other.
pub(crate) fn pack_words<T: Copy>(values: &[T], test: impl Fn(T) -> bool) -> Vec<u64> {
    vectorized(
        #[inline(always)]
        move || pack_all_words(values, test),
    )
}

#[inline(always)]
fn pack_all_words<T: Copy>(values: &[T], test: impl Fn(T) -> bool) -> Vec<u64> {
    let mut words: Vec<u64> = Vec::with_capacity(values.len().div_ceil(64));
    let (chunks, rest) = values.as_chunks::<64>();
    for chunk in chunks {
        let mut flags = [0u8; 64];
        for (flag, value) in flags.iter_mut().zip(chunk) {
            *flag = if test(*value) { u8::MAX } else { 0 };
        }
        words.push(high_bits(&flags));
    }
    if !rest.is_empty() {
        words.push(
            rest.iter().enumerate().fold(0, |word, (bit, value)| word | u64::from(test(*value)) << bit),
        );
    }
    words
}

/// The highest bits of bytes.
#[inline(always)]
fn high_bits(flags: &[u8; 64]) -> u64 {
    let (sixteens, _) = flags.as_chunks::<16>();
    let bits = |sixteen: &[u8; 16]| u64::from(u8x16::new(*sixteen).to_bitmask());
    sixteens.iter().enumerate().fold(0, |word, (index, sixteen)| word | bits(sixteen) << (index * 16))
}

#[cfg(test)]
pub(crate) mod forms {
    use std::cell::Cell;

    thread_local! {
        pub(super) static IS_PLAIN: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs a test in the form for this processor and in the one for every processor.
    pub(crate) fn both(test: impl Fn()) {
        test();
        IS_PLAIN.set(true);
        test();
        IS_PLAIN.set(false);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_plain_form_can_be_had() {
        both(|| {
            let expect = if IS_PLAIN.get() { None } else { super::Level::new().as_avx2().map(|_| ()) };
            assert_eq!(super::avx2().map(|_| ()), expect);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_the_test() {
        forms::both(bits_are_those);
    }

    fn bits_are_those() {
        for len in [0_usize, 1, 63, 64, 65, 200] {
            let values: Vec<u32> = (0..len as u32).map(|row| row.wrapping_mul(2_654_435_761) >> 7).collect();
            let bits = pack_bits(&values, |value| value % 3 == 0);
            let expect: Vec<bool> = values.iter().map(|value| value % 3 == 0).collect();
            assert_eq!(bits.iter().collect::<Vec<bool>>(), expect, "{len}");
        }
    }
}
