//! Whom an aggregator knows besides its children: other aggregators, which can have a part of its children asked, and
//! the children of others, which it asks for them.
//!
//! Other aggregators are only asked whether they are there: what is below them is not this one's to know. Children of
//! others are connected to when they are asked for, and forgotten when nobody asked for a long time.
//!
//! Invariant: at most [`LENT_MAX`] children of others are kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gannet_proto::address::{AddressError, ChildAddress};
use parking_lot::Mutex;

use crate::children::{Child, ChildSet};

/// Children of others that are kept connected.
const LENT_MAX: usize = 16_384;

/// See the module.
#[derive(Debug)]
pub struct Between {
    /// How servers are connected to.
    children: Arc<ChildSet>,
    /// By address.
    aggregators: Mutex<Vec<Arc<Child>>>,
    lent: Mutex<Lent>,
}

#[derive(Debug, Default)]
struct Lent {
    /// By address, with when it was asked for last.
    children: BTreeMap<String, (Arc<Child>, u64)>,
    asked: u64,
}

impl Between {
    /// Nobody yet; who is met is connected to as children are.
    pub fn new(children: Arc<ChildSet>) -> Between {
        Between { children, aggregators: Mutex::default(), lent: Mutex::default() }
    }

    /// These are the other aggregators from now on; those known before keep their connections. Must be called inside a
    /// tokio runtime.
    pub fn meet(&self, addresses: &[ChildAddress]) {
        let known = self.aggregators();
        let mut met = Vec::with_capacity(addresses.len());
        for address in addresses {
            let name = address.to_string();
            match known.iter().find(|child| child.address() == name) {
                Some(child) => met.push(Arc::clone(child)),
                None => match self.children.beside(address) {
                    Ok(child) => met.push(Arc::new(child)),
                    // It is told again and again, so it is not logged each time.
                    Err(error) => tracing::debug!(%address, %error, "an aggregator cannot be connected to"),
                },
            }
        }
        met.sort_by(|a: &Arc<Child>, b| a.address().cmp(b.address()));
        met.dedup_by(|a, b| a.address() == b.address());
        *self.aggregators.lock() = met;
    }

    /// The other aggregators, up or not.
    pub fn aggregators(&self) -> Vec<Arc<Child>> {
        self.aggregators.lock().clone()
    }

    /// Those that can be asked.
    pub fn up(&self) -> Vec<Arc<Child>> {
        let mut aggregators = self.aggregators();
        aggregators.retain(|aggregator| aggregator.down().is_none());
        aggregators
    }

    /// Asks each other aggregator whether it is there.
    pub async fn look(&self, timeout: Duration, silent_max: u32) {
        let aggregators = self.aggregators();
        let looks = aggregators.iter().map(|aggregator| aggregator.look(timeout, silent_max));
        // What came of it is noted with each of them.
        futures::future::join_all(looks).await;
    }

    /// A child of another aggregator.
    ///
    /// # Errors
    /// When the address is none.
    pub(super) fn lend(&self, address: &str) -> Result<Arc<Child>, AddressError> {
        let mut lent = self.lent.lock();
        lent.asked += 1;
        let now = lent.asked;
        if let Some((child, asked)) = lent.children.get_mut(address) {
            *asked = now;
            return Ok(Arc::clone(child));
        }
        let child = Arc::new(self.children.beside(&address.parse()?)?);
        if lent.children.len() >= LENT_MAX {
            // Half at once: most of them are of a set of leaves that is no more.
            let mut ages: Vec<u64> = lent.children.values().map(|(_, asked)| *asked).collect();
            let (_, middle, _) = ages.select_nth_unstable(LENT_MAX / 2);
            let middle = *middle;
            lent.children.retain(|_, (_, asked)| *asked > middle);
        }
        lent.children.insert(address.to_owned(), (Arc::clone(&child), now));
        Ok(child)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<ChildAddress> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn whoever_is_known_keeps_its_connection() {
        let between = Between::new(Arc::default());
        between.meet(&addresses(&["b:1", "a:1", "b:1"]));
        let first = between.aggregators();
        assert_eq!(first.iter().map(|child| child.address()).collect::<Vec<_>>(), ["a:1", "b:1"]);
        between.meet(&addresses(&["c:1", "b:1"]));
        let second = between.up();
        assert_eq!(second.iter().map(|child| child.address()).collect::<Vec<_>>(), ["b:1", "c:1"]);
        assert!(Arc::ptr_eq(&first[1], &second[0]));
    }

    #[tokio::test]
    async fn children_of_others_are_kept_and_bounded() {
        let between = Between::new(Arc::default());
        let first = between.lend("unix:/nowhere/0").unwrap();
        assert!(Arc::ptr_eq(&first, &between.lend("unix:/nowhere/0").unwrap()));
        assert!(between.lend("nowhere").is_err());
        for number in 1..=LENT_MAX {
            between.lend(&format!("unix:/nowhere/{number}")).unwrap();
        }
        assert_eq!(between.lent.lock().children.len(), LENT_MAX / 2);
    }
}
