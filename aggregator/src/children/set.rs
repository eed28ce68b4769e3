//! The children there are now. They come and go while queries run, so whoever asks them takes one picture and keeps it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use gannet_proto::address::{AddressError, ChildAddress};
use gannet_proto::exposed::{Exposed, Protection, Way};
use gannet_proto::network::{Network, System};
use gannet_proto::tls::Tls;

use super::Child;

/// How children may be asked.
#[derive(Debug, Default)]
pub enum Links {
    /// Without TLS, wherever they are.
    #[default]
    Open,
    /// Without TLS, and only on this machine.
    Local,
    /// With TLS, unless they are behind a unix socket.
    Tls(Arc<Tls>),
}

impl Links {
    fn child(&self, network: &Arc<dyn Network>, address: &ChildAddress) -> Result<Child, AddressError> {
        match self {
            Links::Open => Child::over(network, address, None),
            Links::Local => {
                let protection = Protection { tls: false, tokens: false };
                match Exposed::find(Way::Child, address, protection) {
                    None => Child::over(network, address, None),
                    Some(exposed) => Err(Box::new(exposed).into()),
                }
            }
            Links::Tls(tls) => Child::over(network, address, Some(tls)),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct ChildSet {
    now: ArcSwap<Picture>,
    links: Links,
    network: Arc<dyn Network>,
}

/// The children of a moment.
#[derive(Debug, Default)]
struct Picture {
    children: Arc<Vec<Arc<Child>>>,
    /// Where each is among them, by address: of thousands, each is looked for whenever anything is heard.
    places: HashMap<String, usize>,
}

impl Default for ChildSet {
    fn default() -> ChildSet {
        ChildSet::new(Links::default(), Arc::new(System))
    }
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
    /// No children yet.
    pub fn new(links: Links, network: Arc<dyn Network>) -> ChildSet {
        ChildSet { now: ArcSwap::default(), links, network }
    }

    /// The children now.
    pub fn now(&self) -> Arc<Vec<Arc<Child>>> {
        Arc::clone(&self.now.load().children)
    }

    /// The child at an address.
    pub fn get(&self, address: &str) -> Option<Arc<Child>> {
        let now = self.now.load();
        now.places.get(address).and_then(|place| now.children.get(*place)).cloned()
    }

    /// Another aggregator, which is no child, asked the way children are. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be connected to by its form, or may not be.
    pub fn beside(&self, address: &ChildAddress) -> Result<Child, AddressError> {
        self.links.child(&self.network, address)
    }

    /// Has these children from now on, in this order; those that stay keep their connections. Must be called inside a
    /// tokio runtime, and by one at a time.
    pub fn replace(&self, addresses: &[ChildAddress]) -> Changed {
        let before = self.now();
        let mut changed = Changed::default();
        let known: BTreeMap<&str, &Arc<Child>> =
            before.iter().map(|child| (child.address(), child)).collect();
        let mut after: Vec<Arc<Child>> = Vec::with_capacity(addresses.len());
        for address in addresses {
            let text = address.to_string();
            if let Some(kept) = known.get(text.as_str()) {
                after.push(Arc::clone(kept));
                continue;
            }
            match self.links.child(&self.network, address).map(Arc::new) {
                Ok(child) => {
                    changed.added.push(Arc::clone(&child));
                    after.push(child);
                }
                Err(error) => changed.refused.push((address.clone(), error)),
            }
        }
        let stays: BTreeSet<&str> = after.iter().map(|child| child.address()).collect();
        changed.removed = before.iter().filter(|child| !stays.contains(child.address())).cloned().collect();
        if !changed.is_empty() {
            // Of an address that is there twice, the first.
            let places = after.iter().enumerate().rev();
            let places = places.map(|(place, child)| (child.address().to_owned(), place)).collect();
            self.now.store(Arc::new(Picture { children: Arc::new(after), places }));
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

    #[tokio::test]
    async fn without_tls_only_this_machine_is_asked() {
        let set = ChildSet::new(Links::Local, Arc::new(System));
        let changed = set.replace(&addresses(&["127.0.0.1:1", "10.0.0.7:1", "unix:a.sock"]));
        assert_eq!((changed.added.len(), changed.refused.len()), (2, 1));
        assert_eq!(
            changed.refused[0].1.to_string(),
            "gRPC to 10.0.0.7:1 would be open to other machines without TLS at both ends"
        );
    }
}
