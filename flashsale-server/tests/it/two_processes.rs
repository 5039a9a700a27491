//! Two processes on the same stores are one shop: every route, at the one and then at the other.

use std::{collections::HashSet, process::Stdio};

use flashsale_server::Stores;
use nix::sys::signal::Signal;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::{
    events::Events,
    process::{Process, program},
    shop::{Answer, Buyers, Sale, Shop, ask, until},
};

struct Two {
    here: Process,
    there: Process,
    log: NamedTempFile,
}

impl Two {
    async fn start(stores: &Stores, flags: &[&str]) -> Self {
        let log = NamedTempFile::new().unwrap();
        let start = async || {
            let mut program = program(stores, flags);
            program.stderr(Stdio::from(log.reopen().unwrap()));
            Process::of(program).await
        };
        let (here, there) = (start().await, start().await);
        Self { here, there, log }
    }

    /// Both end in good order, and neither has panicked.
    async fn end(self) {
        for process in [self.here, self.there] {
            assert_eq!(process.end(Signal::SIGTERM).await.code(), Some(0));
        }
        let log = std::fs::read_to_string(self.log.path()).unwrap();
        assert!(!log.contains("panicked"), "{log}");
    }
}

fn get(buyers: &Buyers, path: &str) -> RequestBuilder {
    buyers.get(path).header("x-user-id", "ann")
}

fn delete(buyers: &Buyers, path: &str) -> RequestBuilder {
    buyers.http.delete(format!("{}{path}", buyers.url)).header("x-user-id", "ann")
}

/// An order that comes from this address, by way of a proxy.
fn order(buyers: &Buyers, address: &str, body: &Value) -> RequestBuilder {
    let request = buyers.post("/api/orders").header("x-user-id", "ann");
    request.header("x-forwarded-for", address).json(body)
}

#[tokio::test]
async fn every_route_is_the_same_at_either_process() {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(100, 50), (50, 50), (10, 5)]).await;
    // What they accept stays queued until somebody else drains it.
    let two = Two::start(&shop.stores, &["--drainers", "0", "--rate-limit", "8/1h"]).await;
    let (here, there) = (&two.here.buyers, &two.there.buyers);
    shop.loaded(&sale).await;

    one_list(here, there, &sale).await;
    one_cart(here, there, &sale).await;
    let first = one_order(here, there, &sale).await;
    let second = one_order_at_once(here, there, &sale).await;
    one_limit(here, there, &sale).await;
    let worker = followed_to_its_end(&shop.stores, here, there, &first).await;
    assert_eq!(here.outcome(&second).await, "Confirmed");
    what_was_bought_left_the_cart(here, there, &sale).await;
    one_history(here, there, [first, second]).await;
    for buyers in [here, there] {
        operations(buyers).await;
        documentation(buyers).await;
    }
    let document = async |buyers: &Buyers| ask(buyers.get("/openapi.json")).await.json;
    assert_eq!(document(here).await, document(there).await);

    shop.audit(&sale).await;
    assert_eq!(worker.end(Signal::SIGTERM).await.code(), Some(0));
    two.end().await;
}

async fn one_list(here: &Buyers, there: &Buyers, sale: &Sale) {
    let ids: Vec<_> = sale.products.iter().map(|product| product.get()).collect();
    for buyers in [here, there] {
        let list = ask(buyers.get("/api/flashsale/active")).await;
        let products = list.json.as_array().expect("a list").iter();
        let listed: Vec<_> = products.map(|product| product["id"].as_i64().unwrap()).collect();
        assert_eq!((list.status, &listed), (200, &ids));
        assert_eq!(
            (&list.json[0]["stockRemaining"], &list.json[0]["discountPrice"]),
            (&json!(100), &json!("249.99"))
        );
    }
}

async fn one_cart(here: &Buyers, there: &Buyers, sale: &Sale) {
    let set = async |buyers: &Buyers, product: usize, quantity: u32| {
        let request = buyers.post("/api/cart").header("x-user-id", "ann");
        let answer = ask(request.json(&sale.line(product, quantity))).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        answer.json
    };
    let common = async || {
        let [cart, other] = [ask(get(here, "/api/cart/ann")).await, ask(get(there, "/api/cart/ann")).await];
        assert_eq!((cart.status, &cart.json), (200, &other.json));
        cart.json
    };
    assert_eq!(common().await["items"], json!([]));
    set(here, 0, 1).await;
    let cart = set(there, 0, 2).await;
    assert_eq!((cart["items"].as_array().unwrap().len(), &cart["items"][0]["quantity"]), (1, &json!(2)));
    set(there, 1, 1).await;
    let cart = set(here, 2, 3).await;
    assert_eq!(common().await, cart);
    assert_eq!((&cart["estimatedTotal"], &cart["currency"]), (&json!("1499.94"), &json!("USD")));

    let line = format!("/api/cart/ann/items/{}", sale.products[2]);
    assert_eq!(ask(delete(there, &line)).await.status, 204);
    assert_eq!(common().await["items"].as_array().unwrap().len(), 2);
    assert_eq!(ask(delete(here, "/api/cart/ann")).await.status, 204);
    assert_eq!(common().await["items"], json!([]));
    // What the order below takes out, and what it leaves.
    for product in 0..3 {
        set(here, product, 1).await;
    }
}

/// An order of two items, placed here and repeated there in every way in which a key can come.
async fn one_order(here: &Buyers, there: &Buyers, sale: &Sale) -> String {
    let address = "192.0.2.1";
    let items = json!([sale.line(0, 2), sale.line(1, 1)]);
    let body = json!({"idempotencyKey": "k-1", "items": items});
    let placed = ask(order(here, address, &body)).await;
    assert_eq!(placed.status, 202, "{}", placed.json);
    let id = placed.text("orderId").to_owned();
    let path = format!("/api/orders/status/{id}");
    assert_eq!((placed.text("statusPollUrl"), placed.text("idempotencyKey")), (&*path, "k-1"));
    assert_eq!((placed.header("location"), placed.header("retry-after")), (Some(&*path), Some("1")));
    assert_eq!(placed.header("idempotency-replayed"), None);

    let keyless = json!({"items": items});
    let repeats = [
        order(there, address, &body),
        order(there, address, &keyless).header("idempotency-key", "k-1"),
        order(there, address, &keyless).header("idempotency-key", "\"k-1\""),
        order(here, address, &body).header("idempotency-key", "\"k-1\""),
    ];
    for repeat in repeats {
        let again = ask(repeat).await;
        assert_eq!((again.status, &again.json), (202, &placed.json));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!(again.header("location"), Some(&*path));
    }
    let other = json!({"idempotencyKey": "k-1", "items": [sale.line(0, 1)]});
    ask(order(there, address, &other)).await.is_problem(422, "idempotency-key-reused");
    for buyers in [here, there] {
        ask(order(buyers, address, &body).header("idempotency-key", "k-2")).await.names("idempotencyKey");
        ask(order(buyers, address, &keyless)).await.names("idempotencyKey");
    }
    id
}

/// The same order eight times at once, at both.
async fn one_order_at_once(here: &Buyers, there: &Buyers, sale: &Sale) -> String {
    let body = json!({"idempotencyKey": "k-2", "items": [sale.line(0, 1)]});
    let all = (0..8).map(|number| ask(order([here, there][number % 2], "192.0.2.2", &body)));
    let answers = futures::future::join_all(all).await;
    let ids: HashSet<_> = answers.iter().map(|answer| answer.text("orderId").to_owned()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let new = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_none());
    assert_eq!(new.count(), 1);
    ids.into_iter().next().unwrap()
}

/// Eight per address, wherever they go; what is refused for its form was not counted above.
async fn one_limit(here: &Buyers, there: &Buyers, sale: &Sale) {
    let from = async |buyers: &Buyers, address: &str, key: u32| {
        let name = format!("{}-{key}", address.replace(", ", "-"));
        let body = json!({"idempotencyKey": name, "items": [sale.line(1, 1)]});
        ask(order(buyers, address, &body)).await
    };
    let refused = |answer: &Answer| {
        answer.is_problem(429, "rate-limited");
        assert!((1..=3_600).contains(&answer.header("retry-after").unwrap().parse::<u32>().unwrap()));
    };
    // Two of eight are left to the first order's address, and none to the second's.
    for (buyers, key) in [(there, 1), (here, 2)] {
        assert_eq!(from(buyers, "192.0.2.1", key).await.status, 202);
        refused(&from(buyers, "192.0.2.2", key).await);
    }
    // What stands further left is only claimed.
    for (buyers, address) in [(here, "192.0.2.1"), (there, "192.0.2.1"), (there, "198.51.100.9, 192.0.2.1")] {
        refused(&from(buyers, address, 9).await);
    }
    for key in 0..8 {
        let buyers = [here, there][key as usize % 2];
        assert_eq!(from(buyers, &format!("2001:db8::{key}"), key).await.status, 202, "{key}");
    }
    for buyers in [here, there] {
        refused(&from(buyers, "2001:db8::ffff", 9).await);
    }
}

/// An order that was placed here is followed there, from its first state to its last.
async fn followed_to_its_end(stores: &Stores, here: &Buyers, there: &Buyers, id: &str) -> Process {
    let path = format!("/api/orders/status/{id}");
    for buyers in [here, there] {
        // Without the header: the id is the permission.
        let status = ask(buyers.get(&path)).await;
        assert_eq!((status.status, status.text("status"), status.text("orderId")), (200, "Queued", id));
        assert_eq!((&status.json["failureReason"], status.header("retry-after")), (&Value::Null, Some("1")));
    }
    let mut events = Events::of(there, id).await;
    assert_eq!(events.status().await.as_deref(), Some("Queued"));
    let worker = Process::start(stores).await;
    assert_eq!(events.rest().await.last().map(String::as_str), Some("Confirmed"));
    for buyers in [here, there] {
        let status = ask(buyers.get(&path)).await;
        assert_eq!((status.text("status"), status.header("retry-after")), ("Confirmed", None));
        let missing = flashsale_core::OrderId::new(id.parse::<flashsale_core::OrderId>().unwrap().sale());
        for path in ["", "/events"].map(|end| format!("/api/orders/status/{missing}{end}")) {
            ask(buyers.get(&path)).await.is_problem(404, "not-found");
        }
    }
    worker
}

async fn what_was_bought_left_the_cart(here: &Buyers, there: &Buyers, sale: &Sale) {
    for buyers in [here, there] {
        until("the cart holds the rest", async || {
            let cart = ask(get(buyers, "/api/cart/ann")).await.json;
            let items = cart["items"].as_array().unwrap();
            (items.len() == 1 && items[0]["productId"] == sale.products[2].get()).then_some(())
        })
        .await;
    }
}

/// Read in pages of three, each at the other process.
async fn one_history(here: &Buyers, there: &Buyers, placed: [String; 2]) {
    let all = until("all orders are recorded", async || {
        let all = ask(get(there, "/api/orders/ann?limit=100")).await;
        assert_eq!((all.status, all.header("link")), (200, None));
        let ids = all.json.as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap().to_owned());
        // The two, two of the first address, and eight of the network.
        Some(ids.collect::<Vec<_>>()).filter(|ids| ids.len() == 12)
    })
    .await;
    let mut sorted = all.clone();
    sorted.sort_by(|a, b| b.cmp(a));
    assert_eq!(all, sorted, "newest first");
    assert!(placed.iter().all(|order| all.contains(order)));

    let (mut walked, mut path) = (Vec::new(), Some("/api/orders/ann?limit=5".to_owned()));
    for buyers in [here, there].into_iter().cycle() {
        let Some(at) = path else { break };
        let page = ask(get(buyers, &at)).await;
        walked.extend(
            page.json.as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap().to_owned()),
        );
        let next = |link: &str| link.strip_prefix('<')?.strip_suffix(r#">; rel="next""#).map(str::to_owned);
        path = page.header("link").map(|link| next(link).expect(link));
    }
    assert_eq!(walked, all);
    let order = ask(get(here, "/api/orders/ann?limit=100")).await.json;
    let order = order.as_array().unwrap().iter().find(|order| order["id"] == *placed[0]).unwrap().clone();
    assert_eq!((&order["status"], &order["totalAmount"]), (&json!("Confirmed"), &json!("749.97")));
    assert_eq!((order["items"].as_array().unwrap().len(), &order["userId"]), (2, &json!("ann")));
}

async fn operations(buyers: &Buyers) {
    let alive = ask(buyers.get("/healthz")).await;
    assert_eq!((alive.status, &alive.json), (200, &json!("ok\n")));
    let ready = ask(buyers.get("/readyz")).await;
    let said = ready.json.as_str().unwrap();
    for line in ["redis: ok", "postgres: ok", "server: ok"] {
        assert!(said.lines().any(|said| said == line), "{said}");
    }
    assert!(said.lines().any(|line| line.starts_with("sale ") && line.ends_with(": ok")), "{said}");
    assert_eq!(ready.status, 200);
    let metrics = ask(buyers.get("/metrics")).await;
    assert_eq!(metrics.status, 200);
    let said = metrics.json.as_str().unwrap();
    for metric in ["flashsale_build_info{", "flashsale_admissions_total{", "flashsale_http_requests_total{"] {
        assert!(said.lines().any(|line| line.starts_with(metric)), "no {metric} in {said}");
    }
    assert!(!said.contains("=\"ann\""), "no user is a label: {said}");
}

async fn documentation(buyers: &Buyers) {
    let document = ask(buyers.get("/openapi.json")).await;
    assert!(document.text("openapi").starts_with("3.1"));
    for path in ["/api/flashsale/active", "/api/cart/{userId}", "/api/orders/status/{orderId}/events"] {
        assert!(document.json["paths"][path].is_object(), "{path}");
    }
    for path in ["/", "/docs"] {
        let page = buyers.get(path).send().await.unwrap();
        assert_eq!((page.status().as_u16(), page.url().path()), (200, "/docs/"));
        assert!(page.text().await.unwrap().contains("swagger-ui"));
    }
}
