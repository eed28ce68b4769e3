//! `gannet bench overload` for a few seconds: requests arrive whether or not the ones before were answered, far more than
//! there is to be had. Nothing that was acknowledged is gone or doubled, every refusal is one that a client can act on, and
//! afterwards requests are done again. How much is done meanwhile, and how soon it is as fast as before, is the benchmark's
//! business: this is a debug build on a busy machine.

use gannet_tests::process::gannet;
use serde_json::Value as Json;

fn count(of: &Json, name: &str) -> u64 {
    of[name].as_u64().unwrap_or_else(|| panic!("no {name} in {of}"))
}

fn check_phase(phase: &Json) {
    let fates = ["done", "refused", "late", "unconfirmed", "broken", "odd"];
    assert_eq!(count(phase, "sent"), fates.iter().map(|fate| count(phase, fate)).sum::<u64>(), "{phase}");
    for fate in ["broken", "odd", "unconfirmed"] {
        assert_eq!(count(phase, fate), 0, "{fate}: {phase}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overload_costs_nothing_but_the_requests_that_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("work").display().to_string();
    let args =
        ["bench", "overload", "--load", "both", "--seconds", "3", "--rows", "20000", "--normal", "0.2"];
    let said = gannet(&[&args[..], &["--batch-rows", "100", "--json", "--dir", &dir]].concat(), "").await;
    assert_eq!(said.code, 0, "{said:?}");
    let report: Json = serde_json::from_str(&said.out).unwrap();
    assert_eq!(report["problems"], Json::Array(Vec::new()));
    let run = &report["runs"][0];
    let audit = &run["audit"];
    for breach in ["lost", "doubled", "refused_and_there", "torn"] {
        assert_eq!(count(audit, breach), 0, "{audit}");
    }
    assert!(count(audit, "acknowledged") > 0, "{audit}");
    let kinds = run["kinds"].as_array().unwrap();
    assert_eq!(kinds.len(), 2, "{run}");
    for of in kinds {
        for phase in ["capacity", "before", "overload", "after"] {
            check_phase(&of[phase]);
        }
        let overload = &of["overload"];
        assert!(count(overload, "done") > 0, "something is done all the same: {of}");
        assert!(count(overload, "sent") > 3 * count(&of["before"], "sent"), "it was no overload: {of}");
        // How soon each takes as long as before is the benchmark's to say; here, that requests are done again.
        let after = &of["after"];
        assert!(2 * count(after, "done") > count(after, "sent"), "it goes on being refused: {of}");
    }
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "files stay behind");
}
