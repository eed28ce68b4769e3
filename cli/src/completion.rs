//! `gannet completion`: what a shell needs to complete the commands and flags.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use clap_complete::{Shell, generate};

use crate::outcome::{Exit, Outcome};

/// Print a script that completes the commands and flags of gannet in your shell.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet completion bash > ~/.local/share/bash-completion/completions/gannet
  gannet completion zsh > \"${fpath[1]}/_gannet\"
  gannet completion fish > ~/.config/fish/completions/gannet.fish")]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Completed,
}

/// A shell that can be completed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Completed {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// Friendly interactive shell
    Fish,
}

/// Writes the script for a command line.
pub(crate) fn run(args: &CompletionArgs, mut command: clap::Command) -> Outcome {
    let shell = match args.shell {
        Completed::Bash => Shell::Bash,
        Completed::Zsh => Shell::Zsh,
        Completed::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut command, "gannet", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(Exit::Done)
}
