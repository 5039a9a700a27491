//! What a sale must look like in Redis, computed from the record and the stream. No I/O.

use std::{collections::HashMap, mem};

use crate::{
    ids::{OrderId, ProductId, UserId},
    keys::{book_key, book_key_value, book_order, book_quota},
    order::OrderState,
    packed::BookState,
    queue::{Entry, Holding},
    sale::{Sale, SaleState, Seq},
    scripts::Pair,
    sql::{dead_letters::StoredLetter, snapshot::LoadedOrder},
};

/// The state of a sale to be written to Redis, but for its book.
#[derive(Debug)]
pub(crate) struct Rebuilt {
    pub state: SaleState,
    pub seq: Seq,
    /// Product → units left. May be negative: never clamped, or units would appear from nowhere later.
    pub stock: Vec<Pair>,
    pub product: Vec<Pair>,
    /// The last change that the stock contains.
    pub changes: i64,
    /// Queue entries of which it cannot be read what they hold: they are deleted, being parked.
    pub dropped: Vec<String>,
    /// Dead letters that were discarded and of which it cannot be read what they held: this ends them.
    pub ended_letters: Vec<i64>,
    /// Those entries that are to be parked first, and why.
    pub unreadable: Vec<(Entry, String)>,
    /// Orders that are not recorded: waiting in the queue, and parked.
    pub queued: usize,
    pub parked: usize,
}

/// Adds up what is out of stock, who holds it, and which key stands for which order. Orders count once each:
/// as their row if they have one, else as their queue entry, else as their dead letter. So all rows come
/// first, then the entries, then the letters.
///
/// Of the rows, which may be millions, it remembers only those that also wait in the queue or are parked,
/// and what every user holds.
pub(crate) struct Rebuild<'a> {
    sale: &'a Sale,
    letters: &'a [StoredLetter],
    /// The orders and the keys of entries and letters; true once they are counted.
    orders: HashMap<OrderId, bool>,
    keys: HashMap<Vec<u8>, bool>,
    held: HashMap<(UserId, ProductId), u64>,
    left: HashMap<ProductId, i64>,
    /// The book, as far as it was not taken yet.
    book: Vec<Pair>,
    out: Rebuilt,
}

impl<'a> Rebuild<'a> {
    /// Begins; `known` is the seq that Redis had.
    pub(crate) fn new(sale: &'a Sale, letters: &'a [StoredLetter], entries: &[Entry], known: Seq) -> Self {
        let left = |product: &crate::sale::Product| i64::from(product.stock) - i64::from(product.sold);
        let waiting = || entries.iter().chain(letters.iter().map(|letter| &letter.entry));
        let key = |entry: &Entry| entry.claim(sale.id).ok().map(|claim| book_key(&claim.user, &claim.key));
        let letters_orders = letters.iter().filter_map(|letter| letter.order);
        let orders = waiting().filter_map(|entry| entry.order_id(sale.id)).chain(letters_orders);
        Self {
            sale,
            letters,
            orders: orders.map(|id| (id, false)).collect(),
            keys: waiting().filter_map(key).map(|key| (key, false)).collect(),
            held: HashMap::new(),
            left: sale.products.iter().map(|product| (product.id, left(product))).collect(),
            book: Vec::new(),
            out: Rebuilt {
                state: sale.state,
                seq: known.max(sale.recorded_seq),
                stock: Vec::new(),
                product: Vec::new(),
                changes: sale.changes_settled,
                dropped: Vec::new(),
                ended_letters: Vec::new(),
                unreadable: Vec::new(),
                queued: 0,
                parked: 0,
            },
        }
    }

    /// What was added to the book since it was last taken.
    pub(crate) fn take_book(&mut self) -> Vec<Pair> {
        mem::take(&mut self.book)
    }

    /// A recorded order.
    pub(crate) fn order(&mut self, order: &LoadedOrder) {
        if let Some(counted) = self.orders.get_mut(&order.id) {
            *counted = true;
        }
        self.book.push((book_order(order.id), recorded_state(order)));
        if let Some(key) = &order.key {
            let field = book_key(&order.user, key);
            if let Some(taken) = self.keys.get_mut(&field) {
                *taken = true;
            }
            self.book.push((field, book_key_value(order.id, &order.fingerprint)));
        }
        for (product, units) in order.held() {
            *self.held.entry((order.user.clone(), *product)).or_default() += u64::from(*units);
        }
    }

    /// An entry of the queue.
    pub(crate) fn entry(&mut self, entry: &Entry) {
        if entry.order_id(self.sale.id).is_some_and(|id| self.is_counted(id)) {
            return;
        }
        match entry.holding(self.sale.id) {
            Ok(holding) => {
                self.out.queued += 1;
                self.hold(&holding);
            }
            Err(why) => {
                self.out.dropped.push(entry.id.clone());
                let letter = self.letters.iter().find(|letter| letter.entry == *entry);
                if letter.is_none_or(|letter| letter.resolved.is_none()) {
                    self.show(entry);
                }
                if letter.is_none() {
                    self.out.unreadable.push((entry.clone(), why));
                }
            }
        }
    }

    /// A parked entry.
    pub(crate) fn letter(&mut self, letter: &StoredLetter) {
        let holding = letter.entry.holding(self.sale.id);
        let counted = letter.order.is_some_and(|id| self.is_counted(id));
        match holding {
            Err(_) if letter.resolved.is_some() => self.out.ended_letters.push(letter.id),
            _ if counted => {}
            Ok(holding) => {
                self.out.parked += 1;
                self.hold(&holding);
            }
            Err(_) => self.show(&letter.entry),
        }
    }

    /// The rest of the book: what every user holds.
    pub(crate) fn quotas(&mut self) -> impl Iterator<Item = Pair> + use<> {
        let held = mem::take(&mut self.held).into_iter();
        held.map(|((user, product), units)| (book_quota(&user, product), units.to_string().into_bytes()))
    }

    /// Everything else.
    pub(crate) fn close(mut self) -> Rebuilt {
        for product in &self.sale.products {
            let left = self.left.get(&product.id).copied().unwrap_or_default();
            self.out.stock.push((product.id.to_string().into(), left.to_string().into()));
            let limit_and_price = format!("{}:{}", product.per_user_limit, product.sale_price.minor);
            self.out.product.push((product.id.to_string().into(), limit_and_price.into()));
        }
        self.out
    }

    fn is_counted(&self, id: OrderId) -> bool {
        self.orders.get(&id).copied().unwrap_or_default()
    }

    /// An order that is not recorded: its units are out of stock until the ledger has decided.
    fn hold(&mut self, holding: &Holding) {
        if self.orders.insert(holding.id, true) == Some(true) {
            return;
        }
        self.out.seq = self.out.seq.max(holding.seq);
        self.book.push((book_order(holding.id), waiting_state(holding.id)));
        let field = book_key(&holding.user, &holding.key);
        if self.keys.insert(field.clone(), true) != Some(true) {
            self.book.push((field, book_key_value(holding.id, &holding.fingerprint)));
        }
        for (product, units) in &holding.units {
            *self.left.entry(*product).or_default() -= i64::from(*units);
            *self.held.entry((holding.user.clone(), *product)).or_default() += u64::from(*units);
        }
    }

    /// An order of which it cannot be read what it holds: its buyer sees what was shown before, and it has no
    /// units. It cannot be confirmed any more, so nobody is given units that somebody else gets too.
    fn show(&mut self, entry: &Entry) {
        if let Ok(claim) = entry.claim(self.sale.id) {
            self.hold(&claim);
        } else if let Some(id) = entry.order_id(self.sale.id).filter(|id| id.sale() == self.sale.id)
            && self.orders.insert(id, true) != Some(true)
        {
            self.book.push((book_order(id), waiting_state(id)));
        }
    }
}

/// Value of an order's field: final, as it is recorded.
fn recorded_state(order: &LoadedOrder) -> Vec<u8> {
    BookState { state: order.state, since: order.recorded_at, failure: order.failure }.packed()
}

/// Value of an order's field: not recorded yet.
fn waiting_state(order: OrderId) -> Vec<u8> {
    BookState { state: OrderState::Processing, since: order.made_at(), failure: None }.packed()
}
