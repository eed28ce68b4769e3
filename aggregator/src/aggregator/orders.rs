//! Draining and stopping leaves, as an operator or a rollout asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gannet_query::LeafState;

use super::Aggregator;
use crate::children::{Child, ChildError, Obeyed};
use crate::error::{ErrorCode, Failure};
use crate::rollout::{Order, Presence};
use crate::roster::LeafStatus;
use crate::sql::suggest::did_you_mean;

/// How long a leaf may take to do as it is told; draining waits a moment for batches.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A leaf that an order is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Ordered {
    /// What is known of it.
    pub leaf: LeafStatus,
    /// All rows that there must be, of all leaves.
    pub rows_of_all: u64,
}

impl Aggregator {
    /// The leaf that an order is for, if it can be given now.
    ///
    /// # Errors
    /// When there is no such leaf, or its state is another.
    pub fn ordered(&self, order: Order, leaf: &str) -> Result<Ordered, Failure> {
        let down = self.down();
        let all = self.roster().lock().leaves();
        let rows_of_all = all.iter().map(|leaf| leaf.rows + leaf.rows_lost).sum();
        let Some(known) = all.iter().find(|known| known.leaf == leaf) else {
            let failure = Failure::new(ErrorCode::NotFound, format!("no leaf `{leaf}` is known"));
            let near = did_you_mean(leaf, all.iter().map(|known| known.leaf.as_str()));
            return Err(
                failure.hint(near.unwrap_or_else(|| "`gannet leaf list` names the leaves.".to_owned()))
            );
        };
        let wrong = |message: String| Failure::new(ErrorCode::WrongState, message);
        match presence(known, &down) {
            (Presence::Serving | Presence::Draining, _) => {}
            (Presence::Away, why) => {
                return Err(wrong(format!("leaf `{leaf}` is down")).detail(format!("{why}.")));
            }
            (Presence::Starting | Presence::Stopping, why) => {
                let message = format!(
                    "leaf `{leaf}` is {why}, and only one that serves or drains can be {}",
                    done(order)
                );
                return Err(wrong(message).retry_after(1));
            }
        }
        Ok(Ordered { leaf: known.clone(), rows_of_all })
    }

    /// Has a leaf do something; in this life of it, or in any for epoch 0.
    ///
    /// # Errors
    /// As [`Aggregator::ordered`], and when it does not do so.
    pub async fn order(&self, order: Order, leaf: &str, epoch: u64) -> Result<Obeyed, Failure> {
        let known = self.ordered(order, leaf)?.leaf;
        let Some(child) = self.child_at(&known.child) else {
            return Err(Failure::new(ErrorCode::WrongState, format!("leaf `{leaf}` has no child any more")));
        };
        let obeyed = child.order(order, leaf, epoch, TIMEOUT).await;
        // Whoever is asked next should know, above all who places batches.
        self.fan_out().refresh(&child).await;
        obeyed.map_err(|error| not_done(order, leaf, error))
    }

    /// The child at an address.
    pub(super) fn child_at(&self, address: &str) -> Option<Arc<Child>> {
        self.children().iter().find(|child| child.address() == address).cloned()
    }

    /// The other aggregators it works with, by address: those that are its children, and those that ask groups of its
    /// children for it.
    pub(crate) fn others(&self) -> Vec<(&'static str, Arc<Child>)> {
        let children = self.children();
        let children = children.iter().filter(|child| child.aggregator_version().is_some());
        let children = children.map(|child| ("child", Arc::clone(child)));
        let helpers = self.fan_out().between().aggregators().into_iter().map(|other| ("helper", other));
        let mut others: Vec<(&'static str, Arc<Child>)> = children.chain(helpers).collect();
        others.sort_by(|(role, one), (other_role, other)| {
            (role, one.address()).cmp(&(other_role, other.address()))
        });
        others
    }

    /// The children that are down, with why.
    pub(crate) fn down(&self) -> BTreeMap<String, String> {
        let children = self.children();
        children.iter().filter_map(|child| Some((child.address().to_owned(), child.down()?))).collect()
    }
}

/// Whether a leaf is there, and in words how it is, or why it is not.
pub(crate) fn presence(leaf: &LeafStatus, down: &BTreeMap<String, String>) -> (Presence, String) {
    if !leaf.configured {
        return (Presence::Away, format!("its child {} is not among the configured children", leaf.child));
    }
    if let Some(why) = down.get(&leaf.child).or(leaf.unreachable.as_ref()) {
        return (Presence::Away, why.clone());
    }
    let Some(said) = &leaf.said else { return (Presence::Away, "its child does not name it".to_owned()) };
    let presence = match said.state {
        LeafState::Serving => Presence::Serving,
        LeafState::Draining => Presence::Draining,
        LeafState::Starting | LeafState::Attaching | LeafState::Recovering => Presence::Starting,
        LeafState::HandingOver | LeafState::Stopped => Presence::Stopping,
    };
    (presence, said.state.name().to_owned())
}

fn done(order: Order) -> &'static str {
    match order {
        Order::Drain => "drained",
        Order::Undrain => "undrained",
        Order::Stop => "stopped",
    }
}

fn not_done(order: Order, leaf: &str, error: ChildError) -> Failure {
    let what = done(order);
    let (code, hint) = match &error {
        ChildError::Stale(_) => (ErrorCode::WrongState, "`gannet leaf list` shows the states."),
        ChildError::Refused(_) => (ErrorCode::NotFound, "`gannet leaf list` names the leaves."),
        ChildError::NotServed => {
            (ErrorCode::Unsupported, "Its program is too old for this; stop it by a signal.")
        }
        _ => (ErrorCode::Unavailable, "Doing it again is safe."),
    };
    let failure = Failure::new(code, format!("leaf `{leaf}` was not {what}: {error}")).hint(hint);
    if code == ErrorCode::Unavailable { failure.retry_after(1) } else { failure }
}
