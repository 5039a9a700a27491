//! What a drainer has in hand.

use std::time::Instant;

use super::Drained;
use crate::{
    ids::{OrderId, RequestId, SaleId},
    ledger::Reached,
    order::FailureReason,
    queue::{Decoded, Entry, Holding, Verdict},
    sale::Epoch,
    scripts::{Settled, Settlement},
};

/// A batch between `begin` and `settle`.
pub(crate) struct Batch {
    pub epoch: Epoch,
    /// To be recorded.
    pub orders: Vec<Decoded>,
    /// To be parked, and why.
    pub park: Vec<(Entry, String)>,
    /// Orders among these of which Redis has no state, which shows that it has lost something.
    pub stateless: usize,
    /// Final before: only their acknowledgement is due.
    pub acknowledge: Vec<Entry>,
    /// Those of them that were confirmed: they are still queued because somebody died, or the sale was
    /// recovered, before the buyers' carts were seen to.
    pub confirmed_before: Vec<Holding>,
    /// Verdicts of the ledger.
    pub settlements: Vec<Settlement>,
    /// Why the record refused what Redis had let in.
    pub guard_refusals: Vec<FailureReason>,
    /// What it shows to be wrong with Redis.
    pub distrust: Option<&'static str>,
    /// When it was begun.
    pub began: Instant,
    /// How many entries were taken for it.
    pub read: usize,
    /// They are our own that a unit had left over.
    pub left_over: bool,
    /// They are as many as are taken at once.
    pub full: bool,
    /// Where to record it, if PostgreSQL was reached before the batch was begun.
    pub reached: Option<Reached>,
}

impl Batch {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            orders: Vec::new(),
            park: Vec::new(),
            stateless: 0,
            acknowledge: Vec::new(),
            confirmed_before: Vec::new(),
            settlements: Vec::new(),
            guard_refusals: Vec::new(),
            distrust: None,
            began: Instant::now(),
            read: 0,
            left_over: false,
            full: false,
            reached: None,
        }
    }
}

/// What a batch came to.
pub(super) struct Ended {
    pub epoch: Epoch,
    pub drained: Drained,
    /// Redis has no state of orders that the record has.
    pub missing: bool,
}

impl Ended {
    /// What the record says, before it is settled.
    pub(super) fn recorded(batch: &Batch) -> Self {
        let mut drained = Drained { read: batch.read, ..Drained::default() };
        for settlement in &batch.settlements {
            match settlement.verdict {
                Verdict::Confirmed => drained.confirmed += 1,
                Verdict::Failed { .. } => drained.failed += 1,
                Verdict::Parked => drained.parked += 1,
            }
        }
        Self { epoch: batch.epoch, drained, missing: false }
    }

    pub(super) fn settled(mut self, settled: &Settled) -> Self {
        self.drained.given_back = settled.given_back;
        self.missing = !settled.missing.is_empty();
        self
    }
}

/// An order that the record failed: its buyer will ask why.
pub(super) struct Failed {
    order: Option<OrderId>,
    request_id: Option<RequestId>,
    pub reason: FailureReason,
}

impl Failed {
    pub(super) fn of(sale: SaleId, settled: &Settlement) -> Option<Self> {
        let Verdict::Failed { reason, .. } = settled.verdict else { return None };
        let entry = &settled.entry;
        Some(Self { order: entry.order_id(sale), request_id: entry.request_id(), reason })
    }

    pub(super) fn note(&self, sale: SaleId) {
        let order = self.order.map(tracing::field::display);
        let request_id = self.request_id.as_ref().map(tracing::field::display);
        tracing::info!(%sale, order, request_id, reason = %self.reason, "an admitted order failed");
    }
}
