//! The judgement: what the buyers saw against what the stores say. Pure, so that each way to fail can be
//! tried.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use flashsale_core::{Invariant, OrderId, ProductId};
use hdrhistogram::Histogram;

use crate::evidence::{Check, Evidence, RecordedOrder};
use crate::history::KeyHistory;

/// How many examples of one kind of failure are named.
const EXAMPLES: usize = 3;

/// The figures, and why the run failed, if it did.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) users: u32,
    pub(crate) stock: u64,
    pub(crate) sold: u64,
    /// Orders that clients got a 202 for.
    pub(crate) admitted: usize,
    pub(crate) confirmed: usize,
    pub(crate) failed: usize,
    /// Failed orders by their reason.
    pub(crate) failed_for: BTreeMap<&'static str, usize>,
    pub(crate) refused: BTreeMap<String, u64>,
    /// Orders whose buyers never learned what became of them.
    pub(crate) unknown: usize,
    /// Those of them that were found recorded.
    pub(crate) unknown_recorded: usize,
    pub(crate) oversold: u64,
    pub(crate) duplicates: usize,
    pub(crate) lost: usize,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) p999_ms: Option<f64>,
    pub(crate) p99_from_opening_ms: Option<f64>,
    /// From the opening to the last answer to an order.
    pub(crate) seconds: Option<f64>,
    /// Orders that were answered.
    pub(crate) answered: u64,
    pub(crate) checks: Vec<Check>,
    /// Why the run failed; none if it passed.
    pub(crate) failures: Vec<String>,
}

impl Report {
    pub(crate) fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Judges a run.
pub(crate) fn verify(evidence: &Evidence) -> Report {
    let history = &evidence.history;
    let mut failures = Failures::default();
    let confirmed_units = confirmed_units(&evidence.orders);
    let lost = lost(evidence);
    let duplicates = duplicates(evidence);
    let unknown: Vec<_> = history.keys.iter().filter(|key| key.is_unknown()).collect();
    let recorded_keys: HashSet<_> = evidence.orders.iter().filter_map(key_of).collect();

    check_users(evidence, &mut failures);
    let oversold = check_stock(evidence, &confirmed_units, &mut failures);
    failures.several("accepted orders are lost: no final state in PostgreSQL", &lost);
    failures.several("idempotency keys have two orders", &duplicates);
    failures.several("recorded orders that no buyer was told of", &untold(evidence));
    failures.several("orders were admitted before the opening", &too_early(evidence));
    failures.several("orders are parked", &texts(&evidence.parked));
    failures.several("answers broke the rules of the API", &history.broken);
    if let Some(unrest) = &evidence.unrest {
        failures.one(format!("the queue did not come to rest: {unrest}"));
    }
    let checks = check_invariants(&evidence.audit, &mut failures);
    let seconds =
        history.last_answer.map(|at| round(at.saturating_duration_since(evidence.opened_at).as_secs_f64()));
    let mut report = Report {
        users: history.users,
        stock: evidence.products.iter().map(|product| u64::from(product.stock)).sum(),
        sold: evidence.products.iter().map(|product| u64::from(product.sold)).sum(),
        admitted: history.keys.iter().flat_map(|key| &key.ids).collect::<HashSet<_>>().len(),
        confirmed: evidence.orders.iter().filter(|order| order.confirmed).count(),
        failed: evidence.orders.iter().filter(|order| !order.confirmed).count(),
        failed_for: BTreeMap::new(),
        refused: history.refused.clone(),
        unknown: unknown.len(),
        unknown_recorded: unknown.iter().filter(|key| recorded_keys.contains(&of_history(key))).count(),
        oversold,
        duplicates: duplicates.len(),
        lost: lost.len(),
        p50_ms: quantile(&history.from_sending, 0.5),
        p99_ms: quantile(&history.from_sending, 0.99),
        p999_ms: quantile(&history.from_sending, 0.999),
        p99_from_opening_ms: quantile(&history.from_opening, 0.99),
        seconds,
        answered: history.from_sending.len(),
        checks,
        failures: Vec::new(),
    };
    for reason in evidence.orders.iter().filter(|order| !order.confirmed).map(|order| order.failure) {
        *report.failed_for.entry(reason.unwrap_or("no reason")).or_default() += 1;
    }
    check_figures(&report, &mut failures);
    report.failures = failures.0;
    report
}

#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn one(&mut self, failure: String) {
        self.0.push(failure);
    }

    fn several(&mut self, what: &str, examples: &[String]) {
        if !examples.is_empty() {
            let named = examples[..examples.len().min(EXAMPLES)].join("; ");
            let more = if examples.len() > EXAMPLES { "; …" } else { "" };
            self.0.push(format!("{} {what} ({named}{more})", examples.len()));
        }
    }
}

fn check_users(evidence: &Evidence, failures: &mut Failures) {
    let (asked, came) = (evidence.users_asked, evidence.history.users);
    if came != asked {
        failures.one(format!("{came} of {asked} users went through their part"));
    }
}

/// The whole stock, no more and no less, by the ledger's count and by ours; returns the units too many.
fn check_stock(evidence: &Evidence, confirmed: &HashMap<ProductId, u64>, failures: &mut Failures) -> u64 {
    if evidence.products.is_empty() {
        failures.one("the sale has no products".to_owned());
    }
    let mut oversold = 0;
    for product in &evidence.products {
        let (id, stock, sold) = (product.id, u64::from(product.stock), u64::from(product.sold));
        let counted = confirmed.get(&id).copied().unwrap_or(0);
        let excess = sold.max(counted).saturating_sub(stock);
        oversold += excess;
        if excess > 0 {
            failures.one(format!("product {id} is oversold by {excess} of {stock}"));
        }
        if sold != counted {
            failures.one(format!("product {id} counts {sold} sold, its confirmed orders have {counted}"));
        }
        if sold.min(counted) < stock {
            failures.one(format!("product {id} is undersold: {} of {stock}", sold.min(counted)));
        }
        match product.left {
            Some(0) => {}
            Some(left) => failures.one(format!("product {id} never sold out: Redis has {left} left")),
            None => failures.one(format!("product {id}: Redis does not say what is left")),
        }
    }
    oversold
}

fn confirmed_units(orders: &[RecordedOrder]) -> HashMap<ProductId, u64> {
    let mut units = HashMap::new();
    for (product, quantity) in orders.iter().filter(|order| order.confirmed).flat_map(|order| &order.units) {
        *units.entry(*product).or_default() += u64::from(*quantity);
    }
    units
}

/// Ids of a 202 that the record does not have as final, parked ones aside.
fn lost(evidence: &Evidence) -> Vec<String> {
    let recorded: HashSet<OrderId> = evidence.orders.iter().map(|order| order.id).collect();
    let told: HashSet<OrderId> =
        evidence.history.keys.iter().flat_map(|key| key.ids.iter().copied()).collect();
    let is_lost = |id: &&OrderId| !recorded.contains(id) && !evidence.parked.contains(id);
    told.iter().filter(is_lost).map(ToString::to_string).collect()
}

/// Keys with two ids before the buyers' eyes, or with two confirmed orders.
fn duplicates(evidence: &Evidence) -> Vec<String> {
    let mut ids: HashMap<(&str, &str), HashSet<OrderId>> = HashMap::new();
    for key in &evidence.history.keys {
        ids.entry(of_history(key)).or_default().extend(&key.ids);
    }
    for order in evidence.orders.iter().filter(|order| order.confirmed) {
        if let Some(key) = key_of(order) {
            ids.entry(key).or_default().insert(order.id);
        }
    }
    let twice = ids.into_iter().filter(|(_, ids)| ids.len() > 1);
    twice.map(|((user, key), ids)| format!("{user} {key}: {} orders", ids.len())).collect()
}

/// Recorded orders of keys under which every sending was refused, or that nobody sent.
fn untold(evidence: &Evidence) -> Vec<String> {
    let may_be: HashSet<_> = evidence
        .history
        .keys
        .iter()
        .filter(|key| key.unanswered || !key.ids.is_empty())
        .map(of_history)
        .collect();
    let told: HashSet<OrderId> =
        evidence.history.keys.iter().flat_map(|key| key.ids.iter().copied()).collect();
    let is_untold = |order: &&RecordedOrder| match key_of(order) {
        Some(key) => !may_be.contains(&key),
        None => !told.contains(&order.id),
    };
    evidence.orders.iter().filter(is_untold).map(|order| order.id.to_string()).collect()
}

fn too_early(evidence: &Evidence) -> Vec<String> {
    // The record keeps milliseconds of the admission, so the opening is compared as such.
    let opening = evidence.starts_at.timestamp_millis();
    let early = evidence.orders.iter().filter(|order| order.admitted_at.timestamp_millis() < opening);
    early.map(|order| format!("{} at {}", order.id, order.admitted_at)).collect()
}

fn check_invariants(audit: &Result<Vec<Check>, String>, failures: &mut Failures) -> Vec<Check> {
    let checks = match audit {
        Ok(checks) => checks.clone(),
        Err(why) => {
            failures.one(format!("the audit could not be computed: {why}"));
            return Vec::new();
        }
    };
    // One that is missing is a failure, not a pass.
    for name in Invariant::ALL.map(|invariant| invariant.to_string()) {
        if !checks.iter().any(|check| check.name == name) {
            failures.one(format!("{name} was not computed"));
        }
    }
    for check in checks.iter().filter(|check| !check.holds) {
        let why = check.why.iter().take(EXAMPLES).cloned().collect::<Vec<_>>().join("; ");
        failures.one(format!("{} does not hold: {why}", check.name));
    }
    checks
}

fn check_figures(report: &Report, failures: &mut Failures) {
    let figures = [
        ("p50", report.p50_ms),
        ("p99", report.p99_ms),
        ("p999", report.p999_ms),
        ("p99 from the opening", report.p99_from_opening_ms),
        ("the time it took", report.seconds),
    ];
    for (name, _) in figures.iter().filter(|(_, figure)| figure.is_none()) {
        failures.one(format!("{name} is missing: no order was answered"));
    }
}

fn quantile(histogram: &Histogram<u64>, quantile: f64) -> Option<f64> {
    if histogram.is_empty() {
        return None;
    }
    let time = Duration::from_micros(histogram.value_at_quantile(quantile));
    Some(round(time.as_secs_f64() * 1_000.0))
}

/// To three decimals.
fn round(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

fn of_history(key: &KeyHistory) -> (&str, &str) {
    (&key.user, &key.key)
}

fn key_of(order: &RecordedOrder) -> Option<(&str, &str)> {
    order.key.as_deref().map(|key| (&*order.user, key))
}

fn texts(ids: &HashSet<OrderId>) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
