//! A sale at this moment, for whoever watches it.

use chrono::{DateTime, Utc};

use crate::{
    error::{Error, Result},
    keys::SaleKeys,
    operator::{LiveStock, Operator},
    queue_stats::QueueStats,
    sale::{Sale, SaleState, Seq},
    scripts, sql,
};

/// What Redis says of a sale at one moment, whether or not PostgreSQL answers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LiveSale {
    /// When, by Redis's clock, which is the one that opens and ends the sale.
    pub at: DateTime<Utc>,
    /// What Redis keeps to. `None`: its word does not count now, as the sale is not there, is being loaded, or is
    /// fenced.
    pub state: Option<SaleState>,
    /// The last admission; those before it are all orders that were ever accepted.
    pub admitted: Seq,
    /// What is left of each product.
    pub stock: Vec<LiveStock>,
    /// Orders that are not recorded yet.
    pub queue: QueueStats,
}

/// How many orders of a sale the record has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Units were sold to them.
    pub confirmed: u64,
    /// Their units went back.
    pub failed: u64,
    /// They wait for an operator.
    pub parked: u64,
}

impl Operator {
    /// What Redis says of a sale right now. The sale is what the record said of it last: PostgreSQL is not asked.
    pub async fn live(&self, sale: &Sale) -> Result<LiveSale> {
        let seen = scripts::look(&self.stores.link, &SaleKeys::new(sale.id), &[]).await?;
        let queue = self.stores.queue_stats(sale).await?;
        let now_ms = seen.now_ms;
        let redis = seen.counting(sale);
        let left = |product| redis.as_ref().and_then(|redis| redis.stock.get(&product).copied());
        let stock =
            sale.products.iter().map(|product| LiveStock { product: product.id, left: left(product.id) });
        Ok(LiveSale {
            at: DateTime::from_timestamp_millis(now_ms)
                .ok_or_else(|| Error::internal("Redis's clock is out of range"))?,
            state: redis.as_ref().and_then(|redis| redis.state),
            admitted: redis.as_ref().map_or(Seq(0), |redis| redis.seq),
            stock: stock.collect(),
            queue,
        })
    }

    /// How many orders of a sale are recorded, and how many are parked. PostgreSQL counts them one by one, which of
    /// a million takes it some tenths of a second.
    pub async fn tally(&self, sale: crate::SaleId) -> Result<Tally> {
        let [confirmed, failed, parked] =
            self.stores.record(sql::history::tally(&self.stores.pg, sale)).await?;
        Ok(Tally { confirmed, failed, parked })
    }
}
