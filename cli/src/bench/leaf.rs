//! A leaf process of the bench: started, asked over gRPC, stopped, killed; nothing of it stays behind.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, Int64Array, types::Int64Type};
use arrow::datatypes::DataType;
use bytes::Bytes;
use gannet_proto::address::{ChildAddress, connect};
use gannet_proto::channel::Channel;
use gannet_proto::wire::ingest_client::IngestClient;
use gannet_proto::wire::query_client::QueryClient;
use gannet_proto::{MESSAGE_BYTES_MAX, decode_body, wire};
use gannet_query::{
    Aggregate, AggregateFunction, BinaryOp, Body, ColumnType, Completeness, Expr, Finish, Holdings, Output,
    Plan, TimeRange, WeightKind,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::events::{NUMBER, TABLE};
use super::memory;
use crate::outcome::Failure;

/// Its id.
const ID: &str = "bench";
/// Where it listens, in its folder.
const SOCKET: &str = "leaf.sock";
/// How long a process may take to end.
const END_MAX: Duration = Duration::from_secs(600);
/// How long SIGSTOP may take.
const STOP_MAX: Duration = Duration::from_secs(10);
/// How long one question may take.
const QUESTION_MAX: Duration = Duration::from_secs(120);
/// Lines of its log that are shown when it fails.
const LOG_LINES: usize = 5;

/// Numbers of rows are added up modulo this.
const MODULUS: u64 = 1_009;

/// What a row adds to the sum that a leaf is asked for.
pub(super) fn remainder(number: u64) -> u64 {
    number % MODULUS
}

/// A leaf's folder, and its process when it runs.
#[derive(Debug)]
pub(super) struct Leaf {
    folder: PathBuf,
    process: Option<Child>,
}

/// What a leaf says of the rows it has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    /// How many.
    pub(super) count: u64,
    /// The sum of the remainders of their numbers, when it was asked for.
    pub(super) sum: Option<i64>,
    /// How complete that is.
    pub(super) completeness: Completeness,
}

/// A connection to a leaf, made when it is first used.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    query: QueryClient<Channel>,
    ingest: IngestClient<Channel>,
}

impl Leaf {
    /// A leaf in a new folder, with settings as TOML beside those it always has.
    pub(super) fn new(folder: &Path, settings: &str) -> Result<Leaf, Failure> {
        Leaf::named(ID, folder, settings)
    }

    /// As [`Leaf::new`], one of several.
    pub(super) fn named(id: &str, folder: &Path, settings: &str) -> Result<Leaf, Failure> {
        let failed = |error| Failure::failed(format!("make a leaf in {}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(failed)?;
        let settings = format!("id = \"{id}\"\ndata_dir = \"data\"\nlisten = \"unix:{SOCKET}\"\n{settings}");
        std::fs::write(folder.join("leaf.toml"), settings).map_err(failed)?;
        Ok(Leaf { folder: folder.to_owned(), process: None })
    }

    /// Where others reach it.
    pub(super) fn address(&self) -> ChildAddress {
        ChildAddress::Unix(self.folder.join(SOCKET))
    }

    /// Where its files are.
    pub(super) fn data_folder(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Starts its process; gives back when that began.
    pub(super) fn start(&mut self) -> Result<Instant, Failure> {
        let failed = |error| Failure::failed(format!("start a leaf: {error}"));
        let binary = std::env::current_exe().map_err(failed)?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("leaf.log"))
            .map_err(failed)?;
        let mut command = Command::new(binary);
        command
            .args(["leaf", "--config", "leaf.toml", "--parent-pid", &std::process::id().to_string()])
            .current_dir(&self.folder)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        let started = Instant::now();
        self.process = Some(command.spawn().map_err(failed)?);
        Ok(started)
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Child::id)
    }

    /// Fails when its process has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        let ended = self.process.as_mut().and_then(|process| process.try_wait().transpose());
        match ended {
            None => Ok(()),
            Some(Ok(status)) => Err(self.unexpected(&format!("ended by itself with {status}"))),
            Some(Err(error)) => Err(Failure::failed(format!("wait for a leaf: {error}"))),
        }
    }

    fn unexpected(&self, what: &str) -> Failure {
        let log = std::fs::read_to_string(self.folder.join("leaf.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        Failure::failed(format!("the leaf {what}")).detail(format!("It said last:\n{}", last.join("\n")))
    }

    /// How long its log is now.
    pub(super) fn log_bytes(&self) -> u64 {
        std::fs::metadata(self.folder.join("leaf.log")).map_or(0, |metadata| metadata.len())
    }

    /// Seconds of a hand-over, as its log tells after this many bytes.
    pub(super) fn handed_over(&self, after: u64) -> Option<f64> {
        let log = std::fs::read_to_string(self.folder.join("leaf.log")).ok()?;
        handed_over_in(log.get(after as usize..)?)
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let raw = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let pid = raw.ok_or_else(|| Failure::failed("signal a leaf: it does not run"))?;
        kill_process(pid, signal).map_err(|error| Failure::failed(format!("signal a leaf: {error}")))
    }

    /// Waits until SIGSTOP has reached it.
    pub(super) async fn is_stopped(&self) -> Result<(), Failure> {
        let pid = self.pid().ok_or_else(|| Failure::failed("stop a leaf: it does not run"))?;
        let deadline = Instant::now() + STOP_MAX;
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            // After the name, which may have spaces.
            if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Failure::failed(format!("process {pid} does not stop")));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> Result<ExitStatus, Failure> {
        let Some(process) = self.process.as_mut() else {
            return Err(Failure::failed("wait for a leaf: it does not run"));
        };
        let ended = tokio::time::timeout(END_MAX, process.wait()).await;
        let status = match ended {
            Ok(status) => status.map_err(|error| Failure::failed(format!("wait for a leaf: {error}")))?,
            Err(_) => return Err(self.unexpected(&format!("does not end within {} s", END_MAX.as_secs()))),
        };
        self.process = None;
        Ok(status)
    }

    /// Waits for the end of a leaf that was asked to stop.
    pub(super) async fn stopped(&mut self) -> Result<(), Failure> {
        let status = self.ended().await?;
        if status.success() { Ok(()) } else { Err(self.unexpected(&format!("stopped with {status}"))) }
    }

    /// Ends it as a crash does.
    pub(super) async fn kill(&mut self) -> Result<(), Failure> {
        self.signal(Signal::KILL)?;
        self.ended().await.map(|_| ())
    }

    /// What the names of its segments begin with; empty as long as it has no manifest.
    pub(super) fn segment_prefix(&self) -> Option<String> {
        segment_prefix(&self.data_folder())
    }

    /// Removes its segments, as a machine that starts again does.
    pub(super) fn remove_segments(&self) {
        remove_segments(&self.data_folder());
    }

    /// A new connection to it.
    pub(super) fn connection(&self) -> Result<Connection, Failure> {
        let channel = connect(&self.address())
            .map_err(|error| Failure::failed(format!("connect to a leaf: {error}")))?;
        Ok(Connection {
            query: QueryClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            ingest: IngestClient::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX),
        })
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.start_kill();
            // A killed process ends at once; its segments can only be removed for good after that.
            let deadline = Instant::now() + Duration::from_secs(10);
            while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        self.remove_segments();
    }
}

fn segment_prefix(data: &Path) -> Option<String> {
    let manifest = std::fs::read_to_string(data.join("leaf.json")).ok()?;
    instance_in(&manifest).map(|instance| format!("gannet-{instance}-"))
}

/// Removes the segments of the leaf that has its files here.
pub(super) fn remove_segments(data: &Path) {
    let Some(prefix) = segment_prefix(data) else { return };
    for path in memory::segments(&prefix) {
        // One that is gone already is what was wanted.
        let _ = std::fs::remove_file(path);
    }
}

/// The instance that a manifest names, whatever else is in it.
fn instance_in(manifest: &str) -> Option<&str> {
    let after = manifest.split_once("\"instance\"")?.1;
    let instance = after.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?.split('"').next()?;
    let is_uuid = instance.len() == 36 && instance.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    is_uuid.then_some(instance)
}

/// What a log says of how long the last hand-over in it took. The leaf can be asked for it as well, but is gone a moment later.
fn handed_over_in(log: &str) -> Option<f64> {
    let line = log.lines().rfind(|line| line.contains("handed over to shared memory"))?;
    line.split_whitespace().find_map(|word| word.strip_prefix("seconds="))?.parse().ok()
}

/// A plan that counts the rows and, if asked, adds up what [`remainder`] gives of their numbers.
fn plan(with_sum: bool) -> Plan {
    let aggregate = |function, argument| Aggregate { function, argument, filter: None, weighted: false };
    let mut aggregates = vec![aggregate(AggregateFunction::Count, None)];
    let mut columns = Vec::new();
    if with_sum {
        // Not the numbers themselves: their sums are in the directories of blocks, and nobody would read a row.
        let number = Expr::Binary {
            op: BinaryOp::Modulo,
            left: Box::new(Expr::Column(NUMBER.to_owned())),
            right: Box::new(Expr::Literal(Arc::new(Int64Array::from(vec![MODULUS as i64])))),
        };
        aggregates.push(aggregate(AggregateFunction::Sum, Some((number, DataType::Int64))));
        columns.push((NUMBER.to_owned(), ColumnType::Int));
    }
    Plan {
        table: TABLE.to_owned(),
        columns,
        time_range: TimeRange::ALL,
        filter: None,
        weight: WeightKind::One,
        output: Output::Groups { keys: Vec::new(), aggregates },
    }
}

impl Connection {
    /// Asks for the count of all rows, and for the sum of their numbers.
    pub(super) async fn ask(&mut self, with_sum: bool) -> Result<Answer, String> {
        let plan = plan(with_sum);
        let request = wire::RunRequest {
            plan: Some((&plan).into()),
            deadline_ms: QUESTION_MAX.as_millis() as u32,
            query_id: "bench".to_owned(),
            ..Default::default()
        };
        let mut replies =
            self.query.run(request).await.map_err(|status| status.message().to_owned())?.into_inner();
        let mut body = Bytes::new();
        let completeness = loop {
            let reply = replies.message().await.map_err(|status| status.message().to_owned())?;
            let reply = reply.ok_or("an answer ended without its completeness")?;
            if !reply.body.is_empty() {
                body = reply.body;
            }
            if let Some(completeness) = reply.completeness {
                break Completeness::try_from(completeness).map_err(|error| error.to_string())?;
            }
        };
        let (count, sum) = values(&plan, &body)?;
        Ok(Answer { count, sum, completeness })
    }

    /// Asks what it holds.
    pub(super) async fn describe(&mut self) -> Result<Holdings, String> {
        let reply = self.query.describe(wire::DescribeRequest::default()).await;
        let reply = reply.map_err(|status| status.message().to_owned())?.into_inner();
        let leaf = reply.leaves.into_iter().next().ok_or("a leaf describes nothing")?;
        Holdings::try_from(leaf).map_err(|error| error.to_string())
    }

    /// Hands it encoded rows of the bench's table.
    pub(super) async fn append(&mut self, rows: Bytes) -> Result<wire::AppendReply, tonic::Status> {
        let request = wire::AppendRequest { table: TABLE.to_owned(), rows, ..Default::default() };
        self.ingest.append(request).await.map(tonic::Response::into_inner)
    }
}

/// The count, and the sum if it was asked for, in the body of an answer.
fn values(plan: &Plan, body: &Bytes) -> Result<(u64, Option<i64>), String> {
    let body = decode_body(plan, body).map_err(|error| error.to_string())?;
    let Body::Groups(groups) = body else { return Err("rows came instead of a count".to_owned()) };
    let finish = |index: usize, finish: Finish| -> Result<Option<i64>, String> {
        let Some(states) = groups.states.get(index) else { return Ok(None) };
        let column = states.finish(&finish, &DataType::Int64).map_err(|error| error.to_string())?;
        let column = column.as_primitive_opt::<Int64Type>().ok_or("a count is no int")?;
        Ok(column.iter().next().flatten())
    };
    let count = finish(0, Finish::Count)?.and_then(|count| u64::try_from(count).ok());
    Ok((count.ok_or("an answer has no count")?, finish(1, Finish::Sum)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_overs_are_found_in_logs() {
        let line =
            "2026-11-21T10:00:00Z  INFO gannet_leaf: handed over to shared memory leaf=\"b\" rows=7 bytes=50";
        assert_eq!(handed_over_in(&format!("started\n{line} seconds=0.25\n")), Some(0.25));
        assert_eq!(handed_over_in(line), None);
        assert_eq!(handed_over_in("leaf started rows=7"), None);
    }

    #[test]
    fn instances_are_found_in_manifests_of_every_form() {
        let instance = "123e4567-e89b-42d3-a456-426614174000";
        let check = |manifest: &str, expect: Option<&str>| assert_eq!(instance_in(manifest), expect);
        check(&format!("{{\"id\": \"bench\", \"instance\": \"{instance}\"}}"), Some(instance));
        check(&format!("{{\"format\":2}}\n{{\"instance\":\"{instance}\",\"epoch\":1}}"), Some(instance));
        check("{\"instance\": \"../../etc\"}", None);
        check("{}", None);
    }
}
