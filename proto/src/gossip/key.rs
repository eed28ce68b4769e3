//! The key of a cluster: what proves that a message of gossip comes from one of its members.
//!
//! It lives in a file that only its owner may read, one key a line, at least 32 bytes each. The first key seals, all of
//! them open, so that a key is changed without a gap: add the new one below on every machine, move it to the top on every
//! machine, remove the old one. A key is never shown.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// The shortest key, bytes.
pub const KEY_BYTES_MIN: usize = 32;
/// Keys of one file.
const KEYS_MAX: usize = 8;
/// Files larger than this hold no keys.
const FILE_BYTES_MAX: u64 = 4096;
/// Bytes of chance in a new key.
const NEW_KEY_BYTES: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read cluster key `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may use the file.
    #[error("cluster key `{}` has mode {mode:04o}, it must be for its owner only: chmod 600", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// What is in the file is no key.
    #[error("cluster key `{}` {what}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes for a key")]
    Random,
}

/// The keys of a cluster; see the module.
#[derive(Clone)]
pub struct ClusterKey {
    /// The first seals.
    keys: Vec<hmac::Key>,
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterKey({} keys)", self.keys.len())
    }
}

impl ClusterKey {
    /// Reads the keys in a file.
    ///
    /// # Errors
    /// When the file cannot be read, is not its owner's alone, or holds no key that is long enough.
    pub fn read(path: &Path) -> Result<ClusterKey, KeyError> {
        let failed = |source| KeyError::Io { path: path.to_owned(), source };
        let wrong = |what: String| KeyError::Text { path: path.to_owned(), what };
        let mut file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(wrong("is no regular file".to_owned()));
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Mode { path: path.to_owned(), mode });
        }
        let mut bytes = Vec::new();
        let read = (&mut file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if read as u64 > FILE_BYTES_MAX {
            return Err(wrong(format!("has more than {FILE_BYTES_MAX} bytes")));
        }
        ClusterKey::parse(&bytes).map_err(wrong)
    }

    fn parse(bytes: &[u8]) -> Result<ClusterKey, String> {
        let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
        if lines.is_empty() {
            return Err("is empty; `gannet cluster key` makes one".to_owned());
        }
        if lines.len() > KEYS_MAX {
            return Err(format!("has {} keys, the limit is {KEYS_MAX}", lines.len()));
        }
        for (index, line) in lines.iter().enumerate() {
            if line.len() < KEY_BYTES_MIN {
                let (number, bytes) = (index + 1, line.len());
                return Err(format!(
                    "has a key of {bytes} bytes as key {number}, the least is {KEY_BYTES_MIN}"
                ));
            }
        }
        Ok(ClusterKey { keys: lines.iter().map(|line| hmac::Key::new(hmac::HMAC_SHA256, line)).collect() })
    }

    /// What is used where only this machine can send messages: no secret, but it keeps clusters apart.
    pub fn of_loopback(cluster: &str) -> ClusterKey {
        let text = format!("gannet gossip on loopback: {cluster}");
        ClusterKey { keys: vec![hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())] }
    }

    /// The text of a new key: 64 hexadecimal digits.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> Result<String, KeyError> {
        let mut bytes = [0; NEW_KEY_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::Random)?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The proof for these bytes.
    pub(super) fn prove(&self, bytes: &[u8]) -> hmac::Tag {
        // There is always a first key: `parse` refuses an empty file.
        hmac::sign(&self.keys[0], bytes)
    }

    /// Whether a proof is one for these bytes, by any of the keys. Takes the same time for every wrong proof.
    pub(super) fn is_proven(&self, bytes: &[u8], proof: &[u8]) -> bool {
        self.keys.iter().any(|key| hmac::verify(key, bytes, proof).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, mode: u32, expect: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let outcome = ClusterKey::read(&path).map(|key| format!("{key:?}"));
        let shown = outcome.unwrap_or_else(|error| error.to_string());
        assert_eq!(shown.replace(&path.display().to_string(), "KEY"), expect);
    }

    #[test]
    fn keys_are_read_from_a_file_of_ones_own() {
        let key = "0123456789abcdef0123456789abcdef";
        check(key, 0o600, "ClusterKey(1 keys)");
        check(&format!("{key}\n\n{key}{key}\r\n"), 0o400, "ClusterKey(2 keys)");
        check(key, 0o640, "cluster key `KEY` has mode 0640, it must be for its owner only: chmod 600");
        check("\n", 0o600, "cluster key `KEY` is empty; `gannet cluster key` makes one");
        check(&key[1..], 0o600, "cluster key `KEY` has a key of 31 bytes as key 1, the least is 32");
        check(&format!("{key}\n").repeat(9), 0o600, "cluster key `KEY` has 9 keys, the limit is 8");
        check(&key.repeat(200), 0o600, "cluster key `KEY` has more than 4096 bytes");
        let nowhere = ClusterKey::read(Path::new("/nowhere/key")).unwrap_err().to_string();
        assert_eq!(nowhere, "cannot read cluster key `/nowhere/key`");
    }

    #[test]
    fn new_keys_are_long_enough_and_differ() {
        let (one, other) = (ClusterKey::generate().unwrap(), ClusterKey::generate().unwrap());
        assert!(one.len() == 64 && one != other);
        ClusterKey::parse(one.as_bytes()).unwrap();
    }

    #[test]
    fn a_key_is_changed_without_a_gap() {
        let (old, new) = ("o".repeat(32), "n".repeat(32));
        let keys = |text: String| ClusterKey::parse(text.as_bytes()).unwrap();
        let steps =
            [keys(old.clone()), keys(format!("{old}\n{new}")), keys(format!("{new}\n{old}")), keys(new)];
        for (one, next) in steps.iter().zip(&steps[1..]) {
            assert!(next.is_proven(b"x", one.prove(b"x").as_ref()));
            assert!(one.is_proven(b"x", next.prove(b"x").as_ref()));
        }
        assert!(!steps[0].is_proven(b"x", steps[3].prove(b"x").as_ref()));
        assert!(!steps[0].is_proven(b"y", steps[0].prove(b"x").as_ref()));
    }
}
