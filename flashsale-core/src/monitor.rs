//! The monitor: shows both stores and every live sale as gauges.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use metrics::{Unit, describe_gauge, gauge};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Result,
    ids::SaleId,
    keys::SaleKeys,
    preflight::{Standing, Verdict, tell},
    sale::Sale,
    scripts::look,
    sql,
    stores::Stores,
};

/// How often everything is looked at.
const OBSERVE_EVERY: Duration = Duration::from_secs(2);
/// How often the stores' settings are looked at again.
const CHECK_EVERY: Duration = Duration::from_mins(1);

const DEPENDENCY_UP: &str = "flashsale_dependency_up";
const SALE_INFO: &str = "flashsale_sale_info";
const SALE_FENCED: &str = "flashsale_sale_fenced";
const FENCED_SALES: &str = "flashsale_fenced_sales";
const STOCK_LEFT: &str = "flashsale_stock_left";
const UNITS_SOLD: &str = "flashsale_units_sold";
const QUEUE_LENGTH: &str = "flashsale_queue_length";
const QUEUE_PENDING: &str = "flashsale_queue_pending";
const QUEUE_OLDEST_AGE: &str = "flashsale_queue_oldest_age_seconds";
const DEAD_LETTERS: &str = "flashsale_dead_letters";
const DELIVERIES_WAITING: &str = "flashsale_deliveries_waiting";
const SETTING_FIT: &str = "flashsale_setting_fit";

/// Shows as gauges what both stores say of the sales that are not removed from Redis yet: stock, queues, dead
/// letters, which sales are fenced. It changes nothing; one in each server, so that any of them can be asked.
///
/// A gauge that cannot be known now is not written, rather than written as 0: a recorder that forgets what is
/// not written any more never shows the stock of yesterday.
pub struct Monitor {
    stores: Arc<Stores>,
    settings: Mutex<Standing>,
}

impl Monitor {
    pub(crate) fn new(stores: Arc<Stores>) -> Self {
        describe_gauge!(DEPENDENCY_UP, "1 if the store can be used now");
        describe_gauge!(SALE_INFO, "1; which slug belongs to which sale");
        describe_gauge!(
            SALE_FENCED,
            "1 if its state in Redis is not known to be right, so that it sells nothing"
        );
        describe_gauge!(FENCED_SALES, "Sales that are fenced");
        describe_gauge!(STOCK_LEFT, "Units that Redis has left; not there while its word does not count");
        describe_gauge!(UNITS_SOLD, "Units of confirmed orders, by the record");
        describe_gauge!(QUEUE_LENGTH, "Orders that are not settled yet");
        describe_gauge!(QUEUE_PENDING, "Those of them that a drainer has in hand");
        describe_gauge!(QUEUE_OLDEST_AGE, Unit::Seconds, "How long the oldest of them has been waiting");
        describe_gauge!(DEAD_LETTERS, "Parked orders that wait for an operator");
        describe_gauge!(DELIVERIES_WAITING, "Final orders that a consumer has not acknowledged yet");
        describe_gauge!(SETTING_FIT, "1 if a store's setting is as `flashsale doctor` wants it");
        Self { stores, settings: Mutex::default() }
    }

    /// Looks at everything until shutdown. Only decides *when*.
    pub async fn run(self, shutdown: CancellationToken) {
        // It only reads: nothing is lost where it is cut off.
        let observing = async {
            let mut checked: Option<Instant> = None;
            loop {
                if checked.is_none_or(|at| at.elapsed() >= CHECK_EVERY) {
                    checked = Some(Instant::now());
                    self.check_once().await;
                }
                if let Err(error) = self.observe_once().await {
                    tracing::debug!(%error, "not everything could be observed");
                }
                tokio::time::sleep(OBSERVE_EVERY).await;
            }
        };
        shutdown.run_until_cancelled(observing).await;
    }

    /// Looks once at what `flashsale doctor` looks at, and logs what has changed: somebody may set another
    /// `maxmemory-policy` in the middle of a sale.
    pub(crate) async fn check_once(&self) {
        let findings = self.stores.preflight().await;
        let changed = self.settings.lock().unwrap_or_else(PoisonError::into_inner).note(findings);
        changed.iter().for_each(tell);
    }

    /// Looks at everything once. The first error is returned after all were looked at; what it kept from being
    /// known is not shown.
    pub async fn observe_once(&self) -> Result<()> {
        for finding in self.settings.lock().unwrap_or_else(PoisonError::into_inner).findings() {
            gauge!(SETTING_FIT, "check" => finding.check).set(flag(finding.verdict == Verdict::Ok));
        }
        let reached = self.stores.reach().await;
        for (name, result) in [("redis", &reached.redis), ("postgres", &reached.postgres)] {
            gauge!(DEPENDENCY_UP, "dependency" => name).set(flag(result.is_ok()));
        }
        let letters = match reached.postgres {
            Ok(()) => self.observe_record().await,
            Err(error) => Err(error),
        };
        // While PostgreSQL is away the last reading stands, as it does for selling.
        let reading = self.stores.catalog.reading()?;
        let sales: Vec<_> = reading.sales.values().filter(|sale| sale.purged_at.is_none()).collect();
        if let Ok(letters) = &letters {
            show_record(&sales, letters);
        }
        // Each sale would take its time to say that Redis is away.
        reached.redis?;
        let (mut fenced, mut queues) = (Ok(0_u32), Ok(()));
        for sale in sales {
            let counts = self.observe_stock(sale).await;
            fenced = fenced.and_then(|fenced| Ok(fenced + u32::from(!counts?)));
            queues = queues.and(self.observe_queue(sale).await);
        }
        let fenced = fenced.map(|fenced| gauge!(FENCED_SALES).set(fenced));
        fenced.and(queues).and(letters.map(drop))
    }

    /// Shows what consumers have not heard of, and says how many letters each sale has.
    async fn observe_record(&self) -> Result<HashMap<SaleId, i64>> {
        let subscribers = self.stores.record(sql::deliveries::subscribers(&self.stores.pg)).await?;
        for subscriber in subscribers {
            let waiting = number(subscriber.waiting.cast_signed());
            gauge!(DELIVERIES_WAITING, "subscriber" => subscriber.name).set(waiting);
        }
        self.stores.record(sql::dead_letters::count(&self.stores.pg)).await
    }

    /// Shows what Redis has left, and says whether its word counts.
    async fn observe_stock(&self, sale: &Sale) -> Result<bool> {
        let id = || sale.id.to_string();
        let seen = look(&self.stores.link, &SaleKeys::new(sale.id), &[]).await?;
        let counting = seen.counting(sale);
        gauge!(SALE_FENCED, "sale" => id()).set(flag(counting.is_none()));
        for (product, left) in counting.iter().flat_map(|redis| &redis.stock) {
            gauge!(STOCK_LEFT, "sale" => id(), "product" => product.to_string()).set(number(*left));
        }
        Ok(counting.is_some())
    }

    async fn observe_queue(&self, sale: &Sale) -> Result<()> {
        let id = || sale.id.to_string();
        let queue = self.stores.queue_stats(sale).await?;
        gauge!(QUEUE_LENGTH, "sale" => id()).set(number(queue.backlog.cast_signed()));
        gauge!(QUEUE_PENDING, "sale" => id()).set(number(queue.pending.cast_signed()));
        gauge!(QUEUE_OLDEST_AGE, "sale" => id()).set(queue.oldest.unwrap_or_default());
        Ok(())
    }
}

/// Shows what the record says of the sales.
fn show_record(sales: &[&Arc<Sale>], letters: &HashMap<SaleId, i64>) {
    for sale in sales {
        let id = || sale.id.to_string();
        gauge!(SALE_INFO, "sale" => id(), "slug" => sale.slug.clone()).set(1);
        for product in &sale.products {
            gauge!(UNITS_SOLD, "sale" => id(), "product" => product.id.to_string()).set(product.sold);
        }
        gauge!(DEAD_LETTERS, "sale" => id()).set(number(letters.get(&sale.id).copied().unwrap_or(0)));
    }
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

#[expect(clippy::cast_precision_loss, reason = "exact far beyond any stock")]
fn number(units: i64) -> f64 {
    units as f64
}
