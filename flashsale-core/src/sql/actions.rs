//! Who changed what, and when.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::{parsed, sale_key};
use crate::{OperatorAction, error::Result, ids::SaleId};

/// Notes an act, in the transaction of the act.
pub(crate) async fn note(
    conn: &mut PgConnection,
    actor: &str,
    action: &str,
    sale: Option<SaleId>,
    detail: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO operator_actions (actor, action, sale_id, detail) VALUES ($1, $2, $3, $4)")
        .bind(actor)
        .bind(action)
        .bind(sale.map(sale_key))
        .bind(detail)
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes an act that has no transaction of its own.
pub(crate) async fn note_alone(
    pool: &PgPool,
    actor: &str,
    action: &str,
    sale: Option<SaleId>,
    detail: &str,
) -> Result<()> {
    let mut conn = pool.acquire().await?;
    Ok(note(&mut conn, actor, action, sale, detail).await?)
}

/// What was done last, newest first.
pub(crate) async fn last(pool: &PgPool, sale: Option<SaleId>, limit: u32) -> Result<Vec<OperatorAction>> {
    type Row = (i64, DateTime<Utc>, String, String, Option<i32>, String);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, at, actor, action, sale_id, detail FROM operator_actions
         WHERE $1::integer IS NULL OR sale_id = $1 ORDER BY id DESC LIMIT $2",
    )
    .bind(sale.map(sale_key))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    let read = |(id, at, actor, action, sale, detail): Row| {
        let sale = sale.map(|sale| parsed("operator_actions.sale_id", i64::from(sale))).transpose()?;
        Ok(OperatorAction { id, at, actor, action, sale, detail })
    };
    rows.into_iter().map(read).collect()
}
