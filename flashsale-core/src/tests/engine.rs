//! Reserving through the engine: concurrency, quota, keys, windows.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_order_goes_all_the_way() {
    let shop = Shop::open(&[(10, 3)]).await;
    let id = admitted(shop.buy("ann", "k1", &[(0, 2)]).await);
    assert_eq!(shop.left(0).await, 8);
    assert_eq!(shop.engine.order_status(id).await.unwrap().unwrap().state.as_str(), "Queued");
    shop.drain().await;
    assert_eq!(shop.engine.order_status(id).await.unwrap().unwrap().state.as_str(), "Confirmed");
    shop.assert_sound().await;
}
