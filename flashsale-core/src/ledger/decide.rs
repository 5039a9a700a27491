//! What becomes of each order of a batch. A pure function of what the record says: no clock, no store.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use crate::{
    ids::{IdempotencyKey, OrderId, ProductId, UserId},
    order::{FailureReason, Fingerprint},
    queue::{QueuedOrder, Verdict},
    sql::products::Limits,
};

/// What the record says of everything that a batch touches. Deciding takes from it, so that the orders of a
/// batch see each other.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub recorded: HashMap<OrderId, Verdict>,
    pub key_holders: HashMap<(UserId, IdempotencyKey), (OrderId, Fingerprint)>,
    pub parked: HashSet<OrderId>,
    pub products: HashMap<ProductId, Limits>,
    /// Confirmed units.
    pub held: HashMap<(UserId, ProductId), i64>,
}

/// What is to be written for an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    /// It was decided before.
    Nothing,
    /// The order without its lines: the database refused it, possibly for them.
    Row,
    RowWithItems,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub verdict: Verdict,
    pub write: Write,
}

impl Decision {
    fn new(verdict: Verdict, write: Write) -> Self {
        Self { verdict, write }
    }
}

/// The sum of an order's lines in minor units; `None` when it does not fit.
pub(super) fn total(order: &QueuedOrder) -> Option<i64> {
    order
        .lines
        .iter()
        .try_fold(0_i64, |sum, line| sum.checked_add(line.unit_price.checked_mul(i64::from(line.quantity))?))
}

/// Decides a batch, in the order of admission, whatever order it comes in. The answers are in the batch's
/// order.
pub(super) fn decide(batch: &[&QueuedOrder], mut known: Known) -> Vec<Decision> {
    each_by_seq(batch, |order| known.decide(order))
}

/// Fails every order of a batch that is not decided yet: with this reason, or as the duplicate it is.
pub(super) fn fail(
    batch: &[&QueuedOrder],
    mut known: Known,
    reason: FailureReason,
    write: Write,
) -> Vec<Decision> {
    each_by_seq(batch, |order| {
        known.standing(order).unwrap_or_else(|| {
            let verdict = known.duplicate(order).unwrap_or(Verdict::Failed { reason, key_holder: None });
            known.note(order, &verdict);
            Decision::new(verdict, write)
        })
    })
}

fn each_by_seq(batch: &[&QueuedOrder], mut decide: impl FnMut(&QueuedOrder) -> Decision) -> Vec<Decision> {
    let mut by_seq: Vec<usize> = (0..batch.len()).collect();
    by_seq.sort_by_key(|&place| batch[place].seq);
    let mut decided: Vec<_> = by_seq.into_iter().map(|place| (place, decide(batch[place]))).collect();
    decided.sort_by_key(|(place, _)| *place);
    decided.into_iter().map(|(_, decision)| decision).collect()
}

impl Known {
    fn decide(&mut self, order: &QueuedOrder) -> Decision {
        if let Some(standing) = self.standing(order) {
            return standing;
        }
        let (verdict, write) = match self.duplicate(order).or_else(|| self.refused(order)) {
            Some(failed) => (failed, Write::RowWithItems),
            None if total(order).is_none() => {
                (Verdict::Failed { reason: FailureReason::Rejected, key_holder: None }, Write::Row)
            }
            None => (Verdict::Confirmed, Write::RowWithItems),
        };
        self.note(order, &verdict);
        Decision::new(verdict, write)
    }

    /// What was decided under this id stands. A row comes before a dead letter: one that an operator has ended
    /// has both for a while.
    fn standing(&self, order: &QueuedOrder) -> Option<Decision> {
        let parked = || self.parked.contains(&order.id).then_some(Verdict::Parked);
        let verdict = self.recorded.get(&order.id).cloned().or_else(parked)?;
        Some(Decision::new(verdict, Write::Nothing))
    }

    fn duplicate(&self, order: &QueuedOrder) -> Option<Verdict> {
        let holder = self.key_holders.get(&(order.user.clone(), order.key.clone()))?;
        Some(Verdict::Failed { reason: FailureReason::Duplicate, key_holder: Some(*holder) })
    }

    /// Quota before stock, as Redis judges them; all lines are judged before any is taken.
    fn refused(&self, order: &QueuedOrder) -> Option<Verdict> {
        let over_quota = |limits: &Limits, held: i64, units: i64| held + units > limits.per_user;
        let sold_out = |limits: &Limits, _held: i64, units: i64| limits.left < units;
        let any_line = |refuses: fn(&Limits, i64, i64) -> bool| {
            order.lines.iter().any(|line| {
                let held = self.held.get(&(order.user.clone(), line.product)).copied().unwrap_or(0);
                self.products
                    .get(&line.product)
                    .is_some_and(|limits| refuses(limits, held, i64::from(line.quantity)))
            })
        };
        let reason = if order.lines.iter().any(|line| !self.products.contains_key(&line.product)) {
            FailureReason::UnknownProduct
        } else if any_line(over_quota) {
            FailureReason::OverQuota
        } else if any_line(sold_out) {
            FailureReason::SoldOut
        } else {
            return None;
        };
        Some(Verdict::Failed { reason, key_holder: None })
    }

    fn note(&mut self, order: &QueuedOrder, verdict: &Verdict) {
        self.recorded.insert(order.id, verdict.clone());
        self.key_holders
            .entry((order.user.clone(), order.key.clone()))
            .or_insert_with(|| (order.id, order.fingerprint));
        if *verdict != Verdict::Confirmed {
            return;
        }
        for line in &order.lines {
            let units = i64::from(line.quantity);
            if let Some(limits) = self.products.get_mut(&line.product) {
                limits.left -= units;
            }
            *self.held.entry((order.user.clone(), line.product)).or_insert(0) += units;
        }
    }
}
