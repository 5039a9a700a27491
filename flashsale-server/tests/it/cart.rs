//! Carts: the same at every server, shown to nobody else, kept for two hours, and free of what was bought.

use flashsale_core::{Created, Engine, EngineConfig, Money, NewProduct, NewSale, SaleState};
use flashsale_server::{App, Patience, listen, router, serve};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::shop::{Answer, Buyers, Sale, Server, Shop, ask, policy, until};

const TWO_HOURS_MS: i64 = 2 * 60 * 60 * 1_000;

impl Buyers {
    fn delete(&self, path: &str) -> RequestBuilder {
        self.http.request(Method::DELETE, format!("{}{path}", self.url))
    }

    async fn put(&self, user: &str, line: &Value) -> Answer {
        ask(self.post("/api/cart").header("x-user-id", user).json(line)).await
    }

    /// The cart, which must be there to be seen.
    async fn cart(&self, user: &str) -> Value {
        let answer = ask(self.get(&format!("/api/cart/{user}")).header("x-user-id", user)).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        answer.json
    }
}

/// Product and units.
fn lines(cart: &Value) -> Vec<(i64, i64)> {
    let items = cart["items"].as_array().expect("a list");
    items
        .iter()
        .map(|item| (item["productId"].as_i64().unwrap(), item["quantity"].as_i64().unwrap()))
        .collect()
}

fn id(sale: &Sale, product: usize) -> i64 {
    sale.products[product].get()
}

struct Redis(redis::aio::MultiplexedConnection);

impl Redis {
    async fn of(shop: &Shop) -> Self {
        let client = redis::Client::open(&*shop.stores.redis_url).unwrap();
        Self(client.get_multiplexed_async_connection().await.unwrap())
    }

    async fn run<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut self.0).await.unwrap()
    }

    async fn ttl_ms(&mut self, user: &str) -> i64 {
        self.run(&["PTTL", &format!("fs:cart:{user}")]).await
    }

    async fn expire_in(&mut self, user: &str, ms: i64) {
        let found: i64 = self.run(&["PEXPIRE", &format!("fs:cart:{user}"), &ms.to_string()]).await;
        assert_eq!(found, 1);
    }
}

/// A server that neither loads sales nor drains.
struct Idle {
    buyers: Buyers,
    shutdown: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Idle {
    async fn start(redis_url: &str, database_url: &str) -> Self {
        let engine = Engine::connect(EngineConfig::new(redis_url, database_url)).await.unwrap();
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let buyers = Buyers::of(format!("http://{}", listener.local_addr().unwrap()));
        let shutdown = CancellationToken::new();
        let app = router(App::new(engine, policy(), shutdown.clone()));
        let serving = tokio::spawn(serve(vec![listener], app, Patience::default(), shutdown.clone()));
        Self { buyers, shutdown, serving }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn carts() {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(10, 3), (5, 1)]).await;
    unloaded(&shop, &sale).await;
    without_redis(&shop, &sale).await;
    let servers = [Server::start(&shop, policy()).await, Server::start(&shop, policy()).await];
    shop.loaded(&sale).await;
    let here = &servers[0].buyers;
    filled_and_emptied(here, &servers[1].buyers, &sale).await;
    bad_input(here, &sale).await;
    others(here, &sale).await;
    kept_for_two_hours(&shop, here, &sale).await;
    bought(here, &sale).await;
    refused(&shop, here, &sale).await;
    shop.audit(&sale).await;
    for server in servers {
        server.stop().await;
    }
}

async fn unloaded(shop: &Shop, sale: &Sale) {
    let server = Idle::start(&shop.stores.redis_url, &shop.stores.database_url).await;
    server.buyers.put("ann", &sale.line(0, 1)).await.is_problem(503, "fenced");
    assert_eq!(server.buyers.cart("ann").await["items"], json!([]));
    server.stop().await;
}

/// Nothing listens on port 1.
async fn without_redis(shop: &Shop, sale: &Sale) {
    let server = Idle::start("redis://127.0.0.1:1/", &shop.stores.database_url).await;
    let buyers = &server.buyers;
    buyers.put("ann", &sale.line(0, 1)).await.is_problem(503, "unavailable");
    for request in
        [buyers.get("/api/cart/ann"), buyers.delete("/api/cart/ann"), buyers.delete("/api/cart/ann/items/1")]
    {
        ask(request.header("x-user-id", "ann")).await.is_problem(503, "unavailable");
    }
    // What belongs to somebody else is refused before any store is asked: it cannot tell whether it is there.
    ask(buyers.get("/api/cart/ann").header("x-user-id", "bob")).await.is_problem(403, "forbidden");
    server.stop().await;
}

async fn filled_and_emptied(here: &Buyers, there: &Buyers, sale: &Sale) {
    assert_eq!(
        here.cart("ann").await,
        json!({"userId": "ann", "items": [], "estimatedTotal": "0.00", "currency": null})
    );
    here.put("ann", &sale.line(1, 1)).await;
    here.put("ann", &sale.line(0, 1)).await;
    let answer = there.put("ann", &json!({"productId": id(sale, 0), "quantity": 2, "note": "ignored"})).await;
    let item = |product: usize, quantity: u32, total: &str| {
        json!({"productId": id(sale, product), "productName": "Headphones",
               "quantity": quantity, "unitPrice": "249.99", "lineTotal": total})
    };
    let cart = json!({"userId": "ann", "items": [item(0, 2, "499.98"), item(1, 1, "249.99")],
                      "estimatedTotal": "749.97", "currency": "USD"});
    assert_eq!((answer.status, &answer.json), (200, &cart));
    assert_eq!((here.cart("ann").await, there.cart("ann").await), (cart.clone(), cart));

    let remove = async |at: &Buyers, product: i64| {
        let path = format!("/api/cart/ann/items/{product}");
        let answer = ask(at.delete(&path).header("x-user-id", "ann")).await;
        assert_eq!((answer.status, answer.json), (204, json!("")));
    };
    // Also what is not in it, and what nobody sells.
    for product in [id(sale, 0), id(sale, 0), i64::MAX] {
        remove(there, product).await;
    }
    assert_eq!(lines(&here.cart("ann").await), [(id(sale, 1), 1)]);
    for _ in 0..2 {
        let answer = ask(there.delete("/api/cart/ann").header("x-user-id", "ann")).await;
        assert_eq!((answer.status, answer.json), (204, json!("")));
    }
    assert_eq!(here.cart("ann").await["items"], json!([]));
}

async fn bad_input(buyers: &Buyers, sale: &Sale) {
    let product = id(sale, 0);
    let request = || buyers.post("/api/cart").header("x-user-id", "ann");
    let raw = |body: String| request().header("content-type", "application/json").body(body);
    for quantity in ["-1", "0", "1001", "9223372036854775808", "1e4", "1.5", "\"1\"", "[1]", "true", "null"] {
        ask(raw(format!(r#"{{"productId":{product},"quantity":{quantity}}}"#))).await.names("quantity");
    }
    for bad in ["0", "-7", "\"7\"", "1.5", "null", "{}"] {
        ask(raw(format!(r#"{{"productId":{bad},"quantity":1}}"#))).await.names("productId");
    }
    for (body, field) in [
        (format!(r#"{{"productId":{product}}}"#), "quantity"),
        (r#"{"quantity":1}"#.to_owned(), "productId"),
        (format!(r#"{{"productId":{product},"quantity":1,"quantity":2}}"#), "quantity"),
        ("[]".to_owned(), "body"),
        ("{".to_owned(), "body"),
        (String::new(), "body"),
    ] {
        ask(raw(body)).await.names(field);
    }
    ask(raw(" ".repeat(16 * 1024 + 1))).await.is_problem(413, "content-too-large");
    ask(request().body("{}")).await.is_problem(415, "unsupported-media-type");
    ask(buyers.get("/api/cart")).await.is_problem(405, "method-not-allowed");

    let as_ann = |request: RequestBuilder| ask(request.header("x-user-id", "ann"));
    as_ann(buyers.get("/api/cart/%ff")).await.names("userId");
    as_ann(buyers.get("/api/cart/a%20b")).await.names("userId");
    as_ann(buyers.delete("/api/cart/%ff")).await.names("userId");
    for bad in ["x", "0", "-1", "1.5", "9223372036854775808", "%ff"] {
        as_ann(buyers.delete(&format!("/api/cart/ann/items/{bad}"))).await.names("productId");
    }
    as_ann(buyers.delete("/api/cart/a%20b/items/1")).await.names("userId");
    assert_eq!(buyers.cart("ann").await["items"], json!([]));
}

/// A cart is shown to and changed by its user only, and whether there is one is not told.
async fn others(buyers: &Buyers, sale: &Sale) {
    buyers.put("ann", &sale.line(0, 1)).await;
    let product = id(sale, 0);
    for user in ["ann", "nobody"] {
        let requests = || {
            [
                buyers.get(&format!("/api/cart/{user}")),
                buyers.delete(&format!("/api/cart/{user}")),
                buyers.delete(&format!("/api/cart/{user}/items/{product}")),
            ]
        };
        for request in requests() {
            ask(request).await.is_problem(401, "unauthorized");
        }
        for request in requests() {
            ask(request.header("x-user-id", "bob")).await.is_problem(403, "forbidden");
        }
    }
    ask(buyers.post("/api/cart").json(&sale.line(0, 1))).await.is_problem(401, "unauthorized");
    assert_eq!(lines(&buyers.cart("ann").await), [(product, 1)]);
    assert_eq!(buyers.cart("bob").await["items"], json!([]));
}

async fn kept_for_two_hours(shop: &Shop, buyers: &Buyers, sale: &Sale) {
    let mut redis = Redis::of(shop).await;
    let fresh = TWO_HOURS_MS - 60_000..=TWO_HOURS_MS;
    buyers.put("cid", &sale.line(0, 1)).await;
    assert!(fresh.contains(&redis.ttl_ms("cid").await));
    redis.expire_in("cid", 600_000).await;
    buyers.cart("cid").await;
    assert!(redis.ttl_ms("cid").await <= 600_000, "reading does not prolong it");
    let path = format!("/api/cart/cid/items/{}", id(sale, 1));
    ask(buyers.delete(&path).header("x-user-id", "cid")).await;
    assert!(fresh.contains(&redis.ttl_ms("cid").await), "every change does");
    redis.expire_in("cid", 50).await;
    until("the cart is gone", async || (buyers.cart("cid").await["items"] == json!([])).then_some(())).await;
}

/// Who sees that the order is confirmed sees a cart without its products, and with all others.
async fn bought(buyers: &Buyers, sale: &Sale) {
    buyers.put("dan", &sale.line(0, 3)).await;
    buyers.put("dan", &sale.line(1, 1)).await;
    let order = buyers.buys("dan", "k-1", &[sale.line(0, 1)]).await;
    assert_eq!(buyers.outcome(&order).await, "Confirmed");
    assert_eq!(lines(&buyers.cart("dan").await), [(id(sale, 1), 1)]);
}

async fn refused(shop: &Shop, buyers: &Buyers, sale: &Sale) {
    let unknown = json!({"productId": i64::MAX, "quantity": 1});
    buyers.put("eve", &unknown).await.is_problem(404, "unknown-product");
    let answer = buyers.put("eve", &sale.line(1, 6)).await;
    answer.is_problem(409, "sold-out");
    assert_eq!((&answer.json["left"], &answer.json["productId"]), (&json!(5), &json!(id(sale, 1))));
    // No order could be so large, and it would be refused for another reason then; a cart does not know of it.
    assert_eq!(buyers.put("eve", &sale.line(1, 5)).await.status, 200);

    let other = shop.sale(&[(5, 5)]).await;
    let early = shop.sale_in(30, 60, &[(1, 1)]).await;
    let late = shop.sale_in(-60, -1, &[(1, 1)]).await;
    let euro = euro_sale(shop).await;
    let said = async |line: Value, code: &str, detail: &str| {
        until(detail, async || {
            let answer = buyers.put("eve", &line).await;
            let matches = answer.json["code"] == code && answer.text("detail").contains(detail);
            matches.then(|| answer.is_problem(if code == "items-span-sales" { 422 } else { 409 }, code))
        })
        .await;
    };
    said(early.line(0, 1), "sale-not-open", "has not begun").await;
    said(late.line(0, 1), "sale-not-open", "is over").await;
    said(euro.line(0, 1), "items-span-sales", "another currency").await;
    until("it is in the cart", async || {
        (buyers.put("eve", &other.line(0, 1)).await.status == 200).then_some(())
    })
    .await;
    shop.engine.operator().set_state(other.id, SaleState::Paused).await.unwrap();
    said(other.line(0, 1), "sale-not-open", "is paused").await;
    assert_eq!(lines(&buyers.cart("eve").await), [(id(sale, 1), 5), (id(&other, 0), 1)], "a pause ends");
    shop.engine.operator().set_state(other.id, SaleState::Closed).await.unwrap();
    said(other.line(0, 1), "sale-not-open", "is over").await;
    until("its line is gone", async || {
        (lines(&buyers.cart("eve").await) == [(id(sale, 1), 5)]).then_some(())
    })
    .await;

    let many = shop.sale(&[(1, 1); 20]).await;
    shop.loaded(&many).await;
    for product in 0..19 {
        let put = async || (buyers.put("eve", &many.line(product, 1)).await.status == 200).then_some(());
        until("it is in the cart", put).await;
    }
    let answer = buyers.put("eve", &many.line(19, 1)).await;
    answer.is_problem(409, "cart-full");
    assert!(answer.text("detail").contains("20 products"), "{}", answer.json);
}

async fn euro_sale(shop: &Shop) -> Sale {
    let eur = "EUR".parse().unwrap();
    let product = NewProduct {
        id: None,
        name: "Phone".to_owned(),
        description: String::new(),
        image_url: String::new(),
        original_price: Money::from_minor(200, eur),
        sale_price: Money::from_minor(100, eur),
        stock: 5,
        per_user_limit: 5,
    };
    let sale = NewSale {
        slug: "euro".to_owned(),
        name: "Euro".to_owned(),
        currency: eur,
        starts_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        ends_at: "2099-01-01T00:00:00Z".parse().unwrap(),
        products: vec![product],
    };
    let operator = shop.engine.operator();
    let Created::New(id) = operator.create_sale(&sale).await.unwrap() else { panic!("a new sale") };
    let products = operator.sale(id).await.unwrap().products.iter().map(|product| product.id).collect();
    Sale { id, products }
}
