//! The notifier: tells the embedder's own code of every order that became final.
//!
//! The ledger writes one row per order and consumer, in the transaction that makes the order final. A notifier
//! takes such rows in a short transaction, calls with none open, and deletes a row once its call has returned
//! well. Who has a row in hand renews it; what nobody renews any more is taken by another one.

use std::{
    collections::HashMap,
    fmt::Display,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures::{FutureExt, future::BoxFuture};
use metrics::{Counter, counter, describe_counter};
use rand::RngExt;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, Result},
    ids::{OrderId, checked_slug},
    operator::Operator,
    order::OrderRecord,
    sql::{
        self,
        deliveries::{InHand, PutOff},
    },
    stores::Stores,
};

/// What a notifier that is not heard of for so long had in hand is taken by another one.
const LEASE: Duration = Duration::from_secs(30);
/// The pause after a failed call: it doubles from the first to the second.
const FAILURE_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// The pause after nothing was due, likewise.
const IDLE_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// The pause after PostgreSQL could not be asked.
const AWAY_PAUSE: Duration = Duration::from_secs(2);
/// Calls that are under way at once, unless the embedder says otherwise.
const AT_ONCE: usize = 16;
/// So much is kept of what a failed call says, in bytes.
const MOST_OF_AN_ERROR: usize = 500;

/// What one unit of work did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notified {
    /// Calls that returned well; their orders are not told again.
    pub delivered: usize,
    /// Calls that failed; they are made again after a pause.
    pub failed: usize,
}

/// A consumer of final orders, as [`Operator::subscribers`](crate::Operator::subscribers) lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscriber {
    /// Its name.
    pub name: String,
    /// When it was registered.
    pub since: DateTime<Utc>,
    /// Orders that it has not acknowledged.
    pub waiting: u64,
    /// Those of them whose last call failed.
    pub failing: u64,
    /// What one of the failed calls said.
    pub error: Option<String>,
}

/// Calls the embedder's own code for every order that became final: to take a payment, to send a mail.
/// [`Engine::notifier`](crate::Engine::notifier) makes it.
///
/// Promises: every order that became `Confirmed` or `Failed` after the consumer was registered is told, after its
/// commit, *at least once*, whichever process has recorded it and whichever of our processes dies. So the same
/// order may come twice, even while its first call still runs: make what you do idempotent, keyed by
/// [`OrderRecord::id`].
///
/// A call that fails or panics is made again, after a pause of its own that grows from one second to five
/// minutes, until it returns well. It holds up neither the queue nor other orders, except that only so many
/// calls are under way [at once](Self::at_once): give what you do a limit in time. No transaction and no
/// connection is held while it runs. The order of the calls is not that of the orders.
///
/// Several notifiers of one name share the work; consumers of different names each hear everything.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use flashsale_core::{Engine, OrderRecord, OrderState};
/// # use tokio_util::sync::CancellationToken;
/// # struct Bank;
/// # impl Bank {
/// #     async fn charge(&self, _reference: String, _amount: String) -> Result<(), std::io::Error> { Ok(()) }
/// # }
/// # async fn example(engine: Engine, bank: Arc<Bank>, shutdown: CancellationToken) -> flashsale_core::Result<()> {
/// let charge = move |order: OrderRecord| {
///     let bank = Arc::clone(&bank);
///     async move {
///         if order.state != OrderState::Confirmed {
///             return Ok(());
///         }
///         // The bank takes a reference once: a second call charges nothing.
///         bank.charge(order.id.to_string(), order.total.to_string()).await
///     }
/// };
/// tokio::spawn(engine.notifier("payments", charge).await?.run(shutdown));
/// # Ok(())
/// # }
/// ```
pub struct Notifier {
    stores: Arc<Stores>,
    name: String,
    hook: Hook,
    at_once: usize,
    pub(crate) lease: Duration,
    calls: JoinSet<Told>,
    /// Calls that ended, until that is written down.
    told: Vec<Told>,
    /// Everything that was taken and is not written down yet: by order, which attempt it is.
    in_hand: HashMap<OrderId, i32>,
    renewed: Instant,
    delivered: Counter,
    failed: Counter,
}

type Hook = Arc<dyn Fn(OrderRecord) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A call that ended.
struct Told {
    what: InHand,
    result: Result<(), String>,
}

impl Notifier {
    pub(crate) async fn new<F, E>(
        stores: Arc<Stores>,
        name: &str,
        hook: impl Fn(OrderRecord) -> F + Send + Sync + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        checked_slug("subscriber", name)?;
        stores.record(sql::deliveries::subscribe(&stores.pg, name)).await?;
        let hook = move |order| {
            let call = hook(order);
            async move { call.await.map_err(|error| error.to_string()) }.boxed()
        };
        let total = "flashsale_deliveries_total";
        describe_counter!(total, "Calls that told a consumer of a final order, by what came of them");
        let counted = |result| counter!(total, "subscriber" => name.to_owned(), "result" => result);
        Ok(Self {
            name: name.to_owned(),
            hook: Arc::new(hook),
            at_once: AT_ONCE,
            lease: LEASE,
            calls: JoinSet::new(),
            told: Vec::new(),
            in_hand: HashMap::new(),
            renewed: Instant::now(),
            delivered: counted("delivered"),
            failed: counted("failed"),
            stores,
        })
    }

    /// How many calls may be under way at once, in this notifier. Default 16.
    #[must_use]
    pub fn at_once(mut self, most: usize) -> Self {
        self.at_once = most.max(1);
        self
    }

    /// Tells what is due until shutdown; calls under way are waited for, and what came of them is written down.
    /// Where that takes too long, drop the future: what was in hand is told again half a minute later. Only
    /// decides *when*.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut idle = IDLE_PAUSE.0;
        while !shutdown.is_cancelled() {
            idle = match self.take().await {
                Ok(0) => (idle * 2).min(IDLE_PAUSE.1),
                Ok(_) => IDLE_PAUSE.0,
                Err(error) => {
                    tracing::warn!(%error, subscriber = self.name, "final orders could not be taken");
                    AWAY_PAUSE
                }
            };
            tokio::select! {
                () = self.wait(idle) => {}
                () = shutdown.cancelled() => {}
            }
            self.write_down_or_warn().await;
        }
        while !self.calls.is_empty() {
            self.wait(self.lease).await;
            self.write_down_or_warn().await;
        }
    }

    /// Takes what is due, calls, waits for all of these calls, and says how many went well. An error leaves what
    /// is not written down to the next unit, or to another notifier half a minute later.
    pub async fn step(&mut self) -> Result<Notified> {
        let mut notified = self.write_down().await?;
        self.take().await?;
        while !self.calls.is_empty() {
            self.wait(self.lease).await;
            let now = self.write_down().await?;
            notified.delivered += now.delivered;
            notified.failed += now.failed;
        }
        Ok(notified)
    }

    /// Takes as much as may still be under way, and begins the calls.
    async fn take(&mut self) -> Result<usize> {
        let free = self.at_once.saturating_sub(self.in_hand.len());
        if free == 0 {
            return Ok(0);
        }
        let pg = &self.stores.pg;
        let taken = self.stores.record(sql::deliveries::take(pg, &self.name, free, self.lease)).await?;
        if taken.is_empty() {
            return Ok(0);
        }
        if self.in_hand.is_empty() {
            self.renewed = Instant::now();
        }
        self.in_hand.extend(taken.iter().map(|what| (what.order, what.attempt)));
        let ids: Vec<_> = taken.iter().map(|what| what.order).collect();
        let read = self.stores.record(sql::history::orders_by_id(pg, &ids)).await;
        let mut orders: HashMap<_, _> = match read {
            Ok(orders) => orders.into_iter().map(|order| (order.id, order)).collect(),
            Err(error) => {
                // One of them may be unreadable: each is read alone, so that it holds up no other.
                tracing::warn!(%error, subscriber = self.name, "final orders could not be read together");
                HashMap::new()
            }
        };
        for &what in &taken {
            let (stores, hook) = (Arc::clone(&self.stores), Arc::clone(&self.hook));
            let order = orders.remove(&what.order);
            self.calls
                .spawn(async move { Told { what, result: tell(&stores, what.order, order, hook).await } });
        }
        Ok(taken.len())
    }

    /// Waits until a call has ended, but no longer than this, and renews what is in hand when it is time.
    async fn wait(&mut self, most: Duration) {
        let renew_every = self.lease / 3;
        let renew = renew_every.saturating_sub(self.renewed.elapsed());
        let most = if self.in_hand.is_empty() { most } else { most.min(renew) };
        if let Ok(Some(ended)) = tokio::time::timeout(most, next(&mut self.calls)).await {
            self.note(ended);
            while let Some(ended) = self.calls.try_join_next() {
                self.note(ended);
            }
        }
        if !self.in_hand.is_empty() && self.renewed.elapsed() >= renew_every {
            self.renew().await;
        }
    }

    fn note(&mut self, ended: Result<Told, JoinError>) {
        // It catches panics itself, and nobody else can cancel it.
        if let Ok(told) = ended {
            self.told.push(told);
        }
    }

    async fn renew(&mut self) {
        self.renewed = Instant::now();
        let in_hand = self.in_hand.iter().map(|(&order, &attempt)| InHand { order, attempt });
        let later = in_hand.map(|what| PutOff { what, pause: self.lease, error: None }).collect();
        let renewed = sql::deliveries::put_off(&self.stores.pg, &self.name, later);
        if let Err(error) = self.stores.record(renewed).await {
            tracing::warn!(%error, subscriber = self.name, "calls under way may be made twice");
        }
    }

    /// Writes down what came of the calls that ended. What could not be written down stays for the next time.
    async fn write_down(&mut self) -> Result<Notified> {
        let Self { stores, name, told, .. } = self;
        if told.is_empty() {
            return Ok(Notified::default());
        }
        let (heard, failed): (Vec<_>, Vec<_>) = told.iter().partition(|told| told.result.is_ok());
        let ids: Vec<_> = heard.iter().map(|told| told.what.order).collect();
        if !ids.is_empty() {
            stores.record(sql::deliveries::acknowledge(&stores.pg, name, &ids)).await?;
        }
        let later: Vec<_> = failed.iter().filter_map(|told| put_off(name, told)).collect();
        if !later.is_empty() {
            stores.record(sql::deliveries::put_off(&stores.pg, name, later)).await?;
        }
        let notified = Notified { delivered: heard.len(), failed: failed.len() };
        for told in self.told.drain(..) {
            self.in_hand.remove(&told.what.order);
        }
        self.delivered.increment(notified.delivered as u64);
        self.failed.increment(notified.failed as u64);
        Ok(notified)
    }

    async fn write_down_or_warn(&mut self) {
        if let Err(error) = self.write_down().await {
            tracing::warn!(%error, subscriber = self.name, "what came of calls could not be written down");
        }
    }
}

impl Operator {
    /// All consumers of final orders, by name, with what they have not acknowledged yet.
    pub async fn subscribers(&self) -> Result<Vec<Subscriber>> {
        sql::deliveries::subscribers(&self.stores.pg).await
    }

    /// Ends a consumer that does not come back, and forgets what it was not told. Safe to repeat after an error.
    pub async fn unsubscribe(&self, name: &str) -> Result<()> {
        if !sql::deliveries::unsubscribe(&self.stores.pg, name, &self.actor).await? {
            return Err(Error::not_found(format!("a consumer named {name:?}")));
        }
        Ok(())
    }
}

/// Never ends while there is no call.
async fn next(calls: &mut JoinSet<Told>) -> Option<Result<Told, JoinError>> {
    if calls.is_empty() {
        return std::future::pending().await;
    }
    calls.join_next().await
}

/// Makes one call, which may panic before or in its future.
async fn tell(stores: &Stores, id: OrderId, order: Option<OrderRecord>, hook: Hook) -> Result<(), String> {
    let order = match order {
        Some(order) => order,
        None => match stores.record(sql::history::order(&stores.pg, id)).await {
            Ok(Some(order)) => order,
            // Somebody has removed it from the record: there is nothing to tell.
            Ok(None) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        },
    };
    let call = AssertUnwindSafe(async { hook(order).await }).catch_unwind();
    call.await.unwrap_or_else(|_| Err("it panicked".to_owned()))
}

fn put_off(subscriber: &str, told: &Told) -> Option<PutOff> {
    let what = told.what;
    let error = told.result.as_ref().err()?;
    tracing::warn!(subscriber, order = %what.order, attempt = what.attempt, error, "a final order is told again later");
    // PostgreSQL has no NUL in text.
    let mut error = error.replace('\0', "");
    error.truncate(error.floor_char_boundary(MOST_OF_AN_ERROR));
    let pause = pause_after(what.attempt).mul_f64(rand::rng().random_range(0.5..1.0));
    Some(PutOff { what, pause, error: Some(error) })
}

fn pause_after(attempt: i32) -> Duration {
    let doublings = u32::try_from(attempt - 1).unwrap_or(0).min(16);
    (FAILURE_PAUSE.0 * 2_u32.pow(doublings)).min(FAILURE_PAUSE.1)
}
