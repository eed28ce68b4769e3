//! Subqueries that are asked first: what leaves are asked before and after.

use arrow::array::{Int64Array, StringArray, TimestampNanosecondArray};

use super::*;

/// Answers keys of groups with these values, rows of one column with these times, everything else with nothing.
#[derive(Debug, Default)]
struct Keys {
    recorder: Recorder,
    ints: Vec<Option<i64>>,
    texts: Vec<Option<&'static str>>,
    times: Vec<i64>,
}

#[async_trait]
impl Answerer for Keys {
    async fn answer(&self, plan: &Plan, deadline: Instant) -> Result<Partial, Failure> {
        let mut partial = self.recorder.answer(plan, deadline).await?;
        let column: ArrayRef = match &plan.output {
            Output::Groups { keys, aggregates } if aggregates.is_empty() => match keys[0].data_type {
                arrow::datatypes::DataType::Int64 => Arc::new(Int64Array::from(self.ints.clone())),
                _ => Arc::new(StringArray::from(self.texts.clone())),
            },
            Output::Rows { columns, .. } if columns.len() == 1 && !self.times.is_empty() => {
                let times = TimestampNanosecondArray::from(self.times.clone());
                arrow::compute::cast(&times, &columns[0].data_type).unwrap()
            }
            _ => return Ok(partial),
        };
        partial.body = match &plan.output {
            Output::Groups { .. } => {
                Body::Groups(Groups { group_count: column.len(), keys: vec![column], states: vec![] })
            }
            Output::Rows { columns, .. } => {
                let batch = RecordBatch::try_from_iter([(columns[0].name.as_str(), column)]).unwrap();
                Body::Rows(gannet_query::RowSet { batches: vec![batch] })
            }
        };
        Ok(partial)
    }
}

async fn asked(keys: Keys, sql: &str) -> Vec<String> {
    let keys = Arc::new(keys);
    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    let answer = run_on(&engine, keys.clone(), sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let plans = std::mem::take(&mut *keys.recorder.plans.lock());
    assert_eq!(answer.fan_outs, plans.len(), "{sql}");
    assert_eq!(answer.completeness.rows_covered, 10 * plans.len() as u64, "{sql}");
    plans
}

fn ints(values: &[Option<i64>]) -> Keys {
    Keys { ints: values.to_vec(), ..Keys::default() }
}

const STATUS_OF_EVENTS: &str = "table=events, group_by=[status], aggregates=[]";

#[tokio::test]
async fn values_of_a_subquery_are_a_list_on_the_leaves() {
    let known = || ints(&[Some(7), None, Some(9)]);
    for (sql, rest) in [
        (
            "select count(*) from sampled where latency_us in (select status from events)",
            "table=sampled, filter=latency_us IN (7, NULL, 9), weighted by sample_rate, group_by=[], \
             aggregates=[count(*)]",
        ),
        (
            "select service, sum(latency_us) from sampled where service <> 'a' and latency_us + 1 not in \
             (select status from events) group by 1",
            "table=sampled, filter=((service != 'a') AND (latency_us + 1) NOT IN \
             (7, NULL, 9)), weighted by sample_rate, group_by=[service], aggregates=[sum(latency_us)]",
        ),
        (
            "select count(case when latency_us in (select status from events) then 1 end) c from sampled",
            "table=sampled, weighted by sample_rate, group_by=[], aggregates=[sum(CASE WHEN latency_us IN \
             (7, NULL, 9) THEN 1 END)]",
        ),
    ] {
        assert_eq!(asked(known(), sql).await, [STATUS_OF_EVENTS, rest], "{sql}");
    }
    // Of other types than what they are compared with.
    let plans =
        asked(known(), "select count(*) from events where cpu_ms in (select status from events)").await;
    assert_eq!(
        plans[1],
        "table=events, filter=cpu_ms IN (7.0, NULL, 9.0), group_by=[], aggregates=[count(*)]"
    );
}

#[tokio::test]
async fn one_inside_another_comes_first() {
    let sql = "select count(*) from sampled where service in \
               (select service from events where status in (select status from events)) \
               and (latency_us in (select status from events) or latency_us = 3)";
    let keys = Keys { ints: vec![Some(5)], texts: vec![Some("a"), Some("b")], ..Keys::default() };
    let inner = "table=events, filter=status IN (5), group_by=[service], aggregates=[]";
    let rest = "table=sampled, filter=(service IN ('a', 'b') AND (latency_us IN (5) OR (latency_us = 3))), \
                weighted by sample_rate, group_by=[], aggregates=[count(*)]";
    assert_eq!(asked(keys, sql).await, [STATUS_OF_EVENTS, STATUS_OF_EVENTS, inner, rest]);
}

#[tokio::test]
async fn one_value_takes_its_place_and_becomes_a_time_range() {
    let keys = Keys { times: vec![3_600_000_000_000], ..Keys::default() };
    let sql = "select count(*) from sampled where time >= (select time from events order by time desc limit 1) \
               - interval '30 minutes'";
    let plans = asked(keys, sql).await;
    assert_eq!(plans.len(), 2);
    assert!(plans[1].contains("time=[1970-01-01T00:30:00Z, …)"), "{}", plans[1]);
    assert!(!plans[1].contains("filter"), "{}", plans[1]);

    // Of no row it is NULL, which no time is after: nothing is left to ask the leaves.
    let none = "select host from events where time > (select time from events where status = 1 limit 1)";
    let plans = asked(Keys::default(), none).await;
    assert_eq!(plans.len(), 1, "{plans:?}");
    let several = Keys { times: vec![1, 2], ..Keys::default() };
    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    let failure =
        run_on(&engine, Arc::new(several), none.replace(" limit 1", "").as_str()).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::BadRequest);
    assert_eq!(failure.message, "a subquery that stands for one value has several rows");
}

#[tokio::test]
async fn whether_anything_exists_is_a_value() {
    let is_there = || Keys { times: vec![1], ..Keys::default() };
    let count = "table=sampled, weighted by sample_rate, group_by=[], aggregates=[count(*)]";
    for (negated, keys, expect) in [("", is_there(), 2), ("not", is_there(), 1), ("not", Keys::default(), 2)]
    {
        let sql = format!("select count(*) from sampled where {negated} exists (select time from events)");
        let plans = asked(keys, &sql).await;
        assert_eq!(plans.len(), expect, "{sql}: {plans:?}");
        assert!(plans[0].contains("limit=1"), "{}", plans[0]);
        assert!(expect == 1 || plans[1] == count, "{}", plans[1]);
    }
}

#[tokio::test]
async fn what_is_not_compared_with_rows_or_speaks_of_them_stays() {
    for sql in [
        "select service, count(*) c from events group by 1 having count(*) > (select count(*) from sampled)",
        "select (select count(*) from sampled) n, count(*) from events",
        "select host from events e where exists (select 1 from sampled s where s.service = e.service)",
    ] {
        let (engine, keys) = (SqlEngine::new(SqlConfig::default()).unwrap(), Arc::new(Keys::default()));
        run_on(&engine, keys.clone(), sql).await.unwrap();
        let plans = keys.recorder.plans.lock();
        assert_eq!(plans.len(), 2, "{plans:?}");
        assert!(plans.iter().all(|plan| !plan.contains("IN (")), "{plans:?}");
    }
    // More than leaves are told: it is a join, of groups that are weighted.
    let many = Arc::new(ints(&(0..=1 << 17).map(Some).collect::<Vec<_>>()));
    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    let sql = "select count(*) from sampled where latency_us in (select status from events)";
    run_on(&engine, many.clone(), sql).await.unwrap();
    let groups = "table=sampled, weighted by sample_rate, group_by=[latency_us], aggregates=[count(*)]";
    let plans = many.recorder.plans.lock();
    assert_eq!(plans[..2], [STATUS_OF_EVENTS, groups]);
}

#[tokio::test]
async fn a_statement_with_values_in_it_is_not_kept() {
    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    let sql = "select count(*) from events where status in (select status from events)";
    for value in [5, 6] {
        let keys = Arc::new(ints(&[Some(value)]));
        run_on(&engine, keys.clone(), sql).await.unwrap();
        let expect = format!("table=events, filter=status IN ({value}), group_by=[], aggregates=[count(*)]");
        assert_eq!(*keys.recorder.plans.lock(), [STATUS_OF_EVENTS, &expect]);
    }
}

#[tokio::test]
async fn groups_that_rows_are_joined_with_say_which_rows() {
    let groups = "table=events, group_by=[status], aggregates=[]";
    for (sql, rest) in [
        (
            "select g.status, a.host from events a join (select status from events group by status) g \
             on a.latency_us = g.status",
            "table=events, filter=latency_us IN (5, NULL, 8), rows=[host, latency_us]",
        ),
        // The groups stay in the answer without a partner; rows would not.
        (
            "select g.status, a.host from (select status from events group by status) g left join events a \
             on a.latency_us + 1 = g.status and a.host <> 'h'",
            "table=events, filter=((host != 'h') AND (latency_us + 1) IN (5, NULL, 8)), rows=[host, latency_us]",
        ),
        (
            "with g as (select distinct status from events) select sum(latency_us) from sampled a join g \
             on a.latency_us = g.status",
            "table=sampled, filter=latency_us IN (5, NULL, 8), weighted by sample_rate, group_by=[latency_us], \
             aggregates=[sum(latency_us)]",
        ),
    ] {
        let plans = asked(ints(&[Some(5), None, Some(8)]), sql).await;
        assert_eq!(plans, [groups, rest], "{sql}");
    }
    // Rows that are in the answer without a partner are all asked for, and so are those of conditions that are not equal.
    for sql in [
        "select count(*) from events a left join (select distinct status from events) g on a.latency_us = g.status",
        "select a.host from events a join (select distinct status from events) g on a.latency_us > g.status",
        "select a.host from events a, (select distinct status from events) g",
    ] {
        let plans = plans(sql).await;
        assert!(plans.iter().all(|plan| !plan.contains(" IN (")), "{sql}: {plans:?}");
    }
    // Too many groups are joined as they are.
    let many = Arc::new(ints(&(0..=1 << 17).map(Some).collect::<Vec<_>>()));
    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    let sql =
        "select a.host from events a join (select distinct status from events) g on a.latency_us = g.status";
    run_on(&engine, many.clone(), sql).await.unwrap();
    let plans = many.recorder.plans.lock();
    assert_eq!(plans[0], groups);
    assert!(plans[1..].iter().all(|plan| !plan.contains(" IN (")), "{plans:?}");
}
