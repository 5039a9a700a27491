//! The second lock on the door: whatever Redis is made to believe, the record keeps the limits.

use super::{by_hand::*, *};
use crate::{FailureReason, Invariant, OrderState, keys::book_quota, sale::Epoch};

/// Drains, and says of each order how it ended.
async fn ended(shop: &Shop, orders: &[OrderId]) -> Vec<(OrderState, Option<FailureReason>)> {
    shop.drain().await;
    let mut ended = Vec::new();
    for id in orders {
        let status = shop.engine.order_status(*id).await.unwrap().unwrap();
        ended.push((status.state, status.failure));
    }
    ended
}

fn count(ended: &[(OrderState, Option<FailureReason>)], what: (OrderState, Option<FailureReason>)) -> usize {
    ended.iter().filter(|end| **end == what).count()
}

/// The audit blames this invariant alone; a keeper repairs it, as it was asked to, and the audit holds.
async fn assert_repaired(shop: &Shop, invariant: Invariant, words: &str) {
    let report = shop.audit().await;
    assert_eq!(super::audit::blamed(&report), [invariant], "{report:#?}");
    let check = report.checks.iter().find(|check| check.invariant == invariant).unwrap();
    assert!(check.violations[0].contains(words), "{check:?}");
    assert_eq!(shop.engine.operator().sale(shop.sale).await.unwrap().recover_requested, Epoch(1));
    shop.keeper().keep_once().await.unwrap();
    assert_eq!(epoch(shop).await, Epoch(2));
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_raised_by_hand_sells_no_unit_more() {
    let shop = Shop::open(&[(10, 3)]).await;
    let mut orders = Vec::new();
    for name in 0..5 {
        orders.push(admitted(shop.buy(&format!("u{name}"), "k", &[(0, 1)]).await));
    }
    shop.drain().await;
    let product = shop.products[0].to_string();
    let _: i64 = shop.redis(&["HSET", &shop.keys().stock, &product, "1000000"]).await;
    for name in 5..300 {
        orders.push(admitted(shop.buy(&format!("u{name}"), "k", &[(0, 1)]).await));
    }
    let ended = ended(&shop, &orders).await;
    assert_eq!(count(&ended, (OrderState::Confirmed, None)), 10);
    assert_eq!(count(&ended, (OrderState::Failed, Some(FailureReason::SoldOut))), 290);
    assert_eq!(recorded(&shop).await, [10]);
    // The excess units came back, which leaves what was written by hand, less the five that were sold.
    assert_eq!(shop.left(0).await, 999_995);
    assert_repaired(&shop, Invariant::I4, &format!("product {product}: 999995 left")).await;
    assert_eq!(shop.left(0).await, 0);
    let refused = shop.buy("late", "k", &[(0, 1)]).await.unwrap();
    assert!(matches!(refused, Admission::Refused(Refusal::SoldOut { left: 0, .. })), "{refused:?}");
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quota_lowered_by_hand_gives_no_unit_more() {
    let shop = Shop::open(&[(100, 3)]).await;
    let mut orders = vec![admitted(shop.buy("ann", "k", &[(0, 2)]).await)];
    shop.drain().await;
    let quota = book_quota(&user("ann"), shop.products[0]);
    let _: i64 = shop.book("HSET", &[&quota, b"-100"]).await;
    for key in 0..20 {
        orders.push(admitted(shop.buy("ann", &format!("k{key}"), &[(0, 1)]).await));
    }
    let ended = ended(&shop, &orders).await;
    assert_eq!(count(&ended, (OrderState::Confirmed, None)), 2);
    assert_eq!(count(&ended, (OrderState::Failed, Some(FailureReason::OverQuota))), 19);
    assert_eq!((recorded(&shop).await, shop.left(0).await), (vec![3], 97));
    let words = format!("user ann, product {}: quota in Redis says -99, orders hold 3", shop.products[0]);
    assert_repaired(&shop, Invariant::I8, &words).await;
    let refused = shop.buy("ann", "late", &[(0, 1)]).await.unwrap();
    assert!(matches!(refused, Admission::Refused(Refusal::OverQuota { held: 3, .. })), "{refused:?}");
    shop.assert_sound().await;
}
