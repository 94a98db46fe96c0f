//! Logs go to the standard error, as text or as JSON lines.

use crate::config::LogFormat;
use crate::control::failure::{Failure, FailureKind};
use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

/// For the daemon. A level is a name such as `debug`, or a filter as RUST_LOG takes.
///
/// # Errors
/// When the level is not understood.
pub fn for_daemon(level: Option<&str>, format: LogFormat) -> Result<(), Failure> {
    let chosen = level.map(str::to_owned).or_else(|| std::env::var("RUST_LOG").ok()).unwrap_or_else(|| "info".into());
    let not_a_level = |error| {
        Failure::because(
            FailureKind::Usage,
            format!("{chosen:?} is not a log level (error, warn, info, debug, trace)"),
            &error,
        )
    };
    let filter = EnvFilter::builder().parse(&chosen).map_err(not_a_level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    // A second initialisation, as in tests, keeps the first.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// For the other verbs: warnings only, unless RUST_LOG says otherwise.
pub fn for_verbs() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).without_time();
    let _ = builder.with_ansi(io::stderr().is_terminal()).with_target(false).log_internal_errors(false).try_init();
}
