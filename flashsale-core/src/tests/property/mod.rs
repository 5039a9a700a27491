//! Random batches against the scripts on a real Redis and against a model of a sale: the same answers and,
//! after each step, the same state.
//!
//! Few users, keys, products and order ids, so that orders collide all the time.

mod lines;
mod live;
mod model;

use proptest::{collection::vec, prelude::*, sample::select};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use tokio::runtime::Runtime;

use self::{
    live::Live,
    model::{EntryOf, Named, Number, Product, Request, Sale, Verdict},
};
use crate::{FailureReason, Items, ProductId, Quantity, SaleState, scripts::Carry};

/// Products 1 to 3 are sold, 4 is not.
const SOLD: i64 = 3;
/// Order ids are picked from so many.
const NUMBERS: Number = 32;

#[derive(Debug, Clone)]
enum Step {
    Reserve(Vec<Request>),
    Read(usize),
    Begin(Vec<Named>),
    Settle(Vec<(Named, Verdict)>),
    Price(ProductId, i64),
    State(SaleState),
    /// A change of stock, numbered so far from the last one.
    Stock(i64, ProductId, Carry),
}

impl ReferenceStateMachine for Sale {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        let product = (1..=12i64, 1..=4u32, 0..=3i64).prop_map(|(stock, limit, price)| Product {
            stock,
            limit,
            price: price * 100,
        });
        vec(product, usize::try_from(SOLD).unwrap())
            .prop_map(|products| Self::new((1..).map(product_id).zip(products).collect()))
            .boxed()
    }

    fn transitions(sale: &Self) -> BoxedStrategy<Step> {
        let batch = |strategy: BoxedStrategy<Verdict>| vec((named(sale), strategy), 1..=6);
        prop_oneof![
            8 => vec(request(sale), 1..=6).prop_map(Step::Reserve),
            3 => (1..=4usize).prop_map(Step::Read),
            3 => vec(named(sale), 1..=6).prop_map(Step::Begin),
            6 => batch(verdict(sale)).prop_map(Step::Settle),
            1 => (1..=SOLD, 0..=9i64).prop_map(|(id, price)| Step::Price(product_id(id), price)),
            1 => select(vec![SaleState::Open, SaleState::Open, SaleState::Paused, SaleState::Closed])
                .prop_map(Step::State),
            2 => stock(),
        ]
        .boxed()
    }

    fn apply(mut sale: Self, step: &Step) -> Self {
        match step {
            Step::Reserve(batch) => sale.reserve(batch),
            Step::Read(count) => sale.read(*count),
            Step::Begin(batch) => sale.begin(batch),
            Step::Settle(batch) => sale.settle(batch),
            Step::Price(product, price) => sale.set_price(*product, *price),
            Step::State(state) => sale.set_state(*state),
            Step::Stock(ahead, product, carry) => sale.change_stock(*ahead, *product, *carry),
        }
        sale
    }
}

/// Mostly the next change, else one that comes again, late or early.
fn stock() -> impl Strategy<Value = Step> {
    let ahead = prop_oneof![4 => Just(1), 2 => Just(0), 1 => Just(-1), 1 => Just(2)];
    let carry = prop_oneof![
        (1..=4i64).prop_map(Carry::Add),
        // One that the record refused.
        Just(Carry::Add(0)),
        (1..=4i64).prop_map(Carry::Take),
    ];
    (ahead, (1..=SOLD).prop_map(product_id), carry)
        .prop_map(|(ahead, product, carry)| Step::Stock(ahead, product, carry))
}

fn product_id(id: i64) -> ProductId {
    ProductId::try_from(id).unwrap()
}

/// Mostly any request, else one that was admitted before, sent once more under another order id.
fn request(sale: &Sale) -> BoxedStrategy<Request> {
    let product = prop_oneof![20 => 1..=SOLD, 1 => Just(SOLD + 1)].prop_map(product_id);
    let line = (product, prop_oneof![4 => 1..=2i64, 1 => 3..=4i64])
        .prop_map(|(product, units)| (product, Quantity::try_from(units).unwrap()));
    let items = vec(line, 1..=3).prop_map(|lines| Items::merge(lines).unwrap());
    let any = (0..NUMBERS, 0..4u8, 0..4u8, items).prop_map(|(number, user, key, items)| Request {
        number,
        user,
        key,
        items,
    });
    let admitted: Vec<_> = sale.orders.values().map(|order| order.request.clone()).collect();
    if admitted.is_empty() {
        return any.boxed();
    }
    let again = (0..NUMBERS, select(admitted)).prop_map(|(number, request)| Request { number, ..request });
    prop_oneof![6 => any, 1 => again].boxed()
}

/// Mostly an order that was admitted, rarely any.
fn number(sale: &Sale) -> BoxedStrategy<Number> {
    let admitted: Vec<_> = sale.orders.keys().copied().collect();
    if admitted.is_empty() {
        return (0..NUMBERS).boxed();
    }
    prop_oneof![12 => select(admitted), 1 => 0..NUMBERS].boxed()
}

fn named(sale: &Sale) -> impl Strategy<Value = Named> + use<> {
    let entry = prop_oneof![
        6 => Just(EntryOf::Itself),
        1 => Just(EntryOf::Nobody),
        1 => number(sale).prop_map(EntryOf::Another),
    ];
    (number(sale), entry).prop_map(|(order, entry)| Named { order, entry })
}

fn verdict(sale: &Sale) -> BoxedStrategy<Verdict> {
    prop_oneof![
        4 => Just(Verdict::Confirmed),
        2 => Just(Verdict::Failed(FailureReason::SoldOut, None)),
        1 => Just(Verdict::Failed(FailureReason::Rejected, None)),
        1 => number(sale).prop_map(|holder| Verdict::Failed(FailureReason::Duplicate, Some(holder))),
        1 => Just(Verdict::Parked),
        1 => Just(Verdict::Unreadable),
    ]
    .boxed()
}

/// A sale on Redis, with the runtime that its connection lives on.
struct Test {
    runtime: Runtime,
    live: Live,
}

impl StateMachineTest for Test {
    type SystemUnderTest = Self;
    type Reference = Sale;

    fn init_test(model: &Sale) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let live = runtime.block_on(Live::open(model));
        Self { runtime, live }
    }

    fn apply(mut test: Self, model: &Sale, step: Step) -> Self {
        test.runtime.block_on(async {
            test.live.apply(model, &step).await;
            test.live.compare(model).await;
        });
        test
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn scripts_do_as_the_model_does(sequential 1..24 => Test);
}
