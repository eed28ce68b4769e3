//! `gannet bench`: measures this build on this machine, with real processes.
//!
//! Everything it starts and writes is its own and goes when it ends: servers in a temporary directory, their segments, and
//! segments of its own to compare with. It never talks to servers that run already.

use clap::Subcommand;

use crate::outcome::Outcome;

mod agent;
mod commands;
mod copy;
mod door;
mod events;
mod folder;
mod ingest;
mod leaf;
mod load;
mod memory;
mod overload;
mod percentiles;
mod plot;
mod report;
mod restart;
mod rounds;
mod servers;
mod stall;
mod stop;

/// The benches.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    Agent(agent::AgentArgs),
    #[command(name = "cli")]
    Commands(commands::CommandsArgs),
    Ingest(ingest::IngestArgs),
    Overload(overload::OverloadArgs),
    Restart(restart::RestartArgs),
    Stall(stall::StallArgs),
}

/// Runs `gannet bench`.
pub(crate) fn run(command: BenchCommand) -> Outcome {
    match command {
        BenchCommand::Agent(args) => agent::run(args),
        BenchCommand::Commands(args) => commands::run(args),
        BenchCommand::Ingest(args) => ingest::run(args),
        BenchCommand::Overload(args) => overload::run(args),
        BenchCommand::Restart(args) => restart::run(args),
        BenchCommand::Stall(args) => stall::run(args),
    }
}
