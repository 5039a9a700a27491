//! What the buyers saw. Nothing here is taken from goose's metrics, which may hold rows that nobody saw.

use std::{collections::BTreeMap, time::Instant};

use flashsale_core::OrderId;
use hdrhistogram::Histogram;

/// The longest time that is told apart from longer ones: an hour.
const LONGEST_US: u64 = 3_600_000_000;

/// What one buyer saw of one idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyHistory {
    pub(crate) user: String,
    pub(crate) key: String,
    /// The different order ids that a 202 named. More than one is a duplicate.
    pub(crate) ids: Vec<OrderId>,
    /// The last answer was a refusal.
    pub(crate) refused: bool,
    /// At least one sending was never answered, so it may have been admitted whatever came later.
    pub(crate) unanswered: bool,
}

impl KeyHistory {
    /// The buyer never learned whether it was admitted.
    pub(crate) fn is_unknown(&self) -> bool {
        self.unanswered && self.ids.is_empty() && !self.refused
    }
}

/// What one buyer saw, kept by itself until it is done.
#[derive(Debug)]
pub(crate) struct Diary {
    user: String,
    keys: Vec<KeyHistory>,
    refused: Vec<String>,
    broken: Vec<String>,
    sendings_us: Vec<u64>,
    from_opening_us: Option<u64>,
    last_answer: Option<Instant>,
}

impl Diary {
    pub(crate) fn new(user: String) -> Self {
        Self {
            user,
            keys: Vec::new(),
            refused: Vec::new(),
            broken: Vec::new(),
            sendings_us: Vec::new(),
            from_opening_us: None,
            last_answer: None,
        }
    }

    fn key(&mut self, key: &str) -> &mut KeyHistory {
        let at = self.keys.iter().position(|known| known.key == key).unwrap_or_else(|| {
            self.keys.push(KeyHistory {
                user: self.user.clone(),
                key: key.to_owned(),
                ids: Vec::new(),
                refused: false,
                unanswered: false,
            });
            self.keys.len() - 1
        });
        &mut self.keys[at]
    }

    /// Whether an order of this key is known.
    pub(crate) fn has_order(&self, key: &str) -> bool {
        self.keys.iter().any(|known| known.key == key && !known.ids.is_empty())
    }

    /// Whether a sending under this key was left without an answer.
    pub(crate) fn is_unanswered(&self, key: &str) -> bool {
        self.keys.iter().any(|known| known.key == key && known.unanswered)
    }

    /// The orders that it was told of.
    pub(crate) fn ids(&self) -> Vec<OrderId> {
        self.keys.iter().flat_map(|known| known.ids.iter().copied()).collect()
    }

    pub(crate) fn admitted(&mut self, key: &str, id: OrderId) {
        let known = self.key(key);
        known.refused = false;
        if !known.ids.contains(&id) {
            known.ids.push(id);
        }
    }

    pub(crate) fn refused(&mut self, key: &str, code: &str) {
        self.refused.push(code.to_owned());
        self.key(key).refused = true;
    }

    /// Counts an answer that says nothing about the order of its key.
    pub(crate) fn answered_with(&mut self, code: &str) {
        self.refused.push(code.to_owned());
    }

    /// No answer, or one that says that nobody knows.
    pub(crate) fn unanswered(&mut self, key: &str) {
        let known = self.key(key);
        known.unanswered = true;
        known.refused = false;
    }

    /// The server did something that it must not do.
    pub(crate) fn broken(&mut self, what: impl Into<String>) {
        self.broken.push(format!("{}: {}", self.user, what.into()));
    }

    /// An order was answered, or given up, at `now`. Goose's own measure would hide the wait for a place.
    pub(crate) fn measured(&mut self, sent: Instant, opened: Instant, now: Instant) {
        self.sendings_us.push(micros(now.saturating_duration_since(sent)));
        if self.from_opening_us.is_none() && sent >= opened {
            self.from_opening_us = Some(micros(now.saturating_duration_since(opened)));
        }
        self.last_answer = Some(now);
    }
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What all buyers saw.
#[derive(Debug)]
pub(crate) struct History {
    /// Buyers that went through their whole part.
    pub(crate) users: u32,
    pub(crate) keys: Vec<KeyHistory>,
    /// Answers other than 202, by their code.
    pub(crate) refused: BTreeMap<String, u64>,
    /// What the server must not have done.
    pub(crate) broken: Vec<String>,
    /// Each order, from sending to its answer, in microseconds.
    pub(crate) from_sending: Histogram<u64>,
    /// Each buyer's first order, from the opening to its answer, in microseconds.
    pub(crate) from_opening: Histogram<u64>,
    pub(crate) last_answer: Option<Instant>,
}

impl History {
    pub(crate) fn new() -> Self {
        let empty = || Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are allowed");
        Self {
            users: 0,
            keys: Vec::new(),
            refused: BTreeMap::new(),
            broken: Vec::new(),
            from_sending: empty(),
            from_opening: empty(),
            last_answer: None,
        }
    }

    pub(crate) fn add(&mut self, diary: Diary) {
        self.users += 1;
        self.keys.extend(diary.keys);
        for code in diary.refused {
            *self.refused.entry(code).or_default() += 1;
        }
        self.broken.extend(diary.broken);
        for us in diary.sendings_us {
            self.from_sending.saturating_record(us);
        }
        if let Some(us) = diary.from_opening_us {
            self.from_opening.saturating_record(us);
        }
        self.last_answer = self.last_answer.max(diary.last_answer);
    }
}

#[cfg(test)]
mod tests {
    use flashsale_core::SaleId;

    use super::*;

    #[test]
    fn an_unanswered_key_is_unknown_until_it_is_answered() {
        let id = OrderId::new(SaleId::try_from(1).unwrap());
        let mut diary = Diary::new("u".to_owned());
        diary.unanswered("a");
        assert!(diary.keys[0].is_unknown() && !diary.has_order("a"));
        diary.refused("a", "sold-out");
        assert!(!diary.keys[0].is_unknown() && diary.is_unanswered("a"));
        diary.unanswered("a");
        diary.admitted("a", id);
        diary.admitted("a", id);
        assert!(!diary.keys[0].is_unknown());
        assert_eq!(diary.ids(), [id]);
        assert!(diary.has_order("a") && !diary.has_order("b"));
    }

    #[test]
    fn only_what_buyers_saw_is_counted() {
        let mut history = History::new();
        let mut diary = Diary::new("u".to_owned());
        diary.refused("a", "sold-out");
        diary.answered_with("unavailable");
        let sent = Instant::now();
        diary.measured(sent, sent, sent);
        diary.measured(sent, sent, sent);
        history.add(diary);
        assert_eq!(history.users, 1);
        assert_eq!(history.refused, [("sold-out".to_owned(), 1), ("unavailable".to_owned(), 1)].into());
        assert_eq!((history.from_sending.len(), history.from_opening.len()), (2, 1));
    }
}
