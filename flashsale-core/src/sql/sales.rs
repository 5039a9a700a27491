//! Sales: their rows are the lock of everything that is written about them.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::{
    actions,
    lock::{SessionLock, try_lock},
    parsed, products, sale_key, unreadable,
};
use crate::{
    error::{Error, Result},
    ids::SaleId,
    money::Currency,
    sale::{Epoch, Sale, SaleState, Seq},
};

/// The epoch under which a sale stands now; `None` for a sale that there is not.
pub(crate) async fn epoch_of(pool: &PgPool, sale: SaleId) -> Result<Option<Epoch>> {
    let epoch: Option<i64> = sqlx::query_scalar("SELECT epoch FROM sales WHERE id = $1")
        .bind(sale_key(sale))
        .fetch_optional(pool)
        .await?;
    Ok(epoch.map(Epoch))
}

/// Locks the sale's row until the transaction ends and says under which epoch it stands; `None` if there is
/// no such sale. Whatever depends on the lock must be read by later statements: this one may have waited,
/// and what it saw of other rows is older than that.
pub(crate) async fn lock(conn: &mut PgConnection, sale: SaleId) -> Result<Option<Epoch>, sqlx::Error> {
    let epoch = sqlx::query_scalar("SELECT epoch FROM sales WHERE id = $1 FOR UPDATE")
        .bind(sale_key(sale))
        .fetch_optional(conn)
        .await?;
    Ok(epoch.map(Epoch))
}

/// Notes the highest admission that is recorded, and says whether anybody wants to hear of final orders: asked
/// here, because this statement runs under the sale's lock anyway.
pub(crate) async fn raise_recorded_seq(
    conn: &mut PgConnection,
    sale: SaleId,
    seq: Seq,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "UPDATE sales SET recorded_seq = GREATEST(recorded_seq, $2) WHERE id = $1
         RETURNING EXISTS (SELECT FROM subscribers)",
    )
    .bind(sale_key(sale))
    .bind(seq.get())
    .fetch_one(conn)
    .await
}

/// The lock of loading this sale; `None` if another process has it. Epoch, token and chunk number are what
/// keeps two loads from harming each other.
pub(crate) async fn lock_load(pool: &PgPool, sale: SaleId, limit: Duration) -> Result<Option<SessionLock>> {
    try_lock(pool, "flashsale: load sale", sale_key(sale), limit).await
}

/// Begins a new epoch, above the one that Redis has: a record that was restored from a backup is behind it.
/// From here on no ledger write under an older one succeeds.
pub(crate) async fn raise_epoch(pool: &PgPool, sale: SaleId, in_redis: Epoch) -> Result<Epoch> {
    let epoch = sqlx::query_scalar(
        "UPDATE sales SET epoch = GREATEST(epoch, $2) + 1 WHERE id = $1 AND purged_at IS NULL RETURNING epoch",
    )
    .bind(sale_key(sale))
    .bind(in_redis.get())
    .fetch_optional(pool)
    .await?;
    epoch.map(Epoch).ok_or_else(|| Error::refused(format!("sale {sale} does not exist, or is over for good")))
}

/// Notes that the load under this epoch was completed. `false` if another load has begun since.
pub(crate) async fn set_loaded_epoch(pool: &PgPool, sale: SaleId, epoch: Epoch) -> Result<bool> {
    let done = sqlx::query("UPDATE sales SET loaded_epoch = $2 WHERE id = $1 AND epoch = $2")
        .bind(sale_key(sale))
        .bind(epoch.get())
        .execute(pool)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Asks the keeper to recover the sale, because Redis was seen to be wrong under this epoch. A recovery that
/// has begun since answers it.
pub(crate) async fn request_recover(pool: &PgPool, sale: SaleId, epoch: Epoch) -> Result<()> {
    sqlx::query("UPDATE sales SET recover_requested = $2 WHERE id = $1 AND recover_requested < $2")
        .bind(sale_key(sale))
        .bind(epoch.get())
        .execute(pool)
        .await?;
    Ok(())
}

/// Sets what the operator wants. A closed sale stays closed; what is so already is not noted again.
pub(crate) async fn set_state(pool: &PgPool, sale: SaleId, state: SaleState, actor: &str) -> Result<()> {
    let mut tx = pool.begin().await?;
    let stands: Option<String> = sqlx::query_scalar("SELECT state FROM sales WHERE id = $1 FOR UPDATE")
        .bind(sale_key(sale))
        .fetch_optional(&mut *tx)
        .await?;
    let stands = stands.ok_or_else(|| Error::not_found(format!("sale {sale}")))?;
    if stands == state.as_str() {
        return Ok(());
    }
    if stands == SaleState::Closed.as_str() {
        return Err(Error::refused(format!("sale {sale} is closed, which is final; create a new sale")));
    }
    sqlx::query("UPDATE sales SET state = $2 WHERE id = $1")
        .bind(sale_key(sale))
        .bind(state.as_str())
        .execute(&mut *tx)
        .await?;
    let act = match state {
        SaleState::Open => "resume",
        SaleState::Paused => "pause",
        SaleState::Closed => "close",
    };
    actions::note(&mut tx, actor, act, Some(sale), &format!("it was {stands}")).await?;
    Ok(tx.commit().await?)
}

/// Moves the window, and says what it was and what it is. An end that has passed is now: a sale that seems to
/// have ended a day ago would be removed from Redis at once.
pub(crate) async fn set_window(
    pool: &PgPool,
    sale: SaleId,
    starts_at: Option<DateTime<Utc>>,
    ends_at: Option<DateTime<Utc>>,
    actor: &str,
) -> Result<[(DateTime<Utc>, DateTime<Utc>); 2]> {
    type Row = (DateTime<Utc>, DateTime<Utc>, String, Option<DateTime<Utc>>, DateTime<Utc>);
    let mut tx = pool.begin().await?;
    let row: Option<Row> = sqlx::query_as(
        "SELECT starts_at, ends_at, state, purged_at, now() FROM sales WHERE id = $1 FOR UPDATE",
    )
    .bind(sale_key(sale))
    .fetch_optional(&mut *tx)
    .await?;
    let (starts, ends, state, purged_at, now) =
        row.ok_or_else(|| Error::not_found(format!("sale {sale}")))?;
    if state == SaleState::Closed.as_str() {
        return Err(Error::refused(format!("sale {sale} is closed, which is final; create a new sale")));
    }
    if purged_at.is_some() {
        return Err(Error::refused(format!(
            "sale {sale} ended more than a day ago and is not sold again; create a new sale"
        )));
    }
    if ends_at.is_some_and(|at| at < now) && ends < now {
        return Err(Error::refused(format!(
            "sale {sale} has ended; an end in the future would open it again"
        )));
    }
    let mut window = (starts_at.unwrap_or(starts), ends_at.map_or(ends, |at| at.max(now)));
    if window.0 >= window.1 {
        return Err(Error::refused(format!(
            "the sale would end before it starts (it starts {}, and ends {}); move both",
            window.0, window.1
        )));
    }
    if window != (starts, ends) {
        // As it stands there, which is to the microsecond.
        window = sqlx::query_as(
            "UPDATE sales SET starts_at = $2, ends_at = $3 WHERE id = $1 RETURNING starts_at, ends_at",
        )
        .bind(sale_key(sale))
        .bind(window.0)
        .bind(window.1)
        .fetch_one(&mut *tx)
        .await?;
        let detail = format!("{starts} to {ends} became {} to {}", window.0, window.1);
        actions::note(&mut tx, actor, "window", Some(sale), &detail).await?;
        tx.commit().await?;
    }
    Ok([(starts, ends), window])
}

/// Notes that the sale is over for good, before its keys are removed from Redis. `false`, and nothing noted,
/// if it is being loaded, stands under another epoch, ends at another time than was judged, has parked orders, or
/// a change of its stock is open.
pub(crate) async fn mark_purged(
    pool: &PgPool,
    sale: SaleId,
    epoch: Epoch,
    ends_at: DateTime<Utc>,
) -> Result<bool> {
    let mut tx = pool.begin().await?;
    // First the lock, then a statement that sees what was parked before it was got.
    lock(&mut tx, sale).await?;
    let done = sqlx::query(
        "UPDATE sales SET purged_at = COALESCE(purged_at, now())
         WHERE id = $1 AND epoch = $2 AND loaded_epoch = $2 AND ends_at = $3
             AND changes_wanted = changes_settled
             AND NOT EXISTS (SELECT FROM dead_letters WHERE sale_id = $1)",
    )
    .bind(sale_key(sale))
    .bind(epoch.get())
    .bind(ends_at)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected() == 1)
}

#[derive(sqlx::FromRow)]
pub(super) struct Row {
    id: i32,
    slug: String,
    name: String,
    currency: String,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    state: String,
    epoch: i64,
    loaded_epoch: i64,
    recorded_seq: i64,
    recover_requested: i64,
    purged_at: Option<DateTime<Utc>>,
    changes_wanted: i64,
    changes_settled: i64,
}

impl Row {
    fn read(self) -> Result<Sale, sqlx::Error> {
        Ok(Sale {
            id: parsed("sales.id", i64::from(self.id))?,
            slug: self.slug,
            name: self.name,
            currency: parsed::<Currency, _>("sales.currency", self.currency)?,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            state: SaleState::parse(&self.state).ok_or_else(|| unreadable("sales.state", self.state))?,
            epoch: Epoch(self.epoch),
            loaded_epoch: Epoch(self.loaded_epoch),
            recorded_seq: Seq(self.recorded_seq),
            recover_requested: Epoch(self.recover_requested),
            purged_at: self.purged_at,
            changes_wanted: self.changes_wanted,
            changes_settled: self.changes_settled,
            products: Vec::new(),
        })
    }
}

/// All sales with their products, by id, but for those of `known` that are over for good.
pub(crate) async fn sales(pool: &PgPool, known: &[SaleId]) -> Result<Vec<Sale>> {
    let mut conn = pool.acquire().await?;
    let rows = rows(&mut conn, None, known).await?;
    Ok(with_products(&mut conn, rows).await?)
}

/// One sale with its products.
pub(crate) async fn sale(conn: &mut PgConnection, id: SaleId) -> Result<Option<Sale>, sqlx::Error> {
    let row = rows(conn, Some(id), &[]).await?;
    Ok(with_products(conn, row).await?.pop())
}

async fn rows(
    conn: &mut PgConnection,
    id: Option<SaleId>,
    known: &[SaleId],
) -> Result<Vec<Row>, sqlx::Error> {
    let known: Vec<i32> = known.iter().copied().map(sale_key).collect();
    // NOT IN, which is hashed by every PostgreSQL, and not <> ALL, which goes through the array for each row.
    sqlx::query_as(
        "SELECT id, slug, name, currency, starts_at, ends_at, state, epoch, loaded_epoch, recorded_seq,
             recover_requested, purged_at, changes_wanted, changes_settled
         FROM sales WHERE ($1::integer IS NULL OR id = $1)
             AND (purged_at IS NULL OR id NOT IN (SELECT unnest($2::integer[]))) ORDER BY id",
    )
    .bind(id.map(sale_key))
    .bind(known)
    .fetch_all(conn)
    .await
}

/// A product belongs to its sale from the beginning. Its stock may be newer than the sale's row where a transaction
/// does not see one instant.
async fn with_products(conn: &mut PgConnection, rows: Vec<Row>) -> Result<Vec<Sale>, sqlx::Error> {
    let ids: Vec<i32> = rows.iter().map(|row| row.id).collect();
    let place: HashMap<i32, usize> = ids.iter().copied().zip(0..).collect();
    let mut sales = rows.into_iter().map(Row::read).collect::<Result<Vec<_>, _>>()?;
    for product in products::of_sales(conn, &ids).await? {
        if let Some(&at) = place.get(&product.sale_id) {
            let currency = sales[at].currency;
            sales[at].products.push(product.read(currency)?);
        }
    }
    Ok(sales)
}
