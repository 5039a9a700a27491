//! What an engine needs to know, with defaults for the rest.

use std::{fmt, time::Duration};

use sqlx::{PgPool, postgres::PgConnectOptions};

use crate::error::{Error, Result};

/// How an [`Engine`](crate::Engine) reaches its stores, and its limits.
///
/// ```
/// # use std::time::Duration;
/// use flashsale_core::EngineConfig;
///
/// let mut config = EngineConfig::new("redis://127.0.0.1/", "postgres://flashsale@127.0.0.1/flashsale");
/// config.redis_deadline = Duration::from_millis(500);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineConfig {
    /// Where buyers are admitted.
    pub redis: RedisStore,
    /// Where the record is.
    pub postgres: PostgresStore,
    /// Connections over which reservations are sent, each with one batch in flight. Default 4.
    pub lanes: usize,
    /// Reservations that may wait for a lane before further ones are turned away as unavailable.
    /// Default 65,536.
    pub max_waiting: usize,
    /// How long a Redis call may take before its outcome is unknown. Default 1 s.
    pub redis_deadline: Duration,
    /// How long a PostgreSQL statement may take. Default 5 s.
    pub postgres_deadline: Duration,
    /// Connections to PostgreSQL for everything but draining; a pool of your own has its own number. Default 8.
    pub postgres_connections: u32,
    /// Most orders that a drainer takes in one batch: 1 … 500. Default 500.
    pub drain_batch: usize,
    /// A queue entry that another drainer has held for so long is taken over. Default 5 s.
    pub claim_idle: Duration,
}

impl EngineConfig {
    /// The defaults, with these two stores: each a URL, or what you have already, a [`redis::Client`] or an
    /// [`sqlx::PgPool`].
    #[must_use]
    pub fn new(redis: impl Into<RedisStore>, postgres: impl Into<PostgresStore>) -> Self {
        Self {
            redis: redis.into(),
            postgres: postgres.into(),
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

/// A Redis: a URL (`redis://…`, `rediss://…`), or a [`redis::Client`].
///
/// Of a client its address, TLS and login are used. The connections are the engine's own, since each carries one
/// batch at a time and is given up as soon as it is in doubt; it sets protocol, `TCP_NODELAY`, keepalive and
/// deadlines itself.
#[derive(Clone)]
pub struct RedisStore(pub(crate) Redis);

#[derive(Clone)]
pub(crate) enum Redis {
    Url(String),
    Client(Box<redis::Client>),
}

/// A PostgreSQL: a URL (`postgres://…`), or an [`sqlx::PgPool`].
///
/// A pool is used for everything but draining, beside whatever else you do with it, and is never closed by the
/// engine. Its limits are yours: let both its `acquire_timeout` and the `statement_timeout` of its connections be
/// a few seconds, and do not turn `synchronous_commit` off there, which
/// [`Engine::preflight`](crate::Engine::preflight) refuses. Draining has up to four connections of its own, and
/// each lock that keeps processes from doing the same work has one; they are made by the pool's connect options,
/// without its `after_connect`.
#[derive(Clone)]
pub struct PostgresStore(pub(crate) Postgres);

#[derive(Clone)]
pub(crate) enum Postgres {
    Url(String),
    Pool(PgPool),
}

impl PostgresStore {
    /// How to connect to it.
    pub(crate) fn options(&self) -> Result<PgConnectOptions> {
        match &self.0 {
            Postgres::Url(url) => url
                .parse()
                .map_err(|error| Error::refused(format!("the database URL cannot be used: {error}"))),
            Postgres::Pool(pool) => Ok(pool.connect_options().as_ref().clone()),
        }
    }

    /// The embedder's own pool, which is not ours to close.
    pub(crate) fn pool(&self) -> Option<&PgPool> {
        match &self.0 {
            Postgres::Url(_) => None,
            Postgres::Pool(pool) => Some(pool),
        }
    }
}

impl From<String> for RedisStore {
    fn from(url: String) -> Self {
        Self(Redis::Url(url))
    }
}

impl From<&String> for RedisStore {
    fn from(url: &String) -> Self {
        url.clone().into()
    }
}

impl From<&str> for RedisStore {
    fn from(url: &str) -> Self {
        url.to_owned().into()
    }
}

impl From<redis::Client> for RedisStore {
    fn from(client: redis::Client) -> Self {
        Self(Redis::Client(Box::new(client)))
    }
}

impl From<String> for PostgresStore {
    fn from(url: String) -> Self {
        Self(Postgres::Url(url))
    }
}

impl From<&String> for PostgresStore {
    fn from(url: &String) -> Self {
        url.clone().into()
    }
}

impl From<&str> for PostgresStore {
    fn from(url: &str) -> Self {
        url.to_owned().into()
    }
}

impl From<PgPool> for PostgresStore {
    fn from(pool: PgPool) -> Self {
        Self(Postgres::Pool(pool))
    }
}

/// Neither says more: a URL holds a password.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Redis::Url(_) => "RedisStore(a URL)",
            Redis::Client(_) => "RedisStore(a client)",
        })
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Postgres::Url(_) => "PostgresStore(a URL)",
            Postgres::Pool(_) => "PostgresStore(a pool)",
        })
    }
}

#[cfg(test)]
impl RedisStore {
    pub(crate) fn url(&self) -> &str {
        let Redis::Url(url) = &self.0 else { panic!("it is a client") };
        url
    }
}

#[cfg(test)]
impl PostgresStore {
    pub(crate) fn url(&self) -> &str {
        let Postgres::Url(url) = &self.0 else { panic!("it is a pool") };
        url
    }
}
