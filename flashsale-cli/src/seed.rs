//! `flashsale seed`: sales from a file, or the demo catalogue.

mod difference;
mod preview;

use std::{fs, path::PathBuf};

use anyhow::bail;
use chrono::Utc;
use flashsale_core::{Created, NewSale, Operator, Sale, SaleId};
use serde_json::json;

use crate::{
    call::Call,
    catalogue,
    failure::{tell, usage},
    output::{self, UNCHANGED},
    sale_file,
};

/// Create a sale from a TOML file, or the demo catalogue
///
/// Shows the sale as it will be. A sale is known by its slug: repeating it changes nothing, and says where the file
/// differs from the sale that there is.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A sale file; without one, the demo catalogue
    file: Option<PathBuf>,
    /// Only show the sale, and say whether there is one of its slug already
    #[arg(long)]
    dry_run: bool,
}

const AFTER_HELP: &str = r#"Examples:
  flashsale seed
  flashsale seed sale.toml --dry-run
  flashsale seed sale.toml

A sale file:
  slug = "black-friday"
  name = "Black Friday"
  currency = "USD"
  starts_at = 2026-11-27T12:00:00Z
  ends_at = 2026-11-27T18:00:00Z

  [[products]]
  id = 10                        # may be left out
  name = "Headphones"
  description = "Wireless"       # may be left out
  image_url = "https://…"        # may be left out
  original_price = "399.99"
  sale_price = "249.99"
  stock = 500
  per_user_limit = 3"#;

pub(crate) async fn run(args: &Args, call: &Call) -> anyhow::Result<()> {
    let sale = read(args)?;
    // The demo catalogue is meant as it is.
    let oddities = args.file.as_ref().map(|_| preview::oddities(&sale, Utc::now())).unwrap_or_default();
    for oddity in &oddities {
        tell(&format!("warning: {oddity}"));
    }
    if args.dry_run {
        return rehearse(&sale, &oddities, call).await;
    }
    let engine = call.connect().await?;
    engine.migrate().await?;
    let operator = call.operator(&engine);
    let (id, created, differences) = match operator.create_sale(&sale).await? {
        Created::New(id) => (id, true, Vec::new()),
        Created::Exists(id) => (id, false, differences(&sale, &operator.sale(id).await?, &operator).await?),
    };
    engine.close().await;
    warn(&differences);
    let slug = &sale.slug;
    let value = json!({ "sale": id, "slug": slug, "created": created, "differences": differences });
    call.output.show(&value, || {
        let preview = preview::as_text(&sale, Utc::now());
        let products = output::count(sale.products.len(), "product");
        if created {
            format!("{preview}\n\ncreated sale {id} ({slug}) with {products}; running servers sell it within 2 seconds")
        } else {
            let differs = if differences.is_empty() { "" } else { ", and the file differs from it" };
            format!(
                "sale {id} ({slug}) exists already{differs}; nothing was changed. `flashsale sales show {id}` shows \
                 it as it is"
            )
        }
    })
}

/// Shows what would be done. Stores that are not there keep nobody from looking at his file.
async fn rehearse(sale: &NewSale, oddities: &[String], call: &Call) -> anyhow::Result<()> {
    let place = match place(sale, call).await {
        Ok(Place::Taken(refusal)) => bail!(refusal),
        Ok(place) => Some(place),
        Err(error) => {
            tell(&format!("warning: whether there is a sale {} already is not known: {error}", sale.slug));
            None
        }
    };
    let (id, differences) = match &place {
        Some(Place::Exists(id, differences)) => (Some(id), differences.as_slice()),
        _ => (None, &[][..]),
    };
    warn(differences);
    let mut value = preview::as_json(sale);
    value["dryRun"] = true.into();
    value["warnings"] = json!(oddities);
    // Null: it is not known, or there is none; `storesAsked` says which.
    value["exists"] = json!(id);
    value["storesAsked"] = json!(place.is_some());
    value["differences"] = json!(differences);
    call.output.show(&value, || {
        let outcome = match id {
            Some(id) => format!("sale {id} has this slug already and would stay as it is\n"),
            None if place.is_some() => "it would be created\n".to_owned(),
            None => String::new(),
        };
        format!("{}\n\n{outcome}{UNCHANGED}", preview::as_text(sale, Utc::now()))
    })
}

/// What there is where the sale would be.
enum Place {
    Free,
    /// A sale of this slug, from which the file differs so.
    Exists(SaleId, Vec<String>),
    /// Another sale's products, for which it is refused.
    Taken(String),
}

async fn place(new: &NewSale, call: &Call) -> anyhow::Result<Place> {
    let operator = call.connect().await?.operator();
    let sales = operator.sales().await?;
    if let Some(sale) = sales.iter().find(|sale| sale.slug == new.slug) {
        return Ok(Place::Exists(sale.id, differences(new, sale, &operator).await?));
    }
    let mut ids = new.products.iter().filter_map(|product| product.id);
    let taken = ids.find_map(|id| Some((id, sales.iter().find(|sale| sale.product(id).is_some())?)));
    Ok(taken.map_or(Place::Free, |(product, sale)| {
        Place::Taken(format!(
            "product {product} belongs to sale {} ({}) already; a product id stands for one product in one sale",
            sale.id, sale.slug
        ))
    }))
}

async fn differences(file: &NewSale, sale: &Sale, operator: &Operator) -> anyhow::Result<Vec<String>> {
    let changes = operator.stock_changes(sale.id).await?;
    Ok(difference::differences(file, sale, &changes, Utc::now()))
}

/// Most differences that are told.
const TOLD: usize = 20;

fn warn(differences: &[String]) {
    for difference in differences.iter().take(TOLD) {
        tell(&format!("warning: {difference}"));
    }
    if differences.len() > TOLD {
        tell(&format!("warning: and {} more; --output json has them all", differences.len() - TOLD));
    }
}

fn read(args: &Args) -> anyhow::Result<NewSale> {
    let (name, text) = match &args.file {
        None => ("the demo catalogue".into(), catalogue::DEMO.to_owned()),
        Some(path) => {
            let text = fs::read_to_string(path);
            (path.display().to_string(), text.map_err(|error| usage(format!("{}: {error}", path.display())))?)
        }
    };
    sale_file::parse(&text).map_err(|complaint| usage(format!("{name}: {complaint}")))
}
