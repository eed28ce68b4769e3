//! How long to wait before a request is sent again.

use std::time::Duration;

/// Growing waits with full jitter: each is drawn from nothing up to a limit that doubles, so that clients which were
/// refused together do not come back together. What the server asks for is kept, up to the longest wait, and jitter comes
/// on top of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Backoff {
    limit: Duration,
}

impl Backoff {
    /// The limit of the first wait.
    pub const FIRST: Duration = Duration::from_millis(100);
    /// The limit of all waits, and the longest that is granted to a server.
    pub const MAX: Duration = Duration::from_secs(30);

    /// Before the first wait.
    pub fn new() -> Backoff {
        Backoff { limit: Backoff::FIRST }
    }

    /// The next wait. `asked` is what the server asked for, `share` is drawn from 0 to 1.
    pub fn next(&mut self, asked: Option<Duration>, share: f64) -> Duration {
        let jitter = self.limit.mul_f64(share.clamp(0.0, 1.0));
        self.limit = (self.limit * 2).min(Backoff::MAX);
        asked.map_or(Duration::ZERO, |asked| asked.min(Backoff::MAX)) + jitter
    }
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end_growing() {
        let mut backoff = Backoff::new();
        let waits: Vec<u128> = (0..11).map(|_| backoff.next(None, 1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(backoff.next(None, 0.0), Duration::ZERO);
        assert_eq!(backoff.next(None, 0.5), Duration::from_secs(15));
    }

    #[test]
    fn what_the_server_asks_for_is_kept() {
        let mut backoff = Backoff::new();
        let asked = Some(Duration::from_secs(2));
        assert_eq!(backoff.next(asked, 0.0), Duration::from_secs(2));
        assert_eq!(backoff.next(asked, 1.0), Duration::from_millis(2200));
        // But not for ever.
        assert_eq!(backoff.next(Some(Duration::from_secs(3600)), 0.0), Backoff::MAX);
    }
}
