//! How fast queued orders become recorded ones: the drainer beside a worker that writes one order per
//! transaction, and beside PostgreSQL taking in the same rows with nothing to decide.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use sqlx::{Connection, Executor, PgConnection};

use crate::{
    crowd::{Buyer, per_second},
    reference,
    report::{Reach, Row},
    rounds::{alternate, play},
    shop::{Bench, Shop},
};

pub(crate) async fn vs_one_by_one(bench: &Bench, name: &'static str) -> Result<Row> {
    let drainer = async || {
        let (shop, rate) = drainer(bench).await?;
        shop.close().await?;
        Ok(rate)
    };
    let duel = alternate(name, bench.rounds, drainer, async || one_by_one(bench).await).await?;
    Ok(Row::of_duel(name, Reach::AtLeast(30.0), &duel, ["drainer", "one by one", "orders/s"]))
}

pub(crate) async fn vs_copy(bench: &Bench, name: &'static str) -> Result<Row> {
    let duel = play(name, bench.rounds, async || {
        let (shop, drained) = drainer(bench).await?;
        let rows = Rows::of(&shop).await?;
        shop.close().await?;
        Ok((drained, copy(bench, &rows).await?))
    })
    .await?;
    Ok(Row::of_duel(name, Reach::AtLeast(0.6), &duel, ["drainer", "COPY", "orders/s"]))
}

fn orders(bench: &Bench) -> usize {
    bench.size(50_000, 800)
}

/// From the queue to settled, with everything that is checked on the way.
async fn drainer(bench: &Bench) -> Result<(Shop, f64)> {
    let orders = orders(bench);
    let shop = bench.shop(&[orders]).await?;
    shop.admit(shop.requests(0..orders)).await?;
    let took = shop.drain(orders).await?;
    shop.expect(0, 0).await?;
    shop.expect_recorded(orders).await?;
    shop.expect_sound().await?;
    Ok((shop, per_second(orders, took)))
}

/// The rival's worker, from its queue to its status.
async fn one_by_one(bench: &Bench) -> Result<f64> {
    let orders = bench.size(2_000, 100);
    let shop = bench.shop(&[orders]).await?;
    let mut redis = bench.connection().await?;
    reference::queue(&mut redis, &Buyer::all(0..orders), &shop.products).await?;
    let mut postgres = shop.postgres().await?;
    let sale = i32::try_from(shop.sale.get())?;
    let began = Instant::now();
    let mut seq = 0;
    while reference::work_once(&mut redis, &mut postgres, sale, seq + 1).await? {
        seq += 1;
    }
    let took = began.elapsed();
    shop.expect_recorded(orders).await?;
    shop.close().await?;
    Ok(per_second(orders, took))
}

/// What COPY says of the tables that a batch of the drainer writes.
struct Rows {
    orders: Vec<u8>,
    items: Vec<u8>,
}

impl Rows {
    /// The rows that the drainer has written in this shop.
    async fn of(shop: &Shop) -> Result<Self> {
        let mut postgres = shop.postgres().await?;
        let orders = copy_out(&mut postgres, "COPY orders TO STDOUT (FORMAT binary)").await?;
        let items = copy_out(&mut postgres, "COPY order_items TO STDOUT (FORMAT binary)").await?;
        Ok(Self { orders, items })
    }
}

async fn copy_out(postgres: &mut PgConnection, statement: &str) -> Result<Vec<u8>> {
    let chunks: Vec<_> = postgres.copy_out_raw(statement).await?.try_collect().await?;
    Ok(chunks.concat())
}

/// The same rows into the same, empty tables: one transaction, one COPY for each.
async fn copy(bench: &Bench, rows: &Rows) -> Result<f64> {
    let orders = orders(bench);
    let shop = bench.shop(&[orders]).await?;
    let mut postgres = shop.postgres().await?;
    let began = Instant::now();
    let mut transaction = postgres.begin().await?;
    copy_in(&mut transaction, "COPY orders FROM STDIN (FORMAT binary)", &rows.orders, orders).await?;
    copy_in(&mut transaction, "COPY order_items FROM STDIN (FORMAT binary)", &rows.items, orders).await?;
    transaction.commit().await?;
    let took = began.elapsed();
    postgres.execute("UPDATE products SET sold = stock").await.context("the units of what was copied")?;
    shop.expect_recorded(orders).await?;
    shop.close().await?;
    Ok(per_second(orders, took))
}

async fn copy_in(postgres: &mut PgConnection, statement: &str, rows: &[u8], expected: usize) -> Result<()> {
    let mut copy = postgres.copy_in_raw(statement).await?;
    copy.send(rows).await?;
    let written = copy.finish().await?;
    ensure!(written == expected as u64, "{statement} wrote {written} rows of {expected}");
    Ok(())
}
