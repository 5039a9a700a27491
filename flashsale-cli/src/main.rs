//! `flashsale`: the operator's command line of the flash-sale engine.
//!
//! One file per noun, each with its arguments and what they do. Results go to stdout, everything else to
//! stderr. Exit codes: 0 done, 1 failed, 2 wrong usage.

mod ask;
mod audit;
mod call;
mod catalogue;
mod completions;
mod dead_letters;
mod demo;
mod doctor;
mod failure;
mod help;
mod log;
mod migrate;
mod orders;
mod output;
mod queue;
mod recover;
mod sale_file;
mod sale_ref;
mod sales;
mod seed;
mod signals;
mod span;
mod stores;
mod subscribers;
mod up;
mod worker;

use std::process::ExitCode;

use clap::{
    ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind, parser::ValueSource,
};

use flashsale_server::without_empty_variables;

use crate::call::Call;

/// Operate flash sales: create them, look into them, audit them, recover them
#[derive(Debug, Parser)]
#[command(name = "flashsale", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten, next_help_heading = "Options of every command that uses the stores")]
    call: Call,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples of each command: `flashsale COMMAND --help`. Commands find a `flashsale up` that runs in the same directory.
Exit codes: 0 done, 1 failed, 2 wrong usage. Logs go to stderr (RUST_LOG sets how much).";

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Args),
    Migrate(migrate::Args),
    Doctor(doctor::Args),
    Seed(seed::Args),
    #[command(subcommand)]
    Sales(sales::Command),
    #[command(subcommand)]
    Orders(orders::Command),
    Queue(queue::Args),
    Log(log::Args),
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    #[command(subcommand)]
    Subscribers(subscribers::Command),
    Worker(worker::Args),
    Audit(audit::Args),
    Recover(recover::Args),
    Demo(demo::Args),
    Completions(completions::Args),
}

impl Command {
    /// Options of every command that mean nothing to this one, by their ids.
    fn meaningless(&self) -> &'static [&'static str] {
        match self {
            Self::Up(_) | Self::Demo(_) | Self::Completions(_) => {
                &["redis_url", "database_url", "as", "output"]
            }
            Self::Worker(_) => &["as", "output"],
            _ => &[],
        }
    }

    /// What goes wrong beside the work matters to what runs for days. What answers once tells of its own failure,
    /// and should not tell it twice.
    fn log_level(&self) -> &'static str {
        if matches!(self, Self::Up(_)) { "warn" } else { "error" }
    }

    async fn run(self, call: &Call) -> anyhow::Result<ExitCode> {
        match self {
            Self::Audit(args) => return audit::run(&args, call).await,
            Self::Doctor(args) => return doctor::run(args, call).await,
            Self::Demo(args) => return demo::run(&args).await,
            Self::Up(args) => up::run(args).await?,
            Self::Migrate(args) => migrate::run(args, call).await?,
            Self::Seed(args) => seed::run(&args, call).await?,
            Self::Sales(command) => return sales::run(command, call).await,
            Self::Orders(command) => orders::run(command, call).await?,
            Self::Queue(args) => queue::run(args, call).await?,
            Self::Log(args) => log::run(&args, call).await?,
            Self::DeadLetters(command) => dead_letters::run(command, call).await?,
            Self::Subscribers(command) => subscribers::run(command, call).await?,
            Self::Worker(args) => worker::run(&args, &call.stores).await?,
            Self::Recover(args) => recover::run(&args, call).await?,
            Self::Completions(args) => completions::run(&args, Cli::command())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let matches = without_empty_variables(help::grouped(Cli::command())).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    refuse_meaningless(&cli.command, &matches);
    match &cli.command {
        Command::Worker(args) => args.logs.init(),
        command => output::init_logs(command.log_level()),
    }
    match cli.command.run(&cli.call).await {
        Ok(code) => code,
        Err(error) => failure::report(&error, || stores::resolve(&cli.call.stores).ok()),
    }
}

/// An option that would be dropped silently deceives whoever gave it: it is wrong usage instead.
fn refuse_meaningless(command: &Command, matches: &ArgMatches) {
    let given = |id: &&&str| matches.value_source(id) == Some(ValueSource::CommandLine);
    if let Some(id) = command.meaningless().iter().find(given) {
        let message = format!("--{} means nothing to this command", id.replace('_', "-"));
        Cli::command().error(ErrorKind::ArgumentConflict, message).exit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_and_shows_an_example() {
        fn check(command: &clap::Command) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} has no description");
            let example =
                command.get_after_help().is_some_and(|help| help.to_string().contains("flashsale "));
            assert!(example, "{name} shows no example");
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
