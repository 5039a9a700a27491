//! The sale on Redis, taken through the same steps as the model.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
};

use redis::FromRedisValue;

use super::{
    NUMBERS, Step,
    lines::{name_key, name_user},
    model::{Answer, EntryOf, Named, Number, Sale, State, Verdict},
};
use crate::{
    OrderId, ProductId, SaleId,
    keys::{BookField, GROUP, SaleKeys, book_order},
    link::Link,
    order::Fingerprint,
    packed::BookState,
    queue::{self, Entry, Holding},
    sale::Seq,
    scripts::{
        self, Reservation, Reserved, Settled, Settlement, begin, carry_state, change_stock, reserve, settle,
    },
    test_support,
    tests::{
        BOUND,
        scripts::scene::{EPOCH, WINDOW_MS, fresh_sale, link, load_sale, order_id},
    },
};

/// Names and values of an entry.
type Fields = Vec<(String, Vec<u8>)>;

pub(super) struct Live {
    link: Link,
    sale: SaleId,
    keys: SaleKeys,
    /// The ids of all entries that ever were.
    entries: HashMap<Number, String>,
    /// The orders' states as they were last read, with their instants.
    states: BTreeMap<OrderId, BookState>,
}

impl Live {
    pub(super) async fn open(model: &Sale) -> Self {
        let (link, sale) = (link(test_support::stack().await.redis_url()), fresh_sale());
        let keys = SaleKeys::new(sale);
        let product = |(id, product): (&ProductId, &super::model::Product)| {
            (id.get(), product.stock, product.limit, product.price)
        };
        let products: Vec<_> = model.products.iter().map(product).collect();
        load_sale(&link, &keys, EPOCH, &products).await;
        Self { link, sale, keys, entries: HashMap::new(), states: BTreeMap::new() }
    }

    /// Takes the step that the model has taken, and compares the answers.
    pub(super) async fn apply(&self, model: &Sale, step: &Step) {
        let Self { link, sale, keys, .. } = self;
        match step {
            Step::Reserve(batch) => self.reserve(model, batch).await,
            Step::Read(count) => {
                let mut command = redis::cmd("XREADGROUP");
                command.arg("GROUP").arg(GROUP).arg("me").arg("COUNT").arg(*count);
                command.arg("STREAMS").arg(&keys.queue).arg(">");
                let _: redis::Value = link.query(&command).await.unwrap();
            }
            Step::Begin(batch) => {
                let entries: Vec<_> = batch.iter().map(|named| self.entry(*named)).collect();
                assert_eq!(begin(link, keys, EPOCH, &entries).await.unwrap(), model.begun, "begin's answers");
            }
            Step::Settle(batch) => {
                let settlement =
                    |(named, verdict): &(Named, Verdict)| self.settlement(model, *named, *verdict);
                let batch: Vec<_> = batch.iter().map(settlement).collect();
                let expected = Settled {
                    missing: model
                        .missing
                        .iter()
                        .map(|number| book_order(order_id(*sale, *number)))
                        .collect(),
                    given_back: model.given_back,
                };
                assert_eq!(settle(link, keys, EPOCH, &batch).await.unwrap(), expected, "settle's answers");
            }
            Step::Price(product, price) => {
                let terms = format!("{}:{price}", model.products[product].limit);
                let mut command = redis::cmd("HSET");
                command.arg(&keys.product).arg(product.get()).arg(terms);
                link.query::<()>(&command).await.unwrap();
            }
            Step::Stock(ahead, product, carry) => {
                // The model has taken the step, which may have made it the last one.
                let applied = i64::from(*ahead == 1);
                let number = model.changes - applied + ahead;
                let carried = change_stock(link, keys, EPOCH, number, *product, *carry).await.unwrap();
                assert_eq!(Some(carried), model.carried, "stock's answer");
            }
            Step::State(state) => {
                carry_state(link, keys, EPOCH, *state, WINDOW_MS.0, WINDOW_MS.1).await.unwrap();
            }
        }
    }

    async fn reserve(&self, model: &Sale, batch: &[super::Request]) {
        let order = |request: &super::Request| Reservation {
            id: order_id(self.sale, request.number),
            user: name_user(request.user),
            key: name_key(request.key),
            fingerprint: request.fingerprint(self.sale),
            items: request.items.clone(),
            request_id: None,
        };
        let orders: Vec<_> = batch.iter().map(order).collect();
        let orders: Vec<_> = orders.iter().collect();
        let reserved = reserve(&self.link, &self.keys, EPOCH, Seq(0), i64::MAX, &orders, BOUND).await;
        let Ok(Reserved::Decided { seq, answers, .. }) = reserved else {
            panic!("not decided: {reserved:?}")
        };
        let answer = |answer: &Answer| match answer {
            Answer::Admitted => scripts::Answer::Admitted,
            Answer::Replayed(number) => scripts::Answer::Replayed(order_id(self.sale, *number)),
            Answer::IdTaken => scripts::Answer::IdTaken,
            Answer::Refused(refusal) => scripts::Answer::Refused(refusal.clone()),
        };
        let expected: Vec<_> = model.answers.iter().map(answer).collect();
        assert_eq!((seq.get(), answers), (model.seq, expected), "reserve's answers");
    }

    fn entry(&self, named: Named) -> Entry {
        let number = match named.entry {
            EntryOf::Itself => Some(named.order),
            EntryOf::Another(number) => Some(number),
            EntryOf::Nobody => None,
        };
        // An order that was never admitted has no entry; this one was never in any stream.
        let id = number.map(|number| self.entries.get(&number).map_or("1-1", String::as_str));
        let order = order_id(self.sale, named.order).packed().to_vec();
        Entry { id: id.unwrap_or_default().to_owned(), fields: vec![b"order".to_vec(), order] }
    }

    fn settlement(&self, model: &Sale, named: Named, verdict: Verdict) -> Settlement {
        let id = order_id(self.sale, named.order);
        let holding = match model.orders.get(&named.order) {
            Some(order) => Holding {
                id,
                user: name_user(order.request.user),
                key: name_key(order.request.key),
                fingerprint: order.request.fingerprint(self.sale),
                seq: Seq(order.seq),
                units: order.request.items.iter().collect(),
            },
            // Of an order that nobody admitted, whatever it claims to hold.
            None => Holding {
                id,
                user: name_user(0),
                key: name_key(0),
                fingerprint: Fingerprint::UNKNOWN,
                seq: Seq(1),
                units: vec![(super::product_id(1), 1)],
            },
        };
        let key_holder = |number: Number| {
            let order = model.orders.get(&number)?;
            Some((order_id(self.sale, number), order.request.fingerprint(self.sale)))
        };
        let (holding, verdict) = match verdict {
            Verdict::Confirmed => (Some(holding), queue::Verdict::Confirmed),
            Verdict::Failed(reason, holder) => {
                let key_holder = holder.and_then(key_holder);
                (Some(holding), queue::Verdict::Failed { reason, key_holder })
            }
            Verdict::Parked => (Some(holding), queue::Verdict::Parked),
            Verdict::Unreadable => (None, queue::Verdict::Parked),
        };
        Settlement { entry: self.entry(named), holding, verdict }
    }

    /// Reads everything back: it holds the promises, and is what the model says.
    pub(super) async fn compare(&mut self, model: &Sale) {
        let seen = self.read_back().await;
        self.assert_promises(model).await;
        let expected = model.lines(self.sale);
        let mut difference = String::new();
        for line in expected.difference(&seen) {
            writeln!(difference, "  is missing: {}", self.show(line)).unwrap();
        }
        for line in seen.difference(&expected) {
            writeln!(difference, "  is there:   {}", self.show(line)).unwrap();
        }
        assert!(difference.is_empty(), "Redis is not as the model:\n{difference}");
    }

    /// What the model cannot get wrong together with the scripts, because it is read from Redis alone.
    async fn assert_promises(&mut self, model: &Sale) {
        let stock: BTreeMap<String, String> = self.hash(&self.keys.stock).await;
        let book: BTreeMap<Vec<u8>, Vec<u8>> = self.hash(&self.keys.book).await;
        let is_owed = |left: &String| left.parse::<i64>().is_ok_and(|left| left < 0);
        assert!(!stock.values().any(is_owed), "P1: {stock:?}");
        let mut states = BTreeMap::new();
        for (field, value) in book {
            match BookField::read(&field, self.sale).expect("a field of the book") {
                BookField::Quota(user, product) => {
                    let held: i64 = String::from_utf8(value).unwrap().parse().unwrap();
                    let limit = i64::from(model.products[&product].limit);
                    assert!((0..=limit).contains(&held), "P2: {user} holds {held} of {product}");
                }
                BookField::Order(id) => drop(states.insert(id, BookState::unpack(&value).expect("a state"))),
                BookField::Key(..) | BookField::Epoch => {}
            }
        }
        for (order, before) in &self.states {
            let now = states.get(order).unwrap_or_else(|| panic!("P8: {order} is gone, it was {before:?}"));
            let forward = now.state > before.state && !before.state.is_final() || now == before;
            assert!(forward, "P8: {order} went from {before:?} to {now:?}");
        }
        self.states = states;
    }

    async fn read_back(&mut self) -> BTreeSet<String> {
        let mut lines = BTreeSet::new();
        let sale: BTreeMap<String, String> = self.hash(&self.keys.sale).await;
        lines.insert(format!("sale {} seq {}", sale["state"], sale["seq"]));
        for (name, key) in [("stock", &self.keys.stock), ("product", &self.keys.product)] {
            let hash: BTreeMap<String, String> = self.hash(key).await;
            lines.extend(hash.iter().map(|(field, value)| format!("{name} {field} {value}")));
        }
        let book: BTreeMap<Vec<u8>, Vec<u8>> = self.hash(&self.keys.book).await;
        for (field, value) in &book {
            // A state's instant is not the model's concern.
            let state = BookState::unpack(value).filter(|_| field.starts_with(b"o")).map(State::of);
            let value = state.map_or_else(|| value.escape_ascii().to_string(), State::text);
            lines.insert(format!("book {} {value}", field.escape_ascii()));
        }
        let entries: Vec<(String, Fields)> =
            self.query(redis::cmd("XRANGE").arg(&self.keys.queue).arg("-").arg("+")).await;
        let ids: HashMap<_, _> =
            (0..NUMBERS).map(|number| (order_id(self.sale, number).packed().to_vec(), number)).collect();
        for (entry, fields) in entries {
            self.entries.insert(ids[&fields[0].1], entry);
            let field = |(name, value): &(String, Vec<u8>)| format!("{name}={}", value.escape_ascii());
            let fields: Vec<_> = fields.iter().map(field).collect();
            lines.insert(format!("queue {}", fields.join(" ")));
        }
        let mut pending = redis::cmd("XPENDING");
        pending.arg(&self.keys.queue).arg(GROUP).arg("-").arg("+").arg(1000);
        let pending: Vec<(String, String, i64, i64)> = self.query(&pending).await;
        for (entry, ..) in pending {
            let order = self.entries.iter().find(|(_, id)| **id == entry).map(|(number, _)| *number);
            lines.insert(format!("pending {}", order_id(self.sale, order.expect("an entry that was seen"))));
        }
        lines
    }

    async fn hash<T: FromRedisValue>(&self, key: &str) -> T {
        self.query(redis::cmd("HGETALL").arg(key)).await
    }

    async fn query<T: FromRedisValue>(&self, command: &redis::Cmd) -> T {
        self.link.query(command).await.unwrap()
    }

    /// Orders by their numbers.
    fn show(&self, line: &str) -> String {
        (0..NUMBERS).fold(line.to_owned(), |line, number| {
            let (id, name) = (order_id(self.sale, number), format!("#{number}"));
            line.replace(&id.to_string(), &name).replace(&id.packed().escape_ascii().to_string(), &name)
        })
    }
}
