//! An operator who changes the stock in mid-sale, by difference: request it in the record, carry it to Redis, settle it.
//!
//! Whoever asked may be killed between any two of these; keepers carry what they find, at any time and more than once. A
//! process that holds a call for long is a call that arrives late.

use crate::bounds::Clause;
use crate::ledger::{Change, Outcome};
use crate::state::{CHANGES, Epoch, State};
use crate::{Action, Protocol};

/// What the scripts are called with. A settled change is added; of a wanted one Redis says whether it may be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) number: u8,
    /// What is added to what is left; 0 for a refused change.
    pub(crate) units: i8,
    pub(crate) wanted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Carrier {
    Idle,
    /// The record was read: Redis is to be told, or to be asked.
    Carrying(Call),
    /// Redis, under this epoch, gave the units of this change or refused them: the record is to be told.
    Answered {
        number: u8,
        epoch: Epoch,
        taken: bool,
    },
}

impl Carrier {
    pub(crate) fn number(self) -> Option<u8> {
        match self {
            Self::Idle => None,
            Self::Carrying(Call { number, .. }) | Self::Answered { number, .. } => Some(number),
        }
    }
}

pub(crate) fn actions(protocol: &Protocol, state: &State, actions: &mut Vec<Action>) {
    for carrier in 0..protocol.bounds.carriers {
        let this = state.carriers[carrier];
        if carrier == 1 && this == state.carriers[0] {
            // The same as what the other one does.
            continue;
        }
        match this {
            Carrier::Idle => begins(protocol, state, carrier, actions),
            Carrier::Carrying(_) => {
                actions.push(Action::CarryOn { carrier, old: false });
                if state.old.is_some() {
                    actions.push(Action::CarryOn { carrier, old: true });
                }
            }
            Carrier::Answered { .. } => actions.push(Action::CarryOn { carrier, old: false }),
        }
        if this != Carrier::Idle {
            actions.push(Action::KillCarrier(carrier));
        }
    }
}

/// A command asks for its change, or finds it asked for; or a keeper takes up one that is in the record.
fn begins(protocol: &Protocol, state: &State, carrier: usize, actions: &mut Vec<Action>) {
    let ledger = &state.ledger;
    let busy = ledger.wanted != ledger.settled && protocol.keeps(Clause::OneChangeAtATime);
    if !busy && usize::from(ledger.wanted) < CHANGES {
        let known = |change| ledger.changes.iter().flatten().any(|c| c.change == change);
        let once = protocol.keeps(Clause::ChangeOncePerOperation);
        let changes = (0u8..).take(protocol.bounds.changes.len());
        let new = changes.filter(|&change| !(once && known(change)));
        actions.extend(new.map(|change| Action::Ask { carrier, change }));
    }
    actions.extend((1..=ledger.wanted).map(|number| Action::Carry { carrier, number }));
}

/// One transaction. More stock is there for the record at once, so that Redis never sells what the record has not;
/// less is only wanted, as nobody but Redis knows what is held, or refused if so much is sold already.
pub(crate) fn ask(protocol: &Protocol, state: &mut State, carrier: usize, change: u8) {
    let units = protocol.units(change);
    let redis_first = if units > 0 {
        !protocol.keeps(Clause::IncreaseRecordFirst)
    } else {
        protocol.keeps(Clause::ReduceRedisFirst)
    };
    let ledger = &mut state.ledger;
    ledger.wanted += 1;
    let number = ledger.wanted;
    ledger.changes[usize::from(number - 1)] = Some(Change { change, outcome: Outcome::Wanted });
    let possible = ledger.confirmed(|_| true) <= ledger.stock + units;
    if !redis_first || !possible {
        ledger.settle(protocol, number, possible);
    }
    carry(protocol, state, carrier, number);
}

/// Reads one change from the record.
pub(crate) fn carry(protocol: &Protocol, state: &mut State, carrier: usize, number: u8) {
    let Some(change) = state.ledger.change(number) else { return };
    let units = if change.outcome == Outcome::Refused { 0 } else { protocol.units(change.change) };
    let wanted = change.outcome == Outcome::Wanted;
    state.carriers[carrier] = Carrier::Carrying(Call { number, units, wanted });
}

/// The next step. Redis it asks at the master, or at the old one.
pub(crate) fn step(protocol: &Protocol, state: &mut State, carrier: usize, old: bool) {
    state.carriers[carrier] = match state.carriers[carrier] {
        Carrier::Idle => Carrier::Idle,
        Carrier::Carrying(call) => tell(protocol, state, call, old),
        Carrier::Answered { number, epoch, taken } => {
            if state.ledger.admits(protocol, epoch, Clause::ChangeSettleChecksEpoch) {
                state.ledger.settle(protocol, number, taken);
            }
            Carrier::Idle
        }
    };
}

/// Of the epochs that a process may know, only the one that Redis has gets it further, so that one it is: also with a
/// change that was read long before.
fn tell(protocol: &Protocol, state: &mut State, call: Call, old: bool) -> Carrier {
    let master = state.old.as_mut().filter(|_| old).unwrap_or(&mut state.redis);
    let epoch = master.sale.epoch;
    if !call.wanted {
        master.add(protocol, epoch, call);
        return Carrier::Idle;
    }
    let number = call.number;
    master.take(protocol, epoch, call).map_or(Carrier::Idle, |taken| Carrier::Answered {
        number,
        epoch,
        taken,
    })
}
