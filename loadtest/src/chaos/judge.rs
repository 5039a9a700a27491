//! The judgement over a round: what the buyers wrote down against what the stores say. Pure.
//!
//! An order without an answer is *unknown*, never failed: it counts as what its repeat under the same key showed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use flashsale_core::{Invariant, OrderId, OrderState, ProductId};

use super::{
    fault::{Cost, TAKEN_OVER_WITHIN},
    faults::large::CROWD,
    journal::{Event, Lines, What},
};
use crate::{
    evidence::{Check, ProductEvidence, RecordedOrder},
    shop::Answer,
};

/// Everything that is judged.
#[derive(Debug)]
pub(crate) struct Evidence {
    pub(crate) cost: Cost,
    pub(crate) events: Vec<Event>,
    /// When the fault was over, on the journal's clock. What is sent from here on may not be lost any more.
    pub(crate) healed_at: Duration,
    /// When all was well again.
    pub(crate) healthy_at: Option<Duration>,
    /// When the queue was empty and nothing parked: from here on no order is under way.
    pub(crate) rest_at: Duration,
    pub(crate) products: Vec<ProductEvidence>,
    /// Units of a product that one user may buy.
    pub(crate) limit: u32,
    /// All that is recorded, but what the machine itself put into the queue.
    pub(crate) orders: Vec<RecordedOrder>,
    /// Orders that were parked and had to be ended by hand.
    pub(crate) parked: usize,
    pub(crate) audit: Result<Vec<Check>, String>,
    /// How long it took from the last moment at which a worker was killed or stopped until the orders that were
    /// queued then were final.
    pub(crate) taken_over: Option<Duration>,
    /// What went wrong beside the orders: a program that crashed, a queue that did not become empty.
    pub(crate) trouble: Vec<String>,
}

/// Whose order, under which key.
pub(crate) type Subject = (String, String);

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) what: String,
    /// The order whose history tells more.
    pub(crate) of: Option<Subject>,
}

/// What became of a round.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Keys that were answered with a 202.
    pub(crate) orders: usize,
    /// Keys of which a sending had no answer, and how many of them were found admitted or refused later.
    pub(crate) unknown: usize,
    pub(crate) resolved: usize,
    /// Accepted orders that are gone, as this fault may bring about.
    pub(crate) lost: usize,
    pub(crate) parked: usize,
    pub(crate) healthy_after: Option<Duration>,
    pub(crate) taken_over: Option<Duration>,
    /// The invariants that do not hold; `None` if they could not be computed.
    pub(crate) broken: Option<Vec<String>>,
    pub(crate) problems: Vec<Problem>,
}

/// What the buyer of one key was told.
#[derive(Debug, Default)]
struct Told<'a> {
    lines: &'a [(ProductId, u32)],
    /// When it was sent last.
    sent_at: Duration,
    /// The ids of its 202s, each with the time when the sending left that was answered so first.
    ids: BTreeMap<OrderId, Duration>,
    refused: bool,
    /// A sending had no answer.
    unknown: bool,
    /// Nothing is open: there was an answer after the last sending without one.
    settled: bool,
    /// What was seen of its status, in this order.
    seen: Vec<(OrderId, Option<OrderState>, Duration)>,
    strange: Vec<&'a str>,
}

pub(crate) fn judge(evidence: &Evidence) -> Verdict {
    let told = told(&evidence.events);
    let orders = evidence.orders.iter().map(|order| (order.id, order)).collect();
    let mut court = Court { evidence, told: &told, orders, problems: Vec::new(), lost: 0 };
    court.trouble();
    court.stock();
    court.limits();
    court.invariants();
    for (subject, told) in &told {
        court.answers(subject, told);
    }
    court.record();
    let Court { problems, lost, .. } = court;
    let of = |which: fn(&Told<'_>) -> bool| told.values().filter(|told| which(told)).count();
    Verdict {
        orders: of(|told| !told.ids.is_empty()),
        unknown: of(|told| told.unknown),
        resolved: of(|told| told.unknown && told.settled),
        lost,
        parked: evidence.parked,
        healthy_after: evidence.healthy_at.map(|at| at.saturating_sub(evidence.healed_at)),
        taken_over: evidence.taken_over,
        broken: evidence.audit.as_ref().ok().map(|checks| {
            let broken = checks.iter().filter(|check| !check.holds);
            broken.map(|check| check.name.clone()).collect()
        }),
        problems,
    }
}

fn told(events: &[Event]) -> BTreeMap<Subject, Told<'_>> {
    let mut all: BTreeMap<Subject, Told<'_>> = BTreeMap::new();
    for event in events {
        let told = all.entry((event.user.clone(), event.key.clone())).or_default();
        match &event.what {
            What::Sent { lines, .. } => (told.lines, told.sent_at) = (lines, event.at),
            What::Answered(Answer::Admitted { id, .. }) => {
                told.ids.entry(*id).or_insert(told.sent_at);
                told.settled = true;
            }
            What::Answered(Answer::Refused { .. }) => (told.refused, told.settled) = (true, true),
            What::Answered(Answer::Unknown { .. }) => (told.unknown, told.settled) = (true, false),
            // It says that this sending changed nothing, and nothing of one before.
            What::Answered(Answer::TurnedAway { .. }) => {}
            What::Answered(Answer::Strange(what)) | What::Strange(what) => told.strange.push(what),
            What::Seen { id, state } => told.seen.push((*id, *state, event.at)),
        }
    }
    all
}

struct Court<'a> {
    evidence: &'a Evidence,
    told: &'a BTreeMap<Subject, Told<'a>>,
    /// The record, by id.
    orders: HashMap<OrderId, &'a RecordedOrder>,
    problems: Vec<Problem>,
    lost: usize,
}

impl Court<'_> {
    fn one(&mut self, what: impl Into<String>) {
        self.problems.push(Problem { what: what.into(), of: None });
    }

    fn of(&mut self, subject: &Subject, what: impl Into<String>) {
        self.problems.push(Problem { what: what.into(), of: Some(subject.clone()) });
    }

    /// Whether the fault excuses what befell an order that was sent at this time and admitted. While the damage
    /// is not mended nobody is admitted, so that the end of the fault is the limit.
    fn excused(&self, sent_at: Duration) -> bool {
        self.evidence.cost.loses && sent_at <= self.evidence.healed_at
    }

    fn trouble(&mut self) {
        for what in &self.evidence.trouble {
            self.one(what.clone());
        }
        let (within, healed_at) = (self.evidence.cost.within, self.evidence.healed_at);
        match self.evidence.healthy_at {
            None => self.one("it did not become healthy again"),
            Some(at) if at.saturating_sub(healed_at) > within => {
                self.one(format!("it took {:.1?} to become healthy again", at.saturating_sub(healed_at)));
            }
            Some(_) => {}
        }
        if let Some(time) = self.evidence.taken_over.filter(|time| *time > TAKEN_OVER_WITHIN) {
            self.one(format!("it took {time:.1?} to take over what a worker had in hand"));
        }
        if self.evidence.parked > 0 && !self.evidence.cost.parks {
            self.one(format!("{} orders were parked", self.evidence.parked));
        }
    }

    fn stock(&mut self) {
        let mut confirmed: HashMap<ProductId, u64> = HashMap::new();
        for (product, units) in self.evidence.orders.iter().filter(|o| o.confirmed).flat_map(|o| &o.units) {
            *confirmed.entry(*product).or_default() += u64::from(*units);
        }
        if self.evidence.products.is_empty() {
            self.one("the sale has no products");
        }
        for product in &self.evidence.products {
            let (id, stock, sold) = (product.id, u64::from(product.stock), u64::from(product.sold));
            let confirmed = confirmed.get(&id).copied().unwrap_or(0);
            if confirmed.max(sold) > stock {
                self.one(format!("product {id} is oversold: {} of {stock}", confirmed.max(sold)));
            }
            if confirmed != sold {
                self.one(format!("product {id} counts {sold} sold, its confirmed orders hold {confirmed}"));
            }
        }
    }

    fn limits(&mut self) {
        let mut held: BTreeMap<(&str, ProductId), u32> = BTreeMap::new();
        for order in self.evidence.orders.iter().filter(|order| order.confirmed) {
            for (product, units) in &order.units {
                *held.entry((&order.user, *product)).or_default() += units;
            }
        }
        let limit = self.evidence.limit;
        for ((user, product), units) in held.into_iter().filter(|(_, units)| *units > limit) {
            self.one(format!("user {user} bought {units} of product {product}, the limit is {limit}"));
        }
    }

    fn invariants(&mut self) {
        let checks = match &self.evidence.audit {
            Ok(checks) => checks,
            Err(why) => return self.one(format!("the audit could not be computed: {why}")),
        };
        // One that is missing is a failure, not a pass.
        for name in Invariant::ALL.map(|invariant| invariant.to_string()) {
            match checks.iter().find(|check| check.name == name) {
                None => self.one(format!("{name} was not computed")),
                Some(check) if !check.holds => {
                    self.one(format!("{name} does not hold: {}", check.why.join("; ")));
                }
                Some(_) => {}
            }
        }
    }

    /// One key: what its buyer was told, by itself and against the record.
    fn answers(&mut self, subject: &Subject, told: &Told<'_>) {
        for what in &told.strange {
            self.of(subject, *what);
        }
        if !told.settled {
            self.of(subject, "its outcome never became known");
        }
        let its = told.ids.keys().filter_map(|id| Some((*id, *self.orders.get(id)?)));
        let recorded: HashMap<OrderId, &RecordedOrder> = its.collect();
        let excused = told.ids.values().all(|at| self.excused(*at));
        if told.ids.len() > 1 {
            let first = *told.ids.iter().min_by_key(|(_, at)| **at).expect("there are several").1;
            if !self.excused(first) || recorded.values().filter(|order| order.confirmed).count() > 1 {
                self.of(subject, format!("its key has {} orders", told.ids.len()));
            }
        }
        for (id, at) in &told.ids {
            match recorded.get(id) {
                Some(order) => self.recorded(subject, told, order, excused),
                None if self.excused(*at) && !was_final(told, *id) => self.lost += 1,
                None => self.of(subject, format!("order {id} was accepted and is lost")),
            }
        }
        self.statuses(subject, told, &recorded);
    }

    fn recorded(&mut self, subject: &Subject, told: &Told<'_>, order: &RecordedOrder, excused: bool) {
        if (order.user.as_str(), order.key.as_deref().unwrap_or(&subject.1)) != (&*subject.0, &*subject.1) {
            self.of(subject, format!("it was told of order {}, which is another's", order.id));
        }
        // What the database itself rejects has no lines.
        if order.confirmed && sorted(&order.units) != sorted(told.lines) {
            self.of(subject, format!("order {} has other lines than were asked for", order.id));
        }
        let by_hand = order.failure == Some("discarded") && self.evidence.cost.parks;
        if !order.confirmed && !excused && !by_hand {
            let why = order.failure.unwrap_or("no reason");
            self.of(subject, format!("order {} was accepted and failed: {why}", order.id));
        }
    }

    /// A status only moves forward, and its end is the record's.
    fn statuses(&mut self, subject: &Subject, told: &Told<'_>, recorded: &HashMap<OrderId, &RecordedOrder>) {
        let mut highest: HashMap<OrderId, OrderState> = HashMap::new();
        for (id, state, at) in &told.seen {
            let Some(state) = state else {
                let is_lost = !recorded.contains_key(id) || self.evidence.cost.returns;
                if !self.excused(told.ids.get(id).copied().unwrap_or(*at)) || !is_lost {
                    self.of(subject, format!("order {id} was accepted and is said not to exist"));
                }
                continue;
            };
            if *at >= self.evidence.rest_at && !state.is_final() {
                self.of(subject, format!("order {id} is shown as {state} for good"));
            }
            let before = highest.insert(*id, *state).unwrap_or(OrderState::Queued);
            if rank(*state) < rank(before) || (before.is_final() && before != *state) {
                self.of(subject, format!("order {id} went from {before} to {state}"));
            }
            let is_recorded_as =
                |order: &&RecordedOrder| order.confirmed == (*state == OrderState::Confirmed);
            if state.is_final() && !recorded.get(id).is_some_and(is_recorded_as) {
                self.of(subject, format!("order {id} was shown as {state}, which the record does not say"));
            }
        }
    }

    /// Every recorded order is somebody's who may have been admitted, and a key has one.
    fn record(&mut self) {
        let mut keys = HashSet::new();
        let known: BTreeSet<OrderId> = self.told.values().flat_map(|told| told.ids.keys().copied()).collect();
        for order in &self.evidence.orders {
            let Some(key) = &order.key else { continue };
            let subject = (order.user.clone(), key.clone());
            if !keys.insert(subject.clone()) {
                self.of(&subject, "its key has two recorded orders");
            }
            if known.contains(&order.id) {
                continue;
            }
            match self.told.get(&subject) {
                None if order.user.starts_with(CROWD) => {}
                None => self.of(&subject, format!("order {} is nobody's", order.id)),
                Some(told) if told.ids.is_empty() && told.settled => {
                    self.of(&subject, format!("order {} stands, and its buyer was refused", order.id));
                }
                // Another id of its key was told, or nothing was: judged with the key.
                Some(_) => {}
            }
        }
    }
}

fn was_final(told: &Told<'_>, id: OrderId) -> bool {
    told.seen.iter().any(|(seen, state, _)| *seen == id && state.is_some_and(OrderState::is_final))
}

fn rank(state: OrderState) -> u8 {
    match state {
        OrderState::Queued => 0,
        OrderState::Processing => 1,
        _ => 2,
    }
}

fn sorted(lines: &[(ProductId, u32)]) -> Lines {
    let mut lines = lines.to_vec();
    lines.sort_unstable();
    lines
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
