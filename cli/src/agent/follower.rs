//! One file that is followed: what of it may be read now, and whether it is still the file it was.
//!
//! Nothing is held between two looks: what is not enough for a batch yet stays in the file, and a half-written last line
//! is left until its end is there. Only [`Follower::read_last`] takes a last line without an end, when nobody can write
//! to the file by a name any more and nobody has for a while.
//!
//! Invariants: reads begin where the last cut ended; a file that became shorter, or begins differently, is never read on.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::agent::identity::{HEAD_BYTES, Identity, read_at};
use crate::agent::lines::{CutLimits, LineFormat};
use crate::agent::shape::Shaper;

/// A longer record is passed over and counted as rejected; the server takes none that is longer.
pub(crate) const RECORD_BYTES_MAX: usize = 8 << 20;
/// What is read at once, unless a batch is larger.
const READ_BYTES: usize = 4 << 20;
/// A step of the search for the end of a record that is too long.
const SEARCH_BYTES: usize = 1 << 20;

/// A file that is followed. See the module.
#[derive(Debug)]
pub(crate) struct Follower {
    /// The number of its stream.
    pub(crate) stream: u64,
    /// The name it was found under last.
    pub(crate) path: PathBuf,
    /// Which file it is.
    pub(crate) identity: Identity,
    /// What its records become.
    pub(crate) shaper: Arc<Shaper>,
    file: File,
    /// Everything before was cut off.
    read_to: u64,
    /// The first record, for CSV.
    header: Option<Bytes>,
    size: u64,
    /// When it grew last.
    grown_at: Duration,
    /// Since when something waits that is too little for a batch.
    waiting_since: Option<Duration>,
    /// Its size when there was nothing whole to cut off.
    fruitless_size: Option<u64>,
    /// How far it was said to reach.
    told: u64,
    /// Where the search for the end of a record that is too long goes on.
    searched_to: u64,
}

/// What a look at a file finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing to do now.
    Quiet,
    /// A batch can be cut off; so many bytes will be read for that.
    Ready(u64),
    /// It is shorter than what was read of it, or begins differently.
    Truncated,
}

/// When a batch is large or old enough.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How large.
    pub(crate) limits: CutLimits,
    /// How old.
    pub(crate) delay: Duration,
}

/// What was cut off a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Piece {
    /// Whole records.
    Records {
        /// Where they begin.
        start: u64,
        /// Their bytes.
        raw: Bytes,
        /// How many are not blank.
        records: u64,
    },
    /// One record that is too long, up to this byte.
    TooLong {
        /// Where it begins.
        start: u64,
        /// Its first bytes.
        raw: Bytes,
        /// The first byte behind it.
        end: u64,
    },
}

impl Follower {
    /// Follows an open file from some byte on.
    pub(crate) fn new(
        stream: u64,
        path: PathBuf,
        file: File,
        identity: Identity,
        shaper: Arc<Shaper>,
        from: u64,
    ) -> Follower {
        Follower {
            stream,
            path,
            identity,
            shaper,
            file,
            read_to: from,
            header: None,
            size: 0,
            grown_at: Duration::ZERO,
            waiting_since: None,
            fruitless_size: None,
            told: from,
            searched_to: 0,
        }
    }

    fn format(&self) -> LineFormat {
        self.shaper.shape().format
    }

    /// Everything before was cut off.
    pub(crate) fn read_to(&self) -> u64 {
        self.read_to
    }

    /// How far it reaches without a half-written line, when that is news.
    pub(crate) fn news(&mut self) -> Option<u64> {
        let reaches = if self.has_unread() { self.size } else { self.read_to };
        (std::mem::replace(&mut self.told, reaches) != reaches).then_some(reaches)
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Whether whole records may be left.
    pub(crate) fn has_unread(&self) -> bool {
        self.read_to < self.size && self.fruitless_size != Some(self.size)
    }

    /// Whether whole records may be left, also such as were written since the last look.
    pub(crate) fn is_behind(&self) -> io::Result<bool> {
        Ok(self.has_unread() || self.file.metadata()?.size() > self.size)
    }

    /// Whether it did not grow for so long.
    pub(crate) fn is_quiet_for(&self, how_long: Duration, now: Duration) -> bool {
        !self.has_unread() && now.saturating_sub(self.grown_at) >= how_long
    }

    /// The first record of the file; empty for formats without one.
    pub(crate) fn header(&self) -> Bytes {
        self.header.clone().unwrap_or_default()
    }

    /// Looks at the file.
    pub(crate) fn look(&mut self, pace: &Pace, now: Duration) -> io::Result<Look> {
        let size = self.file.metadata()?.size();
        if size < self.read_to {
            return Ok(Look::Truncated);
        }
        if size != self.size {
            if !self.identity.begins(&self.file)? {
                return Ok(Look::Truncated);
            }
            if self.identity.head_bytes < HEAD_BYTES as u64 {
                self.identity = Identity::of(&self.file)?;
            }
            (self.size, self.grown_at) = (size, now);
        }
        if self.read_to == size || self.fruitless_size == Some(size) {
            return Ok(Look::Quiet);
        }
        if !self.find_header()? {
            self.fruitless_size = Some(size);
            return Ok(Look::Quiet);
        }
        let available = size - self.read_to;
        let since = *self.waiting_since.get_or_insert(now);
        let is_due = now.saturating_sub(since) >= pace.delay;
        if available >= pace.limits.bytes as u64 || is_due {
            return Ok(Look::Ready(available.min(read_bytes(pace) as u64)));
        }
        Ok(Look::Quiet)
    }

    /// Cuts batches off what is there. Call it after [`Look::Ready`].
    pub(crate) fn read(&mut self, pace: &Pace, now: Duration) -> io::Result<Vec<Piece>> {
        let is_due = self.waiting_since.is_some_and(|since| now.saturating_sub(since) >= pace.delay);
        let available = self.size.saturating_sub(self.read_to);
        let wanted = available.min(read_bytes(pace) as u64);
        let bytes = self.bytes(wanted)?;
        let is_all = wanted == available;
        let mut pieces = self.cut(&bytes, pace, is_due && is_all);
        if pieces.is_empty() && !is_all {
            pieces = self.cut(&bytes, pace, true);
        }
        if !pieces.is_empty() {
            self.waiting_since = (self.read_to < self.size).then_some(now);
            return Ok(pieces);
        }
        if self.format().record_end(&bytes).is_some() {
            // Whole records, but neither enough nor old enough for a batch.
            return Ok(pieces);
        }
        if is_all && available <= RECORD_BYTES_MAX as u64 {
            // A half-written line. It is looked at again when the file has grown.
            self.fruitless_size = Some(self.size);
            self.waiting_since = None;
            return Ok(pieces);
        }
        self.read_long(pace, available)
    }

    /// Takes everything that is left, with a last line that has no end.
    pub(crate) fn read_last(&mut self, pace: &Pace) -> io::Result<Vec<Piece>> {
        let left = self.size.saturating_sub(self.read_to);
        if left == 0 || left > RECORD_BYTES_MAX as u64 || !self.find_header()? {
            return Ok(Vec::new());
        }
        let bytes = self.bytes(self.size.saturating_sub(self.read_to))?;
        let mut pieces = self.cut(&bytes, pace, true);
        let done: usize = pieces.iter().map(Piece::len).sum();
        let raw = bytes.slice(done..);
        if !raw.is_empty() {
            let records = u64::from(!self.format().is_blank(&raw));
            pieces.push(self.piece(raw, records));
        }
        Ok(pieces)
    }

    /// Reads a range that was cut off before.
    pub(crate) fn read_again(&mut self, start: u64, end: u64) -> io::Result<Bytes> {
        self.find_header()?;
        let mut buffer = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX)];
        let length = read_at(&self.file, &mut buffer, start)?;
        buffer.truncate(length);
        Ok(buffer.into())
    }

    fn bytes(&self, wanted: u64) -> io::Result<Bytes> {
        let mut buffer = vec![0; usize::try_from(wanted).unwrap_or(usize::MAX)];
        let length = read_at(&self.file, &mut buffer, self.read_to)?;
        buffer.truncate(length);
        Ok(buffer.into())
    }

    fn cut(&mut self, bytes: &Bytes, pace: &Pace, takes_rest: bool) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut at = 0;
        while let Some(cut) = self.format().cut(&bytes[at..], pace.limits) {
            if !(cut.is_full || cut.bytes >= pace.limits.bytes || takes_rest) {
                break;
            }
            pieces.push(self.piece(bytes.slice(at..at + cut.bytes), cut.records));
            at += cut.bytes;
        }
        pieces
    }

    fn piece(&mut self, raw: Bytes, records: u64) -> Piece {
        let start = self.read_to;
        self.read_to += raw.len() as u64;
        Piece::Records { start, raw, records }
    }

    /// A record that is longer than what is read at once, or too long.
    fn read_long(&mut self, pace: &Pace, available: u64) -> io::Result<Vec<Piece>> {
        let bytes = self.bytes(available.min(RECORD_BYTES_MAX as u64 + 1))?;
        if self.format().record_end(&bytes).is_some() {
            return Ok(self.cut(&bytes, pace, true));
        }
        self.searched_to = self.searched_to.max(self.read_to + bytes.len() as u64 - 1);
        while self.searched_to < self.size {
            let mut step = vec![0; SEARCH_BYTES];
            let length = read_at(&self.file, &mut step, self.searched_to)?;
            if let Some(at) = memchr::memchr(b'\n', &step[..length]) {
                let (start, end) = (self.read_to, self.searched_to + at as u64 + 1);
                self.read_to = end;
                self.waiting_since = None;
                return Ok(vec![Piece::TooLong { start, raw: bytes.slice(..HEAD_BYTES), end }]);
            }
            if length == 0 {
                break;
            }
            self.searched_to += length as u64;
        }
        self.fruitless_size = Some(self.size);
        Ok(Vec::new())
    }

    /// Finds the first record of a CSV file, and goes on behind it. `false`: it is not there yet.
    fn find_header(&mut self) -> io::Result<bool> {
        if self.format() != LineFormat::Csv || self.header.is_some() {
            return Ok(true);
        }
        let mut buffer = vec![0; SEARCH_BYTES];
        let length = read_at(&self.file, &mut buffer, 0)?;
        let buffer = &buffer[..length];
        let Some((at, _)) = self.format().records(buffer).next() else { return Ok(false) };
        let Some(length) = self.format().record_end(&buffer[at..]) else { return Ok(false) };
        self.header = Some(Bytes::copy_from_slice(&buffer[at..at + length]));
        self.read_to = self.read_to.max((at + length) as u64);
        Ok(true)
    }
}

fn read_bytes(pace: &Pace) -> usize {
    READ_BYTES.max(pace.limits.bytes * 2)
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Records { raw, .. } | Piece::TooLong { raw, .. } => raw.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::agent::shape::Shape;

    const DELAY: Duration = Duration::from_millis(500);

    struct Log {
        folder: tempfile::TempDir,
        writer: File,
        follower: Follower,
        now: Duration,
    }

    impl Log {
        fn new(format: LineFormat) -> Log {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.log");
            let writer = File::options().create(true).append(true).open(&path).unwrap();
            let file = File::open(&path).unwrap();
            let identity = Identity::of(&file).unwrap();
            let shape = Shape { format, pattern: None, add: vec![], sample_rate: None, time_field: None };
            let shaper = Arc::new(Shaper::new(shape).unwrap());
            let follower = Follower::new(1, path, file, identity, shaper, 0);
            Log { folder, writer, follower, now: Duration::ZERO }
        }

        fn pace(&self) -> Pace {
            Pace { limits: CutLimits { records: 3, bytes: 20 }, delay: DELAY }
        }

        fn write(&mut self, text: &str) {
            self.writer.write_all(text.as_bytes()).unwrap();
        }

        /// What one look gives, as texts.
        fn turn(&mut self) -> Vec<String> {
            let pace = self.pace();
            match self.follower.look(&pace, self.now).unwrap() {
                Look::Quiet => Vec::new(),
                Look::Truncated => vec!["truncated".to_owned()],
                Look::Ready(_) => texts(self.follower.read(&pace, self.now).unwrap()),
            }
        }

        fn wait(&mut self) {
            self.now += DELAY;
        }
    }

    fn texts(pieces: Vec<Piece>) -> Vec<String> {
        let text = |piece: &Piece| match piece {
            Piece::Records { raw, .. } => String::from_utf8(raw.to_vec()).unwrap(),
            Piece::TooLong { start, end, .. } => format!("too long: {start} to {end}"),
        };
        pieces.iter().map(text).collect()
    }

    #[test]
    fn batches_are_cut_by_rows_bytes_and_delay() {
        let mut log = Log::new(LineFormat::Lines);
        log.write("1\n2\n");
        assert!(log.turn().is_empty());
        log.wait();
        assert_eq!(log.turn(), ["1\n2\n"]);
        assert!(log.turn().is_empty());
        // Enough bytes are cut at once, by rows; the rest waits.
        log.write("a\nb\nc\nd\ne\nf\ng\nhhhhhhhh\n");
        assert_eq!(log.turn(), ["a\nb\nc\n", "d\ne\nf\n"]);
        assert!(log.turn().is_empty());
        log.wait();
        assert_eq!(log.turn(), ["g\nhhhhhhhh\n"]);
        assert!(!log.follower.has_unread());
    }

    #[test]
    fn what_is_behind_is_cut_into_full_batches() {
        let mut log = Log::new(LineFormat::Lines);
        let line = format!("{}\n", "x".repeat(999));
        let count = READ_BYTES / 1000 + 200;
        log.write(&line.repeat(count));
        let pace = Pace { limits: CutLimits { records: 1_000_000, bytes: 1 << 20 }, delay: DELAY };
        log.now += DELAY;
        let mut lengths = Vec::new();
        while let Look::Ready(_) = log.follower.look(&pace, log.now).unwrap() {
            let pieces = log.follower.read(&pace, log.now).unwrap();
            lengths.extend(pieces.iter().map(Piece::len));
            log.wait();
        }
        let (last, full) = lengths.split_last().unwrap();
        assert_eq!(full, [1_048_000; 4]);
        assert_eq!(*last, count * 1000 - 4 * 1_048_000);
    }

    #[test]
    fn a_half_written_line_waits_for_its_end() {
        let mut log = Log::new(LineFormat::Lines);
        log.write("one\nha");
        log.wait();
        log.turn();
        log.wait();
        assert_eq!(log.turn(), ["one\n"]);
        log.wait();
        assert!(log.turn().is_empty() && !log.follower.has_unread());
        log.write("lf\n");
        assert!(log.turn().is_empty());
        log.wait();
        assert_eq!(log.turn(), ["half\n"]);
        // Nobody will end the last line of a file that is gone.
        log.write("last");
        log.turn();
        let pace = log.pace();
        assert_eq!(texts(log.follower.read_last(&pace).unwrap()), ["last"]);
        assert!(log.follower.read_last(&pace).unwrap().is_empty());
    }

    #[test]
    fn truncation_is_seen() {
        let mut log = Log::new(LineFormat::Lines);
        log.write("one\ntwo\n");
        log.turn();
        log.wait();
        assert_eq!(log.turn(), ["one\ntwo\n"]);
        log.writer.set_len(0).unwrap();
        assert_eq!(log.turn(), ["truncated"]);
        // Also when it has grown beyond what was read, with something else.
        log.write("other lines, and more of them\n");
        assert_eq!(log.turn(), ["truncated"]);
    }

    #[test]
    fn a_renamed_file_is_read_on() {
        let mut log = Log::new(LineFormat::Lines);
        log.write("1\n");
        std::fs::rename(&log.follower.path, log.folder.path().join("a.log.1")).unwrap();
        log.write("2\n");
        log.turn();
        log.wait();
        assert_eq!(log.turn(), ["1\n2\n"]);
        log.wait();
        assert!(log.follower.is_quiet_for(DELAY, log.now));
    }

    #[test]
    fn the_header_of_a_csv_file_is_no_row() {
        let mut log = Log::new(LineFormat::Csv);
        log.write("\na,b");
        log.wait();
        assert!(log.turn().is_empty());
        log.write("\n1,\"x\n");
        log.wait();
        log.turn();
        log.wait();
        assert!(log.turn().is_empty());
        assert_eq!(log.follower.header(), "a,b\n");
        log.write("y\"\n2,\n");
        log.turn();
        log.wait();
        assert_eq!(log.turn(), ["1,\"x\ny\"\n2,\n"]);
        assert_eq!(log.follower.read_again(5, 14).unwrap(), "1,\"x\ny\"\n2");
    }

    #[test]
    fn a_record_that_is_too_long_is_passed_over() {
        let mut log = Log::new(LineFormat::Lines);
        let long = "x".repeat(RECORD_BYTES_MAX + 10);
        log.write("1\n");
        log.write(&long);
        let mut got = Vec::new();
        for _ in 0..3 {
            got.extend(log.turn());
        }
        assert_eq!(got, ["1\n"]);
        log.write("\n2\n");
        got.clear();
        for _ in 0..3 {
            got.extend(log.turn());
            log.wait();
        }
        assert_eq!(got, [format!("too long: 2 to {}", 2 + RECORD_BYTES_MAX + 11), "2\n".to_owned()]);
    }
}
