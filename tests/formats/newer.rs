//! What a newer build wrote is refused by its version, and left as it is; so is what an older one wrote and this one
//! does not read.

use std::path::Path;

use arrow::buffer::Buffer;
use gannet_leaf::Leaf;
use gannet_leaf::row_block::{LAYOUT_VERSION, RowBlock};
use gannet_query::LeafState;
use gannet_shm::{Edition, HEADER_VERSION, Instance, OsSharedMemory, Segments, SharedMemory};
use gannet_tests::reseal;

use super::newest;
use super::sample::{BLOCK_ID, GENERATION, config, files_below, put, rows_of};

/// All but the file that only says who has the directory.
fn kept(directory: &Path) -> Vec<(String, Vec<u8>)> {
    files_below(directory).into_iter().filter(|(path, _)| !path.ends_with("lock")).collect()
}

/// A leaf refuses to start with these words at the end, and leaves everything as it was.
fn check_refused(directory: &Path, expect: &str) {
    let before = kept(directory);
    for _ in 0..2 {
        let error = Leaf::start(config(directory)).unwrap_err().to_string();
        assert!(error.ends_with(expect), "{error}");
        assert_eq!(kept(directory), before);
    }
}

#[test]
fn a_newer_manifest_is_refused() {
    let sample = newest();
    let directory = sample.directory();
    let text = String::from_utf8(sample.file("directory/leaf.json").clone()).unwrap();
    let newer = text.replacen("\"format\":2", "\"format\":3", 1);
    put(&directory.path().join("leaf.json"), newer.as_bytes());
    check_refused(directory.path(), "leaf.json: format 3, this build reads up to 2");
}

#[test]
fn a_directory_of_a_newer_layout_is_refused() {
    let sample = newest();
    let directory = sample.directory();
    let text = String::from_utf8(sample.file("directory/leaf.json").clone()).unwrap();
    let (newer, ours) = (LAYOUT_VERSION + 1, LAYOUT_VERSION);
    // Whatever else such a build may have changed in it.
    let text = text.replacen(&format!("\"layout\":{ours}"), &format!("\"layout\":{newer}"), 1) + "?";
    put(&directory.path().join("leaf.json"), text.as_bytes());
    let expect = format!("leaf.json: layout version {newer} of row blocks, this build reads up to {ours}");
    check_refused(directory.path(), &expect);
}

#[test]
fn an_older_manifest_counts_its_rows_as_lost() {
    let directory = tempfile::TempDir::with_prefix("gannet-sample-").unwrap();
    let text = "{\"format\":1,\"id\":\"leaf-1\",\"instance\":\"0b5f4f37-32c5-4a4e-94f6-3d3f6fb39d29\",\"epoch\":3,\
                \"generation\":2,\"clean\":true,\"tables\":[{\"name\":\"t\",\"spans\":[[0,59,5]],\"lost\":[[60,119,1]]}]}";
    put(&directory.path().join("leaf.json"), text.as_bytes());
    let leaf = Leaf::start(config(directory.path())).unwrap();
    let said = leaf.describe();
    assert_eq!(said.epoch, 4);
    let lost: u64 = said.tables[0].lost.iter().map(|span| span.rows).sum();
    assert_eq!((said.tables[0].name.as_str(), said.tables[0].rows, lost), ("t", 0, 6));
}

#[test]
fn a_newer_log_is_refused() {
    let sample = newest();
    let directory = sample.directory();
    let mut logs = sample.files.iter().filter(|(path, _)| path.starts_with("directory/wal/"));
    let (path, bytes) = logs.next_back().unwrap();
    let name = path.rsplit('/').next().unwrap();
    let mut newer = bytes.clone();
    let version = gannet_leaf::wal::record::VERSION + 1;
    newer[8..12].copy_from_slice(&version.to_le_bytes());
    let checksum = xxhash_rust::xxh3::xxh3_64(&newer[..56]);
    newer[56..64].copy_from_slice(&checksum.to_le_bytes());
    put(&directory.path().join("wal").join(name), &newer);
    check_refused(
        directory.path(),
        &format!("log file {name} has version {version}, this build reads {}", version - 1),
    );
}

#[test]
fn a_block_of_another_layout_is_missing_and_stays() {
    for layout in [LAYOUT_VERSION + 1, LAYOUT_VERSION - 1] {
        let sample = newest();
        let directory = sample.directory();
        let blocks = sample.files.iter().find(|(path, _)| path.starts_with("directory/blocks/"));
        let (path, bytes) = blocks.unwrap();
        let path = directory.path().join(path.strip_prefix("directory/").unwrap());
        let mut other = bytes.clone();
        other[8..12].copy_from_slice(&layout.to_le_bytes());
        reseal::image(&mut other);
        put(&path, &other);
        // The manifest knows the file as it is: whoever wrote it wrote both.
        let text = String::from_utf8(sample.file("directory/leaf.json").clone()).unwrap();
        let mut body: serde_json::Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
        body["tables"][0]["blocks"][0]["xxh3"] = xxhash_rust::xxh3::xxh3_64(&other).into();
        put(&directory.path().join("leaf.json"), &reseal::manifest(body.to_string().as_bytes()));
        for _ in 0..2 {
            let leaf = Leaf::start(config(directory.path())).unwrap();
            while leaf.state() != LeafState::Serving {
                std::thread::yield_now();
            }
            let (rows, completeness) = rows_of(&leaf);
            let missing: Vec<_> = completeness.missing.iter().map(|missing| missing.rows).collect();
            assert_eq!((rows.num_rows(), missing), (20, vec![Some(70)]));
            assert_eq!(std::fs::read(&path).unwrap(), other, "a build that reads it finds it where it was");
        }
        // And it does: with the file of this build every row is back.
        put(&path, bytes);
        put(&directory.path().join("leaf.json"), text.as_bytes());
    }
}

#[test]
fn a_newer_image_is_refused() {
    let mut newer = newest().file("image-best").clone();
    newer[8..12].copy_from_slice(&(LAYOUT_VERSION + 1).to_le_bytes());
    reseal::image(&mut newer);
    let error = RowBlock::open(Buffer::from(&newer[..]), BLOCK_ID).unwrap_err();
    let (newer, ours) = (LAYOUT_VERSION + 1, LAYOUT_VERSION);
    assert_eq!(error.to_string(), format!("row block 42: layout version {newer}, this build reads {ours}"));
}

#[test]
fn a_newer_catalogue_is_refused() {
    let mut instance = *b"newer catalogue!";
    instance[..4].copy_from_slice(&std::process::id().to_le_bytes());
    let segments = Segments::new(Instance::from_bytes(instance));
    let sample = newest();
    for (at, what) in [(8, "header version"), (12, "layout version")] {
        let mut newer = sample.file("catalogue").clone();
        newer[at..at + 4].copy_from_slice(&3_u32.to_le_bytes());
        newer[24..40].copy_from_slice(&instance);
        newer[40..44].copy_from_slice(&rustix::process::geteuid().as_raw().to_le_bytes());
        reseal::catalogue(&mut newer);
        let name = segments.name("catalogue").unwrap();
        let mut writer = OsSharedMemory.create(&name, newer.len() as u64).unwrap();
        writer.write_at(0, &newer).unwrap();
        writer.finish().unwrap();
        let edition = Edition { layout_version: LAYOUT_VERSION, generation: GENERATION };
        let error = gannet_shm::take(&OsSharedMemory, &segments, edition).unwrap_err().to_string();
        let ours = if at == 8 { HEADER_VERSION } else { LAYOUT_VERSION };
        let opened = OsSharedMemory.open(&name).unwrap();
        let mut found = vec![0; newer.len()];
        opened.read_at(0, &mut found).unwrap();
        drop(opened);
        OsSharedMemory.unlink(&name).unwrap();
        assert_eq!(error, format!("{what} 3, this build reads {ours}"));
        assert_eq!(found, newer, "not even its mark is cleared");
    }
}
