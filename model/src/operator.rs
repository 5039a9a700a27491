//! An operator who discards a parked order: begin, record it as failed, tell Redis, remove the letter. The command may be
//! killed between any two of these; the keeper then begins anew with what is still there.

use crate::bounds::{Clause, Kind};
use crate::ledger::Verdict;
use crate::redis::{Entry, Settled};
use crate::state::{Breach, Epoch, Order, State, Status};
use crate::{Action, Protocol};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operator {
    Idle,
    /// `begin` found the sale open under this epoch.
    Begun(Order, Epoch),
    /// The row stands: Redis is to be told.
    Recorded(Order, Epoch),
}

pub(crate) fn actions(protocol: &Protocol, state: &State, actions: &mut Vec<Action>) {
    if !protocol.bounds.discards {
        return;
    }
    if state.operator != Operator::Idle {
        actions.extend([Action::Operate, Action::KillOperator]);
        return;
    }
    let letters = protocol.orders().filter(|&o| state.ledger.parked[usize::from(o)].is_some());
    let known = letters.filter(|&o| protocol.request(o).kind == Kind::Undecodable);
    actions.extend(known.map(Action::Discard));
}

pub(crate) fn begin(protocol: &Protocol, state: &mut State, order: Order) {
    let epoch = state.ledger.epoch;
    if !state.redis.fenced(protocol, epoch) {
        state.operator = Operator::Begun(order, epoch);
    }
}

pub(crate) fn step(protocol: &Protocol, state: &mut State) {
    state.operator = match state.operator {
        Operator::Begun(order, epoch) if state.ledger.admits(protocol, epoch, Clause::DiscardChecksEpoch) => {
            record(protocol, state, order);
            Operator::Recorded(order, epoch)
        }
        Operator::Recorded(order, epoch) => {
            tell(protocol, state, order, epoch);
            Operator::Idle
        }
        _ => Operator::Idle,
    };
}

/// Row and resolution in one transaction. The first word stands: a row that is there is not changed.
fn record(protocol: &Protocol, state: &mut State, order: Order) {
    let Some(seq) = state.ledger.parked[usize::from(order)] else { return };
    let entry = Entry { id: 0, order, seq, epoch: 0 };
    state.ledger.write(entry, Verdict::Failed { duplicate_of: None });
    if !protocol.keeps(Clause::LetterStaysUntilTold) {
        state.ledger.parked[usize::from(order)] = None;
    }
}

fn tell(protocol: &Protocol, state: &mut State, order: Order, epoch: Epoch) {
    let settled = state.redis.settle_discarded(protocol, epoch, order);
    if settled == Settled::GaveBack(Status::Failed) {
        state.breach(Breach::GaveBackTwice);
    }
    if settled != Settled::Fenced {
        state.ledger.parked[usize::from(order)] = None;
    }
}
