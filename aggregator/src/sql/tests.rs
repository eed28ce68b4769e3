//! Statements against a small catalogue, with an answerer that records what leaves would be asked.

use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use async_trait::async_trait;
use gannet_query::{
    Body, ColumnType, Completeness, Groups, Input, LeafEpoch, Merger, Output, Partial, Plan, ScanStats,
    States, Values, Weights,
};
use parking_lot::Mutex;

mod first_groups;
mod kept_plans;
mod subqueries;

use super::*;
use crate::catalogue::{CatalogueColumn, CatalogueTable};

#[derive(Debug, Default)]
struct Recorder {
    plans: Mutex<Vec<String>>,
}

#[async_trait]
impl Answerer for Recorder {
    async fn answer(&self, plan: &Plan, _deadline: Instant) -> Result<Partial, Failure> {
        self.plans.lock().push(plan.to_string());
        let merger = Merger::new(plan, 1 << 30).unwrap();
        let completeness = Completeness {
            answered: vec![LeafEpoch { leaf: "leaf-1".into(), epoch: 1 }],
            rows_covered: 10,
            ..Default::default()
        };
        Ok(Partial {
            body: merger.finish().unwrap(),
            completeness,
            stats: ScanStats::default(),
            left_out: Default::default(),
        })
    }
}

fn table(name: &str, columns: &[(&str, ColumnType)]) -> CatalogueTable {
    let mut columns = columns.to_vec();
    columns.insert(0, ("time", ColumnType::Time));
    CatalogueTable {
        name: name.to_owned(),
        columns: columns
            .into_iter()
            .map(|(name, column_type)| CatalogueColumn {
                name: name.to_owned(),
                column_type,
                value_count: 10,
                distinct_estimate: 3,
                bytes: 80,
            })
            .collect(),
        rows: 10,
        bytes: 800,
        time_range: Some((0, 1_000_000_000)),
    }
}

fn catalogue() -> Arc<Catalogue> {
    use ColumnType::*;
    let events = [
        ("service", String),
        ("host", String),
        ("status", Int),
        ("latency_us", Int),
        ("cpu_ms", Float),
        ("cache_hit", Bool),
        ("tags", Strings),
        ("userId", Int),
        ("user.name", String),
        ("Region", String),
        ("region", String),
        ("user", String),
    ];
    let tables = [
        table("events", &events),
        table("sampled", &[("service", String), ("latency_us", Int), ("sample_rate", Int)]),
        table("web.requests", &[("path", String)]),
        table("Errors", &[("message", String), ("service", String)]),
    ];
    Arc::new(Catalogue { tables: tables.into_iter().map(|table| (table.name.clone(), table)).collect() })
}

async fn run_on(engine: &SqlEngine, answerer: Arc<dyn Answerer>, sql: &str) -> Result<SqlAnswer, Failure> {
    engine.run(catalogue(), answerer, sql, Instant::now() + Duration::from_secs(60)).await
}

/// The plans that leaves are asked, in the order they are asked.
async fn plans(sql: &str) -> Vec<String> {
    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    let recorder = Arc::new(Recorder::default());
    let answer = run_on(&engine, recorder.clone(), sql).await;
    let answer = answer.unwrap_or_else(|failure| panic!("{sql}: {failure:?}"));
    let plans = std::mem::take(&mut *recorder.plans.lock());
    // A join of nothing does not read its other side.
    assert!(answer.fan_outs <= plans.len(), "{sql}: {} of {}", answer.fan_outs, plans.len());
    plans
}

async fn check(sql: &str, expect: &[&str]) {
    assert_eq!(plans(sql).await, expect, "{sql}");
}

async fn failure(sql: &str) -> Failure {
    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    let answer = run_on(&engine, Arc::new(Recorder::default()), sql).await;
    answer.map(|_| panic!("{sql} was answered")).unwrap_err()
}

/// Message and hint start as expected; the place is exact.
async fn check_failure(sql: &str, code: ErrorCode, message: &str, hint: &str, position: Option<(u64, u64)>) {
    let failure = failure(sql).await;
    assert_eq!(failure.code, code, "{sql}: {failure:?}");
    assert!(failure.message.starts_with(message), "{sql}: {failure:?}");
    assert!(failure.hint.clone().unwrap_or_default().starts_with(hint), "{sql}: {failure:?}");
    assert_eq!(failure.position.map(|place| (place.line, place.column)), position, "{sql}: {failure:?}");
}

#[tokio::test]
async fn aggregates_run_on_the_leaves() {
    check("select count(*) from events", &["table=events, group_by=[], aggregates=[count(*)]"]).await;
    check(
        "select service, count(*) c, avg(latency_us) a from events where status >= 500 group by service order by c desc",
        &["table=events, filter=(status >= 500), group_by=[service], aggregates=[count(*), sum(latency_us)]"],
    )
    .await;
    check(
        "select count(*), count(1), sum(latency_us), avg(latency_us), count(latency_us) from events",
        &["table=events, group_by=[], aggregates=[count(*), sum(latency_us)]"],
    )
    .await;
    check(
        "select p50(latency_us), p999(latency_us), p42(latency_us), approx_quantile(latency_us, 0.9), \
         approx_percentile_cont(0.9) within group (order by latency_us desc) from events",
        &["table=events, group_by=[], aggregates=[quantiles(CAST(latency_us AS Float64))]"],
    )
    .await;
    check(
        "select count(distinct userId), approx_count_distinct(userId), count(*) filter (where cache_hit) from events",
        &["table=events, group_by=[], aggregates=[distinct(userId), approx_distinct(userId), count(*) where cache_hit]"],
    )
    .await;
    check(
        "select first_value(host), last_value(host order by time), first_value(host order by time desc) from events",
        &["table=events, group_by=[], aggregates=[first(host), last(host)]"],
    )
    .await;
    check("select distinct service from events", &["table=events, group_by=[service], aggregates=[]"]).await;
    check(
        "select bool_or(cache_hit), bool_and(status < 400), any_value(host) from events",
        &["table=events, group_by=[], aggregates=[max(cache_hit), min((status < 400)), first(host)]"],
    )
    .await;
    check(
        "with t as (select service s, latency_us * 2 as l from events) select s, sum(l) from t group by s having s = 'x'",
        &["table=events, filter=(service = 'x'), group_by=[service], aggregates=[sum((latency_us * 2))]"],
    )
    .await;
    // What nobody reads is not asked for.
    check(
        "select service from (select service, count(*) c, p99(latency_us) from events group by service) where c > 5",
        &["table=events, group_by=[service], aggregates=[count(*)]"],
    )
    .await;
}

#[tokio::test]
async fn short_forms_become_plain_functions() {
    check(
        "select time_bucket('5m', time) t, count(*) from events group by t",
        &["table=events, group_by=[date_bin(5 mins, time)], aggregates=[count(*)]"],
    )
    .await;
    check(
        "select count(*) from events where contains_none(tags, 'a', 'b') and list_ends(tags, 'p', 'q')",
        &["table=events, filter=(NOT array_has_any(tags, [a, b]) AND (array_element(tags, -2) = 'p') AND \
           (array_element(tags, -1) = 'q')), group_by=[], aggregates=[count(*)]"],
    )
    .await;
    check(
        "select count(*) from events where position('a' in host) > 0 and 1 > strpos(service, 'b') and instr(host, 'c') > 1",
        &["table=events, filter=(contains(host, 'a') AND NOT contains(service, 'b') AND (strpos(host, 'c') > 1)), \
           group_by=[], aggregates=[count(*)]"],
    )
    .await;
    check(
        "select count(*) from events where status in (500, 501) or status = 7",
        &["table=events, filter=status IN (500, 501, 7), group_by=[], aggregates=[count(*)]"],
    )
    .await;
}

#[tokio::test]
async fn conditions_on_time_become_the_range() {
    let range = "time=[2026-09-22T12:00:00Z, 2026-09-22T13:00:00Z)";
    let count = "group_by=[], aggregates=[count(*)]";
    let expect = format!("table=events, {range}, {count}");
    for condition in [
        "time >= '2026-09-22T12:00:00Z' and time < '2026-09-22T13:00:00Z'",
        "time >= timestamp '2026-09-22 12:00:00' and timestamp '2026-09-22 13:00:00' > time",
        "time between '2026-09-22 12:00:00' and '2026-09-22 12:59:59.999999999'",
        "time > '2026-09-22T11:59:59.999999999Z' and time <= '2026-09-22T12:59:59.999999999Z'",
    ] {
        check(&format!("select count(*) from events where {condition}"), &[&expect]).await;
    }
    let plans = plans("select count(*) from events where time > now() - interval '1 hour'").await;
    assert!(
        plans[0].starts_with("table=events, time=[2")
            && plans[0].ends_with(", …), group_by=[], aggregates=[count(*)]")
    );
}

#[tokio::test]
async fn rows_are_sorted_and_cut_on_the_leaves() {
    check(
        "select service, user from events where host = 'a' order by time desc limit 10 offset 5",
        &["table=events, filter=(host = 'a'), rows=[time, service, user], order_by=[time DESC], limit=15"],
    )
    .await;
    check(
        "select upper(service) from events order by length(host) desc limit 3",
        &["table=events, rows=[service, host, character_length(host)], order_by=[character_length(host) DESC], limit=3"],
    )
    .await;
    check("select service from events limit 5", &["table=events, rows=[service], limit=5"]).await;
    check("select bit_or(status) from events", &["table=events, rows=[status]"]).await;
    check("select sum(cast(status as decimal(9, 2))) from events", &["table=events, rows=[status]"]).await;
    check(
        "select avg(cast(service as double)), sum(cast(status as double)) from events",
        &["table=events, group_by=[], \
           aggregates=[sum(CAST(service AS Float64)), sum(CAST(status AS Float64))]"],
    )
    .await;
}

#[tokio::test]
async fn weights_apply_by_themselves_or_the_query_is_refused() {
    check(
        "select service, count(*), avg(latency_us), unweighted(count(*)) from sampled group by service",
        &["table=sampled, weighted by sample_rate, group_by=[service], \
           aggregates=[count(*), sum(latency_us), unweighted count(*)]"],
    )
    .await;
    check(
        "select sum(sample_rate) n, sum(latency_us * sample_rate) * 1.0 / sum(sample_rate) a from sampled",
        &["table=sampled, weighted by sample_rate, group_by=[], \
           aggregates=[unweighted sum(sample_rate), unweighted sum((latency_us * sample_rate))]"],
    )
    .await;
    for (sql, function) in [
        ("select count(*) from sampled a join sampled b on a.service = b.service", "count"),
        ("select count(*), max(b.status) from sampled a join events b on a.service = b.service", "count"),
        ("select p90(a.latency_us) from sampled a join events b on a.service = b.service", "p90"),
        ("select service, count(*) over (partition by service) from sampled", "count"),
        ("select count(*) from (select * from sampled limit 10)", "count"),
        ("select count(*) from (select * from sampled order by time limit 10)", "count"),
        ("select service, count(*) from sampled group by rollup(service)", "count"),
        ("select corr(latency_us, latency_us) from sampled", "corr"),
    ] {
        let failure = failure(sql).await;
        let expect = format!(
            "{function} cannot be weighted by sample_rate in this place of a query on table `sampled`"
        );
        assert_eq!((failure.code, failure.message), (ErrorCode::Unsupported, expect), "{sql}");
    }
    let plans_of_join = plans(
        "select b.host, count(*), avg(a.latency_us) from sampled a join events b on a.service = b.service \
         where a.latency_us > 7 group by 1",
    );
    assert_eq!(
        plans_of_join.await,
        [
            "table=sampled, filter=(latency_us > 7), weighted by sample_rate, group_by=[service], \
             aggregates=[count(*), sum(CAST(latency_us AS Float64)), sum(latency_us)]",
            "table=events, rows=[service, host]",
        ]
    );
    for sql in [
        "select unweighted(count(*)) from sampled a join events b on a.service = b.service",
        "select service, min(latency_us) from sampled group by rollup(service)",
        "select service, row_number() over (order by time) from sampled",
        "select service, sum(c) over (order by service) from (select service, count(*) c from sampled group by 1)",
        "select sum(distinct latency_us) from sampled",
    ] {
        plans(sql).await;
    }
}

#[tokio::test]
async fn names_are_found_as_they_are_written() {
    let count = |table: &str| format!("table={table}, group_by=[], aggregates=[count(*)]");
    for (written, table) in [
        ("events", "events"),
        ("EVENTS", "events"),
        ("errors", "Errors"),
        ("web.requests", "web.requests"),
        ("\"web.requests\"", "web.requests"),
        ("public.events", "events"),
    ] {
        check(&format!("select count(*) from {written}"), &[&count(table)]).await;
    }
    for (written, column) in [
        ("USERID", "userId"),
        ("user.name", "user.name"),
        ("events.user.name", "user.name"),
        ("Events.UserId", "userId"),
        ("user", "user"),
        ("Region", "Region"),
        ("\"region\"", "region"),
    ] {
        check(
            &format!("select {written} from events limit 1"),
            &[&format!("table=events, rows=[{column}], limit=1")],
        )
        .await;
    }
    check(
        "with t as (select user.name as n, count(*) c from events group by 1) select N, C from T where C > 1",
        &["table=events, group_by=[user.name], aggregates=[count(*)]"],
    )
    .await;
    check(
        "select E.service from events e where exists (select 1 from Errors x where x.service = E.SERVICE)",
        &["table=events, rows=[service]", "table=Errors, rows=[service]"],
    )
    .await;
}

#[tokio::test]
async fn failures_say_what_where_and_what_to_do() {
    use ErrorCode::{BadRequest, NotFound};
    check_failure(
        "select servce from events",
        NotFound,
        "column `servce` not found",
        "Did you mean `service`?",
        Some((1, 8)),
    )
    .await;
    check_failure("select 1,\n  e.nope from events e", NotFound, "column `nope` not found", "", Some((2, 3)))
        .await;
    check_failure(
        "select user.nme from events",
        NotFound,
        "column `user.nme` not found",
        "Did you mean `user.name`?",
        Some((1, 8)),
    )
    .await;
    check_failure(
        "select count(*) from event",
        NotFound,
        "table `event` not found",
        "Did you mean `events`?",
        Some((1, 22)),
    )
    .await;
    check_failure(
        "select REGION from events",
        BadRequest,
        "column `REGION` fits `Region`, `region`",
        "Write one",
        Some((1, 8)),
    )
    .await;
}

#[tokio::test]
async fn failures_of_the_planner_read_alike() {
    use ErrorCode::*;
    check_failure(
        "select * from events where",
        BadRequest,
        "sql does not parse: expected: an expression",
        "",
        Some((1, 27)),
    )
    .await;
    check_failure(
        "select p99(service) from events",
        BadRequest,
        "p99 cannot take string",
        "Cast",
        Some((1, 8)),
    )
    .await;
    check_failure(
        "select sum(service) from events",
        BadRequest,
        "sum cannot take string",
        "Cast",
        Some((1, 8)),
    )
    .await;
    check_failure("select foo(service) from events", BadRequest, "unknown function `foo`", "", Some((1, 8)))
        .await;
    check_failure("select 1 / 0", BadRequest, "division by zero", "Guard", None).await;
    for sql in [
        "select count(*) from events e left join unnest(e.tags) as u(tag) on true",
        "select count(*) from events e where 'a' in (select tag from unnest(e.tags) as u(tag))",
    ] {
        let message = "a subquery in this place cannot name columns of the rows around it";
        check_failure(sql, Unsupported, message, "Write it as a join", None).await;
    }
    check_failure(
        "select count(*) from events where tags = 'a'",
        BadRequest,
        "a list of strings",
        "Write contains_any",
        None,
    )
    .await;
    check_failure(
        "select time_bucket('5x', time) from events",
        BadRequest,
        "time_bucket width `5x`",
        "Write",
        Some((1, 8)),
    )
    .await;
    check_failure(
        "select histogram(latency_us, -1) from events",
        BadRequest,
        "histogram width -1",
        "Write",
        None,
    )
    .await;
    check_failure(
        "select approx_quantile(latency_us, 1.5) from events",
        BadRequest,
        "percentile 1.5",
        "Write",
        None,
    )
    .await;
    check_failure("describe nope", NotFound, "table `nope` not found", "", Some((1, 10))).await;
    check_failure("", BadRequest, "there is no statement", "", None).await;
    check_failure("select 1; select 2", BadRequest, "there are 2 statements", "", None).await;
}

#[tokio::test]
async fn statements_only_read() {
    for (sql, name) in [
        ("insert into events values (1)", "INSERT"),
        ("explain insert into events values (1)", "INSERT"),
        ("update events set status = 1", "UPDATE"),
        ("delete from events", "DELETE"),
        ("drop table events", "DROP TABLE"),
        ("create table x as select 1", "CREATE TABLE"),
        ("create external table x stored as csv location '/etc/passwd'", "CREATE EXTERNAL TABLE"),
        ("copy events to '/tmp/x'", "COPY"),
        ("set a = 1", "SET"),
        ("select 1 into x", "SELECT INTO"),
    ] {
        check_failure(sql, ErrorCode::Unsupported, &format!("{name} is not supported"), "Use SELECT", None)
            .await;
    }
    for sql in ["select * from '/etc/passwd'", "select * from \"/etc/passwd.csv\""] {
        assert_eq!(failure(sql).await.code, ErrorCode::NotFound, "{sql}");
    }
}

#[tokio::test]
async fn large_statements_are_refused_and_long_ones_run() {
    use ErrorCode::TooLarge;
    let numbers = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    let conditions = |count: usize| {
        let all: Vec<String> = (0..count).map(|n| format!("latency_us + {n} = status")).collect();
        format!("select count(*) from events where {}", all.join(" or "))
    };
    let nested = format!("select {}1{}", "(".repeat(60), ")".repeat(60));
    for (sql, message) in [
        (format!("select '{}'", "x".repeat(70_000)), "sql text has 70009 bytes, the limit is 65536"),
        (format!("select {}1", "1+".repeat(32_000)), "an expression is nested deeper than the limit of 400"),
        (conditions(900), "sql has more expressions than the limit of 4096"),
        (
            format!("select 1 in ({})", numbers(10_001).join(",")),
            "IN list has 10001 members, the limit is 10000",
        ),
        (nested, "sql nests deeper than the limit of 50"),
        (vec!["select 1"; 200].join(" union all "), "sql has more SELECTs than the limit of 128"),
        (
            format!("select 1 from {}", vec!["events"; 70].join(", ")),
            "sql reads more tables and subqueries than the limit of 64",
        ),
    ] {
        check_failure(&sql, TooLarge, message, "", None).await;
    }
    plans(&format!("select {}1", "1+".repeat(300))).await;
    plans(&conditions(400)).await;
    let list = format!("select count(*) from events where status in ({})", numbers(10_000).join(","));
    check(&list, &["table=events, filter=status IN (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …), group_by=[], aggregates=[count(*)]"])
        .await;
}

async fn table_of(sql: &str, answerer: Arc<dyn Answerer>) -> String {
    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    let answer = run_on(&engine, answerer, sql).await.unwrap();
    arrow::util::pretty::pretty_format_batches(&answer.batches).unwrap().to_string()
}

#[tokio::test]
async fn our_aggregates_run_over_answers_too() {
    let sql = "select column2 k, p50(column1) p, histogram(column1, 2) h \
               from (values (1, 'a'), (3, 'a'), (2, 'b')) group by column2 order by 1";
    let shown = table_of(sql, Arc::new(Recorder::default())).await;
    assert!(
        shown.contains("{lower: 0.0, upper: 2.0, count: 1}, {lower: 2.0, upper: 4.0, count: 1}"),
        "{shown}"
    );
    assert!(shown.contains("| b | 2.0"), "{shown}");
}

#[tokio::test]
async fn tables_are_shown_and_explained() {
    let recorder = Arc::new(Recorder::default());
    let shown = table_of("describe events", recorder.clone()).await;
    assert!(shown.contains("| user.name  | string  |"), "{shown}");
    let shown = table_of("show tables", recorder.clone()).await;
    assert!(shown.contains("web.requests"), "{shown}");
    let shown =
        table_of("explain select service, p99(latency_us) from events group by service", recorder.clone())
            .await;
    assert!(shown.contains("FanOutExec: table=events, group_by=[service]"), "{shown}");
    assert!(shown.contains("percentiles within 1 %"), "{shown}");
    let shown = table_of(
        "select column_name from information_schema.columns where table_name = 'Errors'",
        recorder.clone(),
    );
    assert!(shown.await.contains("message"));
    assert!(recorder.plans.lock().is_empty());
}

/// Answers one plan with two groups.
#[derive(Debug)]
struct TwoGroups;

#[async_trait]
impl Answerer for TwoGroups {
    async fn answer(&self, plan: &Plan, _deadline: Instant) -> Result<Partial, Failure> {
        let Output::Groups { aggregates, .. } = &plan.output else { panic!("groups were expected") };
        let states = aggregates
            .iter()
            .map(|aggregate| {
                let mut states = States::new(aggregate, plan.weight).unwrap();
                states.resize(2);
                let values =
                    if aggregate.argument.is_some() { Values::Int(&[1, 2, 6]) } else { Values::None };
                let input = Input { values, validity: None, weights: Weights::One, times: &[] };
                states.update(&[0, 1, 1], &input).unwrap();
                states
            })
            .collect();
        let keys: Vec<ArrayRef> = vec![Arc::new(arrow::array::StringArray::from(vec!["a", "b"]))];
        let body = Body::Groups(Groups { keys, states, group_count: 2 });
        Ok(Partial {
            body,
            completeness: Completeness::default(),
            stats: ScanStats::default(),
            left_out: Default::default(),
        })
    }
}

#[tokio::test]
async fn states_are_finished_into_columns() {
    let sql = "select service s, count(*) c, sum(latency_us) t, avg(latency_us) a from events group by 1 order by c desc";
    let expect = "\
+---+---+---+-----+
| s | c | t | a   |
+---+---+---+-----+
| b | 2 | 8 | 4.0 |
| a | 1 | 1 | 1.0 |
+---+---+---+-----+";
    assert_eq!(table_of(sql, Arc::new(TwoGroups)).await, expect);
}

/// Fails as a fan-out does.
#[derive(Debug)]
struct Broken;

#[async_trait]
impl Answerer for Broken {
    async fn answer(&self, _plan: &Plan, _deadline: Instant) -> Result<Partial, Failure> {
        Err(Failure::new(ErrorCode::Unavailable, "no leaf answered").retry_after(3))
    }
}

#[tokio::test]
async fn a_fan_out_fails_in_its_own_words() {
    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    for sql in [
        "select count(*) from events",
        "select a.host from events a join events b using (service) order by 1",
    ] {
        let failure = run_on(&engine, Arc::new(Broken), sql).await.unwrap_err();
        let expect = Failure::new(ErrorCode::Unavailable, "no leaf answered").retry_after(3);
        assert_eq!(failure, expect, "{sql}");
    }
}

/// Answers nobody before three have asked.
#[derive(Debug)]
struct Three {
    recorder: Recorder,
    asked: tokio::sync::Barrier,
}

#[async_trait]
impl Answerer for Three {
    async fn answer(&self, plan: &Plan, deadline: Instant) -> Result<Partial, Failure> {
        let together = tokio::time::timeout_at(deadline, self.asked.wait()).await;
        together.map_err(|_| Failure::new(ErrorCode::Timeout, "it was asked alone"))?;
        self.recorder.answer(plan, deadline).await
    }
}

#[tokio::test]
async fn fan_outs_of_one_statement_do_not_wait_for_each_other() {
    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    for sql in [
        "select a.n from (select count(*) n from events) a, (select count(*) m from events) b, (select count(*) o from events) c",
        "select a.host from events a join events b using (service) join sampled c using (service) order by 1",
        "select count(*) from events union all select count(*) from sampled union all select 1 from events",
        "select (select count(*) from sampled), (select max(time) from sampled), count(*) from events",
    ] {
        let three = Arc::new(Three { recorder: Recorder::default(), asked: tokio::sync::Barrier::new(3) });
        let soon = Instant::now() + Duration::from_secs(5);
        let answer = engine.run(catalogue(), three.clone(), sql, soon).await;
        assert!(answer.is_ok(), "{sql}: {answer:?}");
        assert_eq!(three.recorder.plans.lock().len(), 3, "{sql}");
    }
}

/// Never answers, and counts those who still wait.
#[derive(Debug, Default)]
struct Silent(Arc<()>);

#[async_trait]
impl Answerer for Silent {
    async fn answer(&self, _plan: &Plan, _deadline: Instant) -> Result<Partial, Failure> {
        let _waits = Arc::clone(&self.0);
        std::future::pending().await
    }
}

#[tokio::test]
async fn fan_outs_that_nobody_will_read_end_with_the_statement() {
    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    let silent = Silent::default();
    let waiting = Arc::clone(&silent.0);
    let sql = "select (select count(*) from sampled), count(*) from events";
    let asked = run_on(&engine, Arc::new(silent), sql);
    let waiters = async |expected: usize| {
        let reached = async {
            while Arc::strong_count(&waiting) != expected {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
        assert!(reached.is_ok(), "{} instead of {expected}", Arc::strong_count(&waiting));
    };
    // This one, the answerer's, and one for each fan-out.
    tokio::select! {
        answer = asked => panic!("{answer:?}"),
        () = waiters(4) => {}
    }
    waiters(1).await;
}
