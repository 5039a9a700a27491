//! Orders as a batch of the ledger reads and writes them. All of it runs under the lock of the sale's row.
//!
//! Every look-up must go by its index from the first minute of a sale on, when the tables have no statistics
//! yet. By made-up ones PostgreSQL prefers to read all orders of the sale for each batch: with 30,000 of them a
//! batch takes a second instead of milliseconds. Hence two statements for id and key instead of one with OR,
//! and `LATERAL` with `LIMIT` or `OFFSET 0`, which leaves one way to go: for each value asked, into the index.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{parsed, sale_key};
use crate::{
    ids::{IdempotencyKey, OrderId, ProductId, SaleId, UserId},
    order::{FailureReason, Fingerprint, OrderState},
    queue::{QueuedOrder, Verdict},
};

/// Id, status and reason; and for a duplicate, id and fingerprint of the first order.
type RecordedColumns = (Uuid, String, Option<String>, Option<Uuid>, Option<String>);

/// What was decided about these orders before, under their own ids.
pub(crate) async fn recorded(
    conn: &mut PgConnection,
    ids: &[OrderId],
) -> Result<Vec<(OrderId, Verdict)>, sqlx::Error> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    let rows: Vec<RecordedColumns> = sqlx::query_as(
        "SELECT o.id, o.status, o.failure_reason, first.id, first.fingerprint
         FROM orders o LEFT JOIN orders first ON first.id = o.duplicate_of
         WHERE o.id = ANY($1)",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    let verdict = |status: &str, reason: Option<String>, first: Option<(OrderId, Fingerprint)>| {
        if status == OrderState::Confirmed.as_str() {
            return Verdict::Confirmed;
        }
        // A word that only a newer version knows must not stop the queue: that it failed is what counts.
        let reason = reason.and_then(|word| FailureReason::parse(&word)).unwrap_or(FailureReason::Rejected);
        Verdict::Failed { reason, key_holder: first }
    };
    rows.into_iter()
        .map(|(id, status, reason, first, fingerprint)| {
            let first = first.map(|id| parsed("orders.id", id)).transpose()?;
            let first = first.zip(fingerprint.as_deref().map(Fingerprint::from_store));
            Ok((parsed("orders.id", id)?, verdict(&status, reason, first)))
        })
        .collect()
}

/// An order that one of the users has already, with one of its lines if it was confirmed: an order of several
/// lines comes several times.
pub(crate) struct Standing {
    pub user: UserId,
    /// None for a duplicate, which holds none.
    pub key: Option<IdempotencyKey>,
    pub order: OrderId,
    pub fingerprint: Fingerprint,
    /// Units that the user holds by it.
    pub holds: Option<(ProductId, i64)>,
}

/// User, key, id, fingerprint; product and units.
type StandingColumns = (String, Option<String>, Uuid, String, Option<i64>, Option<i32>);

/// All orders that these users have in this sale: which keys are taken, and what is held. One look-up for both,
/// since most buyers of a batch have nothing yet.
pub(crate) async fn standing(
    conn: &mut PgConnection,
    sale: SaleId,
    users: &[&str],
) -> Result<Vec<Standing>, sqlx::Error> {
    let rows: Vec<StandingColumns> = sqlx::query_as(
        "SELECT asked.user_id, had.idempotency_key, had.id, had.fingerprint, item.product_id, item.quantity
         FROM unnest($2::text[]) AS asked (user_id)
         CROSS JOIN LATERAL (
             SELECT o.id, o.idempotency_key, o.fingerprint, o.status FROM orders o
             WHERE o.sale_id = $1 AND o.user_id = asked.user_id OFFSET 0
         ) AS had
         LEFT JOIN LATERAL (
             SELECT i.product_id, i.quantity FROM order_items i
             WHERE i.order_id = had.id AND had.status = 'Confirmed' OFFSET 0
         ) AS item ON true",
    )
    .bind(sale_key(sale))
    .bind(users)
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|(user, key, order, fingerprint, product, units)| {
            let product = product.map(|id| parsed("order_items.product_id", id)).transpose()?;
            Ok(Standing {
                user: parsed("orders.user_id", user)?,
                key: key.map(|key| parsed("orders.idempotency_key", key)).transpose()?,
                order: parsed("orders.id", order)?,
                fingerprint: Fingerprint::from_store(&fingerprint),
                holds: product.zip(units.map(i64::from)),
            })
        })
        .collect()
}

/// A row of `orders` to be written.
pub(crate) struct NewRow<'a> {
    pub order: &'a QueuedOrder,
    /// `None` if it is confirmed.
    pub failure: Option<FailureReason>,
    /// The order that holds its key, if another one does.
    pub duplicate_of: Option<OrderId>,
    /// In minor units.
    pub total: i64,
}

/// Writes the rows of orders, confirmed and failed.
pub(crate) async fn insert(
    conn: &mut PgConnection,
    sale: SaleId,
    rows: &[NewRow<'_>],
) -> Result<(), sqlx::Error> {
    let column = |row: &NewRow<'_>| {
        let state = if row.failure.is_some() { OrderState::Failed } else { OrderState::Confirmed };
        (state.as_str(), row.failure.map(FailureReason::as_str))
    };
    let ids: Vec<Uuid> = rows.iter().map(|row| row.order.id.as_uuid()).collect();
    let users: Vec<&str> = rows.iter().map(|row| row.order.user.as_str()).collect();
    let keys: Vec<Option<&str>> =
        rows.iter().map(|row| row.duplicate_of.is_none().then(|| row.order.key.as_str())).collect();
    let fingerprints: Vec<String> = rows.iter().map(|row| row.order.fingerprint.to_string()).collect();
    let epochs: Vec<i64> = rows.iter().map(|row| row.order.epoch.get()).collect();
    let seqs: Vec<i64> = rows.iter().map(|row| row.order.seq.get()).collect();
    let (states, reasons): (Vec<&str>, Vec<Option<&str>>) = rows.iter().map(column).unzip();
    let firsts: Vec<Option<Uuid>> = rows.iter().map(|row| row.duplicate_of.map(OrderId::as_uuid)).collect();
    let totals: Vec<i64> = rows.iter().map(|row| row.total).collect();
    let admitted: Vec<DateTime<Utc>> = rows.iter().map(|row| row.order.admitted_at).collect();
    let lengths = [
        ids.len(),
        users.len(),
        keys.len(),
        fingerprints.len(),
        epochs.len(),
        seqs.len(),
        states.len(),
        reasons.len(),
        firsts.len(),
        totals.len(),
        admitted.len(),
    ];
    assert_eq!(lengths, [rows.len(); 11], "UNNEST pads shorter arrays with NULL");
    sqlx::query(
        "INSERT INTO orders (sale_id, id, user_id, idempotency_key, fingerprint, epoch, seq, status,
             failure_reason, duplicate_of, total, created_at)
         SELECT $1, * FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
             $8::text[], $9::text[], $10::uuid[], $11::bigint[], $12::timestamptz[])",
    )
    .bind(sale_key(sale))
    .bind(ids)
    .bind(users)
    .bind(keys)
    .bind(fingerprints)
    .bind(epochs)
    .bind(seqs)
    .bind(states)
    .bind(reasons)
    .bind(firsts)
    .bind(totals)
    .bind(admitted)
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes the lines of orders.
pub(crate) async fn insert_items<'a>(
    conn: &mut PgConnection,
    orders: impl Iterator<Item = &'a QueuedOrder>,
) -> Result<(), sqlx::Error> {
    let (mut ids, mut products, mut quantities, mut prices) = (vec![], vec![], vec![], vec![]);
    for order in orders {
        for line in &order.lines {
            ids.push(order.id.as_uuid());
            products.push(line.product.get());
            quantities.push(i64::from(line.quantity));
            prices.push(line.unit_price);
        }
    }
    let lengths = [ids.len(), products.len(), quantities.len(), prices.len()];
    assert_eq!(lengths, [ids.len(); 4], "UNNEST pads shorter arrays with NULL");
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO order_items (order_id, product_id, quantity, unit_price)
         SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[])",
    )
    .bind(ids)
    .bind(products)
    .bind(quantities)
    .bind(prices)
    .execute(conn)
    .await?;
    Ok(())
}
