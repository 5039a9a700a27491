//! Somebody overwrites or removes one of a sale's keys: it sells nothing until a keeper has loaded it again.

use super::{by_hand::*, *};
use crate::OrderState;

/// One order confirmed, one queued; of ten units seven are left.
async fn busy_shop() -> (Shop, OrderId, OrderId) {
    let shop = Shop::open(&[(10, 5)]).await;
    let confirmed = admitted(shop.buy("ann", "k", &[(0, 2)]).await);
    shop.drain().await;
    let queued = admitted(shop.buy("bob", "k", &[(0, 1)]).await);
    (shop, confirmed, queued)
}

/// Opened by a keeper alone; what the queue had is recorded, unless the queue itself was lost.
async fn assert_mended(shop: &Shop, confirmed: OrderId, queued: OrderId, queue_lost: bool) {
    kept_open(shop).await;
    assert_eq!(state(shop, confirmed).await, OrderState::Confirmed);
    shop.drain().await;
    if queue_lost {
        assert_eq!(shop.engine.order_status(queued).await.unwrap(), None);
        admitted(shop.buy("bob", "k", &[(0, 1)]).await);
        shop.drain().await;
    } else {
        assert_eq!(state(shop, queued).await, OrderState::Confirmed);
    }
    assert_eq!((recorded(shop).await, shop.left(0).await), (vec![3], 7));
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_type_fences_the_sale_until_a_keeper_has_loaded_it() {
    for key in ["sale", "stock", "product", "book", "queue"] {
        let (shop, confirmed, queued) = busy_shop().await;
        let name = shop.keys().sale.replace(":sale", &format!(":{key}"));
        let _: String = shop.redis(&["SET", &name, "damaged"]).await;
        assert_fenced(&shop, key).await;
        if matches!(key, "sale" | "book") {
            let drained = shop.engine.drainer().drain_once(shop.sale).await.expect_err(key);
            assert!(drained.is_fenced(), "{key}: {drained}");
        }
        if key == "book" {
            // It was told that it is queued: nobody can say now that it is not.
            let told = shop.engine.order_status(queued).await.expect_err(key);
            assert!(told.is_fenced(), "{told}");
        }
        assert_mended(&shop, confirmed, queued, key == "queue").await;
    }
}

/// Orders would be admitted into a queue that no drainer can read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_or_a_group_that_is_gone_is_made_again_by_a_keeper() {
    for group_only in [true, false] {
        let (shop, confirmed, queued) = busy_shop().await;
        let queue = shop.keys().queue;
        let damage: &[&str] =
            if group_only { &["XGROUP", "DESTROY", &queue, "drain"] } else { &["DEL", &queue] };
        let _: i64 = shop.redis(damage).await;
        assert!(!is_open(&shop).await);
        assert_mended(&shop, confirmed, queued, !group_only).await;
    }
}
