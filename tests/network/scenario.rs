//! A scenario: what a seed makes of a cluster, of those who use it, and of the network between them.
//!
//! First every server starts, and everything has to be there. Then faults come and go as the seed has drawn them, while
//! producers send and others ask; every answer is judged as it comes. In the end nothing is broken any more, and
//! everything has to be there again in time.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gannet_leaf::Config;
use gannet_proto::gossip::GossipConfig;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use turmoil::Sim;

use crate::clients::{Phase, Report, Shared, audit, produce, wonder};
use crate::faults::Faults;
use crate::life::Trace;
use crate::machine::{GOSSIP_PORT, GRPC_PORT, HTTP_PORT, LEAF_PORT, Machine, Station};
use crate::model::Model;
use crate::wires::{Mischief, Wires};

/// The time that hosts take turns by.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// Servers are there after this time, when nothing is broken.
pub(crate) const WARM_MAX: Duration = Duration::from_secs(20);
/// Things begin to break at a multiple of this.
const WARM_STEP: Duration = Duration::from_secs(5);
/// Everything is there again after this time, when nothing is broken any more.
const HEAL_MAX: Duration = Duration::from_secs(30);
/// The rest of the end.
const END_MAX: Duration = Duration::from_secs(60);
/// The key of the cluster's gossip.
const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n";

/// What a seed has drawn.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) leaves: usize,
    pub(crate) aggregators: usize,
    producers: usize,
    askers: usize,
    chaos: Duration,
    /// Leaves are found by gossip.
    pub(crate) gossip: bool,
    /// The first leaf has moved, and its old machine may come back.
    pub(crate) moved: bool,
    /// More groups than this are cut.
    groups_max: Option<usize>,
    seal_age_seconds: u64,
    pub(crate) kills: bool,
    pub(crate) power_cuts: bool,
    pub(crate) stops: bool,
    pub(crate) planned_ends: bool,
    pub(crate) aggregator_kills: bool,
    pub(crate) partitions: bool,
    pub(crate) oneway: bool,
    pub(crate) holds: bool,
    pub(crate) delays: bool,
    pub(crate) slow: bool,
    pub(crate) clock_steps: bool,
    pub(crate) mischief: bool,
    /// In the end more is asked for than can be done, and this is how much can.
    crowd: Option<Room>,
}

/// Who may be served, and who may wait for it.
#[derive(Debug, Clone, Copy)]
struct Room {
    queries: (usize, usize),
    batches: (usize, usize),
}

impl Room {
    fn draw(rng: &mut StdRng) -> Room {
        Room {
            queries: (rng.random_range(2..=6), rng.random_range(4..=24)),
            batches: (rng.random_range(2..=6), rng.random_range(4..=24)),
        }
    }
}

impl Settings {
    fn draw(rng: &mut StdRng, seed: u64) -> Settings {
        // By itself, so that everything else of a seed is as it was without crowds.
        let mut of_crowd = StdRng::seed_from_u64(!seed);
        let gossip = rng.random_bool(0.4);
        Settings {
            leaves: rng.random_range(3..=5),
            aggregators: rng.random_range(1..=2),
            producers: rng.random_range(2..=4),
            askers: rng.random_range(1..=3),
            chaos: Duration::from_millis(rng.random_range(3_000..9_000)),
            gossip,
            moved: !gossip && rng.random_bool(0.5),
            groups_max: rng.random_bool(0.3).then(|| rng.random_range(8..30)),
            seal_age_seconds: [0, 1, 3, 300][rng.random_range(0..4)],
            kills: rng.random_bool(0.7),
            power_cuts: rng.random_bool(0.4),
            stops: rng.random_bool(0.4),
            planned_ends: rng.random_bool(0.6),
            aggregator_kills: rng.random_bool(0.4),
            partitions: rng.random_bool(0.5),
            oneway: rng.random_bool(0.5),
            holds: rng.random_bool(0.4),
            delays: rng.random_bool(0.4),
            slow: rng.random_bool(0.4),
            clock_steps: rng.random_bool(0.3),
            mischief: rng.random_bool(0.5),
            crowd: of_crowd.random_bool(0.4).then(|| Room::draw(&mut of_crowd)),
        }
    }
}

/// A cluster in its network.
pub(crate) struct Cluster {
    pub(crate) settings: Settings,
    pub(crate) sim: Sim<'static>,
    pub(crate) shared: Rc<Shared>,
    pub(crate) mischief: Arc<Mischief>,
    /// Files that several servers read.
    _folder: tempfile::TempDir,
}

/// The hosts by name and address, in order.
struct Hosts {
    leaves: Vec<(String, IpAddr)>,
    aggregators: Vec<(String, IpAddr)>,
    /// The machine that the first leaf was on before.
    old: Option<(String, IpAddr)>,
}

impl Hosts {
    fn of(sim: &Sim<'_>, settings: &Settings) -> Hosts {
        let host = |name: String| {
            let at = sim.lookup(name.as_str());
            (name, at)
        };
        Hosts {
            leaves: (0..settings.leaves).map(|number| host(format!("leaf-{number}"))).collect(),
            aggregators: (0..settings.aggregators)
                .map(|number| host(format!("aggregator-{number}")))
                .collect(),
            old: settings.moved.then(|| host("old-leaf-0".to_owned())),
        }
    }

    fn gossip(&self, settings: &Settings, at: IpAddr, key: &std::path::Path) -> Option<GossipConfig> {
        let seeds = [&self.aggregators[0], &self.leaves[0]];
        settings.gossip.then(|| GossipConfig {
            listen: format!("0.0.0.0:{GOSSIP_PORT}"),
            advertise: Some(format!("{at}:{GOSSIP_PORT}")),
            seeds: seeds.iter().map(|(_, at)| format!("{at}:{GOSSIP_PORT}")).collect(),
            key_file: Some(key.to_owned()),
            interval_ms: 400,
            ..GossipConfig::default()
        })
    }

    fn leaf(&self, settings: &Settings, number: usize, at: IpAddr, key: &std::path::Path) -> Config {
        Config {
            id: format!("leaf-{number}"),
            data_dir: "simulated".into(),
            advertise: Some(format!("{at}:{LEAF_PORT}")),
            gossip: self.gossip(settings, at, key),
            insecure: true,
            scan_threads: 1,
            seal_age_seconds: settings.seal_age_seconds,
            ..Config::default()
        }
    }

    fn aggregator(
        &self,
        settings: &Settings,
        at: IpAddr,
        key: &std::path::Path,
    ) -> gannet_aggregator::Config {
        let leaves = self.leaves.iter().chain(&self.old).map(|(_, at)| format!("{at}:{LEAF_PORT}"));
        let others = self.aggregators.iter().map(|(_, at)| format!("{at}:{GRPC_PORT}"));
        let defaults = gannet_aggregator::Config::default();
        let (queries, batches) = match settings.crowd {
            Some(room) => (room.queries, room.batches),
            None => (
                (defaults.queries_running_max, defaults.queries_waiting_max),
                (defaults.events_running_max, defaults.events_waiting_max),
            ),
        };
        gannet_aggregator::Config {
            children: if settings.gossip { Vec::new() } else { leaves.collect() },
            aggregators: if settings.gossip { Vec::new() } else { others.collect() },
            advertise: Some(format!("{at}:{GRPC_PORT}")),
            grpc: Some(format!("{at}:{GRPC_PORT}")),
            gossip: self.gossip(settings, at, key),
            insecure: true,
            append_timeout_ms: 1_500,
            queries_running_max: queries.0,
            queries_waiting_max: queries.1,
            events_running_max: batches.0,
            events_waiting_max: batches.1,
            query_groups_max: settings.groups_max.unwrap_or(defaults.query_groups_max),
            ..defaults
        }
    }
}

impl Cluster {
    fn new(seed: u64, rng: &mut StdRng, trace: &Arc<Trace>) -> Cluster {
        let settings = Settings::draw(rng, seed);
        trace.add(format_args!("seed {seed}: {settings:?}"));
        let mut sim = turmoil::Builder::new()
            .simulation_duration(Duration::from_secs(100_000))
            .tick_duration(TICK)
            // A time of its own for each link, so that nothing depends on the order in which messages are sent.
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(1))
            .tcp_capacity(1 << 14)
            .udp_capacity(1 << 14)
            .rng_seed(rng.random())
            .enable_tokio_io()
            .build();
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        write_secret(&key);
        let mischief = Mischief::new(StdRng::seed_from_u64(rng.random()));
        let wires = Wires { mischief: Arc::clone(&mischief) };
        let hosts = Hosts::of(&sim, &settings);
        let mut machines = Vec::new();
        for (number, (host, at)) in hosts.leaves.iter().enumerate() {
            let config = hosts.leaf(&settings, number, *at, &key);
            machines.push(Machine::new(host, config, &wires, rng, trace));
        }
        if let Some((host, at)) = &hosts.old {
            machines[0].idle.set(true);
            machines.push(Machine::new(host, hosts.leaf(&settings, 0, *at, &key), &wires, rng, trace));
        }
        let station = |(host, at): &(String, IpAddr)| {
            let station = Station::new(host, hosts.aggregator(&settings, *at, &key), &wires);
            (station, SocketAddr::new(*at, HTTP_PORT))
        };
        let stations: Vec<_> = hosts.aggregators.iter().map(station).collect();
        for machine in &machines {
            let machine = Rc::clone(machine);
            sim.host(machine.host.clone(), move || Rc::clone(&machine).live());
        }
        for (station, _) in &stations {
            let station = Rc::clone(station);
            sim.host(station.host.clone(), move || Rc::clone(&station).live());
        }
        let shared = Rc::new(Shared {
            phase: Cell::new(Phase::Warm),
            model: RefCell::new(Model::new(settings.groups_max)),
            report: RefCell::default(),
            failure: RefCell::default(),
            lacking: RefCell::default(),
            leaves: settings.leaves,
            moves: settings.moved,
            is_crowded: settings.crowd.is_some(),
            heard: stations.iter().map(|_| Cell::new(0)).collect(),
            machines,
            stations,
            now: Cell::default(),
            trace: Arc::clone(trace),
        });
        let mut cluster = Cluster { settings, sim, shared, mischief, _folder: folder };
        cluster.users(rng);
        cluster.distances(rng);
        cluster
    }

    /// Those who use it, on one host.
    fn users(&mut self, rng: &mut StdRng) {
        let seeds: Vec<u64> =
            (0..self.settings.producers + self.settings.askers + 1).map(|_| rng.random()).collect();
        let (shared, producers) = (Rc::clone(&self.shared), self.settings.producers);
        self.sim.host("users", move || {
            let (shared, seeds) = (Rc::clone(&shared), seeds.clone());
            async move {
                for (number, seed) in seeds.into_iter().enumerate() {
                    let shared = Rc::clone(&shared);
                    match number {
                        0 => tokio::task::spawn_local(audit(shared, seed)),
                        number if number <= producers => {
                            tokio::task::spawn_local(produce(shared, number, seed))
                        }
                        _ => tokio::task::spawn_local(wonder(shared, seed)),
                    };
                }
                std::future::pending().await
            }
        });
    }

    /// How far servers are from each other.
    fn distances(&mut self, rng: &mut StdRng) {
        let names = self.servers();
        for (number, one) in names.iter().enumerate() {
            for other in &names[number + 1..] {
                let far = Duration::from_millis(rng.random_range(0..12));
                self.sim.set_link_latency(one.as_str(), other.as_str(), far);
            }
        }
    }

    /// The hosts of servers.
    pub(crate) fn servers(&self) -> Vec<String> {
        let machines = self.shared.machines.iter().map(|machine| machine.host.clone());
        machines.chain(self.shared.stations.iter().map(|(station, _)| station.host.clone())).collect()
    }

    /// Lets one tick pass.
    pub(crate) fn step(&mut self) -> Result<(), String> {
        self.sim.step().map_err(|error| format!("a server ended: {error}"))?;
        self.shared.machines.iter().for_each(|machine| machine.time.pass(TICK));
        self.shared.now.set(self.sim.elapsed());
        match self.shared.failure.borrow_mut().take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Lets time pass until that is so, with the faults that are due.
    pub(crate) fn until(
        &mut self,
        faults: &mut Faults,
        at_most: Duration,
        is_so: impl Fn(&Shared) -> bool,
    ) -> Result<(), String> {
        let end = self.sim.elapsed() + at_most;
        while !is_so(&self.shared) {
            if self.sim.elapsed() > end {
                let lacking = self.shared.lacking.borrow().clone();
                let phase = self.shared.phase.get();
                return Err(format!("in phase {phase:?} it is not so after {at_most:?}: {lacking}"));
            }
            self.step()?;
            faults.look(self);
        }
        Ok(())
    }
}

fn write_secret(path: &std::path::Path) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(KEY.as_bytes()).unwrap();
}

/// Runs a scenario; every broken promise is an error.
pub(crate) fn run(seed: u64, trace: &Arc<Trace>) -> Result<Report, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::new(seed, &mut rng, trace);
    let mut faults = Faults::new(StdRng::seed_from_u64(rng.random()));
    if cluster.settings.moved {
        faults.move_first(&mut cluster)?;
    }
    cluster.until(&mut faults, WARM_MAX, |shared| shared.phase.get() == Phase::Ready)?;
    // At a whole number of seconds, so that faults come at the same time in each run of a seed.
    cluster
        .until(&mut faults, WARM_STEP, |shared| (shared.now.get().as_nanos() % WARM_STEP.as_nanos()) == 0)?;
    cluster.shared.phase.set(Phase::Chaos);
    cluster.shared.note(format_args!("things begin to break"));
    let end = cluster.sim.elapsed() + cluster.settings.chaos;
    while cluster.sim.elapsed() < end {
        cluster.step()?;
        faults.look(&mut cluster);
        faults.draw(&mut cluster);
    }
    faults.heal(&mut cluster);
    cluster.shared.phase.set(Phase::Heal);
    cluster.shared.note(format_args!("healed"));
    cluster.until(&mut faults, HEAL_MAX, |shared| shared.report.borrow().healed_ms > 0)?;
    cluster.until(&mut faults, END_MAX, |shared| shared.phase.get() == Phase::Done)?;
    let mut report = *cluster.shared.report.borrow();
    report.starts = faults.starts;
    Ok(report)
}
