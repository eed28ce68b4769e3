//! What may not be open to other machines: a way in or out without protection, unless a person insists.

use std::fmt;

use crate::address::ChildAddress;

/// A way in or out; each has its own protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// HTTP, for people and programs: TLS, and tokens.
    Http,
    /// gRPC, for the others of the cluster: TLS at both ends.
    Grpc,
    /// The way to a child: the same, from the other side.
    Child,
}

/// What a way has of its protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection {
    /// It speaks TLS; for gRPC, at both ends.
    pub tls: bool,
    /// It asks for tokens; gRPC does not need to.
    pub tokens: bool,
}

/// A way that other machines could come in by without showing anything, or listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{way} {address} would be open to other machines without {lacks}")]
pub struct Exposed {
    /// Which way.
    pub way: Way,
    /// Where it begins or ends.
    pub address: ChildAddress,
    /// What it lacks.
    pub lacks: &'static str,
}

impl Exposed {
    /// What is exposed of a way to or from an address.
    pub fn find(way: Way, address: &ChildAddress, protection: Protection) -> Option<Exposed> {
        let lacks = match (way, protection) {
            _ if address.is_local() => return None,
            (Way::Http, Protection { tls: true, tokens: true }) => return None,
            (Way::Http, Protection { tls: true, tokens: false }) => "tokens",
            (Way::Http, Protection { tls: false, tokens: true }) => "TLS",
            (Way::Http, Protection { tls: false, tokens: false }) => "TLS and tokens",
            (Way::Grpc | Way::Child, Protection { tls: true, .. }) => return None,
            (Way::Grpc | Way::Child, Protection { tls: false, .. }) => "TLS at both ends",
        };
        Some(Exposed { way, address: address.clone(), lacks })
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self.way {
            Way::Http => {
                "give --http-cert, --http-key and --tokens-file, or listen on 127.0.0.1; --insecure opens it as it is, \
                 for networks you trust"
            }
            Way::Grpc => {
                "give --tls-ca, --tls-cert and --tls-key (`gannet cluster certificates` makes them), or listen on \
                 127.0.0.1; --insecure opens it as it is, for networks you trust"
            }
            Way::Child => {
                "give --tls-ca, --tls-cert and --tls-key (`gannet cluster certificates` makes them); --insecure asks it \
                 as it is, over networks you trust"
            }
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Http => "HTTP on",
            Way::Grpc => "gRPC on",
            Way::Child => "gRPC to",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(way: Way, address: &str, tls: bool, tokens: bool, expect: Option<&str>) {
        let found = Exposed::find(way, &address.parse().unwrap(), Protection { tls, tokens });
        assert_eq!(found.map(|found| found.to_string()).as_deref(), expect);
    }

    #[test]
    fn open_doors_are_found() {
        check(Way::Http, "127.0.0.1:7700", false, false, None);
        check(Way::Http, "0.0.0.0:7700", true, true, None);
        check(Way::Grpc, "[::1]:7710", false, false, None);
        check(Way::Grpc, "unix:leaf.sock", false, false, None);
        check(Way::Grpc, "10.0.0.7:7710", true, false, None);
        let open = |text: &str| Some(format!("{text} would be open to other machines without "));
        let with = |text: &str, lacks: &str| open(text).map(|open| open + lacks);
        let http = |lacks: &str| with("HTTP on 0.0.0.0:7700", lacks);
        check(Way::Http, "0.0.0.0:7700", false, false, http("TLS and tokens").as_deref());
        check(Way::Http, "0.0.0.0:7700", true, false, http("tokens").as_deref());
        check(Way::Http, "0.0.0.0:7700", false, true, http("TLS").as_deref());
        let grpc = with("gRPC on 10.0.0.7:7710", "TLS at both ends");
        check(Way::Grpc, "10.0.0.7:7710", false, true, grpc.as_deref());
        check(Way::Child, "leaf-7:7710", true, false, None);
        check(
            Way::Child,
            "leaf-7:7710",
            false,
            false,
            with("gRPC to leaf-7:7710", "TLS at both ends").as_deref(),
        );
    }
}
