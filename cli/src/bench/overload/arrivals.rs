//! When requests arrive: fixed before the first is sent, whatever becomes of it.
//!
//! A load that waits for replies slows down with the server and hides what users would see. Here requests come at random
//! and independently of each other, so many a second on average, and a reply's time counts from when its request was to
//! arrive, not from when there was time to send it.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Moments of arrival since the beginning, in order, without end.
#[derive(Debug)]
pub(super) struct Arrivals {
    random: StdRng,
    per_second: f64,
    at_seconds: f64,
}

impl Arrivals {
    /// So many a second on average; the same for the same seed.
    pub(super) fn new(seed: u64, per_second: f64) -> Arrivals {
        Arrivals { random: StdRng::seed_from_u64(seed), per_second: per_second.max(1e-3), at_seconds: 0.0 }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // The pause between independent arrivals is exponential. One minus a number below 1 is not 0.
        let pause = -(1.0 - self.random.random::<f64>()).ln() / self.per_second;
        self.at_seconds += pause;
        Some(Duration::from_secs_f64(self.at_seconds.min(1e9)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_at_the_rate_asked_for_and_repeat() {
        let within = |seed, rate| Arrivals::new(seed, rate).take_while(|at| at.as_secs() < 100).count();
        for rate in [1.0, 50.0, 2_000.0] {
            let count = within(7, rate) as f64;
            // Four standard deviations of a Poisson count.
            let spread = 4.0 * (100.0 * rate).sqrt();
            assert!((count - 100.0 * rate).abs() < spread, "{count} at {rate}");
        }
        let some = |seed| Arrivals::new(seed, 10.0).take(50).collect::<Vec<_>>();
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
        assert!(some(1).is_sorted());
    }
}
