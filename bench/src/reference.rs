//! The rival: a flash-sale API as it is commonly written. Each step of an order is a command of its own, and
//! a worker writes one order per transaction.
//!
//! It is measured at its best: with the driver, the connections and the concurrency that the engine has, and
//! two commands that need not wait for each other in one round trip.

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use flashsale_core::ProductId;
use redis::{AsyncCommands, aio::MultiplexedConnection};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::{
    crowd::{Buyer, random_id},
    shop::{Bench, UNIT_PRICE},
};

const DECREMENT: &str = "\
local left = tonumber(redis.call('GET', KEYS[1]) or '0')
if left < tonumber(ARGV[1]) then return -1 end
return redis.call('DECRBY', KEYS[1], ARGV[1])";

const QUEUE: &str = "orders:queue";
const KEPT_SECONDS: u64 = 86_400;
const PER_USER_LIMIT: i64 = 5;

#[derive(Serialize, Deserialize)]
struct Order {
    id: Uuid,
    user: String,
    key: String,
    created_ms: i64,
    items: Vec<Item>,
}

#[derive(Serialize, Deserialize)]
struct Item {
    product: i64,
    quantity: i64,
    unit_price: i64,
}

impl Order {
    fn new(buyer: &Buyer, products: &[ProductId]) -> Self {
        let item = |product: &ProductId| Item { product: product.get(), quantity: 1, unit_price: UNIT_PRICE };
        Self {
            id: random_id(),
            user: buyer.user.to_string(),
            key: buyer.key.to_string(),
            created_ms: Utc::now().timestamp_millis(),
            items: products.iter().map(item).collect(),
        }
    }
}

fn stock_key(product: ProductId) -> String {
    format!("stock:{product}")
}

fn status_key(order: Uuid) -> String {
    format!("order:{order}:status")
}

/// The rival's hot path.
pub(crate) struct Reference {
    connections: Vec<MultiplexedConnection>,
    decrement: String,
    products: Vec<ProductId>,
}

impl Reference {
    /// In an empty Redis, with so much of each product.
    pub(crate) async fn open(bench: &Bench, products: usize, stock: usize) -> Result<Self> {
        let mut redis = bench.empty_redis().await?;
        let products: Vec<_> =
            (1..=i64::try_from(products)?).map(ProductId::try_from).collect::<Result<_, _>>()?;
        for product in &products {
            let _: () = redis.set(stock_key(*product), stock).await?;
        }
        let decrement = redis::cmd("SCRIPT").arg("LOAD").arg(DECREMENT).query_async(&mut redis).await?;
        Ok(Self { connections: bench.connections().await?, decrement, products })
    }

    /// Places one order of one of each product. The number spreads the buyers over the connections.
    pub(crate) async fn place(&self, number: usize, buyer: &Buyer) -> Result<()> {
        let mut redis = self.connections[number % self.connections.len()].clone();
        let idempotency = format!("idempotency:{}", buyer.key);
        let mut claim = redis::cmd("SET");
        claim.arg(&idempotency).arg(1).arg("NX").arg("EX").arg(KEPT_SECONDS);
        let new: bool = claim.query_async(&mut redis).await?;
        ensure!(new, "a new key is known");
        for product in &self.products {
            let quota = format!("quota:{}:{product}", buyer.user);
            let held: Option<i64> = redis.get(&quota).await?;
            ensure!(held.unwrap_or(0) < PER_USER_LIMIT, "a buyer who holds nothing is over the limit");
            let mut decrement = redis::cmd("EVALSHA");
            decrement.arg(&self.decrement).arg(1).arg(stock_key(*product)).arg(1);
            let left: i64 = decrement.query_async(&mut redis).await?;
            ensure!(left >= 0, "sold out too early");
            let mut raise = redis::pipe();
            raise.incr(&quota, 1).ignore().expire(&quota, i64::try_from(KEPT_SECONDS)?).ignore();
            let () = raise.query_async(&mut redis).await?;
        }
        let order = Order::new(buyer, &self.products);
        let status = status_key(order.id);
        let mut show = redis::pipe();
        show.hset_multiple(&status, &[("status", "Queued"), ("user", &order.user), ("key", &order.key)])
            .ignore();
        show.expire(&status, i64::try_from(KEPT_SECONDS)?).ignore();
        let () = show.query_async(&mut redis).await?;
        let _: usize = redis.lpush(QUEUE, serde_json::to_string(&order)?).await?;
        Ok(())
    }

    /// Fails unless these orders have taken all there was.
    pub(crate) async fn expect_sold_out(&self, orders: usize) -> Result<()> {
        let mut redis = self.connections[0].clone();
        for product in &self.products {
            let left: i64 = redis.get(stock_key(*product)).await?;
            ensure!(left == 0, "the reference has {left} left of product {product}");
        }
        let queued: usize = redis.llen(QUEUE).await?;
        ensure!(queued == orders, "the reference has queued {queued} orders of {orders}");
        Ok(())
    }
}

/// Queues orders as [`Reference::place`] does.
pub(crate) async fn queue(
    redis: &mut MultiplexedConnection,
    buyers: &[Buyer],
    products: &[ProductId],
) -> Result<()> {
    for buyer in buyers {
        let order = Order::new(buyer, products);
        let _: usize = redis.lpush(QUEUE, serde_json::to_string(&order)?).await?;
    }
    Ok(())
}

/// The rival's worker: takes the oldest order and writes it, in a transaction of its own; says whether there
/// was one.
pub(crate) async fn work_once(
    redis: &mut MultiplexedConnection,
    postgres: &mut PgConnection,
    sale: i32,
    seq: i64,
) -> Result<bool> {
    let Some(text) = redis.rpop::<_, Option<String>>(QUEUE, None).await? else { return Ok(false) };
    let order: Order = serde_json::from_str(&text)?;
    let mut transaction = postgres.begin().await?;
    sqlx::query(
        "INSERT INTO orders (id, sale_id, user_id, idempotency_key, fingerprint, epoch, seq, status, total,
             created_at)
         VALUES ($1, $2, $3, $4, '10123456789abcdef', 1, $5, 'Confirmed', $6, $7)",
    )
    .bind(order.id)
    .bind(sale)
    .bind(&order.user)
    .bind(&order.key)
    .bind(seq)
    .bind(order.items.iter().map(|item| item.quantity * item.unit_price).sum::<i64>())
    .bind(chrono::DateTime::from_timestamp_millis(order.created_ms).context("an instant")?)
    .execute(&mut *transaction)
    .await?;
    for item in &order.items {
        sqlx::query(
            "INSERT INTO order_items (order_id, product_id, quantity, unit_price)
             VALUES ($1, $2, $3::bigint, $4)",
        )
        .bind(order.id)
        .bind(item.product)
        .bind(item.quantity)
        .bind(item.unit_price)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("UPDATE products SET sold = (sold + $2::bigint)::integer WHERE id = $1")
            .bind(item.product)
            .bind(item.quantity)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    let _: () = redis.hset(status_key(order.id), "status", "Confirmed").await?;
    Ok(true)
}
