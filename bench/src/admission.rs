//! How many buyers are let in per second: the engine beside a rival, beside Redis itself, and beside its own
//! script called for one order at a time.

use std::{sync::Arc, time::Instant};

use anyhow::Result;

use crate::{
    crowd::{Buyer, CONNECTIONS, crowd, per_second},
    raw::{self, BATCH, Raw},
    reference::Reference,
    report::{Reach, Row},
    rounds::alternate,
    shop::{Bench, Shop},
};

/// Batches that one connection sends ahead of the answers.
const AHEAD: usize = 2;

fn orders(bench: &Bench) -> usize {
    bench.size(100_000, 3_000)
}

pub(crate) async fn vs_reference(bench: &Bench, name: &'static str, items: usize) -> Result<Row> {
    let duel = alternate(
        name,
        bench.rounds,
        async || engine(bench, items).await,
        async || reference(bench, items).await,
    )
    .await?;
    Ok(Row::of_duel(name, Reach::AtLeast(3.0), &duel, ["engine", "reference", "orders/s"]))
}

pub(crate) async fn vs_ceiling(bench: &Bench, name: &'static str) -> Result<Row> {
    raw::prove(bench).await?;
    let duel =
        alternate(name, bench.rounds, async || engine(bench, 1).await, async || ceiling(bench).await).await?;
    Ok(Row::of_duel(name, Reach::AtLeast(0.85), &duel, ["engine", "raw batches", "orders/s"]))
}

pub(crate) async fn vs_single(bench: &Bench, name: &'static str) -> Result<Row> {
    raw::prove(bench).await?;
    let duel =
        alternate(name, bench.rounds, async || engine(bench, 1).await, async || single(bench).await).await?;
    Ok(Row::of_duel(name, Reach::AtLeast(2.5), &duel, ["engine", "one call per order", "orders/s"]))
}

/// `Engine::reserve`.
async fn engine(bench: &Bench, items: usize) -> Result<f64> {
    let orders = orders(bench);
    let shop = bench.shop(&vec![orders; items]).await?;
    let rate = shop.admit(shop.requests(0..orders)).await?;
    ended(shop, orders, rate).await
}

async fn ended(shop: Shop, orders: usize, rate: f64) -> Result<f64> {
    shop.expect_sold_out(orders).await?;
    shop.close().await?;
    Ok(rate)
}

async fn reference(bench: &Bench, items: usize) -> Result<f64> {
    let orders = orders(bench);
    let reference = Arc::new(Reference::open(bench, items, orders).await?);
    let buyers = Buyer::all(0..orders).into_iter().enumerate().collect();
    let placing = Arc::clone(&reference);
    let place = move |(number, buyer)| {
        let reference = Arc::clone(&placing);
        async move { reference.place(number, &buyer).await }
    };
    let (_, took) = crowd(buyers, place).await?;
    reference.expect_sold_out(orders).await?;
    Ok(per_second(orders, took))
}

/// Batches as the engine makes them when there is no lack of orders, encoded before the clock starts, over
/// connections that never wait for an answer before they send the next one.
async fn ceiling(bench: &Bench) -> Result<f64> {
    let orders = orders(bench);
    let shop = bench.shop(&[orders]).await?;
    let raw = Raw::of(&shop, &mut bench.connection().await?).await?;
    let mut shares: Vec<Vec<(Vec<u8>, usize)>> = vec![Vec::new(); CONNECTIONS];
    for (number, batch) in Buyer::all(0..orders).chunks(BATCH).enumerate() {
        shares[number % CONNECTIONS].push((raw.command(batch).get_packed_command(), batch.len()));
    }
    let mut connected = Vec::new();
    for share in shares {
        connected.push((bench.blocking_connection()?, share));
    }
    let began = Instant::now();
    let sending: Vec<_> = connected
        .into_iter()
        .map(|(connection, share)| tokio::task::spawn_blocking(move || send_all(connection, &share)))
        .collect();
    for sent in sending {
        sent.await??;
    }
    let rate = per_second(orders, began.elapsed());
    ended(shop, orders, rate).await
}

fn send_all(mut redis: redis::Connection, batches: &[(Vec<u8>, usize)]) -> Result<()> {
    let mut unanswered = batches.iter();
    for (number, (batch, _)) in batches.iter().enumerate() {
        redis.send_packed_command(batch)?;
        if number >= AHEAD
            && let Some((_, orders)) = unanswered.next()
        {
            raw::expect_admitted(redis.recv_response()?, *orders)?;
        }
    }
    for (_, orders) in unanswered {
        raw::expect_admitted(redis.recv_response()?, *orders)?;
    }
    Ok(())
}

/// The same script, one call per order.
async fn single(bench: &Bench) -> Result<f64> {
    let orders = orders(bench);
    let shop = bench.shop(&[orders]).await?;
    let raw = Raw::of(&shop, &mut bench.connection().await?).await?;
    let shared = Arc::new((raw, bench.connections().await?));
    let buyers = Buyer::all(0..orders).into_iter().enumerate().collect();
    let place = move |(number, buyer): (usize, Buyer)| {
        let shared = Arc::clone(&shared);
        async move {
            let (raw, connections) = &*shared;
            let mut redis = connections[number % connections.len()].clone();
            let reply = raw.command(std::slice::from_ref(&buyer)).query_async(&mut redis).await?;
            raw::expect_admitted(reply, 1)
        }
    };
    let (_, took) = crowd(buyers, place).await?;
    ended(shop, orders, per_second(orders, took)).await
}
