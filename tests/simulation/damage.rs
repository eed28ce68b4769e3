//! Thousands of damaged artefacts, and a leaf started on each: the mutation sweep.
//!
//! A machine that held rows is copied ([`mod@held`]), one of its files or segments is damaged, with the checksums over
//! it left as they were or put right again, and a leaf is started on what is left ([`mod@case`]). Whatever the damage:
//! no panic, no hang, no memory without bound; each row answers as it was or is said to be missing; a start that is
//! refused has written nothing; and the leaf goes on to take rows and to stop.

mod case;
mod held;

use gannet_tests::sweep::{self, Sweep};

const SWEEP: Sweep = Sweep { target: "simulation", worker: "damage::leaf_case", seconds: 20, cases_min: 600 };

#[test]
fn leaf_case() {
    let worlds = held::worlds();
    sweep::worker(|number| case::run(&worlds, number));
}

#[test]
fn no_damage_breaks_a_promise() {
    let counts = sweep::run(&SWEEP);
    // A sweep whose damage is never noticed, or that never gets past the start, proves nothing.
    let of =
        |word: &str| counts.iter().filter(|(did, _)| did.contains(word)).map(|(_, count)| count).sum::<u64>();
    let all: u64 = counts.values().sum();
    for (word, one_in) in [
        ("refused", 40),
        ("missing", 20),
        ("whole", 4),
        ("checksums right", 4),
        ("manifest", 20),
        ("log", 20),
        ("block", 20),
        ("segment", 20),
        ("catalogue", 40),
    ] {
        assert!(of(word) >= all / one_in, "{word} in {} of {all} cases", of(word));
    }
}
