//! What the stores say after the herd: waiting for rest, then reading the record and the audit.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::Result;
use chrono::{DateTime, Utc};
use flashsale_core::{
    AuditReport, FailureReason, InvariantCheck, Operator, OrderFilter, OrderId, OrderRecord, OrderState,
    Product, ProductId, SaleId,
};
use tokio::time::sleep;

use crate::{history::History, opening::Goods, progress::Progress};

/// How long the queue may take to become empty after the last buyer is done.
const REST_WITHIN: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the audit waits for entries of the queue that it sees.
const AUDIT_PATIENCE: Duration = Duration::from_secs(30);
const PAGE: u32 = 1_000;

/// Everything that is judged.
#[derive(Debug)]
pub(crate) struct Evidence {
    pub(crate) users_asked: u32,
    pub(crate) history: History,
    pub(crate) opened_at: Instant,
    /// The opening by the server's clock.
    pub(crate) starts_at: DateTime<Utc>,
    pub(crate) products: Vec<ProductEvidence>,
    pub(crate) orders: Vec<RecordedOrder>,
    pub(crate) parked: HashSet<OrderId>,
    /// Why the queue was not seen empty, if so.
    pub(crate) unrest: Option<String>,
    /// The audit's lines, or why there are none.
    pub(crate) audit: Result<Vec<Check>, String>,
}

/// What is known of one product.
#[derive(Debug, Clone)]
pub(crate) struct ProductEvidence {
    pub(crate) id: ProductId,
    pub(crate) stock: u32,
    /// As the ledger counts.
    pub(crate) sold: u32,
    /// Units left in Redis; None if Redis does not say.
    pub(crate) left: Option<i64>,
}

/// A recorded order, as far as it is judged.
#[derive(Debug, Clone)]
pub(crate) struct RecordedOrder {
    pub(crate) id: OrderId,
    pub(crate) user: String,
    /// None for a duplicate.
    pub(crate) key: Option<String>,
    pub(crate) confirmed: bool,
    pub(crate) failure: Option<&'static str>,
    pub(crate) admitted_at: DateTime<Utc>,
    pub(crate) units: Vec<(ProductId, u32)>,
}

/// One line of the audit.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) holds: bool,
    pub(crate) why: Vec<String>,
}

pub(crate) async fn collect(
    operator: &Operator,
    goods: &Goods,
    users_asked: u32,
    history: History,
    progress: &Progress,
) -> Result<Evidence> {
    progress.phase("draining", None);
    let unrest = wait_for_rest(operator, goods, progress).await.err().map(|why| why.to_string());
    progress.phase("auditing", None);
    let audit = operator.audit(goods.sale, AUDIT_PATIENCE).await;
    let orders = recorded_orders(operator, goods.sale, |count| {
        progress.at(0, &format!("{count} orders read"));
    });
    let orders = orders.await?;
    let letters = operator.dead_letters().await?;
    let parked = letters.iter().filter(|letter| letter.sale == goods.sale).filter_map(|letter| letter.order);
    Ok(Evidence {
        users_asked,
        history,
        opened_at: goods.opens_at,
        starts_at: goods.starts_at,
        products: products(operator, goods.sale).await?,
        orders,
        parked: parked.collect(),
        unrest,
        audit: audit.map(|report| checks(&report)).map_err(|error| error.to_string()),
    })
}

async fn wait_for_rest(operator: &Operator, goods: &Goods, progress: &Progress) -> Result<()> {
    let give_up = Instant::now() + REST_WITHIN;
    loop {
        let queue = operator.queue().await?.into_iter().find(|queue| queue.sale == goods.sale);
        let waiting = match &queue {
            Some(queue) if queue.backlog == 0 && queue.pending == 0 => return Ok(()),
            Some(queue) => {
                format!("{} orders in the queue, {} of them in hand", queue.backlog, queue.pending)
            }
            None => "the sale has no queue".to_owned(),
        };
        if Instant::now() > give_up {
            anyhow::bail!("{waiting}, {} s after the last buyer was done", REST_WITHIN.as_secs());
        }
        progress.at(0, &waiting);
        sleep(LOOK_EVERY).await;
    }
}

/// All recorded orders of a sale, newest first; `read` is told how many were read so far.
pub(crate) async fn recorded_orders(
    operator: &Operator,
    sale: SaleId,
    read: impl Fn(usize),
) -> Result<Vec<RecordedOrder>> {
    let mut filter = OrderFilter { user: None, sale: Some(sale), state: None, limit: PAGE, before: None };
    let mut orders = Vec::new();
    loop {
        let page = operator.orders(&filter).await?;
        filter.before = page.last().map(|order| order.id);
        let is_last = page.len() < PAGE as usize;
        orders.extend(page.into_iter().map(recorded));
        if is_last {
            return Ok(orders);
        }
        read(orders.len());
    }
}

fn recorded(order: OrderRecord) -> RecordedOrder {
    RecordedOrder {
        id: order.id,
        user: order.user.into(),
        key: order.key.map(String::from),
        confirmed: order.state == OrderState::Confirmed,
        failure: order.failure.map(FailureReason::as_str),
        admitted_at: order.created_at,
        units: order.lines.iter().map(|line| (line.product, line.quantity)).collect(),
    }
}

/// What both stores say of a sale's products.
pub(crate) async fn products(operator: &Operator, sale: SaleId) -> Result<Vec<ProductEvidence>> {
    let live = operator.live_stock(sale).await?;
    let sale = operator.sale(sale).await?;
    let left = |id| live.iter().find(|live| live.product == id).and_then(|live| live.left);
    let evidence = |product: &Product| ProductEvidence {
        id: product.id,
        stock: product.stock,
        sold: product.sold,
        left: left(product.id),
    };
    Ok(sale.products.iter().map(evidence).collect())
}

/// The audit's lines.
pub(crate) fn checks(report: &AuditReport) -> Vec<Check> {
    let line = |check: &InvariantCheck| Check {
        name: check.invariant.to_string(),
        title: check.invariant.title().to_owned(),
        holds: check.holds(),
        why: check.failed.iter().chain(&check.violations).cloned().collect(),
    };
    report.checks.iter().map(line).collect()
}
