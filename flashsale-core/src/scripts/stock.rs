use super::{Script, unexpected_word};
use crate::{
    ids::ProductId,
    keys::SaleKeys,
    link::{CallError, Link},
    sale::Epoch,
};

/// Numbered: a change that is sent twice counts once.
pub(super) static STOCK: Script = Script::repeatable(include_str!("../../lua/stock.lua"));

/// One numbered change on its way to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carry {
    /// What the record has already.
    Add(i64),
    /// So many fewer, if so many are left.
    Take(i64),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carried {
    /// The stock contains it.
    Applied,
    /// Fewer were left.
    Refused,
    /// The stock contains a later one.
    Known,
    /// One before it is missing.
    Early,
}

/// Carries a change to Redis.
pub(crate) async fn change_stock(
    link: &Link,
    keys: &SaleKeys,
    epoch: Epoch,
    number: i64,
    product: ProductId,
    carry: Carry,
) -> Result<Carried, CallError> {
    let (how, units) = match carry {
        Carry::Add(units) => ("add", units),
        Carry::Take(units) => ("take", units),
    };
    let mut command = STOCK.under_epoch(keys, epoch);
    command.arg(how).arg(number).arg(product.get()).arg(units);
    let reply = STOCK.run(link, &command).await?;
    match reply.word.as_str() {
        "applied" => Ok(Carried::Applied),
        "refused" => Ok(Carried::Refused),
        "known" => Ok(Carried::Known),
        "early" => Ok(Carried::Early),
        word => Err(unexpected_word(word)),
    }
}
