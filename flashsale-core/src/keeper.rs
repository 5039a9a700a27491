//! The keeper: sees that every live sale is in Redis as the record says, and repairs it where it is not.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::Catalog,
    error::{Error, Result},
    ids::SaleId,
    keys::SaleKeys,
    sale::{Epoch, Sale, SaleState, Seq},
    scripts::{self, Look, LookedSale},
    sql,
    stores::Stores,
};

/// How often each sale is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// No sooner than this where an order was just found to be fenced: orders come by the thousand.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Sales that one process loads at once. Each has a connection to PostgreSQL for as long.
pub(crate) const LOADS_AT_ONCE: u32 = 3;
/// A load that shows no end for so long, by nobody who holds the load's lock, was killed.
const LOADING_FOR_LONG: Duration = Duration::from_secs(2);
/// A sale that ended so long ago is removed from Redis.
const KEEP_AFTER_END_MS: i64 = 24 * 60 * 60 * 1_000;
/// Redis may be ahead of our reading of the record for so long.
const AHEAD_FOR_LONG: Duration = Duration::from_secs(5);
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
    /// Since when Redis is ahead of the record.
    ahead: HashMap<SaleId, Instant>,
    /// Sales of which nothing is left in Redis, for good.
    purged: HashSet<SaleId>,
    /// The loads at work here: a large one keeps no other sale waiting.
    loads: JoinSet<(SaleId, Result<()>)>,
    at_work: HashSet<SaleId>,
    /// The first one that failed since this was last asked.
    failed: Option<Error>,
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
    /// A change of stock is not in Redis, or not decided there.
    Stock,
    /// Over for a day: its keys go.
    Purge,
    /// The record is of an older epoch than Redis. For a moment that is our reading of it; for long it is not.
    Behind,
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
        return Need::Alarm(scripts::NEWER);
    }
    if redis.epoch > sale.epoch {
        return Need::Behind;
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
    let (starts, ends) = sale.window_ms();
    if redis.version < scripts::VERSION {
        Need::Load("it was loaded by an older version of this program")
    } else if !redis.sound {
        Need::Load("Redis was restarted or replaced")
    } else if redis.seq < floor {
        Need::Load("Redis has gone back in time")
    } else if sale.recover_requested >= sale.epoch {
        Need::Load("it was requested")
    } else if sale.products.iter().any(|product| !redis.stock.contains_key(&product.id))
        || redis.products < sale.products.len()
        || redis.changes.is_none()
    {
        Need::Load("Redis has lost the stock or the products")
    } else if !redis.intact {
        Need::Load("its book or its queue in Redis is damaged")
    } else if (state, redis.starts_ms, redis.ends_ms) != (sale.state, starts, ends) {
        // Before the purge, which goes by the window that Redis has.
        Need::Carry
    } else if redis.changes < Some(sale.changes_settled) || sale.changes_wanted != sale.changes_settled {
        Need::Stock
    } else if sale.purged_at.is_some() || over {
        Need::Purge
    } else {
        Need::Nothing
    }
}

impl Keeper {
    pub(crate) fn new(stores: Arc<Stores>) -> Self {
        Self {
            stores,
            loading: HashMap::new(),
            alarmed: HashMap::new(),
            ahead: HashMap::new(),
            purged: HashSet::new(),
            loads: JoinSet::new(),
            at_work: HashSet::new(),
            failed: None,
        }
    }

    /// Looks after all sales until shutdown. Only decides *when*.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let began = Instant::now();
            if let Err(error) = self.look_after_all().await {
                tracing::warn!(%error, "the keeper could not look after all sales");
            }
            let doubted = async |catalog: &Catalog| {
                catalog.doubted().await;
                tokio::time::sleep_until((began + LOOK_AGAIN_AFTER).into()).await;
            };
            let stores = Arc::clone(&self.stores);
            let pause = async {
                tokio::select! {
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    () = doubted(&stores.catalog) => {}
                    () = shutdown.cancelled() => {}
                }
            };
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    Some(ended) = self.loads.join_next() => self.note(ended),
                }
            }
        }
        // What is begun is ended: a sale that is half loaded sells nothing until another keeper finds it.
        self.await_loads(0).await;
    }

    /// Looks at every sale once and does what it needs. The first error is returned after all were looked
    /// at.
    pub async fn keep_once(&mut self) -> Result<()> {
        let looked = self.look_after_all().await;
        self.await_loads(0).await;
        looked.and(self.failed.take().map_or(Ok(()), Err))
    }

    async fn look_after_all(&mut self) -> Result<()> {
        let catalog = self.stores.catalog.refresh().await?;
        let mut sales: Vec<_> =
            catalog.sales.values().filter(|sale| !self.purged.contains(&sale.id)).collect();
        // Of many that are lost at once, those that sell come first, and of these the small ones.
        sales.sort_by_key(|sale| (sale.state != SaleState::Open, sale.recorded_seq));
        let mut result = Ok(());
        for sale in sales {
            if let Err(error) = self.keep(sale).await {
                result = result.and(Err(error));
            }
        }
        result.and(self.stores.finish_ended_letters().await)
    }

    async fn keep(&mut self, sale: &Sale) -> Result<()> {
        if self.at_work.contains(&sale.id) {
            return Ok(());
        }
        let stores = Arc::clone(&self.stores);
        let keys = SaleKeys::new(sale.id);
        let floor = stores.catalog.floor(sale);
        let seen = scripts::look(&stores.link, &keys, &[]).await?;
        let need = need(sale, floor, &seen);
        if !matches!(need, Need::Wait { .. }) {
            self.loading.remove(&sale.id);
        }
        if need != Need::Behind {
            self.ahead.remove(&sale.id);
        }
        match need {
            Need::Nothing => {
                if sale.purged_at.is_some() {
                    self.purged.insert(sale.id);
                }
            }
            Need::Behind => {
                let since = *self.ahead.entry(sale.id).or_insert_with(Instant::now);
                if since.elapsed() > AHEAD_FOR_LONG {
                    self.alarm(
                        sale.id,
                        "Redis stands under a later epoch than the record: was PostgreSQL restored from a backup? \
                         `flashsale recover` rebuilds Redis from the record",
                    );
                }
            }
            Need::Load(why) => self.load(sale, why).await,
            Need::Wait { token } => {
                let now = (sale.epoch, token, Instant::now());
                let since = self.loading.entry(sale.id).or_insert_with(|| now.clone());
                if (since.0, &since.1) != (now.0, &now.1) {
                    *since = now;
                } else if since.2.elapsed() >= LOADING_FOR_LONG {
                    self.load(sale, "a load was left unfinished").await;
                }
            }
            Need::Carry => {
                // Read again: what another keeper has carried meanwhile must not be undone.
                let catalog = stores.catalog.refresh().await?;
                let Some(sale) = catalog.sales.get(&sale.id).filter(|now| now.epoch == sale.epoch) else {
                    return Ok(());
                };
                let (starts, ends) = sale.window_ms();
                let carried = scripts::carry_state(&stores.link, &keys, sale.epoch, sale.state, starts, ends);
                carried.await.map_err(|error| error.in_sale(sale.id))?;
                tracing::info!(sale = sale.id.get(), state = %sale.state, "state and window were carried to Redis");
            }
            Need::Stock => {
                let last = seen.sale.and_then(|redis| redis.changes).unwrap_or_default();
                stores.carry_stock_after(sale, last).await?;
            }
            Need::Purge => self.purge(sale, &keys, seen.sale.is_some()).await?,
            Need::Alarm(why) => self.alarm(sale.id, why),
        }
        Ok(())
    }

    fn alarm(&mut self, sale: SaleId, why: &str) {
        if self.alarmed.get(&sale).is_none_or(|at| at.elapsed() > ALARM_EVERY) {
            tracing::error!(sale = sale.get(), "sale is fenced: {why}");
            self.alarmed.insert(sale, Instant::now());
        }
    }

    /// Removes a sale that is over. In the record first: once it says so nobody loads the sale again, and
    /// no drainer looks at it, so its queue must be empty before.
    async fn purge(&self, sale: &Sale, keys: &SaleKeys, in_redis: bool) -> Result<()> {
        let waiting: u64 = self.stores.link.ask(redis::cmd("XLEN").arg(&keys.queue)).await?;
        let mark = sql::sales::mark_purged(&self.stores.pg, sale.id, sale.epoch, sale.ends_at);
        if waiting > 0 || !self.stores.record(mark).await? || !in_redis {
            return Ok(());
        }
        let removed = scripts::purge(&self.stores.link, keys, sale.epoch).await;
        if removed.map_err(|error| error.in_sale(sale.id))? {
            tracing::info!(sale = sale.id.get(), "the sale ended a day ago; its keys are removed from Redis");
        }
        Ok(())
    }

    async fn load(&mut self, sale: &Sale, why: &'static str) {
        self.loading.remove(&sale.id);
        self.await_loads(LOADS_AT_ONCE as usize - 1).await;
        let (stores, id, epoch) = (Arc::clone(&self.stores), sale.id, sale.epoch);
        self.at_work.insert(id);
        self.loads.spawn(async move { (id, stores.load(id, epoch, why, &|_| {}).await.map(drop)) });
    }

    /// Waits until at most so many loads are at work.
    async fn await_loads(&mut self, left: usize) {
        while self.loads.len() > left
            && let Some(ended) = self.loads.join_next().await
        {
            self.note(ended);
        }
    }

    fn note(&mut self, ended: Result<(SaleId, Result<()>), JoinError>) {
        let (sale, result) = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        self.at_work.remove(&sale);
        if let Err(error) = result {
            tracing::warn!(%error, sale = sale.get(), "the keeper could not load a sale");
            self.failed.get_or_insert(error);
        }
    }
}

#[cfg(test)]
mod tests;
