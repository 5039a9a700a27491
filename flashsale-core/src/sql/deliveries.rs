//! What is to be told of final orders, and to whom.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::parsed;
use crate::{error::Result, ids::OrderId, notifier::Subscriber};

/// Writes down that every consumer is to hear of these orders, which are recorded in the same transaction.
/// Under the sale's lock, as [`wait_for_ledgers`] needs it.
pub(crate) async fn announce(
    conn: &mut PgConnection,
    orders: impl Iterator<Item = OrderId>,
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = orders.map(OrderId::as_uuid).collect();
    // A row that somebody wrote by hand must not look like an order that the database refuses.
    sqlx::query(
        "INSERT INTO deliveries (subscriber, order_id)
         SELECT s.name, final.id FROM subscribers s CROSS JOIN unnest($1::uuid[]) AS final (id)
         ON CONFLICT DO NOTHING",
    )
    .bind(ids)
    .execute(conn)
    .await?;
    Ok(())
}

/// From when this returns on, every order that becomes final is announced to this consumer. Safe to repeat.
pub(crate) async fn subscribe(pool: &PgPool, subscriber: &str) -> Result<()> {
    sqlx::query("INSERT INTO subscribers (name) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(subscriber)
        .execute(pool)
        .await?;
    Ok(wait_for_ledgers(pool).await?)
}

/// Ends it, and forgets what was not told. `false` if there was neither such a consumer nor anything left of one.
pub(crate) async fn unsubscribe(pool: &PgPool, subscriber: &str, actor: &str) -> Result<bool> {
    let mut tx = pool.begin().await?;
    let ended =
        sqlx::query("DELETE FROM subscribers WHERE name = $1").bind(subscriber).execute(&mut *tx).await?;
    let mut was_there = ended.rows_affected() == 1;
    if was_there {
        super::actions::note(&mut tx, actor, "unsubscribe", None, subscriber).await?;
    }
    tx.commit().await?;
    // A batch that is under way may still announce to it.
    wait_for_ledgers(pool).await?;
    loop {
        // In parts, each within the limit on a statement: there may be millions.
        let forgotten = sqlx::query(
            "DELETE FROM deliveries WHERE subscriber = $1 AND order_id = ANY (ARRAY(
                 SELECT order_id FROM deliveries WHERE subscriber = $1 LIMIT 10000))",
        )
        .bind(subscriber)
        .execute(pool)
        .await?;
        if forgotten.rows_affected() == 0 {
            return Ok(was_there);
        }
        was_there = true;
    }
}

/// Waits until every batch has ended that may have looked for consumers before now. It has looked under the lock
/// of its sale, so each lock is taken once, one after the other, to keep no sale waiting for another one.
async fn wait_for_ledgers(pool: &PgPool) -> Result<(), sqlx::Error> {
    let sales: Vec<i32> = sqlx::query_scalar("SELECT id FROM sales WHERE purged_at IS NULL ORDER BY id")
        .fetch_all(pool)
        .await?;
    for sale in sales {
        sqlx::query("SELECT FROM sales WHERE id = $1 FOR SHARE").bind(sale).execute(pool).await?;
    }
    Ok(())
}

/// A delivery that somebody has in hand, and for the how manieth time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InHand {
    pub order: OrderId,
    pub attempt: i32,
}

/// Takes what is due, the longest due first. Whoever takes it has it for `lease`; then it is due again.
pub(crate) async fn take(
    pool: &PgPool,
    subscriber: &str,
    most: usize,
    lease: Duration,
) -> Result<Vec<InHand>> {
    let taken: Vec<(Uuid, i32)> = sqlx::query_as(
        "WITH due AS MATERIALIZED (
             SELECT order_id FROM deliveries WHERE subscriber = $1 AND due_at <= now()
             ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
         )
         UPDATE deliveries d SET attempts = attempts + 1, due_at = now() + $3 * interval '1 millisecond'
         FROM due WHERE d.subscriber = $1 AND d.order_id = due.order_id
         RETURNING d.order_id, d.attempts",
    )
    .bind(subscriber)
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .bind(millis(lease))
    .fetch_all(pool)
    .await?;
    let in_hand = |(order, attempt)| Ok(InHand { order: parsed("deliveries.order_id", order)?, attempt });
    Ok(taken.into_iter().map(in_hand).collect::<Result<_, sqlx::Error>>()?)
}

/// The consumer has heard of these orders. True whoever has them in hand by now.
pub(crate) async fn acknowledge(pool: &PgPool, subscriber: &str, heard: &[OrderId]) -> Result<()> {
    let ids: Vec<Uuid> = heard.iter().map(|id| id.as_uuid()).collect();
    sqlx::query("DELETE FROM deliveries WHERE subscriber = $1 AND order_id = ANY($2)")
        .bind(subscriber)
        .bind(ids)
        .execute(pool)
        .await?;
    Ok(())
}

/// A delivery that is not due for a while from now on.
pub(crate) struct PutOff {
    pub what: InHand,
    pub pause: Duration,
    /// Why, if it failed.
    pub error: Option<String>,
}

/// Puts deliveries off, those that nobody else has taken since.
pub(crate) async fn put_off(pool: &PgPool, subscriber: &str, later: Vec<PutOff>) -> Result<()> {
    let (mut ids, mut attempts, mut pauses, mut errors) = (vec![], vec![], vec![], vec![]);
    for PutOff { what, pause, error } in later {
        ids.push(what.order.as_uuid());
        attempts.push(what.attempt);
        pauses.push(millis(pause));
        errors.push(error);
    }
    // As many of each, or UNNEST would pad with NULL: they were pushed together.
    sqlx::query(
        "UPDATE deliveries d
         SET due_at = now() + later.pause_ms * interval '1 millisecond',
             last_error = COALESCE(later.error, d.last_error)
         FROM unnest($2::uuid[], $3::integer[], $4::bigint[], $5::text[])
             AS later (order_id, attempts, pause_ms, error)
         WHERE d.subscriber = $1 AND d.order_id = later.order_id AND d.attempts = later.attempts",
    )
    .bind(subscriber)
    .bind(ids)
    .bind(attempts)
    .bind(pauses)
    .bind(errors)
    .execute(pool)
    .await?;
    Ok(())
}

/// All consumers by name, with what they have not heard of yet.
pub(crate) async fn subscribers(pool: &PgPool) -> Result<Vec<Subscriber>> {
    type Row = (String, DateTime<Utc>, i64, i64, Option<String>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT s.name, s.created_at, count(d.order_id), count(d.last_error), max(d.last_error)
         FROM subscribers s LEFT JOIN deliveries d ON d.subscriber = s.name
         GROUP BY s.name ORDER BY s.name",
    )
    .fetch_all(pool)
    .await?;
    let read = |(name, since, waiting, failing, error): Row| Subscriber {
        name,
        since,
        waiting: waiting.cast_unsigned(),
        failing: failing.cast_unsigned(),
        error,
    };
    Ok(rows.into_iter().map(read).collect())
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
