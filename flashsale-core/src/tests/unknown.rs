//! When the outcome is not known the caller is told so, and repeating with the same key tells (P10).

use super::{
    proxy::{Mode, Proxy},
    *,
};

/// A shop, and an engine that reaches Redis only through the proxy.
async fn behind_proxy(products: &[(u32, u32)]) -> (Shop, Engine, Proxy) {
    let shop = Shop::open(products).await;
    let target =
        shop.stores().config.redis.url().trim_start_matches("redis://").trim_end_matches('/').to_owned();
    let proxy = Proxy::start(target).await;
    let mut config = shop.stores().config.clone();
    config.redis = format!("redis://{}/", proxy.address).into();
    config.lanes = 1;
    let engine = Engine::connect(config).await.unwrap();
    (shop, engine, proxy)
}

/// The answer to the first sending is lost. The second one carries the same order id, so the caller is
/// told what happened and the order exists once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_asked_for_again_under_the_same_order_id() {
    let (shop, engine, proxy) = behind_proxy(&[(10, 5)]).await;
    // The connection stands and its clock is read.
    admitted(engine.reserve(shop.request("ann", "warm-up", &[(0, 1)])).await);
    proxy.set(Mode::CutReply);
    let asking = tokio::spawn({
        let (engine, request) = (engine.clone(), shop.request("bob", "k", &[(0, 1)]));
        async move { engine.reserve(request).await }
    });
    until("the reply is cut off", || async { proxy.cut() > 0 }).await;
    proxy.set(Mode::Pass);
    let id = match asking.await.unwrap() {
        Ok(Admission::Admitted(id)) => id,
        // The second sending was cut off too.
        Err(error) if error.outcome_unknown() => {
            let again = engine.reserve(shop.request("bob", "k", &[(0, 1)])).await.unwrap();
            again.order_id().unwrap()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(shop.left(0).await, 8, "the unit was taken once");
    let again = engine.reserve(shop.request("bob", "k", &[(0, 1)])).await.unwrap();
    assert_eq!(again, Admission::Replayed(id));
    shop.drain().await;
    shop.assert_sound().await;
}

/// All answers are lost: the outcome is unknown, never "sold out", although the units are gone by the order's
/// own admission.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_answer_the_outcome_is_unknown_and_the_key_tells() {
    for mode in [Mode::CutReply, Mode::Mute] {
        let (shop, engine, proxy) = behind_proxy(&[(2, 5)]).await;
        admitted(engine.reserve(shop.request("ann", "warm-up", &[(0, 1)])).await);
        proxy.set(mode);
        let error = engine.reserve(shop.request("bob", "k", &[(0, 1)])).await.unwrap_err();
        assert!(error.outcome_unknown() && !error.is_transient(), "{mode:?}: {error}");
        proxy.set(Mode::Pass);
        let id = engine
            .reserve(shop.request("bob", "k", &[(0, 1)]))
            .await
            .unwrap()
            .order_id()
            .expect("it was admitted");
        shop.drain().await;
        assert_eq!(shop.engine.operator().order(id).await.unwrap().user, user("bob"));
        shop.assert_sound().await;
    }
}

/// Nobody could be asked: that is not unknown, nothing was sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_redis_nothing_was_sent() {
    let shop = Shop::open(&[(2, 5)]).await;
    let mut config = shop.stores().config.clone();
    config.redis = "redis://127.0.0.1:1/".into();
    let engine = Engine::connect(config).await.unwrap();
    let error = engine.reserve(shop.request("bob", "k", &[(0, 1)])).await.unwrap_err();
    assert!(error.is_transient() && !error.outcome_unknown(), "{error}");
    shop.assert_sound().await;
}

/// Two TLS providers in one process make the first `rediss://` panic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_to_a_server_that_speaks_none_is_an_error_not_a_panic() {
    let shop = Shop::open(&[(2, 5)]).await;
    let mut config = shop.stores().config.clone();
    config.redis = config.redis.url().replace("redis://", "rediss://").into();
    let engine = Engine::connect(config).await.unwrap();
    let error = engine.reserve(shop.request("bob", "k", &[(0, 1)])).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}

/// A timed-out batch that a frozen Redis runs later must do no harm: it carries its own end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_late_is_refused() {
    use crate::{
        order::Fingerprint,
        scripts::{Reservation, Reserved, reserve},
    };
    let shop = Shop::open(&[(2, 5)]).await;
    let request = shop.request("bob", "k", &[(0, 1)]);
    let order = Reservation {
        id: OrderId::new(shop.sale),
        fingerprint: Fingerprint::of(shop.sale, &request.items),
        user: request.user,
        key: request.key,
        items: request.items,
        request_id: None,
    };
    let sale = shop.engine.operator().sale(shop.sale).await.unwrap();
    let (seconds, _): (i64, i64) = shop.redis(&["TIME"]).await;
    let past = (seconds - 1) * 1_000_000;
    let link = &shop.stores().link;
    let sent =
        reserve(link, &shop.keys(), sale.epoch, sale.recorded_seq, past, &[&order], Duration::from_secs(1))
            .await;
    assert!(matches!(sent, Ok(Reserved::Late { .. })), "{sent:?}");
    assert_eq!(shop.left(0).await, 2);
    shop.assert_sound().await;
}
