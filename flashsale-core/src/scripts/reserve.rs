use std::{fmt::Write, time::Duration};

use redis::{Cmd, Value};

use super::{Reply, Script, unexpected, unexpected_word};
use crate::{
    ids::{IdempotencyKey, OrderId, ProductId, RequestId, SaleId, UserId},
    keys::SaleKeys,
    link::{CallError, Link},
    order::{Fingerprint, Items, Refusal},
    sale::{Epoch, Seq},
};

pub(super) static RESERVE: Script = Script::new(include_str!("../../lua/reserve.lua"));

/// The most orders that one call decides.
pub(crate) const RESERVE_BATCH: usize = 128;

/// One order to be decided.
#[derive(Debug, Clone)]
pub(crate) struct Reservation {
    pub id: OrderId,
    pub user: UserId,
    pub key: IdempotencyKey,
    pub fingerprint: Fingerprint,
    pub items: Items,
    pub request_id: Option<RequestId>,
}

/// What the script says of one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Admitted,
    Replayed(OrderId),
    /// Another order has this id.
    IdTaken,
    Refused(Refusal),
}

/// What the script says of a batch.
#[derive(Debug)]
pub(crate) enum Reserved {
    /// One answer per order, in their order.
    Decided { seq: Seq, redis_us: i64, answers: Vec<Answer> },
    /// It came after its not-after instant, and nothing was changed.
    Late { redis_us: i64 },
}

/// Decides a batch of orders. `seen` is the highest seq this process knows of the sale, `not_after` an
/// instant of Redis's clock in microseconds.
pub(crate) async fn reserve(
    link: &Link,
    keys: &SaleKeys,
    epoch: Epoch,
    seen: Seq,
    not_after: i64,
    orders: &[&Reservation],
    deadline: Duration,
) -> Result<Reserved, CallError> {
    let mut command = RESERVE.under_epoch(keys, epoch);
    command.arg(seen.get()).arg(not_after);
    let mut lines = (None, String::new());
    for order in orders {
        // Most orders of a batch ask for what the one before asked for.
        if lines.0 != Some(&order.items) {
            lines = (Some(&order.items), text_of(&order.items));
        }
        push_order(&mut command, order, &lines.1);
    }
    let reply = RESERVE.run_within(link, &command, deadline).await?;
    // The script has run: an answer that cannot be read does not say that nothing happened.
    read(reply, keys.id, orders.len()).map_err(|error| CallError::Lost(error.to_string()))
}

fn read(mut reply: Reply, sale: SaleId, orders: usize) -> Result<Reserved, CallError> {
    if reply.word == "late" {
        return Ok(Reserved::Late { redis_us: reply.next()? });
    }
    let mut reply = reply.expect("ok")?;
    let seq = Seq(reply.next()?);
    let redis_us = reply.next()?;
    let answers = (0..orders).map(|_| answer(reply.next()?, sale)).collect::<Result<_, _>>()?;
    Ok(Reserved::Decided { seq, redis_us, answers })
}

fn push_order(command: &mut Cmd, order: &Reservation, lines: &str) {
    command
        .arg(&order.id.packed()[..])
        .arg(order.user.as_str())
        .arg(order.key.packed())
        .arg(&order.fingerprint.as_bytes()[..])
        .arg(order.request_id.as_ref().map_or("", RequestId::as_str))
        .arg(lines);
}

/// The same items have the same text: the script reads it once in a batch.
fn text_of(items: &Items) -> String {
    let mut text = String::new();
    for (product, quantity) in items.iter() {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{product}:{quantity}");
    }
    text
}

fn answer(value: Value, sale: SaleId) -> Result<Answer, CallError> {
    match value {
        Value::BulkString(word) => answer_in_a_word(&word),
        other => answer_with_details(Reply::of(other)?, sale),
    }
}

fn answer_in_a_word(word: &[u8]) -> Result<Answer, CallError> {
    Ok(Answer::Refused(match word {
        b"admitted" => return Ok(Answer::Admitted),
        b"id_taken" => return Ok(Answer::IdTaken),
        b"key_reused" => Refusal::KeyReused,
        b"closed" | b"ended" => Refusal::Ended,
        b"paused" => Refusal::Paused,
        b"not_started" => Refusal::NotStarted,
        other => return Err(unexpected(&Value::BulkString(other.to_owned()))),
    }))
}

fn answer_with_details(mut reply: Reply, sale: SaleId) -> Result<Answer, CallError> {
    fn product(reply: &mut Reply) -> Result<ProductId, CallError> {
        let id: i64 = reply.next()?;
        ProductId::try_from(id).map_err(|_| unexpected(&Value::Int(id)))
    }
    Ok(Answer::Refused(match &*reply.text()? {
        "replayed" => {
            let id: Vec<u8> = reply.next()?;
            let known = OrderId::unpack(&id, sale).ok_or_else(|| unexpected(&Value::BulkString(id)))?;
            return Ok(Answer::Replayed(known));
        }
        "unknown_product" => Refusal::UnknownProduct(product(&mut reply)?),
        "over_quota" => {
            Refusal::OverQuota { product: product(&mut reply)?, limit: reply.next()?, held: reply.next()? }
        }
        "sold_out" => {
            let (product, left): (_, i64) = (product(&mut reply)?, reply.next()?);
            Refusal::SoldOut { product, left: u32::try_from(left).unwrap_or(0) }
        }
        other => return Err(unexpected_word(other)),
    }))
}
