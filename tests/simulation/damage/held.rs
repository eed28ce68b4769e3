//! What machines held when their leaves ended: the artefacts to be damaged.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use gannet_leaf::dedup::BatchName;
use gannet_leaf::row_block::Preference;
use gannet_leaf::{Batch, Config};
use gannet_shm::SegmentName;
use gannet_tests::encodings;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::life::Trace;
use crate::sim_disk::Drive;
use crate::world::{End, World};

/// The numbers of rows that are added behind the damage.
pub(super) const ADDED: std::ops::Range<u64> = 9_000..9_004;

/// How the leaf ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Killed: blocks in files, rows and edits in the log.
    Killed,
    /// Killed with its blocks in segments, too.
    KilledInMemory,
    /// Stopped: everything in segments, and a catalogue.
    Stopped,
}

/// What a machine held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) config: Config,
    pub(super) ended: Ended,
    pub(super) files: Vec<(String, Vec<u8>)>,
    pub(super) segments: Vec<(SegmentName, Vec<u8>)>,
    /// How many rows each table has; they are numbered from 0.
    pub(super) rows: BTreeMap<&'static str, u64>,
    /// The rows of the longest table.
    pub(super) known: RecordBatch,
    /// The rows that are added behind the damage.
    pub(super) added: RecordBatch,
    /// All artefacts of all machines, as pieces for damage.
    pub(super) pieces: Arc<Vec<Vec<u8>>>,
}

/// The machines. Their rows are few, because each is looked at thousands of times; large blocks are damaged elsewhere.
pub(super) fn worlds() -> Vec<Held> {
    let mut worlds: Vec<Held> = [
        (Ended::Killed, Preference::Best),
        (Ended::Stopped, Preference::Packed),
        (Ended::KilledInMemory, Preference::Dictionary),
        (Ended::Stopped, Preference::Text),
    ]
    .into_iter()
    .enumerate()
    .map(|(number, (ended, encodings))| hold(number as u64, ended, encodings))
    .collect();
    let pieces = worlds.iter().flat_map(|held| held.files.iter().map(|(_, bytes)| bytes.clone()));
    let segments = worlds.iter().flat_map(|held| held.segments.iter().map(|(_, bytes)| bytes.clone()));
    let pieces = Arc::new(pieces.chain(segments).collect::<Vec<_>>());
    worlds.iter_mut().for_each(|held| held.pieces = Arc::clone(&pieces));
    worlds
}

fn hold(number: u64, ended: Ended, encodings: Preference) -> Held {
    let config = Config {
        id: "leaf-1".to_owned(),
        data_dir: "simulated".into(),
        scan_threads: 1,
        seal_age_seconds: 2,
        encodings,
        seal_into_shm: ended == Ended::KilledInMemory,
        ..Config::default()
    };
    let mut rng = StdRng::seed_from_u64(number);
    let mut world = World::new(config.clone(), &mut rng, &Trace::new(false));
    world.start(None).unwrap();
    let mut sequence = 0;
    let mut append = |world: &World, table: &str, rows: std::ops::Range<u64>| {
        let batch = [encodings::batch(rows.start, rows.end - rows.start)];
        sequence += 1;
        let name = BatchName {
            table: table.to_owned(),
            producer: "p".to_owned(),
            sequence,
            part: 0,
            last_part: true,
        };
        let batch = Batch { table, rows: &batch, encoded: None, name: Some(name) };
        world.leaf().unwrap().append_batch(batch).unwrap();
    };
    append(&world, "t", 0..100);
    append(&world, "u", 0..25);
    append(&world, "t", 100..130);
    world.settle(6, &mut rng);
    append(&world, "t", 130..190);
    world.settle(6, &mut rng);
    let (t, u) = match ended {
        Ended::Stopped => (190, 25),
        Ended::Killed | Ended::KilledInMemory => {
            append(&world, "t", 190..200);
            append(&world, "u", 25..28);
            append(&world, "t", 200..203);
            // Its record proves those before it.
            append(&world, "tail", 0..1);
            (203, 28)
        }
    };
    match ended {
        Ended::Stopped => {
            world.stop().unwrap();
            world.exit();
        }
        Ended::Killed | Ended::KilledInMemory => world.end(End::Kill, &mut rng),
    }
    let files = files_of(&world.drive);
    let names = world.shelf.segments();
    let segments =
        names.into_iter().map(|(name, _)| (name.clone(), world.shelf.read(&name).unwrap())).collect();
    Held {
        config,
        ended,
        files,
        segments,
        rows: [("t", t), ("u", u)].into(),
        known: encodings::batch(0, t),
        added: encodings::batch(ADDED.start, ADDED.end - ADDED.start),
        pieces: Arc::default(),
    }
}

/// Every file with its bytes.
pub(super) fn files_of(drive: &Drive) -> Vec<(String, Vec<u8>)> {
    let files = drive.files();
    files.into_iter().map(|(path, _)| (path.clone(), drive.read(&path).unwrap())).collect()
}
