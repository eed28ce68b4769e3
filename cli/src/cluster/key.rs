//! `gannet cluster key`: a new key, with which members prove in gossip that they are members.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use gannet_proto::gossip::key::ClusterKey;

use crate::outcome::{Exit, Failure, Outcome};

/// Make a key with which members of a cluster prove in gossip that they are members
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  gannet cluster key --out cluster.key

Copy the file to every machine of the cluster, for the owner of the process only (mode 600), and start leaves and \
aggregators with --cluster-key-file. To change it without a gap, add a line with the new key below the old one on every \
machine and start anew, then move it to the top everywhere, then remove the old one: the first key seals, all open.")]
pub(crate) struct KeyArgs {
    /// The file that it is written to, for its owner only; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs `gannet cluster key`.
pub(crate) fn run(args: &KeyArgs) -> Outcome {
    make(&args.out)?;
    writeln!(std::io::stdout(), "{}: a new key; keep it secret", args.out.display())?;
    Ok(Exit::Done)
}

fn make(path: &Path) -> Result<(), Failure> {
    let key = ClusterKey::generate().map_err(|error| Failure::failed(error.to_string()))?;
    let failed = |error: std::io::Error| {
        let failure = Failure::failed(format!("write key {}: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => failure.hint("a key is not written over: members use it"),
            _ => failure,
        }
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    writeln!(file, "{key}").and_then(|()| file.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_can_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        make(&path).unwrap();
        ClusterKey::read(&path).unwrap();
        let again = make(&path).unwrap_err();
        assert_eq!(again.message, format!("write key {}: File exists (os error 17)", path.display()));
    }
}
