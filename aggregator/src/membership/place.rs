//! Where servers are: at an address, or wherever a DNS name points.

use std::fmt;
use std::str::FromStr;

use gannet_proto::address::{AddressError, ChildAddress};

/// What a DNS name begins with in settings.
const PREFIX: &str = "dns:";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// One server.
    Address(ChildAddress),
    /// `host:port` of a name that stands for any number of servers, all on this port.
    Name(String),
}

impl FromStr for Place {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Place, AddressError> {
        let Some(name) = text.strip_prefix(PREFIX) else { return text.parse().map(Place::Address) };
        match name.parse()? {
            ChildAddress::Tcp(name) => Ok(Place::Name(name)),
            ChildAddress::Unix(_) => Err(AddressError::Syntax {
                text: text.to_owned(),
                reason: "a DNS name is dns:HOST:PORT".to_owned(),
            }),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Address(address) => write!(f, "{address}"),
            Place::Name(name) => write!(f, "{PREFIX}{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let read = text.parse::<Place>();
        let shown = read.map(|place| format!("{place} {}", matches!(place, Place::Name(_))));
        assert_eq!(shown.unwrap_or_else(|error| error.to_string()), expect);
    }

    #[test]
    fn places_are_read() {
        check("a:1", "a:1 false");
        check("unix:x.sock", "unix:x.sock false");
        check("dns:leaf.gannet.svc:7701", "dns:leaf.gannet.svc:7701 true");
        let not = "is not host:port, http://host:port or unix:PATH";
        check("dns:leaf", &format!("address `leaf` {not}: the port is missing or above 65535"));
        check("dns:unix:x", &format!("address `dns:unix:x` {not}: a DNS name is dns:HOST:PORT"));
    }
}
