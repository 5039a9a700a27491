//! The statements that are not part of a ledger's transaction, on a real PostgreSQL.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use sqlx::PgPool;

use super::{dead_letters, history, new_sale::create_sale, orders, sales, snapshot};
use crate::{
    Created, NewProduct, NewSale, OrderFilter,
    ids::{IdempotencyKey, ProductId, SaleId},
    ledger::{
        Ledger, drain_pool,
        tests::{order, queued},
    },
    money::Money,
    order::{FailureReason, OrderState},
    queue::{Decoded, Entry},
    sale::{Epoch, SaleState, Seq},
    test_support::database,
};

const LIMIT: Duration = Duration::from_secs(10);

fn sale(slug: &str, products: &[Option<i64>]) -> NewSale {
    let currency = "USD".parse().unwrap();
    let product = |id: &Option<i64>| NewProduct {
        id: id.map(|id| ProductId::try_from(id).unwrap()),
        name: "Thing".to_owned(),
        description: "A thing.".to_owned(),
        image_url: String::new(),
        original_price: Money::from_minor(500, currency),
        sale_price: Money::from_minor(250, currency),
        stock: 10,
        per_user_limit: 3,
    };
    NewSale {
        slug: slug.to_owned(),
        name: "Noon".to_owned(),
        currency,
        starts_at: Utc::now(),
        ends_at: Utc::now() + TimeDelta::hours(1),
        products: products.iter().map(product).collect(),
    }
}

async fn created(pg: &PgPool, new: &NewSale) -> SaleId {
    match create_sale(pg, new, "ann").await.unwrap() {
        Created::New(id) => id,
        Created::Exists(id) => panic!("sale {id} is there already"),
    }
}

async fn connect() -> (PgPool, String) {
    let url = database().await;
    (PgPool::connect(&url).await.unwrap(), url)
}

#[tokio::test]
async fn a_sale_is_created_once_and_whole() {
    let (pg, _) = connect().await;
    let first = created(&pg, &sale("noon", &[Some(7), None, Some(3)])).await;
    let again = create_sale(&pg, &sale("noon", &[None]), "ann").await.unwrap();
    assert!(matches!(again, Created::Exists(id) if id == first));
    let error = create_sale(&pg, &sale("dusk", &[None, Some(3)]), "ann").await.unwrap_err();
    assert!(error.to_string().contains(&format!("product 3 belongs to sale {first}")), "{error}");
    let dawn = created(&pg, &sale("dawn", &[None, None])).await;

    let all = sales(&pg, &[]).await.unwrap();
    assert_eq!(
        all.iter().map(|sale| (sale.id, sale.slug.as_str())).collect::<Vec<_>>(),
        [(first, "noon"), (dawn, "dawn")]
    );
    let ids = |at: usize| all[at].products.iter().map(|product| product.id.get()).collect::<Vec<_>>();
    // The ids that the database makes begin above those that were chosen.
    let made = ids(0)[2];
    assert!(made > 7, "{made}");
    assert_eq!((ids(0), ids(1)), (vec![3, 7, made], vec![made + 1, made + 2]));
    let product = &all[0].products[0];
    assert_eq!((product.stock, product.sold, product.per_user_limit), (10, 0, 3));
    assert_eq!(product.sale_price.to_string(), "2.50");
    assert!(create_sale(&pg, &sale("Not A Slug", &[None]), "ann").await.unwrap_err().invalid().is_some());
}

#[tokio::test]
async fn epochs_rise_and_an_overtaken_load_is_not_noted() {
    let (pg, _) = connect().await;
    let id = created(&pg, &sale("noon", &[None])).await;
    assert_eq!(sales::raise_epoch(&pg, id, Epoch(0)).await.unwrap(), Epoch(1));
    assert_eq!(sales::raise_epoch(&pg, id, Epoch(0)).await.unwrap(), Epoch(2));
    assert!(!sales::set_loaded_epoch(&pg, id, Epoch(1)).await.unwrap());
    assert!(sales::set_loaded_epoch(&pg, id, Epoch(2)).await.unwrap());
    sales::request_recover(&pg, id, Epoch(2)).await.unwrap();
    sales::request_recover(&pg, id, Epoch(1)).await.unwrap();
    let stands = sales(&pg, &[]).await.unwrap().remove(0);
    assert_eq!((stands.epoch, stands.loaded_epoch, stands.recover_requested), (Epoch(2), Epoch(2), Epoch(2)));
    assert!(sales::raise_epoch(&pg, SaleId::try_from(99).unwrap(), Epoch(0)).await.is_err());
}

#[tokio::test]
async fn a_closed_sale_stays_closed() {
    let (pg, _) = connect().await;
    let id = created(&pg, &sale("noon", &[None])).await;
    for state in [SaleState::Paused, SaleState::Open, SaleState::Closed, SaleState::Closed] {
        sales::set_state(&pg, id, state, "ann").await.unwrap();
        assert_eq!(sales(&pg, &[]).await.unwrap()[0].state, state);
    }
    assert!(sales::set_state(&pg, id, SaleState::Open, "ann").await.is_err());
    assert_eq!(sales(&pg, &[]).await.unwrap()[0].state, SaleState::Closed);
    let nowhere = SaleId::try_from(99).unwrap();
    assert!(sales::set_state(&pg, nowhere, SaleState::Open, "ann").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_window_is_moved_and_never_ends_before_now() {
    let (pg, _) = connect().await;
    let id = created(&pg, &sale("noon", &[None])).await;
    let stands = || async { sales(&pg, &[]).await.unwrap().remove(0) };
    let (before, now) = (stands().await, chrono::Utc::now());
    let hour = Duration::from_hours(1);
    let [was, is] = sales::set_window(&pg, id, None, Some(now + hour), "ann").await.unwrap();
    assert_eq!((was.1, is.0), (before.ends_at, before.starts_at));
    assert_eq!(stands().await.ends_at, is.1);
    // What has passed is now: a day-old end would be the sale's removal.
    let [_, is] = sales::set_window(&pg, id, None, Some(now - 48 * hour), "ann").await.unwrap();
    assert!(is.1 > now - hour, "{is:?}");
    let again = sales::set_window(&pg, id, None, Some(now - hour), "ann").await.unwrap_err();
    assert!(again.to_string().contains("has ended"), "{again}");
    let crossed = sales::set_window(&pg, id, Some(now + 2 * hour), Some(now + hour), "ann").await;
    assert!(crossed.unwrap_err().to_string().contains("before it starts"));
    // Ended is not closed.
    sales::set_window(&pg, id, Some(now + hour), Some(now + 2 * hour), "ann").await.unwrap();
    sales::set_state(&pg, id, SaleState::Closed, "ann").await.unwrap();
    assert!(sales::set_window(&pg, id, None, Some(now + hour), "ann").await.is_err());
    let nowhere = SaleId::try_from(99).unwrap();
    assert!(sales::set_window(&pg, nowhere, None, None, "ann").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn what_changes_something_is_noted_once() {
    let (pg, _) = connect().await;
    let id = created(&pg, &sale("noon", &[None])).await;
    create_sale(&pg, &sale("noon", &[None]), "bob").await.unwrap();
    for state in [SaleState::Paused, SaleState::Paused, SaleState::Closed, SaleState::Closed, SaleState::Open]
    {
        let _ = sales::set_state(&pg, id, state, "bob").await;
    }
    let acts = super::actions::last(&pg, Some(id), 9).await.unwrap();
    let acts: Vec<_> = acts.iter().map(|act| (&*act.actor, &*act.action, &*act.detail)).collect();
    let created = ("ann", "create", "noon: 10 units of 1 products");
    assert_eq!(acts, [("bob", "close", "it was paused"), ("bob", "pause", "it was open"), created]);
    let elsewhere = SaleId::try_from(99).unwrap();
    assert!(super::actions::last(&pg, Some(elsewhere), 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn one_process_loads_a_sale_at_a_time() {
    let (pg, url) = connect().await;
    let other = PgPool::connect(&url).await.unwrap();
    let ids = [SaleId::try_from(1).unwrap(), SaleId::try_from(2).unwrap()];
    let lock = sales::lock_load(&pg, ids[0], LIMIT).await.unwrap().expect("free");
    assert!(sales::lock_load(&other, ids[0], LIMIT).await.unwrap().is_none());
    assert!(sales::lock_load(&other, ids[1], LIMIT).await.unwrap().is_some());
    drop(lock);
    let freed = async { while sales::lock_load(&other, ids[0], LIMIT).await.unwrap().is_none() {} };
    tokio::time::timeout(Duration::from_secs(10), freed).await.expect("let go");
}

/// A frozen loader, whose lock is not kept, must not keep the others from loading; one that works keeps it.
#[tokio::test]
async fn the_load_lock_is_kept_by_who_works_and_lost_by_who_is_frozen() {
    const SHORT: Duration = Duration::from_millis(600);
    let (pg, _) = connect().await;
    let id = created(&pg, &sale("noon", &[None])).await;
    let mut lock = sales::lock_load(&pg, id, SHORT).await.unwrap().expect("free");
    // Four times the limit.
    let kept = tokio::time::timeout(SHORT * 4, lock.keep()).await;
    assert!(kept.is_err() && sales::lock_load(&pg, id, SHORT).await.unwrap().is_none());
    // From here it is held, but by somebody who does nothing.
    let freed = async { while sales::lock_load(&pg, id, SHORT).await.unwrap().is_none() {} };
    tokio::time::timeout(Duration::from_secs(10), freed).await.expect("lost");
    drop(lock);
}

#[tokio::test]
async fn a_sale_with_parked_orders_is_not_purged() {
    let (pg, url) = connect().await;
    let id = created(&pg, &sale("noon", &[None])).await;
    let epoch = sales::raise_epoch(&pg, id, Epoch(0)).await.unwrap();
    let ends_at = sales(&pg, &[]).await.unwrap()[0].ends_at;
    assert!(!sales::mark_purged(&pg, id, epoch, ends_at).await.unwrap(), "it is being loaded");
    sales::set_loaded_epoch(&pg, id, epoch).await.unwrap();
    let garbage = Entry { id: "1-0".to_owned(), fields: vec![] };
    Ledger::new(drain_pool(url.parse().unwrap())).park(id, epoch, &garbage, "garbage").await.unwrap();
    assert!(!sales::mark_purged(&pg, id, epoch, ends_at).await.unwrap());
    let letter = dead_letters::list(&pg).await.unwrap().remove(0).id;
    // One that was not ended is not removed.
    dead_letters::finish_dead_letter(&pg, letter).await.unwrap();
    assert!(dead_letters::letter(&pg, letter).await.unwrap().is_some());
    assert!(dead_letters::discard_garbage(&pg, letter, "ann").await.unwrap());
    dead_letters::finish_dead_letter(&pg, letter).await.unwrap();
    assert!(dead_letters::letter(&pg, letter).await.unwrap().is_none());
    // Its end was moved since it was judged.
    assert!(!sales::mark_purged(&pg, id, epoch, ends_at - Duration::from_secs(1)).await.unwrap());
    assert_eq!(sales(&pg, &[id]).await.unwrap().len(), 1, "known, and not over for good");
    assert!(sales::mark_purged(&pg, id, epoch, ends_at).await.unwrap());
    let error = sales::set_window(&pg, id, None, Some(ends_at), "ann").await.unwrap_err();
    assert!(error.to_string().contains("more than a day ago"), "{error}");
    assert!(sales(&pg, &[id]).await.unwrap().is_empty());
    assert!(sales(&pg, &[]).await.unwrap()[0].purged_at.is_some());
    assert!(sales::raise_epoch(&pg, id, Epoch(0)).await.is_err(), "never loaded again");
}

/// A sale with an order of every kind: confirmed, a duplicate of it, over the limit, parked.
async fn with_orders(pg: &PgPool, url: &str) -> (SaleId, Vec<Decoded>) {
    let id = created(pg, &sale("noon", &[Some(1)])).await;
    let epoch = sales::raise_epoch(pg, id, Epoch(0)).await.unwrap();
    let ledger = Ledger::new(drain_pool(url.parse().unwrap()));
    let made = [("ann", "a", 2), ("ann", "a", 1), ("ann", "b", 2), ("bob", "a", 1)];
    let made =
        (1..).zip(made).map(|(seq, (user, key, units))| queued(order(id, seq, user, key, &[(1, units)])));
    let made: Vec<_> = made.collect();
    ledger.record(id, epoch, &made[..3], None).await.unwrap();
    ledger.park(id, epoch, &made[3].entry, "why not").await.unwrap();
    (id, made)
}

#[tokio::test]
async fn a_snapshot_has_all_that_redis_needs() {
    let (pg, url) = connect().await;
    let (id, made) = with_orders(&pg, &url).await;
    let mut record = snapshot::begin(&pg, id).await.unwrap();
    let sale = record.sale().await.unwrap();
    assert_eq!((sale.recorded_seq, sale.products[0].sold), (Seq(3), 2));
    assert_eq!(record.count().await.unwrap(), 3);
    let letters = record.letters().await.unwrap();
    assert_eq!(letters.iter().map(|letter| letter.order).collect::<Vec<_>>(), [Some(made[3].order.id)]);
    let mut seen = snapshot::load_snapshot(&pg, id).await.unwrap();
    seen.orders.sort_by_key(|order| made.iter().position(|made| made.order.id == order.id));
    let words: Vec<_> = seen
        .orders
        .iter()
        .map(|order| (order.key.as_ref().map(IdempotencyKey::as_str), order.failure))
        .collect();
    assert_eq!(
        words,
        [
            (Some("a"), None),
            (None, Some(FailureReason::Duplicate)),
            (Some("b"), Some(FailureReason::OverQuota)),
        ]
    );
    let confirmed = &seen.orders[0];
    assert_eq!(confirmed.state, OrderState::Confirmed);
    assert_eq!((&confirmed.user, &confirmed.fingerprint), (&made[0].order.user, &made[0].order.fingerprint));
    assert_eq!(seen.held, [("ann".parse().unwrap(), ProductId::try_from(1).unwrap(), 2)]);
    let units: Vec<u32> =
        seen.orders.iter().map(|order| order.lines.iter().map(|line| line.1).sum()).collect();
    assert_eq!(units, [2, 1, 2], "a failed order has its lines too");
    let mut nowhere = snapshot::begin(&pg, SaleId::try_from(99).unwrap()).await.unwrap();
    assert!(nowhere.sale().await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn history_comes_in_pages_newest_first() {
    let (pg, url) = connect().await;
    let (id, made) = with_orders(&pg, &url).await;
    let mut newest_first: Vec<_> = made[..3].iter().map(|made| made.order.id).collect();
    newest_first.sort_unstable();
    newest_first.reverse();

    let mut filter = OrderFilter { user: Some("ann".parse().unwrap()), limit: 2, ..OrderFilter::default() };
    let first = orders(&pg, &filter).await.unwrap();
    filter.before = Some(first[1].id);
    let rest = orders(&pg, &filter).await.unwrap();
    assert_eq!(first.iter().chain(&rest).map(|order| order.id).collect::<Vec<_>>(), newest_first);

    let filter = OrderFilter {
        sale: Some(id),
        state: Some(OrderState::Confirmed),
        limit: 9,
        ..OrderFilter::default()
    };
    let confirmed = orders(&pg, &filter).await.unwrap().remove(0);
    assert_eq!(confirmed.id, made[0].order.id);
    assert_eq!(
        (confirmed.total.to_string(), confirmed.created_at),
        ("5.00".to_owned(), made[0].order.admitted_at)
    );
    let line = &confirmed.lines[0];
    assert_eq!((line.product_name.as_str(), line.quantity, line.line_total.minor), ("Thing", 2, 500));

    let duplicate = history::order(&pg, made[1].order.id).await.unwrap().unwrap();
    assert_eq!((duplicate.key, duplicate.duplicate_of), (None, Some(made[0].order.id)));
    assert!(history::order(&pg, made[3].order.id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_status_is_that_of_the_row_or_of_the_dead_letter() {
    let (pg, url) = connect().await;
    let (id, made) = with_orders(&pg, &url).await;
    let unknown = crate::OrderId::new(id);
    let ids: Vec<_> = made.iter().map(|made| made.order.id).chain([unknown]).collect();
    let known = super::statuses_of(&pg, &ids).await.unwrap();
    let seen: Vec<_> =
        made.iter().map(|made| (known[&made.order.id].state, known[&made.order.id].failure)).collect();
    assert_eq!(
        seen,
        [
            (OrderState::Confirmed, None),
            (OrderState::Failed, Some(FailureReason::Duplicate)),
            (OrderState::Failed, Some(FailureReason::OverQuota)),
            (OrderState::Processing, None),
        ]
    );
    assert!(!known.contains_key(&unknown));
    assert!(super::statuses_of(&pg, &[]).await.unwrap().is_empty());
}
