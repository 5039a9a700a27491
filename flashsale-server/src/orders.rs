//! Placing an order.

use axum::{
    Json,
    extract::{Request, State},
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{LOCATION, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use flashsale_core::{Admission, IdempotencyKey, OrderId};
use serde::Serialize;

use crate::{
    app::App,
    body,
    identity::{Caller, ClientAddress},
    order_request,
    problem::Problem,
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

/// Places an order
///
/// What can be judged without a store is judged first: a request that is refused for its form costs neither
/// Redis nor the sender's rate limit anything.
#[utoipa::path(post, path = "/api/orders", tag = "orders", responses((status = 202, description = "Accepted")))]
pub(crate) async fn place(
    State(app): State<App>,
    Caller(user): Caller,
    ClientAddress(client): ClientAddress,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let order = order_request::parse(user, &parts.headers, &body::json_object(&parts.headers, body).await?)?;
    let _turn = app.turns.next().await?;
    app.policy.limits.rate_limit.check(&app.engine, client).await?;
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
