use super::*;

const HOUR: i64 = 3600 * SECOND;
/// 2026-11-21T10:00:00Z.
const TEN: i64 = 1_795_255_200 * SECOND;

fn question(view: View) -> Question {
    Question {
        table: "requests".to_owned(),
        show: vec!["count(*)".to_owned()],
        filters: vec![],
        group_by: vec![],
        derive: vec![],
        having: vec![],
        order_by: None,
        limit: 10,
        from: TEN - HOUR,
        to: TEN,
        every: 60 * SECOND,
        compare: None,
        view,
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn check(question: &Question, expect: &str) {
    assert_eq!(question.check(), Ok(()));
    assert_eq!(question.sql(), expect);
}

#[test]
fn series() {
    let plain = Question { filters: texts(&["status >= 500", "a OR b"]), ..question(View::Series) };
    check(
        &plain,
        "SELECT CAST(NULL AS TIMESTAMP) AS bucket, count(*) AS \"count(*)\"\n\
         FROM requests\n\
         WHERE time >= TIMESTAMP '2026-11-21T09:00:00Z' AND time < TIMESTAMP '2026-11-21T10:00:00Z'\n  \
         AND (status >= 500)\n  \
         AND (a OR b)\n\
         UNION ALL\n\
         SELECT date_bin(INTERVAL '60 seconds', time) AS bucket, count(*) AS \"count(*)\"\n\
         FROM requests\n\
         WHERE time >= TIMESTAMP '2026-11-21T09:00:00Z' AND time < TIMESTAMP '2026-11-21T10:00:00Z'\n  \
         AND (status >= 500)\n  \
         AND (a OR b)\n\
         GROUP BY 1",
    );
    let compared = Question {
        show: texts(&["count(*)", "p99(ms)"]),
        group_by: texts(&["region"]),
        having: texts(&["count(*) > 10"]),
        compare: Some(24 * HOUR),
        ..question(View::Series)
    };
    let rows = "FROM requests\n\
         WHERE time >= TIMESTAMP '2026-11-20T09:00:00Z' AND time < TIMESTAMP '2026-11-21T10:00:00Z'\n  \
         AND (time < TIMESTAMP '2026-11-20T10:00:00Z' OR time >= TIMESTAMP '2026-11-21T09:00:00Z')\n";
    let columns = "CASE WHEN time >= TIMESTAMP '2026-11-21T09:00:00Z' THEN 0 ELSE 1 END AS period, region, \
                   count(*) AS \"count(*)\", p99(ms) AS \"p99(ms)\"\n";
    check(
        &compared,
        &format!(
            "SELECT CAST(NULL AS TIMESTAMP) AS bucket, {columns}{rows}GROUP BY 2, 3\nHAVING (count(*) > 10)\n\
             UNION ALL\n\
             SELECT date_bin(INTERVAL '60 seconds', time) AS bucket, {columns}{rows}GROUP BY 1, 2, 3"
        ),
    );
}

#[test]
fn tables() {
    let grouped = Question {
        group_by: texts(&["region", "date_trunc('hour', time)"]),
        order_by: Some("region asc".to_owned()),
        derive: vec![("slow".to_owned(), "ms > 1000".to_owned())],
        filters: texts(&["slow"]),
        ..question(View::Table)
    };
    check(
        &grouped,
        "SELECT region, date_trunc('hour', time) AS \"date_trunc('hour', time)\", count(*) AS \"count(*)\"\n\
         FROM (SELECT *, (ms > 1000) AS slow FROM requests)\n\
         WHERE time >= TIMESTAMP '2026-11-21T09:00:00Z' AND time < TIMESTAMP '2026-11-21T10:00:00Z'\n  \
         AND (slow)\n\
         GROUP BY 1, 2\n\
         ORDER BY region asc NULLS LAST\n\
         LIMIT 10",
    );
    let compared = Question {
        table: "my Requests".to_owned(),
        group_by: texts(&["region"]),
        compare: Some(HOUR),
        ..question(View::Table)
    };
    check(
        &compared,
        "WITH periods AS (\n\
         SELECT CASE WHEN time >= TIMESTAMP '2026-11-21T09:00:00Z' THEN 0 ELSE 1 END AS period, region, \
         count(*) AS \"count(*)\"\n\
         FROM \"my Requests\"\n\
         WHERE time >= TIMESTAMP '2026-11-21T08:00:00Z' AND time < TIMESTAMP '2026-11-21T10:00:00Z'\n  \
         AND (time < TIMESTAMP '2026-11-21T09:00:00Z' OR time >= TIMESTAMP '2026-11-21T09:00:00Z')\n\
         GROUP BY 1, 2\n\
         )\n\
         SELECT region, max(CASE WHEN period = 0 THEN \"count(*)\" END) AS \"count(*)\", \
         max(CASE WHEN period = 1 THEN \"count(*)\" END) AS \"count(*) before\"\n\
         FROM periods\n\
         GROUP BY 1\n\
         ORDER BY \"count(*)\" DESC NULLS LAST\n\
         LIMIT 10",
    );
}

#[test]
fn distributions_and_samples() {
    let distribution = Question { show: texts(&["p99(ms)"]), ..question(View::Distribution) };
    check(
        &distribution,
        "SELECT date_bin(INTERVAL '60 seconds', time) AS bucket, \
         CASE WHEN (ms) > 0 THEN CAST(floor(log2((ms)) * 4) AS BIGINT) WHEN (ms) = 0 THEN -100000 ELSE -100001 END \
         AS bin, count(*) AS \"count(*)\"\n\
         FROM requests\n\
         WHERE time >= TIMESTAMP '2026-11-21T09:00:00Z' AND time < TIMESTAMP '2026-11-21T10:00:00Z'\n  \
         AND ((ms) IS NOT NULL)\n\
         GROUP BY 1, 2",
    );
    check(
        &question(View::Samples),
        "SELECT *\n\
         FROM requests\n\
         WHERE time >= TIMESTAMP '2026-11-21T09:00:00Z' AND time < TIMESTAMP '2026-11-21T10:00:00Z'\n\
         ORDER BY time DESC\n\
         LIMIT 10",
    );
}

#[test]
fn names_do_not_meet() {
    let odd = Question {
        group_by: texts(&["bucket", "order", "Region"]),
        every: 1_500_000_000,
        ..question(View::Series)
    };
    assert!(odd.sql().contains(
        "SELECT date_bin(INTERVAL '1500 milliseconds', time) AS bucket_, bucket, order AS \"order\", Region AS \"Region\""
    ));
}

#[test]
fn what_would_mean_something_else_is_refused() {
    let check = |question: Question, expect: &str| assert_eq!(question.check(), Err(expect.to_owned()));
    for text in ["a) OR (b", "a; drop", "a -- b", "'a", "a)", "(a", "a /* b"] {
        check(
            Question { filters: texts(&[text]), ..question(View::Series) },
            &format!(
                "`{text}` is no expression of its own: quotes and parentheses must close, and ; and -- end it"
            ),
        );
    }
    check(Question { show: texts(&[" "]), ..question(View::Table) }, "an expression is empty");
    check(
        Question { from: TEN, ..question(View::Table) },
        "the range from 2026-11-21T10:00:00Z to 2026-11-21T10:00:00Z is empty",
    );
    check(
        Question { compare: Some(90 * SECOND), ..question(View::Series) },
        "--compare must be a multiple of --every, so that both periods have the same buckets",
    );
    check(
        Question { compare: Some(HOUR), ..question(View::Samples) },
        "--compare is for the views series and table",
    );
}

#[test]
fn lists_are_cut_at_commas() {
    let check = |text: &str, expect: &[&str]| assert_eq!(list(text), Ok(texts(expect)));
    check("count", &["count(*)"]);
    check(
        "Count, p99(ms),approx_percentile_cont(ms, 0.9)",
        &["count(*)", "p99(ms)", "approx_percentile_cont(ms, 0.9)"],
    );
    check("','", &["','"]);
    assert_eq!(list("a, "), Err("`a, ` has an empty part".to_owned()));
    assert_eq!(
        list("f(a"),
        Err("`f(a` is no list of expressions: quotes and parentheses must close".to_owned())
    );
}

#[test]
fn what_adds_up() {
    for (show, expect) in [
        ("count(*)", true),
        ("sum(bytes)", true),
        ("count(distinct user_id)", false),
        ("sum(a) / count(*)", false),
        ("avg(a)", false),
    ] {
        assert_eq!(adds_up(show), expect, "{show}");
    }
    assert_eq!(
        ["p99(ms)", "ms", "a + f(b)", "f(a) + f(b)"].map(values_of),
        ["ms", "ms", "a + f(b)", "f(a) + f(b)"]
    );
}
