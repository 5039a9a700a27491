//! Carts: what may be put in, what leaves them, and that they reserve nothing.

use super::{by_hand::*, *};
use crate::{Cart, CartChange, Currency, FailureReason, OrderState, SaleState, keys};

async fn set(shop: &Shop, name: &str, product: ProductId, units: i64) -> crate::Result<CartChange> {
    shop.engine.set_in_cart(&user(name), product, Quantity::try_from(units).unwrap()).await
}

async fn put(shop: &Shop, name: &str, product: ProductId, units: i64) -> Cart {
    match set(shop, name, product, units).await {
        Ok(CartChange::Updated(cart)) => cart,
        other => panic!("not put in: {other:?}"),
    }
}

async fn refused(shop: &Shop, name: &str, product: ProductId, units: i64) -> Refusal {
    match set(shop, name, product, units).await {
        Ok(CartChange::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// Product and units of a cart.
fn lines(cart: &Cart) -> Vec<(ProductId, u32)> {
    cart.lines.iter().map(|line| (line.product, line.quantity)).collect()
}

async fn in_cart(shop: &Shop, name: &str) -> Vec<(ProductId, u32)> {
    lines(&shop.engine.cart(&user(name)).await.unwrap())
}

/// The fields of a cart in Redis.
async fn kept(shop: &Shop, name: &str) -> Vec<String> {
    let mut fields: Vec<String> = shop.redis(&["HKEYS", &keys::cart(&user(name))]).await;
    fields.sort();
    fields
}

async fn ttl_ms(shop: &Shop, name: &str) -> i64 {
    shop.redis(&["PTTL", &keys::cart(&user(name))]).await
}

/// Names of buyers whom no other shop on the shared Redis has.
fn named(shop: &Shop, name: &str) -> String {
    format!("{name}-{}", shop.sale)
}

/// One more sale in the same shop, loaded.
async fn another_sale(shop: &Shop, slug: &str, currency: &str, products: &[(u32, u32)]) -> Vec<ProductId> {
    let currency: Currency = currency.parse().unwrap();
    let mut sale = NewSale { slug: slug.to_owned(), currency, ..new_sale(products) };
    for product in &mut sale.products {
        product.original_price = Money::from_minor(2_000, currency);
        product.sale_price = Money::from_minor(1_000, currency);
    }
    let operator = shop.engine.operator();
    let Created::New(id) = operator.create_sale(&sale).await.unwrap() else { panic!("a new sale") };
    shop.stores().catalog.refresh().await.unwrap();
    shop.keeper().keep_once().await.unwrap();
    operator.sale(id).await.unwrap().products.iter().map(|product| product.id).collect()
}

async fn set_window(shop: &Shop, from_hours: i32, to_hours: i32) {
    let window = "UPDATE sales SET starts_at = now() + $1 * interval '1 hour',
                  ends_at = now() + $2 * interval '1 hour'";
    let query = sqlx::query(window).bind(from_hours).bind(to_hours);
    query.execute(&shop.stores().pg).await.unwrap();
    shop.stores().catalog.refresh().await.unwrap();
    shop.keeper().keep_once().await.unwrap();
}

async fn set_state(shop: &Shop, state: SaleState) {
    shop.engine.operator().set_state(shop.sale, state).await.unwrap();
    shop.stores().catalog.refresh().await.unwrap();
    shop.keeper().keep_once().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_is_the_same_everywhere_and_reserves_nothing() {
    let shop = Shop::open(&[(10, 3), (5, 1)]).await;
    let ann = &named(&shop, "ann");
    let (first, second) = (shop.products[0], shop.products[1]);
    let empty = shop.engine.cart(&user(ann)).await.unwrap();
    assert_eq!((lines(&empty), empty.total), (vec![], None));

    put(&shop, ann, second, 1).await;
    put(&shop, ann, first, 1).await;
    let cart = put(&shop, ann, first, 2).await;
    assert_eq!(cart.user, user(ann));
    assert_eq!(lines(&cart), [(first, 2), (second, 1)], "set, not added, and in the products' order");
    let line = &cart.lines[0];
    assert_eq!(
        (&*line.product_name, line.unit_price.minor, line.line_total.minor),
        ("Product 0", 24_999, 49_998)
    );
    assert_eq!(cart.total.map(|total| total.to_string()), Some("749.97".to_owned()));
    assert_eq!(shop.another().await.cart(&user(ann)).await.unwrap(), cart);
    assert_eq!(in_cart(&shop, &named(&shop, "bob")).await, []);
    assert_eq!((shop.left(0).await, shop.left(1).await), (10, 5), "nothing is reserved");

    for _ in 0..2 {
        shop.engine.remove_from_cart(&user(ann), first).await.unwrap();
        assert_eq!(in_cart(&shop, ann).await, [(second, 1)]);
    }
    for _ in 0..2 {
        shop.engine.clear_cart(&user(ann)).await.unwrap();
        assert_eq!(in_cart(&shop, ann).await, []);
    }
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_lives_two_hours_from_its_last_change() {
    let shop = Shop::open(&[(10, 3), (5, 1)]).await;
    let (ann, key) = (&named(&shop, "ann"), &keys::cart(&user(&named(&shop, "ann"))));
    let two_hours = 7_200_000;
    let shorten = async || {
        let _: i64 = shop.redis(&["PEXPIRE", key, "60000"]).await;
    };
    let is_fresh = async || (two_hours - 60_000..=two_hours).contains(&ttl_ms(&shop, ann).await);
    put(&shop, ann, shop.products[0], 1).await;
    assert!(is_fresh().await);
    shorten().await;
    in_cart(&shop, ann).await;
    assert!(!is_fresh().await, "reading does not prolong it");
    put(&shop, ann, shop.products[1], 1).await;
    assert!(is_fresh().await);
    shorten().await;
    shop.engine.remove_from_cart(&user(ann), shop.products[1]).await.unwrap();
    assert!(is_fresh().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_on_sale_now_gets_in() {
    let shop = Shop::open(&[(10, 3)]).await;
    let (ann, product) = (&named(&shop, "ann"), shop.products[0]);
    let unknown = ProductId::try_from(i64::MAX).unwrap();
    assert_eq!(refused(&shop, ann, unknown, 1).await, Refusal::UnknownProduct(unknown));
    assert_eq!(refused(&shop, ann, product, 11).await, Refusal::SoldOut { product, left: 10 });
    put(&shop, ann, product, 10).await;

    let stock = shop.keys().stock;
    let _: i64 = shop.redis(&["HSET", &stock, &product.to_string(), "-3"]).await;
    assert_eq!(refused(&shop, ann, product, 1).await, Refusal::SoldOut { product, left: 0 });
    let _: i64 = shop.redis(&["HDEL", &stock, &product.to_string()]).await;
    let error = set(&shop, ann, product, 1).await.unwrap_err();
    assert!(error.is_fenced(), "stock that is lost is not none: {error}");
    let _: i64 = shop.redis(&["HSET", &stock, &product.to_string(), "10"]).await;

    set_state(&shop, SaleState::Paused).await;
    assert_eq!(refused(&shop, ann, product, 1).await, Refusal::Paused);
    assert_eq!(in_cart(&shop, ann).await, [(product, 10)], "a pause ends");
    set_state(&shop, SaleState::Open).await;
    set_window(&shop, 1, 2).await;
    assert_eq!(refused(&shop, ann, product, 1).await, Refusal::NotStarted);
    set_window(&shop, -2, -1).await;
    assert_eq!(refused(&shop, ann, product, 1).await, Refusal::Ended);
    set_window(&shop, -2, 1).await;
    set_state(&shop, SaleState::Closed).await;
    assert_eq!(refused(&shop, ann, product, 1).await, Refusal::Ended);
    sql(&shop, "UPDATE sales SET purged_at = now()").await;
    shop.stores().catalog.refresh().await.unwrap();
    assert_eq!(refused(&shop, ann, product, 1).await, Refusal::Ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_sale_fills_no_cart_and_keeps_what_is_in_it() {
    let shop = Shop::open(&[(10, 3)]).await;
    let (ann, product) = (&named(&shop, "ann"), shop.products[0]);
    put(&shop, ann, product, 1).await;
    lose_everything(&shop).await;
    let error = set(&shop, ann, product, 2).await.unwrap_err();
    assert!(error.is_fenced(), "{error}");
    assert_eq!(in_cart(&shop, ann).await, [(product, 1)]);
    kept_open(&shop).await;
    put(&shop, ann, product, 2).await;
    shop.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_leaves_the_cart_when_it_is_read() {
    let shop = Shop::open(&[(10, 3)]).await;
    let stays = another_sale(&shop, "stays", "USD", &[(10, 3)]).await[0];
    let ended = shop.products[0];
    let (ann, bob) = (&named(&shop, "ann"), &named(&shop, "bob"));
    let end: [(&str, &'static str); 3] = [
        ("ended", "UPDATE sales SET ends_at = now() - interval '1 second' WHERE slug = 'test'"),
        (
            "closed",
            "UPDATE sales SET ends_at = now() + interval '1 hour', state = 'closed' WHERE slug = 'test'",
        ),
        ("purged", "UPDATE sales SET state = 'open', purged_at = now() WHERE slug = 'test'"),
    ];
    for name in [ann, bob] {
        put(&shop, name, ended, 2).await;
        put(&shop, name, stays, 1).await;
    }
    let (key, line) = (keys::cart(&user(ann)), ended.to_string());
    for (how, statement) in end {
        let _: i64 =
            shop.redis(&["HSET", &key, &line, "2:USD", "garbage", "1", "9223372036854775807", "1:USD"]).await;
        let _: i64 = shop.redis(&["HSET", &key, &stays.to_string(), "1:USD"]).await;
        let _: i64 = shop.redis(&["PEXPIRE", &key, "60000"]).await;
        sql(&shop, statement).await;
        shop.stores().catalog.refresh().await.unwrap();
        assert_eq!(in_cart(&shop, ann).await, [(stays, 1)], "{how}");
        assert_eq!(kept(&shop, ann).await, [stays.to_string()], "{how}");
        assert!(ttl_ms(&shop, ann).await <= 60_000, "reading does not prolong it");
    }
    // A change shows it no more than reading does.
    assert_eq!(lines(&put(&shop, bob, stays, 2).await), [(stays, 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_amount_that_does_not_fit_takes_nothing_out() {
    let shop = Shop::open(&[(10, 3), (10, 3)]).await;
    let (ann, dear) = (&named(&shop, "ann"), shop.products[1]);
    put(&shop, ann, dear, 2).await;
    let price =
        sqlx::query("UPDATE products SET sale_price = $1 WHERE id = $2").bind(i64::MAX).bind(dear.get());
    price.execute(&shop.stores().pg).await.unwrap();
    shop.stores().catalog.refresh().await.unwrap();
    let error = shop.engine.cart(&user(ann)).await.unwrap_err();
    assert!(!error.to_string().contains(ann.as_str()), "nobody is named: {error}");
    assert_eq!(kept(&shop, ann).await, [dear.to_string()]);
    shop.engine.remove_from_cart(&user(ann), dear).await.unwrap();
    assert_eq!(in_cart(&shop, ann).await, []);
}

/// Two processes do not hear of a new sale at the same moment: the later one must not empty the cart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_that_this_process_has_not_heard_of_stays() {
    let shop = Shop::open(&[(10, 3)]).await;
    let late = shop.another().await;
    let ann = &named(&shop, "ann");
    // Its catalogue stands still: it has lost PostgreSQL.
    late.stores().pg.close().await;
    let product = another_sale(&shop, "new", "USD", &[(10, 3)]).await[0];
    put(&shop, ann, product, 1).await;
    put(&shop, ann, shop.products[0], 1).await;
    assert_eq!(lines(&late.cart(&user(ann)).await.unwrap()), [(shop.products[0], 1)]);
    assert_eq!(in_cart(&shop, ann).await, [(shop.products[0], 1), (product, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_has_one_currency_and_as_many_products_as_an_order() {
    let shop = Shop::open(&[(10, 3); 20]).await;
    let euro = another_sale(&shop, "euro", "EUR", &[(10, 3)]).await[0];
    let dollar = another_sale(&shop, "dollar", "USD", &[(10, 3)]).await[0];
    let ann = &named(&shop, "ann");
    put(&shop, ann, shop.products[0], 1).await;
    assert_eq!(refused(&shop, ann, euro, 1).await, Refusal::ItemsSpanSales);
    // Of another sale, but the total is still one number.
    let cart = put(&shop, ann, dollar, 1).await;
    assert_eq!(cart.total.map(|total| total.minor), Some(24_999 + 1_000));
    for product in &shop.products[1..19] {
        put(&shop, ann, *product, 1).await;
    }
    assert_eq!(set(&shop, ann, shop.products[19], 1).await.unwrap(), CartChange::Full);
    put(&shop, ann, dollar, 2).await;

    // What is over is not in the way of either.
    sql(&shop, "UPDATE sales SET ends_at = now() - interval '1 second' WHERE slug = 'test'").await;
    sql(&shop, "UPDATE sales SET ends_at = now() - interval '1 second' WHERE slug = 'dollar'").await;
    shop.stores().catalog.refresh().await.unwrap();
    let cart = put(&shop, ann, euro, 1).await;
    assert_eq!(
        (lines(&cart), cart.total.map(|total| total.to_string())),
        (vec![(euro, 1)], Some("10.00".to_owned()))
    );
}

/// Buyers put both products in, and order the first.
async fn carts_and_orders(shop: &Shop, names: &[&str]) -> Vec<OrderId> {
    let mut orders = Vec::new();
    for name in names {
        put(shop, name, shop.products[0], 1).await;
        put(shop, name, shop.products[1], 1).await;
        let _: i64 = shop.redis(&["PEXPIRE", &keys::cart(&user(name)), "60000"]).await;
        orders.push(admitted(shop.buy(name, "k", &[(0, 1)]).await));
    }
    orders
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmed_order_takes_its_products_out_and_only_those() {
    let shop = Shop::open(&[(10, 5), (10, 5)]).await;
    let (ann, unlucky, hurt, parked) =
        (&*named(&shop, "ann"), &*named(&shop, "unlucky"), &*named(&shop, "hurt"), &*named(&shop, "parked"));
    test_support::refuse_user(&shop.stores().pg, unlucky).await;
    let both = [(shop.products[0], 1), (shop.products[1], 1)];
    let orders = carts_and_orders(&shop, &[ann, unlucky]).await;
    // A cart that is damaged stops nobody's order.
    let _: String = shop.redis(&["SET", &keys::cart(&user(hurt)), "x"]).await;
    let damaged = admitted(shop.buy(hurt, "k", &[(0, 1)]).await);
    assert_eq!(in_cart(&shop, ann).await, both, "not before it is confirmed");
    shop.drain().await;
    assert_eq!(state(&shop, orders[0]).await, OrderState::Confirmed);
    assert_eq!(in_cart(&shop, ann).await, both[1..]);
    assert!(ttl_ms(&shop, ann).await <= 60_000, "an order does not prolong it");
    assert_eq!(state(&shop, orders[1]).await, OrderState::Failed);
    assert_eq!(in_cart(&shop, unlucky).await, both);
    assert_eq!(state(&shop, damaged).await, OrderState::Confirmed);
    // It is an empty one, and gives way to the next change.
    assert_eq!(in_cart(&shop, hurt).await, []);
    shop.engine.remove_from_cart(&user(hurt), shop.products[0]).await.unwrap();
    assert_eq!(lines(&put(&shop, hurt, shop.products[0], 1).await), both[..1]);

    // A parked order leaves it alone until it is replayed.
    put(&shop, parked, shop.products[0], 1).await;
    put(&shop, parked, shop.products[1], 1).await;
    let order = parked_order(&shop, parked).await;
    assert_eq!(
        (state(&shop, order).await, in_cart(&shop, parked).await),
        (OrderState::Processing, both.to_vec())
    );
    let letter = shop.engine.operator().dead_letters().await.unwrap()[0].id;
    shop.engine.operator().replay(letter).await.unwrap();
    assert_eq!(
        (state(&shop, order).await, in_cart(&shop, parked).await),
        (OrderState::Confirmed, both[1..].to_vec())
    );
    shop.assert_sound().await;
}

/// A second order under one key can only come from a Redis that forgot the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_leaves_the_cart_alone() {
    let shop = Shop::open(&[(10, 5), (10, 5)]).await;
    let ann = &*named(&shop, "ann");
    carts_and_orders(&shop, &[ann]).await;
    shop.drain().await;
    put(&shop, ann, shop.products[0], 1).await;
    let field = keys::book_key(&user(ann), &key("k"));
    let _: i64 = shop.book("HDEL", &[&field]).await;
    let again = admitted(shop.buy(ann, "k", &[(0, 1)]).await);
    shop.drain().await;
    let status = shop.engine.order_status(again).await.unwrap().unwrap();
    assert_eq!(status.failure, Some(FailureReason::Duplicate));
    assert_eq!(in_cart(&shop, ann).await.len(), 2);
    shop.assert_sound().await;
}

/// Who sees an order as confirmed finds the cart without its products, whoever died in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drainer_that_dies_leaves_no_bought_product_in_a_cart() {
    for (dies_after, recovered) in [("record", false), ("record", true), ("carts", false)] {
        let shop = Shop::open(&[(10, 5), (10, 5)]).await;
        let ann = &*named(&shop, "ann");
        let order = carts_and_orders(&shop, &[ann]).await[0];
        let mut drainer = shop.engine.drainer();
        let entries = drainer.read(shop.sale).await.unwrap();
        let mut batch = drainer.begin(shop.sale, entries).await.unwrap();
        drainer.record(shop.sale, &mut batch).await.unwrap();
        if dies_after == "carts" {
            drainer.take_from_carts(&batch).await.unwrap();
        }
        drop((drainer, batch));
        assert_ne!(state(&shop, order).await, OrderState::Confirmed);
        if recovered {
            // Redis is told by the load that the order is confirmed; its entry is still queued.
            shop.engine.operator().recover(shop.sale, |_| {}).await.unwrap();
        }
        let mut impatient = shop.stores().config.clone();
        impatient.claim_idle = Duration::from_millis(50);
        let other = Engine::connect(impatient).await.unwrap();
        until("another drainer takes over", || async {
            other.drainer().drain_once(shop.sale).await.unwrap();
            state(&shop, order).await == OrderState::Confirmed
                && in_cart(&shop, ann).await == [(shop.products[1], 1)]
        })
        .await;
        shop.assert_sound().await;
    }
}
