//! The directory of a bench: a new one, with everything the bench writes, gone when the bench ends.

use std::path::{Path, PathBuf};

use crate::outcome::Failure;

/// A folder that goes when this is dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// A new one, in this directory or in the system's temporary directory.
    pub(super) fn new(parent: Option<&Path>) -> Result<Folder, Failure> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("gannet-bench-{}", std::process::id()));
        let failed = |error| Failure::failed(format!("make directory {}: {error}", path.display()));
        std::fs::create_dir_all(&parent).and_then(|()| std::fs::create_dir(&path)).map_err(failed)?;
        // The leaf is started in it, so the path must not depend on where this process is.
        let path = path.canonicalize().map_err(failed)?;
        Ok(Folder(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nobody is left to tell; the path has the name of this program.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
