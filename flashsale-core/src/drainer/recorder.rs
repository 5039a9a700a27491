//! The record's side of a drainer.

use std::{collections::HashMap, sync::Arc};

use super::{Batch, stopped};
use crate::{
    error::Result,
    ids::SaleId,
    order::FailureReason,
    queue::{Decoded, QueuedOrder, Verdict},
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
        let verdicts = stores.ledger.record(sale, batch.epoch, &orders, batch.reached.take()).await;
        let verdicts = match verdicts {
            Ok(verdicts) => verdicts,
            Err(error) => return Err(stopped(stores, error.in_sale(sale)).await),
        };
        for (Decoded { entry, order }, verdict) in orders.into_iter().zip(verdicts) {
            if let Some(reason) = guard_refusal(&order, &verdict, batch.epoch) {
                batch.guard_refusals.push(reason);
                batch.distrust = Some("the record refused what Redis had admitted");
            }
            batch.settlements.push(Settlement { entry, holding: Some(order.into()), verdict });
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

/// Why the record refused what Redis let in by the same limits under this very epoch: then Redis is wrong. An order
/// of an earlier epoch may have been admitted by a Redis that was replaced since.
fn guard_refusal(order: &QueuedOrder, verdict: &Verdict, epoch: Epoch) -> Option<FailureReason> {
    use FailureReason::{OverQuota, SoldOut};
    match verdict {
        Verdict::Failed { reason: reason @ (SoldOut | OverQuota), .. } if order.epoch == epoch => {
            Some(*reason)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::order;

    #[test]
    fn only_a_refusal_of_this_epoch_shows_redis_wrong() {
        use FailureReason::{Duplicate, OverQuota, Rejected, SoldOut};
        let order = order(SaleId::try_from(1).unwrap(), 1, "ann", "a", &[(3, 1)]);
        let shows = |verdict, epoch| guard_refusal(&order, &verdict, Epoch(epoch));
        let failed = |reason| Verdict::Failed { reason, key_holder: None };
        let duplicate =
            Verdict::Failed { reason: Duplicate, key_holder: Some((order.id, order.fingerprint)) };
        assert_eq!(shows(failed(SoldOut), 1), Some(SoldOut));
        assert_eq!(shows(failed(OverQuota), 1), Some(OverQuota));
        assert_eq!(shows(failed(SoldOut), 2), None);
        assert_eq!(shows(failed(Rejected), 1), None);
        assert_eq!(shows(duplicate, 1), None);
        assert_eq!(shows(Verdict::Confirmed, 1), None);
        assert_eq!(shows(Verdict::Parked, 1), None);
    }
}
