//! Changing stock while it sells: by difference, applied once, never below what is sold.
//!
//! Setting a counter that lives would erase what is on its way to buyers, so stock is changed by numbered
//! differences, in both stores in the same order, each on top of the one before. A change that comes twice, or
//! late, is one whose number is there already.
//!
//! - **More** is written to the record first: Redis never admits what the record does not have.
//! - **Fewer** is first wanted by the record, then taken from Redis, in one step with the admissions there and only
//!   if so many are left; then the record has it, if the sale still stands under the epoch under which Redis said
//!   so. A load in between brings what was taken back, and it is taken anew.
//!
//! Whoever asked may die anywhere: the keeper carries what the record has to Redis, and what Redis said back.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{
    error::{Error, Result},
    ids::{IdempotencyKey, ProductId, SaleId},
    keys::SaleKeys,
    operator::Operator,
    sale::{NewSale, Sale},
    scripts::{self, Carried, Carry},
    sql::{self, stock::Requested},
    stores::Stores,
};

/// How long an operator waits for Redis before the keeper is left to it.
const PATIENCE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(50);

/// A change of stock to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewStockChange {
    /// The sale.
    pub sale: SaleId,
    /// Its product.
    pub product: ProductId,
    /// So many units more, or fewer: not 0, and at most [`NewSale::MAX_STOCK`].
    pub units: i64,
    /// The operator's name for this change, unique in the sale: asking again under the same name changes nothing
    /// more, whatever became of the first time.
    pub op_id: IdempotencyKey,
}

/// What became of a change of stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ChangeOutcome {
    /// The record has it. Redis has it, too, or a keeper carries it there.
    Applied,
    /// Fewer units were left than should be taken away. It stays refused under its operation id.
    Refused,
    /// Redis has to be asked for the units, and cannot be asked now; the keeper of a running server does as soon
    /// as it can.
    Waiting,
}

impl ChangeOutcome {
    /// The word that stands for it in the record, where one that waits is open: wanted, and not settled.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Waiting => "wanted",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Applied, Self::Refused, Self::Waiting].into_iter().find(|outcome| outcome.word() == word)
    }
}

/// A change of stock that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct StockChange {
    /// The sale.
    #[serde(rename = "saleId")]
    pub sale: SaleId,
    /// Its place among the sale's changes, from 1: both stores apply them in this order.
    pub number: i64,
    /// The product.
    #[serde(rename = "productId")]
    pub product: ProductId,
    /// So many units more, or fewer.
    pub units: i64,
    /// The operator's name for it.
    pub op_id: IdempotencyKey,
    /// What became of it.
    pub outcome: ChangeOutcome,
    /// When it was first asked for, by PostgreSQL's clock.
    pub requested_at: DateTime<Utc>,
}

impl Operator {
    /// Changes a stock by so many units more or fewer. Safe to repeat under the same operation id, also after an
    /// error, [`outcome_unknown`](Error::outcome_unknown) or not: it counts once.
    ///
    /// Units are taken away only if so many are left in Redis, where those that buyers have claimed are gone
    /// already; else the change is [`Refused`](ChangeOutcome::Refused). More units are sold as soon as Redis has
    /// them, at once or within two seconds after it can be reached.
    ///
    /// One change of a sale is open at a time: while Redis is away and one waits for it, further ones are an error
    /// that [is transient](Error::is_transient).
    pub async fn change_stock(&self, change: &NewStockChange) -> Result<StockChange> {
        if change.units == 0 {
            return Err(Error::refused("a change by 0 units changes nothing"));
        }
        if change.units.unsigned_abs() > u64::from(NewSale::MAX_STOCK) {
            let most = NewSale::MAX_STOCK;
            return Err(Error::refused(format!("a change by more than {most} units is more than any stock")));
        }
        let (stores, until) = (&self.stores, Instant::now() + PATIENCE);
        let noted = loop {
            let asked = sql::stock::request(&stores.pg, &self.actor, change);
            match tokio::time::timeout(stores.config.postgres_deadline, asked).await {
                Ok(requested) => match requested? {
                    Requested::Noted(noted) => break noted,
                    Requested::Busy => {}
                },
                Err(_) => return Err(Error::unknown("PostgreSQL did not answer in time")),
            }
            let carried = stores.carry_stock(change.sale).await;
            if Instant::now() > until {
                let why =
                    carried.err().map_or_else(|| "it is not settled".to_owned(), |error| error.to_string());
                return Err(Error::unavailable(format!(
                    "another change of the stock of sale {} waits for Redis ({why}); nothing was changed",
                    change.sale
                )));
            }
            tokio::time::sleep(POLL).await;
        };
        self.see_through(noted, until).await
    }

    /// Carries a change as far as it goes now.
    async fn see_through(&self, noted: StockChange, until: Instant) -> Result<StockChange> {
        let stores = &self.stores;
        loop {
            let carried = stores.carry_stock(noted.sale).await;
            let now = stores.record(sql::stock::get(&stores.pg, noted.sale, noted.number)).await?;
            match carried {
                Ok(()) if now.outcome != ChangeOutcome::Waiting => return Ok(now),
                Err(error) if !error.is_transient() => return Err(error),
                _ if Instant::now() > until => return Ok(now),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// The changes of a sale's stock, in the order in which they count.
    pub async fn stock_changes(&self, sale: SaleId) -> Result<Vec<StockChange>> {
        self.stores.record(sql::stock::after(&self.stores.pg, sale, 0)).await
    }
}

impl Stores {
    /// Carries to Redis what the record has, and to the record what Redis says to the open change.
    async fn carry_stock(&self, sale: SaleId) -> Result<()> {
        let catalog = self.catalog.refresh().await?;
        let sale = catalog.sales.get(&sale).ok_or_else(|| Error::not_found(format!("sale {sale}")))?;
        let seen = scripts::look(&self.link, &SaleKeys::new(sale.id), &[]).await?;
        match seen.counting(sale) {
            Some(redis) => self.carry_stock_after(sale, redis.changes.unwrap_or_default()).await,
            // The load that is due brings what the record has, and nobody was admitted before the first.
            None if sale.epoch.get() == 0 => Ok(()),
            None => Err(Error::fenced(sale.id, "it is not loaded into Redis")),
        }
    }

    /// The same for a sale whose stock in Redis contains the changes up to this one.
    pub(crate) async fn carry_stock_after(&self, sale: &Sale, last: i64) -> Result<()> {
        let keys = SaleKeys::new(sale.id);
        for change in self.record(sql::stock::after(&self.pg, sale.id, last)).await? {
            let carry = match change.outcome {
                ChangeOutcome::Applied => Carry::Add(change.units),
                ChangeOutcome::Refused => Carry::Add(0),
                ChangeOutcome::Waiting => Carry::Take(-change.units),
            };
            let (number, product) = (change.number, change.product);
            let carried = scripts::change_stock(&self.link, &keys, sale.epoch, number, product, carry).await;
            let carried = carried.map_err(|error| error.in_sale(sale.id))?;
            if change.outcome == ChangeOutcome::Waiting {
                match carried {
                    Carried::Applied | Carried::Refused => {
                        let taken = carried == Carried::Applied;
                        self.record(sql::stock::settle(&self.pg, sale.epoch, &change, taken)).await?;
                    }
                    // Somebody else is further, or Redis was loaded meanwhile: the next look tells.
                    Carried::Known | Carried::Early => {}
                }
            }
            tracing::info!(
                sale = sale.id.get(),
                product = product.get(),
                number,
                units = change.units,
                ?carried,
                "a change of stock was carried to Redis"
            );
        }
        Ok(())
    }
}
