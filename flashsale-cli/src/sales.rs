//! `flashsale sales`: what is sold, and when.

use flashsale_core::{Engine, Sale, SaleId, SaleState};
use flashsale_server::StoreArgs;
use serde_json::json;

use crate::{
    output::{self, Output},
    stores::connect,
};

/// Look at sales; pause, resume and close them
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  flashsale sales list")]
pub(crate) enum Command {
    /// List all sales
    #[command(after_help = "Example:\n  flashsale sales list --output json")]
    List,
    /// Show one sale with its products: their stock, what is sold by the record, what is left in Redis
    #[command(after_help = "Example:\n  flashsale sales show 1")]
    Show {
        /// The sale's id
        id: SaleId,
    },
    /// Stop selling until the sale is resumed; orders that were admitted are still recorded
    #[command(after_help = "Example:\n  flashsale sales pause 1")]
    Pause {
        /// The sale's id
        id: SaleId,
    },
    /// Sell again
    #[command(after_help = "Example:\n  flashsale sales resume 1")]
    Resume {
        /// The sale's id
        id: SaleId,
    },
    /// Stop selling for good; orders that were admitted are still recorded
    #[command(after_help = "Example:\n  flashsale sales close 1")]
    Close {
        /// The sale's id
        id: SaleId,
    },
}

pub(crate) async fn run(command: Command, stores: &StoreArgs, output: Output) -> anyhow::Result<()> {
    let engine = connect(stores).await?;
    match command {
        Command::List => list(&engine, output).await?,
        Command::Show { id } => show(&engine, id, output).await?,
        Command::Pause { id } => set_state(&engine, id, SaleState::Paused, output).await?,
        Command::Resume { id } => set_state(&engine, id, SaleState::Open, output).await?,
        Command::Close { id } => set_state(&engine, id, SaleState::Closed, output).await?,
    }
    engine.close().await;
    Ok(())
}

async fn list(engine: &Engine, output: Output) -> anyhow::Result<()> {
    let sales = engine.operator().sales().await?;
    output.show(&sales, || {
        if sales.is_empty() {
            return "no sales; `flashsale seed` creates one".to_owned();
        }
        let row = |sale: &Sale| {
            let sum = |units: fn(&flashsale_core::Product) -> u32| {
                sale.products.iter().map(units).map(u64::from).sum()
            };
            let (sold, stock): (u64, u64) = (sum(|product| product.sold), sum(|product| product.stock));
            [
                sale.id.to_string(),
                sale.slug.clone(),
                sale.name.clone(),
                sale.state.to_string(),
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

async fn show(engine: &Engine, id: SaleId, output: Output) -> anyhow::Result<()> {
    let operator = engine.operator();
    let sale = operator.sale(id).await?;
    let live = operator.live_stock(id).await?;
    let left = |product| live.iter().find(|stock| stock.product == product).and_then(|stock| stock.left);

    let mut value = serde_json::to_value(&sale)?;
    for (product, shown) in sale.products.iter().zip(value["products"].as_array_mut().into_iter().flatten()) {
        shown["left"] = json!(left(product.id));
    }
    output.show(&value, || {
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
        format!("{}\n{}", head(&sale), output::table(header, rows))
    })
}

fn head(sale: &Sale) -> String {
    let loaded = match sale.loaded_epoch {
        loaded if loaded == sale.epoch && loaded.get() > 0 => format!("yes, epoch {loaded}"),
        _ => "no; a running flashsale-server loads it, or `flashsale recover`".to_owned(),
    };
    output::facts([
        ("sale", sale.id.to_string()),
        ("slug", sale.slug.clone()),
        ("name", sale.name.clone()),
        ("currency", sale.currency.to_string()),
        ("state", sale.state.to_string()),
        ("starts", output::instant(sale.starts_at)),
        ("ends", output::instant(sale.ends_at)),
        ("in Redis", loaded),
    ])
}

async fn set_state(engine: &Engine, id: SaleId, state: SaleState, output: Output) -> anyhow::Result<()> {
    engine.operator().set_state(id, state).await?;
    output.show(&json!({ "sale": id, "state": state }), || {
        format!("sale {id} is {state}; running servers follow within 2 seconds")
    })
}
