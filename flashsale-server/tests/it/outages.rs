//! A store is away or frozen: what the buyer is told, and that nothing is bought twice.

use std::time::Duration;

use flashsale_server::{Policy, Stores};
use flashsale_stack::{Stack, StackOptions};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    process::Process,
    shop::{Buyers, Sale, Server, Shop, ask, limits, policy, until},
};

/// Above the deadlines of both stores, below where a client gives up.
const QUICKLY: Duration = Duration::from_secs(10);

const DRAIN_FAILURES: &str = "flashsale_drain_failures_total ";

/// A stack of its own: the stores of the other tests stay up.
async fn shop() -> (Stack, Shop) {
    let stack = Stack::start(StackOptions::default()).await.unwrap();
    let stores =
        Stores { redis_url: stack.redis_url().to_owned(), database_url: stack.database_url().to_owned() };
    let shop = Shop::on(stores).await;
    (stack, shop)
}

/// Without Redis each route says that it cannot say; only what is recorded can still be read.
async fn all_is_unavailable(buyers: &Buyers, sale: &Sale, order: &str) {
    let cart = format!("/api/cart/ann/items/{}", sale.products[0]);
    let status = format!("/api/orders/status/{order}");
    let events = format!("{status}/events");
    let requests = [
        buyers.get("/api/flashsale/active"),
        buyers.post("/api/cart").json(&sale.line(0, 1)),
        buyers.get("/api/cart/ann"),
        buyers.http.delete(format!("{}{cart}", buyers.url)),
        buyers.http.delete(format!("{}/api/cart/ann", buyers.url)),
        buyers.get(&status),
        buyers.get(&events),
    ];
    for request in requests {
        let answer = ask(request.header("x-user-id", "ann").timeout(QUICKLY)).await;
        answer.is_problem(503, "unavailable");
    }
    let history = ask(buyers.get("/api/orders/ann").header("x-user-id", "ann")).await;
    assert_eq!(history.json[0]["id"], order, "{}", history.json);
}

#[tokio::test]
async fn a_frozen_redis_leaves_the_outcome_open_and_a_dead_one_does_not() {
    let (stack, shop) = shop().await;
    let sale = shop.sale(&[(100, 100)]).await;
    let server = Server::start(&shop, policy()).await;
    let limited = Server::start(&shop, Policy { limits: limits("1000/1h"), ..policy() }).await;
    let buyers = &server.buyers;
    shop.loaded(&sale).await;
    // One order per connection: the first one on each only reads Redis's clock before it sends.
    for key in 0..8 {
        buyers.buys("bob", &format!("k-{key}"), &[sale.line(0, 1)]).await;
    }

    let redis = Pid::from_raw(stack.redis_pid().unwrap().cast_signed());
    kill(redis, Signal::SIGSTOP).unwrap();
    let open = buyers.order("ann", "k-2", &[sale.line(0, 1)]).await;
    // Nothing was ordered there for certain: the request could not even be counted.
    let uncounted = limited.buyers.order("ann", "k-3", &[sale.line(0, 1)]).await;
    kill(redis, Signal::SIGCONT).unwrap();
    open.is_problem(504, "outcome-unknown");
    uncounted.is_problem(503, "unavailable");

    // The same key again tells, whether the first one counted or not.
    let second = until("the order is accepted", async || {
        let answer = buyers.order("ann", "k-2", &[sale.line(0, 1)]).await;
        (answer.status == 202).then(|| answer.text("orderId").to_owned())
    })
    .await;
    assert_eq!(buyers.outcome(&second).await, "Confirmed");
    assert_eq!(shop.left(&sale, 0).await, Some(91));

    stack.kill_redis().await.unwrap();
    until("orders are turned away", async || {
        let answer = buyers.order("ann", "k-4", &[sale.line(0, 1)]).await;
        (answer.json["code"] == "unavailable").then(|| answer.is_problem(503, "unavailable"))
    })
    .await;
    limited.buyers.order("ann", "k-4", &[sale.line(0, 1)]).await.is_problem(503, "unavailable");
    all_is_unavailable(buyers, &sale, &second).await;
    let ready = ask(buyers.get("/readyz").timeout(QUICKLY)).await;
    assert_eq!(ready.status, 503);
    for line in ["redis: cannot be used now", "postgres: ok", "server: unavailable"] {
        assert!(ready.json.as_str().unwrap().lines().any(|said| said == line), "{}", ready.json);
    }
    assert_eq!(ask(buyers.get("/healthz")).await.status, 200);

    stack.restart_redis().await.unwrap();
    until("it sells again", async || {
        let answer = buyers.order("ann", "k-4", &[sale.line(0, 1)]).await;
        (answer.status == 202).then_some(())
    })
    .await;
    // This engine's own connection is the old Redis's until its first call has failed.
    until("the stock is right", async || (shop.left(&sale, 0).await? == 90).then_some(())).await;
    shop.audit(&sale).await;
    server.stop().await;
    limited.stop().await;
    drop(shop);
    stack.stop().await;
}

#[tokio::test]
async fn without_postgres_orders_are_accepted_and_wait() {
    let (stack, shop) = shop().await;
    let sale = shop.sale(&[(100, 100)]).await;
    // A process, since what is counted in this one is everybody's.
    let server = Process::start(&shop.stores).await;
    let buyers = &server.buyers;
    shop.loaded(&sale).await;
    let before = buyers.buys("ann", "k-0", &[sale.line(0, 1)]).await;
    assert_eq!(buyers.outcome(&before).await, "Confirmed");

    stack.kill_postgres().await.unwrap();
    let ready = until("it says that it is degraded", async || {
        let ready = ask(buyers.get("/readyz").timeout(QUICKLY)).await;
        let said = ready.json.as_str().unwrap().to_owned();
        said.contains("server: degraded\n").then_some((ready.status, said))
    })
    .await;
    assert_eq!(ready.0, 200, "orders are taken: {}", ready.1);
    assert!(ready.1.contains("redis: ok\n") && !ready.1.contains("postgres: ok"), "{}", ready.1);
    assert_eq!(ask(buyers.get("/healthz")).await.status, 200);

    let mut waiting = Vec::new();
    for key in 1..=5 {
        let order = buyers.buys("ann", &format!("k-{key}"), &[sale.line(0, 2)]).await;
        waiting.push(order);
    }
    let status = async |order: &str| {
        let path = format!("/api/orders/status/{order}");
        ask(buyers.get(&path).timeout(QUICKLY)).await
    };
    for order in &waiting {
        assert_eq!(status(order).await.text("status"), "Queued");
    }
    // Redis knows of these for itself.
    assert_eq!(status(&before).await.text("status"), "Confirmed");
    let again = buyers.order("ann", "k-1", &[sale.line(0, 2)]).await;
    assert_eq!((again.text("orderId"), again.header("idempotency-replayed")), (&*waiting[0], Some("true")));
    let active = ask(buyers.get("/api/flashsale/active")).await;
    assert_eq!(active.json[0]["stockRemaining"], 89);
    // The drainer did not begin what it could not end.
    until("the drainer has tried", async || {
        let metrics = ask(buyers.get("/metrics")).await;
        let failures = metrics.json.as_str()?.lines().find_map(|line| line.strip_prefix(DRAIN_FAILURES))?;
        (failures.trim() != "0").then_some(())
    })
    .await;
    for order in &waiting {
        assert_eq!(status(order).await.text("status"), "Queued");
    }
    let history = ask(buyers.get("/api/orders/ann").header("x-user-id", "ann").timeout(QUICKLY)).await;
    history.is_problem(503, "unavailable");

    stack.restart_postgres().await.unwrap();
    for order in &waiting {
        assert_eq!(buyers.outcome(order).await, "Confirmed");
    }
    until("it is ready", async || {
        let ready = ask(buyers.get("/readyz")).await;
        ready.json.as_str().unwrap().contains("server: ok").then_some(())
    })
    .await;
    // This engine's own connections are the old server's until they have failed.
    until("the record can be read", async || shop.engine.operator().sale(sale.id).await.ok()).await;
    shop.audit(&sale).await;
    assert_eq!(server.end(Signal::SIGTERM).await.code(), Some(0));
    drop(shop);
    stack.stop().await;
}
