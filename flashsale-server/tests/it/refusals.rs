//! Every word that a refusal can have.

use flashsale_core::SaleState;
use flashsale_server::{App, PreflightArgs, listen, router, serve};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::shop::{Buyers, Server, Shop, ask, policy, until};

#[tokio::test]
async fn orders_are_refused_by_name() {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(3, 2), (1, 1)]).await;
    let other = shop.sale(&[(1, 1)]).await;
    let early = shop.sale_in(30, 60, &[(1, 1)]).await;
    let late = shop.sale_in(-60, -1, &[(1, 1)]).await;
    let server = Server::start(&shop, policy()).await;
    let buyers = &server.buyers;
    shop.loaded(&sale).await;
    shop.loaded(&other).await;

    let unknown = json!({"productId": i64::MAX, "quantity": 1});
    let answer = buyers.order("ann", "k-1", &[sale.line(0, 1), unknown]).await;
    answer.is_problem(404, "unknown-product");
    assert_eq!(answer.json["productId"], i64::MAX);
    buyers
        .order("ann", "k-1", &[sale.line(0, 1), other.line(0, 1)])
        .await
        .is_problem(422, "items-span-sales");

    // What was refused left no key behind: the same key buys.
    buyers.buys("ann", "k-1", &[sale.line(0, 1)]).await;
    let answer = buyers.order("ann", "k-1", &[sale.line(0, 2)]).await;
    answer.is_problem(422, "idempotency-key-reused");
    let answer = buyers.order("ann", "k-2", &[sale.line(0, 2)]).await;
    answer.is_problem(409, "over-quota");
    assert_eq!((&answer.json["limit"], &answer.json["held"]), (&json!(2), &json!(1)));
    buyers.buys("bob", "k-1", &[sale.line(0, 2)]).await;
    buyers.order("cid", "k-1", &[sale.line(1, 1), sale.line(0, 1)]).await.is_problem(409, "sold-out");
    assert_eq!(shop.left(&sale, 1).await, Some(1), "an order is all or nothing");

    let refused = async |sale: &crate::shop::Sale, code: &str| {
        until(code, async || {
            // Above the limit, so that it is not accepted before the servers know of the state either.
            let answer = buyers.order("ann", "k-9", &[sale.line(0, 2)]).await;
            (answer.json["code"] == code).then(|| answer.is_problem(409, code))
        })
        .await;
    };
    refused(&early, "sale-not-open").await;
    refused(&late, "sale-ended").await;
    shop.engine.operator().set_state(other.id, SaleState::Paused).await.unwrap();
    refused(&other, "sale-paused").await;
    shop.engine.operator().set_state(other.id, SaleState::Closed).await.unwrap();
    refused(&other, "sale-ended").await;
    shop.audit(&sale).await;
    shop.audit(&other).await;
    server.stop().await;
}

#[tokio::test]
async fn paths_methods_and_ids_that_are_not_there() {
    let shop = Shop::new().await;
    let server = Server::start(&shop, policy()).await;
    let buyers = &server.buyers;
    for path in ["/nothing", "/api", "/api/orders/ann/x"] {
        let answer = ask(buyers.get(path)).await;
        answer.is_problem(404, "not-found");
        assert_eq!(answer.text("instance"), path);
    }
    let answer = ask(buyers.get("/api/orders")).await;
    answer.is_problem(405, "method-not-allowed");
    assert_eq!(answer.header("allow"), Some("POST"));
    ask(buyers.post("/healthz")).await.is_problem(405, "method-not-allowed");

    for bad in ["x", "00000000-0000-0000-0000-000000000000", "%ff"] {
        ask(buyers.get(&format!("/api/orders/status/{bad}"))).await.names("orderId");
    }
    // An id of a sale that there is, but not of an order.
    let sale = shop.sale(&[(1, 1)]).await;
    shop.loaded(&sale).await;
    let id = flashsale_core::OrderId::new(sale.id);
    until("the sale is known", async || {
        let answer = ask(buyers.get(&format!("/api/orders/status/{id}"))).await;
        (answer.status != 503).then(|| answer.is_problem(404, "not-found"))
    })
    .await;

    let alive = ask(buyers.get("/healthz")).await;
    assert_eq!((alive.status, alive.json), (200, json!("ok\n")));
    let ready = ask(buyers.get("/readyz")).await;
    let lines: Vec<_> = ready.json.as_str().unwrap().lines().collect();
    assert_eq!(ready.status, 200, "{lines:?}");
    for line in ["redis: ok", "postgres: ok", "server: ok"] {
        assert!(lines.contains(&line), "{lines:?}");
    }
    server.stop().await;
}

/// Without a keeper nobody loads the sale, and a server that is about to end says so.
#[tokio::test]
async fn a_sale_that_is_not_loaded_sells_nothing() {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(1, 1)]).await;
    let engine =
        flashsale_server::connect(&shop.stores, crate::shop::BOUND, PreflightArgs::default()).await.unwrap();
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let buyers = Buyers::of(format!("http://{}", listener.local_addr().unwrap()));
    let (draining, shutdown) = (CancellationToken::new(), CancellationToken::new());
    let app = router(App::new(engine, policy(), draining.clone()));
    let serving =
        tokio::spawn(serve(vec![listener], app, flashsale_server::Patience::default(), shutdown.clone()));

    buyers.order("ann", "k-1", &[sale.line(0, 1)]).await.is_problem(503, "fenced");
    ask(buyers.get("/api/flashsale/active")).await.is_problem(503, "fenced");
    shop.sale_in(60, 120, &[(1, 1)]).await;
    let ready = ask(buyers.get("/readyz")).await;
    let said = ready.json.as_str().unwrap();
    let sales: Vec<_> = said.lines().filter(|line| line.starts_with("sale ")).collect();
    assert_eq!(sales.len(), 1, "nothing of a sale that has not begun: {said}");
    assert!(sales[0].ends_with(": cannot be used now"), "{said}");
    assert_eq!(ready.status, 200, "one fenced sale does not take the server from the others");
    assert!(ready.json.as_str().unwrap().ends_with("\nserver: degraded\n"), "{}", ready.json);

    draining.cancel();
    let ready = ask(buyers.get("/readyz")).await;
    assert_eq!(ready.status, 503);
    assert!(ready.json.as_str().unwrap().contains("server: draining"), "{}", ready.json);
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}
