use std::time::Duration;

use super::{
    Scene,
    scene::{SEQ, error_text, fingerprint, load_sale, order_id},
};
use crate::{
    Items, ProductId, Quantity,
    keys::{book_key, book_key_value, book_order, book_quota},
    link::CallError,
    sale::{Epoch, Seq},
    scripts::{Answer, RESERVE_BATCH, Reservation, Reserved, reserve},
};

const DEADLINE: Duration = Duration::from_secs(20);

/// The script hands all fields of a batch to one command, and Lua's stack is finite.
#[tokio::test]
async fn the_largest_batch_fits_and_a_larger_one_is_refused() {
    let scene = Scene::open().await;
    let lines = i64::try_from(Items::MAX_LINES).unwrap();
    let products: Vec<_> = (1..=lines).map(|id| (id, 1000, 2, 500)).collect();
    load_sale(&scene.link, &scene.keys, Epoch(8), &products).await;
    let one = |number: u16| {
        let line = |id| (ProductId::try_from(id).unwrap(), Quantity::try_from(1).unwrap());
        Reservation {
            id: order_id(scene.sale, number),
            user: format!("user-{number}").parse().unwrap(),
            key: "k".parse().unwrap(),
            fingerprint: fingerprint("$1"),
            items: Items::merge((1..=lines).map(line)).unwrap(),
            request_id: None,
        }
    };
    let orders: Vec<_> = (1..=129).map(one).collect();
    let call = async |orders: &[&Reservation]| {
        reserve(&scene.link, &scene.keys, Epoch(8), SEQ, i64::MAX, orders, DEADLINE).await
    };

    let before = scene.state().await;
    let answer = call(&orders.iter().collect::<Vec<_>>()).await;
    let Err(CallError::Refused(error)) = answer else { panic!("{answer:?}") };
    assert_eq!(error_text(&error), "error INVALID number of orders");
    assert_eq!(scene.state().await, before);

    let Reserved::Decided { seq, answers, .. } =
        call(&orders.iter().take(RESERVE_BATCH).collect::<Vec<_>>()).await.unwrap()
    else {
        panic!("in time")
    };
    assert_eq!((seq, answers), (Seq(132), vec![Answer::Admitted; RESERVE_BATCH]));
    let after = scene.state().await;
    let holds =
        |field: Vec<u8>, value: &str| after.contains(&format!("book {} {value}", scene.shown(&field)));
    for Reservation { id, user, key, items, .. } in &orders[..RESERVE_BATCH] {
        let value = book_key_value(*id, &fingerprint("$1"));
        assert!(holds(book_key(user, key), &scene.shown(&value)));
        assert!(holds(book_order(*id), "Qnow"));
        assert!(items.iter().all(|(product, _)| holds(book_quota(user, product), "1")));
    }
    for id in 1..=lines {
        assert!(after.contains(&format!("stock {id} 872")));
    }
}
