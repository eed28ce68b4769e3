//! A stop as it was seen from outside: states over time, what came into shared memory, and what memory it took.

use gannet_query::Holdings;

use super::copy::Speed;
use super::memory::Sample;
use super::report::{NamedSeconds, PhaseText, Stop};

/// Less than this is the list of what is there, not rows that moved.
const MOVED_BYTES_MIN: u64 = 1 << 20;
/// Points of a report's curves.
const POINTS: usize = 120;

/// Some of many, evenly, with the first and the last.
pub(super) fn thinned<T: Copy>(all: &[T]) -> Vec<T> {
    let step = all.len().div_ceil(POINTS).max(1);
    let mut some: Vec<T> = all.iter().copied().step_by(step).collect();
    if all.len() > 1 && !(all.len() - 1).is_multiple_of(step) {
        some.extend(all.last());
    }
    some
}

/// What came into shared memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moved {
    /// Bytes that the segments grew by.
    pub(super) bytes: u64,
    /// How long the leaf says that it took.
    pub(super) seconds: Option<f64>,
    /// Threads that copied.
    pub(super) threads: usize,
}

/// What became of a stop: how long it took, what the leaf said meanwhile, what moved, and the samples of its memory with
/// the moment of the signal among them.
pub(super) fn stop_of(
    seconds: f64,
    looks: &[(f64, Holdings)],
    moved: Moved,
    (asked, samples): (f64, &[Sample]),
) -> Stop {
    let mut states: Vec<NamedSeconds> = Vec::new();
    // A state lasts from the first look that sees it to the first that sees another.
    let mut since = 0.0;
    for (at, said) in looks {
        let name = said.state.name();
        if states.last().is_none_or(|last| last.name != name) {
            if let Some(last) = states.last_mut() {
                last.seconds = at - since;
                since = *at;
            }
            states.push(NamedSeconds { name: name.to_owned(), seconds: 0.0 });
        }
    }
    if let Some(last) = states.last_mut() {
        last.seconds = seconds - since;
    }
    let phases: Vec<PhaseText> =
        looks.last().map_or_else(Vec::new, |(_, said)| said.phases.iter().cloned().map(Into::into).collect());
    let took = moved.seconds.unwrap_or(seconds);
    let hand_over = (moved.bytes >= MOVED_BYTES_MIN).then(|| Speed::of(moved.bytes, took, moved.threads));
    // What was there at the signal is the first of what was there since: a stop may be over before the next sample.
    let asked_at = samples.iter().rposition(|sample| sample.seconds < asked);
    let during = &samples[asked_at.unwrap_or(0)..];
    let span = samples.last().map_or(0.0, |last| last.seconds);
    Stop {
        seconds,
        states,
        phases,
        moved_bytes: moved.bytes,
        hand_over,
        share_of_copy: None,
        memory_before_bytes: asked_at.map_or(0, |place| samples[place].bytes()),
        memory_peak_bytes: during.iter().map(Sample::bytes).max().unwrap_or(0),
        samples_per_second: if span > 0.0 { samples.len() as f64 / span } else { 0.0 },
        memory: thinned(during),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_keep_their_ends() {
        assert_eq!(thinned::<u8>(&[]), Vec::<u8>::new());
        let all: Vec<usize> = (0..1000).collect();
        let some = thinned(&all);
        assert!(some.len() <= POINTS + 1 && some[0] == 0 && some[some.len() - 1] == 999, "{}", some.len());
    }

    #[test]
    fn a_stop_is_told_from_what_was_seen() {
        let at = |seconds, heap_bytes, shm_bytes| Sample { seconds, heap_bytes, shm_bytes };
        let samples = [at(0.0, 90, 10), at(0.1, 100, 10), at(0.3, 70, 50), at(0.5, 0, 110)];
        let moved = |bytes, seconds| Moved { bytes, seconds, threads: 2 };
        let stop = stop_of(0.4, &[], moved(2 << 20, Some(0.1)), (0.2, &samples));
        assert_eq!((stop.memory_before_bytes, stop.memory_peak_bytes), (110, 120));
        assert_eq!(stop.hand_over, Some(Speed::of(2 << 20, 0.1, 2)));
        // Over before anybody looked again.
        let short = stop_of(0.01, &[], moved(4096, None), (0.6, &samples));
        assert_eq!((short.memory_before_bytes, short.memory_peak_bytes, short.memory.len()), (110, 110, 1));
        let unknown = stop_of(0.4, &[], moved(2 << 20, None), (0.2, &samples));
        assert_eq!(unknown.hand_over, Some(Speed::of(2 << 20, 0.4, 2)));
        assert_eq!(stop_of(0.4, &[], moved(4096, Some(0.1)), (0.2, &samples)).hand_over, None);
    }
}
