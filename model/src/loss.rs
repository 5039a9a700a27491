//! Redis loses writes: an older copy of its data comes back, or nothing does.

use crate::bounds::Loss;
use crate::redis::Sale;
use crate::state::{State, bit};
use crate::{Action, Protocol};

pub(crate) fn actions(state: &State, actions: &mut Vec<Action>) {
    if state.losses == 0 {
        return;
    }
    if state.copy != Some(state.redis.sale) {
        actions.push(Action::Copy);
    }
    if state.copy.is_some_and(|copy| copy != state.redis.sale) {
        actions.push(Action::Restore);
    }
    actions.push(Action::LoseEverything);
}

/// A copy is taken at any moment, again and again; the last one is what comes back.
pub(crate) fn copy(state: &mut State) {
    state.copy = Some(state.redis.sale);
}

pub(crate) fn lose(protocol: &Protocol, state: &mut State, remains: Sale) {
    state.redis.sale = remains;
    state.losses -= 1;
    if state.losses == 0 {
        state.copy = None;
    }
    match protocol.bounds.loss {
        Loss::Restart => state.redis.server += 1,
        Loss::Silent => state.memory.tainted = true,
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
