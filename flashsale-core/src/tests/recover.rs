//! Loading and recovering a sale: while it sells, twice at once, killed anywhere, and after Redis has lost
//! or forgotten something.

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{by_hand::*, herd::Herd, *};
use crate::{
    OrderState,
    sale::Epoch,
    scripts::{self, LoadStep},
    sql,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_is_recovered_while_a_herd_is_buying() {
    let shop = Arc::new(Shop::open(&[(1_700, 3), (1_700, 3)]).await);
    let shutdown = CancellationToken::new();
    let other = shop.another().await;
    let drainers = [shop.engine.drainer(), other.drainer()].map(|d| tokio::spawn(d.run(shutdown.clone())));
    let herd = Herd::start(&shop, 16, 200);
    let operator = other.operator();
    for recovery in 1..=5 {
        let report = operator.audit(shop.sale, BOUND).await.unwrap();
        assert!(report.holds(), "before recovery {recovery}: {report:#?}");
        let (recovered, report) =
            tokio::join!(operator.recover(shop.sale, |_| {}), operator.audit(shop.sale, BOUND));
        recovered.unwrap();
        let report = report.unwrap();
        assert!(report.holds(), "during recovery {recovery}: {report:#?}");
    }
    let bought = herd.buy_the_rest().await;
    assert_eq!(bought.len(), 3_400, "everything is sold, nothing twice");
    let (shop, queue) = (&shop, &shop.keys().queue);
    until("the queue is empty", || async move { shop.redis::<u64>(&["XLEN", queue]).await == 0 }).await;
    assert_eq!(recorded(shop).await, [1_700, 1_700]);
    let ids: Vec<_> = bought.iter().map(|id| id.as_uuid()).collect();
    let confirmed: i64 =
        sqlx::query_scalar("SELECT count(*) FROM orders WHERE id = ANY($1) AND status = 'Confirmed'")
            .bind(ids)
            .fetch_one(&shop.stores().pg)
            .await
            .unwrap();
    assert_eq!(confirmed, 3_400);
    shutdown.cancel();
    for drainer in drainers {
        drainer.await.unwrap();
    }
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_recoveries_at_once_both_end() {
    let shop = Shop::open(&[(10, 3)]).await;
    let other = shop.another().await.operator();
    let mine = shop.engine.operator();
    for round in 0..10 {
        admitted(shop.buy(&format!("u{round}"), "k", &[(0, 1)]).await);
        let (one, two) = tokio::join!(mine.recover(shop.sale, |_| {}), other.recover(shop.sale, |_| {}));
        assert!(one.is_ok() || two.is_ok(), "{one:?} {two:?}");
        for error in [one.err(), two.err()].into_iter().flatten() {
            let text = error.to_string();
            assert!(error.is_fenced() || text.contains("is being loaded by another process"), "{text}");
        }
        assert!(is_open(&shop).await);
        assert_eq!(shop.left(0).await, 9 - round);
    }
    shop.stores().catalog.refresh().await.unwrap();
    shop.drain().await;
    shop.assert_sound().await;
}

const TOKEN: &str = "a load that dies";

/// Does the first so many steps of a load, as the loader does them, and dies.
async fn killed_load(shop: &Shop, done: usize) -> Epoch {
    let (stores, keys) = (shop.stores(), shop.keys());
    let epoch = sql::sales::raise_epoch(&stores.pg, shop.sale, Epoch(0)).await.unwrap();
    if done == 1 {
        return epoch;
    }
    let server = shop.server().await;
    scripts::load_start(&stores.link, &keys, epoch, TOKEN, &server).await.unwrap();
    let (rebuilt, book) = stores.rebuilt(shop.sale).await.unwrap();
    let steps = [
        LoadStep::Clear,
        LoadStep::Fields("book", &book),
        LoadStep::Fields("stock", &rebuilt.stock),
        LoadStep::Fields("product", &rebuilt.product),
        LoadStep::Queue(&rebuilt.dropped),
    ];
    for (number, step) in (1..).zip(&steps).take(done - 2) {
        scripts::load_step(&stores.link, &keys, epoch, TOKEN, number, step).await.unwrap();
    }
    if done == ALL_BUT_OPEN {
        assert!(sql::sales::set_loaded_epoch(&stores.pg, shop.sale, epoch).await.unwrap());
    }
    epoch
}

/// Epoch, fence, clear, book, stock, product, queue, and the record's word that it is loaded.
const ALL_BUT_OPEN: usize = 8;

/// One order confirmed, one parked, one in a drainer's hands, one queued: of 20 units 12 are left.
async fn busy_shop() -> (Shop, Vec<OrderId>, OrderId) {
    // Boxed: a drainer's steps are large.
    Box::pin(make_busy()).await
}

async fn make_busy() -> (Shop, Vec<OrderId>, OrderId) {
    let shop = Shop::open(&[(20, 5)]).await;
    let confirmed = admitted(shop.buy("ann", "k", &[(0, 2)]).await);
    shop.drain().await;
    let parked = parked_order(&shop, "bob").await;
    let taken = admitted(shop.buy("cat", "k", &[(0, 2)]).await);
    let mut drainer = shop.engine.drainer();
    let entries = shop.engine.drainer().read(shop.sale).await.unwrap();
    drainer.begin(shop.sale, entries).await.unwrap();
    let queued = admitted(shop.buy("dan", "k", &[(0, 2)]).await);
    assert_eq!(shop.left(0).await, 12);
    (shop, vec![confirmed, taken, queued], parked)
}

/// Drains, and checks that every order of a [`busy_shop`] ends as if nothing had happened.
async fn assert_all_ends_well(shop: &Shop, orders: &[OrderId], parked: OrderId) {
    assert_eq!(state(shop, parked).await, OrderState::Processing);
    assert_eq!(shop.left(0).await, 12);
    shop.drain().await;
    for id in orders {
        assert_eq!(state(shop, *id).await, OrderState::Confirmed);
    }
    shop.assert_sound().await;
    let letters = shop.engine.operator().dead_letters().await.unwrap();
    shop.engine.operator().replay(letters[0].id).await.unwrap();
    assert_eq!(state(shop, parked).await, OrderState::Confirmed);
    assert_eq!((recorded(shop).await, shop.left(0).await), (vec![8], 12));
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_and_parked_orders_outlive_a_recovery() {
    let (shop, orders, parked) = busy_shop().await;
    shop.engine.operator().recover(shop.sale, |_| {}).await.unwrap();
    assert_all_ends_well(&shop, &orders, parked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_killed_at_any_step_sells_nothing_and_is_finished_by_a_keeper() {
    join_all((1..=ALL_BUT_OPEN).map(|done| async move {
        let (shop, orders, parked) = busy_shop().await;
        killed_load(&shop, done).await;
        // After the first step alone Redis does not know yet; who reads the record does.
        shop.stores().catalog.refresh().await.unwrap();
        assert_fenced(&shop, &format!("killed after {done} steps")).await;
        let drained = shop.engine.drainer().drain_once(shop.sale).await;
        assert!(drained.as_ref().map_or(true, |drained| drained.read == 0), "{done}: {drained:?}");
        kept_open(&shop).await;
        assert_all_ends_well(&shop, &orders, parked).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_load_has_still_under_way_is_refused() {
    let (shop, orders, parked) = busy_shop().await;
    let (link, keys) = (&shop.stores().link, shop.keys());
    let old = killed_load(&shop, 4).await;
    let late = [(shop.products[0].to_string().into_bytes(), b"1000000".to_vec())];
    let stale = [LoadStep::Clear, LoadStep::Fields("stock", &late), LoadStep::Queue(&[])];
    let refusal = async |token: &'static str, number, step| {
        let error = scripts::load_step(link, &keys, old, token, number, step).await.unwrap_err();
        error.to_string()
    };
    // While it is loading, a step that is not the next one, or of another load.
    assert_eq!(refusal(TOKEN, 1, &stale[0]).await, "fenced: chunk");
    assert_eq!(refusal(TOKEN, 4, &stale[1]).await, "fenced: chunk");
    assert_eq!(refusal("another load", 3, &stale[0]).await, "fenced: token");
    // And when another load has finished, any.
    shop.engine.operator().recover(shop.sale, |_| {}).await.unwrap();
    for step in &stale {
        for number in 1..4 {
            assert_eq!(refusal(TOKEN, number, step).await, "fenced: epoch");
        }
    }
    assert!(!sql::sales::set_loaded_epoch(&shop.stores().pg, shop.sale, old).await.unwrap());
    let server = shop.server().await;
    assert!(scripts::load_start(link, &keys, old, TOKEN, &server).await.unwrap_err().is_fenced());
    assert_all_ends_well(&shop, &orders, parked).await;
}

/// Never the full stock: what was sold stays sold, whatever Redis forgets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_redis_sells_nothing_until_it_is_loaded_from_the_record() {
    let shop = Shop::open(&[(10, 8)]).await;
    admitted(shop.buy("ann", "k1", &[(0, 8)]).await);
    shop.drain().await;
    lose_everything(&shop).await;
    assert_fenced(&shop, "an empty Redis").await;
    kept_open(&shop).await;
    assert_eq!(shop.left(0).await, 2);
    assert!(matches!(shop.buy("ann", "k1", &[(0, 8)]).await.unwrap(), Admission::Replayed(_)));
    let refused = shop.buy("ann", "k2", &[(0, 1)]).await.unwrap();
    assert!(matches!(refused, Admission::Refused(Refusal::OverQuota { held: 8, .. })), "{refused:?}");
    let refused = shop.buy("bob", "k1", &[(0, 3)]).await.unwrap();
    assert!(matches!(refused, Admission::Refused(Refusal::SoldOut { left: 2, .. })), "{refused:?}");
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_went_back_is_found_by_what_was_recorded() {
    let shop = Shop::open(&[(10, 5)]).await;
    admitted(shop.buy("ann", "k", &[(0, 2)]).await);
    let copy = Copy::of(&shop).await;
    admitted(shop.buy("bob", "k", &[(0, 3)]).await);
    shop.drain().await;
    copy.restore(&shop).await;
    // Another process has seen no reply of this sale: it goes by `recorded_seq`.
    let other = shop.another().await;
    let error = other.reserve(shop.request("cat", "k", &[(0, 1)])).await.unwrap_err();
    assert!(error.is_fenced() && error.to_string().contains("behind"), "{error}");
    other.keeper().keep_once().await.unwrap();
    assert!(is_open(&shop).await);
    assert_eq!(shop.left(0).await, 5);
    shop.stores().catalog.refresh().await.unwrap();
    shop.drain().await;
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_went_back_is_found_by_what_was_seen() {
    let shop = Shop::open(&[(10, 5)]).await;
    let kept = admitted(shop.buy("ann", "k", &[(0, 2)]).await);
    let copy = Copy::of(&shop).await;
    let lost = admitted(shop.buy("bob", "k", &[(0, 3)]).await);
    copy.restore(&shop).await;
    assert_fenced(&shop, "a Redis that forgot an admission").await;
    assert!(shop.engine.order_status(lost).await.unwrap_err().is_transient());
    kept_open(&shop).await;
    shop.drain().await;
    assert_eq!(shop.left(0).await, 8);
    assert_eq!(state(&shop, kept).await, OrderState::Confirmed);
    admitted(shop.buy("bob", "k", &[(0, 3)]).await);
    shop.drain().await;
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_servers_run_id_fences_the_sale() {
    let (shop, orders, parked) = busy_shop().await;
    let _: i64 = shop.redis(&["HSET", &shop.keys().sale, "run_id", &"a".repeat(40)]).await;
    assert_fenced(&shop, "another server").await;
    assert!(shop.engine.drainer().drain_once(shop.sale).await.is_err_and(|error| error.is_fenced()));
    kept_open(&shop).await;
    assert_all_ends_well(&shop, &orders, parked).await;
}

/// Clamped to 0, the units that the record refuses later would appear from nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_left_may_be_negative() {
    let shop = Shop::open(&[(2, 5)]).await;
    let product = shop.products[0].to_string();
    let _: i64 = shop.redis(&["HSET", &shop.keys().stock, &product, "100"]).await;
    for name in ["ann", "bob", "cat"] {
        admitted(shop.buy(name, "k", &[(0, 2)]).await);
    }
    shop.engine.operator().recover(shop.sale, |_| {}).await.unwrap();
    assert_eq!(shop.left(0).await, -4);
    let refused = shop.buy("dan", "k", &[(0, 1)]).await.unwrap();
    assert!(matches!(refused, Admission::Refused(Refusal::SoldOut { left: 0, .. })), "{refused:?}");
    shop.drain().await;
    assert_eq!((recorded(&shop).await, shop.left(0).await), (vec![2], 0));
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_says_what_a_recovery_would_change() {
    let (shop, orders, parked) = busy_shop().await;
    let operator = shop.engine.operator();
    let lines = async || operator.recover_dry_run(shop.sale, |_| {}).await.unwrap().lines;
    assert_eq!(lines().await, [""; 0]);
    let product = shop.products[0].to_string();
    let _: i64 = shop.redis(&["HSET", &shop.keys().stock, &product, "17"]).await;
    let wrong = format!("product {product}: 17 left in Redis, 12 by the record and the queue");
    assert_eq!(lines().await, std::slice::from_ref(&wrong));
    let _: i64 = shop.redis(&["DEL", &shop.keys().book]).await;
    let missing =
        |what| format!("book: 4 {what} are missing in Redis, 0 are not as in the record and the queue");
    assert_eq!(lines().await, [wrong, missing("keys"), missing("quotas"), missing("states")]);
    operator.recover(shop.sale, |_| {}).await.unwrap();
    assert_eq!(lines().await, [""; 0]);
    assert_all_ends_well(&shop, &orders, parked).await;
    lose_everything(&shop).await;
    let lines = lines().await;
    assert!(lines[0].starts_with("Redis does not hold the sale"), "{lines:?}");
    kept_open(&shop).await;
    shop.assert_sound().await;
}

/// A load that has ended must not have the next one refused, however soon that comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_recovery_follows_another_at_once() {
    let shop = Shop::open(&[(10, 3)]).await;
    for _ in 0..30 {
        shop.engine.operator().recover(shop.sale, |_| {}).await.unwrap();
    }
    assert_eq!(epoch(&shop).await.get(), 31);
    shop.assert_sound().await;
}
