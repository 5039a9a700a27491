//! A model of the flashsale protocol, and a search through every schedule of its small worlds.
//!
//! Orders are admitted by Redis and decided by Postgres, by processes that die anywhere, over connections that lose
//! answers, with a Redis that may come back with older data. The promises must hold in *every* interleaving of that;
//! a test of the real programs sees a handful. This crate writes the protocol down once more, as small as it can be,
//! and lets [`stateright`] visit every state that can be reached.
//!
//! ```no_run
//! use flashsale_model::{Clause, Protocol, Search, worlds};
//!
//! let found = Search::Exhaustive.run(&Protocol::new(worlds::LOSS));
//! assert!(found.broken.is_empty());
//!
//! // Does the search see anything at all? Leave a clause out, and a promise breaks.
//! let found = Search::UntilBroken.run(&Protocol::new(worlds::LOSS).without(Clause::RunId));
//! println!("{found}");
//! ```
//!
//! # What is in it
//!
//! | file | actor |
//! |---|---|
//! | `client.rs` | clients that repeat a key; the lane that sends once more under the same order id, or gives up |
//! | `redis.rs` | the scripts `reserve`, `begin`, `settle`, `load` as functions on the sale's keys; entry ids that repeat |
//! | `drainer.rs` | read, claim, begin, record or park, settle; a crash between any two; a lost answer to COMMIT |
//! | `ledger.rs` | Postgres: the decision, rows, dead letters, the epoch |
//! | `recover.rs` | the six steps of a load, two recoverers at once, each killed anywhere, calls that arrive late |
//! | `loss.rs` | Redis comes back with an older copy, or with nothing; visibly (another `run_id`) or not, or with the old master still answering; its book is overwritten |
//! | `operator.rs` | discarding a parked order, step by step, killed anywhere |
//! | `status.rs` | a client that polls a status, step by step |
//! | `stock.rs` | changes of the stock in mid-sale: asked for, carried by two processes at once, each killed anywhere |
//! | `properties.rs` | what must always hold, and what must be reachable so that this means something |
//!
//! [`worlds`] are the bounds that are searched; each stresses one kind of trouble, all check every property.
//! [`Clause`] lists the clauses of the protocol that can be left out. For each, a test shows the promise that breaks
//! without it. A few can be left out without harm within these bounds; their comments say so, and a test keeps that true.
//!
//! # What is left out
//!
//! - One product, one unit an order, one body a key; at most three requests, two users, two drainers, two recoverers,
//!   two recoveries, two losses. Nothing here says anything about larger numbers, but no known flaw of the protocol
//!   needed them.
//! - A drainer takes one entry at a time. Batches, bisecting a refused batch, prices, the sale's window, pause and close,
//!   and the removal of an ended sale are not modelled; nor is the replay of a dead letter, nor the discard of one of
//!   which it is not known what it holds.
//! - At most two changes of the stock, of one unit each. That the recovery is started which a reduction asks for whose
//!   units are sold is left out with everything else that must come to an end.
//! - One process sends all reservations. Two of them know less of each other's sequences; see [`Clause::Seen`].
//! - A transaction under the lock of the sale's row is one step. Constraints of the tables are left out, so that the
//!   decision is checked without its safety net.
//! - An old master still answers buyers and who asks for a status; drainers and recoverers have found the new one.
//!   What it accepts before the epoch rises is lost with it, and for as long a status may go back that was shown from
//!   the record beside a new master that is empty or half loaded: this was found here, and is no breach here. A
//!   restart does not cut what is in flight: whatever was sent may still arrive, at the Redis that there is then.
//! - A book that is overwritten is seen. One that is *gone* looks like that of a sale without orders, and is not
//!   modelled: until a drainer meets an entry without its state, such a Redis sells with quotas and keys forgotten,
//!   which the ledger decides again.
//! - Safety only. That everything comes to an end again (a recovery is started, a pending entry claimed) is shown as
//!   reachable, not as inevitable.
//!
//! Two things that a process does are one step less than one might expect, because more steps would add nothing: a
//! drainer that knows an older epoch than Redis has is refused at `begin` and as good as crashed; a sending that is lost
//! is one that never arrives.
//!
//! # How to read a counterexample
//!
//! Steps are numbered; under each stand the lines of the state that it changed. Orders are the places of their requests
//! in the world's list, `#3` is entry id 3, `–` is nothing. The two drainers, and the two recoverers, are kept sorted,
//! so that number 0 and 1 may change places from one line to the next. `truth` is what the checker remembers and nobody
//! in the world knows. `cargo run -p flashsale-model --example deep` searches larger worlds than the tests do.

mod bounds;
mod client;
mod drainer;
mod explain;
mod ledger;
mod loss;
mod operator;
pub mod properties;
mod recover;
mod redis;
mod search;
mod state;
mod status;
mod stock;
pub mod worlds;

use stateright::{Model, Property};

pub use bounds::{Bounds, Clause, Kind, Loss, Request};
pub use search::{Found, Search};
pub use state::State;

use drainer::Drainer;
use ledger::Ledger;
use operator::Operator;
use recover::Recoverer;
use redis::{Redis, Sale};
use state::{Lane, Memory, ORDERS, Order};
use status::Reader;
use stock::Carrier;

/// The protocol within its bounds, perhaps with clauses left out.
#[derive(Clone, Debug)]
pub struct Protocol {
    pub bounds: Bounds,
    pub without: Vec<Clause>,
}

/// One step of somebody. The numbers of orders are their places in [`Bounds::requests`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client's request goes out on its lane.
    Send(Order),
    /// The lane had no reply: it sends once more, under the same id.
    SendAgain(Order),
    /// The lane had no reply: it answers that the outcome is unknown.
    GiveUp(Order),
    /// A sending arrives at Redis; its reply reaches the lane (`heard`) or not.
    Reserve {
        order: Order,
        sending: u8,
        heard: bool,
        /// It arrives at the master before.
        old: bool,
    },
    /// A drainer reads a new entry.
    Read {
        drainer: usize,
        order: Order,
    },
    /// A drainer claims an entry that was delivered before.
    Claim {
        drainer: usize,
        order: Order,
    },
    /// A drainer goes on: begin, then record (or park), then settle.
    Drain(usize),
    /// A drainer's COMMIT is applied or not, and it does not learn which.
    LoseCommitAnswer {
        drainer: usize,
        applied: bool,
    },
    CrashDrainer(usize),
    /// A recoverer starts or does its next step.
    Recover(usize),
    KillRecoverer(usize),
    /// A recoverer's call is delayed; it will send the same again.
    Delay(usize),
    /// The delayed call arrives.
    DeliverLate,
    /// A copy of Redis is taken …
    Copy,
    /// … and comes back.
    Restore,
    LoseEverything,
    /// The book is overwritten by a key of another type.
    Damage,
    /// The client that polls a status goes on; it asks the master, or the one before.
    PollStatus {
        old: bool,
    },
    /// An operator discards a parked order, or the keeper finishes what a killed command left.
    Discard(Order),
    /// The discarding goes on.
    Operate,
    KillOperator,
    /// An operator's command asks the record for its change of the stock.
    Ask {
        carrier: usize,
        change: u8,
    },
    /// A keeper, or a command that is repeated, takes up a change that is in the record.
    Carry {
        carrier: usize,
        number: u8,
    },
    /// Whoever holds a change goes on: tells Redis (or the master before), then the record.
    CarryOn {
        carrier: usize,
        old: bool,
    },
    KillCarrier(usize),
}

impl Protocol {
    pub fn new(bounds: Bounds) -> Self {
        bounds.assert_fit();
        Self { bounds, without: Vec::new() }
    }

    #[must_use]
    pub fn without(mut self, clause: Clause) -> Self {
        self.without.push(clause);
        self
    }

    pub(crate) fn keeps(&self, clause: Clause) -> bool {
        !self.without.contains(&clause)
    }

    pub(crate) fn request(&self, order: Order) -> Request {
        self.bounds.requests[usize::from(order)]
    }

    /// The units by which a change alters the stock.
    pub(crate) fn units(&self, change: u8) -> i8 {
        self.bounds.changes[usize::from(change)]
    }

    pub(crate) fn orders(&self) -> impl Iterator<Item = Order> + use<> {
        let count = self.bounds.requests.len();
        (0u8..).take(count)
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    /// The sale was loaded under epoch 1 and is open; nobody has done anything yet.
    fn init_states(&self) -> Vec<State> {
        let sale = Sale { present: true, epoch: 1, run_id: 1, stock: self.bounds.stock, ..Sale::default() };
        vec![State {
            redis: Redis { server: 1, sale },
            old: None,
            copy: None,
            ledger: Ledger { epoch: 1, loaded_epoch: 1, stock: self.bounds.stock, ..Ledger::default() },
            lanes: [Lane::NEW; ORDERS],
            seen: (0, 0),
            drainers: [Drainer::Idle; 2],
            recoverers: [Recoverer::Idle; 2],
            late: None,
            reader: Reader::Idle,
            operator: Operator::Idle,
            carriers: [Carrier::Idle; 2],
            losses: self.bounds.losses,
            late_calls: self.bounds.late_calls,
            memory: Memory::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        client::actions(self, state, actions);
        drainer::actions(self, state, actions);
        recover::actions(self, state, actions);
        loss::actions(self.bounds.loss, state, actions);
        operator::actions(self, state, actions);
        status::actions(self, state, actions);
        stock::actions(self, state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = *last;
        match action {
            Action::Send(order) => client::send(self, &mut next, order, 0),
            Action::SendAgain(order) => client::send(self, &mut next, order, 1),
            Action::GiveUp(order) => client::give_up(self, &mut next, order),
            Action::Reserve { order, sending, heard, old } => {
                client::reserve(self, &mut next, order, sending, (heard, old));
            }
            Action::Read { drainer, order } | Action::Claim { drainer, order } => {
                drainer::read(&mut next, drainer, order);
            }
            Action::Drain(drainer) => drainer::step(self, &mut next, drainer),
            Action::LoseCommitAnswer { drainer, applied } => {
                drainer::lose_commit_answer(self, &mut next, drainer, applied);
            }
            Action::CrashDrainer(drainer) => next.drainers[drainer] = Drainer::Idle,
            Action::Recover(recoverer) => recover::step(self, &mut next, recoverer),
            Action::KillRecoverer(recoverer) => next.recoverers[recoverer] = Recoverer::Idle,
            Action::Delay(recoverer) => recover::delay(&mut next, recoverer),
            Action::DeliverLate => recover::deliver_late(self, &mut next),
            Action::Copy => loss::copy(&mut next),
            Action::Restore => loss::lose(self, &mut next, last.copy?),
            Action::LoseEverything => loss::lose(self, &mut next, Sale::default()),
            Action::Damage => loss::damage(&mut next),
            Action::PollStatus { old } => status::step(self, &mut next, old),
            Action::Discard(order) => operator::begin(self, &mut next, order),
            Action::Operate => operator::step(self, &mut next),
            Action::KillOperator => next.operator = Operator::Idle,
            Action::Ask { carrier, change } => stock::ask(self, &mut next, carrier, change),
            Action::Carry { carrier, number } => stock::carry(self, &mut next, carrier, number),
            Action::CarryOn { carrier, old } => stock::step(self, &mut next, carrier, old),
            Action::KillCarrier(carrier) => next.carriers[carrier] = Carrier::Idle,
        }
        // Which of two alike is the first one tells nothing: one order for both halves the states.
        next.drainers[..self.bounds.drainers].sort_unstable();
        next.recoverers[..self.bounds.recoverers].sort_unstable();
        next.carriers[..self.bounds.carriers].sort_unstable();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
