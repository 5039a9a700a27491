//! Flags and environment variables.

use std::{net::SocketAddr, time::Duration};

use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches, builder::Resettable};
use url::Url;

use crate::{
    app::Policy,
    browser::BrowserArgs,
    health_check::{self, health_url},
    identity::AccessArgs,
    limits::LimitArgs,
    preflight::PreflightArgs,
    stores::StoreArgs,
    telemetry::LogArgs,
};

const AFTER_HELP: &str = "\
Every flag can be given by its environment variable instead; the flag wins.

Examples:
  flashsale-server                   on http://127.0.0.1:5000; with the stores of a `flashsale up`
                                     that runs in this directory
  flashsale-server --listen 0.0.0.0:5000 --trusted-proxies 10.0.0.0/8 --log-format json
  flashsale-server --print-config    what it would do, and why

Exit codes: 0 done, 1 failed, 2 wrong usage. Logs go to stderr.";

/// Everything that `flashsale-server` can be told.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "flashsale-server",
    version,
    about = "The REST API of the flash-sale engine",
    after_help = AFTER_HELP
)]
pub struct Config {
    /// Which stores to use.
    #[command(flatten, next_help_heading = "Stores")]
    pub stores: StoreArgs,

    /// What of the stores may be overlooked.
    #[command(flatten, next_help_heading = "Stores")]
    pub preflight: PreflightArgs,

    /// How long to wait for the stores at the start
    #[arg(
        long,
        env = "FLASHSALE_STORE_WAIT_SECONDS",
        value_name = "SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(..=86_400),
        help_heading = "Stores"
    )]
    pub store_wait_seconds: u64,

    /// Address to listen on; may be repeated. Port 0 takes a free one
    #[arg(
        long,
        env = "FLASHSALE_LISTEN",
        value_name = "ADDRESS",
        value_delimiter = ',',
        default_value = "127.0.0.1:5000",
        help_heading = "Serving"
    )]
    pub listen: Vec<SocketAddr>,

    /// Address of its own for /metrics and a /readyz that says why; the API's address then has no /metrics
    #[arg(long, env = "FLASHSALE_METRICS_LISTEN", value_name = "ADDRESS", help_heading = "Serving")]
    pub metrics_listen: Option<SocketAddr>,

    /// How long, when told to end, connections are still accepted while /readyz says `draining`
    ///
    /// For load balancers, which learn from /readyz that this server is going. A second signal ends the waiting.
    #[arg(long, env = "FLASHSALE_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=600), help_heading = "Serving")]
    pub drain_seconds: u32,

    /// Drainers to run in this process; with 0, run `flashsale worker` beside it
    #[arg(long, env = "FLASHSALE_DRAINERS", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=64), help_heading = "Serving")]
    pub drainers: u8,

    /// How often the invariants of live sales are checked, at most; 0: never. One process at a time does it
    #[arg(long, env = "FLASHSALE_CHECK_EVERY_SECONDS", value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3600), help_heading = "Serving")]
    pub check_every_seconds: u64,

    /// Who is asking.
    #[command(flatten, next_help_heading = "Who is asking")]
    pub access: AccessArgs,

    /// How much one client, or all of them together, may ask for.
    #[command(flatten, next_help_heading = "Limits")]
    pub limits: LimitArgs,

    /// Which pages may use the API.
    #[command(flatten, next_help_heading = "Browsers")]
    pub browsers: BrowserArgs,

    /// What is logged, and how.
    #[command(flatten, next_help_heading = "Logs")]
    pub logs: LogArgs,

    /// Something else to do.
    #[command(flatten, next_help_heading = "Instead of serving")]
    pub instead: InsteadArgs,
}

/// What the program can do instead of serving.
#[derive(Debug, Clone, clap::Args)]
pub struct InsteadArgs {
    /// Print every setting and where it comes from, without passwords, and end
    #[arg(long)]
    pub print_config: bool,

    /// Ask a running server's /readyz, by default at the first --listen, and end: 0 if it is ready, 1 if not
    #[arg(long, value_name = "URL", value_parser = health_check::parse_url, conflicts_with = "print_config")]
    pub health_check: Option<Option<Url>>,
}

impl Config {
    /// Reads the command line and the environment, and what was said where. Help and wrong usage end the
    /// process, the latter with 2.
    pub fn read() -> (Self, ArgMatches) {
        let matches = without_empty_variables(Self::command()).get_matches();
        let config = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        (config, matches)
    }

    /// Which server's health to ask for, if that is what is to be done.
    pub fn health_check(&self) -> Option<Result<Url, String>> {
        let given = self.instead.health_check.clone()?;
        Some(given.map_or_else(|| health_url(self.listen[0]), Ok))
    }

    /// What concerns requests. Fails when flags contradict each other or name a file that cannot be used; the
    /// message names the flag.
    pub fn policy(&self) -> Result<Policy, String> {
        let auth = self.access.auth()?;
        let trusted_proxies = self.access.trusted_proxies.clone();
        let cors_origins = self.browsers.cors_origins.clone();
        let metrics_apart = self.metrics_listen.is_some();
        Ok(Policy { auth, trusted_proxies, limits: self.limits.clone(), cors_origins, metrics_apart })
    }

    /// How often to check the invariants, if at all.
    pub fn check_every(&self) -> Option<Duration> {
        (self.check_every_seconds > 0).then(|| Duration::from_secs(self.check_every_seconds))
    }

    /// How long to wait for the stores at the start.
    pub fn store_wait(&self) -> Duration {
        Duration::from_secs(self.store_wait_seconds)
    }

    /// How long connections are still accepted after the signal to end.
    pub fn drain_for(&self) -> Duration {
        Duration::from_secs(self.drain_seconds.into())
    }
}

/// A command that takes an empty variable for one that is not set, which is how a compose file says that there is
/// none. Flags with a default keep theirs: an empty list of proxies, for one, is something else than the default.
pub fn without_empty_variables(command: Command) -> Command {
    let is_empty = |arg: &Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    let forget = |arg: Arg| {
        let unset = is_empty(&arg) && arg.get_default_values().is_empty();
        if unset { arg.env(Resettable::Reset) } else { arg }
    };
    command.mut_args(forget).mut_subcommands(without_empty_variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_flags_are_consistent() {
        Config::command().debug_assert();
        let config =
            Config::parse_from(["flashsale-server", "--listen", "127.0.0.1:0", "--listen", "[::1]:0"]);
        assert_eq!(config.listen.len(), 2);
    }
}
