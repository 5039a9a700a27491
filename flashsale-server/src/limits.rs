//! How much clients may ask for.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{problem::Problem, rate_limit::RateLimitSetting};

/// How long an order waits for its turn. Nothing of it was sent until then, so that this is no unknown outcome.
const TURN_WITHIN: Duration = Duration::from_secs(10);

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

    /// Status streams that one client address may hold open at each server
    #[arg(long, env = "FLASHSALE_STREAMS_PER_CLIENT", value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub streams_per_client: u32,
}

impl Default for LimitArgs {
    /// What the flags say when nothing is given.
    fn default() -> Self {
        Self { rate_limit: "10/10s".parse().expect("a limit"), orders_at_once: 1_024, streams_per_client: 20 }
    }
}

/// A turn for each order that is worked on.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Semaphore>);

impl Turns {
    pub(crate) fn new(at_once: u32) -> Self {
        Self(Arc::new(Semaphore::new(at_once as usize)))
    }

    /// Waits until an order may be worked on; it has the turn until it drops it.
    pub(crate) async fn next(&self) -> Result<SemaphorePermit<'_>, Problem> {
        let turn = tokio::time::timeout(TURN_WITHIN, self.0.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or_else(Problem::unavailable)
    }
}
