//! `flashsale sales`: what is sold, and when.

mod close;
mod stock;
mod watch;
mod window;

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use flashsale_core::{Operator, Product, Sale, SaleState};
use serde_json::json;

use crate::{call::Call, output, sale_ref::SaleRef, span};

/// Look at sales and watch them; pause, resume, restock and close them; move their window
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  flashsale sales list")]
pub(crate) enum Command {
    /// List all sales
    #[command(after_help = "Example:\n  flashsale sales list --output json")]
    List,
    /// Show one sale with its products: their stock, what is sold by the record, what is left in Redis
    #[command(after_help = "Example:\n  flashsale sales show 1")]
    Show {
        /// The sale's id or slug
        id: SaleRef,
    },
    Watch(watch::Args),
    /// Stop selling until the sale is resumed; orders that were admitted are still recorded
    #[command(after_help = "Example:\n  flashsale sales pause 1")]
    Pause {
        /// The sale's id or slug
        id: SaleRef,
    },
    /// Sell again
    #[command(after_help = "Example:\n  flashsale sales resume 1")]
    Resume {
        /// The sale's id or slug
        id: SaleRef,
    },
    Restock(stock::Restock),
    Reduce(stock::Reduce),
    Window(window::Args),
    Close(close::Args),
}

pub(crate) async fn run(command: Command, call: &Call) -> anyhow::Result<ExitCode> {
    let engine = call.connect().await?;
    let operator = call.operator(&engine);
    let mut code = ExitCode::SUCCESS;
    match command {
        Command::List => list(&operator, call).await?,
        Command::Show { id } => show(&operator, &id, call).await?,
        Command::Watch(args) => code = watch::run(&args, &operator, call).await?,
        Command::Pause { id } => set_state(&operator, &id, SaleState::Paused, call).await?,
        Command::Resume { id } => set_state(&operator, &id, SaleState::Open, call).await?,
        Command::Restock(args) => args.run(&operator, call).await?,
        Command::Reduce(args) => args.run(&operator, call).await?,
        Command::Window(args) => window::run(&args, &operator, call).await?,
        Command::Close(args) => close::run(&args, &operator, call).await?,
    }
    engine.close().await;
    Ok(code)
}

/// What a sale is doing now: `upcoming` and `ended` are no state that anybody wants, but what the clock says.
fn phase(sale: &Sale, now: DateTime<Utc>) -> &'static str {
    match sale.state {
        SaleState::Closed => "closed",
        _ if now >= sale.ends_at => "ended",
        SaleState::Open if now < sale.starts_at => "upcoming",
        state => state.as_str(),
    }
}

/// Units that are sold by the record, and all units.
fn sold_of_stock(sale: &Sale) -> (u64, u64) {
    let sum = |units: fn(&Product) -> u32| sale.products.iter().map(units).map(u64::from).sum();
    (sum(|product| product.sold), sum(|product| product.stock))
}

async fn list(operator: &Operator, call: &Call) -> anyhow::Result<()> {
    let sales = operator.sales().await?;
    let now = Utc::now();
    let mut value = serde_json::to_value(&sales)?;
    for (sale, shown) in sales.iter().zip(value.as_array_mut().into_iter().flatten()) {
        shown["phase"] = json!(phase(sale, now));
    }
    call.output.show(&value, || {
        if sales.is_empty() {
            return "no sales; `flashsale seed` creates one".to_owned();
        }
        let row = |sale: &Sale| {
            let (sold, stock) = sold_of_stock(sale);
            [
                sale.id.to_string(),
                sale.slug.clone(),
                sale.name.clone(),
                phase(sale, now).to_owned(),
                output::instant(sale.starts_at),
                output::instant(sale.ends_at),
                sale.products.len().to_string(),
                format!("{sold}/{stock}"),
            ]
        };
        output::table(
            ["id", "slug", "name", "state", "starts", "ends", "products", "sold"],
            sales.iter().map(row),
        )
    })
}

async fn show(operator: &Operator, id: &SaleRef, call: &Call) -> anyhow::Result<()> {
    let sale = id.find(operator).await?;
    let (live, away) = match operator.live_stock(sale.id).await {
        Ok(live) => (live, None),
        // What the record says is wanted most when Redis is away.
        Err(error) if error.is_transient() && !error.is_fenced() => (Vec::new(), Some(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let changes = operator.stock_changes(sale.id).await?;
    let left = |product| live.iter().find(|stock| stock.product == product).and_then(|stock| stock.left);

    let mut value = serde_json::to_value(&sale)?;
    for (product, shown) in sale.products.iter().zip(value["products"].as_array_mut().into_iter().flatten()) {
        shown["left"] = json!(left(product.id));
    }
    value["phase"] = json!(phase(&sale, Utc::now()));
    value["stockChanges"] = json!(changes);
    value["problems"] = json!(away.as_slice());
    call.output.show(&value, || {
        let rows = sale.products.iter().map(|product| {
            [
                product.id.to_string(),
                product.name.clone(),
                product.original_price.to_string(),
                product.sale_price.to_string(),
                product.stock.to_string(),
                product.sold.to_string(),
                output::or_dash(left(product.id)),
                product.per_user_limit.to_string(),
            ]
        });
        let header = ["id", "product", "price", "sale price", "stock", "sold", "left", "per user"];
        let changes = stock::as_text(&changes).map(|changes| format!("\n\n{changes}")).unwrap_or_default();
        format!("{}\n{}{changes}", head(&sale, away), output::table(header, rows))
    })
}

fn head(sale: &Sale, away: Option<String>) -> String {
    let loaded = match (away, sale.loaded_epoch) {
        (Some(away), _) => away,
        (None, loaded) if loaded == sale.epoch && loaded.get() > 0 => format!("yes, epoch {loaded}"),
        _ => "no; a running flashsale-server loads it, or `flashsale recover`".to_owned(),
    };
    let now = Utc::now();
    let state = match phase(sale, now) {
        phase if phase == sale.state.as_str() => phase.to_owned(),
        phase => format!("{} ({phase})", sale.state),
    };
    output::facts([
        ("sale", sale.id.to_string()),
        ("slug", sale.slug.clone()),
        ("name", sale.name.clone()),
        ("currency", sale.currency.to_string()),
        ("state", state),
        ("starts", span::from_now(sale.starts_at, now)),
        ("ends", span::from_now(sale.ends_at, now)),
        ("in Redis", loaded),
    ])
}

async fn set_state(operator: &Operator, id: &SaleRef, state: SaleState, call: &Call) -> anyhow::Result<()> {
    let sale = id.find(operator).await?;
    operator.set_state(sale.id, state).await?;
    let (changed, over) = (sale.state != state, phase(&sale, Utc::now()) == "ended");
    call.output.show(&json!({ "sale": sale.id, "state": state, "changed": changed }), || {
        if !changed {
            return format!("sale {} was {state} already; nothing was changed", sale.id);
        }
        let ended = if over { ", though its window has ended: see `flashsale sales window`" } else { "" };
        format!("sale {} is {state}{ended}; running servers follow within 2 seconds", sale.id)
    })
}
