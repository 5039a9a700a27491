//! Final orders are told to the embedder's own code: all of them, at least once, whoever recorded them.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    metrics::{recorder, value},
    *,
};
use crate::{FailureReason, Notified, Notifier, OrderRecord, OrderState};

/// What a hook was told.
#[derive(Default)]
struct Heard(Mutex<Vec<OrderRecord>>);

impl Heard {
    fn hook(
        self: &Arc<Self>,
    ) -> impl Fn(OrderRecord) -> std::future::Ready<Result<(), Infallible>> + Send + Sync + 'static {
        let heard = Arc::clone(self);
        move |order| {
            heard.0.lock().unwrap().push(order);
            std::future::ready(Ok(()))
        }
    }

    /// How often each order was told.
    fn times(&self) -> BTreeMap<OrderId, usize> {
        self.0.lock().unwrap().iter().fold(BTreeMap::new(), |mut times, order| {
            *times.entry(order.id).or_default() += 1;
            times
        })
    }
}

fn once(ids: &[OrderId]) -> BTreeMap<OrderId, usize> {
    ids.iter().map(|id| (*id, 1)).collect()
}

async fn waiting(shop: &Shop) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM deliveries").fetch_one(&shop.stores().pg).await.unwrap()
}

/// As if the time had come: for what failed, and for what a dead notifier had in hand.
async fn all_is_due(shop: &Shop) {
    sqlx::query("UPDATE deliveries SET due_at = now()").execute(&shop.stores().pg).await.unwrap();
}

fn notified(delivered: usize, failed: usize) -> (usize, usize) {
    (delivered, failed)
}

async fn step(notifier: &mut Notifier) -> (usize, usize) {
    let Notified { delivered, failed } = notifier.step().await.unwrap();
    (delivered, failed)
}

async fn buy_and_drain(shop: &Shop, users: &[&str]) -> Vec<OrderId> {
    let mut orders = Vec::new();
    for user in users {
        orders.push(admitted(shop.buy(user, "k", &[(0, 1)]).await));
    }
    shop.drain().await;
    orders
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_that_becomes_final_is_told_whoever_recorded_it() {
    let shop = Shop::open(&[(10, 2), (10, 2)]).await;
    test_support::refuse_user(&shop.stores().pg, "unlucky").await;
    // Nobody listens yet: nothing is written.
    buy_and_drain(&shop, &["early"]).await;
    assert_eq!(waiting(&shop).await, 0);

    let heard = Arc::new(Heard::default());
    let mut notifier = shop.engine.notifier("payments", heard.hook()).await.unwrap();
    let again = shop.engine.notifier("payments", heard.hook()).await.unwrap();
    assert_eq!(shop.engine.operator().subscribers().await.unwrap().len(), 1, "it is the same consumer");
    drop(again);
    let mut ids = Vec::new();
    for user in ["ann", "unlucky", "bob"] {
        ids.push(admitted(shop.buy(user, "k", &[(0, 2), (1, 1)]).await));
    }
    assert_eq!(step(&mut notifier).await, notified(0, 0), "they are queued, not final");
    // Another process's drainer, which knows nothing of the hook. One of them it has to narrow down.
    let other = shop.another().await;
    while other.drainer().drain_once(shop.sale).await.unwrap().read > 0 {}
    let listed = shop.engine.operator().subscribers().await.unwrap().remove(0);
    assert_eq!((listed.name.as_str(), listed.waiting, listed.failing), ("payments", 3, 0));
    assert_eq!(step(&mut notifier).await, notified(3, 0));
    assert_eq!(step(&mut notifier).await, notified(0, 0));
    assert_eq!((heard.times(), waiting(&shop).await), (once(&ids), 0));

    for told in heard.0.lock().unwrap().iter() {
        let failure = (told.user.as_str() == "unlucky").then_some(FailureReason::Rejected);
        let state = if failure.is_some() { OrderState::Failed } else { OrderState::Confirmed };
        assert_eq!((told.state, told.failure, told.sale), (state, failure, shop.sale));
        let lines: Vec<_> = told.lines.iter().map(|line| (line.product, line.quantity)).collect();
        let expected = [(shop.products[0], 2), (shop.products[1], 1)];
        assert_eq!(lines, if failure.is_some() { &[] } else { &expected[..] });
    }
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_ends_is_told_too() {
    let shop = Shop::open(&[(10, 2)]).await;
    let heard = Arc::new(Heard::default());
    let mut notifier = shop.engine.notifier("mail", heard.hook()).await.unwrap();
    let ids =
        [admitted(shop.buy("ann", "k", &[(0, 1)]).await), admitted(shop.buy("bob", "k", &[(0, 1)]).await)];
    park_all(&shop).await;
    assert_eq!(step(&mut notifier).await, notified(0, 0), "a parked order is not final");
    let operator = shop.engine.operator();
    for letter in operator.dead_letters().await.unwrap() {
        let end = if letter.order == Some(ids[0]) {
            operator.replay(letter.id).await
        } else {
            operator.discard(letter.id).await
        };
        end.unwrap();
    }
    assert_eq!(step(&mut notifier).await, notified(2, 0));
    assert_eq!(heard.times(), once(&ids));
    let states: BTreeMap<_, _> = heard.0.lock().unwrap().iter().map(|told| (told.id, told.failure)).collect();
    assert_eq!(states, [(ids[0], None), (ids[1], Some(FailureReason::Discarded))].into());
    shop.assert_sound().await;
}

/// Orders that cannot be recorded for a while are parked, as if a rule of the database had refused even the row.
async fn park_all(shop: &Shop) {
    let rule = "CREATE FUNCTION refuse_all() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN RAISE EXCEPTION 'not now'; END $$;
                CREATE TRIGGER refuse_all BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION refuse_all();";
    sqlx::raw_sql(rule).execute(&shop.stores().pg).await.unwrap();
    shop.drain().await;
    sqlx::raw_sql("DROP TRIGGER refuse_all ON orders").execute(&shop.stores().pg).await.unwrap();
    assert_eq!(shop.engine.operator().dead_letters().await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notifier_that_dies_before_the_acknowledgement_is_made_up_for() {
    let shop = Shop::open(&[(10, 2)]).await;
    let called = Arc::new(Semaphore::new(0));
    let calls = Arc::clone(&called);
    let hook = move |_| {
        calls.add_permits(1);
        // What the hook does is done; that it was done is never known.
        std::future::pending::<Result<(), Infallible>>()
    };
    let mut dying = shop.engine.notifier("payments", hook).await.unwrap();
    let ids = buy_and_drain(&shop, &["ann"]).await;
    tokio::select! {
        _ = dying.step() => panic!("the call does not end"),
        _ = called.acquire() => {}
    }
    drop(dying);

    let heard = Arc::new(Heard::default());
    let mut next = shop.engine.notifier("payments", heard.hook()).await.unwrap();
    assert_eq!(step(&mut next).await, notified(0, 0), "somebody may be at work still");
    all_is_due(&shop).await;
    assert_eq!(step(&mut next).await, notified(1, 0));
    assert_eq!((heard.times(), waiting(&shop).await), (once(&ids), 0));
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_fails_or_panics_is_called_again_and_holds_up_no_other() {
    let (recorder, handle) = recorder();
    let _here = ::metrics::set_default_local_recorder(&recorder);
    let shop = Shop::open(&[(10, 2)]).await;
    let heard = Arc::new(Heard::default());
    let mended = Arc::new(AtomicBool::new(false));
    let (told, well) = (heard.hook(), Arc::clone(&mended));
    let hook = move |order: OrderRecord| {
        let outcome = match order.user.as_str() {
            _ if well.load(Ordering::Relaxed) => Ok(()),
            "early-panic" => panic!("before there is a future"),
            name => Err(name.to_owned()),
        };
        let told = outcome.is_ok().then(|| told(order));
        async move {
            match outcome {
                Err(name) if name == "late-panic" => panic!("in its future"),
                Err(name) if name != "good" => return Err(format!("no\0 money, {name}")),
                _ => {}
            }
            if let Some(told) = told {
                told.await.unwrap();
            }
            Ok(())
        }
    };
    let mut notifier = shop.engine.notifier("payments", hook).await.unwrap();
    let ids = buy_and_drain(&shop, &["bad", "early-panic", "late-panic", "good"]).await;
    assert_eq!(step(&mut notifier).await, notified(1, 3));
    assert_eq!(step(&mut notifier).await, notified(0, 0), "each has a pause");
    let listed = shop.engine.operator().subscribers().await.unwrap().remove(0);
    assert_eq!((listed.waiting, listed.failing), (3, 3));
    assert_eq!(listed.error.as_deref(), Some("no money, bad"));
    // A pause of its own, which grows.
    all_is_due(&shop).await;
    assert_eq!(step(&mut notifier).await, notified(0, 3));
    let attempts: Vec<i32> =
        sqlx::query_scalar("SELECT attempts FROM deliveries").fetch_all(&shop.stores().pg).await.unwrap();
    assert_eq!(attempts, [2, 2, 2]);
    shop.engine.monitor().observe_once().await.unwrap();
    assert_eq!(value(&handle, "flashsale_deliveries_waiting{subscriber=\"payments\"}"), Some(3.0));

    mended.store(true, Ordering::Relaxed);
    all_is_due(&shop).await;
    assert_eq!(step(&mut notifier).await, notified(3, 0));
    assert_eq!(heard.times(), once(&ids[..3]));
    let total = |result| {
        value(&handle, &format!("flashsale_deliveries_total{{subscriber=\"payments\",result=\"{result}\"}}"))
    };
    assert_eq!((total("delivered"), total("failed")), (Some(4.0), Some(6.0)));
    shop.assert_sound().await;
}

/// A row that somebody has damaged by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_cannot_be_read_holds_up_no_other() {
    let shop = Shop::open(&[(10, 2)]).await;
    let heard = Arc::new(Heard::default());
    let mut notifier = shop.engine.notifier("mail", heard.hook()).await.unwrap();
    let ids = buy_and_drain(&shop, &["ann", "bob", "cid"]).await;
    let set_user = async |user| {
        let set = sqlx::query("UPDATE orders SET user_id = $1 WHERE id = $2");
        set.bind(user).bind(ids[1].as_uuid()).execute(&shop.stores().pg).await.unwrap();
    };
    set_user("not a name").await;
    assert_eq!(step(&mut notifier).await, notified(2, 1));
    assert_eq!(heard.times(), once(&[ids[0], ids[2]]));
    set_user("bob").await;
    all_is_due(&shop).await;
    assert_eq!(step(&mut notifier).await, notified(1, 0));
    assert_eq!(heard.times(), once(&ids));
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_hook_keeps_its_order_and_holds_no_transaction() {
    let shop = Shop::open(&[(10, 2)]).await;
    let (called, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (calls, gate) = (Arc::clone(&called), Arc::clone(&go_on));
    let hook = move |_| {
        calls.fetch_add(1, Ordering::Relaxed);
        let gate = Arc::clone(&gate);
        async move { gate.acquire().await.map(drop) }
    };
    let mut slow = shop.engine.notifier("payments", hook).await.unwrap();
    slow.lease = Duration::from_secs(3);
    let shutdown = CancellationToken::new();
    buy_and_drain(&shop, &["ann"]).await;
    let working = tokio::spawn(slow.run(shutdown.clone()));
    until("it is called", || async { called.load(Ordering::Relaxed) == 1 }).await;

    let lease = async || -> chrono::DateTime<Utc> {
        sqlx::query_scalar("SELECT due_at FROM deliveries").fetch_one(&shop.stores().pg).await.unwrap()
    };
    let mut other = shop.engine.notifier("payments", Arc::new(Heard::default()).hook()).await.unwrap();
    // For longer than the first lease lasts.
    let first = lease().await;
    until("it is renewed and renewed", || async { lease().await > first + TimeDelta::seconds(3) }).await;
    assert_eq!(step(&mut other).await, notified(0, 0), "it is in hand");
    let open = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    assert_eq!(sqlx::query_scalar::<_, i64>(open).fetch_one(&shop.stores().pg).await.unwrap(), 0);
    // New orders are told meanwhile, and a shutdown waits for the calls.
    buy_and_drain(&shop, &["bob"]).await;
    until("both are called", || async { called.load(Ordering::Relaxed) == 2 }).await;
    shutdown.cancel();
    go_on.add_permits(2);
    working.await.unwrap();
    assert_eq!((waiting(&shop).await, called.load(Ordering::Relaxed)), (0, 2));
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_notifiers_of_one_name_share_the_work_and_another_name_hears_all() {
    let shop = Shop::open(&[(40, 2)]).await;
    let heard: [Arc<Heard>; 3] = Default::default();
    let other = shop.another().await;
    let one = shop.engine.notifier("payments", heard[0].hook()).await.unwrap().at_once(2);
    let two = other.notifier("payments", heard[1].hook()).await.unwrap().at_once(2);
    let mail = other.notifier("mail", heard[2].hook()).await.unwrap();
    let users: Vec<String> = (0..30).map(|n| format!("u{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let shutdown = CancellationToken::new();
    let mut ids = buy_and_drain(&shop, &users[..20]).await;
    let working = [one, two, mail].map(|notifier| tokio::spawn(notifier.run(shutdown.clone())));
    ids.extend(buy_and_drain(&shop, &users[20..]).await);
    until("all is told", || async { waiting(&shop).await == 0 }).await;
    shutdown.cancel();
    for working in working {
        working.await.unwrap();
    }
    let mut shared = heard[0].times();
    shared.extend(heard[1].times());
    assert_eq!((shared, heard[2].times()), (once(&ids), once(&ids)));
    // Nobody died, so nothing was told twice.
    assert_eq!(heard[0].times().len() + heard[1].times().len(), ids.len());
    shop.assert_sound().await;
}

#[tokio::test]
async fn a_consumer_that_is_ended_leaves_nothing_behind() {
    let shop = Shop::open(&[(10, 2)]).await;
    let heard = Arc::new(Heard::default());
    let mut notifier = shop.engine.notifier("payments", heard.hook()).await.unwrap();
    buy_and_drain(&shop, &["ann", "bob"]).await;
    let operator = shop.engine.operator();
    operator.unsubscribe("payments").await.unwrap();
    assert!(operator.unsubscribe("payments").await.unwrap_err().is_not_found());
    assert_eq!((waiting(&shop).await, operator.subscribers().await.unwrap()), (0, vec![]));
    buy_and_drain(&shop, &["cid"]).await;
    assert_eq!((step(&mut notifier).await, waiting(&shop).await), (notified(0, 0), 0));
    for name in ["", "Mail", "a b", &"x".repeat(65)] {
        let refused = shop.engine.notifier(name, heard.hook()).await.err().expect(name);
        assert_eq!(refused.invalid().expect(name).field, "subscriber");
    }
    shop.assert_sound().await;
}
