//! The drainer: takes admitted orders from the queue to the record, and the record's verdicts back.
//!
//! One unit of work is `read`, `begin`, `record`, `settle`. A process may die after any of them: an entry is
//! acknowledged only after its order is recorded, and what a dead drainer held is claimed by another.

mod batch;
mod intake;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::RngExt;
use tokio_util::sync::CancellationToken;

pub(crate) use self::batch::Batch;
use self::batch::Failed;
use crate::{
    cart,
    engine::Stores,
    error::{Error, Result},
    ids::SaleId,
    keys::SaleKeys,
    link::Link,
    queue::{Decoded, Entry, Verdict},
    sale::{Epoch, Sale},
    scripts::{self, Begun, Settlement},
    sql,
};

/// The pause after a unit that found nothing to do: it doubles from the first to the second.
const IDLE_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// The pause after a failure, likewise.
const FAILURE_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What one unit of work did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Entries that were taken from the queue.
    pub read: usize,
    /// Orders that the ledger confirmed, now or before.
    pub confirmed: usize,
    /// Orders that the ledger failed, now or before.
    pub failed: usize,
    /// Entries that were parked for an operator.
    pub parked: usize,
    /// Orders whose units went back to stock and quota now.
    pub given_back: usize,
}

/// Takes the orders of all live sales from their queues to the record.
///
/// Promises: every admitted order ends as `Confirmed` or `Failed` (P5); units go back exactly once, after
/// the record says `Failed`, and never otherwise (P6); what a killed or stopped drainer held is taken over
/// within 10 seconds (P9). One drainer at a time writes for a sale; a second one is a standby.
pub struct Drainer {
    stores: Arc<Stores>,
    link: Link,
    consumer: String,
    /// Sales of which entries may be pending under our own name, because a unit did not end.
    unfinished: HashSet<SaleId>,
    /// Sales whose last unit failed.
    resting: HashMap<SaleId, Rest>,
    /// Epochs under which Redis was seen to be wrong, until the request to recover is written.
    distrusted: HashMap<SaleId, Epoch>,
    /// When stale entries of a sale were last claimed, and where the next claim continues.
    claimed: HashMap<SaleId, (Instant, String)>,
}

/// A sale is left alone for a while after a failure.
struct Rest {
    until: Instant,
    pause: Duration,
}

impl Drainer {
    pub(crate) fn new(stores: Arc<Stores>) -> Self {
        let link = Link::new(stores.redis.clone(), stores.config.redis_deadline);
        // Two processes must never share a name: one would take over what the other is working on.
        let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
        let consumer = format!("{}-{}-{:08x}", host.trim(), std::process::id(), rand::random::<u32>());
        Self {
            stores,
            link,
            consumer,
            unfinished: HashSet::new(),
            resting: HashMap::new(),
            distrusted: HashMap::new(),
            claimed: HashMap::new(),
        }
    }

    /// The name under which it takes entries: host, process id, random.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.consumer
    }

    /// Drains all live sales until shutdown; the batch in hand is finished first. Only decides *when*.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut idle = IDLE_PAUSE.0;
        while !shutdown.is_cancelled() {
            let mut worked = false;
            for sale in self.live_sales() {
                worked |= self.drain_unless_resting(sale).await;
            }
            if worked {
                idle = IDLE_PAUSE.0;
                continue;
            }
            idle = (idle * 2).min(IDLE_PAUSE.1);
            tokio::select! {
                () = tokio::time::sleep(idle) => {}
                () = shutdown.cancelled() => {}
            }
        }
        self.leave().await;
    }

    /// Drains a sale, unless it failed a moment ago: one sale in trouble must not hold up the others.
    async fn drain_unless_resting(&mut self, sale: SaleId) -> bool {
        if self.resting.get(&sale).is_some_and(|rest| Instant::now() < rest.until) {
            return false;
        }
        match self.drain_once(sale).await {
            Ok(drained) => {
                self.resting.remove(&sale);
                drained.read > 0
            }
            Err(error) => {
                tracing::warn!(%error, sale = sale.get(), "draining failed; nothing was acknowledged");
                let last = self.resting.get(&sale).map_or(FAILURE_PAUSE.0, |rest| rest.pause);
                let pause = (last * 2).min(FAILURE_PAUSE.1);
                // Drainers that were thrown out together shall not come back together.
                let until = Instant::now() + pause.mul_f64(rand::rng().random_range(0.5..1.0));
                self.resting.insert(sale, Rest { until, pause });
                false
            }
        }
    }

    /// Sales that are in Redis under the epoch that we know.
    fn live_sales(&self) -> Vec<SaleId> {
        let Ok(catalog) = self.stores.catalog.reading() else { return Vec::new() };
        let live = |sale: &&Arc<Sale>| {
            sale.purged_at.is_none() && sale.loaded_epoch == sale.epoch && sale.epoch.get() > 0
        };
        let mut sales: Vec<_> = catalog.sales.values().filter(live).map(|sale| sale.id).collect();
        sales.sort_unstable();
        sales
    }

    /// Does one unit of work for one sale and says what it did. An error leaves everything pending; the
    /// next unit, or another drainer, does it again.
    pub async fn drain_once(&mut self, sale: SaleId) -> Result<Drained> {
        let drained = self.drain_unit(sale).await;
        if drained.is_err() {
            self.stores.meters.drain_failures.increment(1);
        }
        drained
    }

    async fn drain_unit(&mut self, sale: SaleId) -> Result<Drained> {
        self.ask_for_recovery(sale).await?;
        let entries = self.read(sale).await?;
        if entries.is_empty() {
            self.unfinished.remove(&sale);
            return Ok(Drained::default());
        }
        // Until the settle was answered, these entries may stay pending under our name.
        self.unfinished.insert(sale);
        // While the record is away nothing becomes of these orders: they stay `Queued`, which is what they are.
        let reached = self.stores.ledger.reached().await?;
        let began = Instant::now();
        let mut drained = Drained { read: entries.len(), ..Drained::default() };
        let mut batch = self.begin(sale, entries).await?;
        batch.reached = Some(reached);
        self.record(sale, &mut batch).await?;
        let verdict = |is: Verdict| batch.settlements.iter().filter(|settled| settled.verdict == is).count();
        (drained.confirmed, drained.parked) = (verdict(Verdict::Confirmed), verdict(Verdict::Parked));
        let failed: Vec<_> = batch.settlements.iter().filter_map(Failed::of).collect();
        drained.failed = failed.len();
        let guard_refusals = std::mem::take(&mut batch.guard_refusals);
        self.take_from_carts(&batch).await?;
        drained.given_back = self.settle(sale, batch).await?;
        self.unfinished.remove(&sale);
        // Only what was settled: until then it is done, and would be told, again.
        for reason in guard_refusals {
            self.stores.meters.guard_refused(reason);
        }
        let mut reasons = Vec::new();
        for failed in failed {
            failed.note(sale);
            reasons.push(failed.reason);
        }
        self.stores.meters.drained(&drained, &reasons, began.elapsed());
        Ok(drained)
    }

    fn epoch(&self, sale: SaleId) -> Result<Epoch> {
        let sale = self.stores.catalog.sale(sale)?.ok_or_else(|| Error::not_found(format!("sale {sale}")))?;
        Ok(sale.epoch)
    }

    /// Marks the entries as processed under the epoch that we know, and sorts them by what is to be done.
    pub(crate) async fn begin(&mut self, sale: SaleId, entries: Vec<Entry>) -> Result<Batch> {
        let epoch = self.epoch(sale)?;
        let begun = match scripts::begin(&self.link, &SaleKeys::new(sale), epoch, &entries).await {
            Ok(begun) => begun,
            Err(error) => return Err(self.stopped(error.in_sale(sale)).await),
        };
        let mut batch = Batch::new(epoch);
        for (entry, begun) in entries.into_iter().zip(begun) {
            match begun {
                // Another stream, or another drainer was faster: not ours to judge.
                Begun::Gone => {}
                Begun::Confirmed => {
                    batch.confirmed_before.extend(entry.holding(sale));
                    batch.acknowledge.push(entry);
                }
                Begun::Failed => batch.acknowledge.push(entry),
                Begun::Missing => {
                    batch.stateless += usize::from(entry.order_id().is_some());
                    batch.park.push((entry, "no state is known for this order in Redis".to_owned()));
                }
                Begun::Processing => match entry.decode(sale) {
                    Ok(order) => batch.orders.push(Decoded { entry, order }),
                    Err(why) => batch.park.push((entry, why)),
                },
            }
        }
        Ok(batch)
    }

    /// Records the batch; its verdicts join those that stood before.
    pub(crate) async fn record(&mut self, sale: SaleId, batch: &mut Batch) -> Result<()> {
        let stores = Arc::clone(&self.stores);
        let orders = std::mem::take(&mut batch.orders);
        if !orders.is_empty() {
            let recorded = stores.ledger.record(sale, batch.epoch, &orders, batch.reached.take()).await;
            let recorded = match recorded {
                Ok(recorded) => recorded,
                Err(error) => return Err(self.stopped(error.in_sale(sale)).await),
            };
            for (Decoded { entry, order }, verdict) in orders.into_iter().zip(recorded.verdicts) {
                // One of an earlier epoch may have been admitted by a Redis that was replaced since.
                if let Verdict::Failed { reason, .. } = verdict
                    && verdict.contradicts_redis()
                    && order.epoch == batch.epoch
                {
                    batch.guard_refusals.push(reason);
                }
                let holding = entry.holding(sale).ok();
                batch.settlements.push(Settlement { entry, holding, verdict });
            }
            if recorded.distrust {
                self.distrust(sale, batch.epoch, "the record refused what Redis had admitted").await?;
            }
        }
        for (entry, why) in std::mem::take(&mut batch.park) {
            let verdict = stores.ledger.park(sale, batch.epoch, &entry, &why).await;
            let verdict = match verdict {
                Ok(verdict) => verdict,
                Err(error) => return Err(self.stopped(error.in_sale(sale)).await),
            };
            if verdict == Verdict::Parked {
                tracing::error!(
                    sale = sale.get(),
                    entry = entry.id,
                    order = entry.order_id().map(tracing::field::display),
                    request_id = entry.request_id().map(tracing::field::display),
                    why,
                    "an order is parked; see `flashsale dead-letters list`"
                );
            }
            let holding = entry.holding(sale).ok();
            batch.settlements.push(Settlement { entry, holding, verdict });
        }
        // Not before they are parked: a recovery that finds them in the queue takes those that can be read for
        // admitted orders. Not after the settle either, for nothing else shows what is wrong if we die then.
        if batch.stateless > 0 {
            self.distrust(sale, batch.epoch, "queue entries without a state").await?;
        }
        Ok(())
    }

    /// Takes what was bought out of the buyers' carts: before Redis shows the orders as confirmed, so that who
    /// sees that finds a cart without them, and so that it is done again if we die in between.
    pub(crate) async fn take_from_carts(&self, batch: &Batch) -> Result<()> {
        let confirmed = batch.settlements.iter().filter(|settled| settled.verdict == Verdict::Confirmed);
        let mut bought: Vec<_> = confirmed.filter_map(|settled| settled.holding.as_ref()).collect();
        bought.extend(&batch.confirmed_before);
        Ok(cart::take_bought(&self.link, &bought).await?)
    }

    /// Writes the verdicts back to Redis. Says how many orders' units went back now.
    pub(crate) async fn settle(&mut self, sale: SaleId, mut batch: Batch) -> Result<usize> {
        // Settling as parked does no more than acknowledge.
        let acknowledge = |entry| Settlement { entry, holding: None, verdict: Verdict::Parked };
        batch.settlements.extend(batch.acknowledge.into_iter().map(acknowledge));
        if batch.settlements.is_empty() {
            return Ok(0);
        }
        let keys = SaleKeys::new(sale);
        let settled = match scripts::settle(&self.link, &keys, batch.epoch, &batch.settlements).await {
            Ok(settled) => settled,
            Err(error) => return Err(self.stopped(error.in_sale(sale)).await),
        };
        if !settled.missing.is_empty() {
            self.distrust(sale, batch.epoch, "recorded orders without a state").await?;
        }
        Ok(settled.given_back)
    }

    /// Redis is wrong under this epoch: the keeper is asked to recover the sale.
    async fn distrust(&mut self, sale: SaleId, epoch: Epoch, why: &str) -> Result<()> {
        tracing::error!(%sale, %epoch, why, "Redis is wrong; a recovery is requested");
        self.distrusted.insert(sale, epoch);
        self.ask_for_recovery(sale).await
    }

    /// What is not written yet is written before the next unit: the entries that showed it may be gone.
    async fn ask_for_recovery(&mut self, sale: SaleId) -> Result<()> {
        if let Some(epoch) = self.distrusted.get(&sale) {
            self.stores.record(sql::request_recover(&self.stores.pg, sale, *epoch)).await?;
            self.distrusted.remove(&sale);
        }
        Ok(())
    }

    /// What stopped a step. Perhaps the sale stands under a newer epoch than we know of.
    async fn stopped(&self, error: Error) -> Error {
        if error.is_fenced() {
            let _ = self.stores.catalog.refresh().await;
        }
        error
    }

    /// Removes our name from the groups, where nothing is pending under it.
    async fn leave(&self) {
        for sale in self.live_sales() {
            if !self.unfinished.contains(&sale) {
                let _ = scripts::leave(&self.link, &SaleKeys::new(sale), &self.consumer).await;
            }
        }
    }
}
