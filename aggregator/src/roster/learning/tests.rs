//! Whoever tells whom in which order, everybody ends with the same, and no less than anybody knew.

use gannet_query::TimeRange;
use gannet_query::holdings::SPAN_STEP_NS as MINUTE;
use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_000 * MINUTE;

/// A view of a leaf: id, epoch, rows ingested, rows by minute of table `t`.
#[derive(Debug, Clone)]
struct View {
    leaf: u8,
    epoch: u64,
    ingested: u64,
    rows: Vec<(i64, u64)>,
}

fn holdings(view: &View) -> Holdings {
    let spans: Vec<Span> =
        view.rows.iter().map(|(at, rows)| Span::of(at * MINUTE, at * MINUTE, *rows)).collect();
    let rows: u64 = spans.iter().map(|span| span.rows).sum();
    let spans = gannet_query::holdings::fold_spans(spans);
    let table = TableHolding { name: "t".into(), rows, spans, schema_version: 1, ..Default::default() };
    Holdings {
        tables: if rows == 0 { vec![] } else { vec![table] },
        rows_ingested: view.ingested,
        rows_restored: rows.saturating_sub(view.ingested),
        ..crate::fakes::holdings(&format!("leaf-{}", view.leaf), view.epoch, 0)
    }
}

/// What an aggregator knows that heard these views.
fn heard(views: &[View]) -> Roster {
    let mut roster = Roster::default();
    for view in views {
        roster.described(&format!("at-{}", view.leaf), vec![holdings(view)], vec![], NOW);
    }
    roster
}

fn copy(roster: &Roster) -> Roster {
    Roster::from_text(&roster.to_text()).unwrap()
}

/// Learns everything that another knows.
fn learn(roster: &Roster, from: &Roster) -> Roster {
    let mut learnt = copy(roster);
    for decision in from.decisions() {
        learnt.learn_decision(decision, |_| false);
    }
    for held in from.unknown_to(&learnt.known(|_| false)) {
        learnt.learn(held, NOW);
    }
    learnt
}

/// Everything that is the same everywhere in the end.
fn picture(roster: &Roster) -> String {
    let leaves = roster.leaves.iter().map(|(leaf, record)| {
        let expected = roster.rows_expected(leaf, "t", &TimeRange::ALL);
        (leaf, record.epoch, record.rows_ingested, expected, record.mark(false))
    });
    format!("{:?} {:?}", leaves.collect::<Vec<_>>(), roster.decisions())
}

fn expected(roster: &Roster) -> Vec<(String, u64)> {
    roster
        .leaf_ids()
        .map(|leaf| (leaf.to_owned(), roster.rows_expected(leaf, "t", &TimeRange::ALL)))
        .collect()
}

fn view(epochs: std::ops::Range<u64>) -> impl Strategy<Value = View> {
    let rows = prop::collection::vec((0i64..4, 1u64..20), 0..4);
    (0u8..3, epochs, 0u64..4, rows).prop_map(|(leaf, epoch, ingested, rows)| View {
        leaf,
        epoch,
        ingested,
        rows,
    })
}

/// Rows of a leaf only come, so that a later view of an epoch holds no less.
fn growing(views: Vec<View>) -> Vec<View> {
    views
        .into_iter()
        .map(|view| View { rows: vec![(1, 10 * view.epoch.min(1) + view.ingested)], ..view })
        .collect()
}

proptest! {
    #[test]
    fn learning_is_commutative_and_idempotent(
        a in prop::collection::vec(view(1..4), 0..6),
        b in prop::collection::vec(view(1..4), 0..6),
        gone in prop::option::of(0u8..3),
    ) {
        let (mut a, b) = (heard(&a), heard(&b));
        if let Some(leaf) = gone {
            a.decommission(&format!("leaf-{leaf}"));
        }
        let (one, other) = (learn(&a, &b), learn(&b, &a));
        prop_assert_eq!(picture(&one), picture(&other));
        prop_assert_eq!(picture(&learn(&one, &b)), picture(&one));
        prop_assert_eq!(picture(&learn(&one, &a)), picture(&one));
        prop_assert_eq!(picture(&learn(&one, &other)), picture(&one));
        prop_assert!(one.unknown_to(&other.known(|_| false)).is_empty());
    }

    #[test]
    fn within_an_epoch_learning_is_associative(
        a in prop::collection::vec(view(1..2), 0..6),
        b in prop::collection::vec(view(1..2), 0..6),
        c in prop::collection::vec(view(1..2), 0..6),
    ) {
        let (a, b, c) = (heard(&a), heard(&b), heard(&c));
        prop_assert_eq!(picture(&learn(&learn(&a, &b), &c)), picture(&learn(&a, &learn(&b, &c))));
    }

    #[test]
    fn everybody_agrees_after_two_rounds(
        views in prop::collection::vec(prop::collection::vec(view(1..5), 0..6), 3),
        order in prop::collection::vec((0usize..3, 0usize..3), 0..6),
    ) {
        let mut all: Vec<Roster> = views.iter().map(|views| heard(views)).collect();
        for (to, from) in order.into_iter().chain([(0, 1), (1, 2), (2, 0)].repeat(4)) {
            all[to] = learn(&all[to], &all[from]);
        }
        prop_assert_eq!(picture(&all[0]), picture(&all[1]));
        prop_assert_eq!(picture(&all[1]), picture(&all[2]));
    }

    #[test]
    fn nothing_shrinks_without_a_decision(
        a in prop::collection::vec(view(1..4), 0..6),
        b in prop::collection::vec(view(1..4), 0..6),
    ) {
        let (a, b) = (copy(&heard(&growing(a))), copy(&heard(&growing(b))));
        let one = learn(&a, &b);
        for (leaf, rows) in expected(&a).into_iter().chain(expected(&b)) {
            let now = one.rows_expected(&leaf, "t", &TimeRange::ALL);
            prop_assert!(now >= rows, "{leaf} had {rows} rows and has {now}");
        }
    }
}

fn leaf(epoch: u64, ingested: u64, rows: &[(i64, u64)]) -> View {
    View { leaf: 0, epoch, ingested, rows: rows.to_vec() }
}

/// Of two aggregators that heard these views: the rows expected and lost that both end with.
fn check(a: &[View], b: &[View], expect: (u64, u64)) {
    let (a, b) = (heard(a), heard(b));
    for learnt in [learn(&a, &b), learn(&b, &a)] {
        let all = &TimeRange::ALL;
        let found = (learnt.rows_expected("leaf-0", "t", all), learnt.rows_lost("leaf-0", "t", all));
        assert_eq!(found, expect);
    }
}

#[test]
fn two_views_become_one() {
    // Never heard of by one of them.
    check(&[leaf(1, 0, &[(1, 10)])], &[], (10, 0));
    // The later view of an epoch counts, though it holds less.
    check(&[leaf(1, 5, &[(1, 10)])], &[leaf(1, 9, &[(1, 4)])], (4, 0));
    check(&[leaf(1, 5, &[(1, 10)])], &[leaf(1, 5, &[(1, 4)])], (10, 0));
    // One knows what the leaf held before it came back with less.
    check(&[leaf(1, 0, &[(1, 10)])], &[leaf(2, 0, &[(1, 4)])], (10, 6));
    check(&[leaf(1, 0, &[(1, 10)])], &[leaf(2, 0, &[])], (10, 10));
    // One saw the loss, the other only what came after.
    check(&[leaf(1, 0, &[(1, 10)]), leaf(2, 0, &[(1, 4)])], &[leaf(2, 3, &[(1, 4), (2, 3)])], (13, 6));
    check(&[leaf(1, 0, &[(1, 10)]), leaf(2, 0, &[(1, 4)])], &[leaf(3, 0, &[(1, 4)])], (10, 6));
    // What was lost once came back.
    check(&[leaf(1, 0, &[(1, 10)]), leaf(2, 0, &[(1, 4)])], &[leaf(3, 0, &[(1, 10)])], (10, 0));
}

#[test]
fn decisions_travel() {
    let mut a = heard(&[leaf(1, 0, &[(1, 10)])]);
    let b = copy(&a);
    assert_eq!(a.decommission("leaf-0"), Some(10));
    assert_eq!(a.decommission("leaf-0"), None);
    let mut b = learn(&b, &a);
    assert!(b.is_decommissioned("leaf-0") && b.leaf_ids().next().is_none());
    // Whatever it says, it stays out; nobody teaches it back in.
    b.described("at-0", vec![holdings(&leaf(7, 0, &[(1, 50)]))], vec![], NOW);
    assert!(b.leaf_ids().next().is_none() && b.is_retired("at-0"));
    assert_eq!(b.leaf_at("at-0"), crate::roster::LeafAt::NoLeaf);
    let stranger = learn(&b, &heard(&[leaf(9, 0, &[(1, 50)])]));
    assert!(stranger.leaf_ids().next().is_none());
    // Until a person takes it back in, which travels too.
    assert!(b.recommission("leaf-0") && !b.recommission("leaf-0"));
    b.described("at-0", vec![holdings(&leaf(7, 0, &[(1, 50)]))], vec![], NOW);
    let a = learn(&a, &b);
    assert_eq!(a.rows_expected("leaf-0", "t", &TimeRange::ALL), 50);
    assert!(!a.is_decommissioned("leaf-0"));
    // Through the file as well.
    assert_eq!(picture(&copy(&a)), picture(&a));
}

#[test]
fn accepted_losses_are_not_taught_back() {
    let all = &TimeRange::ALL;
    let lossy = || heard(&[leaf(1, 0, &[(1, 10)]), leaf(2, 0, &[(1, 4)])]);
    let (mut a, b) = (lossy(), lossy());
    assert_eq!(a.accept_loss("leaf-0"), Some(6));
    assert_eq!(learn(&a, &b).rows_lost("leaf-0", "t", all), 0);
    assert_eq!(learn(&b, &a).rows_lost("leaf-0", "t", all), 0);
    // A leaf that nobody reaches is forgotten, and counts again when it is heard of.
    let mut a = lossy();
    assert_eq!(a.forget("leaf-0"), Some(10));
    assert!(learn(&a, &b).leaf_ids().next().is_none());
    assert!(learn(&b, &a).leaf_ids().next().is_none());
    a.described("at-0", vec![holdings(&leaf(2, 0, &[(1, 4)]))], vec![], NOW);
    assert_eq!(learn(&a, &heard(&[leaf(3, 0, &[(1, 4)])])).rows_expected("leaf-0", "t", all), 4);
    // One that somebody reaches is not forgotten there.
    let mut b = lossy();
    let mut forgetful = lossy();
    forgetful.forget("leaf-0");
    forgetful.decisions().into_iter().for_each(|decision| b.learn_decision(decision, |home| home == "at-0"));
    assert_eq!(b.rows_expected("leaf-0", "t", all), 10);
}

#[test]
fn only_news_is_told() {
    let (a, b) = (heard(&[leaf(1, 0, &[(1, 10)])]), heard(&[leaf(1, 3, &[(1, 13)])]));
    assert_eq!(a.unknown_to(&b.known(|_| false)).len(), 1);
    // Whoever reaches the leaf need not be told what it holds, only what it lost.
    assert!(b.unknown_to(&a.known(|_| true)).is_empty());
    let lossy = heard(&[leaf(1, 0, &[(1, 10)]), leaf(2, 0, &[(1, 4)])]);
    assert_eq!(lossy.unknown_to(&heard(&[leaf(2, 0, &[(1, 4)])]).known(|_| true)).len(), 1);
    assert_eq!(lossy.unknown_to(&[]).len(), 1);
}
