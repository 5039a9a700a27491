//! Orders followed to their end: each status once, at any server, through outages; and who may follow how many.

use std::time::{Duration, Instant};

use flashsale_core::OrderId;
use flashsale_server::{
    App, LimitArgs, Patience, Policy, PreflightArgs, Stores, connect, listen, router, serve,
};
use flashsale_stack::{Stack, StackOptions};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::shop::{Answer, BOUND, Buyers, Sale, Server, Shop, ask, policy, until};

/// An open stream of events.
pub(crate) struct Events {
    response: Response,
    unread: String,
}

/// What stands between two blank lines.
#[derive(Debug, PartialEq)]
enum Said {
    /// `retry:`
    Hint(String),
    Comment,
    Event {
        name: String,
        id: Option<String>,
        data: Value,
    },
}

fn open(buyers: &Buyers, order: &str) -> RequestBuilder {
    // Not the client of the other requests: a stream may stay open longer than they may take.
    let http = reqwest::Client::new();
    http.get(format!("{}/api/orders/status/{order}/events", buyers.url))
}

impl Events {
    pub(crate) async fn of(buyers: &Buyers, order: &str) -> Self {
        Self::from(open(buyers, order).send().await.unwrap()).await
    }

    /// Of a response that must be a stream; its first word is when to come back.
    async fn from(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store"),
            ("x-accel-buffering", "no"),
        ] {
            assert_eq!(response.headers()[name], value);
        }
        let mut events = Self { response, unread: String::new() };
        assert_eq!(events.said().await, Some(Said::Hint("1000".to_owned())));
        events
    }

    /// The next that is said; `None` at a clean end. A stream that is cut off fails the test.
    async fn said(&mut self) -> Option<Said> {
        loop {
            if let Some(end) = self.unread.find("\n\n") {
                let said = parse(&self.unread[..end]);
                self.unread.drain(..end + 2);
                return Some(said);
            }
            let chunk = timeout(BOUND, self.response.chunk()).await.expect("a word in time");
            let Some(bytes) = chunk.expect("a stream that is not cut off") else {
                assert_eq!(self.unread, "", "the last event is whole");
                return None;
            };
            self.unread.push_str(str::from_utf8(&bytes).unwrap());
        }
    }

    /// The next event's status, whatever comments come before it.
    pub(crate) async fn status(&mut self) -> Option<String> {
        self.event().await.map(|data| data["status"].as_str().unwrap().to_owned())
    }

    /// The data of the next event, which is one of a status.
    async fn event(&mut self) -> Option<Value> {
        loop {
            match self.said().await? {
                Said::Comment => {}
                Said::Event { name, id, data } => {
                    assert_eq!((name.as_str(), id.as_deref()), ("status", data["status"].as_str()));
                    return Some(data);
                }
                Said::Hint(hint) => panic!("a second hint: {hint}"),
            }
        }
    }

    /// All that is still said of it, to its end.
    pub(crate) async fn rest(mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Some(status) = self.status().await {
            rest.push(status);
        }
        rest
    }
}

fn parse(block: &str) -> Said {
    let (mut name, mut id, mut data) = (None, None, None);
    for line in block.lines() {
        let (field, value) = line.split_once(':').expect(line);
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "" => return Said::Comment,
            "retry" => return Said::Hint(value),
            "event" => name = Some(value),
            "id" => id = Some(value),
            "data" => data = Some(serde_json::from_str(&value).unwrap()),
            other => panic!("a field {other:?}"),
        }
    }
    Said::Event { name: name.expect("a name"), id, data: data.expect("data") }
}

async fn status(buyers: &Buyers, order: &str) -> Answer {
    ask(buyers.get(&format!("/api/orders/status/{order}"))).await
}

/// The default policy, with these limits of streams.
fn streams(limits: impl FnOnce(&mut LimitArgs)) -> Policy {
    let mut policy = policy();
    limits(&mut policy.limits);
    policy
}

#[tokio::test]
async fn orders_are_followed_at_another_server() {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(100, 100)]).await;
    let selling = Server::start(&shop, policy()).await;
    shop.loaded(&sale).await;
    to_the_end(&shop, &selling.buyers, &sale).await;
    selling.stop().await;

    // From here on nothing becomes final: whoever follows an order does so until something else ends it.
    let patient = Server::with_drainers(0, &shop, policy()).await;
    let order = patient.buyers.buys("bob", "waits", &[sale.line(0, 1)]).await;
    only_so_many(&shop, &order).await;
    idle_ones_stay_open(&shop, &order).await;
    a_server_that_ends_ends_them(&shop, &order).await;
    patient.stop().await;

    let draining = Server::start(&shop, policy()).await;
    assert_eq!(draining.buyers.outcome(&order).await, "Confirmed");
    shop.audit(&sale).await;
    draining.stop().await;
}

async fn to_the_end(shop: &Shop, selling: &Buyers, sale: &Sale) {
    let server = Server::with_drainers(0, shop, policy()).await;
    let telling = &server.buyers;
    let order = selling.buys("ann", "k", &[sale.line(0, 2)]).await;
    let mut events = Events::of(telling, &order).await;
    let mut told = Vec::new();
    while let Some(event) = events.event().await {
        told.push(event);
    }
    let words: Vec<_> = told.iter().map(|event| event["status"].as_str().unwrap()).collect();
    let all = ["Queued", "Processing", "Confirmed"];
    // What changes faster than it is looked at is told as one change.
    let in_order: Vec<_> = all.into_iter().filter(|word| words.contains(word)).collect();
    assert_eq!(words, in_order);
    assert_eq!(words.last(), Some(&"Confirmed"));
    let answer = status(telling, &order).await;
    assert_eq!((&answer.json, answer.header("retry-after")), (told.last().unwrap(), None));

    // What an `EventSource` does next; what it was told is no longer true, or was never told.
    for (last, again) in [("Confirmed", 204), ("Failed", 204), ("Queued", 200), ("nonsense", 200)] {
        let response = open(telling, &order).header("last-event-id", last).send().await.unwrap();
        assert_eq!(response.status(), again, "{last}");
        if again == 200 {
            assert_eq!(Events::from(response).await.rest().await, ["Confirmed"]);
        }
    }
    ask(telling.get("/api/orders/status/nonsense/events")).await.names("orderId");
    let unknown = flashsale_core::OrderId::new(sale.id);
    ask(telling.get(&format!("/api/orders/status/{unknown}/events"))).await.is_problem(404, "not-found");
    server.stop().await;
}

async fn only_so_many(shop: &Shop, order: &str) {
    let few = streams(|limits| (limits.streams_per_client, limits.streams_at_once) = (2, 3));
    let server = Server::with_drainers(0, shop, few).await;
    let from = |client: &str| open(&server.buyers, order).header("x-forwarded-for", client);
    let follow = async |client| Events::from(from(client).send().await.unwrap()).await;
    let mut ann = [follow("2001:db8::1").await, follow("2001:db8::2").await];
    // Another address of the same network, and what it claims further left.
    ask(from("2001:db8::3")).await.is_problem(429, "rate-limited");
    ask(from("9.9.9.9, 2001:db8::1")).await.is_problem(429, "rate-limited");
    let bob = follow("2.2.2.2").await;
    ask(from("3.3.3.3")).await.is_problem(503, "unavailable");
    for events in &mut ann {
        assert_eq!(events.status().await.unwrap(), "Queued");
    }
    // Who goes away makes room, and what is refused takes none.
    let again = async |client| {
        let response = from(client).send().await.unwrap();
        (response.status() == 200).then_some(response)
    };
    drop(bob);
    let eve = until("a place is free", async || again("3.3.3.3").await).await;
    drop(ann);
    let ann = until("two places are free", async || again("2001:db8::4").await).await;
    drop((eve, ann));
    server.stop().await;
}

/// Longer than the server waits for a request's head, and kept alive for the proxies on the way.
async fn idle_ones_stay_open(shop: &Shop, order: &str) {
    let engine = connect(&shop.stores, BOUND, PreflightArgs::default()).await.unwrap();
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let buyers = Buyers::of(format!("http://{}", listener.local_addr().unwrap()));
    let shutdown = CancellationToken::new();
    let policy = streams(|limits| limits.stream_keep_alive_seconds = 1);
    let app = router(App::new(engine, policy, shutdown.clone()));
    let hasty = Duration::from_millis(200);
    let patience = Patience { headers: hasty, unread: hasty, ..Patience::default() };
    let serving = tokio::spawn(serve(vec![listener], app, patience, shutdown.clone()));
    let mut events = Events::of(&buyers, order).await;
    assert_eq!(events.status().await.unwrap(), "Queued");
    for _ in 0..2 {
        assert_eq!(events.said().await, Some(Said::Comment));
    }
    shutdown.cancel();
    assert_eq!(events.rest().await, [""; 0]);
    serving.await.unwrap().unwrap();
}

/// By itself, at once: one that only the end of its patience cuts off has no clean end.
async fn a_server_that_ends_ends_them(shop: &Shop, order: &str) {
    let server = Server::with_drainers(0, shop, policy()).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut events = Events::of(&server.buyers, order).await;
        assert_eq!(events.status().await.unwrap(), "Queued");
        open.push(events);
    }
    server.stop().await;
    for events in open {
        assert_eq!(events.rest().await, [""; 0]);
    }
}

#[tokio::test]
async fn orders_are_followed_through_outages_and_by_many() {
    let stack = Stack::start(StackOptions::default()).await.unwrap();
    let stores =
        Stores { redis_url: stack.redis_url().to_owned(), database_url: stack.database_url().to_owned() };
    let shop = Shop::on(stores).await;
    let sale = shop.sale(&[(1_000, 1_000)]).await;
    let selling = Server::with_drainers(0, &shop, policy()).await;
    let crowded = streams(|limits| limits.streams_per_client = 1_000);
    let telling = Server::with_drainers(0, &shop, crowded).await;
    shop.loaded(&sale).await;

    let order = selling.buyers.buys("ann", "k", &[sale.line(0, 1)]).await;
    let mut events = Events::of(&telling.buyers, &order).await;
    assert_eq!(events.status().await.unwrap(), "Queued");
    assert_eq!(status(&telling.buyers, &order).await.header("retry-after"), Some("1"));
    // The recovery takes it that whatever is queued may be in somebody's hands.
    stack.kill_redis().await.unwrap();
    ask(open(&telling.buyers, &order)).await.is_problem(503, "unavailable");
    stack.restart_redis().await.unwrap();
    assert_eq!(events.status().await.unwrap(), "Processing");

    let mut redis = Redis::connect(stack.redis_url()).await;
    let lost = selling.buyers.buys("ann", "lost", &[sale.line(0, 1)]).await;
    let mut following = Events::of(&telling.buyers, &lost).await;
    assert_eq!(following.status().await.unwrap(), "Queued");
    let (book, field) = (format!("fs:{{{}}}:book", sale.id), state_field(&lost));
    redis.ask(&format!("HDEL {book} {field}")).await;
    let gone = Said::Event { name: "gone".to_owned(), id: None, data: json!({"orderId": lost}) };
    assert_eq!(following.said().await, Some(gone));
    assert_eq!(following.said().await, None);
    ask(open(&telling.buyers, &lost)).await.is_problem(404, "not-found");
    // Queued, some time in 2020.
    redis.ask(&format!(r#"HSET {book} {field} "Q\x00\x00\x00\x00\x01""#)).await;

    stack.kill_postgres().await.unwrap();
    let enough = CancellationToken::new();
    let draining = tokio::spawn(shop.engine.drainer().run(enough.clone()));
    stack.restart_postgres().await.unwrap();
    assert_eq!(events.rest().await, ["Confirmed"]);

    // Redis forgets final orders; the record does not.
    assert_eq!(redis.ask(&format!("HDEL {book} {}", state_field(&order))).await, ":1\r\n");
    assert_eq!(Events::of(&telling.buyers, &order).await.rest().await, ["Confirmed"]);
    enough.cancel();
    draining.await.unwrap();

    many_cost_no_more_than_one(&mut redis, &shop, &sale, [&selling.buyers, &telling.buyers]).await;
    // The audit misses what was made to be forgotten, until it is put back.
    shop.engine.operator().recover(sale.id, |_| {}).await.unwrap();
    shop.audit(&sale).await;
    selling.stop().await;
    telling.stop().await;
    drop(shop);
    stack.stop().await;
}

async fn many_cost_no_more_than_one(
    redis: &mut Redis,
    shop: &Shop,
    sale: &Sale,
    [selling, telling]: [&Buyers; 2],
) {
    const ORDERS: usize = 100;
    const EACH: usize = 5;
    let buy = async |number| selling.buys("bob", &format!("k-{number}"), &[sale.line(0, 1)]).await;
    let orders = futures::future::join_all((0..ORDERS).map(buy)).await;
    let http = reqwest::Client::new();
    let follow = async |order: &String| {
        let url = format!("{}/api/orders/status/{order}/events", telling.url);
        let mut events = Events::from(http.get(url).send().await.unwrap()).await;
        assert_eq!(events.status().await.unwrap(), "Queued");
        events
    };
    let opening = orders.iter().flat_map(|order| std::iter::repeat_n(order, EACH)).map(follow);
    let open = futures::future::join_all(opening).await;

    redis.ask("CONFIG RESETSTAT").await;
    let began = Instant::now();
    // At least this many readings of all of them.
    let readings = async {
        while redis.script_calls().await < 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(BOUND, readings).await.expect("readings in time");
    let (calls, passed) = (redis.script_calls().await, began.elapsed());
    // Five readings a second for all, and two keepers look twice a second; one reading of each alone would be
    // five hundred.
    let expected = passed.as_millis() / 200 + 2 * passed.as_millis() / 500;
    assert!(u128::from(calls) <= expected + 10, "{calls} calls in {passed:?}");

    let enough = CancellationToken::new();
    let draining = tokio::spawn(shop.engine.drainer().run(enough.clone()));
    for mut rest in futures::future::join_all(open.into_iter().map(Events::rest)).await {
        assert_eq!(rest.pop().as_deref(), Some("Confirmed"));
        assert!(rest.is_empty() || rest == ["Processing"], "{rest:?}");
    }
    enough.cancel();
    draining.await.unwrap();
}

/// A connection to Redis on which a test looks behind the server's back.
struct Redis(TcpStream);

/// The field of an order's state, as Redis reads it in quotes: all of its id but the last four bytes.
fn state_field(order: &str) -> String {
    let hex = order.parse::<OrderId>().unwrap().as_uuid().simple().to_string();
    let bytes: Vec<_> = hex.as_bytes()[..24].chunks(2).map(|byte| str::from_utf8(byte).unwrap()).collect();
    format!(r#""o\x{}""#, bytes.join(r"\x"))
}

impl Redis {
    async fn connect(url: &str) -> Self {
        let address = url.strip_prefix("redis://").unwrap().trim_end_matches('/');
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// Sends one command, and gives the reply as it came: one line, or a text of announced length.
    async fn ask(&mut self, command: &str) -> String {
        self.0.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
        let mut reply = String::new();
        let whole = |reply: &str| {
            let Some((line, rest)) = reply.split_once("\r\n") else { return false };
            line.strip_prefix('$').is_none_or(|length| rest.len() == length.parse::<usize>().unwrap() + 2)
        };
        while !whole(&reply) {
            let mut bytes = [0; 4096];
            let count = timeout(BOUND, self.0.read(&mut bytes)).await.expect("a reply in time").unwrap();
            assert!(count > 0, "Redis has closed the connection");
            reply.push_str(str::from_utf8(&bytes[..count]).unwrap());
        }
        reply
    }

    /// Scripts that were called since the counts were reset.
    async fn script_calls(&mut self) -> u64 {
        let stats = self.ask("INFO commandstats").await;
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
    }
}
