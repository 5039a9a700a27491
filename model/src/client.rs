//! Clients and the lane that sends for them.

use crate::bounds::Clause;
use crate::redis::Reply;
use crate::state::{Answer, Breach, Lane, Order, Sent, State, Waiting, bit};
use crate::{Action, Protocol};

impl Lane {
    pub(crate) const NEW: Self = Self { waiting: Waiting::NotSent, in_flight: [None; 2] };

    fn answered(self) -> bool {
        matches!(self.waiting, Waiting::Answered(_))
    }
}

pub(crate) fn actions(protocol: &Protocol, state: &State, actions: &mut Vec<Action>) {
    for order in protocol.orders() {
        let lane = &state.lanes[usize::from(order)];
        match lane.waiting {
            Waiting::NotSent if earlier_answered(protocol, state, order) => actions.push(Action::Send(order)),
            Waiting::For(sending) if sending + 1 < protocol.bounds.sendings => {
                actions.push(Action::SendAgain(order));
            }
            Waiting::For(_) => actions.push(Action::GiveUp(order)),
            _ => {}
        }
        for sending in 0..2 {
            if lane.in_flight[usize::from(sending)].is_none() {
                continue;
            }
            let listening = lane.waiting == Waiting::For(sending);
            for old in [false, true].into_iter().take(1 + usize::from(state.old.is_some())) {
                if listening {
                    actions.push(Action::Reserve { order, sending, heard: true, old });
                }
                if !listening || protocol.bounds.replies_lost {
                    actions.push(Action::Reserve { order, sending, heard: false, old });
                }
            }
        }
    }
}

/// A client waits for its answer before it repeats the key; so only its own last word counts (P10).
fn earlier_answered(protocol: &Protocol, state: &State, order: Order) -> bool {
    let key = protocol.request(order).key;
    (0..order).all(|o| protocol.request(o).key != key || state.lanes[usize::from(o)].answered())
}

/// A process knows the epoch that Postgres has. One that knows an older one is as one that sent earlier.
pub(crate) fn send(protocol: &Protocol, state: &mut State, order: Order, sending: u8) {
    state.memory.refused &= !bit(protocol.request(order).key);
    let epoch = state.ledger.epoch;
    let seen = if state.seen.0 == epoch { state.seen.1 } else { 0 };
    let lane = &mut state.lanes[usize::from(order)];
    lane.in_flight[usize::from(sending)] = Some(Sent { epoch, seen });
    lane.waiting = Waiting::For(sending);
}

pub(crate) fn give_up(protocol: &Protocol, state: &mut State, order: Order) {
    answer(protocol, state, order, Answer::Unknown);
}

/// A reservation arrives at the master, or at the old one, and its reply reaches the lane or does not.
pub(crate) fn reserve(
    protocol: &Protocol,
    state: &mut State,
    order: Order,
    sending: u8,
    (heard, old): (bool, bool),
) {
    let sent = state.lanes[usize::from(order)].in_flight[usize::from(sending)].take();
    let Some(sent) = sent else { return };
    let master = state.old.as_mut().filter(|_| old).unwrap_or(&mut state.redis);
    let (reply, seq, epoch) = (master.reserve(protocol, sent, order), master.sale.seq, master.sale.epoch);
    if reply == Reply::Admitted {
        state.memory.admitted |= bit(order);
        state.memory.lost &= !bit(order);
        // What an old master accepts before anybody knows that it is one is lost with it; after that, nothing may be.
        if old && sent.epoch == epoch {
            state.memory.lost |= bit(order);
        }
    }
    if !heard || matches!(reply, Reply::Fenced | Reply::IdTaken) {
        // Fenced: the lane waits on, and then sends again under the epoch that it reads meanwhile.
        return;
    }
    state.seen = state.seen.max((sent.epoch, seq));
    let heard = match reply {
        Reply::Replayed(first) if first == order && protocol.keeps(Clause::OwnReplayIsAdmitted) => {
            Answer::Admitted
        }
        Reply::Replayed(first) => Answer::Replayed(first),
        Reply::Refused if sending > 0 && protocol.keeps(Clause::RefusedResendIsUnknown) => Answer::Unknown,
        Reply::Refused => Answer::Refused,
        _ => Answer::Admitted,
    };
    answer(protocol, state, order, heard);
}

fn answer(protocol: &Protocol, state: &mut State, order: Order, answer: Answer) {
    let key = protocol.request(order).key;
    let lane = &mut state.lanes[usize::from(order)];
    lane.waiting = Waiting::Answered(answer);
    if answer == Answer::Unknown && protocol.keeps(Clause::NotAfter) {
        // Nobody is told "unknown" before the not-after instant of every sending has passed.
        lane.in_flight = [None; 2];
    }
    match answer {
        Answer::Admitted => state.memory.given[usize::from(key)] |= bit(order),
        Answer::Replayed(first) => state.memory.given[usize::from(key)] |= bit(first),
        Answer::Refused => state.memory.refused |= bit(key),
        Answer::Unknown => {}
    }
    if answer == Answer::Replayed(order) {
        state.breach(Breach::FirstSendingCalledRepeat);
    }
}
