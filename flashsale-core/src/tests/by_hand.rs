//! What tests look at and damage by hand, beside the engine.

use super::*;
use crate::{OrderState, sale::Epoch, scripts};

/// Lets a keeper look, at least once, until the sale is open.
pub(super) async fn kept_open(shop: &Shop) {
    let mut keeper = shop.keeper();
    let end = tokio::time::Instant::now() + BOUND;
    loop {
        keeper.keep_once().await.unwrap();
        if is_open(shop).await {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "no keeper opens the sale");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn is_open(shop: &Shop) -> bool {
    let epoch = epoch(shop).await;
    let seen = scripts::look(&shop.stores().link, &shop.keys(), &[]).await.unwrap();
    seen.sale.is_some_and(|sale| sale.counts_under(epoch))
}

pub(super) async fn epoch(shop: &Shop) -> Epoch {
    shop.engine.operator().sale(shop.sale).await.unwrap().epoch
}

pub(super) async fn state(shop: &Shop, id: OrderId) -> OrderState {
    shop.engine.order_status(id).await.unwrap().expect("a known order").state
}

/// Units sold by the record, in the order of the products.
pub(super) async fn recorded(shop: &Shop) -> Vec<u32> {
    let sale = shop.engine.operator().sale(shop.sale).await.unwrap();
    sale.products.iter().map(|product| product.sold).collect()
}

/// Nobody gets in, not even by asking again.
pub(super) async fn assert_fenced(shop: &Shop, what: &str) {
    let error = shop.buy("nobody", "k", &[(0, 1)]).await.expect_err(what);
    assert!(error.is_fenced(), "{what}: {error}");
}

pub(super) async fn lose_everything(shop: &Shop) {
    let keys = shop.keys();
    let mut command = vec!["DEL"];
    command.extend(keys.all());
    let _: i64 = shop.redis(&command).await;
}

/// A copy of the sale's keys, as an old backup or a replica that was left behind would have it.
pub(super) struct Copy(Vec<(String, Vec<u8>)>);

impl Copy {
    pub(super) async fn of(shop: &Shop) -> Self {
        let mut copy = Vec::new();
        for key in shop.keys().all() {
            copy.push((key.to_owned(), shop.redis(&["DUMP", key]).await));
        }
        Self(copy)
    }

    /// All but the queue, which changes when it is read.
    pub(super) fn hashes(mut self) -> Vec<(String, Vec<u8>)> {
        self.0.pop();
        self.0
    }

    pub(super) async fn restore(&self, shop: &Shop) {
        for (key, bytes) in &self.0 {
            let mut command = redis::cmd("RESTORE");
            command.arg(key).arg(0).arg(bytes).arg("REPLACE");
            let _: String = shop.stores().link.query(&command).await.unwrap();
        }
    }
}

/// Adds a queue entry by hand, as a damaged one.
pub(super) async fn add_entry(shop: &Shop, fields: &[(&[u8], &[u8])]) -> String {
    let mut command = redis::cmd("XADD");
    command.arg(&shop.keys().queue).arg("*");
    for (name, value) in fields {
        command.arg(*name).arg(*value);
    }
    shop.stores().link.query(&command).await.unwrap()
}

/// An order of two units that is parked although nothing is wrong with it: replaying it confirms it.
pub(super) async fn parked_order(shop: &Shop, name: &str) -> OrderId {
    let id = admitted(shop.buy(name, "k", &[(0, 2)]).await);
    let mut drainer = shop.engine.drainer();
    let entries = drainer.read(shop.sale).await.unwrap();
    let mut batch = drainer.begin(shop.sale, entries).await.unwrap();
    let park = batch.orders.drain(..).map(|order| (order.entry, "parked by hand".to_owned()));
    batch.park.extend(park);
    drainer.record(shop.sale, &mut batch).await.unwrap();
    drainer.settle(shop.sale, batch).await.unwrap();
    id
}

/// Runs SQL beside the engine.
pub(super) async fn sql(shop: &Shop, statement: &'static str) {
    sqlx::raw_sql(statement).execute(&shop.stores().pg).await.unwrap();
}
