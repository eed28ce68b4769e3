//! The real `gannet`, as processes: leaves and an aggregator one by one, or all of them by `gannet up`.
//!
//! Every process is ended when its owner is dropped, and the segments of its leaves are removed. What the processes
//! said is shown when the test fails.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::http::Client;
use crate::namespaces::Network;
use crate::segments;
use crate::wait::until;

/// A debug build on a busy machine is slow; nothing here should come near this.
const SECONDS_MAX: u64 = 120;

/// The binary beside this test's own, built when it is not there.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let here = std::env::current_exe().unwrap();
        // target/debug/deps/<test> → target/debug/gannet
        let path = here.parent().and_then(Path::parent).unwrap().join("gannet");
        if !path.exists() {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let built = Command::new(cargo)
                .args(["build", "--package", "gannet", "--bin", "gannet"])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status()
                .unwrap();
            assert!(built.success() && path.exists(), "{} was not built", path.display());
        }
        path
    })
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs `gannet` with these arguments and this input to its end.
pub async fn gannet(args: &[&str], input: &str) -> Said {
    use tokio::io::AsyncWriteExt;
    let mut child = tokio::process::Command::new(binary())
        .args(args)
        // What the person at this machine prefers is none of the test's business.
        .env("GANNET_CONFIG", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that does not read its input closes it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let ended = tokio::time::timeout(Duration::from_secs(SECONDS_MAX), child.wait_with_output());
    let output = ended.await.unwrap_or_else(|_| panic!("gannet {args:?} does not end")).unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A running process of `gannet`.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `gannet` with these arguments in this folder; what it says goes to the end of a log.
    pub fn start(args: &[String], folder: &Path, log: &Path, stdin: Stdio) -> Process {
        Process::start_with(Command::new(binary()), args, folder, log, stdin)
    }

    fn start_with(mut command: Command, args: &[String], folder: &Path, log: &Path, stdin: Stdio) -> Process {
        let file = File::options().create(true).append(true).open(log).unwrap();
        let child = command
            .args(args)
            .current_dir(folder)
            .stdin(stdin)
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Process { child, log: log.to_owned() }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        // The child was not waited for, so its id is its own.
        kill_process(pid, signal).unwrap_or_else(|error| panic!("signal {pid:?}: {error}"));
    }

    /// Its number among processes.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it wrote.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Freezes it, as a leaf that hangs.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Its end, if it comes in time.
    async fn ended(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + Duration::from_secs(SECONDS_MAX);
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(5)).await,
                _ => return None,
            }
        }
    }

    /// Stops it with SIGTERM and waits for its end.
    ///
    /// # Panics
    /// When it does not end, or not well.
    pub async fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.ended().await;
        assert!(status.is_some_and(|status| status.success()), "ended with {status:?}\n{}", self.said());
    }

    /// Sends it SIGTERM, and does not wait.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for its end: how it ended, and what it said.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn end(mut self) -> (ExitStatus, String) {
        let status = self.ended().await.unwrap_or_else(|| panic!("it does not end\n{}", self.said()));
        (status, self.said())
    }

    /// Stops it with Ctrl-C and waits for its end.
    ///
    /// # Panics
    /// When it does not end, or not well.
    pub async fn interrupt(mut self) -> String {
        self.signal(Signal::INT);
        let status = self.ended().await;
        assert!(status.is_some_and(|status| status.success()), "ended with {status:?}\n{}", self.said());
        self.said()
    }

    /// Stops it with SIGTERM and waits for its end. Its exit code.
    ///
    /// # Panics
    /// When it does not end, or by a signal.
    pub async fn terminated(mut self) -> i32 {
        self.signal(Signal::TERM);
        let status = self.ended().await;
        let code = status.and_then(|status| status.code());
        code.unwrap_or_else(|| panic!("ended with {status:?}\n{}", self.said()))
    }

    /// Ends it at once, as a crash does.
    pub async fn kill(mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // A supervisor passes SIGTERM on to its parts; whoever does not listen is killed.
            self.signal(Signal::CONT);
            self.signal(Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(20);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            if let Ok(None) = self.child.try_wait() {
                self.signal(Signal::KILL);
                let _ = self.child.wait();
            }
        }
        if std::thread::panicking() {
            let said = self.said();
            let tail: Vec<&str> = said.lines().rev().take(20).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            eprintln!("--- {} said last:\n{}", self.log.display(), tail.join("\n"));
        }
    }
}

/// Leaf processes and an aggregator process, started and stopped one by one.
#[derive(Debug)]
pub struct Parts {
    leaves: Vec<Option<Process>>,
    aggregator: Option<(Process, Client)>,
    /// The machines that they run on; this one when absent.
    network: Option<Network>,
    directory: TempDir,
}

impl Parts {
    /// Starts this many leaves and an aggregator above them.
    ///
    /// # Panics
    /// When they do not get ready.
    pub async fn start(leaves: usize) -> Parts {
        Parts::start_on(leaves, None).await
    }

    /// Starts this many leaves on as many machines, and an aggregator on another.
    ///
    /// # Panics
    /// When they do not get ready.
    pub async fn start_in(leaves: usize, network: Network) -> Parts {
        Parts::start_on(leaves, Some(network)).await
    }

    async fn start_on(leaves: usize, network: Option<Network>) -> Parts {
        let directory = TempDir::with_prefix("gannet-").unwrap();
        let mut parts = Parts { leaves: Vec::new(), aggregator: None, network, directory };
        for index in 0..leaves {
            parts.leaves.push(None);
            parts.start_leaf(index);
        }
        parts.start_aggregator();
        parts.wait_until_ready().await;
        parts
    }

    /// The directory of a leaf.
    pub fn leaf_directory(&self, index: usize) -> PathBuf {
        self.directory.path().join(format!("leaf-{index}"))
    }

    /// A leaf's process.
    ///
    /// # Panics
    /// When it is stopped.
    pub fn leaf(&self, index: usize) -> &Process {
        self.leaves[index].as_ref().unwrap_or_else(|| panic!("leaf {index} is stopped"))
    }

    /// The network between them.
    ///
    /// # Panics
    /// When there is none.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("they were started in a network")
    }

    /// Starts a leaf.
    pub fn start_leaf(&mut self, index: usize) {
        let command = match &self.network {
            Some(network) => network.command(&network.leaf(index), binary()),
            None => Command::new(binary()),
        };
        self.leaves[index] = Some(self.another_leaf(index, command));
    }

    /// Starts a leaf with another program than the one beside this test.
    pub fn start_leaf_of(&mut self, index: usize, program: &Path) {
        self.leaves[index] = Some(self.another_leaf(index, Command::new(program)));
    }

    /// Starts a leaf whose files may not grow beyond this, as if the disk were full there.
    pub fn start_leaf_on_small_disk(&mut self, index: usize, file_kib_max: u64) {
        let mut command = Command::new("sh");
        // A process that ignores the signal gets an error from its write.
        let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", file_kib_max * 2);
        command.args(["-c", &script]).arg(binary());
        self.leaves[index] = Some(self.another_leaf(index, command));
    }

    /// Starts a process for a leaf, whether or not it has one.
    pub fn another_leaf(&self, index: usize, command: Command) -> Process {
        let id = format!("leaf-{index}");
        let listen = self.leaf_address(index);
        // Generated rows are as old as they are.
        let args = ["leaf", "--id", &id, "--data-dir", &id, "--listen", &listen, "--retention", "0"];
        let mut args = args.map(str::to_owned).to_vec();
        args.extend(self.network.as_ref().map(|_| "--insecure".to_owned()));
        let log = self.directory.path().join(format!("{id}.log"));
        Process::start_with(command, &args, self.directory.path(), &log, Stdio::null())
    }

    fn leaf_address(&self, index: usize) -> String {
        match &self.network {
            Some(network) => network.address(index),
            None => format!("unix:leaf-{index}.sock"),
        }
    }

    /// Takes a leaf's process out, to end it in whatever way.
    ///
    /// # Panics
    /// When it is stopped.
    pub fn take_leaf(&mut self, index: usize) -> Process {
        self.leaves[index].take().unwrap_or_else(|| panic!("leaf {index} is stopped"))
    }

    /// Starts the aggregator on a port that the system chooses.
    pub fn start_aggregator(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()));
        let mut args =
            ["aggregator", "--data-dir", "aggregator", "--http-on-stdin"].map(str::to_owned).to_vec();
        for index in 0..self.leaves.len() {
            args.extend(["--child".to_owned(), self.leaf_address(index)]);
        }
        let log = self.directory.path().join("aggregator.log");
        let stdin = Stdio::from(OwnedFd::from(listener));
        let command = match &self.network {
            Some(network) => {
                args.push("--insecure".to_owned());
                // HTTP stays where the socket was made, which is where the test is.
                network.command(&network.aggregator(), binary())
            }
            None => Command::new(binary()),
        };
        let process = Process::start_with(command, &args, self.directory.path(), &log, stdin);
        self.aggregator = Some((process, client));
    }

    /// Stops the aggregator.
    ///
    /// # Panics
    /// When it does not stop well.
    pub async fn stop_aggregator(&mut self) {
        let (process, _) = self.aggregator.take().expect("the aggregator runs");
        process.stop().await;
    }

    /// The aggregator's process.
    ///
    /// # Panics
    /// When it is stopped.
    pub fn aggregator(&self) -> &Process {
        &self.aggregator.as_ref().expect("the aggregator runs").0
    }

    /// A user of the aggregator.
    pub fn client(&self) -> &Client {
        &self.aggregator.as_ref().expect("the aggregator runs").1
    }

    /// Waits until every leaf serves all its data.
    ///
    /// # Panics
    /// When that does not come.
    pub async fn wait_until_ready(&self) {
        until(SECONDS_MAX, "the parts to be ready", || async {
            self.client().try_get("/readyz").await.filter(|reply| reply.status == 200)
        })
        .await;
    }

    /// Waits until the aggregator says this of a leaf.
    ///
    /// # Panics
    /// When it never does.
    pub async fn wait_for_leaf(&self, index: usize, what: &str, is: impl Fn(&Json) -> bool) -> Json {
        until(SECONDS_MAX, what, || async {
            let status = self.client().try_get("/v1/status").await?.json();
            let leaf = leaf_of(&status, &format!("leaf-{index}"))?;
            is(&leaf).then_some(leaf)
        })
        .await
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.aggregator = None;
        for index in 0..self.leaves.len() {
            self.leaves[index] = None;
            segments::remove(&self.leaf_directory(index));
        }
    }
}

/// What a status says of one leaf.
pub fn leaf_of(status: &Json, leaf: &str) -> Option<Json> {
    status["leaves"].as_array()?.iter().find(|one| one["leaf"] == leaf).cloned()
}

/// `gannet up` on a directory of its own.
#[derive(Debug)]
pub struct Up {
    process: Option<Process>,
    client: Option<Client>,
    leaves: usize,
    /// Bytes of a `/dev/shm` of its own; the machine's when absent.
    shm_bytes: Option<u64>,
    directory: TempDir,
}

/// Whether this user may give a process a `/dev/shm` of its own.
pub fn may_mount() -> bool {
    let tried = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]).output();
    tried.is_ok_and(|tried| tried.status.success())
}

impl Up {
    /// Starts it with this many leaves and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    pub async fn start(leaves: usize) -> Up {
        Up::start_in(leaves, None).await
    }

    /// As [`Up::start`], with a `/dev/shm` of its own of this size; see [`may_mount`].
    ///
    /// # Panics
    /// When it does not get ready.
    pub async fn start_in_small_shm(leaves: usize, shm_bytes: u64) -> Up {
        Up::start_in(leaves, Some(shm_bytes)).await
    }

    async fn start_in(leaves: usize, shm_bytes: Option<u64>) -> Up {
        let directory = TempDir::with_prefix("gannet-").unwrap();
        let mut up = Up { process: None, client: None, leaves, shm_bytes, directory };
        up.start_again().await;
        up
    }

    fn command(&self) -> Command {
        let Some(bytes) = self.shm_bytes else { return Command::new(binary()) };
        let mut command = Command::new("unshare");
        let script = format!("mount -t tmpfs -o size={bytes} tmpfs /dev/shm && exec \"$0\" \"$@\"");
        command.args(["-m", "sh", "-c", &script]).arg(binary());
        command
    }

    /// Where the data is.
    pub fn data_directory(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts it once more on the same directory.
    ///
    /// # Panics
    /// When it does not get ready.
    pub async fn start_again(&mut self) {
        let log = self.directory.path().join("up.log");
        let _ = std::fs::remove_file(&log);
        let leaves = self.leaves.to_string();
        let args = [
            "up",
            "--leaves",
            &leaves,
            "--data-dir",
            "data",
            "--http",
            "127.0.0.1:0",
            "--memory-limit",
            "1GiB",
        ];
        let args = args.map(str::to_owned);
        let mut process =
            Process::start_with(self.command(), &args, self.directory.path(), &log, Stdio::null());
        let base = until(SECONDS_MAX, "`gannet up` to say its address", || {
            let ended = process.child.try_wait().unwrap();
            assert!(ended.is_none(), "`gannet up` ended with {ended:?}\n{}", process.said());
            let base = address_in(&process.said());
            async move { base }
        })
        .await;
        let client = Client::new(&base);
        until(SECONDS_MAX, "`gannet up` to be ready", || async {
            client.try_get("/readyz").await.filter(|reply| reply.status == 200)
        })
        .await;
        self.process = Some(process);
        self.client = Some(client);
    }

    /// A user of it.
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("it runs")
    }

    /// What it printed.
    pub fn said(&self) -> String {
        self.process.as_ref().expect("it runs").said()
    }

    /// Ctrl-C; gives back what it printed.
    ///
    /// # Panics
    /// When it does not end well.
    pub async fn interrupt(&mut self) -> String {
        self.process.take().expect("it runs").interrupt().await
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.process = None;
        for index in 0..self.leaves {
            segments::remove(&self.data_directory().join(format!("leaf-{index}")));
        }
    }
}

/// The first address in what `gannet up` prints, once its line is whole.
fn address_in(said: &str) -> Option<String> {
    let at = said.find("http://127.0.0.1:")?;
    let rest = &said[at..];
    let end = rest[7..].find(|c: char| !(c.is_ascii_digit() || ".:".contains(c)))? + 7;
    Some(rest[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_when_it_is_whole() {
        assert_eq!(
            address_in("Gannet is up at http://127.0.0.1:7700\n"),
            Some("http://127.0.0.1:7700".to_owned())
        );
        assert_eq!(address_in("Gannet is up at http://127.0.0.1:77"), None);
        assert_eq!(address_in("starting\n"), None);
    }
}
