//! Members on loopback, over real sockets, and settings.

use std::time::Instant;

use tokio::net::UdpSocket;

use super::*;

const WAIT: Duration = Duration::from_secs(30);

fn config(seeds: &[&Gossip]) -> GossipConfig {
    GossipConfig {
        listen: "127.0.0.1:0".into(),
        seeds: seeds.iter().map(|seed| seed.address().to_string()).collect(),
        interval_ms: 20,
        ..Default::default()
    }
}

fn leaf(id: &str, epoch: u64, address: &str) -> Said {
    Said {
        kind: Kind::Leaf,
        id: id.into(),
        epoch,
        address: address.into(),
        version: "0.1.0".into(),
        state: "serving".into(),
        free_bytes: 1,
    }
}

async fn start(config: &GossipConfig, me: Said) -> Gossip {
    Gossip::start(config.checked().unwrap(), me).await.unwrap()
}

/// Waits until a member hears just this: `id@address:state`.
async fn hears(gossip: &Gossip, expect: &[&str]) {
    let mut heard = gossip.heard();
    let shown = |heard: &Arc<Vec<Said>>| -> Vec<String> {
        heard.iter().map(|said| format!("{}@{}:{}", said.id, said.address, said.state)).collect()
    };
    let waited = tokio::time::timeout(WAIT, heard.wait_for(|heard| shown(heard) == expect)).await.is_ok();
    assert!(waited, "heard {:?}, not {expect:?}", shown(&gossip.heard().borrow()));
}

fn refused(gossip: &Gossip, why: &str) -> u64 {
    gossip.counts().refused().find(|(name, _)| *name == why).unwrap().1
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < WAIT, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn members_hear_of_each_other_and_of_what_changes() {
    let a = start(&config(&[]), leaf("a", 1, "a:1")).await;
    let b = start(&config(&[&a]), leaf("b", 1, "b:1")).await;
    let c = start(&config(&[&a]), leaf("c", 1, "c:1")).await;
    hears(&a, &["b@b:1:serving", "c@c:1:serving"]).await;
    hears(&b, &["a@a:1:serving", "c@c:1:serving"]).await;
    hears(&c, &["a@a:1:serving", "b@b:1:serving"]).await;
    b.say(|said| said.state = "draining".into());
    hears(&c, &["a@a:1:serving", "b@b:1:draining"]).await;
    // It ends, and starts anew at another address: it is heard of once, by its newest epoch.
    drop(b);
    let b = start(&config(&[&a]), leaf("b", 2, "b:2")).await;
    hears(&c, &["a@a:1:serving", "b@b:2:serving"]).await;
    hears(&b, &["a@a:1:serving", "c@c:1:serving"]).await;
    // It ends for good: it is gone.
    drop(b);
    hears(&c, &["a@a:1:serving"]).await;
    assert!(a.counts().read() > 0);
}

#[tokio::test]
async fn strangers_and_garbage_are_dropped_and_counted() {
    let a = start(&config(&[]), leaf("a", 1, "a:1")).await;
    let stranger = GossipConfig { cluster: "other".into(), ..config(&[&a]) };
    let stranger = start(&stranger, leaf("evil", 9, "evil:1")).await;
    until("a forged datagram", || refused(&a, "forged") > 2).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in [0, 1, 48, 81, 500, 9_000] {
        socket.send_to(&vec![7; length], a.address()).await.unwrap();
    }
    until("garbage", || refused(&a, "malformed") >= 6).await;
    assert!(a.heard().borrow().is_empty() && stranger.heard().borrow().is_empty());
    // Members are heard all the same.
    let b = start(&config(&[&a]), leaf("b", 1, "b:1")).await;
    hears(&a, &["b@b:1:serving"]).await;
    hears(&b, &["a@a:1:serving"]).await;
}

#[tokio::test]
async fn too_long_an_id_is_refused() {
    let checked = config(&[]).checked().unwrap();
    let error = Gossip::start(checked, leaf(&"x".repeat(130), 1, "a:1")).await.unwrap_err().to_string();
    assert!(error.ends_with("has too long an id or address for gossip"), "{error}");
}

fn check(change: impl FnOnce(&mut GossipConfig), expect: &str) {
    let mut config = GossipConfig::default();
    change(&mut config);
    let outcome = config.checked().map(|_| String::new()).unwrap_or_else(|error| error.to_string());
    assert_eq!(outcome, expect);
}

#[test]
fn settings_are_checked() {
    check(|_| {}, "");
    check(|c| c.seeds = vec!["leaf.gannet.svc:7709".into(), "[::1]:7709".into()], "");
    check(|c| c.listen = "host:1".into(), "gossip address `host:1` is not an IP address and a port");
    check(
        |c| c.advertise = Some("x".into()),
        "gossip address to advertise `x` is not an IP address and a port",
    );
    check(
        |c| c.listen = "0.0.0.0:7709".into(),
        "gossip listens on `0.0.0.0:7709`, which others cannot connect to: name an address to advertise",
    );
    let no_key = "gossip on `10.0.0.7:7709` needs a cluster key, because it is not on loopback: \
                  make one with `gannet cluster key`";
    check(|c| c.listen = "10.0.0.7:7709".into(), no_key);
    check(|c| c.advertise = Some("10.0.0.7:7709".into()), &no_key.replacen("10.0.0.7", "127.0.0.1", 1));
    check(|c| c.key_file = Some("/nowhere".into()), "cannot read cluster key `/nowhere`");
    for seed in ["host", ":1", "host:0", "host:x"] {
        check(|c| c.seeds = vec![seed.into()], &format!("gossip seed `{seed}` is not HOST:PORT"));
    }
    check(|c| c.seeds = vec!["a:1".into(); 65], "gossip setting `seeds` is 65, it must be at most 64");
    check(|c| c.interval_ms = 5, "gossip setting `interval_ms` is 5, it must be 10 to 60000");
    check(|c| c.cluster = String::new(), "gossip setting `cluster` is \"\", it must have 1 to 128 bytes");
}
