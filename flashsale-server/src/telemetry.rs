//! Logs of a process.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt};

const DEFAULT_FILTER: &str = "info,sqlx=warn";

/// What is logged, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// How log lines are written
    #[arg(long, env = "FLASHSALE_LOG_FORMAT", value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// What is logged, as `tracing-subscriber` reads it: `info`, `flashsale_core=debug,warn`, …
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = DEFAULT_FILTER, value_parser = parse_filter)]
    pub log_filter: String,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

impl LogArgs {
    /// Logs to standard error from now on. Once in a process.
    pub fn init(&self) {
        let lines = fmt().with_env_filter(EnvFilter::new(&self.log_filter)).with_writer(io::stderr);
        match self.log_format {
            LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).init(),
            // What an event says stands beside its level; what its request is called, in `span`.
            LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).init(),
        }
    }
}

/// A filter that can be read. A typing error would otherwise be found out when the log is needed.
fn parse_filter(text: &str) -> Result<String, String> {
    // An empty variable is one that nobody has set.
    let text = if text.trim().is_empty() { DEFAULT_FILTER } else { text };
    EnvFilter::builder().parse(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_refused() {
        for good in ["info", "flashsale_core=debug,warn", "off", "info,[request{request_id=\"a\"}]=trace"] {
            assert_eq!(parse_filter(good).as_deref(), Ok(good));
        }
        assert_eq!(parse_filter("").as_deref(), Ok(DEFAULT_FILTER));
        for bad in ["a=b=c", "core=loud", "info,[request"] {
            assert!(parse_filter(bad).is_err(), "{bad}");
        }
    }
}
