//! Settings of servers: a TOML file, and over it what was said by flags or the environment.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::outcome::Failure;

/// Files larger than this are no settings.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads settings from a file, or takes the defaults without one.
pub(crate) fn read<T: DeserializeOwned + Default>(path: Option<&Path>) -> Result<T, Failure> {
    let Some(path) = path else { return Ok(T::default()) };
    let failed = |what: String| Failure::usage(format!("settings file {}: {what}", path.display()));
    let bytes = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(failed(format!("{bytes} bytes exceed the limit of {FILE_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    // The error of the parser has several lines: place, excerpt, and what is wrong.
    toml::from_str(&text)
        .map_err(|error| failed("not understood".to_owned()).detail(error.to_string().trim_end()))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        threads: usize,
    }

    #[test]
    fn files_are_read_and_mistakes_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        assert_eq!(read::<Settings>(None).unwrap(), Settings { threads: 0 });
        std::fs::write(&path, "threads = 3").unwrap();
        assert_eq!(read::<Settings>(Some(&path)).unwrap(), Settings { threads: 3 });
        std::fs::write(&path, "thread = 3").unwrap();
        let failure = read::<Settings>(Some(&path)).unwrap_err();
        assert_eq!(failure.message, format!("settings file {}: not understood", path.display()));
        let detail = failure.detail.unwrap();
        assert!(detail.contains("unknown field `thread`, expected `threads`"), "{detail}");
        let missing = read::<Settings>(Some(&folder.path().join("none"))).unwrap_err().message;
        assert!(missing.ends_with("none: No such file or directory (os error 2)"), "{missing}");
    }
}
