//! The keeper: sees that every live sale is in Redis as the record says, and repairs it where it is not.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{
    engine::Stores,
    error::Result,
    ids::SaleId,
    keys::SaleKeys,
    sale::{Epoch, Sale, Seq},
    scripts::{self, Look, LookedSale},
    sql,
};

/// How often each sale is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A load that shows no end for so long, by nobody who holds the load's lock, was killed.
const LOADING_FOR_LONG: Duration = Duration::from_secs(2);
/// A sale that ended so long ago is removed from Redis.
const KEEP_AFTER_END_MS: i64 = 24 * 60 * 60 * 1_000;
/// An alarm that stands is repeated at this interval.
const ALARM_EVERY: Duration = Duration::from_secs(10);

/// Keeps the sales in Redis as the record says: loads new ones, recovers lost ones, carries what operators
/// changed, finishes what killed commands left, and removes what ended a day ago.
///
/// An empty Redis is never "stock 0" and never filled with the full stock: it is loaded from the record. A
/// Redis whose epoch is older than the last one loaded is an old master that came back: it stays fenced
/// and is recovered only by hand.
pub struct Keeper {
    stores: Arc<Stores>,
    /// The load that was seen under way in Redis, and since when.
    loading: HashMap<SaleId, (Epoch, String, Instant)>,
    alarmed: HashMap<SaleId, Instant>,
}

/// What a sale needs, by what both stores say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Need {
    Nothing,
    /// To be loaded, and why.
    Load(&'static str),
    /// A load is under way; if it stays so for long, to be loaded.
    Wait {
        token: String,
    },
    /// The window or the state in Redis is not the record's.
    Carry,
    /// Over for a day: its keys go.
    Purge,
    /// Nothing that may be repaired without an operator.
    Alarm(&'static str),
}

/// Judges a sale. The record must have been read before Redis was: else an order recorded in between makes
/// a healthy Redis look behind.
fn need(sale: &Sale, floor: Seq, seen: &Look) -> Need {
    let over = seen.now_ms >= sale.ends_at.timestamp_millis() + KEEP_AFTER_END_MS;
    let Some(redis) = &seen.sale else {
        return match sale.purged_at {
            Some(_) => Need::Nothing,
            // Over before it was ever loaded: there is nothing that a load could bring.
            None if over && sale.epoch == Epoch(0) => Need::Purge,
            None => Need::Load("Redis does not hold it"),
        };
    };
    if redis.version > scripts::VERSION {
        return Need::Alarm("it was loaded by a newer version of this program; upgrade this process");
    }
    if redis.epoch > sale.epoch {
        // Our reading of the record is older than this Redis: the next look tells.
        return Need::Nothing;
    }
    if redis.epoch < sale.loaded_epoch {
        return Need::Alarm(
            "this Redis holds an older state than was loaded last: an old master that came back? \
             If it is the right one, run `flashsale recover`",
        );
    }
    if redis.epoch < sale.epoch {
        return Need::Load("a load died before it reached Redis");
    }
    need_under_epoch(sale, floor, redis, over)
}

fn need_under_epoch(sale: &Sale, floor: Seq, redis: &LookedSale, over: bool) -> Need {
    let Some(state) = redis.state else { return Need::Wait { token: redis.token.clone() } };
    if redis.version < scripts::VERSION {
        Need::Load("it was loaded by an older version of this program")
    } else if !redis.sound {
        Need::Load("Redis was restarted or replaced")
    } else if redis.seq < floor {
        Need::Load("Redis has gone back in time")
    } else if sale.recover_requested >= sale.epoch {
        Need::Load("it was requested")
    } else if sale.purged_at.is_some() || over {
        Need::Purge
    } else if (state, redis.starts_ms, redis.ends_ms)
        != (sale.state, sale.starts_at.timestamp_millis(), sale.ends_at.timestamp_millis())
    {
        Need::Carry
    } else {
        Need::Nothing
    }
}

impl Keeper {
    pub(crate) fn new(stores: Arc<Stores>) -> Self {
        Self { stores, loading: HashMap::new(), alarmed: HashMap::new() }
    }

    /// Looks after all sales until shutdown. Only decides *when*.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            if let Err(error) = self.keep_once().await {
                tracing::warn!(%error, "the keeper could not look after all sales");
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Looks at every sale once and does what it needs. The first error is returned after all were looked
    /// at.
    pub async fn keep_once(&mut self) -> Result<()> {
        let catalog = self.stores.catalog.refresh().await?;
        let mut result = Ok(());
        for sale in catalog.sales.values() {
            if let Err(error) = self.keep(sale).await {
                result = result.and(Err(error));
            }
        }
        result.and(self.stores.finish_ended_letters().await)
    }

    async fn keep(&mut self, sale: &Sale) -> Result<()> {
        let stores = Arc::clone(&self.stores);
        let keys = SaleKeys::new(sale.id);
        let floor = stores.catalog.floor(sale);
        let seen = scripts::look(&stores.link, &keys, &[]).await?;
        let need = need(sale, floor, &seen);
        if !matches!(need, Need::Wait { .. }) {
            self.loading.remove(&sale.id);
        }
        match need {
            Need::Nothing => {}
            Need::Load(why) => self.load(sale, why).await?,
            Need::Wait { token } => {
                let now = (sale.epoch, token, Instant::now());
                let since = self.loading.entry(sale.id).or_insert_with(|| now.clone());
                if (since.0, &since.1) != (now.0, &now.1) {
                    *since = now;
                } else if since.2.elapsed() >= LOADING_FOR_LONG {
                    self.load(sale, "a load was left unfinished").await?;
                }
            }
            Need::Carry => {
                let (starts, ends) = (sale.starts_at.timestamp_millis(), sale.ends_at.timestamp_millis());
                scripts::carry_state(&stores.link, &keys, sale.epoch, sale.state, starts, ends).await?;
                tracing::info!(sale = sale.id.get(), state = %sale.state, "state and window were carried to Redis");
            }
            Need::Purge => self.purge(sale, &keys, seen.sale.is_some()).await?,
            Need::Alarm(why) => {
                let due = self.alarmed.get(&sale.id).is_none_or(|at| at.elapsed() > ALARM_EVERY);
                if due {
                    tracing::error!(sale = sale.id.get(), "sale is fenced: {why}");
                    self.alarmed.insert(sale.id, Instant::now());
                }
            }
        }
        Ok(())
    }

    /// Removes a sale that is over. In the record first: once it says so nobody loads the sale again, and
    /// no drainer looks at it, so its queue must be empty before.
    async fn purge(&self, sale: &Sale, keys: &SaleKeys, in_redis: bool) -> Result<()> {
        let waiting: u64 = self.stores.link.ask(redis::cmd("XLEN").arg(&keys.queue)).await?;
        if waiting == 0 && sql::sales::mark_purged(&self.stores.pg, sale.id, sale.epoch).await? && in_redis {
            scripts::purge(&self.stores.link, keys, sale.epoch).await?;
            tracing::info!(sale = sale.id.get(), "the sale ended a day ago; its keys are removed from Redis");
        }
        Ok(())
    }

    async fn load(&mut self, sale: &Sale, why: &str) -> Result<()> {
        self.loading.remove(&sale.id);
        self.stores.load(sale.id, sale.epoch, why, &|_| {}).await?;
        Ok(())
    }
}
