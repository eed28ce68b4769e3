//! Stopping into shared memory and starting from it.
//!
//! Handing over, in this order: refuse new batches; let queries end; seal what is open; check that shared memory has
//! room for all of it before anything moves; copy block by block into new segments, freeing the heap as it goes
//! (blocks that already live in a segment stay where they are); replace the manifest with the next generation;
//! write the catalogue of blocks; set its valid mark last.
//!
//! Attaching: lock the directory; read the manifest; take the catalogue, whose gates compare it with the manifest and
//! whose valid mark is cleared before anything else of it is read; map the segments read-only and serve from them
//! where they are. What does not pass a gate is named, counted as lost, and never served. How long it takes depends
//! on the number of blocks, not on their size: buffers are verified when they are first read.
//!
//! A start after anything but a clean stop removes what is left of this leaf's segments and begins empty: recovery
//! from disk does not exist yet. The rows the manifest last knew of are then counted as lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gannet_query::holdings::fold_spans;
use gannet_query::{LeafState, Phase, Span};
use gannet_shm::{
    DirectoryLock, Edition, Instance, MappedSegment, OsSharedMemory, SegmentName, Segments, SharedMemory,
};
use serde::{Deserialize, Serialize};

use crate::leaf::{Leaf, Origin, Parts, tables_manifest};
use crate::manifest::{Manifest, TableManifest, spans_in};
use crate::row_block::RowBlock;
use crate::table::{HeldBlock, SegmentHome, Table};
use crate::{Config, LeafError, row_block};

/// Blocks begin at multiples of this in a segment, so that their memory can be given back one by one.
const BLOCK_ALIGN: u64 = 4096;
/// A segment takes blocks up to this size together; while it is written, so much is in memory twice.
const SEGMENT_BYTES: u64 = 16 << 20;

/// The catalogue of a hand-over: the payload behind the header.
#[derive(Debug, Serialize, Deserialize)]
struct Catalogue {
    next_block_id: u64,
    segments: Vec<CatalogueSegment>,
    tables: Vec<CatalogueTable>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CatalogueSegment {
    name: String,
    bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct CatalogueTable {
    name: String,
    blocks: Vec<CatalogueBlock>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CatalogueBlock {
    id: u64,
    /// Index into `segments`.
    segment: usize,
    offset: u64,
    bytes: u64,
}

/// What a start found in shared memory.
struct Attached {
    tables: BTreeMap<String, Vec<Arc<HeldBlock>>>,
    next_block_id: u64,
    bytes: u64,
    /// What was refused, in words.
    refused: Vec<String>,
}

impl Leaf {
    /// Starts a leaf: from shared memory after a clean stop, else empty.
    ///
    /// # Errors
    /// When another process has the directory, the manifest is not this leaf's, or a setting is wrong. A refusal of
    /// shared memory is no error: it is named in the log and in the status.
    pub fn start(config: Config) -> Result<Arc<Leaf>, LeafError> {
        config.check()?;
        let started = Instant::now();
        create_directory(&config)?;
        let lock = DirectoryLock::acquire(&config.data_dir)?;
        let mut manifest = Manifest::load_or_new(&config.data_dir, &config.id)?;
        let segments = Segments::new(Instance::from_bytes(*manifest.instance.as_bytes()));
        let first_start = manifest.epoch == 0;
        let found = if manifest.clean {
            attach(&segments, manifest.generation)
        } else if first_start {
            Err(String::new())
        } else {
            Err("the last stop was not clean".to_owned())
        };
        let origin_of =
            |source: &str, detail: String, rows| Origin { source: source.to_owned(), detail, rows };
        let (attached, mut origin) = match found {
            Ok(attached) => {
                let detail = attached.refused.join("; ");
                (attached, origin_of("shared memory", detail, 0))
            }
            Err(detail) => {
                remove_segments(&segments, &[]);
                let empty =
                    Attached { tables: BTreeMap::new(), next_block_id: 1, bytes: 0, refused: Vec::new() };
                (empty, origin_of("nothing", detail, 0))
            }
        };
        if !origin.detail.is_empty() {
            tracing::warn!(
                leaf = config.id,
                source = origin.source,
                detail = origin.detail,
                "shared memory refused"
            );
        }
        manifest.epoch += 1;
        manifest.clean = false;
        let bytes = attached.bytes;
        let next_block_id = attached.next_block_id;
        let tables = restore_tables(&manifest.tables, attached.tables);
        origin.rows = tables.values().map(|table| table.snapshot().rows()).sum();
        manifest.tables = tables_manifest(&tables.values().cloned().collect::<Vec<_>>());
        manifest.store(&config.data_dir)?;
        let phase = Phase { name: "attaching".to_owned(), seconds: started.elapsed().as_secs_f64(), bytes };
        tracing::info!(
            leaf = config.id,
            source = origin.source,
            rows = origin.rows,
            bytes,
            seconds = phase.seconds,
            "leaf started"
        );
        let parts = Parts { manifest, lock, tables, origin, phases: vec![phase], next_block_id };
        Ok(Arc::new(Leaf::from_parts(config, parts)?))
    }

    /// Hands everything over to shared memory. Afterwards the leaf only waits to be dropped.
    ///
    /// # Errors
    /// [`LeafError::NoRoom`] before anything moved: the leaf then serves on. Any later failure leaves the rest of the
    /// rows behind, and the next start says so.
    pub fn hand_over(&self) -> Result<(), LeafError> {
        let started = Instant::now();
        let deadline = started + Duration::from_secs(self.config.hand_over_seconds_max);
        self.lifecycle.enter(LeafState::Draining);
        let _appends = self.appends.write();
        let tables: Vec<Arc<Table>> = self.tables.read().values().cloned().collect();
        for table in &tables {
            self.seal_rest(table);
        }
        let needed = tables.iter().map(|table| bytes_to_move(table)).sum();
        let available = OsSharedMemory.available_bytes()?;
        if needed > available {
            self.lifecycle.enter(LeafState::Serving);
            return Err(LeafError::NoRoom { needed, available });
        }
        // Queries that still run keep their snapshot; one that never ends must not stop the stop.
        let queries = self
            .queries
            .try_write_until(started + Duration::from_secs(self.config.hand_over_seconds_max) / 4);
        self.lifecycle.enter(LeafState::HandingOver);
        drop(queries);
        let moved = self.move_out(&tables, deadline);
        let seconds = started.elapsed().as_secs_f64();
        self.lifecycle.enter(LeafState::Stopped);
        let (rows, bytes) = moved?;
        self.phases.lock().push(Phase { name: "handing over".to_owned(), seconds, bytes });
        tracing::info!(leaf = self.id(), rows, bytes, seconds, "handed over to shared memory");
        Ok(())
    }

    fn seal_rest(&self, table: &Table) {
        table.take_aged(0, Instant::now());
        for run in &table.snapshot().sealing {
            self.seal_now(table, run);
        }
    }

    /// Copies every block that is not yet in shared memory, then publishes the catalogue.
    fn move_out(&self, tables: &[Arc<Table>], deadline: Instant) -> Result<(u64, u64), LeafError> {
        let mut manifest = self.manifest.lock();
        let generation = manifest.generation + 1;
        let segments = Segments::new(Instance::from_bytes(*manifest.instance.as_bytes()));
        let noted = tables_manifest(tables);
        let mut writing =
            HandOver { segments: &segments, generation, written: 0, catalogue: Vec::new(), bytes: 0 };
        let mut catalogue = Catalogue {
            next_block_id: self.next_block_id.load(Ordering::Relaxed),
            segments: Vec::new(),
            tables: Vec::new(),
        };
        let mut rows = 0;
        for table in tables {
            let outcome = writing.move_table(table, deadline);
            let blocks = std::mem::take(&mut writing.catalogue);
            rows += blocks.iter().map(|moved| moved.rows).sum::<u64>();
            catalogue.add(table.name(), &blocks);
            if let Err(error) = outcome {
                tracing::error!(table = table.name(), %error, "the rest of the rows is left behind");
                break;
            }
        }
        manifest.generation = generation;
        manifest.clean = true;
        manifest.tables = noted;
        manifest.store(&self.config.data_dir)?;
        let payload = serde_json::to_vec(&catalogue)
            .map_err(|error| LeafError::Internal(format!("write the catalogue: {error}")))?;
        gannet_shm::publish(&OsSharedMemory, &segments, edition(generation), &payload)?;
        Ok((rows, writing.bytes))
    }
}

fn create_directory(config: &Config) -> Result<(), LeafError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data_dir).map_err(|error| {
        LeafError::Config(format!("setting data_dir is {}: create it: {error}", config.data_dir.display()))
    })
}

/// What a catalogue of this build and this generation is written for.
fn edition(generation: u64) -> Edition {
    Edition { layout_version: row_block::LAYOUT_VERSION, generation }
}

fn align(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_ALIGN) * BLOCK_ALIGN
}

/// Bytes of a table's blocks that are not in shared memory yet.
fn bytes_to_move(table: &Table) -> u64 {
    let state = table.snapshot();
    let heap = state.blocks.iter().filter(|held| held.home.is_none());
    heap.map(|held| align(held.block.image().len() as u64)).sum()
}

/// A block that is in shared memory now.
struct MovedBlock {
    id: u64,
    rows: u64,
    segment: String,
    segment_bytes: u64,
    offset: u64,
    bytes: u64,
}

/// A hand-over under way.
struct HandOver<'a> {
    segments: &'a Segments,
    generation: u64,
    written: u64,
    catalogue: Vec<MovedBlock>,
    bytes: u64,
}

impl HandOver<'_> {
    /// Moves one table, segment by segment. Blocks already in shared memory are only noted.
    fn move_table(&mut self, table: &Table, deadline: Instant) -> Result<(), LeafError> {
        let state = table.snapshot();
        let mut heap = Vec::new();
        for held in state.blocks.iter() {
            match &held.home {
                Some(home) => self.catalogue.push(MovedBlock {
                    id: held.block.id(),
                    rows: held.block.rows() as u64,
                    segment: home.segment.clone(),
                    segment_bytes: home.region.segment().size_bytes() as u64,
                    offset: home.offset,
                    bytes: held.block.image().len() as u64,
                }),
                None => heap.push((held.block.id(), align(held.block.image().len() as u64))),
            }
        }
        drop(state);
        let mut rest = heap.as_slice();
        while let Some(first) = rest.first() {
            if Instant::now() >= deadline {
                return Err(LeafError::Internal("the hand-over took too long".to_owned()));
            }
            let (mut count, mut bytes) = (1, first.1);
            while let Some((_, next)) = rest.get(count) {
                if bytes + next > SEGMENT_BYTES {
                    break;
                }
                bytes += next;
                count += 1;
            }
            self.move_segment(table, &rest[..count], bytes)?;
            rest = &rest[count..];
        }
        Ok(())
    }

    fn move_segment(
        &mut self,
        table: &Table,
        blocks: &[(u64, u64)],
        segment_bytes: u64,
    ) -> Result<(), LeafError> {
        let name = self.segments.name(&format!("{}-{}", self.generation, self.written))?;
        self.written += 1;
        let mut writer = OsSharedMemory.create(&name, segment_bytes)?;
        let mut moved = Vec::new();
        let mut offset = 0;
        for (id, aligned) in blocks {
            let state = table.snapshot();
            // Nothing expires once the appends are locked out, so the block is there.
            let Some(held) = state.blocks.iter().find(|held| held.block.id() == *id) else { continue };
            let (rows, bytes) = (held.block.rows() as u64, held.block.image().len() as u64);
            writer.write_at(offset, held.block.image().as_slice())?;
            moved.push(MovedBlock {
                id: *id,
                rows,
                segment: name.as_str().to_owned(),
                segment_bytes,
                offset,
                bytes,
            });
            drop(state);
            table.replace(*id, None);
            self.bytes += bytes;
            offset += aligned;
        }
        writer.finish()?;
        self.catalogue.extend(moved);
        Ok(())
    }
}

impl Catalogue {
    fn add(&mut self, table: &str, blocks: &[MovedBlock]) {
        let blocks = blocks
            .iter()
            .map(|moved| {
                let known = self.segments.iter().position(|segment| segment.name == moved.segment);
                let segment = known.unwrap_or_else(|| {
                    self.segments
                        .push(CatalogueSegment { name: moved.segment.clone(), bytes: moved.segment_bytes });
                    self.segments.len() - 1
                });
                CatalogueBlock { id: moved.id, segment, offset: moved.offset, bytes: moved.bytes }
            })
            .collect();
        self.tables.push(CatalogueTable { name: table.to_owned(), blocks });
    }
}

/// Takes the catalogue and opens every block where it is. `Err` says in words why nothing can be attached.
fn attach(segments: &Segments, generation: u64) -> Result<Attached, String> {
    let payload = gannet_shm::take(&OsSharedMemory, segments, edition(generation))
        .map_err(|refusal| refusal.to_string())?;
    let catalogue: Catalogue =
        serde_json::from_slice(&payload).map_err(|error| format!("catalogue in shared memory: {error}"))?;
    let mut attached = Attached {
        tables: BTreeMap::new(),
        next_block_id: catalogue.next_block_id,
        bytes: 0,
        refused: Vec::new(),
    };
    let mut mappings: Vec<Option<Arc<dyn MappedSegment>>> = Vec::new();
    for segment in &catalogue.segments {
        let mapping = segments
            .parse(&segment.name)
            .and_then(|name| OsSharedMemory.map(&name, segment.bytes))
            .map_err(|error| attached.refused.push(error.to_string()))
            .ok();
        mappings.push(mapping);
    }
    for table in catalogue.tables {
        let mut blocks = Vec::new();
        for block in &table.blocks {
            let Some(Some(mapping)) = mappings.get(block.segment) else { continue };
            match open_block(mapping, block) {
                Ok(held) => {
                    attached.bytes += block.bytes;
                    blocks.push(Arc::new(held));
                }
                Err(what) => {
                    attached.refused.push(format!("block {} of table {}: {what}", block.id, table.name))
                }
            }
        }
        attached.tables.insert(table.name, blocks);
    }
    let kept: Vec<&str> = catalogue.segments.iter().map(|segment| segment.name.as_str()).collect();
    remove_segments(segments, &kept);
    mappings.into_iter().flatten().for_each(|mapping| mapping.unlink_when_empty());
    Ok(attached)
}

fn open_block(mapping: &Arc<dyn MappedSegment>, block: &CatalogueBlock) -> Result<HeldBlock, String> {
    let out_of_range = || format!("{} bytes at {} are outside its segment", block.bytes, block.offset);
    let size = mapping.size_bytes() as u64;
    let end = block.offset.checked_add(block.bytes).filter(|end| *end <= size).ok_or_else(out_of_range)?;
    // The region takes the padding behind the block with it, so that whole pages can be given back.
    let padded = align(end).min(size);
    let range = block.offset as usize..padded as usize;
    let region = Arc::clone(mapping).region(range).map_err(|error| error.to_string())?;
    let image = arrow::buffer::Buffer::from(region.bytes().slice(..block.bytes as usize));
    let opened = RowBlock::open(image, block.id).map_err(|error| error.to_string())?;
    let home = SegmentHome { region, segment: mapping.name().as_str().to_owned(), offset: block.offset };
    Ok(HeldBlock { block: opened, home: Some(home) })
}

/// Removes this leaf's segments but for those kept.
fn remove_segments(segments: &Segments, kept: &[&str]) {
    let names: Vec<SegmentName> = match OsSharedMemory.list(segments) {
        Ok(names) => names,
        Err(error) => {
            tracing::warn!(%error, "segments were not listed");
            return;
        }
    };
    for name in names.iter().filter(|name| !kept.contains(&name.as_str())) {
        if let Err(error) = OsSharedMemory.unlink(name) {
            tracing::warn!(%error, "a segment was not removed");
        }
    }
}

/// Tables with the blocks that came back, and what is lost of those that did not.
fn restore_tables(
    noted: &[TableManifest],
    mut attached: BTreeMap<String, Vec<Arc<HeldBlock>>>,
) -> BTreeMap<String, Arc<Table>> {
    let mut tables = BTreeMap::new();
    for table in noted {
        let blocks = attached.remove(&table.name).unwrap_or_default();
        let restored = Table::restored(&table.name, blocks, Vec::new());
        let held = restored.snapshot().spans();
        let mut lost = missing_spans(&spans_in(&table.spans), &held);
        lost.extend(spans_in(&table.lost));
        restored.set_lost(lost);
        tables.insert(table.name.clone(), Arc::new(restored));
    }
    for (name, blocks) in attached {
        tables.insert(name.clone(), Arc::new(Table::restored(&name, blocks, Vec::new())));
    }
    tables
}

/// The rows of `expected` that `held` does not have, by time; never fewer than the difference of their sums.
fn missing_spans(expected: &[Span], held: &[Span]) -> Vec<Span> {
    let rows = |spans: &[Span]| spans.iter().map(|span| span.rows).sum::<u64>();
    let mut difference = rows(expected).saturating_sub(rows(held));
    if difference == 0 {
        return Vec::new();
    }
    let mut missing = Vec::new();
    let held_at = |span: &Span| {
        held.iter()
            .filter(|held| (held.first, held.last) == (span.first, span.last))
            .map(|held| held.rows)
            .sum()
    };
    for span in expected {
        let rows = span.rows.saturating_sub(held_at(span)).min(difference);
        difference -= rows;
        missing.push(Span { rows, ..*span });
    }
    // Spans can be cut differently before and after; what is left over could be anywhere in their time.
    if difference > 0 {
        let first = expected.iter().map(|span| span.first).min().unwrap_or(i64::MIN);
        let last = expected.iter().map(|span| span.last).max().unwrap_or(i64::MAX);
        missing.push(Span { first, last, rows: difference });
    }
    fold_spans(missing)
}

#[cfg(test)]
mod tests;
