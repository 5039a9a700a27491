//! What the record says of one sale at one instant, for loading it into Redis and for the audit.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use futures::{
    StreamExt, TryStreamExt,
    stream::{BoxStream, Fuse},
};
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::{dead_letters, dead_letters::StoredLetter, parsed, sale_key, sales, within};
use crate::{
    error::{Error, Result},
    ids::{IdempotencyKey, OrderId, ProductId, SaleId, UserId},
    order::{FailureReason, Fingerprint, OrderState},
    sale::Sale,
};

/// Orders that are read at once.
const PAGE: usize = 1_000;
/// The first page of a large record takes its time, where PostgreSQL has to sort it first.
const PAGE_WITHIN: Duration = Duration::from_mins(2);

/// A sale's orders as the record had them at one instant, all of them in memory: some 300 bytes each.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub orders: Vec<LoadedOrder>,
    /// Confirmed units per user and product.
    pub held: Vec<(UserId, ProductId, u32)>,
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
    /// Each product once; none where the database refused them.
    pub lines: Vec<(ProductId, u32)>,
}

impl LoadedOrder {
    /// What it takes of its user's limits: a failed order nothing.
    pub(crate) fn held(&self) -> &[(ProductId, u32)] {
        if self.state == OrderState::Confirmed { &self.lines } else { &[] }
    }
}

/// The record at one instant. One transaction sees it: sold units and orders of different instants would add
/// up to another stock.
pub(crate) struct Instant {
    tx: Transaction<'static, Postgres>,
    sale: SaleId,
}

/// The orders of a sale as they are read: a record may be larger than what a process should hold of it.
pub(crate) struct Orders<'a> {
    rows: Fuse<BoxStream<'a, Result<Columns, sqlx::Error>>>,
    /// The last one read, of which more lines may come.
    last: Option<LoadedOrder>,
}

type Columns =
    (Uuid, String, Option<String>, String, String, Option<String>, DateTime<Utc>, Option<i64>, Option<i32>);

/// Begins to read a sale's record.
pub(crate) async fn begin(pool: &PgPool, sale: SaleId) -> Result<Instant> {
    let mut tx = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    // The statement lasts until its last row is taken, which waits for Redis; each page has a deadline here.
    sqlx::query("SET LOCAL statement_timeout = '30min'").execute(&mut *tx).await?;
    Ok(Instant { tx, sale })
}

/// Reads all orders at once.
pub(crate) async fn load_snapshot(pool: &PgPool, sale: SaleId) -> Result<Snapshot> {
    let mut record = begin(pool, sale).await?;
    let (mut all, mut held) = (Vec::new(), HashMap::new());
    let mut orders = record.orders();
    loop {
        let page = orders.next_page().await?;
        if page.is_empty() {
            break;
        }
        for order in &page {
            for (product, units) in order.held() {
                *held.entry((order.user.clone(), *product)).or_insert(0) += units;
            }
        }
        all.extend(page);
    }
    let held = held.into_iter().map(|((user, product), units)| (user, product, units)).collect();
    Ok(Snapshot { orders: all, held })
}

impl Instant {
    /// The sale with its products.
    pub(crate) async fn sale(&mut self) -> Result<Sale> {
        let sale = sales::sale(&mut self.tx, self.sale).await?;
        sale.ok_or_else(|| Error::not_found(format!("sale {}", self.sale)))
    }

    /// Its parked entries, and those that an operator has ended and Redis may not know of; oldest first.
    pub(crate) async fn letters(&mut self) -> Result<Vec<StoredLetter>> {
        Ok(dead_letters::of_sale(&mut self.tx, self.sale).await?)
    }

    /// How many orders it has.
    pub(crate) async fn count(&mut self) -> Result<u64> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM orders WHERE sale_id = $1")
            .bind(sale_key(self.sale))
            .fetch_one(&mut *self.tx)
            .await?;
        Ok(count.unsigned_abs())
    }

    /// Its orders with their lines. Both tables in the order of their primary keys, which PostgreSQL merges as
    /// it reads them; adding units up there would sort or hash them all first.
    pub(crate) fn orders(&mut self) -> Orders<'_> {
        let rows = sqlx::query_as(
            "SELECT o.id, o.user_id, o.idempotency_key, o.fingerprint, o.status, o.failure_reason, o.recorded_at,
                 i.product_id, i.quantity
             FROM orders o LEFT JOIN order_items i ON i.order_id = o.id
             WHERE o.sale_id = $1 ORDER BY o.id",
        )
        .bind(sale_key(self.sale))
        .fetch(&mut *self.tx);
        Orders { rows: rows.fuse(), last: None }
    }
}

impl Orders<'_> {
    /// The next ones, at most a thousand; none: that was all.
    pub(crate) async fn next_page(&mut self) -> Result<Vec<LoadedOrder>> {
        within(PAGE_WITHIN, async { Ok(self.read_page().await?) }).await
    }

    async fn read_page(&mut self) -> Result<Vec<LoadedOrder>, sqlx::Error> {
        let mut page = Vec::with_capacity(PAGE);
        while page.len() < PAGE {
            let Some(row) = self.rows.try_next().await? else {
                page.extend(self.last.take());
                break;
            };
            let line = line(&row)?;
            match &mut self.last {
                Some(last) if last.id.as_uuid() == row.0 => last.lines.extend(line),
                last => page.extend(last.replace(read(row, line)?)),
            }
        }
        Ok(page)
    }
}

fn line(row: &Columns) -> Result<Option<(ProductId, u32)>, sqlx::Error> {
    let (.., product, quantity) = row;
    let line = |(product, quantity)| {
        Ok((parsed("order_items.product_id", product)?, parsed("order_items.quantity", quantity)?))
    };
    product.zip(*quantity).map(line).transpose()
}

fn read(row: Columns, line: Option<(ProductId, u32)>) -> Result<LoadedOrder, sqlx::Error> {
    let (id, user, key, fingerprint, status, reason, recorded_at, ..) = row;
    let confirmed = status == OrderState::Confirmed.as_str();
    Ok(LoadedOrder {
        id: parsed("orders.id", id)?,
        user: parsed("orders.user_id", user)?,
        key: key.map(|key| parsed("orders.idempotency_key", key)).transpose()?,
        fingerprint: Fingerprint::from_store(&fingerprint),
        state: if confirmed { OrderState::Confirmed } else { OrderState::Failed },
        // As in the ledger: a word of a newer version must not keep the sale from being loaded.
        failure: reason.map(|word| FailureReason::parse(&word).unwrap_or(FailureReason::Rejected)),
        recorded_at,
        lines: Vec::from_iter(line),
    })
}
