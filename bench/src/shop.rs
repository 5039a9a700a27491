//! Stores of the benchmark's own, and in them one sale per round.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use chrono::{TimeDelta, Utc};
use flashsale_core::{
    Admission, Created, Engine, EngineConfig, Money, NewProduct, NewSale, OrderRequest, ProductId, Refusal,
    SaleId,
};
use flashsale_stack::{Stack, StackOptions};
use redis::{AsyncConnectionConfig, IntoConnectionInfo, aio::MultiplexedConnection, io::tcp::TcpSettings};
use sqlx::{Connection, PgConnection};

use crate::{
    crowd::{Buyer, CONNECTIONS, crowd, per_second},
    rounds::Rounds,
};

/// What every order costs, per unit, in cents.
pub(crate) const UNIT_PRICE: i64 = 24_999;

/// The number of a buyer who comes after all others.
const LATE: usize = 4_000_000_000;

/// The servers that all contenders share, and how much is asked of them.
pub(crate) struct Bench {
    stack: Stack,
    redis: redis::Client,
    pub(crate) rounds: Rounds,
    pub(crate) quick: bool,
    shops: AtomicU32,
}

impl Bench {
    pub(crate) async fn start(rounds: Rounds, quick: bool) -> Result<Self> {
        let stack = Stack::start(StackOptions::default()).await?;
        // As the engine has it: without it a small command waits for the acknowledgement of the one before.
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = stack.redis_url().into_connection_info()?.set_tcp_settings(tcp);
        let bench =
            Self { redis: redis::Client::open(info)?, stack, rounds, quick, shops: AtomicU32::default() };
        let mut redis = bench.connection().await?;
        // A rewrite of the append-only file takes one of few cores for seconds, and whom it hits is chance.
        let mut command = redis::cmd("CONFIG");
        let _: () =
            command.arg("SET").arg("auto-aof-rewrite-percentage").arg(0).query_async(&mut redis).await?;
        Ok(bench)
    }

    /// As much as is measured, or as little as shows that it works.
    pub(crate) fn size(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    pub(crate) fn redis_url(&self) -> &str {
        self.stack.redis_url()
    }

    /// A connection of the driver that the engine uses.
    pub(crate) async fn connection(&self) -> Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        Ok(self.redis.get_multiplexed_async_connection_with_config(&config).await?)
    }

    /// As many as the engine has lanes.
    pub(crate) async fn connections(&self) -> Result<Vec<MultiplexedConnection>> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(self.connection().await?);
        }
        Ok(connections)
    }

    /// A connection that blocks its thread.
    pub(crate) fn blocking_connection(&self) -> Result<redis::Connection> {
        Ok(self.redis.get_connection()?)
    }

    /// Redis empty, as every contender finds it.
    pub(crate) async fn empty_redis(&self) -> Result<MultiplexedConnection> {
        let mut redis = self.connection().await?;
        let _: () = redis::cmd("FLUSHALL").arg("SYNC").query_async(&mut redis).await?;
        Ok(redis)
    }

    /// An empty Redis, a database of its own, and one open sale of these stocks in both.
    pub(crate) async fn shop(&self, stocks: &[usize]) -> Result<Shop> {
        self.empty_redis().await?;
        let database = format!("bench_{}", self.shops.fetch_add(1, Ordering::Relaxed));
        let database_url = self.stack.create_database(&database).await?;
        let engine = Engine::connect(EngineConfig::new(self.redis_url(), &database_url)).await?;
        engine.migrate().await?;
        let operator = engine.operator();
        let Created::New(sale) = operator.create_sale(&new_sale(stocks)?).await? else {
            bail!("a new database has a sale");
        };
        let products = operator.sale(sale).await?.products.iter().map(|product| product.id).collect();
        let mut keeper = engine.keeper();
        Box::pin(keeper.keep_once()).await?;
        let admin_url = self.stack.database_url().to_owned();
        Ok(Shop { engine, sale, products, database_url, database, admin_url })
    }

    pub(crate) async fn stop(self) {
        self.stack.stop().await;
    }
}

fn new_sale(stocks: &[usize]) -> Result<NewSale> {
    let currency = "USD".parse()?;
    let product = |&stock: &usize| {
        anyhow::Ok(NewProduct {
            id: None,
            name: "Headphones".to_owned(),
            description: String::new(),
            image_url: String::new(),
            original_price: Money::from_minor(39_999, currency),
            sale_price: Money::from_minor(UNIT_PRICE, currency),
            stock: u32::try_from(stock)?,
            per_user_limit: 5,
        })
    };
    Ok(NewSale {
        slug: "bench".to_owned(),
        name: "Bench".to_owned(),
        currency,
        starts_at: Utc::now() - TimeDelta::hours(1),
        ends_at: Utc::now() + TimeDelta::hours(24),
        products: stocks.iter().map(product).collect::<Result<_>>()?,
    })
}

/// One open sale, alone in both stores.
pub(crate) struct Shop {
    pub(crate) engine: Engine,
    pub(crate) sale: SaleId,
    pub(crate) products: Vec<ProductId>,
    pub(crate) database_url: String,
    database: String,
    admin_url: String,
}

impl Shop {
    /// What these buyers ask for: one of each product.
    pub(crate) fn requests(&self, numbers: std::ops::Range<usize>) -> Vec<OrderRequest> {
        Buyer::all(numbers).into_iter().map(|buyer| buyer.wants(&self.products)).collect()
    }

    /// Places these orders with the engine, all at once, and says how many it admits in a second. Each has to
    /// be admitted, as an order of its own.
    pub(crate) async fn admit(&self, requests: Vec<OrderRequest>) -> Result<f64> {
        let count = requests.len();
        let engine = self.engine.clone();
        let (mut ids, took) = crowd(requests, move |request| {
            let engine = engine.clone();
            async move {
                match engine.reserve(request).await? {
                    Admission::Admitted(id) => Ok(id),
                    other => bail!("a buyer who should be admitted got {other:?}"),
                }
            }
        })
        .await?;
        ids.sort_unstable();
        ids.dedup();
        ensure!(ids.len() == count, "{count} orders were admitted under {} ids", ids.len());
        Ok(per_second(count, took))
    }

    /// Fails unless exactly this was admitted: so much is left of each product, so many orders are queued.
    pub(crate) async fn expect(&self, left: usize, queued: usize) -> Result<()> {
        for stock in self.engine.operator().live_stock(self.sale).await? {
            ensure!(stock.left == Some(i64::try_from(left)?), "{left} should be left: {stock:?}");
        }
        let backlog: u64 = self.engine.operator().queue().await?.iter().map(|queue| queue.backlog).sum();
        ensure!(backlog == queued as u64, "{queued} orders should be queued, and {backlog} are");
        Ok(())
    }

    /// Fails unless these orders have taken all there was, and the next buyer gets nothing.
    pub(crate) async fn expect_sold_out(&self, orders: usize) -> Result<()> {
        self.expect(0, orders).await?;
        let late = self.requests(LATE..LATE + 1).remove(0);
        match self.engine.reserve(late).await? {
            Admission::Refused(Refusal::SoldOut { left: 0, .. }) => Ok(()),
            other => bail!("nothing is left, and one more buyer got {other:?}"),
        }
    }

    /// Takes all that is queued to the record, which has to confirm it.
    pub(crate) async fn drain(&self, orders: usize) -> Result<Duration> {
        let mut drainer = self.engine.drainer();
        let began = std::time::Instant::now();
        let mut confirmed = 0;
        loop {
            let unit = Box::pin(drainer.drain_backlog(self.sale)).await?;
            if unit.read == 0 {
                break;
            }
            confirmed += unit.confirmed;
        }
        let took = began.elapsed();
        ensure!(confirmed == orders, "{orders} orders should be confirmed, and {confirmed} are");
        Ok(took)
    }

    /// Fails unless both stores tell the same, true story.
    pub(crate) async fn expect_sound(&self) -> Result<()> {
        let report = self.engine.operator().audit(self.sale, Duration::ZERO).await?;
        let broken: Vec<_> = report.checks.iter().filter(|check| !check.holds()).collect();
        ensure!(report.holds(), "the audit finds {broken:#?}");
        Ok(())
    }

    /// Fails unless so many orders of one of each product are confirmed in PostgreSQL, rows, lines and units.
    pub(crate) async fn expect_recorded(&self, orders: usize) -> Result<()> {
        let mut postgres = self.postgres().await?;
        let (rows, lines): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM orders WHERE status = 'Confirmed'), (SELECT count(*) FROM order_items)",
        )
        .fetch_one(&mut postgres)
        .await?;
        let sold: Vec<i32> = sqlx::query_scalar("SELECT sold FROM products").fetch_all(&mut postgres).await?;
        let orders = i64::try_from(orders)?;
        let expected = orders * i64::try_from(self.products.len())?;
        ensure!(
            (rows, lines) == (orders, expected),
            "{orders} orders should be recorded: {rows} rows, {lines} lines"
        );
        ensure!(sold.iter().all(|sold| i64::from(*sold) == orders), "{orders} should be sold: {sold:?}");
        Ok(())
    }

    pub(crate) async fn postgres(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.database_url).await?)
    }

    /// Ends the engine and removes the database: what follows finds the disk as this did.
    pub(crate) async fn close(self) -> Result<()> {
        self.engine.close().await;
        let mut postgres = PgConnection::connect(&self.admin_url).await?;
        let statement = sqlx::AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.database));
        sqlx::query(statement).execute(&mut postgres).await.context("cannot remove a database")?;
        Ok(())
    }
}
