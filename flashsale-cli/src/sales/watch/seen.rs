//! What both stores said of a sale last, and since when one of them says nothing.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};
use flashsale_core::{LiveSale, Product, Result, Sale, SaleState, Tally};

use crate::{output, sales::phase, span};

/// Orders a second are those of this long.
const RATE_OVER: TimeDelta = TimeDelta::seconds(3);

/// Until then Redis may still go by another end: servers carry one that was moved within two seconds.
const FOLLOWED_AFTER: TimeDelta = TimeDelta::seconds(3);

pub(super) struct Seen {
    pub sale: Sale,
    pub live: Option<LiveSale>,
    pub tally: Option<Tally>,
    redis_away: Option<Away>,
    record_away: Option<Away>,
    /// Admissions, by Redis's clock.
    admissions: VecDeque<(DateTime<Utc>, i64)>,
}

struct Away {
    since: DateTime<Utc>,
    why: String,
}

impl Seen {
    pub(super) fn of(sale: Sale) -> Self {
        Self {
            sale,
            live: None,
            tally: None,
            redis_away: None,
            record_away: None,
            admissions: VecDeque::new(),
        }
    }

    pub(super) fn note_redis(&mut self, live: Result<LiveSale>) {
        let Some(live) = answer(live, &mut self.redis_away) else { return };
        if live.state.is_some() {
            self.admissions.push_back((live.at, live.admitted.get()));
            while self.admissions.front().is_some_and(|(at, _)| live.at - at > RATE_OVER) {
                self.admissions.pop_front();
            }
        }
        self.live = Some(live);
    }

    pub(super) fn note_record(&mut self, sale: Result<Sale>) {
        if let Some(sale) = answer(sale, &mut self.record_away) {
            self.sale = sale;
        }
    }

    /// A record that is too large to be counted in time is no reason to say that PostgreSQL is away.
    pub(super) fn note_tally(&mut self, tally: Option<Tally>) {
        self.tally = tally.or(self.tally);
    }

    /// Nothing will be sold any more, and nothing waits to be recorded.
    pub(super) fn is_over(&self) -> bool {
        if self.sale.purged_at.is_some() {
            return true;
        }
        let Some(live) = self.live.as_ref().filter(|_| self.redis_away.is_none()) else { return false };
        let closed = live.state == Some(SaleState::Closed);
        let ended = live.state.is_some() && live.at >= self.sale.ends_at + FOLLOWED_AFTER;
        // One that was never loaded holds nothing.
        let never_sold =
            self.sale.epoch.get() == 0 && matches!(phase(&self.sale, live.at), "closed" | "ended");
        (closed || ended || never_sold) && live.queue.backlog == 0 && self.record_away.is_none()
    }

    /// Redis's clock, which opens and ends the sale; ours while it is not known.
    pub(super) fn now(&self) -> DateTime<Utc> {
        self.live.as_ref().filter(|_| self.redis_away.is_none()).map_or_else(Utc::now, |live| live.at)
    }

    /// What the sale is doing, and until when.
    pub(super) fn doing(&self) -> String {
        let now = self.now();
        let phase = phase(&self.sale, now);
        let until = match phase {
            "upcoming" => format!(", starts in {}", span::length(self.sale.starts_at - now)),
            "open" | "paused" => format!(", ends in {}", span::length(self.sale.ends_at - now)),
            _ => String::new(),
        };
        let in_redis = match &self.live {
            Some(live) if live.state.is_none() && self.redis_away.is_none() => {
                " (fenced: nothing is sold until it is loaded into Redis)".to_owned()
            }
            Some(LiveSale { state: Some(state), .. }) if *state != self.sale.state => {
                format!(" (still {state} in Redis)")
            }
            _ => String::new(),
        };
        format!("{phase}{until}{in_redis}")
    }

    /// Units of a product that are left: Redis's word, or what the record leaves.
    pub(super) fn left(&self, product: &Product) -> Option<i64> {
        self.live.as_ref()?.stock.iter().find(|stock| stock.product == product.id)?.left
    }

    pub(super) fn orders_per_second(&self) -> Option<i64> {
        if self.redis_away.is_some() {
            return None;
        }
        let ((from, before), (to, after)) = (self.admissions.front()?, self.admissions.back()?);
        let ms = (*to - *from).num_milliseconds();
        (ms > 0).then(|| (after - before).max(0) * 1_000 / ms)
    }

    /// Which store does not answer, since when and why.
    pub(super) fn away(&self) -> Vec<String> {
        let told = |(name, away): (&str, &Option<Away>)| {
            let away = away.as_ref()?;
            Some(format!("{name} does not answer since {}: {}", output::instant(away.since), away.why))
        };
        [("Redis", &self.redis_away), ("PostgreSQL", &self.record_away)]
            .into_iter()
            .filter_map(told)
            .collect()
    }
}

fn answer<T>(answer: Result<T>, away: &mut Option<Away>) -> Option<T> {
    match answer {
        Ok(answer) => {
            *away = None;
            Some(answer)
        }
        Err(error) => {
            let why = error.to_string();
            let since = away.take().map_or_else(Utc::now, |away| away.since);
            *away = Some(Away { since, why });
            None
        }
    }
}
