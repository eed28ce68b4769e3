//! A disk in memory that knows what was synced, fails at a call one asks for, and loses power.
//!
//! After a failed sync it does what Linux does: the pages count as written, later syncs say that all is well, and a
//! power cut takes the bytes away all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};

/// What happens at the call that was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// It fails; later calls work.
    Once(io::ErrorKind),
    /// It fails, half done, and so do all later ones: the machine or the process is gone.
    Gone,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// Written back wrongly and counted as written.
    forgotten: Vec<Range<usize>>,
}

#[derive(Debug, Clone, Default)]
struct State {
    directories: BTreeSet<String>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    inodes: Vec<Inode>,
    calls: u64,
    faults: Vec<(u64, Fault)>,
    /// Calls by name.
    counts: BTreeMap<&'static str, u64>,
    /// Writes and syncs of a file after a sync of it failed.
    after_failed_sync: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct FakeDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct FakeFile {
    state: Arc<Mutex<State>>,
    inode: usize,
}

/// What survives a power cut beside what was synced.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unsynced {
    Gone,
    Kept,
    /// Each name and each 16 bytes by the toss of a coin.
    Torn(u64),
}

impl State {
    /// Counts a call. `Err` when it fails; with `true` when it is half done then.
    fn call(&mut self, name: &'static str) -> Result<(), (io::Error, bool)> {
        self.calls += 1;
        *self.counts.entry(name).or_default() += 1;
        let calls = self.calls;
        for (at, fault) in &self.faults {
            match fault {
                Fault::Once(kind) if calls == *at => return Err(((*kind).into(), true)),
                Fault::Gone if calls >= *at => {
                    return Err((io::ErrorKind::NotConnected.into(), calls == *at));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn inode(&self, path: &str) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl FakeDisk {
    pub(super) fn fail_at(&self, call: u64, fault: Fault) {
        self.0.lock().faults.push((call, fault));
    }

    pub(super) fn calls(&self) -> u64 {
        self.0.lock().calls
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        self.0.lock().counts.get(name).copied().unwrap_or_default()
    }

    pub(super) fn after_failed_sync(&self) -> u64 {
        self.0.lock().after_failed_sync
    }

    /// The disk as the next process finds it.
    pub(super) fn after_kill(&self) -> FakeDisk {
        let mut state = self.0.lock().clone();
        state.faults.clear();
        FakeDisk(Arc::new(Mutex::new(state)))
    }

    /// The disk as it is found after a power cut.
    pub(super) fn after_power_cut(&self, unsynced: Unsynced) -> FakeDisk {
        let mut state = self.0.lock().clone();
        state.faults.clear();
        let mut random = match unsynced {
            Unsynced::Torn(seed) => seed | 1,
            _ => 0,
        };
        let mut keep = || match unsynced {
            Unsynced::Gone => false,
            Unsynced::Kept => true,
            Unsynced::Torn(_) => {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random & 64 != 0
            }
        };
        let all: BTreeSet<String> = state.names.keys().chain(state.durable_names.keys()).cloned().collect();
        let mut names = BTreeMap::new();
        for name in all {
            let from = if keep() { &state.names } else { &state.durable_names };
            if let Some(inode) = from.get(&name) {
                names.insert(name, *inode);
            }
        }
        for inode in &mut state.inodes {
            let mut found = inode.durable.clone();
            let mut written = inode.bytes.clone();
            forget(&mut written, &inode.forgotten);
            if found.len() > written.len() && keep() {
                found.truncate(written.len());
            }
            for at in (0..written.len()).step_by(16) {
                let end = (at + 16).min(written.len());
                if inode.durable.get(at..end) != Some(&written[at..end]) && keep() {
                    found.resize(found.len().max(end), 0);
                    found[at..end].copy_from_slice(&written[at..end]);
                }
            }
            *inode = Inode { bytes: found.clone(), durable: found, forgotten: Vec::new() };
        }
        state.durable_names = names.clone();
        state.names = names;
        FakeDisk(Arc::new(Mutex::new(state)))
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.lock().names.keys().cloned().collect()
    }

    pub(super) fn bytes_of(&self, path: &str) -> Vec<u8> {
        let state = self.0.lock();
        state.inodes[state.names[path]].bytes.clone()
    }

    /// Puts a file there, durable.
    pub(super) fn put(&self, path: &str, bytes: &[u8]) {
        let mut state = self.0.lock();
        let inode = state.inodes.len();
        state.inodes.push(Inode { bytes: bytes.to_vec(), durable: bytes.to_vec(), forgotten: Vec::new() });
        state.directories.insert("wal".to_owned());
        state.names.insert(path.to_owned(), inode);
        state.durable_names.insert(path.to_owned(), inode);
    }

    pub(super) fn remove_now(&self, path: &str) {
        let mut state = self.0.lock();
        state.names.remove(path);
        state.durable_names.remove(path);
    }
}

fn forget(bytes: &mut [u8], forgotten: &[Range<usize>]) {
    for range in forgotten {
        let end = range.end.min(bytes.len());
        bytes[range.start.min(end)..end].fill(0);
    }
}

impl Disk for FakeDisk {
    fn create_directory(&self, directory: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.call("create_directory").map_err(|(error, _)| error)?;
        state.directories.insert(directory.to_owned());
        Ok(())
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut state = self.0.lock();
        state.call("list").map_err(|(error, _)| error)?;
        if !state.directories.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let prefix = format!("{directory}/");
        Ok(state.names.keys().filter_map(|name| Some(name.strip_prefix(&prefix)?.to_owned())).collect())
    }

    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        let outcome = state.call("create");
        if matches!(outcome, Ok(()) | Err((_, true))) {
            assert!(!state.names.contains_key(path), "{path} is there already");
            let inode = state.inodes.len();
            state.inodes.push(Inode::default());
            state.names.insert(path.to_owned(), inode);
        }
        outcome.map_err(|(error, _)| error)?;
        Ok(Box::new(FakeFile { state: self.0.clone(), inode: state.names[path] }))
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.call("open").map_err(|(error, _)| error)?;
        let inode = state.inode(path)?;
        Ok(Box::new(FakeFile { state: self.0.clone(), inode }))
    }

    fn map(&self, path: &str, _: u64) -> io::Result<Bytes> {
        let mut state = self.0.lock();
        state.call("map").map_err(|(error, _)| error)?;
        let inode = state.inode(path)?;
        Ok(Bytes::from(state.inodes[inode].bytes.clone()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        let outcome = state.call("rename");
        if matches!(outcome, Ok(()) | Err((_, true))) {
            let inode = state.inode(from)?;
            state.names.remove(from);
            state.names.insert(to.to_owned(), inode);
        }
        outcome.map_err(|(error, _)| error)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        let outcome = state.call("remove");
        if matches!(outcome, Ok(()) | Err((_, true))) {
            state.inode(path)?;
            state.names.remove(path);
        }
        outcome.map_err(|(error, _)| error)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.call("sync_directory").map_err(|(error, _)| error)?;
        if directory == "wal" {
            state.durable_names = state.names.clone();
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl DiskFile for FakeFile {
    fn append(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        let mut state = self.state.lock();
        let outcome = state.call("append");
        let bytes = pieces.concat();
        let written = match outcome {
            Ok(()) => bytes.len(),
            // Most of it, so that whole records of the group are in the file.
            Err((_, true)) => bytes.len() * 3 / 4,
            Err((_, false)) => 0,
        };
        state.after_failed_sync += u64::from(!state.inodes[self.inode].forgotten.is_empty());
        state.inodes[self.inode].bytes.extend_from_slice(&bytes[..written]);
        outcome.map_err(|(error, _)| error)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state.lock();
        let outcome = state.call("sync");
        state.after_failed_sync += u64::from(!state.inodes[self.inode].forgotten.is_empty());
        let inode = &mut state.inodes[self.inode];
        match outcome {
            Ok(()) => {
                inode.durable = inode.bytes.clone();
                forget(&mut inode.durable, &inode.forgotten);
                Ok(())
            }
            Err((error, true)) if error.kind() != io::ErrorKind::NotConnected => {
                let clean = inode.durable.len().min(inode.bytes.len());
                inode.forgotten.push(clean..inode.bytes.len());
                Err(error)
            }
            Err((error, _)) => Err(error),
        }
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call("truncate").map_err(|(error, _)| error)?;
        state.inodes[self.inode].bytes.truncate(bytes as usize);
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        let mut state = self.state.lock();
        state.call("bytes").map_err(|(error, _)| error)?;
        Ok(state.inodes[self.inode].bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        state.call("read_at").map_err(|(error, _)| error)?;
        let bytes = &state.inodes[self.inode].bytes;
        let from = &bytes[(offset as usize).min(bytes.len())..];
        let read = from.len().min(into.len());
        into[..read].copy_from_slice(&from[..read]);
        Ok(read)
    }
}
