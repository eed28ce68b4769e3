//! Which children follow from what settings, DNS, gossip and the roster say.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::follow::Sources;
use super::names::{Names, Resolver};
use super::*;

fn leaf(id: &str, epoch: u64, address: &str) -> Said {
    Said {
        kind: Kind::Leaf,
        id: id.into(),
        epoch,
        address: address.into(),
        version: "0.1.0".into(),
        state: "serving".into(),
        free_bytes: 5,
    }
}

fn addresses(texts: &[&str]) -> Vec<ChildAddress> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn members_are_what_gossip_and_settings_tell() {
    let mut above = leaf("agg-1", 0, "agg:1");
    above.kind = Kind::Aggregator;
    let mut unserved = above.clone();
    (unserved.id, unserved.address) = ("agg-0".into(), String::new());
    let mut unknown = leaf("b", 1, "b:1");
    unknown.state = "dreaming".into();
    let said = [unserved, above, leaf("a", 2, "a:1"), unknown, leaf("c", 1, "nowhere")];
    let members = Members::new(&said, &addresses(&["other:1", "agg:1"]));
    let leaves: Vec<(&str, u64, LeafState)> =
        members.leaves.iter().map(|leaf| (leaf.id.as_str(), leaf.epoch, leaf.state)).collect();
    assert_eq!(leaves, [("a", 2, LeafState::Serving), ("b", 1, LeafState::Starting)]);
    let aggregators: Vec<&str> = members.aggregators.iter().map(|member| member.id.as_str()).collect();
    assert_eq!(aggregators, ["agg-1", "other:1"]);
}

#[test]
fn children_are_everywhere_a_leaf_may_be_but_decommissioned_ones() {
    let members = Members::new(&[leaf("a", 1, "a:1"), leaf("b", 1, "b:1"), leaf("gone", 1, "g:1")], &[]);
    let homes = ["old:1".to_owned(), "a:1".to_owned()];
    let all = wanted(&addresses(&["s:1", "b:1"]), &members, &homes, |leaf| leaf == "gone");
    assert_eq!(all, addresses(&["s:1", "b:1", "a:1", "old:1"]));
}

/// A resolver that knows what it is told.
#[derive(Debug, Default)]
struct Told(Mutex<BTreeMap<String, Vec<SocketAddr>>>);

#[async_trait]
impl Resolver for Told {
    async fn resolve(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        self.0.lock().get(name).cloned().ok_or_else(|| io::Error::other("no such name"))
    }
}

impl Told {
    fn tell(&self, name: &str, all: &[&str]) {
        let all = all.iter().map(|text| text.parse().unwrap()).collect();
        self.0.lock().insert(name.to_owned(), all);
    }
}

#[tokio::test]
async fn names_keep_their_addresses_while_nobody_can_be_asked() {
    let resolver = Arc::new(Told::default());
    let mut names = Names::new(["leaf:7".to_owned()], Arc::clone(&resolver) as _);
    assert_eq!(names.resolve().await["leaf:7"], []);
    resolver.tell("leaf:7", &["10.0.0.2:7", "10.0.0.1:7", "10.0.0.1:7", "[::1]:7"]);
    assert_eq!(names.resolve().await["leaf:7"], addresses(&["10.0.0.1:7", "10.0.0.2:7", "[::1]:7"]));
    resolver.0.lock().clear();
    assert_eq!(names.resolve().await["leaf:7"].len(), 3);
    resolver.tell("leaf:7", &["10.0.0.9:7"]);
    assert_eq!(names.resolve().await["leaf:7"], addresses(&["10.0.0.9:7"]));
}

#[tokio::test]
async fn only_settings_that_name_every_address_are_closed() {
    let check = async |children: &[&str], aggregators: &[&str], gossips: bool| {
        let places = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let said = gossips.then(|| watch::channel(Arc::default()).1);
        let resolver = Arc::new(Told::default());
        resolver.tell("x:1", &["10.0.0.1:1"]);
        let (sources, _) = Sources::new(places(children), places(aggregators), resolver, said).await;
        let mut roster = crate::roster::Roster::default();
        roster.described("home:1", vec![crate::fakes::holdings("l", 1, 3)], vec![], 0);
        let wanted = sources.wanted(&sources.members(), &roster);
        (sources.is_open(), wanted.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(check(&["a:1"], &[], false).await, (false, vec!["a:1".into()]));
    let open = |texts: &[&str]| (true, texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    assert_eq!(check(&["a:1"], &["b:1"], false).await, open(&["a:1", "home:1"]));
    assert_eq!(check(&["dns:x:1"], &[], false).await, open(&["10.0.0.1:1", "home:1"]));
    assert_eq!(check(&[], &[], true).await, open(&["home:1"]));
}
