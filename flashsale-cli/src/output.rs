//! What is shown: tables for people, JSON for programs, progress on stderr.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

/// The end of everything that `--dry-run` shows.
pub(crate) const UNCHANGED: &str = "Dry run: nothing was changed.";

/// The form of results on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    #[default]
    Table,
    Json,
}

impl Output {
    /// Shows a result: the value itself to programs, `people` to people.
    pub(crate) fn show(self, value: &impl Serialize, people: impl FnOnce() -> String) -> anyhow::Result<()> {
        match self {
            Self::Table => line(people().trim_end())?,
            Self::Json => line(&serde_json::to_string_pretty(value)?)?,
        }
        Ok(())
    }

    /// Shows one of several results that come one after another: a line each, also in JSON.
    pub(crate) fn show_line(
        self,
        value: &impl Serialize,
        people: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        match self {
            Self::Table => line(&people())?,
            Self::Json => line(&serde_json::to_string(value)?)?,
        }
        Ok(())
    }
}

/// A line on stdout, there at once also when stdout is a pipe. `println!` would panic when nobody reads it.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// A table without lines, so that it reads well and can be cut by other tools.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.map(str::to_uppercase)).add_rows(rows);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.trim_fmt()
}

/// How wide the terminal is, where stdout is one that says so.
pub(crate) fn columns() -> Option<usize> {
    Table::new().width().filter(|width| *width > 0).map(usize::from)
}

/// Names and values, one pair a line.
pub(crate) fn facts<const N: usize>(facts: [(&str, String); N]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    facts.map(|(name, value)| format!("{name:width$}  {value}\n")).concat()
}

/// An instant for people, to the second.
pub(crate) fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A value that may be missing.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A length of time for people.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// `1 product`, `2 products`
pub(crate) fn count(number: impl TryInto<u64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// A sign of life on stderr while something takes long; nothing when stderr is not a terminal.
pub(crate) fn spinner(message: impl Into<String>) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(message.into());
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// How far a known number of steps has come, on stderr; nothing when stderr is not a terminal.
pub(crate) fn progress(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("the template is right");
    ProgressBar::new(steps as u64).with_style(style)
}

/// Logs on stderr: what `RUST_LOG` asks for, or what is of this level and worse.
pub(crate) fn init_logs(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let ansi = io::stderr().is_terminal();
    // A line that cannot be written is lost, and stops nobody.
    let lines = tracing_subscriber::fmt().log_internal_errors(false).with_env_filter(filter);
    lines.with_writer(io::stderr).with_ansi(ansi).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain_columns() {
        let text =
            table(["id", "name"], [["1".to_owned(), "one".to_owned()], ["22".to_owned(), "two".to_owned()]]);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines, [["ID", "NAME"], ["1", "one"], ["22", "two"]]);
    }

    #[test]
    fn facts_are_aligned() {
        assert_eq!(facts([("id", "1".to_owned()), ("name", "x".to_owned())]), "id    1\nname  x\n");
    }
}
