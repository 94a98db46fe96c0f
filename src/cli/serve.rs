//! `serve`: the daemon, for a host or for one volume.

mod collecting;
pub mod inherited;
pub mod life;
pub mod settings;

use super::Global;
use super::arguments::{byte_size, text, volume_name, volume_size};
use super::logging;
use super::output::print_text;
use crate::config::collection::Interval;
use crate::config::{self, LogFormat};
use crate::control::failure::Failure;
use crate::units::{ByteSize, VolumeName, VolumeSize};
use clap::{ArgGroup, Args};
use settings::Settings;
use std::path::PathBuf;

/// See [`print_capabilities`].
pub const PRINT_CAPABILITIES: &str = "--print-capabilities";

/// What QEMU's back-end program conventions (docs/interop/vhost-user.json) have a name for, of what we can do.
const CAPABILITIES: &str = r#"{"type": "block", "features": ["read-only"]}"#;

/// Run the daemon
///
/// Host form: listens on --control and serves the volumes that are attached there, or named in the configuration file.
/// One-volume form, with --volume: serves that volume on --socket-path or --fd, as QEMU's back-end programs do, and has no
/// control socket. Both stay in the foreground, log to the standard error, and end in order at SIGTERM or SIGINT: requests
/// in flight are finished, volumes flushed and closed. systemd is told when the daemon is ready, and may hand over the
/// listening socket.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("endpoint").args(["socket_path", "fd"]))]
#[command(after_help = "\
Examples:
  archvhost --store file:/srv/volumes --control /run/archvhost.sock serve
  archvhost serve --config /etc/archvhost.toml
  archvhost --store file:/srv/volumes serve --volume web1 --socket-path /run/web1.sock --queues 4
  archvhost --store null:1TiB serve --volume bench --socket-path /run/bench.sock")]
pub struct ServeArgs {
    /// The configuration file (TOML); options override it
    #[arg(long, value_name = "FILE", conflicts_with = "volume")]
    config: Option<PathBuf>,

    /// Serve this volume alone
    #[arg(long, value_name = "NAME", value_parser = volume_name(), help_heading = "One volume")]
    volume: Option<VolumeName>,
    /// The socket to make
    #[arg(long, value_name = "PATH", requires = "volume", help_heading = "One volume")]
    socket_path: Option<PathBuf>,
    /// An inherited socket to serve instead, listening or connected
    #[arg(long, value_name = "N", requires = "volume", help_heading = "One volume")]
    fd: Option<i32>,
    /// Virtqueues offered to the guest, at least one per virtual processor [default: 16]
    #[arg(long, value_name = "N", requires = "volume", help_heading = "One volume")]
    queues: Option<u16>,
    /// Refuse writes
    #[arg(long, requires = "volume", help_heading = "One volume")]
    read_only: bool,
    /// How large to make the volume in a store that keeps nothing (memory:, null:) [default: as null:SIZE says, or 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = volume_size(), requires = "volume", help_heading = "One volume")]
    size: Option<VolumeSize>,
    /// Print what this program can do, for QEMU and libvirt, and exit
    #[arg(long, help_heading = "One volume")]
    print_capabilities: bool,

    /// Memory for the map pages of each volume [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = byte_size())]
    map_cache: Option<ByteSize>,
    /// What copy-up works in, for measurements: a power of two, no more than the objects of the volumes served
    #[arg(long, value_name = "SIZE", value_parser = byte_size(), hide = true)]
    granule: Option<ByteSize>,
    /// How long a queue is polled after work before its thread sleeps, at most [default: 32]
    #[arg(long, value_name = "MICROSECONDS")]
    poll_us: Option<u32>,
    /// How long a guest's request waits for a store that does not answer, before the guest gets an I/O error; 0: for ever.
    /// Attachments may say otherwise [default: 0]
    #[arg(long, value_name = "SECONDS")]
    request_timeout: Option<u64>,
    /// How often to collect what no volume names any more, as in 90s, 15min, 6h or 1d; or never [default: 6h]
    #[arg(long, value_name = "INTERVAL", conflicts_with = "volume")]
    gc_interval: Option<Interval>,
    /// Memory for a collection [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = byte_size(), conflicts_with = "volume")]
    gc_memory: Option<ByteSize>,
    /// Where a collection puts what does not fit in its memory [default: TMPDIR, or /var/tmp]
    #[arg(long, value_name = "DIR", conflicts_with = "volume")]
    gc_spill_dir: Option<PathBuf>,
    /// The group whose members may use the control socket
    #[arg(long, value_name = "GROUP", value_parser = text())]
    control_group: Option<String>,
    /// The group whose members may connect to the sockets of volumes: the one that the virtual machine monitor runs in
    #[arg(long, value_name = "GROUP", value_parser = text())]
    socket_group: Option<String>,
    /// error, warn, info, debug, trace, or a filter as RUST_LOG takes [default: RUST_LOG, or info]
    #[arg(long, value_name = "LEVEL", value_parser = text())]
    log_level: Option<String>,
    /// How logs are written [default: text]
    #[arg(long, value_name = "FORMAT", value_enum)]
    log_format: Option<LogFormat>,
}

pub(super) fn run(global: &Global, args: ServeArgs) -> Result<(), Failure> {
    let config = args.config.as_deref().map(config::load).transpose()?.unwrap_or_default();
    let level =
        args.log_level.as_deref().or(config.log_level.as_deref().filter(|_| std::env::var_os("RUST_LOG").is_none()));
    logging::for_daemon(level, args.log_format.or(config.log_format).unwrap_or_default())?;
    life::live(Settings::merge(global, args, config)?)
}

/// One line of JSON.
///
/// # Errors
/// When the standard output cannot be written.
pub(super) fn print_capabilities() -> Result<(), Failure> {
    print_text(CAPABILITIES)
}
