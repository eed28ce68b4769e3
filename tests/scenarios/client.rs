//! A program asks with the client crate: the same answer whole, batch by batch, refined and as JSON; what there is; and
//! errors that say where and what.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use gannet_client::{Client, ErrorKind, Position, QueryOptions, Step};
use gannet_tests::cluster::{Cluster, Shape};

use crate::{numbered, sum};

const SUM: &str = "SELECT g, sum(n) AS n FROM t GROUP BY g ORDER BY g";

fn sums(batches: &[arrow::array::RecordBatch]) -> i64 {
    batches.iter().map(|batch| batch.column(1).as_primitive::<Int64Type>().values().iter().sum::<i64>()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_asks() {
    let cluster = Cluster::start(Shape { leaves: 2, intermediate: false }).await;
    for from in (0..1000).step_by(100) {
        cluster.client().ingest("t", &numbered(from, from + 100)).await;
    }
    let client = Client::new(cluster.client().base()).unwrap();
    let options = QueryOptions::default();

    let answer = client.query(SUM, &options).await.unwrap();
    assert_eq!((answer.row_count(), sums(&answer.batches)), (3, sum(0, 1000)));
    assert!(answer.completeness.is_whole(), "{:?}", answer.completeness);
    assert_eq!((answer.completeness.leaves_asked, answer.completeness.rows_covered), (2, 1000));
    assert_eq!(answer.stats.stored_rows, 1000);

    // Before the first row arrives, it is known what the answer covers.
    let mut arriving = client.query_batches("SELECT n FROM t ORDER BY n", &options).await.unwrap();
    assert_eq!(arriving.completeness().percent(), "100%");
    let mut rows = 0;
    while let Some(batch) = arriving.next().await.unwrap() {
        rows += batch.num_rows();
    }
    assert_eq!(rows, 1000);

    let mut refined = client.query_refined(SUM, &options).await.unwrap();
    let mut last = None;
    while let Some(step) = refined.next().await.unwrap() {
        assert!(last.is_none(), "nothing follows the final answer");
        if let Step::Final(answer) = step {
            last = Some(answer);
        }
    }
    let last = last.unwrap();
    assert_eq!((last.schema.fields(), sums(&last.batches)), (answer.schema.fields(), sum(0, 1000)));
    let json: serde_json::Value =
        serde_json::from_slice(&client.query_json(SUM, &options).await.unwrap()).unwrap();
    assert_eq!(json["columns"][1]["name"], "n");

    let tables = client.tables().await.unwrap();
    assert_eq!(tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["t"]);
    let columns = client.table("t").await.unwrap().columns;
    assert_eq!(columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["time", "g", "n"]);
    assert!(client.status().await.unwrap().leaves.iter().all(|leaf| leaf.state == "serving"));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_where_and_what() {
    let cluster = Cluster::start(Shape { leaves: 1, intermediate: false }).await;
    cluster.client().ingest("t", &numbered(0, 10)).await;
    let client = Client::new(cluster.client().base()).unwrap();
    let options = QueryOptions::default();

    for error in [
        client.query("SELECT\n nosuch FROM t", &options).await.unwrap_err(),
        client.query_refined("SELECT\n nosuch FROM t", &options).await.unwrap_err(),
        client.query_json("SELECT\n nosuch FROM t", &options).await.unwrap_err(),
    ] {
        assert_eq!((error.kind, error.status), (ErrorKind::Refused, Some(400)), "{error:?}");
        assert_eq!(error.message, "column `nosuch` not found");
        assert_eq!(error.position, Some(Position { line: 2, column: 2 }));
    }
    let error = client.table("no/such").await.unwrap_err();
    assert_eq!((error.kind, error.status), (ErrorKind::Refused, Some(404)), "{error:?}");
    let nobody = Client::new("127.0.0.1:1").unwrap();
    assert_eq!(nobody.query("SELECT 1", &options).await.unwrap_err().kind, ErrorKind::NotSent);
}
