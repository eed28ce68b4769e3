//! Which queries tell the leaves that they need only a few groups.

use gannet_query::Top;

use super::*;

/// Notes which groups are wanted, and answers with none.
#[derive(Debug, Default)]
struct Tops {
    recorder: Recorder,
    tops: Mutex<Vec<String>>,
}

#[async_trait]
impl Answerer for Tops {
    async fn answer(&self, plan: &Plan, deadline: Instant) -> Result<Partial, Failure> {
        self.tops.lock().push("all".to_owned());
        self.recorder.answer(plan, deadline).await
    }

    async fn answer_top(
        &self,
        plan: &Plan,
        top: Option<&Top>,
        deadline: Instant,
    ) -> Result<Partial, Failure> {
        let Some(top) = top else { return self.answer(plan, deadline).await };
        top.check(plan).unwrap();
        let terms = top.terms.iter().map(|term| {
            let order = if term.descending { "desc" } else { "asc" };
            let nulls = if term.nulls_first { "first" } else { "last" };
            format!("{:?} {order} nulls {nulls}", term.value)
        });
        let ties = if top.complete { "" } else { " with ties" };
        let text = format!("{} by [{}]{ties}", top.limit, terms.collect::<Vec<_>>().join(", "));
        self.tops.lock().push(text);
        self.recorder.answer(plan, deadline).await
    }
}

async fn check(sql: &str, expect: &[&str]) {
    let engine = SqlEngine::new(SqlConfig::default()).unwrap();
    let tops = Arc::new(Tops::default());
    run_on(&engine, tops.clone(), sql).await.unwrap_or_else(|failure| panic!("{sql}: {failure:?}"));
    assert_eq!(*tops.tops.lock(), expect, "{sql}");
}

#[tokio::test]
async fn an_ordered_limit_over_groups_says_which_it_needs() {
    check(
        "select service, count(*) c from events group by service order by c desc limit 10",
        &["10 by [State(0, Count) desc nulls first]"],
    )
    .await;
    check(
        "select service, max(latency_us) from events group by 1 order by avg(latency_us) nulls last limit 3 offset 4",
        &["7 by [State(1, Average) asc nulls last]"],
    )
    .await;
    check(
        "select service, host, p99(latency_us) p from events group by 1, 2 order by p desc, host limit 5",
        &["5 by [State(0, Quantile(0.99)) desc nulls first, Key(1) asc nulls last]"],
    )
    .await;
    check("select distinct host from events order by host limit 5", &["5 by [Key(0) asc nulls last]"]).await;
    check(
        "select * from (select service, count(distinct userId) u from events group by 1) order by u desc limit 2",
        &["2 by [State(0, DistinctCount) desc nulls first]"],
    )
    .await;
}

#[tokio::test]
async fn an_order_that_goes_on_beyond_keys_and_aggregates_keeps_ties() {
    check(
        "select service, count(*) c from events group by 1 order by c desc, length(service) limit 10",
        &["10 by [State(0, Count) desc nulls first] with ties"],
    )
    .await;
    check("select service, count(*) c from events group by 1 order by c * 2 desc limit 10", &["all"]).await;
}

#[tokio::test]
async fn all_groups_are_needed_where_some_are_dropped_or_combined_later() {
    check("select service, count(*) c from events group by 1 order by c desc", &["all"]).await;
    check(
        "select service, count(*) c from events group by 1 having count(*) > 5 order by c desc limit 10",
        &["all"],
    )
    .await;
    check(
        "select service, sum(count(*)) over () s, count(*) c from events group by 1 order by c desc limit 10",
        &["all"],
    )
    .await;
    check("select sum(c) from (select service, count(*) c from events group by 1)", &["all"]).await;
    check(
        "select a.service from (select service, count(*) c from events group by 1) a \
         join (select service, count(*) d from sampled group by 1) b using (service) order by a.c limit 3",
        &["all", "all"],
    )
    .await;
}
