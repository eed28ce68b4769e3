//! The benches on little data: what they write, that the clean path of a restart was a warm one, and that they leave nothing
//! behind.

use gannet_tests::process::gannet;
use serde_json::Value as Json;

fn number(value: &Json) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// What every run says of its start.
fn check_start(run: &Json) {
    let start = &run["start"];
    let first = number(&start["first_answer_seconds"]);
    assert!(first > 0.0 && number(&start["serving_seconds"]) >= first, "{run}");
    assert_eq!(start["rows_expected"], run["load"]["rows"], "{run}");
    assert!(!start["phases"].as_array().unwrap().is_empty(), "{run}");
    assert!(!start["rows_over_time"].as_array().unwrap().is_empty(), "{run}");
    // Rows may only be gone where the leaf promised nothing.
    if start["correct_seconds"].is_null() {
        assert_eq!(run["load"]["durability"], "memory", "{run}");
        assert_ne!(run["name"], "clean");
    } else {
        assert_eq!(start["rows_found"], start["rows_expected"], "{run}");
        assert!(number(&start["correct_seconds"]) >= first, "{run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_restart_bench_measures_every_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (dir, plot) = (path("work"), path("plot.svg"));
    let args = ["bench", "restart", "--gb", "0.01", "--warm", "--json", "--dir", &dir, "--plot", &plot];
    let said = gannet(&args, "").await;
    assert_eq!(said.code, 0, "{said:?}");
    let report: Json = serde_json::from_str(&said.out).unwrap();
    assert_eq!(report["problems"], Json::Array(Vec::new()));
    assert!(report["copy"].as_array().unwrap().iter().all(|copy| number(&copy["gb_per_second"]) > 0.0));

    let runs = report["runs"].as_array().unwrap();
    let names: Vec<&str> = runs.iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(names[..4], ["clean", "clean again", "cold", "kill"]);
    assert_eq!(names.len() + report["skipped"].as_array().unwrap().len(), 5);
    runs.iter().for_each(check_start);

    let (clean, again) = (&runs[0], &runs[1]);
    for run in [clean, again] {
        assert_eq!(run["start"]["source"], "shared memory", "{run}");
        let stop = &run["stop"];
        assert!(number(&stop["seconds"]) > 0.0 && number(&stop["samples_per_second"]) >= 10.0, "{stop}");
        assert!(number(&stop["memory_peak_bytes"]) > number(&stop["moved_bytes"]), "{stop}");
        assert!(!stop["memory"].as_array().unwrap().is_empty(), "{stop}");
    }
    let moved = |run: &Json| number(&run["stop"]["moved_bytes"]);
    // Open rows take more than sealed ones, and there are few of these.
    assert!(moved(clean) > 4e6, "{clean}");
    assert!(moved(again) < moved(clean) / 4.0, "{again}");
    assert!(number(&clean["stop"]["share_of_copy"]) > 0.0);
    assert!(std::fs::read_to_string(&plot).unwrap().ends_with("</svg>\n"));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "files stay behind");

    let said = gannet(&["bench", "restart", "--gb", "4096", "--dir", &dir], "").await;
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("are needed") && said.err.contains("--gb"), "{said:?}");
}

/// The report of a bench that was given a folder, which is empty afterwards.
async fn report(args: &[&str]) -> Json {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().display().to_string();
    let args: Vec<&str> =
        ["bench"].into_iter().chain(args.iter().copied()).chain(["--json", "--dir", &dir]).collect();
    let said = gannet(&args, "").await;
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "files stay behind");
    serde_json::from_str(&said.out).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_bench_measures_the_agent_beside_ingest() {
    let report = report(&["agent", "--rows", "3000", "--rounds", "2"]).await;
    assert_eq!(
        (&report["rows"], report["bytes"].as_u64() > Some(300 * 3_000)),
        (&Json::from(3_000), true),
        "{report}"
    );
    for way in ["agent", "ingest"] {
        let rounds = report[way]["rounds"].as_array().unwrap();
        assert!(rounds.len() == 2 && rounds.iter().all(|rate| number(rate) > 0.0), "{report}");
        assert!(number(&report[way]["least"]) <= number(&report[way]["median"]), "{report}");
    }
    assert!(number(&report["agent_memory_peak_bytes"]) > 1e6, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bench_of_commands_measures_whole_commands() {
    let report = report(&["cli", "--rounds", "2"]).await;
    let commands = report["commands"].as_array().unwrap();
    let names: Vec<&str> = commands.iter().map(|command| command["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["version", "query", "status"]);
    for command in commands {
        assert!(number(&command["milliseconds"]["least"]) > 0.0, "{report}");
    }
}
