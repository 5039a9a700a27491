//! The proof: the invariants, computed from both stores, also while a sale is selling.
//!
//! An invariant that cannot be computed is a failure, not a pass.

mod book;
mod holdings;

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use serde::Serialize;

use self::{book::Book, holdings::Holdings};
use crate::{
    error::{Error, Result},
    ids::{OrderId, SaleId},
    keys::{GROUP, SaleKeys},
    sale::Sale,
    scripts, sql,
    stores::Stores,
};

/// How long a fence may last while an audit waits for it to end.
pub(crate) const FENCE_PATIENCE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);
/// Quotas that one look asks for. Each look reads the whole queue, each quota costs half a microsecond.
const SUSPECTS: usize = 5_000;
/// Violations that are named; further ones are counted.
const NAMED: usize = 20;

/// What must always hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub enum Invariant {
    /// Units in confirmed orders = `sold` ≤ `stock`, per product.
    I1,
    /// Confirmed units ≤ limit, per user and product.
    I2,
    /// One order per sale, user and idempotency key, duplicates aside.
    I3,
    /// Units left + queued + confirmed + parked = stock, per product.
    I4,
    /// Every order that was admitted is recorded, queued or parked, and shows the state that is recorded.
    I5,
    /// Every confirmed order's key is in the book under its id; epoch and seq are unique.
    I6,
    /// What was in the queue when the audit began has left it.
    I7,
    /// Quota in Redis = confirmed + queued + parked units, per user and product.
    I8,
}

impl Invariant {
    /// All of them, in order.
    pub const ALL: [Self; 8] =
        [Self::I1, Self::I2, Self::I3, Self::I4, Self::I5, Self::I6, Self::I7, Self::I8];

    /// What it says, in a line.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::I1 => "confirmed units = sold, and sold <= stock",
            Self::I2 => "no user is above a product's limit",
            Self::I3 => "one order per user and idempotency key",
            Self::I4 => "left + queued + confirmed + parked = stock",
            Self::I5 => "every admitted order is recorded, queued or parked",
            Self::I6 => "every confirmed order's key stands for it; seqs are unique",
            Self::I7 => "the queue gets drained",
            Self::I8 => "quota in Redis = confirmed + queued + parked units",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What an audit found of one invariant.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct InvariantCheck {
    /// Which.
    pub invariant: Invariant,
    /// Where it does not hold, naming the product, user or order; at most 20 are named.
    pub violations: Vec<String>,
    /// Why it could not be computed. That is a failure too.
    pub failed: Option<String>,
}

impl InvariantCheck {
    /// It was computed and holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.violations.is_empty() && self.failed.is_none()
    }

    pub(crate) fn of(invariant: Invariant, result: Result<Vec<String>>) -> Self {
        match result {
            Ok(mut violations) => {
                let more = violations.len().saturating_sub(NAMED);
                violations.truncate(NAMED);
                if more > 0 {
                    violations.push(format!("and {more} more"));
                }
                Self { invariant, violations, failed: None }
            }
            Err(error) => Self { invariant, violations: Vec::new(), failed: Some(error.to_string()) },
        }
    }
}

/// What an audit found of one sale.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct AuditReport {
    /// The sale.
    pub sale: SaleId,
    /// Its slug.
    pub slug: String,
    /// All invariants, in order.
    pub checks: Vec<InvariantCheck>,
}

impl AuditReport {
    pub(crate) fn new(sale: &Sale, mut checks: Vec<InvariantCheck>) -> Self {
        checks.sort_by_key(|check| check.invariant);
        Self { sale: sale.id, slug: sale.slug.clone(), checks }
    }

    /// All invariants were computed and hold.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.checks.iter().all(InvariantCheck::holds)
    }
}

/// Where one invariant does not hold, or why that could not be computed.
type Violations = Result<Vec<String>>;
/// The same of four that are computed together.
type FourViolations = Result<[Vec<String>; 4]>;

impl Stores {
    /// `patience` is for the queue to be drained, `fence_patience` for a recovery to end.
    pub(crate) async fn audit(
        &self,
        sale: &Sale,
        patience: Duration,
        fence_patience: Duration,
    ) -> Result<AuditReport> {
        let began = Instant::now();
        let waiting = self.waiting(sale).await;
        let mut checks = self.audit_sums(sale, fence_patience).await;
        let i7 = match waiting {
            Ok(waiting) => self.audit_queue(sale, waiting, began + patience).await,
            Err(error) => Err(error),
        };
        checks.push(InvariantCheck::of(Invariant::I7, i7));
        Ok(AuditReport::new(sale, checks))
    }

    /// All but I7: what can be added up without waiting for anything.
    pub(crate) async fn audit_sums(&self, sale: &Sale, fence_patience: Duration) -> Vec<InvariantCheck> {
        use Invariant::{I1, I2, I3, I4, I5, I6, I8};
        let (i1, i2, i3, seqs) = split4(self.audit_record(sale).await);
        let (i4, i5, keys, i8) = split4(self.audit_redis(sale, fence_patience).await);
        let i6 = keys.and_then(|keys| Ok([keys, seqs?].concat()));
        let results = [(I1, i1), (I2, i2), (I3, i3), (I4, i4), (I5, i5), (I6, i6), (I8, i8)];
        results.into_iter().map(|(invariant, result)| InvariantCheck::of(invariant, result)).collect()
    }

    /// I1 to I4, which the stores add up themselves: no order but the queue's is held here, however many there are.
    pub(crate) async fn audit_totals(&self, sale: &Sale) -> Vec<InvariantCheck> {
        use Invariant::{I1, I2, I3, I4};
        let (i1, i2, i3, _) = split4(self.audit_record(sale).await);
        let results = [(I1, i1), (I2, i2), (I3, i3), (I4, self.audit_stock(sale.id).await)];
        results.into_iter().map(|(invariant, result)| InvariantCheck::of(invariant, result)).collect()
    }

    /// I1, I2, I3 and the second half of I6: the record alone.
    async fn audit_record(&self, sale: &Sale) -> FourViolations {
        let sums = sql::audit::record_sums(&self.pg, sale.id).await?;
        let mut i1 = Vec::new();
        for product in sums.products {
            let (id, stock, sold, confirmed) = (product.id, product.stock, product.sold, product.confirmed);
            if confirmed != sold {
                i1.push(format!("product {id}: confirmed orders hold {confirmed} units, sold says {sold}"));
            }
            if sold > stock || confirmed > stock {
                i1.push(format!("product {id}: oversold, {} of {stock}", sold.max(confirmed)));
            }
        }
        let i2 = |(user, product, units, limit): (String, i64, i64, i32)| {
            format!("user {user}, product {product}: {units} units confirmed, the limit is {limit}")
        };
        let i3 = |(user, key): (String, String)| format!("user {user}: more than one order under key {key}");
        let seqs = |(epoch, seq): (i64, i64)| format!("more than one order has epoch {epoch} and seq {seq}");
        Ok([
            i1,
            sums.over_limit.into_iter().map(i2).collect(),
            sums.double_keys.into_iter().map(i3).collect(),
            sums.double_seqs.into_iter().map(seqs).collect(),
        ])
    }

    /// I4, I5, the first half of I6, and I8: both stores. A recovery that runs meanwhile is waited for.
    async fn audit_redis(&self, sale: &Sale, fence_patience: Duration) -> FourViolations {
        if sale.purged_at.is_some() {
            // Its keys are gone for good; the record alone says what was sold.
            return Ok(Default::default());
        }
        let until = Instant::now() + fence_patience;
        loop {
            let result = self.audit_redis_once(sale.id).await;
            match &result {
                Err(error) if error.is_fenced() && Instant::now() < until => tokio::time::sleep(POLL).await,
                _ => return result,
            }
        }
    }

    async fn audit_redis_once(&self, id: SaleId) -> FourViolations {
        let catalog = self.catalog.refresh().await?;
        let sale = catalog.sales.get(&id).ok_or_else(|| Error::not_found(format!("sale {id}")))?;
        if sale.epoch.get() == 0 {
            return self.audit_unloaded(sale).await;
        }
        // In this order: what the book shows must be in the queue or in the record a moment later.
        self.assert_counts(sale).await?;
        let book = Book::read(&self.link, &SaleKeys::new(id)).await?;
        let holdings = Holdings::read(self, sale, &[]).await?;
        let record = sql::snapshot::load_snapshot(&self.pg, id).await?;
        let i4 = holdings.stock_violations();
        let keys = SaleKeys::new(id);
        let i5 = book.order_violations(&self.link, &keys, &holdings, &record).await?;
        let i6 = book.key_violations(&self.link, &keys, &record).await?;
        let suspects = book.quota_suspects(&holdings, &record);
        let mut i8 = Vec::new();
        for chunk in suspects.chunks(SUSPECTS) {
            // What was in flight between two readings is told apart by one consistent look.
            i8.extend(Holdings::read(self, sale, chunk).await?.quota_violations());
        }
        // A load that began meanwhile has emptied the book: what was missing there says nothing.
        self.assert_counts(sale).await?;
        Ok([i4, i5, i6, i8])
    }

    /// I4 alone.
    async fn audit_stock(&self, id: SaleId) -> Violations {
        let catalog = self.catalog.refresh().await?;
        let sale = catalog.sales.get(&id).ok_or_else(|| Error::not_found(format!("sale {id}")))?;
        self.assert_counts(sale).await?;
        Ok(Holdings::read(self, sale, &[]).await?.stock_violations())
    }

    /// An error if Redis's word does not count under the sale's epoch. While it counts no load has begun.
    async fn assert_counts(&self, sale: &Sale) -> Result<()> {
        let seen = scripts::look(&self.link, &SaleKeys::new(sale.id), &[]).await?;
        match &seen.sale {
            Some(redis) if redis.state.is_none() => Err(Error::fenced(sale.id, "loading")),
            _ => seen.must_count(sale).map(drop),
        }
    }

    /// A sale that no server has loaded yet: Redis must not hold it, and the record nothing of it.
    async fn audit_unloaded(&self, sale: &Sale) -> FourViolations {
        let seen = scripts::look(&self.link, &SaleKeys::new(sale.id), &[]).await?;
        // The epoch rises before Redis hears of a load.
        let now = self.catalog.refresh().await?;
        if now.sales.get(&sale.id).is_some_and(|now| now.epoch != sale.epoch) {
            return Err(Error::fenced(sale.id, "it was loaded meanwhile"));
        }
        let sold = sale.products.iter().filter(|product| product.sold > 0);
        let mut i4: Vec<_> =
            sold.map(|product| format!("product {}: sold without a load", product.id)).collect();
        if seen.sale.is_some() {
            i4.push("Redis holds a sale that was never loaded".to_owned());
        }
        Ok([i4, Vec::new(), Vec::new(), Vec::new()])
    }

    /// The entries that wait now, and which orders they are.
    async fn waiting(&self, sale: &Sale) -> Result<BTreeMap<String, Option<OrderId>>> {
        let entries = crate::load::read_stream(&self.link, &SaleKeys::new(sale.id)).await?;
        let pending = self.pending(sale).await?.into_iter().map(|id| (id, None));
        let entries = entries.into_iter().map(|entry| (entry.id.clone(), entry.order_id(sale.id)));
        Ok(pending.chain(entries).collect())
    }

    async fn pending(&self, sale: &Sale) -> Result<Vec<String>> {
        let queue = SaleKeys::new(sale.id).queue;
        let mut command = redis::cmd("XPENDING");
        command.arg(queue).arg(GROUP).arg("-").arg("+").arg(100_000);
        match self.link.ask::<Vec<(String, String, i64, i64)>>(&command).await {
            Ok(pending) => Ok(pending.into_iter().map(|(id, ..)| id).collect()),
            Err(error) if error.is_no_queue() => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// I7: waits until what waited at the beginning is gone, at most until `until`.
    async fn audit_queue(
        &self,
        sale: &Sale,
        mut waiting: BTreeMap<String, Option<OrderId>>,
        until: Instant,
    ) -> Result<Vec<String>> {
        while !waiting.is_empty() {
            let now = self.waiting(sale).await?;
            waiting.retain(|id, _| now.contains_key(id));
            if Instant::now() >= until {
                break;
            }
            tokio::time::sleep(POLL.min(until.saturating_duration_since(Instant::now()))).await;
        }
        let stuck = |(id, order): (String, Option<OrderId>)| match order {
            Some(order) => format!("order {order} (queue entry {id}) is not drained"),
            None => format!("queue entry {id} is not drained"),
        };
        Ok(waiting.into_iter().map(stuck).collect())
    }
}

/// Four results of one; a failure of all is told of each.
fn split4(four: FourViolations) -> (Violations, Violations, Violations, Violations) {
    match four {
        Ok([a, b, c, d]) => (Ok(a), Ok(b), Ok(c), Ok(d)),
        Err(error) => {
            let copy = || Err(error.clone());
            (copy(), copy(), copy(), copy())
        }
    }
}
