//! `gannet cluster`: what the machines of a cluster need to know each other.

use clap::Subcommand;

use crate::outcome::Outcome;

mod certificates;
mod key;

/// Make what the machines of a cluster need to know each other
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    Certificates(certificates::CertificatesArgs),
    Key(key::KeyArgs),
}

/// Runs `gannet cluster`.
pub(crate) fn run(command: ClusterCommand) -> Outcome {
    match command {
        ClusterCommand::Certificates(args) => certificates::run(&args),
        ClusterCommand::Key(args) => key::run(&args),
    }
}
