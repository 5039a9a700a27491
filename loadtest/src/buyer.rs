//! What one simulated user does, from waiting for the opening to the final state of its orders.

use std::time::{Duration, Instant};

use flashsale_core::{OrderId, OrderState, ProductId};
use goose::goose::GooseUser;
use tokio::time::{sleep, sleep_until};

use crate::{
    herd::Ground,
    history::Diary,
    mix::{LIMIT, Part, Role},
    opening::Goods,
    shop::{Answer, Leaving, Shop},
};

/// How long an order is sent again while it cannot be served, and how long a status is asked for.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long before the opening the early ones try.
const EARLY: Duration = Duration::from_secs(1);
/// More orders than the rate limit allows in two of its windows: one of them must run over.
const IMPATIENT_SENDINGS: usize = 24;

/// Waits for the opening and plays the part of this user.
pub(crate) async fn take_part(ground: &Ground, goose: &mut GooseUser) {
    let number = u32::try_from(goose.weighted_users_index).expect("there are fewer users than that");
    let Some(goods) = ground.wait_for_opening().await else { return };
    let user = format!("{}:{number}", goods.slug);
    let shop = Shop::new(ground, goose, number, user.clone());
    let part = Part::of(number);
    let mut buyer = Buyer { wanted: goods.wares.wanted(part), goods: &goods, shop, diary: Diary::new(user) };
    buyer.play(part).await;
    ground.finished(buyer.diary);
}

struct Buyer<'a> {
    goods: &'a Goods,
    /// The product that it is after.
    wanted: ProductId,
    shop: Shop<'a>,
    diary: Diary,
}

/// What became of an order that was sent until it was answered.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Admitted(OrderId),
    Refused(String),
    /// It was never answered.
    Unknown,
}

impl Buyer<'_> {
    async fn play(&mut self, part: Part) {
        if part.role == Role::EarlyBird {
            let early = self.goods.opens_at.checked_sub(EARLY).unwrap_or(self.goods.opens_at);
            sleep_until(early.into()).await;
            self.send("first", &[(self.wanted, 1)]).await;
        }
        sleep_until(self.goods.opens_at.into()).await;
        if part.browses {
            self.browse().await;
        }
        let one = [(self.wanted, 1)];
        match part.role {
            Role::Plain | Role::EarlyBird => drop(self.order("first", &one).await),
            Role::TwoItems => self.two_items().await,
            Role::Repeats => self.repeat().await,
            Role::OtherBody => self.other_body().await,
            Role::Greedy => self.greedy().await,
            Role::AboveLimit => self.above_limit().await,
            Role::HangsUp { asks_again } => {
                // Whether or not it was sent to its end, somebody may have read it.
                self.diary.unanswered("first");
                self.shop.leave("first", &one, Leaving::BeforeTheAnswer).await;
                if asks_again {
                    self.order("first", &one).await;
                }
            }
            Role::BreaksOff => {
                // Half an order is none: nothing may be known of it afterwards.
                self.shop.leave("first", &one, Leaving::WithinTheBody).await;
                self.order("first", &one).await;
            }
            Role::Impatient => self.impatient().await,
        }
        // What is not final in time is left to the audit.
        for id in self.diary.ids() {
            self.final_state(id).await;
        }
    }

    async fn browse(&mut self) {
        match self.shop.sees_on_sale(self.wanted).await {
            Ok(None | Some(true)) => {}
            // The window is judged by the server's clock, which may be behind ours.
            Ok(Some(false)) => tracing::debug!("the product is not on sale yet"),
            Err(what) => self.diary.broken(what),
        }
        if let Err(what) = self.shop.puts_in_cart(self.wanted).await {
            self.diary.broken(what);
        }
    }

    async fn two_items(&mut self) {
        let both: Vec<_> = [Some(self.goods.wares.first), self.goods.wares.second]
            .into_iter()
            .flatten()
            .map(|id| (id, 1))
            .collect();
        if let Outcome::Refused(_) = self.order("both", &both).await {
            self.order("one", &[(self.wanted, 1)]).await;
        }
    }

    async fn repeat(&mut self) {
        let items = [(self.wanted, 1)];
        let first = self.order("first", &items).await;
        for _ in 0..2 {
            let again = self.order("first", &items).await;
            // A refusal leaves nothing behind, so only an admission binds.
            if matches!(first, Outcome::Admitted(_)) && again != first && again != Outcome::Unknown {
                self.diary.broken(format!("the same order was answered {first:?}, then {again:?}"));
            }
        }
    }

    async fn other_body(&mut self) {
        let admitted = matches!(self.order("first", &[(self.wanted, 1)]).await, Outcome::Admitted(_));
        if !admitted {
            return;
        }
        match self.judged("first", &[(self.wanted, 2)]).await {
            Some(Answer::Refused { status: 422, code }) if code == "idempotency-key-reused" => {
                self.diary.answered_with(&code);
            }
            Some(other) => {
                self.diary.broken(format!("another body under the same key was answered {other:?}"));
            }
            None => {}
        }
    }

    async fn greedy(&mut self) {
        match self.order("all", &[(self.wanted, LIMIT)]).await {
            Outcome::Admitted(all) => match self.order("more", &[(self.wanted, 1)]).await {
                Outcome::Unknown => {}
                Outcome::Refused(code) if code == "over-quota" => {}
                // A failed order has given its quota back.
                other if self.final_state(all).await != Some(OrderState::Failed) => {
                    self.diary.broken(format!("one above the limit was answered {other:?}"));
                }
                _ => {}
            },
            Outcome::Refused(_) => drop(self.order("one", &[(self.wanted, 1)]).await),
            Outcome::Unknown => {}
        }
    }

    async fn above_limit(&mut self) {
        match self.order("all", &[(self.wanted, LIMIT + 1)]).await {
            Outcome::Unknown => {}
            Outcome::Refused(code) if code == "over-quota" => {}
            other => self.diary.broken(format!("more than the limit was answered {other:?}")),
        }
        self.order("one", &[(self.wanted, 1)]).await;
    }

    async fn impatient(&mut self) {
        for _ in 0..IMPATIENT_SENDINGS {
            self.send("first", &[(self.wanted, 1)]).await;
        }
    }

    /// Sends an order until it is answered.
    async fn order(&mut self, key: &str, items: &[(ProductId, u32)]) -> Outcome {
        let give_up = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(250);
        loop {
            match self.send(key, items).await {
                Answer::Admitted { id, .. } => return Outcome::Admitted(id),
                Answer::Refused { code, .. } if !is_passing(&code) => return Outcome::Refused(code),
                Answer::Refused { code, .. } if Instant::now() > give_up => return Outcome::Refused(code),
                _ if Instant::now() > give_up => return Outcome::Unknown,
                _ => {}
            }
            // Slow enough for the rate limit of one address.
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Sends an order once and notes the answer under its key.
    async fn send(&mut self, key: &str, items: &[(ProductId, u32)]) -> Answer {
        let (known, unanswered) = (self.diary.has_order(key), self.diary.is_unanswered(key));
        let answered = self.shop.order(key, items).await;
        if !matches!(&answered.answer, Answer::Refused { code, .. } if code == "rate-limited") {
            self.diary.measured(answered.sent, self.goods.opens_at, answered.at);
        }
        match &answered.answer {
            Answer::Admitted { id, replayed } => {
                // An unanswered sending may or may not have made the order.
                if *replayed != known && !unanswered {
                    self.diary.broken(format!("order {id} of key {key}: replayed is {replayed}"));
                }
                self.diary.admitted(key, *id);
            }
            Answer::Refused { code, .. } => {
                if code == "rate-limited" && !self.shop.may_be_limited() {
                    self.diary.broken("the rate limit stopped it though it sent few orders");
                }
                self.diary.refused(key, code);
            }
            Answer::TurnedAway { code } => self.diary.answered_with(code),
            Answer::Unknown { code } => {
                self.diary.answered_with(code);
                self.diary.unanswered(key);
            }
            Answer::Strange(what) => {
                self.diary.broken(what.clone());
                self.diary.unanswered(key);
            }
        }
        answered.answer
    }

    /// Sends an order until it is judged, without noting it under its key: it is not the order of that key.
    async fn judged(&mut self, key: &str, items: &[(ProductId, u32)]) -> Option<Answer> {
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up {
            match self.shop.order(key, items).await.answer {
                Answer::TurnedAway { .. } | Answer::Unknown { .. } => sleep(Duration::from_secs(2)).await,
                Answer::Refused { code, .. } if is_passing(&code) => sleep(Duration::from_secs(2)).await,
                judged => return Some(judged),
            }
        }
        None
    }

    /// Asks for the status of an order until it is final; None if that takes too long.
    async fn final_state(&mut self, id: OrderId) -> Option<OrderState> {
        let give_up = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(100);
        let mut reached = OrderState::Queued;
        while Instant::now() < give_up {
            match self.shop.status(id).await.map(|word| word.as_deref().map(OrderState::parse)) {
                Ok(Some(Some(state))) if state >= reached => reached = state,
                Ok(Some(state)) => {
                    self.diary.broken(format!("order {id} went from {reached} to {state:?}"));
                    return None;
                }
                Ok(None) => {}
                Err(what) => {
                    self.diary.broken(what);
                    return None;
                }
            }
            if reached.is_final() {
                return Some(reached);
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
        None
    }
}

/// Refusals that end by themselves: the server's clock is behind ours, or too many were sent.
fn is_passing(code: &str) -> bool {
    matches!(code, "sale-not-open" | "rate-limited")
}
