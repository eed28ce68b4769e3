//! Keeps the children to the members that are known, and each child described.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gannet_proto::address::ChildAddress;
use gannet_proto::gossip::Said;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::names::{Found, Names, Resolver};
use super::place::Place;
use super::{Members, wanted};
use crate::children::{Child, ChildSet};
use crate::config::Config;
use crate::fan_out::FanOut;
use crate::roster::Roster;

/// The places that settings name, and what is known of them now.
#[derive(Debug)]
pub(crate) struct Sources {
    children: Vec<Place>,
    aggregators: Vec<Place>,
    /// Leaves may be elsewhere than where settings say.
    is_open: bool,
    found: watch::Receiver<Found>,
    said: watch::Receiver<Arc<Vec<Said>>>,
}

/// Where [`Sources`] hear from, to be kept running.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) names: Names,
    pub(crate) tell: watch::Sender<Found>,
}

impl Sources {
    /// What settings name; DNS is asked once.
    pub(crate) async fn new(
        children: Vec<Place>,
        aggregators: Vec<Place>,
        resolver: Arc<dyn Resolver>,
        said: Option<watch::Receiver<Arc<Vec<Said>>>>,
    ) -> (Sources, Asking) {
        let name = |place: &Place| match place {
            Place::Name(name) => Some(name.clone()),
            Place::Address(_) => None,
        };
        let mut names = Names::new(children.iter().chain(&aggregators).filter_map(name), resolver);
        let (tell, found) = watch::channel(names.resolve().await);
        let is_open = said.is_some() || !names.is_empty() || !aggregators.is_empty();
        // A channel without a sender keeps what it has.
        let said = said.unwrap_or_else(|| watch::channel(Arc::default()).1);
        (Sources { children, aggregators, is_open, found, said }, Asking { names, tell })
    }

    /// Leaves may be elsewhere than where settings say.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    fn addresses(&self, places: &[Place]) -> Vec<ChildAddress> {
        let found = self.found.borrow();
        let of = |place: &Place| match place {
            Place::Address(address) => vec![address.clone()],
            Place::Name(name) => found.get(name).cloned().unwrap_or_default(),
        };
        places.iter().flat_map(of).collect()
    }

    /// The members now.
    pub(crate) fn members(&self) -> Members {
        Members::new(&self.said.borrow(), &self.addresses(&self.aggregators))
    }

    /// The addresses that the children should have now.
    pub(crate) fn wanted(&self, members: &Members, roster: &Roster) -> Vec<ChildAddress> {
        let homes = if self.is_open { roster.homes() } else { Vec::new() };
        let named = self.addresses(&self.children);
        wanted(&named, members, &homes, |leaf| roster.is_decommissioned(leaf))
    }

    /// Resolves when something is different, or when it is time to look what the roster learnt.
    async fn changed(&mut self, at_most: Duration) {
        let (found, said) = (&mut self.found, &mut self.said);
        tokio::select! {
            () = tokio::time::sleep(at_most) => {}
            () = news(found) => {}
            () = news(said) => {}
        }
    }
}

/// Resolves when there is news; never when nobody tells any.
async fn news<T>(heard: &mut watch::Receiver<T>) {
    if heard.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Everything that follows the members.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) sources: Sources,
    pub(crate) children: Arc<ChildSet>,
    pub(crate) roster: Arc<Mutex<Roster>>,
    pub(crate) fan_out: Arc<FanOut>,
    pub(crate) config: Arc<Config>,
    pub(crate) members: watch::Sender<Arc<Members>>,
}

impl Follower {
    /// Follows until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut tasks = JoinSet::new();
        let mut probes: BTreeMap<String, AbortHandle> = BTreeMap::new();
        for child in self.children.now().iter() {
            probes.insert(child.address().to_owned(), self.probe(child, &mut tasks));
        }
        let every = Duration::from_millis(self.config.describe_interval_ms);
        loop {
            self.sources.changed(every).await;
            while tasks.try_join_next().is_some() {}
            let changed = self.apply();
            for child in changed.removed {
                tracing::info!(child = child.address(), "no child any more: nobody is said to be there");
                if let Some(probe) = probes.remove(child.address()) {
                    probe.abort();
                }
            }
            for child in changed.added {
                tracing::info!(child = child.address(), "a new child");
                child.probe_soon();
                probes.insert(child.address().to_owned(), self.probe(&child, &mut tasks));
            }
        }
    }

    /// Takes the members that are known now.
    pub(crate) fn apply(&self) -> crate::children::Changed {
        let members = self.sources.members();
        let mut roster = self.roster.lock();
        let addresses = self.sources.wanted(&members, &roster);
        let changed = self.children.replace(&addresses);
        for (address, error) in &changed.refused {
            // It is tried again at every look, so it is not told each time.
            tracing::debug!(%address, %error, "a member cannot be connected to");
        }
        if !changed.is_empty() {
            roster.configure(self.children.now().iter().map(|child| child.address().to_owned()));
            if self.sources.is_open {
                roster.forget_unused_children();
            }
        }
        drop(roster);
        self.members.send_if_modified(|before| {
            let is_news = **before != members;
            if is_news {
                *before = Arc::new(members);
            }
            is_news
        });
        changed
    }

    fn probe(&self, child: &Arc<Child>, tasks: &mut JoinSet<()>) -> AbortHandle {
        tasks.spawn(probe(Arc::clone(child), Arc::clone(&self.fan_out), Arc::clone(&self.config)))
    }
}

/// Asks a child what it holds, again and again.
async fn probe(child: Arc<Child>, fan_out: Arc<FanOut>, config: Arc<Config>) {
    let up = Duration::from_millis(config.describe_interval_ms);
    let down = Duration::from_millis(config.probe_interval_ms);
    loop {
        child.probe_due(up, down).await;
        fan_out.refresh(&child).await;
    }
}
