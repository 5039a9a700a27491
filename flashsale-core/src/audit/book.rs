//! What the book in Redis says, against the queue and the record.

use std::collections::{HashMap, HashSet};

use redis::ToRedisArgs;

use super::holdings::Holdings;
use crate::{
    error::Result,
    ids::{IdempotencyKey, OrderId, ProductId, SaleId, UserId},
    keys::{BookField, SaleKeys, book_key, book_key_value, book_order},
    link::Link,
    order::OrderState,
    packed::BookState,
    scripts::Pair,
    sql::snapshot::{LoadedOrder, Snapshot},
};

/// Fields that are read or asked for at once.
const PAGE: usize = 2_000;

/// The book, read bit by bit while the sale may be selling.
#[derive(Default)]
pub(super) struct Book {
    orders: HashMap<OrderId, OrderState>,
    /// Units, as they stand there.
    quotas: HashMap<(UserId, ProductId), Vec<u8>>,
    /// `k` field → order and fingerprint.
    keys: HashMap<Vec<u8>, Vec<u8>>,
    /// What is none of these, or says of an order nothing that can be read.
    strange: Vec<String>,
}

impl Book {
    pub(super) async fn read(link: &Link, keys: &SaleKeys) -> Result<Self> {
        let mut book = Self::default();
        let mut cursor = "0".to_owned();
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(&keys.book).arg(&cursor).arg("COUNT").arg(PAGE);
            let (next, fields): (String, Vec<Pair>) = link.ask(&command).await?;
            for (field, value) in fields {
                book.note(keys.id, field, value);
            }
            if next == "0" {
                return Ok(book);
            }
            cursor = next;
        }
    }

    fn note(&mut self, sale: SaleId, field: Vec<u8>, value: Vec<u8>) {
        match (BookField::read(&field, sale), BookState::unpack(&value)) {
            (Some(BookField::Quota(user, product)), _) => drop(self.quotas.insert((user, product), value)),
            (Some(BookField::Epoch), _) => {}
            (Some(BookField::Key(..)), _) => drop(self.keys.insert(field, value)),
            (Some(BookField::Order(id)), Some(shown)) => drop(self.orders.insert(id, shown.state)),
            (Some(BookField::Order(id)), None) => {
                self.strange.push(format!("the state '{}' of order {id}", value.escape_ascii()));
            }
            (None, _) => self.strange.push(format!("field '{}' of the book", field.escape_ascii())),
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
        use OrderState::{Confirmed, Failed, Processing, Queued};
        let recorded: HashMap<_, _> = record.orders.iter().map(|order| (order.id, order.state)).collect();
        let mut violations: Vec<_> =
            self.strange.iter().map(|what| format!("{what} cannot be read")).collect();
        let mut suspects = Vec::new();
        for (id, shown) in &self.orders {
            let state = recorded.get(id);
            let kept = holdings.queued.contains(id) || holdings.parked.contains(id);
            match (shown, state) {
                (Queued | Processing, None) if !kept => {
                    violations
                        .push(format!("order {id} was admitted and is lost: not queued, parked or recorded"));
                }
                (Queued | Processing, Some(state)) if !kept => suspects.push((*id, *state)),
                (Confirmed, state) if state != Some(&Confirmed) => {
                    violations.push(format!("order {id} is shown as confirmed and is not recorded so"));
                }
                (Failed, state) if state != Some(&Failed) => {
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
            let values = read_again(link, keys, chunk.iter().map(|(_, field)| field)).await?;
            for ((order, _), value) in chunk.iter().zip(values) {
                if value.as_ref() != Some(&expected(order)) {
                    let (user, found) = (&order.user, held_by(order.id, value.as_deref()));
                    let key = order.key.as_ref().map_or("", IdempotencyKey::as_str);
                    violations
                        .push(format!("order {}: key {key} of user {user} stands for {found}", order.id));
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
            let holder = (user.clone(), product);
            if self.quotas.get(&holder).is_some_and(|quota| *quota == units.to_string().as_bytes()) {
                right.insert(holder);
            } else {
                suspects.insert(holder);
            }
        }
        let wrong = self.quotas.iter().filter(|(holder, units)| *units != b"0" && !right.contains(*holder));
        suspects.extend(wrong.map(|(holder, _)| holder.clone()));
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
        let values = read_again(link, keys, chunk.iter().map(|(id, _)| book_order(*id))).await?;
        for ((id, state), value) in chunk.iter().zip(values) {
            let shown = value.and_then(|value| BookState::unpack(&value)).map(|shown| shown.state);
            if !shown.is_some_and(OrderState::is_final) {
                let shown = shown.map_or("nothing that can be read", OrderState::as_str);
                violations.push(format!(
                    "order {id} is recorded as {state}, is not queued, and is shown as {shown}"
                ));
            }
        }
    }
    Ok(violations)
}

/// The values of these fields of the book as they stand now.
async fn read_again(
    link: &Link,
    keys: &SaleKeys,
    fields: impl Iterator<Item = impl ToRedisArgs>,
) -> Result<Vec<Option<Vec<u8>>>> {
    let mut command = redis::cmd("HMGET");
    command.arg(&keys.book);
    for field in fields {
        command.arg(field);
    }
    Ok(link.ask(&command).await?)
}

/// What an order's key stands for instead, in words.
fn held_by(order: OrderId, value: Option<&[u8]>) -> String {
    let Some(value) = value else { return "nothing".to_owned() };
    let found = value.split_at_checked(12).and_then(|(found, _)| OrderId::unpack(found, order.sale()));
    match found {
        Some(found) if found == order => "another request".to_owned(),
        Some(found) => format!("order {found}"),
        None => format!("'{}'", value.escape_ascii()),
    }
}
