//! PostgreSQL vanishes in the middle of a question, as with its host: no answer comes, and no error either.

use sqlx::{Postgres, Transaction};
use tokio_util::sync::CancellationToken;

use super::{
    by_hand::*,
    proxy::{Mode, Proxy},
    *,
};
use crate::{Error, OrderRecord, OrderState, keys::book_order};

/// A shop, and an engine that reaches PostgreSQL only through the proxy.
async fn behind_proxy(deadline: Duration, connections: u32) -> (Shop, Engine, Proxy) {
    let shop = Shop::open(&[(10, 5)]).await;
    let mut config = shop.stores().config.clone();
    let (scheme, rest) = config.postgres.url().split_once("://").unwrap();
    let (authority, database) = rest.split_once('/').unwrap();
    let (user, target) = authority.rsplit_once('@').unwrap();
    let proxy = Proxy::start(target.to_owned()).await;
    config.postgres = format!("{scheme}://{user}@{}/{database}", proxy.address).into();
    (config.postgres_deadline, config.postgres_connections) = (deadline, connections);
    let engine = Engine::connect(config).await.unwrap();
    (shop, engine, proxy)
}

/// Nobody else reads orders or dead letters, or writes to sales, until this ends.
async fn locked(shop: &Shop) -> Transaction<'static, Postgres> {
    let mut lock = shop.stores().pg.begin().await.unwrap();
    let statement =
        "LOCK TABLE orders, dead_letters IN ACCESS EXCLUSIVE MODE; LOCK TABLE sales IN SHARE MODE";
    sqlx::raw_sql(statement).execute(&mut *lock).await.unwrap();
    lock
}

/// Waits until somebody waits for the lock.
async fn asked(shop: &Shop) {
    let waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock')";
    until("the question is asked", async || {
        sqlx::query_scalar(waiting).fetch_one(&shop.stores().pg).await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_vanished_is_given_up_and_its_connection_too() {
    // One connection: who asks after this one finds it free again, or nobody ever does.
    let (shop, engine, proxy) = behind_proxy(Duration::from_secs(1), 1).await;
    let id = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    shop.drain().await;
    let _: i64 = shop.book("HDEL", &[&book_order(id)]).await;
    let (ann, stores) = (&user("ann"), engine.stores());
    let unqueued = admitted(shop.buy("bob", "k", &[(0, 1)]).await);
    let mut drainer = engine.drainer();
    let entries = drainer.read(shop.sale).await.unwrap();
    let _: i64 = shop.book("HDEL", &[&book_order(unqueued)]).await;
    let mut batch = drainer.begin(shop.sale, entries).await.unwrap();
    // As if it was parked already, which goes by another pool.
    batch.park.clear();
    let sale = engine.operator().sale(shop.sale).await.unwrap();

    let questions: [(&str, futures::future::BoxFuture<'_, Result<(), Error>>); 6] = [
        ("status", Box::pin(async { engine.order_status(id).await.map(drop) })),
        ("history", Box::pin(async { engine.orders_of(ann, 10, None).await.map(drop) })),
        ("ended letters", Box::pin(stores.finish_ended_letters())),
        ("monitor", Box::pin(async { engine.monitor().observe_once().await })),
        ("recovery", Box::pin(async { drainer.record(shop.sale, &mut batch).await })),
        ("load", Box::pin(async { stores.load(sale.id, sale.epoch, "test", &|_| {}).await.map(drop) })),
    ];
    for (what, question) in questions {
        until("the record can be asked", async || stores.catalog.refresh().await.is_ok()).await;
        let lock = locked(&shop).await;
        let vanish = async {
            asked(&shop).await;
            proxy.set(Mode::Mute);
        };
        let answer = async { tokio::time::timeout(BOUND, question).await.expect(what) };
        let (answer, ()) = futures::join!(answer, vanish);
        let error = answer.expect_err(what);
        assert!(error.is_transient(), "{what}: {error}");
        lock.rollback().await.unwrap();
        proxy.set(Mode::Pass);
    }
    until("the record tells", async || engine.order_status(id).await.is_ok()).await;
    assert_eq!(state(&shop, id).await, OrderState::Confirmed);
    // What was damaged above.
    shop.engine.operator().recover(shop.sale, |_| {}).await.unwrap();
    shop.drain().await;
    shop.assert_sound().await;
}

/// Whoever asks for an order that nobody has, while the record is away, holds up nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_made_up_id_does_not_slow_the_streams_of_others() {
    let (shop, engine, proxy) = behind_proxy(BOUND, 4).await;
    let id = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    let mut watching = engine.watch_order(id).await.unwrap().unwrap();
    let mut next = async || {
        let next = tokio::time::timeout(BOUND, watching.next()).await.expect("a change");
        next.unwrap().expect("a state").state
    };
    assert_eq!(next().await, OrderState::Queued);

    let lock = locked(&shop).await;
    let made_up = tokio::spawn({
        let (engine, id) = (engine.clone(), OrderId::new(shop.sale));
        async move { engine.watch_order(id).await }
    });
    asked(&shop).await;
    proxy.set(Mode::Mute);
    lock.rollback().await.unwrap();
    let mut drainer = shop.engine.drainer();
    let entries = drainer.read(shop.sale).await.unwrap();
    let mut batch = drainer.begin(shop.sale, entries).await.unwrap();
    assert_eq!(next().await, OrderState::Processing);
    drainer.record(shop.sale, &mut batch).await.unwrap();
    drainer.settle(shop.sale, batch).await.unwrap();
    assert_eq!(next().await, OrderState::Confirmed);
    assert!(!made_up.is_finished(), "nobody can have told it yet");
    proxy.set(Mode::Pass);
    made_up.abort();
    shop.assert_sound().await;
}

/// Neither a call whose acknowledgement is lost nor what was taken without an answer is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn final_orders_are_told_when_the_record_is_back() {
    let (shop, engine, proxy) = behind_proxy(Duration::from_secs(1), 2).await;
    let (told, mut calls) = tokio::sync::mpsc::unbounded_channel();
    let go_on = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&go_on);
    let hook = move |order: OrderRecord| {
        told.send(order.id).unwrap();
        let gate = Arc::clone(&gate);
        async move { gate.acquire().await.map(drop) }
    };
    let mut notifier = engine.notifier("mail", hook).await.unwrap();
    notifier.lease = Duration::from_millis(600);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(notifier.run(shutdown.clone()));
    let first = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    shop.drain().await;
    assert_eq!(calls.recv().await, Some(first));

    proxy.set(Mode::Mute);
    let second = admitted(shop.buy("bob", "k", &[(0, 1)]).await);
    shop.drain().await;
    until("the record is away", async || engine.stores().catalog.refresh().await.is_err()).await;
    go_on.add_permits(100);
    proxy.set(Mode::Pass);
    let waiting = "SELECT count(*) FROM deliveries";
    until("all is acknowledged", async || {
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&shop.stores().pg).await.unwrap() == 0
    })
    .await;
    shutdown.cancel();
    running.await.unwrap();
    let mut also = std::iter::from_fn(|| calls.try_recv().ok());
    assert!(also.any(|id| id == second), "it was told of the second one");
    shop.assert_sound().await;
}
