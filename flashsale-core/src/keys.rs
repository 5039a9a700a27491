//! Every name in Redis, in one place. Nothing else builds a key or a field.
//!
//! One sale is one hash slot: the sale id is the hash tag of all its keys, so that the scripts work on
//! Redis Cluster as they are. A later shard of a hot sale would put its number into the tag.

use std::net::IpAddr;

use crate::ids::{IdempotencyKey, OrderId, ProductId, SaleId, UserId};

/// The consumer group of every sale's queue.
pub(crate) const GROUP: &str = "drain";

/// The keys of one sale. Every script of a sale is given all of them, in this order.
#[derive(Debug, Clone)]
pub(crate) struct SaleKeys {
    /// Hash: epoch, state, window, seq, script version, run id of the server, load token and chunk number.
    pub sale: String,
    /// Hash: product → units left. May be negative after a recovery; never clamped.
    pub stock: String,
    /// Hash: product → per-user limit and price.
    pub product: String,
    /// Hash: who holds what; see the `book_` functions.
    pub book: String,
    /// Stream: admitted orders that are not settled yet.
    pub queue: String,
}

impl SaleKeys {
    pub(crate) fn new(sale: SaleId) -> Self {
        let key = |name| format!("fs:{{{sale}}}:{name}");
        Self {
            sale: key("sale"),
            stock: key("stock"),
            product: key("product"),
            book: key("book"),
            queue: key("queue"),
        }
    }

    pub(crate) fn all(&self) -> [&str; 5] {
        [&self.sale, &self.stock, &self.product, &self.book, &self.queue]
    }
}

/// Field of the book: which order a user's idempotency key stands for, and its fingerprint.
pub(crate) fn book_key(user: &UserId, key: &IdempotencyKey) -> String {
    format!("k/{user}/{key}")
}

/// Field of the book: units of a product that a user holds.
pub(crate) fn book_quota(user: &UserId, product: ProductId) -> String {
    format!("q/{user}/{product}")
}

/// Field of the book: an order's state. Present and not `F`: its units are out of stock.
pub(crate) fn book_order(order: OrderId) -> String {
    format!("o/{order}")
}

/// The fixed window of one client address.
pub(crate) fn rate(address: IpAddr) -> String {
    format!("fs:rate:{address}")
}

/// One name of each kind, to ask what is allowed with them. There may or may not be such keys.
pub(crate) fn samples() -> Vec<String> {
    let sale = SaleKeys::new(SaleId::try_from(1).expect("a sale's id"));
    let mut names = sale.all().map(str::to_owned).to_vec();
    names.push(rate(IpAddr::from([127, 0, 0, 1])));
    names.push(cart(&"preflight".parse().expect("a user's name")));
    names
}

/// A buyer's cart. Hash: product → quantity and currency.
pub(crate) fn cart(user: &UserId) -> String {
    format!("fs:cart:{user}")
}
