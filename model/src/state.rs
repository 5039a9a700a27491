//! One state of the world: what Redis, Postgres, every process and every client know.
//!
//! Everything is a small `Copy` value: a search keeps millions of these.

use crate::drainer::Drainer;
use crate::ledger::Ledger;
use crate::operator::Operator;
use crate::recover::{LoadCall, Recoverer};
use crate::redis::{Redis, Sale};
use crate::status::Reader;
use crate::stock::Carrier;

pub(crate) const ORDERS: usize = 3;
pub(crate) const USERS: usize = 2;
pub(crate) const KEYS: usize = 3;
pub(crate) const CHANGES: usize = 2;

/// An order id is the place of its request in [`Bounds::requests`](crate::Bounds::requests).
pub(crate) type Order = u8;
pub(crate) type Epoch = u8;
pub(crate) type Seq = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Status {
    Queued,
    Processing,
    Confirmed,
    Failed,
}

impl Status {
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Confirmed | Self::Failed)
    }

    /// Whether `later` may be shown after `self` (P8).
    pub(crate) fn may_become(self, later: Self) -> bool {
        self == later || !self.is_final() && later >= self
    }
}

/// A reservation on its way: what its lane knew when it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sent {
    pub(crate) epoch: Epoch,
    pub(crate) seen: Seq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Admitted,
    Replayed(Order),
    Refused,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Waiting {
    NotSent,
    /// For the reply of this sending (0 or 1); replies of an earlier one came on a connection that was dropped.
    For(u8),
    Answered(Answer),
}

/// One request in its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lane {
    pub(crate) waiting: Waiting,
    /// Sendings that have not arrived. One that never arrives is lost.
    pub(crate) in_flight: [Option<Sent>; 2],
}

/// A promise that broke in the course of a step, where no state shows it afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Breach {
    GaveBackTwice,
    GaveBackStanding,
    StatusWentBack,
    AcceptedNotFound,
    FirstSendingCalledRepeat,
}

/// What the checker remembers and no process knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Memory {
    /// Order ids that clients were given with a 202, per key, as bits.
    pub(crate) given: [u8; KEYS],
    /// Keys whose last answer was a definite refusal, as bits.
    pub(crate) refused: u8,
    /// Orders that were admitted, as bits.
    pub(crate) admitted: u8,
    /// Admitted orders that Redis lost before they were recorded or parked, as bits.
    pub(crate) lost: u8,
    /// Redis went back in time unnoticed and was not recovered since: its figures may be wrong.
    pub(crate) tainted: bool,
    /// The furthest status shown, per order.
    pub(crate) shown: [Option<Status>; ORDERS],
    pub(crate) breach: Option<Breach>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(crate) redis: Redis,
    /// The master before, where it still answers.
    pub(crate) old: Option<Redis>,
    /// An older copy of the sale that may come back.
    pub(crate) copy: Option<Sale>,
    pub(crate) ledger: Ledger,
    pub(crate) lanes: [Lane; ORDERS],
    /// The highest sequence that the process of the lanes saw, and the epoch under which it did.
    pub(crate) seen: (Epoch, Seq),
    pub(crate) drainers: [Drainer; 2],
    pub(crate) recoverers: [Recoverer; 2],
    /// A delayed call of a recoverer.
    pub(crate) late: Option<LoadCall>,
    pub(crate) reader: Reader,
    pub(crate) operator: Operator,
    pub(crate) carriers: [Carrier; 2],
    pub(crate) losses: u8,
    pub(crate) late_calls: u8,
    pub(crate) memory: Memory,
}

impl State {
    pub(crate) fn breach(&mut self, breach: Breach) {
        self.memory.breach.get_or_insert(breach);
    }
}

pub(crate) fn bit(index: u8) -> u8 {
    1 << index
}
