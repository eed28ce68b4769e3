//! The aggregator itself, without its doors: it knows its children, answers SQL and places row batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

use futures::future::OptionFuture;
use gannet_proto::address::{AddressError, ChildAddress};
use gannet_proto::gossip::{Gossip, GossipError};
use gannet_proto::tls::{self, Tls};
use gannet_proto::watched::FileError;
use gannet_query::{Partial, Plan, Wanted};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admission::{Admission, Client, Load, Refused, Turn};
use crate::catalogue::Catalogue;
use crate::children::{Child, ChildSet, Links};
use crate::config::{Config, ConfigError};
use crate::error::{ErrorCode, Failure};
use crate::exchange::{Below, Exchange};
use crate::fan_out::tree::{AskedChild, LEVELS_MAX};
use crate::fan_out::{Asking, FanOut, GatherError, Question, Watch};
use crate::membership::follow::{Follower, Sources};
use crate::membership::names;
use crate::membership::{Members, MembersWatch};
use crate::metrics::{Metrics, code_name};
use crate::roster::Roster;
use crate::roster_file::{RosterFile, RosterFileError};
use crate::sql::{SqlAnswer, SqlConfig, SqlEngine, SqlWatch};
use crate::surroundings::{Planning, Surroundings};

mod append;
pub(crate) mod bodies;
mod decommission;
mod delete;
mod orders;
mod rolling;

pub use append::{Appended, Pin, Rows, encode};
use bodies::Bodies;
pub use orders::Ordered;
pub use rolling::{Changes, RolloutNow};

/// Aggregators that ask for their own clients, which they have given turns already, are one client.
const PARENTS: Client = 0;
/// The share of its time that a query may wait for its turn. When more is asked for than can be answered, turns go to those
/// who waited longest; they must have time left to be answered in, or every turn is spent on a query that is late.
const WAITING_SHARE_MAX: f64 = 0.5;
/// A statement is planned at most this often when the columns it reads change under it.
const PLANNED_MAX: usize = 3;

/// An aggregator. See the module.
#[derive(Debug)]
pub struct Aggregator {
    config: Arc<Config>,
    children: Arc<ChildSet>,
    members: MembersWatch,
    /// Ends with the aggregator; none when settings name who is there.
    gossip: Option<Gossip>,
    tls: Option<Arc<Tls>>,
    roster: Arc<Mutex<Roster>>,
    below: Below,
    file: Arc<Mutex<RosterFile>>,
    fan_out: Arc<FanOut>,
    engine: SqlEngine,
    /// The catalogue of a version of the roster.
    catalogue: Mutex<Option<(u64, Arc<Catalogue>)>>,
    admission: Admission,
    /// Turns to ask for other aggregators, level by level: a level only waits for those below it, so that two
    /// aggregators that stand between for each other never wait for each other's queries to end.
    between: [Admission; LEVELS_MAX as usize],
    queries_begun: AtomicU64,
    bodies: Bodies,
    metrics: Metrics,
    rolling: rolling::Rolling,
    started: Instant,
    /// Probes of children and the keeper of the roster's file; they end with the aggregator.
    _background: JoinSet<()>,
}

/// Why an aggregator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A child's address cannot be used.
    #[error(transparent)]
    Child(#[from] AddressError),
    /// It cannot gossip.
    #[error(transparent)]
    Gossip(#[from] GossipError),
    /// The roster cannot be used.
    #[error(transparent)]
    Roster(#[from] RosterFileError),
    /// Certificates or tokens cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// SQL cannot be set up.
    #[error("cannot set up SQL: {0}")]
    Sql(Failure),
}

/// What a query asks for beside its text.
#[derive(Debug, Clone, Copy, Default)]
pub struct QueryOptions {
    /// Its time; the configured one when absent.
    pub timeout: Option<Duration>,
    /// The least completeness, 0 to 1, for which an answer is wanted.
    pub min_completeness: Option<f64>,
    /// Who asks: turns are shared among clients.
    pub client: Client,
}

impl Aggregator {
    /// Reads the roster, connects to the children and asks each what it holds. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When a setting or the roster cannot be used. A child that cannot be reached is no error.
    pub async fn start(config: Config) -> Result<Arc<Aggregator>, StartError> {
        Aggregator::start_in(config, Surroundings::default()).await
    }

    /// As [`Aggregator::start`], in other surroundings than this machine.
    ///
    /// # Errors
    /// As [`Aggregator::start`].
    pub async fn start_in(config: Config, surroundings: Surroundings) -> Result<Arc<Aggregator>, StartError> {
        let Surroundings { network, planning } = surroundings;
        let checked = config.checked()?;
        let config = Arc::new(config);
        let tls = Tls::of_settings(config.tls())?;
        let (file, roster) = RosterFile::open(&config.data_dir)?;
        let (roster, file) = (Arc::new(Mutex::new(roster)), Arc::new(Mutex::new(file)));
        let gossip =
            checked.gossip.map(|gossip| Gossip::start_over(Arc::clone(&network), gossip, config.said()));
        let gossip = OptionFuture::from(gossip).await.transpose()?;
        let said = gossip.as_ref().map(Gossip::heard);
        let (sources, asking) =
            Sources::new(checked.children, checked.aggregators, Arc::new(names::System), said).await;
        let children = Arc::new(ChildSet::new(links(&config, tls.as_ref()), network));
        let fan_out = Arc::new(FanOut::new(Arc::clone(&children), Arc::clone(&roster), Arc::clone(&config)));
        let (tell, members) = watch::channel(Arc::default());
        let exchange = Exchange::new(&members, &roster, &children, &config);
        let follower = Follower {
            sources,
            children: Arc::clone(&children),
            roster: Arc::clone(&roster),
            fan_out: Arc::clone(&fan_out),
            config: Arc::clone(&config),
            members: tell,
        };
        if let Some((_, error)) = follower.apply().refused.pop()
            && !follower.sources.is_open()
        {
            return Err(error.into());
        }
        fan_out.between().meet(&others(&members.borrow(), &config));
        let engine = engine(&config, planning)?;
        fan_out.refresh_all().await;
        let mut background = JoinSet::new();
        background.spawn(follower.run());
        background.spawn(exchange.run());
        let below = Below::new(&roster, &children, &config);
        background.spawn(below.clone().run());
        background.spawn(asking.names.follow(Duration::from_millis(config.dns_interval_ms), asking.tell));
        if let Some(tls) = &tls {
            background.spawn(tls::look_after(Arc::clone(tls), "gRPC"));
        }
        background.spawn(look_after(Arc::clone(&fan_out), Arc::clone(&config), members.clone()));
        let every = Duration::from_millis(config.roster_save_ms.max(10));
        background.spawn(keep(Arc::clone(&roster), Arc::clone(&file), every));
        let aggregator = Arc::new(Aggregator {
            rolling: rolling::Rolling::open(&config.data_dir),
            admission: admission(&config),
            between: std::array::from_fn(|_| admission(&config)),
            queries_begun: AtomicU64::new(0),
            bodies: Bodies::new(&config),
            metrics: Metrics::default(),
            started: Instant::now(),
            catalogue: Mutex::new(None),
            _background: background,
            tls,
            config,
            children,
            members,
            gossip,
            roster,
            below,
            file,
            fan_out,
            engine,
        });
        aggregator.rolling.drive(&aggregator);
        Ok(aggregator)
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its TLS towards children and parents.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Its children now.
    pub fn children(&self) -> Arc<Vec<Arc<Child>>> {
        self.children.now()
    }

    /// The members of the cluster there are now, and every later picture of them.
    pub fn members(&self) -> MembersWatch {
        self.members.clone()
    }

    /// Its part in gossip.
    pub fn gossip(&self) -> Option<&Gossip> {
        self.gossip.as_ref()
    }

    /// Its roster.
    pub fn roster(&self) -> &Mutex<Roster> {
        &self.roster
    }

    /// How it asks its children.
    pub fn fan_out(&self) -> &FanOut {
        &self.fan_out
    }

    /// What it counts of its work.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How long it has been running.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Every table and column that the leaves hold.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        let mut cached = self.catalogue.lock();
        let roster = self.roster.lock();
        match &*cached {
            Some((version, catalogue)) if *version == roster.version() => Arc::clone(catalogue),
            _ => {
                let catalogue = Arc::new(roster.catalogue());
                *cached = Some((roster.version(), Arc::clone(&catalogue)));
                catalogue
            }
        }
    }

    /// Asks every child what it holds, now.
    pub async fn refresh(&self) {
        self.fan_out.refresh_all().await;
    }

    /// Answers SQL.
    ///
    /// # Errors
    /// Whatever is wrong with the statement; when no leaf answered; when the answer is thinner than asked for.
    pub async fn query(&self, sql: &str, options: QueryOptions) -> Result<SqlAnswer, Failure> {
        self.query_watched(sql, options, None).await
    }

    /// As [`Aggregator::query`], with somebody who wants to hear of it before the answer is there.
    ///
    /// # Errors
    /// As [`Aggregator::query`].
    pub async fn query_watched(
        &self,
        sql: &str,
        options: QueryOptions,
        watch: Option<&SqlWatch>,
    ) -> Result<SqlAnswer, Failure> {
        let begun = Instant::now();
        let outcome = self.try_query(sql, options, begun, watch).await;
        match &outcome {
            Ok(answer) => self.metrics.answered(begun.elapsed(), answer.completeness.ratio()),
            Err(failure) => self.metrics.failed(begun.elapsed(), code_name(failure.code)),
        }
        outcome
    }

    async fn try_query(
        &self,
        sql: &str,
        options: QueryOptions,
        begun: Instant,
        watch: Option<&SqlWatch>,
    ) -> Result<SqlAnswer, Failure> {
        let default = Duration::from_millis(self.config.query_timeout_ms);
        let longest = Duration::from_millis(self.config.query_timeout_ms_max);
        let timeout = options.timeout.unwrap_or(default);
        if timeout > longest || timeout.is_zero() {
            let message = format!(
                "timeout of {} ms is not between 1 and {} ms",
                timeout.as_millis(),
                longest.as_millis()
            );
            return Err(Failure::new(ErrorCode::BadRequest, message));
        }
        if let Some(least) = options.min_completeness.filter(|least| !(0.0..=1.0).contains(least)) {
            let message = format!("min_completeness is {least}, it must be between 0 and 1");
            return Err(Failure::new(ErrorCode::BadRequest, message));
        }
        let deadline = begun + timeout;
        let _turn =
            self.turn(&self.admission, options.client, begun + timeout.mul_f64(WAITING_SHARE_MAX)).await?;
        let answer = self.planned_anew(sql, deadline, watch).await?;
        enough(&answer, options.min_completeness)?;
        Ok(answer)
    }

    /// Runs a statement, and again when the columns it reads changed, or were not known yet.
    async fn planned_anew(
        &self,
        sql: &str,
        deadline: Instant,
        watch: Option<&SqlWatch>,
    ) -> Result<SqlAnswer, Failure> {
        let number = self.queries_begun.fetch_add(1, Ordering::Relaxed);
        let query_id = format!("{}-{number}", std::process::id());
        let mut planned = 1;
        let mut refreshed = false;
        loop {
            let catalogue = self.catalogue();
            let asking = Arc::new(Asking::new(Arc::clone(&self.fan_out), query_id.clone()));
            let answerer = Arc::clone(&asking) as _;
            let run = self.engine.run_watched(Arc::clone(&catalogue), answerer, sql, deadline, watch);
            let failure = match run.await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if asking.was_stale() && planned < PLANNED_MAX {
                self.refresh().await;
            } else if failure.code == ErrorCode::NotFound && !refreshed {
                // The name may be of rows that came through another aggregator a moment ago.
                refreshed = true;
                self.refresh().await;
                if self.catalogue() == catalogue {
                    return Err(self.unless_alone(failure));
                }
            } else {
                return Err(failure);
            }
            planned += 1;
            tracing::debug!(query_id, planned, "the catalogue changed; planning again");
        }
    }

    /// A name that is not found while no child can be reached says nothing about the name.
    fn unless_alone(&self, failure: Failure) -> Failure {
        let children = self.children.now();
        let down: Vec<String> = children
            .iter()
            .filter_map(|child| child.down().map(|why| format!("{}: {why}", child.address())))
            .collect();
        if down.len() < children.len() || !self.catalogue().tables.is_empty() {
            return failure;
        }
        let detail = if down.is_empty() { "No children are known".to_owned() } else { down.join("; ") };
        Failure::new(ErrorCode::Unavailable, "no leaf answered").detail(format!("{detail}.")).retry_after(1)
    }

    /// Waits until then for a turn to run a query.
    async fn turn(&self, admission: &Admission, client: Client, until: Instant) -> Result<Turn, Failure> {
        let refused = match admission.turn(client, until).await {
            Ok(turn) => return Ok(turn),
            Err(refused) => refused,
        };
        let message = match refused {
            Refused::Full => format!(
                "{} queries are running and {} waiting, the limits",
                self.config.queries_running_max, self.config.queries_waiting_max
            ),
            Refused::Late => "too much of the query's time passed while it waited for its turn".to_owned(),
        };
        let hint = "Ask again later, or less at once; a client with few queries goes before one with many.";
        Err(Failure::new(ErrorCode::Overloaded, message).hint(hint).retry_after(1))
    }

    /// How many queries run and wait.
    pub fn load(&self) -> Load {
        self.admission.load()
    }

    /// Answers a plan for a parent: what there is by the deadline, even from no leaf at all. There may be more groups than
    /// are wanted, but no wanted one is missing.
    ///
    /// # Errors
    /// When the plan is stale, wrong, or needs more than the query may take.
    pub async fn gather(
        &self,
        plan: &Plan,
        wanted: &Wanted,
        deadline: Instant,
        query_id: &str,
        watch: Option<&Watch>,
    ) -> Result<Partial, GatherError> {
        let _turn = self.turn(&self.admission, PARENTS, deadline).await.map_err(GatherError::Failed)?;
        let outcome = self.fan_out.gather(plan, wanted, deadline, query_id, watch).await;
        if let Err(GatherError::Stale(_)) = &outcome {
            // The parent will ask what there is; it should hear of what made its plan stale.
            self.refresh().await;
        }
        outcome
    }

    /// Answers a plan for another aggregator, of the children that it named and of nobody else.
    ///
    /// # Errors
    /// As [`Aggregator::gather`].
    pub async fn gather_for(
        &self,
        question: Question<'_>,
        asked: &[AskedChild],
        watch: Option<&Watch>,
    ) -> Result<Partial, GatherError> {
        let level = question.level.clamp(1, LEVELS_MAX) as usize - 1;
        let turn = self.turn(&self.between[level], PARENTS, question.deadline);
        let _turn = turn.await.map_err(GatherError::Failed)?;
        self.fan_out.gather_for(question, asked, watch).await
    }

    /// Who may read a body of events.
    pub(crate) fn bodies(&self) -> &Bodies {
        &self.bodies
    }

    /// Forgets rows of a leaf that were held once and are gone, here and on the leaf itself, or the whole leaf when it
    /// cannot be reached. Gives back how many rows are no longer expected.
    ///
    /// # Errors
    /// When the leaf was never heard of, or can be reached but did not do its part.
    pub async fn accept_loss(&self, leaf: &str) -> Result<u64, Failure> {
        let below = {
            let roster = self.roster.lock();
            let at = roster.child_of(leaf).map(|(child, reachable)| (child.to_owned(), reachable));
            at.and_then(|(at, reachable)| {
                let child = self.children.get(&at)?;
                child.down().is_none().then_some((child, reachable))
            })
        };
        let mut rows = 0;
        if let Some((child, _)) = &below {
            let timeout = Duration::from_millis(self.config.describe_timeout_ms);
            rows += child.accept_loss(leaf, timeout).await.map_err(|error| {
                let message = format!("leaf `{leaf}` did not forget its lost rows: {error}");
                Failure::new(ErrorCode::Unavailable, message).retry_after(1)
            })?;
        }
        let here = {
            let mut roster = self.roster.lock();
            match &below {
                Some((_, true)) => roster.accept_loss(leaf),
                Some((_, false)) | None => roster.forget(leaf),
            }
        };
        rows +=
            here.ok_or_else(|| Failure::new(ErrorCode::NotFound, format!("no leaf `{leaf}` is known")))?;
        if let Some((child, _)) = &below {
            self.fan_out.refresh(child).await;
        }
        tracing::warn!(leaf, rows, "the loss of rows was accepted");
        Ok(rows)
    }

    /// Writes the roster.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn save(&self) -> Result<(), RosterFileError> {
        let (roster, file) = (Arc::clone(&self.roster), Arc::clone(&self.file));
        let save = move || {
            let text = roster.lock().to_text();
            file.lock().save(text)
        };
        tokio::task::spawn_blocking(save).await.unwrap_or(Ok(()))
    }
}

/// How children may be asked.
fn links(config: &Config, tls: Option<&Arc<Tls>>) -> Links {
    match tls {
        Some(tls) => Links::Tls(Arc::clone(tls)),
        None if config.insecure => Links::Open,
        None => Links::Local,
    }
}

/// An answer that is as complete as was asked for.
fn enough(answer: &SqlAnswer, least: Option<f64>) -> Result<(), Failure> {
    let Some(least) = least else { return Ok(()) };
    let ratio = answer.completeness.ratio();
    if ratio.is_some_and(|ratio| ratio >= least) || least == 0.0 {
        return Ok(());
    }
    let is = ratio.map_or_else(|| "unknown".to_owned(), |ratio| ratio.to_string());
    let missing: Vec<String> = answer
        .completeness
        .missing
        .iter()
        .take(10)
        .map(|missing| {
            let rows =
                missing.rows.map_or_else(|| "an unknown number of".to_owned(), |rows| rows.to_string());
            format!("{}: {} ({rows} rows)", missing.leaf, missing.reason.name())
        })
        .collect();
    let message = format!("completeness is {is}, less than the {least} asked for");
    Err(Failure::new(ErrorCode::Incomplete, message)
        .detail(format!("Missing: {}.", missing.join("; ")))
        .hint("Ask again when the leaves are back, or lower min_completeness.")
        .retry_after(1))
}

fn engine(config: &Config, planning: Planning) -> Result<SqlEngine, StartError> {
    let settings = SqlConfig {
        pulled_bytes_max: config.pulled_bytes_max,
        memory_bytes_max: config.finish_bytes_max,
        planning_threads: config.planning_threads,
        ..SqlConfig::default()
    };
    SqlEngine::planning(settings, planning).map_err(StartError::Sql)
}

fn admission(config: &Config) -> Admission {
    Admission::new(config.queries_running_max, config.queries_waiting_max)
}

/// Where other aggregators are that can ask for this one. Its own address is not one of them, so that all can have the
/// same list.
fn others(members: &Members, config: &Config) -> Vec<ChildAddress> {
    let own = config.advertise.as_ref().or(config.grpc.as_ref());
    let own: Option<ChildAddress> = own.and_then(|address| address.parse().ok());
    let all = members.aggregators.iter().map(|aggregator| aggregator.address.clone());
    all.filter(|address| Some(address) != own.as_ref()).collect()
}

/// Asks the other aggregators whether they are there, again and again.
async fn look_after(fan_out: Arc<FanOut>, config: Arc<Config>, mut members: MembersWatch) {
    let timeout = Duration::from_millis(config.describe_timeout_ms);
    loop {
        let others = others(&members.borrow_and_update(), &config);
        fan_out.between().meet(&others);
        fan_out.between().look(timeout, config.describe_failures_max).await;
        let pause = tokio::time::sleep(Duration::from_millis(config.probe_interval_ms));
        tokio::select! {
            () = pause => {}
            Ok(()) = members.changed() => {}
        }
    }
}

/// Writes the roster when it has changed.
async fn keep(roster: Arc<Mutex<Roster>>, file: Arc<Mutex<RosterFile>>, every: Duration) {
    let mut kept = None;
    let mut failing = false;
    loop {
        tokio::time::sleep(every).await;
        let version = roster.lock().version();
        if kept == Some(version) {
            continue;
        }
        let (roster, file) = (Arc::clone(&roster), Arc::clone(&file));
        let save = move || {
            let text = roster.lock().to_text();
            file.lock().save(text)
        };
        match tokio::task::spawn_blocking(save).await {
            Ok(Ok(())) => {
                kept = Some(version);
                failing = false;
            }
            Ok(Err(error)) if !failing => {
                failing = true;
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, source, "the roster is not saved; trying again");
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}
