use std::time::Duration;

use redis::{Cmd, FromRedisValue, Value};

use super::{Reply, Script, unexpected};
use crate::{
    ids::{ProductId, UserId},
    keys,
    link::{CallError, Link},
    money::Currency,
    order::{Items, Quantity},
};

pub(super) static CART: Script = Script::repeatable(include_str!("../../lua/cart.lua"));

/// A cart as Redis holds it, and when, unjudged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KeptCart {
    /// Redis's clock, Unix milliseconds.
    pub now_ms: i64,
    /// Field and value, as bytes, because garbage may hold anything.
    pub lines: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What came of asking for a cart, or of changing it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CartReply {
    Kept(KeptCart),
    /// It holds the most products that a cart may; nothing was changed.
    Full,
    /// It holds a product of another currency; nothing was changed.
    OtherCurrency,
    /// Its key is of another type; nothing was changed.
    Damaged,
}

/// Sets the quantity of a product. The cart is kept for so long from now on.
pub(crate) async fn set_in_cart(
    link: &Link,
    user: &UserId,
    product: ProductId,
    quantity: Quantity,
    currency: Currency,
    kept_for: Duration,
) -> Result<CartReply, CallError> {
    let mut command = on_cart(user, kept_for);
    command.arg("set").arg(product.get()).arg(quantity.get()).arg(currency.code()).arg(Items::MAX_LINES);
    change(link, &command).await
}

/// Takes a product out. The cart is kept for so long from now on.
pub(crate) async fn remove_from_cart(
    link: &Link,
    user: &UserId,
    product: ProductId,
    kept_for: Duration,
) -> Result<CartReply, CallError> {
    let mut command = on_cart(user, kept_for);
    command.arg("remove").arg(product.get());
    change(link, &command).await
}

fn on_cart(user: &UserId, kept_for: Duration) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    let kept_ms = u64::try_from(kept_for.as_millis()).unwrap_or(u64::MAX);
    command.arg(CART.sha()).arg(1).arg(keys::cart(user)).arg(kept_ms);
    command
}

async fn change(link: &Link, command: &Cmd) -> Result<CartReply, CallError> {
    let mut reply: Reply = CART.run(link, command).await?;
    Ok(match &*reply.word {
        "ok" => CartReply::Kept(KeptCart { now_ms: reply.next()?, lines: reply.next()? }),
        "full" => CartReply::Full,
        "other_currency" => CartReply::OtherCurrency,
        "damaged" => CartReply::Damaged,
        other => return Err(unexpected(&Value::SimpleString(other.to_owned()))),
    })
}

/// Reads a cart, which changes nothing about it.
pub(crate) async fn read_cart(link: &Link, user: &UserId) -> Result<CartReply, CallError> {
    let mut read = redis::cmd("HGETALL");
    read.arg(keys::cart(user));
    let mut answers = link.ask_all(vec![redis::cmd("TIME"), read]).await?.into_iter();
    let mut answer = || answers.next().unwrap_or(Ok(Value::Nil));
    let (time, lines) = (answer().map_err(CallError::Refused)?, answer());
    let (seconds, micros): (i64, i64) = readable(time)?;
    match lines {
        Ok(lines) => Ok(CartReply::Kept(KeptCart {
            now_ms: seconds * 1_000 + micros / 1_000,
            lines: readable(lines)?,
        })),
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(CartReply::Damaged),
        Err(error) => Err(CallError::Refused(error)),
    }
}

fn readable<T: FromRedisValue>(value: Value) -> Result<T, CallError> {
    T::from_redis_value(value).map_err(|error| CallError::Refused(error.into()))
}

/// Takes fields out of a cart without restarting its time.
pub(crate) fn forget_lines(user: &UserId, fields: &[impl redis::ToRedisArgs]) -> Cmd {
    let mut command = redis::cmd("HDEL");
    command.arg(keys::cart(user)).arg(fields);
    command
}
