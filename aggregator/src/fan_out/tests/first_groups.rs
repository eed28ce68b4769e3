//! The first groups of an order, and too many groups, over several children.

use super::*;

const FIRST: &str = "SELECT x, count(*) AS n FROM t GROUP BY x ORDER BY n DESC, x LIMIT 2";

/// The groups of an answer, and what its record says of them.
async fn groups(aggregator: &Aggregator, sql: &str) -> String {
    let answer =
        aggregator.query(sql, at_leisure()).await.unwrap_or_else(|failure| panic!("{sql}: {failure:?}"));
    let mut text = String::new();
    for batch in &answer.batches {
        let keys = batch.column(0).as_primitive::<Int64Type>();
        let counts = batch.column(1).as_primitive::<Int64Type>();
        let pairs = keys.values().iter().zip(counts.values());
        text.extend(pairs.map(|(key, count)| format!("{key}:{count} ")));
    }
    let said = |what: bool, word| if what { word } else { "" };
    text.push_str(said(answer.completeness.approximate, "approximate"));
    text.push_str(said(answer.completeness.groups_truncated, "truncated"));
    text.trim_end().to_owned()
}

/// Four leaves, each of which sends ten groups of a first two.
async fn leaves(folder: &Path) -> Vec<Served> {
    let mut leaves = Vec::new();
    for id in ["a", "b", "c", "d"] {
        leaves.push(Served::start(folder, id, 0).await);
    }
    leaves
}

fn settings(folder: &Path, leaves: &[Served]) -> Config {
    let mut settings = config(folder, &leaves.iter().collect::<Vec<_>>());
    settings.top_groups_min = 1;
    settings
}

fn runs(leaves: &[Served]) -> Vec<u64> {
    leaves.iter().map(|leaf| leaf.fake.runs_asked.swap(0, Ordering::SeqCst)).collect()
}

/// Many groups of one row, and a few that are larger.
fn mostly_small(large: &[(i64, u64)]) -> Vec<(i64, u64)> {
    large.iter().copied().chain((100..200).map(|value| (value, 1))).collect()
}

/// The same number of rows in each group, but for the order of the groups.
fn alike(first: i64) -> Vec<(i64, u64)> {
    (0..100).map(|value| (value, 2 + u64::from((first..first + 10).contains(&value)))).collect()
}

#[tokio::test]
async fn what_can_be_proven_takes_one_question() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = leaves(folder.path()).await;
    for (leaf, large) in
        leaves.iter().zip([[(1, 9), (2, 8)], [(2, 9), (1, 8)], [(1, 7), (2, 9)], [(1, 8), (2, 7)]])
    {
        leaf.holds(mostly_small(&large));
    }
    let root = Aggregator::start(settings(folder.path(), &leaves)).await.unwrap();
    assert_eq!(groups(&root, FIRST).await, "2:33 1:32");
    assert_eq!(runs(&leaves), [1; 4]);
}

#[tokio::test]
async fn what_cannot_be_proven_is_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = leaves(folder.path()).await;
    for (leaf, first) in leaves.iter().zip([0, 10, 20, 5]) {
        leaf.holds(alike(first));
    }
    let root = Aggregator::start(settings(folder.path(), &leaves)).await.unwrap();
    assert_eq!(groups(&root, FIRST).await, "5:10 6:10");
    assert_eq!(runs(&leaves), [2; 4]);
}

#[tokio::test]
async fn through_others_it_is_approximate_and_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = leaves(folder.path()).await;
    for (leaf, first) in leaves.iter().zip([0, 10, 20, 5]) {
        leaf.holds(alike(first));
    }
    let middle = config(&folder.path().join("of-middle"), &[]);
    let address = serve(folder.path(), Aggregator::start(middle).await.unwrap()).await;
    let mut settings = settings(folder.path(), &leaves);
    settings.children_max = 3;
    settings.aggregators = vec![address];
    let root = Aggregator::start(settings.clone()).await.unwrap();
    let told = groups(&root, FIRST).await;
    assert!(told.ends_with(" approximate"), "{told}");
    assert_eq!(runs(&leaves), [1; 4]);
    // What can be proven is exact through others as well.
    for (leaf, large) in
        leaves.iter().zip([[(1, 9), (2, 8)], [(2, 9), (1, 8)], [(1, 7), (2, 9)], [(1, 8), (2, 7)]])
    {
        leaf.holds(mostly_small(&large));
    }
    root.refresh().await;
    assert_eq!(groups(&root, FIRST).await, "2:33 1:32");
    let by_key = "SELECT x, count(*) FROM t GROUP BY x ORDER BY x DESC LIMIT 3";
    assert_eq!(groups(&root, by_key).await, "199:4 198:4 197:4");
    let any = groups(&root, "SELECT x, count(*) FROM t GROUP BY x LIMIT 5").await;
    assert!(any.split(' ').count() == 5 && any.split(' ').all(|group| group.ends_with(":4")), "{any}");
}

#[tokio::test]
async fn too_many_groups_are_cut_and_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = leaves(folder.path()).await;
    for (leaf, first) in leaves.iter().zip([0, 10, 20, 30]) {
        leaf.holds((first..first + 40).map(|value| (value, 3)));
    }
    let mut settings = settings(folder.path(), &leaves);
    settings.query_groups_max = 7;
    let root = Aggregator::start(settings.clone()).await.unwrap();
    let all = "SELECT x, count(*) FROM t GROUP BY x ORDER BY x";
    let flat = groups(&root, all).await;
    let (kept, said) = flat.rsplit_once(' ').unwrap();
    assert_eq!((kept.split(' ').count(), said), (7, "truncated"), "{flat}");
    for group in kept.split(' ') {
        let (value, count) = group.split_once(':').unwrap();
        let value: i64 = value.parse().unwrap();
        let holding = [0, 10, 20, 30].iter().filter(|first| (**first..**first + 40).contains(&value)).count();
        assert_eq!(count, (3 * holding).to_string(), "{flat}");
    }
    // The same ones through others.
    let mut middle = config(&folder.path().join("of-middle"), &[]);
    middle.query_groups_max = 1000;
    let address = serve(folder.path(), Aggregator::start(middle).await.unwrap()).await;
    settings.children_max = 3;
    settings.aggregators = vec![address];
    settings.data_dir = folder.path().join("of-root");
    let root = Aggregator::start(settings).await.unwrap();
    assert_eq!(groups(&root, all).await, flat);
}
