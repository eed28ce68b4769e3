//! Loops over rows that are compiled twice: for every processor, and for those with vectors of 256 bits.
//!
//! The binary runs on every processor of its architecture, so the compiler may use no more than all of them have; on
//! x86-64 those are vectors of 128 bits without many comparisons and shifts. What runs in [`vectorized`] is also there in a
//! form for AVX2, BMI and POPCNT, which is taken where the processor has them. Both are the same Rust, and do
//! the same: no operation on floats is fused or put in another order.

#[cfg(target_arch = "x86_64")]
use fearless_simd::{Avx2, Level};

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
