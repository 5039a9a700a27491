//! The recorded orders of a user, page by page.

use axum::{
    Json,
    extract::{Path, RawQuery, State, rejection::PathRejection},
    http::{HeaderValue, header::LINK},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use flashsale_core::{
    Currency, Invalid, Money, OrderId, OrderLine, OrderRecord, OrderState, ProductId, UserId,
};
use serde::Serialize;
use url::form_urlencoded;
use utoipa::ToSchema;

use crate::{app::App, identity::Caller, openapi::schemas, path::segment, problem::Problem};

/// Which part of a history: so many orders, older than that one. An order keeps its id and its place, so that
/// whoever walks from page to page meets every order that was there at the start, once, while others come in.
struct Page {
    limit: u32,
    before: Option<OrderId>,
}

impl Page {
    const DEFAULT_LIMIT: u32 = 20;
    const MAX_LIMIT: u32 = 100;

    fn read(query: &str) -> Result<Self, Problem> {
        let limit = match once(query, "limit")? {
            None => Self::DEFAULT_LIMIT,
            Some(text) => {
                let number = text.parse().ok().filter(|limit| (1..=Self::MAX_LIMIT).contains(limit));
                let reason = format!("must be between 1 and {}", Self::MAX_LIMIT);
                number.ok_or_else(|| Problem::invalid("limit", reason))?
            }
        };
        let before = once(query, "before")?.map(|text| text.parse());
        let before = before.transpose().map_err(|invalid: Invalid| invalid.in_field("before"))?;
        Ok(Self { limit, before })
    }
}

/// The value of a parameter. Of two, each reader would take another one.
fn once(query: &str, name: &str) -> Result<Option<String>, Problem> {
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(given, _)| given == name);
    let first = values.next();
    if values.next().is_some() {
        return Err(Problem::invalid(name, "must be given once"));
    }
    Ok(first.map(|(_, value)| value.into_owned()))
}

/// The recorded orders of the caller, newest first
#[utoipa::path(
    get,
    path = "/api/orders/{userId}",
    operation_id = "listOrders",
    tag = "orders",
    description = "Orders that are final; one that is still on its way is not among them yet. If there are older \
                   ones, the `Link` header leads to them.",
    params(
        ("userId" = schemas::UserId, Path, description = "Must be the caller"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Orders on a page; 20 if not given"),
        ("before" = Option<schemas::OrderId>, Query, description = "Orders older than this one only"),
    ),
    responses((
        status = 200,
        description = "The orders",
        body = [Order],
        headers(("Link" = String, description = "The next page, as `<…>; rel=\"next\"` (RFC 8288); absent on the last one")),
        example = json!([{
            "id": "01a2030b-433f-86f7-8ef0-46ca00000100",
            "userId": "alice",
            "status": "Confirmed",
            "totalAmount": "499.98",
            "currency": "USD",
            "createdAt": "2026-01-01T12:00:00.123Z",
            "items": [{
                "productId": 1,
                "productName": "Sony WH-1000XM5 Headphones",
                "quantity": 2,
                "unitPrice": "249.99",
                "lineTotal": "499.98",
            }],
        }]),
    ))
)]
pub(crate) async fn history(
    State(app): State<App>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let user: UserId = segment(path, "userId")?;
    caller.must_be(&user)?;
    let Page { limit, before } = Page::read(&query.unwrap_or_default())?;
    let _turn = app.other_turns.next().await?;
    // One more than the page holds: it tells whether there is another page.
    let mut orders = app.engine.orders_of(&user, limit + 1, before).await?;
    let more = orders.len() > limit as usize;
    orders.truncate(limit as usize);
    let last = orders.last().filter(|_| more).map(|order| order.id);
    let mut response = Json(orders.into_iter().map(Order::from).collect::<Vec<_>>()).into_response();
    if let Some(last) = last {
        response.headers_mut().insert(LINK, next_page(&user, limit, last));
    }
    Ok(response)
}

/// All that a user id and an order id may hold stands in an address as it is.
fn next_page(user: &UserId, limit: u32, last: OrderId) -> HeaderValue {
    let link = format!(r#"</api/orders/{user}?limit={limit}&before={last}>; rel="next""#);
    HeaderValue::from_str(&link).expect("visible ASCII")
}

/// An order whose fate is recorded.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Order)]
struct Order {
    #[schema(value_type = schemas::OrderId)]
    id: OrderId,
    #[schema(value_type = schemas::UserId)]
    user_id: UserId,
    #[schema(value_type = schemas::OrderStatus)]
    status: OrderState,
    #[schema(value_type = schemas::Money)]
    total_amount: Money,
    #[schema(value_type = schemas::Currency)]
    currency: Currency,
    /// When it was accepted.
    created_at: DateTime<Utc>,
    items: Vec<OrderItem>,
}

/// What was ordered of one product.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OrderItem {
    #[schema(value_type = schemas::ProductId)]
    product_id: ProductId,
    product_name: String,
    #[schema(value_type = schemas::Quantity)]
    quantity: u32,
    /// As it was when the order was accepted.
    #[schema(value_type = schemas::Money)]
    unit_price: Money,
    #[schema(value_type = schemas::Money)]
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
        let read = |query: &str| Page::read(query).map(|page| (page.limit, page.before));
        for defaults in ["", "other=1", "&&", "LIMIT=5"] {
            assert!(matches!(read(defaults), Ok((20, None))), "{defaults}");
        }
        assert!(matches!(read("limit=100"), Ok((100, None))));
        assert!(matches!(read("li%6Dit=7&x=%ff"), Ok((7, None))));
        let id = OrderId::new(7.try_into().unwrap());
        assert_eq!(read(&format!("before={id}&limit=3")).unwrap(), (3, Some(id)));
        for bad in ["", "0", "101", "-1", "x", "1.5", "%ff", "1%00", "99999999999", "1&limit=1", "&limit="] {
            let query = format!("limit={bad}");
            assert_eq!(read(&query).unwrap_err().field(), Some("limit"), "{bad}");
        }
        for bad in ["", "x", "%ff", "0190f5fe-7c00-7a00-8000-000000000100", &format!("{id}&before={id}")] {
            let query = format!("before={bad}");
            assert_eq!(read(&query).unwrap_err().field(), Some("before"), "{bad}");
        }
    }

    #[test]
    fn a_link_can_be_followed_as_it_is() {
        let (user, last) = ("A.b_c@d:e+f-1".parse().unwrap(), OrderId::new(7.try_into().unwrap()));
        let link = next_page(&user, 5, last);
        let (address, relation) = link.to_str().unwrap().split_once("; ").unwrap();
        assert_eq!(relation, r#"rel="next""#);
        let address = address.strip_prefix('<').unwrap().strip_suffix('>').unwrap();
        let address = url::Url::parse("http://shop.example").unwrap().join(address).unwrap();
        assert_eq!(address.path(), format!("/api/orders/{user}"));
        let page = Page::read(address.query().unwrap()).unwrap();
        assert_eq!((page.limit, page.before), (5, Some(last)));
    }
}
