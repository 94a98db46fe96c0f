//! What verbs print. A reader that closes its end early (`archvhost list | head -1`) is no error.

use crate::control::failure::{Failure, FailureKind};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, Write};

/// Prints the value as JSON, or as the text that `human` makes of it.
///
/// # Errors
/// When the standard output cannot be written.
pub fn print<T: Serialize>(json: bool, value: &T, human: impl FnOnce(&T) -> String) -> Result<(), Failure> {
    if json { print_json(value) } else { print_text(&human(value)) }
}

/// # Errors
/// When the standard output cannot be written.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::from_error(FailureKind::Failed, &error))?;
    print_text(&text)
}

/// The text and a line's end.
///
/// # Errors
/// When the standard output cannot be written.
pub fn print_text(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::because(FailureKind::Failed, "cannot write to the standard output", &error))
        }
        _ => Ok(()),
    }
}

/// A job that was stopped by its user, with what that means.
pub fn interrupted(text: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Cancelled, text)
}

/// `1 range`, `2 ranges`.
pub fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// One line on the standard error.
pub fn print_failure(failure: &Failure, json: bool) {
    let as_json = || serde_json::to_string(&serde_json::json!({ "error": failure }));
    let text = if json { as_json().unwrap_or_else(|_| failure.to_string()) } else { format!("archvhost: {failure}") };
    // There is no other place to say that this failed.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Something worth knowing that is neither the result nor an error.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "archvhost: note: {text}");
}

/// Columns without lines around them.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Names and values, one pair per line.
pub fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let lines: Vec<_> = pairs.iter().map(|(name, value)| format!("{:width$} {value}", format!("{name}:"))).collect();
    lines.join("\n")
}
