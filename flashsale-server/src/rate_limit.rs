//! How many orders one address may send: counted in Redis, so that all servers share the count.

use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
    time::Duration,
};

use flashsale_core::{Engine, RateDecision, RateLimit};

use crate::{
    metrics,
    problem::{Code, Problem},
};

/// `10/10s` (ten in ten seconds; `s`, `m` or `h`), or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateLimitSetting {
    /// No limit.
    Off,
    /// So many per client address.
    PerAddress(RateLimit),
}

impl RateLimitSetting {
    /// Turns away whom this process knows to be over the limit, without asking Redis and without counting.
    pub(crate) fn check_known(self, engine: &Engine, client: IpAddr) -> Result<(), Problem> {
        let Self::PerAddress(limit) = self else { return Ok(()) };
        match engine.known_to_be_limited(subject(client), limit) {
            Some(retry_after) => Err(limited(limit, retry_after)),
            None => Ok(()),
        }
    }

    /// Counts one request. Without Redis nothing can be counted, and it is turned away: the order would fail
    /// there anyway, and a limit that opens in an outage is open when it is needed most.
    pub(crate) async fn check(self, engine: &Engine, client: IpAddr) -> Result<(), Problem> {
        let Self::PerAddress(limit) = self else { return Ok(()) };
        // The question is most of what an order's future would hold, and be moved with, where none is asked.
        match Box::pin(engine.rate_limit(subject(client), limit)).await {
            Ok(RateDecision::Allowed) => Ok(()),
            Ok(RateDecision::Limited { retry_after }) => Err(limited(limit, retry_after)),
            // Whether this request was counted may be unknown; that nothing was ordered is certain.
            Err(error) => {
                tracing::debug!(%error, "cannot count requests");
                Err(Problem::unavailable())
            }
        }
    }
}

fn limited(limit: RateLimit, retry_after: Duration) -> Problem {
    metrics::rate_limited();
    let detail = format!("One address may send {} orders in {} s.", limit.requests, limit.window.as_secs());
    Problem::new(Code::RateLimited, detail).retry_after(retry_after)
}

/// Whom to count for. A home or a phone has a whole IPv6 /64 and could take another address per request.
pub(crate) fn subject(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

impl FromStr for RateLimitSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        parse(text)
            .map(Self::PerAddress)
            .ok_or_else(|| format!("{text:?} is neither `off` nor a limit such as `10/10s` (s, m or h)"))
    }
}

fn parse(text: &str) -> Option<RateLimit> {
    const MAX_WINDOW: Duration = Duration::from_hours(24);
    let (requests, window) = text.split_once('/')?;
    let unit = window.chars().last()?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        _ => return None,
    };
    let count: u64 = window.strip_suffix(unit)?.parse().ok()?;
    let limit = RateLimit {
        requests: requests.parse().ok()?,
        window: Duration::from_secs(count.checked_mul(factor)?),
    };
    let sensible = limit.requests > 0 && !limit.window.is_zero() && limit.window <= MAX_WINDOW;
    sensible.then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let read = |text: &str| text.parse::<RateLimitSetting>().ok();
        let limit = |requests, seconds| {
            Some(RateLimitSetting::PerAddress(RateLimit { requests, window: Duration::from_secs(seconds) }))
        };
        assert_eq!(read("off"), Some(RateLimitSetting::Off));
        assert_eq!(read("10/10s"), limit(10, 10));
        assert_eq!(read("100/1m"), limit(100, 60));
        assert_eq!(read("1000/2h"), limit(1_000, 7_200));
        for bad in
            ["", "10", "10/", "/10s", "10/s", "10/10", "0/10s", "10/0s", "-1/1s", "10/10d", "10/25h", "1/é"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn ipv6_clients_are_counted_by_network() {
        let subject = |text: &str| subject(text.parse().unwrap()).to_string();
        assert_eq!(subject("1.2.3.4"), "1.2.3.4");
        assert_eq!(subject("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
