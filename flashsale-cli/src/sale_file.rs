//! Sale files: a sale to be created, in TOML. Every complaint names the line it is about.

use chrono::{DateTime, Utc};
use flashsale_core::{Currency, Invalid, Money, NewProduct, NewSale, ProductId};
use serde::Deserialize;
use toml::de::{DeTable, DeValue};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SaleFile {
    slug: String,
    name: String,
    currency: String,
    starts_at: toml::Value,
    ends_at: toml::Value,
    products: Vec<ProductEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProductEntry {
    id: Option<ProductId>,
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    image_url: String,
    original_price: String,
    sale_price: String,
    stock: u32,
    per_user_limit: u32,
}

/// Reads and checks a sale, or says in words for a person what is wrong with it and where.
pub(crate) fn parse(text: &str) -> Result<NewSale, String> {
    let file: SaleFile = toml::from_str(text).map_err(|error| error.to_string())?;
    let sale = file.into_sale().and_then(|sale| sale.validate().map(|()| sale));
    sale.map_err(|invalid| match line_of(text, &invalid.field) {
        Some(line) => format!("line {line}: {invalid}"),
        None => invalid.to_string(),
    })
}

impl SaleFile {
    fn into_sale(self) -> Result<NewSale, Invalid> {
        let currency: Currency = self.currency.parse()?;
        let products = self.products.into_iter().enumerate().map(|(index, product)| {
            product.into_product(currency).map_err(|invalid| {
                let field = format!("products[{index}].{}", invalid.field);
                invalid.in_field(field)
            })
        });
        Ok(NewSale {
            slug: self.slug,
            name: self.name,
            currency,
            starts_at: instant(&self.starts_at, "starts_at")?,
            ends_at: instant(&self.ends_at, "ends_at")?,
            products: products.collect::<Result<_, _>>()?,
        })
    }
}

impl ProductEntry {
    fn into_product(self, currency: Currency) -> Result<NewProduct, Invalid> {
        let price =
            |text: &str, field: &str| Money::parse(text, currency).map_err(|error| error.in_field(field));
        Ok(NewProduct {
            id: self.id,
            original_price: price(&self.original_price, "original_price")?,
            sale_price: price(&self.sale_price, "sale_price")?,
            name: self.name,
            description: self.description,
            image_url: self.image_url,
            stock: self.stock,
            per_user_limit: self.per_user_limit,
        })
    }
}

/// An instant as TOML's own date-time or as a string. It must name its offset: a sale that opens at "noon"
/// opens at another moment on every machine.
fn instant(value: &toml::Value, field: &str) -> Result<DateTime<Utc>, Invalid> {
    let text = match value {
        toml::Value::Datetime(datetime) => datetime.to_string(),
        toml::Value::String(text) => text.clone(),
        _ => String::new(),
    };
    let reason = "must be an instant with its offset, such as 2026-11-27T12:00:00Z";
    let bad = |_| Invalid { field: field.to_owned(), reason: reason.to_owned() };
    DateTime::parse_from_rfc3339(&text).map(|at| at.to_utc()).map_err(bad)
}

/// The line on which a field such as `products[1].stock` stands.
fn line_of(text: &str, field: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let mut span = None;
    let mut value = &DeValue::Table(table.into_inner());
    for name in field.split(['.', '[', ']']).filter(|name| !name.is_empty()) {
        let child = match name.parse::<usize>() {
            Ok(index) => value.get(index),
            Err(_) => value.get(name),
        };
        // A field that is left out is looked for where it should stand: in what would hold it.
        let Some(child) = child else { break };
        span = Some(child.span());
        value = child.get_ref();
    }
    let before = text.get(..span?.start)?;
    Some(before.matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::DEMO;

    /// The demo catalogue with one text in it replaced by another, and the line that this is on.
    fn complaint(from: &str, to: &str) -> (String, usize) {
        let line = DEMO.lines().position(|line| line.contains(from)).expect("the text is there") + 1;
        (parse(&DEMO.replacen(from, to, 1)).expect_err(to), line)
    }

    #[test]
    fn complaints_name_the_line() {
        for (from, to, about) in [
            ("stock = 200", "stocks = 200", "unknown field `stocks`"),
            ("currency", "colour = \"red\"\ncurrency", "unknown field `colour`"),
            ("\"899.99\"", "899.99", "expected a string"),
            ("\"899.99\"", "\"899.999\"", "decimals"),
            ("\"899.99\"", "\"-1\"", "products[1].sale_price"),
            ("stock = 200", "stock = -200", "-200"),
            ("stock = 200", "stock = 0", "products[1].stock"),
            ("per_user_limit = 5", "per_user_limit = 2000", "products[2].per_user_limit"),
            ("id = 3", "id = 0", "positive"),
            ("\"USD\"", "\"US\"", "ISO 4217"),
            ("2025-01-01T00:00:00Z", "2025-01-01T00:00:00", "offset"),
            ("2025-01-01T00:00:00Z", "\"noon\"", "offset"),
            ("2099-12-31T23:59:59Z", "2024-12-31T23:59:59Z", "after starts_at"),
            ("\"demo\"", "\"Demo Sale\"", "slug"),
        ] {
            let (complaint, line) = complaint(from, to);
            assert!(complaint.contains(&format!("line {line}")), "{to}: {complaint}");
            assert!(complaint.contains(about), "{to}: {complaint}");
        }
    }

    #[test]
    fn two_products_of_one_id_are_refused() {
        let (complaint, _) = complaint("id = 3", "id = 2");
        assert!(complaint.contains("same id twice"), "{complaint}");
    }

    #[test]
    fn an_instant_may_be_a_string_with_any_offset() {
        let sale = parse(&DEMO.replace("2025-01-01T00:00:00Z", "\"2025-01-01T02:00:00+02:00\"")).unwrap();
        assert_eq!(sale, parse(DEMO).unwrap());
    }

    #[test]
    fn ids_descriptions_and_pictures_may_be_left_out() {
        let left_out = ["id =", "description =", "image_url ="];
        let kept: Vec<_> =
            DEMO.lines().filter(|line| !left_out.iter().any(|start| line.starts_with(start))).collect();
        let sale = parse(&kept.join("\n")).unwrap();
        assert!(sale.products.iter().all(|product| product.id.is_none() && product.description.is_empty()));
    }
}
