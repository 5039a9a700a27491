//! How much clients may ask for.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    problem::{Code, Problem},
    rate_limit::RateLimitSetting,
};

/// How long a request waits for its turn. Nothing of it was sent to a store until then, so that this is no unknown
/// outcome.
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// Who waited that long in vain should not come back at once.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How much one client, or all of them together, may ask for.
#[derive(Debug, Clone, clap::Args)]
pub struct LimitArgs {
    /// Orders per client address and time, counted over all servers, or `off`
    #[arg(long, env = "FLASHSALE_RATE_LIMIT", value_name = "N/TIME", default_value = "10/10s")]
    pub rate_limit: RateLimitSetting,

    /// Orders that are worked on at once; further ones wait their turn, for 10 s at most
    ///
    /// Ten thousand at once would take turns on a few cores, and each would see its Redis deadline pass while
    /// Redis had answered long ago.
    #[arg(long, env = "FLASHSALE_ORDERS_AT_ONCE", value_name = "N", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub orders_at_once: u32,

    /// Other requests to the API that are worked on at once; further ones wait their turn, for 10 s at most
    ///
    /// Carts, statuses, histories and what is on sale; streams are counted by themselves.
    #[arg(long, env = "FLASHSALE_REQUESTS_AT_ONCE", value_name = "N", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub requests_at_once: u32,

    /// Status streams that one client address may hold open at each server
    #[arg(long, env = "FLASHSALE_STREAMS_PER_CLIENT", value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub streams_per_client: u32,

    /// Status streams that all clients together may hold open at each server
    #[arg(long, env = "FLASHSALE_STREAMS_AT_ONCE", value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub streams_at_once: u32,

    /// Seconds after which an idle status stream carries a comment, so that no proxy on the way closes it
    #[arg(long, env = "FLASHSALE_STREAM_KEEP_ALIVE_SECONDS", value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=300))]
    pub stream_keep_alive_seconds: u32,
}

impl Default for LimitArgs {
    /// What the flags say when nothing is given.
    fn default() -> Self {
        Self {
            rate_limit: "10/10s".parse().expect("a limit"),
            orders_at_once: 1_024,
            requests_at_once: 1_024,
            streams_per_client: 20,
            streams_at_once: 10_000,
            stream_keep_alive_seconds: 15,
        }
    }
}

/// A turn for each request that is worked on. It is taken once all is read and judged that can be without a
/// store: a client that sends slowly holds none.
///
/// How many wait is bounded too, by the connections that there may be: each has one request under way. Who
/// hangs up leaves the queue.
pub(crate) struct Turns {
    free: Semaphore,
    within: Duration,
}

impl Turns {
    pub(crate) fn new(at_once: u32) -> Self {
        Self { free: Semaphore::new(at_once as usize), within: TURN_WITHIN }
    }

    /// Waits until a request may be worked on; it has the turn until it drops it.
    pub(crate) async fn next(&self) -> Result<SemaphorePermit<'_>, Problem> {
        // Nearly always there is one, and no timer is needed.
        if let Ok(turn) = self.free.try_acquire() {
            return Ok(turn);
        }
        let turn = tokio::time::timeout(self.within, self.free.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            let detail = "Too many requests come at once. This one was not looked at; try again.";
            Problem::new(Code::Unavailable, detail).retry_after(RETRY_AFTER)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;

    #[tokio::test]
    async fn who_waits_too_long_for_a_turn_is_told_to_come_back() {
        let turns = Turns { within: Duration::from_millis(1), ..Turns::new(2) };
        let (first, _second) = (turns.next().await.unwrap(), turns.next().await.unwrap());
        let turned_away = turns.next().await.unwrap_err().into_response();
        assert_eq!(
            (turned_away.status().as_u16(), &turned_away.headers()["retry-after"]),
            (503, &"5".parse().unwrap())
        );
        drop(first);
        assert!(turns.next().await.is_ok(), "whose turn ends makes room, and who gave up takes none");
    }
}
