//! Posts events and asks about them: `cargo run -p gannet-client --example events -- http://127.0.0.1:7700`.

use gannet_client::{Client, Events, PostOptions, Producer, QueryOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:7700".to_owned());
    let client = Client::new(&server)?;
    // A name that nobody else has. A program that may crash keeps name, number and lines of a request before it sends it.
    let producer = Producer::new(format!("rust-{:032x}", rand::random::<u128>()), 1);
    let rows: String =
        (0..10).map(|number| format!("{{\"service\":\"cart\",\"duration_ms\":{number}.5}}\n")).collect();
    let reply = client.post(&Events::ndjson("rust_events", rows), &producer, &PostOptions::default()).await?;
    println!("accepted {}, durability {}", reply.accepted, reply.durability);

    let sql = "select service, count(*) as n from rust_events group by service";
    let answer = client.query(sql, &QueryOptions::default()).await?;
    for batch in &answer.batches {
        println!("{batch:?}");
    }
    println!("completeness {}", answer.completeness.percent());
    Ok(())
}
