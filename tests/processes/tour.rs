//! The tour of README.md, typed by somebody who has never seen Gannet: every command of it, in its order.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gannet_tests::process::{Up, binary};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

/// A debug build on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(120);
/// The part of the page that is the tour.
const TOUR: (&str, &str) = ("\n## Five minutes\n", "\n## What survives\n");
/// Events of the last six hours, as the demo makes them.
const EVENTS: u64 = 3_000;

/// The commands of the tour: the lines of its blocks of shell.
fn commands(page: &str) -> Vec<String> {
    let start = page.find(TOUR.0).unwrap();
    let tour = &page[start..start + page[start..].find(TOUR.1).unwrap()];
    let blocks = tour.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.flat_map(str::lines).filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

fn demo_events() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let event = |number: u64| {
        let (time, status) = (now - number * 7, if number.is_multiple_of(40) { 500 } else { 200 });
        let services = ["cart", "checkout", "search"];
        format!(
            "{{\"time\":{time},\"service\":{:?},\"endpoint\":\"/e{}\",\"status\":{status},\"duration_ms\":{}.5}}\n",
            services[number as usize % 3],
            number % 5,
            number % 211
        )
    };
    (0..EVENTS).map(event).collect()
}

/// A line of shell with `gannet` of this build, on this server.
fn shell(line: &str, server: &str, folder: &Path) -> Command {
    let path =
        format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command
        .args(["-c", line])
        .current_dir(folder)
        .env("PATH", path)
        .env("GANNET_SERVER", server)
        .env("XDG_STATE_HOME", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a command that ends, and gives back what it says.
async fn run(line: &str, server: &str, folder: &Path) -> String {
    let output = tokio::time::timeout(PATIENCE, shell(line, server, folder).output())
        .await
        .unwrap_or_else(|_| panic!("`{line}` does not end"))
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "`{line}` ended with {}:\n{}", output.status, text(&output.stderr));
    text(&output.stdout) + &text(&output.stderr)
}

/// Runs a command that goes on until it is interrupted, once it has said something.
async fn run_until_it_speaks(line: &str, server: &str, folder: &Path) {
    let mut child: Child = shell(&format!("exec {line} 2>&1"), server, folder).spawn().unwrap();
    let mut first = String::new();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let spoke = tokio::time::timeout(PATIENCE, said.read_line(&mut first)).await;
    assert!(spoke.is_ok_and(|read| read.is_ok_and(|bytes| bytes > 0)), "`{line}` says nothing");
    let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    let mut rest = String::new();
    let _ = said.read_to_string(&mut rest).await;
    assert!(matches!(status.code(), Some(0 | 130)), "`{line}` ended with {status}:\n{first}{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_tour_runs() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let commands = commands(&page);
    assert!(commands.len() >= 12, "{commands:#?}");
    let has_curl = Command::new("curl").arg("--version").output().await.is_ok();

    let up = Up::start(2).await;
    let server = up.client().base().to_owned();
    let folder = tempfile::tempdir().unwrap();
    up.client().ingest("requests", &demo_events()).await;
    std::fs::write(folder.path().join("trips.csv"), "pickup_time,km\n2026-11-20T08:00:00Z,3.5\n").unwrap();
    std::fs::write(folder.path().join("a.ndjson"), "{\"service\":\"cart\",\"status\":200}\n").unwrap();
    let log = format!("{}/*.ndjson", folder.path().display());
    for command in commands {
        let line = command
            .replace("/var/log/app/*.ndjson", &log)
            .replace("localhost:7700", server.trim_start_matches("http://"));
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            // This is what runs here; how it stops and starts is told in `up.rs`.
            ["gannet", "up", ..] => {}
            ["gannet", "tail", ..] => run_until_it_speaks(&line, &server, folder.path()).await,
            ["gannet", "ingest", ..] if line.contains("--follow") => {
                let line = format!("{line} --status-interval 100ms");
                run_until_it_speaks(&line, &server, folder.path()).await;
            }
            ["curl", ..] if !has_curl => {
                eprintln!("SKIPPED: `{command}` was NOT run, because there is no curl here");
                up.client().ingest("deploys", "{\"service\":\"cart\"}\n").await;
            }
            _ => {
                let said = run(&line, &server, folder.path()).await;
                assert!(!said.is_empty() || line.contains(" -o "), "`{line}` says nothing");
            }
        }
    }
    // The file of the tour is there, and is Parquet.
    let file = std::fs::read(folder.path().join("failures.parquet")).unwrap();
    assert_eq!(&file[..4], b"PAR1");
}
