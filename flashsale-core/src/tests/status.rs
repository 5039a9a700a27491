//! What a status read says: never less than before, and "not found" only when both stores do not know.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{by_hand::*, *};
use crate::{Error, OrderState};

async fn cannot_tell(shop: &Shop, id: OrderId) -> Error {
    let error = shop.engine.order_status(id).await.expect_err("neither a state nor a denial");
    assert!(error.is_transient(), "{error}");
    error
}

/// Reads the orders' states over and over until `end`, and sees that none goes back. Returns how often a
/// state was seen.
async fn watch(engine: Engine, orders: Vec<OrderId>, end: Arc<AtomicBool>) -> usize {
    let mut last: HashMap<OrderId, OrderState> = HashMap::new();
    let mut seen = 0;
    while !end.load(Ordering::Relaxed) {
        for id in &orders {
            let state = match engine.order_status(*id).await {
                Ok(status) => status.expect("an admitted order is never denied").state,
                Err(error) if error.is_transient() => continue,
                Err(error) => panic!("{error}"),
            };
            seen += 1;
            let before = last.insert(*id, state).unwrap_or(OrderState::Queued);
            assert!(before == state || (before < state && !before.is_final()), "{before} became {state}");
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_never_goes_back() {
    let shop = Shop::open(&[(40, 3)]).await;
    // Ten orders more than there are units, so that some fail.
    let product = shop.products[0].to_string();
    let _: i64 = shop.redis(&["HSET", &shop.keys().stock, &product, "50"]).await;
    let mut orders = Vec::new();
    for name in 0..50 {
        orders.push(admitted(shop.buy(&format!("u{name}"), "k", &[(0, 1)]).await));
    }
    let parked = parked_first(&shop).await;
    let end = Arc::new(AtomicBool::new(false));
    // One watcher goes by the same process's knowledge, the other by that of another process.
    let watchers = [shop.engine.clone(), shop.another().await]
        .map(|engine| tokio::spawn(watch(engine, orders.clone(), Arc::clone(&end))));
    let operator = shop.engine.operator();
    for round in 0..5 {
        operator.recover(shop.sale, |_| {}).await.unwrap();
        let mut drainer = shop.engine.drainer();
        if round == 2 {
            lose_everything_settled(&shop).await;
        } else {
            let entries = drainer.read(shop.sale).await.unwrap();
            let mut batch = drainer.begin(shop.sale, entries).await.unwrap();
            tokio::task::yield_now().await;
            if round > 0 {
                drainer.record(shop.sale, &mut batch).await.unwrap();
            }
            if round > 1 {
                drainer.settle(shop.sale, batch).await.unwrap();
            }
        }
    }
    operator.discard(parked).await.unwrap();
    shop.drain().await;
    end.store(true, Ordering::Relaxed);
    for watcher in watchers {
        assert!(watcher.await.unwrap() > 50, "hardly anything was seen");
    }
    for id in &orders {
        assert!(state(&shop, *id).await.is_final());
    }
    assert_eq!(recorded(&shop).await, [40]);
    shop.assert_sound().await;
}

/// Parks the first order of the queue and leaves the others in it.
async fn parked_first(shop: &Shop) -> i64 {
    let mut drainer = shop.engine.drainer();
    let entries = drainer.read(shop.sale).await.unwrap();
    let mut batch = drainer.begin(shop.sale, vec![entries[0].clone()]).await.unwrap();
    let order = batch.orders.remove(0);
    batch.park.push((order.entry, "parked by hand".to_owned()));
    drainer.record(shop.sale, &mut batch).await.unwrap();
    drainer.settle(shop.sale, batch).await.unwrap();
    shop.engine.operator().dead_letters().await.unwrap()[0].id
}

/// Everything is recorded or parked before Redis is emptied, so that no admission is lost with it.
async fn lose_everything_settled(shop: &Shop) {
    shop.drain().await;
    lose_everything(shop).await;
    kept_open(shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_found_takes_both_stores() {
    let shop = Shop::open(&[(10, 3)]).await;
    let queued = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    let unknown = OrderId::new(shop.sale);
    assert_eq!(shop.engine.order_status(unknown).await.unwrap(), None);
    let other_sale = OrderId::new(SaleId::try_from(i64::from(SaleId::MAX)).unwrap());
    assert_eq!(shop.engine.order_status(other_sale).await.unwrap(), None);

    // Without PostgreSQL, Redis alone confirms what it knows and denies nothing.
    let engine = shop.another().await;
    engine.stores().pg.close().await;
    assert_eq!(engine.order_status(queued).await.unwrap().unwrap().state, OrderState::Queued);
    assert!(engine.order_status(unknown).await.unwrap_err().is_transient());

    // While Redis is loading, PostgreSQL alone denies nothing.
    let _: i64 = shop.redis(&["HSET", &shop.keys().sale, "state", "loading"]).await;
    cannot_tell(&shop, queued).await;
    cannot_tell(&shop, unknown).await;
    kept_open(&shop).await;
    assert_eq!(state(&shop, queued).await, OrderState::Processing);
    assert_eq!(shop.engine.order_status(unknown).await.unwrap(), None);
    shop.drain().await;
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_behind_is_not_believed() {
    let shop = Shop::open(&[(10, 3)]).await;
    let id = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    let before = Copy::of(&shop).await;
    shop.drain().await;
    assert_eq!(state(&shop, id).await, OrderState::Confirmed);
    let _: i64 = shop.redis(&["HSET", &shop.keys().sale, "seq", "0"]).await;
    let error = cannot_tell(&shop, id).await;
    assert!(error.to_string().contains("gone back in time"), "{error}");
    // An older copy, of another server: it shows the order as queued still.
    before.restore(&shop).await;
    let _: i64 = shop.redis(&["HSET", &shop.keys().sale, "run_id", &"b".repeat(40)]).await;
    cannot_tell(&shop, id).await;
    kept_open(&shop).await;
    assert_eq!(state(&shop, id).await, OrderState::Confirmed);
    shop.drain().await;
    shop.assert_sound().await;
}

/// What a process asks may be the old master still, before it has heard of the new one: there, an order that the
/// new one has admitted is not known, and is not recorded yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_master_denies_nothing() {
    let shop = Shop::open(&[(10, 3)]).await;
    let elsewhere = OrderId::new(shop.sale);
    // Another process begins to load the sale elsewhere. Our reading of the catalogue is older than that.
    let load = "UPDATE sales SET epoch = epoch + 1 WHERE id = $1";
    let sale = i64::from(shop.sale.get());
    sqlx::query(load).bind(sale).execute(&shop.engine.stores().pg).await.unwrap();
    cannot_tell(&shop, elsewhere).await;
    kept_open(&shop).await;
    assert_eq!(shop.engine.order_status(elsewhere).await.unwrap(), None);
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_empty_redis_the_record_answers_what_it_knows() {
    let shop = Shop::open(&[(10, 3)]).await;
    let confirmed = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    shop.drain().await;
    let parked = parked_order(&shop, "bob").await;
    assert_eq!(state(&shop, parked).await, OrderState::Processing);
    lose_everything(&shop).await;
    assert_eq!(state(&shop, confirmed).await, OrderState::Confirmed);
    assert_eq!(state(&shop, parked).await, OrderState::Processing);
    cannot_tell(&shop, OrderId::new(shop.sale)).await;
    kept_open(&shop).await;
    assert_eq!(state(&shop, confirmed).await, OrderState::Confirmed);
    assert_eq!(state(&shop, parked).await, OrderState::Processing);
    shop.assert_sound().await;
}
