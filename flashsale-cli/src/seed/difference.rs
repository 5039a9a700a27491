//! How a sale file differs from the sale of its slug that there is, and what brings the sale there.

use std::fmt::Display;

use chrono::{DateTime, SecondsFormat, Utc};
use flashsale_core::{ChangeOutcome, NewProduct, NewSale, Product, Sale, SaleState, StockChange};

/// A line for each difference, with its command, if there is one.
pub(super) fn differences(
    file: &NewSale,
    sale: &Sale,
    changes: &[StockChange],
    now: DateTime<Utc>,
) -> Vec<String> {
    let mut lines = Vec::new();
    fixed(&mut lines, "the sale's name", &file.name, &sale.name);
    fixed(&mut lines, "the sale's currency", &file.currency, &sale.currency);
    lines.extend(window(file, sale, now));
    let mut unmatched: Vec<_> = sale.products.iter().collect();
    for wanted in &file.products {
        // Where the file leaves the id to the database, the name is all there is to go by.
        let is_it = |product: &&Product| match wanted.id {
            Some(id) => product.id == id,
            None => product.name == wanted.name,
        };
        match unmatched.iter().position(is_it) {
            Some(at) => of_product(&mut lines, wanted, unmatched.remove(at), sale, changes),
            None => lines.push(format!("{} is only in the file: it cannot be added", wanted.name)),
        }
    }
    for product in unmatched {
        lines.push(format!(
            "product {} ({}) is only in the sale: it cannot be removed",
            product.id, product.name
        ));
    }
    lines
}

/// What stays as it was created.
fn fixed<T: PartialEq + Display>(lines: &mut Vec<String>, what: &str, file: &T, sale: &T) {
    if file != sale {
        let (file, sale) = (file.to_string(), sale.to_string());
        lines.push(format!("{what} is {file:?} in the file and {sale:?} in the sale: it cannot be changed"));
    }
}

fn window(file: &NewSale, sale: &Sale, now: DateTime<Utc>) -> Option<String> {
    let (mut differs, mut flags) = (Vec::new(), String::new());
    for (verb, flag, wanted, stands) in [
        ("starts", "--starts-at", file.starts_at, sale.starts_at),
        ("ends", "--ends-at", file.ends_at, sale.ends_at),
    ] {
        // The record keeps no less than a microsecond.
        if wanted.timestamp_micros() != stands.timestamp_micros() {
            let (wanted, stands) = (exactly(wanted), exactly(stands));
            differs.push(format!("{verb} {wanted} in the file and {stands} in the sale"));
            flags = format!("{flags} {flag} {wanted}");
        }
    }
    let stays = is_over(sale) || (file.ends_at < now && sale.ends_at < now);
    let remedy = if stays {
        "it cannot be changed any more".to_owned()
    } else {
        format!("`flashsale sales window {}{flags}` moves it", sale.id)
    };
    (!differs.is_empty()).then(|| format!("the sale {}: {remedy}", differs.join(", ")))
}

fn of_product(
    lines: &mut Vec<String>,
    file: &NewProduct,
    product: &Product,
    sale: &Sale,
    changes: &[StockChange],
) {
    let of = |what: &str| format!("the {what} of product {}", product.id);
    fixed(lines, &of("name"), &file.name, &product.name);
    // Too long to be shown twice.
    if file.description != product.description {
        lines.push(format!("{} is another one in the sale: it cannot be changed", of("description")));
    }
    fixed(lines, &of("picture"), &file.image_url, &product.image_url);
    fixed(lines, &of("price"), &file.original_price, &product.original_price);
    fixed(lines, &of("sale price"), &file.sale_price, &product.sale_price);
    fixed(lines, &of("limit per user"), &file.per_user_limit, &product.per_user_limit);
    let more = i64::from(file.stock) - i64::from(product.stock);
    if more == 0 {
        return;
    }
    let applied =
        |change: &&StockChange| change.product == product.id && change.outcome == ChangeOutcome::Applied;
    let since: i64 = changes.iter().filter(applied).map(|change| change.units).sum();
    let (sale_id, id, units) = (sale.id, product.id, more.abs());
    let remedy = if is_over(sale) {
        "it cannot be changed any more".to_owned()
    } else if file.stock < product.sold {
        format!("{} are sold, so that it cannot be changed to that", product.sold)
    } else if since == -more {
        "it was changed since, as `flashsale sales show` tells".to_owned()
    } else if more > 0 {
        format!("`flashsale sales restock {sale_id} {id} {units}` changes it")
    } else {
        format!("`flashsale sales reduce {sale_id} {id} {units}` changes it")
    };
    lines.push(format!(
        "{} ({}) is {} in the file and {} in the sale: {remedy}",
        of("stock"),
        product.name,
        file.stock,
        product.stock
    ));
}

fn is_over(sale: &Sale) -> bool {
    sale.state == SaleState::Closed || sale.purged_at.is_some()
}

fn exactly(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
