//! `flashsale seed`: sales from a file, or the demo catalogue.

use std::{fs, path::PathBuf};

use flashsale_core::{Created, NewSale};
use flashsale_server::StoreArgs;
use serde_json::json;

use crate::{
    catalogue,
    failure::usage,
    output::{self, Output},
    sale_file,
    stores::connect,
};

/// Create a sale from a TOML file, or the demo catalogue
///
/// A sale is known by its slug: repeating it changes nothing and says so.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A sale file; without one, the demo catalogue
    file: Option<PathBuf>,
}

const AFTER_HELP: &str = r#"Examples:
  flashsale seed
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

pub(crate) async fn run(args: &Args, stores: &StoreArgs, output: Output) -> anyhow::Result<()> {
    let sale = read(args)?;
    let engine = connect(stores).await?;
    engine.migrate().await?;
    let (id, created) = match engine.operator().create_sale(&sale).await? {
        Created::New(id) => (id, true),
        Created::Exists(id) => (id, false),
    };
    engine.close().await;
    let slug = &sale.slug;
    output.show(&json!({ "sale": id, "slug": slug, "created": created }), || {
        if created {
            format!("created sale {id} ({slug}) with {}", output::count(sale.products.len(), "product"))
        } else {
            format!("sale {id} ({slug}) exists already; nothing was changed")
        }
    })
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
