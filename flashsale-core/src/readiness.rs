//! Whether the stores can be reached, and whether the open sales can sell.

use std::time::Duration;

use crate::{
    error::{Error, Result},
    keys::SaleKeys,
    sale::{Sale, SaleState},
    scripts::{NEWER, VERSION, look},
    stores::Stores,
};

/// A probe that takes longer is of no use to who asks.
const PROBE_WITHIN: Duration = Duration::from_secs(1);

/// One thing that the engine depends on, and whether it can be used now.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Dependency {
    /// `redis`, `postgres` or `sale <slug>`.
    pub name: String,
    /// Without it no order can be taken. That is Redis: while PostgreSQL is away the sale goes on and the
    /// queue waits, and a fenced sale takes nothing away from the others.
    pub vital: bool,
    /// Whether anybody may hear of it. A sale that has not begun may be a secret yet.
    pub announced: bool,
    /// Why it cannot be used now. For operators: it may name hosts.
    pub problem: Option<String>,
}

/// Whether each store answers.
pub(crate) struct Reached {
    pub redis: Result<()>,
    pub postgres: Result<()>,
}

impl Stores {
    /// Asks both stores for a sign of life. The catalogue is fresh where PostgreSQL gave one.
    pub(crate) async fn reach(&self) -> Reached {
        let ping = redis::cmd("PING");
        let postgres = tokio::time::timeout(PROBE_WITHIN, self.catalog.refresh());
        let (redis, postgres) = futures::join!(self.link.query::<String>(&ping), postgres);
        let postgres =
            postgres.unwrap_or_else(|_| Err(Error::unavailable("PostgreSQL did not answer in time")));
        Reached { redis: redis.map(drop).map_err(Error::from), postgres: postgres.map(drop) }
    }

    /// One line for each store and each open sale.
    pub(crate) async fn readiness(&self) -> Vec<Dependency> {
        let Reached { redis, postgres } = self.reach().await;
        let line = |name: String, vital, result: &Result<()>| {
            let problem = result.as_ref().err().map(ToString::to_string);
            Dependency { name, vital, announced: true, problem }
        };
        let mut lines =
            vec![line("redis".to_owned(), true, &redis), line("postgres".to_owned(), false, &postgres)];
        // Without Redis nothing can be said of the sales, and each would take its time to say so.
        let sales = if redis.is_ok() { self.catalog.reading().ok() } else { None };
        for sale in sales.iter().flat_map(|reading| reading.sales.values()) {
            let now = chrono::Utc::now();
            let over = sale.ends_at < now;
            if sale.state == SaleState::Open && sale.purged_at.is_none() && !over {
                let found = line(format!("sale {}", sale.slug), false, &self.can_sell(sale).await);
                lines.push(Dependency { announced: sale.starts_at <= now, ..found });
            }
        }
        lines
    }

    async fn can_sell(&self, sale: &Sale) -> Result<()> {
        let seen = look(&self.link, &SaleKeys::new(sale.id), &[]).await?;
        // Nothing that this process waits for would end that.
        if seen.sale.as_ref().is_some_and(|redis| redis.version > VERSION) {
            return Err(Error::refused(format!("fenced: {NEWER}")));
        }
        seen.must_count(sale).map(drop)
    }
}
