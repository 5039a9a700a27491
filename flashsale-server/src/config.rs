//! Flags and environment variables.

use std::{net::SocketAddr, time::Duration};

use crate::{
    app::Policy,
    identity::{AccessArgs, Auth, AuthMode},
    limits::LimitArgs,
    stores::StoreArgs,
    telemetry::LogArgs,
};

/// Everything that `flashsale-server` can be told.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "flashsale-server", version, about = "The REST API of the flash-sale engine")]
pub struct Config {
    /// Which stores to use.
    #[command(flatten, next_help_heading = "Stores")]
    pub stores: StoreArgs,

    /// How long to wait for the stores at the start
    #[arg(
        long,
        env = "FLASHSALE_STORE_WAIT_SECONDS",
        value_name = "SECONDS",
        default_value_t = 30,
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

    /// Drainers to run in this process; with 0, run `flashsale worker` beside it
    #[arg(long, env = "FLASHSALE_DRAINERS", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=64), help_heading = "Serving")]
    pub drainers: u8,

    /// Who is asking.
    #[command(flatten, next_help_heading = "Who is asking")]
    pub access: AccessArgs,

    /// How much one client, or all of them together, may ask for.
    #[command(flatten, next_help_heading = "Limits")]
    pub limits: LimitArgs,

    /// What is logged, and how.
    #[command(flatten, next_help_heading = "Logs")]
    pub logs: LogArgs,
}

impl Config {
    /// What concerns requests. Fails when flags contradict each other or name a file that cannot be used; the
    /// message names the flag.
    pub fn policy(&self) -> Result<Policy, String> {
        let auth = match self.access.auth {
            AuthMode::Header => Auth::Header,
        };
        let trusted_proxies = self.access.trusted_proxies.clone();
        Ok(Policy { auth, trusted_proxies, limits: self.limits.clone() })
    }

    /// How long to wait for the stores at the start.
    pub fn store_wait(&self) -> Duration {
        Duration::from_secs(self.store_wait_seconds)
    }
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
