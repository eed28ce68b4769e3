//! What an answer says when children are slow, gone, refusing, lying or there twice.

use std::path::Path;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use gannet_proto::address::Listener;
use gannet_query::{Aggregate, AggregateFunction, Output, TimeRange, WeightKind};
use tonic::Code;

use super::*;
use crate::aggregator::{Aggregator, QueryOptions};
use crate::fakes::{Does, Served, config, over};
use crate::sql::SqlAnswer;

mod first_groups;
mod tree;

const COUNT: &str = "SELECT count(*) FROM t";

fn soon() -> QueryOptions {
    QueryOptions { timeout: Some(Duration::from_millis(1000)), ..Default::default() }
}

/// Time enough on the busiest machine, where nobody is late on purpose.
fn at_leisure() -> QueryOptions {
    QueryOptions { timeout: Some(Duration::from_secs(60)), ..Default::default() }
}

/// The count, the ratio, and what is missing, in words.
fn shown(answer: &SqlAnswer) -> String {
    let count = answer.batches[0].column(0).as_primitive::<Int64Type>().value(0);
    let ratio = answer.completeness.ratio().map_or("unknown".to_owned(), |ratio| ratio.to_string());
    let missing = answer.completeness.missing.iter().map(|missing| {
        let rows = missing.rows.map_or("?".to_owned(), |rows| rows.to_string());
        format!(" {}:{}:{rows}", missing.leaf, missing.reason.name())
    });
    format!("{count} {ratio}{}", missing.collect::<String>())
}

async fn ask(aggregator: &Aggregator) -> String {
    match aggregator.query(COUNT, soon()).await {
        Ok(answer) => shown(&answer),
        Err(failure) => format!("{:?} {}", failure.code, failure.message),
    }
}

/// Hears what there is so far, and how many rows each time.
fn watch() -> (Watch, Arc<Mutex<Vec<u64>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let rows = Arc::clone(&told);
    let tell =
        Box::new(move |so_far: gannet_query::SoFar| rows.lock().push(so_far.completeness.rows_covered));
    (Watch { every: Duration::from_millis(20), with_body: true, tell }, told)
}

/// Two leaves of 30 and 10 rows, of which the second does as told.
async fn check(does: Does, expect: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Served::start(folder.path(), "a", 30).await, Served::start(folder.path(), "b", 10).await);
    let mut settings = config(folder.path(), &[&a, &b]);
    settings.child_answer_bytes_max = 1 << 20;
    let aggregator = Aggregator::start(settings).await.unwrap();
    b.does(does);
    assert_eq!(ask(&aggregator).await, expect);
}

#[tokio::test]
async fn every_way_not_to_answer_has_its_reason() {
    check(Does::Work, "40 1").await;
    check(Does::Hang, "30 0.75 b:timeout:10").await;
    check(Does::HangAfterBody, "30 0.75 b:timeout:10").await;
    check(Does::EndEarly, "30 0.75 b:error:10").await;
    check(Does::Garbage, "30 0.75 b:error:10").await;
    check(Does::Drip, "30 0.75 b:timeout:10").await;
    check(Does::Flood, "30 0.75 b:error:10").await;
    check(Does::Fail(Code::Unavailable, "starting"), "30 0.75 b:restarting:10").await;
    check(Does::Fail(Code::ResourceExhausted, "full"), "30 0.75 b:overloaded:10").await;
    check(Does::Fail(Code::Internal, "broken"), "30 0.75 b:error:10").await;
    check(Does::Fail(Code::DeadlineExceeded, "late"), "30 0.75 b:timeout:10").await;
}

#[tokio::test]
async fn what_is_wrong_on_a_leaf_fails_the_query() {
    check(Does::Fail(Code::InvalidArgument, "division by zero"), "BadRequest division by zero").await;
    check(Does::Fail(Code::OutOfRange, "too many groups"), "TooLarge too many groups").await;
}

#[tokio::test]
async fn a_stale_plan_is_made_again_three_times_at_most() {
    check(Does::FailTimes(2, Code::FailedPrecondition), "40 1").await;
    let changed = "Unavailable the columns of table `t` changed while the query ran";
    check(Does::Fail(Code::FailedPrecondition, "x is a string now"), changed).await;
}

#[tokio::test]
async fn children_get_less_time_than_the_query() {
    let folder = tempfile::tempdir().unwrap();
    let a = Served::start(folder.path(), "a", 1).await;
    let aggregator = over(folder.path(), &[&a]).await;
    let options = QueryOptions { timeout: Some(Duration::from_secs(100)), ..Default::default() };
    aggregator.query(COUNT, options).await.unwrap();
    let given = a.fake.deadline_ms.load(Ordering::SeqCst);
    assert!((90_000..=95_000).contains(&given), "{given}");
}

#[tokio::test]
async fn children_that_take_long_are_asked_first_the_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut leaves = Vec::new();
    for (id, rows) in [("a", 1), ("b", 2), ("c", 3)] {
        leaves.push(Served::start(folder.path(), id, rows).await);
    }
    let mut settings = config(folder.path(), &leaves.iter().collect::<Vec<_>>());
    // One after the other; who is asked later is given less time.
    settings.children_max = 1;
    let aggregator = Aggregator::start(settings).await.unwrap();
    for (leaf, ms) in leaves.iter().zip([60, 180, 120]) {
        leaf.does(Does::Linger(Duration::from_millis(ms)));
    }
    let order = async || {
        let answer = aggregator.query(COUNT, at_leisure()).await.unwrap();
        assert_eq!(shown(&answer), "6 1");
        let mut asked: Vec<_> =
            leaves.iter().map(|leaf| (leaf.fake.deadline_ms.load(Ordering::SeqCst), &leaf.fake.id)).collect();
        asked.sort_unstable();
        asked.iter().rev().map(|(_, id)| id.as_str()).collect::<String>()
    };
    assert_eq!(order().await, "abc");
    assert_eq!(order().await, "bca");
}

/// A plan that counts.
fn counting() -> Plan {
    let count =
        Aggregate { function: AggregateFunction::Count, argument: None, filter: None, weighted: false };
    Plan {
        table: "t".into(),
        columns: vec![],
        time_range: TimeRange::ALL,
        filter: None,
        weight: WeightKind::One,
        output: Output::Groups { keys: vec![], aggregates: vec![count] },
    }
}

#[tokio::test]
async fn only_an_only_child_cuts_groups() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Served::start(folder.path(), "a", 30).await, Served::start(folder.path(), "b", 10).await);
    let plan = counting();
    let top = Some(Top { terms: vec![], complete: true, limit: 1 });
    let first = Wanted { top, ..Wanted::default() };
    let asked = async |children: &[&Served], name: &str| {
        let aggregator = over(&folder.path().join(name), children).await;
        let before = [&a, &b].map(|child| child.fake.tops_asked.load(Ordering::SeqCst));
        let deadline = Instant::now() + Duration::from_secs(60);
        aggregator.gather(&plan, &first, deadline, "q", None).await.unwrap();
        aggregator.gather(&plan, &Wanted::default(), deadline, "q", None).await.unwrap();
        let after = [&a, &b].map(|child| child.fake.tops_asked.load(Ordering::SeqCst));
        [after[0] - before[0], after[1] - before[1]]
    };
    assert_eq!(asked(&[&a], "one").await, [1, 0]);
    assert_eq!(asked(&[&a, &b], "two").await, [0, 0]);
    b.stop().await;
}

#[tokio::test]
async fn an_only_child_is_told_that_it_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Served::start(folder.path(), "a", 30).await, Served::start(folder.path(), "b", 10).await);
    let asked = || [&a, &b].map(|child| child.fake.alone_asked.load(Ordering::SeqCst));
    let one = over(&folder.path().join("one"), &[&a]).await;
    assert_eq!((ask(&one).await.as_str(), asked()), ("30 1", [1, 0]));
    let two = over(&folder.path().join("two"), &[&a, &b]).await;
    assert_eq!((ask(&two).await.as_str(), asked()), ("40 1", [1, 0]));
    // Whoever adds the answer up with others, or up again and again, is told values.
    let deadline = Instant::now() + Duration::from_secs(60);
    let (watch, _) = watch();
    one.gather(&counting(), &Wanted::default(), deadline, "q", None).await.unwrap();
    let alone = Wanted { alone: true, ..Wanted::default() };
    one.gather(&counting(), &alone, deadline, "q", Some(&watch)).await.unwrap();
    assert_eq!(asked(), [1, 0]);
    one.gather(&counting(), &alone, deadline, "q", None).await.unwrap();
    assert_eq!(asked(), [2, 0]);
    // Through one that has one child itself.
    let middle = serve(folder.path(), Arc::clone(&one)).await;
    let mut settings = config(&folder.path().join("root"), &[]);
    settings.children.push(middle);
    let root = Aggregator::start(settings).await.unwrap();
    assert_eq!((ask(&root).await.as_str(), asked()), ("30 1", [3, 0]));
}

#[tokio::test]
async fn distinct_values_of_several_are_added_up_and_numbers_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Served::start(folder.path(), "a", 30).await, Served::start(folder.path(), "b", 10).await);
    let one = over(&folder.path().join("one"), &[&a]).await;
    let two = over(&folder.path().join("two"), &[&a, &b]).await;
    let distinct = async |aggregator: &Aggregator| {
        let answer = aggregator.query("SELECT count(DISTINCT x) FROM t", at_leisure()).await;
        answer.map_or_else(|failure| failure.message, |answer| shown(&answer))
    };
    // The values of the second are among those of the first.
    assert_eq!((distinct(&one).await.as_str(), distinct(&two).await.as_str()), ("30 1", "30 1"));
    a.does(Does::Count);
    assert_eq!(
        (distinct(&one).await.as_str(), distinct(&two).await.as_str()),
        ("30 1", "10 0.25 a:error:30")
    );
}

#[tokio::test]
async fn a_child_that_went_down_is_missed_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Served::start(folder.path(), "a", 30).await, Served::start(folder.path(), "b", 10).await);
    let aggregator = over(folder.path(), &[&a, &b]).await;
    b.stop().await;
    assert_eq!(ask(&aggregator).await, "30 0.75 b:down:10");
    assert!(aggregator.children()[1].down().is_some_and(|why| why.starts_with("cannot connect: ")));
    // It is back: nobody asks it until it was described again.
    let b = Served::start(folder.path(), "b", 10).await;
    assert_eq!(ask(&aggregator).await, "30 0.75 b:down:10");
    assert_eq!(b.fake.runs_asked.load(Ordering::SeqCst), 0);
    assert!(aggregator.fan_out().refresh(&aggregator.children()[1]).await);
    assert_eq!(ask(&aggregator).await, "40 1");
}

#[tokio::test]
async fn a_child_that_was_stopped_costs_one_query_its_time_and_the_next_ones_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Served::start(folder.path(), "a", 30).await, Served::start(folder.path(), "b", 10).await);
    let mut settings = config(folder.path(), &[&a, &b]);
    settings.child_silence_ms_max = 100;
    let aggregator = Aggregator::start(settings).await.unwrap();
    b.fake.silent.store(true, Ordering::SeqCst);
    assert_eq!(ask(&aggregator).await, "30 0.75 b:timeout:10");
    assert_eq!(b.fake.runs_asked.load(Ordering::SeqCst), 1);
    assert_eq!(ask(&aggregator).await, "30 0.75 b:down:10");
    assert_eq!(b.fake.runs_asked.load(Ordering::SeqCst), 1, "it is not asked again");
    let why = aggregator.children()[1].down().unwrap();
    assert!(why.starts_with("it has said nothing for "), "{why}");
    // It goes on, and says so when it is probed.
    b.fake.silent.store(false, Ordering::SeqCst);
    assert!(aggregator.fan_out().refresh(&aggregator.children()[1]).await);
    assert_eq!(ask(&aggregator).await, "40 1");
}

#[tokio::test]
async fn a_child_that_is_slow_with_one_question_is_asked_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Served::start(folder.path(), "a", 30).await, Served::start(folder.path(), "b", 10).await);
    let mut settings = config(folder.path(), &[&a, &b]);
    // The query hears nothing for so long, but the probe does.
    settings.child_silence_ms_max = 200;
    let aggregator = Aggregator::start(settings).await.unwrap();
    b.does(Does::Hang);
    assert_eq!(ask(&aggregator).await, "30 0.75 b:timeout:10");
    assert_eq!(aggregator.children()[1].down(), None);
    b.does(Does::Work);
    assert_eq!(ask(&aggregator).await, "40 1");
}

#[tokio::test]
async fn children_learn_that_nobody_waits_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let a = Served::start(folder.path(), "a", 30).await;
    let aggregator = over(folder.path(), &[&a]).await;
    a.does(Does::Hang);
    let asking = tokio::spawn(async move {
        let options = QueryOptions { timeout: Some(Duration::from_secs(600)), ..Default::default() };
        aggregator.query(COUNT, options).await
    });
    while a.fake.runs_asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    asking.abort();
    while a.fake.runs_abandoned.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_roster_outlives_the_aggregator() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Served::start(folder.path(), "a", 30).await, Served::start(folder.path(), "b", 10).await);
    let first = over(folder.path(), &[&a, &b]).await;
    first.save().await.unwrap();
    drop(first);
    let settings = config(folder.path(), &[&a, &b]);
    b.stop().await;
    let second = Aggregator::start(settings).await.unwrap();
    assert_eq!(ask(&second).await, "30 0.75 b:down:10");
    // A child that is not configured any more is still missed, until somebody accepts that.
    let third = over(folder.path(), &[&a]).await;
    assert_eq!(ask(&third).await, "30 0.75 b:down:10");
    assert_eq!(third.accept_loss("b").await, Ok(10));
    assert_eq!(ask(&third).await, "30 1");
}

#[tokio::test]
async fn a_child_never_heard_of_makes_the_ratio_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let a = Served::start(folder.path(), "a", 30).await;
    let nobody = format!("unix:{}", folder.path().join("nobody.sock").display());
    let mut settings = config(folder.path(), &[&a]);
    settings.children.push(nobody.clone());
    let aggregator = Aggregator::start(settings).await.unwrap();
    assert_eq!(ask(&aggregator).await, format!("30 unknown {nobody}:down:?"));
    let least = QueryOptions { min_completeness: Some(0.1), ..soon() };
    let failure = aggregator.query(COUNT, least).await.unwrap_err();
    assert_eq!(failure.message, "completeness is unknown, less than the 0.1 asked for");
}

#[tokio::test]
async fn no_answer_at_all_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let a = Served::start(folder.path(), "a", 30).await;
    let aggregator = over(folder.path(), &[&a]).await;
    a.does(Does::Hang);
    assert_eq!(ask(&aggregator).await, "Timeout no leaf answered");
    a.does(Does::Fail(Code::ResourceExhausted, "full"));
    assert_eq!(ask(&aggregator).await, "Overloaded no leaf answered");
    a.does(Does::Fail(Code::Unavailable, "starting"));
    let failure = aggregator.query(COUNT, soon()).await.unwrap_err();
    assert_eq!((failure.code, failure.message.as_str()), (ErrorCode::Unavailable, "no leaf answered"));
    assert_eq!(failure.detail.as_deref(), Some("a: restarting (starting)."));
    let empty = Config { data_dir: folder.path().join("other"), planning_threads: 1, ..Config::default() };
    let alone = Aggregator::start(empty).await.unwrap();
    assert_eq!(ask(&alone).await, "Unavailable no leaf answered");
    assert!(alone.query("SELECT 1", soon()).await.is_ok(), "what needs no leaf is answered");
}

#[tokio::test]
async fn a_leaf_that_is_there_twice_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let old = Served::start_at(folder.path().join("old.sock"), "a", 1, 10).await;
    let new = Served::start_at(folder.path().join("new.sock"), "a", 2, 30).await;
    let b = Served::start(folder.path(), "b", 5).await;
    for children in [[&old, &new, &b], [&b, &new, &old]] {
        let aggregator = over(&folder.path().join(children[0].fake.id.as_str()), &children).await;
        let answer = aggregator.query(COUNT, QueryOptions::default()).await.unwrap();
        assert_eq!(shown(&answer), "35 1 a:error:0");
        let detail =
            format!("answered through {} and again through {}; counted once", new.address, old.address);
        assert_eq!(answer.completeness.missing[0].detail, detail);
        assert_eq!((answer.completeness.leaves_asked(), answer.completeness.leaves_answered()), (2, 2));
    }
}

#[tokio::test]
async fn an_older_epoch_does_not_stand_in_for_a_newer_one() {
    let folder = tempfile::tempdir().unwrap();
    let old = Served::start_at(folder.path().join("old.sock"), "a", 1, 10).await;
    let new = Served::start_at(folder.path().join("new.sock"), "a", 2, 30).await;
    let b = Served::start(folder.path(), "b", 5).await;
    let aggregator = over(folder.path(), &[&old, &new, &b]).await;
    new.fake.silent.store(true, Ordering::SeqCst);
    let answer = aggregator.query(COUNT, soon()).await.unwrap();
    assert_eq!(shown(&answer), "5 0.142857 a:timeout:30");
    assert_eq!((answer.completeness.leaves_asked(), answer.completeness.leaves_answered()), (2, 1));
}

#[tokio::test]
async fn an_older_epoch_that_is_heard_first_does_not_stand_in_for_the_one_in_the_roster() {
    let folder = tempfile::tempdir().unwrap();
    let old = Served::start_at(folder.path().join("old.sock"), "a", 1, 10).await;
    let new = Served::start_at(folder.path().join("new.sock"), "a", 2, 30).await;
    let b = Served::start(folder.path(), "b", 5).await;
    let unheard = format!("15 unknown {}:down:?", new.address);
    let mut cases = Vec::new();
    for (children, when_it_is_gone) in [(&[&old, &new, &b][..], unheard.as_str()), (&[&old, &b], "15 1")] {
        let folder = folder.path().join(format!("of {}", children.len()));
        over(&folder, &[&old, &new, &b]).await.save().await.unwrap();
        cases.push((config(&folder, children), when_it_is_gone));
    }
    new.stop().await;
    old.does(Does::Climb);
    // Aggregators that never heard the newer one themselves, whether or not they still ask it.
    for (settings, when_it_is_gone) in cases {
        let aggregator = Aggregator::start(settings).await.unwrap();
        let (watch, told) = watch();
        let deadline = Instant::now() + Duration::from_secs(20);
        let partial = aggregator.gather(&counting(), &Wanted::default(), deadline, "q", Some(&watch)).await;
        let record = partial.unwrap().completeness;
        assert_eq!((record.rows_covered, record.rows_expected()), (5, Some(35)), "{record:?}");
        assert_eq!((record.missing.len(), record.missing[0].leaf.as_str()), (1, "a"));
        assert!(told.lock().iter().all(|rows| *rows == 5), "{told:?}");
        // When the other one is gone for good, a person says so.
        assert_eq!(aggregator.decommission_by_force("a").await, Ok(30));
        aggregator.recommission("a").await.unwrap();
        aggregator.refresh().await;
        assert_eq!(ask(&aggregator).await, when_it_is_gone);
    }
}

#[tokio::test]
async fn a_newer_epoch_that_is_heard_of_meanwhile_is_not_stood_in_for() {
    let folder = tempfile::tempdir().unwrap();
    let old = Served::start_at(folder.path().join("old.sock"), "a", 1, 10).await;
    let b = Served::start(folder.path(), "b", 5).await;
    let aggregator = over(folder.path(), &[&old, &b]).await;
    b.does(Does::Hang);
    let (watch, told) = watch();
    let asking = tokio::spawn({
        let (aggregator, deadline) = (Arc::clone(&aggregator), Instant::now() + Duration::from_secs(5));
        async move {
            aggregator.gather(&counting(), &Wanted::default(), deadline, "q", Some(&watch)).await.unwrap()
        }
    });
    while told.lock().is_empty() && !asking.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let new = crate::fakes::holdings("a", 2, 30);
    aggregator.roster().lock().described("elsewhere", vec![new], Vec::new(), 0);
    let record = asking.await.unwrap().completeness;
    assert_eq!((record.rows_covered, record.ratio()), (10, None), "{record:?}");
    let missing: Vec<_> = record.missing.iter().map(|one| (one.leaf.as_str(), one.rows)).collect();
    assert_eq!(missing, [("a", None), ("b", Some(5))], "{record:?}");
}

#[tokio::test]
async fn a_leaf_that_came_back_without_its_rows_is_found_out_by_the_first_answer() {
    let folder = tempfile::tempdir().unwrap();
    let a = Served::start(folder.path(), "a", 30).await;
    let b = Served::start(folder.path(), "b", 30).await;
    let aggregator = over(folder.path(), &[&a, &b]).await;
    a.fake.rows.store(10, Ordering::SeqCst);
    a.fake.epoch.store(2, Ordering::SeqCst);
    let answer = aggregator.query(COUNT, QueryOptions::default()).await.unwrap();
    assert_eq!(shown(&answer), "40 0.666666 a:lost:20");
    assert_eq!(aggregator.accept_loss("a").await, Ok(20));
    assert_eq!(ask(&aggregator).await, "40 1");
}

/// Serves an aggregator's gRPC door on a unix socket.
async fn serve(folder: &Path, aggregator: Arc<Aggregator>) -> String {
    serve_at(format!("unix:{}", folder.join("middle.sock").display()), aggregator).await
}

async fn serve_at(address: String, aggregator: Arc<Aggregator>) -> String {
    let listener = Listener::bind(&address.parse().unwrap()).await.unwrap();
    let router = crate::service::router(aggregator, Arc::default());
    tokio::spawn(router.serve_with_incoming(listener.incoming()));
    address
}

#[tokio::test]
async fn an_aggregator_is_a_child_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Served::start(folder.path(), "a", 30).await, Served::start(folder.path(), "b", 10).await);
    let c = Served::start(folder.path(), "c", 20).await;
    let middle = over(&folder.path().join("middle"), &[&a, &b]).await;
    let address = serve(folder.path(), Arc::clone(&middle)).await;
    let mut settings = config(&folder.path().join("root"), &[&c]);
    settings.children.push(address);
    let root = Aggregator::start(settings).await.unwrap();
    assert_eq!(ask(&root).await, "60 1");
    // The root learns what is missing two levels down, and why.
    b.does(Does::Fail(Code::Unavailable, "starting"));
    assert_eq!(ask(&root).await, "50 0.833333 b:restarting:10");
    // Of a middle without any leaf, everything.
    a.does(Does::Fail(Code::Internal, "broken"));
    assert_eq!(ask(&root).await, "20 0.333333 a:error:30 b:restarting:10");
    a.does(Does::Work);
    b.does(Does::FailTimes(1, Code::FailedPrecondition));
    assert_eq!(ask(&root).await, "60 1", "a plan that is stale below is made again at the root");
    // What was lost is known in the middle and, with the next description, at the root.
    a.fake.rows.store(12, Ordering::SeqCst);
    a.fake.epoch.store(2, Ordering::SeqCst);
    assert_eq!(ask(&root).await, "42 0.7 a:lost:18");
    root.refresh().await;
    assert_eq!(ask(&root).await, "42 0.7 a:lost:18");
    assert_eq!(root.accept_loss("a").await, Ok(18));
    assert_eq!(ask(&root).await, "42 1");
}

#[tokio::test]
async fn a_table_is_deleted_everywhere_or_it_is_said_where_not() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Served::start(folder.path(), "a", 30).await, Served::start(folder.path(), "b", 10).await);
    let c = Served::start(folder.path(), "c", 5).await;
    let middle = over(&folder.path().join("middle"), &[&b]).await;
    let address = serve(folder.path(), Arc::clone(&middle)).await;
    let mut settings = config(&folder.path().join("root"), &[&a, &c]);
    settings.children.push(address.clone());
    let root = Aggregator::start(settings).await.unwrap();
    assert_eq!(ask(&root).await, "45 1");

    // One that fails is named; the others have deleted theirs, and nothing of that is missing.
    b.does_with_rows(Does::FailTimes(1, Code::Internal));
    let failure = root.delete_table("t").await.unwrap_err();
    assert_eq!(failure.code, crate::error::ErrorCode::Unavailable);
    let expect = format!("table `t` is not deleted everywhere: {address}: ");
    assert!(failure.message.starts_with(&expect), "{}", failure.message);
    assert_eq!(ask(&root).await, "10 1");

    a.fake.rows.store(7, Ordering::SeqCst);
    assert_eq!(root.delete_table("t").await, Ok(17));
    assert_eq!(root.catalogue().tables.len(), 0);
    assert_eq!(root.delete_table("t").await, Ok(0));

    // While a leaf is away nothing is deleted.
    a.fake.rows.store(7, Ordering::SeqCst);
    c.stop().await;
    root.refresh().await;
    let failure = root.delete_table("t").await.unwrap_err();
    assert!(failure.message.contains("not every leaf is there (c: "), "{}", failure.message);
    assert_eq!(a.fake.rows.load(Ordering::SeqCst), 7);
}
