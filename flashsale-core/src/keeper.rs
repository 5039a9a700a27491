//! The keeper: sees that every live sale is in Redis as the record says, and repairs it where it is not.

use std::{
    collections::{HashMap, HashSet},
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
    {
        Need::Load("Redis has lost the stock or the products")
    } else if !redis.intact {
        Need::Load("its book or its queue in Redis is damaged")
    } else if (state, redis.starts_ms, redis.ends_ms)
        != (sale.state, sale.starts_at.timestamp_millis(), sale.ends_at.timestamp_millis())
    {
        // Before the purge, which goes by the window that Redis has.
        Need::Carry
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
        }
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
        for sale in
            catalog.sales.values().filter(|sale| !self.purged.contains(&sale.id)).cloned().collect::<Vec<_>>()
        {
            if let Err(error) = self.keep(&sale).await {
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
                // Read again: what another keeper has carried meanwhile must not be undone.
                let catalog = stores.catalog.refresh().await?;
                let Some(sale) = catalog.sales.get(&sale.id).filter(|now| now.epoch == sale.epoch) else {
                    return Ok(());
                };
                let (starts, ends) = (sale.starts_at.timestamp_millis(), sale.ends_at.timestamp_millis());
                scripts::carry_state(&stores.link, &keys, sale.epoch, sale.state, starts, ends).await?;
                tracing::info!(sale = sale.id.get(), state = %sale.state, "state and window were carried to Redis");
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
        if waiting == 0
            && self.stores.record(sql::sales::mark_purged(&self.stores.pg, sale.id, sale.epoch)).await?
            && in_redis
            && scripts::purge(&self.stores.link, keys, sale.epoch).await?
        {
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

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;
    use crate::sale::SaleState;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(ms).unwrap()
    }

    /// A sale that is loaded, healthy and under way, by the record and by Redis.
    fn healthy() -> (Sale, LookedSale) {
        let (starts_ms, ends_ms) = (NOW_MS - 1_000, NOW_MS + 1_000);
        let sale = Sale {
            id: SaleId::try_from(1).unwrap(),
            slug: "test".to_owned(),
            name: "Test".to_owned(),
            currency: "USD".parse().unwrap(),
            starts_at: at(starts_ms),
            ends_at: at(ends_ms),
            state: SaleState::Open,
            epoch: Epoch(5),
            loaded_epoch: Epoch(5),
            recorded_seq: Seq(10),
            recover_requested: Epoch(4),
            purged_at: None,
            products: Vec::new(),
        };
        let redis = LookedSale {
            epoch: Epoch(5),
            state: Some(SaleState::Open),
            seq: Seq(10),
            token: String::new(),
            sound: true,
            version: scripts::VERSION,
            starts_ms,
            ends_ms,
            stock: HashMap::new(),
            products: 0,
            intact: true,
            book: Vec::new(),
        };
        (sale, redis)
    }

    type Change = fn(&mut Sale, &mut LookedSale);

    fn judged(change: Change, in_redis: bool) -> String {
        let (mut sale, mut redis) = healthy();
        change(&mut sale, &mut redis);
        let seen = Look { now_ms: NOW_MS, server: String::new(), sale: in_redis.then_some(redis) };
        format!("{:?}", need(&sale, sale.recorded_seq, &seen))
    }

    fn ended(sale: &mut Sale, redis: &mut LookedSale) {
        redis.ends_ms = NOW_MS - KEEP_AFTER_END_MS;
        redis.starts_ms = redis.ends_ms - 1;
        (sale.starts_at, sale.ends_at) = (at(redis.starts_ms), at(redis.ends_ms));
    }

    #[test]
    fn a_sale_in_redis_needs() {
        let table: [(Change, &str); 24] = [
            (|_, _| {}, "Nothing"),
            (|_, redis| redis.intact = false, "Load"),
            // While it is loading it is not whole, and an old master is not repaired by itself.
            (|_, redis| (redis.intact, redis.state) = (false, None), "Wait"),
            (|_, redis| (redis.intact, redis.epoch) = (false, Epoch(4)), "Alarm"),
            (|sale, redis| (ended(sale, redis), redis.intact = false).1, "Load"),
            (|_, redis| redis.seq = Seq(11), "Nothing"),
            (|_, redis| redis.seq = Seq(9), "Load"),
            (|_, redis| redis.sound = false, "Load"),
            (|_, redis| redis.version -= 1, "Load"),
            (|_, redis| redis.version += 1, "Alarm"),
            (|_, redis| (redis.version, redis.state) = (redis.version + 1, None), "Alarm"),
            (|sale, _| sale.recover_requested = Epoch(5), "Load"),
            (|_, redis| redis.state = None, "Wait"),
            // A server that was restarted while loading: the load that is under way will find out.
            (|_, redis| (redis.state, redis.sound) = (None, false), "Wait"),
            (|sale, _| sale.epoch = Epoch(6), "Load"),
            (|_, redis| redis.epoch = Epoch(6), "Behind"),
            (|_, redis| redis.epoch = Epoch(4), "Alarm"),
            (|sale, redis| (sale.epoch, redis.epoch) = (Epoch(6), Epoch(4)), "Alarm"),
            (|sale, _| sale.state = SaleState::Paused, "Carry"),
            (|sale, _| sale.ends_at = at(NOW_MS + 2_000), "Carry"),
            (ended, "Purge"),
            (|sale, redis| (ended(sale, redis), sale.purged_at = Some(at(NOW_MS))).1, "Purge"),
            // Redis would not be purged by a window that it does not have yet.
            (|sale, redis| (ended(sale, redis), redis.ends_ms += 1).1, "Carry"),
            (|sale, redis| (ended(sale, redis), redis.sound = false).1, "Load"),
        ];
        for (row, (change, expected)) in table.into_iter().enumerate() {
            let need = judged(change, true);
            assert!(need.starts_with(expected), "row {row}: {need}, not {expected}");
        }
    }

    #[test]
    fn a_sale_that_redis_does_not_hold_needs() {
        let table: [(Change, &str); 5] = [
            (|_, _| {}, "Load"),
            (|sale, _| sale.epoch = Epoch(0), "Load"),
            (|sale, _| sale.purged_at = Some(at(NOW_MS)), "Nothing"),
            // Over, but its orders may wait in the record: it is loaded, then purged.
            (ended, "Load"),
            (|sale, redis| (ended(sale, redis), sale.epoch = Epoch(0)).1, "Purge"),
        ];
        for (row, (change, expected)) in table.into_iter().enumerate() {
            let need = judged(change, false);
            assert!(need.starts_with(expected), "row {row}: {need}, not {expected}");
        }
    }
}
