//! Sales and their products, as the record (PostgreSQL) knows them.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{
    ids::{Invalid, ProductId, SaleId, checked_slug},
    money::{Currency, Money},
};

/// What an operator wants of a sale. The window is judged beside it, by Redis's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SaleState {
    /// Sells while its window is open.
    Open,
    /// Sells nothing until it is resumed.
    Paused,
    /// Sells nothing any more.
    Closed,
}

impl SaleState {
    pub(crate) const ALL: [Self; 3] = [Self::Open, Self::Paused, Self::Closed];

    /// The word that stands for it in both stores.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Closed => "closed",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl fmt::Display for SaleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The version of a sale's state in Redis: it rises each time the sale is loaded there. `sales.epoch` in
/// PostgreSQL is its only source. A script or a ledger write under another epoch changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Default)]
pub struct Epoch(pub(crate) i64);

impl Epoch {
    /// The number itself; 0 is a sale that was never loaded.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of an order in its sale's admissions. It only rises, over all epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Default)]
pub struct Seq(pub(crate) i64);

impl Seq {
    /// The number itself; the first admission is 1.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A sale: a window, a currency, products.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Sale {
    /// Its id, made by the database.
    pub id: SaleId,
    /// Its name for scripts: unique, and what makes seeding repeatable.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// The currency of all its prices.
    pub currency: Currency,
    /// From this instant on it sells, judged by Redis's clock.
    pub starts_at: DateTime<Utc>,
    /// From this instant on it sells no more.
    pub ends_at: DateTime<Utc>,
    /// What the operator wants of it.
    pub state: SaleState,
    /// Under which epoch it stands.
    pub epoch: Epoch,
    /// The last epoch whose load was completed; the sale can sell only when it equals `epoch`.
    pub loaded_epoch: Epoch,
    /// The highest admission sequence that the ledger has recorded. A Redis below it has gone back in time.
    pub recorded_seq: Seq,
    /// Somebody saw that Redis is wrong under this epoch (0: nobody); the keeper recovers it.
    pub recover_requested: Epoch,
    /// When its keys were removed from Redis, a day after its end. Such a sale is never loaded again.
    pub purged_at: Option<DateTime<Utc>>,
    /// The last change of its stock that was asked for.
    #[serde(skip)]
    pub(crate) changes_wanted: i64,
    /// The last one that `products` contain, or that was refused: the same, or the one before.
    #[serde(skip)]
    pub(crate) changes_settled: i64,
    /// What it sells, by product id.
    pub products: Vec<Product>,
}

impl Sale {
    /// The product of this id, if the sale sells it.
    #[must_use]
    pub fn product(&self, id: ProductId) -> Option<&Product> {
        self.products.iter().find(|product| product.id == id)
    }

    /// Redis holds it under the epoch under which it stands, by the record.
    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded_epoch == self.epoch && self.epoch > Epoch(0)
    }

    /// Its first instant and its end as Redis keeps them: Unix milliseconds.
    pub(crate) fn window_ms(&self) -> (i64, i64) {
        (self.starts_at.timestamp_millis(), self.ends_at.timestamp_millis())
    }
}

/// Something that a sale sells.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Product {
    /// Its id, unique over all sales.
    pub id: ProductId,
    /// Its name for people.
    pub name: String,
    /// What it is, in a sentence.
    pub description: String,
    /// Where its picture is; may be empty.
    pub image_url: String,
    /// The price outside the sale.
    pub original_price: Money,
    /// The price in the sale.
    pub sale_price: Money,
    /// Units that the sale may sell, in total.
    pub stock: u32,
    /// Units of confirmed orders, by the ledger.
    pub sold: u32,
    /// Units that one user may buy over all orders of the sale.
    pub per_user_limit: u32,
}

/// A product on sale now, with the units that Redis has left: what a shop's front page shows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ActiveProduct {
    /// The sale that sells it.
    pub sale: SaleId,
    /// When the sale began.
    pub starts_at: DateTime<Utc>,
    /// When the sale ends.
    pub ends_at: DateTime<Utc>,
    /// The product.
    pub product: Product,
    /// Units left right now; never negative here.
    pub stock_remaining: u32,
    /// Whole seconds until the sale ends, by Redis's clock.
    pub seconds_remaining: u64,
}

/// A sale to be created.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSale {
    /// Unique name for scripts: creating a sale under a slug that exists changes nothing.
    pub slug: String,
    /// Name for people.
    pub name: String,
    /// Currency of all prices.
    pub currency: Currency,
    /// Beginning of the window.
    pub starts_at: DateTime<Utc>,
    /// End of the window.
    pub ends_at: DateTime<Utc>,
    /// What it sells: at least one product.
    pub products: Vec<NewProduct>,
}

/// A product of a sale to be created.
#[derive(Debug, Clone, PartialEq)]
pub struct NewProduct {
    /// Its id; `None`: the database makes one.
    pub id: Option<ProductId>,
    /// Name for people.
    pub name: String,
    /// A sentence for people.
    pub description: String,
    /// Where its picture is; may be empty.
    pub image_url: String,
    /// The price outside the sale.
    pub original_price: Money,
    /// The price in the sale.
    pub sale_price: Money,
    /// Units to sell: 1 … 10,000,000.
    pub stock: u32,
    /// Units per user: 1 … 1,000.
    pub per_user_limit: u32,
}

impl NewSale {
    /// Most products of one sale.
    pub const MAX_PRODUCTS: usize = 1_000;
    /// Most units of one product.
    pub const MAX_STOCK: u32 = 10_000_000;
    /// Highest price, in minor units: leaves room to add up 20,000 of them.
    pub const MAX_PRICE: i64 = 100_000_000_000;

    /// Checks everything that can be checked without the database.
    pub fn validate(&self) -> Result<(), Invalid> {
        checked_slug("slug", &self.slug)?;
        require((1..=200).contains(&self.name.len()), "name", "must be 1-200 bytes long")?;
        require(is_plain(&self.name), "name", NOT_PLAIN)?;
        require(self.starts_at < self.ends_at, "ends_at", "must be after starts_at")?;
        require(!self.products.is_empty(), "products", "must name at least one product")?;
        require(self.products.len() <= Self::MAX_PRODUCTS, "products", "must be at most 1000")?;
        let mut ids: Vec<_> = self.products.iter().filter_map(|product| product.id).collect();
        ids.sort_unstable();
        require(
            ids.windows(2).all(|pair| pair[0] != pair[1]),
            "products",
            "must not name the same id twice",
        )?;
        for (index, product) in self.products.iter().enumerate() {
            let in_product = |error: Invalid| {
                let field = format!("products[{index}].{}", error.field);
                error.in_field(field)
            };
            product.validate(self.currency).map_err(in_product)?;
        }
        Ok(())
    }
}

const NOT_PLAIN: &str = "must not hold control characters";

fn require(ok: bool, field: &str, reason: &str) -> Result<(), Invalid> {
    if ok { Ok(()) } else { Err(Invalid::new(field, reason)) }
}

/// Such a text can be shown on a terminal, and PostgreSQL can hold it.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\n')
}

impl NewProduct {
    fn validate(&self, currency: Currency) -> Result<(), Invalid> {
        require((1..=200).contains(&self.name.len()), "name", "must be 1-200 bytes long")?;
        for (text, field) in
            [(&self.name, "name"), (&self.description, "description"), (&self.image_url, "image_url")]
        {
            require(is_plain(text), field, NOT_PLAIN)?;
        }
        require(self.description.len() <= 4_000, "description", "must be at most 4000 bytes long")?;
        require(self.image_url.len() <= 2_000, "image_url", "must be at most 2000 bytes long")?;
        require((1..=NewSale::MAX_STOCK).contains(&self.stock), "stock", "must be between 1 and 10000000")?;
        require((1..=1_000).contains(&self.per_user_limit), "per_user_limit", "must be between 1 and 1000")?;
        for (price, field) in [(self.original_price, "original_price"), (self.sale_price, "sale_price")] {
            require(price.currency == currency, field, "must be in the sale's currency")?;
            require((0..=NewSale::MAX_PRICE).contains(&price.minor), field, "is out of range")?;
        }
        Ok(())
    }
}
