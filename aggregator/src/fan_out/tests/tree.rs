//! More children than are asked at once: other aggregators stand between, fail, are silent, or are not there at all.

use super::*;

/// Leaves `leaf-0`, `leaf-1` and so on of 1, 2 and so on rows.
async fn leaves(folder: &Path, count: u64) -> Vec<Served> {
    let mut leaves = Vec::new();
    for number in 0..count {
        leaves.push(Served::start(folder, &format!("leaf-{number}"), number + 1).await);
    }
    leaves
}

/// Aggregators without children of their own that all have the same list of aggregators.
struct Middles {
    addresses: Vec<String>,
    all: Vec<Arc<Aggregator>>,
}

impl Middles {
    async fn start(folder: &Path, count: usize, children_max: usize) -> Middles {
        let address = |number| format!("unix:{}", folder.join(format!("middle-{number}.sock")).display());
        let addresses: Vec<String> = (0..count).map(address).collect();
        let mut all = Vec::new();
        for (number, address) in addresses.iter().enumerate() {
            let mut settings = config(&folder.join(format!("of-middle-{number}")), &[]);
            settings.aggregators = addresses.clone();
            settings.grpc = Some(address.clone());
            settings.children_max = children_max;
            // A turn for each level is enough, whoever waits for whom.
            settings.queries_running_max = 1;
            let middle = Aggregator::start(settings).await.unwrap();
            serve_at(address.clone(), Arc::clone(&middle)).await;
            all.push(middle);
        }
        Middles { addresses, all }
    }
}

fn settings(folder: &Path, leaves: &[Served], aggregators: &[String], children_max: usize) -> Config {
    let mut settings = config(folder, &leaves.iter().collect::<Vec<_>>());
    settings.aggregators = aggregators.to_vec();
    settings.children_max = children_max;
    // Whoever is late on a busy machine is not down, and comes in time.
    settings.child_silence_ms_max = 60_000;
    settings.margin_ms_min = 200;
    settings
}

fn levels(leaves: &[Served]) -> Vec<u64> {
    leaves.iter().map(|leaf| leaf.fake.level.load(Ordering::SeqCst)).collect()
}

fn runs(leaves: &[Served]) -> Vec<u64> {
    leaves.iter().map(|leaf| leaf.fake.runs_asked.load(Ordering::SeqCst)).collect()
}

#[tokio::test]
async fn two_levels_tell_the_same_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = leaves(folder.path(), 9).await;
    let middles = Middles::start(folder.path(), 2, 8).await;
    let root = Aggregator::start(settings(folder.path(), &leaves, &middles.addresses, 8)).await.unwrap();
    assert_eq!(ask(&root).await, "45 1");
    assert_eq!((levels(&leaves), runs(&leaves)), (vec![1; 9], vec![1; 9]));
    // Why a leaf is missing comes through, with the rows that the root expects of it.
    leaves[3].does(Does::Fail(Code::Unavailable, "starting"));
    assert_eq!(ask(&root).await, "41 0.911111 leaf-3:restarting:4");
    leaves[3].does(Does::Hang);
    assert_eq!(ask(&root).await, "41 0.911111 leaf-3:timeout:4");
    leaves[3].does(Does::FailTimes(1, Code::FailedPrecondition));
    assert_eq!(ask(&root).await, "45 1", "a plan that is stale below is made again at the root");
    leaves[3].does(Does::Fail(Code::InvalidArgument, "division by zero"));
    assert_eq!(ask(&root).await, "BadRequest division by zero");
    // With as many children as are asked at once nobody stands between.
    let flat = settings(&folder.path().join("flat"), &leaves, &middles.addresses, 9);
    leaves[3].does(Does::Work);
    assert_eq!(ask(&Aggregator::start(flat).await.unwrap()).await, "45 1");
    assert_eq!(levels(&leaves), [0; 9]);
}

#[tokio::test]
async fn levels_are_as_many_as_must_be() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = leaves(folder.path(), 9).await;
    let middles = Middles::start(folder.path(), 3, 2).await;
    let root = Aggregator::start(settings(folder.path(), &leaves, &middles.addresses, 2)).await.unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&root).await, "45 1");
    }
    assert_eq!(levels(&leaves), [2, 2, 2, 2, 2, 2, 3, 3, 3]);
    assert_eq!(runs(&leaves), [3; 9]);
    // Any of them can be the root, and several at once, though each has one turn a level.
    let roots = middles.all.iter().zip(["a", "b", "c"]);
    let roots = roots.map(async |(middle, name)| {
        let mut settings = settings(&folder.path().join(name), &leaves, &middles.addresses, 2);
        settings.grpc = middle.config().grpc.clone();
        let root = Aggregator::start(settings).await.unwrap();
        shown(&root.query(COUNT, at_leisure()).await.unwrap())
    });
    assert_eq!(futures::future::join_all(roots).await, ["45 1"; 3]);
}

#[tokio::test]
async fn children_take_turns_where_nobody_can_stand_between() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = leaves(folder.path(), 9).await;
    let root = Aggregator::start(settings(folder.path(), &leaves, &[], 2)).await.unwrap();
    assert_eq!(ask(&root).await, "45 1");
    assert_eq!(levels(&leaves), [0; 9]);
    // Whoever does not answer keeps a turn for a share of the time and no longer.
    for leaf in [0, 1, 2] {
        leaves[leaf].does(Does::Hang);
    }
    let expect = "39 0.866666 leaf-0:timeout:1 leaf-1:timeout:2 leaf-2:timeout:3";
    assert_eq!(ask(&root).await, expect);
}

/// Nine leaves through an aggregator that does as told, and one that works.
async fn check_broken(broken: &Served, expect: &str) {
    let folder = tempfile::tempdir().unwrap();
    let leaves = leaves(folder.path(), 9).await;
    let middles = Middles::start(folder.path(), 1, 8).await;
    let aggregators = [middles.addresses[0].clone(), broken.address.clone()];
    let mut settings = settings(folder.path(), &leaves, &aggregators, 8);
    settings.child_silence_ms_max = 100;
    let root = Aggregator::start(settings).await.unwrap();
    // On a busy machine the one that works may be late as well, and the root then asks by itself: what it answers is the
    // same, so it is asked until nobody was late.
    for _ in 0..20 {
        assert_eq!(ask(&root).await, expect);
        if levels(&leaves).iter().all(|level| *level == 1) {
            return;
        }
        // Whoever was late counts as down until it is heard again.
        root.fan_out().between().look(Duration::from_secs(1), 1).await;
    }
    panic!("the other one does not ask them all: {:?}", levels(&leaves));
}

#[tokio::test]
async fn the_children_of_an_aggregator_that_fails_are_asked_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let broken = Served::start(folder.path(), "broken", 7).await;
    // It is a leaf, which answers for itself.
    check_broken(&broken, "45 1").await;
    broken.does(Does::Fail(Code::ResourceExhausted, "full"));
    check_broken(&broken, "45 1").await;
    broken.does(Does::EndEarly);
    check_broken(&broken, "45 1").await;
    broken.does(Does::Garbage);
    check_broken(&broken, "45 1").await;
    // It takes connections and says nothing, as a process that was stopped.
    broken.fake.silent.store(true, Ordering::SeqCst);
    check_broken(&broken, "45 1").await;
    broken.stop().await;
}

#[tokio::test]
async fn children_are_asked_directly_when_every_aggregator_fails() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = leaves(folder.path(), 9).await;
    let (one, two) =
        (Served::start(folder.path(), "one", 7).await, Served::start(folder.path(), "two", 7).await);
    let aggregators = [one.address.clone(), two.address.clone()];
    let root = Aggregator::start(settings(folder.path(), &leaves, &aggregators, 4)).await.unwrap();
    assert_eq!(ask(&root).await, "45 1");
    assert_eq!((levels(&leaves), runs(&leaves)), (vec![0; 9], vec![1; 9]));
    // They are gone, which is soon known, and then they are not asked at all.
    let asked = one.fake.runs_asked.load(Ordering::SeqCst);
    assert!(asked > 0);
    one.stop().await;
    two.stop().await;
    assert_eq!(ask(&root).await, "45 1");
    root.fan_out().between().look(Duration::from_secs(5), 1).await;
    assert!(root.fan_out().between().up().is_empty());
    assert_eq!(ask(&root).await, "45 1");
}

#[tokio::test]
async fn an_aggregator_that_is_back_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = leaves(folder.path(), 9).await;
    let address = format!("unix:{}", folder.path().join("late.sock").display());
    let aggregators = [address.clone()];
    let root = Aggregator::start(settings(folder.path(), &leaves, &aggregators, 8)).await.unwrap();
    assert_eq!(ask(&root).await, "45 1");
    assert_eq!(levels(&leaves), [0; 9]);
    let middle = Aggregator::start(config(&folder.path().join("late"), &[])).await.unwrap();
    serve_at(address, middle).await;
    root.fan_out().between().look(Duration::from_secs(5), 1).await;
    assert_eq!(ask(&root).await, "45 1");
    assert_eq!(levels(&leaves), [1; 9]);
}

#[tokio::test]
async fn a_leaf_that_cannot_be_reached_is_down_and_the_others_count() {
    let folder = tempfile::tempdir().unwrap();
    let mut leaves = leaves(folder.path(), 9).await;
    let middles = Middles::start(folder.path(), 2, 8).await;
    let root = Aggregator::start(settings(folder.path(), &leaves, &middles.addresses, 8)).await.unwrap();
    assert_eq!(ask(&root).await, "45 1");
    leaves.pop().unwrap().stop().await;
    assert_eq!(ask(&root).await, "36 0.8 leaf-8:down:9");
    // The root found out by itself, and does not name it to others any more.
    assert!(root.children()[8].down().is_some());
    assert_eq!(ask(&root).await, "36 0.8 leaf-8:down:9");
}

#[tokio::test]
async fn a_stranger_at_a_known_address_is_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut leaves = leaves(folder.path(), 9).await;
    let middles = Middles::start(folder.path(), 2, 8).await;
    let root = Aggregator::start(settings(folder.path(), &leaves, &middles.addresses, 8)).await.unwrap();
    leaves.pop().unwrap().stop().await;
    let path = folder.path().join("leaf-8.sock");
    let _stranger = Served::start_at(path, "stranger", 1, 100).await;
    assert_eq!(ask(&root).await, "36 0.8 leaf-8:error:9");
    // Once it is known it counts, and the other one is still missed.
    root.refresh().await;
    assert_eq!(ask(&root).await, "136 0.937931 leaf-8:down:9");
}

#[tokio::test]
async fn a_leaf_that_is_there_twice_counts_once_by_its_newest_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let mut leaves = leaves(folder.path(), 9).await;
    leaves.push(Served::start_at(folder.path().join("old.sock"), "leaf-0", 0, 1000).await);
    leaves.push(Served::start_at(folder.path().join("new.sock"), "leaf-0", 2, 5).await);
    let middles = Middles::start(folder.path(), 2, 8).await;
    let root = Aggregator::start(settings(folder.path(), &leaves, &middles.addresses, 8)).await.unwrap();
    assert_eq!(ask(&root).await, "49 1 leaf-0:error:0");
    assert_eq!(levels(&leaves), [0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]);
}

#[tokio::test]
async fn every_level_gets_less_time() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = leaves(folder.path(), 9).await;
    let middles = Middles::start(folder.path(), 3, 2).await;
    let root = Aggregator::start(settings(folder.path(), &leaves, &middles.addresses, 2)).await.unwrap();
    let options = QueryOptions { timeout: Some(Duration::from_secs(100)), ..Default::default() };
    root.query(COUNT, options).await.unwrap();
    for leaf in &leaves {
        let given = leaf.fake.deadline_ms.load(Ordering::SeqCst) as f64;
        let levels = leaf.fake.level.load(Ordering::SeqCst) as i32 + 1;
        let most = 100_000.0 * 0.95f64.powi(levels);
        assert!(given <= most && given > most - 5_000.0, "{given} ms at level {levels}");
    }
}

#[tokio::test]
async fn children_below_others_learn_that_nobody_waits_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = leaves(folder.path(), 9).await;
    let middles = Middles::start(folder.path(), 3, 2).await;
    let root = Aggregator::start(settings(folder.path(), &leaves, &middles.addresses, 2)).await.unwrap();
    leaves[8].does(Does::Hang);
    let asking = tokio::spawn(async move {
        let options = QueryOptions { timeout: Some(Duration::from_secs(600)), ..Default::default() };
        root.query(COUNT, options).await
    });
    while leaves[8].fake.runs_asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    asking.abort();
    while leaves[8].fake.runs_abandoned.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_leaves_have_so_far_comes_through_others() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = leaves(folder.path(), 9).await;
    let middles = Middles::start(folder.path(), 2, 8).await;
    let root = Aggregator::start(settings(folder.path(), &leaves, &middles.addresses, 8)).await.unwrap();
    leaves[8].does(Does::SoFar(5));
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = {
        let told = Arc::clone(&told);
        Box::new(move |so_far: gannet_query::SoFar| {
            let record = &so_far.completeness;
            let missing: Vec<_> = record
                .missing
                .iter()
                .map(|one| format!("{}:{}:{:?}", one.leaf, one.reason.name(), one.rows))
                .collect();
            told.lock().push((record.rows_covered, so_far.body.is_some(), missing));
        })
    };
    let watch = Watch { every: Duration::from_millis(20), with_body: true, tell };
    let plan = counting();
    let deadline = Instant::now() + Duration::from_millis(600);
    let partial = root.gather(&plan, &Wanted::default(), deadline, "q", Some(&watch)).await.unwrap();
    let told = told.lock().clone();
    let last = told.last().unwrap();
    assert_eq!(*last, (41, true, vec!["leaf-8:running:Some(4)".to_owned()]), "{told:?}");
    assert!(told.windows(2).all(|two| two[0].0 < two[1].0), "{told:?}");
    // What it said stands when its time is over.
    assert_eq!(partial.completeness.rows_covered, 41);
    let missing = &partial.completeness.missing;
    assert_eq!((missing.len(), missing[0].reason, missing[0].rows), (1, MissingReason::Timeout, Some(4)));
}

#[tokio::test]
async fn answers_that_find_no_room_wait_and_are_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let leaves = leaves(folder.path(), 9).await;
    let mut settings = settings(folder.path(), &leaves, &[], 64);
    settings.answers_bytes_max = 1;
    leaves[8].does(Does::HangAfterBody);
    let root = Aggregator::start(settings).await.unwrap();
    assert_eq!(ask(&root).await, "36 0.8 leaf-8:timeout:9");
}
