//! The files of the shell, readable by their owner alone: what was typed, and kept statements.
//!
//! What was typed is state, kept statements are configuration; both follow the XDG directories. Kept statements are SQL
//! with a line `-- name: NAME` above each, so that they can be edited and shared as they are.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::outcome::Failure;

/// A file of kept statements that is longer is not read.
const KEPT_BYTES_MAX: u64 = 1 << 20;
/// What a line begins with that names the statement below it.
const NAME: &str = "-- name:";

/// Where the shell keeps its files; none when there is no home.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    /// What was typed.
    pub(super) history: Option<PathBuf>,
    /// Kept statements.
    pub(super) kept: Option<PathBuf>,
    /// A statement that is being edited.
    pub(super) edited: Option<PathBuf>,
}

impl Files {
    /// Finds them by the environment, and makes the folders.
    pub(super) fn find() -> Files {
        let home = absolute("HOME");
        let folder = |variable: &str, below: &str| {
            let base = absolute(variable).or_else(|| Some(home.clone()?.join(below)))?;
            let folder = base.join("gannet");
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).ok().map(|()| folder)
        };
        let state = folder("XDG_STATE_HOME", ".local/state");
        let config = folder("XDG_CONFIG_HOME", ".config");
        Files {
            history: state.as_ref().map(|folder| folder.join("history")),
            kept: config.map(|folder| folder.join("queries.sql")),
            edited: state.map(|folder| folder.join(format!("edit-{}.sql", std::process::id()))),
        }
    }
}

/// The specification of these variables has relative paths ignored.
fn absolute(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Takes a file from everybody but its owner. One that belongs to somebody else stays as it is.
pub(super) fn keep_private(path: &Path) {
    let _ = std::fs::set_permissions(path, Permissions::from_mode(0o600));
}

/// Writes a file that only its owner can read, whole or not at all.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("write {}: {error}", path.display()));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let unfinished = path.with_file_name(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&unfinished).map_err(failed)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| std::fs::rename(&unfinished, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&unfinished);
        failed(error)
    })
}

/// Kept statements by name.
pub(super) type Kept = BTreeMap<String, String>;

/// Reads the kept statements; a file that is not there holds none.
pub(super) fn read_kept(path: &Path) -> Result<Kept, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("read {}: {error}", path.display()));
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Kept::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(KEPT_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > KEPT_BYTES_MAX {
        let message = format!("{} is longer than the limit of {KEPT_BYTES_MAX} bytes", path.display());
        return Err(Failure::failed(message));
    }
    Ok(parse_kept(&text))
}

fn parse_kept(text: &str) -> Kept {
    let mut kept = Kept::new();
    let mut name: Option<String> = None;
    let mut body = String::new();
    for line in text.lines().chain(std::iter::once(NAME)) {
        let Some(next) = line.strip_prefix(NAME) else {
            body.push_str(line);
            body.push('\n');
            continue;
        };
        let sql = body.trim().trim_end_matches(';').trim_end();
        if let Some(name) = name.take().filter(|name| !name.is_empty() && !sql.is_empty()) {
            kept.insert(name, sql.to_owned());
        }
        name = Some(next.trim().to_owned());
        body.clear();
    }
    kept
}

/// The text of the file of kept statements.
pub(super) fn kept_text(kept: &Kept) -> String {
    kept.iter().map(|(name, sql)| format!("{NAME} {name}\n{sql};\n\n")).collect()
}

/// A statement that would be cut in two where it is kept.
pub(super) fn can_be_kept(sql: &str) -> bool {
    !sql.lines().any(|line| line.starts_with(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_statements_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queries.sql");
        assert_eq!(read_kept(&path).unwrap(), Kept::new());
        let kept = Kept::from([
            ("a".to_owned(), "select 1".to_owned()),
            ("b".to_owned(), "select *\n  from t -- all;\n where x = $1".to_owned()),
        ]);
        write_private(&path, &kept_text(&kept)).unwrap();
        assert_eq!(read_kept(&path).unwrap(), kept);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_people_wrote_is_read() {
        let text =
            "select 'nobody';\n\n-- name: x\n\n-- note\nselect 1;\n-- name:\nselect 2;\n-- name: y\n;\n";
        assert_eq!(parse_kept(text), Kept::from([("x".to_owned(), "-- note\nselect 1".to_owned())]));
        assert!(!can_be_kept("select 1\n-- name: x\n"));
    }
}
