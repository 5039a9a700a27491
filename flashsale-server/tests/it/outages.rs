//! Redis is away or frozen: what the buyer is told, and that nothing is bought twice.

use flashsale_server::{Policy, Stores};
use flashsale_stack::{Stack, StackOptions};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::shop::{Server, Shop, ask, limits, policy, until};

#[tokio::test]
async fn a_frozen_redis_leaves_the_outcome_open_and_a_dead_one_does_not() {
    let stack = Stack::start(StackOptions::default()).await.unwrap();
    let stores =
        Stores { redis_url: stack.redis_url().to_owned(), database_url: stack.database_url().to_owned() };
    let shop = Shop::on(stores).await;
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
    let ready = ask(buyers.get("/readyz")).await;
    assert_eq!(ready.status, 503);
    assert!(ready.json.as_str().unwrap().contains("postgres: ok"), "{}", ready.json);
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
