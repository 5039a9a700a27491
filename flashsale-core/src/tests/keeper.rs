//! The keeper: what it loads, carries, recovers and removes, and what it leaves alone.

use chrono::DateTime;

use super::{by_hand::*, *};
use crate::{OrderState, SaleState, sale::Epoch, scripts, sql as statements};

async fn refusal(shop: &Shop, key: &str) -> &'static str {
    match shop.buy("ann", key, &[(0, 1)]).await.unwrap() {
        Admission::Refused(refusal) => refusal.code(),
        other => panic!("{other:?}"),
    }
}

async fn keys_in_redis(shop: &Shop) -> u64 {
    let keys = shop.keys();
    let mut command = vec!["EXISTS"];
    command.extend(keys.all());
    shop.redis(&command).await
}

/// Moves the window into the past, by the record; a keeper has to carry it.
async fn end_long_ago(shop: &Shop) {
    sql(
        shop,
        "UPDATE sales SET starts_at = now() - interval '3 days', ends_at = now() - interval '25 hours'",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_sale_is_loaded_once() {
    let shop = Shop::unloaded(&[(10, 3)]).await;
    assert_fenced(&shop, "a sale that nobody has loaded").await;
    shop.assert_sound().await;
    let mut keeper = shop.keeper();
    for _ in 0..3 {
        keeper.keep_once().await.unwrap();
        assert_eq!(epoch(&shop).await, Epoch(1));
    }
    admitted(shop.buy("ann", "k", &[(0, 3)]).await);
    shop.drain().await;
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_wants_is_carried_to_redis() {
    let shop = Shop::open(&[(10, 3)]).await;
    let (operator, mut keeper) = (shop.engine.operator(), shop.keeper());
    operator.set_state(shop.sale, SaleState::Paused).await.unwrap();
    keeper.keep_once().await.unwrap();
    assert_eq!(refusal(&shop, "k1").await, "sale-paused");
    operator.set_state(shop.sale, SaleState::Open).await.unwrap();
    keeper.keep_once().await.unwrap();
    let id = admitted(shop.buy("ann", "k1", &[(0, 1)]).await);
    sql(&shop, "UPDATE sales SET starts_at = now() + interval '10 minutes'").await;
    keeper.keep_once().await.unwrap();
    assert_eq!(refusal(&shop, "k2").await, "sale-not-open");
    sql(&shop, "UPDATE sales SET starts_at = now() - interval '10 minutes'").await;
    operator.set_state(shop.sale, SaleState::Closed).await.unwrap();
    keeper.keep_once().await.unwrap();
    assert_eq!(refusal(&shop, "k2").await, "sale-ended");
    // What was admitted stays so.
    assert_eq!(shop.buy("ann", "k1", &[(0, 1)]).await.unwrap(), Admission::Replayed(id));
    assert!(operator.set_state(shop.sale, SaleState::Open).await.is_err());
    assert_eq!(epoch(&shop).await, Epoch(1), "nothing was loaded again");
    shop.drain().await;
    assert_eq!(state(&shop, id).await, OrderState::Confirmed);
    shop.assert_sound().await;
}

/// A recovery opens the sale as the record says, also when the operator has changed that since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_sale_is_paused_after_it_was_recovered() {
    let shop = Shop::open(&[(10, 3)]).await;
    shop.engine.operator().set_state(shop.sale, SaleState::Paused).await.unwrap();
    shop.engine.operator().recover(shop.sale, |_| {}).await.unwrap();
    assert_eq!(refusal(&shop, "k").await, "sale-paused");
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_shows_no_end_is_taken_over_after_two_seconds() {
    let shop = Shop::open(&[(10, 3)]).await;
    let killed = statements::sales::raise_epoch(&shop.stores().pg, shop.sale, Epoch(0)).await.unwrap();
    let server = shop.server().await;
    scripts::load_start(&shop.stores().link, &shop.keys(), killed, "killed", &server).await.unwrap();
    let mut keeper = shop.keeper();
    let began = std::time::Instant::now();
    while !is_open(&shop).await {
        assert!(began.elapsed() < BOUND);
        keeper.keep_once().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(began.elapsed() >= Duration::from_secs(2), "it may have been under way still");
    assert_eq!(epoch(&shop).await, Epoch(killed.get() + 1));
    shop.assert_sound().await;
}

/// It may hold orders that nobody else has, and it may hold none of the last hour: a person decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_master_is_left_to_an_operator() {
    let shop = Shop::open(&[(10, 3)]).await;
    admitted(shop.buy("ann", "k", &[(0, 2)]).await);
    let old = Copy::of(&shop).await;
    shop.engine.operator().recover(shop.sale, |_| {}).await.unwrap();
    admitted(shop.buy("bob", "k", &[(0, 1)]).await);
    shop.drain().await;
    old.restore(&shop).await;
    let mut keeper = shop.keeper();
    for _ in 0..3 {
        keeper.keep_once().await.unwrap();
        assert_fenced(&shop, "an old master").await;
    }
    assert_eq!(epoch(&shop).await, Epoch(2), "it was not recovered by itself");
    shop.engine.operator().recover(shop.sale, |_| {}).await.unwrap();
    assert_eq!(shop.left(0).await, 7);
    shop.drain().await;
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_programs_sale_is_left_alone() {
    let shop = Shop::open(&[(10, 3)]).await;
    let (sale, ours) = (shop.keys().sale, scripts::VERSION.to_string());
    let queued = admitted(shop.buy("bob", "k", &[(0, 2)]).await);
    let newer = (scripts::VERSION + 1).to_string();
    let _: i64 = shop.redis(&["HSET", &sale, "version", &newer]).await;
    let holds = async || Copy::of(&shop).await.hashes();
    let (before, mut drainer) = (holds().await, shop.engine.drainer());
    for _ in 0..3 {
        shop.keeper().keep_once().await.unwrap();
        assert_fenced(&shop, "a newer program's sale").await;
        let refused = drainer.drain_once(shop.sale).await.expect_err("nothing can be recorded");
        assert!(refused.is_fenced(), "{refused}");
    }
    let by_hand = shop.engine.operator().recover(shop.sale, |_| {}).await.expect_err("not by hand either");
    assert!(by_hand.to_string().contains(scripts::NEWER), "{by_hand}");
    let ready = shop.engine.readiness().await;
    let problem = ready.iter().find(|line| line.name == "sale test").and_then(|line| line.problem.clone());
    assert_eq!(problem, Some(format!("fenced: {}", scripts::NEWER)));
    assert_eq!(epoch(&shop).await, Epoch(1));
    assert_eq!(holds().await, before, "nothing was changed");
    assert_eq!(recorded(&shop).await, [0]);

    let _: i64 = shop.redis(&["HSET", &sale, "version", &ours]).await;
    admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    while drainer.drain_once(shop.sale).await.unwrap().read > 0 {}
    assert_eq!(state(&shop, queued).await, OrderState::Confirmed);
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_requested_recovery_is_done_once() {
    let shop = Shop::open(&[(10, 3)]).await;
    statements::request_recover(&shop.stores().pg, shop.sale, Epoch(1)).await.unwrap();
    let mut keeper = shop.keeper();
    for _ in 0..3 {
        keeper.keep_once().await.unwrap();
        assert_eq!(epoch(&shop).await, Epoch(2));
    }
    // Who saw it under the epoch before is answered already.
    statements::request_recover(&shop.stores().pg, shop.sale, Epoch(1)).await.unwrap();
    keeper.keep_once().await.unwrap();
    assert_eq!(epoch(&shop).await, Epoch(2));
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_that_ended_a_day_ago_is_removed_for_good() {
    let shop = Shop::open(&[(10, 3)]).await;
    let id = admitted(shop.buy("ann", "k", &[(0, 2)]).await);
    shop.drain().await;
    end_long_ago(&shop).await;
    let mut keeper = shop.keeper();
    for _ in 0..4 {
        keeper.keep_once().await.unwrap();
    }
    assert_eq!(keys_in_redis(&shop).await, 0);
    assert!(shop.engine.operator().sale(shop.sale).await.unwrap().purged_at.is_some());
    assert_eq!(epoch(&shop).await, Epoch(1), "it was not loaded again");
    assert_eq!(refusal(&shop, "k").await, "sale-ended");
    assert_eq!(state(&shop, id).await, OrderState::Confirmed);
    assert_eq!(shop.engine.order_status(OrderId::new(shop.sale)).await.unwrap(), None);
    assert!(shop.engine.operator().recover(shop.sale, |_| {}).await.is_err());
    assert_eq!(keys_in_redis(&shop).await, 0);
    shop.assert_sound().await;
}

/// After some years nearly all sales are over, and the catalogue is read every second.
#[tokio::test]
async fn what_is_over_for_good_is_read_once_and_stays_known() {
    let shop = Shop::open(&[(10, 3)]).await;
    let catalog = &shop.stores().catalog;
    let read = async || catalog.refresh().await.unwrap().sales[&shop.sale].clone();
    assert!(!Arc::ptr_eq(&read().await, &read().await), "a sale that sells is read each time");
    sql(&shop, "UPDATE sales SET purged_at = now()").await;
    let over = read().await;
    assert!(over.purged_at.is_some());
    assert!(Arc::ptr_eq(&over, &read().await));
    assert_eq!(catalog.reading().unwrap().sale_of(shop.products[0]), Some(shop.sale));
    // Restored from a backup of before its end.
    sql(&shop, "UPDATE sales SET purged_at = NULL").await;
    assert_eq!(read().await.purged_at, None);
}

/// Killed between the record's word and the removal: the next look removes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_was_killed_is_finished() {
    let shop = Shop::open(&[(10, 3)]).await;
    end_long_ago(&shop).await;
    shop.keeper().keep_once().await.unwrap();
    assert!(keys_in_redis(&shop).await > 0, "the window was carried first");
    let ends_at = shop.engine.operator().sale(shop.sale).await.unwrap().ends_at;
    assert!(statements::sales::mark_purged(&shop.stores().pg, shop.sale, Epoch(1), ends_at).await.unwrap());
    shop.keeper().keep_once().await.unwrap();
    assert_eq!(keys_in_redis(&shop).await, 0);
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_that_was_never_loaded_is_not_loaded_after_its_end() {
    let shop = Shop::unloaded(&[(10, 3)]).await;
    end_long_ago(&shop).await;
    for _ in 0..3 {
        shop.keeper().keep_once().await.unwrap();
    }
    assert_eq!((keys_in_redis(&shop).await, epoch(&shop).await), (0, Epoch(0)));
    shop.stores().catalog.refresh().await.unwrap();
    assert_eq!(refusal(&shop, "k").await, "sale-ended");
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_is_kept_while_an_order_waits() {
    let shop = Shop::open(&[(10, 3)]).await;
    let parked = parked_order(&shop, "ann").await;
    let queued = admitted(shop.buy("bob", "k", &[(0, 1)]).await);
    end_long_ago(&shop).await;
    let mut keeper = shop.keeper();
    let purged = async |keeper: &mut Keeper| -> Option<DateTime<Utc>> {
        for _ in 0..3 {
            keeper.keep_once().await.unwrap();
        }
        shop.engine.operator().sale(shop.sale).await.unwrap().purged_at
    };
    assert_eq!(purged(&mut keeper).await, None, "an order is queued");
    shop.drain().await;
    assert_eq!(purged(&mut keeper).await, None, "an order is parked");
    let letters = shop.engine.operator().dead_letters().await.unwrap();
    shop.engine.operator().replay(letters[0].id).await.unwrap();
    assert!(purged(&mut keeper).await.is_some());
    assert_eq!(keys_in_redis(&shop).await, 0);
    for id in [parked, queued] {
        assert_eq!(state(&shop, id).await, OrderState::Confirmed);
    }
    shop.assert_sound().await;
}
