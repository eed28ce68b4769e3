//! Loops over rows that are compiled twice: for every processor, and for those with vectors of 256 bits.
//!
//! The binary runs on every processor of its architecture, so the compiler may use no more than all of them have; on
//! x86-64 those are vectors of 128 bits without many comparisons and shifts. What runs in [`vectorized`] is also there in a
//! form for AVX2, BMI and POPCNT, which is taken where the processor has them. Both are the same Rust, and do
//! the same: no operation on floats is fused or put in another order.

/// Runs `work` in the best form for this processor. What `work` calls is only in that form where it is inlined, so loops
/// belong into it, or into functions with `#[inline(always)]`, and so does the closure. It is called from a function of its
/// own: numbers that it takes by reference are read again for each row, so it should `move` them in.
#[inline(always)]
pub(crate) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = fearless_simd::Level::new().as_avx2() {
        use fearless_simd::Simd;
        return avx2.vectorize(work);
    }
    work()
}
