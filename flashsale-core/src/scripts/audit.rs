use std::{collections::HashMap, time::Duration};

use super::{Script, look::Stock};
use crate::{
    ids::ProductId,
    keys::SaleKeys,
    link::{CallError, Link},
    queue::Entry,
    sale::{Epoch, Seq},
};

pub(super) static AUDIT: Script = Script::new(include_str!("../../lua/audit.lua"));

/// One consistent look at what a sale holds.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Every admission up to this one is in it.
    pub seq: Seq,
    pub stock: HashMap<ProductId, i64>,
    /// The last change that the stock contains, and whether it was applied rather than refused.
    pub changes: Option<i64>,
    pub last_applied: bool,
    /// All queue entries, each with its order's `o` value (empty: none).
    pub entries: Vec<(Entry, Vec<u8>)>,
    /// The values of the parked orders' `o` fields that were asked for.
    pub parked: Vec<Vec<u8>>,
    /// The values of the further fields that were asked for.
    pub further: Vec<Vec<u8>>,
}

/// Takes the look; `parked` are `o` fields, `further` any fields of the book.
pub(crate) async fn audit(
    link: &Link,
    keys: &SaleKeys,
    epoch: Epoch,
    parked: &[Vec<u8>],
    further: &[Vec<u8>],
) -> Result<Snapshot, CallError> {
    let mut command = AUDIT.under_epoch(keys, epoch);
    command.arg(parked.len()).arg(parked).arg(further);
    // A long queue takes its time to be read and sent.
    let mut reply = AUDIT.run_within(link, &command, Duration::from_secs(30)).await?.expect("ok")?;
    let seq = Seq(reply.next()?);
    let Stock { left: stock, changes, outcome } = Stock::read(reply.next()?);
    let last_applied = outcome.as_deref() == Some("applied");
    let mut list = reply.list()?;
    let states: Vec<Vec<u8>> = reply.next()?;
    let mut entries = Vec::with_capacity(states.len());
    for state in states {
        entries.push((Entry { id: list.text()?, fields: list.next()? }, state));
    }
    Ok(Snapshot { seq, stock, changes, last_applied, entries, parked: reply.next()?, further: reply.next()? })
}
