//! Orders: what a buyer asks for, what the engine answers, and what becomes of it.

mod fingerprint;

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

pub(crate) use self::fingerprint::Fingerprint;
use crate::{
    ids::{IdempotencyKey, Invalid, OrderId, ProductId, RequestId, SaleId, UserId},
    money::Money,
};

/// Units in one line of an order: 1 … 1,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Quantity(u32);

impl Quantity {
    /// The most units that one line may ask for.
    pub const MAX: u32 = 1_000;

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<i64> for Quantity {
    type Error = Invalid;

    fn try_from(value: i64) -> Result<Self, Invalid> {
        match u32::try_from(value) {
            Ok(quantity @ 1..=Self::MAX) => Ok(Self(quantity)),
            _ => Err(Invalid::new("quantity", format!("must be between 1 and {}", Self::MAX))),
        }
    }
}

/// What an order asks for: each product once, sorted by product.
///
/// Lines of the same product are added up before anything is checked, so that two lines of two units are
/// judged as four.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Items(Vec<(ProductId, u32)>);

impl Items {
    /// The most lines of one order, before they are merged.
    pub const MAX_LINES: usize = 20;

    /// Adds up the lines of an order.
    pub fn merge(lines: impl IntoIterator<Item = (ProductId, Quantity)>) -> Result<Self, Invalid> {
        let mut lines: Vec<_> = lines.into_iter().map(|(product, units)| (product, units.get())).collect();
        match lines.len() {
            0 => Err(Invalid::new("items", "must hold at least one line")),
            1..=Self::MAX_LINES => {
                lines.sort_unstable();
                lines.dedup_by(|line, before| {
                    let same = line.0 == before.0;
                    before.1 += if same { line.1 } else { 0 };
                    same
                });
                Ok(Self(lines))
            }
            _ => Err(Invalid::new("items", format!("must hold at most {} lines", Self::MAX_LINES))),
        }
    }

    /// Of lines that name each product once.
    pub(crate) fn of_merged(mut lines: Vec<(ProductId, u32)>) -> Self {
        lines.sort_unstable();
        Self(lines)
    }

    /// Product and units, sorted by product.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ProductId, u32)> {
        self.0.iter().copied()
    }
}

/// A buyer's request, checked: everything that [`Engine::reserve`](crate::Engine::reserve) needs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OrderRequest {
    /// Who buys.
    pub user: UserId,
    /// The name of this purchase; repeating it is safe.
    pub key: IdempotencyKey,
    /// What they want.
    pub items: Items,
    /// What the request is called in the logs, so that what a drainer says of the order later can be found.
    /// A repeat under another one is the same order still.
    pub request_id: Option<RequestId>,
}

impl OrderRequest {
    /// An order of these items, under no request id.
    #[must_use]
    pub fn new(user: UserId, key: IdempotencyKey, items: Items) -> Self {
        Self { user, key, items, request_id: None }
    }
}

/// The answer to a request that could be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Admission {
    /// The buyer is in: stock and quota are taken and the order is queued for the ledger. It will end as
    /// `Confirmed` or `Failed` (P5).
    Admitted(OrderId),
    /// This key was admitted before with the same request: here is that order (P3).
    Replayed(OrderId),
    /// The buyer is not in, and nothing was left behind.
    Refused(Refusal),
}

impl Admission {
    /// The order that holds the buyer's units, if there is one.
    #[must_use]
    pub fn order_id(&self) -> Option<OrderId> {
        match self {
            Self::Admitted(id) | Self::Replayed(id) => Some(*id),
            Self::Refused(_) => None,
        }
    }
}

/// Why a buyer is not let in. An ordinary answer, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The key was used for another request.
    KeyReused,
    /// No sale sells this product.
    UnknownProduct(ProductId),
    /// The products belong to different sales; an order belongs to one.
    ItemsSpanSales,
    /// The sale's window has not begun.
    NotStarted,
    /// The operator has paused the sale.
    Paused,
    /// The sale's window is over, or the operator has closed it.
    Ended,
    /// The user would hold more than the product's limit.
    OverQuota {
        /// The product concerned.
        product: ProductId,
        /// Units that one user may hold.
        limit: u32,
        /// Units that this user holds already.
        held: u32,
    },
    /// Fewer units are left than were asked for.
    SoldOut {
        /// The product concerned.
        product: ProductId,
        /// Units left, never negative here.
        left: u32,
    },
}

impl Refusal {
    /// The word for it, as in the API's problem documents.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::KeyReused => "idempotency-key-reused",
            Self::UnknownProduct(_) => "unknown-product",
            Self::ItemsSpanSales => "items-span-sales",
            Self::NotStarted => "sale-not-open",
            Self::Paused => "sale-paused",
            Self::Ended => "sale-ended",
            Self::OverQuota { .. } => "over-quota",
            Self::SoldOut { .. } => "sold-out",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyReused => f.write_str("this idempotency key was used for another order; take a new key"),
            Self::UnknownProduct(id) => write!(f, "no sale sells product {id}"),
            Self::ItemsSpanSales => {
                f.write_str("the products belong to different sales; order them separately")
            }
            Self::NotStarted => f.write_str("the sale has not begun"),
            Self::Paused => f.write_str("the sale is paused"),
            Self::Ended => f.write_str("the sale is over"),
            Self::OverQuota { product, limit, held } => {
                write!(f, "one user may buy {limit} of product {product}, and this user holds {held}")
            }
            Self::SoldOut { product, left: 0 } => write!(f, "product {product} is sold out"),
            Self::SoldOut { product, left } => write!(f, "{left} left of product {product}"),
        }
    }
}

/// Where an order is on its way. It only moves forward (P8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub enum OrderState {
    /// Admitted, waiting for a drainer.
    Queued,
    /// In a drainer's hands, or parked for an operator.
    Processing,
    /// Recorded: the units are sold.
    Confirmed,
    /// Recorded: the units went back.
    Failed,
}

impl OrderState {
    /// Nothing changes any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Confirmed | Self::Failed)
    }

    /// The word for it, as in the API and in PostgreSQL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Processing => "Processing",
            Self::Confirmed => "Confirmed",
            Self::Failed => "Failed",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Queued, Self::Processing, Self::Confirmed, Self::Failed]
            .into_iter()
            .find(|s| s.as_str() == word)
    }
}

impl fmt::Display for OrderState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an admitted order failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailureReason {
    /// The ledger had fewer units than Redis believed.
    SoldOut,
    /// The ledger knew of more units of this user than Redis did.
    OverQuota,
    /// Another order holds the idempotency key.
    Duplicate,
    /// The sale does not sell the product.
    UnknownProduct,
    /// The database refused the order by a rule of its own.
    Rejected,
    /// An operator discarded the parked order.
    Discarded,
}

impl FailureReason {
    pub(crate) const ALL: [Self; 6] = [
        Self::SoldOut,
        Self::OverQuota,
        Self::Duplicate,
        Self::UnknownProduct,
        Self::Rejected,
        Self::Discarded,
    ];

    /// The word for it, as in the API and in both stores.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SoldOut => "sold-out",
            Self::OverQuota => "over-quota",
            Self::Duplicate => "duplicate",
            Self::UnknownProduct => "unknown-product",
            Self::Rejected => "rejected",
            Self::Discarded => "discarded",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a status look-up says of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OrderStatus {
    /// The order.
    pub id: OrderId,
    /// Where it is.
    pub state: OrderState,
    /// Why it failed, if it did.
    pub failure: Option<FailureReason>,
    /// When it came there.
    pub updated_at: DateTime<Utc>,
}

/// One line of a recorded order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OrderLine {
    /// The product.
    pub product: ProductId,
    /// Its name.
    pub product_name: String,
    /// Units.
    pub quantity: u32,
    /// The price of one unit, as it stood when the order was admitted (P7).
    pub unit_price: Money,
    /// Units times price.
    pub line_total: Money,
}

/// An order as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OrderRecord {
    /// The order.
    pub id: OrderId,
    /// Its sale.
    pub sale: SaleId,
    /// Its buyer.
    pub user: UserId,
    /// Its key; `None` for a duplicate, whose key belongs to [`duplicate_of`](Self::duplicate_of).
    pub key: Option<IdempotencyKey>,
    /// `Confirmed` or `Failed`.
    pub state: OrderState,
    /// Why it failed, if it did.
    pub failure: Option<FailureReason>,
    /// The order that holds the key, for a duplicate.
    pub duplicate_of: Option<OrderId>,
    /// The sum of its lines.
    pub total: Money,
    /// When it was admitted.
    pub created_at: DateTime<Utc>,
    /// When the ledger recorded it.
    pub recorded_at: DateTime<Utc>,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(product: i64, quantity: i64) -> (ProductId, Quantity) {
        (product.try_into().unwrap(), quantity.try_into().unwrap())
    }

    #[test]
    fn lines_of_one_product_are_one() {
        let items = Items::merge([line(2, 2), line(1, 1), line(2, 2)]).unwrap();
        assert_eq!(items.iter().map(|(p, q)| (p.get(), q)).collect::<Vec<_>>(), [(1, 1), (2, 4)]);
        assert!(Items::merge([]).is_err());
        assert!(Items::merge(vec![line(1, 1); 20]).is_ok());
        assert!(Items::merge(vec![line(1, 1); 21]).is_err());
        for bad in [0, -1, 1_001, i64::MAX] {
            assert!(Quantity::try_from(bad).is_err());
        }
    }
}
