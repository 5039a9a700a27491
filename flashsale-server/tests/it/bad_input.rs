//! Bad input is refused by name and changes nothing.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::shop::{Server, Shop, ask, policy};

#[tokio::test]
async fn bad_input_changes_nothing() {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(10, 5)]).await;
    let server = Server::start(&shop, policy()).await;
    let buyers = &server.buyers;
    shop.loaded(&sale).await;

    let order = |user: &str| buyers.post("/api/orders").header("x-user-id", user);
    let line = |quantity: Value| json!({"productId": sale.products[0].get(), "quantity": quantity});
    let items = |items: Value| order("ann").json(&json!({"idempotencyKey": "k", "items": items}));
    let raw = |body: String| order("ann").header("content-type", "application/json").body(body);

    for quantity in
        ["-1", "0", "1001", "9223372036854775808", "1e400", "1.5", "1e4", "\"1\"", "[1]", "true", "null"]
    {
        let product = sale.products[0];
        let body =
            format!(r#"{{"idempotencyKey":"k","items":[{{"productId":{product},"quantity":{quantity}}}]}}"#);
        // 1e400 is no number that a JSON parser takes: it cannot say where, but it is refused.
        let field = if quantity == "1e400" { "body" } else { "items[0].quantity" };
        ask(raw(body)).await.names(field);
    }
    let huge =
        format!(r#"{{"idempotencyKey":"k","items":[{{"productId":1,"quantity":{}}}]}}"#, "9".repeat(200));
    ask(raw(huge)).await.names("items[0].quantity");

    let named: Vec<(RequestBuilder, &str)> = vec![
        (items(json!([])), "items"),
        (items(json!(null)), "items"),
        (items(json!("all")), "items"),
        (items(json!(vec![line(json!(1)); 21])), "items"),
        (items(json!([line(json!(1)), {"quantity": 1}])), "items[1].productId"),
        (items(json!([{"productId": -7, "quantity": 1}])), "items[0].productId"),
        (items(json!([{"productId": "7", "quantity": 1}])), "items[0].productId"),
        (items(json!([{"productId": 1.5, "quantity": 1}])), "items[0].productId"),
        (order("ann").json(&json!({"items": [line(json!(1))]})), "idempotencyKey"),
        (order("ann").json(&json!({"idempotencyKey": "a b", "items": [line(json!(1))]})), "idempotencyKey"),
        (order("ann").json(&json!({"idempotencyKey": "k\0", "items": [line(json!(1))]})), "idempotencyKey"),
        (
            order("ann").json(&json!({"idempotencyKey": "k".repeat(201), "items": [line(json!(1))]})),
            "idempotencyKey",
        ),
        (items(json!([line(json!(1))])).header("idempotency-key", "other"), "idempotencyKey"),
        (order("ann").json(&json!([1])), "body"),
        (raw("{".to_owned()), "body"),
        (raw(String::new()), "body"),
        (raw("[".repeat(10_000)), "body"),
        (
            raw(format!(
                r#"{{"idempotencyKey":"k","items":[{{"productId":{},"quantity":1,"quantity":2}}]}}"#,
                sale.products[0]
            )),
            "quantity",
        ),
        (order("a/b").json(&json!({"idempotencyKey": "k", "items": [line(json!(1))]})), "X-User-Id"),
        (
            order(&"u".repeat(101)).json(&json!({"idempotencyKey": "k", "items": [line(json!(1))]})),
            "X-User-Id",
        ),
    ];
    for (request, field) in named {
        ask(request).await.names(field);
    }

    let good = json!({"idempotencyKey": "k", "items": [line(json!(1))]}).to_string();
    let typed = |kind: &str| order("ann").header("content-type", kind).body(good.clone());
    ask(typed("text/plain")).await.is_problem(415, "unsupported-media-type");
    ask(order("ann").body(good.clone())).await.is_problem(415, "unsupported-media-type");
    for size in [16 * 1024 + 1, 1 << 20] {
        ask(raw(" ".repeat(size))).await.is_problem(413, "content-too-large");
    }
    let unknown = items(json!([{"productId": i64::MAX, "quantity": 1}]));
    ask(unknown).await.is_problem(404, "unknown-product");

    assert_eq!(shop.left(&sale, 0).await, Some(10));
    let history = ask(buyers.get("/api/orders/ann").header("x-user-id", "ann")).await;
    assert_eq!(history.json, json!([]));
    // The key is still free, and a body of just the largest size is read.
    let padded = format!("{good}{}", " ".repeat(16 * 1024 - good.len()));
    assert_eq!(ask(raw(padded)).await.status, 202);
    shop.audit(&sale).await;
    server.stop().await;
}
