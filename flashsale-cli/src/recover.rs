//! `flashsale recover`: a sale's state in Redis, rebuilt from the record.

use anyhow::bail;
use flashsale_core::{Engine, LoadProgress, SaleId};
use flashsale_server::StoreArgs;
use indicatif::ProgressBar;
use serde_json::json;

use crate::{
    output::{self, Output},
    signals::Signals,
    stores::connect,
};

/// Rebuild a sale in Redis from Postgres and its queue
///
/// The sale sells nothing while it is rebuilt. Killed at any moment, it leaves the sale closed to buyers, and
/// running it again is right.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  flashsale recover 1 --dry-run\n  flashsale recover 1")]
pub(crate) struct Args {
    /// The sale's id
    sale: SaleId,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(args: &Args, stores: &StoreArgs, output: Output) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    let engine = connect(stores).await?;
    // Not 0, of which everything would be done.
    let working = output::progress(1);
    let result = tokio::select! {
        result = work(args, &engine, &working, output) => result,
        signal = signals.next() => interrupted(args, signal.as_str()),
    };
    working.finish_and_clear();
    engine.close().await;
    result
}

async fn work(args: &Args, engine: &Engine, working: &ProgressBar, output: Output) -> anyhow::Result<()> {
    let (operator, sale) = (engine.operator(), args.sale);
    working.set_message("recorded orders");
    let show = |LoadProgress { done, total, .. }| {
        working.set_length(total);
        working.set_position(done);
    };
    if args.dry_run {
        let lines = operator.recover_dry_run(sale, show).await?.lines;
        working.finish_and_clear();
        output.show(&json!({ "sale": sale, "dryRun": true, "differences": lines }), || {
            match lines.as_slice() {
                [] => format!("recovering sale {sale} would change nothing"),
                lines => format!("recovering sale {sale} would change:\n{}", lines.join("\n")),
            }
        })
    } else {
        let epoch = operator.recover(sale, show).await?;
        working.finish_and_clear();
        output.show(&json!({ "sale": sale, "epoch": epoch }), || {
            format!("sale {sale} recovered, epoch {epoch}")
        })
    }
}

fn interrupted(args: &Args, signal: &str) -> anyhow::Result<()> {
    if args.dry_run {
        bail!("{signal}: nothing was changed");
    }
    bail!(
        "{signal}: sale {0} sells nothing until it is loaded: a running server does that within seconds, \
         else run `flashsale recover {0}` again",
        args.sale
    )
}
