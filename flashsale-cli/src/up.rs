//! `flashsale up`: a private Redis and Postgres in the foreground.

use std::path::PathBuf;

use anyhow::bail;
use flashsale_stack::{Stack, StackOptions};

use crate::{output, signals::Signals};

/// Where the other commands and flashsale-server look for a running stack.
const STACK_FILE: &str = ".flashsale/stack.env";
const DATA_DIR: &str = ".flashsale/data";

/// Run a private Redis and Postgres in the foreground, until Ctrl-C
///
/// Prints the URLs of both, a NAME=VALUE line each, then "ready". The other commands and flashsale-server find
/// them by themselves when they are run in the same directory. The data is kept for the next time.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  flashsale up --data-dir /tmp/flashsale")]
pub(crate) struct Args {
    /// Where the data is kept; made if it is missing
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    let starting = output::spinner("starting Redis and PostgreSQL");
    let options = StackOptions { data_dir: Some(args.data_dir), ..StackOptions::default() };
    let stack = Stack::start(options).await?;
    starting.finish_and_clear();
    for note in stack.notes() {
        eprintln!("note: {note}");
    }
    let file = stack.write_env_file(STACK_FILE)?;
    output::line(&format!("REDIS_URL={}", stack.redis_url()))?;
    output::line(&format!("DATABASE_URL={}", stack.database_url()))?;
    output::line("ready")?;

    let died = tokio::select! {
        _ = signals.next() => None,
        exit = stack.child_exited() => Some(exit),
    };
    if died.is_none() {
        eprintln!("stopping; the data is kept in {}", stack.data_dir().display());
    }
    // First the file: no other process should be told of servers that are going away.
    drop(file);
    let log_dir = stack.data_dir().to_owned();
    stack.stop().await;
    match died {
        None => Ok(()),
        Some(exit) => bail!("{exit}; its log is in {}", log_dir.display()),
    }
}
