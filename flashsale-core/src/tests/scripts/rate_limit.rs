use std::{
    net::{IpAddr, Ipv6Addr},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use super::scene;
use crate::{keys, link::Link, scripts::rate_limit, test_support};

const WINDOW: Duration = Duration::from_mins(10);

/// An address that no other test of this process has: one of those for documentation.
fn fresh_address() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    Ipv6Addr::new(0x2001, 0xdb8, 0xf5, 0, 0, 0, 0, NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

/// The counter, and how long it lives on.
async fn window(link: &Link, address: IpAddr) -> (Option<i64>, i64) {
    let key = keys::rate(address);
    let count = link.query(redis::cmd("GET").arg(&key)).await.unwrap();
    (count, link.query(redis::cmd("PTTL").arg(&key)).await.unwrap())
}

#[tokio::test]
async fn counts_up_to_the_limit() {
    let window_ms = 1..=i64::try_from(WINDOW.as_millis()).unwrap();
    let row = |name, count: Option<i64>, lives: bool, limit, allowed: bool, then: i64| {
        (name, count, lives, limit, allowed, then)
    };
    let rows = [
        row("the first request", None, false, 2, true, 1),
        row("the last one that is allowed", Some(1), true, 2, true, 2),
        row("one too many is not counted", Some(2), true, 2, false, 2),
        row("a limit that was lowered", Some(9), true, 2, false, 9),
        row("a full counter without an end starts anew", Some(2), false, 2, true, 1),
    ];
    let link = scene::link(test_support::stack().await.redis_url());
    for (name, count, lives, limit, allowed, then) in rows {
        let address = fresh_address();
        if let Some(count) = count {
            let mut set = redis::cmd("SET");
            set.arg(keys::rate(address)).arg(count);
            if lives {
                set.arg("PX").arg(300_000);
            }
            link.query::<()>(&set).await.unwrap();
        }
        let answer = rate_limit(&link, address, limit, WINDOW).await.unwrap();
        assert_eq!(answer.is_none(), allowed, "{name}");
        if let Some(left) = answer {
            assert!((1..=300_000).contains(&left.as_millis()), "{name}: {left:?}");
        }
        let (count, lives_ms) = window(&link, address).await;
        assert_eq!(count, Some(then), "{name}");
        assert!(window_ms.contains(&lives_ms), "{name}: {lives_ms}");
    }
}

#[tokio::test]
async fn a_window_ends_and_addresses_do_not_share_it() {
    let link = scene::link(test_support::stack().await.redis_url());
    let (one, other) = (fresh_address(), fresh_address());
    let ask = async |address| rate_limit(&link, address, 1, Duration::from_millis(300)).await.unwrap();
    assert_eq!(ask(one).await, None);
    assert_eq!(ask(other).await, None);
    crate::tests::until("the window has ended", || async { ask(one).await.is_none() }).await;
}
