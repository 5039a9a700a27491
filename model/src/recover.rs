//! A recovery, in six steps that can be cut off anywhere, by two recoverers at once.

use crate::bounds::{Clause, Kind};
use crate::ledger::Ledger;
use crate::state::{Epoch, KEYS, ORDERS, Order, Seq, State, Status, USERS, bit};
use crate::{Action, Protocol};

/// What the chunks write: the sale as stream and Postgres have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Image {
    pub(crate) left: i8,
    /// The last change of the stock that `left` contains.
    pub(crate) changes: u8,
    pub(crate) seq: Seq,
    pub(crate) quota: [i8; USERS],
    pub(crate) keys: [Option<Order>; KEYS],
    pub(crate) states: [Option<Status>; ORDERS],
    /// Orders of which nobody knows what they hold, and those of them whose entries are deleted; as bits.
    pub(crate) unheld: u8,
    pub(crate) dropped: u8,
}

/// The stream as a recovery reads it: the sequence of each order that is in it.
type Queued = [Option<Seq>; ORDERS];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Recoverer {
    Idle,
    /// Only without [`Clause::ReadLedgerAfterFence`]: Postgres is read, the epoch not yet taken.
    ReadTooEarly(Ledger),
    /// Step 1 is done: the epoch is taken. With the `run_id` of the server that was looked at before.
    Fenced(Epoch, u8, Option<Ledger>),
    /// Step 2 is done: Redis is loading, and said its sequence.
    Loading(Epoch, Seq, Option<Ledger>),
    /// Step 3 is done.
    Streamed(Epoch, Seq, Queued, Option<Ledger>),
    /// Step 4 is done; the next chunk to write, 3 = all are written.
    Writing(Epoch, Image, u8),
    /// `loaded_epoch` is written; the sale is to be opened.
    Opening(Epoch),
}

/// A call that a recoverer sent to Redis and that arrives late; it has sent the same once more since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LoadCall {
    Enter(Epoch, u8),
    Chunk(Epoch, u8, Image),
    Open(Epoch),
}

pub(crate) fn actions(protocol: &Protocol, state: &State, actions: &mut Vec<Action>) {
    for recoverer in 0..protocol.bounds.recoverers {
        let this = state.recoverers[recoverer];
        if recoverer == 1 && this == state.recoverers[0] {
            // The same as what the other one does.
            continue;
        }
        if this == Recoverer::Idle {
            // Epoch 1 is the load before the sale.
            if state.ledger.epoch <= protocol.bounds.recovers {
                actions.push(Action::Recover(recoverer));
            }
            continue;
        }
        actions.push(Action::Recover(recoverer));
        actions.push(Action::KillRecoverer(recoverer));
        if state.late_calls > 0 && state.late.is_none() && call(this).is_some() {
            actions.push(Action::Delay(recoverer));
        }
    }
    if state.late.is_some() {
        actions.push(Action::DeliverLate);
    }
}

/// The call to Redis that is this recoverer's next step.
fn call(recoverer: Recoverer) -> Option<LoadCall> {
    match recoverer {
        Recoverer::Fenced(epoch, server, _) => Some(LoadCall::Enter(epoch, server)),
        Recoverer::Writing(epoch, image, chunk @ 1..=2) => Some(LoadCall::Chunk(epoch, chunk, image)),
        Recoverer::Opening(epoch) => Some(LoadCall::Open(epoch)),
        _ => None,
    }
}

pub(crate) fn delay(state: &mut State, recoverer: usize) {
    state.late = call(state.recoverers[recoverer]);
    state.late_calls -= 1;
}

pub(crate) fn deliver_late(protocol: &Protocol, state: &mut State) {
    let Some(call) = state.late.take() else { return };
    // Nobody waits for what it answers.
    let _ = match call {
        LoadCall::Enter(epoch, server) => state.redis.enter(protocol, epoch, server).is_some(),
        LoadCall::Chunk(epoch, chunk, image) => state.redis.write_chunk(protocol, epoch, chunk, &image),
        LoadCall::Open(epoch) => open(protocol, state, epoch),
    };
}

/// The next step of a recoverer. What is refused ends it: another one has taken over.
pub(crate) fn step(protocol: &Protocol, state: &mut State, recoverer: usize) {
    state.recoverers[recoverer] = match state.recoverers[recoverer] {
        Recoverer::Idle if !protocol.keeps(Clause::ReadLedgerAfterFence) => {
            Recoverer::ReadTooEarly(state.ledger)
        }
        Recoverer::Idle => take_epoch(state, None),
        Recoverer::ReadTooEarly(ledger) => take_epoch(state, Some(ledger)),
        Recoverer::Fenced(epoch, server, early) => {
            let seq = state.redis.enter(protocol, epoch, server);
            let reads_now = !protocol.keeps(Clause::ReadStreamBeforeLedger)
                || !protocol.keeps(Clause::LoadReadsOneSnapshot);
            let early = early.or(reads_now.then_some(state.ledger));
            seq.map_or(Recoverer::Idle, |seq| Recoverer::Loading(epoch, seq, early))
        }
        Recoverer::Loading(epoch, seq, early) => {
            let queued = state.redis.sale.stream.map(|slot| slot.map(|(entry, _)| entry.seq));
            Recoverer::Streamed(epoch, seq, queued, early)
        }
        Recoverer::Streamed(epoch, seq, queued, early) => {
            let early = early.unwrap_or(state.ledger);
            let ledger = if protocol.keeps(Clause::LoadReadsOneSnapshot) { early } else { state.ledger };
            let image = Image { changes: early.settled, ..image(protocol, &ledger, queued, seq) };
            if park_unreadable(protocol, state, epoch, queued) {
                Recoverer::Writing(epoch, image, 1)
            } else {
                Recoverer::Idle
            }
        }
        Recoverer::Writing(epoch, _, 3) => loaded(protocol, state, epoch),
        Recoverer::Writing(epoch, image, chunk) => {
            let written = state.redis.write_chunk(protocol, epoch, chunk, &image);
            if written { Recoverer::Writing(epoch, image, chunk + 1) } else { Recoverer::Idle }
        }
        Recoverer::Opening(epoch) => {
            open(protocol, state, epoch);
            Recoverer::Idle
        }
    };
}

/// Step 1. It looks at the server first; that this is one step with the transaction hides nothing, as a restart in
/// between is a restart after it.
fn take_epoch(state: &mut State, early: Option<Ledger>) -> Recoverer {
    state.ledger.epoch += 1;
    Recoverer::Fenced(state.ledger.epoch, state.redis.server, early)
}

/// What a load cannot read it parks, under the epoch that it took. False: another load has taken over.
fn park_unreadable(protocol: &Protocol, state: &mut State, epoch: Epoch, queued: Queued) -> bool {
    for order in protocol.orders().filter(|&o| protocol.request(o).kind == Kind::Unreadable) {
        let slot = usize::from(order);
        let Some(seq) = queued[slot].filter(|_| state.ledger.status(order).is_none()) else { continue };
        if state.ledger.epoch != epoch {
            return false;
        }
        if protocol.keeps(Clause::LoadParksUnreadable) {
            state.ledger.parked[slot] = Some(seq);
        }
    }
    true
}

fn loaded(protocol: &Protocol, state: &mut State, epoch: Epoch) -> Recoverer {
    if protocol.keeps(Clause::LoadedChecksEpoch) && state.ledger.epoch != epoch {
        return Recoverer::Idle;
    }
    state.ledger.loaded_epoch = epoch;
    Recoverer::Opening(epoch)
}

fn open(protocol: &Protocol, state: &mut State, epoch: Epoch) -> bool {
    let opened = state.redis.open(protocol, epoch);
    if opened {
        // Whatever Redis forgot before, it was fenced and read since: step 2, the chunks and this were one load.
        state.memory.tainted = false;
    }
    opened
}

/// Step 5: what Redis has to hold. An order with a row counts as its row only.
fn image(protocol: &Protocol, ledger: &Ledger, queued: Queued, redis_seq: Seq) -> Image {
    let mut image = Image { left: ledger.stock, ..Image::default() };
    if protocol.keeps(Clause::SequenceRises) {
        image.seq = redis_seq.max(ledger.recorded_seq);
        image.seq = queued.iter().chain(&ledger.parked).flatten().fold(image.seq, |high, &seq| high.max(seq));
    }
    for order in protocol.orders() {
        let (request, slot) = (protocol.request(order), usize::from(order));
        let parked = ledger.parked[slot].is_some() && protocol.keeps(Clause::RecoverCountsParked);
        let (status, held) = match ledger.rows[slot] {
            Some(row) => (row.status(), row.confirmed),
            None if queued[slot].is_some() || parked => {
                (Status::Processing, request.kind != Kind::Unreadable)
            }
            None => continue,
        };
        if request.kind == Kind::Unreadable {
            image.unheld |= bit(order);
            image.dropped |= bit(order);
        }
        image.states[slot] = Some(status);
        image.left -= i8::from(held);
        image.quota[usize::from(request.user)] += i8::from(held);
    }
    for order in protocol.orders() {
        // Recorded, then stream, then parked: the key belongs to the order that stands.
        let key = protocol.request(order).key;
        let of_key = |o: &Order| protocol.request(*o).key == key;
        let in_stream = || protocol.orders().filter(of_key).find(|&o| queued[usize::from(o)].is_some());
        let in_book = || protocol.orders().filter(of_key).find(|&o| image.states[usize::from(o)].is_some());
        image.keys[usize::from(key)] = ledger.holder(protocol, key).or_else(in_stream).or_else(in_book);
    }
    image
}
