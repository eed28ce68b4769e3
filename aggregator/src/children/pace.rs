//! How long a child takes to answer, compared with its siblings: whoever takes longest is asked first.
//!
//! Asking a thousand children takes time as well, and an answer waits for the last of them. When the slow ones are asked
//! first, what it takes to ask the others passes while they work: the rule of the longest processing time first (Graham
//! 1969). All children of a fan-out are asked the same, so it does not matter what was asked when they are compared.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A running mean over about so many answers.
const ANSWERS: u64 = 4;

/// See the module. Microseconds; 0 until the first answer.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU64);

impl Pace {
    /// It took so long once more.
    pub(super) fn took(&self, time: Duration) {
        let took = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let mean = match self.0.load(Ordering::Relaxed) {
            0 => took,
            mean => mean - mean / ANSWERS + took / ANSWERS,
        };
        // Answers that come at the same moment may overwrite each other: it is a mean of some of them then.
        self.0.store(mean, Ordering::Relaxed);
    }

    /// How long it takes, about.
    pub(super) fn mean(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_a_child_takes() {
        let (pace, ms) = (Pace::default(), Duration::from_millis);
        assert_eq!(pace.mean(), Duration::ZERO);
        pace.took(ms(80));
        assert_eq!(pace.mean(), ms(80));
        // One answer of another kind says little, many do.
        pace.took(ms(40));
        assert_eq!(pace.mean(), ms(70));
        (0..40).for_each(|_| pace.took(ms(40)));
        assert!((ms(39)..=ms(41)).contains(&pace.mean()), "{:?}", pace.mean());
        pace.took(Duration::MAX);
        pace.took(Duration::MAX);
        (0..400).for_each(|_| pace.took(ms(3)));
        assert!(pace.mean() <= ms(4), "{:?}", pace.mean());
        pace.took(Duration::ZERO);
    }
}
