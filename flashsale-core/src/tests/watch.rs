//! Watched orders: each change once and in order, through every outage, and nothing left behind.

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::{by_hand::*, *};
use crate::{
    Drainer, Error, FailureReason, OrderState, OrderWatch, drainer::Batch, keys::book_order, watch::Watches,
};

async fn watch(shop: &Shop, id: OrderId) -> OrderWatch {
    shop.engine.watch_order(id).await.unwrap().expect("a known order")
}

/// The next state that is told; `None` at the end.
async fn next(watch: &mut OrderWatch) -> Result<Option<OrderState>, Error> {
    let next = tokio::time::timeout(BOUND, watch.next()).await.expect("waited too long for a change");
    Ok(next?.map(|status| status.state))
}

async fn told(watch: &mut OrderWatch, state: OrderState) {
    assert_eq!(next(watch).await.unwrap(), Some(state));
}

async fn confirmed(mut watch: OrderWatch) {
    while next(&mut watch).await.unwrap().expect("a final state") != OrderState::Confirmed {}
    assert_eq!(next(&mut watch).await.unwrap(), None);
}

/// Takes what is queued and marks it as being processed.
async fn begin(shop: &Shop) -> (Drainer, Batch) {
    let mut drainer = shop.engine.drainer();
    let entries = drainer.read(shop.sale).await.unwrap();
    let batch = drainer.begin(shop.sale, entries).await.unwrap();
    (drainer, batch)
}

/// Nothing is watched any more.
async fn assert_forgotten(engine: &Engine) {
    until("nothing is watched", async || engine.watches().orders() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_told_once_to_everybody() {
    let shop = Shop::open(&[(1, 3)]).await;
    // One unit more than there is, so that the second order fails.
    let product = shop.products[0].to_string();
    let _: i64 = shop.redis(&["HSET", &shop.keys().stock, &product, "2"]).await;
    let first = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    let second = admitted(shop.buy("bob", "k", &[(0, 1)]).await);
    let mut watches = [watch(&shop, first).await, watch(&shop, first).await];
    let mut failing = watch(&shop, second).await;
    let elsewhere = shop.another().await;
    let mut other = elsewhere.watch_order(first).await.unwrap().unwrap();
    for watch in watches.iter_mut().chain([&mut failing, &mut other]) {
        told(watch, OrderState::Queued).await;
    }
    assert_eq!(shop.engine.watches().orders(), 2);

    let (mut drainer, mut batch) = begin(&shop).await;
    // Who begins to watch now is not shown what was read before.
    told(&mut watch(&shop, first).await, OrderState::Processing).await;
    for watch in watches.iter_mut().chain([&mut failing, &mut other]) {
        told(watch, OrderState::Processing).await;
    }
    drainer.record(shop.sale, &mut batch).await.unwrap();
    drainer.settle(shop.sale, batch).await.unwrap();
    for watch in watches.iter_mut().chain([&mut other]) {
        told(watch, OrderState::Confirmed).await;
        assert_eq!(next(watch).await.unwrap(), None);
        assert_eq!(next(watch).await.unwrap(), None, "the end is the end");
    }
    let failed = failing.next().await.unwrap().unwrap();
    assert_eq!((failed.state, failed.failure), (OrderState::Failed, Some(FailureReason::SoldOut)));
    assert_eq!(failing.next().await.unwrap(), None);
    assert_forgotten(&shop.engine).await;
    assert_forgotten(&elsewhere).await;
    // A final one, all at once.
    confirmed(watch(&shop, first).await).await;
    assert_forgotten(&shop.engine).await;
    // The unit that there never was.
    kept_open(&shop).await;
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_knows_or_watches_is_not_kept() {
    let shop = Shop::open(&[(10, 3)]).await;
    let id = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    let unknown = OrderId::new(shop.sale);
    let other_sale = OrderId::new(SaleId::try_from(i64::from(SaleId::MAX)).unwrap());
    assert!(shop.engine.watch_order(unknown).await.unwrap().is_none());
    assert!(shop.engine.watch_order(other_sale).await.unwrap().is_none());
    assert_forgotten(&shop.engine).await;

    let mut watches = [watch(&shop, id).await, watch(&shop, id).await];
    for watch in &mut watches {
        told(watch, OrderState::Queued).await;
    }
    let [first, mut second] = watches;
    drop(first);
    // One who went away before the first reading, too.
    assert!(shop.engine.watch_order(id).now_or_never().is_none());
    shop.drain().await;
    while next(&mut second).await.unwrap().is_some() {}
    assert_forgotten(&shop.engine).await;

    let id = admitted(shop.buy("bob", "k", &[(0, 1)]).await);
    drop(watch(&shop, id).await);
    assert_forgotten(&shop.engine).await;
    // And what is watched afterwards is read again.
    let again = watch(&shop, id).await;
    shop.drain().await;
    confirmed(again).await;
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_one_reading_takes_are_watched_through_a_recovery() {
    const ORDERS: usize = 1_200;
    let shop = Shop::open(&[(5_000, 3)]).await;
    let buy = async |name: usize| {
        let id = admitted(shop.buy(&format!("u{name}"), "k", &[(0, 1)]).await);
        let watches = futures::join!(watch(&shop, id), watch(&shop, id));
        [watches.0, watches.1]
    };
    let watches = futures::future::join_all((0..ORDERS).map(buy)).await;
    assert_eq!(shop.engine.watches().orders(), ORDERS);
    shop.engine.operator().recover(shop.sale, |_| {}).await.unwrap();
    shop.drain().await;
    futures::future::join_all(watches.into_iter().flatten().map(confirmed)).await;
    assert_forgotten(&shop.engine).await;
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_cannot_be_told_nothing_is_and_nothing_goes_back() {
    let shop = Shop::open(&[(10, 3)]).await;
    let id = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    let mut first = watch(&shop, id).await;
    told(&mut first, OrderState::Queued).await;
    // A drainer that never gets any further.
    drop(begin(&shop).await);
    told(&mut first, OrderState::Processing).await;

    let o = book_order(id);
    let state: Vec<u8> = shop.book("HGET", &[&o]).await;
    let _: i64 = shop.book("HSET", &[&o, b"Q\0\0\0\0\x01"]).await;
    // It waits for a reading that finds `Queued`, and is not shown it.
    told(&mut watch(&shop, id).await, OrderState::Processing).await;
    assert!(first.next().now_or_never().is_none());
    let _: i64 = shop.book("HSET", &[&o, b"nonsense"]).await;
    assert!(!shop.engine.watch_order(id).await.unwrap_err().is_transient());
    let _: i64 = shop.book("HSET", &[&o, &state]).await;

    let _: i64 = shop.redis(&["HSET", &shop.keys().sale, "run_id", &"b".repeat(40)]).await;
    let error = shop.engine.watch_order(id).await.expect_err("the sale is fenced");
    assert!(error.is_fenced(), "{error}");
    assert!(first.next().now_or_never().is_none());
    kept_open(&shop).await;
    shop.drain().await;
    told(&mut first, OrderState::Confirmed).await;
    assert_eq!(next(&mut first).await.unwrap(), None);
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_has_forgotten_the_record_tells() {
    let shop = Shop::open(&[(10, 3)]).await;
    let id = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    let mut watching = watch(&shop, id).await;
    told(&mut watching, OrderState::Queued).await;
    let (mut drainer, mut batch) = begin(&shop).await;
    told(&mut watching, OrderState::Processing).await;
    drainer.record(shop.sale, &mut batch).await.unwrap();
    let _: i64 = shop.book("HDEL", &[&book_order(id)]).await;
    told(&mut watching, OrderState::Confirmed).await;
    drainer.settle(shop.sale, batch).await.unwrap();
    kept_open(&shop).await;
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_redis_lost_ends_its_watch() {
    let shop = Shop::open(&[(10, 3)]).await;
    admitted(shop.buy("bob", "k", &[(0, 1)]).await);
    let before = Copy::of(&shop).await;
    let lost = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    let mut watching = watch(&shop, lost).await;
    told(&mut watching, OrderState::Queued).await;
    before.restore(&shop).await;
    let error = shop.engine.watch_order(lost).await.expect_err("Redis has gone back in time");
    assert!(error.is_fenced(), "{error}");
    kept_open(&shop).await;
    let error = next(&mut watching).await.expect_err("neither a state nor an end");
    assert!(error.is_not_found(), "{error}");
    assert!(shop.engine.watch_order(lost).await.unwrap().is_none());
    assert_forgotten(&shop.engine).await;
    shop.drain().await;
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_the_engine_ends_its_watches() {
    let shop = Shop::open(&[(10, 3)]).await;
    let id = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    let engine = shop.another().await;
    let mut watching = engine.watch_order(id).await.unwrap().unwrap();
    told(&mut watching, OrderState::Queued).await;
    let other = engine.clone();
    let closing = tokio::spawn(engine.close());
    assert!(next(&mut watching).await.unwrap_err().is_transient());
    assert!(other.watch_order(id).await.unwrap_err().is_transient());
    drop(other);
    closing.await.unwrap();

    // The last engine's end is the end as well.
    let engine = shop.another().await;
    let mut watching = engine.watch_order(id).await.unwrap().unwrap();
    drop(engine);
    told(&mut watching, OrderState::Queued).await;
    assert!(next(&mut watching).await.unwrap_err().is_transient());
    shop.drain().await;
    shop.assert_sound().await;
}

/// As a reading that panics would: nobody may be left waiting for the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_end_with_the_task_that_reads_them() {
    let shop = Shop::open(&[(10, 3)]).await;
    let id = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    let watches = Arc::new(Watches::new(Arc::clone(shop.stores())));
    let reading = tokio::spawn(Arc::clone(&watches).run(CancellationToken::new()));
    let mut watching = watches.watch(id).await.unwrap().unwrap();
    told(&mut watching, OrderState::Queued).await;
    reading.abort();
    assert!(next(&mut watching).await.unwrap_err().is_transient());
    assert!(watches.watch(id).await.unwrap_err().is_transient());
    shop.drain().await;
    shop.assert_sound().await;
}
