//! `flashsale seed`: sales from a file, or the demo catalogue.

mod preview;

use std::{fs, path::PathBuf};

use chrono::Utc;
use flashsale_core::{Created, NewSale, SaleId};
use serde_json::json;

use crate::{
    call::Call,
    catalogue,
    failure::{tell, usage},
    output, sale_file,
};

/// Create a sale from a TOML file, or the demo catalogue
///
/// Shows the sale as it will be. A sale is known by its slug: repeating it changes nothing and says so.
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
    let (id, created) = match call.operator(&engine).create_sale(&sale).await? {
        Created::New(id) => (id, true),
        Created::Exists(id) => (id, false),
    };
    engine.close().await;
    let slug = &sale.slug;
    call.output.show(&json!({ "sale": id, "slug": slug, "created": created }), || {
        let preview = preview::as_text(&sale, Utc::now());
        let products = output::count(sale.products.len(), "product");
        if created {
            format!("{preview}\n\ncreated sale {id} ({slug}) with {products}; running servers sell it within 2 seconds")
        } else {
            format!(
                "sale {id} ({slug}) exists already; nothing was changed. `flashsale sales show {id}` shows it as it is"
            )
        }
    })
}

/// Shows what would be done. Stores that are not there keep nobody from looking at his file.
async fn rehearse(sale: &NewSale, oddities: &[String], call: &Call) -> anyhow::Result<()> {
    let existing = match existing(sale, call).await {
        Ok(id) => Some(id),
        Err(error) => {
            tell(&format!("warning: whether there is a sale {} already is not known: {error}", sale.slug));
            None
        }
    };
    let mut value = preview::as_json(sale);
    value["dryRun"] = true.into();
    value["warnings"] = json!(oddities);
    // Null: it is not known, or there is none; `storesAsked` says which.
    value["exists"] = json!(existing.flatten());
    value["storesAsked"] = json!(existing.is_some());
    call.output.show(&value, || {
        let outcome = match existing {
            Some(None) => "dry run: it would be created".to_owned(),
            Some(Some(id)) => {
                format!("dry run: sale {id} has this slug already; nothing would be changed")
            }
            None => "dry run: nothing was changed".to_owned(),
        };
        format!("{}\n\n{outcome}", preview::as_text(sale, Utc::now()))
    })
}

async fn existing(sale: &NewSale, call: &Call) -> anyhow::Result<Option<SaleId>> {
    let sales = call.connect().await?.operator().sales().await?;
    Ok(sales.iter().find(|known| known.slug == sale.slug).map(|known| known.id))
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
