//! A disk in memory that keeps no more than its contract: see [`gannet_leaf::disk`].
//!
//! It holds two states. The live one is what calls see. The durable one is what surely survives a power cut: the bytes
//! of a file as of its last sync, the names of a directory as of its last sync. A power cut leaves the durable state
//! and a random part of the rest: of each file a prefix of what was done to it, with sectors missing in what was not
//! synced; of the names each change or not. A kill leaves the live state.
//!
//! A sync that fails loses the bytes it was for: reads go on to see them, a later sync that succeeds does not make
//! them durable (as on ext4 and XFS, where a failed page is marked clean).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use arrow::buffer::{Buffer, ScalarBuffer};
use bytes::Bytes;
use gannet_leaf::disk::{Disk, DiskFile};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use rustix::io::Errno;

use crate::life::{Life, Step};

/// Bytes that a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

/// The kinds of calls, for faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DiskCall {
    CreateDirectory,
    List,
    Create,
    Open,
    Map,
    Rename,
    Remove,
    SyncDirectory,
    FreeBytes,
    Append,
    Sync,
    Truncate,
    Read,
}

/// Calls that fail: those of one kind from the `nth` on, counted from 1 when the fault is set.
#[derive(Debug, Clone)]
pub(crate) struct DiskFault {
    pub(crate) call: DiskCall,
    pub(crate) nth: u64,
    pub(crate) times: u64,
    pub(crate) errno: Errno,
}

/// What is done to a file and not yet synced.
#[derive(Debug, Clone)]
enum Change {
    Append(Vec<u8>),
    Truncate(usize),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
    /// Ranges of the live bytes that a failed sync has lost.
    lost: Vec<(usize, usize)>,
    /// Where each append began that is not cut away.
    appends: Vec<usize>,
}

/// What is done to names and not yet synced, with the directory whose sync makes it durable.
#[derive(Debug, Clone)]
enum NameChange {
    Directory(String),
    Create(String, u64),
    Rename(String, String, u64),
    Remove(String, u64),
}

#[derive(Debug, Clone, Default)]
struct Names {
    directories: BTreeSet<String>,
    files: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    live: Names,
    durable: Names,
    changes: Vec<(String, NameChange)>,
    capacity_bytes: u64,
    faults: Vec<DiskFault>,
    /// How much of an append is written before it fails: the greatest number is all, others are taken as a remainder.
    tear: usize,
}

/// What survives processes: the disk itself. Clones are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct Drive(Arc<Mutex<State>>);

/// A disk as one life of a process sees it.
#[derive(Debug, Clone)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
    life: Life,
}

#[derive(Debug)]
struct SimFile {
    state: Arc<Mutex<State>>,
    life: Life,
    path: String,
    inode: u64,
    writable: bool,
}

/// A copy of bytes that begins where a map could.
pub(crate) fn mapped(bytes: &[u8]) -> Bytes {
    // Typed, because only that may be lent as bytes; the memory of a buffer is aligned for everything.
    Bytes::from_owner(ScalarBuffer::<u8>::from(Buffer::from(bytes)))
}

/// How many of so many bytes are written by a write that fails.
pub(crate) fn torn(tear: usize, bytes: usize) -> usize {
    if tear == usize::MAX { bytes } else { tear % (bytes + 1) }
}

/// The directory of a path; of a name at the top, the empty one.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

impl Names {
    fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::Directory(path) => {
                self.directories.insert(path.clone());
            }
            NameChange::Create(path, inode) => {
                self.files.insert(path.clone(), *inode);
            }
            NameChange::Rename(from, to, inode) => {
                if self.files.get(from) == Some(inode) {
                    self.files.remove(from);
                }
                self.files.insert(to.clone(), *inode);
            }
            NameChange::Remove(path, inode) => {
                if self.files.get(path) == Some(inode) {
                    self.files.remove(path);
                }
            }
        }
    }

    /// A name in a directory that is not there is not there.
    fn drop_orphans(&mut self) {
        let known = self.directories.clone();
        let is_there = |path: &str| {
            let mut path = path;
            while !path.is_empty() {
                if !known.contains(path) {
                    return false;
                }
                path = parent(path);
            }
            true
        };
        self.directories.retain(|path| is_there(path));
        self.files.retain(|path, _| is_there(parent(path)));
    }
}

impl Inode {
    /// What is on the disk for sure is a prefix of this length of both states.
    fn synced_prefix(&self) -> usize {
        let truncated = self.changes.iter().map(|change| match change {
            Change::Append(_) => usize::MAX,
            Change::Truncate(to) => *to,
        });
        truncated.min().unwrap_or(usize::MAX).min(self.durable.len())
    }

    fn truncate(&mut self, to: usize) {
        // A longer file is filled with zeros, as ftruncate does.
        self.live.resize(to, 0);
        self.lost.iter_mut().for_each(|range| range.1 = range.1.min(to));
        self.lost.retain(|range| range.0 < range.1);
        self.appends.retain(|at| *at < to);
        self.changes.push(Change::Truncate(to));
    }

    fn append(&mut self, bytes: &[u8]) {
        self.appends.push(self.live.len());
        self.live.extend_from_slice(bytes);
        self.changes.push(Change::Append(bytes.to_vec()));
    }

    fn sync(&mut self) {
        self.durable = self.live.clone();
        for &(from, to) in &self.lost {
            self.durable[from..to].fill(0);
        }
        self.changes.clear();
    }

    fn fail_to_sync(&mut self) {
        let from = self.synced_prefix();
        if from < self.live.len() {
            self.lost.push((from, self.live.len()));
        }
    }

    /// What a power cut leaves of it.
    fn cut(&mut self, rng: &mut StdRng) {
        let mut left = self.durable.clone();
        let mut unsynced_from = left.len();
        let applied = rng.random_range(0..=self.changes.len());
        for (at, change) in self.changes.iter().enumerate().take(applied + 1) {
            match change {
                Change::Append(bytes) if at < applied => left.extend_from_slice(bytes),
                Change::Append(bytes) => {
                    left.extend_from_slice(&bytes[..rng.random_range(0..=bytes.len())]);
                }
                Change::Truncate(to) if at < applied => {
                    left.resize(*to, 0);
                    unsynced_from = unsynced_from.min(*to);
                }
                Change::Truncate(_) => {}
            }
        }
        // Half of the cuts are kind and leave whole prefixes.
        let tears = rng.random_bool(0.5);
        let sectors = unsynced_from / SECTOR_BYTES..left.len().div_ceil(SECTOR_BYTES);
        for sector in sectors {
            let from = (sector * SECTOR_BYTES).max(unsynced_from);
            let to = ((sector + 1) * SECTOR_BYTES).min(left.len());
            if from >= to {
                continue;
            }
            let was_lost = self.lost.iter().any(|range| range.0 < to && from < range.1);
            if was_lost || (tears && rng.random_bool(0.25)) {
                match rng.random_bool(0.8) {
                    true => left[from..to].fill(0),
                    false => rng.fill(&mut left[from..to]),
                }
            }
        }
        let mut appends = std::mem::take(&mut self.appends);
        appends.retain(|at| *at < left.len());
        *self = Inode { live: left.clone(), durable: left, appends, ..Inode::default() };
    }
}

impl State {
    fn used_bytes(&self) -> u64 {
        self.live
            .files
            .values()
            .filter_map(|inode| self.inodes.get(inode))
            .map(|inode| inode.live.len() as u64)
            .sum()
    }

    fn change(&mut self, directory: &str, change: NameChange) {
        self.live.apply(&change);
        self.changes.push((directory.to_owned(), change));
    }

    /// Whether a fault is set for this call.
    fn fault(&mut self, call: DiskCall) -> io::Result<()> {
        let mut failed = Ok(());
        for fault in self.faults.iter_mut().filter(|fault| fault.call == call) {
            if fault.nth > 1 {
                fault.nth -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                failed = Err(fault.errno.into());
            }
        }
        self.faults.retain(|fault| fault.times > 0);
        failed
    }

    fn inode_of(&self, path: &str) -> io::Result<u64> {
        self.live.files.get(path).copied().ok_or_else(|| Errno::NOENT.into())
    }

    fn check_directory(&self, directory: &str) -> io::Result<()> {
        let is_there = directory.is_empty() || self.live.directories.contains(directory);
        if is_there { Ok(()) } else { Err(Errno::NOENT.into()) }
    }

    fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes.entry(inode).or_default()
    }

    /// Writes as much as there is room for. Returns how much that was.
    fn append(&mut self, inode: u64, bytes: &[u8]) -> usize {
        let room = self.capacity_bytes.saturating_sub(self.used_bytes());
        let written = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if written > 0 {
            self.inode(inode).append(&bytes[..written]);
        }
        written
    }
}

impl Drive {
    /// An empty disk.
    pub(crate) fn new() -> Drive {
        Drive(Arc::new(Mutex::new(State {
            inodes: BTreeMap::new(),
            next_inode: 1,
            live: Names::default(),
            durable: Names::default(),
            changes: Vec::new(),
            capacity_bytes: u64::MAX,
            faults: Vec::new(),
            tear: 0,
        })))
    }

    /// The disk as a new process sees it.
    pub(crate) fn of(&self, life: &Life) -> SimDisk {
        SimDisk { state: Arc::clone(&self.0), life: life.clone() }
    }

    /// The power goes, and comes back. Every life that used the disk must have ended.
    pub(crate) fn power_cut(&self, rng: &mut StdRng) {
        let mut state = self.0.lock();
        let changes = std::mem::take(&mut state.changes);
        let mut names = state.durable.clone();
        match rng.random_range(0..3) {
            // A journal that keeps the order of all changes.
            0 => {
                let kept = rng.random_range(0..=changes.len());
                changes[..kept].iter().for_each(|(_, change)| names.apply(change));
            }
            // Nothing that was not synced.
            1 => {}
            // Each or not.
            _ => {
                for (_, change) in &changes {
                    if rng.random_bool(0.5) {
                        names.apply(change);
                    }
                }
            }
        }
        names.drop_orphans();
        let named: BTreeSet<u64> = names.files.values().copied().collect();
        state.inodes.retain(|inode, _| named.contains(inode));
        state.inodes.values_mut().for_each(|inode| inode.cut(rng));
        state.live = names.clone();
        state.durable = names;
    }

    /// Sets how many bytes fit.
    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.0.lock().capacity_bytes = bytes;
    }

    /// Bytes in use.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.0.lock().used_bytes()
    }

    /// Adds a fault.
    pub(crate) fn add_fault(&self, fault: DiskFault, tear: usize) {
        let mut state = self.0.lock();
        state.tear = tear;
        state.faults.push(fault);
    }

    /// From now on nothing fails, and there is room.
    pub(crate) fn heal(&self) {
        let mut state = self.0.lock();
        state.faults.clear();
        state.capacity_bytes = u64::MAX;
    }

    /// Every file with its length, in order.
    pub(crate) fn files(&self) -> Vec<(String, u64)> {
        let state = self.0.lock();
        let length = |inode: &u64| state.inodes.get(inode).map_or(0, |inode| inode.live.len() as u64);
        state.live.files.iter().map(|(path, inode)| (path.clone(), length(inode))).collect()
    }

    /// The bytes of a file, as the machine sees them.
    pub(crate) fn read(&self, path: &str) -> Option<Vec<u8>> {
        let mut state = self.0.lock();
        let inode = state.inode_of(path).ok()?;
        Some(state.inode(inode).live.clone())
    }

    /// A disk with these files, all of them durable, in directories that are there.
    pub(crate) fn with(files: &[(String, Vec<u8>)]) -> Drive {
        let drive = Drive::new();
        for (path, bytes) in files {
            drive.put(path, bytes);
        }
        drive
    }

    /// A file with these bytes, in place of the one that was there.
    pub(crate) fn put(&self, path: &str, bytes: &[u8]) {
        let mut state = self.0.lock();
        let number = state.next_inode;
        state.next_inode += 1;
        let inode = Inode { live: bytes.to_vec(), durable: bytes.to_vec(), ..Inode::default() };
        state.inodes.insert(number, inode);
        let State { live, durable, .. } = &mut *state;
        for names in [live, durable] {
            names.files.insert(path.to_owned(), number);
            if !parent(path).is_empty() {
                names.directories.insert(parent(path).to_owned());
            }
        }
    }

    /// A file is gone.
    pub(crate) fn lose(&self, path: &str) {
        let mut state = self.0.lock();
        let State { live, durable, .. } = &mut *state;
        for names in [live, durable] {
            names.files.remove(path);
        }
    }

    /// The bytes of one file are written over another: a disk that missed the place.
    pub(crate) fn write_over(&self, from: &str, to: &str) {
        let mut state = self.0.lock();
        let (Ok(from), Ok(to)) = (state.inode_of(from), state.inode_of(to)) else { return };
        let bytes = state.inode(from).live.clone();
        *state.inode(to) = Inode { live: bytes.clone(), durable: bytes, ..Inode::default() };
    }

    /// Where the last append but one to a file began: the last one may have been cut short.
    pub(crate) fn last_whole_append(&self, path: &str) -> u64 {
        let mut state = self.0.lock();
        let Ok(inode) = state.inode_of(path) else { return 0 };
        state.inode(inode).appends.iter().rev().nth(1).map_or(0, |at| *at as u64)
    }

    /// Turns a bit of the first bytes of a file, as a disk does that ages. `at` is any number, taken as a remainder.
    /// Returns which byte.
    pub(crate) fn flip_bit(&self, path: &str, at: u64, bytes: u64) -> Option<u64> {
        let mut state = self.0.lock();
        let inode = state.live.files.get(path).copied()?;
        let inode = state.inode(inode);
        let bytes = bytes.min(inode.live.len() as u64);
        if bytes == 0 {
            return None;
        }
        let bits = bytes * 8;
        let (byte, bit) = ((at % bits) / 8, at % 8);
        let turn = |bytes: &mut Vec<u8>| {
            let found = bytes.get_mut(usize::try_from(byte).unwrap_or(usize::MAX));
            if let Some(found) = found {
                *found ^= 1 << bit;
            }
        };
        turn(&mut inode.live);
        turn(&mut inode.durable);
        Some(byte)
    }
}

impl SimDisk {
    /// The state, for a call that happens.
    fn call(&self, call: DiskCall, path: &str) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        begin(&self.state, &self.life, call, path)
    }

    fn file(&self, path: &str, inode: u64, writable: bool) -> Box<dyn DiskFile> {
        let (state, life) = (Arc::clone(&self.state), self.life.clone());
        Box::new(SimFile { state, life, path: path.to_owned(), inode, writable })
    }
}

fn begin<'a>(
    state: &'a Mutex<State>,
    life: &Life,
    call: DiskCall,
    path: &str,
) -> io::Result<parking_lot::MutexGuard<'a, State>> {
    if life.step() != Step::Alive {
        return Err(Life::over());
    }
    let mut state = state.lock();
    let failed = state.fault(call);
    life.trace.add(format_args!("disk: {call:?} {path}{}", if failed.is_err() { ": fails" } else { "" }));
    failed.map(|()| state)
}

impl Disk for SimDisk {
    fn create_directory(&self, directory: &str) -> io::Result<()> {
        let mut state = self.call(DiskCall::CreateDirectory, directory)?;
        let ends = directory.match_indices('/').map(|(at, _)| at).chain([directory.len()]);
        for end in ends {
            let path = &directory[..end];
            if !path.is_empty() && !state.live.directories.contains(path) {
                state.change(parent(path), NameChange::Directory(path.to_owned()));
            }
        }
        Ok(())
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let state = self.call(DiskCall::List, directory)?;
        state.check_directory(directory)?;
        let files = state.live.files.keys().filter(|path| parent(path) == directory);
        Ok(files.map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()).collect())
    }

    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.call(DiskCall::Create, path)?;
        state.check_directory(parent(path))?;
        let inode = match state.live.files.get(path).copied() {
            Some(inode) => {
                state.inode(inode).truncate(0);
                inode
            }
            None => {
                let inode = state.next_inode;
                state.next_inode += 1;
                state.inode(inode);
                state.change(parent(path), NameChange::Create(path.to_owned(), inode));
                inode
            }
        };
        Ok(self.file(path, inode, true))
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let state = self.call(DiskCall::Open, path)?;
        Ok(self.file(path, state.inode_of(path)?, false))
    }

    fn map(&self, path: &str, bytes: u64) -> io::Result<Bytes> {
        let mut state = self.call(DiskCall::Map, path)?;
        let inode = state.inode_of(path)?;
        let live = &state.inode(inode).live;
        if live.len() as u64 != bytes {
            return Err(io::Error::other(format!("the file has {} bytes, not {bytes}", live.len())));
        }
        Ok(mapped(live))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.call(DiskCall::Rename, &format!("{from} to {to}"))?;
        let inode = state.inode_of(from)?;
        state.check_directory(parent(to))?;
        if from != to {
            state.change(parent(to), NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.call(DiskCall::Remove, path)?;
        let inode = state.inode_of(path)?;
        state.change(parent(path), NameChange::Remove(path.to_owned(), inode));
        Ok(())
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let mut state = self.call(DiskCall::SyncDirectory, directory)?;
        state.check_directory(directory)?;
        let changes = std::mem::take(&mut state.changes);
        for (of, change) in changes {
            if of != directory {
                state.changes.push((of, change));
                continue;
            }
            state.durable.apply(&change);
            if let NameChange::Rename(from, _, inode) = &change {
                // The name it came from may have been made in another directory, and is not to come back.
                state.changes.retain(|(_, earlier)| {
                    !matches!(earlier, NameChange::Create(path, made) if path == from && made == inode)
                });
            }
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.call(DiskCall::FreeBytes, "")?;
        Ok(state.capacity_bytes.saturating_sub(state.used_bytes()))
    }
}

impl SimFile {
    fn call(&self, call: DiskCall, detail: &str) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        begin(&self.state, &self.life, call, &format!("{}{detail}", self.path))
    }

    fn check_writable(&self, errno: Errno) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(errno.into()) }
    }
}

impl DiskFile for SimFile {
    fn append(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        let bytes = pieces.concat();
        if bytes.is_empty() {
            return Ok(());
        }
        self.check_writable(Errno::BADF)?;
        let step = self.life.step();
        let mut state = self.state.lock();
        // Whoever is ended within a write has written a part of it.
        let part = torn(state.tear, bytes.len());
        match step {
            Step::Dead => return Err(Life::over()),
            Step::Dying => {
                state.append(self.inode, &bytes[..part]);
                return Err(Life::over());
            }
            Step::Alive => {}
        }
        let failed = state.fault(DiskCall::Append);
        let wanted = if failed.is_err() { &bytes[..part] } else { &bytes[..] };
        let written = state.append(self.inode, wanted);
        self.life.trace.add(format_args!("disk: Append {} {written} of {}", self.path, bytes.len()));
        failed?;
        if written < bytes.len() { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.life.step() != Step::Alive {
            return Err(Life::over());
        }
        let mut state = self.state.lock();
        let failed = state.fault(DiskCall::Sync);
        let inode = state.inode(self.inode);
        match &failed {
            Ok(()) => inode.sync(),
            Err(_) => inode.fail_to_sync(),
        }
        let outcome = if failed.is_err() { ": fails" } else { "" };
        self.life.trace.add(format_args!("disk: Sync {}{outcome}", self.path));
        failed
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.check_writable(Errno::INVAL)?;
        let mut state = self.call(DiskCall::Truncate, &format!(" to {bytes}"))?;
        let to = usize::try_from(bytes).map_err(|_| io::Error::from(Errno::FBIG))?;
        state.inode(self.inode).truncate(to);
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        if self.life.has_ended() {
            return Err(Life::over());
        }
        Ok(self.state.lock().inode(self.inode).live.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.call(DiskCall::Read, &format!(" {} at {offset}", into.len()))?;
        let live = &state.inode(self.inode).live;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(live.len());
        let read = into.len().min(live.len() - from);
        into[..read].copy_from_slice(&live[from..from + read]);
        Ok(read)
    }
}

#[cfg(test)]
#[path = "sim_disk/tests.rs"]
mod tests;
