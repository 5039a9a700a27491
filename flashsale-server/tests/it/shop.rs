//! A shop for a test: a database and a logical Redis of its own, sales, servers and buyers.

use std::{
    future::Future,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Utc};
use flashsale_core::{Created, Engine, Money, NewProduct, NewSale, ProductId, SaleId};
use flashsale_server::{
    App, LimitArgs, Policy, PreflightArgs, RunError, Stores, connect, listen, router, run,
};
use flashsale_stack::{Stack, StackOptions};
use reqwest::{RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use tokio::{sync::OnceCell, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Shared by all tests of this process; its children end with it.
static STACK: OnceCell<Stack> = OnceCell::const_new();

static SHOPS: AtomicU32 = AtomicU32::new(0);
static SALES: AtomicU32 = AtomicU32::new(0);

pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// Waits until the condition gives something, and fails the test when it does not in time.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T {
    let give_up = Instant::now() + BOUND;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < give_up, "waited {BOUND:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) struct Shop {
    pub(crate) stores: Stores,
    pub(crate) engine: Engine,
}

impl Shop {
    /// A shop on the shared stack.
    pub(crate) async fn new() -> Self {
        let start = || async { Stack::start(StackOptions::default()).await.expect("a stack") };
        let stack = STACK.get_or_init(start).await;
        let number = SHOPS.fetch_add(1, Ordering::Relaxed);
        assert!(number < 128, "a stack's Redis has 128 logical databases: no more shops on one stack");
        let database_url = stack.create_database(&format!("shop_{number}")).await.expect("a database");
        Self::on(Stores { redis_url: format!("{}{number}", stack.redis_url()), database_url }).await
    }

    /// A shop on these stores.
    pub(crate) async fn on(stores: Stores) -> Self {
        let engine = connect(&stores, BOUND, PreflightArgs::default()).await.expect("an engine");
        Self { stores, engine }
    }

    /// A sale that has begun an hour ago, with products of so many units and such a limit per user.
    pub(crate) async fn sale(&self, products: &[(u32, u32)]) -> Sale {
        self.sale_in(-60, 60, products).await
    }

    /// A sale whose window is given in minutes from now.
    pub(crate) async fn sale_in(&self, from: i64, to: i64, products: &[(u32, u32)]) -> Sale {
        let usd = "USD".parse().unwrap();
        let product = |&(stock, per_user_limit)| NewProduct {
            id: None,
            name: "Headphones".to_owned(),
            description: "They are loud.".to_owned(),
            image_url: "https://shop.example/1.png".to_owned(),
            original_price: Money::from_minor(39_999, usd),
            sale_price: Money::from_minor(24_999, usd),
            stock,
            per_user_limit,
        };
        let sale = NewSale {
            slug: format!("sale-{}", SALES.fetch_add(1, Ordering::Relaxed)),
            name: "A sale".to_owned(),
            currency: usd,
            starts_at: Utc::now() + TimeDelta::minutes(from),
            ends_at: Utc::now() + TimeDelta::minutes(to),
            products: products.iter().map(product).collect(),
        };
        let created = self.engine.operator().create_sale(&sale).await.expect("a sale");
        let Created::New(id) = created else { panic!("the slug was taken") };
        let products = self.engine.operator().sale(id).await.expect("the sale").products;
        Sale { id, products: products.iter().map(|product| product.id).collect() }
    }

    /// Waits until a keeper has loaded the sale.
    pub(crate) async fn loaded(&self, sale: &Sale) {
        until("the sale is loaded", async || self.left(sale, 0).await.map(drop)).await;
    }

    /// Units that Redis has left of a product; `None` when that is not known to be right.
    pub(crate) async fn left(&self, sale: &Sale, product: usize) -> Option<i64> {
        let stock = self.engine.operator().live_stock(sale.id).await.ok()?;
        stock.iter().find(|stock| stock.product == sale.products[product])?.left
    }

    /// The invariants that must hold after every test.
    pub(crate) async fn audit(&self, sale: &Sale) {
        let report = self.engine.operator().audit(sale.id, BOUND).await.expect("an audit");
        let broken: Vec<_> = report.checks.iter().filter(|check| !check.holds()).collect();
        assert!(report.holds(), "{broken:#?}");
    }
}

pub(crate) struct Sale {
    pub(crate) id: SaleId,
    pub(crate) products: Vec<ProductId>,
}

impl Sale {
    /// An order's line.
    pub(crate) fn line(&self, product: usize, quantity: u32) -> Value {
        json!({"productId": self.products[product].get(), "quantity": quantity})
    }
}

/// The server's defaults, without the rate limit: all buyers of a test come from one address.
pub(crate) fn policy() -> Policy {
    Policy { limits: limits("off"), ..Policy::default() }
}

/// The default limits with this rate limit.
pub(crate) fn limits(rate_limit: &str) -> LimitArgs {
    LimitArgs { rate_limit: rate_limit.parse().unwrap(), ..LimitArgs::default() }
}

/// A server in this process, with an engine of its own as in a process of its own.
pub(crate) struct Server {
    pub(crate) buyers: Buyers,
    pub(crate) shutdown: CancellationToken,
    running: JoinHandle<Result<(), RunError>>,
}

impl Server {
    pub(crate) async fn start(shop: &Shop, policy: Policy) -> Self {
        Self::with_drainers(1, shop, policy).await
    }

    /// One with so many drainers: without any, what it accepts stays queued.
    pub(crate) async fn with_drainers(drainers: u8, shop: &Shop, policy: Policy) -> Self {
        let engine = connect(&shop.stores, BOUND, PreflightArgs::default()).await.expect("an engine");
        let listener = listen("127.0.0.1:0".parse().unwrap()).expect("a socket");
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let app = router(App::new(engine.clone(), policy, shutdown.clone()));
        let running = tokio::spawn(run(engine, app, vec![listener], drainers, None, shutdown.clone()));
        Self { buyers: Buyers::of(url), shutdown, running }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.expect("no panic").expect("a good end");
    }
}

/// Clients of one server.
#[derive(Clone)]
pub(crate) struct Buyers {
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self, member: &str) -> &str {
        self.json[member].as_str().unwrap_or_else(|| panic!("no text {member:?} in {}", self.json))
    }

    /// It is a problem document of this status and code, complete.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.json["code"].as_str()), (status, Some(code)), "{}", self.json);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.json["status"], status);
        for member in ["type", "title", "detail", "instance"] {
            assert!(!self.text(member).is_empty(), "{member}");
        }
        let retry_after = self.header("retry-after").map(|seconds| seconds.parse::<u32>().unwrap());
        assert_eq!(retry_after.is_some(), [429, 503, 504].contains(&status), "Retry-After of {code}");
        assert_eq!(self.header("www-authenticate").is_some(), status == 401, "WWW-Authenticate of {code}");
    }

    /// It is a 400 that names this field.
    #[track_caller]
    pub(crate) fn names(&self, field: &str) {
        self.is_problem(400, "invalid-request");
        assert_eq!(self.text("field"), field, "{}", self.json);
        assert!(self.text("detail").contains(field), "{}", self.json);
    }
}

impl Buyers {
    pub(crate) fn of(url: String) -> Self {
        Self { url, http: reqwest::Client::builder().timeout(BOUND).build().unwrap() }
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.url))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url))
    }

    pub(crate) async fn order(&self, user: &str, key: &str, items: &[Value]) -> Answer {
        let body = json!({"idempotencyKey": key, "items": items});
        ask(self.post("/api/orders").header("x-user-id", user).json(&body)).await
    }

    /// Places an order that must be accepted, and gives its id.
    pub(crate) async fn buys(&self, user: &str, key: &str, items: &[Value]) -> String {
        let answer = self.order(user, key, items).await;
        assert_eq!(answer.status, 202, "{}", answer.json);
        answer.text("orderId").to_owned()
    }

    /// Waits until the order is final, and gives its state.
    pub(crate) async fn outcome(&self, order: &str) -> String {
        let path = format!("/api/orders/status/{order}");
        until("the order is final", async || {
            let answer = try_ask(self.get(&path)).await?;
            // It may be unknown for a moment which store to believe, but never that the order is not there.
            assert_ne!(answer.status, 404, "order {order} was accepted and is not known");
            let status =
                answer.json["status"].as_str().filter(|status| matches!(*status, "Confirmed" | "Failed"));
            status.map(str::to_owned)
        })
        .await
    }
}

pub(crate) async fn ask(request: RequestBuilder) -> Answer {
    read(request.send().await.expect("an answer")).await.expect("a whole answer")
}

/// As [`ask`], from a server that may be gone.
pub(crate) async fn try_ask(request: RequestBuilder) -> Option<Answer> {
    read(request.send().await.ok()?).await
}

async fn read(response: reqwest::Response) -> Option<Answer> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.text().await.ok()?;
    let json = serde_json::from_str(&body).unwrap_or(Value::String(body));
    Some(Answer { status, headers, json })
}
