//! Room for the answers of one question that wait to be merged.
//!
//! An answer counts only when all of it is there, so answers wait in memory. Beyond the limit children are not listened
//! to until others are merged; one of them at a time may go on all the same, or several halves would wait for each other
//! for ever. Whoever goes on and has nothing to say gives the turn away.
//!
//! Invariant: what waits is at most the limit and one answer more.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which bytes are counted.
const UNIT_BYTES: u64 = 1024;

/// See the module.
#[derive(Debug, Clone)]
pub struct Room {
    units: Arc<Semaphore>,
    /// The turn to go beyond the limit.
    beyond: Arc<Semaphore>,
}

/// What one answer takes of a room, for as long as it is kept.
#[derive(Debug, Default)]
pub struct Held {
    units: Option<OwnedSemaphorePermit>,
    beyond: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Of so many bytes.
    pub fn new(bytes: u64) -> Room {
        let units =
            usize::try_from(bytes / UNIT_BYTES).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Room { units: Arc::new(Semaphore::new(units)), beyond: Arc::new(Semaphore::new(1)) }
    }

    /// Waits until there is room for so many bytes more, or the turn to do without.
    pub async fn take(&self, held: &mut Held, bytes: usize) {
        if bytes == 0 || held.beyond.is_some() {
            return;
        }
        let units = u32::try_from((bytes as u64).div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            units = Arc::clone(&self.units).acquire_many_owned(units) => held.add(units.ok()),
            turn = Arc::clone(&self.beyond).acquire_owned() => held.beyond = turn.ok(),
        }
    }
}

impl Held {
    fn add(&mut self, more: Option<OwnedSemaphorePermit>) {
        match (&mut self.units, more) {
            (Some(units), Some(more)) => units.merge(more),
            (units @ None, more) => *units = more,
            (Some(_), None) => {}
        }
    }

    /// It has the turn to go beyond the limit.
    pub fn is_beyond(&self) -> bool {
        self.beyond.is_some()
    }

    /// Lets somebody else go beyond the limit.
    pub fn give_turn_away(&mut self) {
        self.beyond = None;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn taken(room: &Room, held: &mut Held, kib: usize) -> bool {
        room.take(held, kib << 10).now_or_never().is_some()
    }

    #[test]
    fn one_at_a_time_goes_beyond_the_limit() {
        let room = Room::new(10 << 10);
        let (mut a, mut b, mut c) = (Held::default(), Held::default(), Held::default());
        assert!(taken(&room, &mut a, 6));
        assert!(taken(&room, &mut b, 4));
        assert!(!b.is_beyond());
        // The room is full: b goes on, c and a wait.
        assert!(taken(&room, &mut b, 1));
        assert!(b.is_beyond());
        assert!(taken(&room, &mut b, 1000));
        assert!(!taken(&room, &mut c, 1));
        assert!(!taken(&room, &mut a, 1));
        // b says nothing for a while; c may go on.
        b.give_turn_away();
        assert!(taken(&room, &mut c, 1));
        assert!(c.is_beyond());
        // a is merged, and there is room again.
        drop(a);
        assert!(taken(&room, &mut b, 6));
        assert!(!b.is_beyond());
        // A message larger than all the room takes the turn.
        drop((b, c));
        let mut large = Held::default();
        assert!(taken(&room, &mut large, 11));
        assert!(large.is_beyond());
    }
}
