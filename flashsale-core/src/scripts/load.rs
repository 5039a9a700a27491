use super::Script;
use crate::{
    keys::SaleKeys,
    link::{CallError, Link},
    sale::{Epoch, SaleState, Seq},
};

pub(super) static LOAD: Script = Script::new(include_str!("../../lua/load.lua"));
pub(super) static STATE: Script = Script::new(include_str!("../../lua/state.lua"));
pub(super) static PURGE: Script = Script::new(include_str!("../../lua/purge.lua"));

/// A field of a hash and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// One step of a load that follows its start.
#[derive(Debug)]
pub(crate) enum LoadStep<'a> {
    Clear,
    /// Fields and values of `stock`, `product` or `book`.
    Fields(&'static str, &'a [Pair]),
    /// The group starts anew at 0, and these entries are deleted.
    Queue(&'a [String]),
    Open {
        state: SaleState,
        starts_ms: i64,
        ends_ms: i64,
        seq: Seq,
    },
}

/// Fences the sale under a new epoch and takes the load, if the server is the one that was looked at. Says
/// which seq this Redis knows.
pub(crate) async fn load_start(
    link: &Link,
    keys: &SaleKeys,
    epoch: Epoch,
    token: &str,
    server: &str,
) -> Result<Seq, CallError> {
    let mut command = LOAD.under_epoch(keys, epoch);
    command.arg(token).arg("start").arg(server);
    Ok(Seq(LOAD.run(link, &command).await?.expect("ok")?.next()?))
}

/// Does one numbered step of the load that holds this token.
pub(crate) async fn load_step(
    link: &Link,
    keys: &SaleKeys,
    epoch: Epoch,
    token: &str,
    number: u32,
    step: &LoadStep<'_>,
) -> Result<(), CallError> {
    let mut command = LOAD.under_epoch(keys, epoch);
    command.arg(token);
    match step {
        LoadStep::Clear => command.arg("clear").arg(number),
        LoadStep::Fields(hash, pairs) => command.arg(*hash).arg(number).arg(*pairs),
        LoadStep::Queue(entries) => command.arg("queue").arg(number).arg(*entries),
        LoadStep::Open { state, starts_ms, ends_ms, seq } => {
            command.arg("open").arg(number).arg(state.as_str()).arg(*starts_ms).arg(*ends_ms).arg(seq.get())
        }
    };
    LOAD.run(link, &command).await?.expect("ok")?;
    Ok(())
}

/// Carries state and window of a sale to Redis.
pub(crate) async fn carry_state(
    link: &Link,
    keys: &SaleKeys,
    epoch: Epoch,
    state: SaleState,
    starts_ms: i64,
    ends_ms: i64,
) -> Result<(), CallError> {
    let mut command = STATE.under_epoch(keys, epoch);
    command.arg(state.as_str()).arg(starts_ms).arg(ends_ms);
    STATE.run(link, &command).await?.expect("ok")?;
    Ok(())
}

/// Removes the keys of a sale that ended a day ago. False: they are kept for now.
pub(crate) async fn purge(link: &Link, keys: &SaleKeys, epoch: Epoch) -> Result<bool, CallError> {
    let reply = PURGE.run(link, &PURGE.under_epoch(keys, epoch)).await?;
    Ok(reply.word == "ok")
}
