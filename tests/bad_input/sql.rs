//! SQL that is too long, too deep, too much, or not SQL.

use crate::{cluster, still_there};

/// Each statement, and what its refusal must hold: the code and texts.
async fn check(cases: &[(String, &str, &[&str])]) {
    let cluster = cluster().await;
    let mut told = Vec::new();
    for (sql, code, says) in cases {
        let shown: String = sql.chars().take(80).collect();
        match cluster.client().query(sql).await {
            Err(refusal) => {
                let text = refusal.all();
                let fits = (400..500).contains(&refusal.status)
                    && refusal.code == *code
                    && says.iter().all(|part| text.contains(part))
                    && text.len() < 4000;
                if !fits {
                    told.push(format!("{shown}: must be {code} with {says:?}, is {refusal:?}"));
                }
            }
            Ok(answer) => told.push(format!("{shown}: answered with {:?}", answer.rows.first())),
        }
        still_there(cluster.client()).await;
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_long_and_too_deep() {
    let many = |text: &str, bytes: usize| text.repeat(bytes / text.len());
    let nested =
        |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let list = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let unions = vec!["SELECT 1"; 500].join(" UNION ALL ");
    let joins: String = (0..100).map(|n| format!(", kept k{n}")).collect();
    let aliases = (0..5000).map(|n| format!("n a{n}")).collect::<Vec<_>>().join(",");
    check(&[
        (format!("SELECT '{}'", many("x", 200_000)), "too_large", &["200009", "65536"]),
        (format!("SELECT 1{}", many("+1", 64_000)), "too_large", &["400"]),
        (format!("SELECT n FROM kept WHERE n = 1{}", many(" AND n = 1", 64_000)), "too_large", &["4096"]),
        (format!("SELECT {}", nested("(", ")", 10_000)), "too_large", &["50"]),
        (format!("SELECT {}", nested("abs(", ")", 5_000)), "too_large", &["50"]),
        (
            format!("SELECT {}", nested("CASE WHEN true THEN ", " END", 1_000)),
            "bad_request",
            &["sql does not parse"],
        ),
        (format!("SELECT {}1", many("- ", 40_000)), "too_large", &[]),
        (format!("SELECT {}true", many("NOT ", 40_000)), "bad_request", &["sql does not parse"]),
        (format!("SELECT n FROM kept WHERE n IN ({})", list(10_001)), "too_large", &["10001", "10000"]),
        (unions, "too_large", &["128"]),
        (format!("SELECT count(*) FROM kept{joins}"), "too_large", &["64"]),
        (format!("SELECT {aliases} FROM kept"), "too_large", &["4096"]),
        (
            format!("SELECT * FROM {}kept{}", many("(SELECT * FROM ", 15_000), ")".repeat(1000)),
            "too_large",
            &[],
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn not_what_sql_is() {
    check(&[
        (String::new(), "bad_request", &["no statement"]),
        ("   \n ".to_owned(), "bad_request", &["no statement"]),
        ("\0".to_owned(), "bad_request", &["sql does not parse"]),
        ("SELECT 'open".to_owned(), "bad_request", &["sql does not parse"]),
        ("SELECT \"open".to_owned(), "bad_request", &["sql does not parse"]),
        ("SELECT /* open".to_owned(), "bad_request", &["sql does not parse"]),
        ("🦆".to_owned(), "bad_request", &["sql does not parse"]),
        ("SELECT n FROM nosuch".to_owned(), "not_found", &["nosuch"]),
        ("SELECT nosuch FROM kept".to_owned(), "not_found", &["nosuch"]),
        ("SELECT 1/0 FROM kept".to_owned(), "bad_request", &["division by zero"]),
        ("SELECT n / zero FROM kept WHERE zero = 0".to_owned(), "bad_request", &["division by zero"]),
        ("SELECT sum(n % zero) FROM kept".to_owned(), "bad_request", &["division by zero"]),
        ("SELECT n FROM kept LIMIT -1".to_owned(), "bad_request", &["LIMIT"]),
        ("SELECT date_bin(INTERVAL '0 seconds', time) FROM kept".to_owned(), "bad_request", &[]),
        ("SELECT p101x(n) FROM kept".to_owned(), "bad_request", &["p101x"]),
        (
            "SELECT histogram(n, 0, 1, 1000000000) FROM kept".to_owned(),
            "bad_request",
            &["1000000000", "10000"],
        ),
        ("SELECT count(*) FROM kept WHERE s ~ '(((('".to_owned(), "bad_request", &["regex"]),
        (format!("SELECT count(*) FROM kept WHERE s ~ '{}'", "(a{1000}){1000}"), "bad_request", &[]),
        ("CREATE TABLE x (a INT)".to_owned(), "unsupported", &["CREATE TABLE"]),
        ("SELECT * FROM read_csv('/etc/passwd')".to_owned(), "bad_request", &["read_csv"]),
    ])
    .await;
}

/// What could take all memory or all time is stopped by a limit.
#[tokio::test(flavor = "multi_thread")]
async fn too_much() {
    let cluster = cluster().await;
    for sql in [
        "SELECT count(*) FROM generate_series(1, 1000000000000)",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
        "SELECT lpad('x', 2000000000, 'y') FROM kept",
    ] {
        let question = serde_json::json!({ "sql": sql, "timeout_ms": 2000 });
        let refusal = match cluster.client().ask(question).await {
            Err(refusal) => refusal,
            Ok(answer) => panic!("{sql}: answered with {} columns", answer.columns.len()),
        };
        assert!(refusal.status != 500, "{sql}: {refusal:?}");
        still_there(cluster.client()).await;
    }
}
