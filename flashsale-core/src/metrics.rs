//! What the engine counts, by way of the `metrics` crate: who embeds it chooses where the numbers go.
//!
//! The meters are made once, when the engine is, with whatever recorder is installed then. After that,
//! counting is an atomic addition and no look-up by name. No label holds a user, a key or an order: what has
//! no bound on its values would fill the memory of whoever collects them.

use std::time::{Duration, Instant};

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

use crate::{
    audit::{AuditReport, Invariant},
    drainer::Drained,
    error::Result,
    order::{Admission, FailureReason, OrderState},
};

/// Every word that an attempt to buy may end with.
const OUTCOMES: [&str; 15] = [
    "admitted",
    "replayed",
    "idempotency-key-reused",
    "unknown-product",
    "items-span-sales",
    "sale-not-open",
    "sale-paused",
    "sale-ended",
    "over-quota",
    "sold-out",
    "unavailable",
    "fenced",
    "outcome-unknown",
    "internal",
    ABANDONED,
];

/// The caller went away before the answer came; the order may have been admitted.
const ABANDONED: &str = "abandoned";

/// Not every invariant was computed, to spare Redis or the memory of who sells.
const SKIPPED: &str = "skipped";

/// How full batches are, and how long they take.
#[derive(Clone)]
pub(crate) struct BatchMeter {
    size: Histogram,
    seconds: Histogram,
}

impl BatchMeter {
    #[expect(clippy::cast_precision_loss, reason = "a batch has at most some hundred orders")]
    pub(crate) fn record(&self, size: usize, took: Duration) {
        self.size.record(size as f64);
        self.seconds.record(took);
    }
}

/// One counter for each value of its label.
type Labelled = Vec<(&'static str, Counter)>;

/// The meters of one engine, its lanes and its drainers.
pub(crate) struct Meters {
    admissions: Labelled,
    admission_seconds: Histogram,
    pub lane_batch: BatchMeter,
    drain_batch: BatchMeter,
    pub drain_failures: Counter,
    pub drain_claimed: Counter,
    confirmed: Counter,
    failed: Labelled,
    parked: Counter,
    guard_refusals: Labelled,
    compensated: Counter,
    loads: Labelled,
    load_seconds: Histogram,
    checks: Labelled,
    check_seconds: Histogram,
}

impl Meters {
    pub(crate) fn new() -> Self {
        let finals = "flashsale_orders_final_total";
        let (confirmed, failed) = (OrderState::Confirmed.as_str(), OrderState::Failed.as_str());
        let reasons = FailureReason::ALL.map(FailureReason::as_str);
        describe_counter!(finals, "Orders that ended, by status and by why they failed");
        Self {
            admissions: labelled(
                "flashsale_admissions_total",
                "Attempts to buy, by what came of them",
                "outcome",
                &OUTCOMES,
            ),
            admission_seconds: seconds(
                "flashsale_admission_duration_seconds",
                "From an attempt to buy to its answer",
            ),
            lane_batch: BatchMeter {
                size: size("flashsale_lane_batch_size", "Orders in one call of the reserve script"),
                seconds: seconds(
                    "flashsale_lane_batch_duration_seconds",
                    "How long a call of the reserve script took, lost ones included",
                ),
            },
            drain_batch: BatchMeter {
                size: size("flashsale_drain_batch_size", "Queue entries in one unit of a drainer's work"),
                seconds: seconds(
                    "flashsale_drain_batch_duration_seconds",
                    "How long a unit of a drainer's work took: begin, record, settle",
                ),
            },
            drain_failures: count(
                "flashsale_drain_failures_total",
                "Units of a drainer's work that did not end; nothing was acknowledged",
            ),
            drain_claimed: count(
                "flashsale_drain_claimed_total",
                "Queue entries that were taken over from drainers that held them for too long",
            ),
            confirmed: counter!(finals, "status" => confirmed),
            failed: reasons
                .iter()
                .map(|reason| (*reason, counter!(finals, "status" => failed, "reason" => *reason)))
                .collect(),
            parked: count("flashsale_orders_parked_total", "Queue entries that were parked for an operator"),
            guard_refusals: labelled(
                "flashsale_guard_refusals_total",
                "Orders that Redis had admitted and the record refused for stock or quota: Redis was wrong",
                "reason",
                &[FailureReason::SoldOut.as_str(), FailureReason::OverQuota.as_str()],
            ),
            compensated: count(
                "flashsale_compensated_orders_total",
                "Failed orders whose units went back to stock and quota",
            ),
            loads: labelled(
                "flashsale_loads_total",
                "Times that a sale was loaded into Redis or rebuilt there, by result",
                "result",
                &["loaded", "failed"],
            ),
            load_seconds: seconds("flashsale_load_duration_seconds", "How long loading a sale took"),
            checks: labelled(
                "flashsale_invariant_checks_total",
                "Times that a sale's invariants were to be computed, by what came of it",
                "result",
                &["holds", "violated", "not-computed", SKIPPED],
            ),
            check_seconds: seconds(
                "flashsale_invariant_check_duration_seconds",
                "How long computing a sale's invariants took",
            ),
        }
    }

    /// An attempt to buy begins.
    pub(crate) fn attempt(&self) -> Attempt<'_> {
        Attempt { meters: self, began: Instant::now(), outcome: ABANDONED }
    }

    /// A unit of a drainer's work ended; `failed` are the reasons of the orders that failed.
    pub(crate) fn drained(&self, drained: &Drained, failed: &[FailureReason], took: Duration) {
        self.drain_batch.record(drained.read, took);
        self.confirmed.increment(drained.confirmed as u64);
        for reason in failed {
            increment(&self.failed, reason.as_str());
        }
        self.parked.increment(drained.parked as u64);
        self.compensated.increment(drained.given_back as u64);
    }

    /// The record refused what Redis had let in.
    pub(crate) fn guard_refused(&self, reason: FailureReason) {
        increment(&self.guard_refusals, reason.as_str());
    }

    /// A load of a sale ended.
    pub(crate) fn load(&self, loaded: bool, took: Duration) {
        increment(&self.loads, if loaded { "loaded" } else { "failed" });
        self.load_seconds.record(took);
    }

    /// A sale's invariants were computed, or as many of them as its orders allow.
    pub(crate) fn check(&self, report: &AuditReport, took: Duration) {
        let computed = report.checks.iter().all(|check| check.failed.is_none());
        let violated = report.checks.iter().any(|check| !check.violations.is_empty());
        let whole = report.checks.len() == Invariant::ALL.len();
        let result = match (violated, computed) {
            (true, _) => "violated",
            (false, false) => "not-computed",
            (false, true) if whole => "holds",
            (false, true) => SKIPPED,
        };
        increment(&self.checks, result);
        self.check_seconds.record(took);
    }

    /// A sale's invariants were not computed, lest Redis be kept from selling.
    pub(crate) fn check_skipped(&self) {
        increment(&self.checks, SKIPPED);
    }
}

/// One attempt to buy, counted when it is over: also when nobody waits for its answer any more.
pub(crate) struct Attempt<'a> {
    meters: &'a Meters,
    began: Instant,
    outcome: &'static str,
}

impl Attempt<'_> {
    pub(crate) fn answered(mut self, answer: &Result<Admission>) {
        self.outcome = outcome(answer);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        increment(&self.meters.admissions, self.outcome);
        if self.outcome != ABANDONED {
            self.meters.admission_seconds.record(self.began.elapsed());
        }
    }
}

fn outcome(answer: &Result<Admission>) -> &'static str {
    match answer {
        Ok(Admission::Admitted(_)) => "admitted",
        Ok(Admission::Replayed(_)) => "replayed",
        Ok(Admission::Refused(refusal)) => refusal.code(),
        Err(error) if error.outcome_unknown() => "outcome-unknown",
        Err(error) if error.is_fenced() => "fenced",
        Err(error) if error.is_transient() => "unavailable",
        Err(_) => "internal",
    }
}

fn increment(counters: &Labelled, word: &str) {
    // The longest list has 15 words of different lengths: a map would take longer.
    if let Some((_, counter)) = counters.iter().find(|(of, _)| *of == word) {
        counter.increment(1);
    }
}

fn count(name: &'static str, help: &'static str) -> Counter {
    describe_counter!(name, help);
    counter!(name)
}

fn labelled(name: &'static str, help: &'static str, label: &'static str, words: &[&'static str]) -> Labelled {
    describe_counter!(name, help);
    words.iter().map(|word| (*word, counter!(name, label => *word))).collect()
}

fn size(name: &'static str, help: &'static str) -> Histogram {
    describe_histogram!(name, Unit::Count, help);
    histogram!(name)
}

fn seconds(name: &'static str, help: &'static str) -> Histogram {
    describe_histogram!(name, Unit::Seconds, help);
    histogram!(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::Error, ids::SaleId, order::Refusal};

    /// A word that is not in the list would be counted nowhere.
    #[test]
    fn every_outcome_has_its_counter() {
        let product = 1.try_into().unwrap();
        let sale = SaleId::try_from(1).unwrap();
        let refusals = [
            Refusal::KeyReused,
            Refusal::UnknownProduct(product),
            Refusal::ItemsSpanSales,
            Refusal::NotStarted,
            Refusal::Paused,
            Refusal::Ended,
            Refusal::OverQuota { product, limit: 1, held: 1 },
            Refusal::SoldOut { product, left: 0 },
        ];
        let errors = [
            (Error::unavailable("x"), "unavailable"),
            (Error::fenced(sale, "x"), "fenced"),
            (Error::unknown("x"), "outcome-unknown"),
            (Error::internal("x"), "internal"),
        ];
        for (error, word) in errors {
            assert_eq!(outcome(&Err(error)), word);
        }
        for refusal in refusals {
            let word = outcome(&Ok(Admission::Refused(refusal)));
            assert!(OUTCOMES.contains(&word), "{word}");
        }
    }
}
