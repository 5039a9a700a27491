//! What became of an order, asked once.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use chrono::{DateTime, Utc};
use flashsale_core::{FailureReason, OrderId, OrderState};
use serde::Serialize;

use crate::{
    app::App,
    path::segment,
    problem::{Code, Problem},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusBody {
    order_id: OrderId,
    status: OrderState,
    failure_reason: Option<FailureReason>,
    last_updated_at: DateTime<Utc>,
}

/// What became of an order
///
/// The id, which only its buyer was told, is the permission.
#[utoipa::path(get, path = "/api/orders/status/{orderId}", tag = "orders", params(("orderId" = String, Path)), responses((status = 200, description = "Where the order is")))]
pub(crate) async fn status(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<StatusBody>, Problem> {
    let id: OrderId = segment(path, "orderId")?;
    let status = app.engine.order_status(id).await?;
    let status = status.ok_or_else(|| Problem::new(Code::NotFound, format!("There is no order {id}.")))?;
    Ok(Json(StatusBody {
        order_id: status.id,
        status: status.state,
        failure_reason: status.failure,
        last_updated_at: status.updated_at,
    }))
}
