//! Placing an order.

use axum::{
    body::Body,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, LOCATION, RETRY_AFTER},
    },
    response::Response,
};
use flashsale_core::{Admission, IdempotencyKey, OrderId, ProductId, Quantity};
use utoipa::ToSchema;

use crate::{
    app::App,
    body,
    identity::{Caller, ClientAddress},
    openapi::schemas,
    order_request,
    problem::Problem,
};

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What a buyer wants, as the document describes it. It is read by [`order_request`], which can say what is wrong
/// in which line.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it describes a body and holds none")]
struct PlaceOrder {
    /// May be absent if the `Idempotency-Key` header is there.
    #[schema(value_type = Option<schemas::IdempotencyKey>)]
    idempotency_key: Option<IdempotencyKey>,
    /// Lines of the same product are added up before anything is checked.
    #[schema(min_items = 1, max_items = 20)]
    items: Vec<PlaceOrderLine>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it describes a part of a body and holds none")]
struct PlaceOrderLine {
    #[schema(value_type = schemas::ProductId)]
    product_id: ProductId,
    #[schema(value_type = schemas::Quantity)]
    quantity: Quantity,
}

/// An order that will become `Confirmed` or `Failed`, as the document describes it; [`accepted`] writes it.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it describes a body and holds none")]
struct Accepted {
    #[schema(value_type = schemas::OrderId)]
    order_id: OrderId,
    /// For people.
    message: String,
    #[schema(value_type = schemas::IdempotencyKey)]
    idempotency_key: IdempotencyKey,
    /// The path that tells what became of the order.
    #[schema(example = "/api/orders/status/01a2030b-433f-86f7-8ef0-46ca00000100")]
    status_poll_url: String,
}

/// Places an order
///
/// What can be judged without a store is judged first: a request that is refused for its form costs neither
/// Redis nor the sender's rate limit anything.
#[utoipa::path(
    post,
    path = "/api/orders",
    operation_id = "placeOrder",
    tag = "orders",
    description = "The answer says whether the buyer is in: units and limit are taken, or nothing is. An accepted \
                   order is recorded within moments; ask `statusPollUrl` what became of it. The key may come in the \
                   body or as a header; from both only if they agree. A repeat of an accepted order is answered as \
                   the first time.",
    params((
        "Idempotency-Key" = Option<schemas::IdempotencyKey>, Header,
        description = "The key, bare or in double quotes, instead of the body's `idempotencyKey`",
    )),
    request_body(
        content = PlaceOrder,
        description = "At most 16 KiB. Members that are not known are ignored.",
        examples(
            ("one" = (summary = "Two of one product", value = json!({
                "idempotencyKey": "3f9c1a52-checkout-1", "items": [{"productId": 1, "quantity": 2}],
            }))),
            ("two" = (summary = "Two products: both or none", value = json!({
                "idempotencyKey": "3f9c1a52-checkout-2",
                "items": [{"productId": 1, "quantity": 1}, {"productId": 3, "quantity": 2}],
            }))),
        )
    ),
    responses((
        status = 202,
        description = "Accepted, now or before",
        body = Accepted,
        headers(
            ("Location" = String, description = "Where the order's status is"),
            ("Retry-After" = u32, description = "Seconds after which asking for the status is worth it"),
            ("Idempotency-Replayed" = String, description = "`true` for a repeat; absent the first time"),
        ),
        example = json!({
            "orderId": "01a2030b-433f-86f7-8ef0-46ca00000100",
            "message": "The order is accepted. Ask statusPollUrl what becomes of it.",
            "idempotencyKey": "3f9c1a52-checkout-1",
            "statusPollUrl": "/api/orders/status/01a2030b-433f-86f7-8ef0-46ca00000100",
        }),
    ))
)]
pub(crate) async fn place(
    State(app): State<App>,
    Caller(user): Caller,
    ClientAddress(client): ClientAddress,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let body = body::json(&parts.headers, body).await?;
    let mut order = order_request::read(user, &parts.headers, &body)?;
    order.request_id = parts.extensions.remove();
    let rate_limit = app.policy.limits.rate_limit;
    // A flood of what will be refused anyway is not to keep others waiting, nor to wait.
    rate_limit.check_known(&app.engine, client)?;
    let _turn = app.order_turns.next().await?;
    rate_limit.check(&app.engine, client).await?;
    let key = order.key.clone();
    match app.engine.reserve(order).await? {
        Admission::Admitted(id) => Ok(accepted(id, &key)),
        Admission::Replayed(id) => {
            let mut response = accepted(id, &key);
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

/// Written by hand: all of it but two texts is known beforehand, and to look for what a text needs escaped takes
/// longer than all the rest.
fn accepted(order_id: OrderId, idempotency_key: &IdempotencyKey) -> Response {
    const POLL: &str = "/api/orders/status/";
    let mut id = [0; 36];
    let id: &str = order_id.as_uuid().hyphenated().encode_lower(&mut id);
    let poll = [POLL, id].concat();
    // A key may hold a backslash.
    let key = serde_json::to_string(idempotency_key).expect("text becomes JSON");
    let body = [
        r#"{"orderId":""#,
        id,
        r#"","message":"The order is accepted. Ask statusPollUrl what becomes of it.","idempotencyKey":"#,
        &key,
        r#","statusPollUrl":""#,
        &poll,
        r#""}"#,
    ]
    .concat();
    // With room for what is added on the way back.
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    headers.insert(LOCATION, poll.try_into().expect("a UUID is visible ASCII"));
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::ACCEPTED;
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use flashsale_core::SaleId;
    use serde_json::{Value, json};

    /// Whatever stands in a key, the answer is the document that the API describes.
    #[tokio::test]
    async fn an_accepted_order_is_answered_in_json() {
        let id = OrderId::new(SaleId::try_from(7).unwrap());
        for key in ["k", r"a\b\u0041\", "'</script>&~"] {
            let response = accepted(id, &key.parse().unwrap());
            let poll = format!("/api/orders/status/{id}");
            assert_eq!(response.headers()[LOCATION], *poll);
            let body = to_bytes(response.into_body(), 1_000).await.unwrap();
            let expected = json!({
                "orderId": id,
                "message": "The order is accepted. Ask statusPollUrl what becomes of it.",
                "idempotencyKey": key,
                "statusPollUrl": poll,
            });
            assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
        }
    }
}
