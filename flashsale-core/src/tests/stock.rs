//! Stock that is changed while it sells: counted once, in both stores, whoever dies in between.

use super::*;
use crate::{
    ChangeOutcome, FailureReason, Invariant, NewStockChange, OrderState, StockChange,
    scripts::{self, Carried, Carry},
    sql::{self, stock::Requested},
};

impl Shop {
    fn change(&self, units: i64, op_id: &str) -> NewStockChange {
        NewStockChange { sale: self.sale, product: self.products[0], units, op_id: key(op_id) }
    }

    async fn change_stock(&self, units: i64, op_id: &str) -> crate::Result<StockChange> {
        self.engine.operator().acting_as("ops").change_stock(&self.change(units, op_id)).await
    }

    async fn outcome(&self, units: i64, op_id: &str) -> ChangeOutcome {
        self.change_stock(units, op_id).await.unwrap().outcome
    }

    /// Only the first step: as an operator leaves it who dies right after.
    async fn only_request(&self, units: i64, op_id: &str) -> StockChange {
        let requested = sql::stock::request(&self.stores().pg, "ops", &self.change(units, op_id)).await;
        match requested.unwrap() {
            Requested::Noted(change) => change,
            Requested::Busy => panic!("another change is open"),
        }
    }

    /// Only the second step of a reduction.
    async fn only_take(&self, change: &StockChange) -> Carried {
        let sale = self.engine.operator().sale(self.sale).await.unwrap();
        let (number, product, carry) = (change.number, change.product, Carry::Take(-change.units));
        scripts::change_stock(&self.stores().link, &self.keys(), sale.epoch, number, product, carry)
            .await
            .unwrap()
    }

    /// Units by the record, and left in Redis.
    async fn stock(&self) -> (u32, i64) {
        (self.engine.operator().sale(self.sale).await.unwrap().products[0].stock, self.left(0).await)
    }

    /// While orders wait: everything holds but that the queue is empty.
    async fn assert_adds_up(&self) {
        let report = self.audit().await;
        let broken: Vec<_> = report.checks.iter().filter(|check| !check.holds()).collect();
        assert!(broken.iter().all(|check| check.invariant == Invariant::I7), "{broken:#?}");
    }

    async fn sell(&self, orders: usize, name: &str) -> Vec<OrderId> {
        let mut ids = Vec::new();
        for number in 0..orders {
            ids.push(admitted(self.buy(&format!("{name}{number}"), "k", &[(0, 1)]).await));
        }
        ids
    }
}

#[tokio::test]
async fn more_units_are_sold_and_fewer_are_not() {
    let shop = Shop::open(&[(3, 1)]).await;
    shop.sell(3, "early").await;
    let sold_out = shop.buy("late", "k", &[(0, 1)]).await.unwrap();
    assert!(matches!(sold_out, Admission::Refused(Refusal::SoldOut { left: 0, .. })), "{sold_out:?}");

    assert_eq!(shop.outcome(5, "more").await, ChangeOutcome::Applied);
    assert_eq!(shop.stock().await, (8, 5));
    // Sold out ends by itself, for the same key, too.
    admitted(shop.buy("late", "k", &[(0, 1)]).await);

    assert_eq!(shop.outcome(-2, "fewer").await, ChangeOutcome::Applied);
    assert_eq!(shop.stock().await, (6, 2));
    shop.assert_adds_up().await;
    shop.drain().await;
    shop.sell(2, "last").await;
    assert_eq!(shop.left(0).await, 0);
    shop.drain().await;
    shop.assert_sound().await;
}

#[tokio::test]
async fn what_buyers_have_claimed_is_not_taken_away() {
    let shop = Shop::open(&[(5, 1)]).await;
    let orders = shop.sell(3, "buyer").await;
    // By the record alone all five could go: none is recorded yet.
    assert_eq!(shop.outcome(-3, "too-many").await, ChangeOutcome::Refused);
    assert_eq!(shop.stock().await, (5, 2));
    assert_eq!(shop.outcome(-2, "the-rest").await, ChangeOutcome::Applied);
    assert_eq!(shop.stock().await, (3, 0));
    shop.drain().await;
    for order in orders {
        let status = shop.engine.order_status(order).await.unwrap().unwrap();
        assert_eq!(status.state, OrderState::Confirmed, "{:?}", status.failure);
    }
    // What is refused stays refused under its name, though it would be possible under another one.
    assert_eq!(shop.outcome(4, "more").await, ChangeOutcome::Applied);
    assert_eq!(shop.outcome(-3, "too-many").await, ChangeOutcome::Refused);
    assert_eq!(shop.stock().await, (7, 4));
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_change_by_many_at_once_counts_once() {
    let shop = Shop::open(&[(100, 1)]).await;
    for (units, op_id, expected) in [(50, "restock", (150, 150)), (-30, "reduce", (120, 120))] {
        let mut asking = tokio::task::JoinSet::new();
        for number in 0..20 {
            let (engine, change) = (shop.engine.clone(), shop.change(units, op_id));
            asking.spawn(async move {
                let operator = engine.operator();
                let asked = operator.change_stock(&change);
                // Some give up at any moment.
                let patience = Duration::from_millis(if number % 3 == 0 { number } else { 20_000 });
                tokio::time::timeout(patience, asked).await.ok()
            });
        }
        for change in asking.join_all().await.into_iter().flatten() {
            let change = change.unwrap();
            assert_eq!((change.outcome, change.units), (ChangeOutcome::Applied, units));
        }
        assert_eq!(shop.stock().await, expected);
    }
    assert_eq!(shop.engine.operator().stock_changes(shop.sale).await.unwrap().len(), 2);
    shop.assert_sound().await;
}

#[tokio::test]
async fn the_keeper_finishes_what_a_killed_command_left() {
    let shop = Shop::open(&[(10, 1)]).await;
    // Died before Redis was told of more.
    shop.only_request(5, "more").await;
    assert_eq!(shop.stock().await, (15, 10));
    shop.assert_sound().await;
    shop.keeper().keep_once().await.unwrap();
    assert_eq!(shop.stock().await, (15, 15));

    // Died before Redis was asked for fewer, and after.
    shop.only_request(-4, "fewer").await;
    shop.assert_sound().await;
    shop.keeper().keep_once().await.unwrap();
    assert_eq!(shop.stock().await, (11, 11));
    let change = shop.only_request(-4, "fewer-still").await;
    assert_eq!(shop.only_take(&change).await, Carried::Applied);
    assert_eq!(shop.stock().await, (11, 7));
    shop.assert_sound().await;
    shop.keeper().keep_once().await.unwrap();
    assert_eq!(shop.stock().await, (7, 7));

    // The same with a refusal, after which there are units again.
    shop.sell(5, "buyer").await;
    let change = shop.only_request(-3, "too-many").await;
    assert_eq!(shop.only_take(&change).await, Carried::Refused);
    shop.keeper().keep_once().await.unwrap();
    assert_eq!(shop.outcome(-3, "too-many").await, ChangeOutcome::Refused);
    assert_eq!(shop.stock().await, (7, 2));
    shop.assert_adds_up().await;
}

#[tokio::test]
async fn a_load_in_between_takes_nothing_twice() {
    let shop = Shop::open(&[(10, 1)]).await;
    shop.sell(2, "queued").await;
    let more = shop.only_request(5, "more").await;
    shop.engine.operator().recover(shop.sale, |_| {}).await.unwrap();
    assert_eq!(shop.stock().await, (15, 13), "the load has brought it");
    assert_eq!(shop.outcome(5, "more").await, ChangeOutcome::Applied);
    assert_eq!(shop.stock().await, (15, 13));
    assert_eq!(more.number, 1);

    // Taken under the old epoch, and there again after the load.
    let fewer = shop.only_request(-6, "fewer").await;
    let old = shop.engine.operator().sale(shop.sale).await.unwrap().epoch;
    assert_eq!(shop.only_take(&fewer).await, Carried::Applied);
    shop.engine.operator().recover(shop.sale, |_| {}).await.unwrap();
    assert_eq!(shop.stock().await, (15, 13));
    // What Redis said under the old epoch settles nothing.
    sql::stock::settle(&shop.stores().pg, old, &fewer, true).await.unwrap();
    assert_eq!(shop.stock().await, (15, 13));
    shop.assert_adds_up().await;
    assert_eq!(shop.outcome(-6, "fewer").await, ChangeOutcome::Applied);
    assert_eq!(shop.stock().await, (9, 7));
    shop.drain().await;
    shop.assert_sound().await;
}

#[tokio::test]
async fn a_redis_that_has_forgotten_a_change_is_told_again() {
    let shop = Shop::open(&[(10, 1)]).await;
    let keys = shop.keys();
    let before: Vec<String> = shop.redis(&["HGETALL", &keys.stock]).await;
    assert_eq!(shop.outcome(-4, "fewer").await, ChangeOutcome::Applied);
    // As a failover that lost the last second would have it.
    let _: () = shop.redis(&["DEL", &keys.stock]).await;
    let words: Vec<&str> =
        ["HSET", &keys.stock].into_iter().chain(before.iter().map(String::as_str)).collect();
    let _: i64 = shop.redis(&words).await;
    assert_eq!(shop.stock().await, (6, 10));
    shop.keeper().keep_once().await.unwrap();
    assert_eq!(shop.stock().await, (6, 6));
    shop.assert_sound().await;

    // It sells what is taken away for good: the record has the last word, and asks for a recovery.
    let change = shop.only_request(-6, "the-rest").await;
    assert_eq!(shop.only_take(&change).await, Carried::Applied);
    let _: i64 = shop.redis(&["HSET", &keys.stock, &shop.products[0].to_string(), "3"]).await;
    let orders = shop.sell(3, "buyer").await;
    shop.drain().await;
    let sale = shop.engine.operator().sale(shop.sale).await.unwrap();
    sql::stock::settle(&shop.stores().pg, sale.epoch, &change, true).await.unwrap();
    shop.keeper().keep_once().await.unwrap();
    assert_eq!(shop.outcome(-6, "the-rest").await, ChangeOutcome::Refused);
    assert_eq!(shop.stock().await, (6, 3));
    for order in orders {
        let status = shop.engine.order_status(order).await.unwrap().unwrap();
        assert_eq!((status.state, status.failure), (OrderState::Confirmed, None::<FailureReason>));
    }
    shop.assert_sound().await;
}

#[tokio::test]
async fn a_sale_that_was_never_loaded_is_changed_in_the_record() {
    let shop = Shop::unloaded(&[(10, 1)]).await;
    assert_eq!(shop.outcome(-4, "fewer").await, ChangeOutcome::Applied);
    assert_eq!(shop.outcome(1, "more").await, ChangeOutcome::Applied);
    shop.keeper().keep_once().await.unwrap();
    assert_eq!(shop.stock().await, (7, 7));
    assert_eq!(shop.outcome(1, "more").await, ChangeOutcome::Applied);
    assert_eq!(shop.stock().await, (7, 7));
    shop.assert_sound().await;
}

#[tokio::test]
async fn what_cannot_be_changed_says_why() {
    let shop = Shop::open(&[(10, 1)]).await;
    shop.sell(4, "buyer").await;
    shop.drain().await;
    let refused = async |units, op_id| shop.change_stock(units, op_id).await.unwrap_err().to_string();
    assert!(refused(0, "nothing").await.contains("changes nothing"));
    assert_eq!(shop.outcome(-7, "more-than-all").await, ChangeOutcome::Refused);
    assert!(refused(9_999_995, "much").await.contains("10000000 are the most"));
    assert!(refused(i64::MIN, "more-than-any").await.contains("more than any stock"));
    // Nothing was noted: the names are free still.
    assert_eq!(shop.outcome(1, "sold").await, ChangeOutcome::Applied);
    assert!(refused(2, "sold").await.contains("stands for another change already: +1 units"));
    let other =
        NewStockChange { product: ProductId::try_from(i64::from(u32::MAX)).unwrap(), ..shop.change(1, "no") };
    assert!(shop.engine.operator().change_stock(&other).await.unwrap_err().is_not_found());

    shop.engine.operator().set_state(shop.sale, crate::SaleState::Closed).await.unwrap();
    assert!(refused(1, "closed").await.contains("over for good"));
    // A change that was made is told of for ever.
    assert_eq!(shop.outcome(1, "sold").await, ChangeOutcome::Applied);
    assert_eq!(shop.stock().await, (11, 7));
    let actions = shop.engine.operator().actions(Some(shop.sale), 10).await.unwrap();
    let restocks: Vec<_> = actions.iter().filter(|action| action.action == "restock").collect();
    assert_eq!(restocks.len(), 1, "{actions:?}");
    assert_eq!(restocks[0].actor, "ops");
    assert!(restocks[0].detail.contains("+1 units"), "{restocks:?}");
    assert!(actions.iter().any(|action| action.detail.contains("-7 units refused")), "{actions:?}");
}

#[tokio::test]
async fn while_redis_is_away_one_change_waits() {
    let shop = Shop::open(&[(10, 1)]).await;
    // As good as away: fenced for everybody, and loaded by nobody.
    let _: () = shop.redis(&["HSET", &shop.keys().sale, "state", "loading"]).await;
    assert_eq!(shop.outcome(-1, "first").await, ChangeOutcome::Waiting);
    let second = shop.change_stock(-1, "second").await.unwrap_err();
    assert!(second.is_transient() && second.to_string().contains("another change"), "{second}");
    shop.engine.operator().recover(shop.sale, |_| {}).await.unwrap();
    assert_eq!(shop.outcome(-1, "second").await, ChangeOutcome::Applied);
    assert_eq!(shop.outcome(-1, "first").await, ChangeOutcome::Applied);
    assert_eq!(shop.stock().await, (8, 8));
    shop.assert_sound().await;
}

#[tokio::test]
async fn a_redis_that_decides_anew_and_otherwise_is_recovered() {
    let shop = Shop::open(&[(10, 1)]).await;
    let change = shop.only_request(-6, "fewer").await;
    assert_eq!(shop.outcome(-6, "fewer").await, ChangeOutcome::Applied);
    // Back in time, with fewer left than then, asked by somebody who read the record long ago.
    let product = shop.products[0].to_string();
    let stock = shop.keys().stock;
    let _: () = shop.redis(&["HDEL", &stock, "outcome"]).await;
    let _: i64 = shop.redis(&["HSET", &stock, "changes", "0", &product, "5"]).await;
    assert_eq!(shop.only_take(&change).await, Carried::Refused);
    let sale = shop.engine.operator().sale(shop.sale).await.unwrap();
    sql::stock::settle(&shop.stores().pg, sale.epoch, &change, false).await.unwrap();
    shop.keeper().keep_once().await.unwrap();
    assert_eq!(shop.stock().await, (4, 4));
    shop.assert_sound().await;
}

/// Buyers, a drainer, operators and auditors at once: the sums are right at every look, and all is sold at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_herd_buys_every_look_adds_up() {
    const CHANGES: i64 = 40;
    let shop = Arc::new(Shop::open(&[(50, 1)]).await);
    let done = tokio_util::sync::CancellationToken::new();
    let (draining, keeping) = (shop.engine.drainer(), shop.keeper());
    let running = [tokio::spawn(draining.run(done.clone())), tokio::spawn(keeping.run(done.clone()))];

    let buying = {
        let (shop, done) = (Arc::clone(&shop), done.clone());
        tokio::spawn(async move {
            let mut sold = 0;
            for number in 0.. {
                if done.is_cancelled() {
                    break;
                }
                match shop.buy(&format!("u{number}"), "k", &[(0, 1)]).await.unwrap() {
                    Admission::Admitted(_) => sold += 1,
                    Admission::Refused(Refusal::SoldOut { .. }) => tokio::task::yield_now().await,
                    other => panic!("{other:?}"),
                }
            }
            sold
        })
    };
    let changing = {
        let shop = Arc::clone(&shop);
        tokio::spawn(async move {
            let mut total = 50;
            for number in 0..CHANGES {
                // Fewer than before every third time, which may be refused.
                let units = if number % 3 == 2 { -(number % 7 + 1) } else { number % 5 + 1 };
                let op_id = format!("change-{number}");
                let outcome = shop.outcome(units, &op_id).await;
                assert_eq!(shop.outcome(units, &op_id).await, outcome, "{op_id} again");
                match outcome {
                    ChangeOutcome::Applied => total += units,
                    ChangeOutcome::Refused => assert!(units < 0, "{op_id}"),
                    other => panic!("{op_id}: {other:?}"),
                }
            }
            total
        })
    };
    let mut looks = 0;
    while !changing.is_finished() || looks < 5 {
        shop.assert_adds_up().await;
        looks += 1;
    }
    let total = changing.await.unwrap();
    until("all is sold", || async { shop.left(0).await == 0 }).await;
    done.cancel();
    assert_eq!(buying.await.unwrap(), total);
    for task in running {
        task.await.unwrap();
    }
    shop.drain().await;
    assert_eq!(shop.stock().await, (u32::try_from(total).unwrap(), 0));
    shop.assert_sound().await;
}
