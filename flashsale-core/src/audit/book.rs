//! What the book in Redis says, against the queue and the record.

use std::collections::{HashMap, HashSet};

use super::holdings::Holdings;
use crate::{
    error::Result,
    ids::{OrderId, ProductId, UserId},
    keys::{SaleKeys, book_key, book_order, book_quota},
    link::Link,
    order::OrderState,
    scripts::book_key_value,
    sql::snapshot::{LoadedOrder, Snapshot},
};

/// Fields that are read or asked for at once.
const PAGE: usize = 2_000;

/// The book, read bit by bit while the sale may be selling.
#[derive(Default)]
pub(super) struct Book {
    /// Order → the first letter of its state.
    orders: HashMap<OrderId, char>,
    /// `q/` field → units.
    quotas: HashMap<String, String>,
    /// `k/` field → order and fingerprint.
    keys: HashMap<String, String>,
    /// Fields that are none of these.
    strange: Vec<String>,
}

impl Book {
    pub(super) async fn read(link: &Link, keys: &SaleKeys) -> Result<Self> {
        let mut book = Self::default();
        let mut cursor = "0".to_owned();
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(&keys.book).arg(&cursor).arg("COUNT").arg(PAGE);
            let (next, fields): (String, Vec<(String, String)>) = link.ask(&command).await?;
            for (field, value) in fields {
                book.note(field, value);
            }
            if next == "0" {
                return Ok(book);
            }
            cursor = next;
        }
    }

    fn note(&mut self, field: String, value: String) {
        match field.split_at_checked(2) {
            Some(("q/", holder)) if parse_holder(holder).is_some() => drop(self.quotas.insert(field, value)),
            Some(("k/", _)) => drop(self.keys.insert(field, value)),
            Some(("o/", id)) => match (id.parse(), value.chars().next()) {
                (Ok(id), Some(letter)) => drop(self.orders.insert(id, letter)),
                _ => self.strange.push(field),
            },
            _ => self.strange.push(field),
        }
    }

    /// I5. The book was read before the queue and the queue before the record, so whatever the book shows
    /// must be found in one of them.
    pub(super) async fn order_violations(
        &self,
        link: &Link,
        keys: &SaleKeys,
        holdings: &Holdings,
        record: &Snapshot,
    ) -> Result<Vec<String>> {
        let recorded: HashMap<_, _> = record.orders.iter().map(|order| (order.id, order.state)).collect();
        let mut violations: Vec<_> =
            self.strange.iter().map(|field| format!("field {field:?} of the book cannot be read")).collect();
        let mut suspects = Vec::new();
        for (id, letter) in &self.orders {
            let state = recorded.get(id);
            let kept = holdings.queued.contains(id) || holdings.parked.contains(id);
            match (letter, state) {
                ('Q' | 'P', None) if !kept => {
                    violations
                        .push(format!("order {id} was admitted and is lost: not queued, parked or recorded"));
                }
                ('Q' | 'P', Some(state)) if !kept => suspects.push((*id, *state)),
                ('C', state) if state != Some(&OrderState::Confirmed) => {
                    violations.push(format!("order {id} is shown as confirmed and is not recorded so"));
                }
                ('F', state) if state != Some(&OrderState::Failed) => {
                    violations.push(format!("order {id} is shown as failed and is not recorded so"));
                }
                _ => {}
            }
        }
        violations.extend(unsettled(link, keys, &suspects).await?);
        violations.sort_unstable();
        Ok(violations)
    }

    /// I6, first half. Keys stay from the admission on, so what is missing in the older reading is asked
    /// for again after the record was read.
    pub(super) async fn key_violations(
        &self,
        link: &Link,
        keys: &SaleKeys,
        record: &Snapshot,
    ) -> Result<Vec<String>> {
        let field = |order: &LoadedOrder| order.key.as_ref().map(|key| book_key(&order.user, key));
        let expected = |order: &LoadedOrder| book_key_value(order.id, &order.fingerprint);
        let confirmed = record.orders.iter().filter(|order| order.state == OrderState::Confirmed);
        let suspects: Vec<_> = confirmed
            .filter_map(|order| Some((order, field(order)?)))
            .filter(|(order, field)| self.keys.get(field) != Some(&expected(order)))
            .collect();
        let mut violations = Vec::new();
        for chunk in suspects.chunks(PAGE) {
            let mut command = redis::cmd("HMGET");
            command.arg(&keys.book);
            for (_, field) in chunk {
                command.arg(field);
            }
            let values: Vec<Option<String>> = link.ask(&command).await?;
            for ((order, field), value) in chunk.iter().zip(values) {
                if value.as_ref() != Some(&expected(order)) {
                    let found = value.unwrap_or_else(|| "nothing".to_owned());
                    violations.push(format!("order {}: its key {field} stands for {found}", order.id));
                }
            }
        }
        Ok(violations)
    }

    /// I8, first pass: whose quota is not what orders hold, or was not for a moment.
    pub(super) fn quota_suspects(&self, holdings: &Holdings, record: &Snapshot) -> Vec<(UserId, ProductId)> {
        let recorded: HashSet<_> = record.orders.iter().map(|order| order.id).collect();
        let mut held: HashMap<(&UserId, ProductId), u64> = HashMap::new();
        for (user, product, units) in &record.held {
            *held.entry((user, *product)).or_default() += u64::from(*units);
        }
        for holding in holdings.held.iter().filter(|holding| !recorded.contains(&holding.id)) {
            for (product, units) in &holding.units {
                *held.entry((&holding.user, *product)).or_default() += u64::from(*units);
            }
        }
        let mut suspects: HashSet<(UserId, ProductId)> = HashSet::new();
        let mut right = HashSet::new();
        for ((user, product), units) in held {
            let field = book_quota(user, product);
            if self.quotas.get(&field).is_some_and(|quota| *quota == units.to_string()) {
                right.insert(field);
            } else {
                suspects.insert((user.clone(), product));
            }
        }
        for (field, _) in self.quotas.iter().filter(|(field, units)| *units != "0" && !right.contains(*field))
        {
            suspects.extend(parse_holder(&field[2..]));
        }
        let mut suspects: Vec<_> = suspects.into_iter().collect();
        suspects.sort_unstable();
        suspects
    }
}

/// Which of these recorded orders the book still shows as on their way, although no entry will end them. An
/// entry leaves the queue in the step that shows its verdict, so one that had left it shows that by now.
async fn unsettled(link: &Link, keys: &SaleKeys, suspects: &[(OrderId, OrderState)]) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for chunk in suspects.chunks(PAGE) {
        let mut command = redis::cmd("HMGET");
        command.arg(&keys.book);
        for (id, _) in chunk {
            command.arg(book_order(*id));
        }
        let values: Vec<Option<String>> = link.ask(&command).await?;
        for ((id, state), value) in chunk.iter().zip(values) {
            let shown = value.as_deref().unwrap_or("nothing");
            if !shown.starts_with(['C', 'F']) {
                violations.push(format!(
                    "order {id} is recorded as {state}, is not queued, and is shown as {shown}"
                ));
            }
        }
    }
    Ok(violations)
}

/// `user/product`
fn parse_holder(text: &str) -> Option<(UserId, ProductId)> {
    let (user, product) = text.rsplit_once('/')?;
    Some((user.parse().ok()?, product.parse().ok()?))
}
