//! Rollouts over leaves that are not there, driven by aggregators that come and go.

use std::sync::atomic::Ordering;

use gannet_query::LeafState;

use super::*;
use crate::fakes::{Served, over};
use crate::rollout::{Order, Step};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn until(aggregator: &Aggregator, is: impl Fn(&Rollout) -> bool) -> Rollout {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    let waiting = async {
        loop {
            looks.tick().await;
            if let Some(now) = aggregator.rollout().filter(|now| is(&now.rollout)) {
                return now.rollout;
            }
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("waited in vain; it is {:?}", aggregator.rollout()))
}

async fn three(folder: &Path) -> Vec<Served> {
    let mut leaves = Vec::new();
    for id in ["leaf-0", "leaf-1", "leaf-2"] {
        leaves.push(Served::start(folder, id, 10).await);
    }
    leaves
}

fn half() -> Changes {
    Changes { min_completeness: Some(0.5), ..Changes::default() }
}

#[tokio::test]
async fn leaves_are_restarted_and_it_is_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = three(folder.path()).await;
    let aggregator = over(folder.path(), &leaves.iter().collect::<Vec<_>>()).await;
    assert!(aggregator.rollout().is_none());
    let refused = aggregator.start_rollout(Changes::default()).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.hint.unwrap().contains("--min-completeness 0.65")),
        (ErrorCode::WrongState, true)
    );
    let planned = aggregator.plan_rollout(half()).unwrap();
    assert_eq!((planned.rollout.id(), planned.rollout.leaves().len()), ("r-1".to_owned(), 3));
    assert!(aggregator.rollout().is_none(), "a plan begins nothing");

    let started = aggregator.start_rollout(half()).await.unwrap();
    assert_eq!(started.rollout.id(), "r-1");
    // A second start is the same rollout.
    assert_eq!(aggregator.start_rollout(half()).await.unwrap().rollout.id(), "r-1");
    let done = until(&aggregator, |rollout| *rollout.state() == State::Done).await;
    assert!(
        done.leaves().iter().all(|leaf| leaf.step == Step::Done && leaf.path == "shared memory"),
        "{done:?}"
    );
    assert!(leaves.iter().all(|leaf| leaf.fake.epoch.load(Ordering::SeqCst) == 2));
    // What is said at the end is there for the next process, too, and the next rollout is another. The last word may still
    // have been on its way to the file; then the next process comes to the same end and stops nobody again.
    drop(aggregator);
    let aggregator = over(folder.path(), &leaves.iter().collect::<Vec<_>>()).await;
    let taken_up = until(&aggregator, |rollout| *rollout.state() == State::Done).await;
    assert_eq!(taken_up.id(), "r-1");
    assert!(leaves.iter().all(|leaf| leaf.fake.epoch.load(Ordering::SeqCst) == 2));
    assert_eq!(
        aggregator.abort_rollout().await.unwrap_err().message,
        "rollout r-1 is done and cannot be aborted"
    );
    assert_eq!(aggregator.start_rollout(half()).await.unwrap().rollout.id(), "r-2");
    until(&aggregator, |rollout| *rollout.state() == State::Done).await;
    assert!(leaves.iter().all(|leaf| leaf.fake.epoch.load(Ordering::SeqCst) == 3));
}

#[tokio::test]
async fn the_next_aggregator_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = three(folder.path()).await;
    let children: Vec<&Served> = leaves.iter().collect();
    // The first leaf stays away.
    *leaves[0].fake.starts_as.lock() = LeafState::Recovering;
    let aggregator = over(folder.path(), &children).await;
    aggregator.start_rollout(half()).await.unwrap();
    until(&aggregator, |rollout| rollout.leaves()[0].step == Step::Restoring).await;
    drop(aggregator);

    let aggregator = over(folder.path(), &children).await;
    let rollout = aggregator.rollout().unwrap().rollout;
    assert_eq!((rollout.state(), rollout.leaves()[0].step.is_in_flight()), (&State::Running, true));
    assert_eq!(rollout.leaves()[1].step, Step::Waiting);
    *leaves[0].fake.state.lock() = LeafState::Serving;
    until(&aggregator, |rollout| *rollout.state() == State::Done).await;
    assert!(leaves.iter().all(|leaf| leaf.fake.epoch.load(Ordering::SeqCst) == 2), "each is stopped once");
}

#[tokio::test]
async fn it_pauses_goes_on_and_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = three(folder.path()).await;
    *leaves[0].fake.starts_as.lock() = LeafState::Recovering;
    let aggregator = over(folder.path(), &leaves.iter().collect::<Vec<_>>()).await;
    let none = aggregator.pause_rollout().await.unwrap_err();
    assert_eq!((none.code, &*none.message), (ErrorCode::WrongState, "there is no rollout to be paused"));
    aggregator.start_rollout(half()).await.unwrap();
    until(&aggregator, |rollout| rollout.leaves()[0].step == Step::Restoring).await;
    let paused = aggregator.pause_rollout().await.unwrap();
    assert!(matches!(paused.rollout.state(), State::Paused { guard: None, .. }));
    *leaves[0].fake.state.lock() = LeafState::Serving;
    until(&aggregator, |rollout| rollout.leaves()[0].step == Step::Done).await;
    assert_eq!(aggregator.rollout().unwrap().rollout.leaves()[1].step, Step::Waiting);
    aggregator.resume_rollout(Changes::default()).await.unwrap();
    until(&aggregator, |rollout| *rollout.state() == State::Done).await;
    aggregator.start_rollout(half()).await.unwrap();
    let aborted = aggregator.abort_rollout().await.unwrap();
    assert_eq!(*aborted.rollout.state(), State::Aborted);
}

#[tokio::test]
async fn a_file_that_is_no_rollout_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(NAME), "{").unwrap();
    let rolling = Rolling::open(folder.path());
    assert!(!rolling.is_open());
    assert_eq!(std::fs::read_to_string(folder.path().join("rollout.json.bad")).unwrap(), "{");
}

#[tokio::test]
async fn orders_reach_leaves_and_refusals_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = three(folder.path()).await;
    let aggregator = over(folder.path(), &leaves.iter().collect::<Vec<_>>()).await;
    let obeyed = aggregator.order(Order::Drain, "leaf-1", 0).await.unwrap();
    assert_eq!((obeyed.already, *leaves[1].fake.state.lock()), (false, LeafState::Draining));
    assert!(aggregator.order(Order::Drain, "leaf-1", 0).await.unwrap().already);
    assert!(!aggregator.order(Order::Undrain, "leaf-1", 0).await.unwrap().already);
    let wrong_life = aggregator.order(Order::Stop, "leaf-1", 9).await.unwrap_err();
    assert_eq!(
        (wrong_life.code, &*wrong_life.message),
        (ErrorCode::WrongState, "leaf `leaf-1` was not stopped: this is epoch 1, not 9")
    );
    let unknown = aggregator.order(Order::Drain, "leaf-11", 0).await.unwrap_err();
    assert_eq!(
        (unknown.code, unknown.hint.as_deref()),
        (ErrorCode::NotFound, Some("Did you mean `leaf-1`?"))
    );
    *leaves[2].fake.state.lock() = LeafState::Recovering;
    aggregator.refresh().await;
    let starting = aggregator.order(Order::Drain, "leaf-2", 0).await.unwrap_err();
    assert_eq!(
        (starting.code, &*starting.message),
        (
            ErrorCode::WrongState,
            "leaf `leaf-2` is recovering, and only one that serves or drains can be drained"
        )
    );
}

#[test]
fn leaves_that_do_not_say_are_told_apart_by_their_hosts() {
    assert_eq!(host_of("10.0.0.7:7710"), "10.0.0.7");
    assert_eq!(host_of("[::1]:7710"), "[::1]");
    assert_eq!(host_of("unix:leaf-0/leaf.sock"), host_of("unix:/other.sock"));
}
