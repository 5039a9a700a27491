//! A sale as it will be, and what is odd about it.

use chrono::{DateTime, TimeDelta, Utc};
use flashsale_core::{Money, NewProduct, NewSale};
use serde_json::{Value, json};

use crate::{output, span};

/// Longer than this is a typing error more often than a sale.
const LONG: TimeDelta = TimeDelta::days(31);

pub(super) fn as_text(sale: &NewSale, now: DateTime<Utc>) -> String {
    let facts = output::facts([
        ("sale", sale.slug.clone()),
        ("name", sale.name.clone()),
        ("starts", span::from_now(sale.starts_at, now)),
        (
            "ends",
            format!(
                "{}, after {}",
                span::from_now(sale.ends_at, now),
                span::length(sale.ends_at - sale.starts_at)
            ),
        ),
        ("sold out at", sold_out_at(sale).map_or_else(|| "-".to_owned(), with_currency)),
    ]);
    let rows = sale.products.iter().map(|product| {
        [
            product.id.map_or_else(|| "new".to_owned(), |id| id.to_string()),
            product.name.clone(),
            product.original_price.to_string(),
            product.sale_price.to_string(),
            discount(product).map_or_else(|| "-".to_owned(), |percent| format!("-{percent} %")),
            product.stock.to_string(),
            product.per_user_limit.to_string(),
        ]
    });
    let header = ["id", "product", "price", "sale price", "off", "stock", "per user"];
    format!("{facts}\n{}", output::table(header, rows))
}

pub(super) fn as_json(sale: &NewSale) -> Value {
    let product = |product: &NewProduct| {
        json!({
            "id": product.id,
            "name": product.name,
            "originalPrice": product.original_price,
            "salePrice": product.sale_price,
            "stock": product.stock,
            "perUserLimit": product.per_user_limit,
        })
    };
    json!({
        "slug": sale.slug,
        "name": sale.name,
        "currency": sale.currency,
        "startsAt": sale.starts_at,
        "endsAt": sale.ends_at,
        "products": sale.products.iter().map(product).collect::<Vec<_>>(),
    })
}

/// What is allowed, and rarely meant.
pub(super) fn oddities(sale: &NewSale, now: DateTime<Utc>) -> Vec<String> {
    let mut odd = Vec::new();
    if sale.ends_at <= now {
        odd.push(format!("the sale ended {}: nothing would be sold", span::from_now(sale.ends_at, now)));
    } else if sale.ends_at - sale.starts_at.max(now) > LONG {
        odd.push(format!("the sale goes on for {}", span::length(sale.ends_at - sale.starts_at.max(now))));
    }
    for product in &sale.products {
        let name = &product.name;
        if product.sale_price.minor > product.original_price.minor {
            odd.push(format!(
                "{name}: the sale price {} is above the price {}",
                product.sale_price, product.original_price
            ));
        } else if product.sale_price.minor == 0 {
            odd.push(format!("{name}: it is given away"));
        }
        if product.per_user_limit > product.stock {
            odd.push(format!(
                "{name}: one user may buy {}, and there are {}",
                product.per_user_limit, product.stock
            ));
        }
    }
    odd
}

/// Whole percent off, rounded down: no more is promised than is given.
fn discount(product: &NewProduct) -> Option<i64> {
    let (price, sale_price) = (product.original_price.minor, product.sale_price.minor);
    (0 < price && sale_price <= price).then(|| (price - sale_price) * 100 / price)
}

/// What all units bring.
fn sold_out_at(sale: &NewSale) -> Option<Money> {
    let of_product = |product: &NewProduct| product.sale_price.minor.checked_mul(i64::from(product.stock));
    let total = sale.products.iter().try_fold(0_i64, |sum, product| sum.checked_add(of_product(product)?))?;
    Some(Money::from_minor(total, sale.currency))
}

fn with_currency(money: Money) -> String {
    format!("{money} {}", money.currency)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalogue::DEMO, sale_file};

    fn odd(from: &str, to: &str) -> Vec<String> {
        let sale = sale_file::parse(&DEMO.replacen(from, to, 1)).unwrap();
        oddities(&sale, "2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn what_is_rarely_meant_is_told() {
        let year: &[&str] = &["goes on for"];
        for (from, to, said) in [
            ("2099-12-31", "2026-01-31", &[][..]),
            ("2099-12-31", "2025-12-31", &["the sale ended 2025-12-31T23:59:59Z (1 s ago)"]),
            ("\"249.99\"", "\"0.00\"", &["goes on", "given away"]),
            ("\"249.99\"", "\"400.00\"", &["goes on", "400.00 is above the price 399.99"]),
            ("stock = 500", "stock = 2", &["goes on", "may buy 3, and there are 2"]),
            ("Sony", "Sony", year),
        ] {
            let odd = odd(from, to);
            assert_eq!(odd.len(), said.len(), "{to}: {odd:?}");
            assert!(odd.iter().zip(said).all(|(odd, said)| odd.contains(said)), "{to}: {odd:?}");
        }
    }

    #[test]
    fn a_preview_says_what_it_comes_to() {
        let sale = sale_file::parse(DEMO).unwrap();
        let text = as_text(&sale, "2024-12-31T22:00:00Z".parse().unwrap());
        assert!(text.contains("(in 2 h)") && text.contains("484983.00 USD"), "{text}");
        let row = text.lines().find(|line| line.contains("Sony")).unwrap();
        assert!(row.contains("-37 %"), "{row}");
    }
}
