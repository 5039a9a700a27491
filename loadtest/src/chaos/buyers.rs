//! Buyers that go on buying over HTTP while something breaks, and write down all that they see.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use flashsale_core::{OrderId, OrderState, ProductId};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{
    dice::Dice,
    journal::{Journal, Lines, What},
};
use crate::shop::{self, Answer};

/// How long a buyer asks again for what became of an order.
const PATIENCE: Duration = Duration::from_mins(5);
/// How long the last call may take.
const LAST_CALL: Duration = Duration::from_secs(15);

/// What is on sale: `scarce` is gone before anything breaks, `wanted` soon after, `plenty` never.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wares {
    pub(crate) scarce: ProductId,
    pub(crate) wanted: ProductId,
    pub(crate) plenty: ProductId,
}

/// What the buyers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Buy,
    /// Buy what is left of everything but `plenty`, then go home.
    LastCall,
}

/// What all buyers share: the servers' addresses, and the journal.
pub(crate) struct Street {
    pub(crate) journal: Journal,
    pub(crate) wares: Wares,
    client: Client,
    /// The last known ones: a dead server's address answers nobody.
    servers: RwLock<Vec<String>>,
}

impl Street {
    pub(crate) fn new(wares: Wares, servers: Vec<String>) -> reqwest::Result<Self> {
        let client = Client::builder().connect_timeout(Duration::from_secs(2)).build()?;
        Ok(Self { journal: Journal::new(), wares, client, servers: RwLock::new(servers) })
    }

    /// A server was started again, perhaps on another port.
    pub(crate) fn moved(&self, server: usize, address: String) {
        self.servers.write().unwrap_or_else(PoisonError::into_inner)[server] = address;
    }

    pub(crate) fn servers(&self) -> usize {
        self.servers.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn address(&self, server: usize) -> String {
        self.servers.read().unwrap_or_else(PoisonError::into_inner)[server].clone()
    }

    /// Sends an order to this server once.
    pub(crate) async fn send(&self, server: usize, order: &Order) -> Answer {
        let (user, key) = (&order.user, &order.key);
        let request = self
            .client
            .post(format!("{}/api/orders", self.address(server)))
            .header("X-User-Id", user)
            .header("Content-Type", "application/json")
            .body(shop::order_body(key, &order.lines));
        self.journal.note(user, key, What::Sent { server, lines: order.lines.clone() });
        let answer = shop::ask(request).await;
        self.journal.note(user, key, What::Answered(answer.clone()));
        answer
    }

    /// Asks this server where an order is; `None` if it cannot be told now.
    pub(crate) async fn look(&self, server: usize, order: &Order, id: OrderId) -> Option<OrderState> {
        let url = format!("{}/api/orders/status/{id}", self.address(server));
        let response = self.client.get(url).timeout(shop::REQUEST_TIMEOUT).send().await.ok()?;
        let status = response.status();
        let body: Value = response.json().await.unwrap_or_default();
        let state = match status {
            StatusCode::OK => body["status"].as_str().and_then(OrderState::parse),
            StatusCode::NOT_FOUND => None,
            StatusCode::SERVICE_UNAVAILABLE => return None,
            _ => {
                let what = format!("the status of order {id} was answered {status} {body}");
                self.journal.note(&order.user, &order.key, What::Strange(what));
                return None;
            }
        };
        self.journal.note(&order.user, &order.key, What::Seen { id, state });
        state
    }
}

/// What somebody wants, under one key.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) user: String,
    pub(crate) key: String,
    pub(crate) lines: Lines,
}

/// The buyers of a round.
pub(crate) struct Buyers {
    street: Arc<Street>,
    word: watch::Sender<Word>,
    tasks: JoinSet<()>,
}

impl Buyers {
    pub(crate) fn start(street: &Arc<Street>, count: usize, seed: u64) -> Self {
        let word = watch::Sender::new(Word::Buy);
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let buyer = Buyer {
                street: Arc::clone(street),
                number,
                servers: street.servers(),
                dice: Dice::new(seed, &format!("buyer {number}")),
                word: word.subscribe(),
                bought: Vec::new(),
            };
            tasks.spawn(buyer.run());
        }
        Self { street: Arc::clone(street), word, tasks }
    }

    /// Waits until so many orders were admitted; whether that came to be.
    pub(crate) async fn have_bought(&self, orders: usize, within: Duration) -> bool {
        let give_up = Instant::now() + within;
        while self.street.journal.admitted() < orders {
            if Instant::now() > give_up {
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// Lets them buy what is left of all that can be sold out, and end.
    pub(crate) async fn last_call(self) {
        self.word.send_replace(Word::LastCall);
        self.tasks.join_all().await;
    }
}

struct Buyer {
    street: Arc<Street>,
    number: usize,
    servers: usize,
    dice: Dice,
    word: watch::Receiver<Word>,
    /// Orders that were admitted, to be repeated and looked at.
    bought: Vec<(Order, OrderId)>,
}

impl Buyer {
    async fn run(mut self) {
        for purchase in 0.. {
            if *self.word.borrow() == Word::LastCall {
                return self.last_call(purchase).await;
            }
            if self.dice.percent(15) && !self.bought.is_empty() {
                let (order, _) = self.dice.pick(&self.bought).clone();
                self.settle(&order).await;
            } else {
                let order = self.order(purchase, None);
                if let Some(id) = self.settle(&order).await {
                    // At once, and perhaps at another server, which may not have heard of anything new yet.
                    self.look(20, &order, id).await;
                    self.bought.push((order, id));
                }
            }
            if !self.bought.is_empty() {
                let (order, id) = self.dice.pick(&self.bought).clone();
                self.look(20, &order, id).await;
            }
            sleep(self.dice.ms(10, 80)).await;
        }
    }

    async fn look(&mut self, percent: usize, order: &Order, id: OrderId) {
        if self.dice.percent(percent) {
            self.street.look(self.dice.below(self.servers), order, id).await;
        }
    }

    /// Until each product that can be sold out is.
    async fn last_call(&mut self, first: usize) {
        let give_up = Instant::now() + LAST_CALL;
        let mut left = vec![self.street.wares.scarce, self.street.wares.wanted];
        for purchase in first.. {
            let Some(product) = left.last().copied() else { return };
            if Instant::now() > give_up {
                return;
            }
            let order = self.order(purchase, Some(product));
            if self.settle(&order).await.is_none() {
                left.pop();
            }
        }
    }

    /// The next order. A user buys three times, so that some run into their limit.
    fn order(&mut self, purchase: usize, product: Option<ProductId>) -> Order {
        let wares = self.street.wares;
        let lines = match product {
            Some(product) => vec![(product, 1)],
            None if self.dice.percent(10) => vec![(wares.wanted, 1), (wares.plenty, 1)],
            None => {
                let product = *self.dice.pick(&[wares.scarce, wares.wanted, wares.plenty, wares.plenty]);
                vec![(product, if self.dice.percent(30) { 2 } else { 1 })]
            }
        };
        // In the last call everybody is new: whoever is refused then is refused for want of stock.
        let (who, user) = if product.is_some() { ('l', purchase) } else { ('u', purchase / 3) };
        Order { user: format!("b{}-{who}{user}", self.number), key: format!("k{purchase}"), lines }
    }

    /// Sends an order, under the same key, until its outcome is known.
    async fn settle(&mut self, order: &Order) -> Option<OrderId> {
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up {
            match self.street.send(self.dice.below(self.servers), order).await {
                Answer::Admitted { id, .. } => return Some(id),
                Answer::Refused { .. } | Answer::Strange(_) => return None,
                Answer::TurnedAway { .. } | Answer::Unknown { .. } => sleep(self.dice.ms(50, 400)).await,
            }
        }
        None
    }
}
