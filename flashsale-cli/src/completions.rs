//! `flashsale completions`: the Tab key's knowledge of this program.

use clap_complete::Shell;

use crate::output;

/// Print a script that completes this program's commands in your shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  flashsale completions bash > ~/.local/share/bash-completion/completions/flashsale"
)]
pub(crate) struct Args {
    shell: Shell,
}

pub(crate) fn run(args: &Args, mut command: clap::Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "flashsale", &mut script);
    output::line(String::from_utf8(script)?.trim_end())?;
    Ok(())
}
