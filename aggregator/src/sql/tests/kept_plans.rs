//! Plans that are kept: the leaves are asked each time, and a plan is made anew when it no longer fits.

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);

/// What leaves are asked when a statement is run over each of these catalogues in turn.
async fn asked(sql: &str, catalogues: &[Arc<Catalogue>]) -> Vec<String> {
    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    let recorder = Arc::new(Recorder::default());
    for catalogue in catalogues {
        let deadline = Instant::now() + DEADLINE;
        let answer = engine.run(Arc::clone(catalogue), recorder.clone(), sql, deadline).await.unwrap();
        assert_eq!(answer.fan_outs, 1, "{sql}");
        assert_eq!(answer.completeness.rows_covered, 10, "{sql}");
    }
    std::mem::take(&mut *recorder.plans.lock())
}

fn changed(change: impl FnOnce(&mut CatalogueTable)) -> Arc<Catalogue> {
    let mut catalogue = Catalogue::clone(&catalogue());
    change(catalogue.tables.get_mut("events").unwrap());
    Arc::new(catalogue)
}

#[tokio::test]
async fn a_kept_plan_asks_the_leaves_again() {
    let more_rows = changed(|events| events.rows += 5);
    let sql = "select sum(latency_us) from events where status > 7 limit 3";
    let expect = "table=events, filter=(status > 7), group_by=[], aggregates=[sum(latency_us)]";
    assert_eq!(asked(sql, &[catalogue(), catalogue(), more_rows, catalogue()]).await, [expect; 4]);
}

#[tokio::test]
async fn a_plan_is_made_anew_when_columns_changed() {
    let floats = changed(|events| {
        let status = events.columns.iter_mut().find(|column| column.name == "status").unwrap();
        status.column_type = ColumnType::Float;
    });
    let sql = "select max(status) from events where status = 7";
    let int = "table=events, filter=(status = 7), group_by=[], aggregates=[max(status)]";
    let float = "table=events, filter=(status = 7.0), group_by=[], aggregates=[max(status)]";
    assert_eq!(
        asked(sql, &[catalogue(), floats.clone(), floats, catalogue()]).await,
        [int, float, float, int]
    );

    let weighted = changed(|events| {
        let mut column = events.columns[1].clone();
        column.name = "sample_rate".to_owned();
        column.column_type = ColumnType::Int;
        events.columns.push(column);
    });
    let plans = asked("select count(*) from events", &[catalogue(), weighted]).await;
    assert_eq!(plans[0], "table=events, group_by=[], aggregates=[count(*)]");
    assert_ne!(plans[0], plans[1]);

    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    let gone = Arc::new(Catalogue::default());
    let sql = "select count(*) from events";
    run_on(&engine, Arc::new(Recorder::default()), sql).await.unwrap();
    let deadline = Instant::now() + DEADLINE;
    let failure = engine.run(gone, Arc::new(Recorder::default()), sql, deadline).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn what_changes_with_time_is_not_kept() {
    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    for sql in [
        "select now() as t",
        "select uuid() as t",
        "select max(t) as t from (select random() as t) x",
        "select max(latency_us), (select max(time) from events where time < CURRENT_TIMESTAMP) t, now() \
         from events group by random()",
        "select count(*) from events where time > now() - interval '1 hour'",
        "select 1 from (values (1)) v where now() is not null",
        "select * from information_schema.tables",
    ] {
        run_on(&engine, Arc::new(Recorder::default()), sql).await.unwrap();
        assert!(engine.planner.cache.get(&catalogue(), sql).is_none(), "{sql}");
    }
    let sql = "select count(*) from events";
    run_on(&engine, Arc::new(Recorder::default()), sql).await.unwrap();
    assert!(engine.planner.cache.get(&catalogue(), sql).is_some());
}

#[tokio::test]
async fn plans_kept_are_bounded() {
    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    let first = "select count(*) from events";
    let second = "select count(*) from events where status = -1";
    for sql in [first, second] {
        run_on(&engine, Arc::new(Recorder::default()), sql).await.unwrap();
    }
    for number in 0..63 {
        let sql = format!("select count(*) from events where status = {number}");
        run_on(&engine, Arc::new(Recorder::default()), &sql).await.unwrap();
        assert!(engine.planner.cache.get(&catalogue(), first).is_some(), "{number}");
    }
    assert!(engine.planner.cache.get(&catalogue(), second).is_none());
    let long = format!("select count(*) from events -- {}", "x".repeat(10_000));
    run_on(&engine, Arc::new(Recorder::default()), &long).await.unwrap();
    assert!(engine.planner.cache.get(&catalogue(), &long).is_none());
}

#[tokio::test]
async fn functions_of_a_statement_stay_its_own() {
    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    for sql in ["select p42(latency_us) from events", "select unweighted(count(*)) from sampled"] {
        run_on(&engine, Arc::new(Recorder::default()), sql).await.unwrap();
        assert!(engine.planner.idle.lock().is_empty(), "{sql}");
    }
    run_on(&engine, Arc::new(Recorder::default()), "select count(*) from events").await.unwrap();
    assert_eq!(engine.planner.idle.lock().len(), 1);
}

#[tokio::test]
async fn operators_are_kept_where_every_run_can_have_its_own() {
    let engine = Arc::new(SqlEngine::new(SqlConfig::default()).unwrap());
    let check = async |sql: &str, is_kept: bool| {
        let first = run_on(&engine, Arc::new(Recorder::default()), sql).await.unwrap();
        let prepared = engine.planner.cache.get(&catalogue(), sql).unwrap();
        let (kept, again) = (prepared.operators(), prepared.operators());
        assert_eq!((kept.is_some(), again.is_some()), (is_kept, is_kept), "{sql}");
        // At once, and one after the other.
        let runs = (0..8).map(|_| run_on(&engine, Arc::new(Recorder::default()), sql));
        for run in futures::future::join_all(runs).await {
            assert_eq!(run.unwrap().batches, first.batches, "{sql}");
        }
        let recorder = Arc::new(Recorder::default());
        let last = run_on(&engine, recorder.clone(), sql).await.unwrap();
        assert_eq!((last.batches, last.fan_outs), (first.batches, first.fan_outs), "{sql}");
        assert_eq!(recorder.plans.lock().len(), first.fan_outs, "the leaves are asked: {sql}");
    };
    check("select count(*) from events", true).await;
    check(
        "select service, avg(latency_us) * 2 as a from events group by service order by a desc limit 3",
        true,
    )
    .await;
    check("select service from events order by time desc limit 5 offset 2", true).await;
    check("select service, count(*) c from events group by service having c > 1 order by c", false).await;
    check("select count(*) from events union all select count(*) from sampled", false).await;
}
