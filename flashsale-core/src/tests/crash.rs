//! Workers that die or stop between any two steps: afterwards every order is final exactly once.
//!
//! A worker is this test binary again, running only [`worker`], so that it can be killed like any process.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::OrderState;

/// Promise P9.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(10);

/// Where a worker stops for good.
const STEPS: [&str; 4] = ["read", "begin", "commit", "settle"];

/// Not a test of its own: what the worker process runs. Stops *after* the named step, except that `commit`
/// is stopped by the lock that [`blocked_before_commit`] waits for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker() {
    let Ok(stop_at) = std::env::var("FLASHSALE_TEST_STOP_AT") else { return };
    let url = |name| std::env::var(name).unwrap();
    let engine = Engine::connect(EngineConfig::new(url("REDIS_URL"), url("DATABASE_URL"))).await.unwrap();
    let sale: SaleId = url("FLASHSALE_TEST_SALE").parse().unwrap();
    let mut drainer = engine.drainer();
    let entries = drainer.read(sale).await.unwrap();
    stop_after("read", &stop_at).await;
    let mut batch = drainer.begin(sale, entries).await.unwrap();
    stop_after("begin", &stop_at).await;
    let recorded = drainer.record(sale, &mut batch).await;
    stop_after("settle", &stop_at).await;
    // Stopped inside its transaction and continued: its session is gone, so it has no verdict.
    println!("RECORDED {}", recorded.is_ok());
}

async fn stop_after(step: &str, stop_at: &str) {
    if step == stop_at {
        println!("STOPPED");
        std::future::pending::<()>().await;
    }
}

fn start_worker(shop: &Shop, stop_at: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::crash::worker", "--nocapture"])
        .env("FLASHSALE_TEST_STOP_AT", stop_at)
        .env("FLASHSALE_TEST_SALE", shop.sale.to_string())
        .env("REDIS_URL", shop.stores().config.redis.url())
        .env("DATABASE_URL", shop.stores().config.postgres.url())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn printed(worker: &mut Child, line: &str) {
    let mut lines = BufReader::new(worker.stdout.as_mut().unwrap()).lines();
    let found = async {
        while let Some(printed) = lines.next_line().await.unwrap() {
            if printed.contains(line) {
                return;
            }
        }
        panic!("the worker ended without printing {line}");
    };
    tokio::time::timeout(BOUND, found).await.expect("the worker prints in time");
}

/// Orders of which one is refused by a rule of the database, so that the batch has both kinds of verdict.
async fn orders(shop: &Shop) -> Vec<OrderId> {
    test_support::refuse_user(&shop.stores().pg, "unlucky").await;
    let mut orders = Vec::new();
    for name in ["ann", "bob", "unlucky", "cid"] {
        orders.push(admitted(shop.buy(name, "k", &[(0, 2), (1, 1)]).await));
    }
    assert_eq!((shop.left(0).await, shop.left(1).await), (2, 6));
    orders
}

/// Another process's drainer takes over: all is final in time, exactly once, and the stock is right.
async fn taken_over(shop: &Shop, orders: &[OrderId], died: Instant) {
    let other = shop.another().await;
    let shutdown = CancellationToken::new();
    let draining = tokio::spawn(other.drainer().run(shutdown.clone()));
    for (id, name) in orders.iter().zip(["ann", "bob", "unlucky", "cid"]) {
        let state = loop {
            let state = shop.engine.order_status(*id).await.unwrap().unwrap().state;
            if state.is_final() {
                break state;
            }
            assert!(died.elapsed() < TAKEN_OVER_WITHIN, "the order of {name} is {state} still");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(
            state,
            if name == "unlucky" { OrderState::Failed } else { OrderState::Confirmed },
            "{name}"
        );
    }
    shutdown.cancel();
    draining.await.unwrap();
    assert_eq!((shop.left(0).await, shop.left(1).await), (4, 7));
    shop.assert_sound().await;
}

/// Waits until the worker stands inside its transaction, its rows written, before the commit.
async fn blocked_before_commit(shop: &Shop) {
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND application_name = 'flashsale-drain' AND wait_event_type = 'Lock'";
    until("the worker waits for the product's row", || async {
        sqlx::query_scalar::<_, i64>(waits).fetch_one(&shop.stores().pg).await.unwrap() > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_at_any_step_loses_nothing() {
    for step in STEPS {
        let shop = Shop::open(&[(10, 2), (10, 2)]).await;
        let orders = orders(&shop).await;
        let mut lock = shop.stores().pg.begin().await.unwrap();
        if step == "commit" {
            // The last rows that a batch writes are its products'.
            sqlx::query("SELECT FROM products FOR UPDATE").execute(&mut *lock).await.unwrap();
        }
        let mut worker = start_worker(&shop, step);
        if step == "commit" {
            blocked_before_commit(&shop).await;
        } else {
            printed(&mut worker, "STOPPED").await;
        }
        worker.kill().await.unwrap();
        let died = Instant::now();
        lock.rollback().await.unwrap();
        taken_over(&shop, &orders, died).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stopped_inside_its_transaction_blocks_nobody_and_does_no_harm_when_it_goes_on() {
    let shop = Shop::open(&[(10, 2), (10, 2)]).await;
    let orders = orders(&shop).await;
    let mut lock = shop.stores().pg.begin().await.unwrap();
    sqlx::query("SELECT FROM products FOR UPDATE").execute(&mut *lock).await.unwrap();
    let mut worker = start_worker(&shop, "nowhere");
    blocked_before_commit(&shop).await;
    signal(&worker, "-STOP").await;
    let stopped = Instant::now();
    // Its statement ends now, and its session is idle in a transaction that holds the sale's row.
    lock.rollback().await.unwrap();
    taken_over(&shop, &orders, stopped).await;
    signal(&worker, "-CONT").await;
    printed(&mut worker, "RECORDED").await;
    worker.wait().await.unwrap();
    assert_eq!((shop.left(0).await, shop.left(1).await), (4, 7));
    shop.assert_sound().await;
}

async fn signal(worker: &Child, signal: &str) {
    let pid = worker.id().expect("it is alive").to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
}
