//! Watching orders to their end.
//!
//! However many watch, the stores are asked alike: one task of the engine reads all watched orders of a sale
//! together, and every watcher of an order is told from the same reading. Redis is not asked to push changes:
//! a message is lost with the connection that it was sent to, while a reading can be repeated, and goes by the
//! rules of [`status`](crate::status) in every outage.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::{
    sync::{Notify, oneshot, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Engine, Stores},
    error::{Error, Result},
    ids::{OrderId, SaleId},
    order::{OrderState, OrderStatus},
    status::{READ_AT_ONCE, Told},
};

/// How often watched orders are read. Nobody notices a fifth of a second, and 500 orders cost Redis one call of
/// half a millisecond: a four-hundredth of its time.
const READ_EVERY: Duration = Duration::from_millis(200);
/// Readings are made at least ten times as long apart as they take, at most so long.
const READ_AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// Between two readings, for what is newly watched: thousands who come at once share a few readings, and who
/// comes alone does not wait.
const GATHER: Duration = Duration::from_millis(20);
/// Calls in flight: one sale that answers slowly does not hold up the others, and a great many watched orders
/// do not fill Redis's connection.
const READINGS_AT_ONCE: usize = 8;

/// One order, watched: where it is now, then each change, until it is final.
///
/// A state is told once, and none goes back (P8). Of changes that follow each other faster than they are asked
/// for, only the last one is told; so a slow watcher gathers no backlog. While it cannot be told where the
/// order is (a store is away, or the sale is fenced), nothing is told. To stop watching, drop it.
#[derive(Debug)]
pub struct OrderWatch {
    id: OrderId,
    shown: watch::Receiver<Shown>,
    told: Option<OrderState>,
}

impl OrderWatch {
    /// The next status, at first the current one; `None` after a final one.
    ///
    /// Fails with [`is_not_found`](Error::is_not_found) when the order is gone: Redis lost it before it was
    /// recorded, and now both stores were asked and neither knows it. Fails as
    /// [transient](Error::is_transient) when the engine was closed. Nothing is lost when the future is dropped
    /// before it is ready.
    pub async fn next(&mut self) -> Result<Option<OrderStatus>> {
        if self.told.is_some_and(OrderState::is_final) {
            return Ok(None);
        }
        loop {
            let shown = self.shown.borrow_and_update().clone();
            match shown {
                Shown::Status(status) if self.told < Some(status.state) => {
                    self.told = Some(status.state);
                    return Ok(Some(status));
                }
                Shown::Gone => return Err(Error::not_found(format!("order {}", self.id))),
                Shown::Status(_) | Shown::Nothing => {}
            }
            self.shown.changed().await.map_err(|_| closed())?;
        }
    }
}

/// What all watchers of an order are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shown {
    /// It has not been read yet.
    Nothing,
    Status(OrderStatus),
    /// Neither store knows it.
    Gone,
}

impl Shown {
    /// Goes on to what a reading told, never back. Says whether anything is new.
    fn advance(&mut self, told: Option<OrderStatus>) -> bool {
        let newer = match (&*self, &told) {
            (Self::Status(old), Some(new)) => old.state < new.state && !old.state.is_final(),
            _ => true,
        };
        if newer {
            *self = told.map_or(Self::Gone, Self::Status);
        }
        newer
    }
}

impl Engine {
    /// Watches an order: where it is, then each change, until it is final. `None` and errors as of
    /// [`order_status`](Self::order_status).
    ///
    /// Thousands may watch: one task of the engine reads all watched orders together, five times a second.
    pub async fn watch_order(&self, id: OrderId) -> Result<Option<OrderWatch>> {
        self.watches().watch(id).await
    }
}

/// All orders that are watched by way of one engine.
pub(crate) struct Watches {
    stores: Arc<Stores>,
    watched: Mutex<Watched>,
    joined: Notify,
}

#[derive(Default)]
struct Watched {
    orders: HashMap<OrderId, Entry>,
    /// Orders that somebody joined since they were last read.
    joined: Vec<OrderId>,
    closed: bool,
}

struct Entry {
    shown: watch::Sender<Shown>,
    joining: Vec<Joining>,
}

/// Who joined waits for a reading that began afterwards: the last one may be older than what the watcher has
/// seen elsewhere. It is told whether the order is known.
type Joining = oneshot::Sender<Result<bool>>;

/// Orders of one sale that are read together, each with who waits for just this reading.
struct Chunk {
    sale: SaleId,
    orders: Vec<(OrderId, Vec<Joining>)>,
}

impl Watches {
    pub(crate) fn new(stores: Arc<Stores>) -> Self {
        Self { stores, watched: Mutex::default(), joined: Notify::new() }
    }

    /// Begins to watch an order; `None` when both stores were asked and neither knows it.
    pub(crate) async fn watch(&self, id: OrderId) -> Result<Option<OrderWatch>> {
        // Asked here, so that a made-up id costs the others no wait for PostgreSQL.
        if self.stores.sale_or_news(id.sale()).await?.is_none() {
            return Ok(None);
        }
        let (watch, read) = self.join(id)?;
        let known = read.await.unwrap_or_else(|_| Err(closed()))?;
        Ok(known.then_some(watch))
    }

    fn join(&self, id: OrderId) -> Result<(OrderWatch, oneshot::Receiver<Result<bool>>)> {
        let (joining, read) = oneshot::channel();
        let mut watched = self.watched();
        if watched.closed {
            return Err(closed());
        }
        watched.joined.push(id);
        let new = || Entry { shown: watch::Sender::new(Shown::Nothing), joining: Vec::new() };
        let entry = watched.orders.entry(id).or_insert_with(new);
        entry.joining.push(joining);
        let watch = OrderWatch { id, shown: entry.shown.subscribe(), told: None };
        drop(watched);
        self.joined.notify_one();
        Ok((watch, read))
    }

    /// Reads while anybody watches, until shutdown, which ends all watches.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.keep_reading()).await;
        *self.watched() = Watched { closed: true, ..Watched::default() };
    }

    /// Only decides *when*.
    async fn keep_reading(&self) {
        let mut next = Instant::now();
        loop {
            let watching = self.orders() > 0;
            tokio::select! {
                () = self.joined.notified() => {}
                () = sleep_until(next), if watching => {}
            }
            let began = Instant::now();
            if began >= next {
                self.read_all().await;
                next = Instant::now() + (began.elapsed() * 10).clamp(READ_EVERY, READ_AT_LEAST_EVERY);
            } else {
                self.read_joined().await;
            }
            sleep(GATHER).await;
        }
    }

    /// How many orders are watched.
    pub(crate) fn orders(&self) -> usize {
        self.watched().orders.len()
    }

    /// Reads every watched order once, and forgets those that nobody watches any more.
    async fn read_all(&self) {
        let orders = {
            let mut watched = self.watched();
            watched.joined.clear();
            watched.orders.retain(|_, entry| entry.shown.receiver_count() > 0);
            watched.orders.iter_mut().map(|(id, entry)| (*id, std::mem::take(&mut entry.joining))).collect()
        };
        self.read(orders).await;
    }

    /// Reads those that somebody waits for.
    async fn read_joined(&self) {
        let orders = {
            let mut watched = self.watched();
            let joined: Vec<_> = watched.joined.drain(..).collect();
            let take = |id| Some((id, std::mem::take(&mut watched.orders.get_mut(&id)?.joining)));
            // Several may have joined one order: the first mention has them all.
            joined.into_iter().filter_map(take).filter(|(_, joining)| !joining.is_empty()).collect()
        };
        self.read(orders).await;
    }

    async fn read(&self, orders: Vec<(OrderId, Vec<Joining>)>) {
        let chunks = stream::iter(chunks(orders));
        chunks.for_each_concurrent(READINGS_AT_ONCE, |chunk| self.read_chunk(chunk)).await;
    }

    async fn read_chunk(&self, chunk: Chunk) {
        let ids: Vec<_> = chunk.orders.iter().map(|(id, _)| *id).collect();
        let mut told = Told::new();
        let result = self.stores.order_statuses(chunk.sale, &ids, &mut told).await;
        if let Err(error) = &result {
            tracing::debug!(%error, "where some watched orders are cannot be told now");
        }
        let mut watched = self.watched();
        for (id, joining) in chunk.orders {
            let answer = match told.remove(&id) {
                Some(status) => Ok(watched.tell(id, status)),
                None => Err(result.clone().err().unwrap_or_else(|| Error::internal("nothing was told"))),
            };
            for joining in joining {
                // It may have gone away meanwhile.
                let _ = joining.send(answer.clone());
            }
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Shows all watchers of an order what was read. Returns whether the order is known.
    fn tell(&mut self, id: OrderId, status: Option<OrderStatus>) -> bool {
        let known = status.is_some();
        let last = status.as_ref().is_none_or(|status| status.state.is_final());
        if let Some(entry) = self.orders.get(&id) {
            entry.shown.send_if_modified(|shown| shown.advance(status));
            // Who joined while this was read waits for a reading that is still to come.
            if last && entry.joining.is_empty() {
                self.orders.remove(&id);
            }
        }
        known
    }
}

fn chunks(orders: Vec<(OrderId, Vec<Joining>)>) -> Vec<Chunk> {
    let mut by_sale: HashMap<SaleId, Vec<_>> = HashMap::new();
    for order in orders {
        by_sale.entry(order.0.sale()).or_default().push(order);
    }
    let mut chunks = Vec::new();
    for (sale, mut orders) in by_sale {
        while !orders.is_empty() {
            let rest = orders.split_off(orders.len().min(READ_AT_ONCE));
            chunks.push(Chunk { sale, orders: std::mem::replace(&mut orders, rest) });
        }
    }
    chunks
}

fn closed() -> Error {
    Error::unavailable("the engine is closed")
}
