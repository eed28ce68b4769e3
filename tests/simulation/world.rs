//! A leaf and everything around it: the disk, the shared memory and the time of a machine, and the life of a process.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gannet_leaf::surroundings::Surroundings;
use gannet_leaf::{Config, Leaf};
use gannet_query::LeafState;
use gannet_shm::VALID_MARK;
use rand::Rng;
use rand::rngs::StdRng;

use crate::life::{Life, Trace};
use crate::sim_disk::Drive;
use crate::sim_memory::{Shelf, Snapshot};
use crate::sim_time::{SimBackground, SimTime};

/// Why a leaf is not there after a start.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// It refused to start, or its life ended.
    Refused(String),
    /// It broke a promise in starting.
    Broken(String),
}

/// How a life ends, and what it takes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The process is gone; the machine goes on.
    Kill,
    /// The power was gone: nothing that was not synced is sure, and shared memory is empty.
    PowerCut,
    /// The container has moved: the disk is there, shared memory is empty.
    Move,
    /// The disk is there, and with it what shared memory held at some time before.
    Stale,
}

/// A simulated machine, with a leaf that lives on it or is to be started again.
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) drive: Drive,
    pub(crate) shelf: Shelf,
    pub(crate) time: SimTime,
    pub(crate) background: SimBackground,
    pub(crate) trace: Arc<Trace>,
    pub(crate) life: Life,
    leaf: Option<Arc<Leaf>>,
    instance: [u8; 16],
    /// What shared memory held after earlier lives.
    snapshots: Vec<Snapshot>,
    pub(crate) starts: u64,
    /// What the last start said of what it did not find.
    pub(crate) said: String,
}

impl World {
    /// A machine on which nothing was ever started.
    pub(crate) fn new(config: Config, rng: &mut StdRng, trace: &Arc<Trace>) -> World {
        World {
            config,
            drive: Drive::new(),
            shelf: Shelf::default(),
            time: SimTime::default(),
            background: SimBackground::default(),
            trace: Arc::clone(trace),
            life: Life::new(trace),
            leaf: None,
            instance: rng.random(),
            snapshots: Vec::new(),
            starts: 0,
            said: String::new(),
        }
    }

    /// The leaf, while its process lives.
    pub(crate) fn leaf(&self) -> Option<Arc<Leaf>> {
        self.leaf.clone().filter(|_| !self.life.has_ended())
    }

    /// Adds a line to what happened.
    pub(crate) fn note(&self, line: fmt::Arguments<'_>) {
        self.trace.add(line);
    }

    /// Starts the leaf in a new life, which may be planned to end within the start.
    pub(crate) fn start(&mut self, ends_in: Option<u64>) -> Result<(), Stopped> {
        self.life = Life::new(&self.trace);
        if let Some(calls) = ends_in {
            self.life.end_in(calls);
        }
        self.starts += 1;
        self.note(format_args!("start {} ({ends_in:?})", self.starts));
        let surroundings = Surroundings {
            disk: Arc::new(self.drive.of(&self.life)),
            memory: Arc::new(self.shelf.of(&self.life)),
            clock: self.time.clock(),
            background: Arc::new(self.background.clone()),
            network: Arc::new(gannet_proto::network::System),
            hand_over_threads: 1,
            start_threads: 1,
            instance: uuid::Uuid::from_bytes(self.instance),
        };
        let good = self.catalogue_is_good();
        let started = Leaf::start_in(self.config.clone(), surroundings);
        if let Some(broken) = self.shelf.broken_promise() {
            return Err(Stopped::Broken(broken));
        }
        match started {
            Ok(leaf) => {
                let said = leaf.describe();
                self.said.clone_from(&said.source_detail);
                self.note(format_args!(
                    "started from {} ({}): {}",
                    said.source,
                    said.source_detail.replace(&uuid::Uuid::from_bytes(self.instance).to_string(), "…"),
                    leaf.state().name()
                ));
                if good == Some(false) && said.source.contains("shared memory") {
                    return Err(Stopped::Broken(format!(
                        "it believed {} behind a catalogue that is not of this generation, not valid, or not whole",
                        said.source
                    )));
                }
                self.leaf = Some(leaf);
                Ok(())
            }
            Err(error) => {
                self.note(format_args!("not started: {error}"));
                Err(Stopped::Refused(error.to_string()))
            }
        }
    }

    /// The generation that the disk is at, and whether the last stop was clean, as far as the manifest can be read.
    fn manifest(&self) -> Option<(u64, bool)> {
        let text = self.drive.read("leaf.json")?;
        let text = String::from_utf8(text).ok()?;
        let body: serde_json::Value = serde_json::from_str(text.split_once('\n')?.1).ok()?;
        Some((body.get("generation")?.as_u64()?, body.get("clean")?.as_bool()?))
    }

    /// What a start may believe of shared memory: after a clean stop, a catalogue of the disk's generation that is
    /// valid. `None` when nothing can be said.
    fn catalogue_is_good(&self) -> Option<bool> {
        let (generation, clean) = self.manifest()?;
        clean.then(|| {
            self.shelf.catalogue().is_some_and(|(header, payload)| {
                let is_whole = header.check_payload(&payload).is_ok();
                header.valid_mark == VALID_MARK && header.generation == generation && is_whole
            })
        })
    }

    /// Ends the life, whatever goes on in it.
    pub(crate) fn end(&mut self, how: End, rng: &mut StdRng) {
        self.life.end();
        self.forget();
        if rng.random_bool(0.4) {
            self.snapshots.push(self.shelf.snapshot());
        }
        match how {
            End::Kill => {}
            End::PowerCut => {
                self.drive.power_cut(rng);
                self.shelf.lose();
            }
            End::Move => self.shelf.lose(),
            End::Stale => {
                if !self.snapshots.is_empty() {
                    let which = rng.random_range(0..self.snapshots.len());
                    self.shelf.restore(&self.snapshots[which]);
                }
            }
        }
        self.note(format_args!("ended: {how:?}"));
    }

    /// The process is gone, and with it everything that it held and wanted.
    fn forget(&mut self) {
        self.leaf = None;
        self.background.clear();
    }

    /// Stops the leaf as SIGTERM does. Whether its life went on to the end of the stop.
    pub(crate) fn stop(&mut self) -> Result<(), Stopped> {
        let Some(leaf) = self.leaf() else { return Ok(()) };
        self.note(format_args!("stop"));
        let stopped = leaf.hand_over();
        self.note(format_args!("stopped: {stopped:?}"));
        if let Some(broken) = self.shelf.broken_promise() {
            return Err(Stopped::Broken(broken));
        }
        stopped.map(|_| ()).map_err(|error| Stopped::Refused(error.to_string()))
    }

    /// Ends a life that was stopped: destructors run while the process still lives.
    pub(crate) fn exit(&mut self) {
        self.forget();
        self.life.end();
        self.note(format_args!("exit"));
    }

    /// Runs up to so many jobs. Returns how many there were.
    pub(crate) fn run_jobs(&mut self, jobs: usize, rng: &mut StdRng) -> usize {
        let mut ran = 0;
        while ran < jobs && !self.life.has_ended() && self.background.run_one(rng) {
            ran += 1;
        }
        ran
    }

    /// Lets time pass, second by second, with the maintenance and the jobs that belong to it.
    pub(crate) fn settle(&mut self, seconds: u64, rng: &mut StdRng) {
        for _ in 0..seconds {
            self.time.pass(Duration::from_secs(1));
            if let Some(leaf) = self.leaf() {
                leaf.maintain();
            }
            self.run_jobs(1_000, rng);
        }
    }

    /// Whether the leaf has brought back everything it can.
    pub(crate) fn is_serving(&self) -> bool {
        self.leaf().is_some_and(|leaf| leaf.state() == LeafState::Serving)
    }
}
