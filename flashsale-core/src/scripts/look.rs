use std::collections::HashMap;

use super::{Script, VERSION};
use crate::{
    error::{Error, Result},
    ids::ProductId,
    keys::SaleKeys,
    link::{CallError, Link},
    sale::{Epoch, Sale, SaleState, Seq},
};

pub(super) static LOOK: Script = Script::new(include_str!("../../lua/look.lua"));

/// Why a sale is fenced while Redis's word on it does not count.
pub(crate) const DOUBTFUL: &str = "its state in Redis is not known to be right";

/// What Redis says of a sale, in one step, unjudged.
#[derive(Debug)]
pub(crate) struct Look {
    /// Redis's clock, Unix milliseconds.
    pub now_ms: i64,
    /// The run id of the server that answered.
    pub server: String,
    /// `None`: this Redis does not hold the sale.
    pub sale: Option<LookedSale>,
}

#[derive(Debug)]
pub(crate) struct LookedSale {
    pub epoch: Epoch,
    /// `None` while it is loading.
    pub state: Option<SaleState>,
    pub seq: Seq,
    /// Of the load that is under way; empty if none is.
    pub token: String,
    /// It was loaded into this very server, and this server has not been restarted since.
    pub sound: bool,
    /// Of the scripts that it was loaded by.
    pub version: u32,
    pub starts_ms: i64,
    pub ends_ms: i64,
    /// Units left; may be negative after a recovery.
    pub stock: HashMap<ProductId, i64>,
    /// The last change that the stock contains; `None`: the stock does not say.
    pub changes: Option<i64>,
    /// Products of which limit and price are there.
    pub products: usize,
    /// There are a book that was begun under this epoch, and a queue with its group.
    pub intact: bool,
    /// The values of the book's fields that were asked for; empty where it has none.
    pub book: Vec<Vec<u8>>,
}

impl LookedSale {
    /// Its word counts: loaded under this epoch and by this version, into this very server, open for
    /// scripts, and not damaged since.
    pub(crate) fn counts_under(&self, epoch: Epoch) -> bool {
        self.epoch == epoch && self.version == VERSION && self.sound && self.state.is_some() && self.intact
    }
}

impl Look {
    /// What Redis holds of the sale, if its word counts under the epoch that the record knows.
    pub(crate) fn counting(self, sale: &Sale) -> Option<LookedSale> {
        self.sale.filter(|redis| redis.counts_under(sale.epoch))
    }

    /// The same, where nothing can be said without it.
    pub(crate) fn must_count(self, sale: &Sale) -> Result<LookedSale> {
        self.counting(sale).ok_or_else(|| Error::fenced(sale.id, DOUBTFUL))
    }
}

/// Looks at a sale and at some fields of its book.
pub(crate) async fn look(link: &Link, keys: &SaleKeys, fields: &[Vec<u8>]) -> Result<Look, CallError> {
    let mut command = LOOK.on_sale(keys);
    command.arg(fields);
    let mut reply = LOOK.run(link, &command).await?;
    let (now_ms, server) = (reply.next()?, reply.text()?);
    if reply.word == "missing" {
        return Ok(Look { now_ms, server, sale: None });
    }
    let mut reply = reply.expect("ok")?;
    let epoch = Epoch(reply.next()?);
    let state = SaleState::parse(&reply.text()?);
    let seq = Seq(reply.next()?);
    let token = reply.text()?;
    let sound = reply.text()? == "1";
    let version = reply.next()?;
    let (starts_ms, ends_ms) = (reply.next()?, reply.next()?);
    let Stock { left: stock, changes, .. } = Stock::read(reply.next()?);
    let products = reply.next()?;
    let intact = reply.text()? == "1";
    let book = reply.next()?;
    Ok(Look {
        now_ms,
        server,
        sale: Some(LookedSale {
            epoch,
            state,
            seq,
            token,
            sound,
            version,
            starts_ms,
            ends_ms,
            stock,
            changes,
            products,
            intact,
            book,
        }),
    })
}

/// The stock hash, but for what is not a product or not a number.
#[derive(Debug, Default)]
pub(super) struct Stock {
    pub left: HashMap<ProductId, i64>,
    /// The last change that it contains.
    pub changes: Option<i64>,
    /// What came of that one, if it was carried there.
    pub outcome: Option<String>,
}

impl Stock {
    pub(super) fn read(pairs: Vec<(String, String)>) -> Self {
        let mut stock = Self::default();
        for (field, value) in pairs {
            match field.as_str() {
                "changes" => stock.changes = value.parse().ok(),
                "outcome" => stock.outcome = Some(value),
                _ => {
                    if let (Ok(product), Ok(left)) = (field.parse(), value.parse()) {
                        stock.left.insert(product, left);
                    }
                }
            }
        }
        stock
    }
}
