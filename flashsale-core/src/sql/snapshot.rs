//! What the record says of one sale at one instant, for loading it into Redis.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use super::{dead_letters, dead_letters::StoredLetter, parsed, sale_key, sales};
use crate::{
    error::{Error, Result},
    ids::{IdempotencyKey, OrderId, ProductId, SaleId, UserId},
    order::{FailureReason, Fingerprint, OrderState},
    sale::Sale,
};

/// A sale as the record had it at one instant. About 250 bytes an order.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub sale: Sale,
    pub orders: Vec<LoadedOrder>,
    /// Confirmed units per user and product.
    pub held: Vec<(UserId, ProductId, u32)>,
    /// Parked entries, and those that an operator has ended and Redis may not know of.
    pub letters: Vec<StoredLetter>,
}

/// A recorded order, as far as Redis keeps it.
#[derive(Debug)]
pub(crate) struct LoadedOrder {
    pub id: OrderId,
    pub user: UserId,
    /// `None` for a duplicate: the key stands for another order.
    pub key: Option<IdempotencyKey>,
    pub fingerprint: Fingerprint,
    /// `Confirmed`, or `Failed` with the reason.
    pub state: OrderState,
    pub failure: Option<FailureReason>,
    pub recorded_at: DateTime<Utc>,
}

/// Reads everything in one transaction that sees one instant: sold units and orders of different instants
/// would add up to another stock.
pub(crate) async fn load_snapshot(pool: &PgPool, sale: SaleId) -> Result<Snapshot> {
    let mut conn = pool.acquire().await?;
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    // A million orders take longer to stream than any other statement may.
    sqlx::query("SET LOCAL statement_timeout = '120s'").execute(&mut *tx).await?;
    let found = sales::sale(&mut tx, sale).await?.ok_or_else(|| Error::not_found(format!("sale {sale}")))?;
    let snapshot = Snapshot {
        orders: orders(&mut tx, sale).await?,
        held: held(&mut tx, sale).await?,
        letters: dead_letters::of_sale(&mut tx, sale).await?,
        sale: found,
    };
    tx.commit().await?;
    Ok(snapshot)
}

type OrderColumns = (Uuid, String, Option<String>, String, String, Option<String>, DateTime<Utc>);

async fn orders(conn: &mut PgConnection, sale: SaleId) -> Result<Vec<LoadedOrder>, sqlx::Error> {
    let mut rows = sqlx::query_as::<_, OrderColumns>(
        "SELECT id, user_id, idempotency_key, fingerprint, status, failure_reason, recorded_at
         FROM orders WHERE sale_id = $1",
    )
    .bind(sale_key(sale))
    .fetch(conn);
    let mut orders = Vec::new();
    while let Some((id, user, key, fingerprint, status, reason, recorded_at)) = rows.try_next().await? {
        let confirmed = status == OrderState::Confirmed.as_str();
        orders.push(LoadedOrder {
            id: parsed("orders.id", id)?,
            user: parsed("orders.user_id", user)?,
            key: key.map(|key| parsed("orders.idempotency_key", key)).transpose()?,
            fingerprint: Fingerprint::from_store(&fingerprint),
            state: if confirmed { OrderState::Confirmed } else { OrderState::Failed },
            // As in the ledger: a word of a newer version must not keep the sale from being loaded.
            failure: reason.map(|word| FailureReason::parse(&word).unwrap_or(FailureReason::Rejected)),
            recorded_at,
        });
    }
    Ok(orders)
}

async fn held(conn: &mut PgConnection, sale: SaleId) -> Result<Vec<(UserId, ProductId, u32)>, sqlx::Error> {
    let mut rows = sqlx::query_as::<_, (String, i64, i64)>(
        "SELECT o.user_id, i.product_id, sum(i.quantity)
         FROM orders o JOIN order_items i ON i.order_id = o.id
         WHERE o.sale_id = $1 AND o.status = 'Confirmed'
         GROUP BY o.user_id, i.product_id",
    )
    .bind(sale_key(sale))
    .fetch(conn);
    let mut held = Vec::new();
    while let Some((user, product, units)) = rows.try_next().await? {
        let units = parsed("order_items.quantity", units)?;
        held.push((parsed("orders.user_id", user)?, parsed("order_items.product_id", product)?, units));
    }
    Ok(held)
}
