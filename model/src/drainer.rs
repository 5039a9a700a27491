//! A drainer: read or claim, begin, record (or park), settle. It dies between any two of these and starts anew.

use crate::bounds::Clause;
use crate::ledger::Verdict;
use crate::redis::{Begun, Entry, Settled};
use crate::state::{Breach, Epoch, Order, State, Status};
use crate::{Action, Protocol};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Drainer {
    Idle,
    Holding(Entry),
    /// `begin` said `processing` under this epoch.
    Begun(Entry, Epoch),
    /// `begin` said `missing`: to be parked.
    Missing(Entry, Epoch),
    /// Decided but not written. Only without [`Clause::RecordUnderLock`] is there anything between the two.
    Decided(Entry, Epoch, Verdict),
    /// The verdict stands in Postgres.
    Recorded(Entry, Epoch, Verdict),
}

impl Drainer {
    pub(crate) fn entry(self) -> Option<Entry> {
        match self {
            Self::Idle => None,
            Self::Holding(entry)
            | Self::Begun(entry, _)
            | Self::Missing(entry, _)
            | Self::Decided(entry, ..)
            | Self::Recorded(entry, ..) => Some(entry),
        }
    }
}

pub(crate) fn actions(protocol: &Protocol, state: &State, actions: &mut Vec<Action>) {
    for drainer in 0..protocol.bounds.drainers {
        if drainer == 1 && state.drainers[0] == state.drainers[1] {
            // The same as what the other one does.
            continue;
        }
        match state.drainers[drainer] {
            Drainer::Idle => reads(state, drainer, actions),
            Drainer::Begun(..) | Drainer::Missing(..) => {
                actions.push(Action::Drain(drainer));
                actions.push(Action::LoseCommitAnswer { drainer, applied: true });
                actions.push(Action::LoseCommitAnswer { drainer, applied: false });
            }
            _ => actions.push(Action::Drain(drainer)),
        }
        if state.drainers[drainer] != Drainer::Idle {
            actions.push(Action::CrashDrainer(drainer));
        }
    }
}

fn reads(state: &State, drainer: usize, actions: &mut Vec<Action>) {
    if !state.redis.sale.present {
        return;
    }
    if let Some(order) = state.redis.sale.next_new() {
        actions.push(Action::Read { drainer, order });
    }
    for (entry, delivered) in state.redis.sale.stream.iter().flatten() {
        if *delivered {
            actions.push(Action::Claim { drainer, order: entry.order });
        }
    }
}

/// Reading the group is not guarded by the epoch: whoever reads learns at `begin` whether it may go on.
pub(crate) fn read(state: &mut State, drainer: usize, order: Order) {
    if let Some((entry, delivered)) = &mut state.redis.sale.stream[usize::from(order)] {
        *delivered = true;
        state.drainers[drainer] = Drainer::Holding(*entry);
    }
}

/// The next step of a drainer that holds an entry.
pub(crate) fn step(protocol: &Protocol, state: &mut State, drainer: usize) {
    state.drainers[drainer] = match state.drainers[drainer] {
        Drainer::Idle => Drainer::Idle,
        Drainer::Holding(entry) => begin(protocol, state, entry),
        Drainer::Begun(entry, epoch) if !protocol.keeps(Clause::RecordUnderLock) => {
            let verdict = state.ledger.decide(protocol, entry.order);
            let admitted = state.ledger.admits(protocol, epoch, Clause::RecordChecksEpoch);
            if admitted { Drainer::Decided(entry, epoch, verdict) } else { Drainer::Idle }
        }
        Drainer::Begun(entry, epoch) | Drainer::Missing(entry, epoch) => {
            commit(protocol, state, state.drainers[drainer])
                .map_or(Drainer::Idle, |v| Drainer::Recorded(entry, epoch, v))
        }
        Drainer::Decided(entry, epoch, verdict) => {
            state.ledger.write(entry, verdict);
            Drainer::Recorded(entry, epoch, verdict)
        }
        Drainer::Recorded(entry, epoch, verdict) => {
            settle(protocol, state, entry, epoch, verdict);
            Drainer::Idle
        }
    };
}

/// A drainer may know any epoch that Postgres ever had; only the one that Redis has gets it further, so that one it is.
fn begin(protocol: &Protocol, state: &mut State, entry: Entry) -> Drainer {
    let epoch = state.redis.sale.epoch;
    match state.redis.begin(protocol, epoch, entry) {
        Begun::Fenced | Begun::Gone => Drainer::Idle,
        Begun::Missing => Drainer::Missing(entry, epoch),
        Begun::Final(Status::Confirmed) => Drainer::Recorded(entry, epoch, Verdict::Confirmed),
        Begun::Final(_) => Drainer::Recorded(entry, epoch, Verdict::Failed { duplicate_of: None }),
        Begun::Processing if !protocol.keeps(Clause::AcknowledgeAfterCommit) => {
            Drainer::Recorded(entry, epoch, Verdict::Confirmed)
        }
        Begun::Processing => Drainer::Begun(entry, epoch),
    }
}

/// One transaction of the ledger: records or parks, or does nothing under another epoch.
fn commit(protocol: &Protocol, state: &mut State, drainer: Drainer) -> Option<Verdict> {
    let (entry, epoch, missing) = match drainer {
        Drainer::Begun(entry, epoch) => (entry, epoch, false),
        Drainer::Missing(entry, epoch) => (entry, epoch, true),
        _ => return None,
    };
    if missing || protocol.request(entry.order).kind.is_parked() {
        let admitted = state.ledger.admits(protocol, epoch, Clause::ParkChecksEpoch);
        return admitted.then(|| state.ledger.park(protocol, entry));
    }
    if !state.ledger.admits(protocol, epoch, Clause::RecordChecksEpoch) {
        return None;
    }
    let verdict = state.ledger.decide(protocol, entry.order);
    state.ledger.write(entry, verdict);
    Some(verdict)
}

/// The answer to COMMIT does not come; it was applied or not. Nothing to be done but to leave the entry pending.
pub(crate) fn lose_commit_answer(protocol: &Protocol, state: &mut State, drainer: usize, applied: bool) {
    let before = state.drainers[drainer];
    if applied {
        commit(protocol, state, before);
    }
    state.drainers[drainer] = match before {
        Drainer::Begun(entry, epoch) if !protocol.keeps(Clause::LostCommitIsNoVerdict) => {
            Drainer::Recorded(entry, epoch, Verdict::Failed { duplicate_of: None })
        }
        _ => Drainer::Idle,
    };
}

fn settle(protocol: &Protocol, state: &mut State, entry: Entry, epoch: Epoch, verdict: Verdict) {
    if let Settled::GaveBack(before) = state.redis.settle(protocol, epoch, entry, verdict) {
        if before == Status::Failed {
            state.breach(Breach::GaveBackTwice);
        }
        if state.ledger.rows[usize::from(entry.order)].is_none_or(|row| row.confirmed) {
            state.breach(Breach::GaveBackStanding);
        }
    }
}
