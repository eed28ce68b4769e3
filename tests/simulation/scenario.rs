//! A scenario: what a seed makes of a machine, a leaf, and those who use it.
//!
//! Each seed draws which kinds of faults there are and how often, then acts at random, and judges what the leaf
//! answers against the model: honestly at any time, completely when everything was healed and brought back.

use std::sync::Arc;
use std::time::Duration;

use gannet_leaf::dedup::BatchName;
use gannet_leaf::wal::Durability;
use gannet_leaf::{Batch, Config, Leaf, LeafError};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rustix::io::Errno;

use crate::life::Trace;
use crate::model::{Judge, Model, Sent, ask};
use crate::sim_disk::{DiskCall, DiskFault};
use crate::sim_memory::{MemoryCall, MemoryFault};
use crate::world::{End, Stopped, World};

const TABLES: [&str; 2] = ["t", "u"];
/// Rows are kept this long where retention is on. Longer than any scenario, and than what its stops can add.
const RETENTION_SECONDS: u64 = 200 * 24 * 3600;

/// What a seed has drawn.
#[derive(Debug)]
struct Settings {
    steps: usize,
    kills: bool,
    power_cuts: bool,
    moves: bool,
    stale: bool,
    stops: bool,
    planned_ends: bool,
    clock_steps: bool,
    disk_faults: bool,
    memory_faults: bool,
    /// Bits turn, and sectors cannot be read.
    damage: bool,
    retention: bool,
}

/// How a scenario went.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) batches: u64,
    pub(crate) acknowledged: u64,
    pub(crate) duplicates: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    pub(crate) queries: u64,
    pub(crate) starts: u64,
    pub(crate) power_cuts: u64,
    pub(crate) trace_hash: u64,
}

struct Scenario {
    settings: Settings,
    world: World,
    model: Model,
    rng: StdRng,
    report: Report,
    /// A producer's next sequence, by table and producer.
    next_sequences: std::collections::BTreeMap<(usize, usize), u64>,
    next_tag: i64,
    /// Rows may be lost, if the leaf says so.
    damaged: bool,
    /// Faults are set, or there is no room.
    faulty: bool,
    /// Nothing excuses a refusal any more.
    healed: bool,
    /// The log was full, and was given time.
    waited: bool,
    /// The last stop went well, and nothing has run since.
    handed_over: bool,
}

impl Settings {
    fn draw(rng: &mut StdRng) -> Settings {
        Settings {
            steps: rng.random_range(30..160),
            kills: rng.random_bool(0.6),
            power_cuts: rng.random_bool(0.6),
            moves: rng.random_bool(0.3),
            stale: rng.random_bool(0.3),
            stops: rng.random_bool(0.7),
            planned_ends: rng.random_bool(0.7),
            clock_steps: rng.random_bool(0.3),
            disk_faults: rng.random_bool(0.4),
            memory_faults: rng.random_bool(0.3),
            damage: rng.random_bool(0.2),
            retention: rng.random_bool(0.3),
        }
    }
}

fn config(settings: &Settings, rng: &mut StdRng) -> Config {
    Config {
        id: "leaf-1".to_owned(),
        data_dir: "simulated".into(),
        scan_threads: 1,
        seal_age_seconds: [0, 2, 20, 300][rng.random_range(0..4)],
        retention_seconds: if settings.retention { RETENTION_SECONDS } else { 0 },
        durability: if rng.random_bool(0.75) { Durability::Power } else { Durability::Process },
        wal_bytes_max: [128 << 10, 1 << 20, 64 << 20][rng.random_range(0..3)],
        seal_into_shm: rng.random_bool(0.4),
        ..Config::default()
    }
}

/// Runs a scenario; every broken promise is an error.
pub(crate) fn run(seed: u64, trace: &Arc<Trace>) -> Result<Report, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let settings = Settings::draw(&mut rng);
    let config = config(&settings, &mut rng);
    trace.add(format_args!("seed {seed}: {settings:?} {config:?}"));
    let world = World::new(config, &mut rng, trace);
    let mut scenario = Scenario {
        settings,
        world,
        model: Model::default(),
        rng,
        report: Report::default(),
        next_sequences: Default::default(),
        next_tag: 1,
        damaged: false,
        faulty: false,
        healed: false,
        waited: false,
        handed_over: false,
    };
    scenario.restart()?;
    for _ in 0..scenario.settings.steps {
        scenario.act()?;
        if scenario.world.leaf().is_none() {
            scenario.end_of_life()?;
        }
    }
    scenario.finish()?;
    scenario.report.starts = scenario.world.starts;
    scenario.report.trace_hash = trace.hash();
    Ok(scenario.report)
}

impl Scenario {
    fn act(&mut self) -> Result<(), String> {
        match self.rng.random_range(0..100) {
            0..32 => self.append(),
            32..42 => self.retry(),
            42..49 => self.query(),
            49..57 => {
                self.world.note(format_args!("maintain"));
                if let Some(leaf) = self.world.leaf() {
                    leaf.maintain();
                }
                Ok(())
            }
            57..70 => {
                let jobs = self.rng.random_range(1..6);
                self.world.run_jobs(jobs, &mut self.rng);
                Ok(())
            }
            70..75 => {
                let seconds = [1, 3, 30, 100][self.rng.random_range(0..4)];
                self.world.time.pass(Duration::from_secs(seconds));
                Ok(())
            }
            75..79 => self.plan_an_end(),
            79..83 => self.stop(),
            83..86 => self.end_suddenly(),
            86..88 => {
                self.step_the_clock();
                Ok(())
            }
            88..94 => {
                self.add_disk_fault();
                Ok(())
            }
            94..96 => {
                self.add_memory_fault();
                Ok(())
            }
            96..98 => {
                self.heal();
                Ok(())
            }
            98 => self.twins(),
            _ => {
                let seconds = self.rng.random_range(1..40);
                self.world.settle(seconds, &mut self.rng);
                Ok(())
            }
        }
    }

    /// Sends a new batch, or the parts of a sequence.
    fn append(&mut self) -> Result<(), String> {
        let table = self.rng.random_range(0..TABLES.len());
        let rows = if self.rng.random_bool(0.05) { 600 } else { self.rng.random_range(1..30) };
        let producer = self.rng.random_range(0..4);
        let next = self.next_sequences.entry((table, producer)).or_default();
        let sequence = *next;
        let names: Vec<Option<BatchName>> = match self.rng.random_range(0..10) {
            0 => vec![None],
            1 => vec![Some(BatchName::of_key(TABLES[table], &self.next_tag.to_le_bytes(), 0, true))],
            kind => {
                *next += if self.rng.random_bool(0.1) { 2 } else { 1 };
                let parts = if kind == 2 { self.rng.random_range(2..4) } else { 1 };
                (0..parts)
                    .map(|part| BatchName {
                        table: TABLES[table].to_owned(),
                        producer: format!("p{producer}"),
                        sequence,
                        part,
                        last_part: part + 1 == parts,
                    })
                    .map(Some)
                    .collect()
            }
        };
        for name in names {
            let old = self.settings.retention && self.rng.random_bool(0.1);
            let age_seconds = if old { 2 * RETENTION_SECONDS } else { self.rng.random_range(0..600) };
            let time_ns = self.world.time.now_ns() - i64::try_from(age_seconds).unwrap_or(0) * 1_000_000_000;
            let mut sent = Sent::new(self.next_tag, TABLES[table], name, rows, time_ns);
            sent.may_expire = old;
            self.next_tag += 1;
            self.report.batches += 1;
            self.model.sent.push(sent);
            self.send(self.model.sent.len() - 1)?;
            // A producer may leave a sequence half sent, and come back to it.
            if self.world.leaf().is_none() || self.rng.random_bool(0.1) {
                break;
            }
        }
        Ok(())
    }

    /// Sends the same rows to both tables, and seals them alone: blocks that differ in nothing but where they belong.
    /// Where bytes may change behind the leaf's back, it may find one in the place of the other when it starts again.
    fn twins(&mut self) -> Result<(), String> {
        let time_ns = self.world.time.now_ns();
        let rows = self.rng.random_range(1..9);
        self.world.settle(self.world.config.seal_age_seconds + 1, &mut self.rng);
        let before = self.world.shelf.segments();
        for table in TABLES {
            let name = BatchName::of_key(table, &self.next_tag.to_le_bytes(), 0, true);
            self.model.sent.push(Sent::new(self.next_tag, table, Some(name), rows, time_ns));
            self.next_tag += 1;
            self.report.batches += 1;
            self.send(self.model.sent.len() - 1)?;
        }
        self.world.settle(self.world.config.seal_age_seconds + 1, &mut self.rng);
        let mut twins = self.world.shelf.segments();
        twins.retain(|segment| !before.contains(segment));
        match &twins[..] {
            [from, to] if self.settings.damage && from.1 == to.1 => {
                self.end(End::Kill);
                self.damaged = true;
                self.world.note(format_args!("a segment is written over its twin"));
                self.world.shelf.write_over(&from.0, &to.0);
                self.restart()
            }
            _ => Ok(()),
        }
    }

    /// Sends a batch again that was sent before.
    fn retry(&mut self) -> Result<(), String> {
        let again: Vec<usize> =
            (0..self.model.sent.len()).filter(|at| self.model.sent[*at].name.is_some()).collect();
        let recent = again.len().saturating_sub(12);
        let choice = if self.rng.random_bool(0.7) { &again[recent..] } else { &again[..] };
        match choice.choose(&mut self.rng) {
            Some(at) => self.send(*at),
            None => Ok(()),
        }
    }

    fn send(&mut self, at: usize) -> Result<(), String> {
        let Some(leaf) = self.world.leaf() else { return Ok(()) };
        let sent = &mut self.model.sent[at];
        let rows = [sent.batch()];
        let batch = Batch { table: &sent.table, rows: &rows, encoded: None, name: sent.name.clone() };
        let said = leaf.append_batch(batch);
        if self.world.life.has_ended() {
            // Nobody hears the answer of a process that has ended.
            sent.may = true;
            self.report.unknown += 1;
            self.world.trace.add(format_args!("send {sent}: no answer"));
            return Ok(());
        }
        match said {
            Ok(receipt) => {
                self.world.trace.add(format_args!("send {sent}: accepted, duplicate {}", receipt.duplicate));
                if receipt.duplicate && !sent.may {
                    return Err(format!("{sent} is called a duplicate and was never accepted"));
                }
                self.report.acknowledged += 1;
                self.report.duplicates += u64::from(receipt.duplicate);
                (sent.must, sent.may) = (true, true);
            }
            Err(LeafError::Log(error)) if error.may_survive() => {
                self.world.trace.add(format_args!("send {sent}: unknown: {error}"));
                self.report.unknown += 1;
                sent.may = true;
                if self.healed {
                    return Err(format!("{sent} has an unknown outcome: {error}"));
                }
            }
            Err(LeafError::LogFull { .. }) if self.healed && !self.waited => {
                // Half a minute is enough to seal, to store, to make a checkpoint and to cut the log.
                self.world.settle(40, &mut self.rng);
                self.waited = true;
                let sent = self.send(at);
                self.waited = false;
                return sent;
            }
            Err(error) => {
                self.world.trace.add(format_args!("send {sent}: refused: {error}"));
                self.report.refused += 1;
                let is_the_disk = matches!(error, LeafError::Log(_) | LeafError::LogFull { .. });
                let is_early = matches!(error, LeafError::NotServing { .. });
                if self.healed || (!self.faulty && !is_the_disk && !is_early) {
                    return Err(format!("{sent} is refused: {error}"));
                }
            }
        }
        Ok(())
    }

    fn query(&mut self) -> Result<(), String> {
        self.judge(Judge::Honest)
    }

    fn judge(&mut self, judge: Judge) -> Result<(), String> {
        let Some(leaf) = self.world.leaf() else { return Ok(()) };
        for table in TABLES {
            let answer = ask(&leaf, table)?;
            if self.world.life.has_ended() {
                return Ok(());
            }
            self.report.queries += 1;
            self.world.note(format_args!(
                "{table} answers with {} batches, {} rows missing",
                answer.batches.len(),
                answer.missing_rows()
            ));
            self.model.judge(table, &answer, if self.damaged { Judge::Honest } else { judge })?;
        }
        Ok(())
    }

    fn plan_an_end(&mut self) -> Result<(), String> {
        if self.settings.planned_ends {
            let calls = self.rng.random_range(1..25);
            self.world.note(format_args!("the process will end in {calls} calls"));
            self.world.life.end_in(calls);
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), String> {
        if !self.settings.stops {
            return Ok(());
        }
        if self.rng.random_bool(0.5) {
            let jobs = self.rng.random_range(0..50);
            self.world.run_jobs(jobs, &mut self.rng);
        }
        if self.settings.planned_ends && self.rng.random_bool(0.25) {
            self.world.life.end_in(self.rng.random_range(1..60));
        }
        match self.world.stop() {
            Err(Stopped::Broken(what)) => return Err(what),
            _ if self.world.life.has_ended() => return Ok(()),
            Err(Stopped::Refused(error)) if !self.faulty => {
                return Err(format!("the leaf does not stop: {error}"));
            }
            Ok(()) => self.handed_over = true,
            Err(_) => {}
        }
        self.world.exit();
        Ok(())
    }

    fn end_suddenly(&mut self) -> Result<(), String> {
        if self.settings.kills || self.settings.power_cuts || self.settings.moves {
            self.world.life.end();
        }
        Ok(())
    }

    fn step_the_clock(&mut self) {
        if self.settings.clock_steps {
            let hour = 3_600_000_000_000_i64;
            let year = 24 * 365 * hour;
            let wrong = [0, hour, -hour, 10 * year, -10 * year][self.rng.random_range(0..5)];
            self.world.note(format_args!("the wall clock is {} h wrong", wrong / hour));
            self.world.time.set_wrong(wrong);
        }
    }

    fn add_disk_fault(&mut self) {
        if !self.settings.disk_faults {
            return;
        }
        self.faulty = true;
        if self.rng.random_bool(0.15) {
            let room = self.rng.random_range(0..4_000);
            self.world.note(format_args!("the disk has {room} bytes left"));
            self.world.drive.set_capacity(self.world.drive.used_bytes() + room);
            return;
        }
        let calls = [
            DiskCall::Append,
            DiskCall::Append,
            DiskCall::Sync,
            DiskCall::Sync,
            DiskCall::Sync,
            DiskCall::Sync,
            DiskCall::Sync,
            DiskCall::Sync,
            DiskCall::Create,
            DiskCall::Rename,
            DiskCall::Remove,
            DiskCall::SyncDirectory,
            DiskCall::Truncate,
            DiskCall::List,
            DiskCall::CreateDirectory,
            DiskCall::FreeBytes,
            DiskCall::Open,
            DiskCall::Read,
            DiskCall::Map,
        ];
        let mut call = calls[self.rng.random_range(0..calls.len())];
        if matches!(call, DiskCall::Open | DiskCall::Read | DiskCall::Map) {
            match self.settings.damage {
                true => self.damaged = true,
                false => call = DiskCall::Sync,
            }
        }
        let fault = DiskFault {
            call,
            nth: self.rng.random_range(1..4),
            times: self.rng.random_range(1..4),
            errno: if self.rng.random_bool(0.7) { Errno::IO } else { Errno::NOSPC },
        };
        let tear = self.tear();
        self.world.note(format_args!("fault: {fault:?}, tear {tear}"));
        self.world.drive.add_fault(fault, tear);
    }

    /// How much of a write happens that fails: nothing, all of it, or some.
    fn tear(&mut self) -> usize {
        match self.rng.random_range(0..4) {
            0 => 0,
            1 => usize::MAX,
            _ => self.rng.random_range(0..5_000),
        }
    }

    fn add_memory_fault(&mut self) {
        if !self.settings.memory_faults {
            return;
        }
        self.faulty = true;
        if self.rng.random_bool(0.4) {
            let room = self.rng.random_range(0..40_000);
            self.world.note(format_args!("shared memory has {room} bytes"));
            self.world.shelf.set_capacity(Some(room));
            return;
        }
        let calls = [
            MemoryCall::Create,
            MemoryCall::Open,
            MemoryCall::Map,
            MemoryCall::Read,
            MemoryCall::Write,
            MemoryCall::Finish,
            MemoryCall::Unlink,
            MemoryCall::List,
            MemoryCall::Available,
        ];
        let errnos = [Errno::IO, Errno::NOSPC, Errno::WOULDBLOCK, Errno::ACCESS];
        let fault = MemoryFault {
            call: calls[self.rng.random_range(0..calls.len())],
            nth: self.rng.random_range(1..3),
            times: self.rng.random_range(1..4),
            errno: errnos[self.rng.random_range(0..errnos.len())],
        };
        let tear = self.tear();
        self.world.note(format_args!("fault: {fault:?}, tear {tear}"));
        self.world.shelf.add_fault(fault, tear);
    }

    fn heal(&mut self) {
        self.world.note(format_args!("heal"));
        self.world.drive.heal();
        self.world.shelf.heal();
        self.faulty = false;
    }

    /// What happens to bytes nobody looks at.
    fn damage(&mut self) {
        if !self.settings.damage || self.rng.random_bool(0.6) {
            return;
        }
        self.damaged = true;
        let files: Vec<String> = self.world.drive.files().into_iter().map(|(path, _)| path).collect();
        let files: Vec<&String> = files.iter().filter(|path| path.contains('/')).collect();
        let segments = self.world.shelf.segments();
        let (at, kind) = (self.rng.random(), self.rng.random_range(0..6));
        match kind {
            0 | 1 => {
                if let Some(path) = files.choose(&mut self.rng) {
                    // A last record that is damaged cannot be told from one that was never finished, and any file
                    // may turn out to be the last one when the power is cut.
                    let is_log = path.ends_with(".wal");
                    let bytes = if is_log { self.world.drive.last_whole_append(path) } else { u64::MAX };
                    // Nor can a record in the middle, as long as nothing behind it says that it was synced.
                    let is_synced = self.world.config.durability == Durability::Power;
                    let bytes = if is_log && !is_synced { 0 } else { bytes };
                    let byte = self.world.drive.flip_bit(path, at, bytes);
                    self.world.note(format_args!("a bit turns in {path} at {byte:?}"));
                }
            }
            2 => {
                let blocks: Vec<&&String> = files.iter().filter(|path| path.ends_with(".block")).collect();
                if let (Some(from), Some(to)) = (blocks.choose(&mut self.rng), blocks.choose(&mut self.rng)) {
                    self.world.note(format_args!("{from} is written over {to}"));
                    self.world.drive.write_over(from, to);
                }
            }
            3 | 4 => {
                let from = segments.choose(&mut self.rng);
                let same: Vec<_> = segments
                    .iter()
                    .filter(|to| from.is_some_and(|from| from.0 != to.0 && from.1 == to.1))
                    .collect();
                if let (Some((from, _)), Some((to, _))) = (from, same.choose(&mut self.rng)) {
                    self.world.note(format_args!("a segment is written over another"));
                    self.world.shelf.write_over(from, to);
                }
            }
            _ => {
                if let Some((name, _)) = segments.choose(&mut self.rng) {
                    self.world.note(format_args!("a bit turns in a segment"));
                    self.world.shelf.flip_bit(name, at);
                }
            }
        }
    }

    /// The process has ended, by plan or by itself: what is left decides what the next one finds.
    fn end_of_life(&mut self) -> Result<(), String> {
        let mut ways = vec![];
        ways.extend(self.settings.kills.then_some(End::Kill));
        ways.extend(self.settings.power_cuts.then_some(End::PowerCut));
        ways.extend(self.settings.moves.then_some(End::Move));
        ways.extend(self.settings.stale.then_some(End::Stale));
        let how = ways.choose(&mut self.rng).copied().unwrap_or(End::Kill);
        // What an older hand-over left is most like the last one behind a stop that went well.
        let stale = self.settings.stale && std::mem::take(&mut self.handed_over) && self.rng.random_bool(0.5);
        let how = match self.rng.random_bool(0.4) {
            _ if stale => End::Stale,
            true => End::Kill,
            false => how,
        };
        self.end(how);
        self.damage();
        self.restart()
    }

    fn end(&mut self, how: End) {
        self.world.end(how, &mut self.rng);
        if how == End::PowerCut {
            self.report.power_cuts += 1;
            self.model.power_cut(self.world.config.durability == Durability::Power);
        }
    }

    /// What the last start said of the log.
    fn hear_of_lost_records(&mut self) {
        if self.damaged && self.world.said.contains("lost records") {
            self.model.lost_records = true;
        }
    }

    /// Starts until it is started.
    fn restart(&mut self) -> Result<(), String> {
        if self.rng.random_bool(0.3) {
            self.heal();
        }
        for attempt in 0.. {
            let ends_in = (self.settings.planned_ends && attempt == 0 && self.rng.random_bool(0.25))
                .then(|| self.rng.random_range(1..40));
            let started = self.world.start(ends_in);
            self.hear_of_lost_records();
            match started {
                Ok(()) if self.world.life.has_ended() => {}
                Ok(()) => {
                    self.world.life.go_on();
                    break;
                }
                Err(Stopped::Broken(what)) => return Err(what),
                Err(_) if self.world.life.has_ended() => {}
                Err(Stopped::Refused(error)) if !self.faulty => {
                    return Err(format!("the leaf does not start: {error}"));
                }
                Err(_) => self.heal(),
            }
            let cut = self.settings.power_cuts && self.rng.random_bool(0.3);
            self.end(if cut { End::PowerCut } else { End::Kill });
        }
        self.judge(Judge::Honest)
    }

    /// Everything is healed: within half a minute all is there again, and nothing is counted twice or missing.
    fn recover(&mut self) -> Result<(), String> {
        self.heal();
        self.world.life.go_on();
        self.world.time.set_wrong(0);
        if self.world.leaf().is_none() {
            self.end(End::Kill);
            self.restart_healed()?;
        }
        self.world.settle(40, &mut self.rng);
        if !self.world.is_serving() {
            let state = self.world.leaf().map(|leaf: Arc<Leaf>| leaf.state().name());
            return Err(format!("the leaf is {state:?} half a minute after everything was healed"));
        }
        self.judge(Judge::Complete)?;
        self.model.is_durable();
        Ok(())
    }

    fn restart_healed(&mut self) -> Result<(), String> {
        self.heal();
        let started = self.world.start(None);
        self.hear_of_lost_records();
        started.map_err(|error| format!("the healed leaf does not start: {error:?}"))
    }

    /// The end of every scenario: healed, every batch is sent again, and the leaf is ended in every way.
    fn finish(&mut self) -> Result<(), String> {
        self.recover()?;
        self.healed = true;
        for at in 0..self.model.sent.len() {
            if self.model.sent[at].name.is_some() && self.rng.random_bool(0.5) {
                self.send(at)?;
            }
        }
        self.judge(Judge::Complete)?;
        self.stop_healed()?;
        self.restart_healed()?;
        self.recover()?;
        for how in [End::Kill, End::Move, End::PowerCut] {
            self.append()?;
            self.end(how);
            self.restart_healed()?;
            self.judge(Judge::Honest)?;
            self.recover()?;
        }
        Ok(())
    }

    fn stop_healed(&mut self) -> Result<(), String> {
        self.world.stop().map_err(|error| format!("the healed leaf does not stop: {error:?}"))?;
        self.world.exit();
        Ok(())
    }
}
