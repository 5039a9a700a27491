//! Logs and metrics of a process.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// What is logged, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// How log lines are written
    #[arg(long, env = "FLASHSALE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// What is logged, as `tracing-subscriber` reads it: `info`, `flashsale_core=debug,warn`, …
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "info,sqlx=warn")]
    pub log_filter: String,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogArgs {
    /// Logs to standard error from now on.
    pub fn init(&self) {
        let filter = EnvFilter::new(&self.log_filter);
        let colours = io::stderr().is_terminal();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours).init();
    }
}
