//! Who is over the limit is not asked about again, and not for longer than Redis said.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicU8, Ordering},
};

use super::{
    proxy::{Mode, Proxy},
    *,
};
use crate::{RateDecision, RateLimit, keys};

/// An address that no other test of this process has.
fn fresh_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    Ipv4Addr::new(198, 51, 100, NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

fn limit(requests: u32) -> RateLimit {
    RateLimit { requests, window: Duration::from_hours(1) }
}

fn is_limited(decision: crate::Result<RateDecision>) -> bool {
    match decision.unwrap() {
        RateDecision::Allowed => false,
        RateDecision::Limited { retry_after } => {
            assert!(!retry_after.is_zero() && retry_after <= limit(1).window, "{retry_after:?}");
            true
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_limited_is_refused_without_redis() {
    let stack = test_support::stack().await;
    let target = stack.redis_url().trim_start_matches("redis://").trim_end_matches('/').to_owned();
    let proxy = Proxy::start(target).await;
    let mut config = config(test_support::database().await).await;
    config.redis = format!("redis://{}/", proxy.address).into();
    config.redis_deadline = Duration::from_millis(200);
    let engine = Engine::connect(config).await.unwrap();
    let (over, other) = (fresh_address(), fresh_address());
    assert!(!is_limited(engine.rate_limit(over, limit(1)).await));
    assert!(is_limited(engine.rate_limit(over, limit(1)).await));

    proxy.set(Mode::Mute);
    assert!(is_limited(engine.rate_limit(over, limit(1)).await), "nobody was asked");
    // Without Redis nobody else can be judged, nor this one under a limit that it may not have reached.
    assert!(engine.rate_limit(other, limit(1)).await.is_err());
    assert!(engine.rate_limit(over, limit(2)).await.is_err());
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_window_has_ended_redis_is_asked_again() {
    let shop = Shop::unloaded(&[(1, 1)]).await;
    let (address, key) = {
        let address = fresh_address();
        (address, keys::rate(address))
    };
    // Until the counter is asked about while it lives.
    until("the address is limited", || async {
        let _: String = shop.redis(&["SET", &key, "1", "PX", "300"]).await;
        is_limited(shop.engine.rate_limit(address, limit(1)).await)
    })
    .await;
    until("the window has ended", || async { !is_limited(shop.engine.rate_limit(address, limit(1)).await) })
        .await;
    // Counted from anew, by Redis.
    assert_eq!(shop.redis::<i64>(&["GET", &key]).await, 1);
    assert!(is_limited(shop.engine.rate_limit(address, limit(1)).await));
}
