//! What a leaf knows of itself on disk: `leaf.json` in its data directory.
//!
//! The manifest is the authority on which generation of shared memory may be attached. It is replaced atomically
//! (write, fdatasync, rename, sync the directory). It also remembers how many rows each table last held, by time: a
//! leaf that comes back without its rows can then say what is missing, instead of being complete with nothing.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use gannet_query::Span;
use serde::{Deserialize, Serialize};

use crate::LeafError;

/// The format this build writes; a newer one is refused before anything is written.
pub const FORMAT: u32 = 1;
const FILE: &str = "leaf.json";
/// A manifest longer than this is not one of ours.
const BYTES_MAX: u64 = 64 << 20;

/// The manifest. See the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// See [`FORMAT`].
    pub format: u32,
    /// The leaf's id; a directory belongs to one leaf for ever.
    pub id: String,
    /// Names this leaf's segments; drawn once.
    pub instance: uuid::Uuid,
    /// Grows with each start.
    pub epoch: u64,
    /// Grows with each hand-over; the segments must have the same.
    pub generation: u64,
    /// The last stop handed everything over.
    pub clean: bool,
    /// What each table last held.
    pub tables: Vec<TableManifest>,
}

/// One table of the manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableManifest {
    /// Its name.
    pub name: String,
    /// Rows held, as `[first, last, rows]`.
    pub spans: Vec<(i64, i64, u64)>,
    /// Rows that were lost before, likewise.
    pub lost: Vec<(i64, i64, u64)>,
}

/// Spans as the manifest writes them.
pub fn spans_out(spans: &[Span]) -> Vec<(i64, i64, u64)> {
    spans.iter().map(|span| (span.first, span.last, span.rows)).collect()
}

/// Spans as the manifest wrote them.
pub fn spans_in(spans: &[(i64, i64, u64)]) -> Vec<Span> {
    spans.iter().map(|(first, last, rows)| Span { first: *first, last: *last, rows: *rows }).collect()
}

impl Manifest {
    /// The manifest of a directory, or a new one when there is none.
    ///
    /// # Errors
    /// When it cannot be read, is of a newer format, or belongs to another leaf: nothing was written then.
    pub fn load_or_new(directory: &Path, id: &str) -> Result<Manifest, LeafError> {
        let path = directory.join(FILE);
        let broken = |what: String| LeafError::Manifest { path: path.clone(), what };
        let mut text = String::new();
        match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Manifest {
                    format: FORMAT,
                    id: id.to_owned(),
                    instance: uuid::Uuid::new_v4(),
                    epoch: 0,
                    generation: 0,
                    clean: false,
                    tables: Vec::new(),
                });
            }
            Err(error) => return Err(broken(format!("open: {error}"))),
            Ok(file) => {
                file.take(BYTES_MAX)
                    .read_to_string(&mut text)
                    .map_err(|error| broken(format!("read: {error}")))?;
            }
        }
        let format = serde_json::from_str::<serde_json::Value>(&text)
            .map_err(|error| broken(format!("parse: {error}")))?
            .get("format")
            .and_then(serde_json::Value::as_u64)
            .ok_or_else(|| broken("it has no format number".to_owned()))?;
        if format > u64::from(FORMAT) {
            return Err(broken(format!("format {format}, this build reads {FORMAT}")));
        }
        let manifest: Manifest =
            serde_json::from_str(&text).map_err(|error| broken(format!("parse: {error}")))?;
        if manifest.id != id {
            return Err(broken(format!("it belongs to leaf {}, this one is {id}", manifest.id)));
        }
        Ok(manifest)
    }

    /// Replaces the manifest so that it survives a power cut.
    ///
    /// # Errors
    /// When any step fails; the old manifest is then still there.
    pub fn store(&self, directory: &Path) -> Result<(), LeafError> {
        self.write(directory, File::sync_data)?;
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| self.failed(directory, "sync the directory", &error))
    }

    /// Replaces the manifest so that it survives the end of the process, for the regular update of row counts.
    ///
    /// # Errors
    /// As [`Manifest::store`].
    pub fn store_unsynced(&self, directory: &Path) -> Result<(), LeafError> {
        self.write(directory, |_| Ok(()))
    }

    fn write(&self, directory: &Path, sync: impl Fn(&File) -> std::io::Result<()>) -> Result<(), LeafError> {
        let text =
            serde_json::to_vec(self).map_err(|error| self.failed(directory, "serialise", &error.into()))?;
        let new = directory.join("leaf.json.new");
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| file.write_all(&text).and_then(|()| sync(&file)));
        written.map_err(|error| self.failed(directory, "write", &error))?;
        std::fs::rename(&new, directory.join(FILE)).map_err(|error| self.failed(directory, "rename", &error))
    }

    fn failed(&self, directory: &Path, step: &str, error: &std::io::Error) -> LeafError {
        LeafError::Manifest { path: directory.join(FILE), what: format!("{step}: {error}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), text).unwrap();
        let error = Manifest::load_or_new(directory.path(), "leaf-1").unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
        assert_eq!(std::fs::read_to_string(directory.path().join(FILE)).unwrap(), text, "nothing is written");
    }

    #[test]
    fn it_comes_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::load_or_new(directory.path(), "leaf-1").unwrap();
        manifest.epoch = 7;
        manifest.tables.push(TableManifest { name: "t".into(), spans: vec![(0, 59, 3)], lost: vec![] });
        manifest.store(directory.path()).unwrap();
        assert_eq!(Manifest::load_or_new(directory.path(), "leaf-1").unwrap(), manifest);
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        check("", "parse");
        check("{}", "no format number");
        check("{\"format\":2,\"shape\":\"unknown\"}", "format 2, this build reads 1");
        check("{\"format\":1}", "parse");
        let other = Manifest {
            format: 1,
            id: "leaf-2".into(),
            instance: uuid::Uuid::nil(),
            epoch: 1,
            generation: 0,
            clean: false,
            tables: vec![],
        };
        check(&serde_json::to_string(&other).unwrap(), "it belongs to leaf leaf-2, this one is leaf-1");
    }
}
