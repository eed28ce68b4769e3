//! The same rows, held in every way there is. A question has one answer, however its rows are held.

use gannet_leaf::config::Config;
use gannet_leaf::row_block::Preference;

use crate::cluster::{Cluster, Settings, Shape};
use crate::segments;
use crate::wait::until;

/// A way to hold rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// One leaf, nothing sealed.
    OpenRows,
    /// One leaf, nothing sealed, texts that repeat as the dictionaries they came in.
    OpenDictionaries,
    /// One leaf, everything sealed from rows with dictionaries.
    SealedFromDictionaries,
    /// One leaf, everything sealed.
    Sealed,
    /// One leaf, everything sealed in plain encodings.
    SealedPlain,
    /// One leaf, everything sealed with codes in packed vectors.
    SealedPacked,
    /// One leaf, everything sealed in dictionaries.
    SealedDictionary,
    /// One leaf, everything sealed, text in the forms for distinct values.
    SealedText,
    /// Three leaves with a third each.
    ThreeLeaves,
    /// Three leaves, an aggregator above them, the root above that.
    Intermediate,
    /// One leaf that handed over and attached.
    HandedOver,
    /// One leaf that crashed with rows in block files and in its log.
    Crashed,
    /// One leaf that stopped, lost its segments, and read its files.
    ReadFromDisk,
}

impl Arrangement {
    /// A cluster that holds these events: tables with lines of NDJSON, in order of arrival.
    ///
    /// # Panics
    /// When an event is refused, or the rows do not get where they should be.
    pub async fn hold(self, tables: &[(String, Vec<String>)]) -> Cluster {
        let leaves = if matches!(self, Arrangement::ThreeLeaves | Arrangement::Intermediate) { 3 } else { 1 };
        let shape = Shape { leaves, intermediate: self == Arrangement::Intermediate };
        let settings = match self {
            Arrangement::OpenDictionaries => with_dictionaries(Settings::default()),
            Arrangement::SealedFromDictionaries => {
                with_dictionaries(sealed(|config| config.seal_age_seconds = 0))
            }
            Arrangement::Sealed => sealed(|config| config.seal_age_seconds = 0),
            Arrangement::SealedPlain => sealed(|config| prefer(config, Preference::Plain)),
            Arrangement::SealedPacked => sealed(|config| prefer(config, Preference::Packed)),
            Arrangement::SealedDictionary => sealed(|config| prefer(config, Preference::Dictionary)),
            Arrangement::SealedText => sealed(|config| prefer(config, Preference::Text)),
            Arrangement::OpenRows
            | Arrangement::ThreeLeaves
            | Arrangement::Intermediate
            | Arrangement::HandedOver
            | Arrangement::Crashed
            | Arrangement::ReadFromDisk => Settings::default(),
        };
        let mut cluster = Cluster::start_with(shape, settings).await;
        for leaf in 0..leaves {
            let parts = match self {
                // Batches that are merged lose their dictionaries.
                Arrangement::OpenDictionaries | Arrangement::SealedFromDictionaries => 1,
                _ => 2,
            };
            cluster.feed(leaf, &batches_of(tables, (leaf, leaves), parts)).await;
        }
        let mut counts: Vec<(&str, u64)> = Vec::new();
        for (table, lines) in tables {
            match counts.iter_mut().find(|(name, _)| name == table) {
                Some((_, rows)) => *rows += lines.len() as u64,
                None => counts.push((table, lines.len() as u64)),
            }
        }
        match self {
            Arrangement::HandedOver => {
                cluster.stop_leaf(0).await;
                let source = started_again(&mut cluster).await;
                assert_eq!(source, "shared memory");
            }
            Arrangement::Crashed => {
                cluster.kill_leaf(0).await;
                started_again(&mut cluster).await;
            }
            Arrangement::ReadFromDisk => {
                cluster.stop_leaf(0).await;
                segments::remove(cluster.leaf_directory(0));
                started_again(&mut cluster).await;
            }
            _ => {}
        }
        cluster.wait_for_rows(&counts).await;
        if matches!(
            self,
            Arrangement::Sealed
                | Arrangement::SealedFromDictionaries
                | Arrangement::SealedPlain
                | Arrangement::SealedPacked
                | Arrangement::SealedDictionary
                | Arrangement::SealedText
        ) {
            let tables: Vec<&str> = counts.iter().map(|(table, _)| *table).collect();
            cluster.seal(&tables).await;
        }
        cluster
    }
}

/// Starts the only leaf and waits until it has everything. Returns where that came from.
async fn started_again(cluster: &mut Cluster) -> serde_json::Value {
    cluster.start_leaf(0).await;
    until(60, "the root to see the leaf again", || async {
        let leaf = cluster.status().await["leaves"][0].clone();
        (leaf["epoch"] == 2 && leaf["state"] == "serving").then(|| leaf["source"].clone())
    })
    .await
}

fn sealed(leaf: fn(&mut Config)) -> Settings {
    Settings { leaf, ..Settings::default() }
}

fn with_dictionaries(settings: Settings) -> Settings {
    Settings { aggregator: |config| config.dictionary_rows_min = 1, ..settings }
}

fn prefer(config: &mut Config, preference: Preference) {
    config.seal_age_seconds = 0;
    config.encodings = preference;
}

/// The batches one leaf of several gets: every so-manieth line, in so many parts, so that a column may change its type
/// inside a batch, between batches and between leaves.
fn batches_of(
    tables: &[(String, Vec<String>)],
    (leaf, leaves): (usize, usize),
    parts: usize,
) -> Vec<(String, String)> {
    let mut batches = Vec::new();
    for (table, lines) in tables {
        let mine: Vec<&str> = lines.iter().skip(leaf).step_by(leaves).map(String::as_str).collect();
        let ends = (0..=parts).map(|part| mine.len() * part / parts);
        for (begin, end) in ends.clone().zip(ends.skip(1)).filter(|(begin, end)| begin < end) {
            batches.push((table.clone(), mine[begin..end].join("\n") + "\n"));
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_goes_to_one_leaf() {
        let lines: Vec<String> = (0..7).map(|n| n.to_string()).collect();
        let tables = [("t".to_owned(), lines)];
        let texts =
            |leaf| batches_of(&tables, (leaf, 3), 2).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(texts(0), ["0\n", "3\n6\n"]);
        assert_eq!(texts(1), ["1\n", "4\n"]);
        assert_eq!(texts(2), ["2\n", "5\n"]);
    }
}
