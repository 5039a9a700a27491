//! A server without an engine: it reads an order as the real one does, and answers as the real one does.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::{
    Router,
    body::to_bytes,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, LOCATION, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
    routing::post,
};
use flashsale_core::{IdempotencyKey, Items, OrderId, ProductId, Quantity, SaleId, UserId};
use flashsale_server::{Patience, listen, serve};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// What it answers to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Answer {
    Accepted,
    SoldOut,
}

/// Read as the real server reads an order that has nothing unusual about it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Order<'a> {
    #[serde(borrow)]
    idempotency_key: &'a str,
    items: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    product_id: i64,
    quantity: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Accepted<'a> {
    order_id: OrderId,
    message: &'static str,
    idempotency_key: &'a IdempotencyKey,
    status_poll_url: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SoldOut {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    instance: &'static str,
    code: &'static str,
    product_id: ProductId,
    left: u32,
}

/// Serves until it is killed, with the real server's sockets and timers.
pub(crate) async fn run(answer: Answer) -> Result<()> {
    let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    println!("listening on http://{}", listener.local_addr()?);
    let app = Router::new().route("/api/orders", post(place)).with_state(answer);
    serve(vec![listener], app, Patience::default(), CancellationToken::new()).await?;
    Ok(())
}

async fn place(State(answer): State<Answer>, request: Request) -> Response {
    match read(request).await {
        Ok((key, _)) if answer == Answer::Accepted => accepted(&key),
        Ok((_, product)) => sold_out(product),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error:#}")).into_response(),
    }
}

async fn read(request: Request) -> Result<(IdempotencyKey, ProductId)> {
    let (parts, body) = request.into_parts();
    let _user: UserId = header(&parts.headers, "x-user-id")?.parse()?;
    let body = to_bytes(body, 16 * 1024).await?;
    let Order { idempotency_key, items } = serde_json::from_slice(&body)?;
    let key = idempotency_key.parse()?;
    let lines = items
        .iter()
        .map(|line| anyhow::Ok((ProductId::try_from(line.product_id)?, Quantity::try_from(line.quantity)?)));
    let items = Items::merge(lines.collect::<Result<Vec<_>>>()?)?;
    let (product, _) = items.iter().next().context("no lines")?;
    Ok((key, product))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str> {
    Ok(headers.get(name).with_context(|| format!("no {name}"))?.to_str()?)
}

fn accepted(key: &IdempotencyKey) -> Response {
    let id = OrderId::new(SaleId::try_from(1).expect("a sale"));
    let path = format!("/api/orders/status/{id}");
    let body = axum::Json(Accepted {
        order_id: id,
        message: "The order is accepted. Ask statusPollUrl what becomes of it.",
        idempotency_key: key,
        status_poll_url: &path,
    });
    let location = HeaderValue::from_str(&path).expect("a UUID is visible ASCII");
    let headers = [(LOCATION, location), (RETRY_AFTER, HeaderValue::from_static("1"))];
    (StatusCode::ACCEPTED, headers, body).into_response()
}

fn sold_out(product: ProductId) -> Response {
    let body = axum::Json(SoldOut {
        r#type: "urn:flashsale:problem:sold-out",
        title: "Sold out",
        status: 409,
        detail: format!("product {product} is sold out"),
        instance: "/api/orders",
        code: "sold-out",
        product_id: product,
        left: 0,
    });
    let mut response = (StatusCode::CONFLICT, body).into_response();
    let problem = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, problem);
    response
}
