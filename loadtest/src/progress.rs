//! What a person sees while it runs: one bar on a terminal, one line per phase elsewhere.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// The progress of the phase at hand, on stderr.
pub(crate) struct Progress {
    bar: ProgressBar,
    plain: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::no_length();
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, plain: !std::io::stderr().is_terminal() }
    }

    /// Begins a phase; `length` is None where the end cannot be foreseen.
    pub(crate) fn phase(&self, name: &'static str, length: Option<u64>) {
        let template = match length {
            Some(_) => "{prefix:>14} [{bar:32}] {pos}/{len} {msg}",
            None => "{prefix:>14} {spinner} {msg}",
        };
        self.bar.set_style(ProgressStyle::with_template(template).expect("the template is well-formed"));
        self.bar.set_prefix(name);
        self.bar.set_message("");
        self.bar.set_position(0);
        match length {
            Some(length) => self.bar.set_length(length),
            None => self.bar.unset_length(),
        }
        if self.plain {
            eprintln!("{name} …");
        }
    }

    pub(crate) fn at(&self, position: u64, message: &str) {
        self.bar.set_position(position);
        self.bar.set_message(message.to_owned());
    }

    pub(crate) fn done(&self) {
        self.bar.finish_and_clear();
    }
}
