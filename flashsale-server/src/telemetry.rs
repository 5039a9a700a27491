//! Logs of a process.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal},
    panic::{self, PanicHookInfo},
    thread,
};

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
        // A line that cannot be written is lost. Told of it on standard error, which cannot be written either, the
        // process would panic.
        let lines = fmt().log_internal_errors(false).with_writer(io::stderr);
        let lines = lines.with_env_filter(EnvFilter::new(&self.log_filter));
        match self.log_format {
            LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).init(),
            // What an event says stands beside its level; what its request is called, in `span`.
            LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).init(),
        }
        panic::set_hook(Box::new(log_panic));
    }
}

/// A panic as one line like any other, and in the span of its request. What is printed otherwise is several lines,
/// which whoever reads JSON cannot read.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    // Taken only where the environment asks for it.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let current = thread::current();
    tracing::error!(panic = text, location, thread = current.name(), backtrace, "panicked");
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
    use std::sync::{Arc, Mutex};

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

    #[test]
    fn a_panic_is_one_line_in_the_span_of_its_request() {
        let log = Log::default();
        let writer = log.clone();
        let lines = fmt().with_writer(move || writer.clone()).json().flatten_event(true).finish();
        // The hook is the process's, and other tests panic too.
        let (this, previous) = (thread::current().id(), panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            if thread::current().id() == this { log_panic(panic) } else { previous(panic) }
        }));
        tracing::subscriber::with_default(lines, || {
            let _span = tracing::error_span!("request", request_id = "r-1").entered();
            panic::catch_unwind(|| panic!("one\nand two")).unwrap_err();
        });
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&log).expect(&log);
        assert_eq!((&line["panic"], &line["level"]), (&"one\nand two".into(), &"ERROR".into()));
        assert!(line["location"].as_str().unwrap().contains("telemetry.rs:"), "{line}");
        assert_eq!(line["span"]["request_id"], "r-1");
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
