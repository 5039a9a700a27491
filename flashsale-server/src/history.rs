//! The recorded orders of a user.

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
};
use chrono::{DateTime, Utc};
use flashsale_core::{
    Currency, Invalid, Money, OrderId, OrderLine, OrderRecord, OrderState, ProductId, UserId,
};
use serde::{Deserialize, Serialize};

use crate::{
    app::App,
    identity::Caller,
    path::segment,
    problem::{Code, Problem},
};

#[derive(Deserialize)]
pub(crate) struct Page {
    limit: Option<String>,
    before: Option<String>,
}

impl Page {
    const DEFAULT_LIMIT: u32 = 20;
    const MAX_LIMIT: u32 = 100;

    /// How many orders, and before which one. An empty value is one that was not given.
    fn read(self) -> Result<(u32, Option<OrderId>), Problem> {
        let given = |value: Option<String>| value.filter(|text| !text.is_empty());
        let limit = match given(self.limit) {
            None => Self::DEFAULT_LIMIT,
            Some(text) => {
                let number = text.parse().ok().filter(|limit| (1..=Self::MAX_LIMIT).contains(limit));
                let reason = format!("must be between 1 and {}", Self::MAX_LIMIT);
                number.ok_or_else(|| Problem::invalid("limit", reason))?
            }
        };
        let before = given(self.before).map(|text| text.parse().map_err(|e: Invalid| e.in_field("before")));
        Ok((limit, before.transpose()?))
    }
}

/// The recorded orders of the caller, newest first
#[utoipa::path(get, path = "/api/orders/{userId}", tag = "orders", params(("userId" = String, Path)), responses((status = 200, description = "The orders")))]
pub(crate) async fn history(
    State(app): State<App>,
    Caller(caller): Caller,
    path: Result<Path<String>, PathRejection>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Vec<Order>>, Problem> {
    let user: UserId = segment(path, "userId")?;
    if user != caller {
        return Err(Problem::new(Code::Forbidden, "These orders belong to somebody else."));
    }
    let Query(page) = page.map_err(|error| Problem::invalid("query", error.body_text()))?;
    let (limit, before) = page.read()?;
    let orders = app.engine.orders_of(&user, limit, before).await?;
    Ok(Json(orders.into_iter().map(Order::from).collect()))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Order {
    id: OrderId,
    user_id: UserId,
    status: OrderState,
    total_amount: Money,
    currency: Currency,
    created_at: DateTime<Utc>,
    items: Vec<OrderItem>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OrderItem {
    product_id: ProductId,
    product_name: String,
    quantity: u32,
    unit_price: Money,
    line_total: Money,
}

impl From<OrderRecord> for Order {
    fn from(order: OrderRecord) -> Self {
        Self {
            id: order.id,
            user_id: order.user,
            status: order.state,
            total_amount: order.total,
            currency: order.total.currency,
            created_at: order.created_at,
            items: order.lines.into_iter().map(OrderItem::from).collect(),
        }
    }
}

impl From<OrderLine> for OrderItem {
    fn from(line: OrderLine) -> Self {
        Self {
            product_id: line.product,
            product_name: line.product_name,
            quantity: line.quantity,
            unit_price: line.unit_price,
            line_total: line.line_total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read() {
        let read = |limit: Option<&str>, before: Option<&str>| {
            Page { limit: limit.map(str::to_owned), before: before.map(str::to_owned) }.read()
        };
        assert!(matches!(read(None, None), Ok((20, None))));
        assert!(matches!(read(Some(""), Some("")), Ok((20, None))));
        assert!(matches!(read(Some("100"), None), Ok((100, None))));
        for bad in ["0", "101", "-1", "x", "1.5"] {
            assert_eq!(read(Some(bad), None).unwrap_err().field(), Some("limit"), "{bad}");
        }
        assert_eq!(read(None, Some("x")).unwrap_err().field(), Some("before"));
    }
}
