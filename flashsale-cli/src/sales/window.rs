//! `flashsale sales window`: when a sale sells.

use chrono::{DateTime, Utc};
use flashsale_core::{Operator, Sale};
use serde_json::json;

use super::phase;
use crate::{ask::Consent, call::Call, failure::usage, output, sale_ref::SaleRef, span};

/// Move the window of a sale
///
/// An end in the past means now. It asks where buyers would notice at once: a sale that ends now, or stops until it
/// starts again, or that has ended and opens again.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("window").required(true).multiple(true).args(["starts_at", "ends_at"]),
    after_help = "Examples:\n  flashsale sales window 1 --ends-at +2h\n  \
                  flashsale sales window 1 --starts-at 2026-11-27T12:00:00Z --ends-at 2026-11-27T18:00:00Z --dry-run"
)]
pub(crate) struct Args {
    /// The sale's id or slug
    id: SaleRef,
    /// From then on it sells: an instant with its offset, or from now on, as +2h, +1h30m, now
    #[arg(long, value_name = "WHEN", value_parser = span::parse)]
    starts_at: Option<DateTime<Utc>>,
    /// From then on it sells no more
    #[arg(long, value_name = "WHEN", value_parser = span::parse)]
    ends_at: Option<DateTime<Utc>>,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    consent: Consent,
}

pub(super) async fn run(args: &Args, operator: &Operator, call: &Call) -> anyhow::Result<()> {
    let sale = args.id.find(operator).await?;
    let now = Utc::now();
    // As the record will take it.
    let ends_at = args.ends_at.map_or(sale.ends_at, |at| at.max(now));
    let window = (args.starts_at.unwrap_or(sale.starts_at), ends_at);
    if window.0 >= window.1 {
        let (starts, ends) = (output::instant(window.0), output::instant(window.1));
        return Err(usage(format!(
            "the sale would start {starts} and end {ends}, which is before that; move both"
        )));
    }
    let preview = preview(&sale, window, now);
    let effect = effect(&sale, window, now);
    if args.dry_run {
        let from = as_json((sale.starts_at, sale.ends_at));
        let value =
            json!({ "sale": sale.id, "dryRun": true, "from": from, "to": as_json(window), "effect": effect });
        let effect = effect.map(|effect| format!("\n{effect}.")).unwrap_or_default();
        return call.output.show(&value, || format!("{preview}{effect}\n{}", output::UNCHANGED));
    }
    if let Some(effect) = effect {
        args.consent.ask(effect, &format!("{preview}\n{effect}."), "Move it?")?;
    }
    let moved = operator.set_window(sale.id, args.starts_at, args.ends_at).await?;
    let value = json!({ "sale": sale.id, "from": as_json(moved.before), "to": as_json(moved.after) });
    call.output.show(&value, || {
        let (starts, ends) = (output::instant(moved.after.0), output::instant(moved.after.1));
        let done = format!("it sells {starts} to {ends}; running servers follow within 2 seconds");
        // Who was warned has seen the rest.
        if effect.is_some() { done } else { format!("{}\n{done}", self::preview(&sale, moved.after, now)) }
    })
}

/// What buyers notice at once, if they do.
fn effect(
    sale: &Sale,
    (starts, ends): (DateTime<Utc>, DateTime<Utc>),
    now: DateTime<Utc>,
) -> Option<&'static str> {
    let sells = (starts..ends).contains(&now);
    match phase(sale, now) {
        "open" if ends <= now => Some("the sale ends now"),
        "open" if !sells => Some("the sale stops selling until it starts again"),
        "ended" if ends > now => Some("the sale has ended and opens again"),
        _ => None,
    }
}

fn preview(sale: &Sale, (starts, ends): (DateTime<Utc>, DateTime<Utc>), now: DateTime<Utc>) -> String {
    let row = |name: &str, from: DateTime<Utc>, to: DateTime<Utc>| {
        let to = if from == to { "as it is".to_owned() } else { span::from_now(to, now) };
        [name.to_owned(), span::from_now(from, now), to]
    };
    let rows = [row("starts", sale.starts_at, starts), row("ends", sale.ends_at, ends)];
    format!("sale {} ({})\n{}", sale.id, sale.slug, output::table(["", "from", "to"], rows))
}

fn as_json((starts_at, ends_at): (DateTime<Utc>, DateTime<Utc>)) -> serde_json::Value {
    json!({ "startsAt": starts_at, "endsAt": ends_at })
}
