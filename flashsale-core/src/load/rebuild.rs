//! What a sale must look like in Redis, computed from the record and the stream. No I/O.

use std::collections::{HashMap, HashSet};

use crate::{
    ids::{OrderId, ProductId, SaleId, UserId},
    keys::{book_key, book_order, book_quota},
    order::OrderState,
    queue::{Entry, Holding},
    sale::{SaleState, Seq},
    scripts::{Look, book_key_value},
    sql::snapshot::Snapshot,
};

/// The state of a sale to be written to Redis.
#[derive(Debug)]
pub(crate) struct Rebuilt {
    pub state: SaleState,
    pub seq: Seq,
    /// Product → units left. May be negative: never clamped, or units would appear from nowhere later.
    pub stock: Vec<(String, String)>,
    pub product: Vec<(String, String)>,
    pub book: Vec<(String, String)>,
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

/// Adds up what is out of stock, who holds it, and which key stands for which order. `known` is the seq
/// that Redis had. Orders count once each: as their row if they have one, else as their queue entry, else
/// as their dead letter.
pub(crate) fn rebuild(record: &Snapshot, entries: &[Entry], known: Seq) -> Rebuilt {
    let sale = &record.sale;
    let mut out = Rebuilt {
        state: sale.state,
        seq: known.max(sale.recorded_seq),
        stock: Vec::new(),
        product: Vec::new(),
        book: Vec::new(),
        dropped: Vec::new(),
        ended_letters: Vec::new(),
        unreadable: Vec::new(),
        queued: 0,
        parked: 0,
    };
    let mut books = Books::of(record, &mut out);
    for entry in entries {
        if entry.order_id().is_some_and(|id| books.counted.contains(&id)) {
            continue;
        }
        match entry.holding(sale.id) {
            Ok(holding) => {
                out.queued += 1;
                books.hold(&holding, &mut out);
            }
            Err(why) => {
                out.dropped.push(entry.id.clone());
                let letter = record.letters.iter().find(|letter| letter.entry == *entry);
                if letter.is_none_or(|letter| letter.resolved.is_none()) {
                    books.show(entry, sale.id, &mut out);
                }
                if letter.is_none() {
                    out.unreadable.push((entry.clone(), why));
                }
            }
        }
    }
    for letter in &record.letters {
        let holding = letter.entry.holding(sale.id);
        let counted = letter.order.is_some_and(|id| books.counted.contains(&id));
        match holding {
            Err(_) if letter.resolved.is_some() => out.ended_letters.push(letter.id),
            _ if counted => {}
            Ok(holding) => {
                out.parked += 1;
                books.hold(&holding, &mut out);
            }
            Err(_) => books.show(&letter.entry, sale.id, &mut out),
        }
    }
    books.close(record, &mut out);
    out
}

/// The sums while they are being added up.
struct Books {
    counted: HashSet<OrderId>,
    keys: HashSet<String>,
    held: HashMap<(UserId, ProductId), u64>,
    left: HashMap<ProductId, i64>,
}

impl Books {
    /// Begins with the recorded orders.
    fn of(record: &Snapshot, out: &mut Rebuilt) -> Self {
        let left = |product: &crate::sale::Product| i64::from(product.stock) - i64::from(product.sold);
        let mut books = Self {
            counted: HashSet::with_capacity(record.orders.len()),
            keys: HashSet::with_capacity(record.orders.len()),
            held: HashMap::with_capacity(record.held.len()),
            left: record.sale.products.iter().map(|product| (product.id, left(product))).collect(),
        };
        for order in &record.orders {
            books.counted.insert(order.id);
            let at = order.recorded_at.timestamp_millis();
            let state = match (order.state, order.failure) {
                (OrderState::Confirmed, _) => format!("C{at}"),
                (_, Some(reason)) => format!("F{at} {reason}"),
                (_, None) => format!("F{at}"),
            };
            out.book.push((book_order(order.id), state));
            if let Some(key) = &order.key {
                let field = book_key(&order.user, key);
                books.keys.insert(field.clone());
                out.book.push((field, book_key_value(order.id, &order.fingerprint)));
            }
        }
        for (user, product, units) in &record.held {
            *books.held.entry((user.clone(), *product)).or_default() += u64::from(*units);
        }
        books
    }

    /// An order that is not recorded: its units are out of stock until the ledger has decided.
    fn hold(&mut self, holding: &Holding, out: &mut Rebuilt) {
        if !self.counted.insert(holding.id) {
            return;
        }
        out.seq = out.seq.max(holding.seq);
        let at = holding.id.made_at().timestamp_millis();
        out.book.push((book_order(holding.id), format!("P{at}")));
        let field = book_key(&holding.user, &holding.key);
        if self.keys.insert(field.clone()) {
            out.book.push((field, book_key_value(holding.id, &holding.fingerprint)));
        }
        for (product, units) in &holding.units {
            *self.left.entry(*product).or_default() -= i64::from(*units);
            *self.held.entry((holding.user.clone(), *product)).or_default() += u64::from(*units);
        }
    }

    /// An order of which it cannot be read what it holds: its buyer sees what was shown before, and it has no
    /// units. It cannot be confirmed any more, so nobody is given units that somebody else gets too.
    fn show(&mut self, entry: &Entry, sale: SaleId, out: &mut Rebuilt) {
        if let Ok(claim) = entry.claim(sale) {
            self.hold(&claim, out);
        } else if let Some(id) = entry.order_id().filter(|id| id.sale() == sale)
            && self.counted.insert(id)
        {
            out.book.push((book_order(id), format!("P{}", id.made_at().timestamp_millis())));
        }
    }

    fn close(self, record: &Snapshot, out: &mut Rebuilt) {
        for ((user, product), units) in self.held {
            out.book.push((book_quota(&user, product), units.to_string()));
        }
        for product in &record.sale.products {
            let left = self.left.get(&product.id).copied().unwrap_or_default();
            out.stock.push((product.id.to_string(), left.to_string()));
            let limit_and_price = format!("{}:{}", product.per_user_limit, product.sale_price.minor);
            out.product.push((product.id.to_string(), limit_and_price));
        }
    }
}

impl Rebuilt {
    /// What writing this would change, a line each.
    pub(crate) fn differences(&self, seen: &Look) -> Vec<String> {
        let Some(redis) = &seen.sale else {
            let (orders, queued, parked) = (self.book.len(), self.queued, self.parked);
            return vec![format!(
                "Redis does not hold the sale: {orders} fields would be written ({queued} queued, {parked} parked orders)"
            )];
        };
        let mut lines = Vec::new();
        for (product, left) in &self.stock {
            let now = product.parse().ok().and_then(|id| redis.stock.get(&id)).map(ToString::to_string);
            if now.as_ref() != Some(left) {
                let now = now.unwrap_or_else(|| "nothing".to_owned());
                lines.push(format!(
                    "product {product}: {now} left in Redis, {left} by the record and the queue"
                ));
            }
        }
        if redis.seq < self.seq {
            lines.push(format!("seq: {} in Redis, {} by the record and the queue", redis.seq, self.seq));
        }
        if redis.state != Some(self.state) {
            let now = redis.state.map_or("loading", SaleState::as_str);
            lines.push(format!("state: {now} in Redis, {} by the record", self.state));
        }
        if !redis.sound {
            lines.push("Redis was restarted or replaced since the sale was loaded".to_owned());
        }
        for (entry, why) in &self.unreadable {
            lines.push(format!("queue entry {} cannot be read ({why}): it would be parked", entry.id));
        }
        lines
    }
}
