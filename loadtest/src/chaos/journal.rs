//! What the buyers did and saw, event by event, on one clock: what the stores are judged against.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use flashsale_core::{OrderId, OrderState, ProductId};

use crate::shop::Answer;

/// The units that an order asks for.
pub(crate) type Lines = Vec<(ProductId, u32)>;

/// One thing that happened to one order.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// Since the round began.
    pub(crate) at: Duration,
    pub(crate) user: String,
    pub(crate) key: String,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// It was sent to this server. From here to its answer its outcome is open.
    Sent { server: usize, lines: Lines },
    /// That sending's answer.
    Answered(Answer),
    /// Its status was asked for. `None`: nobody knows the order.
    Seen { id: OrderId, state: Option<OrderState> },
    /// The answer to something else than an order broke a rule of the API.
    Strange(String),
}

/// All events of a round.
pub(crate) struct Journal {
    began: Instant,
    events: Mutex<Vec<Event>>,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), events: Mutex::default() }
    }

    /// Since the round began.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn note(&self, user: &str, key: &str, what: What) {
        let mut events = self.lock();
        // Under the lock, so that the events stand in the order of their times.
        let event = Event { at: self.now(), user: user.to_owned(), key: key.to_owned(), what };
        events.push(event);
    }

    /// How many answers were a 202.
    pub(crate) fn admitted(&self) -> usize {
        let is_admitted = |event: &&Event| matches!(event.what, What::Answered(Answer::Admitted { .. }));
        self.lock().iter().filter(is_admitted).count()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8.3} s  {} {}: ", self.at.as_secs_f64(), self.user, self.key)?;
        match &self.what {
            What::Sent { server, lines } => {
                let lines: Vec<_> =
                    lines.iter().map(|(product, units)| format!("{units} of {product}")).collect();
                write!(f, "asks server {server} for {}", lines.join(" and "))
            }
            What::Answered(Answer::Admitted { id, replayed: false }) => write!(f, "ok, order {id}"),
            What::Answered(Answer::Admitted { id, replayed: true }) => write!(f, "ok as before, order {id}"),
            What::Answered(Answer::Refused { status, code }) => write!(f, "refused, {status} {code}"),
            What::Answered(Answer::TurnedAway { code }) => write!(f, "turned away, 503 {code}"),
            What::Answered(Answer::Unknown { code }) => write!(f, "unknown, {code}"),
            What::Answered(Answer::Strange(what)) | What::Strange(what) => write!(f, "strange: {what}"),
            What::Seen { id, state: Some(state) } => write!(f, "sees order {id} {state}"),
            What::Seen { id, state: None } => write!(f, "is told that there is no order {id}"),
        }
    }
}
