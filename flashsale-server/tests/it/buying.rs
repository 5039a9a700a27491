//! What a buyer does when all goes well.

use chrono::{DateTime, Utc};
use serde_json::json;

use crate::shop::{Server, Shop, ask, policy, until};

#[tokio::test]
async fn from_the_front_page_to_the_history() {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(10, 3), (5, 1)]).await;
    let server = Server::start(&shop, policy()).await;
    let buyers = &server.buyers;
    shop.loaded(&sale).await;

    let front = until("the sale is shown", async || {
        let answer = ask(buyers.get("/api/flashsale/active")).await;
        (answer.status == 200 && answer.json.as_array()?.len() == 2).then_some(answer.json)
    })
    .await;
    let product = &front[0];
    assert_eq!(product["id"], sale.products[0].get());
    assert_eq!(product["saleId"], sale.id.get());
    assert_eq!((&product["originalPrice"], &product["discountPrice"]), (&json!("399.99"), &json!("249.99")));
    assert_eq!((&product["currency"], &product["discountPercentage"]), (&json!("USD"), &json!(37.5)));
    assert_eq!((&product["stockRemaining"], &product["maxQuantityPerUser"]), (&json!(10), &json!(3)));
    assert!(product["startTime"].as_str().unwrap().ends_with('Z'));
    assert!(product["endTime"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap() > Utc::now());
    assert!((3_000..=3_600).contains(&product["timeRemainingSeconds"].as_u64().unwrap()));
    for member in ["name", "description", "imageUrl"] {
        assert!(product[member].is_string(), "{member}");
    }

    let answer = buyers.order("ann", "k-1", &[sale.line(0, 1), sale.line(1, 1), sale.line(0, 1)]).await;
    let order = answer.text("orderId").to_owned();
    let poll = format!("/api/orders/status/{order}");
    assert_eq!(
        (answer.status, answer.text("idempotencyKey"), answer.text("statusPollUrl")),
        (202, "k-1", &*poll)
    );
    assert_eq!((answer.header("location"), answer.header("retry-after")), (Some(&*poll), Some("1")));
    assert_eq!(answer.header("idempotency-replayed"), None);
    assert!(!answer.text("message").is_empty());
    assert_eq!(shop.left(&sale, 0).await, Some(8));

    assert_eq!(buyers.outcome(&order).await, "Confirmed");
    let status = ask(buyers.get(&poll)).await.json;
    assert_eq!((&status["orderId"], &status["failureReason"]), (&json!(order), &json!(null)));
    assert!(status["lastUpdatedAt"].as_str().unwrap().ends_with('Z'));

    let history = ask(buyers.get("/api/orders/ann").header("x-user-id", "ann")).await.json;
    let item = |product: usize, quantity: u32, total: &str| {
        json!({"productId": sale.products[product].get(), "productName": "Headphones",
               "quantity": quantity, "unitPrice": "249.99", "lineTotal": total})
    };
    let created_at = history[0]["createdAt"].clone();
    assert_eq!(
        history,
        json!([{"id": order, "userId": "ann", "status": "Confirmed", "totalAmount": "749.97", "currency": "USD",
                "createdAt": created_at, "items": [item(0, 2, "499.98"), item(1, 1, "249.99")]}])
    );
    shop.audit(&sale).await;
    server.stop().await;
}

#[tokio::test]
async fn a_repeated_order_is_the_same_order() {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(10, 5)]).await;
    let server = Server::start(&shop, policy()).await;
    let buyers = &server.buyers;
    shop.loaded(&sale).await;

    let order = buyers.buys("ann", "k-1", &[sale.line(0, 2)]).await;
    // The same purchase in other words: lines that add up to it, the key in the header, quoted.
    let body = json!({"items": [sale.line(0, 1), sale.line(0, 1)], "note": "ignored"});
    let again = buyers.post("/api/orders").header("x-user-id", "ann").header("idempotency-key", "\"k-1\"");
    let again = ask(again.json(&body)).await;
    assert_eq!((again.status, again.text("orderId"), again.text("idempotencyKey")), (202, &*order, "k-1"));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.header("location"), Some(&*format!("/api/orders/status/{order}")));

    // The key belongs to its user: somebody else's is another purchase.
    let other = buyers.buys("bob", "k-1", &[sale.line(0, 2)]).await;
    assert_ne!(other, order);
    assert_eq!(shop.left(&sale, 0).await, Some(6));
    shop.audit(&sale).await;
    server.stop().await;
}
