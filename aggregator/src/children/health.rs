//! Whether a child can be expected to answer: a breaker, as a plain state machine.
//!
//! A child counts as down when its connection fails, and when it has been silent for so long although it was asked
//! something: a process that was stopped keeps its connections. From then on it costs no query any waiting. Anything it
//! says ends the silence; only a description that it gives makes it count as up again, so that what it came back with
//! is known before it is asked.
//!
//! It knows no clock: every time is an argument.

use std::time::Duration;
use tokio::time::Instant;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Why it counts as down.
    down: Option<String>,
    /// Since when it has been asked something and said nothing.
    silent_since: Option<Instant>,
}

impl Health {
    /// Why it counts as down, if it does.
    pub(super) fn down(&self) -> Option<&str> {
        self.down.as_deref()
    }

    /// It is being asked.
    pub(super) fn asked(&mut self, now: Instant) {
        self.silent_since.get_or_insert(now);
    }

    /// It said something.
    pub(super) fn heard(&mut self) {
        self.silent_since = None;
    }

    /// It described itself. Gives back why it counted as down, if it did.
    pub(super) fn described(&mut self) -> Option<String> {
        self.heard();
        self.down.take()
    }

    /// It cannot be connected to, or the connection was lost. True when it counted as up until now.
    pub(super) fn failed(&mut self, why: &str) -> bool {
        let news = self.down.is_none();
        self.down.get_or_insert_with(|| why.to_owned());
        news
    }

    /// Somebody waited for it in vain. True when it counts as down from now on, because it has been silent for longer
    /// than it may.
    pub(super) fn waited(&mut self, now: Instant, silence_max: Duration) -> bool {
        let silent = self.silent_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        silent >= silence_max && self.failed(&format!("it has said nothing for {} ms", silent.as_millis()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(1000);

    fn at(begun: Instant, ms: u64) -> Instant {
        begun + Duration::from_millis(ms)
    }

    #[test]
    fn silence_counts_from_the_first_question_without_a_word() {
        let (mut health, begun) = (Health::default(), Instant::now());
        // Nobody asked: it may be silent.
        assert!(!health.waited(at(begun, 5000), MAX));
        health.asked(at(begun, 5000));
        health.asked(at(begun, 5900));
        assert!(!health.waited(at(begun, 5999), MAX));
        assert_eq!(health.down(), None);
        assert!(health.waited(at(begun, 6000), MAX));
        assert_eq!(health.down(), Some("it has said nothing for 1000 ms"));
        // Known already.
        assert!(!health.waited(at(begun, 7000), MAX));
        assert_eq!(health.down(), Some("it has said nothing for 1000 ms"));
    }

    #[test]
    fn a_word_ends_the_silence_and_a_description_makes_it_count_as_up() {
        let (mut health, begun) = (Health::default(), Instant::now());
        health.asked(begun);
        health.heard();
        // A long scan says nothing by itself, but the child did.
        assert!(!health.waited(at(begun, 9000), MAX));
        health.asked(at(begun, 9000));
        assert!(health.waited(at(begun, 10_000), MAX));
        health.heard();
        assert!(health.down().is_some());
        assert_eq!(health.described().as_deref(), Some("it has said nothing for 1000 ms"));
        assert_eq!(health.down(), None);
        assert_eq!(health.described(), None);
    }

    #[test]
    fn a_failed_connection_counts_at_once_and_its_first_reason_stays() {
        let mut health = Health::default();
        assert!(health.failed("refused"));
        assert!(!health.failed("reset"));
        assert_eq!(health.down(), Some("refused"));
        assert_eq!(health.described().as_deref(), Some("refused"));
    }
}
