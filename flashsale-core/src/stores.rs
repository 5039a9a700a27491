//! Both stores, and what a process knows of them: what its engine, drainers, keeper and operators share.

use std::{sync::Arc, time::Duration};

use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    catalog::Catalog,
    config::EngineConfig,
    error::Result,
    ledger::{self, Ledger},
    link::{self, Link},
    metrics::Meters,
    rate_limit::Limited,
    sql,
};

/// One per engine.
pub(crate) struct Stores {
    pub config: EngineConfig,
    pub redis: redis::Client,
    pub link: Link,
    /// For carts alone: a call that takes too long gives up its connection, and no order shall pay for that.
    pub carts: Link,
    pub pg: PgPool,
    pub ledger: Ledger,
    pub catalog: Arc<Catalog>,
    pub limited: Limited,
    pub meters: Meters,
}

impl Stores {
    /// Makes no connection yet; the URLs themselves must be right.
    pub(crate) fn new(config: EngineConfig) -> Result<Self> {
        // Of two TLS providers in one process neither is the default, and the first `rediss://` panics.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let redis = link::client(&config.redis, config.redis_deadline)?;
        let pg = general_pool(&config)?;
        Ok(Self {
            link: Link::new(redis.clone(), config.redis_deadline),
            carts: Link::new(redis.clone(), config.redis_deadline),
            ledger: Ledger::new(ledger::drain_pool(config.postgres.options()?)),
            catalog: Arc::new(Catalog::new(pg.clone(), config.postgres_deadline)),
            redis,
            pg,
            limited: Limited::default(),
            meters: Meters::new(),
            config,
        })
    }

    /// Asks the record, for at most the deadline of PostgreSQL.
    pub(crate) fn record<T>(
        &self,
        question: impl Future<Output = Result<T>>,
    ) -> impl Future<Output = Result<T>> {
        sql::within(self.config.postgres_deadline, question)
    }
}

/// The pool for everything but draining.
fn general_pool(config: &EngineConfig) -> Result<PgPool> {
    if let Some(pool) = config.postgres.pool() {
        return Ok(pool.clone());
    }
    let options = config
        .postgres
        .options()?
        .application_name("flashsale")
        .options([("statement_timeout", config.postgres_deadline.as_millis().to_string())]);
    Ok(PgPoolOptions::new()
        .max_connections(config.postgres_connections)
        // A caller that waits longer has given up; the default is 30 s.
        .acquire_timeout(Duration::from_secs(3))
        .after_connect(|conn, _| Box::pin(sql::commit_durably(conn)))
        .after_release(|conn, _| Box::pin(sql::still_alive(conn)))
        .connect_lazy_with(options))
}
