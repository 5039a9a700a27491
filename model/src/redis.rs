//! The sale's keys in Redis and the scripts over them. A script is one step: nothing comes between its parts.

use crate::Protocol;
use crate::bounds::Clause;
use crate::ledger::Verdict;
use crate::recover::Image;
use crate::state::{Epoch, KEYS, ORDERS, Order, Sent, Seq, Status, USERS, bit};
use crate::stock::Call;

/// An entry of the stream, as a drainer takes it away. Ids count per Redis: after a rollback they repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) id: u8,
    pub(crate) order: Order,
    pub(crate) seq: Seq,
    pub(crate) epoch: Epoch,
}

/// What a copy of Redis brings back: all keys of the sale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Sale {
    /// False: Redis holds nothing of this sale.
    pub(crate) present: bool,
    pub(crate) loading: bool,
    pub(crate) epoch: Epoch,
    /// Whose load it is. It is random in truth; every load has an epoch of its own, which serves here.
    pub(crate) token: Option<Epoch>,
    /// The last chunk of that load that was written.
    pub(crate) chunk: u8,
    pub(crate) seq: Seq,
    /// The server into which the sale was loaded.
    pub(crate) run_id: u8,
    pub(crate) last_entry: u8,
    pub(crate) stock: i8,
    /// The number of the last change that `stock` contains, or that was refused.
    pub(crate) changes: u8,
    /// Whether that change was given, if it was asked for.
    pub(crate) taken: Option<bool>,
    pub(crate) quota: [i8; USERS],
    pub(crate) keys: [Option<Order>; KEYS],
    pub(crate) states: [Option<Status>; ORDERS],
    /// The book is of another type: nothing can be read of quota, keys and states.
    pub(crate) damaged: bool,
    /// Parked orders whose unit a load gave back, because nobody knows what they hold; as bits.
    pub(crate) unheld: u8,
    /// By order, with whether it was delivered to a drainer (so that it can only be claimed).
    pub(crate) stream: [Option<(Entry, bool)>; ORDERS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Redis {
    /// The server's own `run_id`; not part of what is copied.
    pub(crate) server: u8,
    pub(crate) sale: Sale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Fenced,
    /// The id is in the book already: the engine makes another.
    IdTaken,
    Replayed(Order),
    Refused,
    Admitted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    Fenced,
    /// This stream does not hold this entry under this order.
    Gone,
    /// The entry is there, its state is not.
    Missing,
    Processing,
    Final(Status),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Fenced,
    Gone,
    Done,
    /// Unit and quota went back; the state that stood before.
    GaveBack(Status),
}

impl Sale {
    /// The order whose entry has this id.
    fn at(&self, entry: u8) -> Option<Order> {
        self.stream.iter().flatten().find(|(e, _)| e.id == entry).map(|(e, _)| e.order)
    }

    pub(crate) fn next_new(&self) -> Option<Order> {
        let new = self.stream.iter().flatten().filter(|(_, delivered)| !delivered);
        new.min_by_key(|(e, _)| e.id).map(|(e, _)| e.order)
    }
}

impl Redis {
    /// The guard of every script of a sale, for a caller that knows this epoch.
    pub(crate) fn fenced(&self, protocol: &Protocol, epoch: Epoch) -> bool {
        !self.sale.present
            || protocol.keeps(Clause::Epoch) && self.sale.epoch != epoch
            || protocol.keeps(Clause::Loading) && self.sale.loading
            || self.foreign(protocol)
            || self.is_damaged(protocol)
    }

    pub(crate) fn is_damaged(&self, protocol: &Protocol) -> bool {
        protocol.keeps(Clause::DamageFences) && self.sale.damaged
    }

    /// Loaded into another server than this one, or before it restarted.
    pub(crate) fn foreign(&self, protocol: &Protocol) -> bool {
        protocol.keeps(Clause::RunId) && self.sale.run_id != self.server
    }

    /// `reserve.lua` for one order: key, then quota, then stock; then all writes.
    pub(crate) fn reserve(&mut self, protocol: &Protocol, sent: Sent, order: Order) -> Reply {
        if self.fenced(protocol, sent.epoch) || protocol.keeps(Clause::Seen) && self.sale.seq < sent.seen {
            return Reply::Fenced;
        }
        let request = protocol.request(order);
        let (user, key) = (usize::from(request.user), usize::from(request.key));
        let sale = &mut self.sale;
        if let Some(first) = sale.keys[key]
            && protocol.keeps(Clause::ReserveLooksForKey)
        {
            return Reply::Replayed(first);
        }
        if sale.quota[user] >= protocol.bounds.limit || sale.stock < 1 {
            return Reply::Refused;
        }
        if sale.states[usize::from(order)].is_some() {
            return Reply::IdTaken;
        }
        sale.stock -= 1;
        sale.quota[user] += 1;
        sale.seq += 1;
        sale.last_entry += 1;
        sale.keys[key] = Some(order);
        sale.states[usize::from(order)] = Some(Status::Queued);
        let entry = Entry { id: sale.last_entry, order, seq: sale.seq, epoch: sent.epoch };
        sale.stream[usize::from(order)] = Some((entry, false));
        Reply::Admitted
    }

    /// `begin.lua` for one entry.
    pub(crate) fn begin(&mut self, protocol: &Protocol, epoch: Epoch, entry: Entry) -> Begun {
        if self.fenced(protocol, epoch) {
            return Begun::Fenced;
        }
        if protocol.keeps(Clause::BeginChecksEntry) && self.sale.at(entry.id) != Some(entry.order) {
            return Begun::Gone;
        }
        match &mut self.sale.states[usize::from(entry.order)] {
            None => Begun::Missing,
            Some(status) if status.is_final() => Begun::Final(*status),
            Some(status) => {
                *status = Status::Processing;
                Begun::Processing
            }
        }
    }

    /// `settle.lua` for one verdict. It deletes by entry id, as Redis does.
    pub(crate) fn settle(
        &mut self,
        protocol: &Protocol,
        epoch: Epoch,
        entry: Entry,
        verdict: Verdict,
    ) -> Settled {
        if self.fenced(protocol, epoch) {
            return Settled::Fenced;
        }
        let held = self.sale.at(entry.id);
        if protocol.keeps(Clause::SettleChecksEntry) && held != Some(entry.order) {
            return Settled::Gone;
        }
        let settled = self.apply(protocol, entry.order, verdict);
        if let Some(held) = held {
            self.sale.stream[usize::from(held)] = None;
        }
        settled
    }

    /// `settle.lua` for an order that was failed by hand, whose entry is long gone.
    pub(crate) fn settle_discarded(&mut self, protocol: &Protocol, epoch: Epoch, order: Order) -> Settled {
        if self.fenced(protocol, epoch) {
            return Settled::Fenced;
        }
        self.apply(protocol, order, Verdict::Failed { duplicate_of: None })
    }

    fn apply(&mut self, protocol: &Protocol, order: Order, verdict: Verdict) -> Settled {
        let request = protocol.request(order);
        let sale = &mut self.sale;
        let state = &mut sale.states[usize::from(order)];
        let Some(before) = *state else { return Settled::Done };
        if before.is_final() && protocol.keeps(Clause::SettleChecksState) {
            return Settled::Done;
        }
        let key = &mut sale.keys[usize::from(request.key)];
        match verdict {
            Verdict::Parked => Settled::Done,
            Verdict::Confirmed => {
                *state = Some(Status::Confirmed);
                *key = Some(order);
                Settled::Done
            }
            Verdict::Failed { duplicate_of } => {
                *state = Some(Status::Failed);
                sale.stock += 1;
                sale.quota[usize::from(request.user)] -= 1;
                if duplicate_of.is_some() && protocol.keeps(Clause::DuplicateKeyToFirst) {
                    *key = duplicate_of;
                }
                Settled::GaveBack(before)
            }
        }
    }

    /// `stock.lua` for a settled change: only the next one is added.
    pub(crate) fn add(&mut self, protocol: &Protocol, epoch: Epoch, call: Call) {
        let next = call.number == self.sale.changes + 1 || !protocol.keeps(Clause::ChangeNumbered);
        if self.fenced(protocol, epoch) || !next {
            return;
        }
        let sale = &mut self.sale;
        (sale.stock, sale.changes, sale.taken) = (sale.stock + call.units, call.number, Some(true));
    }

    /// `stock.lua` for a wanted reduction: whether it is taken, decided once. Nothing: fenced, or another one's turn.
    pub(crate) fn take(&mut self, protocol: &Protocol, epoch: Epoch, call: Call) -> Option<bool> {
        if self.fenced(protocol, epoch) {
            return None;
        }
        let sale = &mut self.sale;
        let fits = sale.stock + call.units >= 0;
        if call.number == sale.changes && protocol.keeps(Clause::ChangeNumbered) {
            return if protocol.keeps(Clause::OutcomeIsNoted) { sale.taken } else { Some(fits) };
        }
        if call.number != sale.changes + 1 && protocol.keeps(Clause::ChangeNumbered) {
            return None;
        }
        sale.stock += if fits { call.units } else { 0 };
        (sale.changes, sale.taken) = (call.number, Some(fits));
        sale.taken
    }

    /// `load.lua`, step 2: fence the sale under a new epoch. Answers the sequence, or nothing if refused.
    pub(crate) fn enter(&mut self, protocol: &Protocol, epoch: Epoch, server: u8) -> Option<Seq> {
        if protocol.keeps(Clause::EnterChecksRunId) && server != self.server {
            return None;
        }
        let sale = &mut self.sale;
        let again = sale.loading && sale.token == Some(epoch);
        if sale.present && protocol.keeps(Clause::EnterChecksEpoch) && epoch <= sale.epoch && !again {
            return None;
        }
        sale.present = true;
        sale.epoch = epoch;
        sale.loading = true;
        sale.token = Some(epoch);
        sale.chunk = 0;
        sale.run_id = self.server;
        Some(sale.seq)
    }

    fn owns_load(&self, protocol: &Protocol, epoch: Epoch, number: u8) -> bool {
        let sale = &self.sale;
        let mine = sale.loading && sale.epoch == epoch && sale.token == Some(epoch);
        let next = number == sale.chunk + 1 || number == sale.chunk;
        sale.present
            && !self.foreign(protocol)
            && (mine || !protocol.keeps(Clause::ChunkChecksToken))
            && (next || !protocol.keeps(Clause::ChunkChecksNumber))
    }

    /// Step 5: chunk 1 clears and writes the figures, chunk 2 writes the book and recreates the group at 0.
    pub(crate) fn write_chunk(
        &mut self,
        protocol: &Protocol,
        epoch: Epoch,
        number: u8,
        image: &Image,
    ) -> bool {
        if !self.owns_load(protocol, epoch, number) {
            return false;
        }
        let sale = &mut self.sale;
        sale.chunk = number;
        if number == 1 {
            sale.stock = image.left;
            sale.taken = None;
            if protocol.keeps(Clause::LoadSetsSettledChanges) {
                sale.changes = image.changes;
            }
            sale.seq = image.seq;
            sale.quota = [0; USERS];
            sale.keys = [None; KEYS];
            sale.states = [None; ORDERS];
            sale.damaged = false;
            sale.unheld = image.unheld;
        } else {
            sale.quota = image.quota;
            sale.keys = image.keys;
            sale.states = image.states;
            for (order, slot) in (0u8..).zip(&mut sale.stream) {
                *slot = slot.filter(|_| image.dropped & bit(order) == 0).map(|(entry, _)| (entry, false));
            }
        }
        true
    }

    /// Step 6.
    pub(crate) fn open(&mut self, protocol: &Protocol, epoch: Epoch) -> bool {
        if !self.owns_load(protocol, epoch, 3) {
            return false;
        }
        self.sale.loading = false;
        self.sale.token = None;
        self.sale.chunk = 0;
        true
    }
}
