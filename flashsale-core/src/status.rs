//! What a status read may say. A state, once shown, never goes back (P8), whatever Redis forgets.
//!
//! Redis answers when it is open under the epoch that we know and not behind what we knew *before* asking.
//! PostgreSQL answers only if Redis is open and has no state, or if Redis is empty or loading and still is
//! so after PostgreSQL was read: else an order that Redis shows as confirmed a moment later could be denied.
//! "Not found" takes both stores. Everything else is "cannot tell now".

use std::sync::Arc;

use chrono::DateTime;

use crate::{
    engine::Stores,
    error::{Error, Result},
    ids::OrderId,
    keys::{SaleKeys, book_order},
    order::{FailureReason, OrderState, OrderStatus},
    sale::{Epoch, SaleState},
    scripts::{LookedSale, look},
    sql,
};

/// What Redis says, reduced to what decides who may answer.
enum Redis {
    /// Open, under our epoch, in step: its word counts. The value of the order's `o/` field.
    Sound(String),
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
        let sale = match self.catalog.sale(id.sale())? {
            Some(sale) => sale,
            // It may be younger than our reading, and its order accepted by another process.
            None => match self.catalog.refresh().await?.sales.get(&id.sale()) {
                Some(sale) => Arc::clone(sale),
                None => return Ok(None),
            },
        };
        if sale.purged_at.is_some() {
            return self.recorded_status(id).await;
        }
        match self.read_redis(id).await? {
            Redis::Sound(value) if value.is_empty() => self.recorded_status(id).await,
            Redis::Sound(value) => parse(id, &value).map(Some),
            Redis::OtherEpoch => Err(Error::fenced(sale.id, "Redis stands under another epoch")),
            Redis::Doubtful(why) => Err(Error::fenced(sale.id, why)),
            Redis::Blank(seen) => {
                let status = self.recorded_status(id).await?;
                match (self.read_redis(id).await?, status) {
                    (Redis::Blank(again), Some(status)) if again == seen => Ok(Some(status)),
                    _ => Err(Error::fenced(sale.id, "Redis is being loaded")),
                }
            }
        }
    }

    async fn read_redis(&self, id: OrderId) -> Result<Redis> {
        let first = self.read_redis_once(id).await?;
        if let Redis::OtherEpoch = first {
            self.catalog.refresh().await?;
            return self.read_redis_once(id).await;
        }
        Ok(first)
    }

    async fn read_redis_once(&self, id: OrderId) -> Result<Redis> {
        // What we know must be taken before Redis is read.
        let sale = self.catalog.sale(id.sale())?.ok_or_else(|| Error::not_found("the sale"))?;
        let floor = self.catalog.floor(&sale);
        let seen = look(&self.link, &SaleKeys::new(sale.id), &[book_order(id)]).await?;
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
            Some(seen) => Redis::Sound(seen.book.into_iter().next().unwrap_or_default()),
        })
    }

    /// The record's word: a row, or a parked order.
    async fn recorded_status(&self, id: OrderId) -> Result<Option<OrderStatus>> {
        sql::status_of(&self.pg, id).await
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
