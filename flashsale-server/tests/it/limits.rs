//! Limits of the server itself: orders at once, bodies, and what a client that hangs up leaves behind.

use std::time::{Duration, Instant};

use flashsale_server::{LimitArgs, Policy, Stores};
use flashsale_stack::{Stack, StackOptions};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::shop::{BOUND, Sale, Server, Shop, ask, limits, policy, until};

fn order_body(sale: &Sale, key: &str) -> String {
    json!({"idempotencyKey": key, "items": [sale.line(0, 1)]}).to_string()
}

/// An order's head, to be followed by its body.
fn head(user: &str, headers: &str) -> String {
    format!(
        "POST /api/orders HTTP/1.1\r\nHost: shop\r\nX-User-Id: {user}\r\nContent-Type: application/json\r\n{headers}\r\n"
    )
}

async fn say(server: &Server, text: &str) -> TcpStream {
    let address = server.buyers.url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(text.as_bytes()).await.unwrap();
    connection
}

/// What comes until it holds this text.
async fn hears(connection: &mut TcpStream, text: &str) -> String {
    let mut heard = String::new();
    let hearing = async {
        while !heard.contains(text) {
            let mut bytes = [0; 4096];
            let count = connection.read(&mut bytes).await.unwrap();
            assert!(count > 0, "closed after {heard:?}");
            heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    let heard_it = timeout(BOUND, hearing).await;
    assert!(heard_it.is_ok(), "no {text:?} in {heard:?}");
    heard
}

#[tokio::test]
async fn orders_wait_for_their_turn_and_who_hangs_up_has_none() {
    let stack = Stack::start(StackOptions::default()).await.unwrap();
    let stores =
        Stores { redis_url: stack.redis_url().to_owned(), database_url: stack.database_url().to_owned() };
    let shop = Shop::on(stores).await;
    let sale = shop.sale(&[(100, 100)]).await;
    let one_at_once = LimitArgs { orders_at_once: 1, requests_at_once: 1, ..limits("off") };
    let server = Server::start(&shop, Policy { limits: one_at_once, ..policy() }).await;
    let buyers = &server.buyers;
    shop.loaded(&sale).await;
    for key in 0..8 {
        buyers.buys("bob", &format!("k-{key}"), &[sale.line(0, 1)]).await;
    }

    let redis = Pid::from_raw(stack.redis_pid().unwrap().cast_signed());
    kill(redis, Signal::SIGSTOP).unwrap();
    let timed = async |key: &str| {
        let answer = buyers.order("ann", key, &[sale.line(0, 1)]).await;
        (answer, Instant::now())
    };
    let ((first, first_at), (second, second_at)) = tokio::join!(timed("k-1"), timed("k-2"));
    let cart = async |user: &str| {
        let path = format!("/api/cart/{user}");
        let answer = ask(buyers.get(&path).header("x-user-id", user)).await;
        (answer, Instant::now())
    };
    let ((third, third_at), (fourth, fourth_at)) = tokio::join!(cart("ann"), cart("bob"));
    kill(redis, Signal::SIGCONT).unwrap();
    for answer in [&first, &second, &third, &fourth] {
        assert!([503, 504].contains(&answer.status), "{}", answer.json);
    }
    // Each of them waits for Redis in vain for a second. Side by side they would do it in the same one.
    for (one, other) in [(first_at, second_at), (third_at, fourth_at)] {
        let apart = one.max(other) - one.min(other);
        assert!(apart >= Duration::from_millis(500), "both were at work at once: {apart:?}");
    }

    for key in ["k-1", "k-2"] {
        until("the order is accepted", async || {
            (buyers.order("ann", key, &[sale.line(0, 1)]).await.status == 202).then_some(())
        })
        .await;
    }
    assert_eq!(shop.left(&sale, 0).await, Some(90));

    // While one is at work, another one waits and hangs up. Then Redis is well again, and turns come quickly.
    let look_around = async || {
        for _ in 0..20 {
            assert_eq!(ask(buyers.get("/healthz")).await.status, 200);
        }
    };
    let leaves = async {
        look_around().await;
        let body = order_body(&sale, "k-1");
        let order = head("carl", &format!("Content-Length: {}\r\n", body.len())) + &body;
        drop(say(&server, &order).await);
        look_around().await;
        kill(redis, Signal::SIGCONT).unwrap();
    };
    kill(redis, Signal::SIGSTOP).unwrap();
    tokio::join!(timed("k-3"), leaves);
    until("the order is accepted", async || {
        (buyers.order("ann", "k-3", &[sale.line(0, 1)]).await.status == 202).then_some(())
    })
    .await;
    buyers.buys("ann", "k-4", &[sale.line(0, 1)]).await;
    assert_eq!(shop.left(&sale, 0).await, Some(88), "whoever hung up while waiting has bought nothing");
    who_is_over_the_rate_limit_waits_for_nobody(&shop, &sale, redis).await;
    shop.audit(&sale).await;
    server.stop().await;
    drop(shop);
    stack.stop().await;
}

async fn who_is_over_the_rate_limit_waits_for_nobody(shop: &Shop, sale: &Sale, redis: Pid) {
    let one_at_once = LimitArgs { orders_at_once: 1, ..limits("1/1h") };
    let cors_origins = "https://shop.example".parse().unwrap();
    let server = Server::start(shop, Policy { limits: one_at_once, cors_origins, ..policy() }).await;
    let buyers = &server.buyers;
    let from = async |client: &str| {
        let order = buyers.post("/api/orders").header("x-user-id", "dan").header("x-forwarded-for", client);
        let body = order_body(sale, &format!("from-{client}"));
        let answer = ask(order.header("content-type", "application/json").body(body)).await;
        (answer, Instant::now())
    };
    assert_eq!(from("3.3.3.3").await.0.status, 202);
    from("3.3.3.3").await.0.is_problem(429, "rate-limited");

    kill(redis, Signal::SIGSTOP).unwrap();
    let knocks = async {
        for _ in 0..3 {
            let answer = ask(buyers.get("/healthz").header("origin", "https://shop.example")).await;
            assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
        }
        from("3.3.3.3").await
    };
    // One after the other waits for Redis in vain.
    let (first, second, third, known) =
        tokio::join!(from("1.1.1.1"), from("1.1.1.2"), from("1.1.1.3"), knocks);
    kill(redis, Signal::SIGCONT).unwrap();
    known.0.is_problem(429, "rate-limited");
    let last = first.1.max(second.1).max(third.1);
    assert!(known.1 < last, "it waited for its turn to be refused");
    server.stop().await;
}

#[tokio::test]
async fn bodies_are_judged_as_early_as_they_can_be() {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(10, 10)]).await;
    let server = Server::start(&shop, policy()).await;
    shop.loaded(&sale).await;
    let body = order_body(&sale, "k");

    // Ten megabytes are announced and none is sent; and a body that never ends.
    let announced = async {
        let mut connection = say(&server, &head("ann", "Content-Length: 10485760\r\n")).await;
        hears(&mut connection, "content-too-large").await;
    };
    let endless = async {
        let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
        let sent = head("ann", "Transfer-Encoding: chunked\r\n") + &chunk.repeat(5);
        let mut connection = say(&server, &sent).await;
        let answer = hears(&mut connection, "content-too-large").await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        // It went on sending, and still can.
        connection.write_all(chunk.as_bytes()).await.unwrap();
    };
    // Whoever sends it all may go on using the connection.
    let whole = async {
        let text = " ".repeat(20_000);
        let sent = head("ann", "Content-Length: 20000\r\n") + &text;
        let mut connection = say(&server, &sent).await;
        hears(&mut connection, "content-too-large").await;
        connection.write_all(b"GET /healthz HTTP/1.1\r\nHost: shop\r\n\r\n").await.unwrap();
        hears(&mut connection, "HTTP/1.1 200 ").await;
    };
    let stalled = async {
        let mut connection = say(&server, &(head("ann", "Content-Length: 100\r\n") + "{")).await;
        let answer = hears(&mut connection, "request-timeout").await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        let mut rest = Vec::new();
        timeout(BOUND, connection.read_to_end(&mut rest)).await.expect("closed in time").unwrap();
    };
    // Some ask first whether to send it.
    let invited = async {
        let headers = format!("Content-Length: {}\r\nExpect: 100-continue\r\n", body.len());
        let mut connection = say(&server, &head("ann", &headers)).await;
        hears(&mut connection, "HTTP/1.1 100 Continue\r\n\r\n").await;
        connection.write_all(body.as_bytes()).await.unwrap();
        hears(&mut connection, "HTTP/1.1 202 ").await;
    };
    let not_invited = async {
        let headers = "Content-Length: 20000\r\nExpect: 100-continue\r\n";
        let mut connection = say(&server, &head("ann", headers)).await;
        let mut answer = hears(&mut connection, "content-too-large").await;
        timeout(BOUND, connection.read_to_string(&mut answer)).await.expect("closed in time").unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 ") && !answer.contains("100 Continue"), "{answer}");
    };
    tokio::join!(announced, endless, whole, stalled, invited, not_invited);

    let typed = |kind: &str| {
        let order = server.buyers.post("/api/orders").header("x-user-id", "ann");
        order.header("content-type", kind).body(body.clone())
    };
    ask(typed("application/json; charset=utf-16")).await.is_problem(415, "unsupported-media-type");
    assert_eq!(ask(typed("application/json; charset=UTF-8")).await.status, 202);

    // What is about one user is kept by nobody; what everybody may see, for a moment.
    let active = ask(server.buyers.get("/api/flashsale/active")).await;
    assert_eq!(active.header("cache-control"), Some("public, max-age=1"));
    let own = ask(server.buyers.get("/api/orders/ann").header("x-user-id", "ann")).await;
    let missing = ask(server.buyers.get("/nothing")).await;
    for answer in [&own, &missing, &active] {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    for answer in [&own, &missing] {
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    assert_eq!(shop.left(&sale, 0).await, Some(9));
    shop.audit(&sale).await;
    server.stop().await;
}
