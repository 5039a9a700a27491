//! A client that polls the status of the first request's order, step by step between everybody else's.

use crate::bounds::Clause;
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
    /// Redis is open and does not know the order: ask Postgres.
    NoState,
    /// Redis is empty or loading: ask Postgres, then look again.
    Fenced(Mark),
    LookAgain(Mark, Status),
}

pub(crate) fn actions(protocol: &Protocol, state: &State, actions: &mut Vec<Action>) {
    if !protocol.bounds.status_reads {
        return;
    }
    // Nobody knows an id that was never given out.
    if state.reader != Reader::Idle || state.memory.given.iter().any(|ids| ids & bit(POLLED) != 0) {
        actions.push(Action::PollStatus);
    }
}

pub(crate) fn step(protocol: &Protocol, state: &mut State) {
    state.reader = match state.reader {
        Reader::Idle => Reader::Started(state.ledger.epoch, state.ledger.recorded_seq),
        Reader::Started(epoch, floor) => ask_redis(protocol, state, epoch, floor),
        Reader::NoState => {
            match state.ledger.status(POLLED) {
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

fn ask_redis(protocol: &Protocol, state: &mut State, epoch: Epoch, floor: Seq) -> Reader {
    let sale = state.redis.sale;
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
    if state.redis.fenced(protocol, epoch) || sale.seq < floor {
        return Reader::Idle;
    }
    let Some(status) = found else { return Reader::NoState };
    show(state, status);
    Reader::Idle
}

fn show(state: &mut State, status: Status) {
    let shown = &mut state.memory.shown[usize::from(POLLED)];
    let forward = shown.is_none_or(|before| before.may_become(status));
    if forward {
        *shown = Some(status);
    } else {
        state.breach(Breach::StatusWentBack);
    }
}

fn not_found(state: &mut State) {
    if state.memory.lost & bit(POLLED) == 0 || state.ledger.status(POLLED).is_some() {
        state.breach(Breach::AcceptedNotFound);
    }
}
