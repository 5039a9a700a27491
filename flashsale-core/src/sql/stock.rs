//! Changes of stock: numbered, each under a name of its own, and one open at a time.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::{actions, parsed, sale_key, sales, unreadable};
use crate::{
    error::{Error, Result},
    ids::{IdempotencyKey, ProductId, SaleId},
    sale::{Epoch, NewSale, SaleState},
    stock::{ChangeOutcome, NewStockChange, StockChange},
};

/// What a [`Row`] reads.
macro_rules! columns {
    () => {
        "sale_id, number, product_id, op_id, units, outcome, requested_at"
    };
}

macro_rules! select_changes {
    ($condition:literal) => {
        concat!("SELECT ", columns!(), " FROM stock_changes WHERE ", $condition)
    };
}

/// What became of the wish to change a stock.
#[derive(Debug)]
pub(crate) enum Requested {
    /// It is noted: now, or it was before.
    Noted(StockChange),
    /// The one before it is not settled yet.
    Busy,
}

/// Notes a change, under the lock of the sale's row; an operator who asks again gets what was noted first.
///
/// More units count in the record from here on, before Redis sells them. Fewer are only wanted: orders may wait
/// that the record does not know, so Redis is asked for them.
pub(crate) async fn request(pool: &PgPool, actor: &str, change: &NewStockChange) -> Result<Requested> {
    let mut tx = pool.begin().await?;
    let sale = change.sale;
    let Some(epoch) = sales::lock(&mut tx, sale).await? else {
        return Err(Error::not_found(format!("sale {sale}")));
    };
    if let Some(noted) = named(&mut tx, sale, &change.op_id).await? {
        return same_as(noted, change).map(Requested::Noted);
    }
    let (state, purged, settled, wanted): (String, bool, i64, i64) = sqlx::query_as(
        "SELECT state, purged_at IS NOT NULL, changes_settled, changes_wanted FROM sales WHERE id = $1",
    )
    .bind(sale_key(sale))
    .fetch_one(&mut *tx)
    .await?;
    if state == SaleState::Closed.as_str() || purged {
        return Err(Error::refused(format!(
            "sale {sale} is over for good; its stock does not change any more"
        )));
    }
    if wanted != settled {
        return Ok(Requested::Busy);
    }
    let possible = judge(&mut tx, change).await?;
    let outcome = match change.units {
        _ if !possible => ChangeOutcome::Refused,
        // Nobody was ever admitted to a sale that was never loaded.
        fewer if fewer < 0 && epoch > Epoch(0) => ChangeOutcome::Waiting,
        _ => ChangeOutcome::Applied,
    };
    let noted = insert(&mut tx, change, settled + 1, outcome).await?;
    let became = match outcome {
        ChangeOutcome::Applied => "",
        ChangeOutcome::Refused => " refused",
        ChangeOutcome::Waiting => " asked for",
    };
    let detail = format!(
        "product {}: {:+} units{became}, as change {} under the operation id {}",
        change.product, change.units, noted.number, change.op_id
    );
    let word = if change.units > 0 { "restock" } else { "reduce" };
    actions::note(&mut tx, actor, word, Some(sale), &detail).await?;
    tx.commit()
        .await
        .map_err(|error| Error::unknown(format!("PostgreSQL did not confirm the change: {error}")))?;
    Ok(Requested::Noted(noted))
}

/// Whether there are so many units by the record; an error if it asks for what no stock can be.
async fn judge(conn: &mut PgConnection, change: &NewStockChange) -> Result<bool> {
    let (sale, product, units) = (change.sale, change.product, change.units);
    let row: Option<(i32, i32)> =
        sqlx::query_as("SELECT stock, sold FROM products WHERE id = $1 AND sale_id = $2")
            .bind(product.get())
            .bind(sale_key(sale))
            .fetch_optional(conn)
            .await?;
    let Some((stock, sold)) = row else {
        return Err(Error::not_found(format!("product {product} of sale {sale}")));
    };
    let (stock, sold) = (i64::from(stock), i64::from(sold));
    if stock + units > i64::from(NewSale::MAX_STOCK) {
        let most = NewSale::MAX_STOCK;
        return Err(Error::refused(format!(
            "product {product} would have {} units, and {most} are the most that one may have",
            stock + units
        )));
    }
    Ok(stock + units >= sold)
}

async fn insert(
    conn: &mut PgConnection,
    change: &NewStockChange,
    number: i64,
    outcome: ChangeOutcome,
) -> Result<StockChange> {
    let settled = outcome != ChangeOutcome::Waiting;
    let row: Row = sqlx::query_as(concat!(
        "INSERT INTO stock_changes (sale_id, number, product_id, op_id, units, outcome, settled_at)
         VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $7 THEN now() END)
         RETURNING ",
        columns!()
    ))
    .bind(sale_key(change.sale))
    .bind(number)
    .bind(change.product.get())
    .bind(change.op_id.as_str())
    .bind(i32::try_from(change.units).map_err(|_| Error::refused("so many units are more than any stock"))?)
    .bind(outcome.word())
    .bind(settled)
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query(
        "UPDATE sales SET changes_wanted = $2, changes_settled = CASE WHEN $3 THEN $2 ELSE changes_settled END
         WHERE id = $1",
    )
    .bind(sale_key(change.sale))
    .bind(number)
    .bind(settled)
    .execute(&mut *conn)
    .await?;
    if outcome == ChangeOutcome::Applied {
        add(conn, change.product, change.units).await?;
    }
    Ok(row.read()?)
}

/// Changes a stock by so many units, unless it would be less than what is sold.
async fn add(conn: &mut PgConnection, product: ProductId, units: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE products SET stock = stock + $2::integer WHERE id = $1 AND stock + $2::integer >= sold",
    )
    .bind(product.get())
    .bind(units)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes down what Redis said to the change that was open, if Redis said it under the epoch under which the
/// sale still stands: what was taken under an older one is in Redis again since the sale was loaded.
pub(crate) async fn settle(pool: &PgPool, epoch: Epoch, change: &StockChange, taken: bool) -> Result<()> {
    let mut tx = pool.begin().await?;
    if sales::lock(&mut tx, change.sale).await? != Some(epoch) {
        return Ok(());
    }
    let noted: String =
        sqlx::query_scalar("SELECT outcome FROM stock_changes WHERE sale_id = $1 AND number = $2")
            .bind(sale_key(change.sale))
            .bind(change.number)
            .fetch_one(&mut *tx)
            .await?;
    if noted != ChangeOutcome::Waiting.word() {
        // Somebody was faster, with the same answer: or Redis has forgotten that one and decided anew.
        if (noted == ChangeOutcome::Applied.word()) != taken {
            tx.rollback().await?;
            sales::request_recover(pool, change.sale, epoch).await?;
        }
        return Ok(());
    }
    let applied = taken && add(&mut tx, change.product, change.units).await?;
    let outcome = if applied { ChangeOutcome::Applied } else { ChangeOutcome::Refused };
    // A Redis that had units left which are sold has forgotten something. They are taken now, and found again
    // when it is rebuilt.
    let recover = taken && !applied;
    sqlx::query(
        "UPDATE sales SET changes_settled = $2,
             recover_requested = CASE WHEN $3 THEN epoch ELSE recover_requested END
         WHERE id = $1",
    )
    .bind(sale_key(change.sale))
    .bind(change.number)
    .bind(recover)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE stock_changes SET outcome = $3, settled_at = now() WHERE sale_id = $1 AND number = $2",
    )
    .bind(sale_key(change.sale))
    .bind(change.number)
    .bind(outcome.word())
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// What Redis may not have: every change after this one, and the open one.
pub(crate) async fn after(pool: &PgPool, sale: SaleId, number: i64) -> Result<Vec<StockChange>> {
    let rows: Vec<Row> = sqlx::query_as(select_changes!(
        "sale_id = $1 AND (number > $2 OR settled_at IS NULL) ORDER BY number"
    ))
    .bind(sale_key(sale))
    .bind(number)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(Row::read).collect::<Result<_, _>>()?)
}

/// The change of this name.
pub(crate) async fn named(
    conn: &mut PgConnection,
    sale: SaleId,
    op_id: &IdempotencyKey,
) -> Result<Option<StockChange>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(select_changes!("sale_id = $1 AND op_id = $2"))
        .bind(sale_key(sale))
        .bind(op_id.as_str())
        .fetch_optional(conn)
        .await?;
    row.map(Row::read).transpose()
}

/// The change of this number.
pub(crate) async fn get(pool: &PgPool, sale: SaleId, number: i64) -> Result<StockChange> {
    let row: Row = sqlx::query_as(select_changes!("sale_id = $1 AND number = $2"))
        .bind(sale_key(sale))
        .bind(number)
        .fetch_one(pool)
        .await?;
    Ok(row.read()?)
}

fn same_as(noted: StockChange, change: &NewStockChange) -> Result<StockChange> {
    if (noted.product, noted.units) == (change.product, change.units) {
        return Ok(noted);
    }
    Err(Error::refused(format!(
        "the operation id {} stands for another change already: {:+} units of product {}. Repeat that one, or give \
         this one an id of its own",
        noted.op_id, noted.units, noted.product
    )))
}

#[derive(sqlx::FromRow)]
struct Row {
    sale_id: i32,
    number: i64,
    product_id: i64,
    op_id: String,
    units: i32,
    outcome: String,
    requested_at: DateTime<Utc>,
}

impl Row {
    fn read(self) -> Result<StockChange, sqlx::Error> {
        Ok(StockChange {
            sale: parsed("stock_changes.sale_id", i64::from(self.sale_id))?,
            number: self.number,
            product: parsed("stock_changes.product_id", self.product_id)?,
            op_id: parsed("stock_changes.op_id", self.op_id)?,
            units: i64::from(self.units),
            outcome: ChangeOutcome::parse(&self.outcome)
                .ok_or_else(|| unreadable("stock_changes.outcome", self.outcome))?,
            requested_at: self.requested_at,
        })
    }
}
