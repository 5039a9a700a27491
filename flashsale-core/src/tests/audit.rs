//! The audit: what one store has wrong is named, and what is only in motion is not.

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{by_hand::sql, herd::Herd, *};
use crate::{
    Invariant, OrderState,
    keys::{book_key, book_key_value, book_order, book_quota},
    order::Fingerprint,
    packed::BookState,
};

/// Two recorded orders: `ann` holds two of the first product, `bob` one of each.
struct Sold {
    shop: Shop,
    ann: OrderId,
    bob: OrderId,
}

async fn sold() -> Sold {
    let shop = Shop::open(&[(10, 3), (5, 2)]).await;
    let ann = admitted(shop.buy("ann", "k1", &[(0, 2)]).await);
    let bob = admitted(shop.buy("bob", "k1", &[(0, 1), (1, 1)]).await);
    shop.drain().await;
    shop.assert_sound().await;
    Sold { shop, ann, bob }
}

impl Sold {
    /// The audit blames these invariants and no other one, and the texts of the first say all of `words`.
    async fn blames(&self, invariants: &[Invariant], words: &[&str]) {
        let report = self.shop.audit().await;
        assert_eq!(blamed(&report), invariants, "{report:#?}");
        let check = report.checks.iter().find(|check| check.invariant == invariants[0]).unwrap();
        assert_eq!(check.failed, None);
        let text = check.violations.join("\n");
        assert!(words.iter().all(|word| text.contains(word)), "{words:?} in {text:?}");
    }

    fn product(&self, place: usize) -> String {
        format!("product {}", self.shop.products[place])
    }
}

/// Which invariants do not hold.
pub(super) fn blamed(report: &AuditReport) -> Vec<Invariant> {
    report.checks.iter().filter(|check| !check.holds()).map(|check| check.invariant).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i1_names_the_product_whose_sold_units_are_wrong() {
    let sold = sold().await;
    sql(&sold.shop, "UPDATE products SET sold = sold + 1 WHERE stock = 10").await;
    sold.blames(&[Invariant::I1], &[&sold.product(0), "hold 3 units, sold says 4"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i1_names_an_oversold_product() {
    let sold = sold().await;
    sql(&sold.shop, "ALTER TABLE products DROP CONSTRAINT products_never_oversold").await;
    sql(&sold.shop, "UPDATE products SET stock = 2 WHERE stock = 10").await;
    sold.blames(&[Invariant::I1, Invariant::I4], &[&sold.product(0), "oversold, 3 of 2"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_names_the_user_above_the_limit() {
    let sold = sold().await;
    sql(&sold.shop, "UPDATE products SET per_user_limit = 1").await;
    sold.blames(&[Invariant::I2], &["user ann", &sold.product(0), "2 units confirmed, the limit is 1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_names_the_user_and_the_key_of_two_orders() {
    let sold = sold().await;
    sql(&sold.shop, "ALTER TABLE orders DROP CONSTRAINT orders_idempotency").await;
    sqlx::query(
        "INSERT INTO orders (id, sale_id, user_id, idempotency_key, fingerprint, epoch, seq, status,
             failure_reason, total, created_at)
         SELECT $1, sale_id, user_id, idempotency_key, fingerprint, epoch, seq + 100, 'Failed', 'sold-out',
             total, created_at
         FROM orders WHERE id = $2",
    )
    .bind(OrderId::new(sold.shop.sale).as_uuid())
    .bind(sold.ann.as_uuid())
    .execute(&sold.shop.stores().pg)
    .await
    .unwrap();
    sold.blames(&[Invariant::I3], &["user ann", "key k1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_names_the_product_whose_units_do_not_add_up() {
    let sold = sold().await;
    let stock = sold.shop.keys().stock;
    let product = sold.shop.products[1].to_string();
    let _: i64 = sold.shop.redis(&["HINCRBY", &stock, &product, "-1"]).await;
    let sum = "3 left + 0 queued or parked + 1 confirmed = 4, the stock is 5";
    sold.blames(&[Invariant::I4], &[&sold.product(1), sum]).await;
    let _: i64 = sold.shop.redis(&["HDEL", &stock, &product]).await;
    sold.blames(&[Invariant::I4], &[&sold.product(1), "no stock"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_names_the_order_that_is_lost() {
    let sold = sold().await;
    let lost = admitted(sold.shop.buy("cat", "k1", &[(0, 1)]).await).to_string();
    let _: i64 = sold.shop.redis(&["XTRIM", &sold.shop.keys().queue, "MAXLEN", "0"]).await;
    // Nobody holds its units and its quota now, so these are missing too.
    let report = sold.shop.audit().await;
    assert_eq!(blamed(&report), [Invariant::I4, Invariant::I5, Invariant::I8], "{report:#?}");
    let i5 = &report.checks[4];
    assert!(i5.violations.iter().any(|text| text.contains(&lost) && text.contains("lost")), "{i5:?}");
}

async fn show_as(shop: &Shop, order: OrderId, state: OrderState) {
    let state = BookState { state, since: Utc::now(), failure: None };
    let _: i64 = shop.book("HSET", &[&book_order(order), &state.packed()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_names_the_order_that_shows_another_state_than_is_recorded() {
    for (state, word) in
        [(OrderState::Failed, "failed"), (OrderState::Queued, ""), (OrderState::Confirmed, "confirmed")]
    {
        let sold = sold().await;
        let unknown = OrderId::new(sold.shop.sale);
        let shown = if word == "failed" { sold.ann } else { unknown };
        show_as(&sold.shop, shown, state).await;
        sold.blames(&[Invariant::I5], &[&shown.to_string(), word]).await;
    }
}

/// Its entry was settled, so that nothing will ever show its buyer what became of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_names_the_recorded_order_that_is_shown_as_on_its_way_for_good() {
    for state in [OrderState::Queued, OrderState::Processing] {
        let sold = sold().await;
        show_as(&sold.shop, sold.ann, state).await;
        let recorded = format!("order {} is recorded as Confirmed", sold.ann);
        sold.blames(&[Invariant::I5], &[&recorded, &format!("shown as {state}")]).await;
        sold.shop.engine.operator().recover(sold.shop.sale, |_| {}).await.unwrap();
        sold.shop.assert_sound().await;
    }
}

/// Recorded and not settled yet: the entry will show it, or the operator's word on a parked one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_lets_pass_what_is_recorded_and_still_queued() {
    let Sold { shop, .. } = sold().await;
    admitted(shop.buy("cat", "k1", &[(0, 1)]).await);
    let mut drainer = shop.engine.drainer();
    let entries = drainer.read(shop.sale).await.unwrap();
    let mut batch = drainer.begin(shop.sale, entries).await.unwrap();
    drainer.record(shop.sale, &mut batch).await.unwrap();
    // I7 says that it is not drained.
    assert_eq!(blamed(&shop.audit().await), [Invariant::I7]);
    drainer.settle(shop.sale, batch).await.unwrap();
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_names_the_order_whose_key_stands_for_another() {
    let sold = sold().await;
    let (field, bob) = (book_key(&user("bob"), &key("k1")), sold.bob.to_string());
    let _: i64 = sold.shop.book("HDEL", &[&field]).await;
    sold.blames(&[Invariant::I6], &[&bob, "key k1 of user bob stands for nothing"]).await;
    for (order, words) in [
        (sold.ann, format!("stands for order {}", sold.ann)),
        (sold.bob, "stands for another request".to_owned()),
    ] {
        let value = book_key_value(order, &Fingerprint::UNKNOWN);
        let _: i64 = sold.shop.book("HSET", &[&field, &value]).await;
        sold.blames(&[Invariant::I6], &[&bob, &words]).await;
    }
    let _: i64 = sold.shop.book("HSET", &[&field, b"what\xff"]).await;
    sold.blames(&[Invariant::I6], &[&bob, r"stands for 'what\xff'"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_names_the_admission_that_two_orders_have() {
    let sold = sold().await;
    sql(&sold.shop, "UPDATE orders SET seq = 1").await;
    sold.blames(&[Invariant::I6], &["epoch 1 and seq 1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_names_the_order_that_no_drainer_ends() {
    let sold = sold().await;
    let stuck = admitted(sold.shop.buy("cat", "k1", &[(0, 1)]).await);
    sold.blames(&[Invariant::I7], &[&stuck.to_string()]).await;
    // The same of one that a drainer has taken and not ended.
    let taken = sold.shop.engine.drainer().read(sold.shop.sale).await.unwrap();
    assert_eq!(taken.len(), 1);
    sold.blames(&[Invariant::I7], &[&stuck.to_string(), &taken[0].id]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_names_the_user_whose_quota_is_wrong() {
    let sold = sold().await;
    let quota = book_quota(&user("ann"), sold.shop.products[0]);
    let _: i64 = sold.shop.book("HSET", &[&quota, b"1"]).await;
    sold.blames(&[Invariant::I8], &["user ann", &sold.product(0), "says 1, orders hold 2"]).await;
    let _: i64 = sold.shop.book("HSET", &[&quota, b"2", b"qzoe/", b"1"]).await;
    // Of whom it is cannot be read, so that it cannot be added up.
    sold.blames(&[Invariant::I5], &["qzoe/"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_computed_is_a_failure() {
    let sold = sold().await;
    let _: i64 = sold.shop.redis(&["HSET", &sold.shop.keys().sale, "state", "loading"]).await;
    let sale = sold.shop.engine.operator().sale(sold.shop.sale).await.unwrap();
    let report = sold.shop.stores().audit(&sale, Duration::ZERO, Duration::ZERO).await.unwrap();
    assert!(!report.holds());
    assert_eq!(blamed(&report), [Invariant::I4, Invariant::I5, Invariant::I6, Invariant::I8]);
    for check in report.checks.iter().filter(|check| !check.holds()) {
        assert!(check.failed.as_ref().is_some_and(|why| why.contains("loading")), "{check:?}");
    }
}

/// What moves between two readings must not look wrong: neither reservations nor verdicts on their way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_holds_while_a_herd_is_buying() {
    let shop = Arc::new(Shop::open(&[(1_000_000, 3), (1_000_000, 3)]).await);
    let herd = Herd::start(&shop, 3, usize::MAX);
    let shutdown = CancellationToken::new();
    let drainer = tokio::spawn(shop.engine.drainer().run(shutdown.clone()));
    let operator = shop.engine.operator();
    for _ in 0..7 {
        let audits = join_all((0..3).map(|_| operator.audit(shop.sale, BOUND))).await;
        for report in audits {
            let report = report.unwrap();
            assert!(report.holds(), "{report:#?}");
        }
    }
    let bought = herd.stop().await;
    assert!(bought.len() > 100, "only {} orders", bought.len());
    shutdown.cancel();
    drainer.await.unwrap();
    shop.drain().await;
    shop.assert_sound().await;
}
