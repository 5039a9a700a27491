//! A client that polls the status of the first request's order, step by step between everybody else's.

use crate::bounds::{Clause, Loss};
use crate::state::{Breach, Epoch, Order, Seq, State, Status, bit};
use crate::{Action, Protocol};

/// The order whose status is polled.
const POLLED: Order = 0;

/// What Redis looked like when it could not answer: it must look the same once Postgres has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    present: bool,
    loading: bool,
    epoch: Epoch,
    token: Option<Epoch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reader {
    Idle,
    /// The epoch and the sequence that are known before the read.
    Started(Epoch, Seq),
    /// Redis is open under this epoch and does not know the order: ask Postgres.
    NoState(Epoch),
    /// Redis is empty or loading: ask Postgres, then look again.
    Fenced(Mark),
    LookAgain(Mark, Status),
}

pub(crate) fn actions(protocol: &Protocol, state: &State, actions: &mut Vec<Action>) {
    if !protocol.bounds.status_reads {
        return;
    }
    // Nobody knows an id that was never given out; but what a process knows of the epoch may be older than the order,
    // which tells where there are two masters.
    let given = state.memory.given.iter().any(|ids| ids & bit(POLLED) != 0);
    let knows_early = state.reader == Reader::Idle && protocol.bounds.loss == Loss::Failover;
    if given || knows_early {
        actions.push(Action::PollStatus { old: false });
    }
    if given && state.old.is_some() && matches!(state.reader, Reader::Started(..)) {
        actions.push(Action::PollStatus { old: true });
    }
}

/// The next step; what it asks of Redis it asks the master, or the old one.
pub(crate) fn step(protocol: &Protocol, state: &mut State, old: bool) {
    state.reader = match state.reader {
        Reader::Idle => Reader::Started(state.ledger.epoch, state.ledger.recorded_seq),
        Reader::Started(epoch, floor) => ask_redis(protocol, state, epoch, floor, old),
        Reader::NoState(epoch) => {
            match state.ledger.status(POLLED) {
                // Another Redis was loaded meanwhile: 503, the order may be there.
                _ if state.ledger.epoch != epoch && protocol.keeps(Clause::RecordedChecksEpoch) => {}
                Some(status) => show(state, status),
                None => not_found(state),
            }
            Reader::Idle
        }
        Reader::Fenced(mark) => {
            // Not known to Postgres either: 503, it may be in the stream.
            state.ledger.status(POLLED).map_or(Reader::Idle, |status| Reader::LookAgain(mark, status))
        }
        Reader::LookAgain(before, status) => {
            if mark(state) == before || !protocol.keeps(Clause::StatusLooksAgain) {
                show(state, status);
            }
            Reader::Idle
        }
    };
}

fn mark(state: &State) -> Mark {
    let sale = &state.redis.sale;
    Mark { present: sale.present, loading: sale.loading, epoch: sale.epoch, token: sale.token }
}

fn ask_redis(protocol: &Protocol, state: &mut State, epoch: Epoch, floor: Seq, old: bool) -> Reader {
    let redis = state.old.filter(|_| old).unwrap_or(state.redis);
    let sale = redis.sale;
    let found = sale.states[usize::from(POLLED)];
    if !protocol.keeps(Clause::StatusFromOpenOnly)
        && let Some(status) = found
    {
        show(state, status);
        return Reader::Idle;
    }
    if !sale.present || sale.loading && sale.epoch == epoch {
        return Reader::Fenced(mark(state));
    }
    let compared = if protocol.keeps(Clause::StatusChecksEpoch) { epoch } else { sale.epoch };
    if redis.fenced(protocol, compared) || sale.seq < floor {
        return Reader::Idle;
    }
    let Some(status) = found else { return Reader::NoState(epoch) };
    show(state, status);
    Reader::Idle
}

fn show(state: &mut State, status: Status) {
    let shown = &mut state.memory.shown[usize::from(POLLED)];
    let forward = shown.is_none_or(|before| before.may_become(status));
    // Until the epoch rises nobody can tell which of two masters is the old one; the record may have been shown beside
    // a new one that is empty or half loaded.
    let unnoticed = state.old.is_some_and(|old| old.sale.epoch == state.ledger.epoch);
    if forward {
        *shown = Some(status);
    } else if !unnoticed {
        state.breach(Breach::StatusWentBack);
    }
}

fn not_found(state: &mut State) {
    if state.memory.lost & bit(POLLED) == 0 || state.ledger.status(POLLED).is_some() {
        state.breach(Breach::AcceptedNotFound);
    }
}
