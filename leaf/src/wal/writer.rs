//! What the one thread that writes does: files, groups, syncs, and what follows when one of them fails.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use uuid::Uuid;

use super::read::{WalContents, path_of};
use super::record::{encode_file_header, encode_record, file_name, padding, parse_file_name, seed_of};
use super::{DIRECTORY, Durability, Entry, Record, WalError, WalFile, WalSettings};
use crate::disk::{Disk, DiskFile};
use crate::planted::{Bug, planted};

/// The state of the log. Its owner holds a lock around it.
#[derive(Debug)]
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    settings: WalSettings,
    instance: Uuid,
    next_lsn: u64,
    durable_lsn: u64,
    next_serial: u64,
    /// The files, oldest first; `current` is the last of them.
    files: VecDeque<Held>,
    current: Option<Box<dyn DiskFile>>,
    /// What was acknowledged at level process and is not known to be durable: the last records before `next_lsn`.
    unsynced: VecDeque<Arc<Entry>>,
    unsynced_bytes: u64,
    /// A name was made that a power cut may take away.
    directory_is_dirty: bool,
    /// A sync failed, and what is in `unsynced` is not yet in a new file.
    poisoned: Option<String>,
    /// How often everything went to a new file.
    rewrites: u64,
    sync_failures: u64,
}

/// A file of the log and what it holds.
#[derive(Debug)]
pub(crate) struct Held {
    name: String,
    file: WalFile,
    /// It holds records that are not known to be durable.
    is_dirty: bool,
}

impl Held {
    pub(crate) fn path(&self) -> String {
        path_of(&self.name)
    }
}

/// What a sync in the background has to do, while others write on.
#[derive(Debug)]
pub(crate) struct SyncPlan {
    paths: Vec<String>,
    directory: bool,
    /// Everything up to this is durable afterwards.
    last_lsn: u64,
    rewrites: u64,
}

impl SyncPlan {
    /// Syncs the files through handles of its own.
    pub(crate) fn run(&self, disk: &dyn Disk) -> Result<(), (String, io::Error)> {
        for path in &self.paths {
            disk.open(path)
                .and_then(|mut file| sync_file(&mut *file))
                .map_err(|error| (path.clone(), error))?;
        }
        if self.directory {
            sync_directory(disk).map_err(|error| (DIRECTORY.to_owned(), error))?;
        }
        Ok(())
    }
}

fn sync_file(file: &mut dyn DiskFile) -> io::Result<()> {
    match file.sync() {
        Err(_) if planted(Bug::RetryAfterEio) => file.sync(),
        outcome => outcome,
    }
}

pub(crate) fn sync_directory(disk: &dyn Disk) -> io::Result<()> {
    if planted(Bug::DirectoryNotSynced) { Ok(()) } else { disk.sync_directory(DIRECTORY) }
}

impl Writer {
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        settings: WalSettings,
        contents: &WalContents,
    ) -> Result<Writer, WalError> {
        let made = disk.create_directory(DIRECTORY).and_then(|()| disk.sync_directory(""));
        made.map_err(|error| WalError::file("make directory", DIRECTORY, error))?;
        let serials = contents.files.iter().map(|found| found.serial);
        let leftovers =
            contents.leftovers.iter().filter_map(|name| parse_file_name(name.strip_suffix(".new")?));
        let last_serial = serials.chain(leftovers.map(|(serial, _)| serial)).max();
        for name in &contents.leftovers {
            // What stays is in nobody's way: its name is never used again.
            let _ = disk.remove(&path_of(name));
        }
        let held = |found: &super::read::FoundFile| Held {
            name: found.name.clone(),
            file: found.file.clone(),
            is_dirty: false,
        };
        let mut writer = Writer {
            disk,
            settings,
            instance: contents.instance,
            next_lsn: contents.next_lsn,
            durable_lsn: contents.durable_lsn.min(contents.next_lsn - 1),
            next_serial: last_serial.map_or(1, |serial| serial.saturating_add(1)),
            files: contents.files.iter().map(held).collect(),
            current: None,
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
            directory_is_dirty: true,
            poisoned: None,
            rewrites: 0,
            sync_failures: 0,
        };
        // A sync of these files may have failed in an earlier process, and a second one would say that all is well: what
        // is not known to be durable goes to a new file.
        let durable = writer.durable_lsn;
        for place in contents.places.iter().filter(|place| place.header.lsn > durable) {
            writer.keep(Arc::new(Entry::new(contents.record(place)?)));
            writer.poisoned = Some(contents.files[place.file].name.clone());
        }
        match writer.poisoned {
            // The records stay in the old files as well, where those who read the log behind this know them.
            Some(_) => _ = writer.write_anew(&[])?,
            None => {
                sync_directory(&*writer.disk).map_err(|error| WalError::file("sync", DIRECTORY, error))?;
                writer.directory_is_dirty = false;
            }
        }
        Ok(writer)
    }

    /// Makes the first file of a log that has none.
    pub(crate) fn begin(&mut self) -> Result<(), WalError> {
        if self.files.is_empty() { self.write_anew(&[]).map(|_| ()) } else { Ok(()) }
    }

    pub(crate) fn durable_lsn(&self) -> u64 {
        self.durable_lsn
    }

    pub(crate) fn written_lsn(&self) -> u64 {
        self.next_lsn - 1
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|held| held.file.bytes).sum()
    }

    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes
    }

    pub(crate) fn sync_failures(&self) -> u64 {
        self.sync_failures
    }

    pub(crate) fn files(&self) -> Vec<WalFile> {
        self.files.iter().map(|held| held.file.clone()).collect()
    }

    /// Writes a group as durably as the level says. Returns the LSN of its first record.
    pub(crate) fn write(&mut self, group: &[Arc<Entry>]) -> Result<u64, WalError> {
        let first = self.next_lsn;
        if self.poisoned.is_some() {
            self.rewrite(group)?
        } else {
            self.append(group)?
        }
        self.next_lsn = first.saturating_add(group.len() as u64);
        Ok(first)
    }

    /// Adds a group to the current file.
    fn append(&mut self, group: &[Arc<Entry>]) -> Result<(), WalError> {
        let first = self.next_lsn;
        let (mut file, index) = self.current_file()?;
        let held = &mut self.files[index];
        let path = held.path();
        let (name, first_of_file, before) = (held.name.clone(), held.file.first_lsn, held.file.bytes);
        let mut target = Target { file: &mut *file, name: &name, instance: self.instance, bytes: before };
        if let Err(error) = target.append(first_of_file, group.iter(), first, self.durable_lsn) {
            let gone = self.withdraw(file, before);
            return Err(WalError::Append { file: path, gone, source: Arc::new(error) });
        }
        held.file.bytes = target.bytes;
        if self.settings.level == Durability::Power {
            if !planted(Bug::AckBeforeSync)
                && let Err(error) = self.sync_new(&mut *file)
            {
                self.poison(path, error);
                return self.rewrite(group);
            }
            self.durable_lsn = first.saturating_add(group.len() as u64 - 1);
        } else {
            self.files[index].is_dirty = true;
            group.iter().for_each(|entry| self.keep(entry.clone()));
        }
        self.note(index, group, first);
        self.current = Some(file);
        Ok(())
    }

    /// The file to append to, taken out, and its place among the files. A new one when the last is full or closed.
    fn current_file(&mut self) -> Result<(Box<dyn DiskFile>, usize), WalError> {
        let full = self.files.back().is_none_or(|held| held.file.bytes >= self.settings.file_bytes_max);
        if let Some(file) = self.current.take()
            && !full
        {
            return Ok((file, self.files.len() - 1));
        }
        let name = self.new_name(self.next_lsn);
        let path = path_of(&name);
        match self.disk.create(&path) {
            Ok(file) => {
                self.directory_is_dirty = true;
                self.files.push_back(Held { name, file: WalFile::empty(self.next_lsn), is_dirty: false });
                Ok((file, self.files.len() - 1))
            }
            Err(error) => {
                // It may be there all the same. Nothing is in it.
                let _ = self.disk.remove(&path);
                Err(WalError::Append { file: path, gone: true, source: Arc::new(error) })
            }
        }
    }

    /// Makes what was just appended durable, and the name of its file.
    fn sync_new(&mut self, file: &mut dyn DiskFile) -> io::Result<()> {
        sync_file(file)?;
        if self.directory_is_dirty {
            sync_directory(&*self.disk)?;
            self.directory_is_dirty = false;
        }
        Ok(())
    }

    /// Takes a group back that was not wholly appended, and leaves the file alone from now on. Says whether nothing
    /// of the group can be found again.
    fn withdraw(&mut self, mut file: Box<dyn DiskFile>, bytes_before: u64) -> bool {
        let cut = file.truncate(bytes_before);
        let bytes = file.bytes().unwrap_or(bytes_before);
        let outcome = cut.and_then(|()| file.sync());
        let gone = outcome.is_ok();
        let Some(held) = self.files.back_mut() else { return gone };
        held.file.bytes = bytes;
        let path = held.path();
        if bytes_before == 0 && self.disk.remove(&path).is_ok() {
            self.files.pop_back();
        } else if let Err(error) = outcome
            && !self.unsynced.is_empty()
        {
            self.poison(path, error);
        }
        gone
    }

    /// Notes that a sync failed: the file is neither written nor synced again.
    fn poison(&mut self, file: String, error: io::Error) {
        self.sync_failures += 1;
        self.current = None;
        self.poisoned = Some(format!("{file}: {error}"));
    }

    /// After a failed sync: writes everything that is not known to be durable, and a group, to a new file. The file
    /// gets its name when all of that is in it and durable, because from then on earlier ones do not count.
    fn rewrite(&mut self, group: &[Arc<Entry>]) -> Result<(), WalError> {
        let first = self.write_anew(group)?;
        self.retire_before(first);
        Ok(())
    }

    /// Writes everything that is not known to be durable, and a group, to a new file, and leaves the old ones as they
    /// are. Returns the first LSN of the new one.
    fn write_anew(&mut self, group: &[Arc<Entry>]) -> Result<u64, WalError> {
        let first = self.next_lsn - self.unsynced.len() as u64;
        let name = self.new_name(first);
        let (path, new) = (path_of(&name), format!("{}.new", path_of(&name)));
        let entries: Vec<Arc<Entry>> = self.unsynced.iter().chain(group).cloned().collect();
        let written = self.disk.create(&new).and_then(|mut file| {
            let mut target = Target { file: &mut *file, name: &name, instance: self.instance, bytes: 0 };
            target.append(first, entries.iter(), first, self.durable_lsn)?;
            let bytes = target.bytes;
            file.sync()?;
            self.disk.rename(&new, &path)?;
            Ok((file, bytes))
        });
        let failed = |error| WalError::Sync { file: path.clone(), source: Arc::new(error) };
        let (file, bytes) = match written {
            Ok(written) => written,
            Err(error) => {
                let _ = self.disk.remove(&new);
                return Err(failed(error));
            }
        };
        self.files.push_back(Held {
            name,
            file: WalFile { bytes, ..WalFile::empty(first) },
            is_dirty: false,
        });
        self.directory_is_dirty = true;
        if let Err(error) = sync_directory(&*self.disk) {
            self.sync_failures += 1;
            return Err(failed(error));
        }
        self.directory_is_dirty = false;
        self.note(self.files.len() - 1, &entries, first);
        self.current = Some(file);
        self.durable_lsn = first.saturating_add(entries.len() as u64).saturating_sub(1);
        self.unsynced.clear();
        self.unsynced_bytes = 0;
        self.poisoned = None;
        self.rewrites += 1;
        Ok(first)
    }

    /// Begins a new file, unless the newest has no record yet. The old ones stay as they are.
    pub(crate) fn rotate(&mut self) -> Result<(), WalError> {
        let has_records = |held: &Held| held.file.last_lsn >= held.file.first_lsn;
        if self.files.back().is_some_and(has_records) {
            self.write_anew(&[])?;
        }
        Ok(())
    }

    /// The last file has everything from an LSN on: what others have of it does not count any more.
    fn retire_before(&mut self, first_lsn: u64) {
        let last = self.files.pop_back();
        let disk = &self.disk;
        self.files.retain_mut(|held| {
            held.is_dirty = false;
            held.file.last_lsn = held.file.last_lsn.min(first_lsn - 1);
            // Nothing of it counts: it may go, and stays without harm when it cannot.
            held.file.first_lsn < first_lsn || disk.remove(&held.path()).is_err()
        });
        self.files.extend(last);
    }

    /// After a failed sync in the background: everything not known to be durable to a new file.
    pub(crate) fn mend(&mut self) -> Result<(), WalError> {
        if self.poisoned.is_some() && !self.unsynced.is_empty() {
            self.rewrite(&[])?;
        }
        Ok(())
    }

    /// What there is to sync in the background.
    pub(crate) fn plan_sync(&mut self) -> Option<SyncPlan> {
        (self.poisoned.is_none() && !self.unsynced.is_empty()).then(|| self.plan_sync_of_dirty())
    }

    fn plan_sync_of_dirty(&mut self) -> SyncPlan {
        SyncPlan {
            paths: self.files.iter().filter(|held| held.is_dirty).map(Held::path).collect(),
            directory: std::mem::take(&mut self.directory_is_dirty),
            last_lsn: self.next_lsn - 1,
            rewrites: self.rewrites,
        }
    }

    /// Notes the outcome of a sync in the background.
    pub(crate) fn finish_sync(&mut self, plan: &SyncPlan, outcome: Result<(), (String, io::Error)>) {
        if self.rewrites != plan.rewrites {
            // Everything that was to be synced has gone to a new file meanwhile, and is durable there.
            return;
        }
        if let Err((file, error)) = outcome {
            self.poison(file, error);
        }
        if self.poisoned.is_some() {
            self.directory_is_dirty = true;
            return;
        }
        self.advance(plan.last_lsn);
        for held in self.files.iter_mut().filter(|held| held.file.last_lsn <= plan.last_lsn) {
            held.is_dirty = false;
        }
    }

    /// Everything up to an LSN is durable, or not needed any more.
    fn advance(&mut self, last_lsn: u64) {
        self.durable_lsn = self.durable_lsn.max(last_lsn);
        let keep =
            usize::try_from((self.next_lsn - 1).saturating_sub(self.durable_lsn)).unwrap_or(usize::MAX);
        while self.unsynced.len() > keep {
            let entry = self.unsynced.pop_front();
            self.unsynced_bytes -= entry.map_or(0, |entry| entry.record.body().len() as u64);
        }
    }

    /// Takes the oldest file out when all its records are below an LSN and it is not the newest.
    pub(crate) fn take_oldest(&mut self, below_lsn: u64) -> Option<Held> {
        let oldest = self.files.front()?;
        (self.files.len() > 1 && oldest.file.last_lsn < below_lsn).then(|| self.files.pop_front()).flatten()
    }

    /// The file that was taken out could not be removed.
    pub(crate) fn put_back(&mut self, held: Held) {
        self.files.push_front(held);
    }

    /// The file that was taken out was removed.
    pub(crate) fn forget(&mut self, held: &Held) {
        // One without a record that counts says nothing of those that have its numbers now, in another file.
        if held.file.last_lsn >= held.file.first_lsn {
            self.advance(held.file.last_lsn);
        }
    }

    /// Keeps a record in memory until it is known to be durable.
    fn keep(&mut self, entry: Arc<Entry>) {
        self.unsynced_bytes += entry.record.body().len() as u64;
        self.unsynced.push_back(entry);
    }

    fn note(&mut self, index: usize, entries: &[Arc<Entry>], first_lsn: u64) {
        let file = &mut self.files[index].file;
        for (lsn, entry) in (first_lsn..).zip(entries) {
            file.last_lsn = lsn;
            if let Record::Rows(rows) = &entry.record {
                file.note_rows(&rows.header);
            }
        }
    }

    /// A name that no file had before.
    fn new_name(&mut self, first_lsn: u64) -> String {
        let name = file_name(self.next_serial, first_lsn);
        self.next_serial = self.next_serial.saturating_add(1);
        name
    }
}

impl WalFile {
    fn empty(first_lsn: u64) -> WalFile {
        WalFile { first_lsn, last_lsn: first_lsn - 1, bytes: 0, tables: BTreeMap::new() }
    }
}

/// A file that records are appended to.
struct Target<'a> {
    file: &'a mut dyn DiskFile,
    name: &'a str,
    instance: Uuid,
    /// Its length.
    bytes: u64,
}

impl Target<'_> {
    /// Appends records with one call, and the file's header before the first of them. Bodies are not copied.
    fn append<'e>(
        &mut self,
        first_lsn_of_file: u64,
        entries: impl Iterator<Item = &'e Arc<Entry>> + Clone,
        first_lsn: u64,
        durable_lsn: u64,
    ) -> io::Result<()> {
        let serial = parse_file_name(self.name).map_or(0, |(serial, _)| serial);
        let seed = seed_of(self.instance, serial);
        let (mut headers, mut ends) = (Vec::new(), Vec::new());
        if self.bytes == 0 {
            headers.extend_from_slice(&encode_file_header(self.instance, serial, first_lsn_of_file));
        }
        for (lsn, entry) in (first_lsn..).zip(entries.clone()) {
            encode_record(&mut headers, &entry.record, entry.body_xxh3(), lsn, durable_lsn, seed);
            ends.push(headers.len());
        }
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(ends.len() * 3);
        let mut start = 0;
        for (end, entry) in ends.into_iter().zip(entries) {
            let body = entry.record.body();
            pieces.push(&headers[start..end]);
            pieces.push(body);
            pieces.push(&[0; 8][..padding(body.len() as u64) as usize]);
            start = end;
        }
        self.file.append(&pieces)?;
        self.bytes += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        Ok(())
    }
}
