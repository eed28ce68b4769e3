//! What `gannet up` prints when it is ready: where it is, what to ask, what to post, how to stop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::units;
use crate::up::ready::Readiness;

/// What there is to say.
#[derive(Debug)]
pub(crate) struct About {
    /// Where HTTP is served.
    pub(crate) url: String,
    /// Tokens are asked for.
    pub(crate) guarded: bool,
    /// The data directory.
    pub(crate) folder: PathBuf,
    /// How many leaves run.
    pub(crate) leaves: usize,
    /// What all leaves may hold.
    pub(crate) memory_limit: u64,
}

/// The port that commands ask by themselves.
const DEFAULT_SERVER: &str = "http://127.0.0.1:7700";

/// Where a client on this machine reaches a server that listens on an address.
pub(crate) fn url(address: SocketAddr, speaks_tls: bool) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let scheme = if speaks_tls { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(ip, address.port()))
}

/// The whole text.
pub(crate) fn text(about: &About, with_demo: bool, readiness: &Readiness) -> String {
    let url = &about.url;
    let program = program();
    let mut server = if url == DEFAULT_SERVER { String::new() } else { format!(" --server {url}") };
    let mut header = "";
    if about.guarded {
        server.push_str(" --token-file FILE");
        header = " -H 'Authorization: Bearer TOKEN'";
    }
    let leaves = if about.leaves == 1 { "1 leaf".to_owned() } else { format!("{} leaves", about.leaves) };
    let post = format!(
        "curl -s {url}/v1/events/deploys -H 'Content-Type: application/x-ndjson'{header} \\\n           \
         -d '{{\"service\":\"cart\",\"build\":\"2026.47.1\",\"ok\":true,\"tags\":[\"canary\",\"eu\"]}}'"
    );
    let ask = if with_demo {
        "select service, count(*), avg(duration_ms), p99(duration_ms) from requests\n           \
         where time > now() - interval '1 hour' group by service order by 2 desc limit 5"
    } else {
        "select * from deploys order by time desc limit 10"
    };
    let state = match readiness {
        Readiness::Whole => "Gannet is ready".to_owned(),
        Readiness::Partly(what) => format!("Gannet serves, but not all of its rows: {what}"),
    };
    format!(
        "{state}\n\n  \
         address  {url}\n  \
         data     {} ({leaves}, up to {} of rows)\n  \
         post     {post}\n  \
         ask      {program} query{server} \"{ask}\"\n  \
         status   {program} status{server}\n  \
         stop     Ctrl-C hands the rows over through shared memory; the next start serves them at once\n\n",
        about.folder.display(),
        units::bytes(about.memory_limit),
    )
}

/// How this program was called, so that what is printed can be pasted.
fn program() -> String {
    match std::env::args().next() {
        Some(name) if name.contains('/') && !name.contains([' ', '\'', '"', '\\', '$']) => name,
        _ => "gannet".to_owned(),
    }
}
