//! Screens from 40 to 200 columns, with and without more than ASCII.

use super::*;
use crate::rollout::reply::{Pause, Settings};

fn leaf(index: usize, step: &str) -> Leaf {
    let is_done = step == "done";
    Leaf {
        leaf: format!("leaf-{index}"),
        machine: format!("m{index}"),
        step: step.to_owned(),
        state: if step == "restoring" { "down".to_owned() } else { "serving".to_owned() },
        since_seconds: 1.25,
        seconds: is_done.then_some(0.84),
        path: if is_done { "shared memory".to_owned() } else { String::new() },
        version_before: "0.1.0".to_owned(),
        version: if is_done { "0.2.0".to_owned() } else { String::new() },
        rows: 100,
        note: String::new(),
    }
}

fn rollout(steps: &[&str]) -> Rollout {
    Rollout {
        id: "r-7".to_owned(),
        state: "running".to_owned(),
        aggregator: None,
        pause: None,
        elapsed_seconds: 41.0,
        left_seconds: Some(130.0),
        completeness: Some(0.87509),
        settings: Settings { min_completeness: 0.85, leaf_seconds_max: 600, to: None, allow_disk: false },
        unavailable_max: 1,
        machines: 2,
        leaves: steps.iter().enumerate().map(|(index, step)| leaf(index, step)).collect(),
    }
}

fn drawn(rollout: &Rollout, style: Style) -> String {
    let mut out = Vec::new();
    status(&mut out, rollout, style).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn who_runs_it_is_said_elsewhere() {
    let mut rollout = rollout(&["done", "waiting"]);
    rollout.aggregator = Some("10.0.0.5:7720".to_owned());
    let drawn = drawn(&rollout, Style::PLAIN);
    assert!(drawn.starts_with("rollout r-7 running · run by 10.0.0.5:7720 · 0.1.0"), "{drawn}");
}

#[test]
fn a_rollout_at_work() {
    let mut rollout = rollout(&["done", "done", "restoring", "waiting"]);
    rollout.leaves[1].path = "disk".to_owned();
    rollout.leaves[1].note = "the layout is another".to_owned();
    assert_eq!(
        drawn(&rollout, Style::PLAIN),
        "rollout r-7 running · 0.1.0 → 0.2.0 · 2/4 done · at most 1 away · completeness 87.5% (guard ≥ 85%) · 41.00 s · \
         about 2m10s left\n \
         ████████████████████████░░░░░░░░░░░░············  █ new  ░ restoring  ▒ draining  · old\n \
         leaf   │ step             │    for │   took │ path          │ version\n\
         ────────┼──────────────────┼────────┼────────┼───────────────┼─────────\n \
         leaf-0 │ done             │        │ 840 ms │ shared memory │ 0.2.0\n \
         leaf-1 │ done             │        │ 840 ms │ DISK          │ 0.2.0\n \
         leaf-2 │ restoring (down) │ 1.25 s │        │               │ 0.1.0\n \
         leaf-3 │ waiting          │        │        │               │ 0.1.0\n\
         leaf-1: the layout is another\n\
         next: automatic; `gannet rollout pause` stops after this leaf, `abort` leaves versions mixed\n"
    );
}

#[test]
fn it_fits_every_screen() {
    let rollout = rollout(&["done", "draining", "stopping", "restoring", "waiting", "skipped"]);
    for columns in [40, 60, 80, 120, 200] {
        for unicode in [true, false] {
            let style = Style { width: Some(columns), unicode, colour: false };
            for line in drawn(&rollout, style).lines() {
                assert!(width(line) <= columns, "{columns}: {line}");
                assert!(unicode || line.is_ascii(), "{line}");
            }
        }
    }
}

#[test]
fn of_many_leaves_those_are_shown_of_which_something_is_to_be_said() {
    let mut many = rollout(&["done"; 900]);
    many.leaves[400].path = "disk".to_owned();
    many.leaves[7].seconds = Some(30.0);
    many.leaves.push(leaf(900, "draining"));
    let text = drawn(&many, Style::PLAIN);
    let listed: Vec<&str> = text.lines().skip(4).take(3).collect();
    assert!(
        listed[0].contains("leaf-900") && listed[1].contains("DISK") && listed[2].contains("30.00 s"),
        "{text}"
    );
    assert!(text.contains("and 885 more leaves; --json lists all"), "{text}");
    // What is there is seen, even one of 901.
    assert!(text.lines().nth(1).unwrap().contains('▒'), "{text}");
}

#[test]
fn the_bar_shows_what_there_is() {
    let cells = |steps: &[&str]| {
        let ascii = Style { unicode: false, ..Style::PLAIN };
        let text = bar(&rollout(steps), ascii, 200);
        text.trim().chars().take(BAR_WIDTH_MAX).collect::<String>()
    };
    assert_eq!(cells(&["waiting", "waiting"]), ".".repeat(48));
    assert_eq!(cells(&["done", "skipped"]), "#".repeat(48));
    assert_eq!(cells(&["done", "draining"]), format!("{}{}", "#".repeat(24), "=".repeat(24)));
    assert_eq!(
        cells(&["done", "restoring", "waiting"]),
        format!("{}{}{}", "#".repeat(16), "~".repeat(16), ".".repeat(16))
    );
}

#[test]
fn a_plan_says_what_will_be_done() {
    let check = |planned: &Rollout, known: Option<&Rollout>, expect: &str| {
        let mut out = Vec::new();
        plan(&mut out, planned, known).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    };
    let planned = rollout(&["waiting", "waiting", "skipped"]);
    check(
        &planned,
        None,
        "rollout r-7 of 3 leaves on 2 machines\n  \
         restarts  leaf-0, leaf-1\n  \
         away      at most 1 at a time, one of a machine, each for 10m00s at most\n  \
         pauses    when answers would be less than 85% complete, a leaf is slow, late or loses rows, two come back \
         from disk\n",
    );
    let mut paused = planned.clone();
    paused.state = "paused".to_owned();
    paused.pause = Some(Pause::default());
    let mut out = Vec::new();
    plan(&mut out, &planned, Some(&paused)).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("rollout r-7 is paused and goes on: 1 of 3 leaves done\n"), "{text}");
}

#[test]
fn what_happens_is_told_line_by_line() {
    let first = rollout(&["waiting", "waiting"]);
    assert_eq!(news(None, &first), ["r-7 running: 0 of 2 leaves done"]);
    let second = rollout(&["draining", "waiting"]);
    assert_eq!(news(Some(&first), &second), ["r-7 leaf-0 draining"]);
    assert_eq!(news(Some(&second), &second), [""; 0]);
    let mut last = rollout(&["done", "done"]);
    last.state = "done".to_owned();
    last.completeness = Some(1.0);
    last.leaves[1].path = String::new();
    assert_eq!(
        news(Some(&second), &last),
        [
            "r-7 leaf-0 done in 840 ms from shared memory",
            "r-7 leaf-1 done in 840 ms without rows",
            "r-7 done: 2 of 2 leaves done in 41.00 s, completeness 100%",
        ]
    );
    // Another rollout is told from its beginning.
    let other = Rollout { id: "r-8".to_owned(), ..first };
    assert_eq!(news(Some(&last), &other), ["r-8 running: 0 of 2 leaves done"]);
}
