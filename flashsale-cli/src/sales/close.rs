//! `flashsale sales close`: the end of a sale, and of its queue.

use std::time::{Duration, Instant};

use anyhow::bail;
use flashsale_core::{LiveSale, Operator, Sale, SaleId, SaleState};
use indicatif::ProgressBar;
use serde_json::json;

use super::{phase, sold_of_stock};
use crate::{
    ask::Consent,
    call::Call,
    failure::tell,
    output::{self, UNCHANGED, count},
    sale_ref::SaleRef,
    signals::Signals,
    span,
};

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Servers follow within 2 seconds, and a batch is recorded in less: after this, somebody is missing.
const MISSING_AFTER: Duration = Duration::from_secs(5);

/// Stop selling for good, and wait until what was ordered is recorded
///
/// A closed sale cannot be opened again. Orders that were admitted are still recorded: this waits for them and
/// tells the final figures. Ctrl-C ends only the waiting.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  flashsale sales close 1 --dry-run\n  flashsale sales close 1 --yes")]
pub(crate) struct Args {
    /// The sale's id or slug
    id: SaleRef,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until the queue is empty
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    consent: Consent,
}

pub(super) async fn run(args: &Args, operator: &Operator, call: &Call) -> anyhow::Result<()> {
    let sale = args.id.find(operator).await?;
    let queued = operator.live(&sale).await.map(|live| live.queue.backlog).ok();
    if args.dry_run {
        let (sold, stock) = sold_of_stock(&sale);
        let value =
            json!({ "sale": sale.id, "dryRun": true, "sold": sold, "stock": stock, "queued": queued });
        return call.output.show(&value, || format!("{}\n{UNCHANGED}", what_happens(&sale, queued)));
    }
    if sale.state != SaleState::Closed {
        args.consent.ask("a sale is closed for good", &what_happens(&sale, queued), "Close it?")?;
    }
    let mut signals = Signals::install()?;
    operator.set_state(sale.id, SaleState::Closed).await?;
    let id = sale.id;
    if args.no_wait {
        let value = json!({ "sale": id, "state": SaleState::Closed });
        return call
            .output
            .show(&value, || format!("sale {id} is closed; running servers follow within 2 seconds"));
    }
    let waiting = output::spinner("closing");
    let drained = tokio::select! {
        drained = drained(operator, id, &waiting) => drained,
        signal = signals.next() => {
            waiting.finish_and_clear();
            bail!("{}: sale {id} is closed and stays so; only the waiting ended. \
                   `flashsale sales close {id}` waits again", signal.as_str());
        }
    };
    waiting.finish_and_clear();
    drained?;
    show_end(operator, id, call).await
}

fn what_happens(sale: &Sale, queued: Option<u64>) -> String {
    let (sold, stock) = sold_of_stock(sale);
    let queue = match queued {
        None => "How many orders wait in the queue cannot be seen now; they will be recorded.".to_owned(),
        Some(0) => "No order waits in the queue.".to_owned(),
        Some(orders) => format!("{} in the queue will be recorded.", count(orders, "order")),
    };
    let now = chrono::Utc::now();
    let window = match phase(sale, now) {
        "closed" => "it is closed already".to_owned(),
        "ended" => format!("its window ended {}", span::from_now(sale.ends_at, now)),
        phase => format!("it is {phase}, and would end {}", span::from_now(sale.ends_at, now)),
    };
    format!(
        "Closing sale {} ({}): {sold} of {stock} units are sold, and {window}.\n{queue} \
         A closed sale cannot be opened again.",
        sale.id, sale.slug
    )
}

/// Returns once Redis admits no more and the queue is empty.
async fn drained(operator: &Operator, id: SaleId, waiting: &ProgressBar) -> anyhow::Result<()> {
    let mut told = Told { stuck_since: Instant::now(), queued: u64::MAX, said: None };
    loop {
        match look(operator, id).await {
            Ok(None) => return Ok(()),
            Ok(Some(live)) => {
                if live.state == Some(SaleState::Closed) && live.queue.backlog == 0 {
                    return Ok(());
                }
                waiting.set_message(format!("{} wait to be recorded", count(live.queue.backlog, "order")));
                told.note(&live, waiting);
            }
            Err(error) if error.is_transient() => told.once(format!("{error}; trying again"), waiting),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What Redis says of it; `None` if nothing is there that could be drained.
async fn look(operator: &Operator, id: SaleId) -> flashsale_core::Result<Option<LiveSale>> {
    // Again each time: a recovery raises the epoch.
    let sale = operator.sale(id).await?;
    if sale.purged_at.is_some() || sale.epoch.get() == 0 {
        return Ok(None);
    }
    operator.live(&sale).await.map(Some)
}

/// What the person who waits was told, and since when nothing has moved.
struct Told {
    stuck_since: Instant,
    queued: u64,
    said: Option<String>,
}

impl Told {
    fn note(&mut self, live: &LiveSale, waiting: &ProgressBar) {
        if live.queue.backlog < self.queued {
            self.queued = live.queue.backlog;
            self.stuck_since = Instant::now();
        }
        if self.stuck_since.elapsed() < MISSING_AFTER {
            return;
        }
        if live.state == Some(SaleState::Closed) {
            let orders = count(self.queued, "order");
            let what = format!(
                "{orders} wait and nobody records them: start `flashsale worker` or flashsale-server"
            );
            self.once(what, waiting);
        } else {
            let what = "no server has carried it to Redis yet: start flashsale-server";
            self.once(what.to_owned(), waiting);
        }
    }

    fn once(&mut self, what: String, waiting: &ProgressBar) {
        if self.said.as_ref() != Some(&what) {
            waiting.suspend(|| tell(&what));
            self.said = Some(what);
        }
    }
}

async fn show_end(operator: &Operator, id: SaleId, call: &Call) -> anyhow::Result<()> {
    let (sale, tally) = (operator.sale(id).await?, operator.tally(id).await?);
    let (sold, stock) = sold_of_stock(&sale);
    let value = json!({
        "sale": id,
        "state": sale.state,
        "sold": sold,
        "stock": stock,
        "confirmed": tally.confirmed,
        "failed": tally.failed,
        "parked": tally.parked,
    });
    call.output.show(&value, || {
        let parked = match tally.parked {
            0 => String::new(),
            parked => format!("\n{} parked: see `flashsale dead-letters list`", count(parked, "order")),
        };
        format!(
            "sale {id} is closed and its queue is empty: {sold} of {stock} units sold in {}, {} failed{parked}",
            count(tally.confirmed, "order"),
            tally.failed
        )
    })
}
