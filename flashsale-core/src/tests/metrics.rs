//! What the engine counts and the monitor shows, as Prometheus would read it.
//!
//! A recorder of the test's own thread: these tests run on one thread, so that it sees all of theirs and
//! nothing of the others'.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::{by_hand::*, *};
use crate::{FailureReason, OrderState};

pub(super) fn recorder() -> (PrometheusRecorder, PrometheusHandle) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    (recorder, handle)
}

/// The value of one series; `None` if it is not shown.
pub(super) fn value(handle: &PrometheusHandle, series: &str) -> Option<f64> {
    let text = handle.render();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(value.parse().expect("a number"))
}

#[track_caller]
fn assert_shows<const N: usize>(handle: &PrometheusHandle, expected: [(&str, f64); N]) {
    for (series, expected) in expected {
        assert_eq!(value(handle, series), Some(expected), "{series}\n{}", handle.render());
    }
}

#[tokio::test]
async fn every_attempt_to_buy_is_counted_by_what_came_of_it() {
    let (recorder, handle) = recorder();
    let _here = ::metrics::set_default_local_recorder(&recorder);
    let shop = Shop::open(&[(4, 3)]).await;
    assert_shows(
        &handle,
        [
            ("flashsale_loads_total{result=\"loaded\"}", 1.0),
            ("flashsale_loads_total{result=\"failed\"}", 0.0),
            ("flashsale_load_duration_seconds_count", 1.0),
            ("flashsale_admissions_total{outcome=\"admitted\"}", 0.0),
        ],
    );
    for (user, key, units) in
        [("ann", "k", 3), ("ann", "k", 3), ("ann", "k", 1), ("ann", "l", 1), ("bob", "k", 2)]
    {
        shop.buy(user, key, &[(0, units)]).await.unwrap();
    }
    let unknown = Items::merge([(999_999.try_into().unwrap(), 1.try_into().unwrap())]).unwrap();
    let request = OrderRequest { items: unknown, ..shop.request("ann", "m", &[(0, 1)]) };
    shop.engine.reserve(request).await.unwrap();
    // A caller who goes away before the answer comes, whatever it will be.
    let mut gone = Box::pin(shop.buy("cid", "k", &[(0, 1)]));
    assert!(futures::poll!(&mut gone).is_pending());
    drop(gone);

    let run_id: String = shop.redis(&["HGET", &shop.keys().sale, "run_id"]).await;
    let _: i64 = shop.redis(&["HSET", &shop.keys().sale, "run_id", "another"]).await;
    assert_fenced(&shop, "another server's").await;
    let _: i64 = shop.redis(&["HSET", &shop.keys().sale, "run_id", &run_id]).await;
    let count =
        |outcome: &str| value(&handle, &format!("flashsale_admissions_total{{outcome=\"{outcome}\"}}"));
    let outcomes = [
        ("admitted", 1.0),
        ("replayed", 1.0),
        ("idempotency-key-reused", 1.0),
        ("over-quota", 1.0),
        ("sold-out", 1.0),
        ("unknown-product", 1.0),
        ("abandoned", 1.0),
        ("fenced", 1.0),
        ("unavailable", 0.0),
        ("outcome-unknown", 0.0),
    ];
    for (outcome, times) in outcomes {
        assert_eq!(count(outcome), Some(times), "{outcome}");
    }
    // All but the one who went away were answered, and all but the unknown product went through a lane.
    assert_shows(&handle, [("flashsale_admission_duration_seconds_count", 7.0)]);
    assert!(value(&handle, "flashsale_lane_batch_duration_seconds_count").unwrap() >= 6.0);
    assert!(value(&handle, "flashsale_lane_batch_size_sum").unwrap() >= 7.0);
    shop.drain().await;
    shop.assert_sound().await;
}

#[tokio::test]
async fn what_the_record_makes_of_orders_is_counted() {
    let (recorder, handle) = recorder();
    let _here = ::metrics::set_default_local_recorder(&recorder);
    let shop = Shop::open(&[(2, 2)]).await;
    admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    shop.drain().await;
    let confirmed = ("flashsale_orders_final_total{status=\"Confirmed\"}", 1.0);
    assert_shows(
        &handle,
        [
            confirmed,
            ("flashsale_drain_batch_size_sum", 1.0),
            ("flashsale_drain_batch_duration_seconds_count", 1.0),
            ("flashsale_guard_refusals_total{reason=\"sold-out\"}", 0.0),
            ("flashsale_compensated_orders_total", 0.0),
        ],
    );

    // Redis is made to believe in more than there is.
    let _: i64 = shop.redis(&["HSET", &shop.keys().stock, &shop.products[0].to_string(), "1000"]).await;
    let order = admitted(shop.buy("bob", "k", &[(0, 2)]).await);
    // A unit that ends before it settles, and is done again: the order fails once.
    let mut drainer = shop.engine.drainer();
    let entries = drainer.read(shop.sale).await.unwrap();
    let mut batch = drainer.begin(shop.sale, entries).await.unwrap();
    drainer.record(shop.sale, &mut batch).await.unwrap();
    assert_eq!(drainer.drain_once(shop.sale).await.unwrap().failed, 1);
    assert_eq!(state(&shop, order).await, OrderState::Failed);
    assert_shows(
        &handle,
        [
            confirmed,
            ("flashsale_guard_refusals_total{reason=\"sold-out\"}", 1.0),
            ("flashsale_guard_refusals_total{reason=\"over-quota\"}", 0.0),
            ("flashsale_orders_final_total{status=\"Failed\",reason=\"sold-out\"}", 1.0),
            ("flashsale_compensated_orders_total", 1.0),
        ],
    );
    for reason in FailureReason::ALL {
        let series = format!("flashsale_orders_final_total{{status=\"Failed\",reason=\"{reason}\"}}");
        assert!(value(&handle, &series).is_some(), "{series} begins at 0, so that its growth is seen");
    }

    // An entry that cannot be read, taken over from a drainer that died.
    let queue = &shop.keys().queue;
    let _: String = shop.redis(&["XADD", queue, "*", "order", "garbage"]).await;
    let mut dead = shop.engine.drainer();
    assert_eq!(dead.read(shop.sale).await.unwrap().len(), 1);
    let mut impatient = shop.stores().config.clone();
    impatient.claim_idle = Duration::ZERO;
    let heir = Engine::connect(impatient).await.unwrap();
    assert_eq!(heir.drainer().drain_once(shop.sale).await.unwrap().parked, 1);
    assert_shows(
        &handle,
        [
            ("flashsale_drain_claimed_total", 1.0),
            ("flashsale_orders_parked_total", 1.0),
            ("flashsale_drain_failures_total", 0.0),
        ],
    );
    let _: i64 = shop.redis(&["HSET", &shop.keys().sale, "run_id", "another"]).await;
    let _: String = shop.redis(&["XADD", queue, "*", "order", "garbage"]).await;
    assert!(heir.drainer().drain_once(shop.sale).await.unwrap_err().is_fenced());
    assert_shows(&handle, [("flashsale_drain_failures_total", 1.0)]);
}

#[tokio::test]
async fn the_monitor_shows_every_sale() {
    let (recorder, handle) = recorder();
    let _here = ::metrics::set_default_local_recorder(&recorder);
    let shop = Shop::open(&[(10, 3), (7, 3)]).await;
    let monitor = shop.engine.monitor();
    let of_sale = |name: &str| format!("flashsale_{name}{{sale=\"{}\"}}", shop.sale);
    let of_product = |name: &str, at: usize| {
        format!("flashsale_{name}{{sale=\"{}\",product=\"{}\"}}", shop.sale, shop.products[at])
    };
    let shows = |series: &str| value(&handle, series);

    admitted(shop.buy("ann", "k", &[(0, 2)]).await);
    shop.drain().await;
    admitted(shop.buy("bob", "k", &[(0, 1)]).await);
    assert_eq!(shop.engine.drainer().read(shop.sale).await.unwrap().len(), 1);
    admitted(shop.buy("cid", "k", &[(0, 1), (1, 3)]).await);
    monitor.observe_once().await.unwrap();
    let expected = [
        (of_product("stock_left", 0), 6.0),
        (of_product("stock_left", 1), 4.0),
        (of_product("units_sold", 0), 2.0),
        (of_product("units_sold", 1), 0.0),
        (of_sale("queue_length"), 2.0),
        (of_sale("queue_pending"), 1.0),
        (of_sale("sale_fenced"), 0.0),
        (of_sale("dead_letters"), 0.0),
        ("flashsale_fenced_sales".to_owned(), 0.0),
        (format!("flashsale_sale_info{{sale=\"{}\",slug=\"test\"}}", shop.sale), 1.0),
        ("flashsale_dependency_up{dependency=\"redis\"}".to_owned(), 1.0),
        ("flashsale_dependency_up{dependency=\"postgres\"}".to_owned(), 1.0),
    ];
    for (series, expected) in expected {
        assert_eq!(shows(&series), Some(expected), "{series}\n{}", handle.render());
    }
    until("the oldest order ages", async || {
        monitor.observe_once().await.unwrap();
        shows(&of_sale("queue_oldest_age_seconds")).unwrap() > 0.0
    })
    .await;

    let _: String = shop.redis(&["XADD", &shop.keys().queue, "*", "order", "garbage"]).await;
    let mut impatient = shop.stores().config.clone();
    impatient.claim_idle = Duration::ZERO;
    let heir = Engine::connect(impatient).await.unwrap();
    let mut drainer = heir.drainer();
    while drainer.drain_once(shop.sale).await.unwrap().read > 0 {}
    let _: i64 = shop.redis(&["HSET", &shop.keys().sale, "run_id", "another"]).await;
    monitor.observe_once().await.unwrap();
    assert_eq!(shows(&of_sale("dead_letters")), Some(1.0));
    assert_eq!(shows(&of_sale("queue_length")), Some(0.0));
    assert_eq!(shows(&of_sale("queue_oldest_age_seconds")), Some(0.0));
    assert_eq!((shows(&of_sale("sale_fenced")), shows("flashsale_fenced_sales")), (Some(1.0), Some(1.0)));
    // Its word does not count: what was shown last stands, until the recorder forgets it.
    let _: i64 = shop.redis(&["HSET", &shop.keys().stock, &shop.products[0].to_string(), "999"]).await;
    monitor.observe_once().await.unwrap();
    assert_eq!(shows(&of_product("stock_left", 0)), Some(6.0));
}
