//! The auditor: computes the invariants while sales are selling, shows them as gauges and raises an alarm.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use metrics::{Unit, describe_gauge, gauge};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{AuditReport, Invariant, InvariantCheck},
    error::{Error, Result},
    ids::SaleId,
    queue_stats::QueueStats,
    sale::Sale,
    sql::{
        self,
        lock::{SessionLock, try_lock},
    },
    stores::Stores,
};

/// What is known is shown again so often: a recorder may forget gauges that nobody writes.
const SHOW_EVERY: Duration = Duration::from_secs(2);
/// However long adding up took, it is done again after so long.
const MOST_REST: Duration = Duration::from_mins(10);
/// Adding up takes no longer, whatever the stores do.
const WITHIN: Duration = Duration::from_mins(2);
/// An auditor that is not heard of for so long keeps no other one from working.
const LOCK_LIMIT: Duration = Duration::from_secs(30);
/// An alarm that stands is repeated at this interval.
const ALARM_EVERY: Duration = Duration::from_secs(10);
/// Violations that an alarm names.
const NAMED: usize = 3;

const HOLDS: &str = "flashsale_invariant_holds";
const LAST_CHECK: &str = "flashsale_invariant_last_check_timestamp_seconds";

/// Computes the invariants of all sales that are not removed from Redis yet, as
/// [`Operator::audit`](crate::Operator::audit) does, shows them as gauges, and logs an alarm that names product,
/// user or order where one does not hold. It changes nothing.
///
/// It is sparing: of all processes one works at a time, adding up takes about a hundredth of the time at most,
/// and is put off while a sale's queue is long. Of a sale with very many orders it checks I1 to I4 and I7 only:
/// the rest takes all of them in memory, which is not the auditor's where an engine sells. What cannot be computed,
/// because a store is away or the sale is fenced, is not shown, and raises no alarm.
pub struct Auditor {
    stores: Arc<Stores>,
    pub(crate) pace: Pace,
    /// The process that has it does the work.
    lock: Option<SessionLock>,
    sales: HashMap<SaleId, Looked>,
    known: Arc<Known>,
}

/// How sparing, and how patient, it is.
pub(crate) struct Pace {
    every: Duration,
    /// A sale is left alone for so many times as long as adding it up took.
    pub rest: u32,
    /// A longer queue is not read: Redis sells nothing meanwhile, for about 15 µs per entry.
    pub most_queued: u64,
    /// I5, I6 and I8 hold every order of book and record in memory, some 700 bytes each: of a sale with more they are
    /// left to `flashsale audit`.
    pub most_orders: i64,
    /// An order may wait for so long: what a killed drainer had in hand is taken over within 10 s (P9).
    pub queue_patience: Duration,
}

/// What the auditor remembers of a sale between two checks.
#[derive(Default)]
struct Looked {
    /// Not added up before.
    rest_until: Option<Instant>,
    /// Which invariants do not hold, and when that was last told.
    alarmed: HashMap<Invariant, Instant>,
    /// Checks in a row that could not compute everything.
    not_computed: u32,
    /// It was told that some invariants are not checked.
    told_large: bool,
}

/// What is shown.
#[derive(Default)]
struct Known(Mutex<HashMap<SaleId, Shown>>);

#[derive(Default)]
struct Shown {
    holds: BTreeMap<Invariant, bool>,
    /// When everything was computed last, in seconds since 1970.
    last_check: Option<f64>,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, HashMap<SaleId, Shown>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self) {
        for (sale, shown) in &*self.lock() {
            let id = || sale.to_string();
            for (invariant, holds) in &shown.holds {
                gauge!(HOLDS, "sale" => id(), "invariant" => invariant.to_string())
                    .set(f64::from(u8::from(*holds)));
            }
            if let Some(at) = shown.last_check {
                gauge!(LAST_CHECK, "sale" => id()).set(at);
            }
        }
    }

    /// What is not checked any more is not shown as it was.
    fn forget(&self, sale: SaleId) {
        self.lock().remove(&sale);
    }

    fn note(&self, sale: SaleId, checks: &[InvariantCheck]) {
        let mut known = self.lock();
        let shown = known.entry(sale).or_default();
        for check in checks {
            match check.failed {
                None => drop(shown.holds.insert(check.invariant, check.holds())),
                Some(_) => drop(shown.holds.remove(&check.invariant)),
            }
        }
        if checks.len() == Invariant::ALL.len() && checks.iter().all(|check| check.failed.is_none()) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            shown.last_check = Some(now.as_secs_f64());
        }
    }
}

impl Auditor {
    pub(crate) fn new(stores: Arc<Stores>, every: Duration) -> Self {
        describe_gauge!(HOLDS, "1 if the invariant holds, 0 if not; not there while it cannot be computed");
        describe_gauge!(LAST_CHECK, Unit::Seconds, "When all invariants of the sale were computed last");
        let queue_patience = Duration::from_secs(15);
        let pace = Pace { every, rest: 99, most_queued: 2_000, most_orders: 200_000, queue_patience };
        Self { stores, pace, lock: None, sales: HashMap::new(), known: Arc::default() }
    }

    /// Checks all sales until shutdown. Only decides *when*.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let known = Arc::clone(&self.known);
        let showing = async {
            loop {
                known.show();
                tokio::time::sleep(SHOW_EVERY).await;
            }
        };
        let checking = async {
            loop {
                if let Err(error) = self.check_once().await {
                    tracing::debug!(%error, "the invariants could not be checked");
                }
                self.rest().await;
            }
        };
        // It only reads: nothing is lost where it is cut off.
        tokio::select! {
            () = showing => {}
            () = checking => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn rest(&mut self) {
        let rest = tokio::time::sleep(self.pace.every);
        match &mut self.lock {
            Some(lock) => tokio::select! {
                () = rest => {}
                never = lock.keep() => match never {},
            },
            None => rest.await,
        }
    }

    /// Checks every live sale once and says what it found: only I7 of a sale that is left alone for now, or
    /// whose queue is long; I1 to I4 and I7 of one with very many orders; nothing at all while another process
    /// does it.
    pub async fn check_once(&mut self) -> Result<Vec<AuditReport>> {
        let checked = self.check_alone().await;
        if !checked.as_ref().is_ok_and(Option::is_some) {
            // What was known may have changed since.
            self.known.lock().clear();
        }
        self.known.show();
        Ok(checked?.unwrap_or_default())
    }

    /// `None`: another process does it.
    async fn check_alone(&mut self) -> Result<Option<Vec<AuditReport>>> {
        let Some(mut lock) = self.take_lock().await? else {
            self.sales.clear();
            return Ok(None);
        };
        let checked = tokio::select! {
            checked = self.check_sales() => checked,
            never = lock.keep() => match never {},
        };
        self.lock = Some(lock);
        checked.map(Some)
    }

    async fn take_lock(&mut self) -> Result<Option<SessionLock>> {
        let lock = self.lock.take();
        let locked = async {
            if let Some(mut lock) = lock
                && lock.is_held().await
            {
                return Ok(Some(lock));
            }
            try_lock(&self.stores.pg, "flashsale: check the invariants", 0, LOCK_LIMIT).await
        };
        sql::within(self.stores.config.postgres_deadline, locked).await
    }

    async fn check_sales(&mut self) -> Result<Vec<AuditReport>> {
        let reading = self.stores.catalog.refresh().await?;
        let is_live = |sale: &SaleId| reading.sales.get(sale).is_some_and(|sale| sale.purged_at.is_none());
        self.sales.retain(|sale, _| is_live(sale));
        self.known.lock().retain(|sale, _| is_live(sale));
        let mut reports = Vec::new();
        for sale in reading.sales.values().filter(|sale| sale.purged_at.is_none()) {
            reports.push(self.check(sale).await);
        }
        Ok(reports)
    }

    async fn check(&mut self, sale: &Sale) -> AuditReport {
        let queue = self.stores.queue_stats(sale).await;
        let is_long = queue.as_ref().is_ok_and(|queue| queue.backlog > self.pace.most_queued);
        let i7 = InvariantCheck::of(Invariant::I7, queue.map(|queue| self.stuck(&queue)));
        let is_left_alone = self.looked(sale).rest_until.is_some_and(|until| Instant::now() < until);
        let report = match (is_left_alone, is_long) {
            (true, _) => AuditReport::new(sale, vec![i7]),
            (false, true) => {
                self.stores.meters.check_skipped();
                AuditReport::new(sale, vec![i7])
            }
            (false, false) => self.add_up(sale, i7).await,
        };
        self.known.note(sale.id, &report.checks);
        self.tell(sale, &report);
        report
    }

    /// I7, without waiting for what waits now: what was there a while ago must have gone.
    fn stuck(&self, queue: &QueueStats) -> Vec<String> {
        let oldest = queue.oldest.filter(|oldest| *oldest > self.pace.queue_patience);
        let stuck = oldest.map(|oldest| {
            format!("{} orders are queued, the oldest for {} s", queue.backlog, oldest.as_secs())
        });
        stuck.into_iter().collect()
    }

    async fn add_up(&mut self, sale: &Sale, i7: InvariantCheck) -> AuditReport {
        let began = Instant::now();
        let is_large = sale.recorded_seq.get() > self.pace.most_orders;
        let sums = async {
            if is_large {
                self.stores.audit_totals(sale).await
            } else {
                self.stores.audit_sums(sale, Duration::ZERO).await
            }
        };
        let mut checks = tokio::time::timeout(WITHIN, sums).await.unwrap_or_else(|_| too_slow());
        let took = began.elapsed();
        if is_large {
            self.skip_orders(sale);
        }
        checks.push(i7);
        let report = AuditReport::new(sale, checks);
        self.stores.meters.check(&report, took);
        self.looked(sale).rest_until = Some(Instant::now() + (took * self.pace.rest).min(MOST_REST));
        self.tell_not_computed(sale, &report);
        report
    }

    /// I5, I6 and I8 are not known of a sale of this size.
    fn skip_orders(&mut self, sale: &Sale) {
        self.known.forget(sale.id);
        let most = self.pace.most_orders;
        if !std::mem::replace(&mut self.looked(sale).told_large, true) {
            tracing::info!(
                sale = sale.id.get(),
                "it has more than {most} orders: I5, I6 and I8 are left to `flashsale audit`"
            );
        }
    }

    fn looked(&mut self, sale: &Sale) -> &mut Looked {
        self.sales.entry(sale.id).or_default()
    }

    fn tell(&mut self, sale: &Sale, report: &AuditReport) {
        let alarmed = &mut self.looked(sale).alarmed;
        for check in report.checks.iter().filter(|check| check.failed.is_none()) {
            let (invariant, title) = (check.invariant, check.invariant.title());
            if check.holds() {
                if alarmed.remove(&invariant).is_some() {
                    tracing::info!(sale = sale.id.get(), "{invariant} holds again ({title})");
                }
            } else if alarmed.get(&invariant).is_none_or(|at| at.elapsed() >= ALARM_EVERY) {
                let violations = violations(check);
                tracing::error!(sale = sale.id.get(), "{invariant} does not hold ({title}): {violations}");
                alarmed.insert(invariant, Instant::now());
            }
        }
    }

    /// A recovery or a restart comes between now and then; what stays so has to be seen.
    fn tell_not_computed(&mut self, sale: &Sale, report: &AuditReport) {
        let failed = report.checks.iter().find_map(|check| Some((check.invariant, check.failed.as_ref()?)));
        let looked = self.looked(sale);
        looked.not_computed = if failed.is_some() { looked.not_computed + 1 } else { 0 };
        if let (Some((invariant, why)), 2) = (failed, looked.not_computed) {
            tracing::warn!(sale = sale.id.get(), %invariant, why, "invariants cannot be computed");
        }
    }
}

fn violations(check: &InvariantCheck) -> String {
    let named: Vec<_> = check.violations.iter().take(NAMED).map(String::as_str).collect();
    let rest = if check.violations.len() > NAMED { "; and more, see `flashsale audit`" } else { "" };
    named.join("; ") + rest
}

fn too_slow() -> Vec<InvariantCheck> {
    let failed = || Err(Error::unavailable(format!("it took longer than {WITHIN:?}")));
    let sums = Invariant::ALL.into_iter().filter(|invariant| *invariant != Invariant::I7);
    sums.map(|invariant| InvariantCheck::of(invariant, failed())).collect()
}
