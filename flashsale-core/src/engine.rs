//! The facade: everything that a service does with flash sales.

use std::{
    fmt::Display,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auditor::Auditor,
    config::EngineConfig,
    drainer::Drainer,
    error::{Error, Result},
    ids::{OrderId, SaleId, UserId},
    keeper::Keeper,
    keys::SaleKeys,
    lanes::{Lane, Waiting},
    link::Link,
    monitor::Monitor,
    notifier::Notifier,
    operator::Operator,
    order::{Admission, Fingerprint, OrderRecord, OrderRequest, OrderStatus, Refusal},
    preflight::Finding,
    readiness::Dependency,
    sale::{ActiveProduct, Sale, SaleState},
    scripts::{Answer, Reservation, look},
    sql,
    stores::Stores,
    watch::Watches,
};

/// The facade: admits orders, shows where they are, and hands out the drainer, the keeper and the operator.
///
/// Cheap to clone; all clones share connections. An engine sells a sale only after a [`Keeper`] has loaded
/// it into Redis, and its orders become final only while a [`Drainer`] runs somewhere.
#[derive(Clone)]
pub struct Engine {
    stores: Arc<Stores>,
    lanes: mpsc::Sender<Waiting>,
    watches: Arc<Watches>,
    tasks: TaskTracker,
    stop: Arc<tokio_util::sync::DropGuard>,
    closing: CancellationToken,
}

impl Engine {
    /// An engine on these two stores. Connections are made when they are first needed, so it can be made
    /// while a store is away; the URLs themselves must be right.
    ///
    /// Starts the engine's own tasks (its lanes, and the reading of the catalogue and of watched orders); they
    /// end when the last clone is dropped or [`close`](Self::close) is called.
    pub async fn connect(config: EngineConfig) -> Result<Self> {
        let stores = Arc::new(Stores::new(config)?);
        let (lanes, queue) = mpsc::channel(stores.config.max_waiting);
        let queue = Arc::new(Mutex::new(queue));
        let tasks = TaskTracker::new();
        for _ in 0..stores.config.lanes.max(1) {
            let catalog = Arc::clone(&stores.catalog);
            let link = Link::new(stores.redis.clone(), stores.config.redis_deadline);
            let meter = stores.meters.lane_batch.clone();
            tasks.spawn(Lane::new(link, catalog, Arc::clone(&queue), meter).run());
        }
        let closing = CancellationToken::new();
        tasks.spawn(Arc::clone(&stores.catalog).run(closing.clone()));
        let watches = Arc::new(Watches::new(Arc::clone(&stores)));
        tasks.spawn(Arc::clone(&watches).run(closing.clone()));
        // The first reading, so that an engine on living stores can sell at once.
        if let Err(error) = stores.catalog.refresh().await {
            tracing::debug!(%error, "the catalogue is not read yet");
        }
        Ok(Self { stores, lanes, watches, tasks, stop: Arc::new(closing.clone().drop_guard()), closing })
    }

    /// Brings the tables of the record up to date. Safe to call from several processes at once.
    pub async fn migrate(&self) -> Result<()> {
        sql::migrate(&self.stores.pg).await?;
        self.stores.catalog.refresh().await?;
        Ok(())
    }

    /// Tries to get the buyer in: one step in Redis takes stock and quota, notes the key and queues the
    /// order, or leaves nothing behind (P1–P4).
    ///
    /// A refusal is an [`Admission::Refused`], not an error. An error with
    /// [`outcome_unknown`](Error::outcome_unknown) means that the order may have been admitted; repeating
    /// the request with the same key tells and is always safe (P10). Answers within twice the Redis
    /// deadline.
    pub async fn reserve(&self, request: OrderRequest) -> Result<Admission> {
        let attempt = self.stores.meters.attempt();
        let answer = self.admit(request).await;
        attempt.answered(&answer);
        answer
    }

    async fn admit(&self, request: OrderRequest) -> Result<Admission> {
        let sale = match self.sale_of(&request)? {
            Ok(sale) => sale,
            Err(refusal) => return Ok(Admission::Refused(refusal)),
        };
        let fingerprint = Fingerprint::of(sale, &request.items);
        let mut reservation = Arc::new(Reservation {
            id: OrderId::new(sale),
            user: request.user,
            key: request.key,
            fingerprint,
            items: request.items,
            request_id: request.request_id,
        });
        // 42 random bits within a millisecond: a taken id is rare, twice is a broken generator.
        for _ in 0..3 {
            match self.ask(sale, Arc::clone(&reservation)).await? {
                Answer::IdTaken => Arc::make_mut(&mut reservation).id = OrderId::new(sale),
                Answer::Admitted => return Ok(Admission::Admitted(reservation.id)),
                Answer::Replayed(id) => return Ok(Admission::Replayed(id)),
                Answer::Refused(refusal) => return Ok(Admission::Refused(refusal)),
            }
        }
        Err(Error::internal("three new order ids in a row were taken"))
    }

    /// The one sale that sells all of the items.
    fn sale_of(&self, request: &OrderRequest) -> Result<Result<SaleId, Refusal>> {
        let catalog = self.stores.catalog.reading()?;
        let mut sale = None;
        for (product, _) in request.items.iter() {
            let Some(of) = catalog.sale_of(product) else { return Ok(Err(Refusal::UnknownProduct(product))) };
            if *sale.get_or_insert(of) != of {
                return Ok(Err(Refusal::ItemsSpanSales));
            }
        }
        Ok(sale.ok_or(Refusal::ItemsSpanSales))
    }

    async fn ask(&self, sale: SaleId, reservation: Arc<Reservation>) -> Result<Answer> {
        let (answer, answered) = oneshot::channel();
        let deadline = Instant::now() + self.stores.config.redis_deadline;
        self.lanes.try_send(Waiting { sale, reservation, deadline, answer }).map_err(
            |error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    Error::unavailable("too many orders are waiting for Redis")
                }
                mpsc::error::TrySendError::Closed(_) => Error::unavailable("the engine is closed"),
            },
        )?;
        answered.await.unwrap_or_else(|_| Err(Error::unknown("the engine was closed before the answer came")))
    }

    /// Where an order is. `None` only when both stores were asked and neither knows it; an error that
    /// [is transient](Error::is_transient) when that cannot be told now. What was shown once never goes
    /// back (P8).
    pub async fn order_status(&self, id: OrderId) -> Result<Option<OrderStatus>> {
        self.stores.order_status(id).await
    }

    /// The products of all sales that are open right now, by sale and product, with the units that Redis
    /// has left. A sale that is fenced is left out, unless no other is open: then it is an error.
    pub async fn active_products(&self) -> Result<Vec<ActiveProduct>> {
        let catalog = self.stores.catalog.reading()?;
        let mut sales: Vec<_> = catalog.sales.values().filter(|sale| sale.state == SaleState::Open).collect();
        sales.retain(|sale| sale.purged_at.is_none());
        sales.sort_by_key(|sale| sale.id);
        let (mut active, mut fenced) = (Vec::new(), None);
        for sale in sales {
            match self.active_in(sale).await {
                Ok(products) => active.extend(products),
                Err(error) if error.is_fenced() => fenced = Some(error),
                Err(error) => return Err(error),
            }
        }
        match fenced {
            Some(error) if active.is_empty() => Err(error),
            _ => Ok(active),
        }
    }

    async fn active_in(&self, sale: &Sale) -> Result<Vec<ActiveProduct>> {
        let seen = look(&self.stores.link, &SaleKeys::new(sale.id), &[]).await?;
        let ((starts, ends), now) = (sale.window_ms(), seen.now_ms);
        if !(starts..ends).contains(&now) {
            return Ok(Vec::new());
        }
        let redis = seen.must_count(sale)?;
        let left = |product| redis.stock.get(&product).map_or(0, |left| u32::try_from(*left).unwrap_or(0));
        let active = sale.products.iter().map(|product| ActiveProduct {
            sale: sale.id,
            starts_at: sale.starts_at,
            ends_at: sale.ends_at,
            product: product.clone(),
            stock_remaining: left(product.id),
            seconds_remaining: u64::try_from((ends - now) / 1_000).unwrap_or(0),
        });
        Ok(active.collect())
    }

    /// The recorded orders of a user, newest first: at most `limit`, older than `before` if it is given.
    pub async fn orders_of(
        &self,
        user: &UserId,
        limit: u32,
        before: Option<OrderId>,
    ) -> Result<Vec<OrderRecord>> {
        let filter =
            crate::operator::OrderFilter { user: Some(user.clone()), limit, before, ..Default::default() };
        self.stores.record(sql::orders(&self.stores.pg, &filter)).await
    }

    /// Whether the stores can be reached and the open sales can sell, one line each.
    pub async fn readiness(&self) -> Vec<Dependency> {
        self.stores.readiness().await
    }

    /// Whether the stores are such that what is promised holds on them: their versions, roles and settings,
    /// what we are allowed to do there, and the clocks. It changes nothing.
    pub async fn preflight(&self) -> Vec<Finding> {
        self.stores.preflight().await
    }

    /// A drainer of its own: it takes admitted orders from the queues of all live sales to the record.
    /// Several may run, in several processes.
    #[must_use]
    pub fn drainer(&self) -> Drainer {
        Drainer::new(Arc::clone(&self.stores))
    }

    /// The keeper: it loads sales into Redis, recovers them, and carries what operators change. One in
    /// each server; several do no harm.
    #[must_use]
    pub fn keeper(&self) -> Keeper {
        Keeper::new(Arc::clone(&self.stores))
    }

    pub(crate) fn stores(&self) -> &Arc<Stores> {
        &self.stores
    }

    pub(crate) fn watches(&self) -> &Watches {
        &self.watches
    }

    /// The monitor: it shows stock, queues, dead letters and fenced sales as gauges of the `metrics` crate, to
    /// the recorder that is installed when it looks. What the engine itself counts goes to the one that was
    /// installed before [`connect`](Self::connect).
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        Monitor::new(Arc::clone(&self.stores))
    }

    /// The auditor: it computes the invariants of all live sales, at most every `every`, and raises the alarm.
    /// One in each server: only one of them works at a time.
    #[must_use]
    pub fn auditor(&self, every: Duration) -> Auditor {
        Auditor::new(Arc::clone(&self.stores), every)
    }

    /// Registers a consumer of final orders under a name of 1-64 characters of `a-z`, `0-9` and `-`, and makes a
    /// [`Notifier`] that calls `hook` for each of them. From when this returns on, every order that becomes
    /// `Confirmed` or `Failed` is told at least once, also what becomes final while no notifier runs.
    ///
    /// Registering a name again, after a restart or in another process, changes nothing. A consumer that goes
    /// away for ever has to be ended by [`Operator::unsubscribe`], or what it was not told piles up.
    ///
    /// The hook gets the order as the record has it; [`order_status`](Self::order_status) may follow a moment
    /// later.
    pub async fn notifier<F, E>(
        &self,
        name: &str,
        hook: impl Fn(OrderRecord) -> F + Send + Sync + 'static,
    ) -> Result<Notifier>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        Notifier::new(Arc::clone(&self.stores), name, hook).await
    }

    /// What operators do: create and change sales, look into orders and the queue, audit, recover.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator::new(Arc::clone(&self.stores))
    }

    /// Ends the engine's own tasks and closes its connections to PostgreSQL; a pool that was passed in stays open.
    /// Drainers, keepers and notifiers have a shutdown of their own: end them first.
    pub async fn close(self) {
        let Self { stores, lanes, watches: _, tasks, stop, closing } = self;
        closing.cancel();
        drop((lanes, stop));
        tasks.close();
        // Another clone still holds the lanes open: its orders are not cut off.
        let _ = tokio::time::timeout(stores.config.redis_deadline * 2, tasks.wait()).await;
        if stores.config.postgres.pool().is_none() {
            stores.pg.close().await;
        }
        stores.ledger.close().await;
    }
}
