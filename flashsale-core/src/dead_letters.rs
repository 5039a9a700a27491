//! Parked orders, and how an operator ends them.
//!
//! Replaying and discarding go the drainer's way: begin, record, settle, under the same lock and epoch. The
//! dead letter stays until the settle was answered; the keeper finishes what a killed command left.

use chrono::{DateTime, Utc};

use crate::{
    cart,
    error::{Error, Result},
    ids::{OrderId, SaleId},
    keys::SaleKeys,
    operator::UNNAMED,
    order::FailureReason,
    queue::{Entry, Holding, QueuedOrder, Verdict},
    sale::Sale,
    scripts::{self, Settlement},
    sql::{
        self,
        dead_letters::{Resolution, StoredLetter},
    },
    stores::Stores,
};

/// A queue entry that could not be decided and waits for an operator. Its units stay held, its order shows
/// as `Processing`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its number.
    pub id: i64,
    /// The sale whose queue it came from.
    pub sale: SaleId,
    /// Its id in the stream.
    pub entry_id: String,
    /// The order, if the entry says which it is.
    pub order: Option<OrderId>,
    /// The entry as it was read, order and key written out; other bytes that are not text are shown as
    /// `\u{fffd}`.
    pub fields: Vec<(String, String)>,
    /// Why it was parked.
    pub reason: String,
    /// When.
    pub parked_at: DateTime<Utc>,
    /// How it was ended, while Redis has not been told yet.
    pub resolved: Option<&'static str>,
}

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// The order is confirmed.
    Confirmed,
    /// The order failed; its units went back.
    Failed(FailureReason),
    /// The entry did not say what it holds: it was dropped, and the sale is recovered from the record.
    Dropped,
}

impl From<StoredLetter> for DeadLetter {
    fn from(letter: StoredLetter) -> Self {
        Self {
            id: letter.id,
            sale: letter.sale,
            fields: letter.entry.readable(letter.sale),
            entry_id: letter.entry.id,
            order: letter.order,
            reason: letter.reason,
            parked_at: letter.parked_at,
            resolved: letter.resolved.map(Resolution::as_str),
        }
    }
}

impl Stores {
    /// Ends a dead letter. Safe to repeat: the record's first word stands, and Redis applies it once.
    pub(crate) async fn end_letter(&self, id: i64, how: Resolution, actor: &str) -> Result<Ended> {
        let letter = self.record(sql::dead_letters::letter(&self.pg, id)).await?;
        let letter = letter.ok_or_else(|| Error::not_found(format!("dead letter {id}")))?;
        self.end(letter, how, actor).await
    }

    /// Finishes what commands that were killed have left.
    pub(crate) async fn finish_ended_letters(&self) -> Result<()> {
        for letter in self.record(sql::dead_letters::unfinished(&self.pg)).await? {
            let how = letter.resolved.unwrap_or(Resolution::Discarded);
            match self.end(letter, how, UNNAMED).await {
                // Fenced: the load that is due ends it, or the next round.
                Err(error) if !error.is_fenced() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    async fn end(&self, letter: StoredLetter, how: Resolution, actor: &str) -> Result<Ended> {
        let catalog = self.catalog.refresh().await?;
        let sale = catalog
            .sales
            .get(&letter.sale)
            .ok_or_else(|| Error::not_found(format!("sale {}", letter.sale)))?;
        let order = match (letter.entry.decode(sale.id), letter.entry.holding(sale.id), how) {
            (Ok(order), _, _) => order,
            (Err(why), _, Resolution::Replayed) => {
                let id = letter.id;
                return Err(Error::refused(format!(
                    "dead letter {id} cannot be replayed: {why}. Discard it with `flashsale dead-letters discard {id}`"
                )));
            }
            // What it holds is known, which is all that giving it back takes.
            (Err(_), Ok(holding), Resolution::Discarded) => QueuedOrder::without_prices(holding, sale.epoch),
            (Err(_), Err(_), Resolution::Discarded) => match letter.entry.claim(sale.id) {
                Ok(claim) => return self.fail_without_lines(sale, letter, claim, actor).await,
                Err(_) => return self.drop_garbage(sale, letter, actor).await,
            },
        };
        require_loaded(sale)?;
        let keys = SaleKeys::new(sale.id);
        // Without an entry id, as the entry was acknowledged when it was parked.
        let unqueued = [Entry { id: String::new(), ..letter.entry.clone() }];
        scripts::begin(&self.link, &keys, sale.epoch, &unqueued)
            .await
            .map_err(|error| error.in_sale(sale.id))?;
        let (verdict, ended) = self.decide(sale, &letter, &order, (how, actor)).await?;
        let holding = letter.entry.holding(sale.id).ok();
        if verdict == Verdict::Confirmed {
            cart::take_bought(&self.link, holding.as_ref().as_slice()).await?;
        }
        self.tell_redis(sale, &keys, Settlement { entry: letter.entry, holding, verdict }).await?;
        self.record(sql::dead_letters::finish_dead_letter(&self.pg, letter.id)).await?;
        Ok(ended)
    }

    /// Has the record decide a parked order, once.
    async fn decide(
        &self,
        sale: &Sale,
        letter: &StoredLetter,
        order: &QueuedOrder,
        (how, actor): (Resolution, &str),
    ) -> Result<(Verdict, Ended)> {
        let verdict = self.ledger.end_parked(sale.id, sale.epoch, letter.id, order, how, actor).await;
        let verdict = verdict.map_err(|error| error.in_sale(sale.id))?;
        let verdict = verdict.ok_or_else(|| Error::not_found(format!("dead letter {}", letter.id)))?;
        let ended = match &verdict {
            Verdict::Confirmed => Ended::Confirmed,
            Verdict::Failed { reason, .. } => Ended::Failed(*reason),
            Verdict::Parked => {
                let why = "the database refuses this order still; see `flashsale dead-letters show`";
                return Err(Error::refused(why));
            }
        };
        Ok((verdict, ended))
    }

    /// Ends an order of which it is known whose it is, but not what it holds: it is recorded as failed, without
    /// lines. Its units are known to nobody but the record, by what is missing there: the sale is recovered.
    async fn fail_without_lines(
        &self,
        sale: &Sale,
        letter: StoredLetter,
        claim: Holding,
        actor: &str,
    ) -> Result<Ended> {
        let order = QueuedOrder::without_prices(claim, sale.epoch);
        let (_, ended) = self.decide(sale, &letter, &order, (Resolution::Discarded, actor)).await?;
        self.forget(sale, letter).await?;
        Ok(ended)
    }

    /// Ends an entry that does not say whose it is. If it was an order, the units that it took are known
    /// to nobody but the record, by what is missing there: the sale is recovered.
    async fn drop_garbage(&self, sale: &Sale, letter: StoredLetter, actor: &str) -> Result<Ended> {
        self.record(sql::dead_letters::discard_garbage(&self.pg, letter.id, actor)).await?;
        self.forget(sale, letter).await?;
        Ok(Ended::Dropped)
    }

    /// Removes what Redis has of an entry whose units are not known. If it was an order's, the sale is recovered,
    /// and the load removes the letter: until then the book still shows the order.
    async fn forget(&self, sale: &Sale, letter: StoredLetter) -> Result<()> {
        if require_loaded(sale).is_err() {
            // The load that is due goes on without it, and removes it.
            return Ok(());
        }
        // Read again, after the epoch: the load of this epoch may have removed it, and one is enough.
        if self.record(sql::dead_letters::letter(&self.pg, letter.id)).await?.is_none() {
            return Ok(());
        }
        let (id, is_order) = (letter.id, letter.order.is_some());
        let keys = SaleKeys::new(sale.id);
        let settlement = Settlement { entry: letter.entry, holding: None, verdict: Verdict::Parked };
        self.tell_redis(sale, &keys, settlement).await?;
        if is_order {
            self.record(sql::request_recover(&self.pg, sale.id, sale.epoch)).await
        } else {
            self.record(sql::dead_letters::finish_dead_letter(&self.pg, id)).await
        }
    }

    async fn tell_redis(&self, sale: &Sale, keys: &SaleKeys, settlement: Settlement) -> Result<()> {
        let settled = scripts::settle(&self.link, keys, sale.epoch, &[settlement]).await;
        if !settled.map_err(|error| error.in_sale(sale.id))?.missing.is_empty() {
            self.record(sql::request_recover(&self.pg, sale.id, sale.epoch)).await?;
        }
        Ok(())
    }
}

fn require_loaded(sale: &Sale) -> Result<()> {
    if sale.is_loaded() {
        return Ok(());
    }
    Err(Error::fenced(sale.id, "it is not loaded into Redis"))
}
