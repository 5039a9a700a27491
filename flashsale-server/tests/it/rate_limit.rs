//! The rate limit counts orders per address, over all servers.

use flashsale_server::Policy;
use serde_json::json;

use crate::shop::{Server, Shop, ask, limits, policy};

#[tokio::test]
async fn two_servers_share_the_limit() {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(100, 100)]).await;
    // A window that does not end during the test.
    let limited = || Policy { limits: limits("4/1h"), ..policy() };
    let servers = [Server::start(&shop, limited()).await, Server::start(&shop, limited()).await];
    shop.loaded(&sale).await;

    let from = async |server: usize, address: &str, key: &str| {
        let body = json!({"idempotencyKey": key, "items": [sale.line(0, 1)]});
        let request = servers[server].buyers.post("/api/orders").header("x-user-id", "ann");
        ask(request.header("x-forwarded-for", address).json(&body)).await
    };
    // Requests that are refused for their form, and those that order nothing, are not counted.
    for server in &servers {
        for _ in 0..5 {
            let bad = server
                .buyers
                .post("/api/orders")
                .header("x-user-id", "ann")
                .header("x-forwarded-for", "1.1.1.1");
            ask(bad.json(&json!({}))).await.names("idempotencyKey");
            let read = server.buyers.get("/api/flashsale/active").header("x-forwarded-for", "1.1.1.1");
            assert_eq!(ask(read).await.status, 200);
        }
    }
    for (server, key) in [(0, "a-1"), (1, "a-2"), (0, "a-3"), (1, "a-4")] {
        assert_eq!(from(server, "1.1.1.1", key).await.status, 202, "{key}");
    }
    for server in [0, 1] {
        let answer = from(server, "1.1.1.1", "a-5").await;
        answer.is_problem(429, "rate-limited");
        assert!((1..=3_600).contains(&answer.header("retry-after").unwrap().parse::<u32>().unwrap()));
        // What a client claims further left is not believed.
        from(server, "9.9.9.9, 1.1.1.1", "a-6").await.is_problem(429, "rate-limited");
    }
    assert_eq!(from(0, "2.2.2.2", "b-1").await.status, 202);
    for (index, key) in ["c-1", "c-2", "c-3", "c-4"].into_iter().enumerate() {
        assert_eq!(from(0, &format!("2001:db8::{index}"), key).await.status, 202, "{key}");
    }
    from(0, "2001:db8::ffff", "c-5").await.is_problem(429, "rate-limited");

    assert_eq!(shop.left(&sale, 0).await, Some(91));
    shop.audit(&sale).await;
    for server in servers {
        server.stop().await;
    }
}
