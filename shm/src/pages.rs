//! Memory of a process's own that is a mapping by itself: it comes from the system in whole pages and goes back to the
//! system the moment its last view is gone.
//!
//! Large things that live long and leave one by one, as row blocks do, would leave holes in a heap that nothing of their
//! size fills. Nothing here is shared or has a name.

use std::io;

use bytes::Bytes;
use memmap2::MmapMut;

/// Pages that are being filled.
#[derive(Debug)]
pub struct Pages(MmapMut);

impl Pages {
    /// This many zero bytes, beginning at a page.
    ///
    /// # Errors
    /// When the system has no memory for them.
    pub fn zeroed(len: usize) -> io::Result<Pages> {
        MmapMut::map_anon(len).map(Pages)
    }

    /// The bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// The bytes as they are now, for good.
    ///
    /// # Errors
    /// When the system refuses to take the right to write away.
    pub fn freeze(self) -> io::Result<Bytes> {
        Ok(Bytes::from_owner(self.0.make_read_only()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_and_begins_at_a_page() {
        let mut pages = Pages::zeroed(5_000).expect("memory");
        assert!(pages.as_mut_slice().iter().all(|byte| *byte == 0));
        pages.as_mut_slice()[4_999] = 7;
        let bytes = pages.freeze().expect("read-only");
        assert_eq!((bytes.len(), bytes[4_999], bytes.as_ptr() as usize % 4_096), (5_000, 7, 0));
        let view = bytes.slice(4_990..);
        drop(bytes);
        assert_eq!(view[9], 7);
        assert!(Pages::zeroed(0).is_ok_and(|pages| pages.freeze().is_ok_and(|bytes| bytes.is_empty())));
    }
}
