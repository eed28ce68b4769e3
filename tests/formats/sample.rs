//! A sample: written, read, and put where a leaf can start on it.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::DataType;
use gannet_leaf::dedup::BatchName;
use gannet_leaf::row_block::{LAYOUT_VERSION, Preference, RowBlock};
use gannet_leaf::scan::Cancel;
use gannet_leaf::{Batch, Config, Leaf};
use gannet_query::plan::{OrderBy, OutputColumn};
use gannet_query::{Body, Completeness, Expr, Output, Plan, TimeRange, WeightKind};
use gannet_shm::{Edition, Instance, OsSharedMemory, Segments, SharedMemory};
use gannet_tests::encodings;
use tempfile::TempDir;

/// The block of the images.
pub(crate) const BLOCK_ID: u64 = 42;
/// Rows of an image.
pub(crate) const IMAGE_ROWS: u64 = 80;
/// Rows of the data directory that are in blocks.
const SEALED: u64 = 70;
/// All rows of the data directory; the rest is in the log.
pub(crate) const LOGGED: u64 = 90;
/// The generation of the catalogue.
pub(crate) const GENERATION: u64 = 5;
/// What the catalogue says.
pub(crate) const PAYLOAD: &[u8] = b"{\"leaf\":\"leaf-1\",\"epoch\":3}";

/// A folder of files.
pub(crate) struct Sample {
    pub(crate) name: String,
    /// By their paths from the folder.
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

impl Sample {
    /// Reads a folder, unpacking every file.
    pub(crate) fn read(folder: &Path) -> Sample {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let mut files = Vec::new();
        for (path, bytes) in files_below(folder) {
            let path = path.strip_suffix(".zst").unwrap_or_else(|| panic!("{path} of {name} is not packed"));
            files.push((path.to_owned(), zstd::decode_all(&bytes[..]).unwrap()));
        }
        Sample { name, files }
    }

    /// One file.
    pub(crate) fn file(&self, name: &str) -> &Vec<u8> {
        &self.files.iter().find(|(path, _)| path == name).unwrap_or_else(|| panic!("no {name}")).1
    }

    /// The data directory, written out.
    pub(crate) fn directory(&self) -> TempDir {
        let directory = TempDir::with_prefix("gannet-sample-").unwrap();
        for (path, bytes) in &self.files {
            if let Some(path) = path.strip_prefix("directory/") {
                put(&directory.path().join(path), bytes);
            }
        }
        directory
    }
}

/// Writes a file, and the folders to it.
pub(crate) fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Every file below a folder, by its path from there, in order.
pub(crate) fn files_below(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let (mut open, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                files.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// The settings that the data directory belongs to.
pub(crate) fn config(directory: &Path) -> Config {
    Config {
        id: "leaf-1".to_owned(),
        data_dir: directory.to_owned(),
        scan_threads: 1,
        seal_into_shm: false,
        ..Config::default()
    }
}

/// Sends the rows `first..` under their name. Whether they had been counted.
pub(crate) fn send(leaf: &Arc<Leaf>, first: u64) -> bool {
    let rows = match first < SEALED {
        true => encodings::batch(first, SEALED),
        // The log may hold dictionaries.
        false => with_dictionaries(&encodings::batch(first, LOGGED - SEALED)),
    };
    let rows = [rows];
    let name = BatchName {
        table: "t".to_owned(),
        producer: "p".to_owned(),
        sequence: first,
        part: 0,
        last_part: true,
    };
    let batch = Batch { table: "t", rows: &rows, encoded: None, name: Some(name) };
    leaf.append_batch(batch).unwrap().duplicate
}

/// A batch with its texts as dictionaries.
fn with_dictionaries(batch: &RecordBatch) -> RecordBatch {
    let coded = DataType::Dictionary(DataType::UInt8.into(), DataType::Utf8.into());
    let columns = batch.schema_ref().fields().iter().zip(batch.columns()).map(|(field, array)| {
        let array = match array.data_type() {
            DataType::Utf8 => cast(array, &coded).unwrap(),
            _ => Arc::clone(array),
        };
        (field.name().clone(), array, field.is_nullable())
    });
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// All columns of all rows in order of time, and how complete that is.
pub(crate) fn rows_of(leaf: &Leaf) -> (RecordBatch, Completeness) {
    let shown = encodings::COLUMNS.iter().map(|(name, column_type)| OutputColumn {
        name: (*name).to_owned(),
        expr: Expr::column(*name),
        data_type: column_type.arrow(),
    });
    let time = encodings::COLUMNS.iter().position(|(name, _)| *name == "time").unwrap();
    let plan = Plan {
        table: "t".to_owned(),
        columns: encodings::COLUMNS.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect(),
        time_range: TimeRange::ALL,
        filter: None,
        weight: WeightKind::One,
        output: Output::Rows {
            columns: shown.collect(),
            order_by: vec![OrderBy { column: time, descending: false, nulls_first: false }],
            limit: None,
        },
    };
    let partial = leaf.query(&plan, &Cancel::new(None)).unwrap();
    let Body::Rows(rows) = &partial.body else { panic!("rows were asked for") };
    let schema = encodings::batch(0, 1).schema();
    let batches: Vec<RecordBatch> = rows
        .batches
        .iter()
        .map(|batch| RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).unwrap())
        .collect();
    (concat_batches(&schema, &batches).unwrap(), partial.completeness)
}

/// Writes the sample of today.
pub(crate) fn write(to: &Path) {
    let packed = |path: &str, bytes: &[u8]| {
        put(&to.join(format!("{path}.zst")), &zstd::encode_all(bytes, 19).unwrap())
    };
    let rows = [encodings::batch(0, IMAGE_ROWS)];
    for (name, preference) in [
        ("best", Preference::Best),
        ("plain", Preference::Plain),
        ("packed", Preference::Packed),
        ("dictionary", Preference::Dictionary),
        ("text", Preference::Text),
    ] {
        let block = RowBlock::seal_with(BLOCK_ID, &rows, preference).unwrap();
        packed(&format!("image-{name}"), block.image().as_slice());
    }
    let mut instance = [0; 16];
    instance[..4].copy_from_slice(&std::process::id().to_le_bytes());
    let segments = Segments::new(Instance::from_bytes(instance));
    let edition = Edition { layout_version: LAYOUT_VERSION, generation: GENERATION };
    gannet_shm::publish(&OsSharedMemory, &segments, edition, PAYLOAD).unwrap();
    let name = OsSharedMemory.list(&segments).unwrap().remove(0);
    let opened = OsSharedMemory.open(&name).unwrap();
    let mut catalogue = vec![0; opened.size_bytes() as usize];
    opened.read_at(0, &mut catalogue).unwrap();
    drop(opened);
    OsSharedMemory.unlink(&name).unwrap();
    packed("catalogue", &catalogue);

    let directory = TempDir::with_prefix("gannet-sample-").unwrap();
    let leaf = Leaf::start(Config { seal_age_seconds: 0, ..config(directory.path()) }).unwrap();
    send(&leaf, 0);
    // Sealing and storing go on behind the leaf.
    while !has_block(directory.path()) {
        leaf.maintain();
        std::thread::yield_now();
    }
    // A stop notes the block in the manifest; what comes after the next start is in the log alone.
    leaf.hand_over().unwrap();
    drop(leaf);
    let leaf = Leaf::start(config(directory.path())).unwrap();
    super::until_served(&leaf);
    send(&leaf, SEALED);
    // As a crash leaves it: the leaf has no say in this.
    for (path, bytes) in files_below(directory.path()) {
        if path == "leaf.json" || path.starts_with("wal/") || path.starts_with("blocks/") {
            packed(&format!("directory/{path}"), &bytes);
        }
    }
    leaf.hand_over().unwrap();
    gannet_tests::segments::remove(directory.path());
}

fn has_block(directory: &Path) -> bool {
    gannet_tests::segments::block_files(directory)
        .iter()
        .any(|path| path.extension() == Some("block".as_ref()))
}
