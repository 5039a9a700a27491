//! `flashsale sales watch`: a sale as it sells.

mod seen;
mod view;

use std::{cell::RefCell, convert::Infallible, process::ExitCode, time::Duration};

use flashsale_core::{Operator, SaleId};
use tokio::time::{Instant, sleep};

use self::{seen::Seen, view::View};
use crate::{call::Call, failure::tell, sale_ref::SaleRef, signals::Signals};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// PostgreSQL counts orders one by one: at most this part of its time is spent on counting for us.
const COUNTING: u32 = 20;

/// Watch a sale live: stock, orders a second, queue, what became of the orders
///
/// On a terminal, a view that is drawn twice a second; else a line for each change, one a second at most; with
/// --output json, a JSON object a line. It ends when the sale is over and its queue is empty; Ctrl-C before that is exit
/// code 130. A store that goes away is shown, and waited for.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  flashsale sales watch 1\n  flashsale sales watch 1 --output json >> sale.log"
)]
pub(crate) struct Args {
    /// The sale's id or slug
    id: SaleRef,
    /// Go on after the sale is over, until Ctrl-C
    #[arg(long)]
    forever: bool,
}

pub(super) async fn run(args: &Args, operator: &Operator, call: &Call) -> anyhow::Result<ExitCode> {
    let sale = args.id.find(operator).await?;
    let mut signals = Signals::install()?;
    let id = sale.id;
    let mut view = View::new(call.output);
    let seen = RefCell::new(Seen::of(sale));
    let signal = tokio::select! {
        shown = show(&mut view, &seen, operator, args.forever) => { shown?; None }
        never = look_at_redis(operator, &seen) => match never {},
        never = look_at_record(operator, id, &seen) => match never {},
        signal = signals.next() => Some(signal),
    };
    view.close();
    let Some(signal) = signal.filter(|_| !args.forever) else { return Ok(ExitCode::SUCCESS) };
    tell("no longer watching; the sale goes on");
    // As a shell says of whatever a signal ended. It did not fail, but 0 says that the sale is over.
    Ok(ExitCode::from(u8::try_from(128 + signal as i32)?))
}

/// Returns once the sale is over, unless it is to go on for ever.
async fn show(
    view: &mut View,
    seen: &RefCell<Seen>,
    operator: &Operator,
    forever: bool,
) -> anyhow::Result<()> {
    loop {
        if !forever && seen.borrow().is_over() {
            // What was counted last may be older than the last order.
            let id = seen.borrow().sale.id;
            let (sale, tally) = tokio::join!(operator.sale(id), operator.tally(id));
            seen.borrow_mut().note_record(sale);
            seen.borrow_mut().note_tally(tally.ok());
            return view.show(&seen.borrow(), true);
        }
        view.show(&seen.borrow(), false)?;
        sleep(LOOK_EVERY).await;
    }
}

/// Each store has a loop of its own: one that does not answer must not keep the other from being shown.
async fn look_at_redis(operator: &Operator, seen: &RefCell<Seen>) -> Infallible {
    loop {
        let sale = seen.borrow().sale.clone();
        let live = operator.live(&sale).await;
        seen.borrow_mut().note_redis(live);
        sleep(LOOK_EVERY).await;
    }
}

async fn look_at_record(operator: &Operator, id: SaleId, seen: &RefCell<Seen>) -> Infallible {
    let mut count_at = Instant::now();
    loop {
        let sale = operator.sale(id).await;
        let answers = sale.is_ok();
        seen.borrow_mut().note_record(sale);
        let began = Instant::now();
        if answers && began >= count_at {
            let tally = operator.tally(id).await.ok();
            seen.borrow_mut().note_tally(tally);
            count_at = began + began.elapsed() * COUNTING;
        }
        sleep(LOOK_EVERY).await;
    }
}
