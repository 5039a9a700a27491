//! The engine on real stores. Each test has a database and a sale of its own, and ends with the audit.

mod audit;
mod auditor;
mod backlog;
mod by_hand;
mod cart;
mod crash;
mod damage;
mod dead_letters;
mod engine;
mod guard;
mod herd;
mod keeper;
mod metrics;
mod notifier;
mod own_stores;
mod preflight;
mod property;
mod proxy;
mod rate_limit;
mod recover;
mod scripts;
mod status;
mod stock;
mod unknown;
mod upgrade;
mod vanished;
mod watch;

use std::{sync::Arc, time::Duration};

use chrono::{TimeDelta, Utc};

use crate::{
    Admission, AuditReport, Created, Engine, EngineConfig, IdempotencyKey, Items, Keeper, NewProduct,
    NewSale, OrderId, OrderRequest, ProductId, Quantity, Refusal, SaleId, UserId, keys::SaleKeys,
    money::Money, stores::Stores, test_support,
};

/// How long a condition is waited for.
const BOUND: Duration = Duration::from_secs(20);

/// One sale on the shared stack, loaded and open.
pub(crate) struct Shop {
    pub engine: Engine,
    pub sale: SaleId,
    /// In the order in which they were asked for.
    pub products: Vec<ProductId>,
}

impl Shop {
    /// A shop with these stocks and limits, its sale loaded by a keeper that looked once.
    pub(crate) async fn open(products: &[(u32, u32)]) -> Self {
        let shop = Self::unloaded(products).await;
        shop.keeper().keep_once().await.expect("the sale is loaded");
        shop
    }

    /// The same before any keeper has seen it.
    pub(crate) async fn unloaded(products: &[(u32, u32)]) -> Self {
        Self::on(config(test_support::database().await).await, products).await
    }

    /// The same on these stores.
    pub(crate) async fn on(config: EngineConfig, products: &[(u32, u32)]) -> Self {
        let engine = Engine::connect(config).await.unwrap();
        let sale = new_sale(products);
        // All databases share one Redis, so the sale ids must differ between them.
        test_support::spread_sale_ids(&engine.stores().pg).await;
        let Created::New(sale) = engine.operator().create_sale(&sale).await.unwrap() else {
            panic!("a new sale")
        };
        engine.stores().catalog.refresh().await.unwrap();
        let products = engine.operator().sale(sale).await.unwrap().products.iter().map(|p| p.id).collect();
        Self { engine, sale, products }
    }

    /// Another engine on the same stores, as another process would have it.
    pub(crate) async fn another(&self) -> Engine {
        Engine::connect(self.stores().config.clone()).await.unwrap()
    }

    pub(crate) fn stores(&self) -> &Arc<Stores> {
        self.engine.stores()
    }

    pub(crate) fn keys(&self) -> SaleKeys {
        SaleKeys::new(self.sale)
    }

    pub(crate) fn keeper(&self) -> Keeper {
        self.engine.keeper()
    }

    pub(crate) async fn buy(
        &self,
        user: &str,
        key: &str,
        lines: &[(usize, u32)],
    ) -> crate::Result<Admission> {
        self.engine.reserve(self.request(user, key, lines)).await
    }

    pub(crate) fn request(&self, user: &str, key: &str, lines: &[(usize, u32)]) -> OrderRequest {
        let line = |&(product, units): &(usize, u32)| {
            (self.products[product], Quantity::try_from(i64::from(units)).unwrap())
        };
        OrderRequest {
            user: self::user(user),
            key: self::key(key),
            items: Items::merge(lines.iter().map(line)).unwrap(),
            request_id: None,
        }
    }

    /// The run id of the Redis that holds the sale.
    pub(crate) async fn server(&self) -> String {
        crate::scripts::look(&self.stores().link, &self.keys(), &[]).await.unwrap().server
    }

    /// Drains until nothing is left.
    pub(crate) async fn drain(&self) {
        let mut drainer = self.engine.drainer();
        while drainer.drain_once(self.sale).await.expect("draining works").read > 0 {}
    }

    pub(crate) async fn audit(&self) -> AuditReport {
        self.engine.operator().audit(self.sale, Duration::ZERO).await.unwrap()
    }

    /// The standing end of every test.
    pub(crate) async fn assert_sound(&self) {
        let report = self.audit().await;
        assert!(report.holds(), "{report:#?}");
    }

    /// Runs one Redis command beside the engine.
    pub(crate) async fn redis<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        self.stores().link.query(&command).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// The same for a command on the sale's book, whose fields are not all text.
    pub(crate) async fn book<T: redis::FromRedisValue>(&self, name: &str, words: &[&[u8]]) -> T {
        let mut command = redis::cmd(name);
        command.arg(&self.keys().book).arg(words);
        self.stores().link.query(&command).await.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) async fn left(&self, product: usize) -> i64 {
        self.redis(&["HGET", &self.keys().stock, &self.products[product].to_string()]).await
    }
}

async fn config(database_url: String) -> EngineConfig {
    EngineConfig::new(test_support::stack().await.redis_url(), database_url)
}

pub(crate) fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

pub(crate) fn key(name: &str) -> IdempotencyKey {
    name.parse().unwrap()
}

fn new_sale(products: &[(u32, u32)]) -> NewSale {
    let currency = "USD".parse().unwrap();
    let product = |(index, &(stock, per_user_limit)): (usize, &(u32, u32))| NewProduct {
        id: None,
        name: format!("Product {index}"),
        description: String::new(),
        image_url: String::new(),
        original_price: Money::parse("399.99", currency).unwrap(),
        sale_price: Money::parse("249.99", currency).unwrap(),
        stock,
        per_user_limit,
    };
    NewSale {
        slug: "test".to_owned(),
        name: "Test".to_owned(),
        currency,
        starts_at: Utc::now() - TimeDelta::hours(1),
        ends_at: Utc::now() + TimeDelta::hours(1),
        products: products.iter().enumerate().map(product).collect(),
    }
}

/// Waits for a condition, at most [`BOUND`].
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let end = tokio::time::Instant::now() + BOUND;
    while !condition().await {
        assert!(tokio::time::Instant::now() < end, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn admitted(answer: crate::Result<Admission>) -> OrderId {
    match answer {
        Ok(Admission::Admitted(id)) => id,
        other => panic!("not admitted: {other:?}"),
    }
}
