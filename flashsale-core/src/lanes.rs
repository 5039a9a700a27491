//! Group commit: a lane is one connection to Redis with one batch in flight.
//!
//! A lane sends what has gathered while its last batch was in flight: there is no timer, and at low load
//! nothing waits. A lane is a task of its own, so a caller that goes away cancels nothing and shifts no
//! answer; each answer travels in the channel that came with its order.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Mutex, mpsc, oneshot};

use crate::{
    catalog::Catalog,
    error::{Error, Result},
    ids::SaleId,
    keys::SaleKeys,
    link::{CallError, DAMAGED, Link},
    metrics::BatchMeter,
    order::Refusal,
    sale::{Epoch, Sale},
    scripts::{Answer, RESERVE_BATCH, Reservation, Reserved, reserve},
};

/// How long a lane waits for a newer epoch.
const CATCH_UP_WITHIN: Duration = Duration::from_millis(200);

/// An order on its way to Redis.
pub(crate) struct Waiting {
    pub sale: SaleId,
    /// Shared with the caller, who asks again under another id if this one is taken.
    pub reservation: Arc<Reservation>,
    /// After this instant nobody waits for the answer any more.
    pub deadline: Instant,
    pub answer: oneshot::Sender<Result<Answer>>,
}

/// The queue in front of the lanes. The lane that is free takes what has gathered in it.
pub(crate) type Queue = Arc<Mutex<mpsc::Receiver<Waiting>>>;

pub(crate) struct Lane {
    link: Link,
    catalog: Arc<Catalog>,
    queue: Queue,
    /// Redis's clock in microseconds, and when we read it: the last reply of this connection.
    clock: Option<(i64, Instant)>,
    meter: BatchMeter,
}

impl Lane {
    pub(crate) fn new(link: Link, catalog: Arc<Catalog>, queue: Queue, meter: BatchMeter) -> Self {
        Self { link, catalog, queue, clock: None, meter }
    }

    /// Sends batches until the queue is closed and empty.
    pub(crate) async fn run(mut self) {
        let mut gathered = Vec::with_capacity(RESERVE_BATCH);
        // The lock is held while waiting: exactly one idle lane waits for orders, the others for the lock.
        while self.queue.lock().await.recv_many(&mut gathered, RESERVE_BATCH).await > 0 {
            // The sort keeps the orders of a sale as they came.
            gathered.sort_by_key(|waiting| waiting.sale);
            while let Some(&Waiting { sale, .. }) = gathered.first() {
                let end = gathered.partition_point(|waiting| waiting.sale == sale);
                self.decide(sale, gathered.drain(..end).collect()).await;
            }
        }
    }

    /// Gets the answers of one batch and hands each to its caller.
    async fn decide(&mut self, sale: SaleId, batch: Vec<Waiting>) {
        let now = Instant::now();
        let (batch, late): (Vec<_>, Vec<_>) = batch.into_iter().partition(|waiting| waiting.deadline > now);
        for waiting in late {
            let _ =
                waiting.answer.send(Err(Error::unavailable("waited too long for Redis; nothing was sent")));
        }
        let Some(until) = batch.iter().map(|waiting| waiting.deadline).max() else { return };
        let orders: Vec<_> = batch.iter().map(|waiting| &*waiting.reservation).collect();
        let answers = match self.send(sale, &orders, until).await {
            Ok(answers) => answers,
            Err(failure) => orders.iter().map(|_| Err(failure.error(sale))).collect(),
        };
        let answers = batch.into_iter().map(|waiting| waiting.answer).zip(answers);
        let unknown =
            |(_, answer): &(_, Result<Answer>)| matches!(answer, Err(error) if error.outcome_unknown());
        let (unknown, known): (Vec<_>, Vec<_>) = answers.partition(unknown);
        hand_out(known);
        if !unknown.is_empty() {
            // A sending that is stuck on its way may be carried out until its not-after has passed. Told
            // earlier, the caller could repeat the order, be refused for good, and then be admitted by it.
            tokio::spawn(async move {
                tokio::time::sleep_until(until.into()).await;
                hand_out(unknown);
            });
        }
    }

    /// Sends a batch, and once more if that is safe and there is time: the order ids are the same, so a
    /// sending that was admitted without our knowing shows as a replay of its own id.
    async fn send(
        &mut self,
        id: SaleId,
        orders: &[&Reservation],
        until: Instant,
    ) -> Result<Vec<Result<Answer>>, Failure> {
        let keys = SaleKeys::new(id);
        // An earlier sending may have been carried out.
        let mut unsure = false;
        let mut last = no_time_left();
        for _ in 0..2 {
            let sale = match self.catalog.sale(id) {
                Ok(Some(sale)) if sale.purged_at.is_some() => {
                    return Ok(orders.iter().map(|_| Ok(Answer::Refused(Refusal::Ended))).collect());
                }
                Ok(Some(sale)) => sale,
                Ok(None) => return Err(Failure::new(CallError::Fenced("unknown sale".to_owned()), unsure)),
                Err(error) => return Err(Failure::new(CallError::NotSent(error.to_string()), unsure)),
            };
            match self.send_once(&sale, &keys, orders, until).await {
                Ok(Reserved::Decided { answers, .. }) => {
                    return Ok(answers
                        .into_iter()
                        .zip(orders)
                        .map(|(answer, order)| answer_for(answer, order, unsure))
                        .collect());
                }
                // Nothing was changed, and the reply has set the clock right.
                Ok(Reserved::Late { .. }) => last = CallError::NotSent("Redis got it too late".to_owned()),
                Err(error) => {
                    unsure |= matches!(error, CallError::Lost(_));
                    if error.is_fenced() {
                        self.catch_up(sale.epoch, until).await;
                    }
                    let refused = matches!(error, CallError::Refused(_));
                    last = error;
                    if refused {
                        break;
                    }
                }
            }
        }
        Err(Failure::new(last, unsure))
    }

    async fn send_once(
        &mut self,
        sale: &Sale,
        keys: &SaleKeys,
        orders: &[&Reservation],
        until: Instant,
    ) -> Result<Reserved, CallError> {
        let now = self.redis_now(time_left(until)?).await?;
        let left = time_left(until)?;
        let not_after = now + micros(left);
        let floor = self.catalog.floor(sale);
        let sent = Instant::now();
        let result = reserve(&self.link, keys, sale.epoch, floor, not_after, orders, left).await;
        self.meter.record(orders.len(), sent.elapsed());
        match &result {
            Ok(Reserved::Decided { seq, redis_us, .. }) => {
                self.catalog.saw(sale.id, sale.epoch, *seq);
                self.clock = Some((*redis_us, Instant::now()));
            }
            Ok(Reserved::Late { redis_us }) => self.clock = Some((*redis_us, Instant::now())),
            // The next connection may lead to another server.
            Err(CallError::Lost(_) | CallError::NotSent(_)) => self.clock = None,
            Err(_) => {}
        }
        result
    }

    /// Redis's clock now, in microseconds: never later than it really is, as a reply takes time to arrive.
    async fn redis_now(&mut self, left: Duration) -> Result<i64, CallError> {
        if self.clock.is_none() {
            let (seconds, micros): (i64, i64) =
                self.link.ask_within(&redis::cmd("TIME"), left).await.map_err(CallError::before_sending)?;
            self.clock = Some((seconds * 1_000_000 + micros, Instant::now()));
        }
        let (redis_us, read_at) = self.clock.expect("it was just set");
        Ok(redis_us + micros(read_at.elapsed()))
    }

    /// Redis said `fenced`: perhaps the sale stands under a newer epoch than we know of.
    async fn catch_up(&self, known: Epoch, until: Instant) {
        self.catalog.doubt();
        // Not for long: while PostgreSQL is away one fenced sale must not keep the lanes from the others.
        let until = until.min(Instant::now() + CATCH_UP_WITHIN);
        if let Ok(Err(error)) = tokio::time::timeout_at(until.into(), self.catalog.refresh()).await {
            tracing::debug!(%error, epoch = known.get(), "fenced, and the epoch cannot be read");
        }
    }
}

/// Gives each caller its answer; one that has gone away gets none.
fn hand_out(answers: Vec<(oneshot::Sender<Result<Answer>>, Result<Answer>)>) {
    for (caller, answer) in answers {
        let _ = caller.send(answer);
    }
}

fn no_time_left() -> CallError {
    CallError::NotSent("no time was left".to_owned())
}

fn time_left(until: Instant) -> Result<Duration, CallError> {
    until.checked_duration_since(Instant::now()).ok_or_else(no_time_left)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

/// The answer to one caller. After an unsure first sending a refusal may come from the order's own first
/// admission (its units are out of stock, its quota is taken), so it says nothing.
fn answer_for(answer: Answer, order: &Reservation, unsure: bool) -> Result<Answer> {
    match answer {
        Answer::Replayed(id) if id == order.id => Ok(Answer::Admitted),
        Answer::Admitted | Answer::Replayed(_) | Answer::Refused(Refusal::KeyReused) => Ok(answer),
        _ if unsure => Err(Error::unknown("the connection to Redis was lost after the order was sent")),
        refusal => Ok(refusal),
    }
}

/// Why a whole batch has no answer.
struct Failure {
    cause: CallError,
    unsure: bool,
}

impl Failure {
    fn new(cause: CallError, unsure: bool) -> Self {
        Self { cause, unsure }
    }

    /// The error for one caller.
    fn error(&self, sale: SaleId) -> Error {
        match &self.cause {
            cause if self.unsure => Error::unknown(cause.to_string()),
            CallError::Fenced(why) => Error::fenced(sale, why.clone()),
            cause if cause.is_wrong_type() => Error::fenced(sale, DAMAGED),
            cause => Error::unavailable(cause.to_string()),
        }
    }
}
