//! The queue's side of a drainer: what goes through Redis.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use super::{
    Batch,
    batch::{Ended, Failed},
    intake::Taken,
    stopped,
};
use crate::{
    cart,
    error::{Error, Result},
    ids::SaleId,
    keys::SaleKeys,
    link::Link,
    queue::{Decoded, Entry, Verdict},
    sale::Epoch,
    scripts::{self, Begun, Settled, Settlement},
    stores::Stores,
};

/// Takes entries from the queues, and settles them.
pub(super) struct QueueSide {
    pub(super) stores: Arc<Stores>,
    pub(super) link: Link,
    pub(super) consumer: String,
    /// Sales of which entries may be pending under our own name, because a unit did not end.
    pub(super) unfinished: HashSet<SaleId>,
    /// When stale entries of a sale were last claimed, and where the next claim continues.
    pub(super) claimed: HashMap<SaleId, (Instant, String)>,
}

impl QueueSide {
    pub(super) fn new(stores: Arc<Stores>) -> Self {
        let link = Link::new(stores.redis.clone(), stores.config.redis_deadline);
        // Two processes must never share a name: one would take over what the other is working on.
        let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
        let consumer = format!("{}-{}-{:08x}", host.trim(), std::process::id(), rand::random::<u32>());
        Self { stores, link, consumer, unfinished: HashSet::new(), claimed: HashMap::new() }
    }

    /// Begins what was taken; `None` if that is nothing.
    pub(super) async fn begun(&self, sale: SaleId, taken: Taken) -> Result<Option<Batch>> {
        let Taken { entries, left_over, full } = taken;
        if entries.is_empty() {
            return Ok(None);
        }
        // While the record is away nothing becomes of these orders: they stay `Queued`, which is what they are.
        let reached = self.stores.ledger.reached().await?;
        let (began, read) = (Instant::now(), entries.len());
        let batch = self.begin(sale, entries).await?;
        Ok(Some(Batch { began, read, left_over, full, reached: Some(reached), ..batch }))
    }

    pub(super) fn epoch(&self, sale: SaleId) -> Result<Epoch> {
        let sale = self.stores.catalog.sale(sale)?.ok_or_else(|| Error::not_found(format!("sale {sale}")))?;
        Ok(sale.epoch)
    }

    /// Marks the entries as processed under the epoch that we know, and sorts them by what is to be done.
    pub(super) async fn begin(&self, sale: SaleId, entries: Vec<Entry>) -> Result<Batch> {
        let epoch = self.epoch(sale)?;
        let begun = match scripts::begin(&self.link, &SaleKeys::new(sale), epoch, &entries).await {
            Ok(begun) => begun,
            Err(error) => return Err(stopped(&self.stores, error.in_sale(sale)).await),
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
                    batch.stateless += usize::from(entry.order_id(sale).is_some());
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

    /// Everything that follows the record's verdicts.
    pub(super) async fn finish(&self, sale: SaleId, mut batch: Batch) -> Result<Ended> {
        let recorded = Ended::recorded(&batch);
        self.take_from_carts(&batch).await?;
        let ended = recorded.settled(&self.settle(sale, &mut batch).await?);
        // Only what was settled: until then it is done, and would be told, again.
        for reason in &batch.guard_refusals {
            self.stores.meters.guard_refused(*reason);
        }
        let failed = batch.settlements.iter().filter_map(|settled| Failed::of(sale, settled));
        let reasons: Vec<_> =
            failed.inspect(|failed| failed.note(sale)).map(|failed| failed.reason).collect();
        self.stores.meters.drained(&ended.drained, &reasons, batch.began.elapsed());
        Ok(ended)
    }

    /// Takes what was bought out of the buyers' carts: before Redis shows the orders as confirmed, so that who
    /// sees that finds a cart without them, and so that it is done again if we die in between.
    pub(super) async fn take_from_carts(&self, batch: &Batch) -> Result<()> {
        let confirmed = batch.settlements.iter().filter(|settled| settled.verdict == Verdict::Confirmed);
        let mut bought: Vec<_> = confirmed.filter_map(|settled| settled.holding.as_ref()).collect();
        bought.extend(&batch.confirmed_before);
        Ok(cart::take_bought(&self.link, &bought).await?)
    }

    /// Writes the verdicts back to Redis.
    pub(super) async fn settle(&self, sale: SaleId, batch: &mut Batch) -> Result<Settled> {
        // Settling as parked does no more than acknowledge.
        let acknowledge = |entry| Settlement { entry, holding: None, verdict: Verdict::Parked };
        batch.settlements.extend(std::mem::take(&mut batch.acknowledge).into_iter().map(acknowledge));
        if batch.settlements.is_empty() {
            return Ok(Settled::default());
        }
        let keys = SaleKeys::new(sale);
        match scripts::settle(&self.link, &keys, batch.epoch, &batch.settlements).await {
            Ok(settled) => Ok(settled),
            Err(error) => Err(stopped(&self.stores, error.in_sale(sale)).await),
        }
    }

    /// Removes our name from a group, where nothing is pending under it.
    pub(super) async fn leave(&self, sale: SaleId) {
        if !self.unfinished.contains(&sale) {
            let _ = scripts::leave(&self.link, &SaleKeys::new(sale), &self.consumer).await;
        }
    }
}
