//! What a member says of itself in gossip, as text. It tells where to connect, and nothing that an answer is made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::shape::VALUE_BYTES_MAX;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It holds rows.
    Leaf,
    /// It answers queries, and may stand between others and leaves.
    Aggregator,
}

impl Kind {
    /// Its name, with which the names of members in messages begin.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Leaf => "leaf",
            Kind::Aggregator => "aggregator",
        }
    }
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// What it is.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// Grows with each start of a leaf that still has its data; 0 of an aggregator.
    pub epoch: u64,
    /// Where it serves gRPC; empty when it does not.
    pub address: String,
    /// The program's version.
    pub version: String,
    /// Its state, in the word that users read.
    pub state: String,
    /// Of its memory limit, bytes that are free.
    pub free_bytes: u64,
}

impl Said {
    /// How messages name it.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.kind.name(), self.id)
    }

    /// As text; `None` when it is too long to be said.
    pub(super) fn to_text(&self) -> Option<String> {
        // Strings and numbers always have a JSON form.
        let text = serde_json::to_string(self).ok()?;
        (text.len() <= VALUE_BYTES_MAX).then_some(text)
    }

    /// From the text of the member that messages name so; `None` when it says something else of itself. Newer members
    /// may say more.
    pub(super) fn of_text(name: &str, text: &str) -> Option<Said> {
        let said: Said = serde_json::from_str(text).ok()?;
        (said.name() == name).then_some(said)
    }
}

/// The newest of each member, in order: of two runs with one id the greater epoch counts, then the later start.
pub(super) fn newest(all: impl IntoIterator<Item = (u64, Said)>) -> Vec<Said> {
    let mut newest: BTreeMap<(Kind, String), (u64, Said)> = BTreeMap::new();
    for (started, said) in all {
        let at = newest.entry((said.kind, said.id.clone())).or_insert_with(|| (started, said.clone()));
        if (at.1.epoch, at.0) < (said.epoch, started) {
            *at = (started, said);
        }
    }
    newest.into_values().map(|(_, said)| said).collect()
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn what_is_said_is_read_again() {
        let said = leaf("a", 3, "10.0.0.7:7710");
        let text = said.to_text().unwrap();
        assert_eq!(Said::of_text("leaf/a", &text), Some(said.clone()));
        assert_eq!(Said::of_text("leaf/b", &text), None);
        assert_eq!(Said::of_text("aggregator/a", &text), None);
        assert_eq!(Said::of_text("leaf/a", "{}"), None);
        let more = text.replacen('{', "{\"rack\":\"r7\",", 1);
        assert_eq!(Said::of_text("leaf/a", &more), Some(said));
        assert_eq!(leaf("a", 3, &"x".repeat(1_000)).to_text(), None);
    }

    #[test]
    fn a_member_that_is_listed_twice_counts_once_by_its_newest_epoch() {
        let all = || vec![(5, leaf("a", 2, "old:1")), (3, leaf("a", 3, "new:1")), (1, leaf("b", 1, "b:1"))];
        let addresses = |all: Vec<(u64, Said)>| -> Vec<String> {
            newest(all).into_iter().map(|said| said.address).collect()
        };
        assert_eq!(addresses(all()), ["new:1", "b:1"]);
        assert_eq!(addresses(all().into_iter().rev().collect()), ["new:1", "b:1"]);
        // The same epoch: an aggregator, or a leaf that began anew.
        let again = vec![(9, leaf("a", 1, "later:1")), (2, leaf("a", 1, "earlier:1"))];
        assert_eq!(addresses(again), ["later:1"]);
        let mut aggregator = leaf("a", 0, "agg:1");
        aggregator.kind = Kind::Aggregator;
        assert_eq!(newest([(1, aggregator), (1, leaf("a", 1, "leaf:1"))]).len(), 2);
    }
}
