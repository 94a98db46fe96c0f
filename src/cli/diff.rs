//! `diff`: where two volumes of one descent differ.

use super::Global;
use super::arguments::volume_name;
use super::interrupt::cancel_on_signal;
use super::output::counted;
use super::target::{Reach, Target};
use crate::admin::job::Job;
use crate::control::failure::{Failure, FailureKind};
use crate::control::methods::Method;
use crate::control::protocol::branches::{DiffView, RangeView};
use crate::control::protocol::params::DiffParams;
use crate::units::{ByteSize, VolumeName};
use clap::Args;
use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

/// Tell in which ranges two snapshots differ
///
/// Compares maps, not data: it takes as long as there are differences, and names a range that was written with the bytes
/// that it had before, too. Both are snapshots, or volumes that nobody has open. Prints the ranges of the second that are
/// not as in the first, in ascending order; with --json one object a line.
#[derive(Debug, Args)]
#[command(after_help = "Example: archvhost diff web1@monday web1@tuesday --json | jq .offset")]
pub struct DiffArgs {
    /// The older one
    #[arg(value_name = "A", value_parser = volume_name())]
    from: VolumeName,
    /// The newer one
    #[arg(value_name = "B", value_parser = volume_name())]
    to: VolumeName,
}

pub(super) fn run(global: &Global, args: DiffArgs) -> Result<(), Failure> {
    let params = DiffParams { from: args.from.to_string(), to: args.to.to_string() };
    let mut target = Target::choose(global, Reach::Content)?;
    let job = Arc::new(Job::default());
    cancel_on_signal(&job);
    let (reader, writer) = io::pipe().map_err(|error| Failure::from_error(FailureKind::Failed, &error))?;
    let lines = Lines { json: global.json, job: Arc::clone(&job) };
    let printing = thread::spawn(move || lines.print(reader));
    let sum: Result<DiffView, Failure> =
        target.call(Method::Diff, &params, Some(File::from(OwnedFd::from(writer))), &job);
    let printed = printing.join().unwrap_or(Ok(()));
    match printed {
        // Whoever reads has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::because(FailureKind::Failed, "cannot write to the standard output", &error)),
        Ok(()) => sum.map(|sum| print_sum(global.json, sum)),
    }
}

fn print_sum(json: bool, sum: DiffView) {
    if !json {
        let text = format!("{}, {}", counted(sum.ranges, "range"), ByteSize(sum.bytes));
        // The lines before it were written, so this can only fail because the reader left.
        let _ = writeln!(io::stdout(), "{text}");
    }
}

/// Prints what comes through the pipe, as it comes.
struct Lines {
    json: bool,
    job: Arc<Job>,
}

impl Lines {
    fn print(&self, reader: PipeReader) -> io::Result<()> {
        let printed = self.print_all(reader);
        if printed.is_err() {
            self.job.cancel();
        }
        printed
    }

    fn print_all(&self, reader: PipeReader) -> io::Result<()> {
        let mut output = io::BufWriter::new(io::stdout().lock());
        if !self.json {
            writeln!(output, "{:>20}  {:>20}", "OFFSET", "LENGTH")?;
        }
        for line in BufReader::new(reader).lines() {
            let line = line?;
            if self.json {
                writeln!(output, "{line}")?;
            } else {
                let range: RangeView = serde_json::from_str(&line)?;
                let zeros = if range.zero { "  zeros" } else { "" };
                writeln!(output, "{:>20}  {:>20}{zeros}", range.offset, range.length)?;
            }
        }
        output.flush()
    }
}
