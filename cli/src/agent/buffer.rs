//! How many bytes the agent holds, and no more.
//!
//! Whoever reads takes room first, and room comes back when what it stood for is dropped, wherever that is. Every batch
//! takes a least share, so that the number of batches is bounded as well.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// No more batches than this are held at a time.
pub(crate) const BATCHES_MAX: u64 = 512;

/// A number of bytes that may be held. See the module.
#[derive(Debug)]
pub(crate) struct Buffer {
    limit: u64,
    used: Mutex<u64>,
    freed: Condvar,
}

/// Bytes of the buffer; they come back when this is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    buffer: Arc<Buffer>,
    bytes: u64,
}

impl Buffer {
    /// A buffer of so many bytes.
    pub(crate) fn new(limit: u64) -> Arc<Buffer> {
        Arc::new(Buffer { limit: limit.max(1), used: Mutex::new(0), freed: Condvar::new() })
    }

    /// The limit.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that are taken.
    pub(crate) fn used(&self) -> u64 {
        *self.lock()
    }

    /// Takes room, if it is there. What is larger than everything fits into an empty buffer.
    pub(crate) fn take(self: &Arc<Buffer>, bytes: u64) -> Option<Room> {
        let bytes = bytes.max(self.limit / BATCHES_MAX);
        let mut used = self.lock();
        if *used > 0 && *used + bytes > self.limit {
            return None;
        }
        *used += bytes;
        Some(Room { buffer: Arc::clone(self), bytes })
    }

    /// Takes room that stands for bytes which are there already.
    pub(crate) fn take_for_sure(self: &Arc<Buffer>, bytes: u64) -> Room {
        *self.lock() += bytes;
        Room { buffer: Arc::clone(self), bytes }
    }

    /// Waits until something comes back, at most so long.
    pub(crate) fn wait(&self, at_most: Duration) {
        let used = self.lock();
        let _ = self.freed.wait_timeout(used, at_most).unwrap_or_else(PoisonError::into_inner);
    }

    /// Wakes whoever waits.
    pub(crate) fn wake(&self) {
        self.freed.notify_all();
    }

    /// A count is a count, whoever panicked while holding the lock.
    fn lock(&self) -> MutexGuard<'_, u64> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// How many bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// More room in the same buffer, of no size yet.
    pub(crate) fn beside(&self) -> Room {
        Room { buffer: Arc::clone(&self.buffer), bytes: 0 }
    }

    /// Takes as much more as is needed to stand for so many bytes, or gives back what is too much.
    pub(crate) fn resize(&mut self, bytes: u64) {
        let bytes = bytes.max(self.buffer.limit / BATCHES_MAX);
        let mut used = self.buffer.lock();
        *used = *used - self.bytes + bytes;
        self.bytes = bytes;
        drop(used);
        self.buffer.wake();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *self.buffer.lock() -= self.bytes;
        self.buffer.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_comes_back() {
        let buffer = Buffer::new(1000);
        let first = buffer.take(600).unwrap();
        assert!(buffer.take(500).is_none());
        let mut second = buffer.take(400).unwrap();
        assert_eq!((buffer.used(), first.bytes()), (1000, 600));
        second.resize(100);
        assert_eq!(buffer.used(), 700);
        drop(first);
        assert_eq!(buffer.used(), 100);
        drop(second);
        // What is larger than everything goes alone.
        let all = buffer.take(5000).unwrap();
        assert!(buffer.take(1).is_none());
        drop(all);
        assert_eq!(buffer.used(), 0);
    }

    #[test]
    fn the_number_of_batches_is_bounded() {
        let buffer = Buffer::new(BATCHES_MAX * 100);
        let rooms: Vec<Room> = std::iter::from_fn(|| buffer.take(1)).collect();
        assert_eq!(rooms.len() as u64, BATCHES_MAX);
    }
}
