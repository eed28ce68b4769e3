//! A batch: the records of one range of one file, as they were read and as they are sent.

use std::sync::Arc;

use bytes::Bytes;

use crate::agent::book::{Key, Range};
use crate::agent::buffer::Room;
use crate::agent::identity::Identity;
use crate::agent::shape::{Shaped, Shaper};

/// See the module.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Which records.
    pub(crate) range: Range,
    /// Which file, as it is known now.
    pub(crate) identity: Identity,
    /// What the records become.
    pub(crate) shaper: Arc<Shaper>,
    /// The first record of the file, for CSV.
    pub(crate) header: Bytes,
    /// The records as they were read.
    pub(crate) raw: Bytes,
    /// The records as they are sent, and those that are not.
    pub(crate) shaped: Shaped,
    /// What it takes of the buffer.
    pub(crate) room: Room,
}

impl Batch {
    /// A batch of what was read at some place.
    pub(crate) fn new(
        key: Key,
        identity: Identity,
        shaper: Arc<Shaper>,
        header: Bytes,
        (raw, records): (Bytes, u64),
        mut room: Room,
    ) -> Batch {
        let shaped = shaper.body(&header, &raw, records);
        let is_same = shaped.body.as_ptr() == raw.as_ptr();
        room.resize(if is_same { raw.len() } else { raw.len() + shaped.body.len() } as u64);
        Batch { range: Range::of(key, &raw, records), identity, shaper, header, raw, shaped, room }
    }

    /// The number of a record of the batch by the number of its row in the body.
    pub(crate) fn record_of_row(&self, row: u64) -> u64 {
        let mut record = row;
        for refused in &self.shaped.refused {
            if refused.record > record {
                break;
            }
            record += 1;
        }
        record
    }

    /// Where a record begins in the file, and its bytes.
    pub(crate) fn record(&self, number: u64) -> Option<(u64, &[u8])> {
        let number = usize::try_from(number).ok()?;
        let (at, record) = self.shaper.shape().format.records(&self.raw).nth(number)?;
        Some((self.range.key.start + at as u64, record))
    }

    /// Two batches of about half of the records each; the batch itself when it has one record only.
    pub(crate) fn split(self) -> Result<(Batch, Batch), Box<Batch>> {
        let half = self.range.records / 2;
        let format = self.shaper.shape().format;
        let middle = usize::try_from(half).ok().filter(|half| *half > 0);
        let Some((at, _)) = middle.and_then(|half| format.records(&self.raw).nth(half)) else {
            return Err(Box::new(self));
        };
        let Batch { range, identity, shaper, header, raw, room, .. } = self;
        let second = Key { start: range.key.start + at as u64, ..range.key };
        let other_room = room.beside();
        let part = |key, raw, records, room| {
            Batch::new(key, identity, Arc::clone(&shaper), header.clone(), (raw, records), room)
        };
        Ok((
            part(range.key, raw.slice(..at), half, room),
            part(second, raw.slice(at..), range.records - half, other_room),
        ))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::agent::book::tests::IDENTITY;
    use crate::agent::buffer::Buffer;
    use crate::agent::lines::LineFormat;
    use crate::agent::shape::Shape;

    pub(crate) fn batch(shape: Shape, start: u64, raw: &str, buffer: &Arc<Buffer>) -> Batch {
        let raw = Bytes::from(raw.to_owned());
        let records = shape.format.records(&raw).count() as u64;
        let room = buffer.take_for_sure(raw.len() as u64);
        let shaper = Arc::new(Shaper::new(shape).unwrap());
        Batch::new(Key { stream: 1, start }, IDENTITY, shaper, Bytes::new(), (raw, records), room)
    }

    #[test]
    fn rows_and_records_are_told_apart() {
        let pattern = Some("^(?P<n>[0-9])$".to_owned());
        let shape =
            Shape { format: LineFormat::Lines, pattern, add: vec![], sample_rate: None, time_field: None };
        let buffer = Buffer::new(1 << 20);
        let batch = batch(shape, 100, "x\n\n1\ny\nz\n2\n3\n", &buffer);
        assert_eq!((batch.range.records, batch.shaped.rows), (6, 3));
        let records: Vec<u64> = (0..3).map(|row| batch.record_of_row(row)).collect();
        assert_eq!(records, [1, 4, 5]);
        assert_eq!(batch.record(4), Some((109, &b"2"[..])));
        assert_eq!(batch.record(6), None);
        let (first, second) = batch.split().unwrap();
        assert_eq!((&first.raw[..], &second.raw[..]), (&b"x\n\n1\ny\n"[..], &b"z\n2\n3\n"[..]));
        assert_eq!((first.range.end, second.range.key.start), (107, 107));
        assert_eq!((first.range.records, second.range.records), (3, 3));
        assert_eq!(second.shaped.body, "{\"n\":2}\n{\"n\":3}\n");
        drop((first, second));
        assert_eq!(buffer.used(), 0);
    }

    #[test]
    fn one_record_is_not_split() {
        let buffer = Buffer::new(1 << 20);
        let shape = crate::agent::book::tests::shape();
        let batch = batch(shape, 0, "\n{}\n\n", &buffer);
        assert_eq!(batch.split().unwrap_err().raw, "\n{}\n\n");
    }
}
