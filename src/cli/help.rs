//! The help of the whole program. clap lists verbs in one heap; with so many of them a person needs groups.

use super::Cli;
use clap::builder::StyledStr;
use clap::{Command, CommandFactory};
use std::fmt::Write;

/// Every verb is in one group.
const GROUPS: [(&str, &[&str]); 7] = [
    ("Volumes", &["create", "list", "info", "rename", "resize", "limit", "remove"]),
    ("Snapshots and clones", &["snapshot", "clone", "rollback", "diff", "tree", "flatten"]),
    ("Images and streams", &["import", "export"]),
    ("Serving guests", &["serve", "attach", "detach", "attachments", "status", "xml"]),
    ("Who has a volume", &["open", "close", "lock", "unlock"]),
    ("The store", &["gc", "check"]),
    ("The shell", &["completions"]),
];

/// The command line as it is parsed and as it explains itself.
pub(super) fn command() -> Command {
    let plain = Cli::command();
    let template = template(&plain);
    // Not in the heap, which then is empty and not shown.
    let hide = |verb: Command| verb.hide(true);
    let names: Vec<_> = plain.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let grouped = names.iter().fold(plain, |command, name| command.mut_subcommand(name, hide));
    grouped.help_template(template).override_usage("archvhost [OPTIONS] VERB …")
}

fn template(command: &Command) -> StyledStr {
    let mut template = StyledStr::new();
    let header = command.get_styles().get_header();
    let literal = command.get_styles().get_literal();
    let mut put = |text: std::fmt::Arguments<'_>| template.write_fmt(text).expect("writing to memory");
    put(format_args!("{{about-with-newline}}\n{{usage-heading}} {{usage}}\n"));
    for (heading, verbs) in GROUPS {
        put(format_args!("\n{header}{heading}:{header:#}\n"));
        for name in verbs {
            let about = command.find_subcommand(name).and_then(Command::get_about).cloned().unwrap_or_default();
            put(format_args!("  {literal}{name:<11}{literal:#}  {about}\n"));
        }
    }
    put(format_args!("\n{{all-args}}{{after-help}}"));
    template
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_in_one_group_and_says_what_it_does() {
        let command = Cli::command();
        let mut known: Vec<_> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
        let mut grouped: Vec<_> = GROUPS.iter().flat_map(|(_, verbs)| *verbs).map(|verb| (*verb).to_owned()).collect();
        known.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(known, grouped);
        assert!(command.get_subcommands().all(|verb| verb.get_about().is_some()));
    }

    #[test]
    fn the_help_fits_a_terminal() {
        let help = command().term_width(100).render_help().to_string();
        let longest = help.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= 100, "{longest}\n{help}");
    }
}
