//! The drainer: takes admitted orders from the queue to the record, and the record's verdicts back.
//!
//! One unit of work is `read`, `begin`, `record`, `settle`. A process may die after any of them: an entry is
//! acknowledged only after its order is recorded, and what a dead drainer held is claimed by another.

mod batch;
mod intake;
mod queue_side;
mod recorder;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::RngExt;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub(crate) use self::batch::Batch;
use self::{batch::Ended, queue_side::QueueSide, recorder::Recorder};
#[cfg(test)]
use crate::queue::Entry;
use crate::{
    error::{Error, Result},
    ids::SaleId,
    sale::Sale,
    stores::Stores,
};

/// The pause after a unit that found nothing to do: it doubles from the first to the second.
const IDLE_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// The pause after a failure, likewise.
const FAILURE_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long one sale is worked on while others may wait. Long enough that the batches at its ends, which nothing
/// overlaps with, are few.
const TURN: Duration = Duration::from_millis(250);

/// What one unit of work, or several, did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Entries that were taken from the queue; 0: there was none to take.
    pub read: usize,
    /// Orders that the ledger confirmed, now or before.
    pub confirmed: usize,
    /// Orders that the ledger failed, now or before.
    pub failed: usize,
    /// Entries that were parked for an operator.
    pub parked: usize,
    /// Orders whose units went back to stock and quota now.
    pub given_back: usize,
}

impl Drained {
    fn add(&mut self, other: Self) {
        self.read += other.read;
        self.confirmed += other.confirmed;
        self.failed += other.failed;
        self.parked += other.parked;
        self.given_back += other.given_back;
    }
}

/// Takes the orders of all live sales from their queues to the record.
///
/// Promises: every admitted order ends as `Confirmed` or `Failed` (P5); units go back exactly once, after
/// the record says `Failed`, and never otherwise (P6); what a killed or stopped drainer held is taken over
/// within 10 seconds (P9). One drainer at a time writes for a sale; a second one is a standby.
pub struct Drainer {
    stores: Arc<Stores>,
    queue: QueueSide,
    recorder: Recorder,
    /// Sales whose last unit failed.
    resting: HashMap<SaleId, Rest>,
}

/// A sale is left alone for a while after a failure.
struct Rest {
    until: Instant,
    pause: Duration,
}

impl Drainer {
    pub(crate) fn new(stores: Arc<Stores>) -> Self {
        let (queue, recorder) = (QueueSide::new(Arc::clone(&stores)), Recorder::new(Arc::clone(&stores)));
        Self { stores, queue, recorder, resting: HashMap::new() }
    }

    /// The name under which it takes entries: host, process id, random.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.queue.consumer
    }

    /// Drains all live sales until shutdown; what is in hand is finished first. Only decides *when*.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut idle = IDLE_PAUSE.0;
        while !shutdown.is_cancelled() {
            let mut worked = false;
            for sale in self.live_sales() {
                worked |= self.drain_unless_resting(sale, &shutdown).await;
            }
            if worked {
                idle = IDLE_PAUSE.0;
                continue;
            }
            idle = (idle * 2).min(IDLE_PAUSE.1);
            tokio::select! {
                () = tokio::time::sleep(idle) => {}
                () = shutdown.cancelled() => {}
            }
        }
        for sale in self.live_sales() {
            self.queue.leave(sale).await;
        }
    }

    /// Drains a sale, unless it failed a moment ago: one sale in trouble must not hold up the others.
    async fn drain_unless_resting(&mut self, sale: SaleId, shutdown: &CancellationToken) -> bool {
        if self.resting.get(&sale).is_some_and(|rest| Instant::now() < rest.until) {
            return false;
        }
        let until = Instant::now() + TURN;
        match self.drain_while(sale, || Instant::now() < until && !shutdown.is_cancelled()).await {
            Ok(drained) => {
                self.resting.remove(&sale);
                drained.read > 0
            }
            Err(error) => {
                tracing::warn!(%error, sale = sale.get(), "draining failed; nothing was acknowledged");
                let last = self.resting.get(&sale).map_or(FAILURE_PAUSE.0, |rest| rest.pause);
                let pause = (last * 2).min(FAILURE_PAUSE.1);
                // Drainers that were thrown out together shall not come back together.
                let until = Instant::now() + pause.mul_f64(rand::rng().random_range(0.5..1.0));
                self.resting.insert(sale, Rest { until, pause });
                false
            }
        }
    }

    /// Sales that are in Redis under the epoch that we know.
    fn live_sales(&self) -> Vec<SaleId> {
        let Ok(catalog) = self.stores.catalog.reading() else { return Vec::new() };
        let live = |sale: &&Arc<Sale>| sale.purged_at.is_none() && sale.is_loaded();
        let mut sales: Vec<_> = catalog.sales.values().filter(live).map(|sale| sale.id).collect();
        sales.sort_unstable();
        sales
    }

    /// Does one unit of work for one sale and says what it did. An error leaves everything pending; the
    /// next unit, or another drainer, does it again.
    pub async fn drain_once(&mut self, sale: SaleId) -> Result<Drained> {
        self.drain_while(sale, || false).await
    }

    /// Does unit after unit for one sale, until its queue is empty or a quarter of a second has passed, and says
    /// what they did. While one batch is being recorded, the one before is settled and the one after is read. An
    /// error leaves pending what is not settled, as that of a single unit.
    pub async fn drain_backlog(&mut self, sale: SaleId) -> Result<Drained> {
        let until = Instant::now() + TURN;
        self.drain_while(sale, || Instant::now() < until).await
    }

    async fn drain_while(&mut self, sale: SaleId, go_on: impl Fn() -> bool) -> Result<Drained> {
        let drained = self.drain_units(sale, go_on).await;
        if drained.is_err() {
            self.stores.meters.drain_failures.increment(1);
        }
        drained
    }

    /// At least one unit, and further ones while there is a backlog. Batches are recorded one after the other, in
    /// the order of the queue; what goes through Redis happens meanwhile. A batch that was read ahead of one that
    /// fails is dropped with it: both are pending under our name, and are read again.
    async fn drain_units(&mut self, sale: SaleId, go_on: impl Fn() -> bool) -> Result<Drained> {
        let mut drained = Drained::default();
        self.recorder.ask_for_recovery(sale).await?;
        let taken = self.queue.take(sale).await?;
        let mut next = self.queue.begun(sale, taken).await?;
        let mut recorded: Option<Batch> = None;
        let mut left_over = false;
        while let Some(batch) = next.take() {
            left_over = batch.left_over;
            let more = batch.full && go_on();
            let recording = self.recording(sale, batch);
            let (mut settled, queue) = (None, &mut self.queue);
            let meanwhile = async {
                if let Some(before) = recorded.take() {
                    settled = Some(queue.finish(sale, before).await?);
                }
                if !more {
                    return Ok(None);
                }
                let taken = queue.take_more(sale).await?;
                queue.begun(sale, taken).await
            };
            let then = meanwhile.await;
            let (batch, outcome) = match recording.await {
                Ok(recorded) => recorded,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => return Err(Error::unavailable("the process is ending")),
            };
            if let Some(settled) = settled {
                self.ended(sale, settled, &mut drained).await?;
            }
            self.recorder.heed(sale, &batch).await?;
            outcome?;
            recorded = Some(batch);
            next = then?;
        }
        if let Some(last) = recorded {
            let settled = self.queue.finish(sale, last).await?;
            // Of what was left over there may be more.
            if !left_over {
                self.queue.unfinished.remove(&sale);
            }
            self.ended(sale, settled, &mut drained).await?;
        }
        Ok(drained)
    }

    /// Records a batch and gives it back, whatever came of it. As a task of its own, because what goes through
    /// Redis has to be built and read, and the record would wait for that.
    fn recording(&self, sale: SaleId, mut batch: Batch) -> AbortOnDropHandle<(Batch, Result<()>)> {
        let stores = Arc::clone(&self.stores);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let outcome = recorder::record(&stores, sale, &mut batch).await;
            (batch, outcome)
        }))
    }

    /// What a batch came to, once it is settled.
    async fn ended(&mut self, sale: SaleId, ended: Ended, sum: &mut Drained) -> Result<()> {
        sum.add(ended.drained);
        if ended.missing {
            self.recorder.distrust(sale, ended.epoch, "recorded orders without a state").await?;
        }
        Ok(())
    }
}

/// The steps of a unit, one by one; and a turn that is never over.
#[cfg(test)]
impl Drainer {
    pub(crate) async fn drain_all(&mut self, sale: SaleId) -> Result<Drained> {
        self.drain_while(sale, || true).await
    }

    pub(crate) async fn read(&mut self, sale: SaleId) -> Result<Vec<Entry>> {
        Ok(self.queue.take(sale).await?.entries)
    }

    pub(crate) async fn begin(&mut self, sale: SaleId, entries: Vec<Entry>) -> Result<Batch> {
        self.queue.begin(sale, entries).await
    }

    pub(crate) async fn record(&mut self, sale: SaleId, batch: &mut Batch) -> Result<()> {
        let outcome = recorder::record(&self.stores, sale, batch).await;
        self.recorder.heed(sale, batch).await?;
        outcome
    }

    pub(crate) async fn take_from_carts(&self, batch: &Batch) -> Result<()> {
        self.queue.take_from_carts(batch).await
    }

    /// Says how many orders' units went back now.
    pub(crate) async fn settle(&mut self, sale: SaleId, mut batch: Batch) -> Result<usize> {
        let (recorded, mut drained) = (Ended::recorded(&batch), Drained::default());
        let settled = self.queue.settle(sale, &mut batch).await?;
        self.ended(sale, recorded.settled(&settled), &mut drained).await?;
        Ok(settled.given_back)
    }
}

/// What stopped a step. Perhaps the sale stands under a newer epoch than we know of.
async fn stopped(stores: &Stores, error: Error) -> Error {
    if error.is_fenced() {
        let _ = stores.catalog.refresh().await;
    }
    error
}
