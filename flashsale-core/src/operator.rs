//! What operators do: create and change sales, look into orders and queues, end what is parked, audit,
//! recover.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use crate::{
    audit::{AuditReport, FENCE_PATIENCE},
    dead_letters::{DeadLetter, Ended},
    error::{Error, Result},
    export::OrderExport,
    ids::{OrderId, ProductId, SaleId, UserId},
    keys::SaleKeys,
    load::LoadProgress,
    order::{OrderRecord, OrderState},
    queue_stats::QueueStats,
    sale::{Epoch, NewSale, Sale, SaleState},
    scripts,
    sql::{self, dead_letters::Resolution},
    stores::Stores,
};

/// Who did it, where nobody said so.
pub(crate) const UNNAMED: &str = "unnamed";

/// The operator's side of an [`Engine`](crate::Engine). Cheap to clone.
#[derive(Clone)]
pub struct Operator {
    pub(crate) stores: Arc<Stores>,
    /// Who says they are doing it.
    pub(crate) actor: Arc<str>,
}

/// Something that an operator changed: who, when, what.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OperatorAction {
    /// Its number; later ones have higher numbers.
    pub id: i64,
    /// When, by PostgreSQL's clock.
    pub at: DateTime<Utc>,
    /// Who: what was given to [`Operator::acting_as`].
    pub actor: String,
    /// What was done, in a word: `pause`, `restock`, …
    pub action: String,
    /// To which sale.
    pub sale: Option<SaleId>,
    /// The rest, for people.
    pub detail: String,
}

/// Which recorded orders, newest first.
#[derive(Debug, Clone, Default)]
pub struct OrderFilter {
    /// Only this user's.
    pub user: Option<UserId>,
    /// Only this sale's.
    pub sale: Option<SaleId>,
    /// Only those in this state.
    pub state: Option<OrderState>,
    /// At most so many.
    pub limit: u32,
    /// Only older ones than this order: the last one of the page before.
    pub before: Option<OrderId>,
}

/// What [`Operator::create_sale`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The sale was created.
    New(SaleId),
    /// A sale of this slug exists; nothing was changed.
    Exists(SaleId),
}

/// What Redis has left of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveStock {
    /// The product.
    pub product: ProductId,
    /// Units; may be negative after a recovery. `None`: Redis's word does not count now.
    pub left: Option<i64>,
}

/// A sale's window, first instant and end, before and after it was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowChange {
    /// What it was.
    pub before: (DateTime<Utc>, DateTime<Utc>),
    /// What it is.
    pub after: (DateTime<Utc>, DateTime<Utc>),
}

/// What a recovery would change, a line each; empty: nothing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecoverDiff {
    /// Differences, for people.
    pub lines: Vec<String>,
}

impl Operator {
    pub(crate) fn new(stores: Arc<Stores>) -> Self {
        Self { stores, actor: UNNAMED.into() }
    }

    /// The same operator under a name, which every change that is made from here on is noted with.
    #[must_use]
    pub fn acting_as(mut self, name: &str) -> Self {
        self.actor = name.into();
        self
    }

    /// What operators changed, newest first: of one sale or of all, at most so many.
    pub async fn actions(&self, sale: Option<SaleId>, limit: u32) -> Result<Vec<OperatorAction>> {
        sql::actions::last(&self.stores.pg, sale, limit).await
    }

    /// Creates a sale with its products, in one transaction. A sale whose slug exists is left as it is, so
    /// that repeating this is safe. A running server loads it within two seconds.
    pub async fn create_sale(&self, sale: &NewSale) -> Result<Created> {
        sql::new_sale::create_sale(&self.stores.pg, sale, &self.actor).await
    }

    /// All sales, by id.
    pub async fn sales(&self) -> Result<Vec<Sale>> {
        self.stores.record(sql::sales(&self.stores.pg, &[])).await
    }

    /// One sale.
    pub async fn sale(&self, id: SaleId) -> Result<Sale> {
        let read = async {
            let mut conn = self.stores.pg.acquire().await?;
            Ok(sql::sales::sale(&mut conn, id).await?)
        };
        let sale = self.stores.record(read).await?;
        sale.ok_or_else(|| Error::not_found(format!("sale {id}")))
    }

    /// What Redis has left of a sale's products.
    pub async fn live_stock(&self, sale: SaleId) -> Result<Vec<LiveStock>> {
        let sale = self.sale(sale).await?;
        let seen = scripts::look(&self.stores.link, &SaleKeys::new(sale.id), &[]).await?;
        let redis = seen.counting(&sale);
        let left = |product| redis.as_ref().and_then(|redis| redis.stock.get(&product).copied());
        Ok(sale
            .products
            .iter()
            .map(|product| LiveStock { product: product.id, left: left(product.id) })
            .collect())
    }

    /// Pauses, resumes or closes a sale. PostgreSQL first; the keeper of a running server carries it to
    /// Redis within two seconds. A closed sale stays closed.
    pub async fn set_state(&self, sale: SaleId, state: SaleState) -> Result<()> {
        sql::sales::set_state(&self.stores.pg, sale, state, &self.actor).await
    }

    /// Moves a sale's window; `None` leaves that end of it. An end in the past means now. PostgreSQL first; the
    /// keeper of a running server carries it to Redis within two seconds. A sale that is closed, or that was
    /// removed from Redis a day after its end, stays as it is.
    pub async fn set_window(
        &self,
        sale: SaleId,
        starts_at: Option<DateTime<Utc>>,
        ends_at: Option<DateTime<Utc>>,
    ) -> Result<WindowChange> {
        let [before, after] =
            sql::sales::set_window(&self.stores.pg, sale, starts_at, ends_at, &self.actor).await?;
        Ok(WindowChange { before, after })
    }

    /// Recorded orders, newest first.
    pub async fn orders(&self, filter: &OrderFilter) -> Result<Vec<OrderRecord>> {
        sql::orders(&self.stores.pg, filter).await
    }

    /// Recorded orders as they stand now, however many: newest first, page by page.
    pub async fn export_orders(&self, filter: OrderFilter) -> Result<OrderExport> {
        OrderExport::begin(&self.stores, filter).await
    }

    /// One recorded order. An order that waits in the queue is not recorded yet: see
    /// [`Engine::order_status`](crate::Engine::order_status).
    pub async fn order(&self, id: OrderId) -> Result<OrderRecord> {
        let order = sql::history::order(&self.stores.pg, id).await?;
        order.ok_or_else(|| Error::not_found(format!("a recorded order {id}")))
    }

    /// The queues of all sales that are in Redis.
    pub async fn queue(&self) -> Result<Vec<QueueStats>> {
        let mut queues = Vec::new();
        for sale in self.sales().await? {
            if sale.purged_at.is_none() && sale.epoch.get() > 0 {
                queues.push(self.stores.queue_stats(&sale).await?);
            }
        }
        Ok(queues)
    }

    /// All parked orders, oldest first.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        Ok(sql::dead_letters::list(&self.stores.pg).await?.into_iter().map(DeadLetter::from).collect())
    }

    /// One parked order.
    pub async fn dead_letter(&self, id: i64) -> Result<DeadLetter> {
        let letter = sql::dead_letters::letter(&self.stores.pg, id).await?;
        letter.map(DeadLetter::from).ok_or_else(|| Error::not_found(format!("dead letter {id}")))
    }

    /// Records a parked order under its own id, by the same decision as any other. Safe to repeat.
    pub async fn replay(&self, id: i64) -> Result<Ended> {
        self.stores.end_letter(id, Resolution::Replayed, &self.actor).await
    }

    /// Records a parked order as failed and gives its units back. Safe to repeat.
    pub async fn discard(&self, id: i64) -> Result<Ended> {
        self.stores.end_letter(id, Resolution::Discarded, &self.actor).await
    }

    /// Proves from both stores that the invariants hold, also while the sale is selling. `patience` is how
    /// long the queue entries that are there at the beginning may take to leave. Meanwhile it holds all of the sale's
    /// orders in memory, some 700 bytes each.
    pub async fn audit(&self, sale: SaleId, patience: Duration) -> Result<AuditReport> {
        self.stores.audit(&self.sale(sale).await?, patience, FENCE_PATIENCE).await
    }

    /// Rebuilds a sale in Redis from the record and the queue, and opens it as the record says. Meanwhile
    /// it sells nothing. Killed half way it leaves the sale fenced, and running it again is right.
    pub async fn recover(&self, sale: SaleId, progress: impl Fn(LoadProgress) + Sync) -> Result<Epoch> {
        let judged = self.sale(sale).await?;
        if judged.purged_at.is_some() {
            return Err(Error::refused(format!(
                "sale {sale} ended more than a day ago and is not loaded again"
            )));
        }
        // Before anything is changed: a recovery that is killed half way has changed something, too.
        let detail = format!("asked for under epoch {}", judged.epoch);
        sql::actions::note_alone(&self.stores.pg, &self.actor, "recover", Some(sale), &detail).await?;
        let loaded = self.stores.load(sale, judged.epoch, "an operator asked for it", &progress).await?;
        loaded.ok_or_else(|| {
            Error::refused(format!(
                "sale {sale} is being loaded by another process, or just was; see `flashsale audit --sale {sale}`"
            ))
        })
    }

    /// What [`recover`](Self::recover) would change. A sale that is selling right now shows the difference
    /// of a moment.
    pub async fn recover_dry_run(
        &self,
        sale: SaleId,
        progress: impl Fn(LoadProgress) + Sync,
    ) -> Result<RecoverDiff> {
        Ok(RecoverDiff { lines: self.stores.rehearse_load(sale, &progress).await? })
    }
}
