//! The children there are now. They come and go while queries run, so whoever asks them takes one picture and keeps it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use gannet_proto::address::{AddressError, ChildAddress};

use super::Child;

/// See the module.
#[derive(Debug, Default)]
pub struct ChildSet {
    now: ArcSwap<Vec<Arc<Child>>>,
}

/// What became of the children.
#[derive(Debug, Default)]
pub struct Changed {
    /// Those that were not there before.
    pub added: Vec<Arc<Child>>,
    /// Those that are not there any more.
    pub removed: Vec<Arc<Child>>,
    /// Addresses that cannot be connected to by their form, with why.
    pub refused: Vec<(ChildAddress, AddressError)>,
}

impl Changed {
    /// Nothing is new.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl ChildSet {
    /// The children now.
    pub fn now(&self) -> Arc<Vec<Arc<Child>>> {
        self.now.load_full()
    }

    /// The child at an address.
    pub fn get(&self, address: &str) -> Option<Arc<Child>> {
        self.now.load().iter().find(|child| child.address() == address).cloned()
    }

    /// Has these children from now on, in this order; those that stay keep their connections. Must be called inside a
    /// tokio runtime, and by one at a time.
    pub fn replace(&self, addresses: &[ChildAddress]) -> Changed {
        let before = self.now.load_full();
        let mut changed = Changed::default();
        let mut after: Vec<Arc<Child>> = Vec::with_capacity(addresses.len());
        for address in addresses {
            let text = address.to_string();
            if let Some(kept) = before.iter().find(|child| child.address() == text) {
                after.push(Arc::clone(kept));
                continue;
            }
            match Child::new(address).map(Arc::new) {
                Ok(child) => {
                    changed.added.push(Arc::clone(&child));
                    after.push(child);
                }
                Err(error) => changed.refused.push((address.clone(), error)),
            }
        }
        let stays = |child: &Arc<Child>| after.iter().any(|kept| Arc::ptr_eq(kept, child));
        changed.removed = before.iter().filter(|child| !stays(child)).cloned().collect();
        if !changed.is_empty() {
            self.now.store(Arc::new(after));
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<ChildAddress> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn children_that_stay_are_the_same() {
        let set = ChildSet::default();
        let first = set.replace(&addresses(&["a:1", "b:1"]));
        assert_eq!((first.added.len(), first.removed.len()), (2, 0));
        assert!(set.replace(&addresses(&["a:1", "b:1"])).is_empty());
        let picture = set.now();
        let second = set.replace(&addresses(&["b:1", "c:1"]));
        let names = |children: &[Arc<Child>]| -> Vec<String> {
            children.iter().map(|child| child.address().to_owned()).collect()
        };
        assert_eq!((names(&second.added), names(&second.removed)), (vec!["c:1".into()], vec!["a:1".into()]));
        assert!(Arc::ptr_eq(&set.now()[0], &picture[1]) && names(&set.now()) == ["b:1", "c:1"]);
        assert!(set.get("a:1").is_none() && set.get("c:1").is_some());
    }
}
