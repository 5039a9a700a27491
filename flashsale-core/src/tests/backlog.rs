//! A backlog: batches that are read while the one before is being recorded.

use super::*;
use crate::{Drained, Drainer};

/// A drainer that takes so many orders at once, and nothing of what another one holds.
async fn drainer(shop: &Shop, drain_batch: usize) -> Drainer {
    let mut config = shop.stores().config.clone();
    (config.drain_batch, config.claim_idle) = (drain_batch, Duration::from_hours(1));
    Engine::connect(config).await.unwrap().drainer()
}

async fn orders(shop: &Shop, users: &[&str]) {
    for user in users {
        let admitted = shop.buy(user, "k", &[(0, 1)]).await.unwrap();
        assert!(matches!(admitted, Admission::Admitted(_)), "{admitted:?}");
    }
}

/// How many entries are in the hands of drainers.
async fn pending(shop: &Shop) -> usize {
    let queue = shop.keys().queue;
    let summary: (usize, redis::Value, redis::Value, redis::Value) =
        shop.redis(&["XPENDING", &queue, crate::keys::GROUP]).await;
    summary.0
}

#[tokio::test]
async fn a_backlog_is_drained_at_once_with_every_kind_of_verdict() {
    let shop = Shop::open(&[(20, 2)]).await;
    test_support::refuse_user(&shop.stores().pg, "unlucky").await;
    orders(&shop, &["ann", "bob", "cid", "dan", "unlucky", "eve", "fay", "gus", "hal", "ida", "jim"]).await;
    // So that its entry cannot be read, which has to be parked.
    shop.redis::<String>(&["XADD", &shop.keys().queue, "*", "order", "x"]).await;
    let mut drainer = drainer(&shop, 3).await;
    let done = drainer.drain_all(shop.sale).await.unwrap();
    assert_eq!(done, Drained { read: 12, confirmed: 10, failed: 1, parked: 1, given_back: 1 });
    assert_eq!(drainer.drain_backlog(shop.sale).await.unwrap(), Drained::default());
    assert_eq!((shop.left(0).await, pending(&shop).await), (10, 0));
    shop.assert_sound().await;
}

/// One unit takes one batch, also where there are more: tests and tools stop between them.
#[tokio::test]
async fn a_unit_reads_nothing_ahead() {
    let shop = Shop::open(&[(20, 2)]).await;
    orders(&shop, &["ann", "bob", "cid"]).await;
    let mut drainer = drainer(&shop, 1).await;
    assert_eq!(drainer.drain_once(shop.sale).await.unwrap().read, 1);
    assert_eq!(pending(&shop).await, 0);
    shop.drain().await;
    shop.assert_sound().await;
}

/// Two batches are in hand when the first one fails: both are pending under the drainer's own name, and it
/// does them again without waiting for anybody to claim them.
#[tokio::test]
async fn what_a_failure_leaves_of_a_backlog_is_done_again_first() {
    let shop = Shop::open(&[(20, 2)]).await;
    orders(&shop, &["ann", "bob", "cid", "dan", "eve", "fay"]).await;
    let mut drainer = drainer(&shop, 2).await;
    let mut lock = shop.stores().pg.begin().await.unwrap();
    sqlx::query("SELECT FROM sales FOR UPDATE").execute(&mut *lock).await.unwrap();
    let fail = async {
        until("the next batch is read ahead", async || pending(&shop).await == 4).await;
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'flashsale-drain'";
        sqlx::query(kill).execute(&shop.stores().pg).await.unwrap();
    };
    let (failed, ()) = tokio::join!(drainer.drain_all(shop.sale), fail);
    assert!(failed.is_err_and(|error| error.is_transient()));
    assert_eq!(pending(&shop).await, 4, "nothing is acknowledged");
    lock.rollback().await.unwrap();

    let mut confirmed = 0;
    loop {
        let done = drainer.drain_all(shop.sale).await.unwrap();
        confirmed += done.confirmed;
        if done.read == 0 {
            break;
        }
    }
    assert_eq!((confirmed, pending(&shop).await, shop.left(0).await), (6, 0, 14));
    shop.assert_sound().await;
}
