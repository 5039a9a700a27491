//! What is told of final orders is written with them.

use super::*;

/// What is told of an order is written with it, or not at all.
#[tokio::test]
async fn only_what_is_committed_is_announced_and_once() {
    let shop = Shop::open().await;
    let announced = async || shop.count("SELECT count(*) FROM deliveries").await;
    sql::deliveries::subscribe(&shop.pg, "mail").await.unwrap();
    let batch = [shop.order(1, "ann", "a", &[(1, 1)])];
    drop(uncommitted(&shop.ledger, shop.sale, &[&batch[0].order]).await);
    assert_eq!(announced().await, 0);
    // Committed, but nobody was told: the same batch is recorded again.
    drop(uncommitted(&shop.ledger, shop.sale, &[&batch[0].order]).await.commit().await.unwrap());
    assert_eq!(announced().await, 1);
    shop.record(&batch).await;
    assert_eq!(announced().await, 1);
    shop.audit().await;
}

/// A batch that has looked for consumers before ends before the registration does.
#[tokio::test]
async fn a_registration_waits_for_the_batches_that_do_not_know_of_it() {
    let shop = Shop::open().await;
    let under_way =
        uncommitted(&shop.ledger, shop.sale, &[&shop.order(1, "ann", "a", &[(1, 1)]).order]).await;
    let pg = shop.pg.clone();
    let mut registering = tokio::spawn(async move { sql::deliveries::subscribe(&pg, "mail").await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND wait_event_type = 'Lock' AND query LIKE '%FOR SHARE%'";
    tokio::select! {
        registered = &mut registering => panic!("it did not wait: {registered:?}"),
        () = async { while shop.count(waits).await == 0 {} } => {}
    }
    under_way.commit().await.unwrap();
    registering.await.unwrap().unwrap();
    shop.record(&[shop.order(2, "bob", "a", &[(1, 1)])]).await;
    assert_eq!(shop.count("SELECT count(*) FROM deliveries").await, 1);
    shop.audit().await;
}
