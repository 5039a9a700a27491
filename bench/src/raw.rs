//! `reserve.lua`, called without the engine: what Redis itself can do.

use anyhow::{Context, Result, bail, ensure};
use flashsale_core::{Admission, OrderId, Refusal, SaleId};
use redis::{Cmd, Value, aio::MultiplexedConnection};

use crate::{
    crowd::Buyer,
    shop::{Bench, Shop},
};

const RESERVE: &str = include_str!("../../lua/reserve.lua");

/// The part of the script's contract that [`Raw::command`] is written for. Where the script changes it, this
/// has to be changed with it; until then nothing is measured, rather than something else.
const CONTRACT: &str = "\
-- KEYS  1 sale  2 stock  3 product  4 book  5 queue
-- ARGV  1 script version  2 epoch
--       3 the highest seq that the caller has seen of this sale
--       4 not-after, in microseconds of this server's clock
--       then per order (at most 128):
--         order id, user, key, fingerprint, request id ('' if none), lines as product:quantity,… (at most 20)
";

/// The most orders of one call.
pub(crate) const BATCH: usize = 128;

/// Later than any call of this run, in microseconds.
const NOT_AFTER: &str = "9000000000000000";

/// How to call the script on one shop's sale.
#[derive(Clone)]
pub(crate) struct Raw {
    sha: String,
    keys: [String; 5],
    version: String,
    epoch: String,
    sale: SaleId,
    lines: String,
}

impl Raw {
    pub(crate) async fn of(shop: &Shop, redis: &mut MultiplexedConnection) -> Result<Self> {
        ensure!(RESERVE.contains(CONTRACT), "the arguments of reserve.lua are not those of this benchmark");
        let sha = redis::cmd("SCRIPT").arg("LOAD").arg(RESERVE).query_async(redis).await?;
        let keys =
            ["sale", "stock", "product", "book", "queue"].map(|name| format!("fs:{{{}}}:{name}", shop.sale));
        let (version, epoch) =
            redis::cmd("HMGET").arg(&keys[0]).arg("version").arg("epoch").query_async(redis).await?;
        let lines: Vec<_> = shop.products.iter().map(|product| format!("{product}:1")).collect();
        Ok(Self { sha, keys, version, epoch, sale: shop.sale, lines: lines.join(",") })
    }

    /// The call that decides these orders, each of one of every product.
    pub(crate) fn command(&self, buyers: &[Buyer]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.sha).arg(self.keys.len()).arg(&self.keys[..]).arg(&self.version).arg(&self.epoch);
        command.arg(0).arg(NOT_AFTER);
        for Buyer { user, key } in buyers {
            let id = OrderId::new(self.sale).as_uuid();
            let key = uuid::Uuid::try_parse(key.as_str()).expect("a buyer's key is a UUID");
            command
                .arg(&id.as_bytes()[..12])
                .arg(user.as_str())
                .arg([b"#", &key.as_bytes()[..]].concat())
                // It is only compared with that of a repeat, of which there are none.
                .arg(b"\x01\x01\x23\x45\x67\x89\xab\xcd\xef")
                .arg("")
                .arg(&self.lines);
        }
        command
    }
}

/// Fails unless the script has admitted so many orders.
pub(crate) fn expect_admitted(reply: Value, orders: usize) -> Result<()> {
    let Value::Array(reply) = reply else { bail!("reserve.lua answers {reply:?}") };
    let word = |value: &Value| matches!(value, Value::BulkString(word) if word == b"ok");
    ensure!(reply.first().is_some_and(word) && reply.len() == 3 + orders, "reserve.lua answers {reply:?}");
    for answer in &reply[3..] {
        let admitted = matches!(answer, Value::BulkString(word) if word == b"admitted");
        ensure!(admitted, "reserve.lua answers an order {answer:?}");
    }
    Ok(())
}

/// Fails unless orders that are placed this way are as good as the engine's: it knows their keys, its drainer
/// confirms them, and its audit finds them in both stores.
pub(crate) async fn prove(bench: &Bench) -> Result<()> {
    const ORDERS: usize = 2 * BATCH;
    let shop = bench.shop(&[ORDERS, ORDERS]).await?;
    let mut redis = bench.connection().await?;
    let raw = Raw::of(&shop, &mut redis).await?;
    let buyers = Buyer::all(0..ORDERS);
    for batch in buyers.chunks(BATCH) {
        let reply = raw.command(batch).query_async(&mut redis).await?;
        expect_admitted(reply, batch.len())?;
    }
    shop.expect_sold_out(ORDERS).await?;
    // Under a fingerprint of its own, so that the engine takes a repeat for another order.
    let repeat = shop.engine.reserve(buyers[0].clone().wants(&shop.products)).await?;
    ensure!(repeat == Admission::Refused(Refusal::KeyReused), "a key is not known afterwards: {repeat:?}");
    shop.drain(ORDERS).await?;
    shop.expect_recorded(ORDERS).await?;
    shop.expect_sound().await.context("after calls of reserve.lua without the engine")?;
    shop.close().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_takes_the_arguments_that_are_sent() {
        assert!(RESERVE.contains(CONTRACT), "change `command` and `CONTRACT` as reserve.lua has changed");
    }

    #[test]
    fn only_an_admission_of_all_counts() {
        let word = |word: &str| Value::BulkString(word.as_bytes().to_vec());
        let reply = |answers: &[&str]| {
            let mut reply = vec![word("ok"), word("7"), word("1")];
            reply.extend(answers.iter().map(|answer| word(answer)));
            Value::Array(reply)
        };
        assert!(expect_admitted(reply(&["admitted", "admitted"]), 2).is_ok());
        assert!(expect_admitted(reply(&["admitted"]), 2).is_err());
        assert!(expect_admitted(reply(&["admitted", "paused"]), 2).is_err());
        assert!(expect_admitted(Value::Array(vec![word("fenced"), word("epoch")]), 2).is_err());
        assert!(expect_admitted(Value::Nil, 0).is_err());
    }
}
