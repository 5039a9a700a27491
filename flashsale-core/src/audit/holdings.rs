//! What is out of stock and who holds it, consistently, while the sale is selling.
//!
//! One script takes stock, seq S and the queue; then the record is read for orders with a seq up to S. An
//! order of the queue counts by its queue entry, whatever became of it meanwhile; one that had left the
//! queue was recorded before.

use std::collections::{HashMap, HashSet};

use crate::{
    error::{Error, Result},
    ids::{OrderId, ProductId, UserId},
    keys::{SaleKeys, book_order, book_quota},
    queue::Holding,
    sale::Sale,
    scripts::{self, Snapshot},
    sql::{audit::Settled, dead_letters::StoredLetter},
    stores::Stores,
};

/// How often the dead letters may change while they are looked at.
const TRIES: usize = 10;

/// One consistent look.
pub(super) struct Holdings {
    redis: Snapshot,
    record: Settled,
    /// Orders of the queue and of the dead letters whose units are out of stock.
    pub held: Vec<Holding>,
    /// Orders in the queue, readable or not.
    pub queued: HashSet<OrderId>,
    /// Parked orders.
    pub parked: HashSet<OrderId>,
    /// Entries of which it cannot be read what they hold.
    unreadable: Vec<String>,
    asked: Vec<(UserId, ProductId)>,
}

impl Holdings {
    /// Takes the look, with the quotas of some users; again if the dead letters changed meanwhile.
    pub(super) async fn read(stores: &Stores, sale: &Sale, quotas: &[(UserId, ProductId)]) -> Result<Self> {
        let keys = SaleKeys::new(sale.id);
        let further: Vec<_> = quotas.iter().map(|(user, product)| book_quota(user, *product)).collect();
        let users: HashSet<_> = quotas.iter().map(|(user, _)| user.clone()).collect();
        let users: Vec<_> = users.into_iter().collect();
        let mut before = crate::sql::dead_letters::list(&stores.pg).await?;
        for _ in 0..TRIES {
            before.retain(|letter| letter.sale == sale.id);
            let parked: Vec<_> = before.iter().map(parked_field).collect();
            let redis = scripts::audit(&stores.link, &keys, sale.epoch, &parked, &further).await;
            let redis = redis.map_err(|error| error.in_sale(sale.id))?;
            let queued: Vec<_> =
                redis.entries.iter().filter_map(|(entry, _)| entry.order_id(sale.id)).collect();
            let changes = (redis.changes.unwrap_or_default(), redis.last_applied);
            let settled =
                crate::sql::audit::settled(&stores.pg, sale.id, redis.seq, changes, &queued, &users);
            let record = settled.await?;
            if record.epoch != sale.epoch {
                return Err(Error::fenced(sale.id, "it was recovered meanwhile"));
            }
            if same_letters(&before, &record.letters) {
                return Ok(Self::add_up(sale, redis, record, quotas));
            }
            before = record.letters;
        }
        Err(Error::unavailable("the dead letters changed all the time; try again"))
    }

    fn add_up(sale: &Sale, redis: Snapshot, record: Settled, quotas: &[(UserId, ProductId)]) -> Self {
        let mut out = Self {
            held: Vec::new(),
            queued: HashSet::new(),
            parked: HashSet::new(),
            unreadable: Vec::new(),
            asked: quotas.to_vec(),
            redis,
            record,
        };
        for (entry, state) in &out.redis.entries {
            out.queued.extend(entry.order_id(sale.id));
            if state.starts_with(b"F") {
                continue;
            }
            match entry.holding(sale.id) {
                Ok(holding) => out.held.push(holding),
                Err(why) => out.unreadable.push(format!("queue entry {}: {why}", entry.id)),
            }
        }
        for (letter, state) in out.record.letters.iter().zip(&out.redis.parked) {
            out.parked.extend(letter.order);
            let counted = |id: &OrderId| out.queued.contains(id) || out.record.confirmed_letters.contains(id);
            let ended_and_unknown = letter.resolved.is_some() && state.is_empty();
            if letter.order.as_ref().is_some_and(counted) || state.starts_with(b"F") || ended_and_unknown {
                continue;
            }
            match letter.entry.holding(sale.id) {
                Ok(holding) if holding.seq <= out.redis.seq => out.held.push(holding),
                Ok(_) => {}
                // It names no order, so that no units can have been taken for it, or the recovery that was
                // requested when it was discarded gives back what there was.
                Err(_) if letter.order.is_none() || letter.resolved.is_some() => {}
                Err(why) => out.unreadable.push(format!("dead letter {}: {why}", letter.id)),
            }
        }
        out
    }

    /// I4.
    pub(super) fn stock_violations(&self) -> Vec<String> {
        let mut waiting: HashMap<ProductId, i64> = HashMap::new();
        for (product, units) in self.held.iter().flat_map(|holding| &holding.units) {
            *waiting.entry(*product).or_default() += i64::from(*units);
        }
        let mut violations: Vec<_> =
            self.unreadable.iter().map(|what| format!("cannot be added up, {what}")).collect();
        let mut products: Vec<_> = self.record.stock.iter().collect();
        products.sort_unstable();
        for (product, stock) in products {
            let Some(left) = self.redis.stock.get(product) else {
                violations.push(format!("product {product}: Redis has no stock of it"));
                continue;
            };
            let confirmed = self.record.confirmed.get(product).copied().unwrap_or_default();
            let waiting = waiting.get(product).copied().unwrap_or_default();
            let sum = left + waiting + confirmed;
            if sum != *stock {
                violations.push(format!(
                    "product {product}: {left} left + {waiting} queued or parked + {confirmed} confirmed = {sum}, \
                     the stock is {stock}"
                ));
            }
        }
        violations
    }

    /// I8, for the users that were asked for.
    pub(super) fn quota_violations(&self) -> Vec<String> {
        let mut held = self.record.held.clone();
        for holding in &self.held {
            for (product, units) in &holding.units {
                *held.entry((holding.user.clone(), *product)).or_default() += i64::from(*units);
            }
        }
        let mut violations = Vec::new();
        for ((user, product), quota) in self.asked.iter().zip(&self.redis.further) {
            let held = held.get(&(user.clone(), *product)).copied().unwrap_or_default();
            let quota = if quota.is_empty() { Some(0) } else { number(quota) }.unwrap_or(i64::MIN);
            if quota != held {
                violations.push(format!(
                    "user {user}, product {product}: quota in Redis says {quota}, orders hold {held}"
                ));
            }
        }
        violations
    }
}

/// The `o` field of a parked order; a field that nobody has for garbage.
fn parked_field(letter: &StoredLetter) -> Vec<u8> {
    letter.order.map_or_else(|| b"o".to_vec(), book_order)
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn same_letters(before: &[StoredLetter], after: &[StoredLetter]) -> bool {
    let state = |letter: &StoredLetter| (letter.id, letter.resolved);
    before.iter().map(state).eq(after.iter().map(state))
}
