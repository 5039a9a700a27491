//! What a status read may say. A state, once shown, never goes back (P8), whatever Redis forgets.
//!
//! Redis answers when it is open under the epoch that we know and not behind what we knew *before* asking.
//! PostgreSQL answers only if Redis is open and has no state, or if Redis is empty or loading and still is
//! so after PostgreSQL was read: else an order that Redis shows as confirmed a moment later could be denied.
//! "Not found" takes both stores. Everything else is "cannot tell now".

use std::{collections::HashMap, sync::Arc};

use crate::{
    error::{Error, Result},
    ids::{OrderId, SaleId},
    keys::{SaleKeys, book_order},
    order::OrderStatus,
    packed::BookState,
    sale::{Epoch, Sale, SaleState},
    scripts::{DOUBTFUL, LookedSale, look},
    sql,
    stores::Stores,
};

/// Most orders that one reading asks about. Lua unpacks at most some 8,000 values, and Redis does nothing else
/// while it answers.
pub(crate) const READ_AT_ONCE: usize = 500;

/// What was said of orders: `None` where both stores were asked and neither knows the order, an error where
/// Redis has a state that cannot be read.
pub(crate) type Told = HashMap<OrderId, Result<Option<OrderStatus>>>;

/// What Redis alone cannot tell.
pub(crate) struct Question {
    sale: SaleId,
    pub ids: Vec<OrderId>,
    open: Open,
}

/// What is open about them.
enum Open {
    /// What the record has; its word is the last one. What it does not have either is unknown, if the sale still
    /// stands under the epoch under which Redis did not have it: an old master, asked before we hear of the new
    /// one, knows nothing of what was admitted since. `None`: Redis is not asked about the sale any more.
    Recorded(Option<Epoch>),
    /// The same, if Redis then still is as blank as it was.
    Blank(Blank),
    /// Whether there is such a sale, or under which epoch: our reading may be old.
    Catalog,
}

/// A Redis that holds nothing (`None`), or is being loaded.
type Blank = Option<(Epoch, Option<SaleState>, String)>;

/// What Redis says, reduced to what decides who may answer.
enum Redis {
    /// Open, under our epoch, in step: its word counts. The values of the orders' `o` fields.
    Sound(Vec<Vec<u8>>),
    /// What was seen, to be compared with a second look.
    Blank(Blank),
    /// It stands under an epoch that is not ours: a recovery of which one of us has not heard.
    OtherEpoch,
    /// It may be an older copy: its word does not count, and it cannot be excluded that it is shown.
    Doubtful(&'static str),
}

impl Stores {
    /// Where an order is; `None` when both stores were asked and neither knows it.
    pub(crate) async fn order_status(&self, id: OrderId) -> Result<Option<OrderStatus>> {
        let mut told = Told::new();
        let result = self.order_statuses(id.sale(), &[id], &mut told).await;
        let untold = || Err(result.err().unwrap_or_else(|| Error::internal("a status was not told")));
        told.remove(&id).unwrap_or_else(untold)
    }

    async fn order_statuses(&self, sale: SaleId, ids: &[OrderId], told: &mut Told) -> Result<()> {
        match self.ask_redis(sale, ids, told).await? {
            Some(question) => self.ask_record(question, told).await,
            None => Ok(()),
        }
    }

    /// Adds to `told` what Redis alone can tell of these orders of one sale, at most [`READ_AT_ONCE`] of them.
    /// Returns what the record has to be asked about the others, however long that takes; an error says why
    /// they cannot be told now.
    pub(crate) async fn ask_redis(
        &self,
        sale: SaleId,
        ids: &[OrderId],
        told: &mut Told,
    ) -> Result<Option<Question>> {
        let question = |ids: &[OrderId], open| Ok(Some(Question { sale, ids: ids.to_vec(), open }));
        let Some(known) = self.catalog.sale(sale)? else { return question(ids, Open::Catalog) };
        if known.purged_at.is_some() {
            return question(ids, Open::Recorded(None));
        }
        match self.read_redis(&known, ids).await? {
            Redis::Sound(values) => {
                let (forgotten, held): (Vec<_>, Vec<_>) =
                    ids.iter().zip(values).partition(|(_, value)| value.is_empty());
                told.extend(held.into_iter().map(|(id, value)| (*id, read(*id, &value).map(Some))));
                let forgotten: Vec<_> = forgotten.into_iter().map(|(id, _)| *id).collect();
                let open = Open::Recorded(Some(known.epoch));
                if forgotten.is_empty() { Ok(None) } else { question(&forgotten, open) }
            }
            Redis::OtherEpoch => question(ids, Open::Catalog),
            Redis::Doubtful(why) => Err(Error::fenced(sale, why)),
            Redis::Blank(seen) => question(ids, Open::Blank(seen)),
        }
    }

    /// Adds to `told` what the record makes of the orders that Redis could not tell. An error says why those
    /// that are not added cannot be told now.
    pub(crate) async fn ask_record(&self, question: Question, told: &mut Told) -> Result<()> {
        let Question { sale, ids, open } = question;
        match open {
            Open::Recorded(under) => {
                let recorded = self.record(sql::statuses_of(&self.pg, &ids)).await?;
                // Also of what is recorded: where it was an old master that did not know the order, the new one may
                // not show the verdict yet.
                if under.is_some() {
                    let now = self.record(sql::sales::epoch_of(&self.pg, sale)).await?;
                    if now != under {
                        return Err(Error::fenced(sale, "another Redis was loaded meanwhile"));
                    }
                }
                let unknown: Vec<_> = ids.into_iter().filter(|id| !recorded.contains_key(id)).collect();
                told.extend(recorded.into_iter().map(|(id, status)| (id, Ok(Some(status)))));
                told.extend(unknown.into_iter().map(|id| (id, Ok(None))));
                Ok(())
            }
            Open::Blank(seen) => self.ask_record_beside_blank(sale, &ids, &seen, told).await,
            Open::Catalog => {
                if !self.catalog.refresh().await?.sales.contains_key(&sale) {
                    told.extend(ids.iter().map(|id| (*id, Ok(None))));
                    return Ok(());
                }
                match self.ask_redis(sale, &ids, told).await? {
                    None => Ok(()),
                    Some(Question { open: Open::Catalog, .. }) => {
                        Err(Error::fenced(sale, "Redis stands under another epoch"))
                    }
                    Some(question) => Box::pin(self.ask_record(question, told)).await,
                }
            }
        }
    }

    async fn ask_record_beside_blank(
        &self,
        sale: SaleId,
        ids: &[OrderId],
        seen: &Blank,
        told: &mut Told,
    ) -> Result<()> {
        let loading = || Error::fenced(sale, "Redis is being loaded");
        let recorded = self.record(sql::statuses_of(&self.pg, ids)).await?;
        let known = self.catalog.sale(sale)?.ok_or_else(loading)?;
        match self.read_redis(&known, ids).await? {
            Redis::Blank(again) if again == *seen => {
                let all = recorded.len() == ids.len();
                told.extend(recorded.into_iter().map(|(id, status)| (id, Ok(Some(status)))));
                if all { Ok(()) } else { Err(loading()) }
            }
            _ => Err(loading()),
        }
    }

    /// What we know of a sale. One that we do not know may be younger than our reading, and its orders accepted
    /// by another process.
    pub(crate) async fn sale_or_news(&self, id: SaleId) -> Result<Option<Arc<Sale>>> {
        match self.catalog.sale(id)? {
            Some(sale) => Ok(Some(sale)),
            None => Ok(self.catalog.refresh().await?.sales.get(&id).cloned()),
        }
    }

    /// What we know must be taken before Redis is read.
    async fn read_redis(&self, sale: &Sale, ids: &[OrderId]) -> Result<Redis> {
        let floor = self.catalog.floor(sale);
        let fields: Vec<_> = ids.iter().map(|id| book_order(*id)).collect();
        let seen = look(&self.link, &SaleKeys::new(sale.id), &fields).await?;
        Ok(match seen.sale {
            None => Redis::Blank(None),
            Some(LookedSale { epoch, state: None, token, .. }) if epoch == sale.epoch => {
                Redis::Blank(Some((epoch, None, token)))
            }
            Some(seen) if seen.epoch != sale.epoch => Redis::OtherEpoch,
            Some(seen) if !seen.counts_under(sale.epoch) => Redis::Doubtful(DOUBTFUL),
            Some(seen) if seen.seq < floor => Redis::Doubtful("Redis has gone back in time"),
            Some(seen) => Redis::Sound(seen.book),
        })
    }
}

/// What an `o` value says.
fn read(id: OrderId, value: &[u8]) -> Result<OrderStatus> {
    let BookState { state, since, failure } = BookState::unpack(value).ok_or_else(|| {
        let value = value.escape_ascii();
        Error::internal(format!("the state '{value}' of order {id} in Redis cannot be read"))
    })?;
    Ok(OrderStatus { id, state, failure, updated_at: since })
}
