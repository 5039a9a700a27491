//! Asking before something that cannot be undone.

use std::io::{self, IsTerminal, Write};

use anyhow::bail;

use crate::failure::{tell, usage};

/// Whether to ask.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Consent {
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Fails where nobody could answer: a script that did not say `--yes` must not do it by accident, nor wait for ever.
    pub(crate) fn require_somebody(self, act: &str) -> anyhow::Result<()> {
        if self.yes || io::stdin().is_terminal() {
            return Ok(());
        }
        Err(usage(format!("{act}, and there is no terminal to ask on: give --yes. Nothing was changed")))
    }

    /// Shows what will happen and asks. An error unless the answer is yes: then nothing is to be changed. Before
    /// signals are caught, so that Ctrl-C here ends the process.
    pub(crate) fn ask(self, act: &str, what_happens: &str, question: &str) -> anyhow::Result<()> {
        tell(what_happens.trim_end());
        self.require_somebody(act)?;
        if self.yes {
            return Ok(());
        }
        eprint!("{question} [y/N] ");
        io::stderr().flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
            return Ok(());
        }
        bail!("nothing was changed");
    }
}
