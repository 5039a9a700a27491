//! What the database refuses, what is parked, and how an operator ends it.

use super::*;
use crate::{
    order::OrderState,
    queue::Entry,
    sql::dead_letters::{self, Resolution},
};

#[tokio::test]
async fn one_order_that_the_database_refuses_fails_alone() {
    let shop = Shop::open().await;
    shop.refuse("order_items").await;
    let users = ["ann", "bob", "evil", "cid", "dan", "eve", "evil"];
    let batch: Vec<_> = (1..).zip(users).map(|(seq, user)| shop.order(seq, user, "a", &[(1, 1)])).collect();
    let outcome = shop.record(&batch).await;
    let evil = &batch[2].order;
    let expected = [
        Verdict::Confirmed,
        Verdict::Confirmed,
        failed(FailureReason::Rejected),
        Verdict::Confirmed,
        Verdict::Confirmed,
        Verdict::Confirmed,
        Verdict::Failed { reason: FailureReason::Duplicate, key_holder: Some((evil.id, evil.fingerprint)) },
    ];
    assert_eq!(outcome, expected);
    assert_eq!(shop.record(&batch).await, expected);
    assert_eq!(shop.sold().await, [5, 0]);
    shop.audit().await;
}

#[tokio::test]
async fn an_order_that_cannot_even_fail_is_parked() {
    let shop = Shop::open().await;
    shop.refuse("orders").await;
    let batch = [
        shop.order(1, "ann", "a", &[(1, 1)]),
        shop.order(2, "evil", "a", &[(1, 1)]),
        shop.order(3, "bob", "a", &[(1, 1)]),
    ];
    let expected = [Verdict::Confirmed, Verdict::Parked, Verdict::Confirmed];
    assert_eq!(shop.record(&batch).await, expected);
    assert_eq!(shop.record(&batch).await, expected);
    let letters = dead_letters::list(&shop.pg).await.unwrap();
    let [letter] = &letters[..] else { panic!("one letter: {letters:?}") };
    assert_eq!((letter.order, &letter.entry), (Some(batch[1].order.id), &batch[1].entry));
    assert!(letter.reason.contains("not for this user"), "{}", letter.reason);
    let parked = batch[1].order.id;
    assert_eq!(sql::statuses_of(&shop.pg, &[parked]).await.unwrap()[&parked].state, OrderState::Processing);

    // Refused still: it stays parked. Without the trigger it ends.
    let end = |how| shop.ledger.end_parked(shop.sale, Epoch(1), letter.id, &batch[1].order, how, "ann");
    assert_eq!(end(Resolution::Replayed).await.unwrap(), Some(Verdict::Parked));
    assert_eq!(dead_letters::unfinished(&shop.pg).await.unwrap().len(), 0);
    sqlx::raw_sql("DROP TRIGGER refuse ON orders").execute(&shop.pg).await.unwrap();
    assert_eq!(end(Resolution::Replayed).await.unwrap(), Some(Verdict::Confirmed));
    // The first ending stands, also after the letter is gone.
    assert_eq!(end(Resolution::Discarded).await.unwrap(), Some(Verdict::Confirmed));
    let unfinished = dead_letters::unfinished(&shop.pg).await.unwrap();
    assert_eq!(unfinished[0].resolved, Some(Resolution::Replayed));
    dead_letters::finish_dead_letter(&shop.pg, letter.id).await.unwrap();
    assert_eq!(end(Resolution::Discarded).await.unwrap(), Some(Verdict::Confirmed));
    assert_eq!(shop.sold().await, [3, 0]);
    shop.audit().await;
}

#[tokio::test]
async fn a_value_that_the_database_cannot_hold_is_parked() {
    let shop = Shop::open().await;
    let mut early = shop.order(1, "ann", "a", &[(1, 1)]);
    // Before PostgreSQL's calendar begins.
    early.order.admitted_at = DateTime::from_timestamp_millis(-300_000_000_000_000).unwrap();
    let batch = [early, shop.order(2, "bob", "a", &[(1, 1)])];
    assert_eq!(shop.record(&batch).await, [Verdict::Parked, Verdict::Confirmed]);
    shop.audit().await;
}

#[tokio::test]
async fn a_discarded_order_fails_and_keeps_its_units_out() {
    let shop = Shop::open().await;
    let parked = shop.order(1, "ann", "a", &[(1, 1)]);
    assert_eq!(
        shop.ledger.park(shop.sale, Epoch(1), &parked.entry, "nul\0s").await.unwrap(),
        Verdict::Parked
    );
    let letter = dead_letters::list(&shop.pg).await.unwrap().remove(0);
    assert_eq!(letter.reason, "nuls");
    assert!(letter.parked_at <= Utc::now() && letter.sale == shop.sale);
    let end =
        |id| shop.ledger.end_parked(shop.sale, Epoch(1), id, &parked.order, Resolution::Discarded, "ann");
    assert_eq!(end(letter.id + 1).await.unwrap(), None);
    assert_eq!(end(letter.id).await.unwrap(), Some(failed(FailureReason::Discarded)));
    // The entry that comes again is settled, not parked.
    let again = shop.ledger.park(shop.sale, Epoch(1), &parked.entry, "again").await.unwrap();
    assert_eq!(again, failed(FailureReason::Discarded));
    assert_eq!(shop.sold().await, [0, 0]);
    let order = sql::history::order(&shop.pg, parked.order.id).await.unwrap().unwrap();
    assert_eq!((order.lines.len(), order.failure), (1, Some(FailureReason::Discarded)));
}

#[tokio::test]
async fn garbage_is_parked_once_and_stays_discarded() {
    let shop = Shop::open().await;
    let other_sale = OrderId::new(SaleId::try_from(7).unwrap()).to_string();
    let garbage = [
        Entry { id: "1-0".to_owned(), fields: vec![b"\0\xff".to_vec(), b"x".to_vec()] },
        Entry { id: "2-0".to_owned(), fields: vec![b"order".to_vec(), other_sale.into_bytes()] },
        Entry { id: "2-0".to_owned(), fields: vec![] },
    ];
    let park = || async {
        for entry in &garbage {
            let verdict = shop.ledger.park(shop.sale, Epoch(1), entry, "garbage").await.unwrap();
            assert_eq!(verdict, Verdict::Parked);
        }
        dead_letters::list(&shop.pg).await.unwrap()
    };
    let letters = park().await;
    assert_eq!(
        letters.iter().map(|letter| &letter.entry).collect::<Vec<_>>(),
        garbage.iter().collect::<Vec<_>>()
    );
    assert!(letters.iter().all(|letter| letter.order.is_none()));
    assert!(dead_letters::discard_garbage(&shop.pg, letters[0].id, "ann").await.unwrap());
    let resolved: Vec<_> = park().await.iter().map(|letter| letter.resolved).collect();
    assert_eq!(resolved, [Some(Resolution::Discarded), None, None]);
}
