//! How long the oldest line waits that is not acknowledged: when each file reached which length, until that is done.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::agent::book::Book;

/// Lengths that are remembered of a file; beyond them every second one is forgotten.
const LENGTHS_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    /// Of each stream: when it was first seen to reach beyond what it reached before.
    lengths: BTreeMap<u64, VecDeque<(Duration, u64)>>,
}

impl Lag {
    /// A stream reaches so far now; less than before when a half-written line turned out to be one.
    pub(crate) fn grown(&mut self, stream: u64, size: u64, now: Duration) {
        let lengths = self.lengths.entry(stream).or_default();
        while lengths.back().is_some_and(|(_, known)| *known >= size) {
            lengths.pop_back();
        }
        lengths.push_back((now, size));
        if lengths.len() > LENGTHS_MAX {
            let mut number = 0;
            lengths.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
    }

    /// Nothing is waited for there any more.
    pub(crate) fn forget(&mut self, stream: u64) {
        self.lengths.remove(&stream);
    }

    /// The longest wait of all streams.
    pub(crate) fn of(&self, book: &Book, now: Duration) -> Duration {
        let waits = self.lengths.iter().filter_map(|(stream, lengths)| {
            let done = book.streams().get(stream)?.done_to();
            let (since, _) = lengths.iter().find(|(_, size)| *size > done)?;
            Some(now.saturating_sub(*since))
        });
        waits.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::book::tests::IDENTITY;

    #[test]
    fn the_oldest_line_that_waits_counts() {
        let second = Duration::from_secs;
        let (mut lag, mut book) = (Lag::default(), Book::new("t", "p".to_owned()));
        assert_eq!(lag.of(&book, second(9)), second(0));
        book.open(1, "a".to_owned(), IDENTITY, 0);
        lag.grown(1, 10, second(1));
        lag.grown(1, 20, second(3));
        assert_eq!(lag.of(&book, second(5)), second(4));
        book.open(1, "a".to_owned(), IDENTITY, 10);
        assert_eq!(lag.of(&book, second(5)), second(2));
        // The last ten bytes are a half-written line.
        lag.grown(1, 10, second(6));
        assert_eq!(lag.of(&book, second(7)), second(0));
        for more in 1..1000 {
            lag.grown(1, 10 + more, second(more));
        }
        assert!(lag.lengths[&1].len() <= LENGTHS_MAX);
        lag.forget(1);
        assert_eq!(lag.of(&book, second(2000)), second(0));
    }
}
