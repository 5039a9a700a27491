//! `flashsale --help`: the commands by what somebody wants to do.

use std::fmt::Write;

/// What somebody wants to do, the commands for it, and one example.
const GROUPS: [(&str, &[&str], &str); 6] = [
    ("Try it", &["demo", "up"], "flashsale demo --users 5000"),
    ("Prepare a sale", &["doctor", "migrate", "seed"], "flashsale seed sale.toml --dry-run"),
    ("Run it", &["sales", "worker"], "flashsale sales watch black-friday"),
    ("Look", &["orders", "queue", "log", "audit"], "flashsale orders export --sale 1 --file orders.csv"),
    ("Repair", &["dead-letters", "subscribers", "recover"], "flashsale recover 1 --dry-run"),
    ("Your shell", &["completions"], "flashsale completions bash"),
];

/// The program with its commands in groups, which clap itself does not know.
pub(crate) fn grouped(mut command: clap::Command) -> clap::Command {
    // Else the command `help`, which clap adds, is in no group, and is one more way to say `--help`.
    command = command.disable_help_subcommand(true);
    let mut template = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    for (title, names, example) in GROUPS {
        let _ = write!(template, "\n\x1b[1m\x1b[4m{title}:\x1b[0m\n");
        for name in names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(template, "  \x1b[1m{name:<13}\x1b[0m {about}");
        }
        let _ = writeln!(template, "                e.g. {example}");
    }
    template.push_str("\n\x1b[1m\x1b[4mOptions:\x1b[0m\n{options}{after-help}");
    command.help_template(template)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Cli;

    #[test]
    fn every_command_is_in_exactly_one_group() {
        let mut grouped: Vec<_> = GROUPS.iter().flat_map(|(_, names, _)| names.iter().copied()).collect();
        grouped.sort_unstable();
        let command = Cli::command();
        let mut commands: Vec<_> = command.get_subcommands().map(clap::Command::get_name).collect();
        commands.sort_unstable();
        assert_eq!(grouped, commands);
    }

    #[test]
    fn the_examples_are_right() {
        for (_, _, example) in GROUPS {
            Cli::command().try_get_matches_from(example.split(' ')).expect(example);
        }
    }
}
