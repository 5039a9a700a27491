//! Reserving through the engine: concurrency, quota, keys, windows.

use std::collections::HashSet;

use tokio::task::JoinSet;

use super::*;
use crate::OrderState;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_order_goes_all_the_way() {
    let shop = Shop::open(&[(10, 3)]).await;
    let id = admitted(shop.buy("ann", "k1", &[(0, 2)]).await);
    assert_eq!(shop.left(0).await, 8);
    assert_eq!(shop.engine.order_status(id).await.unwrap().unwrap().state, OrderState::Queued);
    shop.drain().await;
    assert_eq!(shop.engine.order_status(id).await.unwrap().unwrap().state, OrderState::Confirmed);
    let recorded = shop.engine.orders_of(&user("ann"), 10, None).await.unwrap();
    assert_eq!(recorded.len(), 1);
    assert_eq!(recorded[0].total.to_string(), "499.98");
    assert_eq!(
        (recorded[0].lines[0].quantity, recorded[0].lines[0].unit_price.to_string()),
        (2, "249.99".to_owned())
    );
    shop.assert_sound().await;
}

/// Takes orders by many tasks at once and returns every answer with the (user, key) that asked.
async fn herd(
    shop: &Shop,
    tasks: usize,
    each: usize,
    ask: impl Fn(usize, usize) -> (String, String, Vec<(usize, u32)>),
) -> Vec<(String, String, Admission)> {
    let mut set = JoinSet::new();
    for task in 0..tasks {
        for turn in 0..each {
            let (user, key, lines) = ask(task, turn);
            let request = shop.request(&user, &key, &lines);
            let engine = shop.engine.clone();
            set.spawn(async move { (user, key, engine.reserve(request).await.expect("an answer")) });
        }
    }
    set.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_tasks_on_a_stock_of_hundred_get_exactly_hundred_and_each_its_own_answer() {
    let shop = Shop::open(&[(100, 5)]).await;
    let answers =
        herd(&shop, 64, 20, |task, turn| (format!("u{task}-{turn}"), "k".to_owned(), vec![(0, 1)])).await;
    let admitted: Vec<_> =
        answers.iter().filter(|(.., answer)| matches!(answer, Admission::Admitted(_))).collect();
    assert_eq!(admitted.len(), 100);
    assert!(answers.iter().all(|(.., answer)| match answer {
        Admission::Admitted(_) => true,
        Admission::Refused(Refusal::SoldOut { left, .. }) => *left == 0,
        _ => false,
    }));
    assert_eq!(shop.left(0).await, 0);
    shop.drain().await;
    // Answers of a batch must not be mixed up: the id that a caller got is the order of that caller.
    for (name, key, answer) in admitted {
        let order = shop.engine.operator().order(answer.order_id().unwrap()).await.unwrap();
        assert_eq!((order.user.as_str(), order.key.unwrap().as_str()), (name.as_str(), key.as_str()));
        assert_eq!(order.state, OrderState::Confirmed);
    }
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_with_two_hundred_orders_at_once_gets_no_more_than_the_limit() {
    let shop = Shop::open(&[(1_000, 3)]).await;
    let answers =
        herd(&shop, 200, 1, |task, _| ("greedy".to_owned(), format!("k{task}"), vec![(0, 1)])).await;
    let count = |wanted: fn(&Admission) -> bool| answers.iter().filter(|(.., answer)| wanted(answer)).count();
    assert_eq!(count(|answer| matches!(answer, Admission::Admitted(_))), 3);
    assert_eq!(
        count(|answer| matches!(answer, Admission::Refused(Refusal::OverQuota { limit: 3, held: 3, .. }))),
        197
    );
    assert_eq!(shop.left(0).await, 997);
    shop.drain().await;
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_two_hundred_times_at_once_is_one_order() {
    let shop = Shop::open(&[(1_000, 3)]).await;
    let answers = herd(&shop, 200, 1, |_, _| ("ann".to_owned(), "once".to_owned(), vec![(0, 2)])).await;
    let ids: HashSet<_> = answers.iter().map(|(.., answer)| answer.order_id().expect("an order")).collect();
    assert_eq!(ids.len(), 1);
    let first = answers.iter().filter(|(.., answer)| matches!(answer, Admission::Admitted(_))).count();
    assert_eq!(first, 1, "one admission, and replays of it");
    assert_eq!(shop.left(0).await, 998);
    let other = shop.buy("ann", "once", &[(0, 1)]).await.unwrap();
    assert_eq!(other, Admission::Refused(Refusal::KeyReused));
    assert!(
        admitted(shop.buy("bob", "once", &[(0, 1)]).await) != *ids.iter().next().unwrap(),
        "a key is its user's"
    );
    shop.drain().await;
    // A repeat of a final order is still the same order, also when the stock is gone.
    let again = shop.buy("ann", "once", &[(0, 2)]).await.unwrap();
    assert_eq!(again, Admission::Replayed(*ids.iter().next().unwrap()));
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_lines_of_one_product_are_one() {
    let shop = Shop::open(&[(1_000, 3)]).await;
    let refused = shop.buy("ann", "k1", &[(0, 2), (0, 2)]).await.unwrap();
    assert!(
        matches!(refused, Admission::Refused(Refusal::OverQuota { limit: 3, held: 0, .. })),
        "{refused:?}"
    );
    let id = admitted(shop.buy("ann", "k1", &[(0, 2), (0, 1)]).await);
    // The fingerprint is of the request, not of its bytes.
    assert_eq!(shop.buy("ann", "k1", &[(0, 3)]).await.unwrap(), Admission::Replayed(id));
    shop.drain().await;
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_with_several_items_is_all_or_nothing() {
    let shop = Shop::open(&[(10, 5), (1, 5)]).await;
    let refused = shop.buy("ann", "k1", &[(0, 2), (1, 2)]).await.unwrap();
    assert!(matches!(refused, Admission::Refused(Refusal::SoldOut { left: 1, .. })), "{refused:?}");
    assert_eq!((shop.left(0).await, shop.left(1).await), (10, 1));
    // The refusal left nothing behind: the same key may ask for something else.
    admitted(shop.buy("ann", "k1", &[(0, 2), (1, 1)]).await);
    assert_eq!((shop.left(0).await, shop.left(1).await), (8, 0));
    shop.drain().await;
    shop.assert_sound().await;
}

/// A sold-out answer ends by itself when stock comes back, and never hides a repeat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sold_out_is_not_for_ever() {
    let shop = Shop::open(&[(1, 1)]).await;
    let id = admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    let sold_out = shop.buy("bob", "k", &[(0, 1)]).await.unwrap();
    assert!(matches!(sold_out, Admission::Refused(Refusal::SoldOut { left: 0, .. })), "{sold_out:?}");
    assert_eq!(shop.buy("ann", "k", &[(0, 1)]).await.unwrap(), Admission::Replayed(id));
    // The record refuses Ann's order by a rule of its own, so her unit comes back.
    test_support::refuse_user(&shop.stores().pg, "ann").await;
    shop.drain().await;
    assert_eq!(shop.engine.order_status(id).await.unwrap().unwrap().state, OrderState::Failed);
    assert_eq!(shop.left(0).await, 1);
    admitted(shop.buy("bob", "k", &[(0, 1)]).await);
    shop.drain().await;
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn products_are_known_and_belong_to_one_sale() {
    let shop = Shop::open(&[(10, 5)]).await;
    let mut second = new_sale(&[(10, 5)]);
    second.slug = "second".to_owned();
    let Created::New(second) = shop.engine.operator().create_sale(&second).await.unwrap() else {
        panic!("new")
    };
    shop.keeper().keep_once().await.unwrap();
    let other = shop.engine.operator().sale(second).await.unwrap().products[0].id;
    let ask = |products: Vec<ProductId>| {
        let one = Quantity::try_from(1).unwrap();
        let items = Items::merge(products.into_iter().map(|product| (product, one))).unwrap();
        shop.engine.reserve(OrderRequest { user: user("ann"), key: key("k"), items, request_id: None })
    };
    let nobodys = ProductId::try_from(999_999).unwrap();
    let unknown = ask(vec![shop.products[0], nobodys]).await.unwrap();
    assert_eq!(unknown, Admission::Refused(Refusal::UnknownProduct(nobodys)));
    let spanning = ask(vec![shop.products[0], other]).await.unwrap();
    assert_eq!(spanning, Admission::Refused(Refusal::ItemsSpanSales));
    assert_eq!(shop.left(0).await, 10);
    shop.assert_sound().await;
}

/// A caller that goes away cancels nothing and shifts no answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_hang_up_do_not_disturb_the_others() {
    let shop = Shop::open(&[(1_000, 1)]).await;
    let mut staying = JoinSet::new();
    for n in 0..400 {
        let (engine, name) = (shop.engine.clone(), format!("u{n}"));
        let request = shop.request(&name, "k", &[(0, 1)]);
        let asking = tokio::spawn(async move { (name, engine.reserve(request).await) });
        if n % 2 == 0 {
            asking.abort();
        } else {
            staying.spawn(asking);
        }
    }
    let answers: Vec<_> = staying.join_all().await.into_iter().map(Result::unwrap).collect();
    shop.drain().await;
    for (name, answer) in answers {
        let order = shop.engine.operator().order(admitted(answer)).await.unwrap();
        assert_eq!(order.user.as_str(), name);
    }
    shop.assert_sound().await;
}

/// The window is judged by Redis's clock, in the script.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_its_window_a_sale_sells_nothing() {
    for (from, to, refusal) in [(1, 2, Refusal::NotStarted), (-2, -1, Refusal::Ended)] {
        let shop = Shop::unloaded(&[(10, 5)]).await;
        let window = "UPDATE sales SET starts_at = now() + $1 * interval '1 hour', ends_at = now() + $2 * interval '1 hour'";
        sqlx::query(window).bind(from).bind(to).execute(&shop.stores().pg).await.unwrap();
        shop.keeper().keep_once().await.unwrap();
        assert_eq!(shop.buy("ann", "k", &[(0, 1)]).await.unwrap(), Admission::Refused(refusal));
        assert!(shop.engine.active_products().await.unwrap().is_empty());
        shop.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rate_limit_is_shared_by_all_processes() {
    let shop = Shop::open(&[(10, 5)]).await;
    let second = shop.another().await;
    let address: std::net::IpAddr =
        format!("10.9.{}.{}", shop.sale.get() >> 8 & 255, shop.sale.get() & 255).parse().unwrap();
    let limit = crate::RateLimit { requests: 10, window: Duration::from_secs(30) };
    let mut allowed = 0;
    for engine in [&shop.engine, &second].into_iter().cycle().take(30) {
        match engine.rate_limit(address, limit).await.unwrap() {
            crate::RateDecision::Allowed => allowed += 1,
            crate::RateDecision::Limited { retry_after } => {
                assert!(retry_after <= limit.window && !retry_after.is_zero());
            }
        }
    }
    assert_eq!(allowed, 10);
}

/// A quota, a key or a state that ended in mid-sale would let a buyer in twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_sale_expires() {
    let shop = Shop::open(&[(10, 5)]).await;
    admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    shop.drain().await;
    admitted(shop.buy("bob", "k", &[(0, 1)]).await);
    for key in shop.keys().all() {
        assert_eq!(shop.redis::<i64>(&["TTL", key]).await, -1, "{key}");
    }
    shop.drain().await;
    shop.assert_sound().await;
}

/// The hot path asks PostgreSQL nothing: the sale goes on while it is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admission_does_without_postgres() {
    let shop = Shop::open(&[(10, 5), (10, 5)]).await;
    let cut_off = shop.another().await;
    cut_off.stores().pg.close().await;
    admitted(cut_off.reserve(shop.request("ann", "k", &[(0, 1), (1, 2)])).await);
    let (replayed, refused) =
        (shop.request("ann", "k", &[(0, 1), (1, 2)]), shop.request("ann", "k2", &[(0, 5)]));
    assert!(matches!(cut_off.reserve(replayed).await, Ok(Admission::Replayed(_))));
    assert!(matches!(cut_off.reserve(refused).await, Ok(Admission::Refused(Refusal::OverQuota { .. }))));
    shop.drain().await;
    shop.assert_sound().await;
}
