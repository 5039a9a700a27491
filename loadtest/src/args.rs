//! The command line.

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Context, Result};
use clap::{Args as _, CommandFactory, FromArgMatches, Parser, error::ErrorKind};
use flashsale_core::NewSale;
use reqwest::Url;

use crate::{broken::BrokenArgs, chaos::ChaosArgs, mix};

/// Where a running `flashsale up` says what it has started.
const ENV_FILE: &str = ".flashsale/stack.env";

/// Lets a herd of simulated users fall on one sale, and proves from the stores that nothing was
/// oversold, duplicated or lost.
///
/// It creates a sale of its own, starts the users, and opens the sale when all of them are waiting. They
/// browse, order, repeat themselves, try another body under the same key, ask for too much and hang up in
/// the middle of a request. Afterwards both stores are audited and compared with what the users saw.
///
/// Exits with 0 if the sale sold exactly its stock and every invariant holds, with 1 if not.
#[derive(Debug, Clone, Parser)]
#[command(name = "flashsale-loadtest", version)]
pub struct Args {
    /// Simulated users
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub users: u32,
    /// Units on sale, over all products [default: one for 200 users]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(NewSale::MAX_STOCK)))]
    pub stock: Option<u32>,
    /// A server that is already up, such as `http://127.0.0.1:5000`; without it one is started, the
    /// flashsale-server beside this program
    #[arg(long, value_name = "URL", value_parser = parse_target)]
    pub target: Option<Url>,
    /// Write goose's report to this file (.html)
    #[arg(long, value_name = "FILE", value_parser = parse_html_path)]
    pub report_html: Option<PathBuf>,
    /// Write the figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub report_json: Option<PathBuf>,
    /// Redis of the server [default: that of a running `flashsale up` in this directory]
    #[arg(long, value_name = "URL", env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<String>,
    /// Postgres of the server [default: that of a running `flashsale up` in this directory]
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Most requests under way at once; lowered if the limit of open files is lower
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub max_in_flight: u32,
}

/// What the program is asked to do.
#[derive(Debug, Clone)]
pub enum Task {
    /// Let a herd fall on one sale.
    Herd(Args),
    /// Break things while a herd is buying.
    Chaos(ChaosArgs),
    /// Be broken: the fault machine starts such programs.
    Broken(BrokenArgs),
}

impl Task {
    /// Reads the command line; help and bad usage end the process, the latter with 2.
    #[must_use]
    pub fn parse_or_exit() -> Self {
        let task = Self::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
        let problem = match &task {
            Self::Herd(args) => args.check().and_then(|()| match args.stores() {
                Ok(_) => Ok(()),
                Err(problem) => Err(problem.to_string()),
            }),
            Self::Chaos(args) => args.check(),
            Self::Broken(_) => Ok(()),
        };
        if let Err(problem) = problem {
            Self::command().error(ErrorKind::ValueValidation, problem).exit();
        }
        task
    }

    /// What is logged unless `RUST_LOG` says otherwise.
    #[must_use]
    pub fn log_filter(&self) -> &'static str {
        match self {
            Self::Herd(_) => "warn,goose=error,sqlx=error",
            // That a store is away is what the machine is for.
            Self::Chaos(_) | Self::Broken(_) => "error,sqlx=off",
        }
    }

    /// The herd's flags stand beside the other tasks, which need none of them.
    fn command() -> clap::Command {
        let chaos = ChaosArgs::augment_args(clap::Command::new(CHAOS));
        // Nobody else has a use for it.
        let broken = BrokenArgs::augment_args(clap::Command::new(BROKEN)).hide(true);
        let tasks = Args::command().subcommand(chaos).subcommand(broken);
        tasks.subcommand_negates_reqs(true).args_conflicts_with_subcommands(true)
    }

    fn read<T: Into<OsString> + Clone>(line: impl IntoIterator<Item = T>) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(line)?;
        match matches.subcommand() {
            Some((CHAOS, matches)) => Ok(Self::Chaos(ChaosArgs::from_arg_matches(matches)?)),
            Some((BROKEN, matches)) => Ok(Self::Broken(BrokenArgs::from_arg_matches(matches)?)),
            _ => Ok(Self::Herd(Args::from_arg_matches(&matches)?)),
        }
    }
}

const CHAOS: &str = "chaos";
const BROKEN: &str = "broken";

/// Where the stores are.
pub(crate) struct Stores {
    pub(crate) redis_url: String,
    pub(crate) database_url: String,
}

impl Args {
    fn check(&self) -> Result<(), String> {
        let most = mix::most_stock(self.users);
        if self.stock() > most {
            return Err(format!(
                "{} users are not certain to buy {} units: at most {most} can be put on sale",
                self.users,
                self.stock()
            ));
        }
        if self.redis_url.is_some() != self.database_url.is_some() {
            return Err("--redis-url and --database-url belong together: give both or neither".to_owned());
        }
        Ok(())
    }

    /// Units on sale, over all products.
    #[must_use]
    pub fn stock(&self) -> u32 {
        self.stock.unwrap_or_else(|| (self.users / 200).max(1))
    }

    /// The server's address as the paths of requests are appended to it.
    pub(crate) fn target(&self) -> Option<String> {
        self.target.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned())
    }

    pub(crate) fn stores(&self) -> Result<Stores> {
        if let (Some(redis_url), Some(database_url)) = (self.redis_url.clone(), self.database_url.clone()) {
            return Ok(Stores { redis_url, database_url });
        }
        let (redis_url, database_url) = flashsale_stack::read_env_file(ENV_FILE).context(
            "no stores: run `flashsale up` in this directory, or give --redis-url and --database-url \
             (or REDIS_URL and DATABASE_URL)",
        )?;
        Ok(Stores { redis_url, database_url })
    }
}

fn parse_target(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err("is not an address such as http://127.0.0.1:5000".to_owned()),
    }
}

/// Goose chooses the kind of its report by the name of the file.
fn parse_html_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(extension) if extension == "html" || extension == "htm" => Ok(path),
        _ => Err("must end in .html".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn stock_defaults_to_one_for_200_users() {
        for (users, stock) in [(1, 1), (199, 1), (1_000, 5), (100_000, 500)] {
            assert_eq!(parse(&format!("x --users {users}")).unwrap().stock(), stock);
        }
    }

    #[test]
    fn bad_usage_is_refused() {
        for line in [
            "x",
            "x --users 0",
            "x --users 5 --stock 0",
            "x --users 5 --target 127.0.0.1:5000",
            "x --users 5 --target ftp://somewhere",
            "x --users 5 --report-html report.pdf",
            "x --users 5 --max-in-flight 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_machine_stands_beside_the_herd() {
        let read = |line: &str| Task::read(line.split_whitespace());
        Task::command().debug_assert();
        assert!(matches!(read("x --users 5"), Ok(Task::Herd(Args { users: 5, .. }))));
        assert!(matches!(read("x chaos --seed 1 --fault flushall --rounds 2"), Ok(Task::Chaos(_))));
        assert!(matches!(read("x chaos --list"), Ok(Task::Chaos(_))));
        let broken = "x broken --mutation stale-stock";
        assert!(matches!(read(&format!("{broken} worker")), Ok(Task::Broken(_))));
        assert!(matches!(read(&format!("{broken} server --listen 127.0.0.1:0")), Ok(Task::Broken(_))));
        assert!(!Task::command().render_long_help().to_string().contains("broken"));
        for line in [
            "x",
            broken,
            "x broken --mutation earthquake worker",
            "x chaos --users 5",
            "x --users 5 chaos",
            "x chaos --rounds 0",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
        let Ok(Task::Chaos(args)) = read("x chaos --fault earthquake") else { panic!("it is parsed") };
        assert!(args.check().is_err());
    }

    #[test]
    fn stock_that_may_stay_unsold_is_refused() {
        let stores = "--redis-url r --database-url d";
        assert!(parse(&format!("x --users 100 --stock 50 {stores}")).unwrap().check().is_ok());
        assert!(parse(&format!("x --users 100 --stock 100 {stores}")).unwrap().check().is_err());
        assert!(parse("x --users 100 --redis-url r").unwrap().check().is_err());
    }
}
