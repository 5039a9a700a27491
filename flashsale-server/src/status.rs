//! What became of an order, asked once.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderValue, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use flashsale_core::{FailureReason, OrderId, OrderState, OrderStatus};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    openapi::schemas,
    path::segment,
    problem::{Code, Problem},
};

/// Where an order is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OrderProgress)]
pub(crate) struct StatusBody {
    #[schema(value_type = schemas::OrderId)]
    order_id: OrderId,
    #[schema(value_type = schemas::OrderStatus)]
    status: OrderState,
    /// Why it failed; null unless it did.
    #[schema(value_type = Option<schemas::FailureReason>, required)]
    failure_reason: Option<FailureReason>,
    /// When it came there.
    last_updated_at: DateTime<Utc>,
}

impl From<OrderStatus> for StatusBody {
    fn from(status: OrderStatus) -> Self {
        Self {
            order_id: status.id,
            status: status.state,
            failure_reason: status.failure,
            last_updated_at: status.updated_at,
        }
    }
}

/// What became of an order
#[utoipa::path(
    get,
    path = "/api/orders/status/{orderId}",
    operation_id = "getOrderStatus",
    tag = "orders",
    description = "Only the buyer was told the id: whoever knows it may ask. A status never goes back. An order is \
                   known for good; one that was only just accepted may be unknowable for a moment (503).",
    params(("orderId" = schemas::OrderId, Path, description = "As it was answered to the order")),
    responses((
        status = 200,
        description = "Where the order is",
        body = StatusBody,
        headers(("Retry-After" = u32, description = "Seconds until it is worth asking again; absent once the status is final")),
        example = json!({
            "orderId": "01a2030b-433f-86f7-8ef0-46ca00000100",
            "status": "Confirmed",
            "failureReason": null,
            "lastUpdatedAt": "2026-01-01T12:00:00.123Z",
        })
    ))
)]
pub(crate) async fn status(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id: OrderId = segment(path, "orderId")?;
    let _turn = app.other_turns.next().await?;
    let status = app.engine.order_status(id).await?.ok_or_else(|| unknown(id))?;
    let on_its_way = !status.state.is_final();
    let mut response = Json(StatusBody::from(status)).into_response();
    if on_its_way {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}

/// No store knows such an order.
pub(crate) fn unknown(id: OrderId) -> Problem {
    Problem::new(Code::NotFound, format!("There is no order {id}."))
}
