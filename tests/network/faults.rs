//! What breaks, when, and for how long: processes end, machines lose their power, links lose or hold what is sent,
//! clocks step, disks and processors are slow.

use std::rc::Rc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::clients::{Phase, Shared};
use crate::machine::{End, Machine};
use crate::scenario::{Cluster, Settings, WARM_MAX};
use crate::sim_disk::Drive;

/// A roster that changed is written within this time.
const ROSTER_WRITTEN_MS: u64 = 1_200;
/// How long a leaf lives between the steps of its move, and how long one lives that nobody meets.
const MOVING: Duration = Duration::from_millis(300);
const UNMET: Duration = Duration::from_millis(10);
/// What requests wait at most on a machine that is well.
const REQUEST_MS: u64 = 3;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kill,
    PowerCut,
    Stop,
    PlannedEnd,
    AggregatorKill,
    Partition,
    OneWay,
    Hold,
    Delay,
    Slow,
    ClockStep,
    Mischief,
}

impl Kind {
    /// Those that a seed has drawn.
    fn of(settings: &Settings) -> Vec<Kind> {
        let all = [
            (Kind::Kill, settings.kills),
            (Kind::PowerCut, settings.power_cuts),
            (Kind::Stop, settings.stops),
            (Kind::PlannedEnd, settings.planned_ends),
            (Kind::AggregatorKill, settings.aggregator_kills),
            (Kind::Partition, settings.partitions),
            (Kind::OneWay, settings.oneway),
            (Kind::Hold, settings.holds),
            (Kind::Delay, settings.delays),
            (Kind::Slow, settings.slow),
            (Kind::ClockStep, settings.clock_steps),
            (Kind::Mischief, settings.mischief && settings.gossip),
        ];
        all.into_iter().filter(|(_, drawn)| *drawn).map(|(kind, _)| kind).collect()
    }
}

/// What ends a fault.
#[derive(Debug, Clone)]
enum Undo {
    Start(usize),
    StartAggregator(usize),
    Repair(String, String),
    RepairOneWay(String, String),
    Release(String, String),
    Near(String, String),
    Fast(usize),
    ClockRight(usize),
    NoMischief,
}

/// The faults of a scenario.
pub(crate) struct Faults {
    /// What comes, and when: whatever becomes of it, so that it is the same in each run of a seed.
    rng: StdRng,
    /// What follows from what happens.
    after: StdRng,
    /// What ends when.
    undo: Vec<(Duration, Undo)>,
    next: Duration,
    /// Leaves that are not there.
    down: Vec<usize>,
    pub(crate) starts: u64,
}

fn ms(from: u64, to: u64, rng: &mut StdRng) -> Duration {
    Duration::from_millis(rng.random_range(from..to))
}

impl Faults {
    pub(crate) fn new(mut rng: StdRng) -> Faults {
        let after = StdRng::seed_from_u64(rng.random());
        Faults { rng, after, undo: Vec::new(), next: Duration::ZERO, down: Vec::new(), starts: 0 }
    }

    /// The first leaf lives on its old machine for a while, and moves with its disk. Then somebody switches the old
    /// machine on again, where everything still is as it was: from then on the leaf is there twice.
    pub(crate) fn move_first(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        let old = cluster.settings.leaves;
        cluster.until(self, WARM_MAX, |shared| shared.phase.get() == Phase::Move)?;
        self.end(cluster, old, End::Kill);
        let machines = &cluster.shared.machines;
        let drive = machines[old].drive.borrow().clone();
        let files = drive.files().into_iter();
        let files: Vec<(String, Vec<u8>)> =
            files.filter_map(|(path, _)| drive.read(&path).map(|bytes| (path, bytes))).collect();
        machines[0].drive.replace(Drive::with(&files));
        machines[0].idle.set(false);
        cluster.shared.note(format_args!("leaf-0 moves"));
        // So that its epoch is newer than the other's ever is. Before anybody meets it: one epoch is one process.
        for _ in 0..2 {
            self.start(cluster, 0);
            Faults::pass(cluster, UNMET)?;
            self.end(cluster, 0, End::Kill);
        }
        self.start(cluster, 0);
        Faults::pass(cluster, MOVING)?;
        self.start(cluster, old);
        Ok(())
    }

    fn pass(cluster: &mut Cluster, time: Duration) -> Result<(), String> {
        let until = cluster.sim.elapsed() + time;
        while cluster.sim.elapsed() < until {
            cluster.step()?;
        }
        Ok(())
    }

    /// A leaf's process ends.
    fn end(&mut self, cluster: &mut Cluster, leaf: usize, how: End) {
        let machine = Rc::clone(&cluster.shared.machines[leaf]);
        machine.die();
        cluster.sim.crash(machine.host.as_str());
        machine.clear(how);
        if !self.down.contains(&leaf) {
            self.down.push(leaf);
        }
        cluster.shared.note(format_args!("{} ended: {how:?}", machine.host));
    }

    fn start(&mut self, cluster: &mut Cluster, leaf: usize) {
        self.down.retain(|down| *down != leaf);
        self.starts += 1;
        cluster.shared.machines[leaf].speed.set_request_ms(REQUEST_MS);
        cluster.shared.note(format_args!("{} starts", cluster.shared.machines[leaf].host));
        cluster.sim.bounce(cluster.shared.machines[leaf].host.as_str());
    }

    /// Ends faults that are due, and finds processes that have ended.
    pub(crate) fn look(&mut self, cluster: &mut Cluster) {
        let now = cluster.sim.elapsed();
        for leaf in 0..cluster.shared.machines.len() {
            let machine = &cluster.shared.machines[leaf];
            if machine.has_ended() && !machine.idle.get() && !self.down.contains(&leaf) {
                let is_cut = cluster.settings.power_cuts && self.after.random_bool(0.3);
                self.end(cluster, leaf, if is_cut { End::PowerCut } else { End::Kill });
                let back = now + ms(100, 1_500, &mut self.after);
                self.undo.push((back, Undo::Start(leaf)));
            }
        }
        let (due, later) = std::mem::take(&mut self.undo).into_iter().partition(|(at, _)| *at <= now);
        self.undo = later;
        let due: Vec<(Duration, Undo)> = due;
        for (_, undo) in due {
            self.undo(cluster, undo);
        }
    }

    fn undo(&mut self, cluster: &mut Cluster, undo: Undo) {
        let note = |shared: &Shared, what: &str| shared.note(format_args!("{what}"));
        let shared = Rc::clone(&cluster.shared);
        match undo {
            Undo::Start(leaf) => {
                if self.down.contains(&leaf) {
                    self.start(cluster, leaf);
                }
            }
            Undo::StartAggregator(number) => {
                let (station, _) = &shared.stations[number];
                if !station.up.replace(true) {
                    note(&shared, &format!("{} starts", station.host));
                    cluster.sim.bounce(station.host.as_str());
                }
            }
            Undo::Repair(one, other) => cluster.sim.repair(one, other),
            Undo::RepairOneWay(one, other) => cluster.sim.repair_oneway(one, other),
            Undo::Release(one, other) => cluster.sim.release(one, other),
            Undo::Near(one, other) => {
                cluster.sim.set_link_latency(one, other, Duration::from_millis(1));
            }
            Undo::Fast(leaf) => {
                shared.machines[leaf].speed.set_look_ms(0);
                shared.machines[leaf].speed.set_request_ms(REQUEST_MS);
            }
            Undo::ClockRight(leaf) => shared.machines[leaf].time.set_wrong(0),
            Undo::NoMischief => cluster.mischief.set(false),
        }
    }

    /// Something may break.
    pub(crate) fn draw(&mut self, cluster: &mut Cluster) {
        let now = cluster.sim.elapsed();
        if now < self.next {
            return;
        }
        self.next = now + ms(100, 1_200, &mut self.rng);
        let rng = &mut StdRng::seed_from_u64(self.rng.random());
        let Some(kind) = Kind::of(&cluster.settings).choose(rng).copied() else { return };
        match kind {
            Kind::Kill | Kind::PowerCut | Kind::Stop | Kind::PlannedEnd => self.end_one(cluster, kind, rng),
            Kind::AggregatorKill => self.kill_aggregator(cluster, rng),
            Kind::Partition | Kind::OneWay | Kind::Hold | Kind::Delay => self.cut(cluster, kind, rng),
            Kind::Slow => {
                let (look, wait) = (rng.random_range(5..400), rng.random_range(5..600));
                let leaf = rng.random_range(0..cluster.settings.leaves);
                cluster
                    .shared
                    .note(format_args!("leaf-{leaf} is slow: {look} ms a look, {wait} ms a request"));
                cluster.shared.machines[leaf].speed.set_look_ms(look);
                cluster.shared.machines[leaf].speed.set_request_ms(wait);
                self.undo.push((now + ms(200, 3_000, rng), Undo::Fast(leaf)));
            }
            Kind::ClockStep => {
                let hours = [-87_600, -1, 1, 24, 87_600][rng.random_range(0..5)];
                let leaf = rng.random_range(0..cluster.settings.leaves);
                cluster.shared.note(format_args!("the clock of leaf-{leaf} steps by {hours} hours"));
                cluster.shared.machines[leaf].time.set_wrong(hours * 3_600_000_000_000);
                self.undo.push((now + ms(200, 3_000, rng), Undo::ClockRight(leaf)));
            }
            Kind::Mischief => {
                cluster.shared.note(format_args!("mischief"));
                cluster.mischief.set(true);
                self.undo.push((now + ms(500, 4_000, rng), Undo::NoMischief));
            }
        }
    }

    /// The process of a leaf ends, or is going to, if there is one.
    fn end_one(&mut self, cluster: &mut Cluster, kind: Kind, rng: &mut StdRng) {
        let leaf = rng.random_range(0..cluster.settings.leaves);
        if self.down.contains(&leaf) {
            return;
        }
        let machine = Rc::clone(&cluster.shared.machines[leaf]);
        match kind {
            Kind::Stop => {
                cluster.shared.note(format_args!("leaf-{leaf} is told to stop"));
                machine.stop();
            }
            Kind::PlannedEnd => {
                // A batch takes a few: it may be on the disk, and nobody says so.
                let calls = rng.random_range(1..8);
                cluster.shared.note(format_args!("leaf-{leaf} ends in {calls} calls"));
                machine.end_in(calls);
            }
            _ => {
                self.end(cluster, leaf, if kind == Kind::Kill { End::Kill } else { End::PowerCut });
                self.undo.push((cluster.sim.elapsed() + ms(50, 2_500, rng), Undo::Start(leaf)));
                if rng.random_bool(0.1) {
                    machine.ends_in.set(Some(rng.random_range(1..40)));
                }
            }
        }
    }

    fn kill_aggregator(&mut self, cluster: &mut Cluster, rng: &mut StdRng) {
        let now = cluster.sim.elapsed();
        let number = rng.random_range(0..cluster.shared.stations.len());
        let (station, _) = &cluster.shared.stations[number];
        if !station.up.replace(false) {
            return;
        }
        cluster.shared.note(format_args!("{} ended", station.host));
        cluster.sim.crash(station.host.as_str());
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        cluster.shared.model.borrow_mut().forgot(number, now_ms.saturating_sub(ROSTER_WRITTEN_MS));
        self.undo.push((now + ms(50, 2_000, rng), Undo::StartAggregator(number)));
    }

    /// Something happens to a link between two servers.
    fn cut(&mut self, cluster: &mut Cluster, kind: Kind, rng: &mut StdRng) {
        let mut servers = cluster.servers();
        // Leaves say nothing to each other but gossip.
        let first = if rng.random_bool(0.8) { servers.len() - cluster.settings.aggregators } else { 0 };
        let one = servers.swap_remove(rng.random_range(first..servers.len()));
        let other = servers.swap_remove(rng.random_range(0..servers.len()));
        let (one, other) = if rng.random() { (one, other) } else { (other, one) };
        let until = cluster.sim.elapsed() + ms(100, 3_000, rng);
        cluster.shared.note(format_args!("{kind:?} between {one} and {other} until {until:?}"));
        let (a, b) = (one.as_str(), other.as_str());
        let undo = match kind {
            Kind::OneWay => {
                cluster.sim.partition_oneway(a, b);
                Undo::RepairOneWay(one, other)
            }
            Kind::Hold => {
                cluster.sim.hold(a, b);
                Undo::Release(one, other)
            }
            Kind::Delay => {
                cluster.sim.set_link_latency(a, b, ms(20, 500, rng));
                Undo::Near(one, other)
            }
            _ => {
                cluster.sim.partition(a, b);
                Undo::Repair(one, other)
            }
        };
        self.undo.push((until, undo));
    }

    /// From now on nothing breaks.
    pub(crate) fn heal(&mut self, cluster: &mut Cluster) {
        for machine in &cluster.shared.machines {
            Machine::go_on(machine);
        }
        for (_, undo) in std::mem::take(&mut self.undo) {
            self.undo(cluster, undo);
        }
        for leaf in self.down.clone() {
            self.start(cluster, leaf);
        }
    }
}
