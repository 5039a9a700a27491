//! The flash-sale engine.

mod audit;
mod catalog;
mod config;
mod dead_letters;
mod drainer;
mod engine;
mod error;
mod ids;
mod keeper;
mod keys;
mod lanes;
mod ledger;
mod link;
mod load;
mod money;
mod operator;
mod order;
mod queue;
mod sale;
mod scripts;
mod sql;
mod status;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;

pub use audit::{AuditReport, Invariant, InvariantCheck};
pub use config::EngineConfig;
pub use dead_letters::{DeadLetter, Ended};
pub use drainer::{Drained, Drainer};
pub use engine::{Dependency, Engine, RateDecision, RateLimit};
pub use error::{Error, Result};
pub use ids::{IdempotencyKey, Invalid, OrderId, ProductId, SaleId, UserId};
pub use keeper::Keeper;
pub use load::LoadProgress;
pub use money::{Currency, Money};
pub use operator::{ConsumerStats, Created, LiveStock, Operator, OrderFilter, QueueStats, RecoverDiff};
pub use order::{
    Admission, FailureReason, Items, OrderLine, OrderRecord, OrderRequest, OrderState, OrderStatus, Quantity,
    Refusal,
};
pub use sale::{ActiveProduct, Epoch, NewProduct, NewSale, Product, Sale, SaleState, Seq};
