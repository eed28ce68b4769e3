//! A whole Gannet of the bench: `gannet up` with one leaf in a folder of its own; nothing of it stays behind.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use gannet_client::ClientOptions;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::leaf;
use crate::client::Client;
use crate::outcome::Failure;

/// The folder of its only leaf, in its data directory.
const LEAF: &str = "data/leaf-0";
/// How long it may take to be ready, and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at whether it has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// A server that runs. See the module.
#[derive(Debug)]
pub(super) struct Server {
    process: Child,
    folder: PathBuf,
    /// Where it is asked.
    pub(super) url: String,
    /// What it prints goes on being read, so that it never waits for a reader.
    _said: Lines<BufReader<ChildStdout>>,
}

/// A command of this binary that no settings of the user reach.
pub(super) fn gannet() -> Result<Command, Failure> {
    let binary = std::env::current_exe()
        .map_err(|error| Failure::failed(format!("find the program that runs: {error}")))?;
    let mut command = Command::new(binary);
    command.env_clear().env("GANNET_CONFIG", "/dev/null").stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

/// Sends a signal to a process of the bench.
pub(super) fn signal(process: &Child, signal: Signal) -> Result<(), Failure> {
    let raw = process.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let pid = raw.ok_or_else(|| Failure::failed("signal a process: it has ended"))?;
    kill_process(pid, signal).map_err(|error| Failure::failed(format!("signal a process: {error}")))
}

impl Server {
    /// Starts one and waits until it serves.
    pub(super) async fn start(folder: &Path) -> Result<Server, Failure> {
        let failed = |why: String| Failure::failed(format!("start `gannet up`: {why}"));
        let log = folder.join("up.log");
        let stderr = std::fs::File::create(&log).map_err(|error| failed(error.to_string()))?;
        let mut process = gannet()?
            .args(["up", "--leaves", "1", "--data-dir", "data", "--http", "127.0.0.1:0"])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let stdout = process.stdout.take().ok_or_else(|| failed("it has no stdout".to_owned()))?;
        let mut said = BufReader::new(stdout).lines();
        let find = async {
            while let Some(line) = said.next_line().await? {
                if let Some(url) = address_in(&line) {
                    return Ok(Some(url));
                }
            }
            Ok::<_, std::io::Error>(None)
        };
        let found = tokio::time::timeout(PATIENCE, find).await;
        let Ok(Ok(Some(url))) = found else {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(failed("it does not say where it is".to_owned()).detail(log));
        };
        let server = Server { process, folder: folder.to_owned(), url, _said: said };
        let client = server.client()?;
        let deadline = Instant::now() + PATIENCE;
        while let Err(failure) = client.get_bytes(&["readyz"], PATIENCE).await {
            if Instant::now() >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(server)
    }

    /// A client of it.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        Client::with(&self.url, ClientOptions::default())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its leaf ends with it, and its segments can only be removed for good after that.
        if signal(&self.process, Signal::TERM).is_ok() {
            let deadline = Instant::now() + PATIENCE;
            while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(PAUSE);
            }
        }
        leaf::remove_segments(&self.folder.join(LEAF));
    }
}

/// The first address in what `gannet up` says.
fn address_in(line: &str) -> Option<String> {
    let found = &line[line.find("http://127.0.0.1:")?..];
    let end = found.find(char::is_whitespace).unwrap_or(found.len());
    Some(found[..end].trim_end_matches(['/', ',', '.']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found() {
        let check = |line: &str, expect: Option<&str>| assert_eq!(address_in(line).as_deref(), expect);
        check("Gannet is ready at http://127.0.0.1:41234, with 1 leaf", Some("http://127.0.0.1:41234"));
        check("  http://127.0.0.1:7700", Some("http://127.0.0.1:7700"));
        check("starting", None);
    }
}
