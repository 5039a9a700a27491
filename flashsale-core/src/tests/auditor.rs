//! The auditor: what is wrong is shown while the sale goes on, and what is only in motion is not.
//!
//! A recorder of the test's own thread, as for the other metrics.

use std::sync::atomic::{AtomicU32, Ordering};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use super::{
    audit::blamed,
    by_hand::*,
    herd::Herd,
    metrics::{self, recorder, value},
    *,
};
use crate::{Auditor, Invariant, keys::book_quota, sale::Epoch};

/// One that adds up at every check.
fn restless(engine: &Engine) -> Auditor {
    let mut auditor = engine.auditor(Duration::ZERO);
    auditor.pace.rest = 0;
    auditor
}

/// What it finds of the shop's sale.
async fn check(auditor: &mut Auditor) -> AuditReport {
    let mut reports = auditor.check_once().await.unwrap();
    assert_eq!(reports.len(), 1, "{reports:#?}");
    reports.remove(0)
}

fn holds(handle: &PrometheusHandle, shop: &Shop, invariant: Invariant) -> Option<f64> {
    let series = format!("flashsale_invariant_holds{{sale=\"{}\",invariant=\"{invariant}\"}}", shop.sale);
    value(handle, &series)
}

fn checks(handle: &PrometheusHandle, result: &str) -> Option<f64> {
    value(handle, &format!("flashsale_invariant_checks_total{{result=\"{result}\"}}"))
}

/// Exactly these are shown as not holding, and all others as holding.
#[track_caller]
fn assert_shown(handle: &PrometheusHandle, shop: &Shop, violated: &[Invariant]) {
    for invariant in Invariant::ALL {
        let expected = f64::from(u8::from(!violated.contains(&invariant)));
        assert_eq!(holds(handle, shop, invariant), Some(expected), "{invariant}\n{}", handle.render());
    }
}

#[tokio::test]
async fn it_shows_which_invariant_a_corrupted_store_breaks() {
    let (recorder, handle) = recorder();
    let _here = ::metrics::set_default_local_recorder(&recorder);
    let shop = Shop::open(&[(10, 3), (5, 2)]).await;
    admitted(shop.buy("ann", "k", &[(0, 2)]).await);
    shop.drain().await;
    let mut auditor = restless(&shop.engine);
    assert!(check(&mut auditor).await.holds());
    assert_shown(&handle, &shop, &[]);
    let last = format!("flashsale_invariant_last_check_timestamp_seconds{{sale=\"{}\"}}", shop.sale);
    let at = value(&handle, &last).expect("a time");
    assert!((at - f64::from(u32::try_from(Utc::now().timestamp()).unwrap())).abs() < 60.0, "{at}");

    let stock = shop.keys().stock;
    let product = shop.products[0].to_string();
    let quota = book_quota(&user("ann"), shop.products[0]);
    let words = |report: &AuditReport| format!("{report:?}");

    let _: i64 = shop.redis(&["HINCRBY", &stock, &product, "7"]).await;
    let report = check(&mut auditor).await;
    assert_eq!(blamed(&report), [Invariant::I4]);
    assert!(words(&report).contains(&format!("product {product}: 15 left")), "{report:#?}");
    assert_shown(&handle, &shop, &[Invariant::I4]);
    let _: i64 = shop.redis(&["HINCRBY", &stock, &product, "-7"]).await;

    sql(&shop, "UPDATE products SET sold = sold + 1 WHERE stock = 10").await;
    let report = check(&mut auditor).await;
    assert_eq!(blamed(&report), [Invariant::I1]);
    assert!(words(&report).contains("hold 2 units, sold says 3"), "{report:#?}");
    assert_shown(&handle, &shop, &[Invariant::I1]);
    sql(&shop, "UPDATE products SET sold = sold - 1 WHERE stock = 10").await;

    let _: i64 = shop.book("HDEL", &[&quota]).await;
    assert_eq!(blamed(&check(&mut auditor).await), [Invariant::I8]);
    assert_shown(&handle, &shop, &[Invariant::I8]);
    let _: i64 = shop.book("HSET", &[&quota, b"2"]).await;

    assert!(check(&mut auditor).await.holds());
    assert_shown(&handle, &shop, &[]);
    assert_eq!((checks(&handle, "violated"), checks(&handle, "holds")), (Some(3.0), Some(2.0)));
    assert_eq!(value(&handle, "flashsale_invariant_check_duration_seconds_count"), Some(5.0));
    shop.assert_sound().await;
}

#[tokio::test]
async fn a_long_queue_is_not_read_and_one_that_nobody_drains_is_no_oversell() {
    let (recorder, handle) = recorder();
    let _here = ::metrics::set_default_local_recorder(&recorder);
    let shop = Shop::open(&[(10, 3)]).await;
    for buyer in ["ann", "bob", "cid"] {
        admitted(shop.buy(buyer, "k", &[(0, 1)]).await);
    }
    let mut auditor = restless(&shop.engine);
    assert!(check(&mut auditor).await.holds(), "nothing has waited for long");
    assert_shown(&handle, &shop, &[]);

    auditor.pace.most_queued = 2;
    auditor.pace.queue_patience = Duration::ZERO;
    until("they have waited for more than no time", async || {
        shop.engine.operator().queue().await.unwrap()[0].oldest > Some(Duration::ZERO)
    })
    .await;
    let report = check(&mut auditor).await;
    assert_eq!(blamed(&report), [Invariant::I7]);
    assert_eq!(report.checks.len(), 1, "nothing else was computed");
    assert!(report.checks[0].violations[0].starts_with("3 orders are queued, the oldest for "), "{report:?}");
    // What was found before stands.
    assert_shown(&handle, &shop, &[Invariant::I7]);
    assert_eq!((checks(&handle, "skipped"), checks(&handle, "violated")), (Some(1.0), Some(0.0)));

    auditor.pace.most_queued = 3;
    assert_eq!(blamed(&check(&mut auditor).await), [Invariant::I7], "it is late, and nothing is missing");
    shop.drain().await;
    assert!(check(&mut auditor).await.holds());
    assert_shown(&handle, &shop, &[]);

    // A sale is left alone for a while, which is no skipping.
    auditor.pace.rest = 1_000_000;
    assert_eq!(check(&mut auditor).await.checks.len(), 8);
    assert_eq!(check(&mut auditor).await.checks.len(), 1);
    assert_eq!(checks(&handle, "skipped"), Some(1.0));
    shop.assert_sound().await;
}

/// A sale of a million orders must not take a gigabyte of the process that sells it.
#[tokio::test]
async fn of_a_large_sale_only_what_needs_no_orders_in_memory_is_checked() {
    use Invariant::{I1, I2, I3, I4, I7, I8};
    let (recorder, handle) = recorder();
    let _here = ::metrics::set_default_local_recorder(&recorder);
    let shop = Shop::open(&[(10, 3)]).await;
    for buyer in ["ann", "bob"] {
        admitted(shop.buy(buyer, "k", &[(0, 1)]).await);
    }
    shop.drain().await;
    let mut auditor = restless(&shop.engine);
    let orders = shop.engine.operator().sale(shop.sale).await.unwrap().recorded_seq.get();
    auditor.pace.most_orders = orders;
    assert!(check(&mut auditor).await.holds());
    assert_shown(&handle, &shop, &[]);

    auditor.pace.most_orders = orders - 1;
    let quota = book_quota(&user("ann"), shop.products[0]);
    let _: i64 = shop.book("HDEL", &[&quota]).await;
    // One that begins here has what is shown from here on.
    let (fresh, shown) = metrics::recorder();
    let report = {
        let _here = ::metrics::set_default_local_recorder(&fresh);
        check(&mut auditor).await
    };
    assert!(report.holds(), "{report:#?}");
    let checked: Vec<_> = report.checks.iter().map(|check| check.invariant).collect();
    assert_eq!(checked, [I1, I2, I3, I4, I7]);
    assert_eq!((checks(&handle, "holds"), checks(&handle, "skipped")), (Some(1.0), Some(1.0)));
    for invariant in Invariant::ALL {
        let expected = checked.contains(&invariant).then_some(1.0);
        assert_eq!(holds(&shown, &shop, invariant), expected, "{invariant} held before");
    }
    assert!(!shown.render().contains("last_check_timestamp"), "{}", shown.render());

    let product = shop.products[0].to_string();
    let _: i64 = shop.redis(&["HINCRBY", &shop.keys().stock, &product, "1"]).await;
    assert_eq!(blamed(&check(&mut auditor).await), [I4]);
    assert_eq!(holds(&handle, &shop, I4), Some(0.0));
    let _: i64 = shop.redis(&["HINCRBY", &shop.keys().stock, &product, "-1"]).await;

    auditor.pace.most_orders = orders;
    assert_eq!(blamed(&check(&mut auditor).await), [I8], "the whole check finds the rest");
    let _: i64 = shop.book("HSET", &[&quota, b"1"]).await;
    assert_shown(&handle, &shop, &[I8]);
    assert_eq!((checks(&handle, "violated"), checks(&handle, "skipped")), (Some(2.0), Some(1.0)));
    shop.assert_sound().await;
}

#[tokio::test]
async fn a_fenced_sale_is_neither_right_nor_wrong() {
    let (recorder, handle) = recorder();
    let _here = ::metrics::set_default_local_recorder(&recorder);
    let shop = Shop::unloaded(&[(10, 3)]).await;
    let mut auditor = restless(&shop.engine);
    assert!(check(&mut auditor).await.holds(), "nothing was sold before the sale was loaded");
    kept_open(&shop).await;
    admitted(shop.buy("ann", "k", &[(0, 1)]).await);
    shop.drain().await;
    assert!(check(&mut auditor).await.holds());
    let known = value(&handle, "flashsale_invariant_checks_total{result=\"holds\"}");

    let run_id: String = shop.redis(&["HGET", &shop.keys().sale, "run_id"]).await;
    for lost in ["run_id", "epoch", "everything"] {
        match lost {
            "run_id" => drop(shop.redis::<i64>(&["HSET", &shop.keys().sale, "run_id", "another"]).await),
            "epoch" => sql(&shop, "UPDATE sales SET epoch = epoch + 1").await,
            _ => lose_everything(&shop).await,
        }
        let report = check(&mut auditor).await;
        assert!(report.checks.iter().all(|check| check.violations.is_empty()), "{lost}: {report:#?}");
        let unknown = [Invariant::I4, Invariant::I5, Invariant::I6, Invariant::I8];
        assert_eq!(blamed(&report), unknown, "{lost}");
        match lost {
            "run_id" => drop(shop.redis::<i64>(&["HSET", &shop.keys().sale, "run_id", &run_id]).await),
            "epoch" => sql(&shop, "UPDATE sales SET epoch = epoch - 1").await,
            _ => kept_open(&shop).await,
        }
        shop.stores().catalog.refresh().await.unwrap();
    }
    assert_eq!(epoch(&shop).await, Epoch(2));
    assert_eq!((checks(&handle, "violated"), checks(&handle, "not-computed")), (Some(0.0), Some(3.0)));
    assert_eq!(checks(&handle, "holds"), known);
    assert!(check(&mut auditor).await.holds());
    assert_shown(&handle, &shop, &[]);
    shop.assert_sound().await;
}

#[tokio::test]
async fn one_process_checks_and_another_one_takes_its_place() {
    let shop = Shop::open(&[(10, 3)]).await;
    let other = shop.another().await;
    let (mut first, mut second) = (restless(&shop.engine), restless(&other));
    check(&mut first).await;
    for _ in 0..3 {
        assert!(second.check_once().await.unwrap().is_empty(), "the first one does it");
        check(&mut first).await;
    }
    // As when its process dies, or PostgreSQL ends its session.
    drop(first);
    let end = tokio::time::Instant::now() + BOUND;
    while second.check_once().await.unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < end, "nobody checks");
    }
    sql(
        &shop,
        "SELECT pg_terminate_backend(pid) FROM pg_locks
         WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .await;
    while second.check_once().await.unwrap_or_default().is_empty() {
        assert!(tokio::time::Instant::now() < end, "a lost lock is not taken again");
    }
    assert!(restless(&shop.engine).check_once().await.unwrap().is_empty(), "the second one has it again");
}

/// An alarm that is none would teach operators to look away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_raises_no_alarm_while_a_herd_is_buying_and_the_sale_is_recovered() {
    let shop = Arc::new(Shop::open(&[(2_600, 3), (2_600, 3)]).await);
    let other = shop.another().await;
    let (shutdown, whole) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
    let drainers = [shop.engine.drainer(), other.drainer()].map(|d| tokio::spawn(d.run(shutdown.clone())));
    let herd = Herd::start(&shop, 64, 75);
    let (end, whole_checks, mut auditor) = (CancellationToken::new(), Arc::clone(&whole), restless(&other));
    let ended = end.clone();
    let checking = tokio::spawn(async move {
        while !ended.is_cancelled() {
            let report = check(&mut auditor).await;
            let is_right = report.checks.iter().all(|check| check.violations.is_empty());
            assert!(is_right, "{report:#?}");
            whole_checks.fetch_add(u32::from(report.holds()), Ordering::Relaxed);
        }
    });
    for _ in 0..5 {
        other.operator().recover(shop.sale, |_| {}).await.unwrap();
        let before = whole.load(Ordering::Relaxed);
        until("the sale was checked, or an alarm was raised", async || {
            whole.load(Ordering::Relaxed) > before || checking.is_finished()
        })
        .await;
    }
    assert_eq!(herd.buy_the_rest().await.len(), 5_200, "everything is sold, nothing twice");
    end.cancel();
    checking.await.unwrap();
    shutdown.cancel();
    for drainer in drainers {
        drainer.await.unwrap();
    }
    shop.drain().await;
    shop.assert_sound().await;
}
