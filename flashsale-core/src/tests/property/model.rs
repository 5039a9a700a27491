//! A sale as the promises describe it, in plain Rust.
//!
//! It keeps orders and keys only. What is left of a product and what a user holds is counted from the orders
//! each time, so that in the model no unit can come from nowhere, be lost or be given back twice (P1, P6).

use std::collections::BTreeMap;

use crate::{
    FailureReason, Items, ProductId, Refusal, SaleId, SaleState,
    order::Fingerprint,
    scripts::{Begun, Carried, Carry},
    tests::scripts::scene::SEQ,
};

/// An order in a sale whose id is not known yet.
pub(super) type Number = u16;

#[derive(Debug, Clone)]
pub(super) struct Product {
    pub stock: i64,
    pub limit: u32,
    pub price: i64,
}

#[derive(Debug, Clone)]
pub(super) struct Request {
    pub number: Number,
    pub user: u8,
    pub key: u8,
    pub items: Items,
}

/// An admitted order.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub request: Request,
    pub seq: i64,
    pub state: State,
    /// As they stood when it was admitted.
    pub prices: BTreeMap<ProductId, i64>,
    pub queued: bool,
    pub pending: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum State {
    Queued,
    Processing,
    Confirmed,
    Failed(FailureReason),
}

/// What the scripts are to answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Admitted,
    Replayed(Number),
    IdTaken,
    Refused(Refusal),
}

/// Which entry a call names for an order.
#[derive(Debug, Clone, Copy)]
pub(super) enum EntryOf {
    Itself,
    Nobody,
    Another(Number),
}

/// An order as a drainer names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    pub order: Number,
    pub entry: EntryOf,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    Confirmed,
    /// With the order to which the key is pointed, if that one was admitted.
    Failed(FailureReason, Option<Number>),
    Parked,
    /// Without its holding.
    Unreadable,
}

#[derive(Debug, Clone)]
pub(super) struct Sale {
    pub products: BTreeMap<ProductId, Product>,
    pub orders: BTreeMap<Number, Order>,
    /// User and key, and the order they stand for. Never forgotten.
    pub keys: BTreeMap<(u8, u8), Number>,
    pub state: SaleState,
    pub seq: i64,
    /// The seq up to which entries were read for the first time.
    read: i64,
    pub answers: Vec<Answer>,
    pub begun: Vec<Begun>,
    pub missing: Vec<Number>,
    pub given_back: usize,
    /// The last change of stock, and whether it was applied.
    pub changes: i64,
    pub applied: Option<bool>,
    pub carried: Option<Carried>,
}

impl Sale {
    pub(super) fn new(products: BTreeMap<ProductId, Product>) -> Self {
        Self {
            products,
            orders: BTreeMap::new(),
            keys: BTreeMap::new(),
            state: SaleState::Open,
            seq: SEQ.get(),
            read: SEQ.get(),
            answers: vec![],
            begun: vec![],
            missing: vec![],
            given_back: 0,
            changes: 0,
            applied: None,
            carried: None,
        }
    }

    /// Orders whose units are out of stock.
    fn holding(&self) -> impl Iterator<Item = &Order> {
        self.orders.values().filter(|order| !matches!(order.state, State::Failed(_)))
    }

    pub(super) fn left(&self, product: ProductId) -> i64 {
        let taken: i64 = self.holding().map(|order| order.request.units(product)).sum();
        self.products[&product].stock - taken
    }

    pub(super) fn held(&self, user: u8, product: ProductId) -> i64 {
        self.holding()
            .filter(|order| order.request.user == user)
            .map(|order| order.request.units(product))
            .sum()
    }

    pub(super) fn change_stock(&mut self, ahead: i64, product: ProductId, carry: Carry) {
        let answer = |applied| if applied { Carried::Applied } else { Carried::Refused };
        self.carried = Some(match ahead {
            0 => self.applied.map_or(Carried::Known, answer),
            1 => {
                let units = match carry {
                    Carry::Add(units) => Some(units),
                    Carry::Take(units) => (units <= self.left(product)).then_some(-units),
                };
                self.products.get_mut(&product).expect("a product that is sold").stock += units.unwrap_or(0);
                self.changes += 1;
                self.applied = Some(units.is_some());
                answer(units.is_some())
            }
            ahead if ahead < 0 => Carried::Known,
            _ => Carried::Early,
        });
    }

    pub(super) fn reserve(&mut self, batch: &[Request]) {
        self.answers = batch.iter().map(|request| self.reserve_one(request)).collect();
    }

    fn reserve_one(&mut self, request: &Request) -> Answer {
        let answer = self.decide(request);
        if answer == Answer::Admitted {
            self.seq += 1;
            let price = |(product, _)| (product, self.products[&product].price);
            let order = Order {
                request: request.clone(),
                seq: self.seq,
                state: State::Queued,
                prices: request.items.iter().map(price).collect(),
                queued: true,
                pending: false,
            };
            let before = self.keys.insert((request.user, request.key), request.number);
            assert_eq!(before, None, "P3: a key is admitted once");
            let before = self.orders.insert(request.number, order);
            assert!(before.is_none(), "an id is admitted once");
        }
        answer
    }

    fn decide(&self, request: &Request) -> Answer {
        if let Some(holder) = self.keys.get(&(request.user, request.key)) {
            let same = self.orders[holder].request.items == request.items;
            return if same { Answer::Replayed(*holder) } else { Answer::Refused(Refusal::KeyReused) };
        }
        match self.state {
            SaleState::Closed => return Answer::Refused(Refusal::Ended),
            SaleState::Paused => return Answer::Refused(Refusal::Paused),
            SaleState::Open => {}
        }
        let lines = || request.items.iter();
        if let Some((product, _)) = lines().find(|(product, _)| !self.products.contains_key(product)) {
            return Answer::Refused(Refusal::UnknownProduct(product));
        }
        for (product, units) in lines() {
            let (limit, held) = (self.products[&product].limit, self.held(request.user, product));
            if held + i64::from(units) > i64::from(limit) {
                let held = u32::try_from(held).expect("below the limit");
                return Answer::Refused(Refusal::OverQuota { product, limit, held });
            }
        }
        for (product, units) in lines() {
            let left = self.left(product);
            if left < i64::from(units) {
                let left = u32::try_from(left).expect("P1: never below zero");
                return Answer::Refused(Refusal::SoldOut { product, left });
            }
        }
        if self.orders.contains_key(&request.number) { Answer::IdTaken } else { Answer::Admitted }
    }

    /// A drainer reads some new entries.
    pub(super) fn read(&mut self, count: usize) {
        let mut new: Vec<_> =
            self.orders.values_mut().filter(|order| order.queued && order.seq > self.read).collect();
        new.sort_by_key(|order| order.seq);
        for order in new.into_iter().take(count) {
            order.pending = true;
            self.read = order.seq;
        }
    }

    pub(super) fn begin(&mut self, batch: &[Named]) {
        self.begun = batch.iter().map(|named| self.begin_one(*named)).collect();
    }

    fn begin_one(&mut self, named: Named) -> Begun {
        if !matches!(named.entry, EntryOf::Nobody) && !self.holds(named) {
            return Begun::Gone;
        }
        let Some(order) = self.orders.get_mut(&named.order) else { return Begun::Missing };
        match order.state {
            State::Confirmed => Begun::Confirmed,
            State::Failed(_) => Begun::Failed,
            State::Queued | State::Processing => {
                order.state = State::Processing;
                Begun::Processing
            }
        }
    }

    /// The stream holds the named entry, and under the named order.
    fn holds(&self, Named { order, entry }: Named) -> bool {
        let itself = match entry {
            EntryOf::Itself => true,
            EntryOf::Nobody => false,
            EntryOf::Another(other) => other == order,
        };
        itself && self.orders.get(&order).is_some_and(|order| order.queued)
    }

    pub(super) fn settle(&mut self, batch: &[(Named, Verdict)]) {
        (self.missing, self.given_back) = (vec![], 0);
        for (named, verdict) in batch {
            self.settle_one(*named, *verdict);
        }
    }

    fn settle_one(&mut self, named: Named, verdict: Verdict) {
        let holds = self.holds(named);
        let admitted = |number: &Number| self.orders.contains_key(number);
        let holder = match verdict {
            Verdict::Confirmed => Some(named.order),
            Verdict::Failed(_, holder) => holder.filter(admitted),
            Verdict::Parked | Verdict::Unreadable => None,
        };
        let Some(order) = self.orders.get_mut(&named.order) else {
            if matches!(verdict, Verdict::Confirmed | Verdict::Failed(..)) {
                self.missing.push(named.order);
            }
            return;
        };
        if holds {
            (order.queued, order.pending) = (false, false);
        }
        if !matches!(order.state, State::Queued | State::Processing) {
            return;
        }
        order.state = match verdict {
            Verdict::Confirmed => State::Confirmed,
            Verdict::Failed(reason, _) => State::Failed(reason),
            Verdict::Parked | Verdict::Unreadable => return,
        };
        self.given_back += usize::from(matches!(verdict, Verdict::Failed(..)));
        if let Some(holder) = holder {
            self.keys.insert((order.request.user, order.request.key), holder);
        }
    }

    pub(super) fn set_price(&mut self, product: ProductId, price: i64) {
        self.products.get_mut(&product).expect("a product of the sale").price = price;
    }

    pub(super) fn set_state(&mut self, state: SaleState) {
        self.state = state;
    }
}

impl Request {
    fn units(&self, product: ProductId) -> i64 {
        self.items.iter().filter(|(id, _)| *id == product).map(|(_, units)| i64::from(units)).sum()
    }

    pub(super) fn fingerprint(&self, sale: SaleId) -> Fingerprint {
        Fingerprint::of(sale, &self.items)
    }
}
