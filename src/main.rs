//! Arguments and exit code, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    archvhost::cli::run(std::env::args_os().collect())
}
