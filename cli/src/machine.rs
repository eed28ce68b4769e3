//! What tells this machine from others.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Whoever knows the id of a machine knows it for good, so it is not told as it is.
const SEED: u64 = 0x6761_6e6e_6574;

/// A name that leaves on one machine share: made of `/etc/machine-id`, else the host's.
pub(crate) fn name() -> String {
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    of(&id).unwrap_or_else(|| {
        let host = rustix::system::uname();
        host.nodename().to_string_lossy().chars().filter(char::is_ascii_graphic).take(128).collect()
    })
}

fn of(id: &str) -> Option<String> {
    let id = id.trim();
    // A machine that has not been set up says `uninitialized`.
    let is_id = id.len() >= 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| format!("machine-{:016x}", xxh3_64_with_seed(id.as_bytes(), SEED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_have_names() {
        assert_eq!(name(), name());
        assert!(!name().is_empty());
        let id = "0123456789abcdef0123456789abcdef";
        let named = of(id).unwrap();
        assert!(named.starts_with("machine-") && named.len() == 24 && !named.contains(id), "{named}");
        assert_eq!((of(""), of("uninitialized\n"), of(&format!("{id}\n"))), (None, None, Some(named)));
    }
}
