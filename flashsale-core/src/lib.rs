//! Decides who gets one when a few hundred units go on sale and a hundred thousand people ask for them in the
//! same second. Redis admits a buyer in one round trip, and PostgreSQL, where an order becomes final, decides
//! again under the same limits.
//!
//! ```
//! use flashsale_core::{
//!     Admission, Created, Engine, EngineConfig, Items, Money, NewProduct, NewSale, OrderRecord, OrderRequest,
//!     ProductId, Quantity,
//! };
//! use tokio_util::sync::CancellationToken;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let (redis, postgres) = ("redis://127.0.0.1/", "postgres://flashsale@127.0.0.1/flashsale");
//! #   let stack = flashsale_stack::Stack::start(flashsale_stack::StackOptions::default()).await?;
//! #   let (redis, postgres) = (stack.redis_url(), stack.database_url());
//!     let engine = Engine::connect(EngineConfig::new(redis, postgres)).await?;
//!     engine.migrate().await?;
//!
//!     let usd = "USD".parse()?;
//!     let (starts_at, ends_at) = ("2026-01-01T12:00:00Z".parse()?, "2099-01-01T12:00:00Z".parse()?);
//!     let headphones = NewProduct {
//!         id: Some(ProductId::try_from(1)?),
//!         name: "Headphones".to_owned(),
//!         description: String::new(),
//!         image_url: String::new(),
//!         original_price: Money::parse("399.99", usd)?,
//!         sale_price: Money::parse("249.99", usd)?,
//!         stock: 500,
//!         per_user_limit: 3,
//!     };
//!     let (slug, name) = ("noon".to_owned(), "Noon".to_owned());
//!     let sale = NewSale { slug, name, currency: usd, starts_at, ends_at, products: vec![headphones] };
//!     // Creating a sale whose slug exists changes nothing.
//!     let (Created::New(sale) | Created::Exists(sale)) = engine.operator().create_sale(&sale).await?;
//!
//!     // The keeper loads sales into Redis; the drainer makes orders final; the notifier calls your own code for
//!     // each that is. Once each, in any process, is enough.
//!     let shutdown = CancellationToken::new();
//!     let mut keeper = engine.keeper();
//!     keeper.keep_once().await?; // Now, rather than in half a second.
//!     let keeping = tokio::spawn(keeper.run(shutdown.clone()));
//!     let draining = tokio::spawn(engine.drainer().run(shutdown.clone()));
//!     let send_mail = async |order: OrderRecord| {
//!         println!("to {}: {} for {}", order.user, order.state, order.total);
//!         Ok::<_, std::io::Error>(()) // An error means: call me again later.
//!     };
//!     let notifier = engine.notifier("mail", send_mail).await?;
//!     let notifying = tokio::spawn(notifier.run(shutdown.clone()));
//!
//!     let items = Items::merge([(ProductId::try_from(1)?, Quantity::try_from(2)?)])?;
//!     let request = OrderRequest::new("alice".parse()?, "alice-1".parse()?, items);
//!     match engine.reserve(request).await? {
//!         Admission::Admitted(id) | Admission::Replayed(id) => {
//!             // Queued at first, then Confirmed or Failed once a drainer has recorded it.
//!             let mut watch = engine.watch_order(id).await?.expect("it was admitted");
//!             while let Some(order) = watch.next().await? {
//!                 println!("sale {sale}, order {id}: {}", order.state);
//! #               if order.state.is_final() { assert_eq!(order.state, flashsale_core::OrderState::Confirmed); }
//!             }
//!         }
//!         Admission::Refused(why) => println!("refused: {why}"),
//!         other => println!("{other:?}"),
//!     }
//!
//!     shutdown.cancel();
//!     for task in [keeping, draining, notifying] {
//!         task.await?;
//!     }
//!     engine.close().await;
//!     Ok(())
//! }
//! ```
//!
//! # The main types
//!
//! - [`Engine`] is the facade: [`reserve`](Engine::reserve), [`order_status`](Engine::order_status),
//!   [`watch_order`](Engine::watch_order), [`active_products`](Engine::active_products),
//!   [`orders_of`](Engine::orders_of), [`cart`](Engine::cart). Cheap to clone. [`EngineConfig`] says where the stores
//!   are, by URL or by a client and a pool that you have already, and holds the limits.
//! - [`OrderRequest`] is what a buyer asks for, made of values that were checked when they were parsed:
//!   [`UserId`], [`IdempotencyKey`], [`Items`]. [`Admission`] is the answer. A [`Refusal`] such as "sold
//!   out" is an answer, not an error.
//! - [`Drainer`] takes admitted orders from the queue to the record. Without one, orders stay `Queued`.
//! - [`Keeper`] loads sales into Redis, recovers them there and carries what operators change. Without
//!   one, a new sale sells nothing.
//! - [`Notifier`] calls your own code for every order that became final, at least once: for payments and mails.
//! - [`Operator`] creates, pauses and closes sales, changes their window and, by difference, their stock
//!   ([`change_stock`](Operator::change_stock)), looks into orders and queues, ends parked orders, audits and
//!   recovers.
//! - [`Monitor`] shows stock, queues, dead letters and fenced sales as gauges. They and everything that the
//!   engine counts go to the recorder of the [`metrics`](https://docs.rs/metrics) crate that is installed:
//!   install it before [`Engine::connect`].
//! - [`Auditor`] computes the invariants while sales are selling, shows them as gauges and raises an alarm that
//!   names what is wrong.
//! - [`Error`] is opaque; ask it [`is_transient`](Error::is_transient),
//!   [`outcome_unknown`](Error::outcome_unknown), [`is_fenced`](Error::is_fenced).
//!
//! Those that work in the background all have the same shape: one function does one unit of work and says what it
//! did, for tests and for programs that decide themselves when; `run` does unit after unit until its
//! [`CancellationToken`](tokio_util::sync::CancellationToken) is cancelled, and ends in good order. None of them is
//! started by [`Engine::connect`]: which process does what is yours to choose. They need a Tokio runtime, and log by
//! way of [`tracing`](https://docs.rs/tracing).
//!
//! # Promises
//!
//! The documentation of single items names them by number.
//!
//! - **P1** Never oversold: the confirmed units of a product never exceed its stock, whatever Redis
//!   forgets.
//! - **P2** Never above a product's limit per user, over all of a user's orders of the sale.
//! - **P3** One order per sale, user and idempotency key. A repeat gets the same order; another order
//!   under the same key is refused.
//! - **P4** An order of several items is admitted whole or not at all.
//! - **P5** Every admitted order ends as `Confirmed` or `Failed`, also when any of our processes dies or
//!   PostgreSQL is away. A parked order stays `Processing` until an operator ends it.
//! - **P6** Stock and quota of a failed order go back exactly once, those of a confirmed order never.
//! - **P7** The price is the one that stood when the order was admitted.
//! - **P8** The status that [`Engine::order_status`] shows only moves forward.
//! - **P9** What a killed or stopped drainer had in hand is taken over within 10 seconds by another one.
//! - **P10** When the outcome of a call is not known, the error says so, and repeating the request with
//!   the same key is safe and tells.
//!
//! A Redis that loses writes can take with it orders that were admitted and not recorded yet: those break P5.
//! It cannot bring about an oversell, and no recorded order is lost. A PostgreSQL that loses commits loses the
//! orders of those commits. Whether the two stores are set up so that all of this holds, [`Engine::preflight`] says.
//!
//! # Errors
//!
//! Whatever asks a store may fail as [transient](Error::is_transient): the store is away, or the sale is fenced.
//! Such a call may be repeated; an operator's change is then made once, and an order by its key. What else a
//! function fails with, it says itself. No function panics for what a buyer, a store or the network does.
//!
//! # What it does not do
//!
//! - No payment: an order is `Confirmed` when its units are sold to it. There is no window to pay in, no
//!   cancelling and no refund; a [`Notifier`] can begin a payment, but not undo an order.
//! - One Redis node: a hot sale is not spread over several, and a Redis Cluster is not spoken to.
//! - Prices, limits and the list of products of a sale cannot be changed once it is created. Stock and window can.
//! - No HTTP, no authentication: it believes the [`UserId`] that it is given.
//!
//! It is made for Redis 7.0 and newer or Valkey, and for PostgreSQL 12 and newer.

#![deny(missing_docs)]

mod audit;
mod auditor;
mod cart;
mod catalog;
mod config;
mod dead_letters;
mod drainer;
mod engine;
mod error;
mod export;
mod ids;
mod keeper;
mod keys;
mod lanes;
mod ledger;
mod link;
mod live;
mod load;
mod metrics;
mod money;
mod monitor;
mod notifier;
mod operator;
mod order;
mod packed;
mod preflight;
mod queue;
mod queue_stats;
mod rate_limit;
mod readiness;
mod sale;
mod scripts;
mod sql;
mod status;
mod stock;
mod stores;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;
mod watch;

pub use audit::{AuditReport, Invariant, InvariantCheck};
pub use auditor::Auditor;
pub use cart::{Cart, CartChange, CartLine};
pub use config::{EngineConfig, PostgresStore, RedisStore};
pub use dead_letters::{DeadLetter, Ended};
pub use drainer::{Drained, Drainer};
pub use engine::Engine;
pub use error::{Error, Result};
pub use export::OrderExport;
pub use ids::{IdempotencyKey, Invalid, OrderId, ProductId, RequestId, SaleId, UserId};
pub use keeper::Keeper;
pub use live::{LiveSale, Tally};
pub use load::LoadProgress;
pub use money::{Currency, Money};
pub use monitor::Monitor;
pub use notifier::{Notified, Notifier, Subscriber};
pub use operator::{Created, LiveStock, Operator, OperatorAction, OrderFilter, RecoverDiff, WindowChange};
pub use order::{
    Admission, FailureReason, Items, OrderLine, OrderRecord, OrderRequest, OrderState, OrderStatus, Quantity,
    Refusal,
};
pub use preflight::{Finding, Verdict};
pub use queue_stats::{ConsumerStats, QueueStats};
pub use rate_limit::{RateDecision, RateLimit};
pub use readiness::Dependency;
pub use sale::{ActiveProduct, Epoch, NewProduct, NewSale, Product, Sale, SaleState, Seq};
#[doc(hidden)]
pub use scripts::seam;
pub use stock::{ChangeOutcome, NewStockChange, StockChange};
pub use watch::OrderWatch;
/// The versions of the clients that [`EngineConfig::new`] takes.
pub use {chrono, redis, sqlx};
