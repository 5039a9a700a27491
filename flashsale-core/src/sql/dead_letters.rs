//! Dead letters: queue entries that could not be decided, until an operator ends them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{actions, parsed, sale_key, unreadable};
use crate::{
    error::Result,
    ids::{OrderId, SaleId},
    queue::Entry,
};

/// How an operator ended a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolution {
    Replayed,
    Discarded,
}

impl Resolution {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }

    /// What the operator did, as it is noted.
    fn act(self) -> &'static str {
        match self {
            Self::Replayed => "replay",
            Self::Discarded => "discard",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Replayed, Self::Discarded].into_iter().find(|resolution| resolution.as_str() == word)
    }
}

/// A row of `dead_letters`.
#[derive(Debug, Clone)]
pub(crate) struct StoredLetter {
    pub id: i64,
    pub sale: SaleId,
    pub entry: Entry,
    /// `None` when the entry does not name an order of its sale.
    pub order: Option<OrderId>,
    pub reason: String,
    pub parked_at: DateTime<Utc>,
    /// It was ended, but Redis may not have been told yet.
    pub resolved: Option<Resolution>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    sale_id: i32,
    entry_id: String,
    order_id: Option<Uuid>,
    fields: Vec<Vec<u8>>,
    reason: String,
    parked_at: DateTime<Utc>,
    resolved: Option<String>,
}

impl Row {
    fn read(self) -> Result<StoredLetter, sqlx::Error> {
        let resolution =
            |word: String| Resolution::parse(&word).ok_or_else(|| unreadable("dead_letters.resolved", word));
        Ok(StoredLetter {
            id: self.id,
            sale: parsed("dead_letters.sale_id", i64::from(self.sale_id))?,
            entry: Entry { id: self.entry_id, fields: self.fields },
            order: self.order_id.map(|id| parsed("dead_letters.order_id", id)).transpose()?,
            reason: self.reason,
            parked_at: self.parked_at,
            resolved: self.resolved.map(resolution).transpose()?,
        })
    }
}

/// Which of these orders are parked.
pub(crate) async fn parked(conn: &mut PgConnection, ids: &[OrderId]) -> Result<Vec<OrderId>, sqlx::Error> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    let found: Vec<Uuid> = sqlx::query_scalar(
        "SELECT order_id FROM dead_letters WHERE order_id IS NOT NULL AND order_id = ANY($1)",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    found.into_iter().map(|id| parsed("dead_letters.order_id", id)).collect()
}

/// Parks an entry. One that is parked stays as it is, also when an operator has ended it: a discarded entry
/// that comes again must not come back to life.
pub(crate) async fn insert(
    conn: &mut PgConnection,
    sale: SaleId,
    entry: &Entry,
    order: Option<OrderId>,
    reason: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO dead_letters (sale_id, entry_id, order_id, fields, reason) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING",
    )
    .bind(sale_key(sale))
    .bind(&entry.id)
    .bind(order.map(OrderId::as_uuid))
    .bind(&entry.fields)
    .bind(reason)
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes how a parked order was ended, and by whom; the first ending stands. `false` if the letter is not there.
/// The sale's row is locked, so that nobody else ends it in between.
pub(crate) async fn resolve(
    conn: &mut PgConnection,
    sale: SaleId,
    letter: i64,
    order: OrderId,
    (how, actor): (Resolution, &str),
) -> Result<bool, sqlx::Error> {
    let resolved: Option<Option<String>> =
        sqlx::query_scalar("SELECT resolved FROM dead_letters WHERE id = $1 AND order_id = $2")
            .bind(letter)
            .bind(order.as_uuid())
            .fetch_optional(&mut *conn)
            .await?;
    if resolved == Some(None) {
        sqlx::query("UPDATE dead_letters SET resolved = $2 WHERE id = $1")
            .bind(letter)
            .bind(how.as_str())
            .execute(&mut *conn)
            .await?;
        let detail = format!("dead letter {letter}, order {order}");
        actions::note(conn, actor, how.act(), Some(sale), &detail).await?;
    }
    Ok(resolved.is_some())
}

/// Discards an entry that does not say what it holds, so that there is nothing to record or to give back.
/// `false` if the letter is not there.
pub(crate) async fn discard_garbage(pool: &PgPool, letter: i64, actor: &str) -> Result<bool> {
    let mut tx = pool.begin().await?;
    let resolved: Option<(i32, Option<String>)> =
        sqlx::query_as("SELECT sale_id, resolved FROM dead_letters WHERE id = $1 FOR UPDATE")
            .bind(letter)
            .fetch_optional(&mut *tx)
            .await?;
    if let Some((sale, None)) = &resolved {
        sqlx::query("UPDATE dead_letters SET resolved = 'discarded' WHERE id = $1")
            .bind(letter)
            .execute(&mut *tx)
            .await?;
        let sale = parsed("dead_letters.sale_id", i64::from(*sale))?;
        let detail = format!("dead letter {letter}, which did not say what it holds");
        actions::note(&mut tx, actor, Resolution::Discarded.act(), Some(sale), &detail).await?;
        tx.commit().await?;
    }
    Ok(resolved.is_some())
}

/// All letters, oldest first.
pub(crate) async fn list(pool: &PgPool) -> Result<Vec<StoredLetter>> {
    let mut conn = pool.acquire().await?;
    Ok(read(&mut conn, None, None, false).await?)
}

/// How many letters each sale has; a sale that has none is not there.
pub(crate) async fn count(pool: &PgPool) -> Result<HashMap<SaleId, i64>> {
    let rows: Vec<(i32, i64)> =
        sqlx::query_as("SELECT sale_id, count(*) FROM dead_letters WHERE resolved IS NULL GROUP BY sale_id")
            .fetch_all(pool)
            .await?;
    let count = |(sale, letters)| Ok((parsed("dead_letters.sale_id", i64::from(sale))?, letters));
    Ok(rows.into_iter().map(count).collect::<Result<_, sqlx::Error>>()?)
}

/// The letters of one sale, oldest first.
pub(super) async fn of_sale(conn: &mut PgConnection, sale: SaleId) -> Result<Vec<StoredLetter>, sqlx::Error> {
    read(conn, None, Some(sale), false).await
}

/// One letter.
pub(crate) async fn letter(pool: &PgPool, id: i64) -> Result<Option<StoredLetter>> {
    let mut conn = pool.acquire().await?;
    Ok(read(&mut conn, Some(id), None, false).await?.pop())
}

/// Letters that were ended but are still here: Redis may not have been told, because a command was killed.
pub(crate) async fn unfinished(pool: &PgPool) -> Result<Vec<StoredLetter>> {
    let mut conn = pool.acquire().await?;
    Ok(read(&mut conn, None, None, true).await?)
}

async fn read(
    conn: &mut PgConnection,
    id: Option<i64>,
    sale: Option<SaleId>,
    only_resolved: bool,
) -> Result<Vec<StoredLetter>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, sale_id, entry_id, order_id, fields, reason, parked_at, resolved FROM dead_letters
         WHERE ($1::bigint IS NULL OR id = $1) AND ($2::integer IS NULL OR sale_id = $2)
             AND (NOT $3 OR resolved IS NOT NULL)
         ORDER BY id",
    )
    .bind(id)
    .bind(sale.map(sale_key))
    .bind(only_resolved)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Row::read).collect()
}

/// Removes a letter that was ended, once Redis has answered. One that was not ended stays.
pub(crate) async fn finish_dead_letter(pool: &PgPool, letter: i64) -> Result<()> {
    sqlx::query("DELETE FROM dead_letters WHERE id = $1 AND resolved IS NOT NULL")
        .bind(letter)
        .execute(pool)
        .await?;
    Ok(())
}
