//! `flashsale recover`: a sale's state in Redis, rebuilt from the record.

use flashsale_core::{LoadProgress, SaleId};
use flashsale_server::StoreArgs;
use serde_json::json;

use crate::{
    output::{self, Output},
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
    let engine = connect(stores).await?;
    let (operator, sale) = (engine.operator(), args.sale);
    let working = output::spinner(format!("reading sale {sale} from both stores"));
    if args.dry_run {
        let lines = operator.recover_dry_run(sale).await?.lines;
        working.finish_and_clear();
        output.show(&json!({ "sale": sale, "dryRun": true, "differences": lines }), || {
            match lines.as_slice() {
                [] => format!("recovering sale {sale} would change nothing"),
                lines => format!("recovering sale {sale} would change:\n{}", lines.join("\n")),
            }
        })?;
    } else {
        let show = |progress: LoadProgress| {
            working.set_message(format!(
                "writing sale {sale} into Redis: {} of {}",
                progress.written, progress.total
            ));
        };
        let epoch = operator.recover(sale, show).await?;
        working.finish_and_clear();
        output.show(&json!({ "sale": sale, "epoch": epoch }), || {
            format!("sale {sale} recovered, epoch {epoch}")
        })?;
    }
    engine.close().await;
    Ok(())
}
