//! `gannet ingest --follow`: files that are rotated and truncated, lines that are none, a server that refuses, and a clean
//! stop. Every line is looked for.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use gannet_tests::process::{Parts, Process, gannet};
use gannet_tests::wait::until;
use serde_json::json;

/// A debug build on a busy machine is slow.
const SECONDS_MAX: u64 = 60;

/// Logs in a folder, and the agent that follows them.
pub(super) struct Agent {
    folder: tempfile::TempDir,
    args: Vec<String>,
}

impl Agent {
    /// An agent with these flags for a server; `files` are in its folder.
    pub(super) fn new(server: &str, files: &[&str], flags: &[&str]) -> Agent {
        let folder = tempfile::TempDir::with_prefix("gannet-agent-").unwrap();
        let mut args: Vec<String> = ["ingest", "t"].map(str::to_owned).to_vec();
        args.extend(files.iter().map(|&name| name.to_owned()));
        let always = ["--follow", "--state-file", "agent.state", "--server", server, "--batch-delay", "20ms"];
        args.extend(always.iter().chain(flags).map(|&flag| flag.to_owned()));
        Agent { folder, args }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn start(&self) -> Process {
        Process::start(&self.args, self.folder.path(), &self.path("agent.said"), Stdio::null())
    }

    pub(super) fn said(&self) -> String {
        std::fs::read_to_string(self.path("agent.said")).unwrap()
    }
}

pub(super) fn append(path: &Path, text: &str) {
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Lines `from..until` as NDJSON.
fn lines(from: u64, until: u64) -> String {
    (from..until).map(|n| format!("{{\"time\":{},\"n\":{n}}}\n", 1_772_323_200 + n)).collect()
}

async fn wait_for_rows(parts: &Parts, rows: i64) {
    until(SECONDS_MAX, &format!("{rows} rows"), || async {
        let counted = parts.client().count("t").await;
        assert!(counted <= rows, "{counted} rows of {rows}");
        (counted == rows).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_and_truncated_files_are_followed() {
    let mut parts = Parts::start(1).await;
    let agent = Agent::new(parts.client().base(), &["app.log*"], &["--input-format", "ndjson"]);
    let log = agent.path("app.log");
    append(&log, &lines(0, 100));
    append(&log, "{\"time\":17723");
    let process = agent.start();
    wait_for_rows(&parts, 100).await;
    append(&log, "23300,\"n\":100}\n");
    wait_for_rows(&parts, 101).await;

    // Rotated: the rest of the old file, then the new one; what is compressed was read.
    append(&log, &lines(101, 150));
    std::fs::rename(&log, agent.path("app.log.1")).unwrap();
    append(&log, &lines(150, 200));
    std::fs::write(agent.path("app.log.2.gz"), b"\x1f\x8b\x08not read").unwrap();
    wait_for_rows(&parts, 200).await;

    // Truncated: from the start again.
    std::fs::write(&log, lines(200, 210)).unwrap();
    wait_for_rows(&parts, 210).await;

    // A leaf that is away: lines wait in the file, and the agent with them.
    parts.take_leaf(0).kill().await;
    append(&log, &lines(210, 300));
    until(SECONDS_MAX, "the agent to be refused", || async {
        agent.said().contains("lines are sent again until they are taken").then_some(())
    })
    .await;
    parts.start_leaf(0);
    parts.wait_until_ready().await;
    wait_for_rows(&parts, 300).await;

    // A clean stop, and nothing is sent twice after it.
    assert_eq!(process.terminated().await, 0, "{}", agent.said());
    append(&log, &lines(300, 310));
    let process = agent.start();
    wait_for_rows(&parts, 310).await;
    assert_eq!(process.terminated().await, 0, "{}", agent.said());
    let answer = parts.client().answer("SELECT count(*), count(DISTINCT n), sum(n), max(n) FROM t").await;
    assert_eq!(answer.rows, [[json!(310), json!(310), json!(309 * 310 / 2), json!(309)]]);
    let said = agent.said();
    for part in [
        "app.log was truncated; it is read from its start",
        "app.log.2.gz is compressed, and is not followed",
        "t  sent 300  ",
        "t  sent 10  ",
    ] {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_becomes_rows_and_bad_lines_are_kept() {
    let parts = Parts::start(1).await;
    let flags = ["--add", "host=web-1", "--sample-rate", "2", "--on-error", "dead-letter:dead"];
    let agent = Agent::new(parts.client().base(), &["a.ndjson", "a.csv", "a.log", "b.log"], &flags);
    append(&agent.path("a.ndjson"), "{\"k\":\"json\",\"v\":1}\nnonsense\n{\"k\":\"json\",\"v\":2}\n");
    append(&agent.path("a.csv"), "k,v\ncsv,3\n\"csv\",\"4\"\n");
    append(&agent.path("a.log"), "k=logfmt v=5\nk=\"logfmt\" v=6 cached\n");
    append(&agent.path("b.log"), "2026-11-21 09:30:00,5 WARN slow\nfine\n");
    let process = agent.start();
    wait_for_rows(&parts, 8).await;
    assert_eq!(process.terminated().await, 6, "{}", agent.said());
    let sql = "SELECT k, count(*), sum(v), min(host) FROM t WHERE k IS NOT NULL GROUP BY k ORDER BY k";
    let answer = parts.client().answer(sql).await;
    let row = |k: &str, sum: f64| vec![json!(k), json!(4), json!(sum), json!("web-1")];
    let numbers = |rows: &[Vec<serde_json::Value>]| -> Vec<Vec<serde_json::Value>> {
        rows.iter()
            .map(|row| vec![row[0].clone(), row[1].clone(), json!(row[2].as_f64().unwrap()), row[3].clone()])
            .collect()
    };
    assert_eq!(numbers(&answer.rows), [row("csv", 14.0), row("json", 6.0), row("logfmt", 22.0)]);
    let answer =
        parts.client().answer("SELECT level, message FROM t WHERE message IS NOT NULL ORDER BY 2").await;
    assert_eq!(answer.rows, [[json!(null), json!("fine")], [json!("WARN"), json!("slow")]]);
    let dead = std::fs::read_to_string(agent.path("dead")).unwrap();
    assert_eq!(dead.lines().count(), 1, "{dead}");
    let dead: serde_json::Value = serde_json::from_str(&dead).unwrap();
    assert_eq!(
        (&dead["file"], &dead["start"], &dead["line"]),
        (&json!("a.ndjson"), &json!(19), &json!("nonsense"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_refuses() {
    let parts = Parts::start(1).await;
    let server = parts.client().base().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("s").display().to_string();
    let run = async |args: &[&str]| {
        gannet(
            &[&["ingest", "t", "--follow", "--state-file", &state, "--server", &server], args].concat(),
            "",
        )
        .await
    };
    let check = |said: gannet_tests::process::Said, code: i32, part: &str| {
        assert!(said.code == code && said.err.contains(part), "`{part}` is not in {said:?}");
    };
    check(run(&["-"]).await, 2, "stdin cannot be followed");
    check(run(&["a.log", "--pattern", "("]).await, 2, "pattern is no regular expression");
    check(run(&["a.log", "--format", "csv"]).await, 2, "cannot be used with");
    check(run(&["a.log", "--on-error", "explode"]).await, 2, "must be skip, stop or dead-letter:FILE");
    let said = gannet(&["ingest", "t", "a.log", "--add", "a=b"], "").await;
    check(said, 2, "--follow");
    // The first bad line ends it, when that is asked for.
    let file = folder.path().join("a.ndjson");
    append(&file, "{\"n\":1}\nnonsense\n{\"n\":2}\n");
    let file = file.display().to_string();
    check(run(&[&file, "--on-error", "stop"]).await, 6, "a.ndjson at byte 8: ");
    assert_eq!(parts.client().count("t").await, 2);
    // A damaged checkpoint is not believed, nor is one of another table.
    let said =
        gannet(&["ingest", "u", "--follow", &file, "--state-file", &state, "--server", &server], "").await;
    check(said, 2, "is that of table `t`");
    for copy in [&state, &format!("{state}.previous")] {
        std::fs::write(copy, "").unwrap();
    }
    check(run(&[&file]).await, 1, "it is empty");
}
