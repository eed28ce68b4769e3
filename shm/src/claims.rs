//! Which ranges of a mapping are in use, and which are gone: plain bookkeeping, no memory is touched here.
//!
//! The soundness of `map` rests on these invariants: ranges in use never overlap one another; a range that
//! was released is never handed out again.

use std::collections::BTreeMap;
use std::ops::Range;

/// Why a range cannot be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conflict {
    InUse,
    Released,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InUse,
    Released,
}

/// The ranges of one mapping.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Disjoint ranges by their start: end and state.
    spans: BTreeMap<usize, (usize, State)>,
    in_use_count: usize,
    /// Ranges whose regions were dropped without being expired: their bytes may still be wanted.
    kept: Vec<Range<usize>>,
    unlink_when_empty: bool,
}

impl Claims {
    /// Whether `range`, which must not be empty, could be claimed now.
    pub(crate) fn check(&self, range: &Range<usize>) -> Result<(), Conflict> {
        debug_assert!(range.start < range.end);
        // Spans are disjoint, so the last one that starts before our end is the only one to look at.
        if let Some((_, (end, state))) = self.spans.range(..range.end).next_back()
            && *end > range.start
        {
            return Err(match state {
                State::InUse => Conflict::InUse,
                State::Released => Conflict::Released,
            });
        }
        Ok(())
    }

    /// Marks `range`, which must not be empty, as in use.
    pub(crate) fn claim(&mut self, range: &Range<usize>) -> Result<(), Conflict> {
        self.check(range)?;
        self.spans.insert(range.start, (range.end, State::InUse));
        self.in_use_count += 1;
        self.forget_kept_inside(range);
        Ok(())
    }

    /// Nobody reads `range` any more, but its bytes stay and can be claimed again.
    pub(crate) fn keep(&mut self, range: &Range<usize>) {
        if self.spans.remove(&range.start).is_some() {
            self.in_use_count -= 1;
            self.forget_kept_inside(range);
            self.kept.push(range.clone());
        }
    }

    /// Nobody reads `range` any more and nobody ever will. True when the segment's name should go as well.
    pub(crate) fn release(&mut self, range: &Range<usize>) -> bool {
        if let Some(span) = self.spans.get_mut(&range.start) {
            span.1 = State::Released;
            self.in_use_count -= 1;
        }
        self.should_unlink()
    }

    /// From now on the name goes with the last range. True when that was already so.
    pub(crate) fn unlink_when_empty(&mut self) -> bool {
        self.unlink_when_empty = true;
        self.should_unlink()
    }

    fn should_unlink(&self) -> bool {
        self.unlink_when_empty && self.in_use_count == 0 && self.kept.is_empty() && !self.spans.is_empty()
    }

    fn forget_kept_inside(&mut self, range: &Range<usize>) {
        self.kept.retain(|kept| kept.start < range.start || kept.end > range.end);
    }
}

/// The whole pages inside `range`, which may be none. The last page of the segment counts as whole.
pub(crate) fn whole_pages(range: &Range<usize>, segment_bytes: usize, page_bytes: usize) -> Range<usize> {
    let start = range.start.next_multiple_of(page_bytes);
    let end = if range.end == segment_bytes {
        range.end.next_multiple_of(page_bytes)
    } else {
        range.end - range.end % page_bytes
    };
    start..end.max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claimed_ranges_never_overlap() {
        let mut claims = Claims::default();
        claims.claim(&(10..20)).unwrap();
        claims.claim(&(30..40)).unwrap();
        let mut check = |range: Range<usize>, conflict: Option<Conflict>| {
            assert_eq!(claims.claim(&range).err(), conflict, "{range:?}");
            if conflict.is_none() {
                claims.keep(&range);
            }
        };
        check(0..10, None);
        check(20..30, None);
        check(40..50, None);
        check(0..11, Some(Conflict::InUse));
        check(19..20, Some(Conflict::InUse));
        check(12..15, Some(Conflict::InUse));
        check(10..20, Some(Conflict::InUse));
        check(0..100, Some(Conflict::InUse));
        check(15..35, Some(Conflict::InUse));
        check(39..41, Some(Conflict::InUse));
        claims.keep(&(10..20));
        claims.release(&(30..40));
        claims.claim(&(5..15)).unwrap();
        assert_eq!(claims.claim(&(30..40)), Err(Conflict::Released));
        assert_eq!(claims.claim(&(16..31)), Err(Conflict::Released));
        claims.claim(&(15..30)).unwrap();
    }

    #[test]
    fn the_name_goes_with_the_last_range_and_not_before() {
        let mut claims = Claims::default();
        assert!(!claims.unlink_when_empty(), "nothing was handed out yet");
        claims.claim(&(0..10)).unwrap();
        claims.claim(&(10..20)).unwrap();
        assert!(!claims.release(&(0..10)));
        assert!(claims.release(&(10..20)));

        // Asked for late.
        let mut claims = Claims::default();
        claims.claim(&(0..10)).unwrap();
        assert!(!claims.release(&(0..10)));
        assert!(claims.unlink_when_empty());

        // A range that was dropped without being expired holds the name until it is claimed and expired.
        let mut claims = Claims::default();
        claims.unlink_when_empty();
        claims.claim(&(0..10)).unwrap();
        claims.claim(&(10..20)).unwrap();
        claims.keep(&(0..10));
        assert!(!claims.release(&(10..20)));
        claims.claim(&(0..5)).unwrap();
        assert!(!claims.release(&(0..5)), "half of the kept range is still there");
        claims.claim(&(5..10)).unwrap();
        assert!(!claims.release(&(5..10)), "kept ranges are only given up whole");
    }

    #[test]
    fn only_whole_pages_are_given_back() {
        let check = |range: Range<usize>, pages: Range<usize>| {
            assert_eq!(whole_pages(&range, 1000, 100), pages, "{range:?}");
        };
        check(0..100, 0..100);
        check(1..100, 100..100);
        check(0..99, 0..0);
        check(50..350, 100..300);
        check(50..90, 100..100);
        assert_eq!(whole_pages(&(900..950), 950, 100), 900..1000);
        assert_eq!(whole_pages(&(901..950), 950, 100), 1000..1000);
    }
}
