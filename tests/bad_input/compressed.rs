//! Bodies that say they are compressed.

use std::io::Write;

use crate::{Body, check, cluster};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_that_is_broken() {
    let cluster = cluster().await;
    let rows = "{\"a\":1}\n".repeat(1000).into_bytes();
    let zstd = zstd::encode_all(rows.as_slice(), 1).unwrap();
    for (what, encoding, body) in [("whole gzip", "gzip", gzip(&rows)), ("whole zstd", "zstd", zstd.clone())]
    {
        let encoding = Some(encoding);
        let case = Body { what, encoding, body, status: 200, accepted: Some(1000), ..Body::default() };
        check(cluster.client(), case).await;
    }
    let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    let mut wrong_sum = gzip(&rows);
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 1;
    for (what, encoding, body) in [
        ("half a gzip", "gzip", half(&gzip(&rows))),
        ("half a zstd", "zstd", half(&zstd)),
        ("no gzip", "gzip", rows.clone()),
        ("no zstd", "zstd", rows.clone()),
        ("gzip with a wrong sum", "gzip", wrong_sum),
        ("gzip and noise", "gzip", [gzip(&rows), vec![7; 100]].concat()),
    ] {
        let says = [encoding];
        let case =
            Body { what, encoding: Some(encoding), body, accepted: None, says: &says, ..Body::default() };
        check(cluster.client(), case).await;
    }
    let case = Body {
        what: "unknown",
        encoding: Some("br"),
        body: rows,
        status: 415,
        says: &["br", "gzip"],
        ..Body::default()
    };
    check(cluster.client(), case).await;
}

/// A small body that becomes one line without end: it stops at the limit of a line, not at that of memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_bomb() {
    let cluster = cluster().await;
    let line = vec![b'x'; 200 << 20];
    let (gzipped, zstd) = (gzip(&line), zstd::encode_all(line.as_slice(), 1).unwrap());
    for (what, encoding, body) in [("bomb gzip", "gzip", gzipped), ("bomb zstd", "zstd", zstd)] {
        assert!(body.len() < 2 << 20, "{} bytes are no bomb", body.len());
        let case = Body { what, encoding: Some(encoding), body, says: &["8388608"], ..Body::default() };
        check(cluster.client(), case).await;
    }
}
