//! Postgres. A transaction under the lock of the sale's row is one step: nobody else writes to the sale meanwhile, and
//! who reads without the lock sees it before or after.

use crate::Protocol;
use crate::bounds::{Clause, Kind};
use crate::redis::Entry;
use crate::state::{CHANGES, Epoch, ORDERS, Order, Seq, Status};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Confirmed,
    Failed { duplicate_of: Option<Order> },
    Parked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) confirmed: bool,
    pub(crate) duplicate_of: Option<Order>,
    pub(crate) epoch: Epoch,
    pub(crate) seq: Seq,
}

impl Row {
    pub(crate) fn status(self) -> Status {
        if self.confirmed { Status::Confirmed } else { Status::Failed }
    }

    fn verdict(self) -> Verdict {
        if self.confirmed { Verdict::Confirmed } else { Verdict::Failed { duplicate_of: self.duplicate_of } }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Wanted,
    Applied,
    Refused,
}

/// A change of the stock: its place in [`Bounds::changes`](crate::Bounds::changes), which stands for the operation's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Change {
    pub(crate) change: u8,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ledger {
    pub(crate) epoch: Epoch,
    pub(crate) loaded_epoch: Epoch,
    pub(crate) recorded_seq: Seq,
    pub(crate) stock: i8,
    /// Changes of the stock, by number; the first is 1.
    pub(crate) changes: [Option<Change>; CHANGES],
    /// The numbers of the last change that was requested and of the last that has its outcome.
    pub(crate) wanted: u8,
    pub(crate) settled: u8,
    pub(crate) rows: [Option<Row>; ORDERS],
    /// Dead letters, with the sequence of their entry.
    pub(crate) parked: [Option<Seq>; ORDERS],
}

impl Ledger {
    /// Confirmed orders for which `wanted` holds; each is one unit.
    pub(crate) fn confirmed(&self, wanted: impl Fn(Order) -> bool) -> i8 {
        (0u8..).zip(&self.rows).map(|(o, row)| i8::from(row.is_some_and(|r| r.confirmed) && wanted(o))).sum()
    }

    /// The order that holds this key. A duplicate's row has none.
    pub(crate) fn holder(&self, protocol: &Protocol, key: u8) -> Option<Order> {
        protocol.orders().find(|&o| {
            let row = self.rows[usize::from(o)];
            protocol.request(o).key == key && row.is_some_and(|r| r.duplicate_of.is_none())
        })
    }

    pub(crate) fn status(&self, order: Order) -> Option<Status> {
        let parked = self.parked[usize::from(order)].map(|_| Status::Processing);
        self.rows[usize::from(order)].map(Row::status).or(parked)
    }

    /// The decision, pure. The constraints of the tables are left out on purpose: the decision must hold without them.
    pub(crate) fn decide(&self, protocol: &Protocol, order: Order) -> Verdict {
        if let Some(row) = self.rows[usize::from(order)] {
            return row.verdict();
        }
        if self.parked[usize::from(order)].is_some() {
            return Verdict::Parked;
        }
        let request = protocol.request(order);
        let first = self.holder(protocol, request.key).filter(|_| protocol.keeps(Clause::LedgerChecksKey));
        if first.is_some() {
            return Verdict::Failed { duplicate_of: first };
        }
        let held = self.confirmed(|o| protocol.request(o).user == request.user);
        let over_quota = held >= protocol.bounds.limit && protocol.keeps(Clause::LedgerChecksQuota);
        let sold_out = self.confirmed(|_| true) >= self.stock && protocol.keeps(Clause::LedgerChecksStock);
        if request.kind == Kind::Refused || over_quota || sold_out {
            return Verdict::Failed { duplicate_of: None };
        }
        Verdict::Confirmed
    }

    /// Whether a drainer that began under this epoch may write.
    pub(crate) fn admits(&self, protocol: &Protocol, epoch: Epoch, clause: Clause) -> bool {
        self.epoch == epoch || !protocol.keeps(clause)
    }

    pub(crate) fn write(&mut self, entry: Entry, verdict: Verdict) {
        let (confirmed, duplicate_of) = match verdict {
            Verdict::Confirmed => (true, None),
            Verdict::Failed { duplicate_of } => (false, duplicate_of),
            Verdict::Parked => return,
        };
        let row = Row { confirmed, duplicate_of, epoch: entry.epoch, seq: entry.seq };
        self.rows[usize::from(entry.order)].get_or_insert(row);
        self.recorded_seq = self.recorded_seq.max(entry.seq);
    }

    /// Parks the order of an entry; if it has a row meanwhile, that row's verdict stands.
    pub(crate) fn park(&mut self, protocol: &Protocol, entry: Entry) -> Verdict {
        if let Some(row) = self.rows[usize::from(entry.order)]
            && protocol.keeps(Clause::ParkChecksRow)
        {
            return row.verdict();
        }
        self.parked[usize::from(entry.order)] = Some(entry.seq);
        Verdict::Parked
    }

    pub(crate) fn change(&self, number: u8) -> Option<Change> {
        self.changes[usize::from(number - 1)]
    }

    /// The units by which applied changes with these numbers altered the stock.
    pub(crate) fn applied(&self, protocol: &Protocol, mut numbers: impl Iterator<Item = u8>) -> i8 {
        let changes = numbers.by_ref().filter_map(|number| self.change(number));
        changes.filter(|c| c.outcome == Outcome::Applied).map(|c| protocol.units(c.change)).sum()
    }

    /// The outcome of a change that has none yet; `sold` above the stock is refused by the constraint.
    pub(crate) fn settle(&mut self, protocol: &Protocol, number: u8, granted: bool) {
        let Some(Change { change, outcome }) = self.change(number) else { return };
        if outcome != Outcome::Wanted && protocol.keeps(Clause::SettlesWantedOnly) {
            return;
        }
        let stock = self.stock + protocol.units(change);
        let fits = self.confirmed(|_| true) <= stock || !protocol.keeps(Clause::StockCoversSold);
        let outcome = if granted && fits { Outcome::Applied } else { Outcome::Refused };
        if outcome == Outcome::Applied {
            self.stock = stock;
        }
        self.changes[usize::from(number - 1)] = Some(Change { change, outcome });
        self.settled = number;
        self.wanted = self.wanted.max(number);
    }
}
