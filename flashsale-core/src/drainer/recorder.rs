//! The record's side of a drainer.

use std::{collections::HashMap, sync::Arc};

use super::{Batch, stopped};
use crate::{
    error::Result,
    ids::SaleId,
    queue::{Decoded, Verdict},
    sale::Epoch,
    scripts::Settlement,
    sql,
    stores::Stores,
};

/// Tells the keeper when batches show that Redis is wrong.
pub(super) struct Recorder {
    stores: Arc<Stores>,
    /// Epochs under which Redis was seen to be wrong, until the request to recover is written.
    distrusted: HashMap<SaleId, Epoch>,
}

impl Recorder {
    pub(super) fn new(stores: Arc<Stores>) -> Self {
        Self { stores, distrusted: HashMap::new() }
    }

    /// What a batch shows of Redis. Not before its entries without a state are parked: a recovery that finds them
    /// in the queue takes those that can be read for admitted orders. Not after the settle either, for nothing
    /// else shows what is wrong if we die then.
    pub(super) async fn heed(&mut self, sale: SaleId, batch: &Batch) -> Result<()> {
        match batch.distrust {
            Some(why) => self.distrust(sale, batch.epoch, why).await,
            None => Ok(()),
        }
    }

    /// Redis is wrong under this epoch: the keeper is asked to recover the sale.
    pub(super) async fn distrust(&mut self, sale: SaleId, epoch: Epoch, why: &str) -> Result<()> {
        tracing::error!(%sale, %epoch, why, "Redis is wrong; a recovery is requested");
        self.distrusted.insert(sale, epoch);
        self.ask_for_recovery(sale).await
    }

    /// What is not written yet is written before the next unit: the entries that showed it may be gone.
    pub(super) async fn ask_for_recovery(&mut self, sale: SaleId) -> Result<()> {
        if let Some(epoch) = self.distrusted.get(&sale) {
            self.stores.record(sql::request_recover(&self.stores.pg, sale, *epoch)).await?;
            self.distrusted.remove(&sale);
        }
        Ok(())
    }
}

/// Records the batch; its verdicts join those that stood before. Whether it shows that Redis is wrong stands in
/// the batch, also where the recording fails.
pub(super) async fn record(stores: &Stores, sale: SaleId, batch: &mut Batch) -> Result<()> {
    let orders = std::mem::take(&mut batch.orders);
    if !orders.is_empty() {
        let recorded = stores.ledger.record(sale, batch.epoch, &orders, batch.reached.take()).await;
        let recorded = match recorded {
            Ok(recorded) => recorded,
            Err(error) => return Err(stopped(stores, error.in_sale(sale)).await),
        };
        for (Decoded { entry, order }, verdict) in orders.into_iter().zip(recorded.verdicts) {
            // One of an earlier epoch may have been admitted by a Redis that was replaced since.
            if let Verdict::Failed { reason, .. } = verdict
                && verdict.contradicts_redis()
                && order.epoch == batch.epoch
            {
                batch.guard_refusals.push(reason);
            }
            batch.settlements.push(Settlement { entry, holding: Some(order.into()), verdict });
        }
        if recorded.distrust {
            batch.distrust = Some("the record refused what Redis had admitted");
        }
    }
    for (entry, why) in std::mem::take(&mut batch.park) {
        let verdict = stores.ledger.park(sale, batch.epoch, &entry, &why).await;
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(error) => return Err(stopped(stores, error.in_sale(sale)).await),
        };
        if verdict == Verdict::Parked {
            tracing::error!(
                sale = sale.get(),
                entry = entry.id,
                order = entry.order_id(sale).map(tracing::field::display),
                request_id = entry.request_id().map(tracing::field::display),
                why,
                "an order is parked; see `flashsale dead-letters list`"
            );
        }
        let holding = entry.holding(sale).ok();
        batch.settlements.push(Settlement { entry, holding, verdict });
    }
    if batch.stateless > 0 {
        batch.distrust = Some("queue entries without a state");
    }
    Ok(())
}
