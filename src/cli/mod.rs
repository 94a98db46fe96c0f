//! The command line: one file per verb that a person types.
//!
//! Every verb makes its request, gets a result or a [`Failure`], and prints it, as text or with `--json` as the very
//! types of the control protocol. Verbs on volumes go through the daemon when one answers on `--control`, and work
//! directly on `--store` when none does. docs/operations.md has the manual and the exit codes.

pub mod arguments;
pub mod attach;
pub mod attachments;
pub mod ceph;
pub mod check;
pub mod clone;
pub mod close;
pub mod completions;
pub mod create;
pub mod date;
pub mod detach;
pub mod diff;
pub mod exit;
pub mod export;
pub mod flatten;
pub mod gc;
pub mod help;
pub mod image;
pub mod import;
pub mod info;
pub mod interrupt;
pub mod limit;
pub mod list;
pub mod lock;
pub mod logging;
pub mod open;
pub mod output;
pub mod progress;
pub mod remove;
pub mod rename;
pub mod resize;
mod result_file;
pub mod rollback;
pub mod serve;
pub mod snapshot;
pub mod status;
pub mod target;
pub mod tree;
pub mod unlock;
pub mod xml;

use crate::config::Cache;
use crate::control::failure::Failure;
use clap::{Args, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

const ABOUT: &str = "Serves block volumes, composed of objects, to virtual machines over vhost-user";

const LONG_ABOUT: &str = "\
Serves block volumes, composed of objects, to virtual machines over vhost-user.

A volume lives in a store, as objects. `archvhost serve` is the daemon of a host: it attaches volumes to Unix sockets, and \
a virtual machine monitor that connects to such a socket gives its guest a virtio-blk disk. All other verbs make, list, \
branch, copy and attach volumes. Give them --control to work through the running daemon, or --store to work on the store itself; \
with both, the daemon is asked if one answers. Either way is safe at any time: a volume has one writer.";

const EXAMPLES: &str = "\
Stores:
  file:DIR      one file per object, below the directory DIR
  rados:POOL    objects of a Ceph cluster; rados:POOL/NAMESPACE keeps apart what shares a pool
  memory:       in this process's memory, gone with it: to try things
  null:SIZE     keeps nothing that is written: to measure what is above it

Examples:
  Make a volume of 20 GiB, start the daemon, attach the volume, look at it:
    archvhost --store file:/srv/volumes create web1 --size 20GiB
    archvhost --store file:/srv/volumes --control /run/archvhost.sock serve &
    archvhost --control /run/archvhost.sock attach web1 --socket /run/web1.sock --queues 4
    archvhost --control /run/archvhost.sock status

  Print the libvirt elements for it:
    archvhost --control /run/archvhost.sock xml web1

  Not to repeat yourself, and taken as said from here on:
    export ARCHVHOST_CONTROL=/run/archvhost.sock ARCHVHOST_STORE=file:/srv/volumes

  Keep what a running guest's disk holds, try something on a copy, go back:
    archvhost snapshot web1 web1@monday
    archvhost clone web1@monday web1-test
    archvhost detach web1 && archvhost rollback web1 web1@monday

  Send a backup what changed since the last one:
    archvhost export web1@tuesday - --from web1@monday | ssh backup archvhost import web1

  Copy images in and out:
    archvhost import web2 debian.qcow2
    archvhost export web2 web2.img

  Serve one volume in a process of its own, as QEMU's back-end programs do:
    archvhost --store file:/srv/volumes serve --volume web1 --socket-path /run/web1.sock

Sizes take the suffixes KiB, MiB, GiB, TiB, PiB and EiB (or K, M, …), all powers of 1024.

Exit codes:
  0 done   1 failed   2 wrong usage   3 not found   4 exists, in use or held by another
  5 store not usable   6 damaged   7 store full   8 daemon not reachable or not permitted
  130 interrupted";

#[derive(Debug, Parser)]
#[command(name = "archvhost", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = EXAMPLES)]
#[command(after_help = "`archvhost --help` has examples; `archvhost VERB --help` tells about one verb.")]
#[command(subcommand_value_name = "VERB", disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every verb")]
pub struct Global {
    /// The store: file:DIR, rados:POOL[/NAMESPACE], memory: or null:SIZE
    #[arg(long, value_name = "URL", env = "ARCHVHOST_STORE", global = true, hide_env_values = true)]
    #[arg(value_parser = arguments::text())]
    pub store: Option<String>,

    /// The daemon's control socket
    #[arg(long, value_name = "PATH", env = "ARCHVHOST_CONTROL", global = true, hide_env_values = true)]
    #[arg(value_parser = arguments::path())]
    pub control: Option<PathBuf>,

    /// Print JSON instead of text (errors, too, on the standard error)
    #[arg(long, global = true)]
    pub json: bool,

    /// How the store's files are read and written: past the host's page cache, or through it [default: none]
    #[arg(long, value_name = "MODE", value_enum, global = true, hide_short_help = true)]
    pub cache: Option<Cache>,

    /// Where the journals live that make a death of the daemon harmless: a directory in memory (tmpfs), the same for
    /// every process that opens these volumes on this host [default: /run/archvhost for root, where
    /// that is in memory, otherwise /dev/shm/archvhost-UID]
    #[arg(long, value_name = "DIR", global = true, hide_short_help = true)]
    pub soft_journal_dir: Option<PathBuf>,

    /// This host, as other hosts that use the store shall know it: the same for all that runs here [default: its node name]
    #[arg(long, value_name = "NAME", env = "ARCHVHOST_HOST_ID", global = true, hide_short_help = true)]
    #[arg(hide_env_values = true, value_parser = arguments::text())]
    pub host_id: Option<String>,

    #[command(flatten)]
    pub ceph: ceph::CephArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Serve(Box<serve::ServeArgs>),
    Create(create::CreateArgs),
    List(list::ListArgs),
    Info(info::InfoArgs),
    Rename(rename::RenameArgs),
    Resize(resize::ResizeArgs),
    Limit(limit::LimitArgs),
    Remove(remove::RemoveArgs),
    Snapshot(snapshot::SnapshotArgs),
    Clone(clone::CloneArgs),
    Rollback(rollback::RollbackArgs),
    Diff(diff::DiffArgs),
    Tree(tree::TreeArgs),
    Flatten(flatten::FlattenArgs),
    Gc(gc::GcArgs),
    Check(check::CheckArgs),
    Open(open::OpenArgs),
    Close(close::CloseArgs),
    Lock(lock::LockArgs),
    Unlock(unlock::UnlockArgs),
    Attach(attach::AttachArgs),
    Detach(detach::DetachArgs),
    Attachments(attachments::AttachmentsArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
    Status(status::StatusArgs),
    Xml(xml::XmlArgs),
    Completions(completions::CompletionsArgs),
}

/// The whole program: parses, does, prints. Returns the exit code.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    // QEMU's convention: this option prints and exits, whatever else is there.
    if arguments.iter().skip(1).any(|argument| argument == serve::PRINT_CAPABILITIES) {
        return finish(serve::print_capabilities(), false);
    }
    let parsed = help::command().try_get_matches_from(arguments);
    match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => {
            let json = cli.global.json;
            finish(dispatch(cli), json)
        }
        Err(error) => {
            // Help goes to the standard output, which may be closed: nothing to be done about that.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE))
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    let mut global = cli.global;
    global.store = global.store.filter(|store| !store.is_empty());
    global.host_id = global.host_id.filter(|host_id| !host_id.is_empty());
    global.control = global.control.filter(|control| !control.as_os_str().is_empty());
    global.ceph = global.ceph.without_empty();
    if !matches!(cli.verb, Verb::Serve(_)) {
        logging::for_verbs();
    }
    match cli.verb {
        Verb::Serve(args) => serve::run(&global, *args),
        Verb::Create(args) => create::run(&global, args),
        Verb::List(args) => list::run(&global, args),
        Verb::Info(args) => info::run(&global, args),
        Verb::Rename(args) => rename::run(&global, args),
        Verb::Resize(args) => resize::run(&global, args),
        Verb::Limit(args) => limit::run(&global, args),
        Verb::Remove(args) => remove::run(&global, args),
        Verb::Snapshot(args) => snapshot::run(&global, args),
        Verb::Clone(args) => clone::run(&global, args),
        Verb::Rollback(args) => rollback::run(&global, args),
        Verb::Diff(args) => diff::run(&global, args),
        Verb::Tree(args) => tree::run(&global, args),
        Verb::Flatten(args) => flatten::run(&global, args),
        Verb::Gc(args) => gc::run(&global, args),
        Verb::Check(args) => check::run(&global, args),
        Verb::Open(args) => open::run(&global, args),
        Verb::Close(args) => close::run(&global, args),
        Verb::Lock(args) => lock::run(&global, args),
        Verb::Unlock(args) => unlock::run(&global, args),
        Verb::Attach(args) => attach::run(&global, args),
        Verb::Detach(args) => detach::run(&global, args),
        Verb::Attachments(args) => attachments::run(&global, args),
        Verb::Import(args) => import::run(&global, args),
        Verb::Export(args) => export::run(&global, args),
        Verb::Status(args) => status::run(&global, args),
        Verb::Xml(args) => xml::run(&global, args),
        Verb::Completions(args) => completions::run(args),
    }
}

fn finish(result: Result<(), Failure>, json: bool) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::print_failure(&failure, json);
            ExitCode::from(exit::code(failure.kind))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        help::command().debug_assert();
        Cli::command().debug_assert();
    }
}
