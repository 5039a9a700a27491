//! What must hold in every state, and what must be reachable for that to mean anything.

use stateright::{Model, Property};

use crate::bounds::Kind;
use crate::drainer::Drainer;
use crate::ledger::Outcome;
use crate::state::{Answer, Breach, ORDERS, Order, State, Status, Waiting, bit};
use crate::stock::Carrier;
use crate::{Loss, Protocol};

/// Units sold never exceed the stock.
pub const NEVER_OVERSOLD: &str = "P1 never oversold";
/// Confirmed units of a user never exceed the limit.
pub const WITHIN_QUOTA: &str = "P2 within the quota";
/// One row per key, duplicates aside.
pub const ONE_ROW_PER_KEY: &str = "P3 one row per key";
/// No client is given two ids for one key, unless Redis lost the one before it was recorded.
pub const ONE_ID_PER_KEY: &str = "P3 one id per key";
/// An admitted order has a row, is parked, or is in the stream, unless Redis lost it.
pub const NONE_DROPPED: &str = "P5 no accepted order is dropped";
/// Stock and quota go back at most once.
pub const GIVES_BACK_ONCE: &str = "P6 gives back once";
/// Stock and quota go back only for an order whose row says `Failed`.
pub const GIVES_BACK_FAILED_ONLY: &str = "P6 gives back failed orders only";
/// The status of an order only moves forward.
pub const STATUS_FORWARD: &str = "P8 status moves forward";
/// An accepted order is never answered with 404.
pub const ACCEPTED_FOUND: &str = "P8 an accepted order is found";
/// A key whose last answer was a definite refusal has no order that stands.
pub const REFUSAL_HOLDS: &str = "P10 a refusal holds";
/// The first answer to a request does not say that it is a repeat of itself.
pub const NO_REPEAT_OF_ITSELF: &str = "P10 a first answer is no repeat";
/// Left + held = stock, while selling as well as at rest. A Redis that does not have every settled change yet, or that has
/// given units of which the record has not heard, is compared with the stock as it has it.
pub const STOCK_ADDS_UP: &str = "I4 left + held = stock";
/// The stock is the one of the beginning and every applied change, and no operation is there twice.
pub const CHANGES_COUNT_ONCE: &str = "stock: a change counts once";
/// An admitted order that the ledger decides is confirmed: no change of the stock took its unit. One that was lost with
/// Redis may come back with an older copy when its unit is gone; a loss that nothing tells of is left out.
pub const ADMITTED_STANDS: &str = "stock: an admitted order has its unit";
/// Every confirmed order's key is in the book under its id.
pub const KEYS_NAME_ORDERS: &str = "I6 keys name confirmed orders";
/// (epoch, seq) is unique among the rows.
pub const SEQUENCE_UNIQUE: &str = "I6 (epoch, seq) is unique";
/// The admission sequence of an open sale is not behind what is recorded.
pub const SEQUENCE_AHEAD: &str = "I6 sequence is not behind";
/// Quota in Redis = confirmed + queued + parked.
pub const QUOTA_ADDS_UP: &str = "I8 quota adds up";
/// Every entry of the stream has its state in the book (`begin` never answers `missing`).
pub const ENTRIES_HAVE_STATES: &str = "book: every entry has its state";

pub const SOLD_OUT: &str = "reached: sold out";
pub const GIVEN_BACK: &str = "reached: a failed order given back";
pub const TAKEN_OVER: &str = "reached: a claimed entry gets its verdict";
pub const DUPLICATE: &str = "reached: a duplicate decided by the ledger";
pub const RECOVERED: &str = "reached: a recovery completed";
pub const REPLAYED: &str = "reached: a repeat answered";
pub const PARKED: &str = "reached: an order parked";
pub const GONE: &str = "reached: a drainer holds an entry whose id another order has";
pub const DISCARDED: &str = "reached: a parked order discarded";
pub const OLD_MASTER: &str = "reached: a sale recovered while the old master still answers";
pub const LOST: &str = "reached: an order lost with Redis";

pub const RAISED: &str = "reached: more stock, in Redis too, and sold";
pub const LOWERED: &str = "reached: less stock, in Redis too";
pub const REDUCTION_REFUSED: &str = "reached: a reduction refused";
pub const CARRIED_TWICE: &str = "reached: two processes carry one change, and one of them has its answer";
pub const OVERTAKEN: &str = "reached: a sale recovered between a reduction's answer and its settlement";

pub(crate) fn all() -> Vec<Property<Protocol>> {
    let mut all = promises();
    all.extend(accounting());
    all.extend(reachable());
    all
}

fn promises() -> Vec<Property<Protocol>> {
    vec![
        Property::always(NEVER_OVERSOLD, |_, s: &State| s.ledger.confirmed(|_| true) <= s.ledger.stock),
        Property::always(WITHIN_QUOTA, |p: &Protocol, s: &State| {
            p.orders()
                .all(|o| s.ledger.confirmed(|x| p.request(x).user == p.request(o).user) <= p.bounds.limit)
        }),
        Property::always(ONE_ROW_PER_KEY, one_row_per_key),
        Property::always(ONE_ID_PER_KEY, one_id_per_key),
        Property::always(NONE_DROPPED, |p: &Protocol, s: &State| {
            p.orders().all(|o| s.memory.admitted & bit(o) == 0 || s.memory.lost & bit(o) != 0 || known(s, o))
        }),
        Property::always(GIVES_BACK_ONCE, |_, s: &State| s.memory.breach != Some(Breach::GaveBackTwice)),
        Property::always(GIVES_BACK_FAILED_ONLY, |_, s: &State| {
            s.memory.breach != Some(Breach::GaveBackStanding)
        }),
        Property::always(STATUS_FORWARD, |_, s: &State| s.memory.breach != Some(Breach::StatusWentBack)),
        Property::always(ACCEPTED_FOUND, |_, s: &State| s.memory.breach != Some(Breach::AcceptedNotFound)),
        Property::always(REFUSAL_HOLDS, refusal_holds),
        Property::always(NO_REPEAT_OF_ITSELF, |_, s: &State| {
            s.memory.breach != Some(Breach::FirstSendingCalledRepeat)
        }),
    ]
}

fn accounting() -> Vec<Property<Protocol>> {
    vec![
        Property::always(STOCK_ADDS_UP, |p: &Protocol, s: &State| {
            !sells(p, s) || s.redis.sale.stock + held(p, s, |_| true) == stock_as_redis_has_it(p, s)
        }),
        Property::always(CHANGES_COUNT_ONCE, changes_count_once),
        Property::always(ADMITTED_STANDS, |p: &Protocol, s: &State| {
            let plain = |o: Order| p.request(o).kind == Kind::Plain && s.memory.lost & bit(o) == 0;
            let failed = |o: Order| s.ledger.rows[usize::from(o)].is_some_and(|row| !row.confirmed);
            p.bounds.loss == Loss::Silent || !p.orders().any(|o| plain(o) && failed(o))
        }),
        Property::always(QUOTA_ADDS_UP, |p: &Protocol, s: &State| {
            !sells(p, s)
                || (0u8..).zip(&s.redis.sale.quota).all(|(u, &q)| q == held(p, s, |o| p.request(o).user == u))
        }),
        Property::always(KEYS_NAME_ORDERS, |p: &Protocol, s: &State| {
            !sells(p, s) || p.orders().all(|o| !settled_confirmed(s, o) || key_names(p, s, o))
        }),
        Property::always(SEQUENCE_UNIQUE, |p: &Protocol, s: &State| {
            let rows = s.ledger.rows;
            let same = |a: usize, b: usize| {
                rows[a].zip(rows[b]).is_some_and(|(a, b)| (a.epoch, a.seq) == (b.epoch, b.seq))
            };
            p.bounds.loss == Loss::Silent || (0..ORDERS).all(|a| (0..a).all(|b| !same(a, b)))
        }),
        Property::always(SEQUENCE_AHEAD, |p: &Protocol, s: &State| {
            !sells(p, s) || s.redis.sale.seq >= s.ledger.recorded_seq
        }),
        Property::always(ENTRIES_HAVE_STATES, |p: &Protocol, s: &State| {
            let sale = &s.redis.sale;
            !sells(p, s)
                || sale.stream.iter().zip(&sale.states).all(|(e, state)| e.is_none() || state.is_some())
        }),
    ]
}

fn reachable() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes(SOLD_OUT, |_, s: &State| s.memory.refused != 0 && s.redis.sale.stock == 0),
        Property::sometimes(GIVEN_BACK, |p: &Protocol, s: &State| {
            sells(p, s) && s.redis.sale.states.contains(&Some(Status::Failed)) && s.redis.sale.stock > 0
        }),
        Property::sometimes(TAKEN_OVER, |_, s: &State| taken_over(s)),
        Property::sometimes(DUPLICATE, |_, s: &State| {
            s.ledger.rows.iter().flatten().any(|row| row.duplicate_of.is_some())
        }),
        Property::sometimes(RECOVERED, |p: &Protocol, s: &State| sells(p, s) && s.redis.sale.epoch > 1),
        Property::sometimes(REPLAYED, |_, s: &State| {
            s.lanes.iter().any(|l| matches!(l.waiting, Waiting::Answered(Answer::Replayed(_))))
        }),
        Property::sometimes(PARKED, |_, s: &State| s.ledger.parked.iter().any(Option::is_some)),
        Property::sometimes(GONE, |_, s: &State| s.drainers.iter().any(|&d| holds_reused(s, d))),
        Property::sometimes(DISCARDED, |p: &Protocol, s: &State| {
            p.bounds.discards
                && p.orders()
                    .any(|o| p.request(o).kind.is_parked() && s.ledger.rows[usize::from(o)].is_some())
        }),
        Property::sometimes(OLD_MASTER, |p: &Protocol, s: &State| {
            s.old.is_some() && sells(p, s) && s.redis.sale.epoch > 1
        }),
        Property::sometimes(LOST, |_, s: &State| s.memory.lost != 0),
        Property::sometimes(RAISED, |p: &Protocol, s: &State| {
            sells(p, s) && s.ledger.confirmed(|_| true) > p.bounds.stock && up_to_date(s)
        }),
        Property::sometimes(LOWERED, |p: &Protocol, s: &State| {
            sells(p, s) && s.ledger.stock < p.bounds.stock && up_to_date(s)
        }),
        Property::sometimes(REDUCTION_REFUSED, |_, s: &State| {
            s.ledger.changes.iter().flatten().any(|c| c.outcome == Outcome::Refused)
        }),
        Property::sometimes(CARRIED_TWICE, |_, s: &State| {
            let [a, b] = s.carriers;
            let answered = matches!(a, Carrier::Answered { .. }) || matches!(b, Carrier::Answered { .. });
            answered && a.number() == b.number()
        }),
        Property::sometimes(OVERTAKEN, |p: &Protocol, s: &State| {
            let before =
                |c: &Carrier| matches!(*c, Carrier::Answered { epoch, .. } if epoch < s.redis.sale.epoch);
            sells(p, s) && s.carriers.iter().any(before)
        }),
    ]
}

fn up_to_date(state: &State) -> bool {
    let (redis, ledger) = (state.redis.sale.changes, &state.ledger);
    redis == ledger.settled && redis == ledger.wanted
}

/// The record's stock, without the changes that Redis has not had yet, and less what it gave for one that is still wanted.
fn stock_as_redis_has_it(protocol: &Protocol, state: &State) -> i8 {
    let (sale, ledger) = (&state.redis.sale, &state.ledger);
    let missing = ledger.applied(protocol, sale.changes + 1..=ledger.settled);
    let ahead = sale.changes == ledger.settled + 1 && sale.taken == Some(true);
    let given = ledger.change(sale.changes.max(1)).filter(|_| ahead).map_or(0, |c| protocol.units(c.change));
    ledger.stock - missing + given
}

fn changes_count_once(protocol: &Protocol, state: &State) -> bool {
    let ledger = &state.ledger;
    let [first, second] = ledger.changes;
    let twice = first.zip(second).is_some_and(|(a, b)| a.change == b.change);
    !twice && ledger.stock == protocol.bounds.stock + ledger.applied(protocol, 1..=ledger.wanted)
}

/// Redis serves this sale and nothing has happened to it that only a recovery can mend.
fn sells(protocol: &Protocol, state: &State) -> bool {
    let fenced = state.redis.fenced(protocol, state.redis.sale.epoch);
    !fenced && !state.redis.sale.loading && !state.memory.tainted
}

fn known(state: &State, order: Order) -> bool {
    state.ledger.status(order).is_some() || state.redis.sale.stream[usize::from(order)].is_some()
}

fn one_row_per_key(protocol: &Protocol, state: &State) -> bool {
    let holds = |o: Order| state.ledger.rows[usize::from(o)].is_some_and(|row| row.duplicate_of.is_none());
    let same_key = |a: Order, b: Order| protocol.request(a).key == protocol.request(b).key;
    protocol.orders().all(|a| (0..a).all(|b| !(same_key(a, b) && holds(a) && holds(b))))
}

fn one_id_per_key(protocol: &Protocol, state: &State) -> bool {
    if protocol.bounds.loss == Loss::Silent && protocol.bounds.requests.iter().any(|r| r.key != 0) {
        // Requests of others push the sequence past the highest one seen, and nothing tells that Redis went back.
        return true;
    }
    let excused = |o: Order| state.memory.lost & bit(o) != 0 && state.ledger.status(o).is_none();
    let excused = protocol.orders().filter(|&o| excused(o)).fold(0, |bits, o| bits | bit(o));
    state.memory.given.iter().all(|ids| (ids & !excused).count_ones() <= 1)
}

/// A silent loss is left out: it may take back an order that a drainer is about to record, and nothing tells.
fn refusal_holds(protocol: &Protocol, state: &State) -> bool {
    let stands = |o: Order| match state.ledger.rows[usize::from(o)] {
        Some(row) => row.confirmed,
        None => state.memory.admitted & !state.memory.lost & bit(o) != 0,
    };
    let refused = |o: Order| state.memory.refused & bit(protocol.request(o).key) != 0;
    protocol.bounds.loss == Loss::Silent || protocol.orders().all(|o| !(refused(o) && stands(o)))
}

/// Units that stand outside `stock`: entries whose state is not `Failed`, and confirmed or parked orders without entry.
fn held(protocol: &Protocol, state: &State, wanted: impl Fn(Order) -> bool) -> i8 {
    let sale = &state.redis.sale;
    let holds = |o: Order| {
        let slot = usize::from(o);
        let failed = sale.states[slot] == Some(Status::Failed);
        let confirmed = state.ledger.rows[slot].is_some_and(|row| row.confirmed);
        let parked = state.ledger.parked[slot].is_some() && !failed && sale.unheld & bit(o) == 0;
        if sale.stream[slot].is_some() { !failed } else { confirmed || parked }
    };
    protocol.orders().map(|o| i8::from(wanted(o) && holds(o))).sum()
}

fn settled_confirmed(state: &State, order: Order) -> bool {
    let slot = usize::from(order);
    state.redis.sale.stream[slot].is_none() && state.ledger.rows[slot].is_some_and(|row| row.confirmed)
}

fn key_names(protocol: &Protocol, state: &State, order: Order) -> bool {
    state.redis.sale.keys[usize::from(protocol.request(order).key)] == Some(order)
}

/// Two drainers hold one entry (the second one claimed it), and one of them has its verdict.
fn taken_over(state: &State) -> bool {
    let [a, b] = state.drainers;
    let recorded = matches!(a, Drainer::Recorded(..)) || matches!(b, Drainer::Recorded(..));
    recorded && a.entry() == b.entry()
}

fn holds_reused(state: &State, drainer: Drainer) -> bool {
    let Some(held) = drainer.entry() else { return false };
    state.redis.sale.stream.iter().flatten().any(|(e, _)| e.id == held.id && e.order != held.order)
}

/// The names of the properties that a search must find an example of: the reachable ones.
pub(crate) fn is_reachability(protocol: &Protocol, name: &str) -> bool {
    protocol.properties().iter().any(|p| p.name == name && !p.expectation.discovery_is_failure())
}
