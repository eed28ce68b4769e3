//! What is put under load: leaf processes and an aggregator process of this binary, in a folder of their own.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use gannet_client::ClientOptions;
use tokio::process::{Child, Command};

use super::door::{Door, Reply};
use super::leaf::Leaf;
use super::memory;
use crate::client::Client;
use crate::outcome::Failure;

/// How long they may take to be ready.
const READY_MAX: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Running servers; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Servers {
    /// First, so that nobody asks leaves that are gone.
    aggregator: Child,
    leaves: Vec<Leaf>,
    at: SocketAddr,
}

/// A command of this binary that no settings of the user reach.
pub(super) fn gannet() -> Result<Command, Failure> {
    let binary = std::env::current_exe()
        .map_err(|error| Failure::failed(format!("find the program that runs: {error}")))?;
    let mut command = Command::new(binary);
    command.env_clear().env("GANNET_CONFIG", "/dev/null").stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

impl Servers {
    /// Starts so many leaves and an aggregator above them, and waits until they are ready.
    pub(super) async fn start(folder: &Path, leaves: usize) -> Result<Servers, Failure> {
        let mut started = Vec::with_capacity(leaves);
        for number in 0..leaves {
            let id = format!("leaf-{number}");
            let mut leaf = Leaf::named(&id, &folder.join(&id), "")?;
            leaf.start()?;
            started.push(leaf);
        }
        let failed = |error| Failure::failed(format!("start an aggregator: {error}"));
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        let at = listener.local_addr().map_err(failed)?;
        let log = std::fs::File::create(folder.join("aggregator.log")).map_err(failed)?;
        let mut command = gannet()?;
        command
            .args(["aggregator", "--data-dir", "aggregator", "--http-on-stdin"])
            .args(["--parent-pid", &std::process::id().to_string()])
            .args(started.iter().map(|leaf| format!("--child={}", leaf.address())))
            .current_dir(folder)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(log);
        let aggregator = command.spawn().map_err(failed)?;
        let mut servers = Servers { aggregator, leaves: started, at };
        servers.wait_until_ready().await?;
        Ok(servers)
    }

    /// Where HTTP is served.
    pub(super) fn at(&self) -> SocketAddr {
        self.at
    }

    /// Where HTTP is served, for a command.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    /// A client of them.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        Client::with(&self.url(), ClientOptions::default())
    }

    /// Its leaves.
    pub(super) fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// Seconds of processor time that they and this process have taken so far.
    pub(super) fn cpu_seconds(&self) -> f64 {
        let pids = self.leaves.iter().filter_map(Leaf::pid).chain(self.aggregator.id());
        pids.chain([std::process::id()]).map(memory::cpu_seconds).sum()
    }

    /// Fails when one of them has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        for leaf in &mut self.leaves {
            leaf.check()?;
        }
        match self.aggregator.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Failure::failed(format!("the aggregator ended by itself with {status}"))),
            Err(error) => Err(Failure::failed(format!("wait for the aggregator: {error}"))),
        }
    }

    async fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let door = Door::new(self.at);
        let deadline = Instant::now() + READY_MAX;
        loop {
            self.check()?;
            let reply = door.send(&get("/readyz")).await;
            if reply.as_ref().is_ok_and(|reply| reply.status == 200) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let said = reply.map(|Reply { body, .. }| String::from_utf8_lossy(&body).into_owned());
                let said = said.unwrap_or_else(|error| error.to_string());
                return Err(Failure::failed(format!("the servers are not ready: {said}")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The bytes of a GET.
fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes()
}

/// The bytes of a query as JSON.
pub(super) fn query(sql: &str, timeout: Duration) -> Vec<u8> {
    let body = serde_json::json!({ "sql": sql, "timeout_ms": timeout.as_millis() as u64 }).to_string();
    let bytes = body.len();
    let head = "POST /v1/query HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n";
    format!("{head}content-length: {bytes}\r\n\r\n{body}").into_bytes()
}
