//! The manifest as a file.

use std::io;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{Manifest, TableManifest};
use crate::disk::{Disk, DiskFile};
use crate::row_block::LAYOUT_VERSION;

/// The format this build writes; a newer one is refused before anything is written.
pub const FORMAT: u32 = 2;
/// The file's name.
pub const FILE: &str = "leaf.json";
/// What it is called while it is written.
const FILE_NEW: &str = "leaf.json.new";
/// A manifest longer than this is not one of ours.
const BYTES_MAX: u64 = 1 << 30;

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The system refused.
    #[error("{step}: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A newer build wrote it.
    #[error("format {found}, this build reads up to {FORMAT}")]
    Newer {
        /// Its format.
        found: u64,
    },
    /// A build wrote it that makes row blocks of a newer layout.
    #[error("layout version {found} of row blocks, this build reads up to {LAYOUT_VERSION}")]
    NewerLayout {
        /// The layout.
        found: u64,
    },
    /// It is not what was written.
    #[error("{0}")]
    Broken(String),
    /// It is not there, and what it speaks of is.
    #[error("it is gone, but {directory} has {files} files: put it back, or move them away")]
    Gone {
        /// A directory that a leaf which never ran does not fill.
        directory: &'static str,
        /// How many files are there.
        files: usize,
    },
    /// It is somebody else's.
    #[error("it belongs to leaf {found}, this one is {expected}")]
    Foreign {
        /// Whose it is.
        found: String,
        /// Who asked.
        expected: String,
    },
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    /// Every build that did not say so wrote a layout that is read.
    #[serde(default)]
    layout: u64,
    bytes: u64,
    xxh3: String,
}

/// What format 1 held, as far as it still means something.
#[derive(Debug, Deserialize)]
struct FormatOne {
    id: String,
    instance: uuid::Uuid,
    epoch: u64,
    generation: u64,
    tables: Vec<FormatOneTable>,
}

#[derive(Debug, Deserialize)]
struct FormatOneTable {
    name: String,
    spans: Vec<(i64, i64, u64)>,
    lost: Vec<(i64, i64, u64)>,
}

/// The manifest of a directory; `None` when there is none.
///
/// # Errors
/// When it cannot be read, is of a newer format, is damaged, or belongs to another leaf. Nothing was written then.
pub fn load(disk: &dyn Disk, id: &str) -> Result<Option<Manifest>, ManifestError> {
    let file = match disk.open(FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ManifestError::Io { step: "open", source }),
    };
    let bytes = read_all(&*file)?;
    let manifest = decode(&bytes)?;
    if manifest.id != id {
        return Err(ManifestError::Foreign { found: manifest.id, expected: id.to_owned() });
    }
    Ok(Some(manifest))
}

fn read_all(file: &dyn DiskFile) -> Result<Vec<u8>, ManifestError> {
    let failed = |source| ManifestError::Io { step: "read", source };
    let bytes = file.bytes().map_err(failed)?;
    if bytes > BYTES_MAX {
        return Err(ManifestError::Broken(format!("it has {bytes} bytes, the limit is {BYTES_MAX}")));
    }
    let mut text = vec![0; usize::try_from(bytes).unwrap_or(0)];
    let read = file.read_at(0, &mut text).map_err(failed)?;
    text.truncate(read);
    Ok(text)
}

/// Reads the bytes of a manifest of any format.
pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let broken = ManifestError::Broken;
    let (head, body) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &bytes[..0]),
    };
    let value: serde_json::Value =
        serde_json::from_slice(head).map_err(|error| broken(format!("parse: {error}")))?;
    let format = value
        .get("format")
        .and_then(serde_json::Value::as_u64)
        .ok_or_else(|| broken("it has no format number".to_owned()))?;
    match format {
        1 => format_one(bytes),
        2 => {
            let head: Head =
                serde_json::from_value(value).map_err(|error| broken(format!("parse: {error}")))?;
            // First: such a build may also say more in the manifest than this one understands.
            if head.layout > u64::from(LAYOUT_VERSION) {
                return Err(ManifestError::NewerLayout { found: head.layout });
            }
            if body.len() as u64 != head.bytes {
                return Err(broken(format!("it has {} bytes, not {}", body.len(), head.bytes)));
            }
            let found = format!("{:016x}", xxh3_64(body));
            if found != head.xxh3 {
                return Err(broken(format!("its checksum is {found}, not {}", head.xxh3)));
            }
            let manifest: Manifest =
                serde_json::from_slice(body).map_err(|error| broken(format!("parse: {error}")))?;
            manifest.check().map_err(|what| broken(format!("it {what}")))?;
            Ok(manifest)
        }
        found => Err(ManifestError::Newer { found }),
    }
}

fn format_one(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let old: FormatOne =
        serde_json::from_slice(bytes).map_err(|error| ManifestError::Broken(format!("parse: {error}")))?;
    let mut manifest = Manifest::new(&old.id, old.instance);
    manifest.epoch = old.epoch;
    manifest.generation = old.generation;
    for FormatOneTable { name, spans, lost } in old.tables {
        let lost = spans.into_iter().chain(lost).collect();
        *manifest.table(&name) = TableManifest { name: name.clone(), lost, ..TableManifest::default() };
    }
    manifest.check().map_err(|what| ManifestError::Broken(format!("it {what}")))?;
    Ok(manifest)
}

/// About what a manifest takes as text without blocks, and for each block.
const HEAD_BYTES: usize = 16 << 10;
const BLOCK_BYTES: usize = 320;

/// The bytes of a manifest.
pub(super) fn encode(manifest: &Manifest) -> Result<Vec<u8>, ManifestError> {
    let broken = |error: serde_json::Error| ManifestError::Broken(format!("serialise: {error}"));
    // A vector that grows to a megabyte on its way there touches several times as much fresh memory.
    let blocks: usize = manifest.tables.iter().map(|table| table.blocks.len()).sum();
    let mut body = Vec::with_capacity(HEAD_BYTES + BLOCK_BYTES * blocks);
    serde_json::to_writer(&mut body, manifest).map_err(broken)?;
    let head = Head {
        format: FORMAT,
        layout: u64::from(LAYOUT_VERSION),
        bytes: body.len() as u64,
        xxh3: format!("{:016x}", xxh3_64(&body)),
    };
    let mut bytes = serde_json::to_vec(&head).map_err(broken)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Replaces the manifest so that it survives a power cut.
///
/// # Errors
/// When any step fails; one of the two manifests, the old or the new, is then there.
pub fn store(disk: &dyn Disk, manifest: &Manifest) -> Result<(), ManifestError> {
    let failed = |step| move |source| ManifestError::Io { step, source };
    // What is written can be read: with the old one and the log a leaf goes on, with this one it would not start.
    manifest.check().map_err(|what| ManifestError::Broken(format!("it {what}")))?;
    let bytes = encode(manifest)?;
    let mut file = disk.create(FILE_NEW).map_err(failed("create"))?;
    file.append(&[&bytes]).map_err(failed("write"))?;
    file.sync().map_err(failed("sync"))?;
    drop(file);
    disk.rename(FILE_NEW, FILE).map_err(failed("rename"))?;
    disk.sync_directory("").map_err(failed("sync the directory"))
}
