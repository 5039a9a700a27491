use std::time::Duration;

use redis::{Cmd, FromRedisValue, RedisError, Value};

use super::{Reply, Script, unexpected_word};
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

/// What came of putting a product into a cart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CartReply {
    Kept(KeptCart),
    /// It holds the most products that a cart may; nothing was changed.
    Full,
    /// It holds a product of another currency; nothing was changed.
    OtherCurrency,
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
    let mut command = redis::cmd("EVALSHA");
    command.arg(CART.sha()).arg(1).arg(keys::cart(user)).arg(millis(kept_for));
    command.arg(product.get()).arg(quantity.get()).arg(currency.code()).arg(Items::MAX_LINES);
    let mut reply: Reply = CART.run(link, &command).await?;
    Ok(match &*reply.word {
        "ok" => CartReply::Kept(KeptCart { now_ms: reply.next()?, lines: reply.next()? }),
        "full" => CartReply::Full,
        "other_currency" => CartReply::OtherCurrency,
        other => return Err(unexpected_word(other)),
    })
}

/// Takes a product out. The cart is kept for so long from now on. No script: a full Redis refuses those that may
/// write, and lets what frees memory pass.
pub(crate) async fn remove_from_cart(
    link: &Link,
    user: &UserId,
    product: ProductId,
    kept_for: Duration,
) -> Result<(), CallError> {
    let mut prolong = redis::cmd("PEXPIRE");
    prolong.arg(keys::cart(user)).arg(millis(kept_for));
    for answer in link.ask_all(vec![forget_lines(user, &[product.get()]), prolong]).await? {
        unless_damaged(answer)?;
    }
    Ok(())
}

fn millis(kept_for: Duration) -> u64 {
    u64::try_from(kept_for.as_millis()).unwrap_or(u64::MAX)
}

/// Reads a cart, which changes nothing about it.
pub(crate) async fn read_cart(link: &Link, user: &UserId) -> Result<KeptCart, CallError> {
    let mut read = redis::cmd("HGETALL");
    read.arg(keys::cart(user));
    let mut answers = link.ask_all(vec![redis::cmd("TIME"), read]).await?.into_iter();
    let mut answer = || answers.next().unwrap_or(Ok(Value::Nil));
    let (seconds, micros): (i64, i64) = readable(answer().map_err(CallError::Refused)?)?;
    let lines = unless_damaged(answer())?.map_or(Ok(Vec::new()), readable)?;
    Ok(KeptCart { now_ms: seconds * 1_000 + micros / 1_000, lines })
}

/// A cart's answer; `None` from a key of another type, which is a cart that holds nothing.
fn unless_damaged(answer: Result<Value, RedisError>) -> Result<Option<Value>, CallError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(None),
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
