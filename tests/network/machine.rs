//! The machines of a simulation: one that a leaf lives on, with its disk, shared memory, clock and core, and one
//! that an aggregator lives on, with its files.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use gannet_aggregator::surroundings::{Planning, Surroundings as AggregatorSurroundings};
use gannet_aggregator::{Doors, run_in};
use gannet_leaf::surroundings::Surroundings;
use gannet_leaf::{Config, Leaf, service};
use gannet_proto::address::Listener;
use gannet_proto::network::Network;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;

use crate::life::{Life, Trace};
use crate::one_core::{OneCore, Speed};
use crate::sim_disk::Drive;
use crate::sim_memory::Shelf;
use crate::sim_time::{SimBackground, SimTime};
use crate::wires::{Door, Wires};

/// Where each server is on its host.
pub(crate) const LEAF_PORT: u16 = 7710;
pub(crate) const GRPC_PORT: u16 = 7720;
pub(crate) const HTTP_PORT: u16 = 7700;
pub(crate) const GOSSIP_PORT: u16 = 7709;
/// How often work behind a leaf is done, and how much of it at once.
const BEHIND: Duration = Duration::from_millis(20);
const JOBS_AT_ONCE: usize = 8;

/// How a leaf's life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The process is gone; the machine goes on.
    Kill,
    /// What was not synced is not sure, and shared memory is empty.
    PowerCut,
}

/// A machine for a leaf.
pub(crate) struct Machine {
    /// The name of the host.
    pub(crate) host: String,
    pub(crate) config: Config,
    pub(crate) drive: RefCell<Drive>,
    shelf: Shelf,
    pub(crate) time: SimTime,
    pub(crate) speed: Speed,
    jobs: SimBackground,
    wires: Wires,
    life: RefCell<Life>,
    leaf: RefCell<Weak<Leaf>>,
    stop: RefCell<Option<oneshot::Sender<()>>>,
    /// The next life ends in this call of its disk or memory.
    pub(crate) ends_in: Cell<Option<u64>>,
    /// Nothing is started here.
    pub(crate) idle: Cell<bool>,
    starts: Cell<u64>,
    rng: RefCell<StdRng>,
    instance: [u8; 16],
    trace: Arc<Trace>,
}

impl Machine {
    /// A machine on which nothing was ever started.
    pub(crate) fn new(
        host: &str,
        config: Config,
        wires: &Wires,
        rng: &mut StdRng,
        trace: &Arc<Trace>,
    ) -> Rc<Machine> {
        Rc::new(Machine {
            host: host.to_owned(),
            config,
            drive: RefCell::new(Drive::new()),
            shelf: Shelf::default(),
            time: SimTime::default(),
            speed: Speed::default(),
            jobs: SimBackground::default(),
            wires: wires.clone(),
            life: RefCell::new(Life::new(&Trace::new(false))),
            leaf: RefCell::default(),
            stop: RefCell::default(),
            ends_in: Cell::default(),
            idle: Cell::new(false),
            starts: Cell::default(),
            rng: RefCell::new(StdRng::seed_from_u64(rng.random())),
            instance: rng.random(),
            trace: Arc::clone(trace),
        })
    }

    /// The leaf, while it lives.
    pub(crate) fn leaf(&self) -> Option<Arc<Leaf>> {
        self.leaf.borrow().upgrade().filter(|_| !self.life.borrow().has_ended())
    }

    /// The process has ended by itself, in the middle of a call.
    pub(crate) fn has_ended(&self) -> bool {
        self.life.borrow().has_ended()
    }

    /// It ends in this call from now on.
    pub(crate) fn end_in(&self, calls: u64) {
        self.life.borrow().end_in(calls);
    }

    /// Whatever was planned, it goes on.
    pub(crate) fn go_on(&self) {
        self.ends_in.set(None);
        self.life.borrow().go_on();
    }

    /// Asks the leaf to stop as SIGTERM does.
    pub(crate) fn stop(&self) {
        if let Some(stop) = self.stop.borrow_mut().take() {
            // It may have ended.
            let _ = stop.send(());
        }
    }

    /// The process is gone, before the host is told.
    pub(crate) fn die(&self) {
        self.life.borrow().end();
    }

    /// What a life that ended leaves; after the host was told.
    pub(crate) fn clear(&self, how: End) {
        self.jobs.clear();
        if how == End::PowerCut {
            self.drive.borrow().power_cut(&mut self.rng.borrow_mut());
            self.shelf.lose();
        }
    }

    /// One life of the leaf, from start to stop.
    pub(crate) async fn live(self: Rc<Machine>) -> turmoil::Result {
        if self.idle.get() {
            return std::future::pending().await;
        }
        // What disks and memory do is not told.
        let life = Life::new(&Trace::new(false));
        if let Some(calls) = self.ends_in.take() {
            life.end_in(calls);
        }
        self.life.replace(life.clone());
        self.starts.set(self.starts.get() + 1);
        let seed = self.rng.borrow_mut().random();
        let core = OneCore::new(&self.speed, &self.jobs, &life, seed);
        let surroundings = Surroundings {
            disk: Arc::new(self.drive.borrow().of(&life)),
            memory: Arc::new(self.shelf.of(&life)),
            clock: Arc::new(core.clock(self.time.clock())),
            background: Arc::new(core),
            network: Arc::new(self.wires.clone()),
            hand_over_threads: 1,
            start_threads: 1,
            instance: uuid::Uuid::from_bytes(self.instance),
        };
        let leaf = match Leaf::start_in(self.config.clone(), surroundings) {
            Ok(leaf) => leaf,
            Err(_) if life.has_ended() => return std::future::pending().await,
            Err(error) => return Err(format!("{} does not start: {error}", self.host).into()),
        };
        let (said, host) = (leaf.describe(), &self.host);
        self.trace.add(format_args!("{host} started as epoch {} from {}", said.epoch, said.source));
        self.leaf.replace(Arc::downgrade(&leaf));
        let (stop, stopped) = oneshot::channel();
        self.stop.replace(Some(stop));
        let behind = tokio::task::spawn_local(Rc::clone(&self).work_behind(life.clone()));
        let listener = Listener::Other(Door::open(LEAF_PORT).await?);
        let served = service::serve(leaf, listener, async {
            let _ = stopped.await;
        });
        let outcome = served.await;
        behind.abort();
        self.jobs.clear();
        if life.has_ended() {
            return std::future::pending().await;
        }
        life.end();
        self.trace.add(format_args!("{host} stopped: {outcome:?}"));
        outcome.map_err(|error| format!("{host} ended: {error}").into())
    }

    async fn work_behind(self: Rc<Machine>, life: Life) {
        loop {
            tokio::time::sleep(BEHIND).await;
            for _ in 0..JOBS_AT_ONCE {
                if life.has_ended() || !self.jobs.run_one(&mut self.rng.borrow_mut()) {
                    break;
                }
            }
        }
    }
}

/// A machine for an aggregator.
pub(crate) struct Station {
    /// The name of the host.
    pub(crate) host: String,
    pub(crate) config: gannet_aggregator::Config,
    wires: Wires,
    /// Its files.
    _folder: tempfile::TempDir,
    /// It is there.
    pub(crate) up: Cell<bool>,
    /// How often it was started.
    pub(crate) lives: Cell<u64>,
}

impl Station {
    /// A machine on which nothing was ever started.
    pub(crate) fn new(host: &str, config: gannet_aggregator::Config, wires: &Wires) -> Rc<Station> {
        let folder = tempfile::tempdir().unwrap();
        let config = gannet_aggregator::Config { data_dir: folder.path().join("aggregator"), ..config };
        Rc::new(Station {
            host: host.to_owned(),
            config,
            wires: wires.clone(),
            _folder: folder,
            up: Cell::new(true),
            lives: Cell::default(),
        })
    }

    /// One life of the aggregator.
    pub(crate) async fn live(self: Rc<Station>) -> turmoil::Result {
        self.lives.set(self.lives.get() + 1);
        let network: Arc<dyn Network> = Arc::new(self.wires.clone());
        let surroundings = AggregatorSurroundings { network, planning: Planning::Alone };
        let doors = Doors {
            http: Listener::Other(Door::open(HTTP_PORT).await?),
            grpc: Some(Listener::Other(Door::open(GRPC_PORT).await?)),
        };
        let outcome = run_in(self.config.clone(), surroundings, doors, std::future::pending()).await;
        outcome.map_err(|error| format!("{} ended: {error}", self.host).into())
    }
}
