//! A server without an engine: it reads an order as the real one does, and answers as the real one does.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::{
    Router,
    body::to_bytes,
    extract::{Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_TYPE, LOCATION, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
    routing::post,
};
use flashsale_core::{IdempotencyKey, Items, OrderId, ProductId, Quantity, SaleId, UserId};
use flashsale_server::{Patience, listen, serve};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What it answers to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Answer {
    Accepted,
    SoldOut,
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
    let body: Value = serde_json::from_slice(&to_bytes(body, 16 * 1024).await?)?;
    let key = body["idempotencyKey"].as_str().context("no key")?.parse()?;
    let lines = body["items"].as_array().context("no items")?.iter().map(|line| {
        let product = ProductId::try_from(line["productId"].as_i64().context("no product")?)?;
        anyhow::Ok((product, Quantity::try_from(line["quantity"].as_i64().context("no quantity")?)?))
    });
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
    let body = json!({
        "orderId": id,
        "message": "The order is accepted. Ask statusPollUrl what becomes of it.",
        "idempotencyKey": key,
        "statusPollUrl": path,
    });
    let headers = [(LOCATION, path), (RETRY_AFTER, "1".to_owned())];
    (StatusCode::ACCEPTED, headers, axum::Json(body)).into_response()
}

fn sold_out(product: ProductId) -> Response {
    let body = json!({
        "type": "urn:flashsale:problem:sold-out",
        "title": "Sold out",
        "status": 409,
        "detail": format!("product {product} is sold out"),
        "instance": "/api/orders",
        "code": "sold-out",
        "productId": product,
        "left": 0,
    });
    (StatusCode::CONFLICT, [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
