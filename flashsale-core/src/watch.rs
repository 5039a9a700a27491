//! Watching orders to their end.
//!
//! However many watch, the stores are asked alike: one task of the engine reads all watched orders of a sale
//! together, and every watcher of an order is told from the same reading. Redis is not asked to push changes:
//! a message is lost with the connection that it was sent to, while a reading can be repeated, and goes by the
//! rules of [`status`](crate::status) in every outage.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::{
    sync::{Notify, Semaphore, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::Engine,
    error::{Error, Result},
    ids::{OrderId, SaleId},
    order::{OrderState, OrderStatus},
    sql,
    status::{Question, READ_AT_ONCE, Told},
    stores::Stores,
};

/// How often watched orders are read. Nobody notices a fifth of a second, and 500 orders cost Redis one call of
/// half a millisecond: a four-hundredth of its time.
const READ_EVERY: Duration = Duration::from_millis(200);
/// Readings are made at least ten times as long apart as they take, at most so long.
const READ_AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// Between two readings, for what is newly watched: thousands who come at once share a few readings, and who
/// comes alone does not wait.
const GATHER: Duration = Duration::from_millis(20);
/// Calls to Redis in flight: a great many watched orders do not fill its connection.
const READINGS_AT_ONCE: usize = 8;
/// Questions to the record in flight: watchers of made-up ids do not fill its pool.
const QUESTIONS_AT_ONCE: usize = 2;

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
    questions: Semaphore,
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
    /// The record is being asked. Until it has answered, the order is neither read again nor forgotten: an
    /// answer that comes late would tell of the past.
    asked: bool,
}

/// Who joined waits for a reading that began afterwards: the last one may be older than what the watcher has
/// seen elsewhere. It is told whether the order is known.
type Joining = oneshot::Sender<Result<bool>>;

/// Orders that are read together, each with who waits for just this reading.
type Orders = Vec<(OrderId, Vec<Joining>)>;

/// Orders of one sale.
struct Chunk {
    sale: SaleId,
    orders: Orders,
}

impl Watches {
    pub(crate) fn new(stores: Arc<Stores>) -> Self {
        let questions = Semaphore::new(QUESTIONS_AT_ONCE);
        Self { stores, watched: Mutex::default(), joined: Notify::new(), questions }
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
        let new = || Entry { shown: watch::Sender::new(Shown::Nothing), joining: Vec::new(), asked: false };
        let entry = watched.orders.entry(id).or_insert_with(new);
        entry.joining.push(joining);
        let watch = OrderWatch { id, shown: entry.shown.subscribe(), told: None };
        drop(watched);
        self.joined.notify_one();
        Ok((watch, read))
    }

    /// Reads while anybody watches, until shutdown, which ends all watches.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        // Also when a reading panics: else everybody would wait for the next one for ever.
        let _closed = CloseOnDrop(&self);
        shutdown.run_until_cancelled(self.keep_reading()).await;
    }

    /// Only decides *when*.
    async fn keep_reading(self: &Arc<Self>) {
        let mut next = Instant::now();
        let mut questions = JoinSet::new();
        loop {
            let watching = self.orders() > 0;
            tokio::select! {
                () = self.joined.notified() => {}
                () = sleep_until(next), if watching => {}
            }
            let began = Instant::now();
            if began >= next {
                self.read(self.all(), &mut questions).await;
                next = Instant::now() + (began.elapsed() * 10).clamp(READ_EVERY, READ_AT_LEAST_EVERY);
            } else {
                self.read(self.awaited(), &mut questions).await;
            }
            while let Some(answered) = questions.try_join_next() {
                answered.expect("asking the record does not panic");
            }
            sleep(GATHER).await;
        }
    }

    /// How many orders are watched.
    pub(crate) fn orders(&self) -> usize {
        self.watched().orders.len()
    }

    /// Every watched order. Forgets those that nobody watches any more.
    fn all(&self) -> Orders {
        let mut watched = self.watched();
        watched.joined.clear();
        watched.orders.retain(|_, entry| entry.asked || entry.shown.receiver_count() > 0);
        let readable = watched.orders.iter_mut().filter(|(_, entry)| !entry.asked);
        readable.map(|(id, entry)| (*id, std::mem::take(&mut entry.joining))).collect()
    }

    /// Those that somebody waits for.
    fn awaited(&self) -> Orders {
        let mut watched = self.watched();
        let joined: Vec<_> = watched.joined.drain(..).collect();
        let take = |id| {
            let entry = watched.orders.get_mut(&id).filter(|entry| !entry.asked)?;
            Some((id, std::mem::take(&mut entry.joining)))
        };
        // Several may have joined one order: the first mention has them all.
        joined.into_iter().filter_map(take).filter(|(_, joining)| !joining.is_empty()).collect()
    }

    /// Shows what Redis tells. What only the record can tell is asked in tasks of their own: however long it
    /// takes, nobody else waits for it.
    async fn read(self: &Arc<Self>, orders: Orders, questions: &mut JoinSet<()>) {
        let readings = stream::iter(chunks(orders)).map(|chunk| self.read_chunk(chunk));
        let mut readings = readings.buffer_unordered(READINGS_AT_ONCE);
        while let Some(open) = readings.next().await {
            if let Some((question, orders)) = open {
                questions.spawn(Arc::clone(self).ask(question, orders));
            }
        }
    }

    /// Reads orders from Redis. Returns those that it cannot tell alone.
    async fn read_chunk(&self, mut chunk: Chunk) -> Option<(Question, Orders)> {
        let ids: Vec<_> = chunk.orders.iter().map(|(id, _)| *id).collect();
        let mut told = Told::new();
        let read = self.stores.ask_redis(chunk.sale, &ids, &mut told).await;
        let (question, result) = match read {
            Ok(question) => (question, Ok(())),
            Err(error) => (None, Err(error)),
        };
        let open = question.map(|question| {
            let asked: HashSet<_> = question.ids.iter().copied().collect();
            let open: Orders = chunk.orders.extract_if(.., |(id, _)| asked.contains(id)).collect();
            self.mark_asked(&open, true);
            (question, open)
        });
        self.answer(chunk.orders, told, &result);
        open
    }

    /// Asks the record, and shows what it tells.
    async fn ask(self: Arc<Self>, question: Question, orders: Orders) {
        let mut told = Told::new();
        let asking = async {
            let _turn = self.questions.acquire().await;
            self.stores.ask_record(question, &mut told).await
        };
        let result = sql::within(self.stores.config.postgres_deadline, asking).await;
        self.mark_asked(&orders, false);
        self.answer(orders, told, &result);
    }

    fn mark_asked(&self, orders: &Orders, asked: bool) {
        let mut watched = self.watched();
        for (id, _) in orders {
            if let Some(entry) = watched.orders.get_mut(id) {
                entry.asked = asked;
            }
        }
    }

    /// Shows what was told of these orders; what was not told is kept from being known by the error.
    fn answer(&self, orders: Orders, mut told: Told, result: &Result<()>) {
        if let Err(error) = result {
            tracing::debug!(%error, "where some watched orders are cannot be told now");
        }
        let untold = || Err(result.clone().err().unwrap_or_else(|| Error::internal("nothing was told")));
        let mut watched = self.watched();
        for (id, joining) in orders {
            let status = told.remove(&id).unwrap_or_else(untold);
            let answer = status.map(|status| watched.tell(id, status));
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

/// Ends all watches.
struct CloseOnDrop<'a>(&'a Watches);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        *self.0.watched() = Watched { closed: true, ..Watched::default() };
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

fn chunks(orders: Orders) -> Vec<Chunk> {
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
