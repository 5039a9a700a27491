//! Recorded orders of one instant, page by page, for whoever takes them elsewhere.

use sqlx::{Postgres, Transaction};

use crate::{
    error::Result,
    operator::OrderFilter,
    order::OrderRecord,
    sql::{self, history},
    stores::Stores,
};

/// Orders that are read at once.
const PAGE: u32 = 1_000;
/// A page of one sale may lie behind many orders of others.
const PAGE_WITHIN: std::time::Duration = std::time::Duration::from_mins(2);

/// Recorded orders as they stood when the export began, newest first: a page is in memory at a time, however many
/// there are. It holds one connection to PostgreSQL, and an old snapshot there, until it is dropped.
pub struct OrderExport {
    tx: Transaction<'static, Postgres>,
    rest: OrderFilter,
    total: u64,
}

impl OrderExport {
    pub(crate) async fn begin(stores: &Stores, filter: OrderFilter) -> Result<Self> {
        sql::within(PAGE_WITHIN, async {
            let mut tx = history::begin_reading(&stores.pg).await?;
            let total = history::count(&mut tx, &filter).await?.min(u64::from(filter.limit));
            Ok(Self { tx, rest: filter, total })
        })
        .await
    }

    /// How many orders there are in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The next orders; none are left when there are none.
    pub async fn next_page(&mut self) -> Result<Vec<OrderRecord>> {
        let page = OrderFilter { limit: self.rest.limit.min(PAGE), ..self.rest.clone() };
        let orders = sql::within(PAGE_WITHIN, history::page(&mut self.tx, &page)).await?;
        let Some(last) = orders.last() else { return Ok(orders) };
        self.rest.before = Some(last.id);
        self.rest.limit -= u32::try_from(orders.len()).unwrap_or(PAGE);
        Ok(orders)
    }
}
