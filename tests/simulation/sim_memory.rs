//! Shared memory in memory: see [`gannet_shm::SharedMemory`] for its contract.
//!
//! Segments survive the process and not the machine. Ownership ends with its value, and with the life of the process
//! that had it. Memory is taken page by page, by what is written, so that it can run out in the middle of a segment.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use gannet_shm::{
    HEADER_BYTES, Header, MappedSegment, Region, RegionEnd, SegmentAccess, SegmentName, SegmentWrite,
    Segments, SharedMemory, ShmError, VALID_MARK,
};
use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;

use crate::life::{Life, Step};
use crate::sim_disk::{mapped, torn};

const PAGE_BYTES: usize = 4096;

/// The kinds of calls, for faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MemoryCall {
    Create,
    Open,
    Map,
    Read,
    Write,
    Finish,
    Unlink,
    List,
    Available,
}

/// Calls that fail: those of one kind from the `nth` on, counted from 1 when the fault is set.
#[derive(Debug, Clone)]
pub(crate) struct MemoryFault {
    pub(crate) call: MemoryCall,
    pub(crate) nth: u64,
    pub(crate) times: u64,
    /// ENOSPC is no space, EWOULDBLOCK a segment in use, everything else the system's refusal.
    pub(crate) errno: Errno,
}

#[derive(Debug)]
struct Segment {
    bytes: Vec<u8>,
    /// Pages that take memory.
    pages: BTreeSet<usize>,
    /// Who has it now, by the number of the value that does.
    owner: Option<(u64, Life)>,
}

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<u64, Segment>,
    names: BTreeMap<SegmentName, u64>,
    next: u64,
    capacity_bytes: Option<u64>,
    faults: Vec<MemoryFault>,
    /// The first promise of the catalogue that was broken.
    broken: Option<String>,
    /// How much of a write happens before it fails: the greatest number is all, others are taken as a remainder.
    tear: usize,
}

/// What survives processes: the shared memory of the machine. Clones are the same memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<State>>);

/// What shared memory held at some time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot(Vec<(SegmentName, Vec<u8>, BTreeSet<usize>)>);

/// Shared memory as one life of a process sees it.
#[derive(Debug, Clone)]
pub(crate) struct SimMemory {
    state: Arc<Mutex<State>>,
    life: Life,
}

/// A segment that one life has: by a writer, a mapping, or an opening.
#[derive(Debug)]
struct Owned {
    state: Arc<Mutex<State>>,
    life: Life,
    name: SegmentName,
    segment: u64,
    token: u64,
    size_bytes: u64,
}

#[derive(Debug)]
struct Writer {
    owned: Owned,
    finished: bool,
}

#[derive(Debug)]
struct Access(Owned);

#[derive(Debug, Default)]
struct Claims {
    /// Ranges by their start, with their end, and whether they were given back.
    spans: BTreeMap<usize, (usize, bool)>,
    kept: Vec<Range<usize>>,
    unlink_when_empty: bool,
}

#[derive(Debug)]
struct Map {
    owned: Owned,
    claims: Mutex<Claims>,
}

/// A range in use: what it held when it was asked for, as nobody writes to what is mapped.
struct Piece {
    map: Arc<Map>,
    range: Range<usize>,
    bytes: Bytes,
}

impl Segment {
    /// The first byte of a range that has no memory.
    fn first_hole(&self, range: &Range<usize>) -> Option<usize> {
        let pages = range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES);
        let mut holes = pages.filter(|page| !self.pages.contains(page));
        holes.next().map(|page| range.start.max(page * PAGE_BYTES))
    }
}

impl State {
    fn fault(&mut self, call: MemoryCall) -> Option<Errno> {
        let mut failed = None;
        for fault in self.faults.iter_mut().filter(|fault| fault.call == call) {
            if fault.nth > 1 {
                fault.nth -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                failed = Some(fault.errno);
            }
        }
        self.faults.retain(|fault| fault.times > 0);
        failed
    }

    /// Memory goes with the last who has it, and those whose process ended have nothing.
    fn sweep(&mut self) {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.segments.retain(|id, segment| {
            segment.owner.take_if(|(_, life)| life.has_ended());
            named.contains(id) || segment.owner.is_some()
        });
    }

    fn available(&mut self) -> u64 {
        self.sweep();
        let used: usize = self.segments.values().map(|segment| segment.pages.len() * PAGE_BYTES).sum();
        self.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(used as u64))
    }

    /// Gives memory to what was never written.
    fn fill(&mut self, segment: u64) -> Result<(), Errno> {
        let room = self.available() / PAGE_BYTES as u64;
        let Some(segment) = self.segments.get_mut(&segment) else { return Ok(()) };
        let pages = 0..segment.bytes.len().div_ceil(PAGE_BYTES);
        let holes: Vec<usize> = pages.filter(|page| !segment.pages.contains(page)).collect();
        let filled = holes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        segment.pages.extend(&holes[..filled]);
        if filled < holes.len() { Err(Errno::NOSPC) } else { Ok(()) }
    }

    /// Writes page by page as long as there is memory. Whether all was written.
    fn write(&mut self, segment: u64, at: usize, bytes: &[u8]) -> bool {
        let mut room = self.available() / PAGE_BYTES as u64;
        let Some(segment) = self.segments.get_mut(&segment) else { return true };
        let mut from = at;
        while from < at + bytes.len() {
            let page = from / PAGE_BYTES;
            if segment.pages.insert(page) {
                if room == 0 {
                    segment.pages.remove(&page);
                    return false;
                }
                room -= 1;
            }
            let to = ((page + 1) * PAGE_BYTES).min(at + bytes.len());
            segment.bytes[from..to].copy_from_slice(&bytes[from - at..to - at]);
            from = to;
        }
        true
    }
}

fn is_catalogue(name: &SegmentName) -> bool {
    name.as_str().ends_with("-catalogue")
}

/// Whether the catalogue in these bytes says that it is valid.
fn is_valid(bytes: &[u8]) -> bool {
    bytes.get(HEADER_BYTES - 8..HEADER_BYTES) == Some(&VALID_MARK.to_le_bytes()[..])
}

impl Shelf {
    /// The memory as a new process sees it.
    pub(crate) fn of(&self, life: &Life) -> SimMemory {
        SimMemory { state: Arc::clone(&self.0), life: life.clone() }
    }

    /// Everything is gone: the power was, or the container moved. Every life that used it must have ended.
    pub(crate) fn lose(&self) {
        let mut state = self.0.lock();
        state.names.clear();
        state.segments.clear();
    }

    /// What it holds now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.0.lock();
        let segments = state.names.iter().filter_map(|(name, id)| {
            let segment = state.segments.get(id)?;
            Some((name.clone(), segment.bytes.clone(), segment.pages.clone()))
        });
        Snapshot(segments.collect())
    }

    /// Puts back what it held, in place of all it holds. Every life that used it must have ended.
    pub(crate) fn restore(&self, snapshot: &Snapshot) {
        self.lose();
        let mut state = self.0.lock();
        for (name, bytes, pages) in &snapshot.0 {
            let id = state.next;
            state.next += 1;
            state.names.insert(name.clone(), id);
            let segment = Segment { bytes: bytes.clone(), pages: pages.clone(), owner: None };
            state.segments.insert(id, segment);
        }
    }

    /// Every segment with its size, in order of name.
    pub(crate) fn segments(&self) -> Vec<(SegmentName, u64)> {
        let state = self.0.lock();
        let size = |id: &u64| state.segments.get(id).map_or(0, |segment| segment.bytes.len() as u64);
        state.names.iter().map(|(name, id)| (name.clone(), size(id))).collect()
    }

    /// The header and the payload of the catalogue, if there is one that can be read.
    pub(crate) fn catalogue(&self) -> Option<(Header, Vec<u8>)> {
        let state = self.0.lock();
        let (_, id) = state.names.iter().find(|(name, _)| is_catalogue(name))?;
        let bytes = &state.segments.get(id)?.bytes;
        let header = Header::decode(bytes.get(..HEADER_BYTES)?).ok()?;
        Some((header, bytes[HEADER_BYTES..].to_vec()))
    }

    /// Which promise of the catalogue was broken, if one was: its mark is set last, and cleared before its payload is
    /// read.
    pub(crate) fn broken_promise(&self) -> Option<String> {
        self.0.lock().broken.take()
    }

    /// The bytes of a segment.
    pub(crate) fn read(&self, name: &SegmentName) -> Option<Vec<u8>> {
        let state = self.0.lock();
        Some(state.segments.get(state.names.get(name)?)?.bytes.clone())
    }

    /// A segment with these bytes, in place of the one that was there. Every life that used it must have ended.
    pub(crate) fn put(&self, name: &SegmentName, bytes: &[u8]) {
        let mut state = self.0.lock();
        let id = state.next;
        state.next += 1;
        let pages = (0..bytes.len().div_ceil(PAGE_BYTES)).collect();
        state.names.insert(name.clone(), id);
        state.segments.insert(id, Segment { bytes: bytes.to_vec(), pages, owner: None });
    }

    /// A segment is gone. Every life that used it must have ended.
    pub(crate) fn remove(&self, name: &SegmentName) {
        let mut state = self.0.lock();
        state.names.remove(name);
        state.sweep();
    }

    /// Copies the bytes of one segment over another of the same size.
    pub(crate) fn write_over(&self, from: &SegmentName, to: &SegmentName) {
        let mut state = self.0.lock();
        let (Some(from), Some(to)) = (state.names.get(from).copied(), state.names.get(to).copied()) else {
            return;
        };
        let Some(bytes) = state.segments.get(&from).map(|segment| segment.bytes.clone()) else { return };
        if let Some(segment) =
            state.segments.get_mut(&to).filter(|segment| segment.bytes.len() == bytes.len())
        {
            segment.bytes = bytes;
        }
    }

    /// Sets how many bytes there are, or that nobody limits them.
    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity_bytes = bytes;
    }

    /// Adds a fault.
    pub(crate) fn add_fault(&self, fault: MemoryFault, tear: usize) {
        let mut state = self.0.lock();
        state.tear = tear;
        state.faults.push(fault);
    }

    /// From now on nothing fails, and there is room.
    pub(crate) fn heal(&self) {
        let mut state = self.0.lock();
        state.faults.clear();
        state.capacity_bytes = None;
    }

    /// Turns a bit of a segment. `at` is any number, taken as a remainder.
    pub(crate) fn flip_bit(&self, name: &SegmentName, at: u64) {
        let mut state = self.0.lock();
        let Some(id) = state.names.get(name).copied() else { return };
        if let Some(segment) = state.segments.get_mut(&id) {
            let bit = at % (segment.bytes.len() as u64 * 8).max(1);
            if let Some(byte) = segment.bytes.get_mut(usize::try_from(bit / 8).unwrap_or(usize::MAX)) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }
}

fn over(action: &'static str, name: &SegmentName) -> ShmError {
    ShmError::System { action, subject: name.to_string(), source: Life::over() }
}

fn refused(action: &'static str, name: &SegmentName, bytes: u64, errno: Errno, available: u64) -> ShmError {
    match errno {
        Errno::NOSPC => ShmError::NoSpace { name: name.clone(), bytes, available_bytes: available },
        Errno::WOULDBLOCK => ShmError::Busy { name: name.clone() },
        errno => ShmError::System { action, subject: name.to_string(), source: io::Error::from(errno) },
    }
}

impl SimMemory {
    fn call(
        &self,
        call: MemoryCall,
        action: &'static str,
        name: &SegmentName,
    ) -> Result<MutexGuard<'_, State>, ShmError> {
        if self.life.step() != Step::Alive {
            return Err(over(action, name));
        }
        let mut state = self.state.lock();
        let failed = state.fault(call);
        self.life.trace.add(format_args!(
            "shared memory: {call:?} {}{}",
            suffix(name),
            if failed.is_some() { ": fails" } else { "" }
        ));
        match failed {
            None => Ok(state),
            Some(errno) => Err(refused(action, name, 0, errno, 0)),
        }
    }

    fn own(&self, state: &mut State, name: &SegmentName, id: u64) -> Result<Owned, ShmError> {
        let token = state.next;
        state.next += 1;
        state.sweep();
        let Some(segment) = state.segments.get_mut(&id) else {
            return Err(ShmError::Missing { name: name.clone() });
        };
        if segment.owner.is_some() {
            return Err(ShmError::Busy { name: name.clone() });
        }
        segment.owner = Some((token, self.life.clone()));
        let size_bytes = segment.bytes.len() as u64;
        let (state, life) = (Arc::clone(&self.state), self.life.clone());
        Ok(Owned { state, life, name: name.clone(), segment: id, token, size_bytes })
    }

    fn own_named(&self, call: MemoryCall, name: &SegmentName) -> Result<Owned, ShmError> {
        let mut state = self.call(call, "open segment", name)?;
        let id = state.names.get(name).copied().ok_or_else(|| ShmError::Missing { name: name.clone() })?;
        self.own(&mut state, name, id)
    }
}

/// A name without the instance, which is drawn at random.
fn suffix(name: &SegmentName) -> &str {
    name.as_str().get("/gannet-".len() + 36..).unwrap_or(name.as_str())
}

impl SharedMemory for SimMemory {
    fn create(&self, name: &SegmentName, size_bytes: u64) -> Result<Box<dyn SegmentWrite>, ShmError> {
        let limit_bytes = isize::MAX as u64;
        let size = usize::try_from(size_bytes).ok().filter(|size| *size > 0 && size_bytes <= limit_bytes);
        let Some(size) = size else {
            return Err(ShmError::SegmentBytes { name: name.clone(), bytes: size_bytes, limit_bytes });
        };
        let mut state = self.call(MemoryCall::Create, "create segment", name)?;
        let available_bytes = state.available();
        if size_bytes > available_bytes {
            return Err(ShmError::NoSpace { name: name.clone(), bytes: size_bytes, available_bytes });
        }
        if state.names.contains_key(name) {
            return Err(ShmError::Exists { name: name.clone() });
        }
        let id = state.next;
        state.next += 1;
        state.segments.insert(id, Segment { bytes: vec![0; size], pages: BTreeSet::new(), owner: None });
        state.names.insert(name.clone(), id);
        Ok(Box::new(Writer { owned: self.own(&mut state, name, id)?, finished: false }))
    }

    fn open(&self, name: &SegmentName) -> Result<Box<dyn SegmentAccess>, ShmError> {
        Ok(Box::new(Access(self.own_named(MemoryCall::Open, name)?)))
    }

    fn map(&self, name: &SegmentName, expected_bytes: u64) -> Result<Arc<dyn MappedSegment>, ShmError> {
        let owned = self.own_named(MemoryCall::Map, name)?;
        if owned.size_bytes != expected_bytes {
            let found = owned.size_bytes;
            return Err(ShmError::Size { name: name.clone(), found, expected: expected_bytes });
        }
        Ok(Arc::new(Map { owned, claims: Mutex::default() }))
    }

    fn unlink(&self, name: &SegmentName) -> Result<(), ShmError> {
        let mut state = self.call(MemoryCall::Unlink, "unlink segment", name)?;
        let removed = state.names.remove(name);
        state.sweep();
        removed.map(|_| ()).ok_or_else(|| ShmError::Missing { name: name.clone() })
    }

    fn list(&self, segments: &Segments) -> Result<Vec<SegmentName>, ShmError> {
        let state = self.call(MemoryCall::List, "list", &segments.catalogue())?;
        Ok(state.names.keys().filter(|name| name.as_str().starts_with(segments.prefix())).cloned().collect())
    }

    fn available_bytes(&self) -> Result<u64, ShmError> {
        let failed =
            |source| ShmError::System { action: "read free space of", subject: "/dev/shm".into(), source };
        if self.life.step() != Step::Alive {
            return Err(failed(Life::over()));
        }
        let mut state = self.state.lock();
        match state.fault(MemoryCall::Available) {
            Some(errno) => Err(failed(errno.into())),
            None => Ok(state.available()),
        }
    }
}

impl Owned {
    fn range(&self, offset: u64, bytes: usize) -> Result<Range<usize>, ShmError> {
        let end = offset.checked_add(bytes as u64).filter(|end| *end <= self.size_bytes);
        match (usize::try_from(offset), end) {
            (Ok(start), Some(_)) => Ok(start..start + bytes),
            _ => Err(ShmError::OutOfBounds {
                name: self.name.clone(),
                start: offset,
                end: offset.saturating_add(bytes as u64),
                size: self.size_bytes,
            }),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), ShmError> {
        let range = self.range(offset, bytes.len())?;
        let step = self.life.step();
        let mut state = self.state.lock();
        // Whoever is ended within a write has written a part of it.
        let part = torn(state.tear, bytes.len());
        match step {
            Step::Dead => return Err(over("write segment", &self.name)),
            Step::Dying => {
                state.write(self.segment, range.start, &bytes[..part]);
                return Err(over("write segment", &self.name));
            }
            Step::Alive => {}
        }
        let failed = state.fault(MemoryCall::Write);
        let written = if failed.is_some() { &bytes[..part] } else { bytes };
        let fits = state.write(self.segment, range.start, written);
        let valid = state.segments.get(&self.segment).is_some_and(|segment| is_valid(&segment.bytes));
        if is_catalogue(&self.name) && range.start >= HEADER_BYTES && valid {
            state.broken = Some("the catalogue was written while its valid mark was set".to_owned());
        }
        let said = if failed.is_some() || !fits { ": fails" } else { "" };
        self.life.trace.add(format_args!(
            "shared memory: Write {} {} at {offset}{said}",
            suffix(&self.name),
            bytes.len()
        ));
        match failed {
            None if fits => Ok(()),
            failed => {
                let errno = failed.unwrap_or(Errno::NOSPC);
                Err(refused("write segment", &self.name, self.size_bytes, errno, state.available()))
            }
        }
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, ShmError> {
        if self.life.step() != Step::Alive {
            return Err(over("read segment", &self.name));
        }
        let mut state = self.state.lock();
        if let Some(errno) = state.fault(MemoryCall::Read) {
            return Err(refused("read segment", &self.name, 0, errno, 0));
        }
        let Some(segment) = state.segments.get(&self.segment) else { return Ok(0) };
        if is_catalogue(&self.name) && offset >= HEADER_BYTES as u64 && is_valid(&segment.bytes) {
            state.broken = Some("the catalogue was read while its valid mark was set".to_owned());
        }
        let Some(segment) = state.segments.get(&self.segment) else { return Ok(0) };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(segment.bytes.len());
        let read = into.len().min(segment.bytes.len() - from);
        into[..read].copy_from_slice(&segment.bytes[from..from + read]);
        Ok(read)
    }

    /// Removes the name when it still leads to this segment.
    fn unlink_same(&self) {
        if self.life.has_ended() {
            return;
        }
        let mut state = self.state.lock();
        if state.names.get(&self.name) == Some(&self.segment) {
            state.names.remove(&self.name);
            self.life.trace.add(format_args!("shared memory: the name {} goes", suffix(&self.name)));
        }
        state.sweep();
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if self.life.has_ended() {
            return;
        }
        let mut state = self.state.lock();
        if let Some(segment) = state.segments.get_mut(&self.segment) {
            segment.owner.take_if(|(token, _)| *token == self.token);
        }
        state.sweep();
    }
}

impl SegmentWrite for Writer {
    fn name(&self) -> &SegmentName {
        &self.owned.name
    }

    fn size_bytes(&self) -> u64 {
        self.owned.size_bytes
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ShmError> {
        self.owned.write_at(offset, bytes)
    }

    fn finish(mut self: Box<Self>) -> Result<(), ShmError> {
        let name = &self.owned.name;
        if self.owned.life.step() != Step::Alive {
            return Err(over("finish segment", name));
        }
        let mut state = self.owned.state.lock();
        if let Some(errno) = state.fault(MemoryCall::Finish) {
            return Err(refused("finish segment", name, 0, errno, 0));
        }
        if let Some(errno) = state.fill(self.owned.segment).err() {
            return Err(refused("fill segment", name, self.owned.size_bytes, errno, state.available()));
        }
        match state.names.get(name) {
            Some(id) if *id == self.owned.segment => {}
            Some(_) => return Err(ShmError::Replaced { name: name.clone() }),
            None => return Err(ShmError::Missing { name: name.clone() }),
        }
        self.owned.life.trace.add(format_args!("shared memory: Finish {}", suffix(name)));
        drop(state);
        self.finished = true;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            self.owned.unlink_same();
        }
    }
}

impl SegmentAccess for Access {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, ShmError> {
        self.0.read_at(offset, into)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ShmError> {
        self.0.write_at(offset, bytes)
    }
}

impl Claims {
    fn is_empty_for_good(&self) -> bool {
        let in_use = self.spans.values().any(|(_, released)| !released);
        self.unlink_when_empty && !in_use && self.kept.is_empty() && !self.spans.is_empty()
    }
}

impl MappedSegment for Map {
    fn name(&self) -> &SegmentName {
        &self.owned.name
    }

    fn size_bytes(&self) -> usize {
        usize::try_from(self.owned.size_bytes).unwrap_or(usize::MAX)
    }

    fn region(self: Arc<Self>, range: Range<usize>) -> Result<Region, ShmError> {
        let (name, start, end) = (self.owned.name.clone(), range.start as u64, range.end as u64);
        if range.start >= range.end || range.end > self.size_bytes() {
            return Err(ShmError::OutOfBounds { name, start, end, size: self.owned.size_bytes });
        }
        let mut claims = self.claims.lock();
        if let Some((_, (until, released))) = claims.spans.range(..range.end).next_back()
            && *until > range.start
        {
            return Err(match released {
                true => ShmError::Released { name, start, end },
                false => ShmError::Claimed { name, start, end },
            });
        }
        let state = self.owned.state.lock();
        let segment = state.segments.get(&self.owned.segment);
        if let Some(hole) = segment.and_then(|segment| segment.first_hole(&range)) {
            return Err(ShmError::Hole { name, start, end, hole: hole as u64 });
        }
        claims.spans.insert(range.start, (range.end, false));
        claims.kept.retain(|kept| kept.start < range.start || kept.end > range.end);
        drop(claims);
        let bytes = match segment {
            Some(segment) => mapped(&segment.bytes[range.clone()]),
            // The machine lost its memory while an ended process still holds its mapping.
            None => Bytes::from(vec![0; range.len()]),
        };
        drop(state);
        let (start, map) = (range.start, Arc::clone(&self));
        let mapped: Arc<dyn MappedSegment> = self;
        Ok(Region::new(mapped, start, Piece { map, range, bytes }, Piece::end))
    }

    fn unlink_when_empty(&self) {
        let empty = {
            let mut claims = self.claims.lock();
            claims.unlink_when_empty = true;
            claims.is_empty_for_good()
        };
        if empty {
            self.owned.unlink_same();
        }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Piece {
    fn end(self, end: RegionEnd) {
        let mut claims = self.map.claims.lock();
        if end == RegionEnd::Kept {
            claims.spans.remove(&self.range.start);
            let range = self.range.clone();
            claims.kept.retain(|kept| kept.start < range.start || kept.end > range.end);
            claims.kept.push(range);
            return;
        }
        if let Some(span) = claims.spans.get_mut(&self.range.start) {
            span.1 = true;
        }
        let empty = claims.is_empty_for_good();
        drop(claims);
        self.map.owned.punch(&self.range);
        if empty {
            self.map.owned.unlink_same();
        }
    }
}

impl Owned {
    /// Gives the whole pages of a range back; the last page of a segment counts as whole.
    fn punch(&self, range: &Range<usize>) {
        if self.life.has_ended() {
            return;
        }
        let mut state = self.state.lock();
        let Some(segment) = state.segments.get_mut(&self.segment) else { return };
        let size = segment.bytes.len();
        let end = if range.end == size { size.next_multiple_of(PAGE_BYTES) } else { range.end };
        for page in range.start.div_ceil(PAGE_BYTES)..end / PAGE_BYTES {
            segment.bytes[page * PAGE_BYTES..((page + 1) * PAGE_BYTES).min(size)].fill(0);
            segment.pages.remove(&page);
        }
    }
}

#[cfg(test)]
#[path = "sim_memory/tests.rs"]
mod tests;
