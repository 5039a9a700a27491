//! What is on sale now.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use flashsale_core::{ActiveProduct, Currency, Money, ProductId, SaleId};
use serde::Serialize;

use crate::{app::App, problem::Problem};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ActiveItem {
    id: ProductId,
    sale_id: SaleId,
    name: String,
    description: String,
    original_price: Money,
    discount_price: Money,
    currency: Currency,
    discount_percentage: f64,
    stock_remaining: u32,
    max_quantity_per_user: u32,
    start_time: DateTime<Utc>,
    end_time: DateTime<Utc>,
    image_url: String,
    time_remaining_seconds: u64,
}

/// What is on sale now
#[utoipa::path(get, path = "/api/flashsale/active", tag = "sales", responses((status = 200, description = "The products of all open sales")))]
pub(crate) async fn active(State(app): State<App>) -> Result<Json<Vec<ActiveItem>>, Problem> {
    let products = app.engine.active_products().await?;
    Ok(Json(products.into_iter().map(ActiveItem::from).collect()))
}

impl From<ActiveProduct> for ActiveItem {
    fn from(active: ActiveProduct) -> Self {
        let product = active.product;
        Self {
            id: product.id,
            sale_id: active.sale,
            name: product.name,
            description: product.description,
            original_price: product.original_price,
            discount_price: product.sale_price,
            currency: product.sale_price.currency,
            discount_percentage: discount(product.original_price, product.sale_price),
            stock_remaining: active.stock_remaining,
            max_quantity_per_user: product.per_user_limit,
            start_time: active.starts_at,
            end_time: active.ends_at,
            image_url: product.image_url,
            time_remaining_seconds: active.seconds_remaining,
        }
    }
}

/// By how many percent the sale is cheaper, to one decimal; 0 when it is not.
fn discount(original: Money, sale: Money) -> f64 {
    let saved = i128::from(original.minor) - i128::from(sale.minor);
    if saved <= 0 || original.minor <= 0 {
        return 0.0;
    }
    let original = i128::from(original.minor);
    let tenths = (saved * 1_000 + original / 2) / original;
    i32::try_from(tenths).map_or(0.0, |tenths| f64::from(tenths) / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discounts_have_one_decimal() {
        let usd = |minor| Money::from_minor(minor, "USD".parse().unwrap());
        let table = [
            (39_999, 24_999, 37.5),
            (100, 100, 0.0),
            (100, 0, 100.0),
            (0, 0, 0.0),
            (100, 200, 0.0),
            (3, 2, 33.3),
        ];
        for (original, sale, percent) in table {
            let found = discount(usd(original), usd(sale));
            assert!((found - percent).abs() < 1e-9, "{original} -> {sale}: {found}");
        }
    }
}
