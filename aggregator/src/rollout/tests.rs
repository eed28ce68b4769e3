//! Rollouts over leaves that are only numbers: each guard alone, and many lives with crashes of whoever drives.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Leaves that do as they are told.
struct World {
    leaves: BTreeMap<String, Seen>,
    /// Steps until a leaf goes on: handing over, away, starting.
    busy: BTreeMap<String, u32>,
    now: Millis,
}

fn seen(machine: &str, rows: u64) -> Seen {
    Seen {
        machine: machine.to_owned(),
        epoch: 1,
        version: "1".to_owned(),
        presence: Presence::Serving,
        source: "nothing".to_owned(),
        source_detail: String::new(),
        rows,
        rows_lost: 0,
    }
}

impl World {
    /// Leaves of a hundred rows, each on a machine of its own.
    fn of(count: usize) -> World {
        let leaf = |index| (format!("leaf-{index}"), seen(&format!("m{index}"), 100));
        World { leaves: (0..count).map(leaf).collect(), busy: BTreeMap::new(), now: 0 }
    }

    fn view(&self) -> View {
        View { leaves: self.leaves.clone(), unheard: Vec::new() }
    }

    fn leaf(&mut self, index: usize) -> &mut Seen {
        self.leaves.get_mut(&format!("leaf-{index}")).unwrap()
    }

    fn obey(&mut self, action: &Action) {
        let Some(leaf) = self.leaves.get_mut(&action.leaf).filter(|leaf| leaf.epoch == action.epoch) else {
            return;
        };
        match (action.order, leaf.presence) {
            (Order::Drain, Presence::Serving) => leaf.presence = Presence::Draining,
            (Order::Undrain, Presence::Draining) => leaf.presence = Presence::Serving,
            (Order::Stop, Presence::Serving | Presence::Draining) => leaf.presence = Presence::Stopping,
            _ => {}
        }
    }

    /// One step of every leaf that is on its way.
    fn go_on(&mut self, pause: &mut impl FnMut() -> u32) {
        for (name, leaf) in &mut self.leaves {
            let left = self.busy.entry(name.clone()).or_insert_with(&mut *pause);
            if *left > 0 && !leaf.presence.answers() {
                *left -= 1;
                continue;
            }
            self.busy.remove(name);
            match leaf.presence {
                Presence::Stopping => leaf.presence = Presence::Away,
                Presence::Away => {
                    leaf.presence = Presence::Starting;
                    leaf.epoch += 1;
                    leaf.version = "2".to_owned();
                }
                Presence::Starting => {
                    leaf.presence = Presence::Serving;
                    leaf.source = "shared memory".to_owned();
                }
                Presence::Serving | Presence::Draining => {}
            }
        }
    }

    /// A tick of a second, whose orders are obeyed.
    fn tick(&mut self, rollout: &mut Rollout) -> Vec<Action> {
        self.now += 1000;
        let actions = rollout.tick(&self.view(), self.now);
        actions.iter().for_each(|action| self.obey(action));
        actions
    }

    /// Ticks until something else is wanted.
    fn run_while(&mut self, rollout: &mut Rollout, is: impl Fn(&Rollout) -> bool) {
        for _ in 0..1000 {
            if !is(rollout) {
                return;
            }
            self.tick(rollout);
            self.go_on(&mut || 0);
        }
        panic!("it goes on for ever: {rollout:?}");
    }
}

fn settings(max: usize, least: f64) -> Settings {
    Settings { max_unavailable: MaxUnavailable::Leaves(max), min_completeness: least, ..Settings::default() }
}

fn begun(world: &World, settings: Settings) -> Rollout {
    Rollout::plan(&world.view(), settings, 7, 0).unwrap()
}

fn steps(rollout: &Rollout) -> Vec<Step> {
    rollout.leaves().iter().map(|leaf| leaf.step).collect()
}

#[track_caller]
fn check_paused(rollout: &Rollout, guard: Guard, why: &str) {
    let State::Paused { guard: by, why: said } = rollout.state() else { panic!("{:?}", rollout.state()) };
    assert_eq!((*by, said.as_str()), (Some(guard), why));
}

#[test]
fn all_leaves_are_restarted_one_after_the_other() {
    let mut world = World::of(3);
    let mut rollout = begun(&world, settings(1, 0.5));
    assert_eq!(steps(&rollout), [Step::Waiting; 3]);
    let drain = |leaf: &str| Action { order: Order::Drain, leaf: leaf.to_owned(), epoch: 1 };
    assert_eq!(world.tick(&mut rollout), [drain("leaf-0")]);
    assert_eq!(steps(&rollout), [Step::Draining, Step::Waiting, Step::Waiting]);
    assert_eq!(world.tick(&mut rollout), [Action { order: Order::Stop, ..drain("leaf-0") }]);
    world.run_while(&mut rollout, |rollout| *rollout.state() == State::Running);
    assert_eq!(*rollout.state(), State::Done);
    assert_eq!(steps(&rollout), [Step::Done; 3]);
    assert!(world.leaves.values().all(|leaf| leaf.epoch == 2 && leaf.presence == Presence::Serving));
    for leaf in rollout.leaves() {
        assert_eq!(
            (leaf.path.as_str(), leaf.version_before.as_str(), leaf.version.as_str()),
            ("shared memory", "1", "2")
        );
        assert!(leaf.took.is_some_and(|took| took > 0 && took < 10_000), "{leaf:?}");
    }
    assert!(!rollout.is_open() && !rollout.pause() && !rollout.abort());
}

#[test]
fn shares_of_leaves_are_at_least_one() {
    let parse = |text| MaxUnavailable::parse(text);
    assert_eq!(parse("2%").map(|share| [8, 99, 100, 1000].map(|leaves| share.of(leaves))), Ok([1, 1, 2, 20]));
    assert_eq!(parse("3").map(|count| count.of(8)), Ok(3));
    for wrong in ["0", "0%", "101%", "", "x", "-1", "2 %%"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    assert_eq!(parse("2.5%").unwrap().to_string(), "2.5%");
    assert_eq!(parse("4").unwrap().to_string(), "4");
}

#[test]
fn what_can_never_work_is_said_before_anything_is_stopped() {
    let refused = |world: &World, settings| {
        let Refused { message, hint } = Rollout::plan(&world.view(), settings, 1, 0).unwrap_err();
        (message, hint)
    };
    let (message, hint) = refused(&World::of(2), Settings::default());
    assert_eq!(message, "answers would be 50.0 % complete while leaf-1 restarts, less than 95.0 %");
    assert_eq!(hint, "With 2 leaves a restart costs that much. If that will do: --min-completeness 0.49");
    assert!(Rollout::plan(&World::of(2).view(), settings(1, 0.49), 1, 0).is_ok());
    assert!(Rollout::plan(&World::of(20).view(), Settings::default(), 1, 0).is_ok());

    let mut world = World::of(30);
    world.leaf(3).presence = Presence::Away;
    world.leaf(4).presence = Presence::Starting;
    let (message, _) = refused(&world, Settings::default());
    assert_eq!(message, "a rollout begins when every leaf serves: leaf-3 is down, leaf-4 is starting");
    let unheard = View { unheard: vec!["b:1".to_owned()], ..World::of(30).view() };
    let Refused { message, .. } = Rollout::plan(&unheard, Settings::default(), 1, 0).unwrap_err();
    assert_eq!(message, "a rollout begins when every leaf serves: nothing was ever heard of b:1");
    assert_eq!(refused(&World::of(0), Settings::default()).0, "there are no leaves to restart");
    assert_eq!(
        refused(&World::of(30), settings(1, 1.5)).0,
        "min_completeness is 1.5, it must be between 0 and 1"
    );
}

#[test]
fn machines_take_turns_and_never_lose_two() {
    let mut world = World::of(0);
    for index in 0..6 {
        world.leaves.insert(format!("leaf-{index}"), seen(if index < 3 { "a" } else { "b" }, 1));
    }
    let mut rollout = begun(&world, settings(4, 0.0));
    let order: Vec<&str> = rollout.leaves().iter().map(|leaf| leaf.leaf.as_str()).collect();
    assert_eq!(order, ["leaf-0", "leaf-3", "leaf-1", "leaf-4", "leaf-2", "leaf-5"]);
    world.tick(&mut rollout);
    world.tick(&mut rollout);
    world.tick(&mut rollout);
    // Four may be away, but there are two machines.
    let begun = rollout.leaves().iter().filter(|leaf| leaf.step.is_in_flight()).count();
    assert_eq!(begun, 2);
    // By their addresses alone all leaves of one machine are one after the other, too.
    assert_eq!(rollout.machines(), 2);
}

#[test]
fn leaves_that_run_the_version_are_left_alone_and_others_must_come_back_with_it() {
    let mut world = World::of(3);
    world.leaf(1).version = "2".to_owned();
    let wanted = Settings { to: Some("2".to_owned()), ..settings(1, 0.0) };
    let mut rollout = begun(&world, wanted.clone());
    assert_eq!(steps(&rollout), [Step::Waiting, Step::Skipped, Step::Waiting]);
    world.run_while(&mut rollout, |rollout| *rollout.state() == State::Running);
    assert_eq!(*rollout.state(), State::Done);
    assert_eq!(world.leaf(1).epoch, 1);

    let mut world = World::of(3);
    let mut rollout = begun(&world, Settings { to: Some("3".to_owned()), ..wanted });
    world.run_while(&mut rollout, |rollout| *rollout.state() == State::Running);
    check_paused(&rollout, Guard::Version, "leaf-0 came back with version 2, not 3");
}

#[test]
fn answers_that_get_too_thin_pause() {
    let mut world = World::of(4);
    let mut rollout = begun(&world, settings(3, 0.7));
    world.tick(&mut rollout);
    // Rows of another leaf are gone while it serves: 400 of 600.
    world.leaf(3).rows_lost = 200;
    world.run_while(&mut rollout, |rollout| *rollout.state() == State::Running);
    check_paused(&rollout, Guard::Completeness, "answers are 66.6 % complete, less than 70.0 %");
    // The leaf that only drained serves again.
    world.run_while(&mut rollout, Rollout::is_open);
    assert!(world.leaves.values().all(|leaf| leaf.presence == Presence::Serving));
}

#[test]
fn a_leaf_that_would_cost_too_much_is_not_begun() {
    let mut world = World::of(4);
    let mut rollout = begun(&world, settings(3, 0.7));
    world.leaf(0).rows = 300;
    world.run_while(&mut rollout, |rollout| *rollout.state() == State::Running);
    check_paused(
        &rollout,
        Guard::Completeness,
        "answers would be 50.0 % complete without leaf-0, less than 70.0 %",
    );
    assert_eq!(world.leaf(0).epoch, 1);
    // The others were restarted before.
    assert_eq!(steps(&rollout), [Step::Waiting, Step::Done, Step::Done, Step::Done]);
    // A person who takes that is not held up.
    assert!(rollout.resume(settings(3, 0.5)));
    world.run_while(&mut rollout, |rollout| *rollout.state() == State::Running);
    assert_eq!(*rollout.state(), State::Done);
}

#[test]
fn a_leaf_that_is_away_by_itself_pauses() {
    let mut world = World::of(8);
    let mut rollout = begun(&world, settings(1, 0.0));
    world.tick(&mut rollout);
    world.busy.insert("leaf-5".to_owned(), 10_000);
    world.leaf(5).presence = Presence::Away;
    world.run_while(&mut rollout, |rollout| *rollout.state() == State::Running);
    check_paused(&rollout, Guard::Others, "leaf-5 is down, and the rollout did not stop it");
    // What comes back within moments is no reason.
    let mut world = World::of(8);
    let mut rollout = begun(&world, settings(1, 0.0));
    world.busy.insert("leaf-5".to_owned(), 1);
    world.leaf(5).presence = Presence::Away;
    world.run_while(&mut rollout, |rollout| *rollout.state() == State::Running);
    assert_eq!(*rollout.state(), State::Done);
}

#[test]
fn a_leaf_that_does_not_drain_pauses() {
    let mut world = World::of(4);
    let mut rollout = begun(&world, settings(1, 0.0));
    for _ in 0..40 {
        world.now += 1000;
        rollout.tick(&world.view(), world.now);
    }
    check_paused(&rollout, Guard::Drain, "leaf-0 does not drain");
    assert_eq!(steps(&rollout)[0], Step::Waiting);
}

#[test]
fn a_leaf_that_is_not_back_in_time_pauses_and_is_awaited() {
    let mut world = World::of(4);
    let mut rollout = begun(&world, Settings { leaf_seconds_max: 60, ..settings(1, 0.0) });
    world.tick(&mut rollout);
    world.tick(&mut rollout);
    world.leaf(0).presence = Presence::Away;
    for _ in 0..62 {
        world.tick(&mut rollout);
    }
    check_paused(&rollout, Guard::Late, "leaf-0 is not back after 61 s");
    assert!(rollout.is_open());
    // Somebody goes on: it is waited for without limit, and nothing else is begun meanwhile.
    assert!(rollout.resume(rollout.settings().clone()));
    for _ in 0..600 {
        world.tick(&mut rollout);
    }
    assert_eq!((rollout.state(), steps(&rollout)[1]), (&State::Running, Step::Waiting));
    world.run_while(&mut rollout, |rollout| *rollout.state() == State::Running);
    assert_eq!(*rollout.state(), State::Done);
}

#[test]
fn a_leaf_that_is_much_slower_than_the_others_pauses() {
    let mut world = World::of(5);
    let mut rollout = begun(&world, settings(1, 0.0));
    world.run_while(&mut rollout, |rollout| steps(rollout)[2] != Step::Done);
    world.run_while(&mut rollout, |rollout| steps(rollout)[3] != Step::Restoring);
    let usual = rollout.leaves()[0].took.unwrap();
    assert!(usual < 10_000);
    world.leaf(3).presence = Presence::Away;
    world.leaf(3).epoch = 1;
    for _ in 0..40 {
        world.tick(&mut rollout);
    }
    let State::Paused { guard, why } = rollout.state() else { panic!("{rollout:?}") };
    assert_eq!(*guard, Some(Guard::Slow));
    assert!(why.starts_with("leaf-3 has been away for 3") && why.contains("the others took"), "{why}");
    assert_eq!((guards::slow_after(5_000), guards::slow_after(20_000)), (30_000, 60_000));
}

#[test]
fn two_leaves_from_disk_pause() {
    let mut world = World::of(6);
    let mut rollout = begun(&world, settings(1, 0.0));
    let from_disk = |world: &mut World, rollout: &mut Rollout| {
        for _ in 0..200 {
            if *rollout.state() != State::Running {
                return;
            }
            world.tick(rollout);
            world.go_on(&mut || 0);
            for leaf in world.leaves.values_mut().filter(|leaf| leaf.epoch == 2) {
                leaf.source = "disk".to_owned();
                leaf.source_detail = "the layout is another".to_owned();
            }
        }
    };
    from_disk(&mut world, &mut rollout);
    let why = "2 leaves came back from disk, leaf-1 the last: the layout is another";
    check_paused(&rollout, Guard::Disk, why);
    assert_eq!(rollout.leaves()[0].path, "disk");
    // It is the next two that count when somebody goes on, and none when disk will do.
    rollout.resume(rollout.settings().clone());
    from_disk(&mut world, &mut rollout);
    check_paused(&rollout, Guard::Disk, &why.replace("leaf-1", "leaf-3"));
    rollout.resume(Settings { allow_disk: true, ..rollout.settings().clone() });
    from_disk(&mut world, &mut rollout);
    assert_eq!(*rollout.state(), State::Done);
}

#[test]
fn a_leaf_without_rows_comes_from_nowhere() {
    let mut world = World::of(4);
    world.leaves.values_mut().for_each(|leaf| leaf.rows = 0);
    let mut rollout = begun(&world, settings(1, 0.95));
    for _ in 0..100 {
        world.tick(&mut rollout);
        world.go_on(&mut || 0);
        world.leaves.values_mut().for_each(|leaf| leaf.source = "nothing".to_owned());
    }
    assert_eq!((rollout.state(), rollout.leaves()[0].path.as_str()), (&State::Done, ""));
}

#[test]
fn a_leaf_that_comes_back_without_rows_pauses() {
    let mut world = World::of(4);
    let mut rollout = begun(&world, settings(1, 0.0));
    world.run_while(&mut rollout, |rollout| steps(rollout)[0] != Step::Restoring);
    world.leaf(0).rows_lost = 40;
    world.leaf(0).rows = 60;
    world.run_while(&mut rollout, |rollout| *rollout.state() == State::Running);
    check_paused(&rollout, Guard::Lost, "leaf-0 came back without 40 of its rows");
    assert_eq!(steps(&rollout)[1], Step::Waiting);
}

#[test]
fn a_pause_lets_leaves_come_back_and_begins_no_other() {
    let mut world = World::of(4);
    let mut rollout = begun(&world, settings(1, 0.0));
    world.tick(&mut rollout);
    assert!(rollout.pause());
    world.run_while(&mut rollout, Rollout::is_open);
    // The leaf whose turn it was has had it.
    assert_eq!(steps(&rollout), [Step::Done, Step::Waiting, Step::Waiting, Step::Waiting]);
    assert_eq!(rollout.state(), &State::Paused { guard: None, why: "somebody paused it".to_owned() });
    assert!(!rollout.pause());
    assert!(rollout.resume(rollout.settings().clone()));
    world.run_while(&mut rollout, |rollout| *rollout.state() == State::Running);
    assert_eq!(*rollout.state(), State::Done);
}

#[test]
fn an_abort_leaves_no_leaf_draining() {
    let mut world = World::of(4);
    let mut rollout = begun(&world, settings(1, 0.0));
    world.tick(&mut rollout);
    assert_eq!(world.leaf(0).presence, Presence::Draining);
    assert!(rollout.abort());
    world.run_while(&mut rollout, Rollout::is_open);
    assert_eq!((world.leaf(0).presence, world.leaf(0).epoch), (Presence::Serving, 1));
    assert_eq!(*rollout.state(), State::Aborted);
}

#[test]
fn a_leaf_that_leaves_the_roster_is_not_waited_for() {
    let mut world = World::of(3);
    let mut rollout = begun(&world, settings(1, 0.0));
    world.run_while(&mut rollout, |rollout| steps(rollout)[0] != Step::Restoring);
    world.leaves.remove("leaf-0");
    world.run_while(&mut rollout, |rollout| *rollout.state() == State::Running);
    assert_eq!((rollout.state(), steps(&rollout)[0]), (&State::Done, Step::Skipped));
}

#[test]
fn texts_that_are_no_rollout_are_refused() {
    let text = begun(&World::of(2), settings(1, 0.0)).to_text();
    assert_eq!(Rollout::from_text(&text).unwrap().to_text(), text);
    let check = |text: String, expect: &str| {
        assert_eq!(Rollout::from_text(&text).unwrap_err().to_string(), expect);
    };
    check(text.replace("\"format\":1", "\"format\":2"), "its format is 2, this version knows format 1");
    check(text.replace("\"running\"", "\"walking\""), "state `walking` has no meaning");
    check(text.replacen("\"waiting\"", "\"resting\"", 1), "step `resting` has no meaning");
    assert!(Rollout::from_text("{}").is_err());
}

/// One rollout over leaves with random sizes, machines and pauses, seen late, driven by somebody who crashes. Whatever
/// happens: never more leaves away than may be, never two of a machine, never thinner than allowed; and in the end each
/// leaf has been restarted once.
fn live(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let count = random.random_range(1..12);
    let mut world = World::of(0);
    for index in 0..count {
        let machine = format!("m{}", random.random_range(0..count));
        world.leaves.insert(format!("leaf-{index}"), seen(&machine, random.random_range(0..200)));
    }
    let max = random.random_range(1..5);
    let largest = world.leaves.values().map(|leaf| leaf.rows).max().unwrap();
    let all: u64 = world.leaves.values().map(|leaf| leaf.rows).sum();
    let least = if all == 0 { 1.0 } else { (all - largest) as f64 / all as f64 - 1e-5 };
    let least = least.max(0.0);
    let mut rollout = begun(&world, settings(max, least));
    let mut kept = rollout.to_text();
    let mut views = vec![world.view()];
    for _ in 0..20_000 {
        if *rollout.state() == State::Done {
            break;
        }
        world.now += 100;
        let late = random.random_range(0..3).min(views.len() - 1);
        let actions = rollout.tick(&views[views.len() - 1 - late], world.now);
        // A crash before the text is kept: nothing was done. After: some of it was.
        let crashes = random.random_range(0..20);
        if crashes == 0 {
            rollout = Rollout::from_text(&kept).unwrap();
        } else {
            kept = rollout.to_text();
            let done = if crashes < 3 { random.random_range(0..=actions.len()) } else { actions.len() };
            actions.iter().take(done).for_each(|action| world.obey(action));
            if crashes < 3 {
                rollout = Rollout::from_text(&kept).unwrap();
            }
        }
        let away: Vec<&Seen> =
            world.leaves.values().filter(|leaf| leaf.presence != Presence::Serving).collect();
        assert!(away.len() <= max, "{} of {max} are away", away.len());
        let mut machines: Vec<&str> = away.iter().map(|leaf| leaf.machine.as_str()).collect();
        machines.sort_unstable();
        machines.dedup();
        assert_eq!(machines.len(), away.len(), "two of a machine are away");
        let is = world.view().completeness_now().unwrap();
        assert!(is >= least, "{is} is less than {least}");
        world.go_on(&mut || random.random_range(0..4));
        views.push(world.view());
    }
    assert_eq!(*rollout.state(), State::Done, "{rollout:?}");
    assert!(world.leaves.values().all(|leaf| leaf.epoch == 2), "each is restarted once: {:?}", world.leaves);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_few_are_away_and_each_is_restarted_once(seed in any::<u64>()) {
        live(seed);
    }
}
