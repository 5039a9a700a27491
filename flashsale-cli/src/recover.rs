//! `flashsale recover`: a sale's state in Redis, rebuilt from the record.

use anyhow::bail;
use flashsale_core::{LoadProgress, Operator, Sale, SaleState};
use indicatif::ProgressBar;
use serde_json::json;

use crate::{
    ask::Consent,
    call::Call,
    output::{self, Output, count},
    sale_ref::SaleRef,
    signals::Signals,
};

/// Rebuild a sale in Redis from Postgres and its queue
///
/// The sale sells nothing while it is rebuilt: it asks first, if the sale can sell now. Killed at any moment, it leaves the sale closed to buyers, and
/// running it again is right.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  flashsale recover 1 --dry-run\n  flashsale recover 1 --yes")]
pub(crate) struct Args {
    /// The sale's id or slug
    sale: SaleRef,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    consent: Consent,
}

pub(crate) async fn run(args: &Args, call: &Call) -> anyhow::Result<()> {
    let engine = call.connect().await?;
    let operator = call.operator(&engine);
    let sale = args.sale.find(&operator).await?;
    if !args.dry_run {
        ask(args, &operator, &sale).await?;
    }
    let mut signals = Signals::install()?;
    // Not 0, of which everything would be done.
    let working = output::progress(1);
    let result = tokio::select! {
        result = work(args, &sale, &operator, &working, call.output) => result,
        signal = signals.next() => interrupted(args, &sale, signal.as_str()),
    };
    working.finish_and_clear();
    engine.close().await;
    result
}

/// Where nothing is sold, nothing is interrupted: what is fenced, lost or over is mended without a question.
async fn ask(args: &Args, operator: &Operator, sale: &Sale) -> anyhow::Result<()> {
    let Ok(live) = operator.live(sale).await else { return Ok(()) };
    if live.state != Some(SaleState::Open) || !(sale.starts_at..sale.ends_at).contains(&live.at) {
        return Ok(());
    }
    let queued = live.queue.backlog;
    let sold: u64 = sale.products.iter().map(|product| u64::from(product.sold)).sum();
    let what_happens = format!(
        "Sale {} ({}) is selling: {} sold, {} in the queue. It sells nothing while it is rebuilt, which takes about a \
         second for 100,000 orders. Nothing is lost by it.",
        sale.id,
        sale.slug,
        count(sold, "unit"),
        count(queued, "order")
    );
    args.consent.ask(
        "the sale is selling, and sells nothing while it is rebuilt",
        &what_happens,
        "Rebuild it?",
    )
}

async fn work(
    args: &Args,
    sale: &Sale,
    operator: &Operator,
    working: &ProgressBar,
    output: Output,
) -> anyhow::Result<()> {
    let sale = sale.id;
    working.set_message("recorded orders");
    let show = |LoadProgress { done, total, .. }| {
        working.set_length(total);
        working.set_position(done);
    };
    if args.dry_run {
        let lines = operator.recover_dry_run(sale, show).await?.lines;
        working.finish_and_clear();
        output.show(&json!({ "sale": sale, "dryRun": true, "differences": lines }), || {
            let differences = match lines.as_slice() {
                [] => format!("recovering sale {sale} would change nothing"),
                lines => format!("recovering sale {sale} would change:\n{}", lines.join("\n")),
            };
            format!("{differences}\n{}", output::UNCHANGED)
        })
    } else {
        let epoch = operator.recover(sale, show).await?;
        working.finish_and_clear();
        output.show(&json!({ "sale": sale, "epoch": epoch }), || {
            format!("sale {sale} recovered, epoch {epoch}")
        })
    }
}

fn interrupted(args: &Args, sale: &Sale, signal: &str) -> anyhow::Result<()> {
    if args.dry_run {
        bail!("{signal}: nothing was changed");
    }
    bail!(
        "{signal}: sale {0} sells nothing until it is loaded: a running server does that within seconds, \
         else run `flashsale recover {0}` again",
        sale.id
    )
}
