//! What the record says of the sales, cached: nothing on the hot path reads PostgreSQL.
//!
//! The catalogue is read again every second and whenever Redis answers `fenced`, so a sale that was created
//! or changed elsewhere counts here within two seconds. While PostgreSQL is away the last reading stands:
//! the sale goes on selling and the queue waits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, Result},
    ids::{ProductId, SaleId},
    sale::{Epoch, Sale, Seq},
    sql,
};

/// How often the catalogue is read again.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// One reading of the record.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub sales: HashMap<SaleId, Arc<Sale>>,
    products: HashMap<ProductId, SaleId>,
}

impl Reading {
    /// The sale that sells this product.
    pub(crate) fn sale_of(&self, product: ProductId) -> Option<SaleId> {
        self.products.get(&product).copied()
    }

    /// The sales that are over for good. They are read once: nothing that counts changes in them any more, and
    /// after some years they are nearly all there are.
    fn over(&self) -> Vec<SaleId> {
        let over = self.sales.values().filter(|sale| sale.purged_at.is_some());
        over.map(|sale| sale.id).collect()
    }

    /// The next reading: these sales, and those that are over for good from this one.
    fn and(&self, read: Vec<Sale>) -> Self {
        let over = self.sales.iter().filter(|(_, sale)| sale.purged_at.is_some());
        let mut sales: HashMap<_, _> = over.map(|(id, sale)| (*id, Arc::clone(sale))).collect();
        sales.extend(read.into_iter().map(|sale| (sale.id, Arc::new(sale))));
        // Those that sell come last: where the record was restored from a backup, the products of a sale that it
        // forgot may have become another's.
        let (over, live): (Vec<_>, Vec<_>) = sales.values().partition(|sale| sale.purged_at.is_some());
        let of =
            |sale: &Arc<Sale>| sale.products.iter().map(|product| (product.id, sale.id)).collect::<Vec<_>>();
        let products = over.into_iter().chain(live).flat_map(of).collect();
        Self { sales, products }
    }
}

pub(crate) struct Catalog {
    pool: PgPool,
    reading: RwLock<Option<Arc<Reading>>>,
    /// When the last try to read began, and what came of it. Held while reading, so that one try, failed or
    /// not, serves all who wait for it.
    last: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
    deadline: Duration,
    /// The highest seq that this process saw of each sale, and under which epoch.
    seen: Mutex<HashMap<SaleId, (Epoch, Seq)>>,
    doubts: Notify,
}

impl Catalog {
    pub(crate) fn new(pool: PgPool, deadline: Duration) -> Self {
        Self {
            pool,
            reading: RwLock::default(),
            last: tokio::sync::Mutex::default(),
            deadline,
            seen: Mutex::default(),
            doubts: Notify::new(),
        }
    }

    /// The last reading; an error only until the first one succeeded.
    pub(crate) fn reading(&self) -> Result<Arc<Reading>> {
        let reading = self.reading.read().unwrap_or_else(PoisonError::into_inner);
        reading.clone().ok_or_else(|| Error::unavailable("PostgreSQL has not been reached yet"))
    }

    /// What the last reading says of one sale.
    pub(crate) fn sale(&self, id: SaleId) -> Result<Option<Arc<Sale>>> {
        Ok(self.reading()?.sales.get(&id).cloned())
    }

    /// Reads the record again: what it returns was read after this was called.
    pub(crate) async fn refresh(&self) -> Result<Arc<Reading>> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        match &*last {
            Some((began, Ok(()))) if *began >= asked => return self.reading(),
            Some((began, Err(why))) if *began >= asked => return Err(Error::unavailable(why.clone())),
            _ => {}
        }
        let began = Instant::now();
        let read = sql::within(self.deadline, self.read()).await;
        *last = Some((began, read.as_ref().map(drop).map_err(ToString::to_string)));
        read
    }

    async fn read(&self) -> Result<Arc<Reading>> {
        let reading = match self.reading() {
            Ok(before) => before.and(sql::sales(&self.pool, &before.over()).await?),
            Err(_) => Reading::default().and(sql::sales(&self.pool, &[]).await?),
        };
        let reading = Arc::new(reading);
        *self.reading.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&reading));
        Ok(reading)
    }

    /// Notes the seq of a reply: a Redis that is below it later has gone back in time.
    pub(crate) fn saw(&self, sale: SaleId, epoch: Epoch, seq: Seq) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let last = seen.entry(sale).or_default();
        // Tuples compare epoch first: a reply of an older epoch says nothing about the newer one.
        *last = (*last).max((epoch, seq));
    }

    /// The seq below which a Redis under this epoch has gone back in time.
    pub(crate) fn floor(&self, sale: &Sale) -> Seq {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get(&sale.id) {
            Some((epoch, seq)) if *epoch == sale.epoch => sale.recorded_seq.max(*seq),
            _ => sale.recorded_seq,
        }
    }

    /// An order was found to be fenced: the keeper of this process need not wait for its next look.
    pub(crate) fn doubt(&self) {
        self.doubts.notify_one();
    }

    /// Until somebody doubts, or has done so since this was last awaited.
    pub(crate) async fn doubted(&self) {
        self.doubts.notified().await;
    }

    /// Keeps the reading fresh until shutdown.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut away = false;
        loop {
            let result = self.refresh().await;
            match &result {
                Ok(_) if away => tracing::info!("the catalogue can be read again"),
                Err(error) if !away => {
                    tracing::warn!(%error, "the catalogue cannot be read; the last reading stands");
                }
                _ => {}
            }
            away = result.is_err();
            tokio::select! {
                () = tokio::time::sleep(REFRESH_EVERY) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}
