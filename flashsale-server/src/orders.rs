//! Placing an order, and asking what became of it.

use axum::{
    Json,
    extract::{
        Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{LOCATION, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use flashsale_core::{
    Admission, Currency, FailureReason, IdempotencyKey, Invalid, Money, OrderId, OrderLine, OrderRecord,
    OrderState, ProductId, UserId,
};
use serde::{Deserialize, Serialize};

use crate::{
    app::App,
    body,
    identity::{Caller, ClientAddress},
    order_request,
    problem::{Code, Problem},
};

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Accepted {
    order_id: OrderId,
    message: &'static str,
    idempotency_key: IdempotencyKey,
    status_poll_url: String,
}

/// `POST /api/orders`
///
/// What can be judged without a store is judged first: a request that is refused for its form costs neither
/// Redis nor the sender's rate limit anything.
pub(crate) async fn place(
    State(app): State<App>,
    Caller(user): Caller,
    ClientAddress(client): ClientAddress,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let order = order_request::parse(user, &parts.headers, &body::json_object(&parts.headers, body).await?)?;
    let _turn = app.turn().await?;
    app.policy.rate_limit.check(&app.engine, client).await?;
    let key = order.key.clone();
    match app.engine.reserve(order).await? {
        Admission::Admitted(id) => Ok(accepted(id, key)),
        Admission::Replayed(id) => {
            let mut response = accepted(id, key);
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            Ok(response)
        }
        Admission::Refused(refusal) => Err(refusal.into()),
        other => {
            tracing::error!(?other, "an admission that this server does not know");
            Err(Problem::outcome_unknown())
        }
    }
}

fn accepted(order_id: OrderId, idempotency_key: IdempotencyKey) -> Response {
    let status_poll_url = format!("/api/orders/status/{order_id}");
    let location = HeaderValue::from_str(&status_poll_url).expect("a UUID is visible ASCII");
    let headers = [(LOCATION, location), (RETRY_AFTER, HeaderValue::from_static("1"))];
    let message = "The order is accepted. Ask statusPollUrl what becomes of it.";
    let body = Accepted { order_id, message, idempotency_key, status_poll_url };
    (StatusCode::ACCEPTED, headers, Json(body)).into_response()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusBody {
    order_id: OrderId,
    status: OrderState,
    failure_reason: Option<FailureReason>,
    last_updated_at: DateTime<Utc>,
}

/// `GET /api/orders/status/{orderId}`: the id, which only its buyer was told, is the permission.
pub(crate) async fn status(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<StatusBody>, Problem> {
    let id: OrderId = path_segment(path, "orderId")?;
    let status = app.engine.order_status(id).await?;
    let status = status.ok_or_else(|| Problem::new(Code::NotFound, format!("There is no order {id}.")))?;
    Ok(Json(StatusBody {
        order_id: status.id,
        status: status.state,
        failure_reason: status.failure,
        last_updated_at: status.updated_at,
    }))
}

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

/// `GET /api/orders/{userId}?limit=&before=`: the recorded orders of the caller, newest first.
pub(crate) async fn history(
    State(app): State<App>,
    Caller(caller): Caller,
    path: Result<Path<String>, PathRejection>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Vec<Order>>, Problem> {
    let user: UserId = path_segment(path, "userId")?;
    if user != caller {
        return Err(Problem::new(Code::Forbidden, "These orders belong to somebody else."));
    }
    let Query(page) = page.map_err(|error| Problem::invalid("query", error.body_text()))?;
    let (limit, before) = page.read()?;
    let orders = app.engine.orders_of(&user, limit, before).await?;
    Ok(Json(orders.into_iter().map(Order::from).collect()))
}

fn path_segment<T>(path: Result<Path<String>, PathRejection>, field: &str) -> Result<T, Problem>
where
    T: std::str::FromStr<Err = Invalid>,
{
    let Path(text) = path.map_err(|_| Problem::invalid(field, "must be UTF-8"))?;
    text.parse().map_err(|invalid: Invalid| invalid.in_field(field).into())
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
