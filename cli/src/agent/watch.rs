//! The files that patterns name, followed through rotation and truncation.
//!
//! Every name is resolved to the file behind it. A file that was renamed is read to its end before the new file under
//! its name is opened; it is followed further while somebody may still write to it, also under no name at all. A file
//! that became shorter, or begins differently, is read from its start as a new stream. Compressed files are left alone:
//! rotation makes them of files that were read.
//!
//! After a start, batches that may have been sent come first, each with the lines it had. A file is found again by its
//! identity, under its old name, any name that the patterns give, or any other name in its old folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::agent::batch::Batch;
use crate::agent::book::{Key, Range};
use crate::agent::buffer::{Buffer, Room};
use crate::agent::follower::{Follower, Look, Pace, Piece};
use crate::agent::formats::Formats;
use crate::agent::identity::{Identity, read_at};
use crate::agent::remembered::Remembered;
use crate::agent::shape::Shaper;

/// How often names are looked up again.
const SCAN_EVERY: Duration = Duration::from_millis(500);
/// A file without a name that did not grow for so long is done with.
const NAMELESS_QUIET: Duration = Duration::from_secs(30);
/// Files that are followed at a time.
const FILES_MAX: usize = 500;

/// What watching tells.
#[derive(Debug)]
pub(crate) enum Seen {
    /// A new stream begins.
    Opened { stream: u64, path: String, identity: Identity, from: u64 },
    /// A stream that was known is followed on.
    Resumed { stream: u64, path: String, identity: Identity, from: u64 },
    /// New records.
    Cut(Batch),
    /// A batch that may have been sent before, as it was then.
    Again(Batch),
    /// A record that is too long to be sent.
    TooLong { range: Range, raw: Bytes },
    /// Records that are not sent because there is no room.
    PassedOver(Range),
    /// A batch that may have been sent before and can no longer be read.
    Lost { key: Key, why: String },
    /// How far a stream reaches now, without a half-written line.
    Size { stream: u64, size: u64 },
    /// Nothing more comes of a stream; its bytes may still be there.
    Gone { stream: u64 },
    /// Nothing more comes of a stream, and its bytes are nowhere any more.
    Removed { stream: u64 },
    /// Somebody needs so much room.
    MakeRoom(u64),
    /// Something that people should know.
    Warning(String),
}

/// What to do when there is no room and the server takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnFull {
    /// Stop reading; files simply lag
    Block,
    /// Pass over the lines that are read now
    DropNewest,
    /// Drop the oldest lines that were surely not taken
    DropOldest,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ReadFrom {
    /// After the last acknowledged line; unknown files from their beginning
    Checkpoint,
    /// At the beginning of every file, as if nothing had been sent
    Beginning,
    /// At the end of the files that are there now
    End,
}

/// How to watch.
#[derive(Debug)]
pub(crate) struct WatchSettings {
    /// Names and patterns of names.
    pub(crate) patterns: Vec<String>,
    /// Where to begin.
    pub(crate) read_from: ReadFrom,
    /// When there is no room.
    pub(crate) on_full: OnFull,
    /// When a batch is large or old enough.
    pub(crate) pace: Pace,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Watch {
    settings: WatchSettings,
    formats: Formats,
    buffer: Arc<Buffer>,
    followers: Vec<Follower>,
    /// Streams that are known and not followed.
    remembered: Vec<Remembered>,
    next_stream: u64,
    /// Files that are not followed, by device and inode.
    ignored: BTreeSet<(u64, u64)>,
    told: BTreeSet<String>,
    scanned_at: Option<Duration>,
    /// Followed streams to which no name leads any more, and since when.
    nameless: BTreeMap<u64, Duration>,
    /// What must be sent again: the stream and its batches.
    again: Vec<(u64, Range, Arc<Shaper>)>,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There may be more to read.
    Worked,
    /// Nothing to read now.
    Idle,
    /// No room.
    Full,
}

impl Watch {
    /// Watches files, with streams that are known from before.
    pub(crate) fn new(
        settings: WatchSettings,
        formats: Formats,
        buffer: Arc<Buffer>,
        remembered: Vec<Remembered>,
        next_stream: u64,
    ) -> Watch {
        Watch {
            settings,
            formats,
            buffer,
            followers: Vec::new(),
            remembered,
            next_stream,
            ignored: BTreeSet::new(),
            told: BTreeSet::new(),
            scanned_at: None,
            nameless: BTreeMap::new(),
            again: Vec::new(),
        }
    }

    /// Looks at everything once. `refuses`: the server takes nothing now.
    pub(crate) fn turn(&mut self, now: Duration, refuses: bool, tell: &mut dyn FnMut(Seen)) -> Turn {
        if self.scanned_at.is_none_or(|at| now.saturating_sub(at) >= SCAN_EVERY) {
            let is_first = self.scanned_at.is_none();
            self.scanned_at = Some(now);
            self.scan(is_first, now, tell);
        }
        if !self.send_again(tell) {
            return Turn::Full;
        }
        let mut turn = Turn::Idle;
        for index in 0..self.followers.len() {
            match self.follow(index, now, refuses, tell) {
                Ok(Turn::Idle) => {}
                Ok(Turn::Worked) if turn == Turn::Full => {}
                Ok(other) => turn = other,
                Err(error) => {
                    let path = self.followers[index].path.display();
                    self.warn_once(format!("read {path}: {error}"), tell);
                }
            }
        }
        self.close_done(now, tell);
        turn
    }

    /// One look at one file.
    fn follow(
        &mut self,
        index: usize,
        now: Duration,
        refuses: bool,
        tell: &mut dyn FnMut(Seen),
    ) -> io::Result<Turn> {
        let Watch { followers, settings, buffer, .. } = self;
        let follower = &mut followers[index];
        let look = follower.look(&settings.pace, now)?;
        if let Some(size) = follower.news() {
            tell(Seen::Size { stream: follower.stream, size });
        }
        let bytes = match look {
            Look::Quiet => return Ok(Turn::Idle),
            Look::Truncated => {
                self.restart(index, tell)?;
                return Ok(Turn::Worked);
            }
            Look::Ready(bytes) => bytes,
        };
        // Reading less at a time is better than waiting for all of the buffer.
        let bytes = bytes.min((buffer.limit() / 4).max(settings.pace.limits.bytes as u64));
        match buffer.take(bytes) {
            Some(room) => {
                let pieces = follower.read(&settings.pace, now)?;
                tell_pieces(follower, pieces, Some(room), buffer, tell);
                Ok(Turn::Worked)
            }
            None if refuses && settings.on_full == OnFull::DropNewest => {
                let pieces = follower.read(&settings.pace, now)?;
                tell_pieces(follower, pieces, None, buffer, tell);
                Ok(Turn::Worked)
            }
            None => {
                if refuses && settings.on_full == OnFull::DropOldest {
                    tell(Seen::MakeRoom(bytes));
                }
                Ok(Turn::Full)
            }
        }
    }

    /// Reads a file from its start again, because it is no longer what it was.
    fn restart(&mut self, index: usize, tell: &mut dyn FnMut(Seen)) -> io::Result<()> {
        let follower = &mut self.followers[index];
        let (path, file) = (follower.path.clone(), follower.file().try_clone()?);
        tell(Seen::Warning(format!("{} was truncated; it is read from its start", path.display())));
        tell(Seen::Removed { stream: follower.stream });
        let identity = Identity::of(&file)?;
        let stream = self.next_stream;
        self.next_stream += 1;
        let shaper = Arc::clone(&follower.shaper);
        self.nameless.remove(&follower.stream);
        tell(Seen::Opened { stream, path: shown(&path), identity, from: 0 });
        self.followers[index] = Follower::new(stream, path, file, identity, shaper, 0);
        Ok(())
    }

    /// Looks all names up.
    fn scan(&mut self, is_first: bool, now: Duration, tell: &mut dyn FnMut(Seen)) {
        let mut named = BTreeSet::new();
        for path in self.names(tell) {
            match self.find(&path, is_first, tell) {
                Ok(Some(stream)) => {
                    named.insert(stream);
                }
                Ok(None) => {}
                // It may have been renamed just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.warn_once(format!("{}: {error}", path.display()), tell),
            }
        }
        if is_first {
            self.find_renamed(tell);
        }
        self.nameless.retain(|stream, _| !named.contains(stream));
        for stream in self.followers.iter().map(|it| it.stream).filter(|stream| !named.contains(stream)) {
            self.nameless.entry(stream).or_insert(now);
        }
    }

    /// The names there are now.
    fn names(&mut self, tell: &mut dyn FnMut(Seen)) -> BTreeSet<PathBuf> {
        let mut names = BTreeSet::new();
        for pattern in self.settings.patterns.clone() {
            let before = names.len();
            if Path::new(&pattern).exists() {
                names.insert(PathBuf::from(&pattern));
            } else if let Ok(paths) = glob::glob(&pattern) {
                names.extend(paths.filter_map(Result::ok));
            }
            if names.len() == before {
                self.warn_once(format!("nothing is named {pattern} yet; waiting for it"), tell);
            }
        }
        names
    }

    /// The stream of the file behind a name; opened when it is new.
    fn find(&mut self, path: &Path, is_first: bool, tell: &mut dyn FnMut(Seen)) -> io::Result<Option<u64>> {
        let metadata = std::fs::metadata(path)?;
        let place = (metadata.dev(), metadata.ino());
        if let Some(known) = self.followers.iter_mut().find(|it| it.identity.is_inode_of(&metadata)) {
            if known.path != path {
                known.path = path.to_owned();
                let (stream, identity) = (known.stream, known.identity);
                tell(Seen::Resumed { stream, path: shown(path), identity, from: 0 });
            }
            return Ok(Some(known.stream));
        }
        // The file that had this name is read to its end first.
        for old in self.followers.iter().filter(|it| it.path == path) {
            if old.is_behind()? {
                return Ok(None);
            }
        }
        if self.ignored.contains(&place) {
            return Ok(None);
        }
        if !metadata.is_file() {
            if !metadata.is_dir() {
                self.warn_once(format!("{} is no regular file, and is not followed", path.display()), tell);
            }
            self.ignored.insert(place);
            return Ok(None);
        }
        if self.followers.len() >= FILES_MAX {
            let message =
                format!("more than {FILES_MAX} files are named; {} is not followed", path.display());
            self.warn_once(message, tell);
            return Ok(None);
        }
        let file = File::open(path)?;
        if is_compressed(&file, path)? {
            self.warn_once(format!("{} is compressed, and is not followed", path.display()), tell);
            self.ignored.insert(place);
            return Ok(None);
        }
        self.follow_file(path, file, is_first, tell).map(Some)
    }

    /// Follows an open file: on from where it was known, or as a new stream.
    fn follow_file(
        &mut self,
        path: &Path,
        file: File,
        is_first: bool,
        tell: &mut dyn FnMut(Seen),
    ) -> io::Result<u64> {
        let shaper = match self.formats.shaper_of(path, &file)? {
            Ok(shaper) => shaper,
            Err(warning) => {
                self.warn_once(warning, tell);
                return Err(io::ErrorKind::NotFound.into());
            }
        };
        let at_end = is_first && self.settings.read_from == ReadFrom::End;
        let end = file.metadata()?.size();
        let mut known = None;
        for (index, remembered) in self.remembered.iter().enumerate() {
            if remembered.identity.is_of(&file)? {
                known = Some(index);
                break;
            }
        }
        let identity = Identity::of(&file)?;
        let (stream, from) = match known.map(|index| self.remembered.remove(index)) {
            Some(known) => {
                let from = if at_end { end } else { known.cut_to };
                tell(Seen::Resumed { stream: known.stream, path: shown(path), identity, from });
                self.again
                    .extend(known.again.into_iter().map(|(range, shaper)| (known.stream, range, shaper)));
                (known.stream, from)
            }
            None => {
                let stream = self.next_stream;
                self.next_stream += 1;
                let from = if at_end { end } else { 0 };
                tell(Seen::Opened { stream, path: shown(path), identity, from });
                (stream, from)
            }
        };
        self.followers.push(Follower::new(stream, path.to_owned(), file, identity, shaper, from));
        Ok(stream)
    }

    /// After a start: files that were renamed while nobody looked, and those that are gone.
    fn find_renamed(&mut self, tell: &mut dyn FnMut(Seen)) {
        let folders: BTreeSet<PathBuf> = self
            .remembered
            .iter()
            .filter(|known| !known.is_gone || !known.again.is_empty())
            .filter_map(|known| Some(Path::new(&known.path).parent()?.to_owned()))
            .collect();
        for folder in folders {
            let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.filter_map(Result::ok) {
                let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
                if !self.remembered.iter().any(|known| known.identity.is_inode_of(&metadata)) {
                    continue;
                }
                let Ok(file) = File::open(entry.path()) else { continue };
                if self.remembered.iter().any(|known| known.identity.is_of(&file).unwrap_or(false)) {
                    // An error is that of a file which vanishes, and then it is gone.
                    let _ = self.follow_file(&entry.path(), file, true, tell);
                }
            }
        }
        let mut rest = std::mem::take(&mut self.remembered);
        for known in &mut rest {
            for (range, _) in std::mem::take(&mut known.again) {
                let why = format!("{} is gone, or is not what it was", known.path);
                tell(Seen::Lost { key: range.key, why });
            }
            if !known.is_gone {
                tell(Seen::Gone { stream: known.stream });
            }
        }
        self.remembered = rest;
    }

    /// Reads what was on its way when the agent ended. `false`: there is no room for more now.
    fn send_again(&mut self, tell: &mut dyn FnMut(Seen)) -> bool {
        while let Some((stream, range, shaper)) = self.again.pop() {
            let Some(room) = self.buffer.take(range.end - range.key.start) else {
                self.again.push((stream, range, shaper));
                return false;
            };
            let Some(follower) = self.followers.iter_mut().find(|it| it.stream == stream) else {
                tell(Seen::Lost { key: range.key, why: "its file is gone".to_owned() });
                continue;
            };
            let why = match follower.read_again(range.key.start, range.end) {
                Ok(raw) if Range::of(range.key, &raw, range.records) == range => {
                    let (identity, header) = (follower.identity, follower.header());
                    let records = (raw, range.records);
                    tell(Seen::Again(Batch::new(range.key, identity, shaper, header, records, room)));
                    continue;
                }
                Ok(_) => format!("{} does not hold its lines any more", follower.path.display()),
                Err(error) => format!("read {}: {error}", follower.path.display()),
            };
            tell(Seen::Lost { key: range.key, why });
        }
        true
    }

    /// Ends following files that have no name, and that nobody writes to any more.
    fn close_done(&mut self, now: Duration, tell: &mut dyn FnMut(Seen)) {
        let Watch { followers, nameless, settings, buffer, remembered, .. } = self;
        followers.retain_mut(|follower| {
            let is_done = |since: &Duration| {
                now.saturating_sub(*since) >= NAMELESS_QUIET && follower.is_quiet_for(NAMELESS_QUIET, now)
            };
            if !nameless.get(&follower.stream).is_some_and(is_done) {
                return true;
            }
            let links = follower.file().metadata().map_or(0, |metadata| metadata.nlink());
            if let Ok(pieces) = follower.read_last(&settings.pace) {
                let room = buffer.take_for_sure(0);
                tell_pieces(follower, pieces, Some(room), buffer, tell);
            }
            let stream = follower.stream;
            if links == 0 {
                tell(Seen::Removed { stream });
            } else {
                tell(Seen::Gone { stream });
                remembered.push(Remembered::ended(follower));
            }
            nameless.remove(&stream);
            false
        });
    }

    /// Tells something once, however often it is met.
    fn warn_once(&mut self, warning: String, tell: &mut dyn FnMut(Seen)) {
        if self.told.len() < 10_000 && self.told.insert(warning.clone()) {
            tell(Seen::Warning(warning));
        }
    }
}

/// Passes on what was read; without room, as passed over.
fn tell_pieces(
    follower: &Follower,
    pieces: Vec<Piece>,
    room: Option<Room>,
    buffer: &Arc<Buffer>,
    tell: &mut dyn FnMut(Seen),
) {
    let is_kept = room.is_some();
    // What is read takes its own room before that for reading it is given back.
    for piece in pieces {
        match piece {
            Piece::Records { start, raw, records } => {
                let key = Key { stream: follower.stream, start };
                if !is_kept {
                    tell(Seen::PassedOver(Range::of(key, &raw, records)));
                    continue;
                }
                let shaper = Arc::clone(&follower.shaper);
                let own = buffer.take_for_sure(raw.len() as u64);
                let batch =
                    Batch::new(key, follower.identity, shaper, follower.header(), (raw, records), own);
                tell(Seen::Cut(batch));
            }
            Piece::TooLong { start, raw, end } => {
                let range = Range { end, ..Range::of(Key { stream: follower.stream, start }, &raw, 1) };
                tell(Seen::TooLong { range, raw });
            }
        }
    }
    drop(room);
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Whether a file is one that rotation has compressed: by its first bytes, or its name while it is still empty.
fn is_compressed(file: &File, path: &Path) -> io::Result<bool> {
    let mut first = [0; 6];
    let length = read_at(file, &mut first, 0)?;
    let magics: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0"];
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    Ok(magics.iter().any(|magic| first[..length].starts_with(magic))
        || ["gz", "zst", "bz2", "xz"].contains(&ending))
}

/// Kinds of files by stream, for the start after a stop.
pub(crate) type Shapers = BTreeMap<u32, Arc<Shaper>>;

#[cfg(test)]
mod tests;
