//! What leaves leave behind: segments in /dev/shm, found by the manifest of a leaf's directory, and files in that.

use std::path::{Path, PathBuf};

const SHARED_MEMORY: &str = "/dev/shm";

/// The segments of the leaf whose directory this is, by name.
pub fn of(leaf_directory: &Path) -> Vec<PathBuf> {
    let Ok(manifest) = std::fs::read_to_string(leaf_directory.join("leaf.json")) else { return Vec::new() };
    let body = manifest.lines().nth(1).expect("a manifest has two lines");
    let manifest: serde_json::Value = serde_json::from_str(body).unwrap();
    let instance = manifest["instance"].as_str().expect("a manifest names its instance").to_owned();
    let plain = instance.replace('-', "");
    let mut found: Vec<PathBuf> = std::fs::read_dir(SHARED_MEMORY)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with("gannet-") && (name.contains(&instance) || name.contains(&plain))
        })
        .collect();
    found.sort();
    found
}

/// Removes the segments of a leaf.
pub fn remove(leaf_directory: &Path) {
    for path in of(leaf_directory) {
        let _ = std::fs::remove_file(path);
    }
}

/// The block files of a leaf, by name.
pub fn block_files(leaf_directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(leaf_directory.join("blocks")) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// Removes everything a stopped leaf holds but its manifest: segments and block files.
pub fn remove_everything(leaf_directory: &Path) {
    remove(leaf_directory);
    block_files(leaf_directory).iter().for_each(|path| std::fs::remove_file(path).unwrap());
}
