//! What the audit adds up in the record.

use std::collections::HashMap;

use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use super::{dead_letters, dead_letters::StoredLetter, parsed, sale_key};
use crate::{
    error::Result,
    ids::{OrderId, ProductId, SaleId, UserId},
    sale::{Epoch, Seq},
};

/// One product's sums.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct ProductSums {
    pub id: i64,
    pub stock: i64,
    pub sold: i64,
    /// Units in the items of confirmed orders.
    pub confirmed: i64,
}

/// What only the record is asked for, at one instant.
#[derive(Debug)]
pub(crate) struct RecordSums {
    pub products: Vec<ProductSums>,
    /// User, product, confirmed units, limit: where the units exceed the limit.
    pub over_limit: Vec<(String, i64, i64, i32)>,
    /// User and key of which there is more than one order.
    pub double_keys: Vec<(String, String)>,
    /// Epoch and seq that more than one order has.
    pub double_seqs: Vec<(i64, i64)>,
}

/// A reading of one instant, whatever it takes within two minutes.
async fn one_instant(conn: &mut PgConnection) -> Result<sqlx::Transaction<'_, sqlx::Postgres>, sqlx::Error> {
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    sqlx::query("SET LOCAL statement_timeout = '120s'").execute(&mut *tx).await?;
    Ok(tx)
}

pub(crate) async fn record_sums(pool: &PgPool, sale: SaleId) -> Result<RecordSums> {
    let mut conn = pool.acquire().await?;
    let mut tx = one_instant(&mut conn).await?;
    let sale = sale_key(sale);
    let products = sqlx::query_as(
        "SELECT p.id, p.stock::bigint, p.sold::bigint, COALESCE(sum(i.quantity), 0)::bigint AS confirmed
         FROM products p
         LEFT JOIN (order_items i JOIN orders o ON o.id = i.order_id AND o.status = 'Confirmed' AND o.sale_id = $1)
             ON i.product_id = p.id
         WHERE p.sale_id = $1 GROUP BY p.id ORDER BY p.id",
    )
    .bind(sale)
    .fetch_all(&mut *tx)
    .await?;
    let over_limit = sqlx::query_as(
        "SELECT o.user_id, p.id, sum(i.quantity)::bigint, p.per_user_limit
         FROM orders o JOIN order_items i ON i.order_id = o.id JOIN products p ON p.id = i.product_id
         WHERE o.sale_id = $1 AND o.status = 'Confirmed'
         GROUP BY o.user_id, p.id HAVING sum(i.quantity) > p.per_user_limit ORDER BY 1, 2",
    )
    .bind(sale)
    .fetch_all(&mut *tx)
    .await?;
    let double_keys = sqlx::query_as(
        "SELECT user_id, idempotency_key FROM orders WHERE sale_id = $1 AND idempotency_key IS NOT NULL
         GROUP BY user_id, idempotency_key HAVING count(*) > 1 ORDER BY 1, 2",
    )
    .bind(sale)
    .fetch_all(&mut *tx)
    .await?;
    let double_seqs = sqlx::query_as(
        "SELECT epoch, seq FROM orders WHERE sale_id = $1 GROUP BY epoch, seq HAVING count(*) > 1 ORDER BY 1, 2",
    )
    .bind(sale)
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(RecordSums { products, over_limit, double_keys, double_seqs })
}

/// What the record says of the orders that a look at Redis has seen leave the queue.
#[derive(Debug)]
pub(crate) struct Settled {
    pub epoch: Epoch,
    /// Units in all, with the changes that Redis had when it was looked at, and no others.
    pub stock: HashMap<ProductId, i64>,
    /// Confirmed units.
    pub confirmed: HashMap<ProductId, i64>,
    /// Confirmed units of the users that were asked for.
    pub held: HashMap<(UserId, ProductId), i64>,
    /// Which of the parked orders are confirmed.
    pub confirmed_letters: Vec<OrderId>,
    pub letters: Vec<StoredLetter>,
}

/// Adds up orders with a seq up to `seq` that are not among `queued`, and the stock as Redis had it: with the
/// changes up to `last_change`, of which that one may be open still, and `applied` or not.
pub(crate) async fn settled(
    pool: &PgPool,
    sale: SaleId,
    seq: Seq,
    (last_change, applied): (i64, bool),
    queued: &[OrderId],
    users: &[UserId],
) -> Result<Settled> {
    let mut conn = pool.acquire().await?;
    let mut tx = one_instant(&mut conn).await?;
    let queued: Vec<Uuid> = queued.iter().map(|id| id.as_uuid()).collect();
    let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let letters = dead_letters::of_sale(&mut tx, sale).await?;
    let parked: Vec<Uuid> = letters.iter().filter_map(|letter| letter.order).map(OrderId::as_uuid).collect();
    let sale = sale_key(sale);
    let epoch =
        sqlx::query_scalar("SELECT epoch FROM sales WHERE id = $1").bind(sale).fetch_one(&mut *tx).await?;
    let stock: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT p.id, (p.stock + COALESCE(sum(
             CASE WHEN c.number > $2 AND c.outcome = 'applied' THEN -c.units
                  WHEN c.number = $2 AND c.outcome = 'wanted' AND $3 THEN c.units
                  ELSE 0 END), 0))::bigint
         FROM products p
         LEFT JOIN stock_changes c ON c.sale_id = $1 AND c.product_id = p.id AND c.number >= $2
         WHERE p.sale_id = $1 GROUP BY p.id",
    )
    .bind(sale)
    .bind(last_change)
    .bind(applied)
    .fetch_all(&mut *tx)
    .await?;
    let confirmed: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT i.product_id, sum(i.quantity)::bigint FROM orders o JOIN order_items i ON i.order_id = o.id
         WHERE o.sale_id = $1 AND o.status = 'Confirmed' AND o.seq <= $2 AND NOT o.id = ANY($3)
         GROUP BY i.product_id",
    )
    .bind(sale)
    .bind(seq.get())
    .bind(&queued)
    .fetch_all(&mut *tx)
    .await?;
    let held: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT o.user_id, i.product_id, sum(i.quantity)::bigint
         FROM orders o JOIN order_items i ON i.order_id = o.id
         WHERE o.sale_id = $1 AND o.user_id = ANY($4) AND o.status = 'Confirmed' AND o.seq <= $2
             AND NOT o.id = ANY($3)
         GROUP BY o.user_id, i.product_id",
    )
    .bind(sale)
    .bind(seq.get())
    .bind(&queued)
    .bind(&users)
    .fetch_all(&mut *tx)
    .await?;
    let confirmed_letters: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM orders WHERE id = ANY($1) AND status = 'Confirmed'")
            .bind(&parked)
            .fetch_all(&mut *tx)
            .await?;
    tx.commit().await?;
    let product = |id: i64| parsed::<ProductId, _>("product_id", id);
    let per_product = |rows: Vec<(i64, i64)>| -> Result<HashMap<_, _>, sqlx::Error> {
        rows.into_iter().map(|(id, units)| Ok((product(id)?, units))).collect()
    };
    let held =
        held.into_iter().map(|(user, id, units)| Ok(((parsed("user_id", user)?, product(id)?), units)));
    Ok(Settled {
        epoch: Epoch(epoch),
        stock: per_product(stock)?,
        confirmed: per_product(confirmed)?,
        held: held.collect::<Result<_, sqlx::Error>>()?,
        confirmed_letters: confirmed_letters
            .into_iter()
            .map(|id| parsed("orders.id", id))
            .collect::<Result<_, _>>()?,
        letters,
    })
}
