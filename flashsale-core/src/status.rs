//! What a status read may say. A state, once shown, never goes back (P8), whatever Redis forgets.
//!
//! Redis answers when it is open under the epoch that we know and not behind what we knew *before* asking.
//! PostgreSQL answers only if Redis is open and has no state, or if Redis is empty or loading and still is
//! so after PostgreSQL was read: else an order that Redis shows as confirmed a moment later could be denied.
//! "Not found" takes both stores. Everything else is "cannot tell now".

use std::{collections::HashMap, sync::Arc};

use chrono::DateTime;

use crate::{
    engine::Stores,
    error::{Error, Result},
    ids::{OrderId, SaleId},
    keys::{SaleKeys, book_order},
    order::{FailureReason, OrderState, OrderStatus},
    sale::{Epoch, Sale, SaleState},
    scripts::{LookedSale, look},
    sql,
};

/// Most orders that one reading asks about. Lua unpacks at most some 8,000 values, and Redis does nothing else
/// while it answers.
pub(crate) const READ_AT_ONCE: usize = 500;

/// What was said of orders; `None` where both stores were asked and neither knows the order.
pub(crate) type Told = HashMap<OrderId, Option<OrderStatus>>;

/// What Redis says, reduced to what decides who may answer.
enum Redis {
    /// Open, under our epoch, in step: its word counts. The values of the orders' `o/` fields.
    Sound(Vec<String>),
    /// It holds nothing, or is being loaded: what was seen, to be compared with a second look.
    Blank(Option<(Epoch, Option<SaleState>, String)>),
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
        match told.remove(&id) {
            Some(status) => Ok(status),
            None => {
                Err(result.err().unwrap_or_else(|| Error::internal("a status was neither told nor refused")))
            }
        }
    }

    /// Adds to `told` where these orders of one sale are, at most [`READ_AT_ONCE`] of them. An error says why
    /// those that are not added cannot be told now.
    pub(crate) async fn order_statuses(&self, sale: SaleId, ids: &[OrderId], told: &mut Told) -> Result<()> {
        let Some(sale) = self.sale_or_news(sale).await? else {
            told.extend(ids.iter().map(|id| (*id, None)));
            return Ok(());
        };
        if sale.purged_at.is_some() {
            return self.tell_recorded(ids, told).await;
        }
        match self.read_redis(sale.id, ids).await? {
            Redis::Sound(values) => {
                let mut result = Ok(());
                let mut forgotten = Vec::new();
                for (id, value) in ids.iter().zip(values) {
                    match value.as_str() {
                        "" => forgotten.push(*id),
                        // One that cannot be read must not hide the others.
                        value => match parse(*id, value) {
                            Ok(status) => drop(told.insert(*id, Some(status))),
                            Err(error) => result = Err(error),
                        },
                    }
                }
                self.tell_recorded(&forgotten, told).await.and(result)
            }
            Redis::OtherEpoch => Err(Error::fenced(sale.id, "Redis stands under another epoch")),
            Redis::Doubtful(why) => Err(Error::fenced(sale.id, why)),
            Redis::Blank(seen) => {
                let recorded = sql::statuses_of(&self.pg, ids).await?;
                let loading = || Error::fenced(sale.id, "Redis is being loaded");
                match self.read_redis(sale.id, ids).await? {
                    Redis::Blank(again) if again == seen => {
                        let all = ids.iter().all(|id| recorded.contains_key(id));
                        told.extend(recorded.into_iter().map(|(id, status)| (id, Some(status))));
                        if all { Ok(()) } else { Err(loading()) }
                    }
                    _ => Err(loading()),
                }
            }
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

    async fn read_redis(&self, sale: SaleId, ids: &[OrderId]) -> Result<Redis> {
        let first = self.read_redis_once(sale, ids).await?;
        if let Redis::OtherEpoch = first {
            self.catalog.refresh().await?;
            return self.read_redis_once(sale, ids).await;
        }
        Ok(first)
    }

    async fn read_redis_once(&self, sale: SaleId, ids: &[OrderId]) -> Result<Redis> {
        // What we know must be taken before Redis is read.
        let sale = self.catalog.sale(sale)?.ok_or_else(|| Error::not_found("the sale"))?;
        let floor = self.catalog.floor(&sale);
        let fields: Vec<_> = ids.iter().map(|id| book_order(*id)).collect();
        let seen = look(&self.link, &SaleKeys::new(sale.id), &fields).await?;
        Ok(match seen.sale {
            None => Redis::Blank(None),
            Some(LookedSale { epoch, state: None, token, .. }) if epoch == sale.epoch => {
                Redis::Blank(Some((epoch, None, token)))
            }
            Some(seen) if seen.epoch != sale.epoch => Redis::OtherEpoch,
            Some(seen) if !seen.counts_under(sale.epoch) => {
                Redis::Doubtful("Redis was restarted or replaced")
            }
            Some(seen) if seen.seq < floor => Redis::Doubtful("Redis has gone back in time"),
            Some(seen) => Redis::Sound(seen.book),
        })
    }

    /// The record's word is the last one: a row, a parked order, or that neither store knows the order.
    async fn tell_recorded(&self, ids: &[OrderId], told: &mut Told) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut recorded = sql::statuses_of(&self.pg, ids).await?;
        told.extend(ids.iter().map(|id| (*id, recorded.remove(id))));
        Ok(())
    }
}

/// Reads an `o/` value: a letter, the instant in Unix milliseconds, and for a failed order the reason.
fn parse(id: OrderId, value: &str) -> Result<OrderStatus> {
    let bad = || Error::internal(format!("the state {value:?} of order {id} in Redis cannot be read"));
    let mut letters = value.chars();
    let state = match letters.next() {
        Some('Q') => OrderState::Queued,
        Some('P') => OrderState::Processing,
        Some('C') => OrderState::Confirmed,
        Some('F') => OrderState::Failed,
        _ => return Err(bad()),
    };
    let (at, reason) = letters.as_str().split_once(' ').unwrap_or((letters.as_str(), ""));
    let updated_at = at.parse().ok().and_then(DateTime::from_timestamp_millis).ok_or_else(bad)?;
    Ok(OrderStatus { id, state, failure: FailureReason::parse(reason), updated_at })
}
