//! Redis loses writes: an older copy of its data comes back, or nothing does.

use crate::bounds::Loss;
use crate::redis::Sale;
use crate::state::{State, bit};
use crate::{Action, Protocol};

pub(crate) fn actions(loss: Loss, state: &State, actions: &mut Vec<Action>) {
    if state.losses == 0 {
        return;
    }
    if loss == Loss::Damage {
        return actions.push(Action::Damage);
    }
    if state.copy != Some(state.redis.sale) {
        actions.push(Action::Copy);
    }
    // A replica that was up to date is another master all the same.
    if state.copy.is_some_and(|copy| copy != state.redis.sale || loss == Loss::Failover) {
        actions.push(Action::Restore);
    }
    if loss != Loss::Failover {
        actions.push(Action::LoseEverything);
    }
}

/// Somebody overwrites the book. Its entries stay in the stream, so nothing is lost that is not read again.
pub(crate) fn damage(state: &mut State) {
    let sale = &mut state.redis.sale;
    sale.damaged = true;
    (sale.quota, sale.keys, sale.states) = Default::default();
    state.losses -= 1;
}

/// A copy is taken at any moment, again and again; the last one is what comes back.
pub(crate) fn copy(state: &mut State) {
    state.copy = Some(state.redis.sale);
}

pub(crate) fn lose(protocol: &Protocol, state: &mut State, remains: Sale) {
    if protocol.bounds.loss == Loss::Failover {
        state.old = Some(state.redis);
    }
    state.redis.sale = remains;
    state.losses -= 1;
    if state.losses == 0 {
        state.copy = None;
    }
    match protocol.bounds.loss {
        Loss::Restart | Loss::Failover => state.redis.server += 1,
        Loss::Silent => state.memory.tainted = true,
        Loss::Damage => {}
    }
    for order in protocol.orders() {
        let slot = usize::from(order);
        let admitted = state.memory.admitted & bit(order) != 0;
        if admitted && state.ledger.status(order).is_none() && remains.stream[slot].is_none() {
            state.memory.lost |= bit(order);
            state.memory.shown[slot] = None;
        }
    }
}
