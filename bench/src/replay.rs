//! How fast a repeat of a known order is answered, beside an order that is new.

use std::collections::HashMap;

use anyhow::{Result, bail, ensure};
use flashsale_core::Admission;

use crate::{
    crowd::{crowd, per_second},
    report::{Reach, Row},
    rounds::play,
    shop::Bench,
};

pub(crate) async fn vs_admission(bench: &Bench, name: &'static str) -> Result<Row> {
    let duel = play(name, bench.rounds, async || round(bench).await).await?;
    Ok(Row::of_duel(name, Reach::AtLeast(1.5), &duel, ["repeats", "admissions", "orders/s"]))
}

/// The rates of repeats and of admissions.
async fn round(bench: &Bench) -> Result<(f64, f64)> {
    let orders = bench.size(100_000, 3_000);
    let shop = bench.shop(&[orders]).await?;
    let requests = shop.requests(0..orders);
    let admissions = shop.admit(requests.clone()).await?;
    let engine = shop.engine.clone();
    let (repeats, took) = crowd(requests.clone(), move |request| {
        let engine = engine.clone();
        async move {
            match engine.reserve(request).await? {
                Admission::Replayed(id) => Ok(id),
                other => bail!("a repeat got {other:?}"),
            }
        }
    })
    .await?;
    shop.expect_sold_out(orders).await?;
    // Each repeat has to get its own order back, which the record then knows by its buyer and key.
    shop.drain(orders).await?;
    let mut recorded = HashMap::new();
    let rows: Vec<(uuid::Uuid, String, String)> =
        sqlx::query_as("SELECT id, user_id, idempotency_key FROM orders")
            .fetch_all(&mut shop.postgres().await?)
            .await?;
    for (id, user, key) in rows {
        recorded.insert((user, key), id);
    }
    for (request, repeat) in requests.iter().zip(repeats) {
        let buyer = (request.user.to_string(), request.key.to_string());
        ensure!(recorded.get(&buyer) == Some(&repeat.as_uuid()), "a repeat got another order than its own");
    }
    shop.close().await?;
    Ok((per_second(orders, took), admissions))
}
