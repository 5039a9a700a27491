//! Negative controls: damage that breaks a promise, and that the machine therefore has to catch. One that is
//! survived shows that the machine sees nothing.
//!
//! It is done to the stores by hand, behind the backs of programs that work as they should.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use sqlx::Executor;

use crate::chaos::{
    fault::{Expected, Fault, NOTHING, UNRECORDED},
    stage::Stage,
};

const POLL: Duration = Duration::from_millis(20);

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "control-entry-removed",
        what: "an accepted order is taken out of the queue",
        cost: NOTHING,
        expected: Expected::Caught("is lost"),
        strike: |stage, _| Box::pin(entry_removed(stage)),
    },
    Fault {
        name: "control-stock-raised",
        what: "Redis is told of more stock than there is",
        cost: NOTHING,
        expected: Expected::Caught("was accepted and failed: sold-out"),
        strike: |stage, _| Box::pin(stock_raised(stage)),
    },
    Fault {
        name: "control-keys-forgotten",
        what: "Redis forgets which keys were used",
        cost: NOTHING,
        expected: Expected::Caught("its key has 2 orders"),
        strike: |stage, _| Box::pin(book_changed(stage, KEYS_FORGOTTEN)),
    },
    Fault {
        name: "control-status-back",
        what: "orders that are final are shown as queued again",
        cost: NOTHING,
        expected: Expected::Caught("is shown as Queued for good"),
        strike: |stage, _| Box::pin(book_changed(stage, STATUS_BACK)),
    },
    Fault {
        name: "control-row-deleted",
        what: "a recorded order is deleted, which not even a fault that loses orders may cost",
        cost: UNRECORDED,
        expected: Expected::Caught("confirmed orders hold"),
        strike: |stage, _| Box::pin(row_deleted(stage)),
    },
];

const KEYS_FORGOTTEN: &str = "
    local fields, changed = redis.call('HKEYS', KEYS[1]), 0
    for _, field in ipairs(fields) do
      if string.sub(field, 1, 2) == 'k/' then changed = changed + redis.call('HDEL', KEYS[1], field) end
    end
    return changed";

const STATUS_BACK: &str = "
    local pairs, changed = redis.call('HGETALL', KEYS[1]), 0
    for i = 1, #pairs, 2 do
      if string.sub(pairs[i], 1, 2) == 'o/' and string.sub(pairs[i + 1], 1, 1) == 'C' then
        redis.call('HSET', KEYS[1], pairs[i], 'Q' .. string.sub(pairs[i + 1], 2))
        changed = changed + 1
      end
    end
    return changed";

async fn book_changed(stage: &mut Stage, script: &str) -> Result<()> {
    // On a busy machine it takes its time until an order is final.
    while stage.redis::<usize>(&["EVAL", script, "1", &stage.key("book")]).await? == 0 {
        stage.hold(POLL).await;
    }
    Ok(())
}

async fn stock_raised(stage: &mut Stage) -> Result<()> {
    let wares = stage.street.wares;
    for product in [wares.scarce, wares.wanted] {
        stage.redis::<()>(&["HINCRBY", &stage.key("stock"), &product.to_string(), "100"]).await?;
    }
    Ok(())
}

/// An entry that nobody has in hand: the workers stand still meanwhile.
async fn entry_removed(stage: &mut Stage) -> Result<()> {
    for worker in &stage.workers {
        worker.signal(Signal::SIGSTOP)?;
    }
    let admitted = stage.street.journal.admitted();
    while stage.street.journal.admitted() < admitted + 20 {
        stage.hold(POLL).await;
    }
    let queue = stage.key("queue");
    let newest: Vec<(String, Vec<String>)> =
        stage.redis(&["XREVRANGE", &queue, "+", "-", "COUNT", "1"]).await?;
    let (entry, _) = newest.first().context("the queue is empty")?;
    stage.redis::<()>(&["XDEL", &queue, entry]).await?;
    for worker in &stage.workers {
        worker.signal(Signal::SIGCONT)?;
    }
    Ok(())
}

async fn row_deleted(stage: &mut Stage) -> Result<()> {
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
