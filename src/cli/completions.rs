//! `completions`: for the user's shell.

use super::Cli;
use super::output::print_text;
use crate::control::failure::Failure;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example: archvhost completions bash > /etc/bash_completion.d/archvhost")]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "archvhost", &mut script);
    print_text(String::from_utf8_lossy(&script).trim_end())
}
