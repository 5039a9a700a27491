use super::{Script, unexpected_word};
use crate::{
    ids::UserId,
    keys::{SaleKeys, book_key, book_key_value, book_order, book_quota},
    link::{CallError, Link},
    queue::{Entry, Holding, Verdict},
    sale::Epoch,
};

pub(super) static BEGIN: Script = Script::new(include_str!("../../lua/begin.lua"));
pub(super) static SETTLE: Script = Script::new(include_str!("../../lua/settle.lua"));
pub(super) static LEAVE: Script = Script::new(include_str!("../../lua/leave.lua"));

/// The most verdicts that one call settles.
pub(crate) const SETTLE_BATCH: usize = 500;

/// What the script says of one entry that is about to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begun {
    Processing,
    Confirmed,
    Failed,
    Gone,
    Missing,
}

/// The `o` field of an entry; a field that nobody has where the entry does not say which order it is.
fn order_field(keys: &SaleKeys, entry: &Entry) -> Vec<u8> {
    entry.order_id(keys.id).map_or_else(|| b"o".to_vec(), book_order)
}

/// Marks a batch of entries as processed under this epoch, and says of each where it stands.
pub(crate) async fn begin(
    link: &Link,
    keys: &SaleKeys,
    epoch: Epoch,
    entries: &[Entry],
) -> Result<Vec<Begun>, CallError> {
    let mut command = BEGIN.under_epoch(keys, epoch);
    for entry in entries {
        command.arg(&entry.id).arg(entry.raw_order()).arg(order_field(keys, entry));
    }
    let mut reply = BEGIN.run(link, &command).await?.expect("ok")?;
    entries
        .iter()
        .map(|_| {
            Ok(match &*reply.text()? {
                "processing" => Begun::Processing,
                "confirmed" => Begun::Confirmed,
                "failed" => Begun::Failed,
                "gone" => Begun::Gone,
                "missing" => Begun::Missing,
                other => return Err(unexpected_word(other)),
            })
        })
        .collect()
}

/// A verdict on its way back to Redis.
#[derive(Debug, Clone)]
pub(crate) struct Settlement {
    pub entry: Entry,
    /// What the order holds; `None` where it cannot be read, which only a parked one may be, or one that
    /// is final already.
    pub holding: Option<Holding>,
    pub verdict: Verdict,
}

/// What a settle found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Orders of which this Redis knows no state: it is to be recovered.
    pub missing: Vec<Vec<u8>>,
    /// How many orders' units went back to stock and quota now.
    pub given_back: usize,
}

/// Writes verdicts back, once, and acknowledges and deletes their entries in the same step.
pub(crate) async fn settle(
    link: &Link,
    keys: &SaleKeys,
    epoch: Epoch,
    batch: &[Settlement],
) -> Result<Settled, CallError> {
    let mut command = SETTLE.under_epoch(keys, epoch);
    for Settlement { entry, holding, verdict } in batch {
        command.arg(&entry.id).arg(entry.raw_order()).arg(order_field(keys, entry));
        let word = match (verdict, holding) {
            (Verdict::Confirmed, Some(_)) => "confirmed",
            (Verdict::Failed { .. }, Some(_)) => "failed",
            // Without its holding nothing can be given back or pointed to: only acknowledge.
            (Verdict::Parked, _) | (_, None) => "parked",
        };
        let reason = match verdict {
            Verdict::Failed { reason, .. } => reason.as_str(),
            Verdict::Confirmed | Verdict::Parked => "",
        };
        let (key, holder) = key_field(holding.as_ref(), verdict);
        command.arg(word).arg(reason).arg(key).arg(holder);
        // Only what failed gives its units back.
        let units = match verdict {
            Verdict::Failed { .. } => holding.as_ref().map_or(&[][..], |holding| &holding.units),
            Verdict::Confirmed | Verdict::Parked => &[],
        };
        command.arg(units.len());
        for (product, quantity) in units {
            let user: &UserId = &holding.as_ref().expect("units come from a holding").user;
            command.arg(product.get()).arg(*quantity).arg(book_quota(user, *product));
        }
    }
    let mut reply = SETTLE.run(link, &command).await?.expect("ok")?;
    let missing: Vec<Vec<u8>> = reply.next()?;
    let given_back: Vec<Vec<u8>> = reply.next()?;
    Ok(Settled { missing, given_back: given_back.len() })
}

/// Where the order's key shall point: to itself when it is confirmed, to the first order when it is a
/// duplicate; a failed order's own key is left as it is.
fn key_field(holding: Option<&Holding>, verdict: &Verdict) -> (Vec<u8>, Vec<u8>) {
    let Some(holding) = holding else { return Default::default() };
    let value = match verdict {
        Verdict::Confirmed => book_key_value(holding.id, &holding.fingerprint),
        Verdict::Failed { key_holder: Some((id, fingerprint)), .. } => book_key_value(*id, fingerprint),
        Verdict::Failed { key_holder: None, .. } | Verdict::Parked => return Default::default(),
    };
    (book_key(&holding.user, &holding.key), value)
}

/// Removes a drainer's name from the group, if nothing is pending under it.
pub(crate) async fn leave(link: &Link, keys: &SaleKeys, consumer: &str) -> Result<(), CallError> {
    let mut command = LEAVE.on_sale(keys);
    command.arg(consumer);
    LEAVE.run(link, &command).await?;
    Ok(())
}
