//! The byte order mark some programs put before text.

pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Takes the mark off the very first bytes, also of a body that arrives in crumbs.
pub(super) struct MarkFilter {
    /// The bytes so far, as long as they may be the mark.
    held: Option<Vec<u8>>,
}

impl MarkFilter {
    pub(super) fn new() -> MarkFilter {
        MarkFilter { held: Some(Vec::new()) }
    }

    /// The bytes to read now: what was held and is no mark, then what follows.
    pub(super) fn strip<'b>(&mut self, bytes: &'b [u8]) -> (Vec<u8>, &'b [u8]) {
        let Some(mut held) = self.held.take() else { return (Vec::new(), bytes) };
        let mut rest = bytes;
        while let Some((first, tail)) = rest.split_first() {
            if BYTE_ORDER_MARK.get(held.len()) != Some(first) {
                break;
            }
            held.push(*first);
            rest = tail;
            if held == BYTE_ORDER_MARK {
                return (Vec::new(), rest);
            }
        }
        if rest.is_empty() {
            self.held = Some(held);
            return (Vec::new(), rest);
        }
        (held, rest)
    }

    /// The bytes still held: the body is over, and they were no mark.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        self.held.take().unwrap_or_default()
    }
}
