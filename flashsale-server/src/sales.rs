//! What is on sale now.

use axum::{
    Json,
    extract::State,
    http::header::{CACHE_CONTROL, HeaderValue},
    response::IntoResponse,
};
use chrono::{DateTime, Utc};
use flashsale_core::{ActiveProduct, Currency, Money, ProductId, SaleId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{app::App, openapi::schemas, problem::Problem};

/// It is the same for everybody, so a cache in front may take the herd's looking around off the stores.
const KEPT_FOR: HeaderValue = HeaderValue::from_static("public, max-age=1");

/// A product that is on sale now.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ActiveProduct)]
pub(crate) struct ActiveItem {
    #[schema(value_type = schemas::ProductId)]
    id: ProductId,
    #[schema(value_type = schemas::SaleId)]
    sale_id: SaleId,
    name: String,
    /// May be empty.
    description: String,
    #[schema(value_type = schemas::Money)]
    original_price: Money,
    /// What it costs now.
    #[schema(value_type = schemas::Money)]
    discount_price: Money,
    #[schema(value_type = schemas::Currency)]
    currency: Currency,
    /// By how much it is cheaper, to one decimal.
    #[schema(minimum = 0, maximum = 100)]
    discount_percentage: f64,
    /// Units left at this moment.
    stock_remaining: u32,
    /// Over all of a user's orders of the sale.
    #[schema(minimum = 1)]
    max_quantity_per_user: u32,
    start_time: DateTime<Utc>,
    end_time: DateTime<Utc>,
    /// May be empty.
    image_url: String,
    /// Until the sale ends.
    time_remaining_seconds: u64,
}

/// What is on sale now
#[utoipa::path(
    get,
    path = "/api/flashsale/active",
    operation_id = "listActiveProducts",
    tag = "sales",
    description = "The products of all sales that are open, sold-out ones too, with what is left of each at this \
                   moment. A sale that is being recovered is left out; if no other is open, the answer is 503.",
    responses((
        status = 200,
        description = "The products, by sale",
        body = Vec<ActiveItem>,
        headers(("Cache-Control" = String, description = "`public, max-age=1`: the same for everybody")),
        example = json!([{
            "id": 1,
            "saleId": 1,
            "name": "Sony WH-1000XM5 Headphones",
            "description": "Wireless headphones with noise cancelling",
            "originalPrice": "399.99",
            "discountPrice": "249.99",
            "currency": "USD",
            "discountPercentage": 37.5,
            "stockRemaining": 500,
            "maxQuantityPerUser": 3,
            "startTime": "2025-01-01T00:00:00Z",
            "endTime": "2099-12-31T23:59:59Z",
            "imageUrl": "",
            "timeRemainingSeconds": 2_306_411_999_u32,
        }])
    ))
)]
pub(crate) async fn active(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    let _turn = app.other_turns.next().await?;
    let products = app.engine.active_products().await?;
    let items: Vec<_> = products.into_iter().map(ActiveItem::from).collect();
    Ok(([(CACHE_CONTROL, KEPT_FOR)], Json(items)))
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
