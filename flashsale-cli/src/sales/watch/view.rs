//! How a watched sale is shown: bars on a terminal, lines elsewhere.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use flashsale_core::{Product, Tally};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::seen::Seen;
use crate::{
    output::{self, Output, count},
    sales::phase,
};

/// More products than that are told of in one line.
const BARS: usize = 20;
const NAME: usize = 30;
const BAR: usize = 30;
/// Where the terminal does not say how wide it is.
const COLUMNS: usize = 80;
const LINE_EVERY: Duration = Duration::from_secs(1);

pub(super) enum View {
    Bars(Picture),
    Lines { output: Output, last: Option<(Instant, String)> },
}

/// All lines in one message: what is drawn piece by piece, or again without need, flickers.
pub(super) struct Picture {
    all: ProgressBar,
}

impl View {
    pub(super) fn new(output: Output) -> Self {
        if output == Output::Table && io::stdout().is_terminal() {
            Self::Bars(Picture::new())
        } else {
            Self::Lines { output, last: None }
        }
    }

    pub(super) fn show(&mut self, seen: &Seen, last_time: bool) -> anyhow::Result<()> {
        match self {
            Self::Bars(picture) => picture.show(&drawn(seen, output::columns().unwrap_or(COLUMNS))),
            Self::Lines { output, last } => {
                let text = as_line(seen);
                let due = match last {
                    _ if seen.live.is_none() && seen.away().is_empty() => false,
                    None => true,
                    Some((at, said)) => *said != text && (last_time || at.elapsed() >= LINE_EVERY),
                };
                if due {
                    output.show_line(&as_json(seen), || format!("{} {text}", output::instant(seen.now())))?;
                    *last = Some((Instant::now(), text));
                }
            }
        }
        Ok(())
    }

    /// Leaves the last picture standing, and the cursor below it.
    pub(super) fn close(self) {
        if let Self::Bars(Picture { all }) = self {
            // Drawn once more it would stand there twice: the `^C` of a terminal has moved the cursor.
            all.set_draw_target(ProgressDrawTarget::hidden());
            // The last line has no end of line. Nobody is left to be told of a terminal that is gone.
            let _ = output::line("");
        }
    }
}

impl Picture {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{msg}").expect("the template is right");
        let target = ProgressDrawTarget::stdout();
        Self { all: ProgressBar::with_draw_target(Some(0), target).with_style(style) }
    }

    fn show(&self, picture: &str) {
        if self.all.message() != picture {
            self.all.set_message(picture.to_owned());
        }
    }
}

fn drawn(seen: &Seen, columns: usize) -> String {
    let sale = &seen.sale;
    let products = &sale.products[..sale.products.len().min(BARS)];
    let width = products.iter().map(|product| short(product).chars().count()).max().unwrap_or_default();
    let head =
        format!("sale {} ({}): {}    {}", sale.id, sale.slug, seen.doing(), output::instant(seen.now()));
    let mut lines = vec![head];
    // The figures matter more than the bars.
    let stocks: Vec<_> = products.iter().map(|product| stock(product, seen.left(product))).collect();
    let figures = stocks.iter().map(|text| text.chars().count()).max().unwrap_or_default();
    let long = columns.saturating_sub(width + figures + "    ".len()).clamp(1, BAR);
    for (product, stock) in products.iter().zip(stocks) {
        let left = seen.left(product);
        let taken = left.map_or(i64::from(product.sold), |left| i64::from(product.stock) - left);
        let bar = bar(taken, product.stock, long);
        lines.push(format!("  {:width$} {bar} {stock}", short(product)));
    }
    if sale.products.len() > BARS {
        lines.push(format!("  … and {} more", count(sale.products.len() - BARS, "product")));
    }
    lines.push(format!("orders  {}", orders(seen)));
    lines.push(format!("queue   {}", queue(seen)));
    let cut = |line: String| line.chars().take(columns).collect::<String>();
    let mut lines: Vec<_> = lines.into_iter().map(cut).collect();
    // What is wrong is told whole.
    lines.push(seen.away().join("; "));
    lines.join("\n")
}

/// How much of the stock is taken.
fn bar(taken: i64, stock: u32, long: usize) -> String {
    let taken = u64::try_from(taken).unwrap_or(0).min(u64::from(stock));
    let full = usize::try_from(taken * long as u64 / u64::from(stock.max(1))).unwrap_or(long);
    format!("{}{}", "█".repeat(full), "░".repeat(long - full))
}

fn short(product: &Product) -> String {
    product.name.chars().filter(|c| !c.is_control()).take(NAME).collect()
}

fn stock(product: &Product, left: Option<i64>) -> String {
    let (stock, sold) = (product.stock, product.sold);
    match left {
        Some(left) if left <= 0 => format!("none left of {stock}, {sold} sold"),
        Some(left) => format!("{left} left of {stock}, {sold} sold"),
        None => format!("{sold} sold of {stock}"),
    }
}

fn orders(seen: &Seen) -> String {
    let admitted = seen.live.as_ref().filter(|live| live.state.is_some()).map(|live| live.admitted);
    let rate = seen.orders_per_second().map(|rate| format!(" ({rate}/s)")).unwrap_or_default();
    format!("{} admitted{rate}, {}", output::or_dash(admitted), recorded(seen.tally))
}

fn recorded(tally: Option<Tally>) -> String {
    let Some(Tally { confirmed, failed, parked, .. }) = tally else { return "not counted yet".to_owned() };
    let parked =
        if parked > 0 { format!(", {parked} parked: `flashsale dead-letters list`") } else { String::new() };
    format!("{confirmed} confirmed, {failed} failed{parked}")
}

fn queue(seen: &Seen) -> String {
    let Some(live) = &seen.live else { return "-".to_owned() };
    let queue = &live.queue;
    if queue.backlog == 0 {
        return "empty".to_owned();
    }
    let oldest = queue
        .oldest
        .map(|oldest| format!(", the oldest for {}", output::seconds(oldest)))
        .unwrap_or_default();
    format!("{} waiting{oldest}, {} in hand", queue.backlog, queue.pending)
}

/// All that matters in a line, without what changes by itself.
fn as_line(seen: &Seen) -> String {
    let sale = &seen.sale;
    let product = |product: &Product| format!("{}: {}", product.id, stock(product, seen.left(product)));
    let products: Vec<_> = sale.products.iter().take(BARS).map(product).collect();
    let admitted = seen.live.as_ref().map(|live| live.admitted);
    let queued = seen.live.as_ref().map(|live| live.queue.backlog);
    let mut parts = vec![
        format!("sale {} {}", sale.id, phase(sale, seen.now())),
        products.join(", "),
        format!("{} admitted", output::or_dash(admitted)),
        recorded(seen.tally),
        format!("{} queued", output::or_dash(queued)),
    ];
    match seen.live.as_ref().map(|live| live.state) {
        Some(None) => parts.push("fenced".to_owned()),
        Some(Some(state)) if state != sale.state => parts.push(format!("still {state} in Redis")),
        _ => {}
    }
    parts.extend(seen.away());
    parts.join("; ")
}

fn as_json(seen: &Seen) -> Value {
    let (sale, now) = (&seen.sale, seen.now());
    let products = sale.products.iter().map(|product| {
        json!({
            "id": product.id,
            "name": product.name,
            "stock": product.stock,
            "sold": product.sold,
            "left": seen.left(product),
        })
    });
    let queue = seen.live.as_ref().map(|live| {
        json!({
            "backlog": live.queue.backlog,
            "pending": live.queue.pending,
            "oldestSeconds": live.queue.oldest.map(|age| age.as_secs_f64()),
        })
    });
    json!({
        "at": now,
        "sale": sale.id,
        "slug": sale.slug,
        "state": sale.state,
        "phase": phase(sale, now),
        "stateInRedis": seen.live.as_ref().and_then(|live| live.state),
        "secondsToEnd": (sale.ends_at - now).num_seconds().max(0),
        "admitted": seen.live.as_ref().map(|live| live.admitted),
        "ordersPerSecond": seen.orders_per_second(),
        "confirmed": seen.tally.map(|tally| tally.confirmed),
        "failed": seen.tally.map(|tally| tally.failed),
        "parked": seen.tally.map(|tally| tally.parked),
        "queue": queue,
        "products": products.collect::<Vec<_>>(),
        "problems": seen.away(),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_bar_is_as_long_as_it_should_be_whatever_is_taken() {
        for (taken, stock, bar) in [
            (-1, 10, "░░░░"),
            (5, 10, "██░░"),
            (10, 10, "████"),
            (11, 10, "████"),
            (0, 0, "░░░░"),
            (i64::MAX, u32::MAX, "████"),
        ] {
            assert_eq!(super::bar(taken, stock, 4), bar, "{taken} of {stock}");
        }
    }
}
