//! Damage done to the stores by hand, behind the backs of programs that work as they should.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use sqlx::Executor;

use crate::chaos::stage::Stage;

const POLL: Duration = Duration::from_millis(20);

pub(super) const KEYS_FORGOTTEN: &str = "
    local fields, changed = redis.call('HKEYS', KEYS[1]), 0
    for _, field in ipairs(fields) do
      if string.sub(field, 1, 1) == 'k' then changed = changed + redis.call('HDEL', KEYS[1], field) end
    end
    return changed";

pub(super) const STATUS_BACK: &str = "
    local pairs, changed = redis.call('HGETALL', KEYS[1]), 0
    for i = 1, #pairs, 2 do
      if string.sub(pairs[i], 1, 1) == 'o' and string.sub(pairs[i + 1], 1, 1) == 'C' then
        redis.call('HSET', KEYS[1], pairs[i], 'Q' .. string.sub(pairs[i + 1], 2))
        changed = changed + 1
      end
    end
    return changed";

pub(super) async fn book_changed(stage: &mut Stage, script: &str) -> Result<()> {
    // On a busy machine it takes its time until an order is final.
    while stage.redis::<usize>(&["EVAL", script, "1", &stage.key("book")]).await? == 0 {
        stage.hold(POLL).await;
    }
    Ok(())
}

pub(super) async fn stock_raised(stage: &mut Stage) -> Result<()> {
    let wares = stage.street.wares;
    for product in [wares.scarce, wares.wanted] {
        stage.redis::<()>(&["HINCRBY", &stage.key("stock"), &product.to_string(), "100"]).await?;
    }
    Ok(())
}

/// An entry that nobody has in hand: the workers stand still meanwhile.
pub(super) async fn entry_removed(stage: &mut Stage) -> Result<()> {
    for worker in &mut stage.workers {
        worker.signal(Signal::SIGSTOP)?;
    }
    let admitted = stage.street.journal.admitted();
    while stage.street.journal.admitted() < admitted + 20 {
        stage.hold(POLL).await;
    }
    let queue = stage.key("queue");
    let newest: Vec<(String, Vec<Vec<u8>>)> =
        stage.redis(&["XREVRANGE", &queue, "+", "-", "COUNT", "1"]).await?;
    let (entry, _) = newest.first().context("the queue is empty")?;
    stage.redis::<()>(&["XDEL", &queue, entry]).await?;
    for worker in &mut stage.workers {
        worker.signal(Signal::SIGCONT)?;
    }
    Ok(())
}

pub(super) async fn row_deleted(stage: &mut Stage) -> Result<()> {
    let mut connection = stage.postgres().await?;
    let newest = "(SELECT id FROM orders WHERE status = 'Confirmed' ORDER BY id DESC LIMIT 1)";
    let delete = format!(
        "WITH lines AS (DELETE FROM order_items WHERE order_id = {newest}) DELETE FROM orders WHERE id = {newest}"
    );
    while connection.execute(sqlx::AssertSqlSafe(delete.clone())).await?.rows_affected() == 0 {
        stage.hold(POLL).await;
    }
    Ok(())
}
