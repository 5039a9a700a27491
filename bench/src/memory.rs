//! What an order costs in Redis, and whether admitting the next one costs more the more there are.

use std::ops::Range;

use anyhow::{Context, Result};

use crate::{
    report::{Reach, Row},
    rounds::{Figures, play},
    shop::{Bench, Shop},
};

/// Orders that are made at once, before they are placed: a million requests would not all be in the cache of
/// the processor, nor need they be in memory.
const SLICE: usize = 100_000;

/// Bytes of Redis per order, with all orders queued and with all of them settled.
pub(crate) async fn per_order(
    bench: &Bench,
    queued: &'static str,
    settled: &'static str,
) -> Result<[Row; 2]> {
    let orders = bench.size(1_000_000, 4_000);
    let shop = bench.shop(&[orders]).await?;
    let empty = used(bench).await?;
    fill(&shop, 0..orders).await?;
    shop.expect_sold_out(orders).await?;
    let full = used(bench).await?;
    eprintln!("{queued}  {orders} orders are queued");
    shop.drain(orders).await?;
    shop.expect(0, 0).await?;
    shop.expect_recorded(orders).await?;
    let drained = used(bench).await?;
    shop.close().await?;
    let row = |name, most, used: f64| {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 orders")]
        let figures = Figures::of(&[(used - empty) / orders as f64]);
        Row { name, unit: "bytes/order", reach: Reach::AtMost(most), figures, of: format!("{orders} orders") }
    };
    Ok([row(queued, 380.0, full), row(settled, 320.0, drained)])
}

async fn used(bench: &Bench) -> Result<f64> {
    let mut redis = bench.connection().await?;
    let info: String = redis::cmd("INFO").arg("memory").query_async(&mut redis).await?;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).context("no used_memory")?;
    Ok(used.trim().parse()?)
}

/// What an admission costs in a sale of very many orders, beside one in a sale of few.
pub(crate) async fn growth(bench: &Bench, name: &'static str) -> Result<Row> {
    let (many, few) = (bench.size(1_000_000, 4_000), bench.size(10_000, 1_000));
    let timed = bench.size(20_000, 1_000);
    // Each round finds the many orders in a store of its own, for all stores begin empty.
    let duel = play(name, bench.rounds, async || {
        Ok((cost_after(bench, many, timed).await?, cost_after(bench, few, timed).await?))
    })
    .await?;
    Ok(Row::of_duel(name, Reach::AtMost(1.15), &duel, ["many orders", "few", "ns/order"]))
}

/// Nanoseconds per admission once so many orders are in the sale.
async fn cost_after(bench: &Bench, orders: usize, timed: usize) -> Result<f64> {
    let shop = bench.shop(&[orders + timed]).await?;
    fill(&shop, 0..orders).await?;
    let rate = shop.admit(shop.requests(orders..orders + timed)).await?;
    shop.expect_sold_out(orders + timed).await?;
    shop.close().await?;
    Ok(1e9 / rate)
}

async fn fill(shop: &Shop, numbers: Range<usize>) -> Result<()> {
    for from in numbers.clone().step_by(SLICE) {
        shop.admit(shop.requests(from..(from + SLICE).min(numbers.end))).await?;
    }
    Ok(())
}
