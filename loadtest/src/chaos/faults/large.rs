//! A sale that has sold 100,000 orders loses its Redis: how long until it sells again is a promise.

use std::time::Duration;

use anyhow::Result;
use flashsale_core::OrderId;
use sqlx::{Connection, Executor};

use crate::chaos::{
    fault::{Cost, Expected, Fault, UNRECORDED, promised},
    stage::Stage,
};

/// Users whose orders the machine puts into the record.
pub(crate) const CROWD: &str = "crowd-";
const ORDERS: usize = 100_000;
const AT_ONCE: usize = 10_000;
const POLL: Duration = Duration::from_millis(20);

pub(crate) const FAULTS: &[Fault] = &[Fault {
    name: "redis-empty-large",
    what: "somebody empties Redis when 100,000 orders are recorded: it sells again within 5 s",
    cost: Cost { within: promised(5), ..UNRECORDED },
    expected: Expected::Survived,
    strike: |stage, _| Box::pin(flushed_when_large(stage)),
}];

async fn flushed_when_large(stage: &mut Stage) -> Result<()> {
    record_a_crowd(stage).await?;
    stage.redis(&["FLUSHALL"]).await
}

/// Orders of long ago, as the ledger would have recorded them: in bits, so that it can work in between.
async fn record_a_crowd(stage: &Stage) -> Result<()> {
    let mut connection = stage.postgres().await?;
    let (sale, product) = (i64::from(stage.sale.get()), stage.street.wares.plenty);
    let product: i64 = product.to_string().parse()?;
    let fingerprint: String = loop {
        let any = sqlx::query_scalar("SELECT fingerprint FROM orders LIMIT 1");
        match any.fetch_optional(&mut connection).await? {
            Some(fingerprint) => break fingerprint,
            None => stage.hold(POLL).await,
        }
    };
    let mut ids: Vec<_> = (0..ORDERS).map(|_| OrderId::new(stage.sale).to_string()).collect();
    ids.sort_unstable();
    for (part, ids) in ids.chunks(AT_ONCE).enumerate() {
        let first = i64::try_from(part * AT_ONCE)?;
        let mut transaction = connection.begin().await?;
        // Numbered before everything that was admitted since.
        let orders = "INSERT INTO orders (id, sale_id, user_id, idempotency_key, fingerprint, epoch, seq, status, total, created_at)
             SELECT id::uuid, $2, $3 || ($4 + place), 'k' || ($4 + place), $5, 0, $4 + place - $6, 'Confirmed', 1000, now()
             FROM unnest($1::text[]) WITH ORDINALITY AS made (id, place)";
        let orders = sqlx::query(orders).bind(ids).bind(sale).bind(CROWD).bind(first).bind(&fingerprint);
        orders.bind(i64::try_from(ORDERS)?).execute(&mut *transaction).await?;
        let items = "INSERT INTO order_items (order_id, product_id, quantity, unit_price)
             SELECT id::uuid, $2, 1, 1000 FROM unnest($1::text[]) AS made (id)";
        sqlx::query(items).bind(ids).bind(product).execute(&mut *transaction).await?;
        let sold = sqlx::query("UPDATE products SET sold = sold + $2 WHERE id = $1");
        sold.bind(product).bind(i64::try_from(ids.len())?).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    // As autovacuum would have done long ago.
    connection.execute("ANALYZE orders, order_items").await?;
    Ok(())
}
