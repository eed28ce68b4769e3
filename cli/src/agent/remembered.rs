//! A stream that is known and not followed: from before a start, or because its file has no name any more.

use std::sync::Arc;

use crate::agent::book::{Book, Key, Range};
use crate::agent::follower::Follower;
use crate::agent::identity::Identity;
use crate::agent::shape::Shaper;
use crate::agent::watch::Shapers;

/// See the module.
#[derive(Debug)]
pub(crate) struct Remembered {
    /// Its number.
    pub(crate) stream: u64,
    /// The last name of its file.
    pub(crate) path: String,
    /// Which file.
    pub(crate) identity: Identity,
    /// Where to read on.
    pub(crate) cut_to: u64,
    /// What may have been sent, the last first, with what its records became.
    pub(crate) again: Vec<(Range, Arc<Shaper>)>,
    /// Nobody expects it back.
    pub(crate) is_gone: bool,
}

impl Remembered {
    /// All streams of a book.
    ///
    /// # Errors
    /// When a shape in it is none.
    pub(crate) fn of(book: &Book) -> Result<Vec<Remembered>, String> {
        let mut shapers = Shapers::new();
        let mut all = Vec::new();
        for (number, stream) in book.streams() {
            let mut again = Vec::new();
            for (start, intent) in stream.intents.iter().rev() {
                let shaper = match shapers.get(&intent.shape) {
                    Some(shaper) => Arc::clone(shaper),
                    None => {
                        let shape = book.shape(intent.shape).ok_or("a batch has no shape")?;
                        let shaper = Arc::new(Shaper::new(shape.clone())?);
                        shapers.insert(intent.shape, Arc::clone(&shaper));
                        shaper
                    }
                };
                let key = Key { stream: *number, start: *start };
                let range = Range { key, end: intent.end, records: intent.records, hash: intent.hash };
                again.push((range, shaper));
            }
            all.push(Remembered {
                stream: *number,
                path: stream.path.clone(),
                identity: stream.identity,
                cut_to: stream.cut_to,
                again,
                is_gone: stream.is_gone,
            });
        }
        Ok(all)
    }

    /// A file that is no longer followed.
    pub(crate) fn ended(follower: &Follower) -> Remembered {
        Remembered {
            stream: follower.stream,
            path: follower.path.to_string_lossy().into_owned(),
            identity: follower.identity,
            cut_to: follower.read_to(),
            again: Vec::new(),
            is_gone: true,
        }
    }
}
