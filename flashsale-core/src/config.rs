//! What an engine needs to know, with defaults for the rest.

use std::time::Duration;

/// How an [`Engine`](crate::Engine) reaches its stores, and its limits.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineConfig {
    /// `redis://…` or `rediss://…`.
    pub redis_url: String,
    /// `postgres://…`.
    pub database_url: String,
    /// Connections over which reservations are sent, each with one batch in flight. Default 4.
    pub lanes: usize,
    /// Reservations that may wait for a lane before further ones are turned away as unavailable.
    /// Default 65,536.
    pub max_waiting: usize,
    /// How long a Redis call may take before its outcome is unknown. Default 1 s.
    pub redis_deadline: Duration,
    /// How long a PostgreSQL statement may take. Default 5 s.
    pub postgres_deadline: Duration,
    /// Connections to PostgreSQL for everything but draining. Default 8.
    pub postgres_connections: u32,
    /// Most orders that a drainer takes in one batch: 1 … 500. Default 500.
    pub drain_batch: usize,
    /// A queue entry that another drainer has held for so long is taken over. Default 5 s.
    pub claim_idle: Duration,
}

impl EngineConfig {
    /// The defaults, with these two stores.
    #[must_use]
    pub fn new(redis_url: impl Into<String>, database_url: impl Into<String>) -> Self {
        Self {
            redis_url: redis_url.into(),
            database_url: database_url.into(),
            lanes: 4,
            max_waiting: 65_536,
            redis_deadline: Duration::from_secs(1),
            postgres_deadline: Duration::from_secs(5),
            postgres_connections: 8,
            drain_batch: 500,
            claim_idle: Duration::from_secs(5),
        }
    }
}
