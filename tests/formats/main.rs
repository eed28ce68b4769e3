//! Samples of every format that was ever written, read by every build: what an upgrade finds on disk.
//!
//! `samples/` has one folder for each set of versions, named by them, with every file packed by zstd: a data directory
//! as a crash leaves it, images of row blocks in all encodings, and a catalogue of shared memory. What rows they hold is
//! said by [`gannet_tests::encodings`]. A sample is written once, by `just sample`, when a version changes, and never
//! again: no build may read it in another way. Newer versions than this build knows are refused by name, and nothing is
//! changed then.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and the backtrace says where")]

mod newer;
mod sample;

use std::path::PathBuf;
use std::sync::Arc;

use arrow::buffer::Buffer;
use gannet_leaf::manifest::FORMAT;
use gannet_leaf::row_block::{BlockError, LAYOUT_VERSION, RowBlock};
use gannet_leaf::{Leaf, wal};
use gannet_query::LeafState;
use gannet_shm::{Expected, HEADER_BYTES, HEADER_VERSION, Header};
use gannet_tests::encodings;

use sample::{BLOCK_ID, IMAGE_ROWS, LOGGED, Sample, config, rows_of};

/// The versions that this build writes, as a folder of samples is named.
fn versions() -> String {
    format!("manifest{FORMAT}-layout{LAYOUT_VERSION}-log{}-catalogue{HEADER_VERSION}", wal::record::VERSION)
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("formats/samples")
}

/// Every sample there is.
fn samples() -> Vec<Sample> {
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names.into_iter().map(|folder| Sample::read(&folder)).collect()
}

/// The sample of this build's versions.
fn newest() -> Sample {
    Sample::read(&folder().join(versions()))
}

/// Writes the sample of this build's versions, when it is told to; an old one is never written again.
#[test]
fn write() {
    let to = folder().join(versions());
    if std::env::var_os("GANNET_SAMPLE").is_none() {
        assert!(to.exists(), "there is no sample of {}: write it with `just sample`", versions());
        return;
    }
    assert!(!to.exists(), "{} was written once, which is how it stays", to.display());
    sample::write(&to);
}

#[test]
fn every_data_directory_is_read_whole() {
    for sample in samples() {
        let directory = sample.directory();
        for start in 0..2 {
            let leaf = Leaf::start(config(directory.path())).unwrap();
            until_served(&leaf);
            let (rows, completeness) = rows_of(&leaf);
            assert_eq!(completeness.ratio(), Some(1.0), "start {start} of {}", sample.name);
            assert_eq!(rows, encodings::batch(0, LOGGED), "start {start} of {}", sample.name);
            assert!(sample::send(&leaf, 0), "what was counted is counted still");
        }
    }
}

fn until_served(leaf: &Arc<Leaf>) {
    while leaf.state() != LeafState::Serving {
        std::thread::yield_now();
    }
}

#[test]
fn every_image_is_read_or_refused_by_name() {
    for sample in samples() {
        let images: Vec<_> = sample.files.iter().filter(|(name, _)| name.starts_with("image-")).collect();
        assert_eq!(images.len(), 5, "{}", sample.name);
        for (name, bytes) in images {
            let layout = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
            let opened = RowBlock::open(Buffer::from(&bytes[..]), BLOCK_ID);
            if layout != LAYOUT_VERSION {
                assert_eq!(opened.unwrap_err(), BlockError::Version { block: BLOCK_ID, found: layout });
                continue;
            }
            let (block, rows) = (opened.unwrap(), encodings::batch(0, IMAGE_ROWS));
            block.verify().unwrap();
            for meta in block.columns() {
                let column = block.column(&meta.name).unwrap().unwrap();
                let array = column.to_typed_array(meta.column_type, block.rows());
                assert_eq!(&array, rows.column_by_name(&meta.name).unwrap(), "{} of {name}", meta.name);
            }
        }
    }
}

#[test]
fn every_catalogue_is_read_or_refused_by_name() {
    for sample in samples() {
        let bytes = sample.file("catalogue");
        let header = Header::decode(bytes).unwrap();
        let expected = Expected {
            segment_bytes: bytes.len() as u64,
            layout_version: header.layout_version,
            page_bytes: header.page_bytes,
            instance: header.instance,
            owner_uid: header.owner_uid,
            generation: sample::GENERATION,
            payload_bytes_max: 1 << 20,
        };
        let judged = header.check(&expected);
        if header.header_version != HEADER_VERSION {
            let found = header.header_version;
            let expect = format!("header version {found}, this build reads {HEADER_VERSION}");
            assert!(judged.unwrap_err().to_string().contains(&expect));
            continue;
        }
        judged.unwrap();
        header.check_payload(&bytes[HEADER_BYTES..]).unwrap();
        assert_eq!(&bytes[HEADER_BYTES..], sample::PAYLOAD);
    }
}
