//! Recorded orders as people see them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::{parsed, sale_key, unreadable};
use crate::{
    OrderFilter,
    error::Result,
    ids::{OrderId, SaleId},
    money::{Currency, Money},
    order::{FailureReason, OrderLine, OrderRecord, OrderState, OrderStatus},
};

/// Id, and of a row status, reason and instant; or the instant of a parked order alone.
type StatusColumns = (Uuid, Option<String>, Option<String>, DateTime<Utc>);

/// What the record says of these orders: their rows, or that they are parked. One statement, because an order
/// that is ended while it is looked up goes from the dead letters to the orders: two statements could miss it in
/// both.
pub(crate) async fn statuses_of(pool: &PgPool, ids: &[OrderId]) -> Result<HashMap<OrderId, OrderStatus>> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    let rows: Vec<StatusColumns> = sqlx::query_as(
        "SELECT id, status, failure_reason, at FROM (
             SELECT 1 AS place, id, status, failure_reason, recorded_at AS at FROM orders WHERE id = ANY($1)
             UNION ALL
             SELECT 2, order_id, NULL, NULL, parked_at FROM dead_letters WHERE order_id = ANY($1)
         ) AS known ORDER BY place DESC",
    )
    .bind(ids)
    .fetch_all(pool)
    .await?;
    // Of an order that stands in both places its row comes last here, and stays.
    let read = |(id, status, reason, updated_at): StatusColumns| {
        let id: OrderId = parsed("orders.id", id)?;
        // A parked order waits for an operator, and nobody else can tell.
        let state = status.map_or(Ok(OrderState::Processing), |word| state(&word))?;
        Ok((id, OrderStatus { id, state, failure: failure(reason), updated_at }))
    };
    Ok(rows.into_iter().map(read).collect::<Result<_, sqlx::Error>>()?)
}

fn state(word: &str) -> Result<OrderState, sqlx::Error> {
    OrderState::parse(word).ok_or_else(|| unreadable("orders.status", word))
}

fn failure(word: Option<String>) -> Option<FailureReason> {
    word.map(|word| FailureReason::parse(&word).unwrap_or(FailureReason::Rejected))
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    sale_id: i32,
    user_id: String,
    idempotency_key: Option<String>,
    status: String,
    failure_reason: Option<String>,
    duplicate_of: Option<Uuid>,
    total: i64,
    created_at: DateTime<Utc>,
    recorded_at: DateTime<Utc>,
    currency: String,
}

impl Row {
    fn read(self, lines: Vec<Line>) -> Result<OrderRecord, sqlx::Error> {
        let currency: Currency = parsed("sales.currency", self.currency)?;
        Ok(OrderRecord {
            id: parsed("orders.id", self.id)?,
            sale: parsed("orders.sale_id", i64::from(self.sale_id))?,
            user: parsed("orders.user_id", self.user_id)?,
            key: self.idempotency_key.map(|key| parsed("orders.idempotency_key", key)).transpose()?,
            state: state(&self.status)?,
            failure: failure(self.failure_reason),
            duplicate_of: self.duplicate_of.map(|id| parsed("orders.duplicate_of", id)).transpose()?,
            total: Money::from_minor(self.total, currency),
            created_at: self.created_at,
            recorded_at: self.recorded_at,
            lines: lines.into_iter().map(|line| line.read(currency)).collect::<Result<_, _>>()?,
        })
    }
}

#[derive(sqlx::FromRow)]
struct Line {
    order_id: Uuid,
    product_id: i64,
    product_name: Option<String>,
    quantity: i32,
    unit_price: i64,
}

impl Line {
    fn read(self, currency: Currency) -> Result<OrderLine, sqlx::Error> {
        let quantity = u32::try_from(self.quantity).map_err(|e| unreadable("order_items.quantity", e))?;
        let unit_price = Money::from_minor(self.unit_price, currency);
        Ok(OrderLine {
            product: parsed("order_items.product_id", self.product_id)?,
            // An order of a product that its sale does not sell has failed, and has a line nevertheless.
            product_name: self.product_name.unwrap_or_default(),
            quantity,
            unit_price,
            line_total: unit_price
                .times(quantity)
                .ok_or_else(|| unreadable("order_items", "the line's total does not fit"))?,
        })
    }
}

macro_rules! select_orders {
    ($condition:literal) => {
        concat!(
            "SELECT o.id, o.sale_id, o.user_id, o.idempotency_key, o.status, o.failure_reason, o.duplicate_of,
                 o.total, o.created_at, o.recorded_at, s.currency
             FROM orders o JOIN sales s ON s.id = o.sale_id WHERE ",
            $condition
        )
    };
}

/// Recorded orders, newest first. The next page begins before the last id of this one.
pub(crate) async fn orders(pool: &PgPool, filter: &OrderFilter) -> Result<Vec<OrderRecord>> {
    page(&mut *pool.acquire().await?, filter).await
}

/// One order.
pub(crate) async fn order(pool: &PgPool, id: OrderId) -> Result<Option<OrderRecord>> {
    let mut conn = pool.acquire().await?;
    let row = sqlx::query_as(select_orders!("o.id = $1")).bind(id.as_uuid()).fetch_all(&mut *conn).await?;
    Ok(with_lines(&mut conn, row).await?.pop())
}

/// Those of these orders that are recorded, in no order.
pub(crate) async fn orders_by_id(pool: &PgPool, ids: &[OrderId]) -> Result<Vec<OrderRecord>> {
    let mut conn = pool.acquire().await?;
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    let rows = sqlx::query_as(select_orders!("o.id = ANY($1)")).bind(ids).fetch_all(&mut *conn).await?;
    Ok(with_lines(&mut conn, rows).await?)
}

/// The record at one instant, to be read page by page: an export of a busy sale is of one moment.
pub(crate) async fn begin_reading(pool: &PgPool) -> Result<Transaction<'static, Postgres>> {
    let mut tx = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    // Nobody waits for it but who asked for it, and a page of one sale may lie behind many orders of others.
    sqlx::query("SET LOCAL statement_timeout = '2min'").execute(&mut *tx).await?;
    Ok(tx)
}

/// How many orders a filter lets through, whatever its limit.
pub(crate) async fn count(conn: &mut PgConnection, filter: &OrderFilter) -> Result<u64> {
    let count: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM orders WHERE ($1::text IS NULL OR user_id = $1) AND id < $2
             AND ($3::integer IS NULL OR sale_id = $3) AND ($4::text IS NULL OR status = $4)",
    )
    .bind(filter.user.as_ref().map(crate::UserId::as_str))
    .bind(filter.before.map_or(Uuid::max(), OrderId::as_uuid))
    .bind(filter.sale.map(sale_key))
    .bind(filter.state.map(OrderState::as_str))
    .fetch_one(conn)
    .await?;
    Ok(count.cast_unsigned())
}

/// How many orders of a sale are recorded as confirmed and as failed, and how many are parked.
pub(crate) async fn tally(pool: &PgPool, sale: SaleId) -> Result<[u64; 3]> {
    let counts: (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE status = 'Confirmed'), count(*) FILTER (WHERE status = 'Failed'),
             (SELECT count(*) FROM dead_letters WHERE sale_id = $1 AND resolved IS NULL)
         FROM orders WHERE sale_id = $1",
    )
    .bind(sale_key(sale))
    .fetch_one(pool)
    .await?;
    Ok([counts.0, counts.1, counts.2].map(i64::cast_unsigned))
}

/// Recorded orders, newest first, as [`orders`] has them.
pub(crate) async fn page(conn: &mut PgConnection, filter: &OrderFilter) -> Result<Vec<OrderRecord>> {
    // Two statements: one that serves with and without a user would not always use the user's index.
    let select = match &filter.user {
        Some(user) => sqlx::query_as(select_orders!(
            "o.user_id = $1 AND o.id < $2 AND ($3::integer IS NULL OR o.sale_id = $3)
                 AND ($4::text IS NULL OR o.status = $4) ORDER BY o.id DESC LIMIT $5"
        ))
        .bind(Some(user.as_str())),
        None => sqlx::query_as(select_orders!(
            "$1::text IS NULL AND o.id < $2 AND ($3::integer IS NULL OR o.sale_id = $3)
                 AND ($4::text IS NULL OR o.status = $4) ORDER BY o.id DESC LIMIT $5"
        ))
        .bind(None::<&str>),
    };
    let rows = select
        .bind(filter.before.map_or(Uuid::max(), OrderId::as_uuid))
        .bind(filter.sale.map(sale_key))
        .bind(filter.state.map(OrderState::as_str))
        .bind(i64::from(filter.limit))
        .fetch_all(&mut *conn)
        .await?;
    Ok(with_lines(conn, rows).await?)
}

/// An order is written once, together with its lines, so a second statement sees them all.
async fn with_lines(conn: &mut PgConnection, rows: Vec<Row>) -> Result<Vec<OrderRecord>, sqlx::Error> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let found: Vec<Line> = sqlx::query_as(
        "SELECT i.order_id, i.product_id, p.name AS product_name, i.quantity, i.unit_price
         FROM order_items i LEFT JOIN products p ON p.id = i.product_id
         WHERE i.order_id = ANY($1) ORDER BY i.order_id, i.product_id",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    let mut lines: HashMap<Uuid, Vec<Line>> = HashMap::new();
    for line in found {
        lines.entry(line.order_id).or_default().push(line);
    }
    let read = |row: Row| {
        let lines = lines.remove(&row.id).unwrap_or_default();
        row.read(lines)
    };
    rows.into_iter().map(read).collect()
}
